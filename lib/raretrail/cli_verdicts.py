"""The commands that say what findings are: verdict, suppress, suppressed, window."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from raretrail.errors import EXIT_DONE, UsageError

if TYPE_CHECKING:
    from raretrail.look import Look
    from raretrail.tables import Table

_Command = Callable[[str, str, Callable[[argparse.Namespace], int]], Any]
_Time = Callable[[str], datetime]

# As `tables.VERDICTS` and `tables.STATES`; help answers without importing them.
VERDICTS = ("malicious", "benign", "benign_expected", "false_positive", "planned")
STATES = ("open", "acknowledged", "closed")
_UNTIL = timedelta(days=30)
# An incident of more principals and places than this is no habit to be suppressed at a stroke.
_MOST_VISITS = 10
_SCOPE = {
    "principal": ("principal", "its name, or a part that names only one of those found"),
    "command": ("command", "as in iam:CreateUser"),
    "place": ("place", "its key, or the name it is shown by: 'Bilbao, ES'"),
    "cidr": ("source_ip_address", "address, or block of addresses: 203.0.113.0/24"),
    "network": ("network", "AS64500, or the /24 or /48 shown as network"),
    "account": ("recipient_account_id", "account the findings are in"),
    "detector": ("detector", "name of the detector"),
}


def add_commands(command: _Command, add_look: Callable[..., None], moment: _Time) -> None:
    """Add the commands to the parser, by the CLI's own functions."""

    def until(text: str) -> datetime | timedelta:
        from raretrail.settings import parse_duration

        try:
            return parse_duration(text)
        except ValueError:
            return moment(text)

    verdict = command("verdict", "say what an incident is, who looks after it, in what state it is", _verdict)
    verdict.add_argument("id", metavar="ID", help="incident_id or anomaly_id, or the start of one")
    verdict.add_argument("verdict", nargs="?", choices=VERDICTS, metavar="|".join(VERDICTS))
    verdict.add_argument("--state", choices=STATES, help="default: closed, or acknowledged if malicious")
    verdict.add_argument("--assign", metavar="NAME", help="who is to look after it")
    verdict.add_argument(
        "--suppress", action="store_true", help="suppress further findings of its principals at its places"
    )
    _add_said(verdict, add_look, until, "end of the suppression, a time or as in 30d (default: 30d)")

    suppress = command("suppress", "suppress what is expected, in a scope, for a time", _suppress)
    for option, (_, text) in _SCOPE.items():
        suppress.add_argument(f"--{option}", dest=f"of_{option}", help=text)
    suppress.add_argument("--verdict", choices=[v for v in VERDICTS if v != "malicious"])
    suppress.add_argument("--withdraw", metavar="ID", help="end the suppression or verdict of this id")
    _add_said(suppress, add_look, until, "its end, a time or as in 30d (default: 30d)")

    suppressed = command("suppressed", "what suppresses, and what would have fired without it", _suppressed)
    suppressed.add_argument("--since", type=moment, help="count findings from this day on (default: 30 days)")
    add_look(suppressed, formats=("text", "json"))

    window = command("window", "planned changes, before or after the fact: add, list, remove", _window)
    window.add_argument("what", choices=("add", "list", "remove"))
    window.add_argument("id", nargs="?", metavar="ID", help="of the window to remove, or the start of it")
    window.add_argument("--from", dest="start", type=moment, metavar="TIME", help="its beginning (UTC)")
    window.add_argument("--to", dest="end", type=moment, metavar="TIME", help="its end, exclusive")
    for option, (_, text) in _SCOPE.items():
        window.add_argument(f"--{option}", dest=f"of_{option}", help=text)
    _add_said(window, add_look, None, "")


def _add_said(sub: Any, add_look: Callable[..., None], until: Any, text: str) -> None:
    sub.add_argument("--reason", help="why")
    sub.add_argument("--ticket", help="where it is written up")
    sub.add_argument("--author", metavar="NAME", help="who says so (default: you)")
    if until:
        sub.add_argument("--until", type=until, metavar="TIME", help=text)
    add_look(sub, formats=("text", "json"))


