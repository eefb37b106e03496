"""Is this installation sound: what a run stands on, each thing a line: ok, warn or fail, and what to do.

Nothing here starts Spark unless a session is handed in; nothing is written but a file that is removed
again. Each check looks for itself and never raises: what it cannot see it says.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raretrail import __version__, runtime, s3, tables
from raretrail.errors import RaretrailError, UsageError
from raretrail.geo import databases
from raretrail.look import Condition, directory_of, local_path, tables_in
from raretrail.settings import Settings, format_duration
from raretrail.show.silences import in_words, outermost
from raretrail.tables import COVERAGE_HOURLY, OUTBOX, RUNS, TOMBSTONES, Table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from raretrail.look import Look

State = Literal["ok", "warn", "fail"]
OpenSpark = Callable[[Settings], AbstractContextManager["SparkSession"]]

_LITTLE_SPACE = 5 * 2**30
_SKEW = timedelta(seconds=2)
_GREAT_SKEW = timedelta(minutes=5)
_MANY_FILES = 10_000
# A last good run older than this fails whatever `monitoring.stale_after` is.
_LONG_AGO = timedelta(days=1)
_RUNS_SHOWN = 200
# An alert that waits longer than this went past several runs.
_WAITS_LONG = timedelta(hours=1)
_LOOKED_AT = 5000
_LOOKED_BACK = timedelta(days=2)
_POINT = "point it at AWSLogs/<organisation> or AWSLogs; see that the trail logs and this may read it"


@dataclass(frozen=True)
class Line:
    """One thing looked at: its group and name, how it is, what was seen, what to do."""

    group: str
    name: str
    state: State
    seen: str
    todo: str = ""


def examine(
    settings: Settings | UsageError,
    *,
    now: datetime,
    groups: Collection[str],
    spark: OpenSpark | None = None,
) -> list[Line]:
    """Every line of these groups. Settings that cannot be read are a line too, and end it there.

    spark opens a session; with it workers, remote trails and remote warehouses are looked at as well.
    """
    lines: list[Line] = []
    if "installation" in groups:
        lines += [*_python(), *_packages(), *_spark_places(spark is not None), *_scratch()]
    if isinstance(settings, UsageError):
        return [*lines, Line("settings", "settings", "fail", str(settings), "mend what is named")]
    if "settings" in groups:
        lines += _settings(settings)
    if "geo" in groups:
        lines += _geo(settings, now)
    if "trail" in groups:
        lines += [line for root in settings.trail for line in _local_trail(root, now)]
    if "warehouse" in groups:
        lines += _local_warehouse(settings)
    if "clock" in groups:
        lines += _clock(settings, now)
    if spark is None:
        lines += _unseen(settings, groups, now)
        location = settings.warehouse or ""
        if "runs" in groups and (tables_in_local(location) or _is_seen(location)):
            from raretrail.look import open_duckdb

            lines += _guarded("runs", "last runs", lambda: _runs_in(open_duckdb(location), settings, now))
    else:
        lines += _with_spark(spark, settings, now, groups)
    order = {name: at for at, name in enumerate(dict.fromkeys(line.group for line in lines))}
    return sorted(lines, key=lambda line: order[line.group])


def tables_in_local(location: str) -> list[str]:
    """The tables of a warehouse in a directory of this machine; none for any other."""
    folder = directory_of(location)
    return tables_in(folder) if folder else []


def to_report(lines: Sequence[Line]) -> dict[str, Any]:
    """The lines for a program: a state for all, and each line."""
    states = [line.state for line in lines]
    worst = "fail" if "fail" in states else "warn" if "warn" in states else "ok"
    return {"state": worst, "version": __version__, "lines": [asdict(line) for line in lines]}


def lines_table(lines: Sequence[Line]) -> str:
    """The lines for a person: state, name, what was seen; below it, what to do."""
    from raretrail.show.text import inert

    width = max((len(line.name) for line in lines), default=0)
    text = []
    for line in lines:
        text.append(f"{line.state:4}  {line.name:{width}}  {inert(line.seen)}\n")
        if line.todo and line.state != "ok":
            text.append(f"{'':4}  {'':{width}}  → {inert(line.todo)}\n")
    return "".join(text)


def report_text(lines: Sequence[Line]) -> str:
    """One sentence about all lines."""
    count = {state: sum(line.state == state for line in lines) for state in ("ok", "warn", "fail")}
    return f"{count['ok']} ok, {count['warn']} to look at, {count['fail']} failed\n"


def _guarded(group: str, name: str, look: Callable[[], list[Line]]) -> list[Line]:
    """What `look` says; a failing line where it fails."""
    try:
        return look()
    except RaretrailError as error:
        return [Line(group, name, "fail", str(error))]
    except Exception as error:
        # Java's own words come second, after those of the bridge.
        said = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
        todo = "see the message; a scheme Spark does not know needs its package, as hadoop-aws for s3a"
        return [Line(group, name, "fail", f"{type(error).__name__}: {said[:400]}", todo)]


# ------------------------------------------------------------------------------------ installation


def _python() -> list[Line]:
    found = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return [Line("installation", "python", "fail", found, "use Python 3.11, 3.12 or 3.13")]
    return [Line("installation", "python", "ok", f"{found}, raretrail {__version__}")]


def _packages() -> list[Line]:
    lines = []
    for name, needed_for, extra in (
        ("deltalake", "looking without Spark", "raretrail"),
        ("duckdb", "looking without Spark", "raretrail"),
        ("geoip2", "places", "raretrail"),
        ("great-expectations", "checking what is published", "'raretrail[quality]'"),
    ):
        try:
            lines.append(Line("installation", name, "ok", version(name)))
        except PackageNotFoundError:
            todo = f"pip install {extra}"
            lines.append(Line("installation", name, "fail", f"not installed; needed for {needed_for}", todo))
    return lines


def _spark_places(started: bool) -> list[Line]:
    from raretrail.session import session_origin

    origin = session_origin()
    if origin != "local":
        where = {
            "connect": "a Connect server",
            "databricks": "Databricks",
            "active": "a session of this process",
            "submit": "spark-submit",
        }[origin]
        return [Line("installation", "spark", "ok", f"comes from {where}")]
    lines = []
    try:
        java = runtime.find_java()
        lines.append(Line("installation", "java", "ok", f"Java {java.major} from {java.source}: {java.home}"))
    except UsageError as error:
        lines.append(Line("installation", "java", "fail", str(error)))
    try:
        home = runtime.spark_home()
        lines.append(Line("installation", "spark", "ok", f"{version('pyspark')} in {home}"))
        lines.append(_delta_jars(home))
    except UsageError as error:
        lines.append(Line("installation", "spark", "fail", str(error)))
    except PackageNotFoundError:
        lines.append(Line("installation", "spark", "ok", f"a distribution in {home}"))
    return lines


def _delta_jars(spark_home: Path) -> Line:
    own = sorted(path.name for path in (spark_home / "jars").glob("delta-spark*.jar"))
    if own:
        return Line("installation", "delta", "ok", f"{own[0]} among Spark's own jars")
    folder = runtime.home() / "jars"
    missing, odd = [], []
    jars = runtime.delta_of_spark()
    for (_, name, number), digest in jars.items():
        jar = folder / f"{name}-{number}.jar"
        if not jar.is_file():
            missing.append(jar.name)
        elif sha256(jar.read_bytes()).hexdigest() != digest:
            odd.append(jar.name)
    if odd:
        todo = f"remove it from {folder}; the next run fetches it again"
        return Line("installation", "delta", "fail", f"{', '.join(odd)} is not the file it should be", todo)
    if missing:
        todo = "the first run fetches them, which needs a network; or make setup now"
        return Line("installation", "delta", "warn", f"{len(missing)} jars are not here yet", todo)
    return Line("installation", "delta", "ok", f"{len(jars)} jars in {folder}, hashes as locked")


def _scratch() -> list[Line]:
    folder = Path(tempfile.gettempdir())
    return [_space("installation", "temporary space", folder)]


def _space(group: str, name: str, folder: Path) -> Line:
    free = shutil.disk_usage(folder).free
    seen = f"{free / 2**30:.1f} GiB free in {folder}"
    if free < _LITTLE_SPACE:
        return Line(group, name, "warn", seen, "make room: a run stages what it works on there")
    return Line(group, name, "ok", seen)


# -------------------------------------------------------------------------------- settings and geo


def _settings(settings: Settings) -> list[Line]:
    on = [detector.name for detector in settings.detectors if detector.enabled]
    lines = [
        Line("settings", "settings", "ok", f"hash {settings.hash}, alerts from {settings.alerts.min_score:g}")
    ]
    if on:
        lines.append(Line("settings", "detectors", "ok", f"{len(on)} of {len(settings.detectors)} are on"))
    else:
        lines.append(Line("settings", "detectors", "fail", "none is on", "enable one in conf/detectors"))
    for name, why in sorted(settings.broken_detectors.items()):
        todo = "mend the file: what it finds is held until then, and every run ends with exit code 3"
        lines.append(Line("settings", f"detector {name}", "fail", " ".join(why.split()), todo))
    for name, value in (("trail", settings.trail), ("warehouse", settings.warehouse)):
        if not value:
            todo = f"give --{name}, or set it in a settings file"
            lines.append(Line("settings", name, "warn", "none is named", todo))
    return lines + _webhook(settings)


def _webhook(settings: Settings) -> list[Line]:
    """Where alerts go, if anywhere; nothing is posted."""
    from raretrail.alerts.webhook import SECRET_VARIABLE, target_of

    try:
        target = target_of(settings.alerts.webhook)
    except UsageError as error:
        return [Line("settings", "webhook", "fail", str(error), "mend what is named")]
    if target is None:
        return []
    seen = f"alerts go to {target.host} as {settings.alerts.webhook.format}"
    if target.secret is None:
        seen += f", not signed: {SECRET_VARIABLE} is not set"
    return [Line("settings", "webhook", "ok", seen)]


def _geo(settings: Settings, now: datetime) -> list[Line]:
    lines = []
    resolvers: dict[str, Callable[[], databases.GeoDatabase | None]] = {
        "city database": lambda: databases.resolve_city_database(settings.geo.city_db),
        "ASN database": lambda: databases.resolve_asn_database(settings.geo.asn_db),
    }
    for name, resolve in resolvers.items():
        try:
            found = resolve()
        except UsageError as error:
            lines.append(Line("geo", name, "fail", str(error)))
            continue
        if found is None:
            seen = "none: a network is a /24 or /48, and which provider it is of stays unknown"
            lines.append(Line("geo", name, "ok", seen))
            continue
        age = found.age_days(now)
        seen = f"{found.build}, {age} days old" + (", embedded" if found.embedded else f", {found.path}")
        if age > databases.OLD_AFTER_DAYS:
            todo = "addresses that moved since are placed where they were; give a newer file"
            lines.append(Line("geo", name, "warn", seen, todo))
        else:
            lines.append(Line("geo", name, "ok", seen))
    return lines


# ------------------------------------------------------------------------------------------- trail


def _local_trail(root: str, now: datetime) -> list[Line]:
    folder = local_path(root)
    return _guarded("trail", f"trail {root}", lambda: [_of_trail(root, folder, now)]) if folder else []


def _of_trail(root: str, folder: Path, now: datetime) -> Line:
    from raretrail.cloudtrail.layout import describe, is_candidate, list_local

    name = f"trail {root}"
    if not folder.exists():
        return Line("trail", name, "fail", "is not there", "name a folder or file that exists")
    if not os.access(folder, os.R_OK | (os.X_OK if folder.is_dir() else 0)):
        return Line("trail", name, "fail", "cannot be read", f"give this user read permission on {folder}")
    if folder.is_file():
        return Line("trail", name, "ok", f"a file of {folder.stat().st_size:,} bytes")
    today = now.date()
    recent = [
        file
        for file in list_local(str(folder), {today, today - timedelta(days=1)})
        if describe(file.path).kind == "log" and now - file.modified_at < timedelta(days=2)
    ]
    if recent:
        newest = max(file.modified_at for file in recent)
        seen = f"{len(recent):,} files since yesterday, the newest of {newest:%Y-%m-%d %H:%M} UTC"
        if now - newest > timedelta(hours=1):
            todo = "CloudTrail delivers within minutes: see whether the trail logs, or what copies it here"
            return Line("trail", name, "warn", seen, todo)
        return Line("trail", name, "ok", seen)
    seen_files = list(
        islice(
            (f"{at}/{f}" for at, _, files in os.walk(folder) for f in files if is_candidate(f)), _LOOKED_AT
        )
    )
    kinds = {describe(path).kind for path in seen_files}
    if not seen_files:
        return Line("trail", name, "warn", "holds no files", "point it at AWSLogs/ or below")
    if "log" not in kinds:
        todo = "point it at the folder that holds CloudTrail/, not at digests or other services"
        return Line("trail", name, "fail", f"holds only {', '.join(sorted(kinds))} files", todo)
    todo = "for history give --from and --to; for a live trail see what copies it here"
    return Line("trail", name, "warn", "has files, but none since yesterday", todo)


# --------------------------------------------------------------------------------------- warehouse


def _local_warehouse(settings: Settings) -> list[Line]:
    folder = directory_of(settings.warehouse) if settings.warehouse else None
    if folder is None:
        return []
    return _guarded("warehouse", "warehouse", lambda: _of_folder(folder))


def _of_folder(folder: Path) -> list[Line]:
    at = folder
    while not at.exists():
        at = at.parent
    if not at.is_dir():
        return [Line("warehouse", "warehouse", "fail", f"{at} is a file", "name a directory")]
    try:
        with tempfile.TemporaryDirectory(dir=at, prefix=".raretrail-doctor-") as made:
            locked = _lockable(Path(made) / "lock")
    except OSError as error:
        seen = f"{at} cannot be written ({(error.strerror or str(error)).lower()})"
        return [Line("warehouse", "warehouse", "fail", seen, f"give this user write permission on {at}")]
    if at != folder:
        return [
            Line("warehouse", "warehouse", "ok", f"{folder} is not there yet; the first run makes it"),
            _space("warehouse", "space", at),
        ]
    lines = [Line("warehouse", "warehouse", "ok", f"{folder} can be written")]
    if not locked:
        todo = "nothing here keeps two runs apart: let the scheduler start one at a time"
        lines.append(Line("warehouse", "lock", "warn", "this filesystem has no locks", todo))
    elif holder := _holder(folder):
        lines.append(Line("warehouse", "lock", "ok", f"{holder} is running on it"))
    lines.append(_space("warehouse", "space", folder))
    names = tables_in(folder)
    for table in tables.ALL:
        # Scratch tables are made anew by each run, whatever they were.
        if table.name in names and not table.name.startswith("staged_"):
            lines += _guarded("warehouse", f"table {table.name}", lambda t=table: _of_table(folder, t))  # type: ignore[misc]
    return lines


def _lockable(file: Path) -> bool:
    with open(file, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _holder(folder: Path) -> str | None:
    """What holds the warehouse; None where nothing does."""
    try:
        with open(folder / "_raretrail.lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return lock.read().strip() or "another process"
    except OSError:
        pass
    return None


def _of_table(folder: Path, table: Table) -> list[Line]:
    from deltalake import DeltaTable

    found = DeltaTable(str(folder / table.name))
    stored = {field.name: _type_name(field.type) for field in found.schema().fields}
    files = len(found.file_uris())
    seen = f"version {found.version()}, {files:,} files"
    return [_schema_line(table, stored, seen, files, found.protocol().reader_features or [])]


def _schema_line(
    table: Table, stored: dict[str, str], seen: str, files: int = 0, features: Sequence[str] = ()
) -> Line:
    name = f"table {table.name}"
    wanted = {column.name: column.type for column in table.columns}
    missing = sorted(wanted.keys() - stored.keys())
    other = sorted(c for c in wanted.keys() & stored.keys() if wanted[c] != stored[c])
    if missing or other:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"{c} is {stored[c]}, not {wanted[c]}" for c in other]
        todo = "another version of raretrail made it: run that version, or start a new warehouse"
        return Line("warehouse", name, "fail", f"{seen}; {'; '.join(parts)}", todo)
    if extra := sorted(stored.keys() - wanted.keys()):
        todo = "a later version of raretrail may have made it: update this one"
        return Line("warehouse", name, "warn", f"{seen}; also has {', '.join(extra)}", todo)
    if files > _MANY_FILES:
        return Line("warehouse", name, "warn", seen, "raretrail maintain makes fewer, larger files")
    if features:
        todo = "read it with --engine spark, or switch these off"
        return Line(
            "warehouse", name, "warn", f"{seen}; needs {', '.join(features)}, which DuckDB lacks", todo
        )
    return Line("warehouse", name, "ok", seen)


def _type_name(kind: Any) -> str:
    """A type of delta-rs as `tables.py` names it."""
    import json

    return _named(json.loads(kind.to_json()))


def _named(kind: Any) -> str:
    if isinstance(kind, str):
        return {"long": "bigint", "integer": "int"}.get(kind, kind)
    if kind["type"] == "array":
        return f"array<{_named(kind['elementType'])}>"
    if kind["type"] == "map":
        return f"map<{_named(kind['keyType'])},{_named(kind['valueType'])}>"
    return str(kind["type"])


# ------------------------------------------------------------------------------------------- clock


def _clock(settings: Settings, now: datetime) -> list[Line]:
    """This machine's clock beside that of the filesystem the warehouse lies on."""
    folder = directory_of(settings.warehouse) if settings.warehouse else None
    at = folder if folder and folder.is_dir() else Path(tempfile.gettempdir())
    try:
        with tempfile.NamedTemporaryFile(dir=at, prefix=".raretrail-doctor-") as file:
            there, here = os.fstat(file.fileno()).st_mtime, time.time()
    except OSError:
        return []  # said by the check of the warehouse
    apart = abs(timedelta(seconds=there - here))
    return [_clock_line("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC", f"the filesystem of {at}", apart)]


