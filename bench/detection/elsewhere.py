"""The same measure on organisations unlike those of the table: sizes, no ASN database, real techniques.

    python -m detection.elsewhere --cache DIR [--only NAME ...] [--into PAGE]

Run from bench/. raretrail beside the best of the reference scorers, a row a kind of organisation.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from figures import put

from . import engine
from .measure import BUDGETS, Measure, incidents, measure, principal
from .organisations import Organisation, organisations, shapes
from .reference import reference_scores

REFERENCES = {"pair never seen": "pair sum", "sum of four surprisals": "four max"}


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
    Variant("no ASN database", (21, 22), asn=False),
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
        measures = _measured(variant, options.cache)
        rows.append(_row(variant, measures))
        kinds += [f"- {variant.name}: {_missed(measures['raretrail'])}"]
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


def _measured(variant: Variant, cache: Path) -> dict[str, list[Measure]]:
    found: dict[str, list[Measure]] = defaultdict(list)
    wanted = [
        replace(shape, people=variant.people, days=variant.days, judged_days=variant.judged)
        for shape in shapes(variant.seeds)
    ]
    for organisation in organisations(cache, wanted, variant.real):
        seen = organisation if variant.asn else organisation.without_networks()
        chained = incidents(seen)
        scores = reference_scores(seen, chained, principal)
        for name, key in REFERENCES.items():
            found[name].append(measure(seen, chained, scores[key]))
        found["raretrail"].append(measure(seen, *engine.score(seen, cache)))
        _told(variant, seen, cache)
    return found


_SECONDS: dict[str, list[float]] = defaultdict(list)
_EVENTS: dict[str, list[int]] = defaultdict(list)


def _told(variant: Variant, organisation: Organisation, cache: Path) -> None:
    _SECONDS[variant.name].append(engine.seconds(organisation, cache)["score"])
    _EVENTS[variant.name].append(len(organisation.events))


def _row(variant: Variant, measures: dict[str, list[Measure]]) -> str:
    ours = measures["raretrail"]
    campaigns = sum(n for m in ours for _, n in m.by_kind[1].values())
    events = sum(_EVENTS[variant.name]) / len(ours)
    cells = []
    for each in measures.values():
        figures = [f"{sum(m.recall[b] for m in each) / len(each):.2f}" for b in BUDGETS]
        figures.append(f"{sum(m.month for m in each) / len(each):.2f}")
        cells.append(" ".join(figures))
    cap = sum(m.cap[BUDGETS[0]] for m in ours) / len(ours)
    cells[-1] += f" ({cap:.2f})" if cap < 1 else ""
    seconds = sum(_SECONDS[variant.name]) / len(ours)
    return f"| {variant.name} | {campaigns} | {events:,.0f} | " + " | ".join(cells) + f" | {seconds:.0f} s |"


def _missed(measures: list[Measure]) -> str:
    kinds = sorted({kind for m in measures for kind in m.by_kind[BUDGETS[-1]]})
    told = []
    for kind in kinds:
        got = [m.by_kind[BUDGETS[-1]].get(kind, (0, 0)) for m in measures]
        told.append(f"{kind} {sum(g for g, _ in got)}/{sum(n for _, n in got)}")
    return ", ".join(told)


if __name__ == "__main__":
    main()
