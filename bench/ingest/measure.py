"""What a command takes: seconds, processor seconds and on what, peak memory of all its processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
_ENDED = "threads that have ended, of any kind"
# By how a thread of the JVM is named; the first that fits.
_THREADS = (
    ("C1 Compiler", "compiling bytecode"),
    ("C2 Compiler", "compiling bytecode"),
    ("VM Thread", "collecting garbage and other upkeep of the JVM"),
    ("GC Thread", "collecting garbage and other upkeep of the JVM"),
    ("Executor task", "tasks: reading, computing and writing rows"),
    ("", "planning, Delta's log and commits, class loading"),
)


class Taken(NamedTuple):
    """seconds: from start to end of the process; cpu: processor seconds of it and all its children; spent: cpu
    by what it was spent on, as far as samples tell; held: megabytes by what held them at the moment when its
    processes had most together, shared pages counted once (PSS)."""

    seconds: float
    cpu: float
    output: str
    spent: Counter[str]
    held: Counter[str]

    @property
    def peak(self) -> float:
        """All that was held at that moment."""
        return self.held.total()


def measured(command: Sequence[str], every: float = 0.25) -> Taken:
    """Run a command to its end. SystemExit with the end of what it said where it fails."""
    before = os.times()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    held: Counter[str] = Counter()
    spent = Spent()
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(every):
            now: Counter[str] = Counter()
            for pid in _family(process.pid):
                now[_kind(Path(f"/proc/{pid}"))] += _pss(pid)
                spent.note(pid)
            if now.total() > held.total():
                held.clear()
                held.update(now)

    sampler = threading.Thread(target=sample)
    sampler.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - start
    ended.set()
    sampler.join()
    after = os.times()
    # Children that nobody waits for are in the samples alone, what ends between two of them in this alone.
    waited = after.children_user - before.children_user + after.children_system - before.children_system
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{output[-3000:]}")
    on = spent.on()
    return Taken(seconds, max(waited, on.total()), output, on, held)


class Spent:
    """Processor seconds of processes, by what they are spent on; of threads that have ended as last seen."""

    def __init__(self) -> None:
        self._whole: dict[int, float] = {}
        self._parts: dict[tuple[int, str], tuple[str, float]] = {}

    def note(self, pid: int) -> None:
        """Look at a process; one that has ended is left as it was."""
        process = Path(f"/proc/{pid}")
        with contextlib.suppress(OSError):
            self._whole[pid] = _seconds(process)
            if (kind := _kind(process)) != "JVM":
                self._parts[pid, ""] = kind, self._whole[pid]
                return
            for task in (process / "task").iterdir():
                with contextlib.suppress(OSError):  # a thread has just ended
                    name = (task / "comm").read_text()
                    kind = next(kind for begins, kind in _THREADS if name.startswith(begins))
                    self._parts[pid, task.name] = kind, _seconds(task)

    def on(self) -> Counter[str]:
        """The seconds by what they were spent on."""
        found: Counter[str] = Counter()
        for kind, seconds in self._parts.values():
            found[kind] += seconds
        found[_ENDED] = max(0.0, sum(self._whole.values()) - found.total())
        return found


def shares(spent: Mapping[str, float], decimals: int = 0) -> list[str]:
    """A table of processor seconds by what they were spent on, the most first."""
    whole = sum(spent.values())
    rows = [
        f"| {seconds:.{decimals}f} | {name} | {seconds / whole:.0%} |"
        for name, seconds in Counter(spent).most_common()
        if seconds >= 0.5
    ]
    return ["| processor seconds | on | share |", "|---|---|---|", *rows]


def _kind(process: Path) -> str:
    """What a process is; of one that has ended nothing is held or spent any more."""
    with contextlib.suppress(OSError):
        if (process / "comm").read_text() == "java\n":
            return "JVM"
        if b"pyspark.daemon" in (process / "cmdline").read_bytes():
            return "Python workers"
    return "Python"


def _seconds(folder: Path) -> float:
    """Processor seconds of a process, ended threads included, or of a thread."""
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _family(root: int) -> set[int]:
    """A process and all that came of it and are still there."""
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    family = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        if not more:
            return family
        family |= more


def _pss(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Pss:")), 0.0)


def size_of(folder: Path) -> int:
    """Bytes of the Parquet files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))
