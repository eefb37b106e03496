"""Weekly and monthly work is no surprise on the day it is due, and is one on another."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from pyspark.sql import SparkSession

from raretrail.baseline.history import history_of, to_values, with_first_uses
from raretrail.detect.surprise import to_surprises

START = 20000
pytestmark = pytest.mark.integration

# Who: days of use, the day asked, the cadence and the day it expects the next use, whether that is now.
CASES: dict[str, tuple[tuple[int, ...], int, int | None, int | None, bool]] = {
    "weekly": ((0, 7, 14), 21, 7, 21, True),
    "a day late": ((0, 7, 14), 22, 7, 21, True),
    "between": ((0, 7, 14), 17, 7, 21, False),
    "monthly": ((1, 31, 62), 90, 31, 93, True),
    "monthly, early": ((1, 31, 62), 80, 31, 93, False),
    "the first left the 90 days": ((0, 30, 61), 91, None, None, False),
    "irregular": ((0, 7, 20), 27, None, None, False),
    "twice": ((0, 7), 14, None, None, False),
    "daily": ((0, 1, 2), 3, None, None, False),
}


def test_a_command_with_a_cadence_is_expected_when_it_is_due(spark: SparkSession) -> None:
    rows = {
        ("command", who, command, START + day, True)
        for who, (uses, asked, *_) in CASES.items()
        for command, days in (("s3:ListBuckets", range(asked + 1)), ("rds:Reboot", (*uses, asked)))
        for day in days
    }
    frame = spark.createDataFrame(
        sorted(rows), "dimension string, identity string, value string, day int, is_actor boolean"
    )
    known = with_first_uses(frame)
    pairs = spark.createDataFrame([], "kind string, command string, value string, day int")
    nearest = spark.createDataFrame(
        [],
        "as_of int, identity string, value string, nearest_place string, nearest_place_km double, "
        "near_reach_km double, near boolean, known_places bigint, known_countries array<string>",
    )
    surprises = to_surprises(history_of(known, to_values(known), pairs), nearest)
    found = {(row.identity, row.as_of): row for row in surprises.where("value = 'rds:Reboot'").collect()}
    for who, (_, asked, every, due, now) in CASES.items():
        row = found[who, START + asked]
        expected = due and date(1970, 1, 1) + timedelta(days=START + due)
        assert (row.cadence_days, row.expected_date, row.on_cadence) == (every, expected, now), who
        assert not now or row.bits == 0.0, who
    assert found["monthly, early", START + 80].bits > 0
