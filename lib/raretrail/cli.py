"""The command line over the same functions that `jobs/` call.

Only the standard library is imported here; what a command needs it imports itself, so that help and
what looks at small tables answer at once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raretrail import __version__
from raretrail.errors import EXIT_DONE, EXIT_FAILED, EXIT_HELD, RaretrailError, SparkError, UsageError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from raretrail.backtest import Period
    from raretrail.look import Look
    from raretrail.monitoring import JsonLog, Level
    from raretrail.session import SessionSettings, Size
    from raretrail.settings import Settings
    from raretrail.stages.run import Ended

STEPS = {
    "run": ("ingest", "baseline", "score", "publish"),
    "watch": ("ingest", "baseline", "score", "publish"),
    "ingest": ("ingest",),
    "baseline": ("baseline",),
    "score": ("score",),
    "publish": ("publish",),
}
_HELP = {
    "run": "the scheduled job: every stage over what is new",
    "ingest": "only take in new files: events, places, facts",
    "baseline": "only bring the baseline up to the day",
    "score": "only judge the window into staging",
    "publish": "only check what is staged and publish it",
}
_INTERRUPTED = 130
# From so many bytes of a trail on (some 500,000 events) a session pays that compiles more and starts slower.
_LARGE_BYTES = 96 * 1024**2
# What `raretrail doctor` looks at, in the order it says it.
GROUPS = ("installation", "settings", "geo", "trail", "warehouse", "clock", "runs")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code of `errors`, 130 after Ctrl-C."""
    arguments = _parser().parse_args(argv)
    debug = arguments.debug or bool(os.environ.get("RARETRAIL_DEBUG"))
    try:
        code: int = arguments.command(arguments)
        return code
    except RaretrailError as error:
        if debug and isinstance(error, SparkError):
            traceback.print_exc()
        _say(arguments, "error", str(error))
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except KeyboardInterrupt:
        _say(arguments, "error", "stopped; run it again and it goes on where it was")
        return _INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        hint = "" if debug else "; --debug shows where"
        _say(arguments, "error", _in_a_line(error) + hint)
        return EXIT_FAILED


def _in_a_line(error: Exception) -> str:
    if isinstance(error, RaretrailError):
        return str(error)
    lines = str(error).strip().splitlines() or ["no message"]
    return f"failed: {type(error).__name__}: {lines[0][:400]}"


def step_main(step: str, argv: Sequence[str] | None = None) -> int:
    """What `jobs/<step>.py` calls: the command of that name with the options given."""
    return main([step, *(sys.argv[1:] if argv is None else argv)])


