"""What calls made, gave and took away, and what a finding is told of it."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from events import events_of
from factories import call, record
from raretrail.evidence.changes import to_changes, to_changes_daily, to_holdings, to_sessions_daily
from raretrail.evidence.findings import to_first_events, with_evidence
from raretrail.tables import ANOMALIES, BASELINE_HOLDINGS, CHANGES_DAILY, EVIDENCE, SESSIONS_DAILY

NOON = datetime(2026, 2, 1, 12, tzinfo=UTC)
DATA = Path(__file__).parents[4] / "shared/data/cloudtrail"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no shared/data beside the checkout")
pytestmark = pytest.mark.integration
ELASTIC_IP = "198.51.100.9"


def done(
    user: str, command: str, minutes: int, request: Any = None, response: Any = None, **more: Any
) -> dict[str, Any]:
    """A call of ana's or ben's so many minutes after noon."""
    at = NOON + timedelta(minutes=minutes)
    parts = {"requestParameters": request, "responseElements": response}
    return call(user, command, more.pop("address", "203.0.113.7"), at, **{**parts, **more})


def session(
    role: str, key: str, minutes: int, command: str = "s3:ListBuckets", **more: Any
) -> dict[str, Any]:
    """A call with a role's session."""
    service, _, name = command.partition(":")
    at = NOON + timedelta(minutes=minutes)
    return record(
        {
            "userIdentity.arn": f"arn:aws:sts::111122223333:assumed-role/{role}/work",
            "userIdentity.principalId": "AROAX:work",
            "userIdentity.accountId": "111122223333",
            "userIdentity.accessKeyId": key,
            "userIdentity.sessionContext.sessionIssuer.arn": f"arn:aws:iam::111122223333:role/{role}",
            "userIdentity.sessionContext.sessionIssuer.userName": role,
            "recipientAccountId": "111122223333",
            "eventSource": f"{service}.amazonaws.com",
            "eventName": name,
            "eventTime": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            **more,
        }
    )


def handed(role: str, key: str) -> dict[str, Any]:
    arn = f"arn:aws:sts::111122223333:assumed-role/{role}/work"
    return {"credentials": {"accessKeyId": key}, "assumedRoleUser": {"arn": arn}}


def changes_of(spark: SparkSession, *records: dict[str, Any]) -> set[tuple[str, str, str, str]]:
    rows = to_changes_daily(events_of(spark, records))
    assert sorted(rows.columns) == sorted(CHANGES_DAILY.column_names)
    return {(r["kind"], r["change"], r["subject"], r["holder"]) for r in rows.collect() if r.change != "used"}


def findings_of(spark: SparkSession, events: DataFrame) -> DataFrame:
    """A finding for each event, under its event id."""
    address, code = (F.coalesce(name, F.lit("")).alias(name) for name in ("source_ip_address", "error_code"))
    keys = ("recipient_account_id", "principal", "actor", "command", "access_key_id")
    return events.select(
        F.col("event_id").alias("anomaly_id"), F.col("event_time").alias("first_time"), *keys, address, code,
        F.lit(64500).alias("as_number"), F.lit("Amazon.com, Inc.").alias("as_organization"),
    )  # fmt: skip


def answers(spark: SparkSession, *records: dict[str, Any], folded: datetime | None = None) -> dict[str, Any]:
    """The evidence of the last record, given them all; what came before `folded` comes as holdings."""
    events = events_of(spark, records)
    # As the stages do: what several results share is there once.
    changes = spark.createDataFrame(
        to_changes_daily(events).select(*CHANGES_DAILY.column_names).collect(), CHANGES_DAILY.spark_schema()
    )
    held = changes.select(*to_changes(to_holdings(changes)).columns)
    if folded:
        before = F.col("event_time") < F.lit(folded)
        holdings = to_holdings(changes.where(before))
        assert {*holdings.columns, "as_of"} == set(BASELINE_HOLDINGS.column_names)
        held = to_changes(holdings).unionByName(held.where(~before))
    last = findings_of(spark, events).where(F.col("anomaly_id") == records[-1]["eventID"])
    rows = with_evidence(last, to_first_events(last, events), to_sessions_daily(events), held)
    assert {column.name for column in EVIDENCE} <= set(rows.columns)
    (row,) = rows.collect()
    return row.asDict(recursive=True)


