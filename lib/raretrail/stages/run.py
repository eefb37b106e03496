"""A run: plan it from what earlier runs left, do its stages, record how it went."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from raretrail import __version__
from raretrail.alerts.webhook import Target
from raretrail.baseline.coverage import DELAY
from raretrail.errors import EXIT_DONE, EXIT_HELD, RaretrailError, UsageError
from raretrail.geo.databases import old_databases_warning
from raretrail.quality.gate import Gate, files_among, only_files_held
from raretrail.session import in_words
from raretrail.settings import Settings, format_duration
from raretrail.stages.alerts import send_alerts
from raretrail.stages.baseline import (
    KnownUses,
    advance_baseline,
    ensure_known_places,
    known_uses,
)
from raretrail.stages.check import check, check_coverage, check_denied, prepare_check
from raretrail.stages.coverage import cover, judged_hours
from raretrail.stages.ingest import ingest, still_unreadable
from raretrail.stages.late import late_buckets, staged_touched, touched_by
from raretrail.stages.locating import Geo, open_geo
from raretrail.stages.maintain import compact_day
from raretrail.stages.publish import Published, publish
from raretrail.stages.score import Touched, Window, bucket_of, input_versions, score, window_events
from raretrail.stages.verdicts import Said, lay_on, read_said
from raretrail.tables import EVENTS, RUNS
from raretrail.together import beside
from raretrail.warehouse import Warehouse, rows_of

Progress = Callable[[str], None]
# Everything is listed once in so many hours; in between only recent day folders are.
_FULL_LISTING = timedelta(hours=20)
# How far back runs are looked at; later events than that are taken in, not judged.
_REMEMBERED = timedelta(days=35)
_STEPS = ("ingest", "baseline", "score", "publish")
_HELD_NOTE = "what is held stays in staged_anomalies and is judged again by the next run"


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code, what to tell, its record in `runs`."""

    exit_code: int
    messages: tuple[str, ...]
    record: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a run has to judge: spans in turn, each with the day of the baseline it leaves; the days whose
    facts were written since the last published run; what runs have judged before, and when the last of
    them began; whether the last one alerted something of a day before the baseline's; the hours from which
    copies were taken out since, None where nothing was."""

    spans: tuple[tuple[datetime, datetime, date], ...]
    changed: frozenset[date]
    judged: tuple[tuple[datetime, datetime], ...]
    since: datetime | None
    judged_anew: bool
    taken_out: frozenset[datetime] | None = None

    def changed_beside(self, window: Window) -> set[date]:
        """The changed days that no other of the spans than the window's answers for."""
        others = {day for start, end, _ in self.spans if end != window.end for day in Window(start, end).days}
        return set(self.changed) - others


@dataclass
class Run:
    """A run in progress: where, under what settings, its record in `runs` so far, the accounts of which
    files may not be read, with why, and the days on which the files it took were delivered."""

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
    delivered: set[date] = field(default_factory=set)

    @property
    def now(self) -> datetime:
        """When the run started, by the real clock."""
        started: datetime = self.record["started_at"]
        return started

    @contextmanager
    def stage(self, name: str, *, told: bool = True) -> Iterator[None]:
        """Time a stage into the record; one that runs beside another need not be told as progress."""
        if told:
            self.progress(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = self.record["seconds"]
            seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - start, 3)

    def count(self, **counts: int) -> None:
        """Add to the record's counts; a run that catches up takes some stages several times."""
        known = self.record["counts"]
        for name, count in counts.items():
            known[name] = known.get(name, 0) + count


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
            _hold_denied(this, steps)
        except BaseException as error:
            this.record |= {"status": "failed", "message": _first_line(error)}
            with suppress(Exception):  # whatever failed the run may keep this from being written, too
                _record(this)
            raise
        _record(this)
    code = EXIT_HELD if this.record["status"] == "held" else EXIT_DONE
    return Ended(code, tuple(this.messages), this.record)


