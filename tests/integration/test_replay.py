"""A finding is computed once more from what its run read, whatever the tables have become since."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from test_main_job import AMSTERDAM, BILBAO, _deliver, _record
from test_poison import BREACH, FIRST, _noon

from raretrail.errors import EXIT_DONE, EXIT_FAILED, RaretrailError, UsageError
from raretrail.settings import load_settings
from raretrail.show.replayed import replayed_text
from raretrail.show.text import Screen
from raretrail.stages.replay import replay
from raretrail.stages.run import run
from raretrail.tables import ANOMALIES, BASELINE_IDENTITY_VALUE, EVENTS
from raretrail.warehouse import Warehouse

pytestmark = [pytest.mark.slow, pytest.mark.integration]


def _as_json(anomaly_id: str, where: str, exit_code: int = EXIT_DONE) -> dict[str, Any]:
    """What `raretrail replay --format json` says, from a process of its own."""
    command = ["replay", anomaly_id, "--warehouse", where, "--format", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "raretrail", *command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == exit_code, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_a_finding_is_replayed_bit_for_bit_until_its_input_is_vacuumed(
    spark: SparkSession, tmp_path: Path
) -> None:
    trail, where = tmp_path / "trail", str(tmp_path / "w")
    settings, _ = load_settings(None, {"trail": [str(trail)], "warehouse": where})
    warehouse = Warehouse(spark, where)
    for n in range((BREACH - FIRST).days + 2):
        at = _noon(FIRST + timedelta(days=n))
        _deliver(
            trail, at.date(), "home", [_record(who, "iam:GetUser", AMSTERDAM, at) for who in ("ana", "ben")]
        )
    half_past = _noon(BREACH) + timedelta(minutes=30)
    stolen = [_record("ana", name, BILBAO, half_past) for name in ("iam:CreateAccessKey", "iam:ListUsers")]
    _deliver(trail, BREACH, "away", stolen)
    run(spark, settings, as_of=_noon(BREACH) + timedelta(hours=1))

    # The next day's run judges the bucket again, by the baseline of its own day.
    later = [_record("ben", "iam:DeleteUser", BILBAO, _noon(BREACH + timedelta(days=1)))]
    _deliver(trail, BREACH + timedelta(days=1), "away", later)
    run(spark, settings, as_of=_noon(BREACH + timedelta(days=1)) + timedelta(hours=1))
    (first, *_) = warehouse.read(ANOMALIES).where(f"bucket_date = DATE'{BREACH}'").collect()
    # Whatever becomes of the baseline since, what it was then counts.
    spark.sql(f"DELETE FROM {warehouse.name(BASELINE_IDENTITY_VALUE)}").collect()
    done = replay(warehouse, settings, first.anomaly_id[:12], str(tmp_path / "scratch"))
    assert done.same, done.differing
    assert done.columns > 90
    text = replayed_text(done, Screen())
    assert f"the same in all {done.columns} columns" in text
    assert first.run_id in text

    told = _as_json(first.anomaly_id, where)
    assert told["same"] is True and told["found"] is True
    assert (told["differing"], told["columns"]) == ([], done.columns)
    assert told["finding"]["anomaly_id"] == first.anomaly_id
    assert told["finding"]["bits"] == first.bits
    assert told["run"]["input_versions"] == done.run["input_versions"]

    with pytest.raises(UsageError, match="no finding has this"):
        replay(warehouse, settings, "nobody", str(tmp_path / "scratch"))
    other, _ = load_settings(None, {"trail": [str(trail)], "warehouse": where, "score": {"lookback": "9h"}})
    with pytest.raises(UsageError, match="give the --conf, --city-db"):
        replay(warehouse, other, first.anomaly_id, str(tmp_path / "scratch"))

    # A row that somebody changed is told, column by column.
    spark.sql(
        f"UPDATE {warehouse.name(ANOMALIES)} SET bits = 99 WHERE anomaly_id = '{first.anomaly_id}'"
    ).collect()
    changed = replay(warehouse, settings, first.anomaly_id, str(tmp_path / "scratch"))
    assert not changed.same
    assert changed.differing[0] == ("bits", 99.0, first.bits)
    assert "differs in" in replayed_text(changed, Screen())
    told = _as_json(first.anomaly_id, where, exit_code=EXIT_FAILED)
    assert told["same"] is False
    assert told["differing"] == [["bits", 99.0, first.bits]]

    spark.sql(f"DELETE FROM {warehouse.name(EVENTS)} WHERE event_date = DATE'{BREACH}'").collect()
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    try:
        spark.sql(f"VACUUM {warehouse.name(EVENTS)} RETAIN 0 HOURS").collect()
    finally:
        spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    with pytest.raises(RaretrailError, match="is gone"):
        replay(warehouse, settings, first.anomaly_id, str(tmp_path / "scratch"))