def test_changes_name_what_was_made_for_whom(spark: SparkSession) -> None:
    key = {"accessKey": {"accessKeyId": "AKIANEW", "userName": "eve"}}
    arn = "arn:aws:iam::aws:policy/AdministratorAccess"
    assert changes_of(
        spark,
        done("ana", "iam:CreateUser", 0, {"userName": "eve"}, {"user": {"userName": "eve"}}),
        done("ana", "iam:CreateAccessKey", 1, {"userName": "eve"}, key),
        # Without a name it is the caller's own.
        done("ben", "iam:CreateAccessKey", 2, None, {"accessKey": {"accessKeyId": "AKIAOWN"}}),
        done("ben", "iam:UpdateAccessKey", 3, {"accessKeyId": "AKIAOWN", "status": "Inactive"}),
        done("ana", "iam:AttachUserPolicy", 4, {"userName": "eve", "policyArn": arn}),
        done("ana", "iam:PutRolePolicy", 5, {"roleName": "app", "policyName": "p", "policyDocument": "{}"}),
        done("ana", "iam:CreateLoginProfile", 6, {"userName": "eve"}, {"loginProfile": {"userName": "eve"}}),
        done("ana", "iam:DeleteUser", 7, {"userName": "old"}),
        # What failed made nothing.
        done("ana", "iam:CreateUser", 8, {"userName": "no"}, errorCode="AccessDenied"),
    ) == {
        ("user", "given", "eve", ""), ("key", "given", "AKIANEW", "user/eve"),
        ("key", "given", "AKIAOWN", "user/ben"), ("key", "taken", "AKIAOWN", "user/ben"),
        ("policy", "given", arn, "user/eve"), ("policy", "given", "inline:p", "role/app"),
        ("password", "given", "eve", ""), ("user", "taken", "old", ""),
    }  # fmt: skip


@pytest.mark.parametrize(
    "request_, response",
    [
        ({"userName": {"nested": 1}}, {"user": "text", "accessKey": []}),
        ("text", 7), ([], [[]]), (None, None), ({"userName": "\ud800"}, {"user": {"userName": "\x00"}}),
    ],
)  # fmt: skip
def test_what_is_written_otherwise_than_expected_harms_nothing(
    spark: SparkSession, request_: Any, response: Any
) -> None:
    commands = ("iam:CreateUser", "iam:CreateAccessKey", "ec2:RunInstances", "ec2:CreateNatGateway",
                "ec2:CreateNetworkInterface", "ec2:TerminateInstances", "sts:AssumeRole")  # fmt: skip
    text = json.loads(json.dumps([request_, response]))
    records = [done("ana", command, 0, *text) for command in commands]
    for rows in (to_changes_daily(events_of(spark, records)), to_sessions_daily(events_of(spark, records))):
        assert len(rows.collect()) <= 3


