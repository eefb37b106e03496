"""The scheduled quarter-hour run: cold, beside Spark's own defaults, on a long history, resident."""

import sys
from pathlib import Path

# What writes figures into the manual, names the machine, and makes a long history serves others too.
sys.path += [str(Path(__file__).resolve().parents[2] / folder) for folder in ("tools", "bench", "tests")]
