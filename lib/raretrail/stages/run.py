"""A run: plan it from what earlier runs left, do its stages, record how it went."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from raretrail import __version__
from raretrail.alerts.webhook import Target
from raretrail.baseline.coverage import DELAY
from raretrail.errors import EXIT_DONE, EXIT_HELD, RaretrailError, UsageError
from raretrail.geo.databases import old_databases_warning
from raretrail.quality.gate import Gate
from raretrail.session import in_words
from raretrail.settings import Settings, format_duration
from raretrail.stages.alerts import send_alerts
from raretrail.stages.baseline import (
    KnownUses,
    advance_baseline,
    ensure_known_places,
    known_uses,
)
from raretrail.stages.check import check, check_coverage, prepare_check
from raretrail.stages.coverage import cover, judged_hours
from raretrail.stages.ingest import ingest
from raretrail.stages.locating import Geo, open_geo
from raretrail.stages.publish import publish
from raretrail.stages.score import Window, bucket_of, input_versions, score, window_events
from raretrail.stages.verdicts import Said, lay_on, read_said
from raretrail.tables import EVENTS, RUNS
from raretrail.warehouse import Warehouse, on_days, rows_of

Progress = Callable[[str], None]
# Everything is listed once in so many hours; in between only recent day folders are.
_FULL_LISTING = timedelta(hours=20)
# How far back runs are looked at; later events than that are taken in, not judged.
_REMEMBERED = timedelta(days=35)
_STEPS = ("ingest", "baseline", "score", "publish")


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code, what to tell, its record in `runs`."""

    exit_code: int
    messages: tuple[str, ...]
    record: dict[str, Any]


