"""Why a finding is unusual, in a few words, from the counts its score was made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raretrail.show.text import count

Row = Mapping[str, Any]


def strangest(findings: Sequence[Row], column: str = "bits") -> Row | None:
    """The finding with the greatest value in a column; ties by id, so that it is always the same."""
    return min(findings, key=lambda f: (-(f.get(column) or 0), f["anomaly_id"]), default=None)


def reasons(findings: Sequence[Row]) -> list[str]:
    """What is unusual about an incident with these findings: where, how, what, in that order.

    Each part is told of the finding that is most unusual in it.
    """
    told: list[str] = []
    for column, tell in (("where_bits", _where), ("how_bits", _how), ("what_bits", _what)):
        finding = strangest(findings, column)
        if finding is not None:
            told += tell(finding)
    top = strangest(findings)
    if top is not None and (top.get("maturity") or 0) < 1:
        days = top.get("principal_active_days") or 0
        told.append(f"only {count(days, 'day')} of history" if days else "not seen in 90 days")
    return told


def _where(row: Row) -> list[str]:
    told = []
    if row.get("place_days") == 0:
        told.append("nobody here in 90 days")
    elif not row.get("principal_place_days") and (row.get("place_bits") or 0) > 0:
        told.append(f"place new to them, known to {count(row.get('place_principals'), 'other')}")
    elif not row.get("command_place_days"):
        told.append("command never came from here")
    if row.get("nearest_place_km") is not None:
        near = ", so hardly new" if row.get("near_known_place") else ""
        told.append(f"{row['nearest_place_km']:,.0f} km from {row['nearest_place']}{near}")
    if row.get("vague_place"):
        told.append("a place the database only guesses")
    if (row.get("network_bits") or 0) > 0 or (
        row.get("principal_network_days") == 0 and row.get("principal_place_days")
    ):
        told.append("new network")
    elif (row.get("prefix_bits") or 0) > 0 and row.get("place_days"):
        told.append("addresses nobody used before")
    if row.get("settled_range"):
        told.append("from addresses they often use")
    if (row.get("jump_bits") or 0) > 0:
        minutes = max(1, round((row.get("jump_seconds") or 0) / 60))
        told.append(f"also at {row.get('jump_place')} within {count(minutes, 'minute')}")
    return told


def _how(row: Row) -> list[str]:
    told = []
    if (row.get("host_bits") or 0) > 0:
        told.append("hosting network")
    if (row.get("agent_bits") or 0) > 0:
        told.append(f"new tool {row.get('agent_family') or 'without a name'}")
    if (row.get("hour_bits") or 0) > 1 and row.get("local_hour") is not None:
        told.append(f"unusual hour ({row['local_hour']}:00 there)")
    return told


def _what(row: Row) -> list[str]:
    told = []
    if (row.get("command_bits") or 0) > 0 and not row.get("principal_command_days"):
        others = row.get("command_principals") or 0
        told.append(
            f"command new to them, used by {count(others, 'other')}" if others
            else "command nobody used in 90 days"
        )  # fmt: skip
    if row.get("error_code") and (row.get("error_bits") or 0) > 0:
        told.append(f"first {row['error_code']}")
    if (row.get("spike_bits") or 0) > 0:
        told.append(f"{row['spike_count']} kinds of error in 15 minutes")
    return told
