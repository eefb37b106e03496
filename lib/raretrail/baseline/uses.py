"""Uses: facts turned into (dimension, principal, value, day), the grain all statistics share.

A *use* says that a principal showed a value in a dimension on a day: a place, a country, a network, a
command, a user agent family, an error code. Presence, not volume: a robot's million calls are one.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

DIMENSIONS = ("place", "country", "network", "command", "agent", "error")


def with_places(rows: DataFrame, places: DataFrame) -> DataFrame:
    """rows (with source_ip_address, '' where missing) plus place, place_name, country, network.

    places holds one row an address, of one build. `country` is the country's code, or the
    geo_status where there is none, so that every use has one.
    """
    known = places.select(
        "source_ip_address",
        "place",
        "place_name",
        "country_iso_code",
        F.coalesce("country_iso_code", "geo_status").alias("country"),
        F.coalesce("network", "geo_status").alias("network"),
        "latitude",
        "longitude",
        "accuracy_radius",
    )
    return rows.join(known, "source_ip_address", "left").fillna("missing", ["place", "country", "network"])


def to_uses(presence: DataFrame, agents: DataFrame) -> DataFrame:
    """(dimension, principal, value, day), distinct; day counts from 1970-01-01.

    presence is `presence_daily` with places; agents is `agent_daily`. Error codes are uses of
    their own, success is none.
    """

    def use(dimension: str, value: str) -> Column:
        return F.struct(F.lit(dimension).alias("dimension"), F.col(value).alias("value"))

    day = F.unix_date("event_date").alias("day")
    placed = presence.select(
        "principal",
        day,
        F.explode(
            F.array(
                use("place", "place"),
                use("country", "country"),
                use("network", "network"),
                use("command", "command"),
                use("error", "outcome"),
            )
        ).alias("use"),
    ).select("use.dimension", "principal", "use.value", "day")
    by_agent = agents.select(
        F.lit("agent").alias("dimension"), "principal", F.col("agent_family").alias("value"), day
    )
    shown = placed.unionByName(by_agent).where((F.col("dimension") != "error") | (F.col("value") != ""))
    return shown.distinct()


def to_pairs(presence: DataFrame) -> DataFrame:
    """(kind, command, value, day), distinct: commands seen from a place or a country on a day."""
    day = F.unix_date("event_date").alias("day")
    return (
        presence.select(
            "command",
            day,
            F.explode(
                F.array(
                    F.struct(F.lit("place").alias("kind"), F.col("place").alias("value")),
                    F.struct(F.lit("country").alias("kind"), F.col("country").alias("value")),
                )
            ).alias("pair"),
        )
        .select("pair.kind", "command", "pair.value", "day")
        .distinct()
    )
