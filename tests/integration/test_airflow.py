"""The DAGs in a real Airflow, in an environment of its own: raretrail does not depend on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.integration]
FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "airflow"
AIRFLOW = "apache-airflow>=3.3,<4"

# Imports the folder as Airflow's own processor does, and runs the steps' function against stand-ins that end
# as raretrail ends.
_LOOK = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
told = {"errors": {str(k): v for k, v in bag.import_errors.items()}, "dags": {}, "ends": {}}
for name, dag in bag.dags.items():
    told["dags"][name] = {
        "tasks": dag.task_ids, "max_active_runs": dag.max_active_runs, "catchup": dag.catchup,
        "retries": [task.retries for task in dag.tasks],
    }
module = sys.modules[next(m for m in sys.modules if m.endswith("raretrail_dag") and "unusual_prefix" in m)]
for code in (0, 1, 2, 3, 4):
    module.command = lambda step, code=code: ["sh", "-c", f"echo why >&2; exit {code}"]
    try:
        module.run_step("run")
        told["ends"][code] = "done"
    except Exception as error:
        told["ends"][code] = f"{type(error).__name__}: {error}"
print("TOLD " + json.dumps(told))
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("airflow")
    venv.EnvBuilder(with_pip=True).create(folder / "venv")
    done = subprocess.run(
        [str(folder / "venv" / "bin" / "python"), "-m", "pip", "install", "-q", "--no-compile", AIRFLOW],
        capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"Airflow cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return folder


def test_airflow_takes_the_dags_and_their_tasks_end_by_exit_code(airflow: Path) -> None:
    environment = {**os.environ, "AIRFLOW_HOME": str(airflow), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(airflow / "venv" / "bin" / "python"), "-c", _LOOK, str(FOLDER)],
        capture_output=True, text=True, check=False, env=environment, cwd=airflow, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("TOLD "))[5:])
    assert told["errors"] == {}
    assert {name: dag["tasks"] for name, dag in told["dags"].items()} == {
        "raretrail": ["run"],
        "raretrail_nightly": ["baseline", "maintain"],
    }
    for dag in told["dags"].values():
        assert (dag["max_active_runs"], dag["catchup"]) == (1, False)
        assert set(dag["retries"]) == {2}
    assert told["ends"] == {
        "0": "done",
        "1": "AirflowException: ended with 1: why",
        "2": "AirflowFailException: why",
        "3": "AirflowFailException: why",
        "4": "AirflowSkipException: why",
    }


def test_steps_are_commands_of_raretrail_or_jobs_of_spark_submit() -> None:
    code = (
        "import ast, sys, os, shlex\n"
        "tree = ast.parse(open(sys.argv[1]).read())\n"
        "kept = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == 'command']\n"
        "scope = {'shlex': shlex, 'COMMAND': sys.argv[2], 'CONF': 'c.yml'}\n"
        "exec(compile(ast.Module(kept, []), 'dag', 'exec'), scope)\n"
        "print(*scope['command']('baseline'))\n"
    )

    def words(command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, str(FOLDER / "raretrail_dag.py"), command],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    assert words("raretrail") == "raretrail baseline --conf c.yml --quiet"
    assert words("spark-submit --master yarn /opt/raretrail/jobs") == (
        "spark-submit --master yarn /opt/raretrail/jobs/baseline.py --conf c.yml --quiet"
    )