def _clock_line(name: str, shown: str, other: str, apart: timedelta) -> Line:
    seconds = apart.total_seconds()
    if apart > _GREAT_SKEW:
        todo = "set the clock (NTP): events would be judged in the wrong hour, and S3 refuses requests"
        return Line("clock", name, "fail", f"{shown}, {seconds:.0f} s off {other}", todo)
    if apart > _SKEW:
        return Line("clock", name, "warn", f"{shown}, {seconds:.0f} s off {other}", "set the clock (NTP)")
    return Line("clock", name, "ok", f"{shown}, as {other}")


# -------------------------------------------------------------------------------------------- runs


def _runs_in(opened: AbstractContextManager[Look], settings: Settings, now: datetime) -> list[Line]:
    from raretrail.look import Condition
    from raretrail.show.text import in_utc

    with opened as look:
        columns = ("run_id", "started_at", "finished_at", "status", "mode", "message", "held_scopes")
        rows = look.rows(RUNS, columns=columns, order=(("started_at", "desc"),), limit=_RUNS_SHOWN)
        silent = _silent(look, now)
        undelivered = look.rows(
            OUTBOX,
            Condition("status", "in", ["pending", "given_up"]),
            columns=("status", "created_at", "last_attempt_at", "last_error"),
        )
        keys = {row["key_id"] for row in look.rows(TOMBSTONES, columns=("key_id",))}
    for row in rows:
        for name in ("started_at", "finished_at"):
            row[name] = row[name] and in_utc(row[name])
    lines = runs_lines(rows, now, settings.monitoring.stale_after)
    return [*lines, *silent, *alerts_lines(undelivered, now), *_forgotten(settings, keys)]


