from __future__ import annotations

import subprocess
import sys
import warnings
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from raretrail.quality.judge import Verdict, judge, to_results
from raretrail.quality.measure import Measures
from raretrail.quality.suites import Suite
from raretrail.tables import DATA_QUALITY

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
BETWEEN = "expect_column_values_to_be_between"
Row = tuple[str, str | None, float | None, float | None, float | None]


def expectation(**changes: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": "e",
        "description": "It means this. Do that.",
        "severity": "critical",
        "count_where": "x",
        "unit": "rows",
        "expect": BETWEEN,
        "kwargs": {"max_value": 0},
        **changes,
    }
    if "measure" in changes:
        del entry["count_where"]
    return entry


def verdicts_on(rows: list[Row], errors: dict[str, str] | None = None, **changes: Any) -> list[Verdict]:
    """Verdicts of a suite of one expectation on (scope, value, measured, unexpected, elements)."""
    names = ["scope_column", "scope_value", "e", "e__unexpected", "e__elements"]
    frame = pd.DataFrame(rows, columns=names).astype({name: "float64" for name in names[2:]})
    suite = Suite(suite="events", noun="events", expectations=[expectation(**changes)])
    return judge(Measures(frame, errors or {}), suite, run_id="r1", checked_at=NOW)


def test_a_measure_within_bounds_passes() -> None:
    (verdict,) = verdicts_on([("none", None, 0, 0, 1204)])
    assert verdict.success
    assert (verdict.observed_value, verdict.unexpected_count, verdict.element_count) == (0, 0, 1204)
    assert (verdict.scope_column, verdict.scope_value) == (None, None)
    assert (verdict.run_id, verdict.suite, verdict.expectation) == ("r1", "events", "e")
    assert verdict.gx_version.startswith("1.")
    assert verdict.checked_at == NOW


@pytest.mark.parametrize(
    ("row", "changes", "said"),
    [
        ((3, 3, 1204), {}, "3 of 1,204 events."),
        ((3, 3, 1204), {"kwargs": {"max_value": 2}}, "3 of 1,204 events, expected at most 2."),
        (
            (0.25, 301, 1204),
            {"unit": "share", "kwargs": {"max_value": 0.05}},
            "301 of 1,204 events (25.0%), expected at most 5.0%.",
        ),
        (
            (0, None, 0),
            {"unit": "value", "measure": "count(*)", "kwargs": {"min_value": 1}},
            "0 over 0 events, expected at least 1.",
        ),
        (
            (12345, None, 12345),
            {
                "unit": "value",
                "measure": "m",
                "kwargs": {"min_value": 1, "max_value": 10, "strict_max": True},
            },
            "12,345 over 12,345 events, expected at least 1 and less than 10.",
        ),
        (
            (7, None, 9),
            {
                "unit": "value",
                "measure": "m",
                "expect": "expect_column_values_to_be_in_set",
                "kwargs": {"value_set": [1, 2]},
            },
            "7 over 9 events, expected one of 1, 2.",
        ),
        (
            (7, None, 9),
            {
                "unit": "value",
                "measure": "m",
                "expect": "expect_column_values_to_not_be_in_set",
                "kwargs": {"value_set": [7]},
            },
            "7 over 9 events, expected not one of 7.",
        ),
    ],
)
def test_a_failure_says_what_of_how_many_and_what_to_do(row, changes, said) -> None:
    (verdict,) = verdicts_on([("none", None, *row)], **changes)
    assert not verdict.success
    assert verdict.detail == f"events.e failed: {said} It means this. Do that."
    assert (verdict.observed_value, verdict.unexpected_count) == row[:2]


