"""Files of events written by the workers themselves: the same tables as by Spark's writer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from factories import call, trail_file
from raretrail.settings import GeoSettings, load_settings
from raretrail.stages.ingest import Ingested, ingest
from raretrail.stages.locating import open_geo
from raretrail.tables import (
    EVENTS,
    INGEST_FILES,
    PLACES,
    QUARANTINE,
    RUNS,
    STAGED_CENSUS,
    Table,
)
from raretrail.warehouse import Warehouse

ACCOUNT = "111122223333"
FIRST = date(2026, 1, 1)
NOW = datetime(2026, 2, 1, tzinfo=UTC)
WAYS: dict[str, dict[str, Any]] = {
    "by Spark": {"direct": False},
    "in the driver": {},
    "in workers": {"driver_bytes": 0, "task_bytes": 1500},
}
_OF_RUNNING = ("run_id", "ingested_at", "located_at")


def _event(number: int, day: int, event_id: str | None = None) -> dict[str, Any]:
    at = datetime(FIRST.year, FIRST.month, FIRST.day, 12, tzinfo=UTC) + timedelta(days=day, seconds=number)
    address = f"87.210.98.{number % 200}" if number % 5 else "ec2.amazonaws.com"
    more = {"eventID": event_id} if event_id else {}
    return call(f"user{number % 3}", "iam:GetUser", address, at, **more)


def _deliver(trail: Path, day: int, name: str, content: bytes) -> None:
    folder = trail / f"AWSLogs/{ACCOUNT}/CloudTrail/eu-west-1/{FIRST + timedelta(days=day):%Y/%m/%d}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json.gz").write_bytes(content)


def _first_delivery(trail: Path) -> None:
    days = [[_event(number, day, f"id-{day}-{number}") for number in range(8)] for day in range(4)]
    _deliver(trail, 0, "a", trail_file(days[0]))
    # Copies: in one file, in two of a day, weeks apart.
    _deliver(trail, 1, "a", trail_file([*days[1], days[1][2]]))
    _deliver(trail, 1, "b", trail_file([days[1][0], days[1][5], _event(50, 1, "id-late")]))
    _deliver(trail, 3, "b", trail_file([*days[3], days[0][3], days[1][0]]))
    # An id for two contents, whichever of them has the smaller hash: within a day and across days.
    for at, day in enumerate((2, 3)):
        _deliver(trail, 2, f"c{at}", trail_file([_event(60 + n, 2, f"reused-{at}-{n}") for n in range(6)]))
        _deliver(
            trail, day, f"d{at}", trail_file([_event(70 + n, day, f"reused-{at}-{n}") for n in range(6)])
        )
    _deliver(trail, 2, "damaged", trail_file(days[2])[:-20])
    _deliver(trail, 2, "none", trail_file([]))
    _deliver(trail, 2, "other", b'{"what": "is this"}')
    # Events of many days in one file, one of them without an address.
    mixed = [_event(n, -n % 3, f"id-z-{n}") | {"sourceIPAddress": None} for n in range(12)]
    _deliver(trail, 3, "z", trail_file(mixed))


def _second_delivery(trail: Path) -> None:
    taken = [_event(number, 0, f"id-0-{number}") for number in range(3)]
    _deliver(trail, 3, "later", trail_file([*taken, _event(80, 3, "new")]))
    # Of ids that are stored, other contents: some of them take the place of what is stored.
    _deliver(trail, 3, "reused", trail_file([_event(90 + n, 3, f"id-3-{n}") for n in range(8)]))


def _take(spark: SparkSession, trail: Path, where: Path, options: Mapping[str, Any]) -> Ingested:
    tree = {"trail": [str(trail)], "warehouse": str(where), "ingest": dict(options)}
    settings, _ = load_settings(options=tree)
    warehouse, geo = Warehouse(spark, str(where)), open_geo(GeoSettings())
    whenever: dict[str, Any] = {"since": None, "until": None, "recent": None}
    return ingest(warehouse, settings, geo, "run", NOW, **whenever, progress=lambda text: None)


def _contents(spark: SparkSession, where: Path, but: tuple[str, ...] = ()) -> dict[str, list[str]]:
    warehouse = Warehouse(spark, str(where))

    def rows(table: Table) -> DataFrame:
        return warehouse.read(table).drop(*_OF_RUNNING, *but)

    tables = (EVENTS, QUARANTINE, INGEST_FILES, PLACES)
    return {table.name: sorted(map(repr, rows(table).collect())) for table in tables}


@pytest.fixture(scope="module", autouse=True)
def _no_facts() -> Iterator[None]:
    """Facts are made of events, in whatever way those came."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raretrail.stages.ingest.write_facts", lambda *_, **__: None)
        yield


