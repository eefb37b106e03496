"""The publish stage: staged findings that nothing holds become anomalies, incidents and alerts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import Window as Over
from pyspark.sql import functions as F

from raretrail.detect.dispositions import to_incident_states, with_states, with_suppressed_by
from raretrail.detect.incidents import to_incident_events, to_incidents, with_incident_id
from raretrail.detect.rank import to_calibrations, with_score
from raretrail.detect.revisions import NAMED, WAS, is_revised, is_told, to_revisions, with_former_ids
from raretrail.detect.rules import Rule
from raretrail.quality.gate import Gate
from raretrail.quality.measure import account_region
from raretrail.quality.suites import ACCOUNT_REGION
from raretrail.settings import Settings
from raretrail.stages.baseline import between
from raretrail.stages.evidence import with_incident_evidence
from raretrail.stages.score import Touched, Window, days_judged
from raretrail.tables import ANOMALIES, CALIBRATIONS, EVENTS, INCIDENTS, REVISIONS, STAGED_ANOMALIES
from raretrail.warehouse import Warehouse

# A chain of findings is followed back so far when a new one may join it.
_CHAIN_DAYS = 35
# An address range is new on its day only, and what comes from it then may reach into the next.
_JOINING_DAYS = 2
# What chained rows carry beside a finding's columns: whether the run judged it, and what it was before.
_BEFORE = ("is_judged", "was")
# Columns of a finding published before that are asked for many times over, without the finding itself.
_ASKED = (*NAMED, "actor", "prefix", "bucket_date", "incident_id", "score_revision", "late_minutes")


@dataclass(frozen=True)
class Published:
    """How many findings and incidents a run published, how many of these it alerted or cut, and how many
    published before it revised."""

    findings: int
    suppressed: int
    incidents: int
    alerts: int
    alerts_cut: int
    revised: int


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
    touched: Touched | None = None,
    run_id: str = "",
) -> Published:
    """Merge what is not held. Findings of the window, and touched ones, that no longer stand go, unless a
    scope is held. What becomes of findings published before is kept in `revisions`.

    judged are the days judged so far, the window's among them. With alert, incidents at or above the
    least score that were not alerted before are, the highest first, up to the most a run may alert;
    those that rules suppress or put in other hands are not. With deliver they are marked for the outbox.
    """
    if gate.held_all:
        return Published(0, 0, 0, 0, 0, 0)
    warehouse.create(ANOMALIES)
    warehouse.create(INCIDENTS)
    days = days_judged(window, touched)
    staged = warehouse.carried(warehouse.read(STAGED_ANOMALIES).where(~_held(gate)))
    quality = "ok" if not gate.warnings else "; ".join(sorted({_name(text) for text in gate.warnings}))
    since = days[0] - timedelta(days=_CHAIN_DAYS)
    stored = warehouse.read(ANOMALIES).where(F.col("bucket_date") >= F.lit(since))
    before = warehouse.carried(_asked(_with_judged(stored, window, touched), gate))
    published = _as_published(staged, before, quality, now)
    stay = before.where(~F.col("is_judged") | F.col("is_held"))
    # What may chain with what the run found: of the same actors, and lately from the same address ranges.
    moving = staged.select("actor", "prefix").unionByName(before.where("is_judged").select("actor", "prefix"))
    lately = F.col("bucket_date") >= F.lit(days[0] - timedelta(days=_JOINING_DAYS))
    ranges = (
        stay.where(lately)
        .select("actor", "prefix")
        .join(moving.where("prefix <> ''").select("prefix").distinct(), "prefix", "left_semi")
    )
    actors = moving.select("actor").unionByName(ranges.select("actor")).distinct()
    joined = stay.join(actors, "actor", "left_semi").select("anomaly_id", "was")
    untouched = stored.join(F.broadcast(joined), "anomaly_id").withColumn("is_judged", F.lit(False))
    chained = warehouse.stage(
        "chained",
        with_incident_id(
            published.unionByName(untouched.select(*published.columns)), settings.score.incident_gap
        ).transform(with_former_ids),
        few=True,
    )
    marked = with_suppressed_by(chained, rules)
    differs = ~F.struct("incident_id", "suppressed_by").eqNullSafe(
        F.struct("was.incident_id", "was.suppressed_by")
    )
    fresh = marked.where(F.col("is_judged") | differs)
    concerned = fresh.select("incident_id").distinct()
    chained = chained.join(concerned, "incident_id", "left_semi")
    marked = marked.join(concerned, "incident_id", "left_semi")
    incidents = to_incidents(chained)
    calibrations = _calibrated(warehouse, settings, stay, incidents, days, judged)
    # With a scope held nothing goes: what is not staged may be held.
    gone = before.where(F.lit(not gate.held_findings) & F.col("is_judged"))
    gone = gone.join(staged.select("anomaly_id"), "anomaly_id", "left_anti")
    is_late = F.expr(window.is_late("bucket_start"))
    found = _count(fresh.where("is_judged"), gone, is_told(is_late))
    if found["revised"]:
        # Before the change itself: a run that ends in between finds it once more.
        told = to_revisions(
            with_score(fresh.where("is_judged"), "bucket_date", calibrations, settings.score),
            gone,
            is_late,
            touched.findings if touched else None,
            met_late=bool(window.late),
        )
        when = {"revised_at": F.lit(now), "revised_date": F.lit(now.date()), "run_id": F.lit(run_id)}
        yesterday = now.date() - timedelta(days=1)
        warehouse.merge(
            REVISIONS, told.withColumns(when), only=f"t.revised_date >= DATE'{yesterday}'", few=True
        )
    if touched and found["gone"]:
        warehouse.remove(ANOMALIES, gone.select("anomaly_id"))
    # One commit: what the run found, what moved to another incident or is suppressed by something else,
    # what no longer stands.
    warehouse.merge(
        ANOMALIES,
        with_score(fresh.drop(*_BEFORE), "bucket_date", calibrations, settings.score),
        only=f"t.bucket_date >= DATE'{since}'",
        delete_missing=None if gate.held_findings else window.holds("t.bucket_start"),
        few=True,
    )
    scored = with_score(incidents, "first_date", calibrations, settings.score).withColumn(
        "quality", F.lit(quality)
    )
    scored = with_states(scored, to_incident_states(marked, rules))
    run_ids = chained.groupBy("incident_id").agg(F.max("run_id").alias("run_id"))
    scored = scored.join(run_ids, "incident_id")
    counts = _publish_incidents(warehouse, settings, days, chained, scored, now, alert, deliver)
    return replace(
        counts, findings=found["findings"], suppressed=found["suppressed"], revised=found["revised"]
    )


def _with_judged(findings: DataFrame, window: Window, touched: Touched | None) -> DataFrame:
    """findings plus is_judged: whether the run has judged them once more."""
    in_window = F.expr(window.holds("bucket_start"))
    if touched is None:
        return findings.withColumn("is_judged", in_window)
    named = touched.findings.select("anomaly_id", F.lit(True).alias("is_touched"))
    return (
        findings.join(F.broadcast(named), "anomaly_id", "left")
        .withColumn("is_judged", in_window | F.col("is_touched").isNotNull())
        .drop("is_touched")
    )


def _asked(published: DataFrame, gate: Gate) -> DataFrame:
    """Of findings published before `_ASKED`, is_judged, is_held (whether a scope of theirs is held) and what
    each was (`WAS`)."""
    held, was = _held(gate).alias("is_held"), F.struct(*WAS).alias("was")
    return published.select(*_ASKED, "is_judged", held, was)


def _count(judged: DataFrame, gone: DataFrame, is_told: Column) -> Row:
    """(findings, suppressed, gone, revised): of those the run judged, in one pass."""
    stand = judged.select(
        F.lit(True).alias("stands"),
        F.col("suppressed_by").isNotNull().alias("suppressed"),
        is_told.alias("revised"),
    )
    fallen = gone.select(
        F.lit(False).alias("stands"), F.lit(False).alias("suppressed"), F.lit(True).alias("revised")
    )
    counts = stand.unionByName(fallen).agg(
        F.count_if("stands").alias("findings"),
        F.count_if("suppressed").alias("suppressed"),
        F.count_if(~F.col("stands")).alias("gone"),
        F.count_if("revised").alias("revised"),
    )
    row = counts.first()
    assert row is not None
    return row


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
    since = _chained_since(days)
    stored = _calibrations(warehouse, settings, since)
    known = {row["as_of"] for row in stored.select("as_of").collect()}
    missing = [day for day in days if day not in known]
    if not missing:
        return stored
    others = (
        warehouse.read(INCIDENTS)
        .where(F.col("first_date") >= F.lit(min(missing) - timedelta(days=_CHAIN_DAYS)))
        .join(stay.select("incident_id"), "incident_id", "left_semi")
        .join(incidents.select("incident_id"), "incident_id", "left_anti")
    )
    basis = others.select("first_date", "bits").unionByName(incidents.select("first_date", "bits"))
    rows = to_calibrations(warehouse.spark, basis, missing, judged)
    warehouse.merge(CALIBRATIONS, rows.withColumn("settings_hash", F.lit(settings.hash)), update=[], few=True)
    return _calibrations(warehouse, settings, since)


def _calibrations(warehouse: Warehouse, settings: Settings, since: date) -> DataFrame:
    rows = warehouse.read(CALIBRATIONS)
    ours = (F.col("settings_hash") == settings.hash) & (F.col("as_of") >= F.lit(since))
    return warehouse.carried(rows.where(ours))


def _publish_incidents(
    warehouse: Warehouse,
    settings: Settings,
    days: Sequence[date],
    findings: DataFrame,
    incidents: DataFrame,
    now: datetime,
    alert: bool,
    deliver: bool,
) -> Published:
    span = incidents.agg(F.min("bucket_start").alias("start"), F.max("bucket_end").alias("end")).first()
    if span is None or span["start"] is None:
        _remove_gone(warehouse, days)
        return Published(0, 0, 0, 0, 0, 0)
    start, end = span["start"].date(), span["end"].date() + timedelta(days=1)
    events = between(warehouse.read(EVENTS), start, end)
    known = _known_alerts(warehouse, findings, days)
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
    since = _chained_since(days)
    warehouse.merge(INCIDENTS, rows, only=f"t.first_date >= DATE'{since}'", few=True)
    # Not before those that take their place are there: these hold what was alerted of them.
    _remove_gone(warehouse, days)
    lately = warehouse.read(INCIDENTS).where(F.col("first_date") >= F.lit(since))
    written = lately.join(F.broadcast(incidents.select("incident_id")), "incident_id", "left_semi")
    counts = written.agg(
        F.count(F.lit(1)).alias("incidents"),
        F.count_if(F.col("alerted_at") == F.lit(now)).alias("alerts"),
        F.count_if(F.col("alerted_at").isNull() & _speaks(settings) & F.lit(alert)).alias("cut"),
    ).first()
    assert counts is not None
    return Published(0, 0, counts["incidents"], counts["alerts"], counts["cut"], 0)


def _known_alerts(warehouse: Warehouse, findings: DataFrame, days: Sequence[date]) -> DataFrame:
    """(incident_id, alerted_at, alert_revision, supersedes) of the incidents of findings: what was alerted of
    them under the ids they had before counts as alerted, and is delivered no second time."""
    ids = findings.select(
        "incident_id",
        F.explode(F.array_union(F.array("incident_id"), F.coalesce("former_incident_ids", F.array()))).alias(
            "id"
        ),
    ).distinct()
    since = _chained_since(days)
    standing = (
        warehouse.read(ANOMALIES)
        .where(F.col("bucket_date") >= F.lit(since))
        .select(F.col("incident_id").alias("id"), F.lit(True).alias("stands"))
        .distinct()
    )
    stored = (
        warehouse.read(INCIDENTS)
        .where(F.col("first_date") >= F.lit(since))
        .select(F.col("incident_id").alias("id"), "alerted_at", "alert_revision")
    )
    own = F.col("id") == F.col("incident_id")
    return (
        ids.join(stored, "id", "left")
        .join(standing, "id", "left")
        .groupBy("incident_id")
        .agg(
            F.max("alerted_at").alias("alerted_at"),
            F.max(F.when(own, F.col("alert_revision"))).alias("alert_revision"),
            F.sort_array(F.collect_set(F.when(F.col("stands").isNull(), F.col("id")))).alias("gone"),
        )
        .withColumn("supersedes", F.when(F.size("gone") > 0, F.col("gone")))
        .drop("gone")
    )


def _chained_since(days: Sequence[date]) -> date:
    """No incident that findings of these days, or what they chain with, belong to or belonged to began
    before."""
    return days[0] - timedelta(days=3 * _CHAIN_DAYS)


def _remove_gone(warehouse: Warehouse, days: Sequence[date]) -> None:
    """Take out incidents that lost all their findings, to another incident or to a revision."""
    since = _chained_since(days)
    theirs = F.col("bucket_date") >= F.lit(since)
    gone = (
        warehouse.read(INCIDENTS)
        .where(F.col("first_date") >= F.lit(since))
        .join(warehouse.read(ANOMALIES).where(theirs), "incident_id", "left_anti")
        .select("incident_id")
        .collect()
    )
    if gone:
        warehouse.remove(INCIDENTS, warehouse.spark.createDataFrame(gone, "incident_id string"))


def _speaks(settings: Settings) -> Column:
    """Whether an incident asks for attention: unusual enough, not suppressed, in nobody's hands."""
    reaches = F.col("score") >= settings.alerts.min_score
    return reaches & F.col("suppressed_by").isNull() & (F.col("state") == "open")


