"""A tiny organisation played in a process of its own, and what two warehouses of it must have alike."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from raretrail.look import open_duckdb
from raretrail.simulate import Shape, simulate
from raretrail.tables import ALL, DATA_QUALITY, RUNS

SHAPE = Shape(seed=3, people=6, days=6, judged_days=2, accounts=2)
# When and under which name something ran, and nothing else.
OF_RUNNING = {
    "run_id", "ingested_at", "located_at", "first_scored_at", "checked_at", "late_minutes", "revised_at",
    "revised_date",
}  # fmt: skip

Contents = dict[str, list[str]]


def simulated(out: Path) -> list[str]:
    """Write the organisation, which has one intrusion; the options that name its trail and networks."""
    simulate(out, SHAPE)
    return ["--trail", str(out / "trail"), "--asn-db", str(out / "asn.mmdb")]


def played(out: Path) -> list[str]:
    """The same, and the options to play its last two days."""
    span = ["--from", SHAPE.judged_from.isoformat(), "--to", SHAPE.end.isoformat()]
    return [*simulated(out), *span]


def contents(warehouse: Path | str, trail: str | None = None) -> Contents:
    """Every table's rows as sorted text, without what tells of running; with the place of the trail, also
    without where its files lay and when they were put there."""
    held: Contents = {}
    aside = OF_RUNNING | ({"modified_at"} if trail else set())
    with open_duckdb(str(warehouse)) as look:
        for table in ALL:
            if table in (RUNS, DATA_QUALITY) or table.name.startswith("staged_"):
                continue
            names = [name for name in table.column_names if name not in aside]
            rows = [repr([_told(name, row[name]) for name in names]) for row in look.rows(table)]
            held[table.name] = sorted(row.replace(trail, "TRAIL") if trail else row for row in rows)
    assert held.get("incidents"), "nothing to compare"
    return held


def _told(name: str, value: Any) -> Any:
    """The value; of the time of an alert only whether there was one."""
    return value is not None if name == "alerted_at" else value


def differences(wanted: Contents, found: Contents) -> list[str]:
    """What differs, a line a table."""
    said = []
    for name in sorted(wanted.keys() | found.keys()):
        here, there = Counter(wanted.get(name, ())), Counter(found.get(name, ()))
        lacking, surplus = here - there, there - here
        if lacking or surplus:
            example = next(iter((lacking or surplus).elements()))[:300]
            said.append(f"{name} lacks {lacking.total()} rows and has {surplus.total()} more: {example}")
    return said