@needs_data
def test_real_records_tell_their_keys_sessions_and_addresses(spark: SparkSession) -> None:
    records = [
        one
        for file in sorted((DATA / "invictus").rglob("*.json"))
        for one in json.loads(file.read_bytes())["Records"]
    ]
    stratus = sorted((DATA / "stratus").rglob("*.json")) + sorted((DATA / "stratus").rglob("*.gz"))
    for file in stratus:
        raw = file.read_bytes()
        tree = json.loads(gzip.decompress(raw) if file.suffix == ".gz" else raw)
        records += tree["Records"] if isinstance(tree, dict) and "Records" in tree else tree
    events = events_of(spark, records)
    kinds = Counter(
        (row["kind"], row["change"]) for row in to_changes_daily(events).collect() if row["subject"]
    )
    assert {("user", "given"), ("role", "given"), ("key", "given"), ("policy", "given"), ("address", "given"),
            ("instance", "given"), ("lent", "given"), ("key", "used")} <= set(kinds)  # fmt: skip
    addresses = to_changes_daily(events).where("kind = 'address' AND change = 'given'").collect()
    assert "54.204.150.149" in {row["subject"] for row in addresses}
    sessions = to_sessions_daily(events)
    assert sorted(sessions.columns) == sorted(SESSIONS_DAILY.column_names)
    assert "ASIASTJKC5GCM7ZE6LUP" in {row["issued_key_id"] for row in sessions.collect()}


def test_a_session_is_followed_back_to_the_first_identity(spark: SparkSession) -> None:
    found = answers(
        spark,
        done("ana", "sts:AssumeRole", 0, {}, handed("build", "ASIAONE"), address="203.0.113.99"),
        session("build", "ASIAONE", 5, "sts:AssumeRole", responseElements=handed("deploy", "ASIATWO")),
        session("deploy", "ASIATWO", 9),
    )
    build = "arn:aws:iam::111122223333:role/build"
    ana = "arn:aws:iam::111122223333:user/ana"
    assert found["session_chain"] == [build, ana]
    assert (found["origin_principal"], found["origin_access_key_id"]) == (ana, "AKIAANA")
    assert (found["origin_source_ip_address"], found["origin_time"]) == (
        "203.0.113.99",
        NOON.replace(tzinfo=None),
    )
    assert (found["credential"], found["session_command"]) == ("assumed role", "sts:AssumeRole")
    assert found["aws_network"]


def test_a_chain_that_bites_its_tail_ends(spark: SparkSession) -> None:
    found = answers(
        spark,
        session("a", "ASIATWO", 0, "sts:AssumeRole", responseElements=handed("b", "ASIAONE")),
        session("b", "ASIAONE", 1, "sts:AssumeRole", responseElements=handed("a", "ASIATWO")),
        session("a", "ASIATWO", 2),
    )
    assert len(found["session_chain"]) == 4


CREDENTIALS = [
    ({"userIdentity.accessKeyId": "AKIAX"}, "access key"),
    ({"userIdentity.type": "Root", "userIdentity.accessKeyId": "AKIAROOT"}, "root"),
    ({"userIdentity.accessKeyId": "ASIAX", "sessionCredentialFromConsole": "true"}, "console"),
    ({"userIdentity.accessKeyId": "ASIAX"}, "session token"),
    ({"userIdentity.type": "FederatedUser", "userIdentity.accessKeyId": "ASIAX"}, "federation token"),
    ({"userIdentity.invokedBy": "cloudformation.amazonaws.com"}, "service"),
]


@pytest.mark.parametrize("changed, expected", CREDENTIALS)
def test_how_credentials_were_obtained(spark: SparkSession, changed: dict[str, Any], expected: str) -> None:
    assert answers(spark, done("ana", "s3:ListBuckets", 0, **changed))["credential"] == expected


def test_how_the_credentials_of_a_session_were_obtained(spark: SparkSession) -> None:
    center = session("AWSReservedSSO_Admin_0123456789abcdef", "ASIAX", 0)
    assert answers(spark, center)["credential"] == "identity center"
    arn = "arn:aws:sts::111122223333:assumed-role/app/i-0123456789abcdef0"
    instance = session("app", "ASIAX", 0, **{"userIdentity.arn": arn})
    assert answers(spark, instance)["credential"] == "instance role"
    saml = done("ana", "sts:AssumeRoleWithSAML", 0, {}, handed("app", "ASIAX"))
    assert answers(spark, saml, session("app", "ASIAX", 1))["credential"] == "saml"