def _held(gate: Gate) -> Column:
    held = F.lit(False)
    for column, value in sorted(gate.held_findings):
        if column == ACCOUNT_REGION:
            held = held | (account_region() == F.lit(value))
        elif column in ANOMALIES.column_names:
            held = held | (F.col(column) == F.lit(value))
    return held


def _as_published(staged: DataFrame, before: DataFrame, quality: str, now: datetime) -> DataFrame:
    """staged plus quality, first_scored_at, score_revision, which counts changes of its row, and what it
    was (null where it was not published)."""
    revised = F.when(is_revised(), 1).otherwise(0)
    return (
        staged.join(before.select("anomaly_id", "was"), "anomaly_id", "left")
        .withColumn("quality", F.lit(quality))
        .withColumn("score_revision", F.coalesce(F.col("was.score_revision") + revised, F.lit(0)))
        .withColumn("first_scored_at", F.coalesce("was.first_scored_at", F.lit(now)))
        .withColumn("former_incident_ids", F.col("was.former_incident_ids"))
        .withColumn("incident_id", F.lit(None).cast("string"))
        .withColumn("suppressed_by", F.lit(None).cast("string"))
        .withColumn("is_judged", F.lit(True))
        .select(*ANOMALIES.column_names, *_BEFORE)
    )


def _name(warning: str) -> str:
    return warning.partition(" ")[0]