def test_a_scoped_failure_names_its_scopes_and_sums_up_the_rest() -> None:
    verdicts = verdicts_on(
        [
            ("none", None, None, None, None),
            ("recipient_account_id", "111", 0, 0, 10),
            ("recipient_account_id", "222", 2, 2, 20),
            ("recipient_account_id", "333", 1, 1, 30),
            ("recipient_account_id", "444", 0, 0, 40),
        ],
        scope="recipient_account_id",
    )
    seen = [(v.scope_value, v.success, v.unexpected_count, v.element_count) for v in verdicts]
    assert seen == [("222", False, 2, 20), ("333", False, 1, 30), (None, True, 0, 50)]
    assert all(v.scope_column == "recipient_account_id" for v in verdicts)
    assert "failed in recipient_account_id 222: 2 of 20 events." in verdicts[0].detail
    assert "in 2 of 4 values of recipient_account_id" in verdicts[2].detail


def test_a_null_scope_value_is_not_mistaken_for_the_whole() -> None:
    (verdict,) = verdicts_on([("aws_region", None, 1, 1, 2)], scope="aws_region")
    assert (verdict.success, verdict.scope_column, verdict.scope_value) == (
        False,
        "aws_region",
        "null",
    )


def test_mostly_lets_some_scopes_fail() -> None:
    rows: list[Row] = [("detector", f"d{i}", float(i == 0), 0, 1) for i in range(10)]
    kwargs = {"max_value": 0, "mostly": 0.9}
    assert [v.success for v in verdicts_on(rows, scope="detector", kwargs=kwargs)] == [True]
    rows[1] = ("detector", "d1", 1, 1, 1)
    failed = [v for v in verdicts_on(rows, scope="detector", kwargs=kwargs) if not v.success]
    assert [v.scope_value for v in failed] == ["d0", "d1"]


def test_a_measure_without_a_value_has_failed() -> None:
    changes = {"unit": "value", "measure": "max(x)", "kwargs": {"max_value": 5}}
    (verdict,) = verdicts_on([("none", None, None, None, 12)], **changes)
    assert not verdict.success
    assert "its measure gave no value over 12 events" in verdict.detail


def test_no_scope_at_all_has_nothing_to_fail() -> None:
    (verdict,) = verdicts_on([("none", None, None, None, None)], scope="detector")
    assert (verdict.success, verdict.element_count) == (True, 0)
    (verdict,) = verdicts_on([], scope="detector")
    assert verdict.success


def test_what_could_not_be_measured_has_failed_and_says_why() -> None:
    (verdict,) = verdicts_on([("none", None, None, None, None)], errors={"e": "divided by zero"})
    assert not verdict.success
    assert "could not be judged (divided by zero)" in verdict.detail


def test_an_exception_inside_great_expectations_is_a_failure() -> None:
    # The column is not in the frame, though nothing was noted as gone wrong.
    frame = pd.DataFrame({"scope_column": ["none"], "scope_value": [None], "other": [1.0]})
    suite = Suite(suite="events", expectations=[expectation()])
    (verdict,) = judge(Measures(frame, {}), suite, run_id="r1", checked_at=NOW)
    assert not verdict.success
    assert "could not be judged (Great Expectations: " in verdict.detail
    assert '"e"' in verdict.detail
    assert "\n" not in verdict.detail


def test_judging_is_quiet_and_changes_no_filter(capfd: pytest.CaptureFixture[str]) -> None:
    before = list(warnings.filters)
    verdicts_on([("none", None, 1, 1, 2)], name="e", description="Quiet. Quiet.")
    assert warnings.filters == before
    assert capfd.readouterr() == ("", "")


def test_great_expectations_is_imported_only_to_judge() -> None:
    code = (
        "import sys, raretrail.quality.judge, raretrail.quality.gate, raretrail.quality.measure;"
        "sys.exit('great_expectations' in sys.modules or 'pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_results_are_rows_of_data_quality() -> None:
    verdicts = verdicts_on([("detector", "a", 1, 1, 2), ("detector", "b", 0, 0, 2)], scope="detector")
    table = to_results(verdicts)
    assert table.schema.equals(DATA_QUALITY.arrow_schema())
    assert table["scope_value"].to_pylist() == ["a", None]
    assert table["success"].to_pylist() == [False, True]
    assert table["checked_at"].to_pylist() == [NOW, NOW]
    assert to_results([]).num_rows == 0
