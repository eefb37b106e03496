"""What a run tells other systems: read by Prometheus' own parser, received by a real server."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from raretrail import cli
from raretrail.cli import main
from raretrail.errors import EXIT_HELD
from raretrail.monitoring import JsonLog, metrics_text, send_heartbeat, write_metrics
from raretrail.settings import load_settings

NOW = datetime(2026, 2, 1, 12, 0, tzinfo=UTC)
RECORD: dict[str, Any] = {
    "run_id": "20260201T115900Z-1",
    "status": "done",
    "mode": "scheduled",
    "geo_build": 'odd"build\\',
    "counts": {"files": 3, "events": 70},
    "seconds": {"ingest": 1.5},
    "held_scopes": [],
}

# Answers every path with its last part as the status, and prints what it was asked.
_SERVER = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.path, self.headers["User-Agent"], flush=True)
        last = self.path.rpartition("/")[2]
        if last == "garbage":
            self.wfile.write(b"\\x00nonsense\\r\\n\\r\\n")
            return
        self.send_response(int(last)); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def server() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    process = subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}", process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def samples(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, ",".join(f"{k}={v}" for k, v in sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_every_metric() -> None:
    found = samples(metrics_text(RECORD, 0, NOW, None))
    assert found["raretrail_last_run_timestamp_seconds", ""] == NOW.timestamp()
    assert found["raretrail_last_good_run_timestamp_seconds", ""] == NOW.timestamp()
    assert found["raretrail_last_run_exit_code", ""] == 0
    assert found["raretrail_last_run_status", "status=done"] == 1
    assert found["raretrail_last_run_status", "status=held"] == 0
    assert found["raretrail_last_run_count", "kind=events"] == 70
    assert found["raretrail_last_run_stage_seconds", "stage=ingest"] == 1.5
    info = [labels for name, labels in found if name == "raretrail_last_run_info"]
    assert "run_id=20260201T115900Z-1" in info[0]
    assert 'geo_build=odd"build\\' in info[0]


def test_the_last_good_run_outlives_bad_ones(tmp_path: Path) -> None:
    file = tmp_path / "raretrail.prom"
    good = "raretrail_last_good_run_timestamp_seconds", ""
    assert write_metrics(str(file), None, 1, NOW) is None
    assert good not in samples(file.read_text())
    assert write_metrics(str(file), RECORD, 0, NOW) is None
    assert write_metrics(str(file), RECORD | {"status": "held"}, EXIT_HELD, NOW + timedelta(hours=1)) is None
    assert write_metrics(str(file), None, 1, NOW + timedelta(hours=2)) is None
    found = samples(file.read_text())
    assert found[good] == NOW.timestamp()
    assert found["raretrail_last_run_exit_code", ""] == 1
    assert found["raretrail_last_run_status", "status=failed"] == 1
    assert os.listdir(tmp_path) == [file.name], "nothing half-written is left"
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_metrics_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    said = write_metrics(str(tmp_path / "none" / "file.prom"), RECORD, 0, NOW)
    assert said is not None and "cannot be written (no such file or directory)" in said


def test_a_heartbeat_arrives(server: tuple[str, subprocess.Popen[str]]) -> None:
    url, process = server
    assert send_heartbeat(f"{url}/ping/200") is None
    assert process.stdout is not None
    path, agent = process.stdout.readline().split()
    assert path == "/ping/200"
    assert agent.startswith("raretrail/")


@pytest.mark.parametrize("answer", ["500", "404", "garbage"])
def test_a_heartbeat_refused_is_a_warning_without_the_url(
    server: tuple[str, subprocess.Popen[str]], answer: str
) -> None:
    said = send_heartbeat(f"{server[0]}/secret-token/{answer}")
    assert said is not None and said.startswith("heartbeat to 127.0.0.1: ")
    assert "secret-token" not in said


def test_a_heartbeat_nobody_takes_is_a_warning(server: tuple[str, subprocess.Popen[str]]) -> None:
    url, process = server
    process.kill()
    process.wait()
    assert send_heartbeat(f"{url}/x/200") == "heartbeat to 127.0.0.1: not reached (ConnectionRefusedError)"


def test_a_heartbeat_reads_no_files(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    assert "no http or https" in (send_heartbeat((tmp_path / "f").as_uri()) or "")


def test_log_lines_are_json_with_what_ties_them_together() -> None:
    stream = io.StringIO()
    log = JsonLog(stream, clock=lambda: NOW)
    log.write("info", "ingest\nand more")
    log.write("warning", "w", run_id="r", at=NOW)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first == {
        "time": "2026-02-01T12:00:00.000Z",
        "level": "info",
        "message": "ingest\nand more",
        "invocation": log.invocation,
    }
    assert (second["run_id"], second["invocation"]) == ("r", log.invocation)


# ------------------------------------------------------------------------- wired into the command


class _Ended:
    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        self.messages = ("careful",)
        self.record = RECORD | {"status": "held" if exit_code else "done", "counts": {}}


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Makes `raretrail run` end as asked, without Spark: what is tested is what comes after."""
    # What there is to read says how large a session is opened.
    (tmp_path / "t").mkdir()
    monkeypatch.chdir(tmp_path)

    def end(with_what: int | Exception) -> None:
        def run(*args: Any, progress: Any, **kwargs: Any) -> _Ended:
            progress("ingest")
            if isinstance(with_what, Exception):
                raise with_what
            return _Ended(with_what)

        import raretrail.stages.run as stage

        monkeypatch.setattr(stage, "run", run)
        monkeypatch.setattr(cli, "close_session", lambda spark: None, raising=False)
        import contextlib

        monkeypatch.setattr(cli, "_spark", lambda settings, size: contextlib.nullcontext())

    return end


