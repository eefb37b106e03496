"""The publish stage: staged findings that nothing holds become anomalies, incidents and alerts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as Over
from pyspark.sql import functions as F

from raretrail.detect.dispositions import to_incident_states, with_states, with_suppressed_by
from raretrail.detect.incidents import to_incident_events, to_incidents, with_incident_id
from raretrail.detect.rank import to_calibrations, with_score
from raretrail.detect.rules import Rule
from raretrail.quality.gate import Gate
from raretrail.settings import Settings
from raretrail.stages.baseline import between
from raretrail.stages.evidence import with_incident_evidence
from raretrail.stages.score import Window
from raretrail.tables import ANOMALIES, CALIBRATIONS, EVENTS, INCIDENTS, STAGED_ANOMALIES
from raretrail.warehouse import Warehouse

# A chain of findings is followed back so far when a new one may join it.
_CHAIN_DAYS = 35
# An address range is new on its day only, and what comes from it then may reach into the next.
_JOINING_DAYS = 2
# What makes a published finding another than it was.
_REVISED_BY = ("bits", "event_count", "evidence_event_ids")


@dataclass(frozen=True)
class Published:
    """How many findings and incidents a run published, and how many of these it alerted or cut."""

    findings: int
    suppressed: int
    incidents: int
    alerts: int
    alerts_cut: int


def publish(
    warehouse: Warehouse,
    settings: Settings,
    window: Window,
    judged: Collection[date],
    gate: Gate,
    now: datetime,
    *,
    alert: bool,
    deliver: bool = False,
    rules: Sequence[Rule] = (),
) -> Published:
    """Merge what is not held. Findings of the window that no longer stand go, unless a scope is held.

    judged are the days judged so far, the window's among them. With alert, incidents at or above the
    least score that were not alerted before are, the highest first, up to the most a run may alert;
    those that rules suppress or put in other hands are not. With deliver they are marked for the outbox.
    """
    if gate.held_all:
        return Published(0, 0, 0, 0, 0)
    warehouse.create(ANOMALIES)
    warehouse.create(INCIDENTS)
    staged = warehouse.read(STAGED_ANOMALIES).where(~_held(gate))
    quality = "ok" if not gate.warnings else "; ".join(sorted({_name(text) for text in gate.warnings}))
    since = window.days[0] - timedelta(days=_CHAIN_DAYS)
    before = warehouse.read(ANOMALIES).where(F.col("bucket_date") >= F.lit(since))
    published = _as_published(staged, before, quality, now)
    in_window = F.expr(window.holds("bucket_start"))
    stay = before.where(~in_window | _held(gate))
    # What may chain with what the run found: of the same actors, and lately from the same address ranges.
    moving = staged.select("actor", "prefix").unionByName(before.where(in_window).select("actor", "prefix"))
    lately = F.col("bucket_date") >= F.lit(window.days[0] - timedelta(days=_JOINING_DAYS))
    ranges = (
        stay.where(lately)
        .select("actor", "prefix")
        .join(moving.where("prefix <> ''").select("prefix").distinct(), "prefix", "left_semi")
    )
    actors = moving.select("actor").unionByName(ranges.select("actor")).distinct()
    untouched = stay.join(actors, "actor", "left_semi")
    chained = warehouse.stage(
        "chained",
        with_incident_id(
            published.unionByName(untouched.select(*published.columns)), settings.score.incident_gap
        ),
        few=True,
    )
    marked = with_suppressed_by(chained.withColumnRenamed("suppressed_by", "was_by"), rules)
    moved = marked.join(
        before.select("anomaly_id", F.col("incident_id").alias("was_in")), "anomaly_id", "left"
    )
    changed = (F.col("incident_id") != F.col("was_in")) | ~F.col("suppressed_by").eqNullSafe(F.col("was_by"))
    fresh = moved.where(in_window | changed).drop("was_in", "was_by")
    touched = fresh.select("incident_id").distinct()
    chained = chained.join(touched, "incident_id", "left_semi")
    marked = marked.join(touched, "incident_id", "left_semi")
    incidents = to_incidents(chained)
    calibrations = _calibrated(warehouse, settings, stay, incidents, window.days, judged)
    # One commit: what the run found, what moved to another incident or is suppressed by something else,
    # what no longer stands.
    warehouse.merge(
        ANOMALIES,
        with_score(fresh, "bucket_date", calibrations, settings.score),
        only=f"t.bucket_date >= DATE'{since}'",
        delete_missing=None if gate.held_scopes else window.holds("t.bucket_start"),
    )
    scored = with_score(incidents, "first_date", calibrations, settings.score).withColumn(
        "quality", F.lit(quality)
    )
    scored = with_states(scored, to_incident_states(marked, rules))
    run_ids = chained.groupBy("incident_id").agg(F.max("run_id").alias("run_id"))
    scored = scored.join(run_ids, "incident_id")
    counts = _publish_incidents(warehouse, settings, window, chained, scored, now, alert, deliver)
    fate = marked.where(in_window & ~_held(gate)).agg(
        F.count(F.lit(1)).alias("findings"), F.count("suppressed_by").alias("suppressed")
    )
    found = fate.first()
    assert found is not None
    return replace(counts, findings=found["findings"], suppressed=found["suppressed"])


def _calibrated(
    warehouse: Warehouse,
    settings: Settings,
    stay: DataFrame,
    incidents: DataFrame,
    days: Sequence[date],
    judged: Collection[date],
) -> DataFrame:
    """The calibrations of the days and of the time their incidents reach back. Of the days those not there
    yet are made of the incidents before each."""
    since = days[0] - timedelta(days=2 * _CHAIN_DAYS)
    stored = _calibrations(warehouse, settings, since)
    known = {row["as_of"] for row in stored.select("as_of").collect()}
    missing = [day for day in days if day not in known]
    if missing:
        others = (
            warehouse.read(INCIDENTS)
            .where(F.col("first_date") >= F.lit(min(missing) - timedelta(days=_CHAIN_DAYS)))
            .join(stay.select("incident_id"), "incident_id", "left_semi")
            .join(incidents.select("incident_id"), "incident_id", "left_anti")
        )
        basis = others.select("first_date", "bits").unionByName(incidents.select("first_date", "bits"))
        rows = to_calibrations(warehouse.spark, basis, missing, judged)
        warehouse.merge(CALIBRATIONS, rows.withColumn("settings_hash", F.lit(settings.hash)), update=[])
    return _calibrations(warehouse, settings, since)


def _calibrations(warehouse: Warehouse, settings: Settings, since: date) -> DataFrame:
    return warehouse.read(CALIBRATIONS).where(
        (F.col("settings_hash") == settings.hash) & (F.col("as_of") >= F.lit(since))
    )


def _publish_incidents(
    warehouse: Warehouse,
    settings: Settings,
    window: Window,
    findings: DataFrame,
    incidents: DataFrame,
    now: datetime,
    alert: bool,
    deliver: bool,
) -> Published:
    spark = warehouse.spark
    # Incidents that lost all their findings, to another incident or to a revision.
    since = window.days[0] - timedelta(days=2 * _CHAIN_DAYS)
    lately = F.col("first_date") >= F.lit(since)
    their = warehouse.read(ANOMALIES).where(F.col("bucket_date") >= F.lit(since - timedelta(days=1)))
    gone = (
        warehouse.read(INCIDENTS)
        .where(lately)
        .join(their, "incident_id", "left_anti")
        .select("incident_id")
        .collect()
    )
    if gone:
        warehouse.remove(INCIDENTS, spark.createDataFrame(gone, "incident_id string"))
    span = incidents.agg(F.min("bucket_start").alias("start"), F.max("bucket_end").alias("end")).first()
    if span is None or span["start"] is None:
        return Published(0, 0, 0, 0, 0)
    start, end = span["start"].date(), span["end"].date() + timedelta(days=1)
    events = between(warehouse.read(EVENTS), start, end)
    known = warehouse.read(INCIDENTS).where(lately).select("incident_id", "alerted_at", "alert_revision")
    # Every answer beside them asks for them once more.
    incidents = warehouse.stage(
        "incidents", incidents.join(to_incident_events(findings, events), "incident_id", "left"), few=True
    )
    rows = with_incident_evidence(warehouse, settings, incidents, findings, start, end)
    rows = rows.join(known, "incident_id", "left")
    # An incident that was closed and is open again may be alerted once more.
    told = F.coalesce(F.col("alerted_at") >= F.coalesce("closed_at", "alerted_at"), F.lit(False))
    due = ~told & _speaks(settings) & F.lit(alert)
    nth = F.row_number().over(Over.partitionBy(due).orderBy(F.desc("score"), F.desc("bits"), "incident_id"))
    rows = rows.withColumn("due", due).withColumn("nth", nth)
    chosen = F.col("due") & (F.col("nth") <= settings.alerts.max_per_run)
    rows = rows.withColumn("alerted_at", F.when(chosen, F.lit(now)).otherwise(F.col("alerted_at")))
    if deliver:
        # Of the same commit as alerted_at, so that no alert is lost to a run that ends here.
        revision = F.coalesce(F.col("alert_revision") + 1, F.lit(0))
        rows = rows.withColumn("alert_revision", F.when(chosen, revision).otherwise(F.col("alert_revision")))
    warehouse.merge(INCIDENTS, rows, only=f"t.first_date >= DATE'{since}'")
    ours = F.broadcast(incidents.select("incident_id"))
    written = warehouse.read(INCIDENTS).where(lately).join(ours, "incident_id", "left_semi")
    counts = written.agg(
        F.count(F.lit(1)).alias("incidents"),
        F.count_if(F.col("alerted_at") == F.lit(now)).alias("alerts"),
        F.count_if(F.col("alerted_at").isNull() & _speaks(settings) & F.lit(alert)).alias("cut"),
    ).first()
    assert counts is not None
    return Published(0, 0, counts["incidents"], counts["alerts"], counts["cut"])


def _speaks(settings: Settings) -> Column:
    """Whether an incident asks for attention: unusual enough, not suppressed, in nobody's hands."""
    reaches = F.col("score") >= settings.alerts.min_score
    return reaches & F.col("suppressed_by").isNull() & (F.col("state") == "open")


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
        .withColumn("suppressed_by", F.lit(None).cast("string"))
        .select(*ANOMALIES.column_names)
    )


def _name(warning: str) -> str:
    return warning.partition(" ")[0]
