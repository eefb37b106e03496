"""News: uses of a day that came, or went, after later days had been judged by it.

An event that comes late changes what is known of its day only where it is the first of its kind there:
somebody's hundredth call from their own desk is none.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from raretrail.baseline.uses import use, with_places

# So many days a baseline holds what is known of a day; later findings are not judged again.
REACH_DAYS = 30


def to_changed_uses(events: DataFrame, fresh: DataFrame, removed: DataFrame, places: DataFrame) -> DataFrame:
    """(event_date, dimension, identity, value): uses that are known of a day now and were not, or the
    other way round.

    events are those of the days as they were counted before, without what is removed by now; fresh came
    since, removed counted then. All have columns of `tables.EVENTS`; places holds one row an address. Of
    the events that stayed only those of an identity of the others are looked at.
    """
    was, now = (True, True), (False, True)
    changed = _shown(fresh, *now).unionByName(_shown(removed, True, False))
    concerned = F.broadcast(changed.select("event_date", "identity").distinct())
    stayed = _shown(events, *was).join(concerned, ["event_date", "identity"], "left_semi")
    return (
        with_places(stayed.unionByName(changed), places)
        .select("event_date", "identity", "was", "is", F.explode(_uses()).alias("use"))
        .groupBy("event_date", "use.dimension", "identity", "use.value")
        .agg(F.max("was").alias("was"), F.max("is").alias("is"))
        .where("was <> is AND value <> ''")
        .select("event_date", "dimension", "identity", "value")
    )


def _shown(events: DataFrame, was: bool, counts: bool) -> DataFrame:
    return events.select(
        "event_date",
        F.explode(F.array_distinct(F.array("actor", "principal"))).alias("identity"),
        "command",
        F.coalesce("source_ip_address", F.lit("")).alias("source_ip_address"),
        F.coalesce("error_code", F.lit("")).alias("outcome"),
        F.coalesce("agent_family", F.lit("")).alias("agent_family"),
        F.hour("event_time").cast("string").alias("hour"),
        F.lit(was).alias("was"),
        F.lit(counts).alias("is"),
    )


def _uses() -> Column:
    return F.array(
        use("place", "place"),
        use("country", "country"),
        use("network", "network"),
        use("prefix", "prefix"),
        use("command", "command"),
        use("agent", "agent_family"),
        use("error", "outcome"),
        use("hour", "hour"),
    )


def to_news(changed: DataFrame, moved: DataFrame) -> DataFrame:
    """(event_date, kind, value): whose, which commands' and which places' knowledge a day changed.

    changed as `to_changed_uses`; moved are the events that came or went. kind: identity, command and
    place reach into later days; actor is who did something on that very day.
    """
    said = changed.select("event_date", F.lit("identity").alias("kind"), F.col("identity").alias("value"))
    for dimension in ("command", "place"):
        of = changed.where(F.col("dimension") == dimension)
        said = said.unionByName(of.select("event_date", F.lit(dimension).alias("kind"), "value"))
    actors = moved.select("event_date", F.lit("actor").alias("kind"), F.col("actor").alias("value"))
    return said.unionByName(actors).distinct()


def only_touched(findings: DataFrame, news: DataFrame) -> DataFrame:
    """The findings that rest on what news say: of the same actor on that day; of the same identity, command
    or place in the REACH_DAYS days after it. A row each."""
    shares = F.array(
        *[
            F.struct(F.lit(kind).alias("kind"), F.col(column).alias("value"))
            for kind, column in (
                ("actor", "actor"),
                ("identity", "actor"),
                ("identity", "principal"),
                ("command", "command"),
                ("place", "place"),
            )
        ]
    )
    days = F.datediff("bucket_date", "event_date")
    same_day = (F.col("kind") == "actor") & (days == 0)
    later = (F.col("kind") != "actor") & days.between(1, REACH_DAYS)
    touched = (
        findings.select("anomaly_id", "bucket_date", F.explode(shares).alias("shared"))
        .select("anomaly_id", "bucket_date", "shared.*")
        .join(F.broadcast(news), ["kind", "value"])
        .where(same_day | later)
        .select("anomaly_id")
        .distinct()
    )
    return findings.join(touched, "anomaly_id", "left_semi")
