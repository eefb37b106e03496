"""What thresholds of score would have alerted on the days that were judged, who and what causes most of it,
and which threshold would have kept a budget.

`read` takes it from a warehouse; everything else is arithmetic over rows of `tables.INCIDENTS`. A rate is
incidents a judged day; an incident counts on the day of its first finding. What is suppressed is counted
apart: it would not be alerted, but a score promises a number of incidents whoever suppresses them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from raretrail.errors import UsageError
from raretrail.look import Condition, Look
from raretrail.settings import Settings
from raretrail.show.names import place_of, short_principal
from raretrail.show.text import in_utc
from raretrail.tables import ANOMALIES, CALIBRATIONS, INCIDENTS, RUNS

Row = Mapping[str, Any]
# The values of a row that count, each with the name it is shown by.
_Values = Callable[[Row], dict[str, str]]

THRESHOLDS = (5.0, 10.0, 25.0, 50.0, 60.0, 75.0, 80.0, 90.0, 95.0, 99.0)
TOP = 10
MALICIOUS = "malicious"
# As in `detect.rank`, which cannot be imported where there is no Spark; a test holds them together.
PRIOR_DAYS = 7.0
PRIOR_LEVEL = 12.0
PRIOR_HALVING = 2.0

_READ = (
    "incident_id", "first_date", "actor", "principal", "principal_kind", "place", "place_name", "geo_status",
    "networks", "detectors", "commands", "score", "bits", "verdict", "suppressed_by",
)  # fmt: skip
# No incident needs more bits than this for a score under 99.99.
_MOST_BITS = 64.0


@dataclass(frozen=True)
class Level:
    """Incidents of some judged days from a score on. Those suppressed are in `suppressed` alone, those
    with a verdict in `verdicts`, suppressed or not."""

    score: float
    incidents: int
    suppressed: int
    a_day: float
    most: int
    most_day: date | None
    days_without: int
    promised: float | None
    verdicts: Mapping[str, int]

    @property
    def with_verdict(self) -> int:
        """How many have a verdict."""
        return sum(self.verdicts.values())

    @property
    def precision(self) -> float | None:
        """The share that is malicious of those with a verdict, 0 to 1; None without any."""
        return self.verdicts.get(MALICIOUS, 0) / self.with_verdict if self.verdicts else None


@dataclass(frozen=True)
class Cause:
    """One actor, detector, place, network or command: in how many incidents it is, which share of all
    that is (0 to 1), and in how many there is no other of its kind."""

    value: str
    name: str
    incidents: int
    share: float
    alone: int


@dataclass(frozen=True)
class Causes:
    """The first of a kind, most incidents first, and how many there are of it."""

    top: tuple[Cause, ...]
    total: int


@dataclass(frozen=True)
class Band:
    """A severity: the score it begins at, the bits that takes on the newest day, the bits its incidents
    had, and how many there were. promised is a day, of this band alone; None for the lowest."""

    severity: str
    score: float
    takes_bits: float | None
    least_bits: float | None
    most_bits: float | None
    incidents: int
    suppressed: int
    a_day: float
    most: int
    promised: float | None


@dataclass(frozen=True)
class Budget:
    """Incidents a day somebody can look at, and the thresholds for it: the one that promises it, and the
    lowest that would have kept it on average and on every day. None where no threshold does."""

    per_day: float
    promising: float
    on_average: float | None
    on_average_incidents: int
    on_every_day: float | None
    on_every_day_incidents: int


@dataclass(frozen=True)
class Backtest:
    """All of it. `days` are the judged ones, ascending; `by_day` counts the incidents from `chosen` on,
    a number for each of these. `until` is where the newest day's judging ended, if within the day."""

    days: tuple[date, ...]
    by_runs: bool
    until: datetime | None
    left_out: int
    every: Level
    levels: tuple[Level, ...]
    configured: float
    chosen: Level
    by_day: tuple[int, ...]
    causes: Mapping[str, Causes]
    bands: tuple[Band, ...]
    budget: Budget


@dataclass(frozen=True)
class Period:
    """Which days are asked for: the last so many up to the newest judged day, or from and to, exclusive."""

    days: int = 30
    start: date | None = None
    end: date | None = None


