"""Where Spark comes from: a Connect server, a session that is already there, or this machine.

One factory decides, so that the same code runs on a laptop, under spark-submit and on Databricks.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raretrail import runtime
from raretrail.errors import RaretrailError, SparkError, UsageError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Origin = Literal["connect", "databricks", "active", "submit", "local"]
Size = Literal["small", "resident", "large"]

_DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}

# Delta writes what Spark's Parquet writer does; INT96 has no statistics and no future.
_WRITING = {"spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS"}

# What every session must have, whoever opened it.
_REQUIRED = {"spark.sql.session.timeZone": "UTC", "spark.sql.ansi.enabled": "true"}

# Trail or warehouse on S3. Whoever may reach it is found where the AWS command line finds it, never in
# settings. Nothing here keeps Delta's commits of two clusters apart: that is the lock's (lease.py).
_S3 = {
    "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
    "spark.hadoop.fs.s3a.aws.credentials.provider": (
        "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"
    ),
    # What fails is asked again by s3a itself, with pauses that double from half a second; each time the SDK
    # below it asks three times, not five, or one object costs forty-five requests. A server that does not
    # answer is given up after a minute, not after 200 seconds for each of them.
    "spark.hadoop.fs.s3a.retry.limit": "7",
    "spark.hadoop.fs.s3a.attempts.maximum": "3",
    "spark.hadoop.fs.s3a.connection.timeout": "60s",
    "spark.hadoop.fs.s3a.connection.establish.timeout": "10s",
}

# No rules that check one another's work, and no plans as prose that nobody reads.
_UNREAD = {
    "spark.sql.lightweightPlanChangeValidation": "false",
    "spark.sql.ui.explainMode": "simple",
    "spark.sql.maxPlanStringLength": "2000",
}

# Delta's log on this machine's disk. Hadoop's FileContext would start a program for each step: two `readlink`
# and a `chmod` a file. Neither way is without a moment between looking whether a version is there and
# writing it; the lock of the warehouse keeps runs apart. A table's files are listed in its log, and need not
# be beside it as well.
_LOG_HERE = {
    "spark.delta.logStore.file.impl": "io.delta.storage.LocalLogStore",
    "spark.databricks.delta.allFilesInCrc.enabled": "false",
}

# A table's log that is kept takes megabytes of the JVM, and by default ten thousand are: in a process that
# stays, those of every warehouse it has seen. One warehouse has some seventy tables, scratch tables included.
_LOGS_KEPT = {"spark.databricks.delta.delta.log.cacheSize": "120"}

_KEPT_FOR_THE_UI = (
    "spark.ui.retainedJobs",
    "spark.ui.retainedStages",
    "spark.ui.retainedTasks",
    "spark.sql.ui.retainedExecutions",
)

# As pyspark calls them.
_NAMED_OFTEN = ("org.apache.spark.sql.functions", "functions", "PythonUtils", "PythonSQLUtils")

# C1 and the serial collector more than halve a small run, which is mostly start-up and compiling.
_JVM_FLAGS = {
    # With C1 alone the code cache is 48 MB, which a run fills; then nothing is compiled any more.
    "small": ["-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=192m", "-XX:+UseSerialGC"],
    # Many small runs one after the other are worth compiling fully.
    "resident": ["-XX:ReservedCodeCacheSize=240m", "-XX:+UseSerialGC"],
    "large": ["-XX:+UseParallelGC"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How a session is opened. All but `remote`, `app_name` and `conf` matter only locally.

    `driver_memory` is Spark's notation (`4g`); empty means what `default_memory` says.
    `size` is `small` for a run of seconds to minutes, `resident` for many of them in one process, `large` for
    much data at once.
    `cores` is a number or `*`. `scratch` is where temporary files go (default: a new folder of the
    system's temporary one, removed with the session). `s3` says that s3a:// is to be reached. `conf` is
    Spark configuration laid over ours.
    """

    remote: str | None = None
    cores: str = "*"
    driver_memory: str = ""
    size: Size = "small"
    ui: bool = False
    app_name: str = "raretrail"
    log_level: str = "error"
    scratch: Path | None = None
    s3: bool = False
    conf: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Opened:
    spark: SparkSession
    origin: Origin
    scratch: Path | None = None


_opened: _Opened | None = None


def session_origin(remote: str | None = None) -> Origin:
    """Where `open_session` would take Spark from, decided from the surroundings alone."""
    if remote or os.environ.get("SPARK_REMOTE"):
        return "connect"
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        return "databricks"
    if "pyspark" in sys.modules and _active_session() is not None:
        return "active"
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        return "submit"
    return "local"


