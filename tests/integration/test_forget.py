"""A person or an address goes from every table and file, and reading again does not bring them back."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from pyspark.sql import SparkSession

import old_warehouse as old
from factories import call, trail_file
from raretrail import tables
from raretrail.cloudtrail.decode import decode_file, events_batch
from raretrail.cloudtrail.forgotten import KEY, KEY_FILE, MARKER, key_of
from raretrail.cloudtrail.principals import load_rules
from raretrail.errors import BusyError, RaretrailError, UsageError
from raretrail.look import open_duckdb
from raretrail.settings import Settings, default_conf_dir, load_settings
from raretrail.show.forgotten import covered_lines, receipt_json, receipt_text
from raretrail.show.text import Screen, to_json
from raretrail.stages import forget as stage
from raretrail.stages.baseline import advance_baseline, stored_days
from raretrail.stages.forget import Covered, Receipt, Request, forget
from raretrail.stages.ingest import ingest, write_facts
from raretrail.stages.locating import open_geo
from raretrail.stages.replay import replay
from raretrail.stages.tombstones import read_forgotten
from raretrail.tables import ALL, EVENTS, Table
from raretrail.warehouse import Warehouse

pytestmark = pytest.mark.integration
HER = "arn:aws:iam::111122223333:user/zelda"
BEN = "arn:aws:iam::111122223333:user/ben"
SECRET = b"kept outside the warehouse"
NOW = old.at(old.JUDGED + timedelta(days=2))
# Ids of events, which have the name between hyphens, stay.
RENAMED = ((r"(?<![-\w])ana\b", "zelda"), ("AIDAANA", "AIDAZELDA"), ("AKIAANA", "AKIAZELDA"))
NAMES = ("zelda", old.BILBAO)
# Whom a row is of, by the column that says so.
OF_HER: dict[str, Any] = {
    "user_identity_user_name": "zelda",
    "user_identity_principal_id": "AIDAZELDA",
    "access_key_id": "AKIAZELDA",
    "session_name": None,
    "session_issuer_arn": None,
}


# ------------------------------------------------------------------ a warehouse that names her everywhere


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return [(name, of) for name, of in value.items()]
    if isinstance(value, list):
        return [_renamed(one) for one in value]
    if not isinstance(value, str):
        return value
    for pattern, name in RENAMED:
        value = re.sub(pattern, name, value)
    return value


def _something(kind: str) -> Any:
    if kind.startswith(("array<", "map<")):
        return []
    told = {
        "date": old.JUDGED,
        "timestamp": old.at(old.JUDGED),
        "boolean": True,
        "double": 1.0,
        "string": "x",
    }
    return told.get(kind, 1)


def _with(row: dict[str, Any], table: Table, holds: set[str], values: Any) -> dict[str, Any]:
    """The row with what its columns of these kinds hold."""
    made = dict(row)
    for column in table.columns:
        if column.holds in holds:
            value = values(column.name)
            made[column.name] = [value] if column.type == "array<string>" else value
    return made


def _rows(table: Table, stored: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stored rows, one of hers, and one of somebody else's that names her wherever a row may."""
    rows = [{name: _renamed(value) for name, value in row.items()} for row in stored]
    row = rows[0] if rows else {c.name: _something(c.type) for c in table.columns}
    words = {"words", "person"}
    if table in (EVENTS, tables.INGEST_FILES):
        theirs = next(row for row in rows if row.get("principal", BEN) == BEN)
        theirs.update(_with(theirs, table, words, lambda name: '{"userName":"Zelda"}'))
        return rows
    number = {"anomaly_id": "1" * 32, "incident_id": "1" * 32, "source_position": 7}
    ids = {name: of for name, of in number.items() if name in table.column_names}
    ids |= {name: f"{name}-1" for name in table.key if name.endswith("_id") and name not in ids}
    whose = {c.name for c in table.columns if c.holds == "subject"}
    if whose:
        rows.append(_with(row | ids, table, {"subject"}, lambda name: OF_HER.get(name, HER)))
    if any(c.holds in words for c in table.columns) or whose:
        ids = {name: of.replace("1", "2") if isinstance(of, str) else 8 for name, of in ids.items()}
        theirs = _with(row | ids, table, {"subject"}, lambda name: OF_HER.get(name, BEN) and BEN)
        theirs = _with(theirs, table, {"address"}, lambda name: old.MILAN)
        rows.append(_with(theirs, table, words, lambda name: "by zelda."))
    return rows


