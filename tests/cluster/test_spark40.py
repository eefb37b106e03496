"""The whole job on Spark 4.0 and its Delta, the pair of Databricks 17.3 LTS: `make test-spark40`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cluster_tools import ROOT, run

import tiny
from raretrail import tables

pytestmark = pytest.mark.cluster

_ASK = (
    "import json, pyspark; from raretrail import runtime;"
    "print(json.dumps([pyspark.__version__, [path.name for path in runtime.delta_jars()]]))"
)

_CALLED = """
import ast, importlib, json, pkgutil, pathlib, raretrail
from pyspark.sql import functions as classic
from pyspark.sql.connect.functions import builtin as connect
trees = [ast.parse(path.read_text()) for path in pathlib.Path(raretrail.__file__).parent.rglob("*.py")]
named = {
    node.attr for tree in trees for node in ast.walk(tree)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "F"
}
for module in pkgutil.walk_packages(raretrail.__path__, "raretrail."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(json.dumps([len(named), sorted(n for n in named if not (hasattr(classic, n) and hasattr(connect, n)))]))
"""


@pytest.fixture(scope="session")
def python40() -> str:
    """The Python of an environment with Spark 4.0 over this one's packages."""
    made = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "spark40.py")], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def test_spark_4_0_gets_the_delta_that_goes_with_it(python40: str, scratch: Path) -> None:
    done = subprocess.run([python40, "-c", _ASK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["4.0.2", ["delta-spark_2.13-4.0.1.jar", "delta-storage-4.0.1.jar"]]


def test_every_function_the_library_calls_is_there_in_spark_4_0(python40: str) -> None:
    done = subprocess.run([python40, "-c", _CALLED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    called, missing = json.loads(done.stdout)
    assert called > 50 and not missing


def test_the_job_on_spark_4_0_leaves_the_same_tables(
    python40: str, options: list[str], local: tiny.Contents, tmp_path: Path
) -> None:
    warehouse = tmp_path / "w"
    job = [python40, "-m", "raretrail", "run", *options, "--warehouse", str(warehouse)]
    done = subprocess.run(job, capture_output=True, text=True, check=False, cwd=ROOT, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    assert not tiny.differences(local, tiny.contents(warehouse))
    # A warehouse of one series is taken over by the other.
    again = run([sys.executable, "-m", "raretrail", "run", *options, "--warehouse", str(warehouse)], tmp_path)
    assert again.returncode == 0, again.stderr[-4000:]
    assert not tiny.differences(local, tiny.contents(warehouse))
    # What was simulated lies further back than some tables are kept.
    conf = tmp_path / "kept.yml"
    conf.write_text(
        yaml.safe_dump({"retention": {table.name: 100_000 for table in tables.ALL if table.retain_days}})
    )
    kept = [python40, "-m", "raretrail", "maintain", "--warehouse", str(warehouse), "--conf", str(conf)]
    done = subprocess.run(kept, capture_output=True, text=True, check=False, cwd=ROOT, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    assert not tiny.differences(local, tiny.contents(warehouse))
