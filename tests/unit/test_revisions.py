"""News of a day that was judged, the findings it touches, and what is told of their revision."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from raretrail.baseline.news import REACH_DAYS, only_touched, to_changed_uses, to_news
from raretrail.detect.revisions import WAS, to_revisions, with_former_ids
from raretrail.tables import ANOMALIES, EVENTS, PLACES, REVISIONS, Table

pytestmark = pytest.mark.integration

DAY = date(2026, 3, 2)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def frame(spark: SparkSession, table: Table, rows: list[dict[str, Any]]) -> DataFrame:
    whole = [tuple(row.get(name) for name in table.column_names) for row in rows]
    return spark.createDataFrame(whole, table.spark_schema())


def event(actor: str, command: str, address: str, hour: int = 12, **more: Any) -> dict[str, Any]:
    at = NOON.replace(hour=hour)
    who = {"principal": f"user/{actor}", "actor": actor, "agent_family": "aws-cli/2"}
    return {
        **who,
        "event_date": DAY,
        "event_time": at,
        "command": command,
        "source_ip_address": address,
        **more,
    }


def places(spark: SparkSession) -> DataFrame:
    known = {"a1": ("city:1", "AS1"), "a2": ("city:1", "AS1"), "b1": ("city:2", "AS2")}
    rows = [
        {"source_ip_address": address, "place": place, "network": network, "country_iso_code": "NL",
         "prefix": f"{address}/24"}
        for address, (place, network) in known.items()
    ]  # fmt: skip
    return frame(spark, PLACES, rows)


def changed(spark: SparkSession, **events: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    parts = [frame(spark, EVENTS, events.get(name, [])) for name in ("stayed", "fresh", "removed")]
    found = to_changed_uses(*parts, places(spark))
    assert {row.event_date for row in found.collect()} <= {DAY}
    return {(row.dimension, row.identity, row.value) for row in found.collect()}


def test_only_what_is_the_first_of_its_kind_on_its_day_is_news(spark: SparkSession) -> None:
    stayed = [
        event("ana", "iam:GetUser", "a1"),
        event("ana", "s3:ListBuckets", "a1"),
        event("ben", "x:Y", "b1"),
    ]
    again = event("ana", "iam:GetUser", "a1")
    assert changed(spark, stayed=stayed, fresh=[again, again]) == set()
    elsewhere = changed(spark, stayed=stayed, fresh=[event("ana", "iam:GetUser", "b1", hour=13)])
    assert {(dimension, value) for dimension, identity, value in elsewhere if identity == "ana"} == {
        ("place", "city:2"), ("network", "AS2"), ("prefix", "b1/24"), ("hour", "13"),
    }  # fmt: skip
    assert {identity for _, identity, _ in elsewhere} == {"ana", "user/ana"}
    gone = changed(spark, stayed=stayed, removed=[event("ana", "iam:CreateUser", "a2", error_code="Denied")])
    assert {(d, v) for d, who, v in gone if who == "ana"} == {
        ("command", "iam:CreateUser"), ("prefix", "a2/24"), ("error", "Denied"),
    }  # fmt: skip
    # A correction that changes nothing known of the day.
    assert changed(spark, stayed=stayed, fresh=[again], removed=[again]) == set()


def test_findings_are_touched_by_identity_command_and_place_for_thirty_days(spark: SparkSession) -> None:
    late = [event("ana", "iam:GetUser", "b1")]
    uses = to_changed_uses(
        frame(spark, EVENTS, []), frame(spark, EVENTS, late), frame(spark, EVENTS, []), places(spark)
    )
    news = to_news(uses, frame(spark, EVENTS, late))

    def finding(name: str, days: int, **more: Any) -> dict[str, Any]:
        other = {"actor": "x", "principal": "y", "command": "z:Z", "place": "city:9"}
        return {"anomaly_id": name, "bucket_date": DAY + timedelta(days=days), **other, **more}

    findings = frame(
        spark,
        ANOMALIES,
        [
            finding("same day", 0, actor="ana"),
            finding("same day, other actor", 0, command="iam:GetUser", place="city:2"),
            finding("by actor", 1, actor="ana"),
            finding("by principal", 2, principal="user/ana"),
            finding("by command", 3, command="iam:GetUser"),
            finding("by place", REACH_DAYS, place="city:2"),
            finding("too late", REACH_DAYS + 1, actor="ana"),
            finding("day before", -1, actor="ana"),
            finding("stranger", 1),
        ],
    )
    touched = {row.anomaly_id for row in only_touched(findings, news).collect()}
    assert touched == {"same day", "by actor", "by principal", "by command", "by place"}


def _finding(name: str, **more: Any) -> dict[str, Any]:
    return {
        "anomaly_id": name, "bits": 10.0, "score": 40.0, "event_count": 1, "evidence_event_ids": ["e"],
        "place_bits": 6.0, "command_bits": 4.0, "maturity": 1.0, "settings_hash": "s", "score_revision": 0,
        "bucket_start": NOON, "incident_id": "i", **more,
    }  # fmt: skip


def test_a_revision_tells_what_changed_and_why(spark: SparkSession) -> None:
    def before(rows: list[dict[str, Any]]) -> DataFrame:
        return frame(spark, ANOMALIES, rows).withColumn("was", F.struct(*WAS))

    names = ("same", "grew", "late", "touched", "settings", "gone", "gone early")
    was = before([_finding(name) for name in names])
    now = [
        _finding("same"),
        _finding("grew", event_count=2, evidence_event_ids=["e", "f"]),
        _finding("late", event_count=2, bucket_start=NOON - timedelta(days=3), score_revision=1),
        _finding("touched", bits=7.0, score=20.0, place_bits=3.0, score_revision=1, incident_id="j"),
        _finding("settings", bits=9.0, settings_hash="t", score_revision=1),
        _finding("new"),
    ]
    judged = frame(spark, ANOMALIES, now).join(was.select("anomaly_id", "was"), "anomaly_id", "left")
    gone = was.where("anomaly_id LIKE 'gone%'")
    touched = spark.createDataFrame([("touched",), ("gone",)], "anomaly_id string")
    late = F.col("bucket_start") < F.lit(NOON)
    told = to_revisions(judged, gone, late, touched)
    assert set(REVISIONS.column_names) - set(told.columns) == {"revised_at", "revised_date", "run_id"}
    found = {row.anomaly_id: row for row in told.collect()}
    assert {name: (row.reason, row.withdrawn) for name, row in found.items()} == {
        "late": ("late_events", False),
        "touched": ("late_history", False),
        "settings": ("settings", False),
        "gone": ("late_history", True),
        "gone early": ("judged_again", True),
    }
    row = found["touched"]
    assert (row.was_bits, row.bits, row.was_score, row.score) == (10.0, 7.0, 40.0, 20.0)
    assert row.changed == ["place_bits 6.00 to 3.00"]
    assert (row.was_incident_id, row.incident_id) == ("i", "j")
    assert (found["gone"].bits, found["gone"].was_bits, found["gone"].score_revision) == (None, 10.0, 1)


def test_findings_keep_the_ids_of_incidents_they_were_in(spark: SparkSession) -> None:
    rows = frame(
        spark,
        ANOMALIES,
        [
            _finding("stays", incident_id="i"),
            _finding("moves", incident_id="j", former_incident_ids=["h"]),
            _finding("returns", incident_id="k", former_incident_ids=["k"]),
            _finding("new", incident_id="n"),
        ],
    )
    was = F.when(F.col("anomaly_id") != "new", F.struct(F.lit("i").alias("incident_id")))
    found = {
        row.anomaly_id: row.former_incident_ids
        for row in with_former_ids(rows.withColumn("was", was)).collect()
    }
    assert found == {"stays": None, "moves": ["h", "i"], "returns": ["i"], "new": None}
