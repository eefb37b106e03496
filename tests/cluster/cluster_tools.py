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
from typing import Any

import pytest

from raretrail import runtime
from raretrail.look import open_duckdb
from raretrail.tables import ANOMALIES, BASELINE_VALUE, EVENTS, INCIDENTS, PRESENCE_DAILY, Table

ROOT = Path(__file__).resolve().parents[2]
# What two runs that find the same have alike, each table in the order of its key.
COMPARED: dict[Table, tuple[str, ...]] = {
    EVENTS: ("recipient_account_id", "event_id", "command", "place", "source_position"),
    PRESENCE_DAILY: (*PRESENCE_DAILY.key, "event_count", "hours"),
    BASELINE_VALUE: (*BASELINE_VALUE.key, "days_90", "principals_90", "settled_90", "days_decayed"),
    ANOMALIES: ("anomaly_id", "incident_id", "bits", "score", "evidence_event_ids", "summary"),
    INCIDENTS: ("incident_id", "bits", "score", "commands", "evidence_event_ids"),
}


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


def contents(warehouse: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What a warehouse holds, by table, as far as two runs must agree."""
    held = {}
    with open_duckdb(str(warehouse)) as look:
        for table, names in COMPARED.items():
            rows = look.rows(table)
            held[table.name] = sorted(tuple(str(row[name]) for name in names) for row in rows)
    assert all(held.values()), "nothing to compare"
    return held
