"""What each of the things that make a scheduled run quick is worth: the same cold run without it.

    cd bench && python -m scheduled.gains [--people 40] [--days 11] [--repeat 1] [--into PAGE]

As `python -m scheduled` times it. Nothing else should run beside it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from machine import tell

from scheduled.__main__ import OWN, QUARTER, Measured, copy_of, prepared
from scheduled.without import GAINS


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(prog="gains", description="What makes a scheduled run quick.")
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--days", type=int, default=11)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--into", type=Path, help="a page of the manual to write the table into")
    options = parser.parse_args()
    programs = {"as it is": OWN}
    programs |= {words: ["-m", "scheduled.without", name] for name, (words, _) in GAINS.items()}
    took = {words: Measured() for words in programs}
    with tempfile.TemporaryDirectory(prefix="raretrail-gains-") as folder:
        work = Path(folder)
        here, base, moment = prepared(work, options.people, options.days)
        here.deliver(moment, moment + QUARTER)
        as_of = (moment + QUARTER).isoformat()
        for _ in range(options.repeat):
            for words, program in programs.items():
                with copy_of(base) as warehouse:
                    took[words].add(here.run(program, warehouse, ["--as-of", as_of]))
    lines = ["| run | seconds (median) | least to most | runs | stages |", "|---|---|---|---|---|"]
    lines += [measured.row(words) for words, measured in took.items()]
    text = "\n".join(lines)
    tell(text, "gains", options.into)


if __name__ == "__main__":
    main()
