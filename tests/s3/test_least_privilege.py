"""Who reads the trail and who writes the warehouse may do what deploy/policies says: it is enough, none of
it is superfluous, and neither may do the other's. What they prove themselves with is nowhere in what a run
leaves.

The server knows users and policies of buckets, so statements are given to a user by the bucket. It knows no
roles and no keys of KMS: `TakeReader` and `DecryptTrail` are not tried here; the reader is a profile.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from pyspark.sql import SparkSession

from factories import call, trail_file
from policies import Statement, statements
from raretrail import cli, session
from raretrail import s3 as seen_from_here
from raretrail.errors import EXIT_DONE, EXIT_USAGE, UsageError
from raretrail.session import close_session, in_words, open_session
from raretrail.settings import load_settings
from raretrail.stages.maintain import maintain
from raretrail.stages.run import Ended, run
from raretrail.tables import INCIDENTS, RUNS
from raretrail.warehouse import Warehouse
from s3_server import S3Server, User

pytestmark = pytest.mark.cluster

ACCOUNT, ORGANISATION, PREFIX = "111122223333", "o-abc123defg", "deep/raretrail"
NOON = datetime(2026, 2, 15, 12, tzinfo=UTC)
# Texts that nobody writes by chance, planted wherever credentials may stand.
TOKEN, SIGNATURE, HOOK, BEAT, CONF = (
    f"planted-{name}-8c1f2e" for name in ("token", "signature", "hook", "beat", "conf")
)


@dataclass
class Place:
    """Two buckets, who may reach them, and a session as both, opened when it is first needed."""

    server: S3Server
    trail: str
    warehouse: str
    reader: User
    writer: User
    folder: Path
    opened: SparkSession | None = None

    @property
    def spark(self) -> SparkSession:
        """The session."""
        if self.opened is None:
            self.opened = open_session(
                s3=True,
                cores="2",
                driver_memory="2g",
                scratch=self.folder,
                conf={
                    "spark.hadoop.fs.s3a.bucket.elsewhere.access.key": CONF,
                    "spark.hadoop.fs.s3a.bucket.elsewhere.secret.key": CONF,
                    "spark.hadoop.fs.s3a.bucket.elsewhere.session.token": CONF,
                },
            )
        return self.opened

    def grant(self, lacking: str = "") -> None:
        """Both policies in force, less one action of one of them (`reader:s3:GetObject`)."""
        for who, bucket, name, values in (
            (self.reader, self.trail, "trail-reader", {
                "trail_bucket_arn": f"arn:aws:s3:::{self.trail}", "organization_id": ORGANISATION,
                "trail_key_arn": "none", "region": "none",
            }),
            (self.writer, self.warehouse, "warehouse-writer", {
                "warehouse_bucket_arn": f"arn:aws:s3:::{self.warehouse}", "warehouse_prefix": PREFIX,
                "reader_role_arn": "none",
            }),
        ):  # fmt: skip
            role = name.rpartition("-")[2]
            given = [
                without(one, lacking.removeprefix(f"{role}:"))
                for one in statements(name, **values).values()
                if all(action.startswith("s3:") for action in one["Action"])
            ]
            said = [{**one, "Principal": {"AWS": [who.access]}} for one in given if one["Action"]]
            self.server.set_policy(bucket, said)

    def options(self) -> dict[str, Any]:
        """Settings that name both."""
        return {
            "trail": [f"s3://{self.trail}/AWSLogs/{ORGANISATION}"],
            "warehouse": f"s3a://{self.warehouse}/{PREFIX}",
            "alerts": {"min_score": 0},
        }

    def run(self, *steps: str) -> Ended:
        """One run."""
        named = {"steps": steps} if steps else {}
        settings, _ = load_settings(options=self.options())
        return run(self.spark, settings, as_of=NOON + timedelta(hours=1), **named)  # type: ignore[arg-type]

    def deliver(self, name: str, day: datetime, *calls: str, **more: Any) -> None:
        """A file of calls of ana's."""
        records = [call("ana", *told.split(), day, **more) for told in calls]  # type: ignore[arg-type]
        key = f"AWSLogs/{ORGANISATION}/{ACCOUNT}/CloudTrail/eu-west-1/{day:%Y/%m/%d}/{name}.json.gz"
        self.server.client().put_object(Bucket=self.trail, Key=key, Body=trail_file(records))

    def refused(self) -> list[str]:
        """What the server refused since it was asked last."""
        return [
            f"{one.user} {one.operation} {one.bucket}/{one.key or one.prefix}"
            for one in self.server.requests()
            if one.status == 403
        ]


