"""Facts: who did what from where on which day. Everything statistical reads these, never events.

Each function takes events (columns of `tables.EVENTS`) of whole days and gives the facts of those
days, so that a day's facts are rewritten by replacing the day.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

_WHO = ("recipient_account_id", "principal", "principal_kind")


def _known(column: str) -> Column:
    return F.coalesce(F.col(column), F.lit(""))


def _counted() -> list[Column]:
    return [
        F.count(F.lit(1)).alias("event_count"),
        F.min("event_time").alias("first_time"),
        F.max("event_time").alias("last_time"),
    ]


def to_presence_daily(events: DataFrame) -> DataFrame:
    """`tables.PRESENCE_DAILY`: a row for day × account × principal × command × address × outcome."""
    return events.groupBy(
        "event_date",
        *_WHO,
        "command",
        _known("source_ip_address").alias("source_ip_address"),
        _known("error_code").alias("outcome"),
    ).agg(*_counted())


def to_agent_daily(events: DataFrame) -> DataFrame:
    """`tables.AGENT_DAILY`: a row for day × account × principal × user agent family."""
    return events.groupBy("event_date", *_WHO, _known("agent_family").alias("agent_family")).agg(*_counted())


def to_hour_daily(events: DataFrame) -> DataFrame:
    """`tables.HOUR_DAILY`: a row for day × account × principal × hour of the day, UTC."""
    return events.groupBy("event_date", *_WHO, F.hour("event_time").alias("hour")).agg(*_counted())


def to_error_quarter_hour(events: DataFrame) -> DataFrame:
    """`tables.ERROR_QUARTER_HOUR`: a row for quarter × account × principal × code × template."""
    return (
        events.where(F.col("error_code").isNotNull())
        .groupBy(
            "event_date",
            F.window("event_time", "15 minutes")["start"].alias("quarter_start"),
            *_WHO,
            "error_code",
            _known("error_template").alias("error_template"),
        )
        .agg(*_counted(), F.count_distinct("error_message").alias("distinct_messages"))
    )
