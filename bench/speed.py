"""How long the main job takes, cold and whole process: months played forward, then a scheduled run.

    python bench/speed.py [--people 40] [--days 35] [--judged 14] [--repeat 1] [--into PAGE]

Prints a table: seconds of each, and the scheduled runs as shares of the played one. Every run is a
process of its own, as a scheduler starts it; nothing else should run beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from machine import tell

from raretrail.simulate import Shape, simulate


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(prog="speed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--days", type=int, default=35)
    parser.add_argument("--judged", type=int, default=14)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--into", type=Path, help="a page of the manual to write the table into")
    options = parser.parse_args()
    shape = Shape(people=options.people, days=options.days, judged_days=options.judged)
    lines = ["| run | seconds | stages |", "|---|---|---|"]
    with tempfile.TemporaryDirectory(prefix="raretrail-speed-") as folder:
        out = Path(folder) / "simulated"
        events = simulate(out, shape).events
        played, first, quiet = [], [], []
        for number in range(options.repeat):
            warehouse = Path(folder) / f"warehouse-{number}"
            end = datetime(shape.end.year, shape.end.month, shape.end.day, tzinfo=UTC)
            span = ["--from", shape.judged_from.isoformat(), "--to", shape.end.isoformat()]
            played.append(_run(out, warehouse, span))
            later = (end - timedelta(hours=1)).isoformat()
            first.append(_run(out, warehouse, ["--as-of", later]))
            quiet.append(_run(out, warehouse, ["--as-of", later]))
        names = (
            "played forward from nothing",
            "scheduled, the first of its day: a baseline and two hours",
            "scheduled, no new files: the same two hours again",
        )
        for name, runs in zip(names, (played, first, quiet), strict=True):
            seconds = statistics.median(s for s, _ in runs)
            stages = ", ".join(f"{stage} {value:.0f}" for stage, value in runs[0][1].items())
            lines.append(f"| {name} | {seconds:.0f} | {stages} |")
        whole = statistics.median(s for s, _ in played)
        shares = [f"{statistics.median(s for s, _ in runs) / whole:.2f}" for runs in (first, quiet)]
    lines += ["", f"The scheduled runs take {' and '.join(shares)} of the played one."]
    told = (
        f"{shape.people} people, {events:,} events of {shape.days} days, {shape.judged_days} of them judged:"
    )
    text = "\n".join([told, "", *lines])
    tell(text, "speed", options.into)


def _run(simulated: Path, warehouse: Path, more: list[str]) -> tuple[float, dict[str, float]]:
    command = [
        sys.executable, "-m", "raretrail", "run", "--trail", str(simulated / "trail"), "--warehouse",
        str(warehouse), "--asn-db", str(simulated / "asn.mmdb"), "--format", "json", "--quiet", *more,
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    record = json.loads(done.stdout[done.stdout.index("{") :])
    return seconds, record["seconds"]


if __name__ == "__main__":
    main()
