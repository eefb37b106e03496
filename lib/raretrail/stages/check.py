"""The check stage: expectations on what a run took in, on the baseline and on what it staged."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date, datetime
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail.cloudtrail.layout import describe
from raretrail.quality.gate import FILE, Gate, gate, with_broken_detectors
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
    denied: Mapping[str, str],
    delivered: Collection[date],
) -> Gate:
    """Judge every suite, record the results in data_quality, and say what is held.

    days are those whose events the run relied on; as_of is the baseline it left behind; covered are the
    hours of `coverage_hourly` it answers for; denied are the accounts of which files may not be read, with
    why: what is found of them is held; delivered are the days on which the files the run took were.
    """
    of_days = F.lit(False)  # as of a run that took no file
    if delivered:
        of_days = F.col("file_date").between(F.lit(min(delivered)), F.lit(max(delivered)))
    subjects: dict[str, DataFrame] = {
        "coverage": covered,
        "events": warehouse.read(EVENTS).where(on_days("event_date", days)),
        "baseline": warehouse.read(BASELINE_COMMAND_PLACE).where(F.col("as_of") == F.lit(as_of)),
        "findings": warehouse.read(STAGED_ANOMALIES),
        "ledger": warehouse.read(INGEST_FILES).where(of_days & (F.col("run_id") == run_id)),
    }
    return with_broken_detectors(
        _judge(warehouse, settings, run_id, now, subjects, denied), settings.broken_detectors
    )


def check_coverage(
    warehouse: Warehouse, settings: Settings, run_id: str, now: datetime, covered: DataFrame
) -> Gate:
    """The same for the suite coverage alone, by a run that has nothing else to judge."""
    return _judge(warehouse, settings, run_id, now, {"coverage": covered}, {})


def check_denied(
    warehouse: Warehouse, settings: Settings, run_id: str, now: datetime, denied: Mapping[str, str]
) -> Gate:
    """The same for accounts of which files may not be read alone."""
    return _judge(warehouse, settings, run_id, now, {}, denied)


def _judge(
    warehouse: Warehouse,
    settings: Settings,
    run_id: str,
    now: datetime,
    subjects: dict[str, DataFrame],
    denied: Mapping[str, str],
) -> Gate:
    suites = _suites(settings)
    asked = [name for name in suites if name in subjects]
    measured = together([partial(measure, subjects[name], suites[name]) for name in asked])
    verdicts = [_denied(run_id, now, account, why) for account, why in sorted(denied.items())]
    for name, measures in zip(asked, measured, strict=True):
        judged = judge(measures, suites[name], run_id=run_id, checked_at=now)
        verdicts += [one for one in judged if not is_told(one, denied)]
    results = warehouse.spark.createDataFrame(to_results(verdicts), DATA_QUALITY.spark_schema())
    warehouse.append(DATA_QUALITY, results, few=True)
    return gate(verdicts)


def _denied(run_id: str, now: datetime, account: str, why: str) -> Verdict:
    """That an account's files may not be read, as a row of data_quality; there is nothing to measure."""
    return Verdict(
        run_id=run_id,
        suite="ledger",
        expectation="account_is_readable",
        severity="critical",
        scope_column="recipient_account_id",
        scope_value=account,
        success=False,
        observed_value=None,
        unexpected_count=None,
        element_count=None,
        detail=f"its files cannot be taken in. {why}",
        kwargs="{}",
        gx_version="",
        checked_at=now,
    )


def is_told(verdict: Verdict, denied: Mapping[str, str]) -> bool:
    """Whether a verdict is on a file of an account that is held whole."""
    if verdict.scope_column != FILE or verdict.success or not verdict.scope_value:
        return False
    return describe(verdict.scope_value).account in denied


def _suites(settings: Settings) -> dict[str, Suite]:
    return load_suites(*settings.conf_folders("expectations"))
