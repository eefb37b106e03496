"""Measuring a table for a suite of expectations: all of them in one pass of Spark.

Great Expectations over a Spark frame starts a job or more for each expectation. Here one
aggregation yields a row for the whole table and one for each account, region or detector; that
small frame is what gets judged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raretrail.errors import UsageError
from raretrail.quality.suites import ACCOUNT_REGION, NO_SCOPE, Expectation, Suite

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import Column, DataFrame

# What is appended to an expectation's name for the columns beside its value.
UNEXPECTED = "__unexpected"
ELEMENTS = "__elements"


@dataclass(frozen=True)
class Measures:
    """What was measured.

    `frame`: a row for the whole table (`scope_column` is "none") and one for each value of each
    scope. For expectation `e` column `e` holds the value that is judged (null in rows of another
    scope), `e__unexpected` the bad rows (null where that is no count), `e__elements` the rows
    looked at. `errors`: by expectation, why it could not be measured.
    """

    frame: pd.DataFrame
    errors: dict[str, str]


def account_region() -> Column:
    """The account and the region of a row, as a scope names them together."""
    from pyspark.sql import functions as F

    return F.concat_ws("/", "recipient_account_id", F.coalesce("aws_region", F.lit("")))


def measure(df: DataFrame, suite: Suite) -> Measures:
    """Measure `df` for all of `suite` in one aggregation.

    An expression that Spark cannot resolve on `df` raises UsageError; one that fails on the data
    is noted in `errors` (found out by measuring one by one, so only then there are more jobs).
    """
    if any(expectation.scope == ACCOUNT_REGION for expectation in suite.expectations):
        df = df.withColumn(ACCOUNT_REGION, account_region())
    try:
        return Measures(_measured(df, suite.expectations), {})
    except Exception as error:
        return _one_by_one(df, suite, error)


def _one_by_one(df: DataFrame, suite: Suite, first_error: Exception) -> Measures:
    from pyspark.errors import AnalysisException

    for expectation in suite.expectations:
        try:
            _ = df.agg(*_aggregates(expectation)).schema
        except AnalysisException as error:
            raise UsageError(
                f"suite {suite.suite}, expectation {expectation.name}: Spark does not understand "
                f"its SQL ({_first_line(error)}); correct it in the suite's file"
            ) from None
    frames: list[pd.DataFrame] = []
    errors: dict[str, str] = {}
    for expectation in suite.expectations:
        try:
            frames.append(_measured(df, [expectation]))
        except Exception as error:
            errors[expectation.name] = _first_line(error)
    if not frames:
        # Not one expectation's fault: the table itself cannot be read.
        raise first_error
    keys = ["scope_column", "scope_value"]
    merged = frames[0]
    for frame in frames[1:]:
        merged = merged.merge(frame, on=keys, how="outer")
    return Measures(merged, errors)


def _measured(df: DataFrame, expectations: list[Expectation]) -> pd.DataFrame:
    import pandas as pd
    from pyspark.sql import functions as F

    aggregates = [column for e in expectations for column in _aggregates(e)]
    names = [name for e in expectations for name in (e.name, e.name + UNEXPECTED, e.name + ELEMENTS)]
    scopes = sorted({e.scope for e in expectations} - {NO_SCOPE})
    whole_wanted = any(e.scope == NO_SCOPE for e in expectations)

    rows: list[dict[str, object]] = []
    if scopes:
        sets = [[scope] for scope in scopes] + ([[]] if whole_wanted else [])
        absent = {scope: f"{scope}__absent" for scope in scopes}
        grouped = df.groupingSets(sets, *scopes).agg(
            *aggregates, *(F.grouping(scope).alias(absent[scope]) for scope in scopes)
        )
        for row in grouped.collect():
            scope = next((s for s in scopes if row[absent[s]] == 0), NO_SCOPE)
            value = None if scope == NO_SCOPE else row[scope]
            rows.append({"scope_column": scope, "scope_value": value, **_values(row, names)})
    if whole_wanted and all(row["scope_column"] != NO_SCOPE for row in rows):
        # The empty grouping set of an empty table has no row, a plain aggregation has.
        row = df.agg(*aggregates).collect()[0]
        rows.append({"scope_column": NO_SCOPE, "scope_value": None, **_values(row, names)})

    frame = pd.DataFrame(rows, columns=["scope_column", "scope_value", *names])
    frame = frame.astype({name: "float64" for name in names})
    frame = frame.astype({"scope_column": object, "scope_value": object})
    for e in expectations:
        elsewhere = frame["scope_column"] != e.scope
        frame.loc[elsewhere, [e.name, e.name + UNEXPECTED, e.name + ELEMENTS]] = float("nan")
    return frame.sort_values(["scope_column", "scope_value"], ignore_index=True)


def _values(row: object, names: list[str]) -> dict[str, float | None]:
    values = ((name, row[name]) for name in names)  # type: ignore[index]
    return {name: None if value is None else float(value) for name, value in values}


def _aggregates(expectation: Expectation) -> list[Column]:
    """Value, bad rows and rows looked at, each a double."""
    from pyspark.sql import functions as F

    if expectation.measure is not None:
        value = F.expr(expectation.measure)
        unexpected = value if expectation.unit == "rows" else F.lit(None)
        elements = F.count(F.lit(1))
    else:
        assert expectation.count_where is not None
        looked_at = F.expr(expectation.among) if expectation.among is not None else F.lit(True)
        bad = F.expr(expectation.count_where) & looked_at
        unexpected = F.count(F.when(bad, F.lit(1)))
        elements = F.count(F.when(looked_at, F.lit(1)))
        value = unexpected
        if expectation.unit == "share":
            value = F.coalesce(unexpected / F.nullif(elements, F.lit(0)), F.lit(0.0))
    return [
        value.cast("double").alias(expectation.name),
        unexpected.cast("double").alias(expectation.name + UNEXPECTED),
        elements.cast("double").alias(expectation.name + ELEMENTS),
    ]


def _first_line(error: Exception) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    first = next((line for line in lines if line), "no message")
    return re.sub(r"\s*SQLSTATE: .*", "", first).rstrip(".")
