"""Facts: who did what from where on which day. Everything statistical reads these, never events.

Each function takes events (columns of `tables.EVENTS`) of whole days and gives the facts of those
days, so that a day's facts are rewritten by replacing the day.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

_WHO = ("recipient_account_id", "principal", "principal_kind", "actor")


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
    ).agg(
        *_counted(),
        F.bit_or(F.call_function("shiftleft", F.lit(1), F.hour("event_time"))).alias("hours"),
    )


def to_agent_daily(events: DataFrame) -> DataFrame:
    """`tables.AGENT_DAILY`: a row for day × account × principal × user agent family."""
    return events.groupBy("event_date", *_WHO, _known("agent_family").alias("agent_family")).agg(*_counted())


def to_hour_daily(events: DataFrame) -> DataFrame:
    """`tables.HOUR_DAILY`: a row for day × account × principal × hour of the day, UTC."""
    return events.groupBy("event_date", *_WHO, F.hour("event_time").alias("hour")).agg(*_counted())


def to_region_hour(events: DataFrame) -> DataFrame:
    """`tables.REGION_HOUR`: a row for hour × account × region."""
    return events.groupBy(
        "event_date",
        F.date_trunc("HOUR", "event_time").alias("hour_start"),
        "recipient_account_id",
        _known("aws_region").alias("aws_region"),
    ).agg(*_counted())


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


def to_moves_daily(events: DataFrame) -> DataFrame:
    """`tables.MOVES_DAILY`: a row for day × actor × address left × address gone to.

    Of what one actor did on a day, in order of time, each change of address; the quickest change
    between two addresses is kept. Only of people and of what goes by a name: a role's instances are at
    many addresses at once by nature.
    """
    someone = F.col("principal_kind").isin("person", "user", "root") | (F.col("actor") != F.col("principal"))
    order = Window.partitionBy("event_date", "actor").orderBy("event_time", "event_id")
    moved = (
        events.where(someone & F.col("source_ip_address").isNotNull())
        .select(
            "event_date",
            "actor",
            "event_time",
            "source_ip_address",
            F.lag("source_ip_address").over(order).alias("from_address"),
            F.lag("event_time").over(order).alias("left_at"),
        )
        .where("from_address <> source_ip_address")
        .withColumn("seconds", F.unix_seconds("event_time") - F.unix_seconds("left_at"))
    )
    return moved.groupBy("event_date", "actor", "from_address", "source_ip_address").agg(
        F.min("seconds").alias("seconds"), F.min("event_time").alias("first_time")
    )
