"""Terms and guards of a finding: what each charges or spares, and what its column says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import log2
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession

from raretrail.baseline.nearest import to_coordinates, to_nearest
from raretrail.detect.candidates import to_lookup, with_terms
from raretrail.detect.sensitivity import Level
from raretrail.tables import PLACES

DAY = 20496  # a Thursday
NOON = datetime.fromtimestamp(DAY * 86400, UTC) + timedelta(hours=12)
LEVELS = (Level(4, "hands out credentials", ("iam:CreateAccessKey",)),)
# Ana as her colleagues know her: every use of hers, with its days, others and bits.
HABIT: dict[str, tuple[str, dict[str, Any]]] = {
    "place": ("lisbon", {"days_90": 30}),
    "area": ("area:38,-10", {"days_90": 30}),
    "country": ("PT", {"days_90": 30}),
    "network": ("AS64500", {"days_90": 30}),
    "prefix": ("203.0.113", {"days_90": 30}),
    "command": ("s3:ListBuckets", {"days_90": 30}),
    "agent": ("aws-cli/2", {"days_90": 30}),
    "hour": ("12", {"days_90": 30}),
}
# What `to_surprises` says of a use, as far as terms read it or findings carry it.
SURPRISES = (
    "as_of int, dimension string, identity string, value string, days_90 bigint, others bigint, "
    "value_days_90 bigint, active_days bigint, new_days bigint, prior double, rate double, tail double, "
    "bits double, nearest_place string, nearest_place_km double, near_reach_km double, near boolean, "
    "known_places bigint, known_countries array<string>, "
    "rolled_out boolean, cadence_days int, expected_date date, on_cadence boolean, baseline_days int"
)
COLUMNS = {"command": "command", "agent": "agent_family", "error": "error_code"}
# A first use in a dimension: the rate is 1/8, the tail 1/4, so 3 and 2 bits.
NEW = {"days_90": 0, "others": 0, "rate": 0.125, "tail": 0.25, "bits": 5.0}
# A city she was never in, far from all she knows.
FAR = {"place": ("hanoi", NEW), "area": ("area:21,105", NEW)}
HOSTER, NOBODY_ELSE = ("AS64501", NEW), {"as_organization": "Cheap Cloud Hosting"}


def case(uses: dict[str, tuple[str, dict[str, Any]]] | None = None, **columns: Any) -> dict[str, Any]:
    """A candidate of ana's at noon from her desk, with other uses or columns."""
    return {"uses": HABIT | (uses or {}), "columns": columns}


CASES: dict[str, dict[str, Any]] = {
    "at her desk": case(),
    "far": case(FAR),
    "far, where others work nearby": case(FAR | {"area": ("area:21,105", NEW | {"others": 3, "tail": 0.5})}),
    "no city": case({"place": ("private", NEW), "area": ("private", NEW | {"tail": 0.5})}),
    "near": case(FAR | {"place": ("sintra", NEW | {"near": True})}),
    "vague": case(FAR, accuracy_radius=500),
    "vague abroad": case(FAR | {"country": ("VN", NEW)}, accuracy_radius=500),
    "over the company's vpn": case(
        FAR | {"network": HOSTER, "prefix": ("198.51.100", NEW), "jump": ("jump", {"bits": 6.0})},
        known_network_kind="vpn", jump_km=9000.0, **NOBODY_ELSE,
    ),
    "over a vendor's network": case({"network": HOSTER}, known_network_kind="vendor"),
    "over a network called hostile": case(known_network_kind="hostile"),
    "new network at her desk": case({"network": ("AS64501", NEW)}),
    "new network in a new place": case(FAR | {"network": ("AS64501", NEW)}),
    "new network near her desk": case(
        {"place": ("sintra", NEW | {"near": True}), "network": ("AS64501", NEW)}
    ),
    "known network in a new place": case(FAR),
    "new prefix on a network of others": case(
        {"network": ("AS64501", NEW | {"others": 4}), "prefix": ("198.51.100", NEW)}
    ),
    "new prefix on a network of nobody's": case(
        {"network": ("AS64501", NEW), "prefix": ("198.51.100", NEW)}
    ),
    "prefix of two days": case({"prefix": ("203.0.113", {"days_90": 2})}),
    "hoster": case({"network": HOSTER}, **NOBODY_ELSE),
    "hoster that 3 others use": case({"network": ("AS64501", NEW | {"others": 3})}, **NOBODY_ELSE),
    "hoster she uses": case(**NOBODY_ELSE),
    "robot on a hoster": case({"network": HOSTER}, principal_kind="role", **NOBODY_ELSE),
    "hoster by name of the house": case({"network": HOSTER}, known_network_kind="hosting"),
    "at night": case({"hour": ("12", {"bits": 4.0})}, time_zone="Pacific/Auckland"),
    "an hour usual for people": case({"hour": ("12", {"bits": 4.0})}, time_zone="Europe/Lisbon"),
    "an hour usual for her": case({"hour": ("12", {"bits": 0.5})}, time_zone="Pacific/Auckland"),
    "robot at night": case(
        {"hour": ("12", {"bits": 4.0})}, time_zone="Pacific/Auckland", principal_kind="role"
    ),
    "known on 4 days": case(
        {"hour": ("12", {"bits": 4.0}), "command": ("s3:ListBuckets", {"days_90": 4, "active_days": 4})}
        | FAR,
        time_zone="Pacific/Auckland",
    ),
    "jump to her desk": case({"jump": ("jump", {"bits": 6.0})}, jump_km=9000.0),
    "jump to elsewhere": case(FAR | {"jump": ("jump", {"bits": 6.0})}, jump_km=9000.0),
    "new command that can much": case({"command": ("iam:CreateAccessKey", NEW)}),
    "usual command that can much": case({"command": ("iam:CreateAccessKey", {"days_90": 30})}),
    "half a surprise that can much": case(
        {"command": ("iam:CreateAccessKey", {"days_90": 2, "bits": 2.0})}
    ),
    "rolled out": case({"command": ("s3:New", NEW | {"rolled_out": True, "bits": 0.0})}),
    "due": case({"command": ("rds:Reboot", {"days_90": 3, "on_cadence": True, "cadence_days": 7})}),
    "error": case({"error": ("AccessDenied", NEW)}),
    "nobody known": {"uses": {}, "columns": {}},
}  # fmt: skip


