"""The whole job over a trail from nothing, all its days played forward with every detector and all evidence.

    python -m ingest.played TRAIL OUT FIRST_DAY END

Prints a JSON object: seconds of each stage, counts.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

from ingest.job import opened
from raretrail.session import close_session
from raretrail.settings import load_settings
from raretrail.stages.run import run


def main() -> None:
    """Do the work."""
    trail, out, first, end = sys.argv[1:]
    settings, _ = load_settings(options={"trail": [trail], "warehouse": f"{out}/warehouse"})
    span = datetime.fromisoformat(first).replace(tzinfo=UTC), datetime.fromisoformat(end).replace(tzinfo=UTC)
    spark = opened(settings, span)
    ended = run(spark, settings, as_of=span[1], span=span)
    print(json.dumps({"stages": ended.record["seconds"], "counts": ended.record["counts"]}), flush=True)
    close_session(spark)


if __name__ == "__main__":
    main()
