"""What the tests of S3 share: a server of its own, and a tiny organisation whose trail lies in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_tools import raretrail

import tiny
from raretrail import s3 as seen_from_here
from s3_faults import Proxy, faulty
from s3_server import S3Server, s3_server

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3 server; each test makes buckets, and users where it needs them, of its own."""
    with s3_server(tmp_path_factory.mktemp("s3") / "server") as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server, request: pytest.FixtureRequest) -> str:
    """An empty bucket for one test."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:50].strip("-")
    return s3.make_bucket(f"{name}-{next(_NUMBERS)}")


@pytest.fixture
def as_root(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The server, reached by this process as the user who may do everything."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    seen_from_here._client.cache_clear()
    yield s3
    seen_from_here._client.cache_clear()


@pytest.fixture(scope="session")
def proxy(s3: S3Server) -> Iterator[Proxy]:
    """A proxy before the server, shared by all tests."""
    with faulty(s3) as made:
        yield made


@pytest.fixture
def through(proxy: Proxy, as_root: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The proxy, through which this process reaches the server until it is told to misbehave."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    proxy.does()
    yield proxy
    proxy.does()


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for logs and the Java shim."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="session")
def organisation(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A tiny organisation with one intrusion, and the options to play its last two days."""
    return tiny.played(tmp_path_factory.mktemp("org") / "simulated")


@pytest.fixture(scope="session")
def trail(s3: S3Server, organisation: list[str]) -> str:
    """The bucket its trail lies in."""
    bucket = s3.make_bucket("the-trail")
    s3.upload(Path(organisation[1]), bucket)
    return bucket


@pytest.fixture(scope="session")
def local(organisation: list[str], s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> tiny.Contents:
    """What the job leaves behind when trail and warehouse are folders of this machine."""
    warehouse = tmp_path_factory.mktemp("local") / "w"
    done = raretrail(s3, "run", *organisation, "--warehouse", str(warehouse), "--quiet")
    assert done.returncode == 0, done.stderr
    return tiny.contents(warehouse, f"{organisation[1]}/")
