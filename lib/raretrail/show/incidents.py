"""Incidents as a table, or as short blocks where the terminal is too narrow for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from raretrail.show.names import place_of, short_principal, where_it_acted
from raretrail.show.reasons import Row, reasons, strangest
from raretrail.show.text import (
    SEVERITY_STYLES,
    Screen,
    count,
    cut,
    cut_head,
    cut_middle,
    in_utc,
    inert,
    lasting,
    minute,
    render,
    styled,
)

ID_LENGTH = 8
_SCORE, _WHEN, _EXTRA = 8, 17, 21
# Below these widths a table's cells break into shreds.
_TABLE_FROM, _TABLE_WITH_EXTRA_FROM = 72, 94

Extra = tuple[str, Mapping[str, str]]


def incidents_table(
    incidents: Sequence[Row],
    findings: Mapping[str, Sequence[Row]],
    screen: Screen,
    *,
    extra: Extra | None = None,
) -> str:
    """The incidents in the order given: score, id, when, who, from where, what and why.

    findings holds each incident's findings by incident_id. extra is one more column: its title,
    and its text by incident_id.
    """
    if screen.width < (_TABLE_WITH_EXTRA_FROM if extra else _TABLE_FROM):
        return _blocks(incidents, findings, screen, extra)
    room = screen.width - _SCORE - _WHEN - 6 - (_EXTRA + 2 if extra else 0)
    who = room * 58 // 100
    widths = [_SCORE, _WHEN, who, room - who, *([_EXTRA] if extra else [])]
    titles = ["score", "when (UTC)", "who", "from where", *([extra[0]] if extra else [])]
    parts: list[RenderableType] = [_grid(widths, [styled(title, "bold") for title in titles]), ""]
    for row in incidents:
        told = findings.get(row["incident_id"], ())
        cells = [_score(row), _when(row), _who(row, widths[2]), _place(row, told, widths[3])]
        if extra:
            cells.append(styled(extra[1].get(row["incident_id"], ""), "green"))
        parts.append(_grid(widths, cells))
        parts.append(_grid([_SCORE, screen.width - _SCORE - 2], [_id(row), _what_and_why(row, told)]))
        parts.append("")
    return render(parts[:-1], screen)


def range_line(shown: int, first: int, total: int) -> str:
    """Which incidents a table shows: 'incidents 1 to 25 of 340, most unusual first'."""
    if not total:
        return "no incidents"
    if not shown:
        return f"no incidents on this page; there are {total:,}"
    if shown == total:
        return f"{count(total, 'incident')}, most unusual first"
    return f"incidents {first:,} to {first + shown - 1:,} of {total:,}, most unusual first"


def short_id(identifier: str) -> str:
    """The part of an id people type; `show` takes any prefix that names only one."""
    return inert(identifier[:ID_LENGTH])


def length_of(row: Row) -> str:
    """How long an incident or finding lasted: '7 min 8 s'; empty for a single moment."""
    first, last = row.get("first_time"), row.get("last_time")
    if first is None or last is None:
        return ""
    seconds = (in_utc(last) - in_utc(first)).total_seconds()
    return lasting(seconds) if seconds >= 1 else ""


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
    more = f" and {len(commands) - 1} more" if len(commands) > 1 else ""
    return inert(commands[0]) + more


def why_of(row: Row, findings: Sequence[Row]) -> str:
    """Reasons in a few words; the stored summary where the findings are not at hand."""
    return inert("; ".join(reasons(findings)) or row.get("summary") or "")


def severity_of(row: Row) -> Text:
    """The severity in its colour."""
    severity = row.get("severity") or ""
    return styled(severity, SEVERITY_STYLES.get(severity, ""))


def _grid(widths: Sequence[int], cells: Sequence[Text]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for width in widths:
        grid.add_column(width=width, overflow="fold")
    grid.add_row(*cells)
    return grid


def _score(row: Row) -> Text:
    return Text.assemble((f"{row.get('score') or 0:.1f}", "bold"), "\n", severity_of(row))


def _id(row: Row) -> Text:
    return styled(short_id(row["incident_id"]), "cyan")


def _when(row: Row) -> Text:
    lasted = length_of(row)
    events = count(row.get("event_count"), "event") + (f", {_coarse(lasted)}" if lasted else "")
    return Text.assemble(minute(row.get("first_time")), "\n", (cut(events, _WHEN), "dim"))


def _coarse(lasted: str) -> str:
    """The first unit only."""
    return " ".join(lasted.split()[:2])


def _who(row: Row, width: int) -> Text:
    name = short_principal(row["principal"], row.get("principal_kind"))
    account = cut(f"in {inert(where_it_acted(row, name.account))}", width)
    return Text.assemble(cut_head(inert(name.short), width), "\n", (account, "dim"))


def _place(row: Row, findings: Sequence[Row], width: int) -> Text:
    text = Text(cut(inert(place_of(row)), width))
    addresses = row.get("source_ip_addresses") or []
    if addresses:
        more = f" +{len(addresses) - 1}" if len(addresses) > 1 else ""
        address = cut_middle(inert(addresses[0]), width - len(more)) + more
        network = inert(network_of(row, findings))
        room = width - len(address) - 2
        if network and room >= 8:
            address += f", {cut(network, room)}"
        text.append("\n").append(address, style="dim")
    return text


def _what_and_why(row: Row, findings: Sequence[Row]) -> Text:
    return Text.assemble((what_of(row), "bold"), ": ", why_of(row, findings), (state_of(row), "dim"))


def state_of(row: Row) -> str:
    """' [closed, benign]' where somebody has said something of the incident, else nothing."""
    state = row.get("state") if row.get("state") != "open" else None
    parts = [part for part in (state, row.get("verdict"), row.get("assignee")) if part]
    return f" [{inert(', '.join(parts))}]" if parts else ""


def _blocks(
    incidents: Sequence[Row],
    findings: Mapping[str, Sequence[Row]],
    screen: Screen,
    extra: Extra | None,
) -> str:
    parts: list[RenderableType] = []
    for row in incidents:
        told = findings.get(row["incident_id"], ())
        name = short_principal(row["principal"], row.get("principal_kind"))
        lasted = length_of(row)
        lines = [
            f"{minute(row.get('first_time'))} UTC, {count(row.get('event_count'), 'event')}"
            + (f", {lasted}" if lasted else ""),
            f"{name.short} in {where_it_acted(row, name.account)}",
            f"from {place_of(row)} ({', '.join(row.get('source_ip_addresses') or [])})",
            what_of(row),
            why_of(row, told) + state_of(row),
        ]
        if extra and extra[1].get(row["incident_id"]):
            lines.append(f"{extra[0]}: {extra[1][row['incident_id']]}")
        score = f"  {row.get('score') or 0:.1f} "
        parts.append(Text.assemble(_id(row), (score, "bold"), severity_of(row)))
        for line in lines:
            indented = Table.grid(padding=0)
            indented.add_column(width=2)
            indented.add_column(overflow="fold")
            indented.add_row("", styled(line))
            parts.append(indented)
        parts.append("")
    return render(parts[:-1], screen) if parts else ""
