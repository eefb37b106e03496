"""The main job with trail and warehouse in S3: the same tables, few requests, one writer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from job_tools import options, start

import tiny
from factories import record, trail_file
from raretrail import cli
from raretrail.s3 import storage_options
from raretrail.session import close_session, open_session
from raretrail.settings import load_settings
from raretrail.stages.maintain import maintain
from raretrail.stages.run import run
from raretrail.warehouse import Warehouse
from s3_server import Request, S3Server, counted

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def warehouse(s3: S3Server, organisation: list[str], trail: str) -> str:
    """A warehouse in S3 in which the organisation's last two days have been played, by one of two runs that
    were started at once."""
    location = f"s3a://{s3.make_bucket('the-warehouse')}/raretrail"
    s3.requests()
    pair = [start(s3, *options(organisation, trail, location)) for _ in range(2)]
    said = [process.communicate(timeout=1800) for process in pair]
    codes = [process.returncode for process in pair]
    assert sorted(codes) == [0, 4], said
    assert "is running on this warehouse, last heard of" in said[codes.index(4)][1]
    spent = s3.requests()
    print("requests of the first run:", _told(spent))
    got = [request.key for request in spent if request.bucket == trail and request.operation == "GetObject"]
    # A census of each file, and then its events.
    assert max(map(got.count, set(got))) <= 2
    return location


def _told(requests: list[Request]) -> str:
    """How many requests there were of each kind, bucket by bucket."""
    buckets = sorted({request.bucket for request in requests})
    return ", ".join(f"{one} {dict(counted(r for r in requests if r.bucket == one))}" for one in buckets)


def test_of_two_runs_one_yields_and_the_tables_are_those_of_a_folder(
    warehouse: str, local: tiny.Contents, trail: str, as_root: S3Server
) -> None:
    assert not tiny.differences(local, tiny.contents(warehouse, f"s3://{trail}/"))


def test_the_warehouse_is_looked_into(
    warehouse: str, as_root: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(*arguments: str) -> str:
        assert cli.main([*arguments, "--warehouse", warehouse]) == 0
        return capsys.readouterr().out

    incident = json.loads(ask("incidents", "--format", "json").splitlines()[0])
    assert incident["incident_id"][:8] in ask("show", incident["incident_id"])
    assert ask("sql", "select count(*) n from coverage", "--format", "csv").startswith("n")
    assert ask("sql", "select status from runs", "--format", "csv").split() == ["status", "done"]


_ACCOUNT, _REGION = "111122223333", "eu-west-1"


def _deliver(server: S3Server, bucket: str, at: datetime, number: int) -> str:
    """One new file with one event, delivered now; its key."""
    one = record({"eventTime": f"{at:%Y-%m-%dT%H:%M:%SZ}", "recipientAccountId": _ACCOUNT})
    folder = f"AWSLogs/{_ACCOUNT}/CloudTrail/{_REGION}/{at:%Y/%m/%d}"
    key = f"{folder}/{_ACCOUNT}_CloudTrail_{_REGION}_{at:%Y%m%dT%H%MZ}_{number:016}.json.gz"
    server.client().put_object(Bucket=bucket, Key=key, Body=trail_file([one]))
    return key


def test_a_scheduled_run_costs_the_same_whatever_the_history(
    as_root: S3Server, bucket: str, tmp_path: Path
) -> None:
    settings, _ = load_settings(
        options={"trail": [f"s3a://{bucket}/AWSLogs"], "warehouse": f"s3a://{bucket}/warehouse"}
    )
    now = datetime(2026, 2, 15, 12, tzinfo=UTC)
    _deliver(as_root, bucket, now - timedelta(days=1), 0)
    spark = open_session(s3=True, cores="2", driver_memory="2g", scratch=tmp_path)
    try:

        def scheduled(number: int) -> tuple[list[Request], str]:
            at = now + timedelta(minutes=15 * number)
            key = _deliver(as_root, bucket, at - timedelta(minutes=20), number)
            as_root.requests()
            ended = run(spark, settings, as_of=at)
            assert ended.record["counts"]["events"] == 1, ended
            return as_root.requests(), key

        run(spark, settings, as_of=now)  # lists everything, as one run a night does
        scheduled(1)
        small, first = scheduled(2)
        # Two years of days in eight regions, which this run neither lists nor reads.
        for n in range(730):
            day = now - timedelta(days=100 + n)
            for region in range(8):
                folder = as_root.folder / bucket / f"AWSLogs/{_ACCOUNT}/CloudTrail/{_REGION}"
                folder = folder / f"{day:%Y/%m/%d}"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{_ACCOUNT}_CloudTrail_{_REGION}_{day:%Y%m%d}T{region:04}Z_x.json.gz").touch()
        large, second = scheduled(3)
        # What notifications name is not listed, nor read where it was taken before.
        named = tmp_path / "messages.jsonl"
        third = _deliver(as_root, bucket, now + timedelta(minutes=40), 4)
        keys = [first, third, third, "AWSLogs-of-others/x.json.gz"]
        named.write_text("".join(json.dumps({"s3Bucket": bucket, "s3ObjectKey": [k]}) + "\n" for k in keys))
        by_message, _ = load_settings(
            options={
                "trail": settings.trail,
                "warehouse": settings.warehouse,
                "ingest": {"files_from": str(named)},
            }
        )
        as_root.requests()
        ended = run(spark, by_message, as_of=now + timedelta(hours=1))
        told = as_root.requests()
        assert ended.record["counts"]["events"] == 1
        maintained = maintain(Warehouse(spark, str(settings.warehouse)), now + timedelta(hours=2))
        assert {"events", "runs"} <= {one.table for one in maintained}
        assert any("--files-from named 1 files outside" in message for message in ended.messages)
    finally:
        close_session(spark)

    def of_trail(requests: list[Request]) -> list[Request]:
        return [
            r for r in requests if (r.key or r.prefix).startswith("AWSLogs") and r.operation != "PutObject"
        ]

    print("requests of a scheduled run to the trail:", dict(counted(of_trail(small))))
    print("with 5,840 more objects of two years in it:", dict(counted(of_trail(large))))
    print("to the warehouse:", dict(counted(set(small) - set(of_trail(small)))))
    assert counted(of_trail(small)) == counted(of_trail(large))
    # The root, by its name and as a folder; account, service, region.
    assert counted(of_trail(large))["ListObjectsV2"] == 5
    assert {r.key for r in of_trail(large) if r.operation == "GetObject"} == {second}
    assert {r.key for r in of_trail(small) if r.operation == "GetObject"} == {first}
    assert counted(of_trail(told)) == {"HeadObject": 2, "GetObject": 2}
    assert {r.key for r in of_trail(told) if r.operation == "GetObject"} == {third}


_APPENDER = """
import sys
from raretrail.session import open_session
table, number = sys.argv[1:]
spark = open_session(s3=True, cores="1", driver_memory="1g")
spark.range(1).write.format("delta").save(table + "-warm-" + number)
print("ready", flush=True)
sys.stdin.readline()
for n in range(15):
    spark.range(1).coalesce(1).write.format("delta").mode("append").save(table)
"""


@pytest.fixture
def table(as_root: S3Server, bucket: str) -> Iterator[str]:
    yield f"s3a://{bucket}/table"


def test_commits_of_two_clusters_to_one_table_are_kept_apart(
    table: str, as_root: S3Server, tmp_path: Path
) -> None:
    """Without the lock: what Delta's own log store does, once S3A writes it on condition."""
    write_deltalake(table, pa.table({"id": pa.array([], pa.int64())}), storage_options=storage_options())
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", _APPENDER, table, str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    try:
        for process in pair:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.stderr and process.stderr.read()
        for process in pair:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        ended = [process.communicate(timeout=600) for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert [process.returncode for process in pair] == [0, 0], ended
    found = DeltaTable(table, storage_options=storage_options())
    assert found.to_pyarrow_table().num_rows == 30
    refused = [r for r in as_root.requests() if r.status in (409, 412) and "_delta_log" in r.key]
    print(f"commits that found another's in their place as they were written: {len(refused)}")