# ----------------------------------------------------------------------------------------- options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="raretrail", description="Finds AWS commands issued from unusual places and by unusual people."
    )
    parser.add_argument("--version", action="version", version=f"raretrail {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, text: str, function: Callable[[argparse.Namespace], int]) -> Any:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(command=function, name=name, log=None)
        sub.add_argument("--debug", action="store_true", help="print a traceback when something fails")
        return sub

    for name in _HELP:
        run = command(name, _HELP[name], _run_command)
        _add_run_options(run)
        _add_history_options(run)

    watch = command("watch", "the scheduled job as one resident process", _watch)
    _add_run_options(watch)
    watch.set_defaults(as_of=None)
    watch.add_argument(
        "--every", type=_duration, default="15m", metavar="15m", help="from start to start (default: 15m)"
    )
    watch.add_argument("--runs", type=int, metavar="N", help="end after so many runs (default: never)")

    demo = command("demo", "simulate a small organisation, run everything, show what was found", _demo)
    demo.add_argument("--out", default="demo", help="folder for it (default: demo)")
    demo.add_argument("--seed", type=int, default=7)
    demo.add_argument("--quiet", action="store_true", help="no progress")

    simulate = command("simulate", "write a simulated trail with labelled intrusions", _simulate)
    simulate.add_argument("dir", metavar="DIR", help="a new folder")
    for option, default in (("seed", 7), ("people", 40), ("days", 35), ("judged-days", 14), ("accounts", 4)):
        simulate.add_argument(f"--{option}", type=int, default=default, help=f"default {default}")
    simulate.add_argument("--campaigns", type=int, help="how many intrusions (default: one per six people)")

    doctor = command("doctor", "say whether installation, trail, warehouse and runs are sound", _doctor)
    _add_place_options(doctor)
    doctor.add_argument("--spark", action="store_true", help="start Spark as well, and look through it")
    doctor.add_argument(
        "--only", action="append", metavar="GROUP", choices=GROUPS, help=f"one of {', '.join(GROUPS)}"
    )
    doctor.add_argument("--format", choices=("text", "json"), default="text")

    maintain = command("maintain", "drop what is past its time, compact and vacuum the tables", _maintain)
    maintain.add_argument("--warehouse", metavar="W", help="directory, URI or catalog.schema")
    maintain.add_argument("--conf", metavar="PATH", help="settings that name the warehouse")
    maintain.add_argument("--remote", metavar="sc://HOST", help="a Spark Connect server")
    maintain.add_argument("--quiet", action="store_true", help="no progress")

    pack = command("pack", "pack the library for executors that have nothing but Python", _pack)
    pack.add_argument("out", metavar="FILE.tar.gz", help="the archive to write")

    sql = command("sql", "query tables and views by their plain names", _sql)
    sql.add_argument("query")
    _add_look_options(sql, formats=("text", "csv", "json"))

    incidents = command("incidents", "list incidents, most unusual first", _incidents)
    _add_look_options(incidents, formats=("text", "json"))
    incidents.add_argument("--limit", type=int, default=25)
    incidents.add_argument("--page", type=int, default=1)
    incidents.add_argument("--min-score", type=float)
    incidents.add_argument("--principal", help="part of its name")
    incidents.add_argument("--severity", choices=("low", "medium", "high", "critical"))
    incidents.add_argument("--state", choices=("open", "acknowledged", "closed"))
    incidents.add_argument(
        "--suppressed", action="store_true", help="those that verdicts and change windows suppress, instead"
    )
    incidents.add_argument("--since", type=_moment, help="first seen from this day or time (UTC)")
    incidents.add_argument("--until", type=_moment, help="first seen before this day or time (UTC)")

    show = command("show", "one incident or finding with its evidence", _show)
    show.add_argument("id", metavar="ID", help="incident_id or anomaly_id, or the start of one")
    _add_look_options(show, formats=("text", "json"))

    replay = command("replay", "compute a finding once more from what its run read, and compare", _replay)
    replay.add_argument("id", metavar="ANOMALY_ID", help="anomaly_id, or the start of one")
    _add_warehouse_options(replay)
    replay.add_argument("--scratch", metavar="W", help="where to compute (default: a temporary folder)")
    replay.add_argument("--format", choices=("text", "json"), default="text")

    forget = command("forget", "remove a person or an address from every table, for good", _forget)
    whom = forget.add_mutually_exclusive_group(required=True)
    whom.add_argument("--principal", metavar="NAME", help="actor, principal, ARN or name of a person")
    whom.add_argument("--address", metavar="IP", help="an address")
    forget.add_argument("--account", metavar="ID", help="only in this account")
    forget.add_argument("--dry-run", action="store_true", help="only say whom it covers and what would go")
    forget.add_argument("--author", metavar="NAME", help="who does it (default: you)")
    _add_warehouse_options(forget)
    forget.add_argument("--format", choices=("text", "json"), default="text")
    forget.add_argument("--quiet", action="store_true", help="no progress")

    export = command("export", "write findings as JSON lines for other systems", _export)
    _add_look_options(export, formats=("ecs", "ocsf"))
    export.add_argument("--since", type=_moment, help="first event from this day or time (UTC)")
    export.add_argument("--published-since", type=_moment, help="published from then on; what a shipper asks")
    export.add_argument("--min-score", type=float)

    verify = command(
        "verify-trail", "hold the trail to its digests: altered and missing files", _verify_trail
    )
    verify.add_argument("--trail", nargs="+", metavar="PATH", help="a trail's root or any folder below it")
    verify.add_argument(
        "--public-key",
        nargs="+",
        required=True,
        metavar="FILE",
        help="PEM, DER, or the answer of `aws cloudtrail list-public-keys`",
    )
    verify.add_argument("--warehouse", metavar="W", help="also write digest_results there")
    verify.add_argument("--conf", metavar="PATH", help="settings that name the trail")
    verify.add_argument("--format", choices=("text", "json"), default="text")
    verify.add_argument("--all", action="store_true", help="list what is valid, too")
    from raretrail.cli_verdicts import add_commands

    add_commands(command, _add_look_options, _moment)

    alert = command("alert", "show what is posted to the webhook of an incident, or post it now", _alert)
    alert.add_argument("id", metavar="ID", help="incident_id, or the start of one")
    _add_look_options(alert)
    alert.add_argument(
        "--format",
        choices=("incident", "slack", "ecs", "ocsf"),
        help="default: alerts.webhook.format",
    )
    alert.add_argument("--send", action="store_true", help="post it once, to try the webhook out")

    report = command("report", "write one self-contained HTML page about a warehouse", _report)
    _add_look_options(report)
    report.add_argument("--out", metavar="FILE.html", default="report.html", help="default: report.html")
    report.add_argument("--days", type=int, default=30, help="days back from the last (default: 30)")
    report.add_argument("--limit", type=int, default=500, help="incidents at most (default: 500)")

    backtest = command("backtest", "incidents a day by threshold, and who and what causes most", _backtest)
    _add_look_options(backtest, formats=("text", "json", "csv"))
    backtest.add_argument("--days", type=int, help="days back from the newest judged one (default: 30)")
    backtest.add_argument("--from", dest="start", type=_moment, metavar="DATE", help="from this day (UTC)")
    backtest.add_argument("--to", dest="end", type=_moment, metavar="DATE", help="to this day, exclusive")
    backtest.add_argument(
        "--min-score", type=float, help="threshold to tell the causes of (default: alerts.min_score)"
    )
    backtest.add_argument(
        "--per-day", type=float, default=1.0, help="incidents a day there is time for (default: 1)"
    )
    backtest.add_argument("--top", type=int, default=10, help="most causes of a kind (default: 10)")
    return parser


def _add_place_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--trail", nargs="+", metavar="URI", help="a trail's root, any folder below it, files, or table:NAME"
    )
    _add_warehouse_options(sub)


