"""Spikes of the events being judged, against the baseline of their day or the facts before it."""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail.baseline.facts import to_error_quarter_hour
from raretrail.baseline.history import WINDOW_DAYS
from raretrail.detect.spike import (
    only_many,
    to_error_hours,
    to_error_quarters,
    to_habits,
    to_pooled,
    to_spikes,
)
from raretrail.stages.baseline import between
from raretrail.tables import BASELINE_ERROR_HOUR, ERROR_QUARTER_HOUR
from raretrail.warehouse import Warehouse, on_days


def spikes_of(
    warehouse: Warehouse, events: DataFrame, ages: DataFrame, days: list[date], *, stored: bool
) -> DataFrame | None:
    """`detect.spike.to_spikes` of events, which lie on days (ascending); ages as there. None without
    a quarter hour that has kinds enough, which is seldom and spares the rest.

    With stored, what is usual is what the baselines of these days say; else it is made from the facts
    of the 90 days before each.
    """
    if not only_many(to_error_quarters(to_error_quarter_hour(events))).take(1):
        return None
    if stored:
        habits = (
            warehouse.read(BASELINE_ERROR_HOUR)
            .where(on_days("as_of", days))
            .withColumn("as_of", F.unix_date("as_of"))
        )
    else:
        first = days[0] - timedelta(days=WINDOW_DAYS)
        facts = between(warehouse.read(ERROR_QUARTER_HOUR), first, days[-1])
        judged = warehouse.spark.createDataFrame([(day,) for day in days], "day date")
        moments = F.broadcast(judged.select(F.unix_date("day").alias("as_of")))
        habits = to_habits(to_error_hours(to_error_quarters(facts)).join(moments, how="cross"))
    return to_spikes(events, habits, to_pooled(habits), ages)
