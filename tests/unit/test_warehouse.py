"""The warehouse carries the version of its tables' layout, and few rows into plans rather than files."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from raretrail import tables
from raretrail.errors import UsageError
from raretrail.look import tables_in
from raretrail.stages.score import Window
from raretrail.warehouse import Warehouse, copied, on_days, rows_of, with_all_columns

pytestmark = pytest.mark.integration


def test_a_warehouse_of_a_later_version_is_refused_and_an_earlier_one_is_not(
    spark: SparkSession, tmp_path: Path
) -> None:
    warehouse = Warehouse(spark, str(tmp_path / "w"))
    warehouse.require_known_version()
    warehouse.create(tables.RUNS)
    warehouse.require_known_version()
    name = warehouse.name(tables.RUNS)
    spark.sql(
        f"ALTER TABLE {name} SET TBLPROPERTIES ('{tables.VERSION_PROPERTY}' = '{tables.SCHEMA_VERSION + 1}')"
    )
    with pytest.raises(UsageError, match="later raretrail"):
        warehouse.require_known_version()
    spark.sql(f"ALTER TABLE {name} UNSET TBLPROPERTIES ('{tables.VERSION_PROPERTY}')")
    warehouse.require_known_version()


@pytest.mark.parametrize("table", [tables.RUNS, tables.INCIDENTS], ids=lambda table: str(table.name))
def test_a_table_that_whoever_died_had_begun_is_made_anew(
    spark: SparkSession, tmp_path: Path, table: tables.Table
) -> None:
    """A full disk leaves the folder of a log, and what was to become its first commit."""
    log = tmp_path / table.name / "_delta_log"
    log.mkdir(parents=True)
    (log / "_commit_8e5c.json.tmp").write_text('{"protocol":')
    (log / ".00000000000000000000.json.1f.tmp").touch()
    warehouse = Warehouse(spark, str(tmp_path))
    assert not warehouse.exists(table) and not tables_in(tmp_path)
    assert warehouse.version(table) is None
    assert warehouse.read(table).count() == 0
    warehouse.require_known_version()
    warehouse.create(table)
    assert warehouse.exists(table) and tables_in(tmp_path) == [table.name]
    assert spark.read.table(warehouse.name(table)).count() == 0


def test_few_rows_are_carried_as_they_are_and_many_are_written(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raretrail.warehouse._FEW", 2)
    warehouse = Warehouse(spark, str(tmp_path))
    at = datetime(2026, 3, 29, 1, 30, 0, 123456, UTC)
    rows = spark.range(2).select(
        "id",
        F.struct(F.lit(at).alias("at"), F.lit(None).cast("double").alias("bits")).alias("was"),
        F.array(F.lit("é"), F.lit(None)).alias("names"),
    )
    few = warehouse.stage("few", rows, few=True)
    assert few.schema.simpleString() == rows.schema.simpleString()
    assert rows_of(few) == rows_of(rows)
    none = warehouse.stage("none", rows.limit(0), few=True)
    assert (none.columns, none.count()) == (rows.columns, 0)
    assert rows_of(warehouse.carried(rows)) == rows_of(rows)
    many = spark.range(3)
    assert warehouse.carried(many) is many
    for number in range(3):
        empty = spark.range(number).select("id", F.array().cast("array<string>").alias("names"))
        assert rows_of(warehouse.carried(empty)) == [{"id": n, "names": []} for n in range(number)]
    assert not list(tmp_path.iterdir())
    assert warehouse.stage("many", spark.range(3), few=True).count() == 3
    assert [path.name for path in tmp_path.iterdir()] == ["staged_many"]
    monkeypatch.setattr("raretrail.warehouse._FEW_BYTES", 15)
    large = spark.range(2)
    assert warehouse.carried(large) is large
    assert warehouse.carried(spark.range(1)).count() == 1


_DAYS = [date(2026, 3, 28), date(2026, 3, 29)]
_HOUR = Window(datetime(2026, 3, 29, 10, tzinfo=UTC), datetime(2026, 3, 29, 12, tzinfo=UTC))


def _findings(spark: SparkSession, *rows: tuple[str, int, int, str | None]) -> DataFrame:
    """Of findings the columns that tell how they are written: (id, day, hour, former incident)."""
    made = [
        {
            **dict.fromkeys(tables.ANOMALIES.column_names),
            "anomaly_id": name,
            "bucket_date": _DAYS[day],
            "bucket_start": datetime.combine(_DAYS[day], time(hour, 59, 59, 999999), UTC),
            "former_incident_ids": None if former is None else [former, None],
            "summary": f"é of {name}",
        }
        for name, day, hour, former in rows
    ]
    return spark.createDataFrame(made, tables.ANOMALIES.spark_schema())


def _written(spark: SparkSession, root: Path, *, few: bool) -> list[list[dict[str, Any]]]:
    """The rows after each of all ways to write."""
    warehouse = Warehouse(spark, str(root))
    table = tables.ANOMALIES
    states = []

    def note() -> None:
        states.append(rows_of(warehouse.read(table).orderBy("anomaly_id")))

    def merge(*rows: tuple[str, int, int, str | None], **how: Any) -> None:
        warehouse.merge(table, _findings(spark, *rows), few=few, **how)
        note()

    first = [("a", 0, 9, None), ("b", 1, 9, "x"), ("c", 1, 10, None), ("d", 1, 11, "y"), ("e", 1, 12, None)]
    warehouse.append(table, _findings(spark, *first), few=few)
    warehouse.append(table, _findings(spark), few=few)
    note()
    later = f"t.bucket_date >= DATE'{_DAYS[1]}'"
    # What it has no row for goes, where it lies in the hours judged.
    merge(("b", 1, 8, None), ("c", 1, 11, "z"), ("f", 1, 10, None), only=later,
          delete_missing=_HOUR.holds("t.bucket_start"))  # fmt: skip
    merge(("e", 0, 1, "w"), ("g", 0, 2, "v"), update=["former_incident_ids"])
    merge(("e", 0, 3, "u"), ("h", 0, 2, None), update=[])
    merge(("a", 0, 4, "t"), ("e", 1, 5, "s"), when="t.bucket_start < s.bucket_start")
    merge()
    merge(only=later, delete_missing=_HOUR.holds("t.bucket_start"))
    warehouse.replace(table, _findings(spark, ("i", 1, 1, None)), on_days("bucket_date", _DAYS[1:]), few=few)
    note()
    warehouse.replace(table, _findings(spark), on_days("bucket_date", _DAYS[:1]), few=few)
    note()
    warehouse.replace(table, _findings(spark, ("j", 0, 0, "é"), ("k", 1, 0, None)), few=few)
    note()
    warehouse.replace(table, _findings(spark), few=few)
    note()
    return states


def test_few_rows_are_committed_from_here_as_spark_would_write_them(
    spark: SparkSession, tmp_path: Path
) -> None:
    by_spark = _written(spark, tmp_path / "spark", few=False)
    assert [len(state) for state in by_spark] == [5, 5, 6, 7, 7, 7, 5, 4, 1, 2, 0]
    assert _written(spark, tmp_path / "here", few=True) == by_spark
    engines = {
        name: {entry.get("engineInfo", "").partition("/")[0].partition(":")[0] for entry in history}
        for name in ("spark", "here")
        if (history := DeltaTable(str(tmp_path / name / "anomalies")).history())
    }
    assert engines == {"spark": {"delta-rs", "Apache-Spark"}, "here": {"delta-rs"}}  # the table is made here


def test_days_have_few_rows_up_to_a_number(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = Warehouse(spark, str(tmp_path))
    assert not warehouse.has_few(tables.ANOMALIES, _DAYS)
    rows = [("a", 0, 9, None), ("b", 1, 9, None), ("c", 1, 9, None)]
    warehouse.append(tables.ANOMALIES, _findings(spark, *rows), few=True)
    for most, days in ((0, []), (1, _DAYS[:1]), (2, _DAYS[1:]), (3, _DAYS)):
        monkeypatch.setattr("raretrail.warehouse._FEW_WRITTEN", most)
        assert warehouse.has_few(tables.ANOMALIES, days)
        monkeypatch.setattr("raretrail.warehouse._FEW_WRITTEN", most - 1)
        assert not warehouse.has_few(tables.ANOMALIES, days)


def test_lists_that_are_empty_in_all_rows_are_committed_from_here(
    spark: SparkSession, tmp_path: Path
) -> None:
    warehouse = Warehouse(spark, str(tmp_path))
    table = tables.INCIDENTS
    rows = [
        {**dict.fromkeys(table.column_names), "incident_id": f"{n}", "first_date": _DAYS[0], "commands": []}
        for n in range(2)
    ]
    for number in (1, 2):
        frame = spark.createDataFrame(rows[:number], table.spark_schema())
        warehouse.merge(table, frame, only=f"t.first_date >= DATE'{_DAYS[0]}'", few=True)
    assert rows_of(warehouse.read(table).orderBy("incident_id")) == rows


def test_offsets_that_java_has_not_set_are_set_in_a_copy() -> None:
    """As toArrow may give them: of no text there is one offset, and nothing says that it is nought."""
    unset = pa.py_buffer(struct.pack("<i", -189153672))
    texts = pa.Array.from_buffers(pa.string(), 0, [None, unset, pa.py_buffer(b"")])
    lists = pa.Array.from_buffers(
        pa.list_(pa.string()), 1, [None, pa.py_buffer(struct.pack("<2i", 0, 0))], children=[texts]
    )
    copy = copied(pa.table({"commands": lists}))
    assert copy.to_pylist() == [{"commands": []}]
    (offsets,) = struct.unpack("<i", copy["commands"].chunk(0).values.buffers()[1].to_pybytes()[:4])
    assert offsets == 0


@pytest.mark.parametrize("feature", ["delta.enableDeletionVectors", "delta.enableChangeDataFeed"])
def test_a_table_with_a_feature_of_its_own_is_written_by_spark(
    spark: SparkSession, tmp_path: Path, feature: str
) -> None:
    warehouse = Warehouse(spark, str(tmp_path))
    warehouse.create(tables.ANOMALIES)
    spark.sql(f"ALTER TABLE {warehouse.name(tables.ANOMALIES)} SET TBLPROPERTIES ('{feature}' = 'true')")
    warehouse = Warehouse(spark, str(tmp_path))
    assert warehouse.takes_files and not warehouse.takes_files_of(tables.ANOMALIES)
    warehouse.merge(tables.ANOMALIES, _findings(spark, ("a", 0, 9, None), ("b", 1, 9, None)), few=True)
    warehouse.merge(tables.ANOMALIES, _findings(spark, ("a", 1, 9, "x")), few=True)
    assert [(row["anomaly_id"], row["former_incident_ids"]) for row in rows_of(
        warehouse.read(tables.ANOMALIES).orderBy("anomaly_id")
    )] == [("a", ["x", None]), ("b", None)]  # fmt: skip
    assert warehouse.takes_files_of(tables.INCIDENTS)


def test_more_rows_than_few_are_written_by_spark(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raretrail.warehouse._FEW_WRITTEN", 1)
    states = _written(spark, tmp_path, few=True)
    assert [len(state) for state in states] == [5, 5, 6, 7, 7, 7, 5, 4, 1, 2, 0]


def test_what_is_kept_of_a_table_is_made_anew_when_the_table_changes(
    spark: SparkSession, tmp_path: Path
) -> None:
    warehouse = Warehouse(spark, str(tmp_path))
    made = []

    def addresses(rows: DataFrame) -> DataFrame:
        made.append(rows)
        return rows.select("source_ip_address")

    def found() -> list[str]:
        kept = warehouse.kept(tables.PLACES, "addresses", addresses)
        return sorted(row["source_ip_address"] for row in rows_of(kept))

    assert (found(), found(), len(made)) == ([], [], 1)
    for number, address in enumerate(("192.0.2.1", "192.0.2.2")):
        place = spark.range(1).select(F.lit(address).alias("source_ip_address"))
        warehouse.append(tables.PLACES, with_all_columns(place, tables.PLACES))
        assert len(found()) == len(found()) == number + 1
        assert len(made) == number + 2