def _silent(look: Look, now: datetime) -> list[Line]:
    """What is silent by the latest hour that the last runs judged."""
    lately = Condition("event_date", ">=", (now - _LOOKED_BACK).date())
    judged = Condition("status", "in", sorted(set(tables.COVERAGE_STATUSES) - {"late"}))
    latest = look.rows(
        COVERAGE_HOURLY, lately, judged, columns=("hour_start",), order=(("hour_start", "desc"),), limit=1
    )
    if not latest:
        return []
    hour = latest[0]["hour_start"]
    rows = look.rows(COVERAGE_HOURLY, lately, Condition("status", "=", "silent"))
    silent = outermost(row for row in rows if row["hour_start"] == hour)
    if not silent:
        return [Line("runs", "coverage", "ok", f"nothing was silent at {hour:%Y-%m-%d %H:%M} UTC")]
    todo = "quiet or blind: the view coverage says when a log file and a digest last came"
    return [Line("runs", "coverage", "warn", f"silent: {in_words(silent)}", todo)]


def _forgotten(settings: Settings, keys: Collection[str]) -> list[Line]:
    """Whether the key is here that tells whose records runs leave out, where somebody was forgotten."""
    from raretrail.cloudtrail.forgotten import KEY, key_id, key_of

    if not keys:
        return []
    key = key_of(directory_of(settings.warehouse) if settings.warehouse else None)
    if key and {key_id(key)} == set(keys):
        return [Line("runs", "forgotten", "ok", "the key of the tombstones is here")]
    seen = f"tombstones are of key {', '.join(sorted(keys))}, " + ("another is set" if key else "none is set")
    return [Line("runs", "forgotten", "fail", seen, f"set {KEY}: no run reads the trail without it")]


