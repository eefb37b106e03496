from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa
import pytest
from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.sql import functions as F

from raretrail import session
from raretrail.session import SessionSettings, local_conf, open_session, session_origin

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SIGNS = ("SPARK_REMOTE", "DATABRICKS_RUNTIME_VERSION", "PYSPARK_GATEWAY_PORT")


@pytest.mark.parametrize(
    ("present", "remote", "origin"),
    [
        ([], None, "local"),
        (["PYSPARK_GATEWAY_PORT"], None, "submit"),
        (["DATABRICKS_RUNTIME_VERSION", "PYSPARK_GATEWAY_PORT"], None, "databricks"),
        (["SPARK_REMOTE", "DATABRICKS_RUNTIME_VERSION"], None, "connect"),
        ([], "sc://localhost", "connect"),
    ],
)
def test_origin_follows_the_surroundings(
    monkeypatch: pytest.MonkeyPatch, present: list[str], remote: str | None, origin: str
) -> None:
    monkeypatch.setattr(session, "_active_session", lambda: None)
    for name in _SIGNS:
        monkeypatch.delenv(name, raising=False)
    for name in present:
        monkeypatch.setenv(name, "1")
    assert session_origin(remote) == origin


def test_local_configuration_stays_on_this_machine_and_yields_to_the_users(tmp_path: Path) -> None:
    settings = SessionSettings(cores="3", driver_memory="2g", conf={"spark.ui.enabled": "true"})
    conf = local_conf(settings, [Path("/a.jar"), Path("/b.jar")], tmp_path, [])
    assert conf["spark.driver.bindAddress"] == conf["spark.driver.host"] == "127.0.0.1"
    assert conf["spark.driver.extraClassPath"] == "/a.jar:/b.jar"
    assert conf["spark.driver.memory"] == "2g"
    assert conf["spark.sql.shuffle.partitions"] == "3"
    assert conf["spark.ui.enabled"] == "true"
    for name in ("spark.local.dir", "spark.sql.warehouse.dir"):
        assert str(tmp_path) in conf[name]