@pytest.fixture(scope="module")
def found(spark: SparkSession) -> Iterator[dict[str, Row]]:
    """Each case with its terms."""
    uses, candidates = [], []
    for who, told in CASES.items():
        columns = {
            "as_of": DAY, "bucket_start": NOON, "recipient_account_id": "1", "principal": who, "actor": who,
            "principal_kind": "person", "source_ip_address": "203.0.113.7", "event_count": 1,
            "first_time": NOON, "last_time": NOON, "read_only": True, "accuracy_radius": 20,
            "time_zone": "UTC", "as_organization": "Telecom", "known_network_kind": None, "jump_km": None,
            "place": "nowhere", "area": "nowhere", "country": "XX", "network": "none", "prefix": "none",
            "command": "s3:ListBuckets", "agent_family": "none", "error_code": "", "late_minutes": 0,
        }  # fmt: skip
        for dimension, (value, use) in told["uses"].items():
            columns[COLUMNS.get(dimension, dimension)] = value
            known = {"others": 8, "value_days_90": 60, "active_days": 30, "prior": 0.1, "rate": 0.1,
                     "tail": 0.9, "bits": 0.0, "near": False, "rolled_out": False, "on_cadence": False,
                     "baseline_days": 90}  # fmt: skip
            uses.append(
                {"as_of": DAY, "dimension": dimension, "identity": who, "value": value, **known, **use}
            )
        candidates.append(columns | told["columns"])
    schema = (
        "as_of int, bucket_start timestamp, recipient_account_id string, principal string, actor string, "
        "principal_kind string, source_ip_address string, event_count bigint, first_time timestamp, "
        "last_time timestamp, read_only boolean, accuracy_radius int, time_zone string, "
        "as_organization string, known_network_kind string, place string, area string, country string, "
        "network string, prefix string, command string, agent_family string, error_code string, "
        "late_minutes bigint"
    )
    names = [part.split()[0] for part in schema.split(", ")]
    rows = [tuple(candidate[name] for name in names) for candidate in candidates]
    ends = [
        (DAY, c["actor"], c["source_ip_address"], c["jump_km"], 600, "hanoi", 9000.0)
        for c in candidates if c["jump_km"]
    ]  # fmt: skip
    jumps = spark.createDataFrame(
        ends,
        "as_of int, actor string, source_ip_address string, jump_km double, jump_seconds bigint, "
        "jump_place string, jump_least_km_per_hour double",
    )
    surprises = spark.createDataFrame(
        [tuple(use.get(part.split()[0]) for part in SURPRISES.split(", ")) for use in uses], SURPRISES
    )
    pairs = spark.createDataFrame(
        [], "as_of int, kind string, command string, value string, pair_days_90 bigint"
    )
    terms = with_terms(
        spark.createDataFrame(rows, schema), to_lookup(surprises), jumps, pairs, LEVELS, "hosting"
    )
    yield {row.principal: row for row in terms.collect()}