@dataclass(frozen=True)
class Calibration:
    """A row of `tables.CALIBRATIONS`: bits of the incidents of so many judged days."""

    judged_days: int = 0
    bits: tuple[float, ...] = field(default=())


# ------------------------------------------------------------------------------------------ arithmetic


def promised_per_day(score: float) -> float | None:
    """Incidents a day that a threshold promises; None for 0, which promises nothing."""
    return (100 - score) / score if score > 0 else None


def expected_per_day(bits: float, calibration: Calibration) -> float:
    """Incidents a day at least this unusual, as `detect.rank` expects them."""
    above = sum(known >= bits for known in calibration.bits)
    prior = math.pow(2.0, (PRIOR_LEVEL - bits) / PRIOR_HALVING)
    return (above + PRIOR_DAYS * prior) / (calibration.judged_days + PRIOR_DAYS)


def score_of(bits: float, calibration: Calibration) -> float:
    """The score of so many bits."""
    return round(100 / (1 + expected_per_day(bits, calibration)), 2)


def bits_for(score: float, calibration: Calibration) -> float | None:
    """The fewest bits that reach a score, to 0.01; None where none do."""
    low, high = 0, round(_MOST_BITS * 100)
    if score_of(_MOST_BITS, calibration) < score:
        return None
    while low < high:  # the score never falls as bits rise
        middle = (low + high) // 2
        if score_of(middle / 100, calibration) >= score:
            high = middle
        else:
            low = middle + 1
    return low / 100


def at_or_above(rows: Iterable[Row], score: float) -> list[Row]:
    """The incidents with at least this score; one without a score has 0."""
    return [row for row in rows if _score(row) >= score]


def would_alert(rows: Iterable[Row]) -> list[Row]:
    """The incidents that are not suppressed."""
    return [row for row in rows if not row.get("suppressed_by")]


def scores_of(rows: Iterable[Row]) -> list[float]:
    """The scores of those that are not suppressed, ascending."""
    return sorted(map(_score, would_alert(rows)))


def reaching(scores: Sequence[float], threshold: float) -> int:
    """How many of these ascending scores would be alerted."""
    return len(scores) - bisect_left(scores, threshold)


def judged_days(runs: Iterable[Row]) -> set[date]:
    """The days of the windows that runs judged and published, as `stages.run` counts them."""
    days: set[date] = set()
    for run in runs:
        start, end = run["window_from"], run["window_to"]
        if run["status"] != "done" or start is None or end is None:
            continue
        start, end = in_utc(start), in_utc(end)
        # A window is exclusive of its end: one that ends at midnight has nothing of the day.
        last = (end - timedelta(microseconds=1)).date()
        days |= {start.date() + timedelta(days=n) for n in range((last - start.date()).days + 1)}
    return days


def to_level(rows: Sequence[Row], days: Sequence[date], score: float) -> Level:
    """The incidents of these days from a score on. rows: score, first_date, suppressed_by, verdict."""
    above = at_or_above(rows, score)
    seen = would_alert(above)
    by_day = Counter(row["first_date"] for row in seen)
    most_day = min(by_day, key=lambda day: (-by_day[day], day), default=None)
    return Level(
        score=score,
        incidents=len(seen),
        suppressed=len(above) - len(seen),
        a_day=len(seen) / len(days),
        most=by_day[most_day] if most_day else 0,
        most_day=most_day,
        days_without=sum(not by_day[day] for day in days),
        promised=promised_per_day(score),
        verdicts=dict(Counter(row["verdict"] for row in above if row.get("verdict")).most_common()),
    )


def to_causes(rows: Sequence[Row], top: int) -> dict[str, Causes]:
    """Who and what is in most of these incidents, by kind; the more often alone, then by name, where
    several are in as many."""
    return {kind: _ranked(rows, values, top) for kind, values in _KINDS.items()}


