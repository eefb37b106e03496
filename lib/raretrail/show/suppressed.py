"""What suppresses, and what it kept from being alerted, as short blocks."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from raretrail.show.incidents import short_id
from raretrail.show.text import Screen, count, inert, minute, render, styled
from raretrail.verdicts import Suppression, scope_text


def suppressed_blocks(found: Sequence[Suppression], screen: Screen) -> str:
    """A block each: id, until when, who and why; what it covers; what it is marked on."""
    parts: list[RenderableType] = []
    for one in found:
        head = Text.assemble(
            (short_id(one.rule_id), "cyan"), f"  {_time(one)}, by {inert(one.row['author'])}: "
        )
        head.append(inert(one.row["reason"] or ""), style="bold")
        if one.row["ticket"]:
            head.append(f" ({inert(one.row['ticket'])})")
        silent = count(one.incidents, "incident") + " suppressed as a whole"
        marked = f"{count(one.findings, 'finding')}; {silent}, {one.would_alert:,} of alert score"
        body = Table.grid(padding=0)
        body.add_column(width=10)
        body.add_column(overflow="fold")
        body.add_row("", styled(scope_text(one.row)))
        body.add_row("", styled(marked, "" if one.findings else "dim"))
        parts += [head, body, ""]
    return render(parts[:-1], screen) if parts else ""


def _time(one: Suppression) -> str:
    if one.kind == "window":
        return f"window {minute(one.row['starts_at'])} to {minute(one.row['ends_at'])}"
    ends = one.row["expires_at"]
    until = f"until {minute(ends)}" if ends else "without end"
    return until if one.holds else f"{until} (no longer)"