def without(statement: Statement, action: str) -> Statement:
    """The statement less one action."""
    return {**statement, "Action": [one for one in statement["Action"] if one != action]}


@pytest.fixture(scope="module")
def place(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Ten days of habits and one call from elsewhere; the job is the writer, and the reader by a profile."""
    folder = tmp_path_factory.mktemp("least")
    reader, writer = s3.make_user("least-reader"), s3.make_user("least-writer")
    trail, warehouse = s3.make_bucket("least-trail"), s3.make_bucket("least-warehouse")
    config = folder / "config"
    config.write_text(
        f"[profile trail]\naws_access_key_id = {reader.access}\naws_secret_access_key = {reader.secret}\n"
    )
    variables = s3.environment(writer) | {
        "AWS_CONFIG_FILE": str(config),
        "RARETRAIL_S3_PROFILES": f"{trail}=trail",
        "RARETRAIL_WEBHOOK_SECRET": HOOK,
        "RARETRAIL_HEARTBEAT_URL": f"http://127.0.0.1:9/{BEAT}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        seen_from_here._client.cache_clear()
        made = Place(s3, trail, warehouse, reader, writer, folder)
        for n in range(1, 11):
            made.deliver(f"habit{n}", NOON - timedelta(days=n), "iam:GetUser 87.210.98.182")
        url = (
            f"https://b.s3.eu-west-1.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAX%2F"
            f"20260215&X-Amz-Expires=900&X-Amz-Security-Token={TOKEN}&X-Amz-Signature={SIGNATURE}"
        )
        request = {"url": url, "X-Amz-Signature": SIGNATURE, "x-amz-security-token": TOKEN, "userName": "ana"}
        made.deliver(
            "away", NOON, "iam:CreateAccessKey 212.142.174.158",
            requestParameters=request, errorMessage=f"AccessDenied at {url}",
        )  # fmt: skip
        made.grant()
        yield made
        if made.opened:
            close_session(made.opened)
        seen_from_here._client.cache_clear()


@pytest.fixture(scope="module")
def ended(place: Place) -> tuple[Ended, list[str]]:
    """A whole run under both policies, and what was refused meanwhile."""
    place.grant()
    place.server.requests()
    done = place.run()
    return done, place.refused()


def test_both_policies_are_enough(place: Place, ended: tuple[Ended, list[str]]) -> None:
    done, refused = ended
    assert done.exit_code == EXIT_DONE, done.messages
    assert done.record["counts"]["events"] == 11
    assert done.record["counts"]["incidents"] >= 1
    # Delta looks for a table above each table, is refused that above the warehouse, and goes on.
    assert set(refused) <= {f"{place.writer.access} HeadObject {place.warehouse}/deep/_delta_log"}


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        (
            "reader:s3:ListBucket",
            "/AWSLogs/o-abc123defg: AccessDenied: s3:ListBucket is not allowed; allow it",
        ),
        ("reader:s3:GetObject", "AccessDenied: s3:GetObject is not allowed; allow it"),
        ("writer:s3:ListBucket", "AccessDenied: s3:ListBucket is not allowed; allow it"),
        ("writer:s3:GetObject", "AccessDenied: s3:GetObject"),
        ("writer:s3:PutObject", "AccessDenied: s3:GetObject and s3:PutObject are not allowed; allow them"),
    ],
    ids=lambda text: text.replace(":", "-") if text.count(":") == 2 else "",
)
def test_without_a_permission_a_run_says_which(
    place: Place, ended: tuple[Ended, list[str]], lacking: str, said: str
) -> None:
    place.deliver(f"new{lacking.replace(':', '-')}", NOON, "iam:GetUser 87.210.98.182")
    place.grant(lacking)
    try:
        with pytest.raises(UsageError) as raised:
            try:
                place.run("ingest")
            except Exception as error:
                raise in_words(error) from error
    finally:
        place.grant()
    print(raised.value)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert place.run("ingest").record["counts"]["events"] >= 1, "given back, it goes on"


def test_without_delete_nothing_is_maintained(place: Place, ended: tuple[Ended, list[str]]) -> None:
    """VACUUM itself would say that there was nothing to delete."""
    warehouse = Warehouse(place.spark, place.options()["warehouse"])
    place.grant("writer:s3:DeleteObject")
    try:
        with pytest.raises(UsageError, match="AccessDenied: s3:DeleteObject is not allowed; allow it"):
            maintain(warehouse, NOON, chosen=[RUNS])
    finally:
        place.grant()
    assert [one.table for one in maintain(warehouse, NOON, chosen=[RUNS])] == ["runs"]


def test_an_upload_in_parts_is_taken_back(place: Place) -> None:
    """The policy's own test, as no run here writes a file of 64 MB: parts of a failed upload are billed."""
    client = place.server.client(place.writer)
    target = {"Bucket": place.warehouse, "Key": f"{PREFIX}/parts"}

    def begun() -> dict[str, str]:
        return {**target, "UploadId": client.create_multipart_upload(**target)["UploadId"]}

    client.abort_multipart_upload(**begun())
    place.grant("writer:s3:AbortMultipartUpload")
    try:
        with pytest.raises(ClientError, match="AccessDenied"):
            client.abort_multipart_upload(**begun())
    finally:
        place.grant()


def test_neither_may_do_what_is_the_others(place: Place) -> None:
    place.grant()
    root = place.server.client()
    log = f"AWSLogs/{ORGANISATION}/{ACCOUNT}/CloudTrail/eu-west-1/2026/02/15/away.json.gz"
    root.put_object(Bucket=place.trail, Key="AWSLogs/o-other/x.json.gz", Body=b"")
    for key in ("other/x", f"{PREFIX}-other/x", f"{PREFIX}/x"):
        root.put_object(Bucket=place.warehouse, Key=key, Body=b"")
    reader, writer = place.server.client(place.reader), place.server.client(place.writer)

    def listing(bucket: str, prefix: str) -> dict[str, str]:
        return {"Bucket": bucket, "Prefix": prefix}

    def at(bucket: str, key: str) -> dict[str, str]:
        return {"Bucket": bucket, "Key": key}

    own = f"AWSLogs/{ORGANISATION}/"
    assert reader.list_objects_v2(**listing(place.trail, own))["KeyCount"] > 10
    assert reader.get_object(**at(place.trail, log))
    assert writer.list_objects_v2(**listing(place.warehouse, f"{PREFIX}/"))["KeyCount"] >= 1
    assert writer.get_object(**at(place.warehouse, f"{PREFIX}/x"))
    for client, operation, target in (
        (reader, "put_object", at(place.trail, log)),
        (reader, "put_object", at(place.trail, f"{own}new.json.gz")),
        (reader, "delete_object", at(place.trail, log)),
        (reader, "get_object", at(place.trail, "AWSLogs/o-other/x.json.gz")),
        (reader, "list_objects_v2", listing(place.trail, "")),
        (reader, "list_objects_v2", listing(place.trail, "AWSLogs/o-other/")),
        (reader, "list_objects_v2", listing(place.warehouse, f"{PREFIX}/")),
        (reader, "get_object", at(place.warehouse, f"{PREFIX}/x")),
        (reader, "put_object", at(place.warehouse, f"{PREFIX}/x")),
        (writer, "get_object", at(place.trail, log)),
        (writer, "put_object", at(place.trail, log)),
        (writer, "delete_object", at(place.trail, log)),
        (writer, "list_objects_v2", listing(place.trail, own)),
        (writer, "get_object", at(place.warehouse, "other/x")),
        (writer, "get_object", at(place.warehouse, f"{PREFIX}-other/x")),
        (writer, "put_object", at(place.warehouse, "other/x")),
        (writer, "delete_object", at(place.warehouse, f"{PREFIX}-other/x")),
        (writer, "list_objects_v2", listing(place.warehouse, "other/")),
        (writer, "list_objects_v2", listing(place.warehouse, "")),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            getattr(client, operation)(**target)


# ------------------------------------------------------------------------------------- credentials


def test_credentials_are_nowhere_in_what_a_run_leaves(
    place: Place,
    ended: tuple[Ended, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Tables, log, metrics, report, settings and doctor, of a good run and of failing ones."""
    monkeypatch.setattr(session, "close_session", lambda spark: None)
    hook = f"http://127.0.0.1:9/{HOOK}?key={HOOK}"
    monkeypatch.setenv("RARETRAIL_WEBHOOK_URL", hook)
    settings = tmp_path / "settings.yml"
    metrics = tmp_path / "left" / "raretrail.prom"
    metrics.parent.mkdir()
    settings.write_text(json.dumps({**place.options(), "monitoring": {"metrics_file": str(metrics)}}))
    warehouse = ["--warehouse", place.options()["warehouse"]]
    named = ["--conf", str(settings)]
    as_of = ["--as-of", f"{NOON + timedelta(hours=1, minutes=15):%Y-%m-%dT%H:%MZ}"]

    def do(*arguments: str) -> int:
        return cli.main([*arguments, "--debug"])

    assert do("run", *named, "--print-settings") == EXIT_DONE
    assert do("run", *named, *as_of, "--log-format", "json", "--format", "json") == EXIT_DONE
    do("doctor", *named, "--spark")
    do("doctor", *named, "--spark", "--format", "json")
    assert do("report", *warehouse, "--out", str(tmp_path / "left" / "report.html")) == EXIT_DONE
    assert do("sql", "select * from runs", *warehouse, "--format", "json") == EXIT_DONE
    assert do("sql", "select * from events", *warehouse, "--format", "json") == EXIT_DONE
    assert do("export", *warehouse) == EXIT_DONE
    assert do("alert", _incident(place), *warehouse) == EXIT_DONE
    place.deliver("more", NOON, "iam:GetUser 87.210.98.182")
    for lacking in ("reader:s3:GetObject", "writer:s3:ListBucket"):
        place.grant(lacking)
        try:
            assert do("run", *named, *as_of) == EXIT_USAGE
        finally:
            place.grant()
    said = "".join(capfd.readouterr())
    assert "AccessDenied" in said
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == place.writer.secret, "or there is nothing to find"
    planted = [place.reader.secret, place.writer.secret, place.server.root.secret]
    planted += [TOKEN, SIGNATURE, HOOK, BEAT, CONF]
    assert [text for text in planted if text in said] == []
    left = [metrics, tmp_path / "left" / "report.html"]
    left += [file for file in (place.server.folder / place.warehouse).rglob("*") if file.is_file()]
    assert len(left) > 100
    for file in left:
        held = _contents(file)
        assert [text for text in planted if text.encode() in held] == [], file


def _incident(place: Place) -> str:
    row = Warehouse(place.spark, place.options()["warehouse"]).read(INCIDENTS).first()
    assert row is not None
    return str(row["incident_id"])


def _contents(file: Path) -> bytes:
    """A file's bytes, and what is compressed in a Parquet file as text."""
    data = file.read_bytes()
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        data += json.dumps(pq.ParquetFile(file).read().to_pylist(), default=str).encode()
    return data
