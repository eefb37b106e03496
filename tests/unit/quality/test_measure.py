from __future__ import annotations

import math
from typing import Any

import pytest

from raretrail.errors import UsageError
from raretrail.quality.measure import measure
from raretrail.quality.suites import Suite

pytestmark = pytest.mark.integration

BETWEEN = "expect_column_values_to_be_between"
SCHEMA = "recipient_account_id string, aws_region string, id string, n int"
ROWS = [
    ("111", "eu-west-1", "a", 1),
    ("111", "us-east-1", "a", 0),
    ("222", "eu-west-1", None, 5),
    ("222", None, "c", None),
    (None, "eu-west-1", "d", 2),
]


def suite(*entries: dict[str, Any]) -> Suite:
    common = {
        "description": "x",
        "severity": "critical",
        "expect": BETWEEN,
        "kwargs": {"max_value": 0},
    }
    return Suite(suite="mine", expectations=[{"unit": "rows", **common, **e} for e in entries])


MIXED = suite(
    {"name": "ids", "count_where": "id IS NULL OR recipient_account_id IS NULL"},
    {"name": "small", "count_where": "n > 1", "among": "n IS NOT NULL", "unit": "share"},
    {"name": "copies", "measure": "count(id) - count(DISTINCT id)"},
    {"name": "top", "measure": "max(n)", "unit": "value"},
    {
        "name": "by_account",
        "count_where": "n > 1",
        "scope": "recipient_account_id",
        "unit": "share",
    },
    {"name": "by_region", "measure": "count(DISTINCT id)", "unit": "value", "scope": "aws_region"},
)


def table(measures: Any, name: str) -> dict[Any, tuple[Any, ...]]:
    """{(scope, value): (measured, unexpected, elements)} where the expectation was measured."""
    found = {}
    for _, row in measures.frame.iterrows():
        values = tuple(row[name + suffix] for suffix in ("", "__unexpected", "__elements"))
        if not all(math.isnan(v) for v in values):
            values = tuple(None if math.isnan(v) else v for v in values)
            found[(row["scope_column"], row["scope_value"])] = values
    return found


def test_everything_is_measured_within_its_scope(spark) -> None:
    measures = measure(spark.createDataFrame(ROWS, SCHEMA), MIXED)
    whole = ("none", None)
    assert measures.errors == {}
    assert table(measures, "ids") == {whole: (2, 2, 5)}
    assert table(measures, "small") == {whole: (0.5, 2, 4)}
    assert table(measures, "copies") == {whole: (1, 1, 5)}
    assert table(measures, "top") == {whole: (5, None, 5)}
    account, region = "recipient_account_id", "aws_region"
    assert table(measures, "by_account") == {
        (account, "111"): (0, 0, 2),
        (account, "222"): (0.5, 1, 2),
        (account, None): (1, 1, 1),
    }
    assert table(measures, "by_region") == {
        (region, "eu-west-1"): (2, None, 3),
        (region, "us-east-1"): (1, None, 1),
        (region, None): (1, None, 1),
    }


def test_an_empty_table_is_measured_as_empty(spark) -> None:
    measures = measure(spark.createDataFrame([], SCHEMA), MIXED)
    assert list(measures.frame["scope_column"]) == ["none"]
    assert table(measures, "ids") == {("none", None): (0, 0, 0)}
    assert table(measures, "small") == {("none", None): (0, 0, 0)}
    assert table(measures, "top") == {("none", None): (None, None, 0)}
    assert table(measures, "by_account") == {}


def test_sql_that_spark_does_not_understand_names_its_expectation(spark) -> None:
    frame = spark.createDataFrame(ROWS, SCHEMA)
    fine = {"name": "fine", "count_where": "n > 1"}
    for wrong in ("no_such_column > 1", "n >", "count(n) > 1", "no_such_function(n)"):
        with pytest.raises(UsageError, match="suite mine, expectation odd: Spark does not") as caught:
            measure(frame, suite(fine, {"name": "odd", "count_where": wrong}))
        assert "\n" not in str(caught.value)


def test_sql_that_fails_on_the_data_spoils_only_its_own_expectation(spark) -> None:
    entries = [
        {"name": "fine", "count_where": "n > 1"},
        {"name": "odd", "count_where": "1 / n > 1"},
        {"name": "by_account", "count_where": "n > 1", "scope": "recipient_account_id"},
    ]
    measures = measure(spark.createDataFrame(ROWS, SCHEMA), suite(*entries))
    assert set(measures.errors) == {"odd"}
    assert "DIVIDE_BY_ZERO" in measures.errors["odd"]
    assert table(measures, "fine") == {("none", None): (2, 2, 5)}
    assert table(measures, "by_account")[("recipient_account_id", "222")] == (1, 1, 2)


def test_a_table_that_cannot_be_read_is_no_expectations_fault(spark) -> None:
    from pyspark.sql import functions as F

    frame = spark.createDataFrame(ROWS, SCHEMA)
    broken = frame.where(F.raise_error(F.lit("disk on fire")).isNotNull())
    with pytest.raises(Exception, match="disk on fire"):
        measure(broken, suite({"name": "fine", "count_where": "n > 1"}))
