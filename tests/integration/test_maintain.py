"""Maintenance on real Delta tables."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from raretrail.errors import BusyError
from raretrail.stages.maintain import (
    _LISTING,
    SCRATCH,
    _vacuum_whole,
    _vacuuming,
    compact_day,
    maintain,
)
from raretrail.tables import BASELINE_DIMENSION, BASELINE_VALUE, EVENTS, INGEST_FILES, PLACES
from raretrail.warehouse import Warehouse, with_all_columns

pytestmark = pytest.mark.integration
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def days_of(warehouse: Warehouse) -> list[date]:
    rows = warehouse.read(BASELINE_DIMENSION).select("as_of").distinct().collect()
    return sorted(row["as_of"] for row in rows)


def test_old_days_go_small_files_are_joined_and_nothing_else_changes(
    spark: SparkSession, tmp_path: Path
) -> None:
    warehouse = Warehouse(spark, str(tmp_path))
    kept = BASELINE_DIMENSION.retain_days or 0
    ages = [0, 1, kept, kept + 1, kept + 9]
    for age in ages:
        for dimension in ("place", "command"):
            rows = spark.range(1).select(
                *[
                    F.lit(NOW.date() - timedelta(days=age)).alias(c.name)
                    if c.name == "as_of"
                    else F.lit(dimension if c.name == "dimension" else None).alias(c.name)
                    for c in BASELINE_DIMENSION.columns
                ]
            )
            warehouse.append(BASELINE_DIMENSION, rows)
    warehouse.create(PLACES)
    done = {one.table: one for one in maintain(warehouse, NOW)}
    assert set(done) == {BASELINE_DIMENSION.name, PLACES.name}, "tables that are not there are left so"
    assert done[BASELINE_DIMENSION.name].expired == 4
    assert days_of(warehouse) == sorted(NOW.date() - timedelta(days=age) for age in (0, 1, kept))
    assert warehouse.read(BASELINE_DIMENSION).count() == 6
    # Two files a day became one on settled days; today's and yesterday's are left to runs in progress.
    assert done[BASELINE_DIMENSION.name].files_removed == 2
    assert len(DeltaTable(str(tmp_path / BASELINE_DIMENSION.name)).file_uris()) == 5
    again = {one.table: one for one in maintain(warehouse, NOW)}
    assert again[BASELINE_DIMENSION.name].expired == again[BASELINE_DIMENSION.name].files_removed == 0


def test_entries_of_the_log_go_after_a_week(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = Warehouse(spark, str(tmp_path))
    for number in range(6):
        row = spark.range(1).select(F.lit(f"192.0.2.{number}").alias("source_ip_address"))
        warehouse.append(PLACES, with_all_columns(row, PLACES))
    log = tmp_path / PLACES.name / "_delta_log"
    maintain(warehouse, NOW)
    assert (log / f"{0:020d}.json").exists(), "all of them are young"
    for age, entry in enumerate(sorted(log.glob("*.*"), reverse=True)):
        when = (datetime.now(UTC) - timedelta(days=8, minutes=age)).timestamp()
        os.utime(entry, (when, when))
    checkpoint = max(int(path.name[:20]) for path in log.glob("*.checkpoint.parquet"))
    row = spark.range(1).select(F.lit("192.0.2.9").alias("source_ip_address"))
    warehouse.append(PLACES, with_all_columns(row, PLACES))
    maintain(warehouse, NOW)
    assert min(int(path.name[:20]) for path in log.glob("*.json")) >= checkpoint
    assert Warehouse(spark, str(tmp_path)).read(PLACES).count() == 7
    assert spark.newSession().read.format("delta").load(str(tmp_path / PLACES.name)).count() == 7


def test_a_setting_says_how_long_a_table_is_kept(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = Warehouse(spark, str(tmp_path))
    for age in (1, 10, 11):
        day = F.lit(NOW.date() - timedelta(days=age)).alias("as_of")
        warehouse.append(BASELINE_DIMENSION, with_all_columns(spark.range(1).select(day), BASELINE_DIMENSION))
    (done,) = maintain(warehouse, NOW, retention={BASELINE_DIMENSION.name: 10})
    assert done.expired == 1
    assert days_of(warehouse) == sorted(NOW.date() - timedelta(days=age) for age in (1, 10))


def test_scratch_of_old_runs_is_vacuumed_and_listed_with_few_tasks(
    spark: SparkSession, tmp_path: Path
) -> None:
    if os.environ.get("RARETRAIL_TEST_REMOTE"):
        pytest.skip("tasks are counted through the context, which Connect has not")
    warehouse = Warehouse(spark, str(tmp_path))
    warehouse.stage(SCRATCH[0], spark.range(3))
    folder = tmp_path / f"staged_{SCRATCH[0]}"
    left = folder / "part-of-a-killed-run.parquet"
    left.write_bytes(b"x")
    os.utime(left, ((NOW - timedelta(days=365)).timestamp(),) * 2)
    before = spark.conf.get(_LISTING)
    spark.sparkContext.setJobGroup("maintenance", "counted")
    assert maintain(warehouse, NOW) == [], "scratch is not told of"
    tracker = spark.sparkContext.statusTracker()
    stages = [
        tracker.getStageInfo(stage)
        for job in tracker.getJobIdsForGroup("maintenance")
        for stage in (tracker.getJobInfo(job) or pytest.fail("a job is forgotten")).stageIds
    ]
    assert stages
    assert sum(stage.numTasks for stage in stages if stage) < 1000
    assert spark.conf.get(_LISTING) == before
    assert not left.exists()
    assert len(list(folder.glob("*.parquet"))) == len(DeltaTable(str(folder)).file_uris()) > 0


def test_what_many_runs_append_to_a_day_becomes_one_file_now_and_then(
    spark: SparkSession, tmp_path: Path
) -> None:
    warehouse = Warehouse(spark, str(tmp_path))
    today, yesterday = NOW.date(), NOW.date() - timedelta(days=1)
    for day in (yesterday, today, today):
        for table in (EVENTS, INGEST_FILES):
            when = F.lit(day).alias(table.partition_by[0])
            warehouse.append(table, with_all_columns(spark.range(1).select(when), table))
    runs = [{"event_days": [today]}, {"event_days": None}] + [{"event_days": [yesterday, today]}] * 14
    assert not compact_day(warehouse, today, runs)
    assert not compact_day(warehouse, NOW.date() + timedelta(days=1), runs)
    assert len(DeltaTable(str(tmp_path / "events")).file_uris()) == 3
    assert compact_day(warehouse, today, [*runs, runs[0]])
    for table in (EVENTS, INGEST_FILES):
        assert len(DeltaTable(str(tmp_path / table.name)).file_uris()) == 2
        assert warehouse.read(table).count() == 3


def test_maintenance_waits_for_no_run(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = Warehouse(spark, str(tmp_path))
    warehouse.create(BASELINE_VALUE)
    with Warehouse(spark, str(tmp_path)).held(), pytest.raises(BusyError):
        maintain(warehouse, NOW)


def test_a_table_elsewhere_is_vacuumed_to_its_current_version(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = Warehouse(spark, str(tmp_path))
    for _ in range(2):
        warehouse.replace(PLACES, spark.createDataFrame([], PLACES.spark_schema()))
        warehouse.replace(PLACES, with_all_columns(spark.range(1), PLACES))
    folder = tmp_path / PLACES.name
    assert len(list(folder.glob("*.parquet"))) > 1
    with _vacuuming(warehouse):
        _vacuum_whole(warehouse, PLACES)
    assert len(list(folder.glob("*.parquet"))) == len(DeltaTable(str(folder)).file_uris()) == 1
    assert "delta.deletedFileRetentionDuration" not in DeltaTable(str(folder)).metadata().configuration
