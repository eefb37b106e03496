"""One incident on one screen: what, who, where, the terms of its score, its findings and events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from raretrail.show.answers import answers
from raretrail.show.names import place_of, short_principal, where_it_acted
from raretrail.show.reasons import Row, reasons, strangest
from raretrail.show.text import (
    SEVERITY_STYLES,
    Screen,
    cut,
    in_utc,
    inert,
    lasting,
    listed,
    minute,
    number,
    render,
    styled,
)

_LATE = 120
_FINDINGS = 12
_REVISIONS = 50
_EVENTS = 15
_BAR = 20
_STEPS = 8
_LONGEST = 300
# Terms, the counts behind them, and what the counts say.
_TERMS = (
    ("place", "place_bits", "{principal_place_days} of its {principal_active_days} active days here; {place_principals} others known here"),
    ("network", "network_bits", "{principal_network_days} days on this network; {network_principals} others on it"),
    ("tool", "agent_bits", "{principal_agent_days} days with {agent_family}; {agent_principals} others with it"),
    ("command", "command_bits", "{principal_command_days} days with {command}; {command_principals} others with it"),
    ("error", "error_bits", "{principal_error_days} days with {error_code}; {error_principals} others with it"),
    ("spike", "spike_bits", "{spike_count} kinds of error in 15 minutes; {spike_expected:.1f} usual"),
    ("place given command", "place_given_command_bits", "{command_place_days} of the command's {command_days} days from here"),
    ("command given place", "command_given_place_bits", "{command_place_days} of the place's {place_days} days with it"),
)  # fmt: skip


def incident_page(
    incident: Row,
    findings: Sequence[Row],
    events: Sequence[Row],
    screen: Screen,
    said: Sequence[Row] = (),
    revised: Sequence[Row] = (),
    late_minutes: int = 0,
) -> str:
    """The page of an incident; findings most surprising first, events, what was said of it and what became
    of its findings in order of time. late_minutes is how late its slowest event was taken in, 0 where that
    says nothing."""
    return render(list(_parts(incident, findings, events, screen, said, revised, late_minutes)), screen)


def revisions_of(rows: Sequence[Row]) -> list[Row]:
    """Rows of `revisions`, each once, in order of time."""
    once = {(row["anomaly_id"], row["score_revision"], row["revised_at"]): row for row in rows}
    return sorted(once.values(), key=lambda row: (row["revised_at"], row["bucket_start"], row["anomaly_id"]))


def _parts(
    incident: Row,
    findings: Sequence[Row],
    events: Sequence[Row],
    screen: Screen,
    said: Sequence[Row],
    revised: Sequence[Row],
    late_minutes: int,
) -> Iterator[RenderableType]:
    severity = incident["severity"]
    head = Text(f"Incident {inert(incident['incident_id'])}  ")
    head.append(f"{severity} {number(incident['score'])}", style=SEVERITY_STYLES.get(severity, ""))
    head.append(f" ({number(incident['bits'])} bits)")
    yield head
    yield styled("; ".join(reasons(findings)) or incident["summary"] or "", "bold")
    yield ""
    yield _facts(incident, findings, late_minutes)
    yield ""
    if said:
        yield styled(f"Said of it ({len(said)}), in force with the next run", "bold")
        yield _said(said)
        yield ""
    if revised:
        yield styled(f"Revised ({len(revised)})", "bold")
        yield _revisions(revised[-_REVISIONS:])
        yield ""
    top = strangest(findings)
    if top is not None:
        yield styled("Why: bits of surprise, most of each kind", "bold")
        yield _terms(findings)
        yield styled(
            f"judged by the {top['baseline_days']} days before {top['as_of']}; "
            f"maturity {number(top['maturity'])}; settings {top['settings_hash']}",
            "dim",
        )
        yield ""
    told = answers(incident, findings)
    if told:
        yield styled("Looked up", "bold")
        yield _answers(told)
        yield ""
    if incident.get("response_steps"):
        yield styled("To stop it: text to check and run by hand", "bold")
        for step in incident["response_steps"][:_STEPS]:
            # Never folded: what is copied must be what runs.
            text = styled(inert(step), "dim" if step.startswith("#") else "")
            text.no_wrap = True
            yield text
        if len(incident["response_steps"]) > _STEPS:
            yield styled(f"and {len(incident['response_steps']) - _STEPS} more; --format json has all", "dim")
        yield ""
    yield styled(f"Findings ({len(findings)})", "bold")
    yield _findings(findings[:_FINDINGS])
    if len(findings) > _FINDINGS:
        yield styled(f"and {len(findings) - _FINDINGS} more; --format json has all", "dim")
    yield ""
    yield styled(f"Events ({incident['event_count']})", "bold")
    yield _events(events[:_EVENTS], screen)
    if (incident["event_count"] or 0) > min(len(events), _EVENTS):
        yield styled(f"first {min(len(events), _EVENTS)} shown; --format json has up to 1,000", "dim")


def _facts(incident: Row, findings: Sequence[Row], late_minutes: int) -> Table:
    name = short_principal(incident["principal"], incident.get("principal_kind"))
    first, last = in_utc(incident["first_time"]), in_utc(incident["last_time"])
    keys = sorted({f["access_key_id"] for f in findings if f.get("access_key_id")})
    agents = sorted({f["user_agent"] for f in findings if f.get("user_agent")})
    top = strangest(findings, "where_bits") or {}
    where = place_of(incident)
    if top.get("nearest_place_km") is not None:
        where += f", {top['nearest_place_km']:,.0f} km from {top['nearest_place']}"
    if (top.get("known_places") or 0) > 1:
        where += (
            f", nearest of their {top['known_places']} cities in {listed(top['known_countries'] or [], 3)}"
        )
    networks = sorted({_network(f) for f in findings if f.get("network")})
    rows = (
        ("who", f"{name.short}  {incident['principal']}"),
        ("account", where_it_acted(incident, name.account)),
        ("when", f"{minute(first)} to {minute(last)} UTC ({lasting((last - first).total_seconds())})"),
        ("where", where),
        ("address", listed(incident["source_ip_addresses"] or [], 4)),
        ("network", listed(networks, 3)),
        ("key", listed(keys, 3)),
        ("tool", listed(agents, 2)),
        ("found by", listed(incident["detectors"] or [], 6)),
        ("state", _state(incident)),
        ("late", _late(late_minutes)),
        ("formerly", listed([id[:8] for id in incident.get("supersedes") or []], 4)),
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        if text:
            table.add_row(styled(label, "dim"), styled(inert(text)))
    return table


def _late(minutes: int) -> str:
    return f"taken in up to {lasting(minutes * 60)} after it happened" if minutes >= _LATE else ""


def _revisions(revised: Sequence[Row]) -> Table:
    """When, which finding, its bits and score before and since, why; findings of several detectors that
    changed alike in one line."""
    table = Table.grid(padding=(0, 2))
    for no_wrap in (True, False, False):
        table.add_column(overflow="fold", no_wrap=no_wrap)
    alike: dict[tuple[str, str, str], list[str]] = {}
    for row in revised:
        was = f"{number(row['was_bits'])} bits, score {number(row['was_score'])}"
        if row["withdrawn"]:
            told = f"{was}; no longer stands"
        else:
            told = f"{was} to {number(row['bits'])} bits, score {number(row['score'])}"
        told += f" ({row['reason'].replace('_', ' ')})"
        if row["changed"]:
            told += ": " + ", ".join(row["changed"])
        found = f"{row['command']} at {minute(in_utc(row['bucket_start']))}"
        alike.setdefault((minute(in_utc(row["revised_at"])), found, told), []).append(row["detector"])
    for (when, found, told), detectors in alike.items():
        named = f"{found}, {listed(sorted(detectors), 3)}"
        table.add_row(when, styled(inert(named)), styled(inert(told)))
    return table


def _answers(told: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in told:
        table.add_row(styled(label, "dim"), styled(cut(inert(text), _LONGEST)))
    return table


def _state(incident: Row) -> str:
    """'closed: benign by ana, assigned to bo; suppressed by 3f2a1b2c'."""
    text = str(incident.get("state") or "open")
    if incident.get("verdict"):
        text += f": {incident['verdict']} by {incident['verdict_by']}"
    if incident.get("assignee"):
        text += f", assigned to {incident['assignee']}"
    if incident.get("suppressed_by"):
        text += f"; suppressed by {incident['suppressed_by'][:8]}"
    return text


def _said(said: Sequence[Row]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    for row in said[-_FINDINGS:]:
        what = [row["verdict"], row["state"], row["assignee"] and f"assigned to {row['assignee']}"]
        told = ", ".join(part for part in what if part) or ("withdrawn" if row["withdraws"] else "")
        why = " ".join(part for part in (row["reason"], row["ticket"] and f"({row['ticket']})") if part)
        table.add_row(
            minute(in_utc(row["created_at"])), *(styled(inert(t or "")) for t in (row["author"], told, why))
        )
    return table


def _network(finding: Row) -> str:
    organization = finding.get("as_organization")
    return f"{finding['network']} {organization}" if organization else str(finding["network"])


def _terms(findings: Sequence[Row]) -> Table:
    table = Table.grid(padding=(0, 2))
    for label, column, counts in _TERMS:
        row = strangest(findings, column)
        bits = (row or {}).get(column) or 0.0
        if row is None or bits <= 0:
            continue
        bar = "█" * max(1, round(min(bits, 12) / 12 * _BAR))
        told = counts.format_map(_Counts(row))
        table.add_row(
            styled(label), Text(number(bits), justify="right"), styled(bar, "cyan"), styled(inert(told))
        )
    return table


class _Counts(dict[str, Any]):
    """The row's values for a sentence; what is missing counts as none."""

    def __missing__(self, key: str) -> Any:
        return 0


def _findings(findings: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("bits", "when", "detector", "command", "events", "error"):
        table.add_column(title, justify="right" if title in ("bits", "events") else "left", overflow="fold")
    for row in findings:
        table.add_row(
            number(row["bits"]),
            minute(in_utc(row["bucket_start"])),
            styled(inert(row["detector"])),
            styled(inert(row["command"])),
            str(row["event_count"]),
            styled(inert(row["error_code"] or "")),
        )
    return table


def _events(events: Sequence[Row], screen: Screen) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("time", "command", "outcome", "request"):
        table.add_column(
            title, overflow="fold" if title != "request" else "ellipsis", no_wrap=title == "time"
        )
    room = max(20, screen.width - 70)
    for row in events:
        table.add_row(
            f"{in_utc(row['event_time']):%m-%d %H:%M:%S}",
            styled(inert(row["command"])),
            styled(inert(row["error_code"] or "ok")),
            styled(cut(inert(row["request_parameters"] or ""), room)),
        )
    return table
