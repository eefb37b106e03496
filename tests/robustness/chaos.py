"""Disturb the job in every way a machine can, and compare every table with an undisturbed run.

    python tests/robustness/chaos.py [--kills N] [--pairs N] [--full N] [--sealed N] [--keep FOLDER]

kills   the whole process group is killed (SIGKILL), JVM and Python workers included, at a random moment,
        several times in a row on one warehouse, each somewhere in what the one before left undone
pairs   two runs are started together on one warehouse: the same one twice, or a scheduled run beside one
        that plays history; one yields, or both end well
full    the disk under the warehouse fills at a random moment, and is made larger
sealed  the log of one table cannot be written, and then can

Then the job runs to its end, and every table must equal that of a warehouse nobody disturbed: row for
row and column for column, but for the times of running and the run's own name. The last two mount file
systems, so they need root and are left out without it. With --keep, what was done is counted in the folder,
and the next start goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "tests"), str(ROOT / "tools")]

from figures import put  # noqa: E402

from raretrail.errors import EXIT_BUSY, EXIT_DONE, EXIT_FAILED  # noqa: E402
from tiny import SHAPE, Contents, contents, differences, simulated  # noqa: E402

_IN_A_ROW = 8
_STAGES = ("ingest", "history", "baseline", "score", "coverage", "check", "publish", "alerts")
# Tables whose log is sealed in turn: one of each stage.
_SEALED = ("events", "presence_daily", "baseline_value", "anomalies", "incidents", "ingest_files", "runs")


@dataclass
class Ended:
    """How a process of the job ended: its exit code, what it said, the stage it was last in."""

    code: int
    told: str

    @property
    def stage(self) -> str:
        words = [line.split()[-1] for line in self.told.splitlines() if line.strip()]
        return next((word for word in reversed(words) if word in _STAGES), "start")


@dataclass
class Tally:
    """What has been done of one kind of disturbance: how often, over how many warehouses, in which stages,
    how often one of a pair yielded, and what differed."""

    done: int = 0
    warehouses: int = 0
    stages: dict[str, int] = field(default_factory=dict)
    yielded: int = 0
    failed: list[str] = field(default_factory=list)

    def struck(self, stages: Sequence[str]) -> None:
        """Count disturbances by the stage they met."""
        self.done += len(stages)
        self.stages = dict(Counter(self.stages) + Counter(stages))

    @property
    def where(self) -> str:
        """The stages, in words."""
        return ", ".join(f"{count} in {stage}" for stage, count in sorted(self.stages.items()))


@dataclass
class Chaos:
    """What every disturbance needs: a folder, the job, and what it leaves when left in peace."""

    work: Path
    rng: random.Random
    options: list[str] = field(default_factory=list)
    seconds: float = 0.0
    wanted: Contents = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in DISTURBANCES})

    def prepare(self) -> None:
        """Simulate, and run once undisturbed; or go on from what was kept."""
        kept = json.loads(self._kept.read_text()) if self._kept.is_file() else {}
        if kept:
            self.options, self.seconds = kept["options"], kept["seconds"]
            self.tallies |= {name: Tally(**tally) for name, tally in kept["tallies"].items()}
            # Else what was drawn before is drawn again.
            self.rng.seed(f"{self.rng.random()} after {kept['tallies']}")
        else:
            self.options = simulated(self.fresh("simulated"))
            start = time.monotonic()
            self.finish(self.history(), self.fresh("undisturbed"))
            self.seconds = time.monotonic() - start
        self.wanted = contents(self.work / "undisturbed")
        self.keep()
        rows = sum(map(len, self.wanted.values()))
        print(f"undisturbed: {self.seconds:.0f} s, {rows:,} rows in {len(self.wanted)} tables", flush=True)

    @property
    def _kept(self) -> Path:
        return self.work / "done.json"

    def keep(self) -> None:
        """Write down how far it is."""
        tallies = {name: asdict(tally) for name, tally in self.tallies.items()}
        kept = {"options": self.options, "seconds": self.seconds, "tallies": tallies}
        self._kept.write_text(json.dumps(kept))

    def history(self) -> list[str]:
        """Options to play the judged days."""
        return [*self.options, "--from", SHAPE.judged_from.isoformat(), "--to", SHAPE.end.isoformat()]

    def scheduled(self) -> list[str]:
        """Options of a scheduled run on the last day, that judges all of it."""
        return [*self.options, "--as-of", f"{SHAPE.end.isoformat()}T00:00Z", "--lookback", "24h"]

    def start(self, options: Sequence[str], warehouse: Path, told: Path) -> subprocess.Popen[bytes]:
        """The job in a process group of its own, its messages in a file."""
        command = [sys.executable, "-m", "raretrail", "run", *options, "--warehouse", str(warehouse)]
        with told.open("wb") as out:
            return subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)

    def run(self, options: Sequence[str], warehouse: Path) -> Ended:
        """The job to its end."""
        told = self.work / "told.txt"
        return Ended(self.start(options, warehouse, told).wait(1800), told.read_text(errors="replace"))

    def finish(self, options: Sequence[str], warehouse: Path) -> None:
        """The job to its good end."""
        self.require_done(self.run(options, warehouse))

    def require_done(self, ended: Ended) -> None:
        """End here where the job did not end well."""
        if ended.code != EXIT_DONE:
            raise SystemExit(f"the job failed with {ended.code}: {ended.told[-3000:]}")

    def fresh(self, name: str) -> Path:
        """A folder that is not there yet."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def judge(self, tally: Tally, what: str, found: Contents, *wanted: Contents) -> None:
        """Compare with what was wanted, or one of these, say so, and keep what was counted."""
        different = min((differences(one, found) for one in wanted or (self.wanted,)), key=len)
        if different:
            tally.failed.append(what)
        tally.warehouses += 1
        self.keep()
        print(f"{what}: {'; '.join(different) if different else 'the same'}", flush=True)


