"""Forgetting: a person or an address goes from every table, and is not taken in again.

Whom a row is of and which words may name them stands in `tables.py`. Rows of the forgotten go, their names go
from the words of others' rows, facts and baselines are made anew from what remains, old versions and the
log's older entries are deleted. What is to be done is staged first, so that a run killed halfway is finished
by the next.
"""

from __future__ import annotations

import ipaddress
import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from functools import partial, reduce
from typing import Any, Literal

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import Window as Over
from pyspark.sql import functions as F

from raretrail import __version__, tables
from raretrail.cloudtrail.forgotten import MARKER, hashed, is_word, key_id, pattern_of
from raretrail.errors import UsageError
from raretrail.settings import Settings
from raretrail.stages.baseline import rebuild_baseline
from raretrail.stages.ingest import write_facts
from raretrail.stages.locating import open_geo
from raretrail.stages.maintain import SCRATCH, purge
from raretrail.tables import (
    ANOMALIES,
    BASELINE_COVERAGE_HOUR,
    BASELINES,
    CHANGE_WINDOWS,
    DISPOSITIONS,
    EVENTS,
    FACTS,
    FIRST_USES,
    FORGETTINGS,
    INCIDENTS,
    INGEST_FILES,
    PLACES,
    PRESENCE_DAILY,
    QUARANTINE,
    STAGED_CENSUS,
    TOMBSTONES,
    Table,
)
from raretrail.together import together
from raretrail.verdicts import is_writable
from raretrail.warehouse import Warehouse, on_days

# A shorter name is too much like any word to be looked for in those of others.
_SHORTEST_NAME = 3
_SHOWN = 10
_BEGUN = Table("staged_forgetting", "", (), ())
# Made anew from what remains, so nothing in them is looked for.
_REMADE = (*BASELINES, BASELINE_COVERAGE_HOUR, STAGED_CENSUS)
_SEARCHED = tuple(table for table in tables.ALL if table not in (*_REMADE, TOMBSTONES))
# Java's words: of any alphabet, in any case.
_JAVA = "(?iuU)"


@dataclass(frozen=True)
class Request:
    """Who or what is to be forgotten, as the user says it, and in which account alone, if in one."""

    kind: Literal["person", "address"]
    said: str
    account: str | None = None


@dataclass(frozen=True)
class Covered:
    """What a request covers. Lists of texts, so that it can be staged as JSON.

    subject is the actor or address; identities are the principals nobody else uses, or the address as it may
    be written; names are looked for in words; addresses are those only the person used; others are identities
    of somebody else that have the name in their own, and keep it.
    """

    request: Request
    subject: str
    identities: list[str]
    names: list[str]
    others: list[str]
    addresses: list[str]
    incidents: list[str]
    findings: list[str]
    said: list[str]
    """Dispositions and change windows on these."""
    days: list[str]
    """Days whose events are touched."""

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> Covered:
        tree = json.loads(text)
        return cls(**(tree | {"request": Request(**tree["request"])}))


@dataclass(frozen=True)
class Receipt:
    """What went, by table: rows of `tables.FORGETTINGS`. dry where nothing was done."""

    receipt_id: str
    kind: str
    hash: str | None
    account: str | None
    forgotten_at: datetime
    author: str
    rows: tuple[dict[str, Any], ...]
    dry: bool = False


@dataclass
class _Counted:
    removed: int = 0
    rewritten: int = 0
    days: tuple[date, ...] = ()


def forget(
    warehouse: Warehouse,
    settings: Settings,
    request: Request,
    key: bytes | None,
    author: str,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    *,
    tell: Callable[[Covered], None] = lambda covered: None,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Receipt]:
    """Forget, and give the receipt; without a key only count what would go. tell hears first what is covered.

    A forgetting that was begun and killed is finished before, and has a receipt of its own.

    Raises:
        BusyError: another run holds the warehouse.
        UsageError: nobody is called so, or several are; a service is.
    """
    if warehouse.directory and not is_writable(warehouse.directory):
        raise UsageError(f"{warehouse.location}: has [, ] or % in its path; there old versions cannot go")
    with warehouse.held():
        begun = _begun(warehouse)
        if key is None:
            covered = cover(warehouse, request)
            tell(covered)
            counted = _counted(warehouse, covered)
            rows = _rows(covered, counted, {}, set())
            return [Receipt("", request.kind, None, request.account, clock(), author, rows, dry=True)]
        done = []
        if begun:
            tell(begun)
            done.append(_carry_out(warehouse, settings, begun, key, author, clock(), progress))
        if not begun or begun.request != request:
            covered = cover(warehouse, request)
            tell(covered)
            done.append(_carry_out(warehouse, settings, covered, key, author, clock(), progress))
        return done


