"""The scorers ours is measured against, each as good as its form allows.

All see what ours sees: the days before an incident's first day, under the map of that day. Forms
that speak of a city judge every place that is one; incidents elsewhere score 0, as such jobs drop
events without a city.

    elastic         P(commands as rare in this city's own history), research/detection.md §2
    pair            commands never seen from this place
    place_command   surprisal of the place given the command
    four            the same plus command given place, place and command given principal

For each an incident scores by its most surprising command (`max`) or by all of them (`sum`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from .measure import Incident, Measure, incidents, measure, principal
from .organisations import Event, Organisation

ALPHA = 5.0
NAMES = ("elastic", "pair", "place_command", "four")
# §2.1: what a bucket of an hour forgets.
_DECAY = math.exp(-0.0005)
# A city's weights are written as multiples of what the present bucket weighs; well before the
# multiple overflows they are brought down again.
_RESCALE_AT = 1e100
# Which of max and sum serves each reference scorer best, found on the choosing seeds.
BEST = {
    "Elastic's form": "elastic sum",
    "pair never seen": "pair sum",
    "city given command": "place_command sum",
    "sum of four surprisals": "four max",
}


@dataclass
class _City:
    """One city's commands with decayed weights, as of its last bucket with data."""

    scale: float = 1.0
    weights: dict[str, float] = field(default_factory=dict)

    def learn(self, commands: Iterable[str]) -> None:
        for command in commands:
            self.weights[command] = self.weights.get(command, 0.0) + self.scale
        self.scale /= _DECAY
        if self.scale > _RESCALE_AT:
            self.weights = {c: w / self.scale for c, w in self.weights.items()}
            self.scale = 1.0

    def bits(self, commands: Iterable[str]) -> dict[str, float]:
        """-log2 P of each, the commands having been learnt (the job samples, then scores)."""
        total = sum(self.weights.values())
        return {
            command: -math.log2(
                sum(w for w in self.weights.values() if w <= self.weights[command] * (1 + 1e-9)) / total
            )
            for command in commands
        }


@dataclass
class _Days:
    """Days on which things were seen; `total` holds value-days by kind of value."""

    one: Counter[tuple[str, str]] = field(default_factory=Counter)
    two: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    total: Counter[str] = field(default_factory=Counter)
    once: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)

    def learn(self, events: Sequence[tuple[Event, str, str]]) -> None:
        for kind, values in (
            ("place", {place for _, place, _ in events}),
            ("command", {e.command for e, _, _ in events}),
            ("who", {who for _, _, who in events}),
        ):
            for value in values:
                key = (kind, value)
                self.once[kind] += {0: 1, 1: -1}.get(self.one[key], 0)
                self.seen[kind] += self.one[key] == 0
                self.one[key] += 1
                self.total[kind] += 1
        pairs = {("command-place", e.command, place) for e, place, _ in events}
        pairs |= {("who-place", who, place) for _, place, who in events}
        pairs |= {("who-command", who, e.command) for e, _, who in events}
        self.two.update(pairs)

    def prior(self, kind: str, value: str) -> float:
        """P(value) with Good-Turing mass for what was never seen."""
        unseen = max(self.once[kind], 1) / (self.total[kind] + 1)
        known = self.one[kind, value]
        if known:
            return (1 - unseen) * known / max(self.total[kind], 1)
        return unseen / (self.seen[kind] + 1)

    def bits(self, together: int, given: int, prior: float) -> float:
        """-log2 of a probability backed off to the prior."""
        return -math.log2((together + ALPHA * prior) / (given + ALPHA))

    def of(self, command: str, place: str, who: str) -> tuple[float, float, float]:
        """Pair never seen (0 or 1), place given command, and the sum of the four."""
        together = self.two["command-place", command, place]
        p_place, p_command = self.prior("place", place), self.prior("command", command)
        place_command = self.bits(together, self.one["command", command], p_place)
        command_place = self.bits(together, self.one["place", place], p_command)
        own = self.one["who", who]
        place_who = self.bits(self.two["who-place", who, place], own, p_place)
        command_who = self.bits(self.two["who-command", who, command], own, p_command)
        return (
            float(together == 0), place_command,
            place_command + command_place + place_who + command_who,
        )  # fmt: skip


def references(organisation: Organisation) -> dict[str, Measure]:
    """What each reference scorer finds, at its best."""
    found = incidents(organisation)
    scores = reference_scores(organisation, found, principal)
    return {name: measure(organisation, found, scores[key]) for name, key in BEST.items()}


def reference_scores(
    organisation: Organisation, found: Sequence[Incident], who: Callable[[Event], str]
) -> dict[str, list[float]]:
    """Scores of the incidents by every reference scorer, as `<name> max` and `<name> sum`.

    `who` is the identity the incidents were made of.
    """
    by_day: dict[int, list[Event]] = defaultdict(list)
    for event in organisation.events:
        by_day[event.day].append(event)
    scores = {f"{n} {how}": [0.0] * len(found) for n in NAMES for how in ("max", "sum")}
    begins: dict[int, list[int]] = defaultdict(list)
    for number, incident in enumerate(found):
        begins[incident.day].append(number)
    # Elastic judges buckets; an incident has the scores of the buckets of its events.
    rare: dict[tuple[str, int, str], float] = {}
    for first, last in _spans(organisation):
        days = _Days()
        cities: dict[str, _City] = defaultdict(_City)
        for day in range(organisation.events[0].day, last + 1):
            if day >= first:
                for number in begins.get(day, ()):
                    incident = found[number]
                    commands = sorted({e.command for e in incident.events})
                    each = [days.of(c, incident.place, incident.who) for c in commands]
                    for name, values in zip(NAMES[1:], zip(*each, strict=True), strict=True):
                        scores[f"{name} max"][number] = max(values)
                        scores[f"{name} sum"][number] = sum(values)
            placed = [
                (e, organisation.place(e.address, max(day, first)).place, who(e)) for e in by_day.get(day, ())
            ]
            _learn_buckets(cities, placed, rare if day >= first else None)
            days.learn(placed)
    for number, incident in enumerate(found):
        keys = {(incident.place, e.at // 3600, e.command) for e in incident.events}
        records = [rare.get(key, 0.0) for key in sorted(keys)]
        scores["elastic max"][number] = max(records)
        scores["elastic sum"][number] = sum(records)
    return scores


def _spans(organisation: Organisation) -> list[tuple[int, int]]:
    """First and last judged day under each map: history is placed anew when the map moves."""
    first, last, moves = organisation.judged[0], organisation.judged[-1], organisation.moves_on
    if moves > last:
        return [(first, last)]
    return [(first, moves - 1), (moves, last)]


def _learn_buckets(
    cities: dict[str, _City],
    placed: Sequence[tuple[Event, str, str]],
    rare: dict[tuple[str, int, str], float] | None,
) -> None:
    buckets: dict[tuple[int, str], set[str]] = defaultdict(set)
    for event, place, _ in placed:
        if place.startswith("city:"):
            buckets[event.at // 3600, place].add(event.command)
    for hour, place in sorted(buckets):
        commands = buckets[hour, place]
        cities[place].learn(commands)
        if rare is not None:
            for command, bits in cities[place].bits(commands).items():
                rare[place, hour, command] = bits
