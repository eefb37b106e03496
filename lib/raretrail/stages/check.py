"""The check stage: expectations on what a run took in, on the baseline and on what it staged."""

from __future__ import annotations

from datetime import date, datetime
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail.quality.gate import Gate, gate, with_broken_detectors
from raretrail.quality.judge import Verdict, judge, prepare, to_results
from raretrail.quality.measure import measure
from raretrail.quality.suites import Suite, load_suites
from raretrail.settings import Settings
from raretrail.tables import (
    BASELINE_COMMAND_PLACE,
    DATA_QUALITY,
    EVENTS,
    INGEST_FILES,
    STAGED_ANOMALIES,
)
from raretrail.together import ahead, together
from raretrail.warehouse import Warehouse, on_days


def prepare_check(settings: Settings) -> None:
    """Load what the checks need while something else is waited for."""
    ahead(lambda: load_checks(settings))


def load_checks(settings: Settings) -> None:
    """Load what the checks need, which takes seconds."""
    prepare(_suites(settings).values())


def check(
    warehouse: Warehouse,
    settings: Settings,
    run_id: str,
    days: list[date],
    as_of: date,
    now: datetime,
    covered: DataFrame,
) -> Gate:
    """Judge every suite, record the results in data_quality, and say what is held.

    days are those whose events the run relied on; as_of is the baseline it left behind; covered are the
    hours of `coverage_hourly` it answers for.
    """
    subjects: dict[str, DataFrame] = {
        "coverage": covered,
        "events": warehouse.read(EVENTS).where(on_days("event_date", days)),
        "baseline": warehouse.read(BASELINE_COMMAND_PLACE).where(F.col("as_of") == F.lit(as_of)),
        "findings": warehouse.read(STAGED_ANOMALIES),
        "ledger": warehouse.read(INGEST_FILES).where(F.col("run_id") == run_id),
    }
    return with_broken_detectors(
        _judge(warehouse, settings, run_id, now, subjects), settings.broken_detectors
    )


def check_coverage(
    warehouse: Warehouse, settings: Settings, run_id: str, now: datetime, covered: DataFrame
) -> Gate:
    """The same for the suite coverage alone, by a run that has nothing else to judge."""
    return _judge(warehouse, settings, run_id, now, {"coverage": covered})


def _judge(
    warehouse: Warehouse, settings: Settings, run_id: str, now: datetime, subjects: dict[str, DataFrame]
) -> Gate:
    suites = _suites(settings)
    asked = [name for name in suites if name in subjects]
    measured = together([partial(measure, subjects[name], suites[name]) for name in asked])
    verdicts: list[Verdict] = []
    for name, measures in zip(asked, measured, strict=True):
        verdicts += judge(measures, suites[name], run_id=run_id, checked_at=now)
    results = warehouse.spark.createDataFrame(to_results(verdicts), DATA_QUALITY.spark_schema())
    warehouse.append(DATA_QUALITY, results)
    return gate(verdicts)


def _suites(settings: Settings) -> dict[str, Suite]:
    return load_suites(*settings.conf_folders("expectations"))
