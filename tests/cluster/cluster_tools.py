"""Spark as its users have it: servers of their own processes on loopback, gone when the tests are."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from raretrail import runtime
from raretrail.pack import executor_options

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
def server(
    command: Sequence[str], log: Path, port: int, scratch: Path, more: Mapping[str, str | None] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server process that listens on a port of loopback; it and its children end with the block.

    more is laid over its environment; None takes a variable away.
    """
    given = {**environment(scratch), **(more or {})}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            env={name: value for name, value in given.items() if value is not None},
        )  # fmt: skip
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


def bare_python(folder: Path) -> str:
    """A Python that has nothing but itself."""
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    return str(folder / "bin" / "python")


class Cluster:
    """Spark's own: a master's address, and workers of one core each, whose Python has nothing but itself and
    whose environment is that of a machine with rights in S3."""

    def __init__(self, folder: Path, scratch: Path, s3: Mapping[str, str]) -> None:
        self.workers: list[subprocess.Popen[bytes]] = []
        self.groups: list[int] = []
        self.python = bare_python(folder / "bare")
        self._folder, self._scratch, self._s3 = folder, scratch, s3
        self._port = free_port()
        self.master = f"spark://127.0.0.1:{self._port}"

    @contextmanager
    def running(self, workers: int) -> Iterator[None]:
        """The master and so many workers; all that they started ends with the block."""
        with ExitStack() as stack:
            self._start(
                stack, "master", self._port, "org.apache.spark.deploy.master.Master", "--host", "127.0.0.1",
                "--port", str(self._port), "--webui-port", str(free_port()),
            )  # fmt: skip
            for n in range(workers):
                listens = free_port()
                process = self._start(
                    stack, f"worker{n}", listens, "org.apache.spark.deploy.worker.Worker", "--host",
                    "127.0.0.1", "--port", str(listens), "--webui-port", str(free_port()), "--cores", "1",
                    "--memory", "2g", "--work-dir", str(self._folder / f"work{n}"), self.master,
                )  # fmt: skip
                self.workers.append(process)
            yield
        self.workers.clear()
        assert not self.left_behind()

    def _start(self, stack: ExitStack, name: str, listens: int, *command: str) -> subprocess.Popen[bytes]:
        bare: dict[str, str | None] = {"PYTHONPATH": None, "PYSPARK_PYTHON": self.python, **self._s3}
        spark_class = str(runtime.spark_home() / "bin" / "spark-class")
        started = stack.enter_context(
            server([spark_class, *command], self._folder / f"{name}.log", listens, self._scratch, bare)
        )
        self.groups.append(started.pid)
        return started

    def left_behind(self) -> list[int]:
        """Processes that the cluster started and that are still there."""
        left = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                pid = int(entry.name)
                if os.getpgid(pid) in self.groups and "Z" not in (entry / "stat").read_text().split(")")[1]:
                    left.append(pid)
        return left

    def submit(self, options: Sequence[str], archive: Path, log: Path) -> subprocess.Popen[bytes]:
        """`spark-submit` of the main job from a machine that has raretrail, as docs/deploy.md says it."""
        conf = {
            "spark.executor.memory": "1500m",
            "spark.driver.memory": "2g",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.shuffle.partitions": "2",
            "spark.ui.enabled": "false",
            "spark.pyspark.python": self.python,
            "spark.pyspark.driver.python": sys.executable,
        }
        given = [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]
        command = [
            str(runtime.spark_home() / "bin" / "spark-submit"), "--master", self.master, *given,
            *executor_options(str(archive)), str(ROOT / "jobs" / "run.py"), *options,
        ]  # fmt: skip
        with log.open("wb") as out:
            return subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT,
                env={**environment(self._scratch), **self._s3},
            )  # fmt: skip
