"""Text that is safe to print and fits: escaping, widths, colours, numbers, times."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.text import Text

# Width of what goes into a pipe or a file, unless COLUMNS says otherwise.
PIPE_WIDTH = 100
NARROWEST = 40

# Control and format characters, surrogates, private use, line and paragraph separators.
_ACTING = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_PLAIN = re.compile(r"[ -~]*")

SEVERITY_STYLES = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "dim"}


@dataclass(frozen=True)
class Screen:
    """What text is made for: columns, and whether colours are wanted."""

    width: int = PIPE_WIDTH
    colour: bool = False

    @classmethod
    def of(cls, stream: TextIO) -> Screen:
        """The screen behind a stream; NO_COLOR, TERM=dumb and pipes have no colours."""
        width = shutil.get_terminal_size(fallback=(PIPE_WIDTH, 24)).columns
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        return cls(max(NARROWEST, width), bool(stream.isatty() and not plain))


def inert(value: object) -> str:
    """value as text on one line that does nothing but show: whatever would steer a terminal, hide
    or reorder text (controls, escapes, bidi marks, zero widths, line breaks) is written out."""
    text = value if isinstance(value, str) else str(value)
    if _PLAIN.fullmatch(text):
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in _ACTING else c for c in text)


def _escaped(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON that reads back as it was and is as inert as `inert`; dates and times in ISO 8601."""
    text = json.dumps(value, ensure_ascii=False, default=_plain_value, indent=indent)
    if _PLAIN.fullmatch(text):
        return text
    return "".join(
        json.dumps(c)[1:-1] if c != "\n" and unicodedata.category(c) in _ACTING else c
        for c in text.replace("\x7f", "\\u007f")
    )


def to_canonical_json(value: Any) -> str:
    """JSON of which there is one text for each value: keys sorted, no spaces, ASCII; times as `to_json`,
    null for a number that is none."""
    plain = json.loads(to_json(value), parse_constant=lambda name: None)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _plain_value(value: object) -> object:
    if isinstance(value, datetime):
        return stamp(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def render(parts: RenderableType | Iterable[RenderableType], screen: Screen) -> str:
    """Rich's rendering of the parts, one below the other; no trailing spaces, newline at the end."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=screen.width,
        height=25,
        color_system="standard" if screen.colour else None,
        force_terminal=screen.colour,
        no_color=not screen.colour,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
        _environ={},
    )
    many = [parts] if hasattr(parts, "__rich_console__") or isinstance(parts, str) else parts
    for part in many:  # type: ignore[union-attr]
        # Printing joins texts and forgets that one is not to be folded.
        console.print(part, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def cut(text: str, width: int) -> str:
    """text in at most `width` cells, an ellipsis in place of what does not fit."""
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) > width - 1:
        text = text[:-1]
    return text.rstrip() + "…"


def cut_middle(text: str, width: int) -> str:
    """Like `cut`, but with both ends kept: for names and paths, told apart by their ends."""
    if cell_len(text) <= width or width < 8:
        return cut(text, width)
    head, tail = text[: len(text) // 2], text[len(text) // 2 :]
    while cell_len(head) + cell_len(tail) > width - 1:
        if cell_len(head) > cell_len(tail):
            head = head[:-1]
        else:
            tail = tail[1:]
    return f"{head}…{tail}"


def cut_head(name: str, width: int) -> str:
    """Like `cut`, but what stands behind the last slash is kept: the name of a person or role."""
    tail = name[name.rfind("/") :] if "/" in name else ""
    if cell_len(name) <= width or not tail or cell_len(tail) + 2 > width:
        return cut(name, width)
    if width - cell_len(tail) < 5:
        return "…" + tail
    return cut(name.removesuffix(tail), width - cell_len(tail)) + tail


def styled(text: object, style: str = "") -> Text:
    """Inert text in a style; never markup."""
    return Text(inert(text), style=style)


def count(number: int | None, one: str, many: str | None = None) -> str:
    """'1 event', '1,200 events', '0 events'."""
    number = number or 0
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def number(value: float | None, digits: int = 1) -> str:
    """A number with thousands separated, or nothing."""
    return "" if value is None else f"{value:,.{digits}f}"


def stamp(time: datetime) -> str:
    """2026-02-15T05:43:35Z; fractions only where there are any."""
    time = in_utc(time).replace(tzinfo=None)
    return time.isoformat(timespec="auto") + "Z"


def in_utc(time: datetime) -> datetime:
    """The time in UTC; one without a zone is UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def minute(time: datetime | None) -> str:
    """2026-02-15 05:43, in UTC."""
    return "" if time is None else f"{in_utc(time):%Y-%m-%d %H:%M}"


def lasting(seconds: float) -> str:
    """A length of time in at most two units: 42 s, 5 min 24 s, 3 h 5 min, 2 d 4 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    units = [("d", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    for (unit, size), (next_unit, next_size) in pairwise(units):
        if whole >= size:
            rest = whole % size // next_size
            return f"{whole // size} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{whole} s"


def listed(items: Sequence[str], most: int) -> str:
    """The first `most` items and how many more there are."""
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most:,} more"
