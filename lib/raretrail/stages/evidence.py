"""Evidence beside the findings of a run, from the days around them and what was held before."""

from __future__ import annotations

from datetime import date, timedelta
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail.evidence.changes import LONGEST_SESSION_DAYS, to_changes
from raretrail.evidence.findings import CHANGE, SESSION, to_first_events, with_evidence
from raretrail.evidence.incidents import with_answers as with_incident_answers
from raretrail.settings import Settings
from raretrail.stages.baseline import between, known_changes
from raretrail.tables import ANOMALIES, BASELINE_HOLDINGS, CHANGES_DAILY, EVENTS, SESSIONS_DAILY
from raretrail.together import together
from raretrail.warehouse import Warehouse


def first_events(staged: DataFrame, warehouse: Warehouse, events: DataFrame) -> DataFrame:
    """`to_first_events` of staged findings, computed; events are those of their buckets."""
    return warehouse.stage("first_events", to_first_events(staged, events), few=True)


def with_answers(
    staged: DataFrame, warehouse: Warehouse, firsts: DataFrame, days: list[date], *, stored: bool
) -> DataFrame:
    """The staged findings of these days with their evidence; firsts are their `first_events`.

    What was held before the first day is taken from its snapshot where snapshots are stored, else from all
    changes before.
    """
    first, end = days[0], days[-1] + timedelta(days=1)
    sessions = between(warehouse.read(SESSIONS_DAILY), first - timedelta(days=LONGEST_SESSION_DAYS), end)
    if stored:
        held = to_changes(warehouse.read(BASELINE_HOLDINGS).where(F.col("as_of") == F.lit(first)))
        since = between(warehouse.read(CHANGES_DAILY), first, end)
        changes = held.unionByName(since.select(*held.columns))
        # Each answer asks for them, several more than once.
        sessions, changes = together(
            [
                partial(warehouse.carried, sessions.select(*SESSION)),
                partial(warehouse.carried, changes.select(*CHANGE)),
            ]
        )
    else:
        changes = known_changes(warehouse, end)
    return with_evidence(staged, firsts, sessions, changes)


def with_incident_evidence(
    warehouse: Warehouse,
    settings: Settings,
    incidents: DataFrame,
    findings: DataFrame,
    start: date,
    end: date,
) -> DataFrame:
    """Incidents of [start, end) with their evidence; findings are those of the incidents, chained."""
    before = start - timedelta(days=2)
    stored = warehouse.read(ANOMALIES).where(F.col("bucket_date").between(F.lit(before), F.lit(end)))
    told = ["anomaly_id", "incident_id", "actor", "first_time"]
    others = stored.select(*told).join(findings.select("anomaly_id"), "anomaly_id", "left_anti")
    return with_incident_answers(
        incidents,
        findings,
        findings.select(*told).unionByName(others),
        between(warehouse.read(EVENTS), start - timedelta(days=1), end),
        between(warehouse.read(CHANGES_DAILY), start, end),
        between(warehouse.read(SESSIONS_DAILY), start, end),
        settings.accounts,
    )