def held_records() -> list[dict[str, Any]]:
    arn, other = "arn:aws:iam::aws:policy/ReadOnlyAccess", "arn:aws:iam::aws:policy/PowerUserAccess"
    key = {"accessKey": {"accessKeyId": "AKIAEVE", "userName": "eve"}}
    return [
        done("ana", "iam:CreateUser", 0, {"userName": "eve"}, {"user": {"userName": "eve"}}),
        done("ana", "iam:CreateAccessKey", 1, {"userName": "eve"}, key),
        done("ana", "iam:AttachUserPolicy", 2, {"userName": "eve", "policyArn": arn}),
        done("ana", "iam:AttachUserPolicy", 3, {"userName": "eve", "policyArn": other}),
        done("eve", "s3:ListBuckets", 4),
        done("ana", "iam:DetachUserPolicy", 5, {"userName": "eve", "policyArn": other}),
        done("eve", "s3:ListBuckets", 60),
    ]


@pytest.mark.parametrize("folded", [None, NOON + timedelta(minutes=3), NOON + timedelta(minutes=30)])
def test_a_key_tells_its_age_its_maker_and_what_it_may(spark: SparkSession, folded: datetime | None) -> None:
    found = answers(spark, *held_records(), folded=folded)
    ana = "arn:aws:iam::111122223333:user/ana"
    at = NOON.replace(tzinfo=None)
    assert (found["key_created_at"], found["key_created_by"]) == (at + timedelta(minutes=1), ana)
    assert found["key_first_used_at"] == at + timedelta(minutes=4)
    assert (found["identity_created_at"], found["identity_created_by"]) == (at, ana)
    assert found["policies_seen"] == ["arn:aws:iam::aws:policy/ReadOnlyAccess"]


def addresses_of(*ends: dict[str, Any]) -> list[dict[str, Any]]:
    profile = {"arn": "arn:aws:iam::111122223333:instance-profile/web"}
    item = {"instanceId": "i-0aa", "privateIpAddress": "10.0.0.5", "iamInstanceProfile": profile}
    return [
        done("ana", "ec2:RunInstances", 0, {}, {"instancesSet": {"items": [item]}}),
        done("ana", "ec2:AllocateAddress", 1, {}, {"publicIp": ELASTIC_IP, "allocationId": "eipalloc-1"}),
        done("ana", "ec2:AssociateAddress", 2, {"allocationId": "eipalloc-1", "instanceId": "i-0aa"}),
        *ends,
        done("ben", "s3:ListBuckets", 60, address=ELASTIC_IP),
    ]


ENDS: list[dict[str, Any]] = [
    done("ana", "ec2:ReleaseAddress", 30, {"allocationId": "eipalloc-1"}),
    done("ana", "ec2:TerminateInstances", 30, {"instancesSet": {"items": [{"instanceId": "i-0aa"}]}}),
]


@pytest.mark.parametrize("folded", [None, NOON + timedelta(minutes=45)])
def test_an_address_is_ours_until_it_is_given_back(spark: SparkSession, folded: datetime | None) -> None:
    found = answers(spark, *addresses_of(), folded=folded)
    assert (found["own_resource"], found["own_account_id"]) == ("i-0aa", "111122223333")
    assert found["own_instance_profile"] == "arn:aws:iam::111122223333:instance-profile/web"
    assert found["own_since"] == (NOON + timedelta(minutes=1)).replace(tzinfo=None)
    for end in ENDS:
        assert answers(spark, *addresses_of(end), folded=folded)["own_resource"] is None


def test_an_address_that_becomes_ours_later_was_not_ours(spark: SparkSession) -> None:
    found = answers(spark, *addresses_of()[:3], done("ben", "s3:ListBuckets", 0, address=ELASTIC_IP))
    assert found["own_resource"] is None
    assert {column.name for column in EVIDENCE} <= {column.name for column in ANOMALIES.columns}