# ---------------------------------------------------------------------------------------- commands


def _verdict(arguments: argparse.Namespace) -> int:
    from raretrail.detect.rules import to_rules
    from raretrail.tables import CHANGE_WINDOWS, DISPOSITIONS
    from raretrail.verdicts import made, scope_text, the_incident

    if not (arguments.verdict or arguments.state or arguments.assign):
        raise UsageError(f"say what it is ({', '.join(VERDICTS)}), or give --state or --assign")
    if arguments.verdict and not arguments.reason:
        raise UsageError("a verdict needs --reason: those who come later ask why")
    if arguments.suppress and arguments.verdict in (None, "malicious"):
        raise UsageError("--suppress goes with a verdict other than malicious")
    if arguments.until and not arguments.suppress:
        raise UsageError("--until is the end of a suppression: it goes with --suppress")
    said = _Said(arguments)
    with said.open() as look:
        incident = the_incident(look, arguments.id)
        named = {"incident_id": incident["incident_id"], "verdict": arguments.verdict}
        named |= {"state": arguments.state, "assignee": arguments.assign}
        rows = [made(DISPOSITIONS, said.author, said.now, {**said.words, **named})]
        notes = []
        if arguments.suppress:
            for principal, place in _visits(look, incident):
                like = {"principal": principal, "place": place, "suppress": True}
                like |= {"verdict": arguments.verdict, "expires_at": said.until()}
                rows.append(made(DISPOSITIONS, said.author, said.now, {**said.words, **like}))
                notes.append(f"suppressed: {scope_text(like)}, until {said.until():%Y-%m-%d %H:%M} UTC")
        if arguments.verdict == "malicious":
            rules, _ = to_rules(look.rows(DISPOSITIONS), look.rows(CHANGE_WINDOWS), said.now)
            notes += [
                f"note: {rule.rule_id[:8]} suppresses others like it; "
                f"`raretrail suppress --withdraw {rule.rule_id[:8]} --reason ...` ends that"
                for rule in rules
                if rule.suppress and _is_like(rule, incident, said.now)
            ]
        said.write(look, DISPOSITIONS, rows)
    state = arguments.state or {"malicious": "acknowledged", None: ""}.get(arguments.verdict, "closed")
    words = [
        w for w in (arguments.verdict, state, arguments.assign and f"assigned to {arguments.assign}") if w
    ]
    return said.tell(rows, [f"incident {incident['incident_id'][:8]}: {', '.join(words)}", *notes, _NEXT])


def _visits(look: Look, incident: dict[str, Any]) -> list[tuple[str, str]]:
    """Each principal of the incident with each place it was found at; UsageError for a crowd."""
    from raretrail.look import Condition
    from raretrail.tables import ANOMALIES

    own = Condition("incident_id", "=", incident["incident_id"])
    found = look.rows(ANOMALIES, own, columns=["principal", "place"])
    visits = sorted({(row["principal"], row["place"]) for row in found if row["principal"] and row["place"]})
    if not visits or len(visits) > _MOST_VISITS:
        raise UsageError(
            f"the incident has {len(visits)} principals at places; say with `raretrail suppress` what of it "
            "is expected"
        )
    return visits


def _is_like(rule: Any, incident: dict[str, Any], now: datetime) -> bool:
    """Whether a suppression may cover what is like the incident."""
    same = (
        (rule.principal, [incident["principal"], *(incident.get("principals") or [])]),
        (rule.place, [incident["place"]]),
        (rule.command, incident["commands"] or []),
        (rule.network, incident["networks"] or []),
        (rule.recipient_account_id, incident["recipient_account_ids"] or []),
        (rule.detector, incident["detectors"] or []),
    )
    ended = rule.ends_at is not None and rule.ends_at <= now
    return (
        not ended
        and rule.incident_id is None
        and all(value is None or value in among for value, among in same)
    )


