"""The server the tests of S3 stand on is one: users, policies, conditional writes, a log of requests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from raretrail.session import close_session, open_session
from s3_server import S3Server, counted

pytestmark = pytest.mark.cluster


def test_users_may_what_a_policy_says(s3: S3Server, bucket: str) -> None:
    reader = s3.make_user("reader")
    s3.client().put_object(Bucket=bucket, Key="a/b", Body=b"text")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.client(reader).get_object(Bucket=bucket, Key="a/b")
    s3.set_policy(
        bucket,
        [{"Effect": "Allow", "Principal": {"AWS": [reader.access]}, "Action": ["s3:GetObject"],
          "Resource": [f"arn:aws:s3:::{bucket}/*"]}],
    )  # fmt: skip
    assert s3.client(reader).get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"text"
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.client(reader).put_object(Bucket=bucket, Key="a/c", Body=b"")


def test_of_writers_of_one_new_object_one_wins(s3: S3Server, bucket: str) -> None:
    def write(n: int) -> bool:
        try:
            s3.client().put_object(Bucket=bucket, Key="one", Body=str(n).encode(), IfNoneMatch="*")
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict")
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(8))) == 1
    etag = s3.client().head_object(Bucket=bucket, Key="one")["ETag"]
    s3.client().put_object(Bucket=bucket, Key="one", Body=b"next", IfMatch=etag)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.client().put_object(Bucket=bucket, Key="one", Body=b"late", IfMatch=etag)


def test_every_request_is_logged(s3: S3Server, bucket: str) -> None:
    s3.requests()
    client = s3.client()
    client.put_object(Bucket=bucket, Key="day 1/a b", Body=b"")
    client.list_objects_v2(Bucket=bucket, Prefix="day 1/")
    with pytest.raises(ClientError):
        client.get_object(Bucket=bucket, Key="nothing")
    put, listed, got = s3.requests()
    assert (put.operation, put.bucket, put.key, put.status, put.user) == (
        "PutObject", bucket, "day 1/a b", 200, "root",
    )  # fmt: skip
    assert (listed.operation, listed.prefix) == ("ListObjectsV2", "day 1/")
    assert (got.operation, got.status, got.error) == ("GetObject", 404, "NoSuchKey")
    assert not s3.requests()


def test_a_session_reads_and_writes_delta_tables(as_root: S3Server, bucket: str, tmp_path: Path) -> None:
    spark = open_session(s3=True, cores="2", driver_memory="1g", scratch=tmp_path)
    try:
        for scheme in ("s3a", "s3"):
            table = f"{scheme}://{bucket}/{scheme}/table"
            spark.range(3).write.format("delta").save(table)
            spark.range(3, 5).write.format("delta").mode("append").save(table)
            assert spark.read.format("delta").load(table).count() == 5
        found = counted(as_root.requests())
    finally:
        close_session(spark)
    assert found["PutObject"] >= 8
