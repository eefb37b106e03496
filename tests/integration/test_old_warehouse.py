"""A warehouse an earlier version left opens under this one, and one of a later version is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

import old_warehouse as old
from raretrail import cli, tables
from raretrail.errors import EXIT_DONE, EXIT_USAGE
from raretrail.look import open_duckdb
from raretrail.settings import load_settings
from raretrail.stages.run import Ended, run

pytestmark = pytest.mark.integration
NEXT = old.JUDGED + timedelta(days=1)
# Columns a later program has and this warehouse is made to lack; their tables are not partitioned by them.
LACKING = {
    tables.INCIDENTS: ("home_bits", "suppressed_by"),
    tables.ANOMALIES: ("known_network", "elastic_probability"),
    tables.PRESENCE_DAILY: ("hours",),
    tables.RUNS: ("late_buckets",),
}

assert old.ARCHIVES, "no archive under tests/fixtures"


@pytest.fixture(params=old.ARCHIVES, ids=lambda path: path.name)
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A warehouse as it was packed, one of each version there is."""
    return old.unpack(request.param, tmp_path / "w")


def _run(spark: SparkSession, warehouse: Path, trail: Path) -> Ended:
    """A scheduled run of the night after next, whose trail lies elsewhere: a working day, a second stolen
    key."""
    old.deliver(trail, NEXT, "a", [*old.workday(NEXT), *old.theft(NEXT, "carla")])
    settings, _ = load_settings(options={"trail": [str(trail)], "warehouse": str(warehouse)})
    now = old.at(NEXT + timedelta(days=1), 1)
    return run(spark, settings, as_of=now, clock=lambda: now)


def _rows(warehouse: Path) -> dict[str, Counter[str]]:
    """By table, its rows by their key; baselines, which every day replaces, left out."""
    with open_duckdb(str(warehouse)) as look:
        return {
            table.name: Counter(repr([row[name] for name in table.key]) for row in look.rows(table))
            for table in tables.ALL
            if not table.name.startswith(("staged_", "baseline_", "first_uses"))
        }


def _without(warehouse: Path, table: tables.Table, columns: tuple[str, ...]) -> None:
    """Write a table anew as a program would that does not know these columns."""
    path = warehouse / table.name
    data = pa.table(DeltaTable(str(path)).to_pyarrow_table()).drop_columns(list(columns))
    shutil.rmtree(path)
    write_deltalake(str(path), data, partition_by=list(table.partition_by) or None)


def _set_version(warehouse: Path, version: str) -> None:
    runs = DeltaTable(str(warehouse / tables.RUNS.name))
    runs.alter.set_table_properties({tables.VERSION_PROPERTY: version}, raise_if_not_exists=False)


def _told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(arguments) == EXIT_DONE
    return capsys.readouterr().out


