"""Great Expectations judges what was measured; one verdict for each expectation and scope held."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from datetime import datetime
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from raretrail.errors import UsageError
from raretrail.quality.measure import ELEMENTS, UNEXPECTED, Measures
from raretrail.quality.suites import NO_SCOPE, Expectation, Suite, kwargs_json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True)
class Verdict:
    """One row of `data_quality`, in the order of its columns.

    A scoped expectation gives a verdict for each scope value that failed, and one with
    `scope_value` None for all that passed.
    """

    run_id: str
    suite: str
    expectation: str
    severity: str
    scope_column: str | None
    scope_value: str | None
    success: bool
    observed_value: float | None
    unexpected_count: int | None
    element_count: int | None
    detail: str
    kwargs: str
    gx_version: str
    checked_at: datetime


def prepare(suites: Iterable[Suite]) -> None:
    """Load Great Expectations and build the suites' definitions: seconds that `judge` then spares."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for suite in suites:
            _validation_definition(suite.model_dump_json())


def judge(measures: Measures, suite: Suite, *, run_id: str, checked_at: datetime) -> list[Verdict]:
    """Have Great Expectations judge `measures` by `suite`; verdicts in the suite's order.

    What could not be measured or judged has failed, and its verdict says why. Raises UsageError
    where Great Expectations is not installed.
    """
    judged = _judged(measures.frame, suite)
    verdicts: list[Verdict] = []
    for expectation in suite.expectations:
        for outcome in _outcomes(expectation, suite, measures, judged.results[expectation.name]):
            verdicts.append(
                Verdict(
                    run_id,
                    suite.suite,
                    expectation.name,
                    expectation.severity,
                    None if expectation.scope == NO_SCOPE else expectation.scope,
                    outcome.scope_value,
                    outcome.success,
                    outcome.observed,
                    outcome.unexpected,
                    outcome.elements,
                    outcome.detail,
                    kwargs_json(expectation),
                    judged.gx_version,
                    checked_at,
                )
            )
    return verdicts


def to_results(verdicts: list[Verdict]) -> pa.Table:
    """The verdicts as rows of `data_quality`."""
    import pyarrow as pa

    from raretrail.tables import DATA_QUALITY

    schema = DATA_QUALITY.arrow_schema()
    rows = [dict(zip(schema.names, astuple(verdict), strict=True)) for verdict in verdicts]
    return pa.Table.from_pylist(rows, schema=schema)


@dataclass(frozen=True)
class _GxResult:
    """What Great Expectations said of one expectation: `failed` are positions in the frame."""

    success: bool
    failed: frozenset[int]
    exception: str | None


@dataclass(frozen=True)
class _Judged:
    results: dict[str, _GxResult]
    gx_version: str


@dataclass(frozen=True)
class _Outcome:
    scope_value: str | None
    success: bool
    observed: float | None
    unexpected: int | None
    elements: int | None
    detail: str


def _judged(frame: pd.DataFrame, suite: Suite) -> _Judged:
    # Great Expectations warns of pandas' and its own deprecations, which the user cannot mend.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        definition, version = _validation_definition(suite.model_dump_json())
        columns = [e.name for e in suite.expectations if e.name in frame.columns]
        result = definition.run(
            batch_parameters={"dataframe": frame[columns].reset_index(drop=True)},
            result_format={"result_format": "COMPLETE", "include_unexpected_rows": False},
        )
    results = {}
    for one in result.results:
        exception = _exception(one.exception_info)
        failed = one.result.get("unexpected_index_list") or ()
        results[one.expectation_config.meta["name"]] = _GxResult(
            bool(one.success) and exception is None, frozenset(failed), exception
        )
    return _Judged(results, version)


# One thread loads it ahead of the others, which then wait for it rather than do the same.
_LOADING = Lock()


def _validation_definition(suite_json: str) -> tuple[Any, str]:
    with _LOADING:
        return _loaded_definition(suite_json)


