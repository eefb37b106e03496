"""The job on storage that misbehaves: what passes changes nothing, what lasts is told in a line and held to
what it concerns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from factories import call, trail_file
from raretrail import cli, session
from raretrail.doctor import runs_lines
from raretrail.errors import EXIT_DONE, EXIT_FAILED, EXIT_HELD, EXIT_USAGE
from raretrail.look import open_duckdb
from raretrail.session import close_session, in_words, open_session
from raretrail.settings import Settings, load_settings
from raretrail.show.text import in_utc
from raretrail.stages.run import Ended, run
from raretrail.tables import ANOMALIES, EVENTS, INGEST_FILES, RUNS, Table
from raretrail.warehouse import Warehouse, rows_of
from s3_faults import Fault, Proxy

pytestmark = pytest.mark.cluster

ONE, OTHER, THIRD = "111122223333", "999988887777", "444455556666"
HOUR = timedelta(hours=1)
HOME, AWAY = "87.210.98.182", "212.142.174.158"
NOON = datetime(2026, 2, 15, 12, tzinfo=UTC)
DENIED: dict[str, Any] = {"kind": "answer", "status": 403, "code": "AccessDenied"}
EXPIRED: dict[str, Any] = {"kind": "answer", "status": 400, "code": "ExpiredToken"}
_numbers = itertools.count()


@dataclass
class Job:
    """A session through the proxy, a warehouse of the module's, a trail of the test's."""

    spark: SparkSession
    proxy: Proxy
    warehouse: Warehouse
    bucket: str

    @property
    def root(self) -> str:
        """The trail."""
        return f"s3://{self.bucket}/AWSLogs/"

    def settings(self, **more: Any) -> Settings:
        """Of a run over it."""
        options = {"trail": [self.root], "warehouse": self.warehouse.location, **more}
        return load_settings(options=options)[0]

    def deliver(self, account: str, name: str, at: datetime = NOON, **calls: str) -> str:
        """One file of calls, `user="service:Command address"`; its location."""
        records = [
            call(user, *told.split(), at, recipientAccountId=account)  # type: ignore[misc]
            for user, told in (calls or {name: f"iam:GetUser {HOME}"}).items()
        ]
        folder = f"AWSLogs/o-abc123/{account}/CloudTrail/eu-west-1/{at:%Y/%m/%d}"
        file = f"{account}_CloudTrail_eu-west-1_{at:%Y%m%dT%H%M}Z_{name}{next(_numbers):016}.json.gz"
        self.proxy.server.client(checksums=False).put_object(
            Bucket=self.bucket, Key=f"{folder}/{file}", Body=trail_file(records)
        )
        return f"s3://{self.bucket}/{folder}/{file}"

    def ingest(self, **more: Any) -> Ended:
        """Take in what is new."""
        return run(self.spark, self.settings(**more), as_of=NOON + timedelta(hours=2), steps=("ingest",))

    def ledger(self, location: str) -> list[tuple[str, int, str | None]]:
        """Status, events and detail of a file, each time it was read."""
        named = f"endswith(source_file, '{location.removeprefix('s3:')}')"  # Spark may say s3a
        rows = rows_of(self.warehouse.read(INGEST_FILES).where(named))
        return [(r["status"], r["events"], r["detail"]) for r in sorted(rows, key=lambda r: r["ingested_at"])]

    def users(self) -> list[str]:
        """Whose events of this trail are there, one entry an event."""
        rows = rows_of(self.read(EVENTS, f"contains(source_file, '{self.root.removeprefix('s3:')}')"))
        return sorted(row["principal"].rpartition("/")[2] for row in rows)

    def read(self, table: Table, condition: str) -> Any:
        """Rows of a table."""
        return self.warehouse.read(table).where(condition)


@pytest.fixture(scope="module")
def opened(proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SparkSession, str]]:
    """One session for the module, and where its warehouse is. Storage is asked less often than it would be,
    so that giving up takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in proxy.environment().items():
            patch.setenv(name, value)
        spark = open_session(
            s3=True,
            cores="2",
            driver_memory="2g",
            scratch=tmp_path_factory.mktemp("spark"),
            conf={"spark.hadoop.fs.s3a.retry.limit": "2", "spark.hadoop.fs.s3a.retry.interval": "50ms"},
        )
        yield spark, f"s3a://{proxy.server.make_bucket('faulty-warehouse')}/deep/raretrail"
        close_session(spark)


@pytest.fixture
def job(opened: tuple[SparkSession, str], through: Proxy, bucket: str) -> Job:
    """The job, on storage that behaves until it is told not to."""
    spark, location = opened
    return Job(spark, through, Warehouse(spark, location), bucket)


