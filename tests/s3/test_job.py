"""The main job with trail and warehouse in S3: the same tables, few requests, one writer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from job_tools import options, start

import tiny
from factories import record, trail_file
from raretrail import cli
from raretrail.session import close_session, open_session
from raretrail.settings import load_settings
from raretrail.stages.maintain import maintain
from raretrail.stages.run import run
from raretrail.tables import EVENTS
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
        # As it is months later: what no version needs is past its time, and so are the entries of the logs.
        for file in (as_root.folder / bucket / "warehouse").rglob("*"):
            os.utime(file, (0, 0))
        warehouse = Warehouse(spark, str(settings.warehouse))
        maintained = maintain(warehouse, now + timedelta(hours=2))
        assert {"events", "runs"} <= {one.table for one in maintained}
        gone = [r.key for r in as_root.requests() if r.operation == "DeleteObject"]
        assert any(key.endswith(".parquet") for key in gone)
        assert warehouse.read(EVENTS).count() == 5
        scheduled(5)
        assert warehouse.read(EVENTS).count() == 6
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


_TWO_AT_ONCE = """
import sys
from raretrail.session import open_session
spark = open_session(s3=True, cores="1", driver_memory="1g")
jvm = spark.sparkContext._jvm
path = jvm.org.apache.hadoop.fs.Path(sys.argv[1] + "/_delta_log/00000000000000000000.json")
files = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
one, two = files.create(path, False), files.create(path, False)
one.write(bytearray(b"one"))
two.write(bytearray(b"two"))
one.close()
try:
    two.close()
    print("the second was written")
except Exception:
    print("the second was refused")
try:
    files.create(path, False).close()
    print("a third was written")
except Exception:
    print("a third was refused")
print(bytes(files.open(path).readNBytes(3)).decode())
"""


def test_without_the_lock_a_commit_can_be_written_over(bucket: str, as_root: S3Server) -> None:
    """What Delta asks S3A for, a file that must not be there yet, is looked for and then written. When this
    fails, a later Hadoop writes on condition, and docs/object-storage.md ("One writer") may say so."""
    done = subprocess.run(
        [sys.executable, "-c", _TWO_AT_ONCE, f"s3a://{bucket}/table"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines() == ["the second was written", "a third was refused", "two"]
