"""The terms of a score as bars, with the counts behind each.

Which terms there are is read from the tables: every column that ends in `_bits`. The counts follow
from the names: `X_bits` has `principal_X_days` and `X_principals`, `A_given_B_bits` has the days of
both and of B. A term that has neither shows the columns that begin with its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raretrail import tables
from raretrail.show.reasons import Row, strangest
from raretrail.show.text import count

# Bars of all incidents share one scale up to here, so that they compare by eye.
_FULL_BITS = 12.0
_COMMENTS = {column.name: column.comment for column in tables.ANOMALIES.columns}
_PARTS = tuple(column.name for column in tables.INCIDENTS.columns if column.name.endswith("_bits"))
_VALUES = {
    "agent": "agent_family",
    "error": "error_code",
    "network": "as_organization",
    "host": "as_organization",
    "place": "place_name",
    "country": "country_name",
}


@dataclass(frozen=True)
class Bar:
    """One term: its name in words, its bits, its length in percent, and what its counts say.

    kind is `part` for the parts an incident's bits are made of, `term` for what a part is made of,
    `aside` for what is measured beside (one thing given another).
    """

    name: str
    bits: float
    percent: float
    told: str
    kind: str


def glossary() -> list[tuple[str, str]]:
    """Every term there is, in words, and what it measures."""
    return [(_words(name), meaning) for name, meaning in _COMMENTS.items() if name.endswith("_bits")]


def parts(incident: Row) -> list[Bar]:
    """Where, how and what of an incident, and what takes from them: where its owner sits, a young history."""
    values = [(_words(name), incident.get(name) or 0.0) for name in _PARTS]
    rest = (incident.get("bits") or 0.0) - sum(bits for _, bits in values)
    if abs(rest) > 0.05:
        values.append(("young history" if rest < 0 else "together", rest))
    full = max(incident.get("bits") or 0.0, _FULL_BITS)
    return [Bar(name, bits, _percent(max(bits, 0.0), full), "", "part") for name, bits in values if bits]


def terms(findings: Sequence[Row]) -> list[Bar]:
    """The terms above zero, each of the finding most unusual in it; those of the sum first."""
    present = {name for row in findings for name in row if name.endswith("_bits")} - set(_PARTS)
    order = {name: number for number, name in enumerate(_COMMENTS)}
    bars = []
    for column in sorted(present, key=lambda name: ("_given_" in name, order.get(name, 999), name)):
        row = strangest(findings, column)
        bits = (row.get(column) or 0.0) if row else 0.0
        if row is not None and bits > 0:
            kind = "aside" if "_given_" in column else "term"
            full = max(_FULL_BITS, *(f.get(column) or 0.0 for f in findings))
            bars.append(Bar(_words(column), bits, _percent(bits, full), _told(_stem(column), row), kind))
    return bars


def _stem(column: str) -> str:
    return column.removesuffix("_bits")


def _words(column: str) -> str:
    return _stem(column).replace("agent", "tool").replace("_", " ")


def _percent(bits: float, full: float) -> float:
    return round(min(bits / full, 1.0) * 100, 1)


def _told(term: str, row: Row) -> str:
    if "_given_" in term:
        one, other = term.split("_given_", 1)
        both = _first(row, f"{other}_{one}_days", f"{one}_{other}_days")
        days = row.get(f"{other}_days")
        if both is not None and days is not None:
            if not days:
                return f"this {other} was never seen before"
            return f"on {both:,} of the {count(days, 'day')} of this {other} it was this {one}"
    days, others = row.get(f"principal_{term}_days"), row.get(f"{term}_principals")
    told = []
    value = row.get(_VALUES.get(term, term)) or (row.get("network") if term == "network" else None)
    if days is not None:
        active = row.get("principal_active_days")
        told.append(
            f"on {days:,} of {count(active, 'active day')} of this principal" if active is not None
            else f"on {count(days, 'day')} of this principal"
        )  # fmt: skip
    if others is not None:
        by = count(others, "other") if others else "nobody else"
        told.append(f"and by {by}" if days is not None else f"by {by}")
    if days is None and others is None:
        told += _own_counts(term, row)
    if term == "place" and row.get("nearest_place_km") is not None:
        told.append(f"({row['nearest_place_km']:,.0f} km from {row['nearest_place']})")
    if value:
        return f"{value}: {' '.join(told)}" if told else str(value)
    return " ".join(told)


def _own_counts(term: str, row: Row) -> list[str]:
    found = [
        f"{name.removeprefix(term + '_').replace('_', ' ')} {value:,}"
        for name, value in row.items()
        if name.startswith(f"{term}_") and isinstance(value, int) and not isinstance(value, bool)
    ]
    return [", ".join(found[:3])] if found else []


def _first(row: Mapping[str, Any], *names: str) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
