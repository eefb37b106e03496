"""`raretrail` with what follows, in a session that lacks one of the things that make small runs quick.

python -m scheduled.without NAME run ...
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from raretrail import session
from raretrail.cli import main


def _compiler() -> None:
    session._JVM_FLAGS["small"] = session._JVM_FLAGS["large"]


def _archive() -> None:
    session._sharing = lambda java: []


def _planning() -> None:
    session._small = lambda cores="*": {
        "spark.sql.shuffle.partitions": "200",
        "spark.databricks.delta.snapshotPartitions": "50",
    }


# What is put back, with how it is called in the table.
GAINS: dict[str, tuple[str, Callable[[], None]]] = {
    "compiler": ("with the JVM's full compiler and parallel collector", _compiler),
    "archive": ("without the archive of classes", _archive),
    "planning": (
        "with Spark's planning: adaptive, compiled, 200 parts of a shuffle, 50 of a table's state",
        _planning,
    ),
}


if __name__ == "__main__":
    GAINS[sys.argv[1]][1]()
    sys.exit(main(sys.argv[2:]))
