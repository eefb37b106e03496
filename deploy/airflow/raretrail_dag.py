"""raretrail under Airflow 3.3 or later: a run every quarter of an hour, baseline and maintenance by night.

Put this file into the folder of DAGs. A worker needs raretrail on its PATH, or what RARETRAIL_COMMAND
names, such as `spark-submit --master yarn --deploy-mode client /opt/raretrail/jobs`; trail, warehouse and all
else come from the settings file that RARETRAIL_CONF names.
"""

import os
import shlex
import subprocess
from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

COMMAND = os.environ.get("RARETRAIL_COMMAND", "raretrail")
CONF = os.environ.get("RARETRAIL_CONF", "/etc/raretrail/settings.yml")
ARGS = {
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "retries": 2,
    "retry_delay": timedelta(minutes=1),
    "execution_timeout": timedelta(minutes=50),
}
# What raretrail's exit codes mean; any other than these and 0 is tried again.
USAGE, HELD, BUSY = 2, 3, 4


def command(step: str) -> list[str]:
    """The words of a step: `raretrail run ...`, or `spark-submit ... jobs/run.py ...`."""
    words = shlex.split(COMMAND)
    if words[0].endswith("spark-submit"):
        words[-1] = f"{words[-1].rstrip('/')}/{step}.py"
    else:
        words.append(step)
    return [*words, "--conf", CONF, "--quiet"]


def run_step(step: str) -> None:
    """Run a step and end the task as its exit code says."""
    done = subprocess.run(command(step), stderr=subprocess.PIPE, text=True, check=False)
    print(done.stderr, end="")
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if done.returncode == BUSY:
        raise AirflowSkipException(last)
    if done.returncode in (USAGE, HELD):
        raise AirflowFailException(last)  # trying again would change nothing
    if done.returncode:
        raise AirflowException(f"ended with {done.returncode}: {last}")


@dag(schedule="*/15 * * * *", catchup=False, max_active_runs=1, default_args=ARGS, tags=["raretrail"])
def raretrail():
    """Take in what is new, judge it, publish."""
    task(run_step, task_id="run")("run")


@dag(schedule="7 0 * * *", catchup=False, max_active_runs=1, default_args=ARGS, tags=["raretrail"])
def raretrail_nightly():
    """Bring the baseline up to the day; drop, compact and vacuum."""
    baseline = task(run_step, task_id="baseline")("baseline")
    maintain = task(run_step, task_id="maintain", trigger_rule="all_done")("maintain")
    baseline >> maintain


raretrail()
raretrail_nightly()
