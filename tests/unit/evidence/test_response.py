"""The commands of the response reach the AWS CLI with the very names, whatever these are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from raretrail.evidence.response import steps_for, undo

pytestmark = pytest.mark.integration
ACCOUNT = "111122223333"
# What a name may do to a shell.
NAMES = ["ana", "ana@example.com", "a'b", "$(touch owned)", "`touch owned`", "a; touch owned #", "-rf x",
         'a"b', "a\\", "a\ntouch owned", "a & touch owned", "*"]  # fmt: skip


def arguments(steps: list[str], folder: Path) -> list[list[str]]:
    """What the aws program is given when a shell runs the steps."""
    show = 'aws() { for one in "$@"; do printf "%s\\0" "$one"; done; printf "\\1"; }\n'
    variables = "IDENTITY_STORE=d-1 NEW_PASSWORD=secret\n"
    done = subprocess.run(
        ["sh", "-eu", "-c", variables + show + "\n".join(steps)], cwd=folder, capture_output=True, check=True
    )
    assert not list(folder.iterdir()), "a name was run"
    return [call.split("\0")[:-1] for call in done.stdout.decode().split("\1")[:-1]]


def stopped(spark: SparkSession, **identity: str | None) -> list[str]:
    names = ("recipient_account_id", "user_identity_type", "user_identity_arn", "session_issuer_arn",
             "access_key_id")  # fmt: skip
    row = {name: identity.get(name) for name in names} | {"recipient_account_id": ACCOUNT}
    frame = spark.createDataFrame([row], ", ".join(f"{name} string" for name in names))
    return frame.select(steps_for(F.struct(*names)).alias("steps")).collect()[0]["steps"]


@pytest.mark.parametrize("name", NAMES)
def test_a_user_is_stopped_by_name(spark: SparkSession, tmp_path: Path, name: str) -> None:
    steps = stopped(
        spark,
        user_identity_type="IAMUser",
        user_identity_arn=f"arn:aws:iam::{ACCOUNT}:user/{name}",
        access_key_id="AKIAX",
    )
    calls = arguments(steps, tmp_path)
    wanted = "update-access-key put-user-policy update-login-profile put-user-policy delete-access-key"
    assert [call[1] for call in calls] == wanted.split()
    assert all(call[call.index("--user-name") + 1] == name for call in calls)
    older, mfa = (json.loads(call[-1]) for call in calls if call[1] == "put-user-policy")
    assert older["Statement"][0]["Condition"]["DateLessThan"]["aws:TokenIssueTime"].startswith("20")
    assert mfa["Statement"][0]["Effect"] == "Deny"


def test_a_role_s_sessions_are_stopped(spark: SparkSession, tmp_path: Path) -> None:
    steps = stopped(
        spark,
        user_identity_type="AssumedRole",
        user_identity_arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/deploy/x",
        session_issuer_arn=f"arn:aws:iam::{ACCOUNT}:role/service-role/deploy",
        access_key_id="ASIAX",
    )
    (call,) = arguments(steps, tmp_path)
    assert call[:4] == ["iam", "put-role-policy", "--role-name", "deploy"]


def test_who_came_through_identity_center_is_looked_for_there(spark: SparkSession, tmp_path: Path) -> None:
    role = "AWSReservedSSO_Admin_0123456789abcdef"
    steps = stopped(
        spark,
        user_identity_type="AssumedRole",
        user_identity_arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/ana@example.com",
        session_issuer_arn=f"arn:aws:iam::{ACCOUNT}:role/aws-reserved/sso.amazonaws.com/{role}",
    )
    (call,) = arguments(steps, tmp_path)
    assert call[0] == "identitystore" and call[-1].endswith("AttributeValue=ana@example.com")


@pytest.mark.parametrize("kind, arn", [("Root", f"arn:aws:iam::{ACCOUNT}:root"), ("AWSAccount", None)])
def test_what_no_command_stops_is_said(
    spark: SparkSession, tmp_path: Path, kind: str, arn: str | None
) -> None:
    steps = stopped(spark, user_identity_type=kind, user_identity_arn=arn)
    assert arguments(steps, tmp_path) == [] and all(step.startswith("# ") for step in steps)
    assert len(steps) == (2 if kind == "Root" else 1)


@pytest.mark.parametrize(
    "change, call",
    [
        (("key", "AKIAX", "user/{}"),
         ["iam", "delete-access-key", "--user-name", "{}", "--access-key-id", "AKIAX"]),
        (("user", "{}", ""), ["iam", "delete-user", "--user-name", "{}"]),
        (("password", "{}", ""), ["iam", "delete-login-profile", "--user-name", "{}"]),
        (("policy", "inline:p", "role/{}"),
         ["iam", "delete-role-policy", "--role-name", "{}", "--policy-name", "p"]),
        (("policy", "arn:aws:iam::aws:policy/X", "user/{}"),
         ["iam", "detach-user-policy", "--user-name", "{}", "--policy-arn", "arn:aws:iam::aws:policy/X"]),
        (("group", "{}", "user/b"),
         ["iam", "remove-user-from-group", "--user-name", "b", "--group-name", "{}"]),
        (("instance", "{}", ""), ["ec2", "stop-instances", "--instance-ids", "{}"]),
    ],
)  # fmt: skip
def test_what_was_made_is_taken_away_by_name(
    spark: SparkSession, tmp_path: Path, change: tuple[str, ...], call: list[str]
) -> None:
    rows: list[Any] = [tuple(part.replace("{}", name) for part in change) for name in NAMES]
    frame = spark.createDataFrame(rows, "kind string, subject string, holder string")
    steps = [
        row["step"]
        for row in frame.select(undo(F.struct("kind", "subject", "holder")).alias("step")).collect()
    ]
    expected = [[part.replace("{}", name) for part in call] for name in NAMES]
    assert arguments(steps, tmp_path) == expected
