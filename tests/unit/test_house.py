"""The house's own rules, held by reading the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What neither Spark Connect nor serverless compute has. DataFrame.cache and persist are refused there too.
FORBIDDEN = {
    "rdd",
    "sparkContext",
    "_jvm",
    "_jsc",
    "_jdf",
    "cache",
    "persist",
    "toJavaRDD",
    "foreachPartition",
}
# The session is where local Spark is started and ended, so it alone may touch the JVM.
EXCEPT = {"lib/raretrail/session.py"}
CODE = sorted(
    path.relative_to(ROOT).as_posix() for room in ("lib", "jobs") for path in (ROOT / room).rglob("*.py")
)


def offences(source: str) -> Iterator[str]:
    """Where a source names what Connect lacks, or asks delta-spark for its Python API."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in FORBIDDEN:
            yield f"line {node.lineno}: .{node.attr}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "delta":
            yield f"line {node.lineno}: from {node.module}"
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "sql"
            and any(keyword.arg == "args" for keyword in node.keywords)
        ):
            yield f"line {node.lineno}: spark.sql(args=)"


@pytest.mark.parametrize("path", CODE)
def test_code_uses_only_what_connect_has(path: str) -> None:
    found = list(offences((ROOT / path).read_text(encoding="utf-8")))
    assert not found or path in EXCEPT, found


@pytest.mark.parametrize(
    "line",
    ["x.rdd", "s.sparkContext", "df.cache()", "from delta.tables import DeltaTable", "s.sql(q, args={})"],
)
def test_guard_sees_what_connect_lacks(line: str) -> None:
    assert list(offences(line))


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