@lru_cache(maxsize=32)
def _loaded_definition(suite_json: str) -> tuple[Any, str]:
    """Great Expectations' definition of a suite, and its version. Importing it takes seconds."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    try:
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig
        from great_expectations.expectations.expectation_configuration import (
            ExpectationConfiguration,
        )
        from great_expectations.expectations.metadata_types import FailureSeverity
    except ImportError as error:
        raise UsageError(
            f"the checks need Great Expectations ({error}); install raretrail[quality]"
        ) from None
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    suite = Suite.model_validate_json(suite_json)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas(name="measures")
    batch = source.add_dataframe_asset(name=suite.suite).add_batch_definition_whole_dataframe("all")
    expectations = gx.ExpectationSuite(name=suite.suite)
    for e in suite.expectations:
        expectations.add_expectation_configuration(
            ExpectationConfiguration(
                type=e.expect,
                kwargs={"column": e.name, **e.kwargs},
                meta={"name": e.name},
                severity=FailureSeverity(e.severity),
            )
        )
    definition = gx.ValidationDefinition(name=suite.suite, data=batch, suite=context.suites.add(expectations))
    return context.validation_definitions.add(definition), gx.__version__


def _exception(info: Any) -> str | None:
    """The message of an exception, which comes flat or by metric; None for none."""
    for part in (info, *(info.values() if isinstance(info, dict) else ())):
        if isinstance(part, dict) and part.get("raised_exception"):
            return " ".join(str(part.get("exception_message") or "no message").split())
    return None


def _outcomes(
    expectation: Expectation, suite: Suite, measures: Measures, result: _GxResult
) -> Iterator[_Outcome]:
    where = f"{suite.suite}.{expectation.name}"
    reason = measures.errors.get(expectation.name)
    if reason is None and result.exception is not None:
        reason = f"Great Expectations: {result.exception}"
    if reason is not None:
        detail = f"{where} failed: it could not be judged ({reason}). {expectation.description}"
        yield _Outcome(None, False, None, None, None, detail)
        return

    frame = measures.frame
    mine = frame[frame["scope_column"] == expectation.scope]
    passed: list[pd.Series] = []
    for position, row in mine.iterrows():
        value = row[expectation.name]
        # Great Expectations passes over nulls; a measure without a value has not been met.
        bad = math.isnan(value) or (not result.success and position in result.failed)
        if not bad:
            passed.append(row)
            continue
        scope_value = row["scope_value"]
        inside = "" if expectation.scope == NO_SCOPE else f" in {expectation.scope} {scope_value}"
        counted = _counted(expectation, row, suite.noun)
        detail = f"{where} failed{inside}: {counted}. {expectation.description}"
        yield _Outcome(
            "null" if scope_value is None and inside else scope_value,
            False,
            _number(value),
            _whole(row[expectation.name + UNEXPECTED]),
            _whole(row[expectation.name + ELEMENTS]),
            detail,
        )
    if passed or mine.empty:
        yield _passed(expectation, passed, len(mine))


def _passed(expectation: Expectation, passed: list[pd.Series], of: int) -> _Outcome:
    values = [float(row[expectation.name]) for row in passed]
    unexpected = [_whole(row[expectation.name + UNEXPECTED]) for row in passed]
    elements = [_whole(row[expectation.name + ELEMENTS]) or 0 for row in passed]
    detail = "as expected"
    if expectation.scope != NO_SCOPE:
        detail += f" in {len(passed):,} of {of:,} values of {expectation.scope}; the largest is kept"
    return _Outcome(
        None,
        True,
        max(values, default=None),
        sum(n for n in unexpected if n is not None) if None not in unexpected else None,
        sum(elements),
        detail,
    )


def _counted(expectation: Expectation, row: pd.Series, noun: str) -> str:
    """What was found, of how many, and what would have been right."""
    value = row[expectation.name]
    unexpected = _whole(row[expectation.name + UNEXPECTED])
    elements = _whole(row[expectation.name + ELEMENTS])
    if math.isnan(value):
        return f"its measure gave no value over {elements:,} {noun}"
    right = _right(expectation)
    if expectation.unit == "rows":
        found = f"{unexpected:,} of {elements:,} {noun}"
        return found if right == "at most 0" else f"{found}, expected {right}"
    if expectation.unit == "share":
        return f"{unexpected:,} of {elements:,} {noun} ({value:.1%}), expected {right}"
    return f"{value:,.6g} over {elements:,} {noun}, expected {right}"


def _right(expectation: Expectation) -> str:
    kwargs = expectation.kwargs

    def shown(number: float) -> str:
        return f"{number:.6g}" if expectation.unit != "share" else f"{number:.1%}"

    if "value_set" in kwargs:
        no = "not " if "not" in expectation.expect else ""
        return f"{no}one of " + ", ".join(str(value) for value in kwargs["value_set"])
    bounds = []
    if "min_value" in kwargs:
        word = "more than" if kwargs.get("strict_min") else "at least"
        bounds.append(f"{word} {shown(kwargs['min_value'])}")
    if "max_value" in kwargs:
        word = "less than" if kwargs.get("strict_max") else "at most"
        bounds.append(f"{word} {shown(kwargs['max_value'])}")
    return " and ".join(bounds)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _whole(value: float) -> int | None:
    return None if math.isnan(value) else int(value)
