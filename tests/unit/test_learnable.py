"""What is kept out of the baseline: an intruder's doings for ever, unjudged incidents for a fortnight."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from raretrail.baseline.learnable import QUARANTINE_DAYS, only_learnable, to_withheld
from raretrail.tables import WITHHELD

pytestmark = pytest.mark.integration

TODAY = date(2026, 3, 1)
HOME, AWAY = "192.0.2.1", "203.0.113.7"
_PRESENCE = (
    "event_date date, recipient_account_id string, principal string, actor string, command string,"
    "source_ip_address string, outcome string, event_count bigint"
)
_FINDINGS = (
    "incident_id string, bucket_date date, recipient_account_id string, principal string, command string,"
    "source_ip_address string, error_code string, where_bits double"
)
_INCIDENTS = "incident_id string, state string, verdict string, suppressed_by string, alerted_at timestamp"
ALERTED = datetime(2026, 2, 28, tzinfo=UTC)


def _learnt(
    spark: SparkSession,
    presence: list[tuple[Any, ...]],
    findings: list[tuple[Any, ...]],
    incidents: list[tuple[Any, ...]],
    as_of: date = TODAY,
) -> list[tuple[Any, ...]]:
    facts = spark.createDataFrame([(*row[:3], row[2], *row[3:], 1) for row in presence], _PRESENCE)
    told = [row if len(row) == 5 else (*row, ALERTED) for row in incidents]
    withheld = to_withheld(
        facts, spark.createDataFrame(findings, _FINDINGS), spark.createDataFrame(told, _INCIDENTS), as_of
    )
    assert set(withheld.columns) == set(WITHHELD.column_names)
    before = only_learnable(facts, withheld).where(F.col("event_date") < F.lit(as_of)).drop("actor")
    return sorted(tuple(row)[:-1] for row in before.select(*facts.drop("actor").columns).collect())


def test_a_verdict_decides_what_is_learnt_and_time_where_there_is_none(spark: SparkSession) -> None:
    lately, long_ago = TODAY - timedelta(days=3), TODAY - timedelta(days=QUARANTINE_DAYS + 1)
    cases = {
        "open-lately": (lately, "open", None, None),
        "open-long-ago": (long_ago, "open", None, None),
        "new-lately": (lately, None, None, None),
        "acknowledged-lately": (lately, "acknowledged", None, None),
        "malicious-lately": (lately, "acknowledged", "malicious", None),
        "malicious-long-ago": (long_ago, "closed", "malicious", None),
        "benign-lately": (lately, "closed", "benign", None),
        "reopened-benign": (lately, "open", "benign", None),
        "acknowledged-benign": (lately, "acknowledged", "benign", None),
        "closed-lately": (lately, "closed", None, None),
        "suppressed-lately": (lately, "open", None, "w"),
        "never-alerted": (lately, "open", None, None, None),
    }
    learnt = _learnt(
        spark,
        [(day, "1", name, "iam:GetUser", AWAY, "") for name, (day, *_) in cases.items()],
        [(name, day, "1", name, "iam:GetUser", AWAY, "", 5.0) for name, (day, *_) in cases.items()],
        [(name, *rest) for name, (_, *rest) in cases.items()],
    )
    assert [row[2] for row in learnt] == sorted(
        [
            "acknowledged-benign",
            "benign-lately",
            "closed-lately",
            "never-alerted",
            "open-long-ago",
            "suppressed-lately",
        ],
        key=lambda name: (cases[name][0], name),
    )


def test_a_new_place_withholds_its_address_and_a_new_command_only_itself(spark: SparkSession) -> None:
    day, before = TODAY - timedelta(days=1), TODAY - timedelta(days=2)

    def fact(
        principal: str, command: str, address: str, on: date = day, outcome: str = ""
    ) -> tuple[Any, ...]:
        return (on, "1", principal, command, address, outcome)

    kept = [
        fact("ana", "iam:GetUser", HOME),
        fact("ana", "iam:GetUser", AWAY, before),
        fact("ben", "iam:GetUser", AWAY),
        fact("carla", "iam:GetUser", HOME),
        fact("carla", "iam:CreateUser", HOME, outcome="AccessDenied"),
    ]
    withheld = [
        fact("ana", "iam:CreateUser", AWAY),
        fact("ana", "iam:GetUser", AWAY),
        fact("carla", "iam:CreateUser", HOME),
    ]
    today = fact("ana", "iam:GetUser", HOME, TODAY)
    learnt = _learnt(
        spark,
        [*kept, *withheld, today],
        [
            ("i", day, "1", "ana", "iam:CreateUser", AWAY, "", 5.0),
            ("j", day, "1", "carla", "iam:CreateUser", HOME, "", 0.0),
        ],
        [("i", "open", None, None), ("j", "open", None, None)],
    )
    assert learnt == sorted(kept), "what is of the day itself is no history either"


def test_an_intruder_who_returns_daily_is_not_learnt_for_a_fortnight_and_never_once_judged(
    spark: SparkSession,
) -> None:
    days = [TODAY - timedelta(days=n) for n in range(1, 31)]
    presence = [(day, "1", "ana", "iam:GetUser", AWAY, "") for day in days]
    findings = [(f"i{day}", day, "1", "ana", "iam:GetUser", AWAY, "", 5.0) for day in days]

    def days_learnt(verdict: str | None, as_of: date) -> int:
        return len(
            _learnt(spark, presence, findings, [(f"i{d}", "open", verdict, None) for d in days], as_of)
        )

    assert days_learnt(None, days[-1] + timedelta(days=QUARANTINE_DAYS)) == 0
    assert days_learnt(None, TODAY) == len(days) - QUARANTINE_DAYS
    assert days_learnt("malicious", TODAY) == 0