def _do(this: Run, steps: tuple[str, ...]) -> None:
    earlier = _earlier_runs(this.warehouse, this.now)
    if "ingest" in steps:
        with this.stage("ingest"):
            _ingest(this, earlier)
            if not this.span:
                for day in this.record["event_days"]:
                    compact_day(this.warehouse, day, earlier)
    if "publish" in steps and (this.span or this.record["counts"].get("files_new")):
        prepare_check(this.settings)
    plan = _plan(this, earlier)
    if steps == _STEPS and not this.span:
        _in_turn(this, plan, earlier)
        return
    uses: KnownUses | None = None
    if this.span and this.warehouse.exists(EVENTS) and {"baseline", "score"} & set(steps):
        with this.stage("history"):
            upto = this.span[1].date()
            ensure_known_places(this.warehouse, this.geo, upto, this.now)
            last = this.span[1] - timedelta(microseconds=1)
            end = max(upto, last.date() + timedelta(days=1))
            uses = known_uses(this.warehouse, this.geo, this.span[0].date(), end)
    if "baseline" in steps:
        _advance(this, plan, (this.span[1] if this.span else this.as_of).date(), uses)
    if "score" in steps:
        with this.stage("score"):
            window, touched = _with_late(this, plan)
            _note(this, window)
            if this.warehouse.exists(EVENTS):
                _score(this, window, touched, uses)
            if "publish" not in steps:
                this.record["status"] = "staged"
    if "publish" in steps and this.warehouse.exists(EVENTS):
        if "score" not in steps:
            touched = _take_up_staged(this, earlier)
        record = this.record
        window = Window(record["window_from"], record["window_to"], frozenset(record["late_buckets"]))
        said = _read_said(this, earlier)
        _publish(this, plan, window, touched, said, _judged_days(earlier), _cover(this, window))
        _lay_on(this, said)
        _send_alerts(this)


def _in_turn(this: Run, plan: Plan, earlier: list[dict[str, Any]]) -> None:
    """Judge what a scheduled run has to: at once, or after a longer gap day by day, as runs in time would
    have, since what is alerted of a day decides what the next day's baseline holds."""
    judged = _judged_days(earlier)
    said: Said | None = None
    judged_anew = plan.judged_anew
    for number, (start, end, upto) in enumerate(plan.spans):
        if number:
            this.progress(f"catching up: {start:%Y-%m-%d}")
        _advance(this, plan if not number else None, upto, judged_anew=judged_anew)
        with this.stage("score"):
            window, touched = _with_late(this, plan) if not number else (Window(start, end), None)
            _note(this, window)
            if len(plan.spans) == 1:
                quiet = _is_quiet(this, window)
            else:
                quiet = not touched and not window.late and _is_empty(this, window)
            to_judge = not quiet and this.warehouse.exists(EVENTS)
            if to_judge:
                # Neither reads what the other writes, and planning takes one core of the machine.
                with beside(partial(_said_and_covered, this, window, said, earlier)) as meanwhile:
                    _score(this, window, touched)
                said, covered_at = meanwhile()
        if said is None:
            said = _read_said(this, earlier)
        if quiet:
            # Nothing came and nothing happened: there is nothing to judge, check or publish.
            this.count(findings=0, published=0, incidents=0, alerts=0)
            _cover_quiet(this, window)
        elif to_judge:
            done = _publish(this, plan, window, touched, said, judged, covered_at)
            judged_anew = done.alerts > 0
            judged |= set(window.days)
            if this.record["held_scopes"] == ["all"]:
                break
    if said and (quiet or this.warehouse.exists(EVENTS)):
        _lay_on(this, said)
        _send_alerts(this)


def _advance(
    this: Run, plan: Plan | None, upto: date, uses: KnownUses | None = None, *, judged_anew: bool = False
) -> None:
    with this.stage("baseline"):
        changed = plan.changed if plan else frozenset()
        done = advance_baseline(
            this.warehouse, this.geo, upto, changed, this.now, uses, judged_anew=judged_anew
        )
        this.record["counts"]["baseline_" + done] = 1


