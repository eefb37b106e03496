"""The warehouse carries the version of its tables' layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from raretrail import tables
from raretrail.errors import UsageError
from raretrail.warehouse import Warehouse

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
