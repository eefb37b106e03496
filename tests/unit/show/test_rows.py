"""The rows of a query as table, CSV and JSON lines."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from raretrail.show.rows import csv_lines, json_lines, rows_table
from raretrail.show.text import Screen

AT = datetime(2026, 2, 15, 5, 43, 35, tzinfo=UTC)


def test_a_table_puts_numbers_to_the_right_and_counts_rows() -> None:
    rows = [{"command": "iam:GetUser", "n": 7}, {"command": "s3:ListBuckets", "n": 1200}]
    assert rows_table(["command", "n"], rows, Screen(80)).splitlines() == [
        "command            n",
        "iam:GetUser        7",
        "s3:ListBuckets  1200",
        "2 rows",
    ]


def test_many_columns_become_a_field_a_line() -> None:
    names = [f"column_{i}" for i in range(60)]
    text = rows_table(names, [dict.fromkeys(names, "v") | {"column_3": None}], Screen(80))
    assert "column_59  v" in text
    assert "column_3 " not in text, "empty fields are left out"
    assert max(map(cell_len, text.splitlines())) <= 80


def test_no_rows() -> None:
    assert rows_table(["a"], [], Screen(80)).splitlines() == ["a", "0 rows"]
    assert rows_table([f"column_{i}" for i in range(60)], [], Screen(80)) == "0 rows\n"


@given(st.lists(st.text(max_size=20), max_size=4), st.integers(40, 120))
def test_a_table_is_inert_and_fits(values: list[str], width: int) -> None:
    text = rows_table(["a", "b"], [{"a": value, "b": value} for value in values], Screen(width))
    assert not {c for c in text if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)}
    assert max(map(cell_len, text.splitlines())) <= width


@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=20), max_size=4))
def test_json_lines_read_back(values: list[str]) -> None:
    rows = [{"a": value, "at": AT} for value in values]
    lines = "".join(json_lines(["a", "at"], iter(rows))).splitlines()
    assert [json.loads(line) for line in lines] == [{"a": v, "at": "2026-02-15T05:43:35Z"} for v in values]


def test_csv_holds_no_formula_and_keeps_numbers() -> None:
    rows = [{"agent": '=HYPERLINK("x")', "n": -3}, {"agent": "a,b\x1b", "n": None}]
    text = "".join(csv_lines(["agent", "n"], iter(rows)))
    assert list(csv.reader(io.StringIO(text))) == [
        ["agent", "n"],
        ['\'=HYPERLINK("x")', "-3"],
        ["a,b\\x1b", ""],
    ]


def test_nested_values_are_json() -> None:
    text = "".join(csv_lines(["m"], iter([{"m": {"a": [1, 2]}}])))
    assert list(csv.reader(io.StringIO(text)))[1] == ['{"a": [1, 2]}']
