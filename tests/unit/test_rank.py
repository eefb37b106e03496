from __future__ import annotations

from datetime import date, timedelta

import pytest
from pyspark.sql import SparkSession

from raretrail.detect.rank import to_calibrations, with_score
from raretrail.settings import ScoreSettings

DAY = date(2026, 2, 1)


def scores(spark: SparkSession, bits: list[float], per_day: list[float], judged: int) -> list[float]:
    """Scores on DAY after `judged` days that each brought incidents of these bits."""
    days = [DAY - timedelta(days=back) for back in range(1, judged + 1)]
    known = [(day, value) for day in days for value in per_day] or [(DAY, 0.0)]
    incidents = spark.createDataFrame(known, "first_date date, bits double")
    calibrations = to_calibrations(spark, incidents, [DAY], days)
    rows = spark.createDataFrame([(DAY, b) for b in bits], "first_date date, bits double")
    found = with_score(rows, "first_date", calibrations, ScoreSettings()).collect()
    return [row.score for row in sorted(found, key=lambda row: bits.index(row.bits))]


@pytest.mark.integration
def test_a_score_is_a_number_of_incidents_a_day(spark: SparkSession) -> None:
    every_day, above = scores(spark, [14.0, 60.0], [14.0], 30)
    # One a day was seen, over 30 days and 7 of the prior.
    assert every_day == pytest.approx(100 / (1 + (30 + 7 * 0.5) / 37), abs=0.01)
    assert above > 98
    two, one = scores(spark, [12.0, 13.0], [12.0, 13.0], 30)
    assert two < one < 60


@pytest.mark.integration
def test_without_history_the_prior_decides(spark: SparkSession) -> None:
    assert scores(spark, [12.0, 14.0, 22.0], [], 0) == pytest.approx([50.0, 66.67, 96.97], abs=0.01)


@pytest.mark.integration
def test_only_the_thirty_days_before_count(spark: SparkSession) -> None:
    old = [(DAY - timedelta(days=31), 30.0), (DAY, 30.0), (DAY + timedelta(days=1), 30.0)]
    incidents = spark.createDataFrame(old, "first_date date, bits double")
    (row,) = to_calibrations(spark, incidents, [DAY], {day for day, _ in old}).collect()
    assert (row.judged_days, row.bits) == (0, [])


@pytest.mark.integration
def test_severity_follows_the_bands(spark: SparkSession) -> None:
    rows = spark.createDataFrame([(DAY, float(b)) for b in (10, 13, 16, 60)], "first_date date, bits double")
    none = to_calibrations(spark, rows.limit(0), [DAY], set())
    found = {r.bits: r.severity for r in with_score(rows, "first_date", none, ScoreSettings()).collect()}
    assert found == {10.0: "low", 13.0: "medium", 16.0: "high", 60.0: "critical"}
