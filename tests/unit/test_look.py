"""Looking into a directory: tables under their names, by filters and by SQL, without Spark."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from raretrail.errors import RaretrailError, UsageError
from raretrail.look import Condition, engine_for, open_duckdb
from raretrail.tables import ANOMALIES, EVENTS, INCIDENTS, RUNS

FIRST = datetime(2026, 2, 1, 12, tzinfo=UTC)
DAYS = 30


def _events() -> pa.Table:
    rows: list[dict[str, Any]] = []
    for day in range(DAYS):
        for n in range(20):
            at = FIRST + timedelta(days=day, minutes=n)
            rows.append({"event_time": at, "event_date": at.date(), "event_id": f"e{day}-{n}"})
    return pa.Table.from_pylist(rows, schema=EVENTS.arrow_schema())


def _incidents() -> pa.Table:
    first, second = date(2026, 2, 1), date(2026, 2, 2)
    rows = [
        {"incident_id": "aa01", "first_date": first, "principal": "user/Ana", "score": 40.0, "bits": 1.0},
        {"incident_id": "aa02", "first_date": first, "principal": "user/bo", "score": 90.0, "bits": 2.0},
        {"incident_id": "bb03", "first_date": second, "principal": "role/ana", "score": 90.0, "bits": 3.0},
    ]
    return pa.Table.from_pylist(rows, schema=INCIDENTS.arrow_schema())


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("warehouse")
    write_deltalake(str(root / "events"), _events(), partition_by=["event_date"])
    write_deltalake(str(root / "incidents"), _incidents(), partition_by=["first_date"])
    empty = pa.Table.from_pylist([], schema=pa.schema([("counts", pa.map_(pa.string(), pa.int64()))]))
    write_deltalake(str(root / "staged_uses"), empty)
    counts = pa.Table.from_pylist([{"run_id": "r", "counts": [("events", 3)]}], schema=RUNS.arrow_schema())
    write_deltalake(str(root / "runs"), counts)
    (root / "_raretrail.lock").touch()
    # A path that a URI or a file pattern would read otherwise; delta-rs cannot write to it.
    return root.rename(root.parent / "my [ware] house")


def test_rows_are_filtered_ordered_and_paged(warehouse: Path) -> None:
    with open_duckdb(str(warehouse)) as look:
        ordered = look.rows(INCIDENTS, order=(("score", "desc"), ("bits", "desc")), limit=2)
        assert [row["incident_id"] for row in ordered] == ["bb03", "aa02"]
        third = look.rows(INCIDENTS, order=(("score", "desc"), ("bits", "desc")), limit=2, offset=2)
        assert [row["incident_id"] for row in third] == ["aa01"]

        def ids(*conditions: Condition) -> list[str]:
            found = look.rows(INCIDENTS, *conditions, order=(("incident_id", "asc"),))
            assert look.count(INCIDENTS, *conditions) == len(found)
            return [row["incident_id"] for row in found]

        assert ids(Condition("incident_id", "starts", "aa")) == ["aa01", "aa02"]
        assert ids(Condition("principal", "has", "ANA")) == ["aa01", "bb03"]
        assert ids(Condition("score", ">=", 50.0), Condition("bits", "<", 3.0)) == ["aa02"]
        assert ids(Condition("incident_id", "in", ["bb03", "zz"])) == ["bb03"]
        assert ids(Condition("first_date", "<=", date(2026, 2, 1))) == ["aa01", "aa02"]


def test_a_column_declared_since_the_table_was_made_is_null(warehouse: Path, tmp_path: Path) -> None:
    data = pa.table({"incident_id": ["aa01", "aa02"], "verdict": ["benign", None]})
    write_deltalake(str(tmp_path / "incidents"), data)
    with open_duckdb(str(tmp_path)) as look:
        assert [set(row) for row in look.rows(INCIDENTS, limit=1)] == [set(INCIDENTS.column_names)]
        (row,) = look.rows(INCIDENTS, Condition("verdict", "null", False))
        assert (row["incident_id"], row["evidence_event_ids"], row["first_time"]) == ("aa01", None, None)
        assert look.count(INCIDENTS, Condition("verdict", "null", True)) == 1


def test_a_value_is_no_sql(warehouse: Path) -> None:
    with open_duckdb(str(warehouse)) as look:
        assert look.rows(INCIDENTS, Condition("principal", "has", "' OR 1=1 --")) == []


def test_columns_come_as_the_table_declares_them(warehouse: Path) -> None:
    with open_duckdb(str(warehouse)) as look:
        (row,) = look.rows(EVENTS, Condition("event_id", "in", ["e3-4"]))
        assert list(row) == EVENTS.column_names
        assert row["event_time"] == FIRST + timedelta(days=3, minutes=4)
        assert row["event_date"] == date(2026, 2, 4)
        assert look.rows(RUNS)[0]["counts"] == {"events": 3}


def test_a_query_sees_every_table_and_those_still_to_come(warehouse: Path) -> None:
    with open_duckdb(str(warehouse)) as look:
        result = look.query("select event_date, count(*) n from events group by 1 order by 1 limit 2")
        assert result.columns == ("event_date", "n")
        assert list(result.rows()) == [
            {"event_date": date(2026, 2, 1), "n": 20},
            {"event_date": date(2026, 2, 2), "n": 20},
        ]
        assert list(look.query("select count(*) n from staged_uses").rows()) == [{"n": 0}]
        assert list(look.query("select count(*) n from anomalies").rows()) == [{"n": 0}]
        assert look.rows(ANOMALIES) == []


def test_a_table_that_is_not_asked_for_is_not_looked_at(warehouse: Path, tmp_path: Path) -> None:
    shutil.copytree(warehouse, tmp_path / "warehouse")
    (log,) = (tmp_path / "warehouse/incidents/_delta_log").glob("*.json")
    log.write_text("no log")
    with open_duckdb(str(tmp_path / "warehouse")) as look:
        assert list(look.query("select count(*) n from events").rows()) == [{"n": DAYS * 20}]
        with pytest.raises(RaretrailError, match="incidents: delta-rs cannot read it"):
            look.query("select * from incidents")


def test_who_asks_which_tables_there_are_is_told_all(warehouse: Path) -> None:
    with open_duckdb(str(warehouse)) as look:
        shown = {row["name"] for row in look.query("show tables").rows()}
        found = "select table_name from information_schema.tables"
        assert shown == {row["table_name"] for row in look.query(found).rows()}
    assert {"events", "incidents", "runs", "anomalies", "staged_uses", "open_incidents"} <= shown


def test_hours_are_utc_wherever_it_runs(warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    with open_duckdb(str(warehouse)) as look:
        query = "select hour(event_time) h from events where event_id = 'e0-0'"
        assert list(look.query(query).rows()) == [{"h": 12}]


def test_times_that_spark_wrote_without_their_zone_have_it(tmp_path: Path) -> None:
    table = _events().select(["event_id", "event_time"])
    write_deltalake(str(tmp_path / "events"), table)
    (file,) = (tmp_path / "events").glob("*.parquet")
    pq.write_table(table, file, use_deprecated_int96_timestamps=True)
    with open_duckdb(str(tmp_path)) as look:
        found = [row["event_time"] for row in look.rows(EVENTS)]
    assert sorted(found) == table["event_time"].to_pylist()


def test_a_wrong_query_is_the_users(warehouse: Path) -> None:
    with open_duckdb(str(warehouse)) as look:
        for sql in ("selec 1", "select nosuch from events", "select * from secret"):
            with pytest.raises(UsageError, match="the query failed in DuckDB"):
                look.query(sql)


def test_variables_of_the_program_are_no_tables(warehouse: Path) -> None:
    secret = pa.table({"a": [1]})
    assert secret.num_rows
    with open_duckdb(str(warehouse)) as look, pytest.raises(UsageError, match="secret"):
        look.query("select * from secret")


def test_no_warehouse(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there"), open_duckdb(str(tmp_path / "none")):
        pass
    with pytest.raises(UsageError, match="holds no tables"), open_duckdb(str(tmp_path)):
        pass


def test_which_engine_reads_which_warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_for(str(tmp_path)) == "duckdb"
    assert engine_for("relative/folder") == "duckdb"
    assert engine_for(str(tmp_path), "spark") == "spark"
    assert engine_for("s3a://bucket/w") == engine_for("s3://bucket/w") == "duckdb"
    assert engine_for("abfss://w@account/w") == engine_for("main.security") == "spark"
    with pytest.raises(UsageError, match="directories of this machine and S3 only"):
        engine_for("abfss://w@account/w", "duckdb")
    monkeypatch.setattr("raretrail.s3.find_spec", lambda name: None)
    assert engine_for("s3a://bucket/w") == "spark"
    with pytest.raises(UsageError, match="pip install"):
        engine_for("s3a://bucket/w", "duckdb")


def test_a_look_that_stops_early_ends_its_process(warehouse: Path) -> None:
    # Scanned as an Arrow dataset, two of three such processes hung or crashed as they ended.
    command = [sys.executable, "-m", "raretrail", "sql", "select * from events limit 1", "--format", "csv"]
    for _ in range(3):
        done = subprocess.run(
            [*command, "--warehouse", str(warehouse)], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert len(done.stdout.splitlines()) == 2
