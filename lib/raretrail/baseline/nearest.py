"""The known place nearest to one that is new to its principal."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail.baseline.history import WINDOW_DAYS
from raretrail.geo.distance import haversine_km_column

# Wider radii than this say hardly more than a country does: no reason to take a place for a known one.
MOST_RADIUS_KM = 200.0
# What a radius is taken for where the database tells none.
USUAL_RADIUS_KM = 50.0


def to_coordinates(places: DataFrame) -> DataFrame:
    """(value, place_name, country_iso_code, latitude, longitude, radius_km): one row a city, the mean of its
    addresses' points and accuracy radii, 50 km where the database tells none."""
    return (
        places.where("geo_status = 'city' AND latitude IS NOT NULL AND longitude IS NOT NULL")
        .groupBy(F.col("place").alias("value"))
        .agg(
            F.min("place_name").alias("place_name"),
            F.min("country_iso_code").alias("country_iso_code"),
            F.avg("latitude").alias("latitude"),
            F.avg("longitude").alias("longitude"),
            F.avg(F.coalesce(F.col("accuracy_radius").cast("double"), F.lit(USUAL_RADIUS_KM))).alias(
                "radius_km"
            ),
        )
    )


def to_nearest(
    new_places: DataFrame, known_places: DataFrame, coordinates: DataFrame, near_km: float
) -> DataFrame:
    """(as_of, identity, value, nearest_place, nearest_place_km, near_reach_km, near, known_places,
    known_countries) for cities with a known one.

    new_places: as_of, identity, value. known_places: identity, value, day; a place is known as of
    a day when it was used in the 90 days before. coordinates as `to_coordinates`. A known place is near
    within near_reach_km: near_km, or the sum of both accuracy radii where that is more, up to 200 km
    (an accuracy radius is one that holds the address in two cases of three). nearest_place is the nearest of
    those that are near, else the nearest of all; known_places counts all, known_countries are theirs (codes,
    ascending).
    """
    here = coordinates.select("value", "latitude", "longitude", "radius_km")
    there = coordinates.select(
        F.col("value").alias("known"),
        "place_name",
        "country_iso_code",
        F.col("latitude").alias("known_latitude"),
        F.col("longitude").alias("known_longitude"),
        F.col("radius_km").alias("known_radius_km"),
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
    radii = F.least(F.col("radius_km") + F.col("known_radius_km"), F.lit(MOST_RADIUS_KM))
    return (
        apart.withColumn("reach", F.greatest(F.lit(near_km), radii))
        .withColumn("apart", F.col("km") > F.col("reach"))
        .groupBy("as_of", "identity", "value")
        .agg(
            F.min(F.struct("apart", "km", "place_name", "reach")).alias("nearest"),
            F.count_distinct("known").alias("known_places"),
            F.sort_array(F.collect_set("country_iso_code")).alias("known_countries"),
        )
        .select(
            "as_of",
            "identity",
            "value",
            F.col("nearest.place_name").alias("nearest_place"),
            F.col("nearest.km").alias("nearest_place_km"),
            F.round("nearest.reach", 1).alias("near_reach_km"),
            (~F.col("nearest.apart")).alias("near"),
            "known_places",
            "known_countries",
        )
    )