def _score(this: Run, window: Window, touched: Touched | None, uses: KnownUses | None = None) -> None:
    this.record["input_versions"] |= input_versions(this.warehouse)
    run_id = this.record["run_id"]
    found = score(this.warehouse, this.settings, this.geo, window, run_id, uses, touched)
    this.count(findings=found)


def _note(this: Run, window: Window) -> None:
    """Write the window into the record; one that follows another widens it."""
    record = this.record
    record["window_from"] = record.get("window_from") or window.start
    record["window_to"] = window.end
    record["late_buckets"] = sorted({*record["late_buckets"], *window.late})


def _ingest(this: Run, earlier: list[dict[str, Any]]) -> None:
    settings = this.settings.ingest
    history = settings.history
    recent: set[date] | None = None
    settled: datetime | None = None
    again: dict[str, date] = {}
    if this.span:
        since = (this.span[0] - history).date()
        # Delivery trails the event, so the day after the last is read too.
        until = (this.span[1] + timedelta(days=2)).date()
    else:
        since, until = (this.as_of - history).date(), None
        listed = [r["started_at"] for r in earlier if r["counts"].get("listed_all")]
        if listed and this.now - max(listed) < _FULL_LISTING and not is_readable_again(earlier, max(listed)):
            today = this.as_of.date()
            recent = {today + timedelta(days=d) for d in range(-settings.recent_days, 2)}
            # Else a file that cannot be read would be told once a night, and forgotten in between.
            if held := files_held(earlier, max(listed)):
                again = still_unreadable(this.warehouse, held)
                recent |= set(again.values())
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
        again=again,
        settled=settled,
        progress=this.progress,
    )
    counts = this.record["counts"]
    counts |= taken.counts
    counts["listed_all"] = int(recent is None and not this.span)
    this.record["event_days"] = sorted(taken.days)
    this.record["late_buckets"] = sorted(taken.hours)
    this.denied = taken.access.denied
    this.delivered = taken.delivered
    if this.denied:
        counts["accounts_denied"] = len(this.denied)
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
    """Whether all it found stands; what a file held back comes late, once the file can be read."""
    done = record["status"] == "done" or only_files_held(record["held_scopes"] or ())
    return done and record["window_to"] is not None


def _judged_days(earlier: list[dict[str, Any]]) -> set[date]:
    """The days of the windows published by earlier runs."""
    windows = [Window(r["window_from"], r["window_to"]) for r in earlier if _is_published(r)]
    return {day for window in windows for day in window.days}


