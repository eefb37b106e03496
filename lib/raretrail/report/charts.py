"""Charts as numbers: positions and lengths in percent, and paths out of numbers alone.

Text and marks are apart: the template sets names and values as HTML, which wraps, prints and is
read aloud; what is drawn here is stretched to whatever room there is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from markupsafe import Markup

from raretrail.backtest import reaching, scores_of
from raretrail.show.reasons import Row
from raretrail.show.text import in_utc
from raretrail.tables import GEO_STATUSES

SEVERITIES = ("critical", "high", "medium", "low")
_LANES = 8
_STEPS = 240


@dataclass(frozen=True)
class Lane:
    """One row of a timeline: its name, its events, and where they lie as two paths."""

    name: str
    events: int
    fine: Markup
    failed: Markup


def timeline(incident: Row, events: Sequence[Row]) -> list[Lane]:
    """The events by command, by service where there are too many commands; busiest lane first."""
    if not events:
        return []
    commands = {event["command"] or "" for event in events}
    lanes: dict[str, list[Row]] = defaultdict(list)
    for event in events:
        command = str(event["command"] or "")
        lanes[command if len(commands) <= _LANES else command.partition(":")[0]].append(event)
    order = sorted(lanes, key=lambda name: (-len(lanes[name]), name))
    if len(order) > _LANES:
        lanes["other"] = [event for name in order[_LANES - 1 :] for event in lanes[name]]
        order = [*order[: _LANES - 1], "other"]
    first, last = in_utc(incident["first_time"]), in_utc(incident["last_time"])
    length = (last - first).total_seconds()

    def at(event: Row) -> float:
        if length <= 0:
            return 50.0
        part = (in_utc(event["event_time"]) - first).total_seconds() / length
        return round(1 + round(min(max(part, 0.0), 1.0) * _STEPS) / _STEPS * 98, 1)

    return [
        Lane(
            name,
            len(lanes[name]),
            _marks({at(e) for e in lanes[name] if not e.get("error_code")}, "M{:g} 5h.01"),
            _marks({at(e) for e in lanes[name] if e.get("error_code")}, "M{:g} 1.5v7"),
        )
        for name in order
    ]


def _marks(places: set[float], mark: str) -> Markup:
    return Markup("".join(mark.format(x) for x in sorted(places)))


@dataclass(frozen=True)
class Column:
    """One day of a column chart: boxes as (severity, x, y, width, height) in percent."""

    day: date
    total: int
    told: str
    boxes: tuple[tuple[str, float, float, float, float], ...]


def incidents_by_day(rows: Sequence[Row], first: date, last: date) -> tuple[list[Column], int]:
    """A stacked column for each day, and the most a day had."""
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    counted = Counter((row["first_date"], row["severity"]) for row in rows)
    most = max((sum(counted[day, s] for s in SEVERITIES) for day in days), default=0) or 1
    step = 100 / len(days)
    columns = []
    for number, day in enumerate(days):
        y, boxes, told = 100.0, [], []
        for severity in reversed(SEVERITIES):
            times = counted[day, severity]
            if times:
                height = times / most * 94
                y -= height
                x = number * step + step * 0.14
                boxes.append((severity, round(x, 2), round(y, 2), round(step * 0.72, 2), round(height, 2)))
                told.append(f"{times} {severity}")
        total = sum(counted[day, s] for s in SEVERITIES)
        columns.append(Column(day, total, ", ".join(reversed(told)), tuple(boxes)))
    return columns, most


@dataclass(frozen=True)
class Curve:
    """Incidents a day that a threshold would let through, for thresholds 0 to 100."""

    path: Markup
    most: float
    table: tuple[tuple[int, int, float], ...]
    days: int
    chosen: tuple[float, int, float]


def threshold_curve(rows: Sequence[Row], days: int, threshold: float) -> Curve | None:
    """The curve over the incidents of so many judged days, as `raretrail backtest` counts them; None
    without any that would be alerted at some threshold."""
    scores = scores_of(rows)
    if not scores or days < 1:
        return None

    def above(score: float) -> int:
        return reaching(scores, score)

    most = above(0) / days
    drawn = "M0 0"
    level = 0.0
    for score in range(0, 101):
        y = 100 - above(score) / days / most * 100
        if y != level:
            drawn += f"H{score}V{y:.2f}".replace(".00", "")
            level = y
    # A threshold shows at the score it is set to.
    drawn += "H100"
    table = tuple((t, above(t), round(above(t) / days, 2)) for t in range(10, 100, 10))
    return Curve(
        Markup(drawn),
        round(most, 2),
        table,
        days,
        (threshold, above(threshold), round(above(threshold) / days, 2)),
    )


@dataclass(frozen=True)
class Account:
    """One account's events: a path of daily bars, its regions, and the days it said nothing."""

    name: str
    events: int
    bars: Markup
    regions: tuple[tuple[str, int], ...]
    silent: tuple[date, ...]
    active: int


def coverage(rows: Sequence[Row], first: date, last: date, most: int) -> tuple[list[Account], int]:
    """The accounts with most events, and how many further ones there are.

    A day counts as silent only between an account's first and the last day of the period.
    """
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    by_account: dict[str, Counter[date]] = defaultdict(Counter)
    regions: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        account = str(row["recipient_account_id"] or "unknown")
        by_account[account][row["event_date"]] += row["events"]
        regions[account][str(row["aws_region"] or "no region")] += row["events"]
    order = sorted(by_account, key=lambda a: (-by_account[a].total(), a))
    accounts = []
    for account in order[:most]:
        counted = by_account[account]
        high = max(counted.values())
        begun = min(counted)
        bars = "".join(
            f"M{n} 100v-{max(counted[day] / high * 100, 2):.0f}h.8V100z"
            for n, day in enumerate(days)
            if counted[day]
        )
        silent = tuple(day for day in days if day >= begun and not counted[day])
        accounts.append(
            Account(
                account,
                counted.total(),
                Markup(bars),
                tuple(regions[account].most_common(6)),
                silent,
                len(counted),
            )
        )
    return accounts, max(0, len(order) - most)


def status_shares(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each geo_status with its events, share and where its piece of the bar begins, in percent."""
    counted: Mapping[str, Row] = {str(row["geo_status"]): row for row in rows}
    total = sum(row["events"] for row in rows) or 1
    order = [s for s in GEO_STATUSES if s in counted] + sorted(set(counted) - set(GEO_STATUSES))
    shares: list[dict[str, Any]] = []
    x = 0.0
    for number, status in enumerate(order):
        width = counted[status]["events"] / total * 100
        shares.append(
            {"status": status, "x": round(x, 2), "width": round(width, 2), "tone": number, **counted[status]}
        )
        x += width
    return shares
