"""What a server tells of objects by itself is understood."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from raretrail.cloudtrail.notifications import named_below
from receiver import receiver
from s3_server import s3_server

pytestmark = pytest.mark.cluster


def test_the_servers_own_notifications_name_what_was_written(tmp_path: Path) -> None:
    written = [f"AWSLogs/111122223333/CloudTrail/eu-west-1/2026/02/15/{n}.json.gz" for n in range(5)]
    with (
        receiver(tmp_path / "told", ["200"]) as told,
        s3_server(tmp_path / "s3", webhook=f"{told.base}/events") as server,
    ):
        client, bucket = server.client(), server.make_bucket("audit")
        for key in [*written, "elsewhere/x.json.gz"]:
            client.put_object(Bucket=bucket, Key=key, Body=b"x")
        client.delete_object(Bucket=bucket, Key=written[0])
        until = time.monotonic() + 30
        while len(told.requests()) < 1 + 6 + 1:  # what it tries the webhook with, first
            assert time.monotonic() < until, told.requests()
            time.sleep(0.1)
        messages = [(f"request {n}", request["body"]) for n, request in enumerate(told.requests())]
    named = named_below(messages, [f"s3a://{bucket}/AWSLogs"])
    assert sorted(named.objects) == [f"s3://{bucket}/{key}" for key in written]
    assert (named.others, named.elsewhere, named.refused) == (2, 1, [])