def test_jvm_flags_with_spaces_survive(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    flags = local_conf(SessionSettings(), [], folder, [])["spark.driver.extraJavaOptions"]
    assert f'"-Djava.io.tmpdir={folder}/tmp"' in flags


@pytest.mark.integration
def test_session_writes_merges_and_hands_time_over_in_utc(spark: SparkSession, tmp_path: Path) -> None:
    from pyspark.sql import functions as F

    table = f"delta.`{tmp_path}/table`"
    spark.range(3).write.format("delta").save(str(tmp_path / "table"))
    spark.range(2, 5).createOrReplaceTempView("later")
    spark.sql(f"MERGE INTO {table} t USING later s ON t.id = s.id WHEN NOT MATCHED THEN INSERT *")
    assert spark.table(table).count() == 5

    noon = spark.range(1).select(F.timestamp_micros(F.lit(12 * 3600 * 10**6)).alias("at"))
    row = noon.select("at", F.current_timezone().alias("zone"), F.date_format("at", "HH")).first()
    assert row is not None
    assert tuple(row) == (dt.datetime(1970, 1, 1, 12), "UTC", "12")
    assert spark.conf.get("spark.sql.ansi.enabled") == "true"


@pytest.mark.integration
def test_opening_again_gives_the_session_that_is_there(spark: SparkSession) -> None:
    assert open_session(remote=os.environ.get("RARETRAIL_TEST_REMOTE")) is spark


_NEWCOMER = """
from raretrail.session import close_session, open_session
spark = open_session(driver_memory="1g")
spark.range(3).write.format("delta").save("table")
frame = spark.read.format("delta").load("table")
assert frame.mapInArrow(lambda batches: batches, "id long").toPandas()["id"].sum() == 3
try:
    frame.selectExpr("1 div (id - 1)").collect()
except Exception as error:
    print(type(error).__name__)
spark.stop()
spark = open_session(driver_memory="1g")
assert spark.range(2).count() == 2
close_session(spark)
"""


@pytest.mark.slow
@pytest.mark.integration
def test_a_newcomer_reads_what_fails_once_where_it_is_raised(tmp_path: Path) -> None:
    """Own process: what the JVM says before Spark's logging is up is part of it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SPARK_", "PYSPARK_"))}
    done = subprocess.run(
        [sys.executable, "-c", _NEWCOMER],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ArithmeticException\n"
    assert done.stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


@pytest.mark.integration
def test_a_plan_that_fails_is_raised_and_not_printed(
    spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    from pyspark.errors import AnalysisException
    from pyspark.sql import functions as F

    with pytest.raises(AnalysisException):
        spark.range(1).select(F.col("missing"))
    assert capfd.readouterr().err == ""


def test_a_session_whose_jvm_died_is_forgotten_so_that_the_next_one_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    class Gone:
        """A session, its gateway and its process at once, whose other end is not there any more."""

        proc = stdin = property(lambda self: self)
        ended: ClassVar[list[str]] = []

        def stop(self) -> None:
            raise ConnectionRefusedError

        def shutdown(self) -> None:
            raise ConnectionRefusedError

        def close(self) -> None:
            self.ended.append("told by the end of its input")

        def wait(self, timeout: float) -> None:
            raise subprocess.TimeoutExpired("java", timeout)

        def kill(self) -> None:
            self.ended.append("killed")

    gone, scratch = Gone(), tmp_path / "scratch"
    scratch.mkdir()
    for owner, name in (
        (SparkContext, "_gateway"), (SparkContext, "_jvm"), (SparkContext, "_active_spark_context"),
        (SparkSession, "_instantiatedSession"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, gone)
    monkeypatch.setattr(session, "_opened", session._Opened(gone, "local", scratch))  # type: ignore[arg-type]
    session.close_session(gone)  # type: ignore[arg-type]
    assert SparkContext._gateway is SparkContext._jvm is SparkContext._active_spark_context is None
    assert SparkSession._instantiatedSession is None
    assert session._opened is None
    assert not scratch.exists()
    assert gone.ended == ["told by the end of its input", "killed"]


def test_what_pyspark_names_all_the_time_is_asked_of_the_jvm_once(spark: SparkSession) -> None:
    from pyspark import SparkContext

    if SparkContext._jvm is None:
        pytest.skip("no JVM of ours: Spark Connect")
    for name in session._NAMED_OFTEN:
        assert getattr(SparkContext._jvm, name) is getattr(SparkContext._jvm, name)
    called = SparkContext._jvm.PythonUtils.toSeq
    assert SparkContext._jvm.PythonUtils.toSeq is called
    assert spark.range(3).select(F.sum("id")).first() == (3,)
    with pytest.raises(Py4JError, match="no_such_thing"):
        SparkContext._jvm.PythonUtils.no_such_thing  # noqa: B018


def test_logs_of_tables_seen_long_ago_are_let_go(spark: SparkSession, tmp_path: Path) -> None:
    from deltalake import write_deltalake
    from pyspark import SparkContext

    if SparkContext._jvm is None:
        pytest.skip("no JVM of ours: Spark Connect")
    logs = getattr(getattr(SparkContext._jvm.org.apache.spark.sql.delta, "DeltaLog$"), "MODULE$")
    for number in range(130):
        write_deltalake(tmp_path / str(number), pa.table({"id": [number]}))
        assert spark.read.format("delta").load(str(tmp_path / str(number))).columns == ["id"]
    assert 0 < logs.cacheSize() <= 120


def test_a_resident_process_compiles_fully_and_plans_as_a_small_run(tmp_path: Path) -> None:
    conf = {
        size: session.local_conf(SessionSettings(size=size), [], tmp_path, [])
        for size in ("small", "resident", "large")
    }
    quick = {size: "TieredStopAtLevel" in c["spark.driver.extraJavaOptions"] for size, c in conf.items()}
    assert quick == {"small": True, "resident": False, "large": False}
    plain = [{k: v for k, v in c.items() if "extraJavaOptions" not in k} for c in conf.values()]
    assert plain[0] == plain[1] != plain[2]
