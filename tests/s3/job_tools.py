"""The job as a process of its own that reaches S3 as a user of the server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from s3_server import S3Server, User

ROOT = Path(__file__).resolve().parents[2]


def environment(server: S3Server, user: User | None = None) -> dict[str, str]:
    """This machine's environment, with the server's in place of any keys and places of S3 it has."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**ours, **server.environment(user)}


def start(server: S3Server, *arguments: str, user: User | None = None) -> subprocess.Popen[str]:
    """`raretrail ARGUMENTS`, under way."""
    return subprocess.Popen(
        [sys.executable, "-m", "raretrail", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment(server, user),
    )  # fmt: skip


def raretrail(
    server: S3Server, *arguments: str, user: User | None = None
) -> subprocess.CompletedProcess[str]:
    """`raretrail ARGUMENTS`, to its end."""
    process = start(server, *arguments, user=user)
    try:
        out, errors = process.communicate(timeout=900)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def options(played: Sequence[str], bucket: str, warehouse: str) -> list[str]:
    """The options of a run whose trail is in this bucket."""
    given = list(played)
    given[given.index("--trail") + 1] = f"s3a://{bucket}"
    return ["run", *given, "--warehouse", warehouse, "--quiet"]
