"""The job on Spark's own cluster, trail and warehouse in S3, a worker of two killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster_tools import Cluster, run

import tiny
from raretrail import s3 as seen_from_here
from s3_server import s3_server

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def archive(scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What executors are sent, made by the command that docs name."""
    out = tmp_path_factory.mktemp("packed") / "raretrail-env.tar.gz"
    done = run([sys.executable, "-m", "raretrail", "pack", str(out)], scratch)
    assert done.returncode == 0, done.stderr
    return out


def test_a_cluster_of_bare_workers_that_loses_one_leaves_the_same_tables(
    options: list[str],
    local_warehouse: Path,
    archive: Path,
    scratch: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trail, log = Path(options[1]), tmp_path / "job.log"
    with s3_server(tmp_path / "s3") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        seen_from_here._client.cache_clear()
        bucket = server.make_bucket("organisation")
        server.upload(trail, bucket, "trail/")
        cluster = Cluster(tmp_path, scratch, server.environment())
        asked = [cluster.python, "-c", "import raretrail"]
        lacks = subprocess.run(asked, capture_output=True, check=False, env={})
        assert b"No module named 'raretrail'" in lacks.stderr
        given = ["--trail", f"s3a://{bucket}/trail", *options[2:], "--warehouse", f"s3a://{bucket}/w"]
        # Nothing is read in the driver, however little there is.
        conf = tmp_path / "conf.yml"
        conf.write_text("ingest: {driver_bytes: 0}\n")
        with cluster.running(workers=2):
            job = cluster.submit([*given, "--conf", str(conf)], archive, log)
            try:
                facts = server.folder / bucket / "w" / "presence_daily" / "_delta_log"
                until = time.monotonic() + 600
                while not facts.exists():
                    assert job.poll() is None and time.monotonic() < until, log.read_text()[-4000:]
                    time.sleep(0.2)
                os.killpg(cluster.workers[0].pid, signal.SIGKILL)
                job.wait(900)
            finally:
                job.kill()
                job.wait()
            assert job.returncode == 0, log.read_text()[-4000:]
        found = tiny.contents(f"s3a://{bucket}/w", f"s3://{bucket}/trail/")
        assert not tiny.differences(tiny.contents(local_warehouse, f"{trail}/"), found)