def _conf(tmp_path: Path, **monitoring: Any) -> str:
    file = tmp_path / "settings.yml"
    file.write_text(json.dumps({"monitoring": monitoring}))
    return str(file)


def test_a_run_is_told_in_every_way_asked_for(
    ended: Any,
    tmp_path: Path,
    server: tuple[str, subprocess.Popen[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, process = server
    metrics = tmp_path / "raretrail.prom"
    conf = _conf(tmp_path, log_format="json", metrics_file=str(metrics), heartbeat_url=f"{url}/a/200")
    ended(0)
    assert main(["run", "--trail", "t", "--warehouse", "w", "--conf", conf]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["message"]) for line in lines[:2]] == [
        ("info", "ingest"),
        ("warning", "careful"),
    ]
    assert lines[-1]["run_id"] == RECORD["run_id"]
    assert lines[-1]["exit_code"] == 0
    assert samples(metrics.read_text())["raretrail_last_run_exit_code", ""] == 0
    assert process.stdout is not None
    assert process.stdout.readline().startswith("/a/200 ")


def test_only_good_runs_send_a_heartbeat(
    ended: Any, tmp_path: Path, server: tuple[str, subprocess.Popen[str]]
) -> None:
    url, process = server
    metrics = tmp_path / "raretrail.prom"
    conf = _conf(tmp_path, metrics_file=str(metrics), heartbeat_url=f"{url}/a/200")
    ended(EXIT_HELD)
    assert main(["run", "--trail", "t", "--warehouse", "w", "--conf", conf]) == EXIT_HELD
    assert samples(metrics.read_text())["raretrail_last_run_status", "status=held"] == 1
    ended(ValueError("boom"))
    assert main(["run", "--trail", "t", "--warehouse", "w", "--conf", conf]) == 1
    assert samples(metrics.read_text())["raretrail_last_run_exit_code", ""] == 1
    ended(0)
    assert main(["ingest", "--trail", "t", "--warehouse", "w", "--conf", conf]) == 0
    process.kill()
    assert process.stdout is not None
    assert len(process.stdout.read().splitlines()) == 1


def test_a_failing_heartbeat_leaves_the_run_good(
    ended: Any,
    tmp_path: Path,
    server: tuple[str, subprocess.Popen[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RARETRAIL_HEARTBEAT_URL", f"{server[0]}/from-the-environment/500")
    conf = _conf(tmp_path, metrics_file=str(tmp_path / "no" / "file"))
    ended(0)
    assert main(["run", "--trail", "t", "--warehouse", "w", "--conf", conf]) == 0
    said = capsys.readouterr().err
    assert "raretrail: heartbeat to 127.0.0.1: answered 500" in said
    assert "cannot be written" in said


def test_failures_are_json_too(ended: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ended(ValueError("boom"))
    code = main(["run", "--trail", "t", "--warehouse", "w", "--log-format", "json"])
    last = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (code, last["level"]) == (1, "error")
    assert "ValueError: boom" in last["message"]


def test_a_held_run_ends_as_the_scheduler_needs(ended: Any) -> None:
    ended(EXIT_HELD)
    assert main(["run", "--trail", "t", "--warehouse", "w"]) == EXIT_HELD
    assert main(["run", "--trail", "t", "--warehouse", "w", "--held-exit", "0"]) == 0
    ended(0)
    assert main(["run", "--trail", "t", "--warehouse", "w", "--held-exit", "0"]) == 0


def test_monitoring_decides_no_result(tmp_path: Path) -> None:
    plain, _ = load_settings()
    other, _ = load_settings(_conf(tmp_path, log_format="json", metrics_file="m"))
    assert plain.hash == other.hash


def test_a_heartbeat_url_of_another_kind_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = _conf(tmp_path, heartbeat_url="file:///etc/passwd")
    assert main(["run", "--conf", conf, "--print-settings"]) == 2
    assert "monitoring.heartbeat_url: is no http or https URL" in capsys.readouterr().err


def test_printed_settings_keep_the_url_to_themselves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = _conf(tmp_path, heartbeat_url="https://beats.example/secret-token")
    assert main(["run", "--conf", conf, "--print-settings"]) == 0
    out = capsys.readouterr().out
    assert "secret-token" not in out
    assert "beats.example" in out


def test_a_slow_heartbeat_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    import raretrail.monitoring as monitoring

    monkeypatch.setattr(monitoring, "_HEARTBEAT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        said = send_heartbeat(f"http://127.0.0.1:{silent.getsockname()[1]}/x")
        assert time.monotonic() - begun < 5
    assert said is not None and "not reached" in said
