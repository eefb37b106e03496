"""Saying what findings are: rows for `dispositions` and `change_windows`, made, checked and written.

Rows are only ever added, so writing never meets a running job. In a directory of this machine
delta-rs writes them, elsewhere Spark.
"""

from __future__ import annotations

import getpass
import random
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raretrail.detect.rules import EQUAL, problem_of, to_rules
from raretrail.errors import RaretrailError, UsageError
from raretrail.geo.addresses import range_of
from raretrail.look import Condition, Look
from raretrail.look import is_writable as is_writable
from raretrail.show.text import in_utc
from raretrail.tables import ANOMALIES, CHANGE_WINDOWS, DISPOSITIONS, INCIDENTS, REVISIONS, Table

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
SHOWN_DAYS = 30
# Times a row is offered to a table that others write to at the same moment.
_ATTEMPTS = 20


def author_of(given: str | None) -> str:
    """Who speaks: as given, else the user of this process. UsageError where nobody is known."""
    try:
        return given or getpass.getuser()
    except (KeyError, OSError):
        raise UsageError("nobody is known to say so: give --author NAME") from None


def made(table: Table, author: str, now: datetime, values: Mapping[str, Any]) -> Row:
    """A row of dispositions or change_windows under a new id. UsageError if it could not be used."""
    (key,) = table.key
    row: Row = dict.fromkeys(table.column_names)
    row |= {key: uuid.uuid4().hex, "author": author, "created_at": now, **values}
    problem = problem_of(row, key, now)
    if problem:
        raise UsageError(f"that cannot be said: {problem}")
    return row


def write(folder: Path, table: Table, rows: Sequence[Row]) -> None:
    """Add rows to a table of a warehouse in a directory, which is made if it is not there."""
    import pyarrow as pa
    from deltalake.exceptions import CommitFailedError, DeltaError

    path = str(folder / table.name)
    data = pa.Table.from_pylist(list(rows), schema=table.arrow_schema())
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _append(path, table, data)
            return
        except CommitFailedError as error:
            # Somebody else wrote, or made the table, at the same moment.
            if attempt == _ATTEMPTS:
                raise RaretrailError(f"{path}: could not be written, others keep writing: {error}") from None
            time.sleep(random.uniform(0, 0.1 * attempt))
        except DeltaError as error:
            raise RaretrailError(f"{path}: could not be written: {error}") from None


def _append(path: str, table: Table, data: pa.Table) -> None:
    from deltalake import DeltaTable, write_deltalake

    if not DeltaTable.is_deltatable(path):
        DeltaTable.create(
            path, table.arrow_schema(), name=table.name, description=table.comment, mode="ignore"
        )
    made = DeltaTable(path)
    there = made.metadata().configuration
    checks = {name: check for name, check in table.checks.items() if f"delta.constraints.{name}" not in there}
    if checks:
        made.alter.add_constraint(checks)
    write_deltalake(path, data, mode="append")


# ---------------------------------------------------------------------------------- what is meant by it


def the_incident(look: Look, starts: str) -> Row:
    """The incident whose id starts so, or that of the finding whose id does; UsageError unless one."""
    starts = starts.strip().lower()
    if not starts:
        raise UsageError("give the id of an incident or finding; `raretrail incidents` lists them")
    matching = look.rows(INCIDENTS, Condition("incident_id", "starts", starts), limit=2)
    if not matching:
        one = look.rows(ANOMALIES, Condition("anomaly_id", "starts", starts), limit=2)
        ids = {row["incident_id"] for row in one}
        if len(ids) == 1:
            matching = look.rows(INCIDENTS, Condition("incident_id", "in", sorted(ids)), limit=2)
        elif one:
            matching = one
    if not matching:
        # Ids whose finding no longer stands: of an incident that became part of another, or of none.
        heirs = look.rows(INCIDENTS, Condition("supersedes", "null", False))
        matching = [row for row in heirs if any(id.startswith(starts) for id in row["supersedes"])]
    if not matching:
        gone = look.rows(
            REVISIONS, Condition("anomaly_id", "starts", starts), Condition("withdrawn", "=", True)
        )
        if gone:
            last = max(gone, key=lambda row: row["revised_at"])
            raise UsageError(
                f"{last['anomaly_id']} no longer stands since {last['revised_at']:%Y-%m-%d %H:%M} UTC "
                f"({last['reason']}); the table revisions says what it was"
            )
        raise UsageError(f"no incident or finding starts with {starts!r}; `raretrail incidents` lists them")
    if len(matching) > 1:
        raise UsageError(f"{starts!r} starts more than one id; give more of it")
    return matching[0]


def the_id(look: Look, table: Table, starts: str) -> str:
    """The id in dispositions or change_windows that starts so; UsageError unless there is one."""
    (key,) = table.key
    matching = look.rows(table, Condition(key, "starts", starts.strip()), limit=2) if starts.strip() else []
    if len(matching) != 1:
        found = "starts more than one id; give more of it" if matching else "starts no id; list them first"
        raise UsageError(f"{starts!r} {found}")
    return str(matching[0][key])


