"""The whole job through a Spark Connect server in another process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cluster_tools import free_port, run, server

import tiny
from raretrail import runtime

pytestmark = pytest.mark.cluster


def test_the_job_through_a_connect_server_leaves_the_same_tables(
    options: list[str], local: tiny.Contents, scratch: Path, tmp_path: Path
) -> None:
    port = free_port()
    jars = ",".join(map(str, runtime.delta_jars()))
    conf = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.driver.memory": "3g",
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.ui.enabled": "false",
        "spark.sql.warehouse.dir": str(tmp_path / "managed"),
        "spark.driver.extraJavaOptions": f"-Dderby.system.home={tmp_path}",
    }
    given = [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]
    started = [
        str(runtime.spark_home() / "bin" / "spark-submit"), "--master", "local[2]", "--jars", jars, *given,
        "--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal",
    ]  # fmt: skip
    warehouse = tmp_path / "w"
    with server(started, tmp_path / "server.log", port, scratch):
        job = [sys.executable, "-m", "raretrail", "run", *options, "--warehouse", str(warehouse)]
        done = run([*job, "--remote", f"sc://127.0.0.1:{port}"], scratch)
        assert done.returncode == 0, done.stderr[-4000:]
        streamed, settings = tmp_path / "streamed", tmp_path / "stream.yml"
        settings.write_text("ingest: {listing: stream}\n")
        job = [sys.executable, "-m", "raretrail", "run", *options, "--warehouse", str(streamed)]
        done = run([*job, "--conf", str(settings), "--remote", f"sc://127.0.0.1:{port}"], scratch)
        assert done.returncode == 0, done.stderr[-4000:]
    assert not tiny.differences(local, tiny.contents(warehouse))
    assert not tiny.differences(local, tiny.contents(streamed)), "files named by a stream of the server"