def _add_warehouse_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--warehouse", metavar="W", help="directory, URI or catalog.schema")
    sub.add_argument("--conf", metavar="PATH", help="settings file, or folder laid over conf/")
    sub.add_argument("--city-db", metavar="MMDB", help="city database (default: the embedded one)")
    sub.add_argument("--asn-db", metavar="MMDB", help="ASN database (default: none)")
    sub.add_argument("--remote", metavar="sc://HOST", help="a Spark Connect server")


def _add_run_options(sub: argparse.ArgumentParser) -> None:
    _add_place_options(sub)
    sub.add_argument("--lookback", metavar="2h", help="buckets judged again by every run")
    sub.add_argument("--history", metavar="90d", help="older deliveries are left alone")
    sub.add_argument(
        "--files-from", metavar="PATH", help="file or folder of S3 notifications that name new files"
    )
    sub.add_argument("--format", choices=("text", "json"), default="text")
    sub.add_argument("--quiet", action="store_true", help="no progress")
    sub.add_argument("--log-format", choices=("text", "json"), help="of messages on standard error")
    sub.add_argument(
        "--held-exit",
        type=int,
        metavar="CODE",
        default=EXIT_HELD,
        help="exit code of a held run, for schedulers that retry whatever fails (default: 3)",
    )
    sub.add_argument("--print-settings", action="store_true", help="show the settings and where each is from")


def _add_history_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--as-of", type=_moment, metavar="TIME", help="taken as now (default: now)")
    sub.add_argument("--from", dest="start", type=_moment, metavar="DATE", help="play history from here")
    sub.add_argument("--to", dest="end", type=_moment, metavar="DATE", help="to here, exclusive")


def _add_look_options(sub: argparse.ArgumentParser, formats: Sequence[str] = ()) -> None:
    sub.add_argument("--warehouse", metavar="W", help="directory, URI or catalog.schema")
    sub.add_argument("--conf", metavar="PATH", help="settings that name the warehouse")
    sub.add_argument("--engine", choices=("duckdb", "spark"), help="default: duckdb for a local directory")
    if formats:
        sub.add_argument("--format", choices=tuple(formats), default=formats[0])


