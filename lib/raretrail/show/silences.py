"""What fell silent, in words: for runs, doctor and the report alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raretrail.show.text import cut_middle, inert
from raretrail.tables import EVERY

# Silences a sentence names; the table coverage_hourly has them all.
_NAMED = 5
# Both names are what a log says.
_LENGTH = 40


def outermost(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of `coverage_hourly` of one hour without those within another of them: what falls silent with
    its account, its region or everything is told by these. The most improbable first."""
    pairs = {(row["recipient_account_id"], row["aws_region"]): row for row in rows}
    left = [
        row
        for (account, region), row in pairs.items()
        if not any(
            above in pairs and above != (account, region)
            for above in ((EVERY, EVERY), (account, EVERY), (EVERY, region))
        )
    ]
    left.sort(key=lambda row: (-row["silent_bits"], row["recipient_account_id"], row["aws_region"]))
    return left


def in_words(silent: list[Mapping[str, Any]]) -> str:
    """Who is silent for how long, of rows as `outermost` gives them."""
    told = [_told(row) for row in silent[:_NAMED]]
    if len(silent) > _NAMED:
        told.append(f"{len(silent) - _NAMED} more")
    return "; ".join(told)


def _told(row: Mapping[str, Any]) -> str:
    account, region = (
        inert(cut_middle(str(row[name]), _LENGTH)) for name in ("recipient_account_id", "aws_region")
    )
    if account == region == EVERY:
        who = "the whole trail"
    elif account == EVERY:
        who = f"region {region}"
    else:
        who = f"account {account}" + ("" if region == EVERY else f" in {region}")
    return f"{who} for {row['silent_hours']:,} hours, {row['silent_expected']:,.0f} events expected"