def _ranked(rows: Sequence[Row], values: _Values, top: int) -> Causes:
    names: dict[str, str] = {}
    found: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    # An incident's commands are in order of surprise: who leads one causes it rather than who is in it.
    leads: Counter[str] = Counter()
    for row in rows:
        own = values(row)
        names |= own
        found.update(list(own))
        leads.update(list(own)[:1])
        if len(own) == 1:
            alone.update(list(own))
    order = sorted(found, key=lambda value: (-found[value], -alone[value], -leads[value], value))
    return Causes(
        tuple(
            Cause(value, names[value], found[value], found[value] / len(rows), alone[value])
            for value in order[:top]
        ),
        len(order),
    )


def _actor(row: Row) -> dict[str, str]:
    who = str(row.get("actor") or row.get("principal") or "unknown")
    name = short_principal(who, row.get("principal_kind"))
    return {who: f"{name.short} in {name.account}" if name.account else name.short}


def _place(row: Row) -> dict[str, str]:
    return {str(row.get("place") or row.get("geo_status") or "unknown"): place_of(row)}


def _listed(column: str) -> _Values:
    return lambda row: {str(value): str(value) for value in row.get(column) or () if value}


_KINDS = {
    "actor": _actor,
    "detector": _listed("detectors"),
    "place": _place,
    "network": _listed("networks"),
    "command": _listed("commands"),
}


def to_bands(
    rows: Sequence[Row], days: Sequence[date], severity: Mapping[str, float], calibration: Calibration
) -> tuple[Band, ...]:
    """The severities by the scores they begin at now, highest first."""
    begins = {"low": 0.0} | {
        name: severity[name] for name in ("medium", "high", "critical") if name in severity
    }
    members: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        # As `detect.rank.severity_of`: the last whose score is reached.
        reached = [name for name, least in begins.items() if _score(row) >= least]
        members[reached[-1]].append(row)
    bands = []
    for name, least in reversed(begins.items()):
        own, seen = members[name], would_alert(members[name])
        bits = [row["bits"] for row in own if row.get("bits") is not None]
        upper = min((score for score in begins.values() if score > least), default=100.0)
        promised, beyond = promised_per_day(least), promised_per_day(upper)
        bands.append(
            Band(
                severity=name,
                score=least,
                takes_bits=bits_for(least, calibration),
                least_bits=min(bits, default=None),
                most_bits=max(bits, default=None),
                incidents=len(seen),
                suppressed=len(own) - len(seen),
                a_day=len(seen) / len(days),
                most=max(Counter(row["first_date"] for row in seen).values(), default=0),
                promised=None if promised is None or beyond is None else promised - beyond,
            )
        )
    return tuple(bands)


def to_budget(rows: Sequence[Row], days: Sequence[date], per_day: float) -> Budget:
    """The thresholds for so many incidents a day, by those of these days that are not suppressed."""
    scores = scores_of(rows)
    by_day: dict[date, list[Row]] = defaultdict(list)
    for row in rows:
        by_day[row["first_date"]].append(row)
    # The first that is one too many must not reach the threshold. What is added keeps 0.1 · 30 at 3.
    whole, each = math.floor(per_day * len(days) + 1e-9), math.floor(per_day)
    average = _lowest_over(scores[::-1][whole:][:1], scores)
    daily = _lowest_over([s for own in by_day.values() for s in scores_of(own)[::-1][each:][:1]], scores)
    return Budget(
        per_day=per_day,
        promising=round(100 / (1 + per_day), 2),
        on_average=average,
        on_average_incidents=0 if average is None else reaching(scores, average),
        on_every_day=daily,
        on_every_day_incidents=0 if daily is None else reaching(scores, daily),
    )


