"""How many intrusions a score finds at how many incidents a day, on simulated organisations."""

import sys
from pathlib import Path

# What writes figures into the manual is a tool of its own.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