def open_session(settings: SessionSettings | None = None, **overrides: Any) -> SparkSession:
    """A Spark session in UTC with ANSI on and, wherever it is ours to say, Delta.

    In this order: a Connect server (`remote` or SPARK_REMOTE), Databricks, a session already
    active in this process, the one spark-submit prepared (its master and resources are left
    alone), else a new one on this machine. The time zone of this process becomes UTC as well,
    since that is the one in which Spark hands timestamps to Python.

    Keyword arguments are fields of SessionSettings. UsageError if Java or Spark is missing or
    unfit; RaretrailError if Spark does not start.
    """
    global _opened
    settings = replace(settings or SessionSettings(), **overrides)
    origin = session_origin(settings.remote)
    _use_utc()
    if _opened is not None:
        if origin == "active" or (origin == "connect" and not _stopped(_opened.spark)):
            return _opened.spark
        close_session(_opened.spark)  # someone stopped it: its scratch and JVM are still there
    _hush_python()
    if origin == "local" or (origin == "connect" and _remote(settings).startswith("local")):
        return _open_local(settings, origin)
    spark = {
        "connect": _open_connect,
        "databricks": _open_existing,
        "active": _open_existing,
        "submit": _open_submitted,
    }[origin](settings)
    _require(spark)
    if origin in ("connect", "submit"):
        _opened = _Opened(spark, origin)
    return spark


def close_session(spark: SparkSession) -> None:
    """Stop `spark` if `open_session` started it and remove its scratch; else leave it running."""
    global _opened
    if _opened is None or _opened.spark is not spark:
        return
    opened, _opened = _opened, None
    if opened.scratch is None:
        spark.stop()
        return
    try:
        with warnings.catch_warnings(), suppress(Exception):
            # A JVM that is gone already can be told nothing, and need not be.
            warnings.simplefilter("ignore")
            spark.stop()
        _end_jvm()
    finally:
        shutil.rmtree(opened.scratch, ignore_errors=True)


@dataclass(frozen=True)
class Resident:
    """Sessions of a process that stays: opened with the same settings each time.

    opened is called once a session is there, since Spark puts a signal handler of its own in place.
    """

    settings: SessionSettings
    opened: Callable[[], None] = lambda: None

    def open(self) -> SparkSession:
        """A new session, or the one the surroundings give."""
        spark = open_session(self.settings)
        self.opened()
        return spark

    def rest(self, spark: SparkSession) -> None:
        """Have the JVM of a session on this machine give back the memory that the next run will not miss."""
        if _opened is not None and _opened.spark is spark and _opened.origin == "local":
            from pyspark import SparkContext

            with suppress(Exception):  # a JVM that has died is met by the next run
                SparkContext._jvm.java.lang.System.gc()  # type: ignore[union-attr]

    def close(self, spark: SparkSession) -> None:
        """End the session if it was opened here; whatever state it is in, the next one is a new one."""
        with suppress(Exception):
            close_session(spark)


@atexit.register
def _close_at_exit() -> None:
    if _opened is not None:
        close_session(_opened.spark)


def prepare() -> None:
    """Make later starts fast and prove that this installation works.

    In one local session: writes, merges and reads a small Delta table through a Python worker, and
    keeps an archive of the classes this loaded. RaretrailError if any of it fails.
    """
    from pyspark.sql import functions as F

    java = runtime.find_java()
    archive = runtime.class_archive(java)
    archive.parent.mkdir(parents=True, exist_ok=True)
    unfinished = archive.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    archives = runtime.can_archive(java)
    settings = SessionSettings(app_name="raretrail setup", driver_memory="1g")
    sharing = [f"-XX:ArchiveClassesAtExit={unfinished}"] if archives else []
    with tempfile.TemporaryDirectory(prefix="raretrail-") as folder:
        table = f"delta.`{folder}/table`"
        spark = _open_local(settings, "local", sharing)
        try:
            rows = spark.range(100).select("id", F.timestamp_micros("id").alias("at"))
            rows.write.format("delta").save(f"{folder}/table")
            later = spark.range(50, 150).select("id", F.timestamp_micros("id").alias("at"))
            later.createOrReplaceTempView("later")
            spark.sql(
                f"MERGE INTO {table} t USING later s ON t.id = s.id "
                "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
            ).collect()
            copied = spark.table(table).mapInArrow(lambda batches: batches, rows.schema)
            found = copied.count()
        except Exception as error:
            raise RaretrailError(f"Spark runs, but not Delta: {_first_line(error)}") from error
        finally:
            close_session(spark)
    if found != 150:
        raise RaretrailError(f"Spark and Delta run, but a merge gave {found} rows instead of 150")
    if unfinished.is_file():
        os.replace(unfinished, archive)


