"""The scheduled quarter-hour run: cold, beside Spark's own defaults, on a long history, resident."""

import sys
from pathlib import Path

# What writes figures into the manual, and what makes a long history, serve others too.
sys.path += [str(Path(__file__).resolve().parents[2] / folder) for folder in ("tools", "tests")]