def test_a_bad_day_changes_nothing(job: Job) -> None:
    files = [job.deliver(account, user) for user in ("ana", "ben") for account in (ONE, OTHER)]
    faults = [
        Fault("answer", times=2, after=3),
        Fault("answer", times=4, after=20, status=503, code="SlowDown"),
        Fault("cut", operation="GetObject", times=2),
        Fault("cut", operation="GetObject", where=".*parquet", times=2),
        Fault("reset", times=3, after=40),
        Fault("slow", times=2, after=60, seconds=2),
        Fault("answer", operation="PutObject", times=3, after=2),
        Fault("reset", operation="PutObject", times=1, after=8),
        Fault("cut", operation="ListObjectsV2", times=2, after=5),
    ]
    job.proxy.does(*faults)
    ended = job.ingest()
    did = [(fault.kind, fault.operation, fault.done) for fault in faults]
    assert all(fault.done for fault in faults), did
    job.proxy.does()
    assert ended.exit_code == EXIT_DONE
    assert job.users() == ["ana", "ana", "ben", "ben"]
    assert [job.ledger(file) for file in files] == [[("taken", 1, None)]] * 4
    assert job.ingest().record["counts"]["files_new"] == 0


@pytest.mark.parametrize("reader", ["python", "spark"])
def test_a_file_that_stays_unreadable_is_told_and_taken_later(job: Job, reader: str) -> None:
    """Neither it nor half of it counts; the others do."""
    files = {user: job.deliver(ONE, user) for user in ("ana", "ben", "carl")}
    lasting = [Fault("cut", where=f".*{name}0.*", operation="GetObject") for name in ("ana",)]
    lasting += [Fault("answer", where=".*ben0.*", operation="GetObject", status=500)]
    job.proxy.does(*lasting)
    ended = job.ingest(ingest={"s3_reader": reader})
    job.proxy.does()
    counts = ended.record["counts"]
    assert (ended.exit_code, counts["files"], counts["files_unreadable"]) == (EXIT_DONE, 3, 2)
    assert job.users() == ["carl"]
    for user, said in (("ana", r"asked 3 times"), ("ben", "InternalError")):
        ((status, events, detail),) = job.ledger(files[user])
        assert (status, events) == ("unreadable", 0)
        assert (said if reader == "python" else "raretrail doctor --spark") in str(detail)
    assert job.ingest(ingest={"s3_reader": reader}).record["counts"]["events"] == 2
    assert job.users() == ["ana", "ben", "carl"]
    assert job.ledger(files["ana"])[-1] == ("taken", 1, None)
    assert job.ingest(ingest={"s3_reader": reader}).record["counts"]["files_new"] == 0


def test_what_a_listing_lacks_is_taken_by_the_next_run(job: Job) -> None:
    job.deliver(ONE, "ana")
    late = job.deliver(ONE, "ben")
    job.proxy.does(Fault("hide", operation="ListObjectsV2", hidden=".*ben.*"))
    assert job.ingest().record["counts"]["events"] == 1
    job.proxy.does()
    assert job.ingest().record["counts"]["events"] == 1
    assert job.ledger(late) == [("taken", 1, None)]
    assert job.users() == ["ana", "ben"]


def test_a_log_whose_listing_lags_loses_nothing(job: Job) -> None:
    """The newest commits of tables are not listed: none is written over."""
    job.deliver(ONE, "ana")
    job.ingest()
    version = job.warehouse.version(EVENTS)
    job.deliver(ONE, "ben")
    hidden = rf".*/events/_delta_log/{version:020}\.json"
    job.proxy.does(Fault("hide", operation="ListObjectsV2", where=".*events.*", hidden=hidden, times=3))
    try:
        job.ingest()
    except Exception as error:  # refused, where Delta does not look again by itself
        assert "\n" not in str(in_words(error))
    job.proxy.does()
    job.ingest()
    assert job.users() == ["ana", "ben"]


# --------------------------------------------------------------------------------------- permissions