def _moment(text: str) -> datetime:
    """A date or time as argparse takes it; without a zone it is UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no date or time: write 2026-02-15 or 2026-02-15T14:30Z"
        ) from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _duration(text: str) -> timedelta:
    """A length of time as argparse takes it."""
    from raretrail.settings import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _settings(arguments: argparse.Namespace) -> tuple[Settings, dict[str, str]]:
    from raretrail.settings import load_settings

    given = vars(arguments)
    options: dict[str, Any] = {}
    for option, (section, key) in {
        "trail": (None, "trail"),
        "warehouse": (None, "warehouse"),
        "city_db": ("geo", "city_db"),
        "asn_db": ("geo", "asn_db"),
        "lookback": ("score", "lookback"),
        "history": ("ingest", "history"),
        "files_from": ("ingest", "files_from"),
        "remote": ("spark", "remote"),
        "log_format": ("monitoring", "log_format"),
    }.items():
        if given.get(option) is not None:
            (options.setdefault(section, {}) if section else options)[key] = given[option]
    return load_settings(given.get("conf"), options)


# ---------------------------------------------------------------------------------------- commands


def _run_command(arguments: argparse.Namespace) -> int:
    settings, sources = _settings(arguments)
    if arguments.print_settings:
        _print_settings(settings, sources)
        return EXIT_DONE
    now = datetime.now(UTC)
    span = _span(arguments, now)
    if (arguments.as_of or now) > now + timedelta(hours=1):
        raise UsageError(f"--as-of {arguments.as_of:%Y-%m-%dT%H:%MZ} lies in the future")
    from raretrail.alerts.webhook import target_of

    target_of(settings.alerts.webhook)
    _need_spark()
    _log_as(arguments, settings)
    _get_ready(settings, STEPS[arguments.name])
    with (
        _telling_of_failure(arguments, settings),
        _spark(settings, _size_of_run(settings, span)) as spark,
        _progress(arguments.quiet, arguments.log) as progress,
    ):
        ended = _run(arguments, settings, spark, progress, now, span)
    return _after_run(arguments, settings, ended)


def _run(
    arguments: argparse.Namespace,
    settings: Settings,
    spark: SparkSession,
    progress: Callable[[str], None],
    now: datetime,
    span: tuple[datetime, datetime] | None = None,
) -> Ended:
    """One run of the stages that the command names."""
    from raretrail.alerts.webhook import target_of
    from raretrail.stages.run import run

    return run(
        spark,
        settings,
        as_of=arguments.as_of or now,
        span=span,
        steps=STEPS[arguments.name],
        progress=progress,
        target=target_of(settings.alerts.webhook),
    )


def _get_ready(settings: Settings, steps: Sequence[str]) -> None:
    """Load what a run needs while Java starts, which takes a core of its own."""
    # In this thread: two that load parts of pyspark at once can meet one half made.
    import pyspark.sql.functions
    import pyspark.sql.types  # noqa: F401

    from raretrail.together import ahead

    def load() -> None:
        import raretrail.stages.run  # noqa: F401
        from raretrail.stages.check import load_checks

        if "publish" in steps:
            load_checks(settings)

    ahead(load)


def _log_as(arguments: argparse.Namespace, settings: Settings) -> None:
    from raretrail.monitoring import JsonLog

    if settings.monitoring.log_format == "json":
        arguments.log = JsonLog()


@contextmanager
def _telling_of_failure(arguments: argparse.Namespace, settings: Settings) -> Iterator[None]:
    """The metrics file says so of a run that ends without a record of its own."""
    try:
        yield
    except Exception as error:
        if metrics := settings.monitoring.metrics_file:
            from raretrail.monitoring import write_metrics

            code = error.exit_code if isinstance(error, RaretrailError) else EXIT_FAILED
            _warn(arguments, write_metrics(metrics, None, code, datetime.now(UTC)))
        raise


def _after_run(arguments: argparse.Namespace, settings: Settings, ended: Ended) -> int:
    """Tell metrics, heartbeat, log and whoever reads along how a run ended; the exit code."""
    from raretrail import monitoring

    warnings: list[str | None] = []
    if metrics := settings.monitoring.metrics_file:
        code = ended.exit_code
        warnings.append(monitoring.write_metrics(metrics, ended.record, code, datetime.now(UTC)))
    url = monitoring.heartbeat_url(settings.monitoring.heartbeat_url)
    if url and ended.exit_code == EXIT_DONE:
        warnings.append(monitoring.send_heartbeat(url))
    if arguments.format == "json":
        print(json.dumps(ended.record, default=_plain), flush=True)
    else:
        _tell(ended.record)
        if settings.warehouse and ended.record["counts"].get("incidents"):
            print(f"look: raretrail incidents --warehouse {settings.warehouse}")
    _warn(arguments, *ended.messages, *warnings)
    if arguments.log:
        arguments.log.write("info", "ended", exit_code=ended.exit_code, **ended.record)
    return arguments.held_exit if ended.exit_code == EXIT_HELD else ended.exit_code


def _watch(arguments: argparse.Namespace) -> int:
    settings, sources = _settings(arguments)
    if arguments.print_settings:
        _print_settings(settings, sources)
        return EXIT_DONE
    if arguments.every <= timedelta(0):
        raise UsageError("--every must be longer than nothing")
    if arguments.runs is not None and arguments.runs < 1:
        raise UsageError("--runs starts at 1")
    from raretrail.alerts.webhook import target_of

    target_of(settings.alerts.webhook)
    _need_spark()
    from raretrail.session import Resident, in_words
    from raretrail.watch import Watch, stopped_by_signals

    _log_as(arguments, settings)
    _get_ready(settings, STEPS["watch"])
    code = EXIT_DONE
    with (
        stopped_by_signals(lambda text: _inform(arguments, text)) as (stop, take_signals),
        _progress(arguments.quiet, arguments.log) as progress,
    ):

        def once(spark: SparkSession) -> None:
            nonlocal code
            # Opening a session takes SIGINT away from us.
            take_signals()
            if arguments.log:
                arguments.log.begin()
            # As a process of its own would, each run goes by the settings as they are now.
            now_set, _ = _settings(arguments)
            with _telling_of_failure(arguments, now_set):
                try:
                    ended = _run(arguments, now_set, spark, progress, datetime.now(UTC))
                except Exception as error:
                    raise in_words(error) from error
            code = _after_run(arguments, now_set, ended)
            sys.stdout.flush()

        def failed(error: Exception) -> None:
            nonlocal code
            code = error.exit_code if isinstance(error, RaretrailError) else EXIT_FAILED
            _say(arguments, "error", _in_a_line(error))

        size = _size_of_run(settings, None)
        watch = Watch(
            every=arguments.every,
            sessions=Resident(
                _session_settings(settings, "resident" if size == "small" else size), take_signals
            ),
            runs=arguments.runs,
            tell=lambda text: _inform(arguments, text),
            failed=failed,
        )
        watch.watch(once, stop)
        # Being told to stop is no failure; a number of runs ends as the last of them did.
        return EXIT_DONE if stop.is_set() else code


def _span(arguments: argparse.Namespace, now: datetime) -> tuple[datetime, datetime] | None:
    start, end = arguments.start, arguments.end
    if start is None and end is None:
        return None
    if start is None or end is None:
        raise UsageError("--from and --to go together")
    if start >= end:
        raise UsageError(f"--from {start:%Y-%m-%dT%H:%MZ} is not before --to {end:%Y-%m-%dT%H:%MZ}")
    if start > now:
        raise UsageError(f"--from {start:%Y-%m-%dT%H:%MZ} lies in the future")
    if arguments.as_of:
        raise UsageError("--as-of is for scheduled runs; playing history takes --from and --to")
    for name, time in (("--from", start), ("--to", end)):
        if time.minute or time.second or time.microsecond:
            raise UsageError(f"{name} must be a full hour: buckets are UTC hours")
    return start, end


def _tell(record: dict[str, Any]) -> None:
    from raretrail.show.text import count

    counts = record["counts"]
    read = f"{count(counts.get('files'), 'file')}, {count(counts.get('records'), 'record')}"
    taken = ", ".join(f"{counts.get(name, 0):,} {name}" for name in ("events", "duplicates", "quarantined"))
    taken += f", {counts['forgotten']:,} forgotten" if counts.get("forgotten") else ""
    if "records" in counts:
        print(f"read {read}: {taken}")
    if "published" in counts:
        line = f"judged {record['window_from']:%Y-%m-%d %H:%M} to {record['window_to']:%Y-%m-%d %H:%M} UTC: "
        line += f"{count(counts['published'], 'finding')} in {count(counts['incidents'], 'incident')}"
        line += f", {counts['suppressed']:,} suppressed" if counts.get("suppressed") else ""
        print(line + (f", {counts['alerts']:,} alerted" if record["mode"] != "history" else ""))
    if counts.get("alerts_sent"):
        print(f"delivered {counts['alerts_sent']:,} alerts")
    total = sum(record["seconds"].values())
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in record["seconds"].items())
    print(f"{record['status']} in {total:.0f} s ({spent}); run {record['run_id']}")


def _doctor(arguments: argparse.Namespace) -> int:
    from raretrail.doctor import examine, lines_table, report_text, to_report

    settings: Settings | UsageError
    try:
        settings, _ = _settings(arguments)
    except UsageError as error:
        settings = error
    lines = examine(
        settings,
        now=datetime.now(UTC),
        groups=arguments.only or GROUPS,
        spark=_spark if arguments.spark else None,
    )
    if arguments.format == "json":
        print(json.dumps(to_report(lines)))
    else:
        sys.stdout.write(lines_table(lines) + report_text(lines))
    return EXIT_FAILED if any(line.state == "fail" for line in lines) else EXIT_DONE


def _maintain(arguments: argparse.Namespace) -> int:
    settings, _ = _settings(arguments)
    location = settings.require_warehouse()
    _need_spark()
    from raretrail.stages.maintain import maintain
    from raretrail.warehouse import Warehouse

    with _spark(settings) as spark, _progress(arguments.quiet) as progress:
        warehouse = Warehouse(spark, location)
        warehouse.require_known_version()
        done = maintain(warehouse, datetime.now(UTC), retention=settings.retention, progress=progress)
    for one in done:
        if one.expired or one.files_removed:
            print(
                f"{one.table}: {one.expired:,} rows past their time dropped, "
                f"{one.files_removed:,} files made {one.files_added:,}"
            )
    print(f"{len(done)} tables maintained")
    return EXIT_DONE


def _simulate(arguments: argparse.Namespace) -> int:
    from raretrail.simulate import Shape, simulate

    shape = Shape(
        seed=arguments.seed,
        people=arguments.people,
        days=arguments.days,
        judged_days=arguments.judged_days,
        accounts=arguments.accounts,
        campaigns=arguments.campaigns,
    )
    summary = simulate(Path(arguments.dir), shape)
    print(
        f"{arguments.dir}: {summary.files:,} files, {summary.events:,} events, "
        f"{len(summary.campaigns)} intrusions"
    )
    print(f"the trail is {arguments.dir}/trail, what was planted is in {arguments.dir}/labels.json")
    return EXIT_DONE


def _demo(arguments: argparse.Namespace) -> int:
    from raretrail.demo import demo

    with _progress(arguments.quiet) as progress:
        print(demo(Path(arguments.out), arguments.seed, progress), end="")
    return EXIT_DONE


def _verify_trail(arguments: argparse.Namespace) -> int:
    from raretrail.cloudtrail.digests import load_keys
    from raretrail.show.rows import rows_table
    from raretrail.show.text import Screen, to_json
    from raretrail.stages.verifying import verify_trail, write_results

    settings, _ = _settings(arguments)
    keys = load_keys(arguments.public_key)
    rows = verify_trail(settings.trail, keys, datetime.now(UTC))
    if arguments.warehouse:
        from raretrail.warehouse import Warehouse

        with _spark(settings) as spark:
            write_results(Warehouse(spark, arguments.warehouse), rows)
    wrong = [row for row in rows if row["status"] not in ("valid", "unproven")]
    shown = rows if arguments.all else wrong
    if arguments.format == "json":
        for row in shown:
            print(to_json(row))
    else:
        if shown:
            sys.stdout.write(
                rows_table(("kind", "status", "source_file", "detail"), shown, Screen.of(sys.stdout))
            )
        counts = Counter((row["kind"], row["status"]) for row in rows)
        print(", ".join(f"{n:,} {kind}s {status}" for (kind, status), n in sorted(counts.items())))
    return EXIT_HELD if wrong else EXIT_DONE


def _pack(arguments: argparse.Namespace) -> int:
    from raretrail.pack import lines_of, pack

    out = Path(arguments.out)
    print("\n".join(lines_of(pack(out), out)))
    return EXIT_DONE


def _sql(arguments: argparse.Namespace) -> int:
    from raretrail.show.rows import csv_lines, json_lines, rows_table
    from raretrail.show.text import Screen

    with _look(arguments) as look:
        result = look.query(arguments.query)
        if arguments.format == "text":
            sys.stdout.write(rows_table(result.columns, list(result.rows()), Screen.of(sys.stdout)))
        else:
            lines = csv_lines if arguments.format == "csv" else json_lines
            for line in lines(result.columns, result.rows()):
                sys.stdout.write(line)
        sys.stdout.flush()
    return EXIT_DONE


def _incidents(arguments: argparse.Namespace) -> int:
    from raretrail.look import Condition
    from raretrail.show.incidents import incidents_table, range_line
    from raretrail.show.text import Screen, to_json
    from raretrail.tables import INCIDENTS

    conditions = []
    for option, column, operator in (
        ("min_score", "score", ">="),
        ("principal", "principal", "has"),
        ("severity", "severity", "="),
        ("state", "state", "="),
        ("since", "first_time", ">="),
        ("until", "first_time", "<"),
    ):
        if getattr(arguments, option) is not None:
            conditions.append(Condition(column, operator, getattr(arguments, option)))  # type: ignore[arg-type]
    if arguments.limit < 1 or arguments.page < 1:
        raise UsageError("--limit and --page start at 1")
    silent = Condition("suppressed_by", "null", False)
    conditions.append(Condition("suppressed_by", "null", not arguments.suppressed))
    first = (arguments.page - 1) * arguments.limit
    with _look(arguments) as look:
        total = look.count(INCIDENTS, *conditions)
        hidden = 0 if arguments.suppressed else look.count(INCIDENTS, *conditions[:-1], silent)
        rows = look.rows(
            INCIDENTS,
            *conditions,
            order=(("score", "desc"), ("bits", "desc"), ("incident_id", "asc")),
            limit=arguments.limit,
            offset=first,
        )
        if arguments.format == "json":
            for row in rows:
                print(to_json(row))
            return EXIT_DONE
        findings = findings_of(look, [row["incident_id"] for row in rows])
    if rows:
        sys.stdout.write(incidents_table(rows, findings, Screen.of(sys.stdout)))
    more = "; --page 2 shows more" if arguments.page == 1 and total > len(rows) else ""
    print(range_line(len(rows), first + 1, total) + more)
    if hidden:
        print(f"{hidden:,} more suppressed; --suppressed lists them, `raretrail suppressed` says by what")
    return EXIT_DONE


def findings_of(look: Look, incident_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The findings of each incident, most surprising first."""
    from raretrail.look import Condition
    from raretrail.tables import ANOMALIES

    found: dict[str, list[dict[str, Any]]] = {}
    if incident_ids:
        chosen = Condition("incident_id", "in", list(incident_ids))
        for row in look.rows(ANOMALIES, chosen, order=(("bits", "desc"), ("anomaly_id", "asc"))):
            found.setdefault(row["incident_id"], []).append(row)
    return found


