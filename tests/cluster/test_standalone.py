"""The job on Spark's own cluster: a master, two workers of one core, one of them killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cluster_tools import ROOT, environment, free_port, server

import tiny
from raretrail import runtime

pytestmark = pytest.mark.cluster

_MASTER = "org.apache.spark.deploy.master.Master"
_WORKER = "org.apache.spark.deploy.worker.Worker"


class Cluster:
    """A master's address and its workers' processes."""

    def __init__(self, master: str, workers: list[subprocess.Popen[bytes]]) -> None:
        self.master = master
        self.workers = workers


@pytest.fixture
def cluster(scratch: Path, tmp_path: Path) -> Iterator[Cluster]:
    spark_class = str(runtime.spark_home() / "bin" / "spark-class")
    port = free_port()
    with ExitStack() as stack:

        def start(name: str, listens: int, *command: str) -> subprocess.Popen[bytes]:
            return stack.enter_context(
                server([spark_class, *command], tmp_path / f"{name}.log", listens, scratch)
            )

        start(
            "master", port, _MASTER, "--host", "127.0.0.1", "--port", str(port), "--webui-port",
            str(free_port()),
        )  # fmt: skip
        workers = []
        for n in (1, 2):
            listens = free_port()
            workers.append(
                start(
                    f"worker{n}", listens, _WORKER, "--host", "127.0.0.1", "--port", str(listens),
                    "--webui-port", str(free_port()), "--cores", "1", "--memory", "2g", "--work-dir",
                    str(tmp_path / f"work{n}"), f"spark://127.0.0.1:{port}",
                )
            )  # fmt: skip
        yield Cluster(f"spark://127.0.0.1:{port}", workers)


def _submit(
    cluster: Cluster, options: list[str], warehouse: Path, scratch: Path, log: Path
) -> subprocess.Popen[bytes]:
    conf = {
        "spark.executor.memory": "1500m",
        "spark.driver.memory": "2g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
        "spark.ui.enabled": "false",
    }
    given = [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]
    jars = ",".join(map(str, runtime.delta_jars()))
    command = [
        str(runtime.spark_home() / "bin" / "spark-submit"), "--master", cluster.master, "--jars", jars,
        *given, str(ROOT / "jobs" / "run.py"), *options, "--warehouse", str(warehouse),
    ]  # fmt: skip
    with log.open("wb") as out:
        return subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT,
            env={**environment(scratch), "PYSPARK_DRIVER_PYTHON": sys.executable},
        )  # fmt: skip


def test_a_cluster_that_loses_a_worker_leaves_the_same_tables(
    cluster: Cluster,
    options: list[str],
    local: tiny.Contents,
    scratch: Path,
    tmp_path: Path,
) -> None:
    warehouse, log = tmp_path / "w", tmp_path / "job.log"
    job = _submit(cluster, options, warehouse, scratch, log)
    try:
        until = time.monotonic() + 300
        while not (warehouse / "presence_daily" / "_delta_log").exists():
            assert job.poll() is None and time.monotonic() < until, log.read_text()[-4000:]
            time.sleep(0.2)
        os.killpg(cluster.workers[0].pid, signal.SIGKILL)
        job.wait(900)
    finally:
        job.kill()
    assert job.returncode == 0, log.read_text()[-4000:]
    assert not tiny.differences(local, tiny.contents(warehouse))
