"""Wheel and source distribution: built, put into an empty environment, used there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import threading
import venv
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from raretrail import __version__
from raretrail.monitoring import HEARTBEAT_VARIABLE

pytestmark = [pytest.mark.slow, pytest.mark.integration]
ROOT = Path(__file__).resolve().parents[2]
WHEEL = f"raretrail-{__version__}-py3-none-any.whl"
SDIST = f"raretrail-{__version__}.tar.gz"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name for path in out.iterdir()} == {WHEEL, SDIST}
    return out


def test_the_wheel_has_all_of_the_library_and_conf_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(dist / WHEEL) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    # `python -m build` makes the wheel from the sdist, so nothing the sdist lacks can be in it.
    tracked = subprocess.run(
        ["git", "ls-files", "lib/raretrail", "conf"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert names == {
        name.removeprefix("lib/") if name.startswith("lib/") else f"raretrail/{name}" for name in tracked
    }


def test_the_source_distribution_can_be_tested_and_built_from(dist: Path) -> None:
    with tarfile.open(dist / SDIST) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in ("pyproject.toml", "README.md", "LICENSE", "Makefile", "conf/settings.yml", "jobs/run.py"):
        assert needed in names
    for needed in ("databricks.yml", "resources/warehouse.yml", "requirements/dev.txt", "tests/conftest.py"):
        assert needed in names


class Environment:
    """An empty virtual environment; `run` runs a command of its bin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.EnvBuilder(with_pip=True).create(folder)

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(self.folder / "bin"), "/usr/bin", "/bin"])
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return subprocess.run(
            [str(self.folder / "bin" / command[0]), *command[1:]],
            capture_output=True, text=True, check=False, cwd=self.folder, timeout=900,
            env={**environment, "PATH": path, **more},
        )  # fmt: skip


@pytest.fixture(scope="module")
def bare(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("bare"))
    done = environment.run("pip", "install", "-q", "--no-compile", str(dist / WHEEL))
    assert done.returncode == 0, done.stderr[-2000:]
    return environment


@pytest.fixture
def beats() -> Iterator[tuple[str, list[str]]]:
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/beat", heard
    finally:
        server.shutdown()
        server.server_close()


def test_without_spark_everything_but_running_works(bare: Environment) -> None:
    assert bare.run("pip", "check").stdout == "No broken requirements found.\n"
    assert bare.run("raretrail", "--version").stdout == f"raretrail {__version__}\n"
    assert bare.run("python", "-m", "raretrail", "--version").stdout == f"raretrail {__version__}\n"
    done = bare.run("raretrail", "doctor", "--format", "json")
    lines = {line["name"]: line for line in json.loads(done.stdout)["lines"]}
    assert (done.returncode, lines["spark"]["state"]) == (1, "fail")
    assert "pip install 'raretrail[spark]'" in lines["spark"]["seen"]
    assert lines["detectors"]["state"] == "ok", "conf came with the wheel"
    done = bare.run("raretrail", "run", "--trail", ".", "--warehouse", "w")
    assert (done.returncode, "pip install 'raretrail[spark]'" in done.stderr) == (2, True)


def test_with_its_extras_it_runs_and_tells_how(
    bare: Environment, dist: Path, beats: tuple[str, list[str]]
) -> None:
    extras = f"raretrail[spark,quality,simulate] @ {(dist / WHEEL).as_uri()}"
    done = bare.run("pip", "install", "-q", "--no-compile", extras)
    assert done.returncode == 0, done.stderr[-2000:]
    assert bare.run("pip", "check").stdout == "No broken requirements found.\n"
    small = ["--people", "5", "--days", "5", "--judged-days", "2", "--accounts", "1"]
    assert bare.run("raretrail", "simulate", "org", *small).returncode == 0
    labels = json.loads((bare.folder / "org" / "labels.json").read_text())
    assert labels
    conf = bare.folder / "mine.yml"
    conf.write_text("monitoring: {log_format: json, metrics_file: raretrail.prom}\n")
    url, heard = beats
    done = bare.run(
        "raretrail", "run", "--trail", "org/trail", "--warehouse", "w", "--conf", str(conf),
        "--history", "9999d", "--format", "json", **{HEARTBEAT_VARIABLE: url},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads(done.stdout)
    logged = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert logged[-1]["run_id"] == record["run_id"]
    assert heard == ["/beat"]
    metrics = (bare.folder / "raretrail.prom").read_text()
    assert f'run_id="{record["run_id"]}"' in metrics
    assert f'raretrail_last_run_count{{kind="events"}} {record["counts"]["events"]}' in metrics
    # Delta's jars were fetched and checked on the way; the doctor finds all of it sound.
    done = bare.run("raretrail", "doctor", "--warehouse", "w", "--trail", "org/trail", "--format", "json")
    report = json.loads(done.stdout)
    assert [line for line in report["lines"] if line["state"] == "fail"] == []
    done = bare.run("raretrail", "maintain", "--warehouse", "w", "--quiet")
    assert done.returncode == 0, done.stderr[-2000:]
