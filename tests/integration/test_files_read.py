"""What a scheduled run reads does not grow with history: counted in files, by what Spark says it scanned."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from longer import lengthen
from raretrail.simulate import Shape, simulate

pytestmark = [pytest.mark.integration, pytest.mark.long]

SHAPE = Shape(seed=3, people=6, days=7, judged_days=1, accounts=1, campaigns=("new_city",))
SHORT, LONG = 9, 400

# Each call runs the job over one warehouse as of one moment; one session serves all.
_RUNS = """
import json, sys
from datetime import datetime
from raretrail.session import close_session, open_session
from raretrail.settings import load_settings
from raretrail.stages.run import run
log, *calls = json.loads(sys.argv[1])
spark = open_session(conf={"spark.eventLog.enabled": "true", "spark.eventLog.dir": log,
                           "spark.eventLog.compress": "false", "spark.eventLog.rolling.enabled": "false"})
for options, as_of in calls:
    ended = run(spark, load_settings(options=options)[0], as_of=datetime.fromisoformat(as_of))
    assert ended.record["status"] == "done", ended
    print(json.dumps(ended.record["counts"]), flush=True)
close_session(spark)
"""


def _ran(log: Path, *calls: tuple[dict[str, Any], datetime]) -> list[dict[str, int]]:
    """The counts of each run."""
    log.mkdir(exist_ok=True)
    given = json.dumps([log.as_uri(), *[(options, as_of.isoformat()) for options, as_of in calls]])
    done = subprocess.run([sys.executable, "-c", _RUNS, given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def _scans(plan: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """(table's path, id of the number of files read) of every scan of a plan."""
    found = re.search(r"\[file:([^,\]]*)", plan.get("metadata", {}).get("Location", ""))
    for metric in plan["metrics"]:
        if found and metric["name"] == "number of files read":
            yield found[1], metric["accumulatorId"]
    for child in plan["children"]:
        yield from _scans(child)


def files_read(log: Path) -> dict[Path, dict[str, int]]:
    """By warehouse and table the most files that one scan read."""
    tables: dict[int, Path] = {}
    most: dict[Path, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for file in log.iterdir():
        for line in file.read_text().splitlines():
            event = json.loads(line)
            if "sparkPlanInfo" in event:
                tables |= {metric: Path(path) for path, metric in _scans(event["sparkPlanInfo"])}
            for metric, value in event.get("accumUpdates", ()):
                if metric in tables:
                    path = tables[metric]
                    read = most[path.parent]
                    read[path.name] = max(read[path.name], value)
    return most


def test_a_scheduled_run_reads_as_many_files_of_400_days_as_of_9(tmp_path: Path) -> None:
    out, trail = tmp_path / "organisation", tmp_path / "trail"
    campaign = simulate(out, SHAPE).campaigns[0]
    moment = datetime.fromisoformat(campaign["first_time"])
    files = sorted((out / "trail").rglob("*.json.gz"), key=lambda file: file.name.split("_")[3])

    def deliver(until: datetime) -> None:
        for file in files:
            if file.name.split("_")[3] <= f"{until:%Y%m%dT%H%MZ}":
                (trail / file.relative_to(out / "trail")).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, trail / file.relative_to(out / "trail"))

    def options(warehouse: Path) -> dict[str, Any]:
        geo = {"asn_db": str(out / "asn.mmdb")}
        return {"trail": [str(trail)], "warehouse": str(warehouse), "geo": geo}

    short, long = tmp_path / "short", tmp_path / "long"
    deliver(moment)
    _ran(tmp_path / "log-before", (options(short), moment))
    lengthen(short, SHORT)
    shutil.copytree(short, long)
    grown = lengthen(long, LONG)
    assert grown["events"] > 250, "the long history is not long"
    later = campaign["last_time"]
    deliver(datetime.fromisoformat(later) + timedelta(hours=1))
    moment = datetime.fromisoformat(later) + timedelta(hours=1)
    log = tmp_path / "log"
    counts = _ran(log, (options(short), moment), (options(long), moment))
    assert counts[0] == counts[1]
    assert counts[0]["files_new"] and counts[0]["published"] and counts[0]["incidents"], counts[0]
    read = files_read(log)
    assert read[long].keys() >= {
        "events",
        "presence_daily",
        "baseline_identity_value",
        "anomalies",
        "incidents",
    }
    assert dict(read[short]) == dict(read[long])