# ----------------------------------------------------------------------------------------- whom it covers


def cover(warehouse: Warehouse, request: Request) -> Covered:
    """What a request covers, by what the tables hold. UsageError where it names nobody, or several."""
    none: list[str] = []
    if request.kind == "address":
        spelt = _spellings(request.said)
        blocks = [f"{one}/{128 if ':' in one else 32}" for one in spelt]
        covered = Covered(request, spelt[0], spelt + blocks, spelt, none, none, none, none, none, none)
    else:
        covered = _person(warehouse, request)
    gone = partial(_gone, covered=covered)
    findings, incidents = warehouse.read(ANOMALIES), warehouse.read(INCIDENTS)
    theirs = findings.where(gone(ANOMALIES))
    # What was said of an incident may be under an id it had before.
    former = theirs.select(F.explode("former_incident_ids").alias("incident_id"))
    ids = _texts(theirs.select("incident_id").unionByName(former), "incident_id")
    ids |= _texts(incidents.where(gone(INCIDENTS)), "incident_id")
    covered = replace(covered, incidents=sorted(ids))
    ids = _texts(findings.where(gone(ANOMALIES, covered=covered)), "anomaly_id")
    covered = replace(covered, findings=sorted(ids))
    said: set[str] = set()
    for table in (DISPOSITIONS, CHANGE_WINDOWS):
        said |= _texts(warehouse.read(table).where(gone(table, covered=covered)), table.key[0])
    return replace(covered, said=sorted(said))


def _spellings(said: str) -> list[str]:
    try:
        address = ipaddress.ip_address(said.strip())
    except ValueError:
        raise UsageError(f"--address {said!r}: is no address of IPv4 or IPv6") from None
    return list(dict.fromkeys((address.compressed.lower(), address.exploded.lower())))


# What an event says of who made it, by which somebody may be called.
_CALLED = ("user_identity_arn", "user_identity_principal_id", "user_identity_user_name", "session_name")
_TOLD = (*_CALLED, "access_key_id")


def _person(warehouse: Warehouse, request: Request) -> Covered:
    who = ["actor", "principal", "principal_kind", "recipient_account_id"]
    events, presence = warehouse.read(EVENTS), warehouse.read(PRESENCE_DAILY)
    # Of a session the user name is its role's.
    own = F.when(F.col("session_issuer_arn").isNull(), F.col("user_identity_user_name"))
    told = events.withColumn("user_identity_user_name", own).select(*who, *_TOLD).distinct()
    known = told.unionByName(presence.select(*who).distinct(), allowMissingColumns=True)
    here = known.where(F.col("recipient_account_id") == request.account) if request.account else known
    called = request.said.strip().lower()
    is_called = _any([F.lower(name) == called for name in ("actor", "principal", *_CALLED)])
    kinds: dict[str, set[str]] = {}
    for row in here.where(is_called).select("actor", "principal_kind").distinct().collect():
        kinds.setdefault(row["actor"], set()).add(row["principal_kind"])
    kinds = {name: of for name, of in kinds.items() if name.lower() == called} or kinds
    if not kinds:
        raise UsageError(
            f"--principal {request.said!r}: no event and no fact in {warehouse.location} is of anybody so "
            "called; give an actor, principal, ARN or name as table events has it"
        )
    if len(kinds) > 1:
        shown = ", ".join(sorted(kinds)[:_SHOWN])
        raise UsageError(
            f"--principal {request.said!r}: several are called so: {shown}; give one of these, or --account"
        )
    ((actor, of),) = kinds.items()
    if of <= {"service"}:
        raise UsageError(f"--principal {request.said!r}: is a service of AWS, which is nobody to forget")
    return _with_names(known, presence, request, actor)


