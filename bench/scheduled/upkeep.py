"""Files and log entries after very many scheduled runs, before and after maintenance.

    cd bench && python -m scheduled.upkeep [--runs 10000] [--real 20] [--into PAGE]

The first runs are real. The rest are commits as those made them, written straight into the tables that runs
append to, a quarter of an hour apart by the clock of the log's files. Then one run, `raretrail maintain`, and
another run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from deltalake import DeltaTable, write_deltalake
from machine import tell

from raretrail.simulate import Shape, simulate
from raretrail.tables import DATA_QUALITY, EVENTS, INGEST_FILES, RUNS, Table
from scheduled.__main__ import Organisation

_QUARTER = timedelta(minutes=15)
_APPENDED: tuple[Table, ...] = (EVENTS, INGEST_FILES, RUNS, DATA_QUALITY)
_CHECKPOINTED = 100  # ten times the interval of the tables, which would take the bench an hour


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(prog="upkeep", description="Count what many scheduled runs leave.")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--real", type=int, default=20)
    parser.add_argument("--into", type=Path, help="a page of the manual to write the table into")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="raretrail-upkeep-") as folder:
        text = counted(Path(folder), options.runs, options.real)
    tell(text, "upkeep", options.into)


def counted(work: Path, runs: int, real: int) -> str:
    """The table."""
    here = Organisation(work / "simulated", work / "trail")
    shape = Shape(people=6, days=4, judged_days=1, accounts=1)
    simulate(here.simulated, shape)
    end = datetime(shape.end.year, shape.end.month, shape.end.day, tzinfo=UTC)
    moment = end - timedelta(days=1) + timedelta(hours=10)
    here.deliver(datetime(1970, 1, 1, tzinfo=UTC), moment)
    warehouse = work / "warehouse"
    own = ["-m", "raretrail"]
    here.run(own, warehouse, ["--as-of", moment.isoformat()])
    quarters = []
    for number in range(real):
        after = moment + number * _QUARTER
        files = [(str(source), str(target)) for source, target in here.files(after, after + _QUARTER)]
        quarters.append(((after + _QUARTER).isoformat(), files))
    given = json.dumps([here.options(warehouse), quarters])
    done = subprocess.run(
        [sys.executable, "-m", "scheduled.resident", given], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the resident process ended with {done.returncode}:\n{done.stderr[-2000:]}")
    states = {f"{real} real runs": sizes(warehouse)}
    at = moment + real * _QUARTER
    for table in _APPENDED:
        _commit(warehouse / table.name, table, runs - real)
    states[f"{runs:,} runs"] = sizes(warehouse)
    seconds = []

    def run_once() -> None:
        nonlocal at
        at += _QUARTER
        seconds.append(here.run(own, warehouse, ["--as-of", at.isoformat()])[0])

    run_once()
    begun = time.perf_counter()
    maintain = [sys.executable, *own, "maintain", "--warehouse", str(warehouse), "--quiet"]
    subprocess.run(maintain, capture_output=True, check=True)
    kept_up = time.perf_counter() - begun
    run_once()
    states["after `raretrail maintain` and a run"] = sizes(warehouse)
    names = [table.name for table in _APPENDED]
    lines = [
        "| after | " + " | ".join(f"`{name}` files, log entries" for name in names) + " | all tables |",
        "|---" * (len(names) + 2) + "|",
    ]
    for state, found in states.items():
        cells = [f"{found[name][0]:,}, {found[name][1]:,}" for name in names]
        whole = f"{sum(f for f, _ in found.values()):,}, {sum(e for _, e in found.values()):,}"
        lines.append(f"| {state} | " + " | ".join(cells) + f" | {whole} |")
    lines += [
        "",
        f"A scheduled run took {seconds[0]:.1f} s before maintenance and {seconds[1]:.1f} s after it; "
        f"maintenance {kept_up:.0f} s.",
    ]
    return "\n".join(lines)


def sizes(warehouse: Path) -> dict[str, tuple[int, int]]:
    """(files of the current version, entries of the log) of every table."""
    return {
        log.parent.name: (len(DeltaTable(str(log.parent)).file_uris()), sum(1 for _ in log.iterdir()))
        for log in warehouse.glob("*/_delta_log")
    }


def _commit(path: Path, table: Table, count: int) -> None:
    """Commit a row of the table again and again, as if a quarter of an hour lay between each two.

    The first commit is written as a run would, the others are entries of the log like it, each with a file.
    """
    held = DeltaTable(str(path))
    first = held.version() + 1
    row = held.to_pyarrow_table().slice(0, 1)
    write_deltalake(held, row, mode="append", partition_by=list(table.partition_by) or None)
    log = path / "_delta_log"
    actions = [json.loads(line) for line in (log / f"{first:020d}.json").read_text().splitlines()]
    (add,) = (action["add"] for action in actions if "add" in action)
    file = path / add["path"]
    values = add["partitionValues"]
    started = datetime.now(UTC) - count * _QUARTER
    for number in range(1, count):
        if values:
            # Each day's hundred commits go to a partition of their own, before those that are there.
            ((name, day),) = values.items()
            place = date.fromisoformat(day) - timedelta(days=400 - number // 96)
            add["partitionValues"] = {name: place.isoformat()}
            add["path"] = f"{name}={place}/part-{number}-{file.name}"
        else:
            add["path"] = f"part-{number}-{file.name}"
        (path / add["path"]).parent.mkdir(exist_ok=True)
        os.link(file, path / add["path"])
        entry = "\n".join(map(json.dumps, actions))
        (log / f"{first + number:020d}.json").write_text(entry)
        if (first + number) % _CHECKPOINTED == 0:
            DeltaTable(str(path)).create_checkpoint()
    # Those before lie further back: what is younger than an entry before it is cleaned up no sooner.
    for kept in log.iterdir():
        if (version := kept.name[:20]).isdigit():
            when = (started + (int(version) - first) * _QUARTER).timestamp()
            os.utime(kept, (when, when))


if __name__ == "__main__":
    main()
