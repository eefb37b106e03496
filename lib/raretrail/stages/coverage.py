"""The coverage stage: what came from each account and region beside what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail.baseline.coverage import DELAY, WINDOW_DAYS, to_coverage, to_expected, to_scopes
from raretrail.show.silences import in_words, outermost
from raretrail.stages.baseline import between
from raretrail.stages.score import BUCKET, Window, bucket_of
from raretrail.tables import BASELINE_COVERAGE_HOUR, COVERAGE_HOURLY, REGION_HOUR
from raretrail.warehouse import Warehouse, on_days, rows_of


@dataclass(frozen=True)
class Silence:
    """What is silent by the latest hour judged: how many accounts and regions, and a sentence, or none."""

    count: int
    message: str | None


def latest_judged(now: datetime) -> datetime:
    """The start of the latest hour that is over for long enough to be judged."""
    return bucket_of(now - DELAY) - BUCKET


def days_of(window: Window, now: datetime) -> list[date]:
    """The days whose coverage a run of this window writes: whole days, since what comes late changes
    the hours after it too."""
    days = {*window.days, latest_judged(now).date()}
    return sorted(day for day in days if day <= now.date())


def cover(warehouse: Warehouse, window: Window, now: datetime) -> Silence:
    """Write `coverage_hourly` of the window's days up to now; what is silent.

    What is expected is what the baselines of these days say, where they are there; else it is made from
    the facts before each.
    """
    days = days_of(window, now)
    if not days:
        return Silence(0, None)
    first, end = days[0], days[-1] + timedelta(days=1)
    facts = warehouse.read(REGION_HOUR)
    expected = warehouse.carried(warehouse.read(BASELINE_COVERAGE_HOUR).where(on_days("as_of", days)))
    if {row["as_of"] for row in expected.select("as_of").distinct().collect()} >= set(days):
        expected = expected.withColumn("as_of", F.unix_date("as_of"))
    else:
        expected = expected_of(between(facts, first - timedelta(days=WINDOW_DAYS), end), days)
    came = warehouse.carried(to_scopes(between(facts, first, end).where(on_days("event_date", days))))
    warehouse.replace(
        COVERAGE_HOURLY, to_coverage(expected, came, now), on_days("event_date", days), few=True
    )
    return _silence(warehouse, latest_judged(now))


def expected_of(facts: DataFrame, days: Sequence[date]) -> DataFrame:
    """`to_expected` of these days, from the facts of the days before each."""
    judged = facts.sparkSession.createDataFrame([(day,) for day in days], "day date")
    return to_expected(to_scopes(facts), judged.select(F.unix_date("day").alias("as_of")))


def judged_hours(warehouse: Warehouse, window: Window, now: datetime) -> DataFrame:
    """The rows of `coverage_hourly` that a run of this window answers for."""
    latest = F.col("hour_start") == F.lit(latest_judged(now))
    return (
        warehouse.read(COVERAGE_HOURLY)
        .where(on_days("event_date", days_of(window, now)))
        .where((F.expr(window.holds("hour_start")) | latest) & (F.col("status") != "late"))
    )


def _silence(warehouse: Warehouse, hour: datetime) -> Silence:
    rows = rows_of(
        warehouse.read(COVERAGE_HOURLY)
        .where(on_days("event_date", [hour.date()]))
        .where((F.col("hour_start") == F.lit(hour)) & (F.col("status") == "silent"))
    )
    silent = outermost(rows)
    if not silent:
        return Silence(0, None)
    message = f"Silent: {in_words(silent)}. Quiet or blind: the view coverage says when a file last came"
    return Silence(len(silent), message)
