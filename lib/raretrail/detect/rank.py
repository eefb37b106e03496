"""Score: bits by their rank among the organisation's own recent incidents, so that a threshold is a
number of incidents a day.

    score = 100 / (1 + expected)
    expected = (above + PRIOR_DAYS * prior) / (judged + PRIOR_DAYS)

expected is how many incidents a day at least this unusual are to be expected; above counts those of
the judged days among the 30 before, judged is how many these are. At score 50 expect one such incident
a day, at 75 one in three days, at 90 one in nine; below 50 more than one. The prior stands in while few
days were judged: one a day at PRIOR_LEVEL bits, half as many for every PRIOR_HALVING more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, timedelta

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from raretrail.settings import ScoreSettings

DAYS = 30
PRIOR_DAYS = 7.0
PRIOR_LEVEL = 12.0
PRIOR_HALVING = 2.0
# Incidents kept of a calibration. One that more than these outrank scores under 4 in any case.
MOST = 1000


def to_calibrations(
    spark: SparkSession, incidents: DataFrame, days: Collection[date], judged: Collection[date]
) -> DataFrame:
    """`tables.CALIBRATIONS` of these days: the bits of the incidents of the 30 days before each.

    incidents: first_date, bits. judged are all days known to have been judged.
    """
    known = set(judged)
    rows = [
        (day, sum(day - timedelta(days=back) in known for back in range(1, DAYS + 1))) for day in sorted(days)
    ]
    asked = spark.createDataFrame(rows, "as_of date, judged_days int")
    before = (F.col("first_date") < F.col("as_of")) & (
        F.col("first_date") >= F.date_sub(F.col("as_of"), DAYS)
    )
    return (
        asked.join(incidents.select("first_date", "bits"), before, "left")
        .groupBy("as_of", "judged_days")
        .agg(F.slice(F.sort_array(F.collect_list("bits"), asc=False), 1, MOST).alias("bits"))
    )


def expected_per_day(bits: Column, calibrated: Column, judged_days: Column) -> Column:
    """Incidents a day at least this unusual, from a calibration; the prior alone where it is null."""
    above = F.coalesce(F.size(F.filter(calibrated, lambda known: known >= bits)), F.lit(0))
    prior = F.pow(F.lit(2.0), (PRIOR_LEVEL - bits) / PRIOR_HALVING)
    return (above + PRIOR_DAYS * prior) / (F.coalesce(judged_days, F.lit(0)) + PRIOR_DAYS)


def with_score(rows: DataFrame, day: str, calibrations: DataFrame, settings: ScoreSettings) -> DataFrame:
    """rows (with bits) plus score and severity, by the calibration of their column `day`."""
    own = calibrations.select(F.col("as_of").alias(day), "judged_days", F.col("bits").alias("calibrated"))
    expected = expected_per_day(F.col("bits"), F.col("calibrated"), F.col("judged_days"))
    return (
        rows.drop("score", "severity")
        .join(F.broadcast(own), day, "left")
        .withColumn("score", F.round(100 / (1 + expected), 2))
        .withColumn("severity", severity_of(F.col("score"), settings))
        .drop("judged_days", "calibrated")
    )


def severity_of(score: Column, settings: ScoreSettings) -> Column:
    """The band a score lies in."""
    severity = F.lit("low")
    bands: Sequence[str] = ("medium", "high", "critical")
    for band in bands:
        least = settings.severity.get(band)  # type: ignore[call-overload]
        if least is not None:
            severity = F.when(score >= least, F.lit(band)).otherwise(severity)
    return severity
