"""`raretrail doctor --spark` in a real session."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from raretrail.cli import GROUPS
from raretrail.doctor import Line, examine
from raretrail.settings import load_settings
from raretrail.tables import PLACES, RUNS
from raretrail.warehouse import Warehouse

pytestmark = pytest.mark.integration


def look(spark: SparkSession, **options: object) -> dict[str, Line]:
    settings, _ = load_settings(None, options)
    now = datetime.now(UTC)
    lines = examine(settings, now=now, groups=GROUPS, spark=lambda settings: nullcontext(spark))
    return {line.name: line for line in lines}


def test_a_session_its_workers_and_its_clock_are_tried(spark: SparkSession, tmp_path: Path) -> None:
    lines = look(spark, warehouse=str(tmp_path))
    for name in ("spark session", "workers", "spark's clock"):
        assert lines[name].state == "ok", lines[name]
    assert lines["last run"].seen == "there was none"


def test_a_schema_is_looked_at_through_spark(spark: SparkSession) -> None:
    spark.sql("CREATE SCHEMA IF NOT EXISTS doctor_test")
    try:
        warehouse = Warehouse(spark, "spark_catalog.doctor_test")
        assert look(spark, warehouse=warehouse.location)["warehouse"].state == "warn"
        warehouse.create(PLACES)
        at = datetime.now(UTC) - timedelta(minutes=5)
        run = {name: None for name in RUNS.column_names} | {
            "run_id": "r", "started_at": at, "status": "held", "mode": "scheduled", "held_scopes": ["a=1"],
        }  # fmt: skip
        warehouse.append(RUNS, spark.createDataFrame([run], RUNS.spark_schema()))
        lines = look(spark, warehouse=warehouse.location)
        assert lines["table places"].state == lines["table runs"].state == "ok"
        assert lines["last run"].state == "fail"
        assert "held: a=1" in lines["last run"].seen
    finally:
        spark.sql("DROP SCHEMA doctor_test CASCADE")


def test_a_scheme_without_its_package_is_a_line_that_says_so(spark: SparkSession, tmp_path: Path) -> None:
    line = look(spark, trail=["nosuch://bucket/AWSLogs"])["trail nosuch://bucket/AWSLogs"]
    assert line.state == "fail"
    assert "nosuch" in line.seen


def test_a_trail_behind_spark_shows_its_newest_day(spark: SparkSession, tmp_path: Path) -> None:
    from raretrail import doctor

    now = datetime.now(UTC)
    folder = tmp_path / "AWSLogs" / "111122223333" / "CloudTrail" / "eu-west-1" / f"{now:%Y/%m/%d}"
    folder.mkdir(parents=True)
    (folder / "file.json.gz").write_bytes(b"x")
    line = doctor._remote_trail(spark, (tmp_path / "AWSLogs").as_uri(), now)
    assert (line.state, line.seen) == ("ok", f"1 files of {now.date()}")
    assert doctor._remote_trail(spark, tmp_path.as_uri(), now).state == "ok"
    assert doctor._remote_trail(spark, tmp_path.as_uri(), now + timedelta(days=9)).state == "warn"
