"""The house's own rules, held by reading the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What neither Spark Connect nor serverless compute has, by the name it is called or read by.
FORBIDDEN = {
    # RDDs, the context and the JVM
    "rdd", "toJavaRDD", "sparkContext", "sqlContext", "hadoopConfiguration", "newSession",
    "_jvm", "_jsc", "_jdf", "_jspark", "_jsparkSession", "_jschema", "_gateway", "getOrCreateSparkContext",
    "parallelize", "mapPartitions", "foreachPartition", "foreach", "emptyRDD", "setLogLevel", "setJobGroup",
    # What is kept on the cluster between plans
    "cache", "persist", "unpersist", "cacheTable", "uncacheTable", "clearCache", "checkpoint",
    "localCheckpoint", "storageLevel",
    # What crosses sessions
    "createGlobalTempView", "createOrReplaceGlobalTempView", "dropGlobalTempView",
    # What needs a class of the JVM, or a file beside it
    "registerJavaFunction", "registerJavaUDAF", "addFile", "addPyFile", "addJar",
    # A function of a batch runs elsewhere and sees nothing of this process
    "foreachBatch",
    # Nothing that reads through Unity Catalog may know it
    "input_file_name",
}  # fmt: skip
FORBIDDEN_MODULES = {"delta", "py4j", "pyspark.rdd", "pyspark.context", "pyspark.ml", "pyspark.mllib"}
FORBIDDEN_NAMES = {"SparkContext", "SparkConf", "SQLContext", "HiveContext", "RDD"}
FORBIDDEN_SQL = re.compile(
    r"\b(?:(?:UN)?CACHE\s+(?:LAZY\s+)?TABLE|GLOBAL\s+TEMP|ADD\s+(?:JAR|FILE|ARCHIVE)|CREATE\s+(?:TEMPORARY\s+)?"
    r"FUNCTION|global_temp\.|input_file_name\()"
)
# What serverless compute lets a session set: https://docs.databricks.com/en/spark/conf, section "Configure
# Spark properties for serverless notebooks and jobs". Looked up in November 2026: the page in a stored copy
# that ends before the list, its six names as two public repositories give them.
SERVERLESS_CONF = {
    "spark.databricks.execution.timeout",
    "spark.sql.ansi.enabled",
    "spark.sql.files.maxPartitionBytes",
    "spark.sql.legacy.timeParserPolicy",
    "spark.sql.session.timeZone",
    "spark.sql.shuffle.partitions",
}
# Others, each with the code that sets it only where Spark is ours or the warehouse is of this machine.
LOCAL_CONF = {
    "lib/raretrail/stages/maintain.py": {"spark.sql.sources.parallelPartitionDiscovery.parallelism"}
}
# The session is where local Spark is started and ended, so it alone may touch the JVM.
EXCEPT = {"lib/raretrail/session.py"}
CODE = sorted(
    path.relative_to(ROOT).as_posix() for room in ("lib", "jobs") for path in (ROOT / room).rglob("*.py")
)


def offences(source: str) -> Iterator[str]:
    """Where a source names what Connect or serverless compute lacks."""
    for node in ast.walk(ast.parse(source)):
        at = f"line {getattr(node, 'lineno', 0)}: "
        if isinstance(node, ast.Attribute) and node.attr in FORBIDDEN:
            yield f"{at}.{node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module:
            if any(f"{node.module}.".startswith(f"{module}.") for module in FORBIDDEN_MODULES):
                yield f"{at}from {node.module}"
            if node.module.startswith("pyspark"):
                taken = {alias.name for alias in node.names} & (FORBIDDEN_NAMES | FORBIDDEN)
                yield from (f"{at}from {node.module} import {name}" for name in sorted(taken))
        if isinstance(node, ast.Import):
            for alias in node.names:
                if any(f"{alias.name}.".startswith(f"{module}.") for module in FORBIDDEN_MODULES):
                    yield f"{at}import {alias.name}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = FORBIDDEN_SQL.search(node.value)
            if found:
                yield f"{at}{found[0]}"
        # A query may name DataFrames; values as parameters fail with Delta on Spark 4.1.
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "sql"
            and (len(node.args) > 1 or any(keyword.arg == "args" for keyword in node.keywords))
        ):
            yield f"{at}spark.sql(args=)"


def settings_of_spark(source: str) -> set[str]:
    """The names of Spark's settings that a source spells out."""
    texts = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return {text for text in texts if isinstance(text, str) and re.fullmatch(r"spark(\.\w+)+", text)}


@pytest.mark.parametrize("path", CODE)
def test_code_uses_only_what_connect_has(path: str) -> None:
    found = list(offences((ROOT / path).read_text(encoding="utf-8")))
    assert not found or path in EXCEPT, found


@pytest.mark.parametrize("path", sorted(set(CODE) - EXCEPT))
def test_settings_are_those_that_serverless_lets_be_set(path: str) -> None:
    named = settings_of_spark((ROOT / path).read_text(encoding="utf-8"))
    assert named <= SERVERLESS_CONF | LOCAL_CONF.get(path, set())


@pytest.mark.parametrize(
    "line",
    [
        "x.rdd",
        "s.sparkContext",
        "df.cache()",
        "df.checkpoint()",
        "df.localCheckpoint(eager=True)",
        "df.createOrReplaceGlobalTempView('v')",
        "stream.writeStream.foreachBatch(f)",
        "s.catalog.cacheTable('t')",
        "from delta.tables import DeltaTable",
        "import delta",
        "from pyspark import SparkContext",
        "from pyspark.sql.functions import input_file_name",
        "from pyspark.ml.feature import PCA",
        "s.sql(q, args={})",
        "s.sql(q, {'a': 1})",
        "s.sql('CACHE TABLE t')",
        "s.sql(f'SELECT * FROM global_temp.{name}')",
    ],
)
def test_guard_sees_what_connect_lacks(line: str) -> None:
    assert list(offences(line))


def test_guard_sees_settings() -> None:
    assert settings_of_spark("c.set('spark.sql.codegen.wholeStage', x)") == {"spark.sql.codegen.wholeStage"}


def test_no_two_test_files_share_a_name() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), "pytest imports them by name alone"


def test_maintenance_knows_every_scratch_table() -> None:
    from raretrail.stages.maintain import SCRATCH

    staged = {
        node.args[0].value
        for path in CODE
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "stage"
        and len(node.args) == 2
        and isinstance(node.args[0], ast.Constant)
    }
    assert staged == set(SCRATCH)