def test_an_account_that_is_denied_is_held_back_alone(job: Job, tmp_path: Path) -> None:
    """One that may not be listed and one that may not be read: all of their findings stay staged, those of
    the other are published; given back, they catch up."""
    where = f"s3a://{job.bucket}/warehouse"
    settings = load_settings(options={"trail": [job.root], "warehouse": where, "alerts": {"min_score": 0}})[0]
    denied = {OTHER: ("ListObjectsV2", "s3:ListBucket"), THIRD: ("GetObject", "s3:GetObject")}
    for n in range(1, 11):
        day = NOON - timedelta(days=n)
        for account in (ONE, *denied):
            job.deliver(account, "habit", day, ana=f"iam:GetUser {HOME}", ben=f"s3:ListBuckets {HOME}")
    run(job.spark, settings, as_of=NOON)
    for account in (ONE, *denied):
        job.deliver(account, "away", NOON, ana=f"iam:CreateAccessKey {AWAY}")
    job.proxy.does(
        *(
            Fault(operation=operation, where=f"{job.bucket}/AWSLogs/o-abc123/{account}/.*", **DENIED)
            for account, (operation, _) in denied.items()
        )
    )
    ended = run(job.spark, settings, as_of=NOON + timedelta(hours=1))
    job.proxy.does()
    assert ended.exit_code == EXIT_HELD
    assert ended.record["held_scopes"] == [f"recipient_account_id={account}" for account in sorted(denied)]
    for account, (_, action) in denied.items():
        (told,) = [message for message in ended.messages if account in message]
        assert f"s3://{job.bucket}/AWSLogs/o-abc123/{account}/" in told
        assert f"AccessDenied: {action} is not allowed; allow it" in told
        assert "\n" not in told and told in ended.record["message"]
    warehouse = Warehouse(job.spark, where)
    assert {row["recipient_account_id"] for row in rows_of(warehouse.read(ANOMALIES))} == {ONE}
    with open_duckdb(where) as look:
        rows = look.rows(RUNS, order=(("started_at", "desc"),))
    for row in rows:
        row["started_at"] = in_utc(row["started_at"])
    (line,) = [
        one for one in runs_lines(rows, in_utc(rows[0]["finished_at"]), HOUR) if one.name == "last run"
    ]
    assert line.state == "fail" and all(account in line.seen for account in denied)
    ended = run(job.spark, settings, as_of=NOON + timedelta(hours=1, minutes=15))
    assert ended.exit_code == EXIT_DONE
    assert {row["recipient_account_id"] for row in rows_of(warehouse.read(ANOMALIES))} == {ONE, *denied}


@pytest.fixture
def command(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """A command of the line in this process and session: its exit code, what it says on standard error."""
    monkeypatch.setattr(session, "close_session", lambda spark: None)

    def do(name: str) -> tuple[int, str]:
        place = ["--trail", job.root, "--warehouse", job.warehouse.location]
        code = cli.main([name, *place, "--as-of", f"{NOON + timedelta(hours=2):%Y-%m-%dT%H:%MZ}", "--quiet"])
        return code, capsys.readouterr().err

    return do


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (Fault(operation="ListObjectsV2", where="BUCKET/.*", **DENIED), EXIT_USAGE,
         "{root}: AccessDenied: s3:ListBucket is not allowed; allow it (docs/setup.md has the policies)"),
        (Fault(operation="GetObject", where="BUCKET/.*", **DENIED), EXIT_USAGE,
         "AccessDenied: s3:GetObject is not allowed; allow it (docs/setup.md has the policies); no file of"),
        (Fault(where="BUCKET/.*", **EXPIRED), EXIT_FAILED,
         "{root}: ExpiredToken: the credentials have expired"),
        (Fault(operation="GetObject", where="BUCKET/.*", **EXPIRED), EXIT_FAILED,
         "ExpiredToken: the credentials have expired"),
        (Fault(where="faulty-warehouse/.*", **DENIED), EXIT_USAGE,
         "{warehouse}: AccessDenied: s3:GetObject and s3:PutObject are not allowed; allow them"),
        (Fault(operation="PutObject", where="faulty-warehouse/(?!.*lock).*", **DENIED), EXIT_USAGE,
         "AccessDenied: s3:PutObject is not allowed; allow it"),
        (Fault(operation="ListObjectsV2", where="faulty-warehouse/.*", **DENIED), EXIT_USAGE,
         "AccessDenied: s3:ListBucket is not allowed; allow it"),
        (Fault(where="faulty-warehouse/(?!.*lock).*", **EXPIRED), EXIT_FAILED, "expired"),
        (Fault("answer", operation="PutObject", where="faulty-warehouse/(?!.*lock).*"), EXIT_FAILED,
         "InternalError: We encountered an internal error. Please try again; run again once the storage"),
    ],
    ids=["trail-list", "trail-get", "trail-expired", "trail-expired-later", "warehouse", "warehouse-put",
         "warehouse-list", "warehouse-expired", "warehouse-500"],
)  # fmt: skip
def test_what_ends_a_run_is_one_line_and_an_exit_code(
    job: Job, command: Callable[..., tuple[int, str]], fault: Fault, code: int, said: str
) -> None:
    job.deliver(ONE, "ana")
    fault.where = fault.where.replace("BUCKET", job.bucket)
    job.proxy.does(fault)
    found, errors = command("ingest")
    job.proxy.does()
    assert fault.done
    print(errors)
    lines = errors.strip().splitlines()
    assert len(lines) == 1, errors
    assert said.format(root=job.root, warehouse=job.warehouse.location) in lines[0]
    assert len(lines[0]) < 600
    assert found == code
    assert job.users() == [], "nothing is half taken"
    assert command("ingest")[0] == EXIT_DONE
    assert job.users() == ["ana"]
