"""How far two points on the globe lie apart: the same formula in Python and as a Spark column."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column

EARTH_RADIUS_KM = 6371.0088
"""Mean radius (IUGG)."""


def haversine_km(
    latitude_a: float | None,
    longitude_a: float | None,
    latitude_b: float | None,
    longitude_b: float | None,
) -> float | None:
    """Kilometres along the great circle between two points in degrees; None if any is None."""
    if latitude_a is None or longitude_a is None or latitude_b is None or longitude_b is None:
        return None
    phi_a, phi_b = math.radians(latitude_a), math.radians(latitude_b)
    h = (
        math.sin((phi_b - phi_a) / 2) ** 2
        + math.cos(phi_a) * math.cos(phi_b) * math.sin(math.radians(longitude_b - longitude_a) / 2) ** 2
    )
    # Rounding lifts h above 1 between opposite points.
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(h, 1.0)))


def haversine_km_column(
    latitude_a: Column, longitude_a: Column, latitude_b: Column, longitude_b: Column
) -> Column:
    """`haversine_km` of four columns in degrees; null if any is null."""
    from pyspark.sql import functions as F

    phi_a, phi_b = F.radians(latitude_a), F.radians(latitude_b)
    h = F.pow(F.sin((phi_b - phi_a) / 2), 2) + F.cos(phi_a) * F.cos(phi_b) * F.pow(
        F.sin(F.radians(longitude_b - longitude_a) / 2), 2
    )
    # least() passes over nulls and would turn an unknown distance into half the globe.
    at_most_1 = F.when(h > 1.0, F.lit(1.0)).otherwise(h)
    return F.asin(F.sqrt(at_most_1)) * (2 * EARTH_RADIUS_KM)
