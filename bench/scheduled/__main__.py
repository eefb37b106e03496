"""The scheduled quarter-hour run, timed.

    cd bench && python -m scheduled [--people 40] [--days 11] [--repeat 3] [--runs 12] [--into PAGE]

Each kind of run takes in the same quarter of an hour's files over a copy of the same warehouse and judges
the same two hours, in turns. Cold ones are processes of their own, as a scheduler starts them: seconds are
from start to exit. Nothing else should run beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from machine import tell

from longer import lengthen
from raretrail.errors import EXIT_DONE, EXIT_HELD
from raretrail.simulate import Shape, simulate

QUARTER = timedelta(minutes=15)
# The simulated trail has its files in the first minutes of an hour.
_DELIVERED = timedelta(hours=1)
OWN = ["-m", "raretrail"]
_LONG_DAYS = 400


@dataclass
class Measured:
    """Seconds of each repetition of a kind of run, and the stages of the first."""

    seconds: list[float] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)

    def add(self, taken: tuple[float, dict[str, Any]]) -> dict[str, Any]:
        """Take in a run's seconds and record; the record."""
        seconds, record = taken
        self.seconds.append(seconds)
        self.stages = self.stages or record["seconds"]
        return record

    @property
    def median(self) -> float:
        """The seconds that count."""
        return statistics.median(self.seconds)

    def row(self, name: str) -> str:
        """A row of the table."""
        spread = f"{min(self.seconds):.1f} to {max(self.seconds):.1f}"
        stages = ", ".join(f"{stage} {value:.1f}" for stage, value in self.stages.items())
        return f"| {name} | {self.median:.1f} | {spread} | {len(self.seconds)} | {stages} |"


@dataclass(frozen=True)
class Organisation:
    """A simulated trail, delivered bit by bit."""

    simulated: Path
    trail: Path

    def files(self, after: datetime, until: datetime) -> list[tuple[Path, Path]]:
        """(from, to) of what is delivered in (after, until]."""
        found = []
        for file in sorted((self.simulated / "trail").rglob("*.json.gz")):
            delivered = datetime.strptime(file.name.split("_")[3], "%Y%m%dT%H%MZ").replace(tzinfo=UTC)
            if after < delivered <= until:
                found.append((file, self.trail / file.relative_to(self.simulated / "trail")))
        return found

    def deliver(self, after: datetime, until: datetime) -> int:
        """Deliver these; how many."""
        files = self.files(after, until)
        for source, target in files:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        return len(files)

    def options(self, warehouse: Path) -> dict[str, Any]:
        """Settings over a warehouse."""
        geo = {"asn_db": str(self.simulated / "asn.mmdb")}
        return {"trail": [str(self.trail)], "warehouse": str(warehouse), "geo": geo}

    def run(self, program: list[str], warehouse: Path, more: list[str]) -> tuple[float, dict[str, Any]]:
        """Run `raretrail run` in a process of its own; its seconds and its record."""
        command = [
            sys.executable, *program, "run", "--trail", str(self.trail), "--warehouse", str(warehouse),
            "--asn-db", str(self.simulated / "asn.mmdb"), "--format", "json", "--quiet", *more,
        ]  # fmt: skip
        begun = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begun
        if done.returncode not in (EXIT_DONE, EXIT_HELD):
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        record: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
        return seconds, record


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(prog="scheduled", description="Time the scheduled run.")
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--days", type=int, default=11)
    parser.add_argument("--repeat", type=int, default=3, help="of each cold kind of run (default: 3)")
    parser.add_argument("--runs", type=int, default=12, help="of the resident process (default: 12)")
    parser.add_argument("--into", type=Path, help="a page of the manual to write the table into")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="raretrail-scheduled-") as folder:
        text = measured(Path(folder), options.people, options.days, options.repeat, options.runs)
    tell(text, "scheduled", options.into)


@contextmanager
def copy_of(warehouse: Path) -> Iterator[Path]:
    """A copy beside a warehouse, for as long as it is needed."""
    copy = warehouse.with_name("copy")
    shutil.copytree(warehouse, copy)
    yield copy
    shutil.rmtree(copy)


