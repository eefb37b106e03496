"""The known place nearest to one that is new to its principal."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail.baseline.history import WINDOW_DAYS
from raretrail.geo.distance import haversine_km_column


def to_coordinates(places: DataFrame) -> DataFrame:
    """(value, place_name, latitude, longitude): one row a city, the mean of its addresses' points."""
    return (
        places.where("geo_status = 'city' AND latitude IS NOT NULL AND longitude IS NOT NULL")
        .groupBy(F.col("place").alias("value"))
        .agg(
            F.min("place_name").alias("place_name"),
            F.avg("latitude").alias("latitude"),
            F.avg("longitude").alias("longitude"),
        )
    )


def to_nearest(new_places: DataFrame, known_places: DataFrame, coordinates: DataFrame) -> DataFrame:
    """(as_of, identity, value, nearest_place, nearest_place_km) for cities with a known one.

    new_places: as_of, identity, value. known_places: identity, value, day; a place is known as of
    a day when it was used in the 90 days before. coordinates as `to_coordinates`.
    """
    here = coordinates.select("value", "latitude", "longitude")
    there = coordinates.select(
        F.col("value").alias("known"),
        "place_name",
        F.col("latitude").alias("known_latitude"),
        F.col("longitude").alias("known_longitude"),
    )
    known = known_places.withColumnRenamed("value", "known").join(F.broadcast(there), "known")
    apart = (
        new_places.join(F.broadcast(here), "value")
        .join(known, "identity")
        .where((F.col("day") < F.col("as_of")) & (F.col("day") >= F.col("as_of") - WINDOW_DAYS))
        .withColumn(
            "km",
            F.round(
                haversine_km_column(
                    F.col("latitude"),
                    F.col("longitude"),
                    F.col("known_latitude"),
                    F.col("known_longitude"),
                ),
                1,
            ),
        )
    )
    return (
        apart.groupBy("as_of", "identity", "value")
        .agg(F.min(F.struct("km", "place_name")).alias("nearest"))
        .select(
            "as_of",
            "identity",
            "value",
            F.col("nearest.place_name").alias("nearest_place"),
            F.col("nearest.km").alias("nearest_place_km"),
        )
    )
