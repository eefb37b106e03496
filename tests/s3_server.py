"""A real S3 server on loopback: versitygw over a folder, with users, policies, a log of every request and,
where asked for, notifications. It is fetched and built by its Go module path, and ends with the block that
started it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest

MODULE = "github.com/versity/versitygw"
VERSION = "v1.8.0"
REGION = "eu-west-1"
ROOT = Path(__file__).resolve().parents[1]


class User(NamedTuple):
    """Whose requests they are; the first of a server may do everything."""

    access: str
    secret: str


class Request(NamedTuple):
    """One request as the server saw it. operation is S3's name (`GetObject`), key empty for a bucket,
    query what follows the question mark, error S3's code or empty."""

    user: str
    operation: str
    bucket: str
    key: str
    query: str
    status: int
    error: str

    @property
    def prefix(self) -> str:
        """The prefix a listing asked for."""
        found = re.search(r"(?:^|&)prefix=([^&]*)", self.query)
        return unquote(found[1]) if found else ""


_LINE = re.compile(
    r"\S+ (?P<bucket>\S+) \[[^]]+\] \S+ (?P<user>\S+) \S+ (?P<operation>\S+) (?P<key>.*?) "
    r"(?P<uri>/\S*) (?P<status>\d{3}) (?P<error>\S+) \d+ \d+ "
)


class S3Server:
    """A running server: where it listens, who may do everything, what it was asked."""

    def __init__(self, port: int, root: User, log: Path, folder: Path, program: Path) -> None:
        self.port = port
        self.endpoint = f"http://127.0.0.1:{port}"
        self.root = root
        self.folder = folder
        self._log = log
        self._program = program
        self._seen = 0

    def client(self, user: User | None = None, *, checksums: bool = True) -> Any:
        """A boto3 client of S3 as this user, of the first one by default; without checksums it stores objects
        as CloudTrail does, with an ETag alone."""
        import boto3
        from botocore.config import Config

        who = user or self.root
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=who.access,
            aws_secret_access_key=who.secret,
            config=Config(
                s3={"addressing_style": "path"},
                retries={"max_attempts": 2},
                request_checksum_calculation="when_supported" if checksums else "when_required",
            ),
        )

    def environment(self, user: User | None = None) -> dict[str, str]:
        """What a process needs in its environment to reach the server as this user, and nothing of whose
        keys this machine may have."""
        who = user or self.root
        return {
            "AWS_ACCESS_KEY_ID": who.access,
            "AWS_SECRET_ACCESS_KEY": who.secret,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def make_user(self, access: str) -> User:
        """A new user who may do nothing until a policy says so."""
        user = User(access, f"secret-of-{access}")
        self._admin("create-user", "--access", access, "--secret", user.secret, "--role", "user")
        return user

    def make_bucket(self, name: str) -> str:
        """A new bucket of the first user; its name."""
        self.client().create_bucket(Bucket=name)
        return name

    def set_policy(self, bucket: str, statements: Sequence[dict[str, Any]]) -> None:
        """Let others into a bucket: statements of a bucket policy, whose principals are users' keys."""
        policy = {"Version": "2012-10-17", "Statement": list(statements)}
        self.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))

    def upload(self, source: Path, bucket: str, prefix: str = "") -> int:
        """Put every file below a local folder into a bucket under prefix; how many."""
        client, count = self.client(), 0
        for file in sorted(source.rglob("*")):
            if file.is_file():
                client.put_object(
                    Bucket=bucket, Key=prefix + file.relative_to(source).as_posix(), Body=file.read_bytes()
                )
                count += 1
        return count

    def requests(self) -> list[Request]:
        """Every request since the last call of this."""
        text = self._log.read_text(errors="replace")
        whole, self._seen = text[self._seen :], len(text)
        return [_request(line) for line in whole.splitlines() if _LINE.match(line)]

    def _admin(self, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._program), "admin", "--access", self.root.access, "--secret", self.root.secret,
             "--endpoint-url", self.endpoint, "--region", REGION, *arguments],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def counted(requests: Iterable[Request]) -> Counter[str]:
    """How many requests there were of each operation."""
    return Counter(request.operation for request in requests)


def _request(line: str) -> Request:
    found = _LINE.match(line)
    assert found
    return Request(
        found["user"],
        found["operation"].removeprefix("s3_"),
        found["bucket"],
        "" if found["key"] == "-" else found["key"],
        found["uri"].partition("?")[2],
        int(found["status"]),
        "" if found["error"] == "-" else found["error"],
    )


def installed() -> Path:
    """The server's program, built the first time. Skips the test where there is no Go; RARETRAIL_VERSITYGW
    names a program that is there already."""
    if given := os.environ.get("RARETRAIL_VERSITYGW"):
        return Path(given)
    program = ROOT / ".cache" / f"versitygw-{VERSION}" / "versitygw"
    if program.is_file():
        return program
    go = shutil.which("go")
    if go is None:
        pytest.skip("no `go` on this machine, which builds the S3 server (versitygw)")
    done = subprocess.run(
        [go, "install", f"{MODULE}/cmd/versitygw@{VERSION}"],
        env={**os.environ, "GOBIN": str(program.parent), "GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.fail(f"go install {MODULE}@{VERSION}: {done.stderr[-2000:]}")
    return program


@contextmanager
def s3_server(folder: Path, webhook: str | None = None) -> Iterator[S3Server]:
    """A server over new folders below `folder`; with webhook, it posts there what happens to objects."""
    program = installed()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    for name in ("buckets", "users"):
        (folder / name).mkdir(parents=True)
    root, log = User("root", "secret-of-root"), folder / "requests.log"
    command = [
        str(program), "--port", f"127.0.0.1:{port}", "--region", REGION, "--access-log", str(log),
        "--iam-dir", str(folder / "users"), "--iam-cache-disable", "--quiet",
        *(["--event-webhook-url", webhook] if webhook else []), "posix", str(folder / "buckets"),
    ]  # fmt: skip
    with (folder / "server.log").open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "ROOT_ACCESS_KEY": root.access, "ROOT_SECRET_KEY": root.secret},
        )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"versitygw does not listen: {(folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield S3Server(port, root, log, folder / "buckets", program)
    finally:
        for kill in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, kill)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
