"""Uses: facts turned into (dimension, identity, value, day), the grain all statistics share.

A *use* says that an identity showed a value in a dimension on a day: a place, the area around it, a country,
a network, an address prefix, a command, a user agent family, an error code, an hour of the day, a jump
between places too far apart. Presence, not volume: a robot's million calls are one.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from raretrail.geo.distance import haversine_km_column

DIMENSIONS = (
    "place",
    "area",
    "country",
    "network",
    "prefix",
    "command",
    "agent",
    "error",
    "hour",
    "jump",
)
# Faster than an airliner, and further apart than two places one map may confuse.
JUMP_KM_PER_HOUR = 800.0
JUMP_KM = 100.0
# The side of an area: some 100 km north to south, and east to west near the equator.
AREA_DEGREES = 1.0


def area() -> Column:
    """The square of AREA_DEGREES that a city's point lies in; any other place is its own area.

    Suburbs, and cities an address range wanders between, share one mostly. It is made of the address's own
    point alone, so that an area is the same whichever other places are known.
    """
    south, west = (F.floor(F.col(name) / AREA_DEGREES) for name in ("latitude", "longitude"))
    square = F.concat(F.lit("area:"), south.cast("string"), F.lit(","), west.cast("string"))
    return F.when(F.col("geo_status") == "city", F.coalesce(square, "place")).otherwise(F.col("place"))


def with_places(rows: DataFrame, places: DataFrame) -> DataFrame:
    """rows (with source_ip_address, '' where missing) plus place, place_name, area, country, network, prefix.

    places holds one row an address, of one build. `country` is the country's code, or the
    geo_status where there is none, so that every use has one.
    """
    known = places.select(
        "source_ip_address",
        "place",
        "place_name",
        area().alias("area"),
        "country_iso_code",
        F.coalesce("country_iso_code", "geo_status").alias("country"),
        F.coalesce("network", "geo_status").alias("network"),
        "prefix",
        "latitude",
        "longitude",
        "accuracy_radius",
    )
    return rows.join(known, "source_ip_address", "left").fillna(
        {"place": "missing", "area": "missing", "country": "missing", "network": "missing", "prefix": ""}
    )


def identities() -> Column:
    """array<struct<identity, is_actor>> of a fact: its actor, and its principal where that is another.

    Habits are an actor's: what is known of somebody holds in every role they take. A role is judged by
    its own habit too, for sessions under a name nobody knows yet; only actors count in the
    organisation's numbers, so that nobody counts twice.
    """
    actor = F.struct(F.col("actor").alias("identity"), F.lit(True).alias("is_actor"))
    principal = F.struct(F.col("principal").alias("identity"), F.lit(False).alias("is_actor"))
    return F.when(F.col("actor") == F.col("principal"), F.array(actor)).otherwise(F.array(actor, principal))


def use(dimension: str, value: str) -> Column:
    """A use as a struct of the dimension and the value that a column holds."""
    return F.struct(F.lit(dimension).alias("dimension"), F.col(value).alias("value"))


def placed_uses() -> Column:
    """array<struct<dimension, value>> of a located fact of presence."""
    return F.array(
        use("place", "place"),
        use("area", "area"),
        use("country", "country"),
        use("network", "network"),
        use("prefix", "prefix"),
        use("command", "command"),
        use("error", "outcome"),
    )


def to_uses(presence: DataFrame, agents: DataFrame, hours: DataFrame, jumps: DataFrame) -> DataFrame:
    """(dimension, identity, value, day, is_actor), distinct; day counts from 1970-01-01.

    presence is `presence_daily` with places; agents is `agent_daily`, hours is `hour_daily`; jumps as
    `to_jumps`. Error codes are uses of their own, success is none.
    """
    day = F.unix_date("event_date").alias("day")
    shown = [
        presence.select(F.explode(identities()).alias("who"), day, F.explode(placed_uses()).alias("use")),
        agents.select(F.explode(identities()).alias("who"), day, use("agent", "agent_family").alias("use")),
        hours.withColumn("hour", F.col("hour").cast("string")).select(
            F.explode(identities()).alias("who"), day, use("hour", "hour").alias("use")
        ),
        jumps.withColumn("jump", F.lit("jump")).select(
            F.struct(F.col("actor").alias("identity"), F.lit(True).alias("is_actor")).alias("who"),
            day,
            use("jump", "jump").alias("use"),
        ),
    ]
    together = shown[0]
    for each in shown[1:]:
        together = together.unionByName(each)
    return (
        together.select("use.dimension", "who.identity", "use.value", "day", "who.is_actor")
        .where("value <> ''")
        .groupBy("dimension", "identity", "value", "day")
        .agg(F.max("is_actor").alias("is_actor"))
    )


def to_jumps(moves: DataFrame, places: DataFrame) -> DataFrame:
    """Moves nobody can make, those faster than 800 km/h: `moves_daily` plus place, place_name, from_place,
    from_place_name, jump_km and radius_km, the kilometres both accuracy radii allow for.

    places holds one row an address. Only between cities more than 100 km apart: nearer ones are one
    place to a careless map.
    """
    there = places.where("geo_status = 'city' AND latitude IS NOT NULL AND longitude IS NOT NULL").select(
        "source_ip_address", "place", "place_name", "latitude", "longitude", "accuracy_radius"
    )
    here = there.withColumnsRenamed(
        {
            "source_ip_address": "from_address",
            "place": "from_place",
            "place_name": "from_place_name",
            "latitude": "from_latitude",
            "longitude": "from_longitude",
            "accuracy_radius": "from_radius",
        }
    )
    radii = F.coalesce("from_radius", F.lit(0)) + F.coalesce("accuracy_radius", F.lit(0))
    km = F.round(
        haversine_km_column(*map(F.col, ("from_latitude", "from_longitude", "latitude", "longitude"))), 1
    )
    hours = F.greatest(F.col("seconds"), F.lit(60)) / 3600
    return (
        moves.join(F.broadcast(there), "source_ip_address")
        .join(F.broadcast(here), "from_address")
        .where("place <> from_place")
        .withColumn("jump_km", km)
        .where((F.col("jump_km") > JUMP_KM) & (F.col("jump_km") / hours > JUMP_KM_PER_HOUR))
        .withColumn("radius_km", radii.cast("double"))
        .select(
            *moves.columns, "place", "place_name", "from_place", "from_place_name", "jump_km", "radius_km"
        )
    )


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