def _show(arguments: argparse.Namespace) -> int:
    from raretrail.look import Condition
    from raretrail.show.one import incident_page, revisions_of
    from raretrail.show.text import Screen, to_json
    from raretrail.tables import DISPOSITIONS, EVENTS, REVISIONS, RUNS
    from raretrail.verdicts import the_incident

    with _look(arguments) as look:
        incident = the_incident(look, arguments.id)
        findings = findings_of(look, [incident["incident_id"]]).get(incident["incident_id"], [])
        events = look.rows(
            EVENTS,
            Condition("event_date", ">=", incident["first_time"].date()),
            Condition("event_date", "<=", incident["last_time"].date()),
            Condition("event_id", "in", list(incident["evidence_event_ids"] or [])),
            order=(("event_time", "asc"), ("event_id", "asc")),
        )
        # What was said of it under this id or one of an incident it was joined with.
        known = [row["anomaly_id"] for row in findings]
        former = [incident["incident_id"], *(incident["supersedes"] or [])]
        ids = sorted({*known, *former})
        said = look.rows(DISPOSITIONS, Condition("incident_id", "in", ids), order=(("created_at", "asc"),))
        history = look.rows(
            RUNS,
            Condition("run_id", "in", sorted({row["run_id"] for row in findings})),
            Condition("mode", "=", "history"),
            columns=("run_id",),
        )
        # Whoever plays history takes everything in late.
        played = {row["run_id"] for row in history}
        late = max((f["late_minutes"] or 0 for f in findings if f["run_id"] not in played), default=0)
        gone = (Condition("was_incident_id", "in", former), Condition("withdrawn", "=", True))
        revised = revisions_of(
            [*look.rows(REVISIONS, Condition("anomaly_id", "in", ids)), *look.rows(REVISIONS, *gone)]
        )
    if arguments.format == "json":
        page = {
            "incident": incident,
            "findings": findings,
            "events": events,
            "dispositions": said,
            "revisions": revised,
        }
        print(to_json(page, indent=2))
    else:
        page_text = incident_page(incident, findings, events, Screen.of(sys.stdout), said, revised, late)
        sys.stdout.write(page_text)
    return EXIT_DONE


