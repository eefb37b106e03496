"""Who reads the trail and who writes the warehouse may do what deploy/policies says, and neither may do the
other's.

The server knows users and policies of buckets, so statements are given to a user by the bucket. It knows no
roles and no keys of KMS: `TakeReader` and `DecryptTrail` are not tried here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from factories import call, trail_file
from policies import Statement, statements
from s3_server import S3Server, User

pytestmark = pytest.mark.cluster

ACCOUNT, ORGANISATION, PREFIX = "111122223333", "o-abc123defg", "deep/raretrail"
NOON = datetime(2026, 2, 15, 12, tzinfo=UTC)


@dataclass
class Place:
    """Two buckets, and who may reach them."""

    server: S3Server
    trail: str
    warehouse: str
    reader: User
    writer: User

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

    def deliver(self, name: str, day: datetime, *calls: str, **more: Any) -> None:
        """A file of calls of ana's."""
        records = [call("ana", *told.split(), day, **more) for told in calls]  # type: ignore[arg-type]
        key = f"AWSLogs/{ORGANISATION}/{ACCOUNT}/CloudTrail/eu-west-1/{day:%Y/%m/%d}/{name}.json.gz"
        self.server.client().put_object(Bucket=self.trail, Key=key, Body=trail_file(records))


def without(statement: Statement, action: str) -> Statement:
    """The statement less one action."""
    return {**statement, "Action": [one for one in statement["Action"] if one != action]}


@pytest.fixture(scope="module")
def place(s3: S3Server) -> Place:
    """Ten days of a trail, and both policies in force."""
    reader, writer = s3.make_user("least-reader"), s3.make_user("least-writer")
    made = Place(s3, s3.make_bucket("least-trail"), s3.make_bucket("least-warehouse"), reader, writer)
    for n in range(11):
        name = f"habit{n}" if n else "away"
        made.deliver(name, NOON - timedelta(days=n), "iam:GetUser 87.210.98.182")
    made.grant()
    return made


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
