"""Spark as its users have it: servers of their own processes on loopback, gone when the tests are."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from raretrail import runtime

ROOT = Path(__file__).resolve().parents[2]


def environment(scratch: Path) -> dict[str, str]:
    """The environment Spark's own commands need: our Java, and workers of our Python."""
    return {
        **os.environ,
        "JAVA_HOME": str(runtime.write_java_shim(runtime.find_java(), scratch / "java")),
        "SPARK_HOME": str(runtime.spark_home()),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_NO_DAEMONIZE": "1",
        "PYSPARK_PYTHON": sys.executable,
        "TZ": "UTC",
    }


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def server(command: Sequence[str], log: Path, port: int, scratch: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server process that listens on a port of loopback; it and its children end with the block."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=environment(scratch), start_new_session=True
        )
    try:
        _await(process, port, log)
        yield process
    finally:
        for kill in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, kill)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as caller:
            caller.settimeout(1)
            if caller.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.3)
    pytest.fail(f"nothing listens on {port}: {log.read_text(errors='replace')[-3000:]}")


def run(command: Sequence[str], scratch: Path, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """A command in the environment Spark needs."""
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=timeout, cwd=ROOT,
        env=environment(scratch),
    )  # fmt: skip