def _since_done(earlier: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs since the last one that took all steps."""
    since = max((i for i, r in enumerate(earlier) if _is_published(r)), default=-1)
    return earlier[since + 1 :]


def _days_since_done(earlier: list[dict[str, Any]]) -> set[date]:
    """Days whose facts these wrote."""
    return {day for r in _since_done(earlier) for day in r["event_days"] or ()}


def _plan(this: Run, earlier: list[dict[str, Any]]) -> Plan:
    """What a run has to judge: the look-back, what no run has published since, what came late."""
    changed = frozenset({*this.record["event_days"], *_days_since_done(earlier)})
    all_published = [r for r in earlier if _is_published(r)]
    judged = tuple((r["window_from"], r["window_to"]) for r in all_published)
    since = max((r["started_at"] for r in all_published), default=None)
    if this.span:
        return Plan(((*this.span, this.span[1].date()),), changed, judged, since, False)
    lookback = this.settings.score.lookback
    start = bucket_of(this.as_of - lookback)
    published = [r for r in all_published if r["mode"] != "history"]
    last: datetime | None = None
    if published:
        # What a dead or held run left is taken up from where the last good one ended.
        last = max(r["window_to"] for r in published)
        start = min(start, bucket_of(last - lookback))
    held = [r for r in earlier if r["status"] == "held" and r["window_from"]]
    if held and not published:
        start = min(start, min(r["window_from"] for r in held))
    latest = next((r for r in reversed(earlier) if r["window_from"]), None)
    judged_anew = bool(
        latest
        and latest["counts"].get("alerts")
        and min([latest["window_from"], *latest["late_buckets"]]).date() < this.as_of.date()
    )
    undone = [*_since_done(earlier), this.record]
    taken_out: frozenset[datetime] | None = frozenset(b for r in undone for b in r["late_buckets"])
    if not taken_out and not any(r["counts"].get("displaced") for r in undone):
        taken_out = None
    spans = to_spans(start, last, this.as_of, lookback)
    return Plan(spans, changed, judged, since, judged_anew, taken_out)


def to_spans(
    start: datetime, last: datetime | None, as_of: datetime, lookback: timedelta
) -> tuple[tuple[datetime, datetime, date], ...]:
    """(start, end, day of the baseline) of what is judged in turn: one span in the ordinary; where no run
    has published since `last` for longer than the look-back, one to each midnight since, and the rest."""
    spans = []
    if last and as_of - last > lookback:
        midnight = datetime(last.year, last.month, last.day, tzinfo=last.tzinfo) + timedelta(days=1)
        while midnight < as_of:
            spans.append((start, midnight, midnight.date() - timedelta(days=1)))
            start, midnight = midnight, midnight + timedelta(days=1)
    return (*spans, (start, as_of, as_of.date()))


def _with_late(this: Run, plan: Plan) -> tuple[Window, Touched | None]:
    """The plan's first window with what came late for earlier buckets, and the findings touched by it."""
    window = Window(*plan.spans[0][:2])
    if this.span or not plan.judged or plan.since is None or not this.warehouse.exists(EVENTS):
        return window, None
    late = late_buckets(this.warehouse, plan.judged, plan.changed, plan.since, window.start, plan.taken_out)
    if not late.buckets:
        return window, None
    window, touched = touched_by(
        this.warehouse, this.geo, late, plan.since, window.with_late(late.buckets), this.settings.hash
    )
    this.count(late_buckets=len(window.late), touched=touched.findings.count() if touched else 0)
    return window, touched


def _is_quiet(this: Run, window: Window) -> bool:
    """Whether a scheduled run took nothing in and no event lies in the buckets it is to judge."""
    if this.span or window.late or this.record["counts"].get("files_new") or this.record["event_days"]:
        return False
    return _is_empty(this, window)


def _is_empty(this: Run, window: Window) -> bool:
    """Whether there are events, and none in the window's buckets."""
    if not this.warehouse.exists(EVENTS):
        return False
    return window_events(this.warehouse, window).limit(1).count() == 0


def _take_up_staged(this: Run, earlier: list[dict[str, Any]]) -> Touched | None:
    staged = [r for r in earlier if r["status"] == "staged"]
    if not staged:
        raise UsageError("nothing is staged: run `raretrail score` before `raretrail publish`")
    last = staged[-1]
    taken = [r for r in earlier if "files_listed" in r["counts"]]
    for scope in taken[-1]["held_scopes"] if taken and taken[-1]["counts"].get("accounts_denied") else ():
        column, _, account = scope.partition("=")
        if column == "recipient_account_id":
            this.denied[account] = f"Run {taken[-1]['run_id']} says why: see message in runs"
    for name in ("window_from", "window_to", "late_buckets", "as_of"):
        this.record[name] = last[name]
    return staged_touched(this.warehouse) if last["counts"].get("touched") else None


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


def _said_and_covered(
    this: Run, window: Window, said: Said | None, earlier: list[dict[str, Any]]
) -> tuple[Said, datetime]:
    """What was said, read once a run, and the time that coverage was judged by."""
    return said or _read_said(this, earlier), _cover(this, window, told=False)


def _cover(this: Run, window: Window, *, told: bool = True) -> datetime:
    """Write what came beside what was expected; the time that was judged by."""
    # What lies beyond the window of a history need not have been read.
    now: datetime = min(this.record["as_of"], window.end + DELAY)
    with this.stage("coverage", told=told):
        silence = cover(this.warehouse, window, now)
    this.record["counts"]["silent"] = silence.count
    if silence.message:
        this.record["message"] = silence.message
        if silence.message not in this.messages:
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


def _publish(
    this: Run,
    plan: Plan,
    window: Window,
    touched: Touched | None,
    said: Said,
    judged: set[date],
    covered_at: datetime,
) -> Published:
    """Check and publish; covered_at is the time that coverage was judged by."""
    record = this.record
    with this.stage("check"):
        relied = sorted({*window.days, *plan.changed_beside(window)})
        upto = next((upto for _, end, upto in plan.spans if end == window.end), record["as_of"].date())
        covered = judged_hours(this.warehouse, window, covered_at)
        gate = check(
            this.warehouse,
            this.settings,
            record["run_id"],
            relied,
            upto,
            this.now,
            covered,
            this.denied,
            this.delivered,
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
            touched=touched,
            run_id=record["run_id"],
        )
    this.count(
        published=done.findings,
        suppressed=done.suppressed,
        incidents=done.incidents,
        alerts=done.alerts,
        alerts_cut=done.alerts_cut,
        revised=done.revised,
    )
    if done.alerts_cut:
        this.messages.append(
            f"{done.alerts_cut} more incidents reach the alert score; "
            f"alerts.max_per_run ({this.settings.alerts.max_per_run}) cut them"
        )
    this.messages += [warning for warning in gate.warnings if warning not in this.messages]
    if gate.held:
        _hold(this, gate)
    return done


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


def _hold_denied(this: Run, steps: tuple[str, ...]) -> None:
    """Hold accounts of which files may not be read, where no check had anything to judge. A run that does not
    publish notes them, for the one that will."""
    scopes = {f"recipient_account_id={account}" for account in this.denied}
    if scopes <= set(this.record["held_scopes"]) or this.record["held_scopes"] == ["all"]:
        return
    if "publish" in steps:
        with this.stage("check"):
            run_id = this.record["run_id"]
            _hold(this, check_denied(this.warehouse, this.settings, run_id, this.now, this.denied))
        return
    told = [
        f"The files of account {account} cannot be taken in. {why}" for account, why in this.denied.items()
    ]
    this.messages += told
    this.record |= {"held_scopes": sorted(scopes), "message": "; ".join(told)}


def is_readable_again(earlier: list[dict[str, Any]], since: datetime) -> bool:
    """Whether files of an account might not be read since everything was listed, and now may: those that
    waited may be older than what else is listed."""
    denied = [
        bool(r["counts"].get("accounts_denied"))
        for r in earlier
        if r["started_at"] >= since and "files_listed" in r["counts"]
    ]
    return any(denied) and not denied[-1]


def files_held(earlier: list[dict[str, Any]], since: datetime) -> set[str]:
    """The files that runs held since everything was listed, themselves included."""
    return files_among([s for r in earlier if r["started_at"] >= since for s in r["held_scopes"] or ()])


def _hold(this: Run, gate: Gate) -> None:
    record = this.record
    scopes = {"all"} if gate.held_all else {f"{c}={v}" for c, v in gate.held_scopes}
    scopes = {"all"} if "all" in scopes else scopes.union(record["held_scopes"])
    told = [text for text in gate.messages if text not in this.messages]
    this.messages += told
    message = "; ".join([*([record["message"]] if record["status"] == "held" else []), *told])
    record |= {"status": "held", "held_scopes": sorted(scopes), "message": message}
    if _HELD_NOTE not in this.messages:
        this.messages.append(_HELD_NOTE)


def _record(this: Run) -> None:
    this.record["finished_at"] = this.clock()
    row = {name: this.record.get(name) for name in RUNS.column_names}
    spark = this.warehouse.spark
    this.warehouse.append(RUNS, spark.createDataFrame([row], RUNS.spark_schema()), few=True)


def _first_line(error: BaseException) -> str:
    if isinstance(error, Exception):
        error = in_words(error)
    if isinstance(error, RaretrailError):
        return str(error)
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no message'}"