def _suppress(arguments: argparse.Namespace) -> int:
    from raretrail.tables import DISPOSITIONS
    from raretrail.verdicts import covered, made, recently, scope_text, the_id

    if not arguments.reason:
        raise UsageError("--reason is missing: those who come later ask why")
    said = _Said(arguments)
    with said.open() as look:
        if arguments.withdraw:
            ended = the_id(look, DISPOSITIONS, arguments.withdraw)
            row = made(DISPOSITIONS, said.author, said.now, {**said.words, "withdraws": ended})
            lines = [f"{ended[:8]} holds no longer"]
        else:
            scope = _scope(arguments, look)
            more = {"suppress": True, "verdict": arguments.verdict, "expires_at": said.until()}
            row = made(DISPOSITIONS, said.author, said.now, {**said.words, **scope, **more})
            now_covered = covered(look, scope, recently(look, said.now))
            incidents = {finding["incident_id"] for finding in now_covered}
            until = f"{said.until():%Y-%m-%d %H:%M} UTC"
            counted = f"{len(now_covered):,} findings in {len(incidents):,} incidents"
            lines = [
                f"{row['disposition_id'][:8]} suppresses {scope_text(scope)} until {until}",
                f"of the last 30 days of findings it covers {counted}",
            ]
        said.write(look, DISPOSITIONS, [row])
    return said.tell([row], [*lines, _NEXT])


def _window(arguments: argparse.Namespace) -> int:
    from raretrail.tables import CHANGE_WINDOWS
    from raretrail.verdicts import covered, made, scope_text, the_id

    said = _Said(arguments)
    if arguments.what == "list":
        with said.open() as look:
            rows = look.rows(CHANGE_WINDOWS, order=(("starts_at", "desc"), ("window_id", "asc")))
        return _list_windows(arguments, rows)
    if not arguments.reason:
        raise UsageError("--reason is missing: those who come later ask why")
    with said.open() as look:
        if arguments.what == "remove":
            ended = the_id(look, CHANGE_WINDOWS, arguments.id or "")
            row = made(CHANGE_WINDOWS, said.author, said.now, {**said.words, "withdraws": ended})
            lines = [f"window {ended[:8]} holds no longer"]
        else:
            if arguments.start is None or arguments.end is None or arguments.start >= arguments.end:
                raise UsageError("a window needs --from TIME and --to TIME after it")
            scope = _scope(arguments, look)
            times = {"starts_at": arguments.start, "ends_at": arguments.end}
            row = made(CHANGE_WINDOWS, said.author, said.now, {**said.words, **scope, **times})
            within = [
                finding
                for finding in covered(look, scope, arguments.start)
                if finding["last_time"] < arguments.end
            ]
            lines = [
                f"window {row['window_id'][:8]}: {scope_text(scope)}, "
                f"{arguments.start:%Y-%m-%d %H:%M} to {arguments.end:%Y-%m-%d %H:%M} UTC",
                f"so far it covers {len(within):,} findings",
            ]
        said.write(look, CHANGE_WINDOWS, [row])
    return said.tell([row], [*lines, _NEXT])


