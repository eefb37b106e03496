"""Where a scheduled run's seconds go: by stage, and by what of the process works.

    cd bench && python -m scheduled.profile [--people 40] [--days 11] [--into PAGE]

One cold run as `python -m scheduled` times it, with Spark's event log on. Nothing else should run beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from ingest.measure import Spent, shares
from machine import tell

# How Delta describes jobs over a table's log.
_OF_THE_LOG = ("Filtering files", "Compute snapshot")


def main() -> None:
    """Read the options, run, print."""
    if sys.argv[1:2] == ["--run"]:
        _run(*sys.argv[2:])
        return
    from scheduled.__main__ import QUARTER, prepared

    parser = argparse.ArgumentParser(prog="profile", description="Where a scheduled run's seconds go.")
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--days", type=int, default=11)
    parser.add_argument("--into", type=Path, help="a page of the manual to write the tables into")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="raretrail-profile-") as folder:
        work = Path(folder)
        here, base, moment = prepared(work, options.people, options.days)
        here.deliver(moment, moment + QUARTER)
        given = json.dumps(here.options(base))
        as_of = (moment + QUARTER).isoformat()
        logs = work / "log"
        logs.mkdir()
        command = [sys.executable, "-m", "scheduled.profile", "--run", given, as_of, str(logs)]
        begun = time.time()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the run ended with {done.returncode}:\n{done.stderr[-3000:]}")
        told = json.loads(done.stdout.splitlines()[-1])
        told["ended"] = time.time()
        events = [json.loads(line) for log in logs.rglob("*") if log.is_file() for line in log.open()]
    text = table(begun, told, events)
    tell(text, "profile", options.into)


def _run(given: str, as_of: str, logs: str) -> None:
    """The run itself, in a process of its own; tells when each stage began and what worked how long."""
    from raretrail.session import close_session, open_session
    from raretrail.settings import load_settings
    from raretrail.stages.run import run

    settings, _ = load_settings(options=json.loads(given))
    conf = {"spark.eventLog.enabled": "true", "spark.eventLog.dir": Path(logs).as_uri()}
    conf |= {"spark.eventLog.compress": "false", "spark.eventLog.rolling.enabled": "false"}
    spark = open_session(driver_memory=settings.spark.driver_memory, conf=conf)
    began = [("starting Python, Java and Spark", 0.0)]

    def progress(name: str) -> None:
        began.append((name, time.time()))

    ended = run(spark, settings, as_of=datetime.fromisoformat(as_of), progress=progress)
    began.append(("ending", time.time()))
    worked = _worked()
    close_session(spark)
    print(
        json.dumps(
            {
                "began": began,
                "worked": worked,
                "counts": ended.record["counts"],
                "stages": ended.record["seconds"],
            }
        )
    )


def _worked() -> Counter[str]:
    """Processor seconds so far of this process and of its JVM, by what it is spent on."""
    own = os.getpid()
    spent = Spent()
    for pid in (own, *map(int, Path(f"/proc/{own}/task/{own}/children").read_text().split())):
        spent.note(pid)
    return spent.on()


def table(begun: float, told: dict[str, Any], events: list[dict[str, Any]]) -> str:
    """The tables: begun is when the process was started, by the clock; told is what it told; events are
    Spark's."""
    spans = [(name, at or begun) for name, at in told["began"]]
    ends = [at for _, at in spans[1:]] + [told["ended"]]
    stages: dict[str, list[tuple[float, float]]] = {}
    current = spans[0][0]
    for (name, at), end in zip(spans, ends, strict=True):
        if name in told["stages"] or name in (spans[0][0], spans[-1][0]):  # else a word within a stage
            current = name
        words = "score and, beside it, coverage" if current == "score" else current
        stages.setdefault(words, []).append((at, end))
    queries = [e["time"] / 1000 for e in events if e["Event"].endswith("SparkListenerSQLExecutionStart")]
    begun_jobs = [e for e in events if e["Event"] == "SparkListenerJobStart"]
    starts = {e["Job ID"]: e["Submission Time"] / 1000 for e in begun_jobs}
    asked = sum(any(word in _described(e) for word in _OF_THE_LOG) for e in begun_jobs)
    jobs = [
        (starts[e["Job ID"]], e["Completion Time"] / 1000)
        for e in events
        if e["Event"] == "SparkListenerJobEnd"
    ]
    counts = told["counts"]
    lines = [
        f"{counts['events']:,} events came in {counts['files_new']} files; {counts['findings']} findings.",
        "",
        "| stage | seconds | statements | Spark jobs | seconds with one running |",
        "|---|---|---|---|---|",
    ]
    totals = [0.0, 0, 0, 0.0]
    for name, parts in stages.items():
        row = [
            sum(end - at for at, end in parts),
            sum(at <= q < end for q in queries for at, end in parts),
            sum(at <= j < end for j, _ in jobs for at, end in parts),
            sum(_covered(jobs, at, end) for at, end in parts),
        ]
        totals = [total + one for total, one in zip(totals, row, strict=True)]
        lines.append(f"| {name} | {row[0]:.1f} | {row[1]} | {row[2]} | {row[3]:.1f} |")
    lines.append(f"| all | {totals[0]:.1f} | {totals[1]:.0f} | {totals[2]:.0f} | {totals[3]:.1f} |")
    lines += ["", f"{asked} of these jobs are Delta's own: which files a table has, and which a plan reads."]
    lines += ["", *shares(told["worked"], decimals=1)]
    return "\n".join(lines)


def _described(job: dict[str, Any]) -> str:
    return str(job.get("Properties", {}).get("spark.job.description") or "")


def _covered(jobs: list[tuple[float, float]], start: float, end: float) -> float:
    """How much of [start, end) at least one job ran."""
    covered, reached = 0.0, start
    for at, to in sorted(jobs):
        at, to = max(at, reached), min(to, end)
        if to > at:
            covered, reached = covered + to - at, to
    return covered


if __name__ == "__main__":
    main()
