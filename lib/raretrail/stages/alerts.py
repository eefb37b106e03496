"""The alerts stage: incidents marked for it get a row in the outbox, and what is pending there is posted.

The mark (`alert_revision`) is of the same commit as `alerted_at`, and the row is made of the mark: a run
killed between the two leaves a mark without a row, which the next run finds as this one would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from raretrail.alerts.payloads import gather, to_payloads
from raretrail.alerts.webhook import Alert, Means, Outcome, Target, deliver
from raretrail.look import SparkLook
from raretrail.settings import Settings
from raretrail.tables import INCIDENTS, OUTBOX
from raretrail.warehouse import Warehouse, rows_of

# An alert is delivered within so many days, or not at all.
REACH_DAYS = 35
# An incident's first day lies at most so long before the window whose run alerts it.
_CHAIN_DAYS = 70
# Rows held in memory at once; a run that has time for more leaves them to the next one.
_AT_ONCE = 200


@dataclass(frozen=True)
class Sent:
    """How many alerts a run delivered and gave up, how many wait, and what to tell."""

    sent: int
    pending: int
    given_up: int
    messages: tuple[str, ...]


def send_alerts(
    warehouse: Warehouse,
    settings: Settings,
    target: Target,
    since: date,
    run_id: str,
    now: datetime,
    *,
    means: Means | None = None,
) -> Sent:
    """Fill the outbox, post what is pending in it, and write down what became of that.

    since is the first day of the window: incidents that began earlier than can be part of it are not looked
    at. A receiver that fails leaves a message, never an error.
    """
    warehouse.create(OUTBOX)
    fill(warehouse, settings, since, run_id, now)
    pending = _recent(warehouse, now).where(F.col("status") == "pending")
    # Those tried least come first, so that one which nobody takes keeps none waiting.
    order = ("attempts", "alerted_at", "incident_id", "revision")
    rows = {_key(row): row for row in rows_of(pending.orderBy(*order).limit(_AT_ONCE))}
    waiting = len(rows) if len(rows) < _AT_ONCE else pending.count()
    alerts = [
        Alert(row["incident_id"], row["revision"], row["payload"], row["attempts"]) for row in rows.values()
    ]
    outcomes = deliver(target, alerts, means=means) if alerts else []
    changed = [_after(rows[one.alert.incident_id, one.alert.revision], one) for one in outcomes]
    if changed:
        warehouse.merge(
            OUTBOX,
            warehouse.spark.createDataFrame(changed, OUTBOX.spark_schema()),
            update=("attempts", "last_attempt_at", "last_error", "delivered_at", "status"),
            only=_recent_days(now),
            few=True,
        )
    count = {name: sum(one.status == name for one in outcomes) for name in ("delivered", "given_up")}
    left = waiting - sum(count.values())
    told = _messages(target, outcomes, left)
    return Sent(count["delivered"], left, count["given_up"], told)


def fill(warehouse: Warehouse, settings: Settings, since: date, run_id: str, now: datetime) -> int:
    """Write a row for every incident whose mark has none yet; how many. Repeating it changes nothing."""
    marked = warehouse.read(INCIDENTS).where(
        F.col("alert_revision").isNotNull()
        & (F.col("first_date") >= F.lit(since - timedelta(days=_CHAIN_DAYS)))
        & (F.col("alerted_at") >= F.lit(now - timedelta(days=REACH_DAYS)))
    )
    there = _recent(warehouse, now).select("incident_id", F.col("revision").alias("alert_revision"))
    incidents = rows_of(marked.join(there, ["incident_id", "alert_revision"], "left_anti"))
    if not incidents:
        return 0
    format = settings.alerts.webhook.format
    findings, events = gather(SparkLook(warehouse, settings.detectors), incidents)
    payloads = to_payloads(format, incidents, findings, events, settings.detectors)
    rows = [
        {
            **dict.fromkeys(OUTBOX.column_names),
            "incident_id": row["incident_id"],
            "revision": row["alert_revision"],
            "alerted_at": row["alerted_at"],
            "alerted_date": row["alerted_at"].date(),
            "format": format,
            "payload": payloads[row["incident_id"]],
            "created_at": now,
            "run_id": run_id,
            "attempts": 0,
            "status": "pending",
        }
        for row in incidents
    ]
    frame = warehouse.spark.createDataFrame(rows, OUTBOX.spark_schema())
    warehouse.merge(OUTBOX, frame, update=(), only=_recent_days(now), few=True)
    return len(rows)


def _recent_days(now: datetime) -> str:
    """Which rows of the outbox a run looks at, so that it does not grow with history; SQL over t."""
    return f"t.alerted_date >= DATE'{_first_day(now)}'"


def _recent(warehouse: Warehouse, now: datetime) -> DataFrame:
    day: Column = F.col("alerted_date") >= F.lit(_first_day(now))
    return warehouse.read(OUTBOX).where(day)


def _first_day(now: datetime) -> date:
    return (now - timedelta(days=REACH_DAYS)).date()


def _key(row: dict[str, Any]) -> tuple[str, int]:
    return row["incident_id"], row["revision"]


def _after(row: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    """The row once it was tried."""
    return row | {
        "attempts": outcome.attempts,
        "last_attempt_at": outcome.tried_at,
        "last_error": outcome.error,
        "delivered_at": outcome.tried_at if outcome.status == "delivered" else None,
        "status": outcome.status,
    }


def _messages(target: Target, outcomes: Sequence[Outcome], left: int) -> tuple[str, ...]:
    told = []
    given_up = [one for one in outcomes if one.status == "given_up"]
    failed = [one for one in outcomes if one.status == "pending"]
    if given_up:
        told.append(
            f"alerts to {target.host}: {len(given_up)} given up ({given_up[-1].error}); "
            "they stay in outbox, docs/alerts.md says how to send them after all"
        )
    if left:
        why = f" ({failed[-1].error})" if failed else ""
        told.append(f"alerts to {target.host}: {left} not delivered yet{why}; the next run tries again")
    return tuple(told)
