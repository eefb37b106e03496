"""Credentials planted in the trail and in this process's surroundings are found nowhere afterwards."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

import old_warehouse as old
from factories import call
from raretrail import cli
from raretrail.cloudtrail.forgotten import KEY
from raretrail.monitoring import JsonLog
from raretrail.settings import load_settings
from raretrail.stages.ingest import ingest
from raretrail.stages.locating import open_geo
from raretrail.tables import EVENTS, QUARANTINE, RUNS
from raretrail.warehouse import Warehouse

pytestmark = [pytest.mark.integration, pytest.mark.slow]
# In records: what a call handed out or was given. The id of a key is no secret.
IN_RECORDS = {
    "secretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPlantedEXAMPLEKEY",
    "sessionToken": "IQoJb3JpZ2luX2VjEPlantedPlantedPlantedPlantedPlantedPlanted",
    "masterUserPassword": "planted-hunter2",
}
# Around: what raretrail, Spark and their libraries are given to work with.
AROUND = {
    "AWS_SECRET_ACCESS_KEY": "plantedSecretOfTheEnvironment00000000000",
    "AWS_SESSION_TOKEN": "plantedSessionOfTheEnvironment",
    "RARETRAIL_WEBHOOK_URL": "https://hooks.example/services/plantedT0KEN",
    "RARETRAIL_WEBHOOK_SECRET": "plantedSignature",
    "RARETRAIL_HEARTBEAT_URL": "https://beat.example/plantedBeat",
    KEY: "plantedForgetKey0123",
}
PLANTED = [*IN_RECORDS.values(), *(text.rpartition("/")[2] for text in AROUND.values())]
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def _found(text: str) -> list[str]:
    return [planted for planted in PLANTED if planted in text]


def _said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    cli.main(arguments)
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_nothing_planted_is_found(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in AROUND.items():
        monkeypatch.setenv(name, value)
    trail, where = tmp_path / "trail", tmp_path / "w"
    handed_out = {"credentials": {**IN_RECORDS, "accessKeyId": "ASIAEXAMPLE"}}
    command = {"commands": [f"aws rds --master-user-password {IN_RECORDS['masterUserPassword']}"]}
    records = [
        call("ana", "sts:AssumeRole", old.AMSTERDAM, NOON, responseElements=handed_out),
        call("ana", "rds:CreateDBInstance", old.AMSTERDAM, NOON, requestParameters=dict(IN_RECORDS)),
        call(
            "ana",
            "ssm:SendCommand",
            old.AMSTERDAM,
            NOON,
            requestParameters=command,
        ),
        call("ana", "iam:GetUser", old.AMSTERDAM, NOON, errorMessage=f"refused: {json.dumps(IN_RECORDS)}"),
        call("ben", "iam:GetUser", old.AMSTERDAM, NOON, eventTime="soon", requestParameters=dict(IN_RECORDS)),
    ]
    old.deliver(trail, NOON.date(), "a", records)
    settings, _ = load_settings(options={"trail": [str(trail)], "warehouse": str(where)})
    warehouse = Warehouse(spark, str(where))
    told: list[str] = []
    none = {"since": None, "until": None, "recent": None}
    ingest(warehouse, settings, open_geo(settings.geo), "r1", NOON, **none, progress=told.append)
    warehouse.create(RUNS)
    assert (warehouse.read(EVENTS).count(), warehouse.read(QUARANTINE).count()) == (4, 1)
    files = [path for path in where.rglob("*") if path.is_file()]
    for path in files:
        text = path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            text += repr(pq.read_table(path, partitioning=None).to_pylist())
        assert not _found(text), path
    assert not _found(" ".join(told))

    place = ("--warehouse", str(where))
    shown = _said(capsys, "run", *place, "--trail", str(trail), "--print-settings")
    assert "hooks.example" in shown or "webhook" in shown
    shown += _said(capsys, "doctor", *place, "--trail", str(trail), "--format", "json")
    shown += _said(capsys, "sql", "SELECT * FROM events", *place, "--format", "json")
    shown += _said(capsys, "sql", "SELECT * FROM quarantine", *place)
    report = tmp_path / "report.html"
    shown += _said(capsys, "report", *place, "--out", str(report))
    JsonLog().write("info", "ended", settings=settings.model_dump(mode="json"))
    shown += capsys.readouterr().err
    assert "SendCommand" in shown and "[redacted]" in shown
    assert not _found(shown)
    assert not _found(report.read_text(encoding="utf-8"))
