"""The job's ingest and baseline in one process, as often as asked, each time into a warehouse of its own.

    python -m ingest.job TRAIL OUT AS_OF [TIMES]

The first time is cold: nothing is loaded or compiled. Prints a JSON object a time: seconds of it, of each stage.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime

from raretrail.cli import _size_of_run
from raretrail.session import close_session, open_session
from raretrail.settings import load_settings
from raretrail.stages.run import run


def main() -> None:
    """Do the work."""
    trail, out, as_of = sys.argv[1:4]
    spark = None
    for number in range(int(sys.argv[4]) if len(sys.argv) > 4 else 1):
        options = {"trail": [trail], "warehouse": f"{out}/warehouse-{number}"}
        settings, _ = load_settings(options=options)
        start = time.perf_counter()
        size = _size_of_run(settings, None)  # of a warehouse that is new each time, as of a first run
        spark = spark or open_session(driver_memory=settings.spark.driver_memory, size=size)
        moment = datetime.fromisoformat(as_of)
        ended = run(spark, settings, as_of=moment, steps=("ingest", "baseline"))
        took = {"seconds": round(time.perf_counter() - start, 2), "stages": ended.record["seconds"]}
        print(json.dumps({**took, "counts": ended.record["counts"]}), flush=True)
    if spark:
        close_session(spark)


if __name__ == "__main__":
    main()
