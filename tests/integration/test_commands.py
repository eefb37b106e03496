"""The commands and jobs as a scheduler starts them: processes of their own, real Spark, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tiny
from raretrail.errors import EXIT_DONE, EXIT_USAGE
from raretrail.look import open_duckdb
from raretrail.tables import ANOMALIES, EVENTS, INCIDENTS, RUNS

pytestmark = [pytest.mark.slow, pytest.mark.integration]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A tiny organisation with one intrusion, and the options to play its last two days."""
    return tiny.played(tmp_path_factory.mktemp("org") / "simulated")


def _run(command: list[str], timeout: float = 600) -> subprocess.CompletedProcess[str]:
    # As in an activated virtual environment: spark-submit asks python3 for Spark's home.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PATH": path},
    )


def _raretrail(*arguments: str) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable, "-m", "raretrail", *arguments])


def _found(warehouse: Path) -> list[tuple[Any, ...]]:
    with open_duckdb(str(warehouse)) as look:
        rows = look.rows(ANOMALIES, order=(("anomaly_id", "asc"),))
        assert look.count(INCIDENTS) == len({row["incident_id"] for row in rows})
        assert look.count(EVENTS) > 0
    return [(row["anomaly_id"], row["incident_id"], row["bits"], row["score"]) for row in rows]


@pytest.fixture(scope="module")
def stepped(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse filled by the four steps, each in a process of its own."""
    warehouse = tmp_path_factory.mktemp("steps") / "w"
    for step in ("ingest", "baseline", "score", "publish"):
        done = _raretrail(step, *options, "--warehouse", str(warehouse))
        assert done.returncode == EXIT_DONE, f"{step}: {done.stderr}"
        assert "CodeCache" not in done.stdout, "the JVM compiles to the end"
    return warehouse


def test_steps_in_processes_of_their_own_make_a_run(stepped: Path) -> None:
    with open_duckdb(str(stepped)) as look:
        runs = look.rows(RUNS, order=(("started_at", "asc"),))
    assert [row["status"] for row in runs] == ["done", "done", "staged", "done"]
    assert _found(stepped)


def test_the_job_under_plain_spark_submit_finds_the_same(
    options: list[str], stepped: Path, tmp_path: Path
) -> None:
    submit = shutil.which("spark-submit", path=str(Path(sys.executable).parent))
    if submit is None:
        pytest.skip("pyspark's spark-submit is not beside this Python")
    job = [submit, "--master", "local[2]", str(ROOT / "jobs" / "run.py")]
    done = _run([*job, *options, "--warehouse", str(tmp_path / "w"), "--format", "json"])
    assert done.returncode == EXIT_DONE, done.stderr[-3000:]
    records = [line for line in done.stdout.splitlines() if line.startswith('{"run_id"')]
    assert json.loads(records[0])["status"] == "done"
    assert _found(tmp_path / "w") == _found(stepped)

    refused = _run([*job, "--warehouse", str(tmp_path / "w"), "--from", "2026-02-01"])
    assert refused.returncode == EXIT_USAGE
    # spark-submit puts what a Python job writes to either stream into its standard output.
    assert "--from and --to go together" in refused.stdout
