"""Incidents as a table, or as short blocks where the terminal is too narrow for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from raretrail.show.names import place_of, short_principal, where_it_acted
from raretrail.show.reasons import Row, reasons, strangest
from raretrail.show.text import (
    SEVERITY_STYLES,
    Screen,
    count,
    cut,
    cut_middle,
    in_utc,
    inert,
    lasting,
    minute,
    render,
    styled,
)

ID_LENGTH = 8
# Below this a table's cells break into shreds.
_TABLE_FROM = 72


def incidents_table(
    incidents: Sequence[Row],
    findings: Mapping[str, Sequence[Row]],
    screen: Screen,
    *,
    extra: tuple[str, Mapping[str, str]] | None = None,
) -> str:
    """The incidents in the order given: id, score, when, who, from where, what and why.

    findings holds each incident's findings by incident_id. extra is one more column: its title,
    and its text by incident_id.
    """
    if screen.width < _TABLE_FROM:
        return _blocks(incidents, findings, screen, extra)
    # Fixed: score and when. The rest share what is left.
    room = screen.width - 9 - 16 - 2 * 4 - (20 if extra else 0)
    who, place = max(16, room * 29 // 100), max(13, room * 23 // 100)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), header_style="bold")
    table.add_column("score", width=8)
    table.add_column("when (UTC)", width=16)
    table.add_column("who", width=who)
    table.add_column("from where", width=place)
    table.add_column("what and why", ratio=1)
    if extra:
        table.add_column(extra[0], width=18)
    for row in incidents:
        told = findings.get(row["incident_id"], ())
        cells = [_score(row), _when(row), _who(row, who), _place(row, told, place), _why(row, told)]
        if extra:
            cells.append(styled(extra[1].get(row["incident_id"], "")))
        table.add_row(*cells)
    return render(table, screen).rstrip("\n") + "\n"


def top_line(shown: int, first: int, total: int, page_hint: str = "") -> str:
    """Which incidents a table shows: 'incidents 1 to 25 of 340, most unusual first'."""
    if not total:
        return "no incidents"
    if shown == total:
        return f"{count(total, 'incident')}, most unusual first"
    if not shown:
        return f"no incidents on this page; there are {total:,}"
    return f"incidents {first:,} to {first + shown - 1:,} of {total:,}, most unusual first{page_hint}"


def short_id(identifier: str) -> str:
    """The part of an id people type; `show` takes any prefix that names only one."""
    return inert(identifier[:ID_LENGTH])


def length_of(row: Row) -> str:
    """How long an incident lasted: 'at once', '7 min 8 s'."""
    first, last = row.get("first_time"), row.get("last_time")
    if first is None or last is None:
        return ""
    seconds = (in_utc(last) - in_utc(first)).total_seconds()
    return lasting(seconds) if seconds >= 1 else ""


def _severity(row: Row) -> Text:
    severity = row.get("severity") or ""
    return styled(severity, SEVERITY_STYLES.get(severity, ""))


def _score(row: Row) -> Text:
    score = f"{row.get('score') or 0:.1f}"
    return Text.assemble((score, "bold"), "\n", _severity(row), "\n", (short_id(row["incident_id"]), "cyan"))


def _when(row: Row) -> Text:
    lines = [minute(row.get("first_time"))]
    if length_of(row):
        lines.append(f"for {length_of(row)}")
    lines.append(count(row.get("event_count"), "event"))
    return _lines(lines)


def _who(row: Row, width: int) -> Text:
    name = short_principal(row["principal"], row.get("principal_kind"))
    lines = [cut_middle(part, width) for part in _broken(inert(name.short), width)]
    return _lines([*lines, f"in {where_it_acted(row, name.account)}"])


def _broken(name: str, width: int) -> list[str]:
    """A name over two lines, broken behind a slash, where it does not fit on one."""
    if len(name) <= width or "/" not in name:
        return [name]
    at = name.rfind("/", 0, width)
    return [name[: at + 1], name[at + 1 :]] if at > 0 else [name]


def _place(row: Row, findings: Sequence[Row], width: int) -> Text:
    addresses = row.get("source_ip_addresses") or []
    lines = [cut(inert(place_of(row)), width)]
    if addresses:
        more = f" +{len(addresses) - 1}" if len(addresses) > 1 else ""
        lines.append(cut_middle(inert(addresses[0]), width - len(more)) + more)
    network = network_of(row, findings)
    if network:
        lines.append(cut(inert(network), width))
    return _lines(lines)


def network_of(row: Row, findings: Sequence[Row]) -> str:
    """Who runs the network: the name where an ASN database gave one, else the network itself."""
    top = strangest(findings)
    if top is not None and top.get("as_organization"):
        return str(top["as_organization"])
    networks = row.get("networks") or [row.get("network")]
    return str(networks[0] or "")


def what_of(row: Row) -> str:
    """The most surprising command, and how many more."""
    commands = row.get("commands") or [row.get("command") or ""]
    more = f" +{len(commands) - 1}" if len(commands) > 1 else ""
    return inert(commands[0]) + more


def why_of(row: Row, findings: Sequence[Row]) -> str:
    """Reasons in a few words; the stored summary where the findings are not at hand."""
    return inert("; ".join(reasons(findings)) or row.get("summary") or "")


def _why(row: Row, findings: Sequence[Row]) -> Text:
    return Text.assemble((what_of(row), "bold"), "\n", why_of(row, findings))


def _lines(lines: Sequence[str]) -> Text:
    text = Text()
    for number, line in enumerate(lines):
        text.append("\n" if number else "")
        text.append(inert(line), style="dim" if number else "")
    return text


def _blocks(
    incidents: Sequence[Row],
    findings: Mapping[str, Sequence[Row]],
    screen: Screen,
    extra: tuple[str, Mapping[str, str]] | None,
) -> str:
    parts: list[Any] = []
    for row in incidents:
        told = findings.get(row["incident_id"], ())
        name = short_principal(row["principal"], row.get("principal_kind"))
        head = Text.assemble(
            (short_id(row["incident_id"]), "cyan"), f"  {row.get('score') or 0:.1f} ", _severity(row)
        )
        lasted = length_of(row)
        lines = [
            f"{minute(row.get('first_time'))} UTC" + (f" for {lasted}" if lasted else ""),
            f"{name.short} in {where_it_acted(row, name.account)}",
            f"from {place_of(row)}: {', '.join(row.get('source_ip_addresses') or [])}",
            what_of(row),
            why_of(row, told),
        ]
        if extra and extra[1].get(row["incident_id"]):
            lines.append(f"{extra[0]}: {extra[1][row['incident_id']]}")
        parts.append(head)
        for line in lines:
            indented = Table.grid(padding=0)
            indented.add_column(width=2)
            indented.add_column(ratio=1, overflow="fold")
            indented.add_row("", styled(line))
            parts.append(indented)
        parts.append("")
    return render(parts, screen).rstrip("\n") + "\n" if parts else ""
