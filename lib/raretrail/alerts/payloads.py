"""What is posted of an alert: raretrail's own JSON, a message for Slack, its findings as ECS or OCSF.

Rows are those of `Look`, whichever engine read them. What a name in a log holds stays text in each.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

from raretrail.export import export_lines
from raretrail.look import Condition, Look, Row, open_rows
from raretrail.settings import Detector
from raretrail.show.names import place_of, short_principal, where_it_acted
from raretrail.show.reasons import reasons
from raretrail.show.text import count, inert, listed, minute, number, to_canonical_json
from raretrail.tables import ANOMALIES, EVENTS, INCIDENTS

Format = Literal["incident", "slack", "ecs", "ocsf"]

VERSION = 1
# Of an incident with more, the most surprising ones.
FINDINGS_AT_MOST = 100
_OF_FINDING = (
    "anomaly_id", "detector", "first_time", "last_time", "recipient_account_id", "principal", "command",
    "error_code", "source_ip_address", "place_name", "event_count", "score", "bits", "summary",
)  # fmt: skip
# What Slack takes: characters of a section's text, of one of its fields, of a header; fields of a section.
SLACK_TEXT, SLACK_FIELD, SLACK_HEADER, SLACK_FIELDS = 3000, 2000, 150, 10
_SLACK_FINDINGS = 10
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def gather(look: Look, incidents: Sequence[Row]) -> tuple[dict[str, list[Row]], list[Row]]:
    """What payloads are made of: the findings of each incident by its id, most surprising first, and the
    first event of each finding. One read of `anomalies` and one of `events`, of the days concerned."""
    days = [row["first_date"] for row in incidents]
    ids = [row["incident_id"] for row in incidents]
    rows = look.rows(
        ANOMALIES,
        Condition("bucket_date", ">=", min(days)),
        Condition("incident_id", "in", ids),
        order=(("bits", "desc"), ("anomaly_id", "asc")),
    )
    findings: dict[str, list[Row]] = {name: [] for name in ids}
    for row in rows:
        if len(findings[row["incident_id"]]) < FINDINGS_AT_MOST:
            findings[row["incident_id"]].append(row)
    kept = [row for some in findings.values() for row in some]
    first = sorted({row["evidence_event_ids"][0] for row in kept if row["evidence_event_ids"]})
    if not first:
        return findings, []
    dates = [row["first_time"].date() for row in kept]
    return findings, look.rows(
        EVENTS,
        Condition("event_date", ">=", min(dates)),
        Condition("event_date", "<=", max(dates)),
        Condition("event_id", "in", first),
    )


def to_payloads(
    format: Format,
    incidents: Sequence[Row],
    findings: Mapping[str, Sequence[Row]],
    events: Sequence[Row],
    detectors: Sequence[Detector],
) -> dict[str, str]:
    """The canonical JSON to post of each incident, by its id; the rest is what `gather` gives."""
    made: dict[str, Any] = {}
    if format in ("ecs", "ocsf"):
        made = _as_documents(format, incidents, findings, events, detectors)
    for row in incidents:
        identity = row["incident_id"]
        if format == "incident":
            made[identity] = incident_object(row, findings[identity])
        elif format == "slack":
            made[identity] = slack_message(row, findings[identity])
    return {identity: to_canonical_json(value) for identity, value in made.items()}


def incident_object(incident: Row, findings: Sequence[Row]) -> dict[str, Any]:
    """The columns of the incident, and of its findings what tells them apart and their sentences."""
    return {
        "version": VERSION,
        "incident": {name: incident.get(name) for name in INCIDENTS.column_names},
        "findings": [{name: row.get(name) for name in _OF_FINDING} for row in findings],
    }


def _as_documents(
    format: Literal["ecs", "ocsf"],
    incidents: Sequence[Row],
    findings: Mapping[str, Sequence[Row]],
    events: Sequence[Row],
    detectors: Sequence[Detector],
) -> dict[str, list[dict[str, Any]]]:
    """Of each incident a list of its findings, each as `raretrail export` writes it."""
    made: dict[str, list[dict[str, Any]]] = {row["incident_id"]: [] for row in incidents}
    all_findings = [row for some in findings.values() for row in some]
    with open_rows({INCIDENTS: incidents, ANOMALIES: all_findings, EVENTS: events}, detectors) as look:
        for line in export_lines(look, format):
            document = json.loads(line)
            own = document["raretrail"]["incident_id"] if format == "ecs" else None
            made[own or document["metadata"]["correlation_uid"]].append(document)
    return made


# ------------------------------------------------------------------------------------------- Slack


def slack_message(incident: Row, findings: Sequence[Row]) -> dict[str, Any]:
    """A message for an incoming webhook of Slack: a header, why, who and where, the findings' sentences.

    `verbatim` keeps Slack from making links and mentions of names.
    """
    name = short_principal(incident["principal"] or "unknown", incident.get("principal_kind"))
    place = place_of(incident)
    title = f"{incident['severity']} {number(incident['score'], 0)}: {name.short} from {place}"
    why = "; ".join(reasons(findings)) or incident["summary"] or title
    fields = (
        ("Who", incident["principal"]),
        ("Accounts", where_it_acted(incident, name.account) if incident["recipient_account_ids"] else None),
        ("When (UTC)", f"{minute(incident['first_time'])} to {minute(incident['last_time'])}"),
        ("Addresses", listed(incident["source_ip_addresses"] or [], 4)),
        ("Commands", listed(incident["commands"] or [], 5)),
        ("Found", f"{count(incident['findings'], 'finding')} in {count(incident['event_count'], 'event')}"),
    )
    sentences = list(dict.fromkeys(row["summary"] for row in findings if row["summary"]))
    room = SLACK_TEXT // _SLACK_FINDINGS - len("• \n")
    told = "\n".join(f"• {_inert(text, room)}" for text in sentences[:_SLACK_FINDINGS])
    header = {"type": "plain_text", "text": _inert(title, SLACK_HEADER), "emoji": False}
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": header},
        {"type": "section", "text": _mrkdwn(_inert(why, SLACK_TEXT))},
        {
            "type": "section",
            "fields": [
                _mrkdwn(f"*{label}*\n{_inert(text, SLACK_FIELD - 20)}") for label, text in fields if text
            ][:SLACK_FIELDS],
        },
    ]
    if told:
        blocks.append({"type": "section", "text": _mrkdwn(told)})
    again = f", alerted again ({incident['alert_revision']})" if incident.get("alert_revision") else ""
    identity = incident["incident_id"]
    shown = f"raretrail show {identity[:8]}; incident {identity}{again}"
    blocks.append({"type": "context", "elements": [_mrkdwn(_inert(shown, SLACK_FIELD))]})
    return {"text": _inert(f"{title}: {why}", SLACK_TEXT), "blocks": blocks}


def _mrkdwn(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _inert(text: object, most: int) -> str:
    """text as Slack shows it and does nothing with it, in at most `most` of its characters (UTF-16); no
    entity is cut in two."""
    pieces = [_ENTITIES.get(char, char) for char in inert(text)]
    ends = list(accumulate(len(piece.encode("utf-16-le")) // 2 for piece in pieces))
    if not ends or ends[-1] <= most:
        return "".join(pieces)
    return "".join(pieces[: bisect_right(ends, most - 1)]) + "…"
