"""What people wrote into dispositions and change windows: what of it can be used, as rules.

Rows come from the command line or from anybody's SQL.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from raretrail.geo.addresses import range_of
from raretrail.tables import STATES, VERDICTS

Row = Mapping[str, Any]

# What a disposition or window may be limited to, beside addresses: columns of a finding.
NAMED = ("incident_id", "anomaly_id")
EQUAL = ("detector", "principal", "command", "place", "network", "recipient_account_id")
SCOPE = (*NAMED, *EQUAL, "source_ip_address")
# Clocks differ between machines; what is further ahead would outlast every later word.
_AHEAD = timedelta(hours=1)


@dataclass(frozen=True)
class Rule:
    """One usable disposition or window, without what is withdrawn or overtaken."""

    rule_id: str
    author: str
    created_at: datetime
    incident_id: str | None = None
    anomaly_id: str | None = None
    detector: str | None = None
    principal: str | None = None
    command: str | None = None
    place: str | None = None
    network: str | None = None
    recipient_account_id: str | None = None
    address_first: str | None = None
    address_last: str | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    verdict: str | None = None
    suppress: bool = False
    state: str | None = None
    assignee: str | None = None


def to_rules(
    dispositions: Sequence[Row],
    windows: Sequence[Row],
    now: datetime,
    detectors: Collection[str] | None = None,
) -> tuple[list[Rule], list[str]]:
    """The rules that rows of `dispositions` and `change_windows` make as of now, oldest first, and a
    sentence for each row that cannot be used. detectors, where given, are those there are."""
    rules: list[Rule] = []
    problems: list[str] = []
    for table, key, rows in (
        ("dispositions", "disposition_id", dispositions),
        ("change_windows", "window_id", windows),
    ):
        tidy = [_tidy(row) for row in rows]
        times = Counter(row.get(key) for row in tidy)
        usable = []
        for row in tidy:
            wrong = problem_of(row, key, now, detectors)
            if not wrong and times[row[key]] > 1:
                wrong = "its id is used more than once"
            if not wrong and row.get("withdraws") and row["withdraws"] not in times:
                wrong = f"withdraws {row['withdraws']!r}, which is not there"
            if wrong:
                problems.append(f"{table} {row.get(key)!r}: {wrong}")
            else:
                usable.append(row)
        withdrawn = {row["withdraws"] for row in usable if row.get("withdraws")}
        rules += [_rule(row, key) for row in usable if row[key] not in withdrawn and not row.get("withdraws")]
    return _latest_verdicts(sorted(rules, key=lambda rule: (rule.created_at, rule.rule_id))), problems


def problem_of(row: Row, key: str, now: datetime, detectors: Collection[str] | None = None) -> str | None:
    """Why a row (of the table whose key is `key`) cannot be used; None if it can."""
    row = _tidy(row)
    scoped = [name for name in SCOPE if row.get(name)]
    created, address = row.get("created_at"), row.get("source_ip_address")
    for name in (key, "author"):
        if not row.get(name):
            return f"has no {name}"
    if created is None:
        return "has no created_at"
    if created > now + _AHEAD:
        return f"created_at lies in the future ({created:%Y-%m-%d %H:%M} UTC)"
    if row.get("withdraws"):
        return None
    if address is not None:
        try:
            range_of(address)
        except ValueError:
            return f"source_ip_address {address!r} is no address and no block in CIDR notation"
    if detectors is not None and row.get("detector") and row["detector"] not in detectors:
        return f"there is no detector {row['detector']!r}"
    if key == "window_id":
        return _window_problem(row, scoped)
    return _disposition_problem(row, scoped)


def _window_problem(row: Row, scoped: Sequence[str]) -> str | None:
    if not row.get("reason"):
        return "has no reason"
    if not scoped:
        return "covers everything: name a principal, command, place, address, network, account or detector"
    if row.get("starts_at") is None or row.get("ends_at") is None or row["ends_at"] <= row["starts_at"]:
        return "needs starts_at, and ends_at after it"
    return None


def _disposition_problem(row: Row, scoped: Sequence[str]) -> str | None:
    verdict, state, expires = row.get("verdict"), row.get("state"), row.get("expires_at")
    if verdict and verdict not in VERDICTS:
        return f"verdict {verdict!r} is none of {', '.join(VERDICTS)}"
    if state and state not in STATES:
        return f"state {state!r} is none of {', '.join(STATES)}"
    if not (verdict or state or row.get("assignee") or row.get("suppress")):
        return "says nothing: it has no verdict, suppress, state, assignee or withdraws"
    if not scoped:
        return "covers everything: name an incident, principal, command, place, address, network, ..."
    if (state or row.get("assignee")) and not row.get("incident_id"):
        return "state and assignee are of an incident: it needs an incident_id"
    if row.get("suppress") and not row.get("reason"):
        return "suppresses without a reason"
    if row.get("suppress") and verdict == "malicious":
        return "suppresses what it calls malicious"
    if expires is not None and expires <= row["created_at"]:
        return "expires before it was created"
    return None


def _tidy(row: Row) -> dict[str, Any]:
    """The row with blanks as None and times in UTC."""
    tidy = dict(row)
    for name, value in row.items():
        if isinstance(value, str):
            tidy[name] = value.strip() or None
        elif isinstance(value, datetime):
            tidy[name] = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return tidy


def _rule(row: Row, key: str) -> Rule:
    address = row.get("source_ip_address")
    first, last = range_of(address) if address else (None, None)
    scope: dict[str, Any] = {name: row.get(name) for name in (*NAMED, *EQUAL)}
    rule = Rule(
        row[key], row["author"], row["created_at"], **scope, address_first=first, address_last=last
    )  # fmt: skip
    if key == "window_id":
        return replace(rule, suppress=True, starts_at=row["starts_at"], ends_at=row["ends_at"])
    verdict = row.get("verdict")
    state = row.get("state")
    if verdict and row.get("incident_id") and not state:
        # Somebody who says malicious is at work on it; any other verdict is the end of it.
        state = "acknowledged" if verdict == "malicious" else "closed"
    return replace(
        rule,
        ends_at=row.get("expires_at"),
        verdict=verdict,
        suppress=bool(row.get("suppress")),
        state=state,
        assignee=row.get("assignee"),
    )


def _latest_verdicts(rules: list[Rule]) -> list[Rule]:
    """The rules, each verdict but the latest on the same scope taken out."""

    def scope(rule: Rule) -> tuple[str | None, ...]:
        named = tuple(getattr(rule, name) for name in (*NAMED, *EQUAL))
        return (*named, rule.address_first, rule.address_last)

    latest = {scope(rule): rule.rule_id for rule in rules if rule.verdict}
    return [
        replace(rule, verdict=None) if rule.verdict and latest[scope(rule)] != rule.rule_id else rule
        for rule in rules
    ]


def named_since(dispositions: Sequence[Row], since: datetime) -> set[str]:
    """The incidents that rows of `dispositions` created from `since` on name, or take a word back on."""
    rows = [_tidy(row) for row in dispositions]
    by_id = {row.get("disposition_id"): row for row in rows}
    fresh = [row for row in rows if row.get("created_at") is None or row["created_at"] >= since]
    meant = [*fresh, *(by_id[row["withdraws"]] for row in fresh if row.get("withdraws") in by_id)]
    return {row["incident_id"] for row in meant if row.get("incident_id")}