def _replay(arguments: argparse.Namespace) -> int:
    import tempfile
    from dataclasses import asdict

    from raretrail.show.replayed import replayed_text
    from raretrail.show.text import Screen, to_json

    settings, _ = _settings(arguments)
    location = settings.require_warehouse()
    _need_spark()
    from raretrail.stages.replay import replay
    from raretrail.warehouse import Warehouse

    with tempfile.TemporaryDirectory(prefix="raretrail-replay-") as folder, _spark(settings) as spark:
        warehouse = Warehouse(spark, location)
        if not warehouse.directory and not arguments.scratch:
            raise UsageError("--scratch: name a directory, URI or schema the cluster can write to")
        warehouse.require_known_version()
        done = replay(warehouse, settings, arguments.id, arguments.scratch or folder)
    if arguments.format == "json":
        print(to_json(asdict(done) | {"same": done.same}, indent=2))
    else:
        sys.stdout.write(replayed_text(done, Screen.of(sys.stdout)))
    return EXIT_DONE if done.same else EXIT_FAILED


def _forget(arguments: argparse.Namespace) -> int:
    from raretrail.show.forgotten import covered_lines, receipt_json, receipt_text
    from raretrail.show.text import Screen, to_json
    from raretrail.verdicts import author_of

    settings, _ = _settings(arguments)
    location, author = settings.require_warehouse(), author_of(arguments.author)
    _need_spark()
    from raretrail.stages.forget import Covered, Request, forget
    from raretrail.stages.tombstones import require_key
    from raretrail.warehouse import Warehouse

    kind: Any = "person" if arguments.principal else "address"
    request = Request(kind, arguments.principal or arguments.address, arguments.account)

    def tell(covered: Covered) -> None:
        for line in covered_lines(covered):
            print(line, file=sys.stderr, flush=True)

    with _spark(settings) as spark, _progress(arguments.quiet) as progress:
        warehouse = Warehouse(spark, location)
        warehouse.require_known_version()
        key = None if arguments.dry_run else require_key(warehouse)
        receipts = forget(warehouse, settings, request, key, author, tell=tell, progress=progress)
    for receipt in receipts:
        if arguments.format == "json":
            print(to_json(receipt_json(receipt), indent=2))
        else:
            sys.stdout.write(receipt_text(receipt, Screen.of(sys.stdout)))
    return EXIT_DONE


