"""The check stage: expectations on what a run took in, on the baseline and on what it staged."""

from __future__ import annotations

from datetime import date, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail.quality.gate import Gate, gate
from raretrail.quality.judge import Verdict, judge, to_results
from raretrail.quality.measure import measure
from raretrail.quality.suites import load_suites
from raretrail.settings import Settings
from raretrail.tables import (
    BASELINE_COMMAND_PLACE,
    DATA_QUALITY,
    EVENTS,
    INGEST_FILES,
    STAGED_ANOMALIES,
)
from raretrail.warehouse import Warehouse, on_days


def check(
    warehouse: Warehouse,
    settings: Settings,
    run_id: str,
    days: list[date],
    as_of: date,
    now: datetime,
) -> Gate:
    """Judge every suite, record the results in data_quality, and say what is held.

    days are those whose events the run relied on; as_of is the baseline it left behind.
    """
    subjects: dict[str, DataFrame] = {
        "events": warehouse.read(EVENTS).where(on_days("event_date", days)),
        "baseline": warehouse.read(BASELINE_COMMAND_PLACE).where(F.col("as_of") == F.lit(as_of)),
        "findings": warehouse.read(STAGED_ANOMALIES),
        "ledger": warehouse.read(INGEST_FILES).where(F.col("run_id") == run_id),
    }
    verdicts: list[Verdict] = []
    for name, suite in load_suites(*settings.conf_folders("expectations")).items():
        if name in subjects:
            measured = measure(subjects[name], suite)
            verdicts += judge(measured, suite, run_id=run_id, checked_at=now)
    results = warehouse.spark.createDataFrame(to_results(verdicts), DATA_QUALITY.spark_schema())
    warehouse.append(DATA_QUALITY, results)
    return gate(verdicts)
