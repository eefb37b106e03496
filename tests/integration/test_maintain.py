"""Maintenance on real Delta tables."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from raretrail.errors import BusyError
from raretrail.stages.maintain import maintain
from raretrail.tables import BASELINE_DIMENSION, BASELINE_VALUE, PLACES
from raretrail.warehouse import Warehouse

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


def test_maintenance_waits_for_no_run(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = Warehouse(spark, str(tmp_path))
    warehouse.create(BASELINE_VALUE)
    with Warehouse(spark, str(tmp_path)).held(), pytest.raises(BusyError):
        maintain(warehouse, NOW)
