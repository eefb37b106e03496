from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raretrail.geo.distance import EARTH_RADIUS_KM, haversine_km, haversine_km_column

LISBON = (38.7223, -9.1393)
TOKYO = (35.6895, 139.6917)

points = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


def test_known_distances() -> None:
    # Nashville to Los Angeles, an example many implementations give for a radius of 6372.8 km.
    expected = 2887.2599506071106 / 6372.8 * EARTH_RADIUS_KM
    assert haversine_km(36.12, -86.67, 33.94, -118.40) == pytest.approx(expected)
    assert haversine_km(*LISBON, *LISBON) == 0
    assert haversine_km(0, 0, 0, 1) == pytest.approx(111.195, abs=0.001)
    assert haversine_km(0, 179.5, 0, -179.5) == pytest.approx(111.195, abs=0.001)
    assert haversine_km(90, 0, -90, 77) == pytest.approx(math.pi * EARTH_RADIUS_KM)


@given(points, points)
def test_a_distance_is_symmetric_and_at_most_half_the_globe(a, b) -> None:
    distance = haversine_km(*a, *b)
    assert distance == pytest.approx(haversine_km(*b, *a), abs=1e-6)
    assert 0 <= distance <= math.pi * EARTH_RADIUS_KM * (1 + 1e-12)


def test_an_unknown_point_is_at_no_distance() -> None:
    for position in range(4):
        values: list[float | None] = [*LISBON, *TOKYO]
        values[position] = None
        assert haversine_km(*values) is None


@pytest.mark.integration
def test_the_column_gives_what_python_gives(spark) -> None:
    from pyspark.sql import functions as F

    rows: list[tuple[float | None, ...]] = [
        (*LISBON, *TOKYO),
        (*LISBON, *LISBON),
        (0.0, 179.5, 0.0, -179.5),
        (90.0, 0.0, -90.0, 77.0),
        (12.345, 67.89, -12.345, -112.11),  # opposite points
        (None, 1.0, 2.0, 3.0),
        (1.0, 2.0, 3.0, None),
    ]
    frame = spark.createDataFrame(rows, "a double, b double, c double, d double")
    got = frame.select(
        "a", "b", "c", "d", haversine_km_column(*(F.col(name) for name in "abcd")).alias("km")
    ).collect()
    assert len(got) == len(rows)
    for a, b, c, d, km in got:
        expected = haversine_km(a, b, c, d)
        assert km is None if expected is None else km == pytest.approx(expected, abs=1e-6)
