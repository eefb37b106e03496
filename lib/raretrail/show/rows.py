"""The rows of a query: as a table, as CSV, as JSON lines. What is printed is inert in all three."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from raretrail.show.text import Screen, in_utc, inert, render, styled, to_json

_WIDEST = 60
# With less room a column breaks into shreds; rows are shown a field a line instead.
_NARROWEST = 8


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{in_utc(value):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) >= 1e6 else f"{round(value, 4):g}"
    if isinstance(value, list | dict | tuple):
        return to_json(value)
    return str(value)


def rows_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], screen: Screen) -> str:
    """Aligned columns, numbers to the right, and how many rows there were.

    Rows with too many columns for the screen are shown a field a line, empty fields left out.
    """
    if len(columns) * (_NARROWEST + 1) > screen.width + 1:
        shown = render(list(_records(columns, rows)), screen) if rows else ""
    else:
        shown = render(_aligned(columns, rows), screen)
    return shown + f"{len(rows):,} row{'' if len(rows) == 1 else 's'}\n"


def _aligned(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        values = [row[name] for row in rows if row[name] is not None]
        numeric = bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(styled(name), justify=justify, max_width=_WIDEST, overflow="fold")
    for row in rows:
        table.add_row(*[styled(_cell(row[name])) for name in columns])
    return table


def _records(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    label = max(map(len, columns))
    for number, row in enumerate(rows, start=1):
        yield Text(f"row {number:,}", style="bold")
        table = Table.grid(padding=(0, 2))
        table.add_column(width=label)
        table.add_column(overflow="fold")
        for name in columns:
            text = _cell(row[name])
            if text:
                table.add_row(styled(name, "dim"), styled(text))
        yield table


def csv_lines(columns: Sequence[str], rows: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    """A header and the rows; a text that a spreadsheet would take for a formula gets a quote before."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_harmless(name) for name in columns])
    for row in rows:
        writer.writerow([_harmless(row[name]) for name in columns])
        yield out.getvalue()
        out.seek(0)
        out.truncate()
    yield out.getvalue()


def _harmless(value: Any) -> str:
    text = inert(_cell(value))
    return f"'{text}" if isinstance(value, str) and text[:1] in ("=", "+", "-", "@") else text


def json_lines(columns: Sequence[str], rows: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    """One JSON object a row."""
    for row in rows:
        yield to_json({name: row[name] for name in columns}) + "\n"