def _with_names(known: DataFrame, presence: DataFrame, request: Request, actor: str) -> Covered:
    mine, others = known.where(F.col("actor") == actor), known.where(F.col("actor") != actor)
    listed = mine.select("principal", "principal_kind", *_TOLD).distinct().collect()
    # A role is other people's too, whoever used it last.
    principals = {row["principal"] for row in listed if row["principal_kind"] != "role"} | {actor}
    values = set(principals).union(*(_names_in(row, actor) for row in listed))
    last = F.element_at(F.split("principal", "/"), -1)
    theirs = others.select(F.explode(F.array("principal", last, *_TOLD)).alias("value"))
    alone = (values - _texts(theirs.where(F.col("value").isin(*sorted(values))), "value")) | {actor}
    names = _fewest(name for name in alone if len(name) >= _SHORTEST_NAME)
    like = F.col("principal").rlike(_JAVA + pattern_of(names)) if names else F.lit(False)
    namesakes = others.where(like).select("principal").distinct().limit(_SHOWN)
    is_gone = (F.col("actor") == actor) & _in_account(PRESENCE_DAILY, request)
    there = presence.where(is_gone & (F.col("source_ip_address") != "")).select("source_ip_address")
    only_there = there.join(presence.where(~is_gone), "source_ip_address", "left_anti")
    return Covered(
        request,
        actor,
        sorted(principals & alone),
        names,
        sorted(_texts(namesakes, "principal")),
        sorted(_texts(only_there, "source_ip_address")),
        [],
        [],
        [],
        [],
    )


def _names_in(row: Row, actor: str) -> set[str]:
    """The names of theirs that an event tells. A session's names count only if they are the actor's own,
    and keys only if they last: the rest is made up anew each time."""
    session, key = row["session_name"], row["access_key_id"]
    found = {session, row["user_identity_user_name"]} if _local(session) == actor else set()
    if session is None:
        found |= {row[name] for name in _CALLED}
    if row["principal_kind"] == "user":  # facts older than any event know the ARN alone
        found.add(row["principal"].rpartition("/")[2])
    return {name for name in (*found, key if (key or "").startswith("AKIA") else None) if name}


def _local(name: str | None) -> str:
    return (name or "").partition("@")[0].lower()


def _fewest(names: Iterable[str]) -> list[str]:
    """The names without those that hold another: what is left of these names nobody."""
    fewest: list[str] = []
    for name in sorted(set(names), key=lambda text: (len(text), text)):
        if not fewest or not re.search(pattern_of(fewest), name, re.IGNORECASE):
            fewest.append(name)
    return fewest


# ---------------------------------------------------------------------------------------- what goes where


def _any(conditions: Sequence[Column]) -> Column:
    return reduce(Column.__or__, conditions, F.lit(False))


def _in_account(table: Table, request: Request) -> Column:
    """Whether a row is of the account; none is where its table does not say."""
    if request.account is None:
        return F.lit(True)
    if "recipient_account_id" in table.column_names:
        return F.col("recipient_account_id") == request.account
    if "recipient_account_ids" in table.column_names:
        return F.array_contains("recipient_account_ids", request.account)
    return F.lit(False)


def _gone(table: Table, covered: Covered) -> Column:
    """Whether a row of the table goes."""
    names, request = set(table.column_names), covered.request
    of_them: list[Column] = []
    if request.kind == "person":
        whose = next((name for name in ("actor", "identity", "principal") if name in names), None)
        if whose == "actor":
            of_them.append(F.col("actor") == covered.subject)
        elif whose:
            of_them.append(F.col(whose).isin(*covered.identities))
    else:
        for column in table.columns:
            if column.name in ("source_ip_address", "from_address"):
                of_them.append(F.lower(column.name).isin(*covered.identities))
            if column.name == "source_ip_addresses":
                lowered = F.transform(column.name, lambda one: F.lower(one))
                of_them.append(F.arrays_overlap(lowered, F.array(*map(F.lit, covered.identities))))
    goes = _any(of_them) & _in_account(table, request)
    if table is QUARANTINE:
        account = F.col("recipient_account_id").isNull() | _in_account(table, request)
        goes = goes | (_names_somebody(table, covered) & account)
    if table is PLACES and covered.addresses:
        goes = goes | F.col("source_ip_address").isin(*covered.addresses)
    for column_name, ids in (("incident_id", covered.incidents), ("anomaly_id", covered.findings)):
        if column_name in names and ids:
            goes = goes | F.col(column_name).isin(*ids)
    if table in (DISPOSITIONS, CHANGE_WINDOWS) and covered.said:
        goes = goes | F.col(table.key[0]).isin(*covered.said) | F.col("withdraws").isin(*covered.said)
    return F.coalesce(goes, F.lit(False))


def _worded(table: Table, covered: Covered) -> list[tables.Column]:
    """The columns in which somebody else's row may name them. Whom a row is of keeps its name."""
    kinds = {"words", "person"} | ({"address"} if covered.request.kind == "address" else set())
    return [column for column in table.columns if column.holds in kinds] if covered.names else []


