"""The warehouse carries the version of its tables' layout, and few rows into plans rather than files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from raretrail import tables
from raretrail.errors import UsageError
from raretrail.look import tables_in
from raretrail.warehouse import Warehouse, rows_of, with_all_columns

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
    assert not list(tmp_path.iterdir())
    assert warehouse.stage("many", spark.range(3), few=True).count() == 3
    assert [path.name for path in tmp_path.iterdir()] == ["staged_many"]


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
