"""Print the table: scorer by budget and kind, over organisations no constant was chosen on.

    python -m detection --cache DIR [--seeds reporting|choosing|N,N] [--people N] [--days N]
                        [--judged N] [--no-asn] [--scorer MODULE:FUNCTION ...]

Run from bench/. FUNCTION takes an organisation and the cache and returns (incidents, scores), higher worse.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from figures import put

from . import engine
from .measure import BUDGETS, Incident, Measure, averages, found_by_kind, measure
from .organisations import Organisation, organisations, shapes
from .reference import references

Scorer = Callable[[Organisation, Path], tuple[Sequence[Incident], Sequence[float]]]

SEEDS = {"choosing": (1, 2, 3, 4, 5, 6), "reporting": (41, 42, 43, 44, 45)}
# What the scorers of ours are called in the table.
NAMES = {
    "detection.engine:score": "raretrail",
    "detection.prototype:score": "prototype of its formula, in plain Python",
}


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(prog="detection", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="where organisations are kept")
    parser.add_argument("--seeds", default="reporting")
    parser.add_argument("--people", type=int, default=160)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--judged", type=int, default=30)
    parser.add_argument("--real", action="store_true", help="real techniques and background; see `real`")
    parser.add_argument("--no-asn", action="store_true", help="as without an ASN database")
    parser.add_argument("--scorer", action="append", default=[], metavar="MODULE:FUNCTION")
    parser.add_argument("--into", type=Path, help="a page of the manual to write the table into")
    parser.add_argument("--summary", type=Path, help="a page to write its first table into")
    parser.add_argument("--figures", default="detection", help="under which mark of the page")
    options = parser.parse_args()
    seeds = SEEDS.get(options.seeds) or [int(s) for s in options.seeds.split(",")]
    options.cache.mkdir(parents=True, exist_ok=True)
    wanted = [
        replace(s, people=options.people, days=options.days, judged_days=options.judged)
        for s in shapes(seeds)
    ]
    ours = {NAMES.get(name, name): _scorer(name) for name in options.scorer}
    measures: dict[str, list[Measure]] = defaultdict(list)
    took: list[dict[str, float]] = []
    for organisation in organisations(options.cache, wanted, options.real):
        seen = organisation.without_networks() if options.no_asn else organisation
        for name, found in references(seen).items():
            measures[name].append(found)
        for name, scorer in ours.items():
            measures[name].append(measure(seen, *scorer(seen, options.cache)))
            if name == NAMES["detection.engine:score"]:
                took.append(engine.seconds(seen, options.cache))
    text = table(measures)
    if took:
        scoring = sum(seconds["score"] for seconds in took) / len(took)
        history = sum(seconds["history"] for seconds in took) / len(took)
        text += f"\n\nJudging the {options.judged} days took {scoring:.0f} s an organisation, "
        text += f"after {history:.0f} s for what was known before each."
    print(text)
    if options.into:
        put(options.into, options.figures, text)
    if options.summary:
        put(options.summary, options.figures, text.partition("\n\n| kind @")[0].partition("\n\n")[2])


def _scorer(name: str) -> Scorer:
    module, _, function = name.partition(":")
    found: Scorer = getattr(import_module(module), function)
    return found


def table(measures: dict[str, list[Measure]]) -> str:
    """The measures as Markdown: averages, then kinds at the first budget, then innocent shares."""
    first = next(iter(measures.values()))
    count = len(first)
    caps = ", ".join(f"{sum(m.cap[b] for m in first) / count:.2f}" for b in BUDGETS)
    lines = [
        f"{count} organisation{'' if count == 1 else 's'}; counting alone allows {caps}.",
        "",
        "| scorer | " + " | ".join(f"recall @{b}" for b in BUDGETS) + " | G@30 | lowest @1 |",
        "|---|" + "---|" * (len(BUDGETS) + 2),
    ]
    for name, each in measures.items():
        figures = [*averages(each), min(m.recall[1] for m in each)]
        lines.append(f"| {name} | " + " | ".join(f"{x:.3f}" for x in figures) + " |")
    for budget in BUDGETS:
        lines += ["", f"| kind @{budget} | " + " | ".join(measures) + " |", "|---|" + "---|" * len(measures)]
        found = [found_by_kind(each, budget) for each in measures.values()]
        lines += [f"| {kind} | " + " | ".join(each[kind] for each in found) + " |" for kind in found[0]]
    lines += ["", f"Innocent kinds' share of the {BUDGETS[-1]} incidents a day shown:", ""]
    for name, each in measures.items():
        share: dict[str, float] = defaultdict(float)
        for m in each:
            for kind, part in m.shown.items():
                share[kind] += part / count
        largest = sorted(share.items(), key=lambda item: -item[1])[:8]
        shown = ", ".join(f"{kind} {part:.2f}" for kind, part in largest)
        lines.append(f"- {name}: {shown}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