def _report(arguments: argparse.Namespace) -> int:
    from raretrail.report import write_report

    if arguments.days < 1 or arguments.limit < 1:
        raise UsageError("--days and --limit start at 1")
    settings, _ = _settings(arguments)
    with _look(arguments) as look:
        print(
            write_report(
                look,
                settings,
                Path(arguments.out),
                datetime.now(UTC),
                days=arguments.days,
                most=arguments.limit,
            )
        )
    return EXIT_DONE


def _backtest(arguments: argparse.Namespace) -> int:
    from raretrail.backtest import read
    from raretrail.show.backtest import CSV_COLUMNS, backtest_json, backtest_rows, backtest_text
    from raretrail.show.rows import csv_lines
    from raretrail.show.text import Screen, to_json

    period = _period(arguments)
    if arguments.min_score is not None and not 0 <= arguments.min_score <= 100:
        raise UsageError("--min-score is a score, 0 to 100")
    if not 0 < arguments.per_day <= 1e6:
        raise UsageError("--per-day is a number of incidents above 0, as in 1 or 0.25")
    if arguments.top < 1:
        raise UsageError("--top starts at 1")
    settings, _ = _settings(arguments)
    with _look(arguments) as look:
        found = read(
            look,
            settings,
            period,
            min_score=arguments.min_score,
            per_day=arguments.per_day,
            top=arguments.top,
        )
    if arguments.format == "json":
        print(to_json(backtest_json(found), indent=2))
    elif arguments.format == "csv":
        sys.stdout.writelines(csv_lines(CSV_COLUMNS, backtest_rows(found)))
    else:
        sys.stdout.write(backtest_text(found, Screen.of(sys.stdout)))
    return EXIT_DONE


def _period(arguments: argparse.Namespace) -> Period:
    from raretrail.backtest import Period

    start, end, days = arguments.start, arguments.end, arguments.days
    for name, time in (("--from", start), ("--to", end)):
        if time is not None and (time.hour or time.minute or time.second or time.microsecond):
            raise UsageError(f"{name} must be a day: incidents count by UTC day")
    if start is not None and end is not None and start >= end:
        raise UsageError(f"--from {start:%Y-%m-%d} is not before --to {end:%Y-%m-%d}")
    if start is not None and days is not None:
        raise UsageError("--days counts back from the end; give it or --from")
    if days is not None and not 1 <= days <= 3660:
        raise UsageError("--days is 1 to 3660")
    return Period(days or 30, start and start.date(), end and end.date())


def _export(arguments: argparse.Namespace) -> int:
    from raretrail.export import export_lines

    chosen = {name: getattr(arguments, name) for name in ("since", "published_since", "min_score")}
    with _look(arguments) as look:
        for line in export_lines(look, arguments.format, **chosen):
            sys.stdout.write(line)
        sys.stdout.flush()
    return EXIT_DONE