def _lowest_over(excluded: Sequence[float], scores: Sequence[float]) -> float | None:
    """The lowest threshold that none of these scores reach, as round as can be without losing any other."""
    if not excluded:
        return 0.0
    over = round(max(excluded) * 100)
    kept = min((n for n in (round(score * 100) for score in scores) if n > over), default=10_000)
    for step in (100, 10, 1):
        threshold = (over // step + 1) * step
        if threshold <= kept:
            return threshold / 100
    return None


def _score(row: Row) -> float:
    return float(row.get("score") or 0.0)


# --------------------------------------------------------------------------------------------- reading


def read(
    look: Look,
    settings: Settings,
    period: Period,
    *,
    min_score: float | None = None,
    per_day: float = 1.0,
    top: int = TOP,
) -> Backtest:
    """The backtest of a period; UsageError where nothing of it was judged.

    min_score is the threshold whose causes are told, `alerts.min_score` where it is None.
    """
    runs = look.rows(
        RUNS,
        Condition("status", "=", "done"),
        columns=["status", "started_at", "settings_hash", "window_from", "window_to"],
    )
    judged = judged_days(runs)
    by_runs = bool(judged)
    if not by_runs:
        judged = {row["first_date"] for row in look.rows(INCIDENTS, columns=["first_date"])}
    days = _asked(judged, period)
    within = (Condition("first_date", ">=", days[0]), Condition("first_date", "<=", days[-1]))
    rows = look.rows(INCIDENTS, *within, columns=_READ)
    known = [row for row in rows if row["first_date"] in set(days)]
    configured = settings.alerts.min_score
    chosen = configured if min_score is None else min_score
    alerted = would_alert(at_or_above(known, chosen))
    by_day = Counter(row["first_date"] for row in alerted)
    causes = to_causes(alerted, top)
    causes["network"] = _named(look, causes["network"], days[0])
    severity = {str(name): score for name, score in settings.score.severity.items()}
    return Backtest(
        days=tuple(days),
        by_runs=by_runs,
        until=_until(runs, days[-1]),
        left_out=len(rows) - len(known),
        every=to_level(known, days, 0.0),
        levels=tuple(to_level(known, days, score) for score in sorted({*THRESHOLDS, configured, chosen})),
        configured=configured,
        chosen=to_level(known, days, chosen),
        by_day=tuple(by_day[day] for day in days),
        causes=causes,
        bands=to_bands(known, days, severity, _calibration(look, runs, days[-1])),
        budget=to_budget(known, days, per_day),
    )


def _asked(judged: Collection[date], period: Period) -> list[date]:
    """The judged days of the period, ascending; UsageError without any."""
    if not judged:
        raise UsageError(
            "nothing was judged yet: `raretrail run` judges, and a backtest counts what it found"
        )
    end = period.end or max(judged) + timedelta(days=1)
    start = period.start or end - timedelta(days=period.days)
    days = sorted(day for day in judged if start <= day < end)
    if not days:
        asked = f"from {start} on" if start >= end else f"from {start} to {end - timedelta(days=1)}"
        raise UsageError(
            f"nothing was judged {asked}; judged days lie between {min(judged)} and {max(judged)}"
        )
    return days


def _until(runs: Iterable[Row], day: date) -> datetime | None:
    """When the judging of a day ended, unless all of it is judged."""
    ends = [in_utc(run["window_to"]) for run in runs if run["window_to"] is not None]
    latest = max(ends, default=None)
    return latest if latest is not None and latest.date() == day else None


def _named(look: Look, networks: Causes, since: date) -> Causes:
    """The networks with the names that findings have for them."""
    if not networks.top:
        return networks
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in look.rows(
        ANOMALIES,
        Condition("network", "in", [cause.value for cause in networks.top]),
        Condition("bucket_date", ">=", since),
        columns=["network", "known_network", "as_organization"],
    ):
        name = row["known_network"] or row["as_organization"]
        if name:
            found[row["network"]][name] += 1
    named = []
    for cause in networks.top:
        names = found[cause.value]
        name = min(names, key=lambda one: (-names[one], one), default="")
        shown = f"{cause.value} {name}" if name else cause.value
        named.append(Cause(cause.value, shown, cause.incidents, cause.share, cause.alone))
    return Causes(tuple(named), networks.total)


def _calibration(look: Look, runs: Sequence[Row], day: date) -> Calibration:
    """The newest calibration up to a day, of the settings that judged last where there are several."""
    rows = look.rows(CALIBRATIONS, Condition("as_of", "<=", day), order=(("as_of", "desc"),), limit=20)
    newest = [row for row in rows if row["as_of"] == rows[0]["as_of"]]
    latest = max(runs, key=lambda run: in_utc(run["started_at"]), default=None)
    own = [row for row in newest if latest is not None and row["settings_hash"] == latest["settings_hash"]]
    for row in [*own, *newest]:
        return Calibration(row["judged_days"] or 0, tuple(row["bits"] or ()))
    return Calibration()
