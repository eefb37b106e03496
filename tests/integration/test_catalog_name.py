"""A warehouse under a catalog's name holds what one under a path holds."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from factories import call, trail_file
from raretrail.settings import load_settings
from raretrail.stages.maintain import maintain
from raretrail.stages.run import run
from raretrail.tables import ALL, DATA_QUALITY, RUNS
from raretrail.warehouse import Warehouse
from tiny import OF_RUNNING

pytestmark = [pytest.mark.integration, pytest.mark.long]

FIRST, JUDGED = date(2026, 1, 1), date(2026, 1, 8)


def _trail(root: Path) -> Path:
    for n in range((JUDGED - FIRST).days + 1):
        day = FIRST + timedelta(days=n)
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        homes = {"ana": "87.210.98.182", "ben": "95.251.251.132"}
        records = [
            call(user, command, address, noon)
            for user, address in homes.items()
            for command in ("ec2:DescribeInstances", "iam:GetUser")
        ]
        if day == JUDGED:
            records.append(call("ana", "iam:CreateAccessKey", "212.142.174.158", noon + timedelta(hours=2)))
        folder = root / "AWSLogs" / "111122223333" / "CloudTrail" / "eu-west-1" / f"{day:%Y/%m/%d}"
        folder.mkdir(parents=True)
        (folder / f"111122223333_CloudTrail_eu-west-1_{day:%Y%m%d}T1205Z_a.json.gz").write_bytes(
            trail_file(records)
        )
    return root


def _contents(warehouse: Warehouse) -> dict[str, list[str]]:
    held = {}
    for table in ALL:
        if table in (RUNS, DATA_QUALITY) or table.name.startswith("staged_") or not warehouse.exists(table):
            continue
        rows = warehouse.read(table).drop(*OF_RUNNING).collect()
        held[table.name] = sorted(repr(row) for row in rows)
    return held


def test_a_catalog_name_and_a_path_hold_the_same(spark: SparkSession, tmp_path: Path) -> None:
    trail = _trail(tmp_path / "trail")
    day = datetime(JUDGED.year, JUDGED.month, JUDGED.day, tzinfo=UTC)
    held = []
    spark.sql("CREATE SCHEMA IF NOT EXISTS spark_catalog.by_name")
    try:
        for where in (str(tmp_path / "w"), "spark_catalog.by_name"):
            settings, _ = load_settings(options={"trail": [str(trail)], "warehouse": where})
            ended = run(spark, settings, as_of=datetime.now(UTC), span=(day, day + timedelta(days=1)))
            assert ended.exit_code == 0, ended.messages
            warehouse = Warehouse(spark, where)
            maintain(warehouse, datetime.now(UTC))
            held.append(_contents(warehouse))
        assert held[0].keys() == held[1].keys() and held[0]["incidents"]
        for name in held[0]:
            assert held[0][name] == held[1][name], name
        # By its three-part name a table of one warehouse is the trail of another.
        spark.createDataFrame([("x",)], "value string").limit(0).write.format("delta").saveAsTable(
            "spark_catalog.by_name.landing"
        )
        settings, _ = load_settings(
            options={"trail": ["table:spark_catalog.by_name.landing"], "warehouse": str(tmp_path / "other")}
        )
        ended = run(spark, settings, as_of=day)
        assert ended.record["counts"]["files_listed"] == 0
    finally:
        spark.sql("DROP SCHEMA spark_catalog.by_name CASCADE")
