"""Being at two places faster than anyone can travel, and how fast that is at least."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pyspark.sql import SparkSession

from raretrail.baseline.uses import to_jumps
from raretrail.detect.candidates import to_jump_ends
from raretrail.tables import MOVES_DAILY, PLACES

DAY = date(2026, 2, 1)
LISBON, PORTO, LONDON = "203.0.113.1", "203.0.113.2", "203.0.113.3"
CITIES = {
    LISBON: ("Lisbon, PT", 38.7223, -9.1393, 20),
    PORTO: ("Porto, PT", 41.1579, -8.6291, 250),
    LONDON: ("London, GB", 51.5074, -0.1278, None),
}
pytestmark = pytest.mark.integration


def jump_ends(spark: SparkSession, *moves: tuple[str, str, int]) -> dict[str, dict[str, Any]]:
    """The ends of ana's moves (from, to, seconds), by address."""
    rows = [
        {**dict.fromkeys(MOVES_DAILY.column_names), "event_date": DAY, "actor": "ana", "from_address": here,
         "source_ip_address": there, "seconds": seconds}
        for here, there, seconds in moves
    ]  # fmt: skip
    places = [
        {**dict.fromkeys(PLACES.column_names), "source_ip_address": address, "geo_status": "city",
         "place": name, "place_name": name, "latitude": latitude, "longitude": longitude,
         "accuracy_radius": radius}
        for address, (name, latitude, longitude, radius) in CITIES.items()
    ]  # fmt: skip
    jumps = to_jumps(
        spark.createDataFrame(rows, MOVES_DAILY.spark_schema()),
        spark.createDataFrame(places, PLACES.spark_schema()),
    )
    return {row["source_ip_address"]: row.asDict() for row in to_jump_ends(jumps).collect()}


def test_both_ends_of_a_jump_tell_the_farthest_other(spark: SparkSession) -> None:
    found = jump_ends(spark, (LISBON, LONDON, 3600), (LISBON, PORTO, 600))
    assert found[LISBON]["jump_place"] == "London, GB" and found[LONDON]["jump_place"] == "Lisbon, PT"
    assert found[LONDON]["jump_km"] == pytest.approx(1585, abs=5)
    # The radius of one end is known and allowed for.
    assert found[LONDON]["jump_least_km_per_hour"] == pytest.approx(found[LONDON]["jump_km"] - 20, abs=0.1)


def test_the_least_speed_allows_for_both_radii(spark: SparkSession) -> None:
    (end, other) = jump_ends(spark, (LISBON, PORTO, 600)).values()
    # 274 km in ten minutes, of which the map may have made up 270.
    assert end["jump_km"] == pytest.approx(274, abs=2)
    assert end["jump_least_km_per_hour"] == other["jump_least_km_per_hour"]
    assert end["jump_least_km_per_hour"] == pytest.approx(6 * (end["jump_km"] - 270), abs=0.1)


@pytest.mark.parametrize("seconds", [7 * 3600, 3 * 3600])
def test_a_flight_is_no_jump(spark: SparkSession, seconds: int) -> None:
    assert jump_ends(spark, (LISBON, LONDON, seconds)) == {}
