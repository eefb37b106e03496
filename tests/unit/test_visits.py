"""Which findings are one incident, and what an incident takes from them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from raretrail.detect.incidents import to_incidents, with_incident_id
from raretrail.geo.locate import address_of
from raretrail.tables import ANOMALIES

NOON = datetime(2026, 2, 1, 12, tzinfo=UTC)
GAP = timedelta(hours=4)
pytestmark = pytest.mark.integration


def finding(name: str, minutes: int = 0, **changed: Any) -> dict[str, Any]:
    """A finding of ana in Lisbon, from a range that colleagues use."""
    at = NOON + timedelta(minutes=minutes)
    base = {
        "anomaly_id": name, "detector": "d", "actor": "ana", "principal": "role/ana", "place": "city:1",
        "command": "s3:ListBuckets", "source_ip_address": "203.0.113.7", "prefix_principals": 5,
        "principal_prefix_days": 3, "first_time": at, "last_time": at, "bucket_start": NOON,
        "bucket_end": NOON + timedelta(hours=1), "bucket_date": NOON.date(), "maturity": 1.0,
        "place_bits": 2.0, "network_bits": 0.0, "prefix_bits": 0.0, "jump_bits": 0.0, "agent_bits": 0.0,
        "hour_bits": 0.0, "host_bits": 0.0, "command_bits": 0.0, "what_bits": 0.0, "where_bits": 2.0,
        "how_bits": 0.0, "bits": 2.0, "summary": "s",
    }  # fmt: skip
    row = {name: None for name in ANOMALIES.column_names} | base | changed
    key, prefix = address_of(row["source_ip_address"])
    return row | {"address_key": key, "prefix": prefix}


def chained(spark: SparkSession, *findings: dict[str, Any]) -> DataFrame:
    rows = with_incident_id(spark.createDataFrame(list(findings), ANOMALIES.spark_schema()), GAP)
    # As the publish stage stages it: a plan is computed anew for each use.
    return spark.createDataFrame(rows.select(*ANOMALIES.column_names).collect(), ANOMALIES.spark_schema())


def groups(spark: SparkSession, *findings: dict[str, Any]) -> set[frozenset[str]]:
    found: dict[str, set[str]] = {}
    for row in chained(spark, *findings).collect():
        found.setdefault(row.incident_id, set()).add(row.anomaly_id)
    assert all(name in members for name, members in found.items())
    return {frozenset(members) for members in found.values()}


def test_one_actor_in_one_place_is_one_incident_until_a_long_gap(spark: SparkSession) -> None:
    assert groups(
        spark,
        finding("a"), finding("b", 200), finding("c", 430), finding("late", 700),
        finding("elsewhere", 10, place="city:2"), finding("other", 5, actor="ben"),
    ) == {
        frozenset("abc"), frozenset({"late"}), frozenset({"elsewhere"}), frozenset({"other"}),
    }  # fmt: skip


def test_several_identities_from_a_range_new_to_all_are_one_incident(spark: SparkSession) -> None:
    new = {"prefix_principals": 0, "principal_prefix_days": 0}
    assert groups(
        spark,
        finding("portal", actor="uuid", **new),
        finding("session", 5, **new),
        finding("role", 20, actor="role/admin", source_ip_address="203.0.113.99", **new),
        finding("next-day", 24 * 60, actor="ben", **new),
        finding("office", 6, actor="carla"),
    ) == {frozenset({"portal", "session", "role"}), frozenset({"next-day"}), frozenset({"office"})}


def test_several_identities_from_one_address_new_to_each_are_one_incident(spark: SparkSession) -> None:
    new = {"principal_prefix_days": 0}
    assert groups(
        spark,
        finding("portal", actor="uuid", **new),
        finding("session", 5, **new),
        finding("neighbour", 6, actor="ben", source_ip_address="203.0.113.8", **new),
        finding("at-home", 7, actor="carla"),
        finding("later", 600, actor="dora", **new),
    ) == {
        frozenset({"portal", "session"}), frozenset({"neighbour"}), frozenset({"at-home"}),
        frozenset({"later"}),
    }  # fmt: skip


def test_a_visit_with_two_ranges_joins_both(spark: SparkSession) -> None:
    new = {"prefix_principals": 0, "principal_prefix_days": 0}
    assert groups(
        spark,
        finding("a", actor="uuid", **new),
        finding("b", 5, **new),
        finding("c", 30, source_ip_address="198.51.100.1", **new),
        finding("d", 40, actor="ben", source_ip_address="198.51.100.2", **new),
    ) == {frozenset("abcd")}


def test_a_burst_counts_once_and_raises_its_incident(spark: SparkSession) -> None:
    burst = [
        finding(f"f{n}", n, command=f"iam:Create{n}", command_bits=5.0, what_bits=5.0, bits=7.0)
        for n in range(7)
    ]
    (incident,) = to_incidents(chained(spark, *burst)).collect()
    assert incident.what_bits == 5.0 + 0.5 * 3
    assert incident.bits == 2.0 + 5.0 + 1.5
    assert incident.findings == len(incident.commands) == 7


def test_an_incident_has_the_bits_of_its_most_surprising_actor(spark: SparkSession) -> None:
    new = {"prefix_principals": 0, "principal_prefix_days": 0}
    (incident,) = to_incidents(
        chained(
            spark,
            finding("a", actor="uuid", agent_bits=8.0, how_bits=8.0, bits=10.0, **new),
            finding("b", 5, place_bits=9.0, where_bits=9.0, bits=9.0, **new),
        )
    ).collect()
    assert (incident.actor, incident.bits) == ("uuid", 10.0)
    assert incident.principals == ["role/ana"]


def test_what_came_only_from_where_they_sit_loses_bits(spark: SparkSession) -> None:
    def bits(*settled: bool | None) -> tuple[float, float]:
        (incident,) = to_incidents(
            chained(spark, *(finding(f"f{n}", n, settled_range=known) for n, known in enumerate(settled)))
        ).collect()
        return incident.home_bits, incident.bits

    assert bits(True, False) == (0.0, 2.0)
    assert bits(None) == (0.0, 2.0)
    assert bits(True, True) == (-4.0, 0.0)  # never below none


def test_of_the_hour_the_least_counts(spark: SparkSession) -> None:
    (incident,) = to_incidents(
        chained(spark, finding("a", hour_bits=4.0, how_bits=4.0, bits=6.0), finding("b", 70, hour_bits=1.0))
    ).collect()
    assert incident.how_bits == 1.0
