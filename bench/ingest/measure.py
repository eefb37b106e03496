"""What a command takes: seconds, processor seconds, peak memory of all its processes."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Taken(NamedTuple):
    """seconds: from start to end of the process; cpu: processor seconds of it and all its children; peak:
    megabytes, the most its processes had together at one moment, shared pages counted once (PSS)."""

    seconds: float
    cpu: float
    peak: float
    output: str


def measured(command: Sequence[str], every: float = 0.25) -> Taken:
    """Run a command to its end. SystemExit with the end of what it said where it fails."""
    before = os.times()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peak = [0.0]
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(every):
            peak[0] = max(peak[0], sum(map(_pss, _family(process.pid))))

    sampler = threading.Thread(target=sample)
    sampler.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - start
    ended.set()
    sampler.join()
    after = os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{output[-3000:]}")
    return Taken(seconds, cpu, peak[0], output)


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
