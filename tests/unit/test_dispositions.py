"""Dispositions and windows: what is refused, which findings they cover, what incidents become."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession

from raretrail.detect.dispositions import to_incident_states, with_suppressed_by
from raretrail.detect.rules import Rule, named_since, to_rules
from raretrail.geo.locate import address_of

NOW = datetime(2026, 2, 20, 12, tzinfo=UTC)
AT = datetime(2026, 2, 20, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)


def said(identifier: str, **more: Any) -> dict[str, Any]:
    row = {"disposition_id": identifier, "author": "ana", "created_at": NOW - HOUR, "reason": "known"}
    return row | more


def window(identifier: str, **more: Any) -> dict[str, Any]:
    row = {"window_id": identifier, "author": "ana", "created_at": NOW - HOUR, "reason": "move"}
    return row | {"starts_at": AT - HOUR, "ends_at": AT + HOUR} | more


def rules_of(*dispositions: dict[str, Any], windows: Sequence[dict[str, Any]] = ()) -> list[Rule]:
    rules, problems = to_rules(dispositions, windows, NOW)
    assert problems == []
    return rules


# ------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (said("", principal="p", verdict="benign"), "has no disposition_id"),
        (said("d", principal="p", verdict="benign", author=" "), "has no author"),
        (said("d", principal="p", verdict="benign", created_at=None), "has no created_at"),
        (said("d", principal="p", verdict="benign", created_at=NOW + 2 * HOUR), "lies in the future"),
        (said("d", principal="p", verdict="innocent"), "verdict 'innocent' is none of malicious, benign"),
        (said("d", incident_id="i", state="done"), "state 'done' is none of open"),
        (said("d", principal="p"), "says nothing"),
        (said("d", suppress=True), "covers everything"),
        (said("d", verdict="malicious"), "covers everything"),
        (said("d", principal="p", assignee="bo"), "needs an incident_id"),
        (said("d", principal="p", suppress=True, reason=""), "suppresses without a reason"),
        (said("d", principal="p", suppress=True, verdict="malicious"), "suppresses what it calls malicious"),
        (said("d", principal="p", suppress=True, expires_at=NOW - 2 * HOUR), "expires before it was created"),
        (said("d", source_ip_address="10.0.0.0/40", suppress=True), "is no address and no block"),
        (said("d", detector="city", suppress=True), "there is no detector 'city'"),
        (said("d", withdraws="e"), "withdraws 'e', which is not there"),
    ],
)
def test_a_disposition_that_cannot_be_used_is_reported_and_makes_no_rule(
    row: dict[str, Any], why: str
) -> None:
    rules, problems = to_rules([row], [], NOW, detectors={"unusual_city_for_command"})
    assert rules == []
    (problem,) = problems
    assert why in problem
    assert problem.startswith("dispositions ")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (window("w"), "covers everything"),
        (window("w", principal="p", ends_at=AT - HOUR), "needs starts_at, and ends_at after it"),
        (window("w", principal="p", reason=None), "has no reason"),
    ],
)
def test_a_window_that_cannot_be_used_is_reported(row: dict[str, Any], why: str) -> None:
    rules, problems = to_rules([], [row], NOW)
    assert rules == []
    assert why in problems[0]


def test_an_id_used_twice_counts_for_none() -> None:
    rules, problems = to_rules([said("d", principal="p", suppress=True)] * 2, [], NOW)
    assert (rules, len(problems)) == ([], 2)


def test_what_is_withdrawn_is_no_rule() -> None:
    kept = rules_of(
        said("a", principal="p", suppress=True),
        said("b", principal="q", suppress=True),
        said("c", withdraws="a"),
        windows=[window("w", principal="p"), {**window("x"), "withdraws": "w", "starts_at": None}],
    )
    assert [rule.rule_id for rule in kept] == ["b"]


def test_of_verdicts_on_one_scope_the_latest_counts() -> None:
    rules = rules_of(
        said("new", incident_id="i", verdict="benign"),
        said("old", incident_id="i", verdict="malicious", created_at=NOW - 2 * HOUR),
        said("other", incident_id="j", verdict="malicious", created_at=NOW - 3 * HOUR),
    )
    assert [(r.rule_id, r.verdict) for r in rules] == [
        ("other", "malicious"),
        ("old", None),
        ("new", "benign"),
    ]


def test_what_was_said_since_names_its_incidents_and_those_it_takes_a_word_back_on() -> None:
    rows = [
        said("old", incident_id="i", verdict="benign", created_at=NOW - 5 * HOUR),
        said("older", incident_id="j", verdict="benign", created_at=NOW - 6 * HOUR),
        said("new", incident_id="k", state="closed"),
        said("wide", principal="p", suppress=True),
        said("back", withdraws="old"),
    ]
    assert named_since(rows, NOW - 2 * HOUR) == {"i", "k"}


# ------------------------------------------------------------------------------- what findings become

_FINDING = (
    "anomaly_id string, incident_id string, detector string, principal string, command string, place string,"
    "source_ip_address string, address_key string, network string, recipient_account_id string,"
    "first_time timestamp, last_time timestamp, bits double, first_scored_at timestamp,"
    "former_incident_ids array<string>"
)


def finding(identifier: str, incident: str = "i", **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "anomaly_id": identifier, "incident_id": incident, "detector": "d1", "principal": "p",
        "command": "iam:GetUser", "place": "city:1", "source_ip_address": "203.0.113.7",
        "network": "AS64500", "recipient_account_id": "1", "first_time": AT,
        "last_time": AT + timedelta(minutes=5), "bits": 10.0, "first_scored_at": AT + HOUR,
    }  # fmt: skip
    row |= more
    return row | {"address_key": address_of(row["source_ip_address"])[0]}


@pytest.mark.integration
def test_each_part_of_a_scope_limits_what_is_suppressed(spark: SparkSession) -> None:
    """One finding each that differs in one respect, and a rule for each respect."""
    odd = {
        "detector": "d2", "principal": "q", "command": "iam:CreateUser", "place": "city:2",
        "network": "AS64501", "recipient_account_id": "2",
    }  # fmt: skip
    findings = [finding("plain", "i0"), finding("v6", "i6", source_ip_address="2001:db8::7")]
    findings += [finding(name, f"i-{name}", **{name: value}) for name, value in odd.items()]
    findings += [finding("aws", "i7", source_ip_address="AWS Internal")]
    rows = [said(f"by-{name}", suppress=True, **{name: value}) for name, value in odd.items()]
    rows += [
        said("by-v6", suppress=True, source_ip_address="2001:db8::/64"),
        said("elsewhere", suppress=True, source_ip_address="198.51.100.0/24"),
        said("both", suppress=True, principal="p", command="iam:CreateRole"),
        said("no-suppression", principal="p", verdict="benign"),
    ]
    frame = spark.createDataFrame(findings, _FINDING)
    marked = with_suppressed_by(frame, rules_of(*rows))
    assert marked.columns == [*frame.columns, "suppressed_by"]
    found = {row.anomaly_id: row.suppressed_by for row in marked.collect()}
    expected: dict[str, str | None] = {name: f"by-{name}" for name in (*odd, "v6")}
    assert found == expected | {"plain": None, "aws": None}


@pytest.mark.integration
def test_a_rule_covers_findings_whose_events_lie_within_its_time(spark: SparkSession) -> None:
    findings = spark.createDataFrame(
        [
            finding("within"),
            finding("runs-over", last_time=AT + 2 * HOUR),
            finding("began-before", first_time=AT - 2 * HOUR),
            finding("other", principal="q"),
            finding("other-late", principal="q", first_time=AT + 3 * HOUR, last_time=AT + 3 * HOUR),
        ],
        _FINDING,
    )
    rules = rules_of(
        said("until", principal="q", suppress=True, created_at=AT - 5 * HOUR, expires_at=AT + HOUR),
        windows=[window("w", principal="p", created_at=NOW)],
    )
    found = {row.anomaly_id: row.suppressed_by for row in with_suppressed_by(findings, rules).collect()}
    assert found == {
        "within": "w", "runs-over": None, "began-before": None, "other": "until", "other-late": None,
    }  # fmt: skip


@pytest.mark.integration
def test_what_is_called_malicious_is_never_suppressed(spark: SparkSession) -> None:
    findings = spark.createDataFrame([finding("a", "a"), finding("b", "b")], _FINDING)
    rules = rules_of(
        said("wide", principal="p", suppress=True), said("bad", incident_id="a", verdict="malicious")
    )
    found = {row.anomaly_id: row.suppressed_by for row in with_suppressed_by(findings, rules).collect()}
    assert found == {"a": None, "b": "wide"}


# ------------------------------------------------------------------------------ what incidents become


def _states(spark: SparkSession, findings: list[dict[str, Any]], rules: list[Rule]) -> dict[str, Any]:
    marked = with_suppressed_by(spark.createDataFrame(findings, _FINDING), rules)
    return {row.incident_id: row.asDict() for row in to_incident_states(marked, rules).collect()}


@pytest.mark.integration
def test_incidents_take_the_latest_word_and_are_opened_by_later_findings(spark: SparkSession) -> None:
    closing = NOW - 2 * HOUR
    later = {"first_scored_at": closing + timedelta(minutes=1)}
    findings = [
        finding("untouched", "untouched"),
        finding("closed", "closed"), finding("closed-2", "closed"),
        finding("reopened", "reopened"), finding("reopened-2", "reopened", **later),
        finding("quiet", "quiet"), finding("quiet-2", "quiet", command="s3:ListBuckets", **later),
        finding("bad", "bad"),
        finding("again", "again"),
        # The incident named when it was judged has since been joined to an earlier finding.
        finding("earlier", "earlier"), finding("joined", "earlier"),
        finding("wide", "wide", principal="q"), finding("wide-2", "wide", principal="q"),
        finding("part", "part", principal="r"),
        finding("part-2", "part", principal="r", command="iam:CreateUser"),
        finding("evil", "evil", principal="s"),
        finding("evil-2", "evil", principal="s", command="iam:CreateUser"),
        finding("all", "all", principal="t", bits=1.0), finding("all-2", "all", principal="t", bits=5.0),
    ]  # fmt: skip
    rules = rules_of(
        *[
            said(f"c-{incident}", incident_id=incident, verdict="benign", created_at=closing)
            for incident in ("closed", "reopened", "quiet", "joined")
        ],
        said("mute", command="s3:ListBuckets", suppress=True),
        said("m", incident_id="bad", verdict="malicious", assignee="bo", author="carla"),
        said("k1", incident_id="again", state="acknowledged", assignee="ana", created_at=NOW - 3 * HOUR),
        said("k2", incident_id="again", state="closed", created_at=closing),
        said("k3", incident_id="again", state="open", created_at=NOW - HOUR),
        said("w", principal="q", verdict="planned"),
        said("p", principal="r", command="iam:GetUser", verdict="benign"),
        said("e", principal="s", command="iam:GetUser", verdict="malicious"),
        said("s1", principal="t", suppress=True),
    )
    found = _states(spark, findings, rules)

    def brief(incident: str) -> tuple[Any, ...]:
        row = found[incident]
        return row["state"], row["verdict"], row["assignee"], row["suppressed_by"]

    assert brief("untouched") == ("open", None, None, None)
    assert brief("closed") == ("closed", "benign", None, None)
    assert brief("reopened") == ("open", "benign", None, None)
    assert found["reopened"]["closed_at"] == closing.replace(tzinfo=None)
    assert brief("quiet") == ("closed", "benign", None, None), "what is suppressed opens nothing"
    assert brief("bad") == ("acknowledged", "malicious", "bo", None)
    assert found["bad"]["verdict_by"] == "carla"
    assert brief("again") == ("open", None, "ana", None)
    assert brief("earlier") == ("closed", "benign", None, None), "a verdict follows its incident"
    assert brief("wide") == ("open", "planned", None, None)
    assert brief("part") == ("open", None, None, None), "benign must cover all of it"
    assert brief("evil") == ("open", "malicious", None, None), "malicious need not"
    assert brief("all") == ("open", None, None, "s1")


@pytest.mark.integration
def test_without_rules_everything_is_open(spark: SparkSession) -> None:
    found = _states(spark, [finding("a", "a"), finding("b", "b")], [])
    assert {row["state"] for row in found.values()} == {"open"}
    assert {row["suppressed_by"] for row in found.values()} == {None}