def test_it_is_looked_into_before_any_run_has_touched_it(
    warehouse: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {path: path.stat().st_mtime_ns for path in warehouse.rglob("*")}
    place = ("--warehouse", str(warehouse))
    listed = _told(capsys, "incidents", *place)
    assert "ana" in listed and "Bilbao" in listed
    ids = [json.loads(line) for line in _told(capsys, "incidents", *place, "--format", "json").splitlines()]
    shown = json.loads(_told(capsys, "show", ids[0]["incident_id"], *place, "--format", "json"))
    assert {event["user_identity_user_name"] for event in shown["events"]} == {"ana"}
    assert [one["verdict"] for one in shown["dispositions"]] == ["malicious"]
    counted = "select count(*) n from events union all select count(*) from quarantine"
    assert _told(capsys, "sql", counted, *place, "--format", "csv").split() == ["n", "119", "1"]
    assert {path: path.stat().st_mtime_ns for path in warehouse.rglob("*")} == files


def test_every_table_and_view_reads_as_declared(warehouse: Path) -> None:
    from raretrail.views import views

    with open_duckdb(str(warehouse)) as look:
        for table in tables.ALL:
            if not table.name.startswith("staged_"):
                for row in look.rows(table, limit=1):
                    assert set(row) == set(table.column_names), table.name
        for view in views(load_settings()[0].detectors):
            look.count(view)


def test_columns_declared_since_read_as_null_and_a_missing_table_as_empty(warehouse: Path) -> None:
    for table, columns in LACKING.items():
        _without(warehouse, table, columns)
    shutil.rmtree(warehouse / tables.CALIBRATIONS.name)
    with open_duckdb(str(warehouse)) as look:
        for table, columns in LACKING.items():
            rows = look.rows(table)
            assert rows and all(row[name] is None for row in rows for name in columns), table.name
        assert look.rows(tables.CALIBRATIONS) == []


@pytest.mark.slow
@pytest.mark.parametrize("lacking", [{}, LACKING], ids=["as packed", "with less columns"])
def test_a_run_goes_on_where_the_earlier_version_left_it(
    spark: SparkSession, warehouse: Path, tmp_path: Path, lacking: dict[tables.Table, tuple[str, ...]]
) -> None:
    for table, columns in lacking.items():
        _without(warehouse, table, columns)
    before = _rows(warehouse)
    ended = _run(spark, warehouse, tmp_path / "trail")
    assert ended.exit_code == EXIT_DONE, ended.messages
    after = _rows(warehouse)
    for name, rows in before.items():
        assert not rows - after[name], f"{name} lost rows"
    assert after["events"].total() == before["events"].total() + 11
    # The snapshot of version 1 was made before areas were counted.
    assert ended.record["counts"]["baseline_built"] == 1
    with open_duckdb(str(warehouse)) as look:
        newest = look.rows(tables.INCIDENTS, order=(("first_time", "desc"),), limit=1)
        assert newest[0]["principal"].endswith("user/carla")
        for table, columns in lacking.items():
            (day,) = table.partition_by or ("started_at",)
            first: Any = look.rows(table, order=((day, "asc"),), limit=1)[0]
            assert first[columns[0]] is None, f"{table.name}.{columns[0]}"
        found = look.rows(tables.INCIDENTS, columns=["home_bits"], order=(("first_time", "desc"),), limit=1)
        assert found[0]["home_bits"] is not None
    for table in lacking:
        there = {field.name for field in DeltaTable(str(warehouse / table.name)).schema().fields}
        assert there == set(table.column_names), table.name


def test_a_later_warehouse_is_refused_by_what_looks(
    warehouse: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in (str(tables.SCHEMA_VERSION + 1), "two"):
        _set_version(warehouse, version)
        for command in (["incidents"], ["show", "a"], ["sql", "select 1"], ["export"], ["report"]):
            assert cli.main([*command, "--warehouse", str(warehouse)]) == EXIT_USAGE
            (line,) = capsys.readouterr().err.splitlines()
            assert f"was written by a later raretrail (tables of version {version}" in line
    _set_version(warehouse, str(tables.SCHEMA_VERSION))
    assert cli.main(["incidents", "--warehouse", str(warehouse)]) == EXIT_DONE


@pytest.mark.slow
def test_a_later_warehouse_is_refused_by_a_run_and_left_alone(warehouse: Path, tmp_path: Path) -> None:
    _set_version(warehouse, str(tables.SCHEMA_VERSION + 1))
    files = {path for path in warehouse.rglob("*") if path.name != "_raretrail.lock"}
    old.deliver(tmp_path / "trail", NEXT, "a", old.workday(NEXT))
    command = ["run", "--trail", str(tmp_path / "trail"), "--warehouse", str(warehouse), "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "raretrail", *command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == EXIT_USAGE, done.stderr
    assert done.stdout == ""
    said = [line for line in done.stderr.splitlines() if line.startswith("raretrail:")]
    assert len(said) == 1 and re.search("was written by a later raretrail", said[0])
    assert {path for path in warehouse.rglob("*") if path.name != "_raretrail.lock"} == files
