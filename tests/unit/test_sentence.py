"""What a finding's sentence says of where its principal was seen until now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pyspark.sql import SparkSession

from raretrail.detect.findings import sentence
from raretrail.tables import ANOMALIES

pytestmark = pytest.mark.integration

NEW = {
    "command": "secretsmanager:GetSecretValue", "place_name": "Hanoi, VN", "place_days": 40,
    "command_place_days": 0, "principal_active_days": 61, "principal_place_days": 0,
    "nearest_place": "Lisbon, PT", "nearest_place_km": 10918.4, "known_places": 1,
    "known_countries": ["PT"], "maturity": 1.0, "baseline_days": 90, "error_code": "",
    "first_time": datetime(2026, 2, 1, tzinfo=UTC),
}  # fmt: skip
OPENING = "first secretsmanager:GetSecretValue from Hanoi, VN by anyone in 90 days"
SENTENCES: dict[str, tuple[dict[str, Any], str]] = {
    "one city": ({}, "; place new to them: on 61 active days seen only in Lisbon, PT (10,918 km)"),
    "two of one country": (
        {"known_places": 2},
        "; place new to them: on 61 active days seen in 2 cities, all in PT, the nearest "
        "Lisbon, PT (10,918 km)",
    ),
    "five of three countries": (
        {"known_places": 5, "known_countries": ["DE", "ES", "PT"]},
        "; place new to them: on 61 active days seen in 5 cities of 3 countries, the nearest "
        "Lisbon, PT (10,918 km)",
    ),
    "countries not told": (
        {"known_places": 2, "known_countries": []},
        "; place new to them: on 61 active days seen in 2 cities, the nearest Lisbon, PT (10,918 km)",
    ),
    "one day": (
        {"principal_active_days": 1},
        "; place new to them: on 1 active day seen only in Lisbon, PT (10,918 km)",
    ),
    "no city of theirs is known": (
        {"known_places": None, "known_countries": None, "nearest_place": None, "nearest_place_km": None},
        "; place new to them",
    ),
    "a place they know": ({"principal_place_days": 3, "known_places": None}, ""),
    "never seen": ({"principal_active_days": 0}, ""),
}  # fmt: skip


def test_the_sentence_says_where_they_were_seen_until_now(spark: SparkSession) -> None:
    rows = [
        {**dict.fromkeys(ANOMALIES.column_names), **NEW, **changed, "anomaly_id": case}
        for case, (changed, _) in SENTENCES.items()
    ]
    told = spark.createDataFrame(rows, ANOMALIES.spark_schema()).select(
        "anomaly_id", sentence().alias("told")
    )
    assert {row.anomaly_id: row.told for row in told.collect()} == {
        case: OPENING + ending for case, (_, ending) in SENTENCES.items()
    }