def _active_session() -> SparkSession | None:
    from pyspark.sql import SparkSession

    return SparkSession.getActiveSession()


def _stopped(spark: SparkSession) -> bool:
    return bool(getattr(spark, "is_stopped", False))


def _remote(settings: SessionSettings) -> str:
    return settings.remote or os.environ["SPARK_REMOTE"]


def _use_utc() -> None:
    os.environ["TZ"] = "UTC"
    time.tzset()


def _hush_python() -> None:
    """Silence warnings about pyspark's own use of its dependencies; those about ours still show. An error
    of a plan is raised, told in a line and traced on demand: pyspark need not print it as well."""
    with suppress(ImportError):  # said better by who needs it
        from pyspark.logger import PySparkLogger

        for name in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):
            PySparkLogger.getLogger(name).disabled = True
    for module in ("pyspark", "py4j"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=rf"{module}\b")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=rf"{module}\b")


def _builder(settings: SessionSettings) -> SparkSession.Builder:
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise UsageError("Spark is not installed here: pip install 'raretrail[spark]'") from None
    # A fresh builder: SparkSession.builder keeps the options of whoever used it before.
    builder: SparkSession.Builder = SparkSession.Builder()
    return builder.appName(settings.app_name)


def _open_connect(settings: SessionSettings) -> SparkSession:
    builder = _builder(settings).remote(_remote(settings))
    for name, value in settings.conf.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def _open_existing(settings: SessionSettings) -> SparkSession:
    spark = _active_session() or _builder(settings).getOrCreate()
    for name, value in settings.conf.items():
        spark.conf.set(name, value)
    return spark


def _open_submitted(settings: SessionSettings) -> SparkSession:
    from pyspark import SparkConf, SparkContext

    SparkContext._ensure_initialized()
    given = SparkConf()
    builder = _builder(settings)
    jars = _add_jars(SparkContext._jvm, _DELTA["spark.sql.extensions"], runtime.delta_jars, "Delta Lake")
    if settings.s3:
        jars += _add_jars(SparkContext._jvm, _S3["spark.hadoop.fs.s3.impl"], runtime.s3_jars, "hadoop-aws")
    if jars:
        together = ",".join([*filter(None, [given.get("spark.jars", "")]), *map(str, jars)])
        builder = builder.config("spark.jars", together)
    here = given.get("spark.master", "local").startswith("local")
    ours = {**_REQUIRED, **_DELTA, **_WRITING, **(s3_conf() if settings.s3 else {})}
    for name, value in {**ours, **({**_UNREAD, **_small()} if here else {})}.items():
        if not given.contains(name):
            builder = builder.config(name, value)
    for name, value in settings.conf.items():
        builder = builder.config(name, value)
    if here:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    return builder.getOrCreate()


def _add_jars(jvm: Any, needed: str, fetch: Callable[[], list[Path]], what: str) -> list[Path]:
    """The jars that bring the class `needed`, laid on the class path of a JVM that lacks it; else none."""
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    try:
        loader.loadClass(needed)
        return []
    except Exception:  # ClassNotFoundException, by way of py4j
        jars = fetch()
    try:
        for jar in jars:
            loader.addURL(jvm.java.net.URL(jar.as_uri()))
    except Exception as error:
        raise UsageError(
            f"this Spark comes without {what}: give spark-submit "
            f"--jars {','.join(map(str, jars))}, or the packages of your own mirror"
        ) from error
    return jars


def s3_conf() -> dict[str, str]:
    """Spark's configuration for S3, of what the AWS command line takes from the environment as well: the
    region, and the endpoint where the server is not Amazon's."""
    conf = dict(_S3)
    if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        conf["spark.hadoop.fs.s3a.endpoint.region"] = region
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        conf["spark.hadoop.fs.s3a.endpoint"] = endpoint
        conf["spark.hadoop.fs.s3a.connection.ssl.enabled"] = str(endpoint.startswith("https:")).lower()
        conf["spark.hadoop.fs.s3a.path.style.access"] = "true"
    return conf


def _require(spark: SparkSession) -> None:
    for name, value in _REQUIRED.items():
        # Without a default of ours, which Connect would check as if it were set.
        if spark.conf.get(name) != value:
            try:
                spark.conf.set(name, value)
            except Exception as error:
                raise RaretrailError(
                    f"this Spark session does not let {name} be {value}, which every time and "
                    f"comparison here relies on: {error}"
                ) from error


