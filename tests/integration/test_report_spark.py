"""The report's queries are in the dialect that both engines share: Spark makes the same page."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from raretrail.look import Look, SparkLook, open_duckdb
from raretrail.report.gather import gather
from raretrail.report.page import page
from raretrail.warehouse import Warehouse
from warehouses import organisation, write_tables

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.integration


def _page(look: Look) -> str:
    material = gather(look, "w", datetime(2026, 3, 1, 6, tzinfo=UTC))
    assert not material.lacking
    return page(material, threshold=40.0, attribution="")


def test_spark_and_duckdb_make_the_same_page(spark: SparkSession, tmp_path: Path) -> None:
    root = write_tables(tmp_path, organisation(9))
    with open_duckdb(str(root)) as look:
        expected = _page(look)
    made = _page(SparkLook(Warehouse(spark, str(root))))
    assert made == expected