def alerts_lines(undelivered: Sequence[dict[str, Any]], now: datetime) -> list[Line]:
    """How alerts go out; rows are those of `outbox` that are not delivered. Nothing where all is well."""
    from raretrail.show.text import in_utc

    late = [
        row
        for row in undelivered
        if row["status"] == "pending" and now - in_utc(row["created_at"]) > _WAITS_LONG
    ]
    lost = [
        row
        for row in undelivered
        if row["status"] == "given_up" and now - in_utc(row["last_attempt_at"]) <= _LONG_AGO
    ]
    lines = []
    if late:
        oldest = min(in_utc(row["created_at"]) for row in late)
        error = max(late, key=lambda row: (row["last_error"] is not None, row["created_at"]))["last_error"]
        seen = f"{len(late)} wait to be delivered, the oldest for {_ago(now - oldest)}"
        seen += f"; {error or 'not tried yet'}"
        todo = "see last_error in outbox: mend the receiver or alerts.webhook; the next run sends them"
        lines.append(Line("runs", "alerts", "warn", seen, todo))
    if lost:
        seen = f"{len(lost)} given up in the last day; {lost[-1]['last_error']}"
        todo = "mend what it says; docs/alerts.md says how to send them after all"
        lines.append(Line("runs", "alerts given up", "warn", seen, todo))
    return lines


