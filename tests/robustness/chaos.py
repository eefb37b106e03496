"""Kill the job anywhere, run it again, and compare every table with an undisturbed run.

    python tests/robustness/chaos.py [--kills N] [--each K] [--seed S] [--keep DIR]

The whole process group is killed (SIGKILL), JVM and Python workers included, at a random moment, K times
in a row on one warehouse, each kill somewhere in what the one before left undone. Then the job runs to
its end, and every table must equal that of a warehouse nobody disturbed: row for row and column for
column, but for the times of running and the run's own name.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "bench")]

from detection.page import put  # noqa: E402

from raretrail.look import open_duckdb  # noqa: E402
from raretrail.simulate import Shape, simulate  # noqa: E402
from raretrail.tables import ALL, DATA_QUALITY, RUNS  # noqa: E402

# When and under which name something ran, and nothing else.
OF_RUNNING = {"run_id", "ingested_at", "located_at", "first_scored_at", "checked_at"}

Contents = dict[str, list[str]]


def main() -> int:
    """Read the options, kill, compare, print; 1 when a table differs."""
    parser = argparse.ArgumentParser(prog="chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--each", type=int, default=5, help="kills in a row on one warehouse")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder to work in and leave")
    parser.add_argument("--into", type=Path, help="a page of the manual to write the figures into")
    options = parser.parse_args()
    work = options.keep or Path(tempfile.mkdtemp(prefix="raretrail-chaos-"))
    work.mkdir(parents=True, exist_ok=True)
    try:
        return _chaos(work, options.kills, options.each, random.Random(options.seed), options.into)
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)


def _chaos(work: Path, kills: int, each: int, rng: random.Random, into: Path | None) -> int:
    shape = Shape(seed=3, people=6, days=6, judged_days=2, accounts=2)
    simulate(work / "simulated", shape)
    job = [
        sys.executable, "-m", "raretrail", "run", "--trail", str(work / "simulated" / "trail"),
        "--asn-db", str(work / "simulated" / "asn.mmdb"), "--from", shape.judged_from.isoformat(),
        "--to", shape.end.isoformat(), "--warehouse",
    ]  # fmt: skip
    start = time.monotonic()
    _finish([*job, str(work / "undisturbed")])
    whole = time.monotonic() - start
    wanted = contents(work / "undisturbed")
    print(f"undisturbed: {whole:.0f} s, {sum(map(len, wanted.values())):,} rows in {len(wanted)} tables")
    done, differing, warehouses, stages = 0, 0, 0, Counter[str]()
    while done < kills:
        warehouse = work / "killed"
        shutil.rmtree(warehouse, ignore_errors=True)
        struck = []
        for _ in range(min(each, kills - done)):
            stage = _kill([*job, str(warehouse)], rng.uniform(3, whole * 1.05))
            if stage is None:
                break  # it ended before it was struck: there is nothing left to disturb
            struck.append(stage)
            done += 1
        stages.update(struck)
        _finish([*job, str(warehouse)])
        different = compare(wanted, contents(warehouse))
        differing += bool(different)
        warehouses += 1
        said = "; ".join(different) if different else "the same"
        print(f"{done} kills ({', '.join(struck)}): {said}", flush=True)
    where = ", ".join(f"{count} in {stage}" for stage, count in sorted(stages.items()))
    text = (
        f"{done} kills ({where}) over {warehouses} warehouses of {sum(map(len, wanted.values())):,} rows in "
        f"{len(wanted)} tables: {differing} warehouses differ."
    )
    print(text)
    if into:
        put(into, "chaos", text)
    return int(differing > 0)


def _finish(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode:
        raise SystemExit(f"the job failed with {done.returncode}: {done.stderr[-3000:]}")


def _kill(command: list[str], after: float) -> str | None:
    """Start the job and kill its process group; the stage it was in, None when it had ended."""
    with tempfile.TemporaryFile() as told:
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=told, start_new_session=True)
        try:
            job.wait(after)
            return None
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
        told.seek(0)
        lines = [line.split()[-1].decode() for line in told.read().splitlines() if line.strip()]
    known = ("ingest", "history", "baseline", "score", "check", "publish")
    return next((line for line in reversed(lines) if line in known), "start" if not lines else "ingest")


def contents(warehouse: Path) -> Contents:
    """Every table's rows as sorted text, without what tells of running."""
    held: Contents = {}
    with open_duckdb(str(warehouse)) as look:
        for table in ALL:
            if table in (RUNS, DATA_QUALITY) or table.name.startswith("staged_"):
                continue
            names = [name for name in table.column_names if name not in OF_RUNNING]
            if (warehouse / table.name).is_dir():
                held[table.name] = sorted(repr([row[name] for name in names]) for row in look.rows(table))
    return held


def compare(wanted: Contents, found: Contents) -> list[str]:
    """What differs, a line a table."""
    said = []
    for name in sorted(wanted.keys() | found.keys()):
        here, there = Counter(wanted.get(name, ())), Counter(found.get(name, ()))
        lacking, surplus = here - there, there - here
        if lacking or surplus:
            example = next(iter((lacking or surplus).elements()))[:300]
            said.append(f"{name} lacks {lacking.total()} rows and has {surplus.total()} more: {example}")
    return said


if __name__ == "__main__":
    raise SystemExit(main())