def the_value(look: Look, column: str, text: str) -> str:
    """What `text` means in a column of findings: itself if it is there, else the one value that holds it
    (of a place, whose name it is), else itself."""
    if look.count(ANOMALIES, Condition(column, "=", text)):
        return text
    shown = "place_name" if column == "place" else column
    rows = look.rows(ANOMALIES, Condition(shown, "has", text), columns=[column])
    values = sorted({str(row[column]) for row in rows})
    if len(values) > 1:
        some = ", ".join(values[:4]) + (", ..." if len(values) > 4 else "")
        raise UsageError(f"{text!r} is part of {len(values)} values of {column}: {some}")
    if column == "place" and not values and ":" not in text:
        raise UsageError(f"no finding is from {text!r}; a place never found yet is given by its key")
    return values[0] if values else text


def covered(look: Look, scope: Mapping[str, str | None], since: datetime) -> list[Row]:
    """The findings from `since` on that a scope covers: anomaly_id, incident_id, first and last time."""
    conditions = [Condition(name, "=", scope[name]) for name in EQUAL if scope.get(name)]
    columns = ["anomaly_id", "incident_id", "source_ip_address", "first_time", "last_time"]
    recent = (Condition("bucket_date", ">=", since.date()), Condition("first_time", ">=", since))
    rows = look.rows(ANOMALIES, *recent, *conditions, columns=columns)
    block = scope.get("source_ip_address")
    return rows if not block else [row for row in rows if _within(row["source_ip_address"], block)]


def _within(address: str | None, block: str) -> bool:
    first, last = range_of(block)
    try:
        return first <= range_of(address or "")[0] <= last
    except ValueError:
        return False


# ------------------------------------------------------------------------------------- what it comes to


@dataclass(frozen=True)
class Suppression:
    """A suppression or change window and what it kept from being alerted."""

    rule_id: str
    kind: str
    row: Row
    holds: bool
    findings: int
    incidents: int
    would_alert: int


def suppressions(look: Look, now: datetime, min_score: float, since: datetime) -> list[Suppression]:
    """Everything that suppresses or is marked on findings since then, newest first, with how many these
    are, their incidents that are suppressed as a whole, and those of these at or above min_score."""
    marked = look.rows(
        ANOMALIES,
        Condition("suppressed_by", "null", False),
        Condition("bucket_date", ">=", since.date()),
        columns=["incident_id", "suppressed_by"],
    )
    silent = look.rows(INCIDENTS, Condition("suppressed_by", "null", False), columns=["incident_id", "score"])
    score = {row["incident_id"]: row["score"] or 0.0 for row in silent}
    found: list[Suppression] = []
    written = {
        "disposition": look.rows(DISPOSITIONS),
        "window": look.rows(CHANGE_WINDOWS),
    }
    rules, _ = to_rules(written["disposition"], written["window"], now)
    in_force = {rule.rule_id for rule in rules}
    for kind, rows in written.items():
        (key,) = (DISPOSITIONS if kind == "disposition" else CHANGE_WINDOWS).key
        for row in rows:
            own = [mark for mark in marked if mark["suppressed_by"] == row[key]]
            suppresses = kind == "window" or row["suppress"]
            if row["withdraws"] or not suppresses or (row[key] not in in_force and not own):
                continue
            silenced = {mark["incident_id"] for mark in own} & set(score)
            # A window says which times it is about, and holds for these for ever.
            ends = row.get("expires_at")
            found.append(
                Suppression(
                    rule_id=row[key],
                    kind=kind,
                    row=row,
                    holds=row[key] in in_force and (ends is None or in_utc(ends) > now),
                    findings=len(own),
                    incidents=len(silenced),
                    would_alert=sum(score[incident] >= min_score for incident in silenced),
                )
            )
    return sorted(found, key=lambda one: (one.row["created_at"] is None, one.row["created_at"]), reverse=True)


def scope_text(row: Mapping[str, Any]) -> str:
    """What a row covers, in words: 'principal ..., command ...'."""
    names: Iterable[tuple[str, str]] = (
        ("incident_id", "incident"),
        ("anomaly_id", "finding"),
        ("principal", "principal"),
        ("command", "command"),
        ("place", "place"),
        ("source_ip_address", "address"),
        ("network", "network"),
        ("recipient_account_id", "account"),
        ("detector", "detector"),
    )
    return ", ".join(f"{label} {row[name]}" for name, label in names if row.get(name))


def recently(look: Look, now: datetime) -> datetime:
    """30 days before now, or before the newest finding where that is older."""
    newest = look.rows(ANOMALIES, columns=["last_time"], order=(("last_time", "desc"),), limit=1)
    latest = newest[0]["last_time"] if newest else None
    return min(now, in_utc(latest or now)) - timedelta(days=SHOWN_DAYS)