def _open_local(settings: SessionSettings, origin: Origin, sharing: list[str] | None = None) -> SparkSession:
    global _opened
    home = runtime.spark_home()
    java = runtime.find_java()
    jars = runtime.delta_jars() + (runtime.s3_jars() if settings.s3 else [])
    scratch = Path(tempfile.mkdtemp(prefix="raretrail-", dir=settings.scratch))
    try:
        builder = _builder(settings)
        if origin == "local":
            builder = builder.master(f"local[{settings.cores}]")
        else:
            builder = builder.remote(_remote(settings))
        if sharing is None:
            sharing = _sharing(java)
        for name, value in local_conf(settings, jars, scratch, sharing).items():
            builder = builder.config(name, value)
        with (
            warnings.catch_warnings(),
            runtime.environment(
                JAVA_HOME=str(runtime.write_java_shim(java, scratch / "java")),
                SPARK_HOME=str(home),
                SPARK_LOCAL_IP="127.0.0.1",
                SPARK_LAUNCHER_OPTS=" ".join(["-Xshare:auto", *_JVM_FLAGS["small"]]),
                PYSPARK_PYTHON=sys.executable,
                PYSPARK_DRIVER_PYTHON=sys.executable,
            ),
        ):
            # A Connect server started here is told its static configuration a second time.
            warnings.filterwarnings("ignore", message="Failed to set spark")
            spark = builder.getOrCreate()
    except Exception as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(error, RaretrailError):
            raise
        raise RaretrailError(
            f"Spark did not start with Java {java.major} of {java.home}: {_first_line(error)}"
        ) from error
    if origin == "local":
        _remember_classes()
        _write_plainly(spark)
    _opened = _Opened(spark, origin, scratch)
    return spark


def _remember_classes() -> None:
    """Have py4j remember classes that pyspark names thousands of times a run.

    It asks the JVM anew each time one is named, and each time a method of it is; one named without its
    package is looked for in every jar.
    """
    from py4j.java_gateway import JavaClass, JavaMember  # type: ignore[import-untyped]
    from pyspark import SparkContext

    class Remembered(JavaClass):  # type: ignore[misc]
        def __getattr__(self, name: str) -> Any:
            member = super().__getattr__(name)
            if isinstance(member, JavaMember):
                self.__dict__[name] = member
            return member

    jvm = SparkContext._jvm
    for name in _NAMED_OFTEN:
        found = getattr(jvm, name)
        if isinstance(found, JavaClass):
            setattr(jvm, name, Remembered(found._fqn, found._gateway_client))


def _write_plainly(spark: SparkSession) -> None:
    """Have Hadoop write no file of checksums beside each file, which costs as much as the file where that is
    small. Those that are there are still verified, and go with their files."""
    from pyspark import SparkContext

    hadoop = SparkContext._jvm.org.apache.hadoop.fs.FileSystem  # type: ignore[union-attr]
    hadoop.getLocal(spark.sparkContext._jsc.hadoopConfiguration()).setWriteChecksum(False)


def _sharing(java: runtime.Java) -> list[str]:
    archive = runtime.class_archive(java)
    return [f"-XX:SharedArchiveFile={archive}"] if archive.is_file() else []


def local_conf(
    settings: SessionSettings, jars: list[Path], scratch: Path, sharing: list[str]
) -> dict[str, str]:
    """Spark's configuration of a session on this machine, with `settings.conf` laid over it.

    `sharing` are the JVM flags about class archives.
    """
    log4j = Path(str(files("raretrail") / "log4j2.properties"))
    flags = [
        *_JVM_FLAGS[settings.size],
        *sharing,
        "-Xlog:cds=off",
        "-Xlog:cds+dynamic=off",
        "-Duser.timezone=UTC",
        f"-Dlog4j2.configurationFile={log4j.as_uri()}",
        f"-Draretrail.log.level={settings.log_level}",
        f"-Djava.io.tmpdir={_folder(scratch / 'tmp')}",
        f"-Dderby.system.home={scratch / 'derby'}",
    ]
    conf = {
        **_REQUIRED,
        **_DELTA,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": settings.driver_memory or default_memory(_cores(settings.cores)),
        "spark.driver.extraJavaOptions": " ".join(_quote(flag) for flag in flags),
        "spark.driver.extraClassPath": os.pathsep.join(str(jar) for jar in jars),
        "spark.executorEnv.TZ": "UTC",
        "spark.local.dir": str(_folder(scratch / "local")),
        "spark.sql.warehouse.dir": (scratch / "warehouse").as_uri(),
        "spark.ui.enabled": str(settings.ui).lower(),
        "spark.ui.showConsoleProgress": "false",
        # Nobody looks at what was done long ago, and a resident process would keep it.
        **dict.fromkeys(_KEPT_FOR_THE_UI, "100"),
        # Where each column expression was written costs more calls into the JVM than the expression.
        "spark.python.sql.dataFrameDebugging.enabled": "false",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # By default a sort, a hash table or a broadcast of three rows takes a page of 64 MB.
        "spark.buffer.pageSize": "2m",
        **_WRITING,
        **_UNREAD,
        **_LOG_HERE,
        **_LOGS_KEPT,
        "spark.sql.streaming.checkpointFileManagerClass": _by_rename(),
        # Adaptive execution joins what turns out small, and cannot part what turns out large.
        "spark.sql.shuffle.partitions": str(8 * _cores(settings.cores)),
        "spark.databricks.delta.snapshotPartitions": "1",
    }
    if settings.size != "large":
        conf |= _small(settings.cores)
    if settings.s3:
        conf |= s3_conf() | {"spark.hadoop.fs.s3a.buffer.dir": str(scratch / "s3a")}
    return {**conf, **settings.conf}