def _names_somebody(table: Table, covered: Covered) -> Column:
    pattern = _JAVA + pattern_of(covered.names)
    named = [
        F.exists(c.name, lambda one: one.rlike(pattern))
        if c.type.startswith("array<")
        else F.col(c.name).rlike(pattern)
        for c in _worded(table, covered)
    ]
    return F.coalesce(_any([F.coalesce(one, F.lit(False)) for one in named]), F.lit(False))


def _changed(table: Table, covered: Covered) -> Column:
    return _names_somebody(table, covered) & _in_account(table, covered.request) & ~_gone(table, covered)


def _without_names(table: Table, rows: DataFrame, covered: Covered) -> DataFrame:
    pattern = _JAVA + pattern_of(covered.names)

    def clean(text: Column) -> Column:
        return F.regexp_replace(text, pattern, MARKER)

    here = _in_account(table, covered.request)
    return rows.withColumns(
        {
            c.name: F.when(
                here, F.transform(c.name, clean) if c.type.startswith("array<") else clean(F.col(c.name))
            ).otherwise(F.col(c.name))
            for c in _worded(table, covered)
        }
    )


def _count(warehouse: Warehouse, table: Table, covered: Covered) -> _Counted:
    if not warehouse.exists(table):
        return _Counted()
    by = [F.col(name) for name in table.partition_by[:1]]
    touched = (
        warehouse.read(table)
        .groupBy(*by)
        .agg(
            F.count_if(_gone(table, covered)).alias("removed"),
            F.count_if(_changed(table, covered)).alias("rewritten"),
        )
        .where("removed > 0 OR rewritten > 0")
        .collect()
    )
    days = tuple(sorted(row[table.partition_by[0]] for row in touched)) if by else ()
    return _Counted(sum(r["removed"] for r in touched), sum(r["rewritten"] for r in touched), days)


def _counted(warehouse: Warehouse, covered: Covered) -> dict[str, _Counted]:
    found = together([partial(_count, warehouse, table, covered) for table in _SEARCHED])
    return {table.name: one for table, one in zip(_SEARCHED, found, strict=True)}


# ------------------------------------------------------------------------------------------------ doing it


def _begun(warehouse: Warehouse) -> Covered | None:
    """What a forgetting that did not end was to do."""
    if not warehouse.exists(_BEGUN):
        return None
    row = warehouse.read(_BEGUN).first()
    return Covered.of_json(row["covered"]) if row else None


def _carry_out(
    warehouse: Warehouse,
    settings: Settings,
    covered: Covered,
    key: bytes,
    author: str,
    now: datetime,
    progress: Callable[[str], None],
) -> Receipt:
    receipt_id = uuid.uuid4().hex
    progress("counting")
    counted = _counted(warehouse, covered)
    days = {date.fromisoformat(day) for day in covered.days} | set(counted[EVENTS.name].days)
    covered = replace(covered, days=sorted(map(str, days)))
    spark = warehouse.spark
    warehouse.stage("forgetting", spark.createDataFrame([(covered.as_json(),)], "covered string"))
    progress("tombstones")
    _set_tombstones(warehouse, covered, key, now, receipt_id)
    _restate_ledger(warehouse, covered)
    progress("tables")
    hit = [table for table in _SEARCHED if counted[table.name].removed or counted[table.name].rewritten]
    together([partial(_rewrite, warehouse, table, covered, counted[table.name]) for table in hit])
    rebuilt: set[str] = set()
    if days:
        progress("facts")
        write_facts(warehouse, days)
        rebuilt |= {table.name for table in FACTS}
    progress("baselines")
    geo = open_geo(settings.geo)
    if rebuild_baseline(warehouse, geo, now):
        rebuilt |= {table.name for table in (*BASELINES, BASELINE_COVERAGE_HOUR, FIRST_USES)}
    progress("old versions")
    if warehouse.exists(STAGED_CENSUS):
        warehouse.replace(STAGED_CENSUS, spark.createDataFrame([], STAGED_CENSUS.spark_schema()))
    files = purge(warehouse, [name for name in SCRATCH if f"staged_{name}" != _BEGUN.name])
    rows = _rows(covered, counted, files, rebuilt)
    receipt = Receipt(
        receipt_id, covered.request.kind, _hash(covered, key), covered.request.account, now, author, rows
    )
    _write_receipt(warehouse, receipt, key)
    warehouse.drop_scratch("forgetting")
    return receipt