def kills(chaos: Chaos, tally: Tally, wanted: int) -> str:
    """Kill the whole group at random moments, then finish."""
    # How long a run takes of which all is to be done, and one of which some is done: as the quickest did.
    whole = rest = chaos.seconds * 1.05
    while tally.done < wanted:
        warehouse = chaos.fresh("killed")
        struck: list[str] = []
        ended = False
        while not ended and len(struck) < min(_IN_A_ROW, wanted - tally.done):
            told = chaos.work / "told.txt"
            start = time.monotonic()
            job = chaos.start(chaos.history(), warehouse, told)
            try:
                job.wait(chaos.rng.uniform(3, rest if struck else whole))
                # It was done before it was struck: there is nothing left to disturb.
                chaos.require_done(Ended(job.returncode, told.read_text(errors="replace")))
                ended, took = True, time.monotonic() - start
                whole, rest = (whole, min(rest, took)) if struck else (min(whole, took), rest)
            except subprocess.TimeoutExpired:
                os.killpg(job.pid, signal.SIGKILL)
                job.wait()
                struck.append(Ended(job.returncode, told.read_text(errors="replace")).stage)
        if not ended:
            chaos.finish(chaos.history(), warehouse)
        tally.struck(struck)
        chaos.judge(tally, f"{tally.done} kills ({', '.join(struck)})", contents(warehouse))
    return f"{tally.done} kills ({tally.where}) over {tally.warehouses} warehouses"


def pairs(chaos: Chaos, tally: Tally, wanted: int) -> str:
    """Start two at once; whoever yields says so, and is run again."""
    history, scheduled = chaos.history(), chaos.scheduled()
    orders = []
    for number, order in enumerate(((history, scheduled), (scheduled, history))):
        alone = chaos.fresh(f"alone{number}")
        for options in order:
            chaos.finish(options, alone)
        orders.append(contents(alone))
    for number in range(tally.done, wanted):
        warehouse = chaos.fresh("paired")
        mixed = number % 2 == 1
        couple = (history, scheduled if mixed else history)
        told = [chaos.work / f"told{n}.txt" for n in (1, 2)]
        one = chaos.start(couple[0], warehouse, told[0])
        time.sleep(chaos.rng.uniform(0, 2) if number % 4 < 2 else chaos.rng.uniform(0, chaos.seconds))
        two = chaos.start(couple[1], warehouse, told[1])
        codes = [job.wait(1800) for job in (one, two)]
        for code, said, options in zip(codes, told, couple, strict=True):
            text = said.read_text(errors="replace")
            if code not in (EXIT_DONE, EXIT_BUSY) or (code == EXIT_BUSY and "is running on" not in text):
                raise SystemExit(f"pair {number + 1} ended with {code}: {text[-2000:]}")
            if code == EXIT_BUSY:
                chaos.finish(options, warehouse)
        tally.done += 1
        tally.yielded += EXIT_BUSY in codes
        if codes == [EXIT_BUSY, EXIT_BUSY]:
            tally.failed.append(f"pair {number + 1}: both yielded")
        name = f"pair {number + 1} ({'mixed' if mixed else 'alike'}, {codes[0]} and {codes[1]})"
        chaos.judge(tally, name, contents(warehouse), *(orders if mixed else [chaos.wanted]))
    return f"{tally.done} pairs, in {tally.yielded} of which one yielded with exit code {EXIT_BUSY}"