def _alert(arguments: argparse.Namespace) -> int:
    from raretrail.alerts.payloads import gather, to_payloads
    from raretrail.alerts.webhook import post, target_of
    from raretrail.verdicts import the_incident

    settings, _ = _settings(arguments)
    webhook = settings.alerts.webhook
    target = target_of(webhook)
    if arguments.send and not target:
        raise UsageError("no webhook: set alerts.webhook.url, or RARETRAIL_WEBHOOK_URL where it is a secret")
    with _look(arguments) as look:
        incident = the_incident(look, arguments.id)
        findings, events = gather(look, [incident])
    chosen = arguments.format or webhook.format
    (text,) = to_payloads(chosen, [incident], findings, events, settings.detectors).values()
    if not (arguments.send and target):
        print(text)
        return EXIT_DONE
    now = datetime.now(UTC)
    # Of no alert's own, so that a receiver takes the alert itself as well.
    key = f"try:{incident['incident_id']}:{now:%Y%m%dT%H%M%SZ}"
    answer = post(target, key, text.encode(), now, target.timeout)
    if answer.error:
        raise RaretrailError(f"alert to {target.host}: {answer.error}")
    print(f"{target.host} took it; {'signed' if target.secret else 'not signed'}, Idempotency-Key {key}")
    return EXIT_DONE


# ----------------------------------------------------------------------------------------- helpers


@contextmanager
def _look(arguments: argparse.Namespace) -> Iterator[Look]:
    from raretrail.look import SparkLook, engine_for, open_duckdb

    settings, _ = _settings(arguments)
    location = settings.require_warehouse()
    if engine_for(location, arguments.engine) == "duckdb":
        with open_duckdb(location, settings.detectors) as look:
            yield look
        return
    from raretrail.warehouse import Warehouse

    with _spark(settings) as spark:
        warehouse = Warehouse(spark, location)
        warehouse.require_known_version()
        yield SparkLook(warehouse, settings.detectors)


def _size_of_run(settings: Settings, span: object) -> Size:
    """Which session suits a run: a large one where months may have to be read or played forward."""
    from raretrail.cloudtrail.layout import list_local
    from raretrail.look import local_path

    chosen = settings.spark.size
    if chosen != "auto":
        return chosen
    warehouse = local_path(settings.require_warehouse())
    if span is None and (warehouse is None or (warehouse / "events").is_dir()):
        return "small"  # what is new since the last run
    total = 0
    for root in settings.trail:
        folder = local_path(root)
        total += sum(file.bytes for file in list_local(str(folder))) if folder else 0
    return "large" if total >= _LARGE_BYTES else "small"


@contextmanager
def _spark(settings: Settings, size: Size = "small") -> Iterator[SparkSession]:
    from raretrail.session import close_session, in_words, open_session

    spark = open_session(_session_settings(settings, size))
    try:
        yield spark
    except Exception as error:
        # Spark's errors ask the JVM for their text, so it is taken down while there is one.
        raise in_words(error) from error
    finally:
        close_session(spark)


def _session_settings(settings: Settings, size: Size) -> SessionSettings:
    from raretrail.s3 import needs_s3
    from raretrail.session import SessionSettings

    return SessionSettings(
        size=size,
        remote=settings.spark.remote,
        driver_memory=settings.spark.driver_memory,
        cores=settings.spark.cores,
        ui=settings.spark.ui,
        s3=any(map(needs_s3, [*settings.trail, settings.warehouse or ""])),
    )


def _need_spark() -> None:
    """UsageError where pyspark is not installed, before anything imports it."""
    if find_spec("pyspark") is None:
        raise UsageError("Spark is not installed here: pip install 'raretrail[spark]'")


def _say(arguments: argparse.Namespace, level: Level, message: str, **fields: Any) -> None:
    """Tell the user on standard error, in the form of the log."""
    if arguments.log is None and vars(arguments).get("log_format") == "json":
        from raretrail.monitoring import JsonLog

        arguments.log = JsonLog()
    if arguments.log:
        arguments.log.write(level, message, **fields)
    else:
        from raretrail.show.text import inert

        # Names of files, and what records hold, do nothing to the terminal.
        print("raretrail:", "\n".join(map(inert, message.split("\n"))), file=sys.stderr)


def _inform(arguments: argparse.Namespace, message: str) -> None:
    if arguments.log or not arguments.quiet:
        _say(arguments, "info", message)


def _warn(arguments: argparse.Namespace, *messages: str | None) -> None:
    for message in messages:
        if message:
            _say(arguments, "warning", message)


@contextmanager
def _progress(quiet: bool, log: JsonLog | None = None) -> Iterator[Callable[[str], None]]:
    """Tell the stages: a live line on a terminal, a line each with its time in a log."""
    if quiet:
        yield lambda text: None
    elif log:
        yield lambda text: log.write("info", text)
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        shown = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
        with Progress(*shown, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("starting", total=None)
            yield lambda text: bar.update(task, description=text)
    else:
        yield lambda text: print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def _print_settings(settings: Settings, sources: dict[str, str]) -> None:
    def walk(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield prefix + key, value

    shown = settings.model_dump(mode="json", exclude={"detectors", "conf_dirs"})
    for section, name in ((shown["monitoring"], "heartbeat_url"), (shown["alerts"]["webhook"], "url")):
        if section[name]:  # what follows the host may be a secret
            section[name] = re.sub(r"^(https?://)(?:[^/@]*@)?([^/?#]+).*", r"\1\2/...", section[name])
    for key, value in walk(shown):
        print(f"{key}: {json.dumps(value)}  # {sources.get(key, 'built in')}")
    for detector in settings.detectors:
        state = "on" if detector.enabled else "off"
        print(f"detectors.{detector.name}: {state}, floor {detector.floor}")


def _plain(value: object) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