def _write(table: Table, rows: list[dict[str, Any]], root: Path) -> None:
    """The table with its rows, and an older version with her in every text."""
    texts = {c.name for c in table.columns if c.type == "string"}
    before = [row | dict.fromkeys(texts, f"zelda {old.BILBAO}") for row in rows[:2]]
    for some in (before, rows):
        data = pa.Table.from_pylist(some, schema=table.arrow_schema())
        write_deltalake(
            str(root / table.name), data, partition_by=list(table.partition_by) or None, mode="overwrite"
        )


@pytest.fixture
def warehouse(tmp_path: Path, spark: SparkSession) -> Warehouse:
    """The packed one; of its three people one is called otherwise, and stands in every table that may."""
    packed, root = old.unpack(old.ARCHIVES[-1], tmp_path / "packed"), tmp_path / "w"
    with open_duckdb(str(packed)) as look:
        for table in ALL:
            if table not in (tables.TOMBSTONES, tables.FORGETTINGS):
                stored = [] if table.name.startswith("staged_") else look.rows(table)
                _write(table, _rows(table, stored), root)
    shutil.rmtree(packed)
    Warehouse(spark, str(root)).stage("uses", spark.createDataFrame([(HER,)], "identity string"))
    return Warehouse(spark, str(root))


def _named(root: Path, names: tuple[str, ...] = NAMES) -> list[str]:
    """Every file below root that has a name, in its bytes or in what its Parquet decodes to."""
    found = []
    for path in root.rglob("*"):
        if path.is_file():
            text = path.read_bytes().decode("latin-1")
            if path.suffix == ".parquet":
                text += repr(pq.read_table(path, partitioning=None).to_pylist())
            found += [
                f"{path.relative_to(root)}: {name}" for name in names if name in f"{path} {text}".lower()
            ]
    return sorted(found)


def _settings(root: Path, trail: Path | None = None) -> Settings:
    return load_settings(options={"warehouse": str(root), "trail": [str(trail)] if trail else []})[0]


def _contents(root: Path, chosen: tuple[Table, ...]) -> dict[str, Counter[str]]:
    def plain(value: Any) -> Any:
        return round(value, 9) if isinstance(value, float) else value

    with open_duckdb(str(root)) as look:
        return {
            table.name: Counter(
                repr({n: plain(v) for n, v in sorted(row.items())}) for row in look.rows(table)
            )
            for table in chosen
        }


def _asked(root: Path, query: str) -> list[dict[str, Any]]:
    with open_duckdb(str(root)) as look:
        return list(look.query(query).rows())


def _take_in(warehouse: Warehouse, trail: Path, now: datetime) -> dict[str, int]:
    settings = _settings(Path(warehouse.location), trail)
    geo = open_geo(settings.geo)
    none = {"since": None, "until": None, "recent": None}
    return ingest(warehouse, settings, geo, "again", now, **none, progress=lambda text: None).counts


