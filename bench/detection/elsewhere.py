"""The same measure on organisations unlike those of the table: sizes, no ASN database, real techniques.

    python -m detection.elsewhere --cache DIR [--only NAME ...] [--into PAGE]

Run from bench/. raretrail beside the best of the reference scorers, a row a kind of organisation.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean

from figures import put

from . import engine
from .measure import BUDGETS, Measure, averages, found_by_kind, measure
from .organisations import organisations, shapes
from .reference import references

REFERENCES = ("pair never seen", "sum of four surprisals")


@dataclass(frozen=True)
class Variant:
    """Organisations of one kind: what is other than in the table. None of their seeds chose a constant."""

    name: str
    seeds: Sequence[int]
    people: int = 160
    days: int = 90
    judged: int = 30
    asn: bool = True
    real: bool = False


VARIANTS = (
    Variant("20 people", (31, 32, 33, 34, 35, 36), people=20),
    Variant("60 people", (31, 32, 33), people=60),
    Variant("no ASN database", (41, 42), asn=False),
    Variant("real techniques, real background", (31, 32), real=True),
    Variant("500 people, 60 days, 20 judged", (31,), people=500, days=60, judged=20),
    Variant("2,000 people, 30 days, 8 judged", (32,), people=2000, days=30, judged=8),
)


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(prog="detection.elsewhere", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="where organisations are kept")
    parser.add_argument("--only", action="append", choices=[v.name for v in VARIANTS])
    parser.add_argument("--into", type=Path, help="a page of the manual to write the tables into")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    wanted = [v for v in VARIANTS if not options.only or v.name in options.only]
    rows, kinds = [], []
    for variant in wanted:
        found = _found(variant, options.cache)
        rows.append(_row(variant.name, found))
        ours = found_by_kind(found.measures["raretrail"], BUDGETS[-1])
        kinds.append(f"- {variant.name}: {', '.join(' '.join(one) for one in ours.items())}")
        print(rows[-1], kinds[-1], sep="\n", flush=True)
    names = [*REFERENCES, "raretrail"]
    head = "| organisations | campaigns | events each | " + " | ".join(names) + " | scoring |"
    text = "\n".join(
        [
            f"Recall @{BUDGETS[0]}, @{BUDGETS[1]}, G@30 of each; in brackets what counting alone allows @1, "
            "where that is below 1. Scoring is what the judged days took together.",
            "",
            head,
            "|---" * (len(names) + 4) + "|",
            *rows,
            "",
            "Found at two incidents a day, by kind:",
            "",
            *kinds,
        ]
    )
    print(text)
    if options.into:
        put(options.into, "elsewhere", text)


@dataclass
class Found:
    """What was measured on the organisations of a variant: by scorer, and by organisation."""

    measures: dict[str, list[Measure]] = field(default_factory=lambda: defaultdict(list))
    seconds: list[float] = field(default_factory=list)
    events: list[int] = field(default_factory=list)


def _found(variant: Variant, cache: Path) -> Found:
    found = Found()
    wanted = [
        replace(shape, people=variant.people, days=variant.days, judged_days=variant.judged)
        for shape in shapes(variant.seeds)
    ]
    for organisation in organisations(cache, wanted, variant.real):
        seen = organisation if variant.asn else organisation.without_networks()
        measured = references(seen)
        for name in REFERENCES:
            found.measures[name].append(measured[name])
        found.measures["raretrail"].append(measure(seen, *engine.score(seen, cache)))
        found.seconds.append(engine.seconds(seen, cache)["score"])
        found.events.append(len(seen.events))
    return found


def _row(name: str, found: Found) -> str:
    ours = found.measures["raretrail"]
    campaigns = sum(n for m in ours for _, n in m.by_kind[1].values())
    cells = [" ".join(f"{figure:.2f}" for figure in averages(each)) for each in found.measures.values()]
    cap = mean(m.cap[BUDGETS[0]] for m in ours)
    cells[-1] += f" ({cap:.2f})" if cap < 1 else ""
    cells = [name, str(campaigns), f"{mean(found.events):,.0f}", *cells, f"{mean(found.seconds):.0f} s"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