@dataclass
class Run:
    """A run in progress: where, under what settings, its record in `runs` so far, and the accounts whose
    files it may not read, with why."""

    warehouse: Warehouse
    settings: Settings
    geo: Geo
    as_of: datetime
    span: tuple[datetime, datetime] | None
    clock: Callable[[], datetime]
    progress: Progress
    target: Target | None = None
    record: dict[str, Any] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    denied: dict[str, str] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        """When the run started, by the real clock."""
        started: datetime = self.record["started_at"]
        return started

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage into the record."""
        self.progress(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.record["seconds"][name] = round(time.perf_counter() - start, 3)


def run(
    spark: SparkSession,
    settings: Settings,
    *,
    as_of: datetime,
    span: tuple[datetime, datetime] | None = None,
    steps: tuple[str, ...] = _STEPS,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    progress: Progress = lambda text: None,
    target: Target | None = None,
) -> Ended:
    """Do the stages over what is new as of `as_of`, or play [span) forward; record it in `runs`.

    steps may name some of the stages only; target is where alerts are delivered, if anywhere. Raises
    BusyError when another run holds the warehouse, UsageError for what only the user can mend; any other
    failure is recorded and raised.
    """
    warehouse = Warehouse(spark, settings.require_warehouse())
    with warehouse.held():
        warehouse.require_known_version()
        started = clock()
        geo = open_geo(settings.geo)
        this = Run(warehouse, settings, geo, as_of, span, clock, progress, target)
        mode = "history" if span else "scheduled" if steps == _STEPS else "+".join(steps)
        this.record = {
            "run_id": f"{started:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}",
            "started_at": started,
            "status": "done",
            "mode": mode,
            "as_of": as_of,
            "counts": {},
            "seconds": {},
            "held_scopes": [],
            "late_buckets": [],
            "event_days": [],
            "input_versions": {},
            "settings_hash": settings.hash,
            "geo_build": geo.build,
            "program_version": __version__,
        }
        old = old_databases_warning(geo.city, geo.asn, started)
        if old:
            this.messages.append(old)
        try:
            _do(this, steps)
        except BaseException as error:
            this.record |= {"status": "failed", "message": _first_line(error)}
            with suppress(Exception):  # whatever failed the run may keep this from being written, too
                _record(this)
            raise
        if this.denied and this.record["status"] != "held":
            told = [f"Nothing of account {one} was taken in. {why}" for one, why in this.denied.items()]
            this.record["message"] = "; ".join(told)
            this.messages += told
        _record(this)
    code = EXIT_HELD if this.record["status"] == "held" else EXIT_DONE
    return Ended(code, tuple(this.messages), this.record)


def _do(this: Run, steps: tuple[str, ...]) -> None:
    earlier = _earlier_runs(this.warehouse, this.now)
    if "ingest" in steps:
        with this.stage("ingest"):
            _ingest(this, earlier)
    if "publish" in steps and (this.span or this.record["counts"].get("files_new")):
        prepare_check(this.settings)
    upto = (this.span[1] if this.span else this.as_of).date()
    uses: KnownUses | None = None
    if this.span and this.warehouse.exists(EVENTS) and {"baseline", "score"} & set(steps):
        with this.stage("history"):
            ensure_known_places(this.warehouse, this.geo, upto, this.now)
            last = this.span[1] - timedelta(microseconds=1)
            end = max(upto, last.date() + timedelta(days=1))
            uses = known_uses(this.warehouse, this.geo, this.span[0].date(), end)
    if "baseline" in steps:
        with this.stage("baseline"):
            days = set(this.record["event_days"]) or _days_since_done(earlier)
            done = advance_baseline(this.warehouse, this.geo, upto, days, this.now, uses)
            this.record["counts"]["baseline_" + done] = 1
    if "score" in steps:
        with this.stage("score"):
            window = _window(this, earlier)
            this.record |= {
                "window_from": window.start,
                "window_to": window.end,
                "late_buckets": sorted(window.late),
            }
            quiet = steps == _STEPS and _is_quiet(this, window)
            if not quiet and this.warehouse.exists(EVENTS):
                this.record["input_versions"] |= input_versions(this.warehouse)
                found = score(this.warehouse, this.settings, this.geo, window, this.record["run_id"], uses)
                this.record["counts"]["findings"] = found
            if "publish" not in steps:
                this.record["status"] = "staged"
        if quiet:
            # Nothing came and nothing happened: there is nothing to judge, check or publish.
            this.record["counts"] |= {"findings": 0, "published": 0, "incidents": 0, "alerts": 0}
            _cover_quiet(this, window)
            _lay_on(this, _read_said(this, earlier))
            _send_alerts(this)
            return
    if "publish" in steps and this.warehouse.exists(EVENTS):
        if "score" not in steps:
            _take_up_staged(this, earlier)
        said = _read_said(this, earlier)
        _publish(this, _judged_days(earlier), said)
        _lay_on(this, said)
        _send_alerts(this)


def _ingest(this: Run, earlier: list[dict[str, Any]]) -> None:
    settings = this.settings.ingest
    history = settings.history
    recent: set[date] | None = None
    settled: datetime | None = None
    if this.span:
        since = (this.span[0] - history).date()
        # Delivery trails the event, so the day after the last is read too.
        until = (this.span[1] + timedelta(days=2)).date()
    else:
        since, until = (this.as_of - history).date(), None
        listed = [r["started_at"] for r in earlier if r["counts"].get("listed_all")]
        if listed and this.now - max(listed) < _FULL_LISTING:
            today = this.as_of.date()
            recent = {today + timedelta(days=d) for d in range(-settings.recent_days, 2)}
        elif listed:
            settled = max(listed)
    taken = ingest(
        this.warehouse,
        this.settings,
        this.geo,
        this.record["run_id"],
        this.now,
        since=since,
        until=until,
        recent=recent,
        settled=settled,
        progress=this.progress,
    )
    counts = this.record["counts"]
    counts |= taken.counts
    # While an account may not be listed its files wait, however old they become: all are looked for.
    counts["listed_all"] = int(recent is None and not this.span and not taken.denied)
    this.record["event_days"] = sorted(taken.days)
    this.denied = taken.denied
    if taken.denied:
        counts["accounts_denied"] = len(taken.denied)
    if counts.get("files_outside") and not counts["files_new"] and not this.warehouse.exists(EVENTS):
        this.messages.append(
            f"all {counts['files_outside']} files of the trail were delivered outside "
            f"{since} .. {until or 'now'} and were left (history: {format_duration(history)}); "
            "to judge older events give --from and --to"
        )
    if taken.refused:
        this.messages.append(
            f"{len(taken.refused)} messages of --files-from were not understood, as {taken.refused[0]}"
        )
    if elsewhere := counts.get("files_named_elsewhere"):
        this.messages.append(
            f"--files-from named {elsewhere} files outside of {', '.join(this.settings.trail)}: left alone"
        )
    named = "files_named" in counts
    if not counts["files_listed"] and not named:
        this.messages.append(f"no files found under {', '.join(this.settings.trail)}")


def _earlier_runs(warehouse: Warehouse, now: datetime) -> list[dict[str, Any]]:
    """The records of the last runs that have ended, oldest first."""
    recent = F.col("started_at") >= F.lit(now - _REMEMBERED)
    rows = rows_of(warehouse.read(RUNS).where(recent))
    for row in rows:
        row["late_buckets"] = row["late_buckets"] or []
    return sorted(rows, key=lambda row: row["started_at"])


def _is_published(record: dict[str, Any]) -> bool:
    return record["status"] == "done" and record["window_to"] is not None


def _judged_days(earlier: list[dict[str, Any]]) -> set[date]:
    """The days of the windows published by earlier runs."""
    windows = [Window(r["window_from"], r["window_to"]) for r in earlier if _is_published(r)]
    return {day for window in windows for day in window.days}


def _days_since_done(earlier: list[dict[str, Any]]) -> set[date]:
    """Days whose facts were written since the last run that took all steps."""
    since = max((i for i, r in enumerate(earlier) if _is_published(r)), default=-1)
    return {day for r in earlier[since + 1 :] for day in r["event_days"] or ()}


def _window(this: Run, earlier: list[dict[str, Any]]) -> Window:
    """The buckets to judge: the look-back, what no run has published since, what came late."""
    if this.span:
        return Window(*this.span)
    lookback = this.settings.score.lookback
    start = bucket_of(this.as_of - lookback)
    published = [r for r in earlier if _is_published(r) and r["mode"] != "history"]
    if published:
        # What a dead or held run left is taken up from where the last good one ended.
        start = min(start, bucket_of(max(r["window_to"] for r in published) - lookback))
    held = [r for r in earlier if r["status"] == "held" and r["window_from"]]
    if held and not published:
        start = min(start, min(r["window_from"] for r in held))
    late: frozenset[datetime] = frozenset()
    if published:
        late = _late_buckets(this, published, start)
    return Window(start, this.as_of, late)


def _late_buckets(this: Run, published: list[dict[str, Any]], start: datetime) -> frozenset[datetime]:
    """Buckets judged before for which events were taken in since the last published run."""
    first = min(r["window_from"] for r in published)
    since = max(r["started_at"] for r in published)
    days = set(this.record["event_days"]) | _days_since_done(_earlier_runs(this.warehouse, this.now))
    days = {day for day in days if first.date() <= day <= start.date()}
    if not days:
        return frozenset()
    bucket = F.date_trunc("HOUR", "event_time")
    rows = (
        this.warehouse.read(EVENTS)
        .where(on_days("event_date", sorted(days)))
        .where(F.col("ingested_at") > F.lit(since))
        .select(bucket.alias("bucket"))
        .distinct()
        .where((F.col("bucket") >= F.lit(first)) & (F.col("bucket") < F.lit(start)))
    )
    return frozenset(row["bucket"] for row in rows_of(rows))


def _is_quiet(this: Run, window: Window) -> bool:
    """Whether a scheduled run took nothing in and no event lies in the buckets it is to judge."""
    counts = this.record["counts"]
    if this.span or window.late or counts.get("files_new") or this.record["event_days"]:
        return False
    if counts.get("accounts_denied"):
        return False
    if not this.warehouse.exists(EVENTS):
        return False
    return window_events(this.warehouse, window).limit(1).count() == 0


def _take_up_staged(this: Run, earlier: list[dict[str, Any]]) -> None:
    staged = [r for r in earlier if r["status"] == "staged"]
    if not staged:
        raise UsageError("nothing is staged: run `raretrail score` before `raretrail publish`")
    last = staged[-1]
    for name in ("window_from", "window_to", "late_buckets", "as_of"):
        this.record[name] = last[name]


def _read_said(this: Run, earlier: list[dict[str, Any]]) -> Said:
    said = read_said(this.warehouse, this.settings, this.now, earlier, this.record["window_from"])
    this.record["counts"]["dispositions_ignored"] = len(said.problems)
    this.messages += said.messages
    return said


def _lay_on(this: Run, said: Said) -> None:
    """What was said since the last run reaches what is published already."""
    if said.is_news:
        with this.stage("verdicts"):
            reach = min(this.as_of, this.span[1]) if this.span else this.as_of
            this.record["counts"]["marked_again"] = lay_on(this.warehouse, said, reach.date())
    this.record["input_versions"] |= said.versions


def _cover(this: Run, window: Window) -> datetime:
    """Write what came beside what was expected; the time that was judged by."""
    # What lies beyond the window of a history need not have been read.
    now: datetime = min(this.record["as_of"], window.end + DELAY)
    with this.stage("coverage"):
        silence = cover(this.warehouse, window, now)
    this.record["counts"]["silent"] = silence.count
    if silence.message:
        this.record["message"] = silence.message
        this.messages.append(silence.message)
    return now


def _cover_quiet(this: Run, window: Window) -> None:
    """A run without anything to judge may be one that is blind."""
    now = _cover(this, window)
    if this.record["counts"]["silent"]:
        with this.stage("check"):
            covered = judged_hours(this.warehouse, window, now)
            run_id = this.record["run_id"]
            gate = check_coverage(this.warehouse, this.settings, run_id, this.now, covered)
        this.messages += gate.warnings
        if gate.held:
            _hold(this, gate)


def _publish(this: Run, judged: set[date], said: Said) -> None:
    record = this.record
    window = Window(record["window_from"], record["window_to"], frozenset(record["late_buckets"]))
    covered_at = _cover(this, window)
    with this.stage("check"):
        relied = sorted({*window.days, *record["event_days"]})
        upto = (this.span[1] if this.span else record["as_of"]).date()
        covered = judged_hours(this.warehouse, window, covered_at)
        gate = check(
            this.warehouse, this.settings, record["run_id"], relied, upto, this.now, covered, this.denied
        )
    with this.stage("publish"):
        alert = record["mode"] != "history"
        days = judged.union(window.days)
        done = publish(
            this.warehouse,
            this.settings,
            window,
            days,
            gate,
            this.now,
            alert=alert,
            deliver=this.target is not None,
            rules=said.rules,
        )
    record["counts"] |= {
        "published": done.findings,
        "suppressed": done.suppressed,
        "incidents": done.incidents,
        "alerts": done.alerts,
        "alerts_cut": done.alerts_cut,
    }
    if done.alerts_cut:
        this.messages.append(
            f"{done.alerts_cut} more incidents reach the alert score; "
            f"alerts.max_per_run ({this.settings.alerts.max_per_run}) cut them"
        )
    this.messages += gate.warnings
    if gate.held:
        _hold(this, gate)


def _send_alerts(this: Run) -> None:
    """Post what earlier runs and this one alerted; history alerts nobody."""
    record = this.record
    if this.target is None or this.span:
        return
    with this.stage("alerts"):
        since = record["window_from"].date()
        sent = send_alerts(this.warehouse, this.settings, this.target, since, record["run_id"], this.clock())
    record["counts"] |= {
        "alerts_sent": sent.sent,
        "alerts_pending": sent.pending,
        "alerts_given_up": sent.given_up,
    }
    this.messages += sent.messages


def _hold(this: Run, gate: Gate) -> None:
    scopes = ["all"] if gate.held_all else [f"{c}={v}" for c, v in sorted(gate.held_scopes)]
    this.record |= {"status": "held", "held_scopes": scopes, "message": "; ".join(gate.messages)}
    this.messages += gate.messages
    this.messages.append("what is held stays in staged_anomalies and is judged again by the next run")


def _record(this: Run) -> None:
    this.record["finished_at"] = this.clock()
    row = {name: this.record.get(name) for name in RUNS.column_names}
    spark = this.warehouse.spark
    this.warehouse.append(RUNS, spark.createDataFrame([row], RUNS.spark_schema()))


def _first_line(error: BaseException) -> str:
    if isinstance(error, Exception):
        error = in_words(error)
    if isinstance(error, RaretrailError):
        return str(error)
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no message'}"
