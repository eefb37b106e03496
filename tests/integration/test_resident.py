"""A resident process finds what separate ones find, outlives its JVM, and stops when it is told to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

import tiny
from raretrail.settings import Settings, load_settings
from raretrail.simulate import simulate
from raretrail.stages.run import run
from raretrail.watch import Watch

pytestmark = [pytest.mark.integration, pytest.mark.long]


@pytest.fixture(scope="module")
def organisation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, datetime]:
    """A small organisation's trail, and when its one intrusion is over."""
    out = tmp_path_factory.mktemp("organisation")
    campaign = simulate(out, tiny.SHAPE).campaigns[0]
    return out, datetime.fromisoformat(campaign["last_time"])


def _deliver(trail: Path, until: datetime, into: Path) -> None:
    """What of the trail is delivered by then."""
    for file in trail.rglob("*.json.gz"):
        if file.name.split("_")[3] <= f"{until:%Y%m%dT%H%MZ}":
            (into / file.relative_to(trail)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, into / file.relative_to(trail))


def _settings(out: Path, trail: Path, warehouse: Path) -> Settings:
    options = {
        "trail": [str(trail)],
        "warehouse": str(warehouse),
        "geo": {"asn_db": str(out / "asn.mmdb")},
    }
    return load_settings(options=options)[0]


def test_a_resident_process_finds_what_separate_ones_find(
    organisation: tuple[Path, datetime], spark: SparkSession, tmp_path: Path
) -> None:
    out, over = organisation
    moments = [over - timedelta(hours=1), over + timedelta(minutes=20), over + timedelta(hours=2)]
    trail, apart, resident = tmp_path / "trail", tmp_path / "apart", tmp_path / "resident"
    settings = _settings(out, trail, resident)
    number = iter(moments)

    class Sessions:
        def open(self) -> SparkSession:
            return spark

        def rest(self, session: SparkSession) -> None:
            pass

        def close(self, session: SparkSession) -> None:
            pass

    def once(session: SparkSession) -> None:
        moment = next(number)
        _deliver(out / "trail", moment, trail)
        run(session, settings, as_of=moment)
        done = subprocess.run(
            [sys.executable, "-m", "raretrail", "run", "--trail", str(trail), "--warehouse", str(apart),
             "--asn-db", str(out / "asn.mmdb"), "--as-of", moment.isoformat(), "--quiet"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def failed(error: Exception) -> None:
        raise error

    watch = Watch(every=timedelta(milliseconds=1), sessions=Sessions(), runs=3, failed=failed)
    watch.watch(once, threading.Event())
    assert tiny.differences(tiny.contents(apart), tiny.contents(resident)) == []


def test_it_outlives_its_jvm_and_stops_when_told(organisation: tuple[Path, datetime], tmp_path: Path) -> None:
    out, _ = organisation
    metrics = tmp_path / "metrics.prom"
    conf = tmp_path / "settings.yml"
    conf.write_text(f"monitoring: {{log_format: json, metrics_file: {metrics}}}\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "raretrail", "watch", "--every", "1s", "--trail", str(out / "trail"),
         "--warehouse", str(tmp_path / "warehouse"), "--conf", str(conf), "--format", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "RARETRAIL_HEARTBEAT_URL": ""},
    )  # fmt: skip
    said: list[dict[str, object]] = []
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if not line.startswith("{"):  # a library's trace of the JVM that went
                continue
            said.append(json.loads(line))
            ended = [one for one in said if one["message"] == "ended"]
            errors = [one for one in said if one["level"] == "error"]
            if len(ended) == 1 and not errors and said[-1]["message"] == "ingest":
                os.kill(_java_of(process.pid), signal.SIGKILL)
            elif len(ended) == 2 and said[-1]["message"] == "ended":
                process.send_signal(signal.SIGTERM)
        records = [json.loads(line) for line in process.stdout or ()]
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
    assert [one["message"] for one in said if one["level"] == "error"], "the run whose JVM went did not fail"
    assert all(record["status"] == "done" for record in records)
    assert len(records) >= 2
    assert 'raretrail_last_run_status{status="done"} 1' in metrics.read_text()
    assert len({one["invocation"] for one in said if one["message"] == "ended"}) == len(records)


def _java_of(parent: int) -> int:
    """The process id of the JVM that a process started."""
    children: dict[int, list[int]] = {}
    names = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = stat.read_text().partition(" (")
        except OSError:
            continue
        name, _, fields = rest.rpartition(") ")
        names[int(pid)] = name
        children.setdefault(int(fields.split()[1]), []).append(int(pid))
    waiting = [parent]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if names[child] == "java":
                return child
            waiting.append(child)
    raise AssertionError("no JVM")
