"""Elastic's record scores of staged findings, read from the baseline of their day or from the facts."""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail.baseline.history import WINDOW_DAYS
from raretrail.detect.elastic import event_name, record_scores, to_city_hours, to_record_scores, to_weights
from raretrail.stages.baseline import between
from raretrail.stages.locating import Geo, places_of
from raretrail.tables import BASELINE_CITY_ACTION, PRESENCE_DAILY
from raretrail.warehouse import Warehouse, on_days

COLUMNS = ("elastic_probability", "elastic_record_score")
# Up to so many findings are worked out here: for fewer a worker costs more than the arithmetic.
_FEW = 5000


def with_record_scores(
    findings: DataFrame, warehouse: Warehouse, geo: Geo, days: list[date], *, stored: bool
) -> DataFrame:
    """findings, stored ones, plus the columns of `COLUMNS`; null where there is no city.

    days are theirs, ascending. With stored, the weights are those of the baselines of these days;
    else they are made from the facts of the 90 days before, for the cities of findings alone.
    """
    keyed = findings.drop(*COLUMNS).withColumns(
        {"day": F.unix_date("bucket_date"), "hour": F.hour("bucket_start"), "event_name": event_name()}
    )
    asked = keyed.where("city_name IS NOT NULL").select(
        "city_name", F.col("day").alias("as_of"), "hour", "event_name"
    )
    few = asked.limit(_FEW + 1).collect() if stored else []
    presence, places = warehouse.read(PRESENCE_DAILY), places_of(warehouse, geo.build)
    today = presence.where(on_days("event_date", days))
    learnt = (
        warehouse.read(BASELINE_CITY_ACTION)
        .where(on_days("as_of", days))
        .withColumn("as_of", F.unix_date("as_of"))
    )
    if stored and len(few) <= _FEW:
        here = F.col("city_name").isin(sorted({row["city_name"] for row in few}))
        hours = to_city_hours(today, places.where(here)).collect() if few else []
        known = learnt.where(here).collect() if few else []
        scores = F.broadcast(record_scores(warehouse.spark, few, known, hours))
    else:
        cities = F.broadcast(asked.select("city_name").distinct())
        there = places.join(cities, "city_name", "left_semi")
        if not stored:
            shown = to_city_hours(between(presence, days[0] - timedelta(days=WINDOW_DAYS), days[-1]), there)
            moments = F.broadcast(asked.select("city_name", "as_of").distinct())
            learnt = to_weights(shown.join(moments, "city_name"))
        scores = to_record_scores(asked, learnt, to_city_hours(today, there))
    key = ["city_name", "day", "hour", "event_name"]
    return keyed.join(scores.withColumnRenamed("as_of", "day"), key, "left").drop(*key[1:])
