"""Runs of one process, as `raretrail watch` has them, each over the next quarter's files; told as JSON lines.

python -m scheduled.resident '[SETTINGS, [[AS_OF, [[FROM, TO], ...]], ...]]'
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from raretrail.session import Resident, SessionSettings
from raretrail.settings import load_settings
from raretrail.stages.run import run
from raretrail.watch import Watch


def memory() -> int:
    """Resident MB of this process and all it started; what they share counts twice."""
    parents: dict[int, int] = {}
    resident: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:
            continue
        pid = int(fields["Pid"])
        parents[pid] = int(fields["PPid"])
        resident[pid] = int(fields.get("VmRSS", "0 kB").split()[0]) // 1024

    def is_ours(pid: int) -> bool:
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    return sum(size for pid, size in resident.items() if is_ours(pid))


class Sessions(Resident):
    """The sessions of `raretrail watch`, which tell how much memory is left in use at rest."""

    def rest(self, spark: SparkSession) -> None:
        """Give back memory, and tell."""
        super().rest(spark)
        tell(rest=memory())


def tell(**what: Any) -> None:
    """A line for the bench."""
    print(json.dumps(what), flush=True)


def main() -> None:
    """Make the runs."""
    options, quarters = json.loads(sys.argv[1])
    left = iter(quarters)

    def once(spark: SparkSession) -> None:
        as_of, files = next(left)
        for source, target in files:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy2(source, target)
        begun = time.perf_counter()
        ended = run(spark, load_settings(options=options)[0], as_of=datetime.fromisoformat(as_of))
        tell(seconds=time.perf_counter() - begun, events=ended.record["counts"]["events"])

    def failed(error: Exception) -> None:
        raise error

    sessions = Sessions(SessionSettings(size="resident"))
    watch = Watch(every=timedelta(milliseconds=1), sessions=sessions, runs=len(quarters), failed=failed)
    watch.watch(once, threading.Event())


if __name__ == "__main__":
    main()