@pytest.mark.long
def test_a_person_goes_from_every_file_and_does_not_come_back(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, settings = Path(warehouse.location), _settings(Path(warehouse.location))
    named = {text.split("/")[0] for text in _named(root)}
    holding = {table.name for table in ALL if any(c.holds not in (None, "neither") for c in table.columns)}
    assert named >= holding - {"tombstones", "forgettings"}
    (hers,) = _asked(root, f"SELECT count(*) AS n FROM events WHERE principal = '{HER}'")
    finding = f"SELECT max(anomaly_id) AS id FROM anomalies WHERE principal = '{HER}'"
    anomaly_id = _asked(root, finding)[0]["id"]
    heard: list[Covered] = []
    request = Request("person", "zelda")

    (receipt,) = forget(warehouse, settings, request, SECRET, "kim", lambda: NOW, tell=heard.append)

    assert _named(root) == []
    assert heard[0].identities == [HER]
    assert heard[0].names == ["zelda", "AIDAZELDA", "AKIAZELDA"]
    assert anomaly_id in heard[0].findings
    _check_receipt(receipt, root)
    _check_ledger(root, hers["n"])
    (theirs,) = _asked(root, f"SELECT * FROM events WHERE request_parameters LIKE '%{MARKER}%'")
    assert theirs["request_parameters"] == f'{{"userName":"{MARKER}"}}' and theirs["principal"] == BEN
    authors = {row["author"] for row in _asked(root, "SELECT author FROM dispositions")}
    assert authors == {f"by {MARKER}."}, "what kim said was of her incident"

    _check_rebuilt(warehouse, tmp_path / "fresh")

    monkeypatch.setenv(KEY, SECRET.decode())
    with pytest.raises(RaretrailError, match="it was forgotten at 2026-01-15"):
        replay(warehouse, settings, anomaly_id, str(tmp_path / "scratch"))
    with pytest.raises(RaretrailError, match=r"cannot be replayed: part of what run .* was forgotten at"):
        replay(warehouse, settings, "2" * 32, str(tmp_path / "scratch"))

    # The trail read again, with what it held then, and what came since.
    day = old.JUDGED
    again = [
        call("zelda", "iam:GetUser", old.AMSTERDAM, old.at(day)),
        call("zelda", "iam:GetUser", old.AMSTERDAM, old.at(day), eventTime="soon"),
        call("ben", "iam:CreateUser", old.AMSTERDAM, old.at(day), requestParameters={"userName": "zelda"}),
    ]
    old.deliver(tmp_path / "trail", day, "again", again)
    counts = _take_in(warehouse, tmp_path / "trail", NOW + timedelta(days=1))
    assert {name: counts[name] for name in ("records", "events", "quarantined", "forgotten")} == {
        "records": 3, "events": 1, "quarantined": 0, "forgotten": 2,
    }  # fmt: skip
    assert _named(root) == []


def _check_receipt(receipt: Receipt, root: Path) -> None:
    text, told = receipt_text(receipt, Screen()), to_json(receipt_json(receipt))
    assert receipt.receipt_id in text and "by kim" in text
    for shown in (text, told):
        assert not any(name in shown.lower() for name in NAMES)
    tables_told = {row["table_name"]: row for row in json.loads(told)["tables"]}
    assert all(row["files_removed"] for row in tables_told.values())
    assert tables_told["baseline_value"]["rebuilt"] and tables_told["staged_uses"]["files_removed"] > 1
    with open_duckdb(str(root)) as look:
        kept = look.rows(tables.FORGETTINGS)
        stones = look.rows(tables.TOMBSTONES)
    assert {row["table_name"] for row in kept} == set(tables_told)
    assert {row["hash"] for row in kept} < {stone["hash"] for stone in stones}
    assert {stone["kind"] for stone in stones} == {"actor", "principal", "name", "finding"}


def _check_ledger(root: Path, gone: int) -> None:
    with open_duckdb(str(root)) as look:
        ledger = look.rows(tables.INGEST_FILES)
        aside = look.rows(tables.QUARANTINE)
    assert len(aside) == 1, "of two pieces one named her"
    files = [row for row in ledger if row["status"] == "taken" and row["forgotten"]]
    assert sum(row["forgotten"] for row in files) == gone
    for row in files:
        assert row["records"] == row["events"] + row["duplicates"] + row["quarantined"] + row["forgotten"]


def _check_rebuilt(warehouse: Warehouse, fresh: Path) -> None:
    """Facts and baselines are those that the remaining events give."""
    root = Path(warehouse.location)
    for table in (EVENTS, tables.PLACES, tables.ANOMALIES, tables.INCIDENTS):
        shutil.copytree(root / table.name, fresh / table.name)
    other = Warehouse(warehouse.spark, str(fresh))
    days = {row["event_date"] for row in other.read(EVENTS).select("event_date").distinct().collect()}
    write_facts(other, days)
    (as_of,) = stored_days(warehouse, date(2000, 1, 1), date(2100, 1, 1))
    assert advance_baseline(other, open_geo(_settings(fresh).geo), as_of, set(), NOW) == "built"
    chosen = (*tables.FACTS, tables.FIRST_USES, *tables.BASELINES, tables.BASELINE_COVERAGE_HOUR)
    wanted, found = _contents(fresh, chosen), _contents(root, chosen)
    assert wanted["baseline_value"] and wanted["presence_daily"]
    assert found == wanted


# ----------------------------------------------------------------------------- an address; one account alone

HOME, OTHER, THIRD = "198.51.100.77", "203.0.113.5", "999988887777"


@pytest.fixture
def small(tmp_path: Path, spark: SparkSession) -> Warehouse:
    """Two days of two people, one of them in two accounts, as events and nothing else."""
    noon = datetime(2026, 1, 5, 12, tzinfo=UTC)
    elsewhere = {"recipientAccountId": THIRD}
    mentions = {"requestParameters": {"cidrIp": f"{HOME}/32", "userName": "mara.finn"}}
    records = [
        call("mara.finn", "iam:GetUser", HOME, noon),
        call("mara.finn", "iam:GetUser", OTHER, noon + timedelta(days=1), **elsewhere),
        call("ben", "iam:GetUser", HOME, noon),
        call("ben", "ec2:AuthorizeSecurityGroupIngress", OTHER, noon, **mentions),
        call("ben", "ec2:AuthorizeSecurityGroupIngress", OTHER, noon, **mentions, **elsewhere),
    ]
    rules = load_rules(default_conf_dir() / "principals.yml")
    batch = events_batch([decode_file("f", trail_file(records), rules=rules)])
    data = pa.Table.from_pylist(pa.Table.from_batches([batch]).to_pylist(), schema=EVENTS.arrow_schema())
    write_deltalake(str(tmp_path / "w" / "events"), data, partition_by=["event_date"])
    return Warehouse(spark, str(tmp_path / "w"))


def _seen(warehouse: Warehouse) -> Iterator[tuple[str, str, str, str]]:
    with open_duckdb(warehouse.location) as look:
        for row in look.rows(EVENTS, order=(("source_position", "asc"),)):
            name = row["user_identity_user_name"]
            yield name, row["source_ip_address"], row["recipient_account_id"], row["request_parameters"]


@pytest.mark.slow
def test_an_address_goes_whoever_used_it(small: Warehouse) -> None:
    root = Path(small.location)
    settings = _settings(root)
    (dry,) = forget(small, settings, Request("address", HOME), None, "kim")
    assert (
        dry.dry and [row["rows_removed"] for row in dry.rows] == [2] and not small.exists(tables.TOMBSTONES)
    )
    (receipt,) = forget(small, settings, Request("address", HOME), SECRET, "kim", lambda: NOW)
    assert _named(root, (HOME,)) == []
    assert [(name, address) for name, address, *_ in _seen(small)] == [
        ("mara.finn", OTHER),
        ("ben", OTHER),
        ("ben", OTHER),
    ]
    assert all(f'"cidrIp":"{MARKER}/32"' in text for name, *_, text in _seen(small) if name == "ben")
    assert next(row for row in receipt.rows if row["table_name"] == "events")["rows_rewritten"] == 2
    with pytest.raises(UsageError, match="no address"):
        forget(small, settings, Request("address", "here"), None, "kim")


@pytest.mark.slow
def test_in_one_account_alone_and_killed_halfway(small: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other account's rows stay as they are; what was begun is finished by the next run."""
    settings, heard = _settings(Path(small.location)), list[Covered]()
    request = Request("person", "Mara.Finn", account="111122223333")
    with monkeypatch.context() as patched:
        patched.setattr(stage, "rebuild_baseline", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            forget(small, settings, request, SECRET, "kim", lambda: NOW)
    forget(small, settings, request, SECRET, "kim", lambda: NOW, tell=heard.append)
    assert (heard[0].subject, len(heard)) == ("mara.finn", 1)
    assert not (Path(small.location) / "staged_forgetting").exists()
    seen = list(_seen(small))
    assert [(name, account) for name, _, account, _ in seen if name != "ben"] == [("mara.finn", THIRD)]
    words = {account: text for name, address, account, text in seen if (name, address) == ("ben", OTHER)}
    assert "mara.finn" in words[THIRD] and MARKER in words["111122223333"]
    assert any("mara.finn" in line and "111122223333" in line for line in covered_lines(heard[0]))


def test_nobody_is_forgotten_by_mistake(small: Warehouse, tmp_path: Path) -> None:
    settings = _settings(Path(small.location))

    def refused(said: str, why: str) -> None:
        with pytest.raises(UsageError, match=why):
            forget(small, settings, Request("person", said), SECRET, "kim")

    refused("mara", "nobody|anybody so called")
    with Warehouse(small.spark, small.location).held(), pytest.raises(BusyError):
        forget(small, settings, Request("person", "ben"), SECRET, "kim")
    assert not small.exists(tables.TOMBSTONES)

    assert key_of(small.directory, {}) is None
    key_file = tmp_path / "key"
    key_file.write_bytes(SECRET + b"\n")
    assert key_of(small.directory, {KEY_FILE: str(key_file)}) == SECRET
    inside = Path(small.location) / "key"
    for environment, why in (
        ({KEY: "short"}, "16 bytes"),
        ({KEY_FILE: str(inside)}, "in the warehouse"),
        ({KEY_FILE: "/none"}, "cannot be read"),
    ):
        with pytest.raises(UsageError, match=why):
            key_of(small.directory, environment)
    assert read_forgotten(small, {}) is None, "no key is asked for where nobody was forgotten"


def test_without_the_key_nothing_is_read_again(small: Warehouse) -> None:
    row = dict.fromkeys(tables.TOMBSTONES.column_names, "x") | {"forgotten_at": NOW}
    small.append(tables.TOMBSTONES, small.spark.createDataFrame([row], tables.TOMBSTONES.spark_schema()))
    with pytest.raises(UsageError, match=f"set {KEY} or {KEY_FILE}"):
        read_forgotten(small, {})
    with pytest.raises(UsageError, match="tombstones are of key x"):
        read_forgotten(small, {KEY: SECRET.decode()})