@pytest.fixture(scope="module")
def taken(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Both deliveries taken in, one after the other, in each of the ways."""
    root = tmp_path_factory.mktemp("direct")
    trail = root / "trail"
    for deliver in (_first_delivery, _second_delivery):
        deliver(trail)
        for way, options in WAYS.items():
            _take(spark, trail, root / way, options)
    return {way: root / way for way in WAYS}


@pytest.mark.slow
@pytest.mark.parametrize("way", list(WAYS)[1:])
def test_every_way_gives_the_same_tables(spark: SparkSession, taken: Mapping[str, Path], way: str) -> None:
    wanted, found = (_contents(spark, taken[name]) for name in ("by Spark", way))
    for name, rows in wanted.items():
        assert found[name] == rows, name
    reused = [row for row in wanted["quarantine"] if "id_reused" in row]
    assert len(wanted["events"]) == 57 and len(reused) == 20


@pytest.mark.slow
def test_the_log_tells_what_the_files_hold(taken: Mapping[str, Path]) -> None:
    """Rows, bounds and missing values, as Delta itself would have written them."""
    where = taken["in workers"] / "events"
    import duckdb

    actions = pa.table(DeltaTable(str(where)).get_add_actions(flatten=True)).to_pylist()
    assert actions
    for action in actions:
        (row,) = duckdb.sql(
            f"SELECT count(*), min(event_time), max(event_time), min(principal), max(principal), "
            f"count(*) - count(source_ip_address) FROM '{where}/{action['path']}'"
        ).fetchall()
        assert row[0] == action["num_records"] and row[5] == action["null_count.source_ip_address"]
        assert (
            action["min.event_time"].replace(tzinfo=UTC)
            <= row[1]
            <= action["max.event_time"].replace(tzinfo=UTC)
        )
        assert action["min.principal"] <= row[3] and row[4] <= action["max.principal"]
    assert not (taken["in workers"] / "_parts").exists()


def test_a_table_made_here_is_the_one_that_spark_makes(spark: SparkSession, tmp_path: Path) -> None:
    told = []
    for name in ("here", "spark"):
        warehouse = Warehouse(spark, str(tmp_path / name))
        warehouse.takes_files = name == "here"
        for table in (RUNS, EVENTS, STAGED_CENSUS):
            warehouse.create(table)
            made = DeltaTable(f"{warehouse.location}/{table.name}")
            about, schema, protocol = made.metadata(), made.schema().to_json(), made.protocol()
            versions = (protocol.min_reader_version, protocol.min_writer_version)
            told.append((about.description, about.partition_columns, about.configuration, schema, versions))
    assert told[:3] == told[3:]


@pytest.mark.slow
@pytest.mark.parametrize("broken", [EVENTS, INGEST_FILES], ids=lambda table: str(table.name))
def test_killed_before_or_after_the_commit_it_comes_to_the_same(
    spark: SparkSession,
    taken: Mapping[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: Table,
) -> None:
    trail = tmp_path / "trail"
    _first_delivery(trail)

    class Killed(BaseException):
        pass

    def kill(how: str) -> None:
        whole = getattr(Warehouse, how)

        def killed(self: Warehouse, table: Table, rows: Any, **more: Any) -> None:
            if table is broken:
                raise Killed
            whole(self, table, rows, **more)

        monkeypatch.setattr(Warehouse, how, killed)

    kill("add_files" if broken is EVENTS else "merge")
    with pytest.raises(Killed):
        _take(spark, trail, tmp_path / "w", WAYS["in workers"])
    monkeypatch.undo()
    _take(spark, trail, tmp_path / "w", WAYS["in workers"])
    _second_delivery(trail)
    _take(spark, trail, tmp_path / "w", WAYS["in workers"])
    # Of another trail: its files are of another moment, and what tells of their paths has other lengths.
    other = ("modified_at", "raw_bytes")
    wanted, found = (_contents(spark, where, other) for where in (taken["in workers"], tmp_path / "w"))
    for name, rows in wanted.items():
        there = sorted(_in(row, tmp_path) for row in found[name])
        assert there == sorted(_in(row, taken["in workers"].parent) for row in rows), name


def _in(row: str, root: Path) -> str:
    """A row as if its trail lay nowhere in particular."""
    return row.replace(str(root), "")