def full(chaos: Chaos, tally: Tally, wanted: int) -> str:
    """Fill the disk at a random moment, make it larger, finish."""
    size = sum(f.stat().st_size for f in (chaos.work / "undisturbed").rglob("*") if f.is_file())
    for number in range(tally.done, wanted):
        disk = chaos.fresh("full")
        disk.mkdir()
        room = int(chaos.rng.uniform(0.02, 0.95) * size)
        _mount("-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(disk))
        try:
            ended = chaos.run(chaos.history(), disk / "w")
            if ended.code != EXIT_FAILED:
                raise SystemExit(f"a full disk ended with {ended.code}: {ended.told[-2000:]}")
            _mount("-o", f"remount,size={size * 4}", str(disk))
            chaos.finish(chaos.history(), disk / "w")
            tally.struck([ended.stage])
            name = f"disk {number + 1}, full at {room:,} bytes in {ended.stage}"
            chaos.judge(tally, name, contents(disk / "w"))
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=False)
    return f"{tally.done} disks that filled ({tally.where}), all exit code {EXIT_FAILED}"


def sealed(chaos: Chaos, tally: Tally, wanted: int) -> str:
    """Let the log of one table be written no more, then again."""
    half = chaos.fresh("half")
    middle = f"{SHAPE.judged_from.isoformat()}T12:00Z"
    start = SHAPE.judged_from.isoformat()
    chaos.finish([*chaos.options, "--from", start, "--to", middle], half)
    undisturbed = chaos.fresh("half-undisturbed")
    shutil.copytree(half, undisturbed)
    chaos.finish(chaos.history(), undisturbed)
    peaceful = contents(undisturbed)
    for number in range(tally.done, wanted):
        table = _SEALED[number % len(_SEALED)]
        warehouse = chaos.fresh("sealed")
        shutil.copytree(half, warehouse)
        log = str(warehouse / table / "_delta_log")
        _mount("--bind", log, log)
        _mount("-o", "remount,bind,ro", log)
        try:
            ended = chaos.run(chaos.history(), warehouse)
        finally:
            subprocess.run(["umount", "--lazy", log], check=False)
        if ended.code != EXIT_FAILED:
            raise SystemExit(f"the sealed log of {table} ended with {ended.code}: {ended.told[-2000:]}")
        chaos.finish(chaos.history(), warehouse)
        tally.done += 1
        chaos.judge(tally, f"log of {table} sealed", contents(warehouse), peaceful)
    return f"{tally.done} logs that could not be written, all exit code {EXIT_FAILED}"


def _mount(*options: str) -> None:
    subprocess.run(["mount", *options], check=True, capture_output=True)


DISTURBANCES: dict[str, tuple[Callable[[Chaos, Tally, int], str], int]] = {
    "kills": (kills, 100),
    "pairs": (pairs, 20),
    "full": (full, 5),
    "sealed": (sealed, len(_SEALED)),
}


def main() -> int:
    """Read the options, disturb, compare, print; 1 when a table differs."""
    parser = argparse.ArgumentParser(prog="chaos", description=(__doc__ or "").splitlines()[0])
    for name, (_, usual) in DISTURBANCES.items():
        parser.add_argument(f"--{name}", type=int, help=f"default {usual}, none where another is given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder to work in, to go on in and to leave")
    parser.add_argument("--into", type=Path, help="a page of the manual to write the figures into")
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in DISTURBANCES if getattr(options, name)}
    chosen = given or {name: usual for name, (_, usual) in DISTURBANCES.items()}
    work = options.keep or Path(tempfile.mkdtemp(prefix="raretrail-chaos-"))
    work.mkdir(parents=True, exist_ok=True)
    chaos = Chaos(work, random.Random(options.seed))
    try:
        chaos.prepare()
        for name, count in chosen.items():
            if name in ("full", "sealed") and os.geteuid():
                print(f"{name}: left out, mounting needs root")
                continue
            tally = chaos.tallies[name]
            text = DISTURBANCES[name][0](chaos, tally, count)
            rows = sum(map(len, chaos.wanted.values()))
            text += f": {len(tally.failed)} differ. Compared: {rows:,} rows in {len(chaos.wanted)} tables."
            print(text, flush=True)
            if options.into:
                put(options.into, name, text)
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    return int(any(tally.failed for tally in chaos.tallies.values()))


if __name__ == "__main__":
    raise SystemExit(main())
