"""What an incident touched and made, what was found before it, and whose accounts it is in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession

from raretrail.evidence.incidents import with_answers
from raretrail.settings import Account
from raretrail.tables import (
    ANOMALIES,
    CHANGES_DAILY,
    EVENTS,
    INCIDENT_EVIDENCE,
    INCIDENTS,
    SESSIONS_DAILY,
    Table,
)

NOON = datetime(2026, 2, 1, 12, tzinfo=UTC)
ACCOUNT, OTHER = "111122223333", "444455556666"
ANA = f"arn:aws:iam::{ACCOUNT}:user/ana"
pytestmark = pytest.mark.integration

INCIDENT = {
    "incident_id": "i1", "actor": "ana", "principal": ANA, "principals": [ANA], "first_time": NOON,
    "last_time": NOON + timedelta(minutes=10), "source_ip_addresses": ["198.51.100.9"],
    "recipient_account_ids": [ACCOUNT, OTHER],
}  # fmt: skip
FINDING = {
    "anomaly_id": "a1", "incident_id": "i1", "actor": "ana", "first_time": NOON, "principal": ANA,
    "recipient_account_id": ACCOUNT, "user_identity_type": "IAMUser", "user_identity_arn": ANA,
    "access_key_id": "AKIAANA", "credential": "access key", "mfa_authenticated": None,
}  # fmt: skip


def at(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


def event(minutes: int, command: str, **more: Any) -> dict[str, Any]:
    return {"event_time": at(minutes), "principal": ANA, "command": command, "recipient_account_id": ACCOUNT,
            "aws_region": "eu-west-1", "read_only": True, **more}  # fmt: skip


def made(minutes: int, kind: str, subject: str, holder: str = "", **more: Any) -> dict[str, Any]:
    return {"event_time": at(minutes), "principal": ANA, "change": "given", "kind": kind, "subject": subject,
            "holder": holder, **more}  # fmt: skip


def answers(spark: SparkSession, **given: Any) -> dict[str, Any]:
    def frame(table: Table, rows: list[dict[str, Any]]) -> Any:
        whole = [dict.fromkeys(table.column_names) | row for row in rows]
        return spark.createDataFrame(whole, table.spark_schema())

    told = [column.name for column in INCIDENT_EVIDENCE]
    findings = [FINDING, *given.get("findings", [])]
    rows = with_answers(
        frame(INCIDENTS, [INCIDENT]).drop(*told),
        frame(ANOMALIES, [f for f in findings if f["incident_id"] == "i1"]),
        frame(ANOMALIES, findings),
        frame(EVENTS, given.get("events", [])),
        frame(CHANGES_DAILY, given.get("changes", [])),
        frame(SESSIONS_DAILY, given.get("sessions", [])),
        given.get("accounts", []),
    )
    assert set(told) <= set(rows.columns)
    (row,) = rows.collect()
    return row.asDict(recursive=True)


def test_what_was_touched_in_the_day_before_its_end_and_worked(spark: SparkSession) -> None:
    arn = '[{"ARN":"arn:aws:s3:::bucket/a","type":"AWS::S3::Object"},{"ARN":"arn:aws:s3:::bucket"}]'
    sizes = ['{"bytesTransferredOut":1500.0}', '{"bytesTransferredOut":"much"}', None]
    found = answers(
        spark,
        events=[
            *[event(n, "s3:GetObject", resources=arn, additional_event_data=s) for n, s in enumerate(sizes)],
            event(-60 * 23, "iam:CreateUser", read_only=False, aws_region="us-east-1"),
            event(-60 * 25, "kms:Decrypt"),
            event(11, "rds:DeleteDBInstance"),
            event(5, "ec2:RunInstances", error_code="UnauthorizedOperation"),
            event(5, "sns:Publish", principal="somebody else"),
        ],
    )
    assert (found["touched_services"], found["touched_regions"]) == (
        ["iam", "s3"],
        ["eu-west-1", "us-east-1"],
    )
    assert found["touched_resources"] == ["arn:aws:s3:::bucket", "arn:aws:s3:::bucket/a"]
    assert (found["resource_count"], found["touched_writes"], found["bytes_out"]) == (2, 1, 1500)


def test_what_was_made_is_named_and_taken_away_in_order(spark: SparkSession) -> None:
    found = answers(
        spark,
        changes=[
            made(1, "user", "eve"), made(2, "key", "AKIAEVE", "user/eve"),
            made(3, "policy", "arn:aws:iam::aws:policy/X", "user/eve"), made(20, "user", "later"),
            made(2, "user", "not theirs", principal="ben"), made(2, "address", "198.51.100.77", "eipalloc-1"),
        ],
    )  # fmt: skip
    assert found["made"] == [
        "key AKIAEVE of user/eve", "policy arn:aws:iam::aws:policy/X of user/eve", "user eve",
    ]  # fmt: skip
    steps = found["response_steps"]
    assert steps[0] == f"# {ANA}, in account {ACCOUNT}"
    assert steps[1].startswith("aws iam update-access-key --user-name ana --access-key-id AKIAANA")
    assert [step.split()[2] for step in steps[-3:]] == [
        "delete-access-key", "detach-user-policy", "delete-user",
    ]  # fmt: skip


def test_sessions_taken_from_its_addresses_are_what_it_became(spark: SparkSession) -> None:
    def taken(minutes: int, arn: str, address: str) -> dict[str, Any]:
        return {"event_time": at(minutes), "principal": ANA, "source_ip_address": address, "issued_arn": arn,
                "issued_key_id": arn}  # fmt: skip

    found = answers(
        spark,
        sessions=[taken(1, "role/a", "198.51.100.9"), taken(2, "role/b", "203.0.113.1"),
                  taken(30, "role/c", "198.51.100.9")],
    )  # fmt: skip
    assert found["became"] == ["role/a"]


def test_earlier_findings_are_those_of_48_hours_in_other_incidents(spark: SparkSession) -> None:
    def earlier(name: str, hours: int, **more: Any) -> dict[str, Any]:
        return {**FINDING, "anomaly_id": name, "incident_id": name, "first_time": at(-60 * hours), **more}

    found = answers(
        spark,
        findings=[earlier("b", 1), earlier("c", 47), earlier("too old", 49), earlier("other", 2, actor="ben"),
                  earlier("same", 0, incident_id="i1")],
    )  # fmt: skip
    assert (found["earlier_findings"], found["earlier_count"]) == (["b", "c"], 2)


def test_accounts_are_named_with_their_owners(spark: SparkSession) -> None:
    accounts = [
        Account(id=ACCOUNT, name="pay", owner="Payments", contact="pay@example.com", criticality="high",
                environment="prod", data="cards", regulation="PCI DSS"),
        Account(id=OTHER, name="lab", criticality="low"),
        Account(id="999999999999", name="elsewhere", criticality="critical"),
    ]  # fmt: skip
    found = answers(spark, accounts=accounts)
    assert found["account_names"] == ["lab", "pay"]
    assert found["account_owners"] == ["Payments (pay@example.com)"]
    assert (found["criticality"], found["account_environments"], found["account_data"]) == (
        "high", ["prod"], ["cards"]
    )  # fmt: skip
    assert found["regulations"] == ["PCI DSS"]
    nothing = answers(spark)
    assert (nothing["criticality"], nothing["account_names"]) == (None, [])


def test_its_identities_are_told_together(spark: SparkSession) -> None:
    role = "arn:aws:iam::111122223333:role/app"
    sessions = [
        {**FINDING, "anomaly_id": f"s{n}", "user_identity_type": "AssumedRole", "access_key_id": f"ASIA{n}",
         "user_identity_arn": f"arn:aws:sts::111122223333:assumed-role/app/s{n}", "session_issuer_arn": role,
         "credential": "assumed role", "mfa_authenticated": n == 1, "origin_principal": ANA,
         "policies_seen": ["p1", f"p{n}"], "key_created_at": at(-n)}
        for n in (1, 2)
    ]  # fmt: skip
    found = answers(spark, findings=sessions)
    assert found["credentials"] == ["access key", "assumed role"]
    assert found["access_key_ids"] == ["AKIAANA", "ASIA1", "ASIA2"]
    assert (found["any_mfa"], found["origin_principals"], found["policies_seen"]) == (
        True,
        [ANA],
        ["p1", "p2"],
    )
    # Two sessions of one role are stopped at once.
    assert sum(step.startswith("aws iam put-role-policy") for step in found["response_steps"]) == 1