def _rewrite(warehouse: Warehouse, table: Table, covered: Covered, counted: _Counted) -> None:
    warehouse.create(table)  # columns it lacks come before it is read
    rows = warehouse.read(table)
    if not table.partition_by:
        warehouse.replace(table, _without_names(table, rows.where(~_gone(table, covered)), covered))
        return
    these = on_days(table.partition_by[0], counted.days)
    left = rows.where(these).where(~_gone(table, covered))
    warehouse.replace(table, _without_names(table, left, covered), these)


def _restate_ledger(warehouse: Warehouse, covered: Covered) -> None:
    """Count what goes of each file as forgotten; computed from what stays, so it may be done again."""
    warehouse.create(INGEST_FILES)
    events, aside = warehouse.read(EVENTS), warehouse.read(QUARANTINE)
    touched = (
        events.where(_gone(EVENTS, covered))
        .select("source_file")
        .unionByName(aside.where(_gone(QUARANTINE, covered)).select("source_file"))
        .distinct()
    )

    def kept(table: Table, rows: DataFrame, name: str) -> DataFrame:
        stays = rows.where(~_gone(table, covered)).join(touched, "source_file", "left_semi")
        return stays.groupBy("source_file").agg(F.count(F.lit(1)).alias(name))

    newest = F.row_number().over(
        Over.partitionBy("source_file").orderBy(F.desc("ingested_at"), "content_hash")
    )
    restated = (
        warehouse.read(INGEST_FILES)
        .where("status = 'taken'")
        .join(touched, "source_file", "left_semi")
        .withColumn("nth", newest)
        .where("nth = 1")
        .join(kept(EVENTS, events, "left"), "source_file", "left")
        .join(kept(QUARANTINE, aside, "aside"), "source_file", "left")
        .withColumn("events", F.coalesce("left", F.lit(0)))
        .withColumn("quarantined", F.coalesce("aside", F.lit(0)))
        .withColumn("forgotten", F.expr("records - duplicates - events - quarantined"))
    )
    warehouse.merge(INGEST_FILES, restated, update=["events", "quarantined", "forgotten"])


# ---------------------------------------------------------------------------------- what is kept of it


def _hash(covered: Covered, key: bytes) -> str:
    return hashed(key, "actor" if covered.request.kind == "person" else "address", covered.subject)


def _set_tombstones(
    warehouse: Warehouse, covered: Covered, key: bytes, now: datetime, receipt_id: str
) -> None:
    kinds: set[tuple[str, str]] = {("finding", one) for one in (*covered.findings, *covered.incidents)}
    if covered.request.kind == "person":
        kinds |= {("actor", covered.subject)} | {("principal", one) for one in covered.identities}
        kinds |= {("name", one) for one in covered.names if is_word(one)}
    else:
        kinds |= {("address", one) for one in covered.names}
    rows = [
        {
            "kind": kind,
            "hash": hashed(key, kind, text),
            "recipient_account_id": covered.request.account,
            "forgotten_at": now,
            "key_id": key_id(key),
            "receipt_id": receipt_id,
        }
        for kind, text in sorted(kinds)
    ]
    warehouse.merge(TOMBSTONES, warehouse.spark.createDataFrame(rows, TOMBSTONES.spark_schema()))


def _rows(
    covered: Covered, counted: Mapping[str, _Counted], files: Mapping[str, int | None], rebuilt: set[str]
) -> tuple[dict[str, Any], ...]:
    """A row for each table of which anything went or was made anew."""
    names = [table.name for table in tables.ALL]
    rows = []
    for name in [*names, *sorted(set(files) - set(names))]:
        one = counted.get(name, _Counted())
        if one.removed or one.rewritten or name in rebuilt or files.get(name):
            rows.append(
                {
                    "table_name": name,
                    "rows_removed": one.removed,
                    "rows_rewritten": one.rewritten,
                    "rebuilt": name in rebuilt,
                    "files_removed": files.get(name),
                }
            )
    return tuple(rows)


def _write_receipt(warehouse: Warehouse, receipt: Receipt, key: bytes) -> None:
    same = {
        "receipt_id": receipt.receipt_id,
        "kind": receipt.kind,
        "hash": receipt.hash,
        "recipient_account_id": receipt.account,
        "forgotten_at": receipt.forgotten_at,
        "author": receipt.author,
        "key_id": key_id(key),
        "program_version": __version__,
    }
    rows = [same | row for row in receipt.rows]
    warehouse.append(FORGETTINGS, warehouse.spark.createDataFrame(rows, FORGETTINGS.spark_schema()))


def _texts(rows: DataFrame, name: str) -> set[str]:
    return {row[name] for row in rows.select(name).distinct().collect() if row[name]}
