"""Incidents, and how many campaigns the best of them find.

A scorer gives every incident a number. Per UTC day the B highest are shown; a campaign is found
when one of them carries one of its events. G is the same over the whole month with one threshold.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from .organisations import Event, Organisation

GAP = 4 * 3600
LONGEST = 24 * 3600
BUDGETS = (1, 2)
MONTH = 30

Who = Callable[[Event], str]


@dataclass
class Incident:
    """Events of one identity in one place, close in time; its day is that of the first."""

    who: str
    place: str
    events: list[Event] = field(default_factory=list)

    @property
    def day(self) -> int:
        """Days since 1970-01-01."""
        return self.events[0].day


def principal(event: Event) -> str:
    """The identity incidents are of, unless a scorer knows better."""
    return event.principal


def incidents(organisation: Organisation, who: Who = principal) -> list[Incident]:
    """The incidents that begin on a judged day, by their first event.

    A chain ends after a gap of more than 4 hours, or 24 hours after it began: what never rests
    would else be one incident a month.
    """
    found: list[Incident] = []
    last: dict[tuple[str, str], Incident] = {}
    for event in organisation.events:
        key = (who(event), organisation.place(event.address, event.day).place)
        chain = last.get(key)
        if chain is None or event.at - chain.events[-1].at > GAP or event.at - chain.events[0].at > LONGEST:
            chain = last[key] = Incident(*key)
            if event.day >= organisation.judged_from:
                found.append(chain)
        chain.events.append(event)
    return found


@dataclass(frozen=True)
class Measure:
    """What one scorer found in one organisation. `cap` is what counting alone allows."""

    recall: Mapping[int, float]
    cap: Mapping[int, float]
    month: float
    by_kind: Mapping[int, Mapping[str, tuple[int, int]]]
    month_by_kind: Mapping[str, tuple[int, int]]
    shown: Mapping[str, float]
    missed: Sequence[str]


def measure(organisation: Organisation, found: Sequence[Incident], scores: Sequence[float]) -> Measure:
    """How the scores rank the incidents. Ties go by identity and place, which know no campaign."""
    carried = [
        {organisation.campaign_of[e.id] for e in i.events if e.id in organisation.campaign_of} for i in found
    ]
    order = sorted(range(len(found)), key=lambda n: (-scores[n], found[n].who, found[n].place, found[n].day))
    by_day: dict[int, list[int]] = defaultdict(list)
    for n in order:
        by_day[found[n].day].append(n)
    kind_of = {c["id"]: c["kind"].partition(":")[0] for c in organisation.campaigns}
    recall: dict[int, float] = {}
    cap: dict[int, float] = {}
    by_kind: dict[int, dict[str, tuple[int, int]]] = {}
    hits: set[str] = set()
    for budget in BUDGETS:
        shown = [n for day in organisation.judged for n in by_day.get(day, [])[:budget]]
        hits = set().union(*(carried[n] for n in shown))
        recall[budget] = len(hits) / len(kind_of)
        by_kind[budget] = _by_kind(kind_of, hits)
        cap[budget] = _cap(found, carried, organisation, budget) / len(kind_of)
    best = set().union(*(carried[n] for n in order[:MONTH]))
    shown = [n for day in organisation.judged for n in by_day.get(day, [])[: BUDGETS[-1]]]
    return Measure(
        recall, cap, len(best) / len(kind_of), by_kind, _by_kind(kind_of, best),
        _innocents(organisation, [found[n] for n in shown if not carried[n]], len(shown)),
        sorted(set(kind_of) - hits),
    )  # fmt: skip


def averages(measures: Sequence[Measure]) -> list[float]:
    """Recall at each budget and G@30, over the organisations."""
    figures = [sum(m.recall[budget] for m in measures) for budget in BUDGETS]
    return [figure / len(measures) for figure in (*figures, sum(m.month for m in measures))]


def found_by_kind(measures: Sequence[Measure], budget: int) -> dict[str, str]:
    """'found/all' of each kind of campaign at a budget, over the organisations."""
    told = {}
    for kind in sorted({kind for m in measures for kind in m.by_kind[budget]}):
        got = [m.by_kind[budget].get(kind, (0, 0)) for m in measures]
        told[kind] = f"{sum(g for g, _ in got)}/{sum(n for _, n in got)}"
    return told


def _by_kind(kind_of: Mapping[str, str], hits: set[str]) -> dict[str, tuple[int, int]]:
    every = Counter(kind_of.values())
    got = Counter(kind_of[h] for h in hits)
    return {kind: (got[kind], every[kind]) for kind in sorted(every)}


def _cap(
    found: Sequence[Incident], carried: Sequence[set[str]], organisation: Organisation, budget: int
) -> int:
    """The most campaigns that `budget` incidents a day can carry: a matching of days to them."""
    days: dict[str, set[int]] = defaultdict(set)
    for incident, ids in zip(found, carried, strict=True):
        for campaign in ids:
            if incident.day in organisation.judged:
                days[campaign].add(incident.day)
    taken: dict[tuple[int, int], str] = {}

    def place(campaign: str, tried: set[tuple[int, int]]) -> bool:
        for slot in ((d, b) for d in sorted(days[campaign]) for b in range(budget)):
            if slot in tried:
                continue
            tried.add(slot)
            if slot not in taken or place(taken[slot], tried):
                taken[slot] = campaign
                return True
        return False

    return sum(place(c, set()) for c in sorted(days))


def _innocents(organisation: Organisation, shown: Sequence[Incident], of: int) -> dict[str, float]:
    """Share of what was shown that each innocent kind explains; `no trouble` is the rest.

    By the label's events where it has any, else by the name and the days it gives. An incident
    with several explanations is divided among them.
    """
    by_event: dict[str, str] = {}
    by_name: dict[str, list[tuple[str, frozenset[int]]]] = defaultdict(list)
    for label in organisation.innocents:
        if label.get("event_ids"):
            by_event.update(dict.fromkeys(label["event_ids"], label["kind"]))
        elif label["who"]:
            by_name[label["who"]].append((label["kind"], frozenset(map(_day, label["days"]))))
    share: dict[str, float] = defaultdict(float)
    for incident in shown:
        kinds = {by_event[e.id] for e in incident.events if e.id in by_event}
        if not kinds:
            for name, labels in by_name.items():
                if name in incident.events[0].arn:
                    kinds |= {k for k, days in labels if not days or incident.day in days}
        for kind in kinds or {"no trouble"}:
            share[kind] += 1 / len(kinds or {1})
    return {kind: count / max(of, 1) for kind, count in sorted(share.items())}


def _day(text: str) -> int:
    return (date.fromisoformat(text) - date(1970, 1, 1)).days