def _small(cores: str = "*") -> dict[str, str]:
    """What makes runs of seconds to minutes on one machine quick."""
    return {
        # The defaults are for clusters: 200 and 50 tasks of nothing cost seconds each time.
        "spark.sql.shuffle.partitions": str(_cores(cores)),
        "spark.databricks.delta.snapshotPartitions": "1",
        # Compiling each plan, and planning it again between stages, costs more than small data gain.
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.sql.adaptive.enabled": "false",
        # So do filters inferred from filters, and pruning by what another side of a join turns out to hold.
        "spark.sql.constraintPropagation.enabled": "false",
        "spark.sql.optimizer.dynamicPartitionPruning.enabled": "false",
        "spark.sql.optimizer.runtime.bloomFilter.enabled": "false",
    }


def _by_rename() -> str:
    """The class that writes the checksum of a table's state by FileSystem and not by FileContext."""
    package = "org.apache.spark.sql.execution.streaming"
    if runtime.spark_series() != "4.0":
        package += ".checkpointing"
    return f"{package}.FileSystemBasedCheckpointFileManager"


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _quote(flag: str) -> str:
    return '"' + flag.replace("\\", "\\\\").replace('"', '\\"') + '"' if " " in flag else flag


def _cores(cores: str) -> int:
    return (os.cpu_count() or 1) if cores == "*" else max(1, int(cores))


def default_memory(cores: int) -> str:
    """What the JVM of a session on this machine may take: 1 GiB and 256 MiB for each core, which has a task
    at a time; half of the machine's and 4 GiB at most."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return f"{min(1024 + 256 * cores, 4096, max(1024, total // 2))}m"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _end_jvm() -> None:
    """End the JVM, so that the next session starts one with its own memory and flags."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    gateway = SparkContext._gateway
    if gateway is None:
        return
    process = getattr(gateway, "proc", None)
    with suppress(Exception):
        gateway.shutdown()
    SparkContext._gateway = None
    SparkContext._jvm = None
    # What a stop leaves behind where the JVM died before it.
    SparkContext._active_spark_context = None
    SparkSession._instantiatedSession = None
    if process is not None:
        process.stdin.close()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()


def in_words(error: Exception) -> Exception:
    """error, or where it is Spark's or Java's one that says it in a line. Its text would be looked up only
    when asked, and by then the JVM may be gone. What storage answered comes before what Spark made of it."""
    from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    from raretrail.s3 import from_spark

    if not isinstance(error, PySparkException | Py4JJavaError):
        return error
    text = str(error)
    cause = error
    while (cause := getattr(cause, "_cause", None)) is not None:
        text += f"\n{cause}"
    if told := from_spark(text):
        return told
    lines = text.strip().splitlines() or ["no message"]
    raised = re.findall(r"^[\w.]*(?:Error|Exception): .+", text, re.MULTILINE)
    if "Traceback (most recent call last)" in text and raised:  # of a Python worker
        return SparkError(f"failed: {raised[-1][:400]}; --debug shows where")
    if isinstance(error, Py4JJavaError):
        # "An error occurred while calling o169.save.", then Java's own words, then what caused it.
        causes = [line.partition(": ")[2] for line in lines if line.startswith(("Caused by: ", ": "))]
        return SparkError(f"failed: {(causes or lines)[-1][:400]}; --debug shows where")
    return SparkError(f"failed: {type(error).__name__}: {lines[0][:400]}; --debug shows where")