def test_what_is_usual_costs_nothing(found: dict[str, Row]) -> None:
    row = found["at her desk"]
    assert (row.bits, row.maturity, row.settled_range) == (0.0, 1.0, True)


def test_a_suburb_is_no_more_unusual_than_the_area_it_lies_in(found: dict[str, Row]) -> None:
    row = found["far"]
    assert (row.place_bits, row.place_spared_bits) == (5.0, 0.0)
    assert (row.principal_area_days, row.area_principals) == (0, 0)
    row = found["far, where others work nearby"]
    assert (row.place_bits, row.place_spared_bits, row.area_principals) == (4.0, 1.0, 3)
    assert found["no city"].place_bits == 5.0
    assert found["at her desk"].place_spared_bits is None


def test_a_place_near_a_known_one_costs_only_the_rate_of_new_places(found: dict[str, Row]) -> None:
    row = found["near"]
    assert (row.near_known_place, row.place_bits, row.place_spared_bits) == (True, 3.0, 2.0)
    assert not found["far"].near_known_place


def test_a_place_the_database_only_guesses_is_hardly_new_in_a_country_they_know(
    found: dict[str, Row],
) -> None:
    row = found["vague"]
    assert (row.vague_place, row.place_bits, row.place_spared_bits) == (True, 3.0, 2.0)
    assert (found["vague abroad"].vague_place, found["vague abroad"].place_bits) == (False, 5.0)


def test_the_organisations_own_way_out_says_nothing_of_where(found: dict[str, Row]) -> None:
    row = found["over the company's vpn"]
    assert (row.place_bits, row.place_spared_bits) == (3.0, 2.0)
    assert (row.network_bits, row.prefix_bits, row.jump_bits, row.host_bits) == (0.0, 0.0, 0.0, 0.0)
    assert found["over a vendor's network"].network_bits == 5.0


def test_a_network_called_hostile_costs_all_a_network_can(found: dict[str, Row]) -> None:
    assert found["over a network called hostile"].network_bits == 8.0


def test_a_new_network_is_charged_whole_at_a_known_place_and_for_its_tail_at_a_new_one(
    found: dict[str, Row],
) -> None:
    assert found["new network at her desk"].network_bits == 5.0
    assert found["new network near her desk"].network_bits == 5.0
    assert found["new network in a new place"].network_bits == -log2(0.25)
    row = found["known network in a new place"]
    assert (row.network_bits, row.principal_network_days) == (0.0, 30)


def test_a_prefix_counts_by_half_and_only_on_a_network_somebody_knows(found: dict[str, Row]) -> None:
    row = found["new prefix on a network of others"]
    assert (row.prefix_bits, row.where_bits) == (5.0, row.network_bits + 2.5)
    assert found["new prefix on a network of nobody's"].prefix_bits == 0.0
    assert not found["prefix of two days"].settled_range


def test_a_hoster_counts_for_people_new_to_it_and_less_for_every_other_on_it(found: dict[str, Row]) -> None:
    bits = {name: found[name].host_bits for name in CASES if "hoster" in name}
    assert bits == {
        "hoster": 4.0, "hoster that 3 others use": 1.0, "hoster she uses": 0.0, "robot on a hoster": 0.0,
        "hoster by name of the house": 4.0,
    }  # fmt: skip
    assert found["robot on a hoster"].hosting_network


def test_an_hour_costs_people_the_lesser_of_own_and_common_habit(found: dict[str, Row]) -> None:
    bits = {name: found[name].hour_bits for name in CASES if "hour" in name or "night" in name}
    assert bits == {
        "at night": 4.0, "an hour usual for people": 0.0, "an hour usual for her": 0.5, "robot at night": 0.0,
    }  # fmt: skip
    assert found["at night"].local_hour in (0, 1)


def test_who_is_known_for_few_days_is_trusted_less_to_have_habits(found: dict[str, Row]) -> None:
    row = found["known on 4 days"]
    assert (row.maturity, row.principal_active_days, row.hour_bits) == (0.6, 4, 0.0)
    assert row.bits == pytest.approx((row.where_bits + row.how_bits + row.what_bits) * 0.6)
    row = found["nobody known"]
    assert (row.maturity, row.bits, row.baseline_days) == (0.2, 0.0, None)


def test_a_jump_counts_at_the_end_that_is_not_their_own_place(found: dict[str, Row]) -> None:
    assert found["jump to her desk"].jump_bits == 0.0
    assert (found["jump to elsewhere"].jump_bits, found["jump to elsewhere"].jump_place) == (6.0, "hanoi")


