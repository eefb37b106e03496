"""The publish stage: staged findings that nothing holds become anomalies, incidents and alerts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as Over
from pyspark.sql import functions as F

from raretrail.detect.incidents import to_incident_events, to_incidents, with_incident_id
from raretrail.quality.gate import Gate
from raretrail.settings import Settings
from raretrail.stages.score import Window
from raretrail.tables import ANOMALIES, EVENTS, INCIDENTS, STAGED_ANOMALIES
from raretrail.warehouse import Warehouse

# A chain of findings is followed back so far when a new one may join it.
_CHAIN_DAYS = 35
# What makes a published finding another than it was.
_REVISED_BY = ("bits", "score", "event_count", "evidence_event_ids")


@dataclass(frozen=True)
class Published:
    """How many findings and incidents a run published, and how many of these it alerted or cut."""

    findings: int
    incidents: int
    alerts: int
    alerts_cut: int


def publish(
    warehouse: Warehouse,
    settings: Settings,
    window: Window,
    gate: Gate,
    now: datetime,
    *,
    alert: bool,
) -> Published:
    """Merge what is not held. Findings of the window that no longer stand go, unless a scope is held.

    With alert, incidents at or above the least score that were not alerted before are, the highest
    first, up to the most a run may alert.
    """
    if gate.held_all:
        return Published(0, 0, 0, 0)
    staged = warehouse.read(STAGED_ANOMALIES).where(~_held(gate))
    quality = "ok" if not gate.warnings else "; ".join(sorted({_name(text) for text in gate.warnings}))
    before = warehouse.read(ANOMALIES).where(
        F.col("bucket_date") >= F.lit(window.days[0] - timedelta(days=_CHAIN_DAYS))
    )
    published = _as_published(staged, before, quality, now)
    in_window = F.expr(window.holds("bucket_start"))
    untouched = before.where(~in_window | _held(gate)).join(
        staged.select("principal", "place")
        .union(before.where(in_window).select("principal", "place"))
        .distinct(),
        ["principal", "place"],
        "left_semi",
    )
    chained = with_incident_id(
        published.unionByName(untouched.select(*published.columns)), settings.score.incident_gap
    )
    moved = chained.join(
        before.select("anomaly_id", F.col("incident_id").alias("was_in")), "anomaly_id", "left"
    )
    fresh = moved.where(in_window | (F.col("incident_id") != F.col("was_in"))).drop("was_in")
    findings = staged.count()
    touched = [row["incident_id"] for row in chained.select("incident_id").distinct().collect()]
    # One commit: what the run found, what moved to another incident, what no longer stands.
    warehouse.merge(
        ANOMALIES,
        fresh,
        only=f"t.bucket_date >= DATE'{window.days[0] - timedelta(days=_CHAIN_DAYS)}'",
        delete_missing=None if gate.held_scopes else window.holds("t.bucket_start"),
    )
    return _publish_incidents(warehouse, settings, window, touched, findings, quality, now, alert=alert)


def _publish_incidents(
    warehouse: Warehouse,
    settings: Settings,
    window: Window,
    touched: list[str],
    findings: int,
    quality: str,
    now: datetime,
    *,
    alert: bool,
) -> Published:
    spark = warehouse.spark
    # Incidents that lost all their findings, to another incident or to a revision.
    since = window.days[0] - timedelta(days=2 * _CHAIN_DAYS)
    empty = (
        warehouse.read(INCIDENTS)
        .where(F.col("first_date") >= F.lit(since))
        .join(warehouse.read(ANOMALIES), "incident_id", "left_anti")
        .select("incident_id")
    )
    gone = empty.collect()
    if gone:
        warehouse.remove(INCIDENTS, spark.createDataFrame(gone, "incident_id string"))
    if not touched:
        return Published(findings, 0, 0, 0)
    ids = spark.createDataFrame([(i,) for i in touched], "incident_id string")
    members = warehouse.read(ANOMALIES).join(F.broadcast(ids), "incident_id", "left_semi")
    known = warehouse.read(INCIDENTS).select("incident_id", "alerted_at")
    incidents = to_incidents(members, settings.score)
    span = incidents.agg(F.min("bucket_start").alias("start"), F.max("bucket_end").alias("end")).first()
    assert span is not None
    events = warehouse.read(EVENTS).where(
        F.col("event_date").between(F.lit(span["start"].date()), F.lit(span["end"].date()))
    )
    rows = (
        incidents.join(to_incident_events(incidents, events), "incident_id", "left")
        .join(known, "incident_id", "left")
        .join(members.groupBy("incident_id").agg(F.max("run_id").alias("run_id")), "incident_id")
        .withColumn("quality", F.lit(quality))
    )
    due = F.col("alerted_at").isNull() & (F.col("score") >= settings.alerts.min_score) & F.lit(alert)
    nth = F.row_number().over(Over.partitionBy(due).orderBy(F.desc("score"), F.desc("bits"), "incident_id"))
    rows = rows.withColumn("due", due).withColumn("nth", nth)
    chosen = F.col("due") & (F.col("nth") <= settings.alerts.max_per_run)
    rows = rows.withColumn("alerted_at", F.when(chosen, F.lit(now)).otherwise(F.col("alerted_at")))
    warehouse.merge(INCIDENTS, rows)
    if not alert:
        return Published(findings, len(touched), 0, 0)
    written = warehouse.read(INCIDENTS).join(F.broadcast(ids), "incident_id", "left_semi")
    counts = written.agg(
        F.count_if(F.col("alerted_at") == F.lit(now)).alias("alerts"),
        F.count_if(F.col("alerted_at").isNull() & (F.col("score") >= settings.alerts.min_score)).alias("cut"),
    ).first()
    assert counts is not None
    return Published(findings, len(touched), counts["alerts"], counts["cut"])


def _held(gate: Gate) -> Column:
    held = F.lit(False)
    for column, value in sorted(gate.held_scopes):
        if column in ANOMALIES.column_names:
            held = held | (F.col(column) == F.lit(value))
    return held


def _as_published(staged: DataFrame, before: DataFrame, quality: str, now: datetime) -> DataFrame:
    """staged plus quality, first_scored_at and score_revision, which counts changes of its row."""
    was = before.select(
        "anomaly_id",
        "first_scored_at",
        "score_revision",
        F.struct(*_REVISED_BY).alias("was"),
    )
    revised = F.when(F.struct(*_REVISED_BY) != F.col("was"), 1).otherwise(0)
    return (
        staged.join(was, "anomaly_id", "left")
        .withColumn("quality", F.lit(quality))
        .withColumn("score_revision", F.coalesce(F.col("score_revision") + revised, F.lit(0)))
        .withColumn("first_scored_at", F.coalesce("first_scored_at", F.lit(now)))
        .withColumn("incident_id", F.lit(None).cast("string"))
        .select(*ANOMALIES.column_names)
    )


def _name(warning: str) -> str:
    return warning.partition(" ")[0]