def runs_lines(rows: Sequence[dict[str, Any]], now: datetime, stale_after: timedelta) -> list[Line]:
    """How the last runs went; rows are of `runs`, latest first."""
    if not rows:
        return [Line("runs", "last run", "warn", "there was none", "raretrail run makes the first")]
    last = rows[0]
    lines = []
    if last["started_at"] > now + timedelta(minutes=1):
        seen = f"started at {last['started_at']:%Y-%m-%d %H:%M} UTC, which is still to come"
        todo = "a clock is or was wrong: set it (NTP)"
        lines.append(Line("runs", "last run's clock", "fail", seen, todo))
    seen = f"{last['status']}, {last['mode']}, {_ago(now - last['started_at'])} ago: {last['run_id']}"
    if last["status"] == "failed":
        todo = "run it again: it goes on where it was; --debug shows where it fails"
        lines.append(Line("runs", "last run", "fail", f"{seen}: {last['message']}", todo))
    elif last["status"] == "held" or last["held_scopes"]:
        scopes = ", ".join(last["held_scopes"] or ["all"])
        todo = "see data_quality for this run: mend the input, or the expectation; the next run judges again"
        state: State = "fail" if last["status"] == "held" else "warn"
        lines.append(Line("runs", "last run", state, f"{seen}, held: {scopes}; {last['message']}", todo))
    else:
        lines.append(Line("runs", "last run", "ok", seen))
    scheduled = [row for row in rows if row["mode"] == "scheduled"]
    published = ("scheduled", "history", "publish")
    good = [r for r in rows if r["status"] == "done" and set(published) & set(r["mode"].split("+"))]
    if not good:
        lines.append(Line("runs", "last good run", "fail", f"none among the last {len(rows)}"))
    elif not scheduled:
        lines.append(Line("runs", "last good run", "ok", "history only; nothing is scheduled yet"))
    else:
        age = now - good[0]["started_at"]
        seen = f"{_ago(age)} ago: {good[0]['run_id']}"
        todo = "see whether the scheduler starts it, and how it ends there"
        if age > max(_LONG_AGO, stale_after):
            lines.append(Line("runs", "last good run", "fail", seen, todo))
        elif age > stale_after:
            seen += f"; expected within {format_duration(stale_after)}"
            lines.append(Line("runs", "last good run", "warn", seen, todo))
        else:
            lines.append(Line("runs", "last good run", "ok", seen))
    bad = sum(row["status"] in ("failed", "held") for row in rows[:20])
    if bad > 1:
        seen = f"{bad} of the last {len(rows[:20])} failed or were held"
        lines.append(Line("runs", "recent runs", "warn", seen, "see message in the table runs"))
    return lines