def test_what_a_command_can_do_counts_as_far_as_it_is_new(found: dict[str, Row]) -> None:
    bits = {name: found[name].command_bits for name in CASES if "can much" in name}
    assert bits == {
        "new command that can much": 7.0, "usual command that can much": 0.0,
        "half a surprise that can much": 3.0,
    }  # fmt: skip
    assert {found[name].sensitivity for name in bits} == {4}


def test_roll_outs_and_cadence_stand_in_their_columns(found: dict[str, Row]) -> None:
    assert (found["rolled out"].rolled_out, found["rolled out"].what_bits) == (True, 0.0)
    assert (found["due"].on_cadence, found["due"].cadence_days) == (True, 7)


def test_of_command_and_error_the_greater_counts(found: dict[str, Row]) -> None:
    assert (found["error"].error_bits, found["error"].what_bits) == (5.0, 5.0)


# Kilometres between a point on the equator and one so many degrees further on it.
DEGREE_KM = 111.19
# Who: known cities as (degrees from the new one, accuracy radius), the new one's radius, days since they were
# used; what is said of it: the nearest, the reach, whether that is near. None where nothing is known.
NEAREST: dict[str, tuple[dict[str, tuple[float, int | None]], int | None, int, tuple[Any, ...] | None]] = {
    "within near_km, whatever the radii": ({"home": (0.8, 5)}, 5, 3, ("home", 100.0, True)),
    "beyond it": ({"home": (1.2, 5)}, 5, 3, ("home", 100.0, False)),
    "133 km, of which the map may make up 150": ({"home": (1.2, 100)}, 50, 3, ("home", 150.0, True)),
    "of which it may make up 105": ({"home": (1.2, 100)}, 5, 3, ("home", 105.0, False)),
    "radii count for 200 km": ({"home": (1.7, 500)}, 500, 3, ("home", 200.0, True)),
    "and no more": ({"home": (1.9, 500)}, 500, 3, ("home", 200.0, False)),
    "a radius not told is 50 km": ({"home": (1.2, None)}, 100, 3, ("home", 150.0, True)),
    "both not told": ({"home": (0.85, None)}, None, 3, ("home", 100.0, True)),
    "the one that reaches is named": (
        {"sharp": (-1.2, 5), "wide": (1.4, 190)}, 5, 3, ("wide", 195.0, True),
    ),
    "else the nearest": ({"sharp": (-1.2, 5), "wide": (1.9, 190)}, 5, 3, ("sharp", 100.0, False)),
    "used yesterday": ({"home": (0.1, 5)}, 5, 1, ("home", 100.0, True)),
    "used 90 days ago": ({"home": (0.1, 5)}, 5, 90, ("home", 100.0, True)),
    "used 91 days ago": ({"home": (0.1, 5)}, 5, 91, None),
    "used today": ({"home": (0.1, 5)}, 5, 0, None),
}  # fmt: skip


def test_near_is_within_a_hundred_kilometres_or_both_radii(spark: SparkSession) -> None:
    places, known = [], []
    for who, (cities, radius, ago, _) in NEAREST.items():
        for city, (degrees, its_radius) in {**cities, "new": (0.0, radius)}.items():
            value = f"{who}: {city}"
            places.append(
                {**dict.fromkeys(PLACES.column_names), "source_ip_address": value, "geo_status": "city",
                 "place": value, "place_name": city, "country_iso_code": city[:2].upper(),
                 "latitude": 0.0, "longitude": degrees, "accuracy_radius": its_radius}
            )  # fmt: skip
            if city != "new":
                known.append((who, value, DAY - ago))
    found = to_nearest(
        spark.createDataFrame(
            [(DAY, who, f"{who}: new") for who in NEAREST], "as_of int, identity string, value string"
        ),
        spark.createDataFrame(known, "identity string, value string, day int"),
        to_coordinates(spark.createDataFrame(places, PLACES.spark_schema())),
        100.0,
    )
    rows = {row.identity: row for row in found.collect()}
    for who, (cities, _, _, said) in NEAREST.items():
        row = rows.get(who)
        assert (row and (row.nearest_place, row.near_reach_km, row.near)) == said, who
        if row:
            countries = sorted({city[:2].upper() for city in cities})
            assert (row.known_places, row.known_countries) == (len(cities), countries), who
            km = abs(cities[row.nearest_place][0]) * DEGREE_KM
            assert row.nearest_place_km == pytest.approx(km, abs=0.2), who
