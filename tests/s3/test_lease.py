"""The lock of a warehouse in S3."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from raretrail import s3 as seen_from_here
from raretrail.errors import BusyError, RaretrailError, UsageError
from raretrail.lease import Lease, held
from s3_server import S3Server

pytestmark = pytest.mark.cluster

_SHORT = timedelta(seconds=3)


@pytest.fixture
def warehouse(as_root: S3Server, bucket: str) -> str:
    return f"s3a://{bucket}/w"


def test_one_of_many_holds_it(warehouse: str) -> None:
    leases = [Lease(warehouse) for _ in range(8)]

    def take(lease: Lease) -> bool:
        try:
            lease.take()
        except BusyError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        took = list(pool.map(take, leases))
    assert sum(took) == 1
    leases[took.index(True)].release()
    with held(warehouse), pytest.raises(BusyError, match=f"process {os.getpid()} on .* is running"):
        Lease(warehouse).take()


def test_a_holder_that_lives_is_not_overtaken(warehouse: str) -> None:
    with held(warehouse, _SHORT) as lease:
        time.sleep(2 * _SHORT.total_seconds())
        lease.require()
        with pytest.raises(BusyError):
            Lease(warehouse, _SHORT).take()


_HOLDER = """
import sys, time
from datetime import timedelta
from raretrail.lease import Lease
Lease(sys.argv[1], timedelta(seconds=3)).take()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(warehouse: str) -> subprocess.Popen[str]:
    """Another process that holds it."""
    process = subprocess.Popen([sys.executable, "-c", _HOLDER, warehouse], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_dead_holder_blocks_no_longer_than_said(warehouse: str, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(BusyError, match=f"process {holder.pid} on .* last heard of"):
        Lease(warehouse, _SHORT).take()
    holder.kill()
    begun = time.monotonic()
    while True:
        try:
            lease = Lease(warehouse, _SHORT)
            lease.take()
            break
        except BusyError:
            # One second more, since the server tells times in whole ones.
            assert time.monotonic() - begun < _SHORT.total_seconds() + 1.5
            time.sleep(0.1)
    lease.release()


def test_a_holder_that_slept_too_long_writes_nothing_more(
    warehouse: str, holder: subprocess.Popen[str]
) -> None:
    lease = Lease(warehouse, _SHORT)
    os.kill(holder.pid, signal.SIGSTOP)
    time.sleep(_SHORT.total_seconds() + 1.5)
    lease.take()
    os.kill(holder.pid, signal.SIGCONT)
    time.sleep(_SHORT.total_seconds() / 2)
    lease.require()  # it did not take it back
    lease.release()


def test_a_holder_that_was_overtaken_or_cannot_reach_the_server_is_told(
    warehouse: str, as_root: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(warehouse, _SHORT)
    lease.take()
    bucket, _ = seen_from_here.split(warehouse)
    as_root.client().put_object(Bucket=bucket, Key="w/_raretrail.lock", Body=b"who knows")
    with pytest.raises(RaretrailError, match="lock of the warehouse was lost"):
        while True:
            lease.require()
            time.sleep(0.1)
    lease.release()
    assert as_root.client().get_object(Bucket=bucket, Key="w/_raretrail.lock")["Body"].read() == b"who knows"
    with pytest.raises(BusyError, match="another process is running"):
        Lease(warehouse, _SHORT).take()


def test_a_request_that_is_sent_twice_finds_its_own_lock(
    warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = seen_from_here.client()

    class Twice:
        """The answer to the first is lost on the way, and botocore sends the request again."""

        def __getattr__(self, name: str) -> object:
            return getattr(client, name)

        def put_object(self, **request: object) -> object:
            client.put_object(**request)
            return client.put_object(**request)

    monkeypatch.setattr(seen_from_here, "client", lambda bucket: Twice())
    with held(warehouse, _SHORT) as lease:
        time.sleep(_SHORT.total_seconds() / 2)
        lease.require()


def test_a_server_without_conditional_writes_is_refused(
    warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = seen_from_here.client()

    class Careless:
        def __getattr__(self, name: str) -> object:
            return getattr(client, name)

        def put_object(self, **request: object) -> object:
            return client.put_object(
                **{name: value for name, value in request.items() if not name.startswith("If")}
            )

    monkeypatch.setattr(seen_from_here, "client", lambda bucket: Careless())
    with pytest.raises(UsageError, match="no conditional writes"):
        Lease(warehouse).take()


def test_a_warehouse_one_may_not_write_is_said_so(
    warehouse: str, as_root: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in as_root.environment(as_root.make_user("onlooker")).items():
        monkeypatch.setenv(name, value)
    seen_from_here._client.cache_clear()
    with pytest.raises(UsageError, match=r"--warehouse .*AccessDenied: .*s3:PutObject"):
        Lease(warehouse).take()
