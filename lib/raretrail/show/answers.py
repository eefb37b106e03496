"""What was looked up beside an incident's score, a line a question."""

from __future__ import annotations

from collections.abc import Sequence

from raretrail.show.reasons import Row, strangest
from raretrail.show.text import count, in_utc, listed, minute


def answers(incident: Row, findings: Sequence[Row]) -> list[tuple[str, str]]:
    """(question in a word or two, answer) for all that something is known of, in the order asked."""
    top = strangest(findings) or {}
    request = strangest([f for f in findings if f.get("request_parameters")]) or {}
    rows = (
        ("credentials", _credentials(incident)),
        ("came through", " ← ".join(top.get("session_chain") or ())),
        ("became", listed(incident.get("became") or [], 3)),
        ("policies", listed(incident.get("policies_seen") or [], 3)),
        ("our own", _own(top)),
        ("request", request.get("request_parameters") or ""),
        ("48 h before", _some(incident.get("earlier_count"), "other finding")),
        ("24 h", _touched(incident)),
        ("made", listed(incident.get("made") or [], 4)),
        ("owner", _owner(incident)),
    )
    return [(label, text) for label, text in rows if text]


def _some(number: int | None, one: str) -> str:
    return count(number, one) if number else ""


def _credentials(incident: Row) -> str:
    """'access key, made 2026-01-26, first seen in use 2026-01-26, no MFA'."""
    told = [*(incident.get("credentials") or ())]
    for name, words in (("key_created_at", "made"), ("key_first_used_at", "first seen in use")):
        if incident.get(name):
            told.append(f"{words} {in_utc(incident[name]):%Y-%m-%d}")
    if incident.get("any_mfa") is not None:
        told.append("MFA" if incident["any_mfa"] else "no MFA")
    return ", ".join(told)


def _own(finding: Row) -> str:
    if not finding.get("own_resource"):
        return ""
    since = f"since {minute(in_utc(finding['own_since']))}" if finding.get("own_since") else ""
    account, profile = f"in {finding['own_account_id']}", finding.get("own_instance_profile")
    return ", ".join(part for part in (finding["own_resource"], account, since, profile) if part)


def _touched(incident: Row) -> str:
    services = incident.get("touched_services") or []
    if not services:
        return ""
    told = [
        listed(services, 8),
        _some(len(incident.get("touched_regions") or ()), "region"),
        _some(incident.get("resource_count"), "resource"),
        _some(incident.get("touched_writes"), "write"),
        f"{incident['bytes_out']:,} bytes out" if incident.get("bytes_out") else "",
    ]
    return "; ".join(part for part in told if part)


def _owner(incident: Row) -> str:
    parts = (
        listed(incident.get("account_owners") or [], 3),
        listed(incident.get("account_names") or [], 3),
        f"criticality {incident['criticality']}" if incident.get("criticality") else "",
        listed(incident.get("regulations") or [], 3),
    )
    return "; ".join(part for part in parts if part)