def prepared(work: Path, people: int, days: int) -> tuple[Organisation, Path, datetime]:
    """An organisation, a warehouse that has judged it up to a working day's afternoon, and that time."""
    here, base = Organisation(work / "simulated", work / "trail"), work / "base"
    shape = Shape(people=people, days=days, judged_days=2)
    simulate(here.simulated, shape)
    # The last day but one, which has a day of quarters after it; before the hour, when files are delivered.
    end = datetime(shape.end.year, shape.end.month, shape.end.day, tzinfo=UTC)
    moment = end - timedelta(days=2) + timedelta(hours=13, minutes=55)
    here.deliver(datetime(1970, 1, 1, tzinfo=UTC), moment)
    span = [f"{end - timedelta(days=3):%Y-%m-%d}", f"{end - timedelta(days=2):%Y-%m-%d}"]
    here.run(OWN, base, ["--from", span[0], "--to", span[1]])
    here.run(OWN, base, ["--as-of", moment.isoformat()])
    return here, base, moment


def measured(work: Path, people: int, days: int, repeat: int, runs: int) -> str:
    """The tables."""
    here, base, moment = prepared(work, people, days)
    long = work / "long"
    shutil.copytree(base, long)
    lengthen(long, _LONG_DAYS)
    before = here.trail.with_name("trail-before")
    shutil.copytree(here.trail, before)
    files = here.deliver(moment, moment + QUARTER)

    kinds: dict[str, tuple[list[str], Path, datetime]] = {
        "cold": (OWN, base, moment + QUARTER),
        "defaults": (["-m", "scheduled.defaults"], base, moment + QUARTER),
        "long": (OWN, long, moment + QUARTER),
        "quiet": (OWN, base, moment),
    }
    took = {name: Measured() for name in kinds}
    events = 0
    for _ in range(repeat):
        for name, (program, source, as_of) in kinds.items():
            with copy_of(source) as warehouse:
                if name == "quiet":  # all that came was taken in and judged hours ago
                    as_of += timedelta(hours=4)
                    here.run(OWN, warehouse, ["--as-of", (as_of - QUARTER).isoformat()])
                record = took[name].add(here.run(program, warehouse, ["--as-of", as_of.isoformat()]))
            events = events or record["counts"]["events"]

    shutil.rmtree(here.trail)
    before.rename(here.trail)
    resident, rest = _resident(here, base, moment, runs)
    lines = [
        f"{events:,} events came in {files} files in the quarter; {people} people.",
        "",
        "| run | seconds (median) | least to most | runs | stages |",
        "|---|---|---|---|---|",
        took["cold"].row(f"cold, {days - 2} days of history"),
        took["defaults"].row("the same with Spark's and Delta's defaults"),
        took["long"].row(f"cold, {_LONG_DAYS} days of history"),
        took["quiet"].row("cold, nothing new and nothing to judge"),
        resident.row("resident, from the third run on"),
        "",
        "| ratio | aim | |",
        "|---|---|---|",
        _ratio("cold to defaults", 0.3, took["cold"], took["defaults"]),
        _ratio(f"{_LONG_DAYS} days to {days - 2}", 1.1, took["long"], took["cold"]),
        _ratio("resident to cold", 0.35, resident, took["cold"]),
        "",
        f"A resident process at rest after run 2, {len(rest) // 2} and {len(rest)}: "
        f"{rest[1]:,}, {rest[len(rest) // 2 - 1]:,} and {rest[-1]:,} MB of all its processes.",
    ]
    return "\n".join(lines)


def _resident(here: Organisation, base: Path, moment: datetime, runs: int) -> tuple[Measured, list[int]]:
    """Seconds of the runs but the first two, and MB at rest after each."""
    warehouse = here.simulated.parent / "resident"
    shutil.copytree(base, warehouse)
    quarters = []
    for number in range(runs + 1):
        after = moment + number * _DELIVERED
        files = [(str(source), str(target)) for source, target in here.files(after, after + QUARTER)]
        quarters.append(((after + QUARTER).isoformat(), files))
    given = json.dumps([here.options(warehouse), quarters])
    done = subprocess.run(
        [sys.executable, "-m", "scheduled.resident", given], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the resident process ended with {done.returncode}:\n{done.stderr[-2000:]}")
    said = [json.loads(line) for line in done.stdout.splitlines()]
    seconds = [one["seconds"] for one in said if "seconds" in one]
    return Measured(seconds[2:]), [one["rest"] for one in said if "rest" in one]


def _ratio(name: str, aim: float, measured: Measured, against: Measured) -> str:
    ratio = measured.median / against.median
    return f"| {name} | at most {aim} | {ratio:.2f} |"


if __name__ == "__main__":
    main()