def _ago(age: timedelta) -> str:
    seconds = max(0, int(age.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172800 else f"{seconds // 86400} days"


# ------------------------------------------------------------------------------------------- Spark


def _remote_roots(settings: Settings) -> list[str]:
    return [root for root in settings.trail if local_path(root) is None]


def _is_seen(location: str) -> bool:
    """Whether Python looks at a place in S3 itself."""
    from raretrail.look import engine_for

    return s3.is_s3(location) and engine_for(location) == "duckdb"


def _s3_trail(root: str, now: datetime) -> Line:
    """Whether a trail in S3 has files of today or yesterday; lists those days only, as a run does."""
    from raretrail.cloudtrail.objects import list_objects

    days = {now.date(), now.date() - timedelta(days=1)}
    found = list_objects(root, days)
    if found:
        return Line("trail", f"trail {root}", "ok", f"{len(found):,} files of {min(days)} and {max(days)}")
    return Line("trail", f"trail {root}", "warn", "no files of today or yesterday were found", _POINT)


def _unseen(settings: Settings, groups: Collection[str], now: datetime) -> list[Line]:
    """What only Spark could look at."""
    lines = []
    if "installation" in groups:
        seen = "Spark, Delta and workers were not started"
        lines.append(Line("installation", "spark session", "ok", f"{seen}; --spark tries them"))
    for root in _remote_roots(settings) if "trail" in groups else ():
        if _is_seen(root):
            lines += _guarded("trail", f"trail {root}", lambda r=root: [_s3_trail(r, now)])  # type: ignore[misc]
            continue
        todo = "--spark looks at it as a run would"
        lines.append(Line("trail", f"trail {root}", "warn", "is elsewhere and was not looked at", todo))
    if settings.warehouse and directory_of(settings.warehouse) is None:
        for group in ("warehouse", "runs"):
            if group in groups and not (group == "runs" and _is_seen(settings.warehouse)):
                seen = f"{settings.warehouse} is elsewhere and was not looked at"
                lines.append(Line(group, group, "warn", seen, "--spark looks at it as a run would"))
    return lines


def _with_spark(
    open_spark: OpenSpark, settings: Settings, now: datetime, groups: Collection[str]
) -> list[Line]:
    def look() -> list[Line]:
        from raretrail.look import SparkLook
        from raretrail.warehouse import Warehouse

        lines: list[Line] = []
        with open_spark(settings) as spark:
            if "installation" in groups:
                lines += _guarded("installation", "spark session", lambda: _session(spark))
                lines += _guarded("installation", "workers", lambda: _workers(spark, settings))
            if "clock" in groups:
                lines += _guarded("clock", "spark's clock", lambda: _spark_clock(spark))
            when = settings.ingest.time_column
            for root in _remote_roots(settings) if "trail" in groups else ():
                lines += _guarded(
                    "trail",
                    f"trail {root}",
                    lambda r=root: [_remote_trail(spark, r, now, when)],  # type: ignore[misc]
                )
            if not settings.warehouse:
                return lines
            warehouse = Warehouse(spark, settings.warehouse)
            if "warehouse" in groups and not warehouse.directory:
                lines += _guarded("warehouse", "warehouse", lambda: list(_remote_tables(warehouse)))
            if "runs" in groups:
                from contextlib import nullcontext

                opened = nullcontext(SparkLook(warehouse))
                lines += _guarded("runs", "last runs", lambda: _runs_in(opened, settings, now))
        return lines

    return _guarded("installation", "spark session", look)


def _session(spark: SparkSession) -> list[Line]:
    zone = spark.conf.get("spark.sql.session.timeZone")
    lines = [Line("installation", "spark session", "ok", f"Spark {spark.version}, time zone {zone}")]
    # What a run does most, on rows of no table.
    rows = spark.sql("SELECT id, timestamp_micros(id) AS at FROM range(3)").collect()
    if len(rows) != 3 or rows[2]["at"].replace(tzinfo=UTC) != datetime(1970, 1, 1, 0, 0, 0, 2, UTC):
        lines.append(Line("installation", "spark times", "fail", "times do not come back in UTC"))
    return lines


def _workers(spark: SparkSession, settings: Settings) -> list[Line]:
    """What Python on the workers is, has and sees."""
    try:
        city: str | None = databases.resolve_city_database(settings.geo.city_db).worker_path
    except UsageError:
        city = None  # said by the check of the databases
    here = ".".join(map(str, sys.version_info[:2]))

    def seen(batches: Iterable[Any]) -> Iterator[Any]:
        import importlib
        import sys

        import pyarrow as pa

        problems = []
        for module in ("geoip2", "maxminddb", "msgspec", "isal", "raretrail.geo.locate"):
            try:
                importlib.import_module(module)
            except Exception as error:
                problems.append(f"cannot import {module}: {error}")
        if city and not problems:
            from raretrail.geo.databases import local_path

            try:
                with open(local_path(city), "rb") as file:
                    file.read(1)
            except Exception as error:
                problems.append(f"cannot read the city database: {error}")
        for _ in batches:
            yield pa.RecordBatch.from_pydict(
                {"python": [".".join(map(str, sys.version_info[:2]))], "problems": ["; ".join(problems)]}
            )

    rows = (
        spark.range(8, numPartitions=4)
        .mapInArrow(seen, "python string, problems string")
        .distinct()
        .collect()
    )
    problems = sorted({row["problems"] for row in rows if row["problems"]})
    if problems:
        todo = "ship the same environment to the workers; docs/deploy.md shows how"
        return [Line("installation", "workers", "fail", "; ".join(problems), todo)]
    versions = sorted({row["python"] for row in rows})
    if versions != [here]:
        todo = "set PYSPARK_PYTHON so that driver and workers run the same Python"
        return [
            Line("installation", "workers", "fail", f"Python {', '.join(versions)}; the driver {here}", todo)
        ]
    return [Line("installation", "workers", "ok", f"Python {here}, all packages, city database readable")]


def _spark_clock(spark: SparkSession) -> list[Line]:
    begun = time.time()
    row = spark.sql("SELECT unix_micros(current_timestamp()) AS now").first()
    there = row["now"] / 1e6 if row else begun
    # Spark's time is somewhere between asking and answering.
    apart = timedelta(seconds=max(begun - there, there - time.time(), 0.0))
    return [_clock_line("spark's clock", "Spark's time", "this machine's", apart)]


def _remote_trail(spark: SparkSession, root: str, now: datetime, time_column: str | None = None) -> Line:
    """Whether a trail elsewhere has files of today or yesterday; lists those day folders only. Of a table,
    whether it has rows of these days, by `time_column` where its records are one text."""
    from pyspark.errors import AnalysisException

    from raretrail.cloudtrail.layout import is_table
    from raretrail.cloudtrail.table_input import list_shares

    if _is_seen(root) and s3.is_ours(spark):
        return _s3_trail(root, now)
    name = f"trail {root}"
    if is_table(root):
        if list_shares(spark, root, {now.date(), now.date() - timedelta(days=1)}, None, time_column):
            return Line("trail", name, "ok", "a table with rows of today or yesterday")
        return Line("trail", name, "warn", "no rows of today or yesterday", "see what writes the table")
    found = 0
    for day in (now.date(), now.date() - timedelta(days=1)):
        for above in ("CloudTrail/*", "*/CloudTrail/*", "*/*/CloudTrail/*", "AWSLogs/*/CloudTrail/*"):
            try:
                files = spark.read.format("binaryFile").load(f"{root.rstrip('/')}/{above}/{day:%Y/%m/%d}")
                found += files.select("path").count()
            except AnalysisException as error:
                if "PATH_NOT_FOUND" not in str(error):
                    raise
        if found:
            return Line("trail", name, "ok", f"{found:,} files of {day}")
    return Line("trail", name, "warn", "no files of today or yesterday were found", _POINT)


def _remote_tables(warehouse: Any) -> Iterator[Line]:
    there = [t for t in tables.ALL if not t.name.startswith("staged_") and warehouse.exists(t)]
    if not there:
        seen = f"{warehouse.location} holds no tables yet"
        yield Line("warehouse", "warehouse", "warn", seen, "raretrail run makes and fills them")
        return
    if not warehouse.is_schema:
        held = s3.is_s3(warehouse.location) and s3.is_ours(warehouse.spark)
        kept = "an object in it keeps two runs apart" if held else "let the scheduler start one run at a time"
        yield Line("warehouse", "lock", "ok", f"{warehouse.location}; {kept}")
    for table in there:
        stored = {f.name: f.dataType.simpleString() for f in warehouse.read(table).schema.fields}
        yield _schema_line(table, stored, f"version {warehouse.version(table)}")
