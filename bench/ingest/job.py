"""The job's ingest and baseline in one process, each time into a warehouse of its own.

    python -m ingest.job TRAIL OUT AS_OF [BEFORE]

Cold: nothing is loaded or compiled; with a trail to be taken in before, warm. Prints a JSON object a trail:
seconds of it, of each stage.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime

from pyspark.sql import SparkSession

from raretrail.cli import _session_settings, _size_of_run
from raretrail.session import close_session, open_session
from raretrail.settings import Settings, load_settings
from raretrail.stages.run import run


def opened(settings: Settings, span: object) -> SparkSession:
    """The session that `raretrail run` would open; the warehouse is not there yet."""
    return open_session(_session_settings(settings, _size_of_run(settings, span)))


def main() -> None:
    """Do the work."""
    trail, out, as_of, *before = sys.argv[1:]
    each = [
        load_settings(options={"trail": [root], "warehouse": f"{out}/warehouse-{number}"})[0]
        for number, root in enumerate([*before, trail])
    ]
    # The session is the trail's own, whatever comes before.
    spark = opened(each[-1], None)
    for settings in each:
        start = time.perf_counter()
        moment = datetime.fromisoformat(as_of)
        ended = run(spark, settings, as_of=moment, steps=("ingest", "baseline"))
        took = {"seconds": round(time.perf_counter() - start, 2), "stages": ended.record["seconds"]}
        print(json.dumps({**took, "counts": ended.record["counts"]}), flush=True)
    close_session(spark)


if __name__ == "__main__":
    main()
