"""What was weighed and left out of the job's formula: the prototype with each part, and without.

    python -m detection.declined --cache DIR [--seeds choosing|N,N] [--into PAGE]

Run from bench/. On the choosing seeds, since it is a choice. Plain Python, no Spark.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from figures import put

from . import prototype
from .__main__ import SEEDS
from .measure import Incident, Measure, measure
from .organisations import Organisation, organisations, shapes
from .prototype import Chain
from .variations import table

# An identity made by a suspicious one gets half of its maker's bits, as many as a command at most.
_TAINT_CAP = 8.0
More = Callable[[Sequence[Chain], Sequence[float]], list[float]]


def as_is(chains: Sequence[Chain], bits: Sequence[float]) -> list[float]:
    """The bits as they are."""
    return list(bits)


def with_least(chains: Sequence[Chain], bits: Sequence[float]) -> list[float]:
    """The least of where, how and what counted once more."""
    parts = [prototype.combine(chain)[1] for chain in chains]
    return [b + min(p["where"], p["how"], p["what"]) for b, p in zip(bits, parts, strict=True)]


def with_taint(chains: Sequence[Chain], bits: Sequence[float]) -> list[float]:
    """Half the bits of the most suspicious chain that made a chain's identity or key before it."""
    makers: dict[str, list[int]] = defaultdict(list)
    for n, chain in enumerate(chains):
        for made in {made for event in chain.events for made in event.made}:
            makers[made].append(n)

    def taint(chain: Chain) -> float:
        used = {name for event in chain.events for name in (event.key, event.arn)}
        before = [
            bits[m]
            for name in used
            for m in makers.get(name, ())
            if chains[m] is not chain and chains[m].events[0].at < chain.events[0].at
        ]
        return min(_TAINT_CAP, max(before, default=0.0) / 2)

    return [b + taint(chain) for b, chain in zip(bits, chains, strict=True)]


# What is told, the constants of the prototype it is by, and what is added to them.
ROWS: Mapping[str, tuple[Mapping[str, float], More]] = {
    "the prototype": ({}, as_is),
    "with one rate of new places, near or far": ({"graded": 0}, as_is),
    "without the role as a peer group of a command's prior": ({"peers": 0}, as_is),
    "with the account as one, between role and organisation": ({"accounts": 1}, as_is),
    "without counting refusals by kind": ({"probe": 0}, as_is),
    "without scaling a command where the rest is calm": ({"calm": 0}, as_is),
    "with taint": ({}, with_taint),
    "with the least of where, how and what once more": ({}, with_least),
}


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(prog="detection.declined", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="where organisations are kept")
    parser.add_argument("--seeds", default="choosing")
    parser.add_argument("--into", type=Path, help="a page of the manual to write the table into")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    seeds = SEEDS.get(options.seeds) or [int(s) for s in options.seeds.split(",")]
    measures: dict[str, list[Measure]] = defaultdict(list)
    for organisation in organisations(options.cache, shapes(seeds)):
        chains = prototype.features(organisation)
        for name, (constants, more) in ROWS.items():
            measures[name].append(_measured(organisation, chains, constants, more))
    text = f"{len(seeds)} organisations (seeds {', '.join(map(str, seeds))}).\n\n{table(measures)}"
    print(text)
    if options.into:
        put(options.into, "declined", text)


def _measured(
    organisation: Organisation, chains: Sequence[Chain], constants: Mapping[str, float], more: More
) -> Measure:
    prototype.ON.update(constants)
    try:
        bits = more(chains, [prototype.combine(chain)[0] for chain in chains])
        found: tuple[list[Incident], list[float]] = prototype.as_incidents(chains, bits)
        return measure(organisation, *found)
    finally:
        prototype.ON.clear()


if __name__ == "__main__":
    main()