def _list_windows(arguments: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> int:
    from raretrail.show.rows import json_lines, rows_table
    from raretrail.show.text import Screen
    from raretrail.verdicts import scope_text

    removed = {row["withdraws"] for row in rows}
    shown = [
        {
            "id": row["window_id"][:8],
            "from": row["starts_at"],
            "to": row["ends_at"],
            "covers": scope_text(row),
            "reason": row["reason"],
            "by": row["author"],
            "ticket": row["ticket"],
        }
        for row in rows
        if not row["withdraws"] and row["window_id"] not in removed
    ]
    columns = ("id", "from", "to", "covers", "reason", "by", "ticket")
    if arguments.format == "json":
        sys.stdout.writelines(json_lines(columns, iter(shown)))
    else:
        sys.stdout.write(rows_table(columns, shown, Screen.of(sys.stdout)))
    return EXIT_DONE


def _suppressed(arguments: argparse.Namespace) -> int:
    from raretrail import cli
    from raretrail.show.suppressed import suppressed_blocks
    from raretrail.show.text import Screen, to_json
    from raretrail.verdicts import recently, suppressions

    now = datetime.now(UTC)
    settings, _ = cli._settings(arguments)
    with cli._look(arguments) as look:
        since = arguments.since or recently(look, now)
        found = suppressions(look, now, settings.alerts.min_score, since)
    if arguments.format == "json":
        for one in found:
            told = {"id": one.rule_id, "kind": one.kind, "holds": one.holds, "findings": one.findings}
            told |= {"incidents": one.incidents, "would_alert": one.would_alert, **one.row}
            sys.stdout.write(to_json(told) + "\n")
        return EXIT_DONE
    sys.stdout.write(suppressed_blocks(found, Screen.of(sys.stdout)))
    ending = f"since {since:%Y-%m-%d}; alert score is {settings.alerts.min_score:g}"
    sys.stdout.write(f"{'' if found else 'nothing is suppressed; '}findings {ending}\n")
    return EXIT_DONE


# ----------------------------------------------------------------------------------------- helpers

_NEXT = "the next run lays it on findings of the last 30 days and all to come"


class _Said:
    """One command's words: who, when, why; where they go."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from raretrail import cli
        from raretrail.verdicts import author_of

        self.arguments = arguments
        self.now = datetime.now(UTC)
        self.author = author_of(arguments.author)
        self.words = {"reason": arguments.reason, "ticket": arguments.ticket}
        self.settings, _ = cli._settings(arguments)

    @contextmanager
    def open(self) -> Iterator[Look]:
        from raretrail import cli

        with cli._look(self.arguments) as look:
            yield look

    def until(self) -> datetime:
        """The end of a suppression; UsageError where it is past."""
        given = self.arguments.until or _UNTIL
        end: datetime = self.now + given if isinstance(given, timedelta) else given
        if end <= self.now:
            raise UsageError(
                f"--until {end:%Y-%m-%dT%H:%MZ} is past; for what is past use `raretrail window add`"
            )
        return end

    def write(self, look: Look, table: Table, rows: list[dict[str, Any]]) -> None:
        """Add the rows, by delta-rs where it can."""
        from raretrail import cli
        from raretrail.look import SparkLook, directory_of
        from raretrail.verdicts import is_writable, write

        location = self.settings.warehouse or ""
        folder = directory_of(location)
        if isinstance(look, SparkLook):
            look.warehouse.append(table, look.warehouse.spark.createDataFrame(rows, table.spark_schema()))
        elif folder is not None and is_writable(folder):
            write(folder, table, rows)
        else:
            from raretrail.warehouse import Warehouse

            with cli._spark(self.settings) as spark:
                Warehouse(spark, location).append(table, spark.createDataFrame(rows, table.spark_schema()))

    def tell(self, rows: list[dict[str, Any]], lines: Sequence[str]) -> int:
        """Print what was written: lines for people, the rows themselves as JSON."""
        from raretrail.show.text import inert, to_json

        for line in [to_json(row) for row in rows] if self.arguments.format == "json" else map(inert, lines):
            sys.stdout.write(line + "\n")
        return EXIT_DONE


def _scope(arguments: argparse.Namespace, look: Look) -> dict[str, str | None]:
    """The scope the options name, in values of findings; UsageError where it is none."""
    from raretrail.verdicts import the_value

    settings_of = {column: getattr(arguments, f"of_{option}") for option, (column, _) in _SCOPE.items()}
    given = {column: text.strip() for column, text in settings_of.items() if text and text.strip()}
    if not given:
        raise UsageError(f"name what it covers: {', '.join(f'--{option}' for option in _SCOPE)}")
    for column in ("principal", "place"):
        if column in given:
            given[column] = the_value(look, column, given[column])
    return dict(given)
