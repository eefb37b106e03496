"""A backtest on the screen: fits any width, is plain in a pipe, and holds what a log smuggles in."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from rich.cells import cell_len

from raretrail.backtest import Backtest, Calibration, to_bands, to_budget, to_causes, to_level
from raretrail.show.backtest import CSV_COLUMNS, backtest_json, backtest_rows, backtest_text, bar
from raretrail.show.rows import csv_lines
from raretrail.show.text import Screen, to_json

EVIL = "x\x1b]0;owned\x07\u202egnp.exe\x9b2J\nforged [bold]line[/bold]"
FIRST = date(2026, 1, 1)
SCORES = (96.0, 91.3, 77.0, 64.0, 51.0, 33.0, 12.0, 7.0)


def found(days: int = 30, evil: str = "", gaps: bool = False, **more: Any) -> Backtest:
    judged = [FIRST + timedelta(days=n) for n in range(days) if not gaps or n % 5]
    rows = [
        {"first_date": judged[n * 7 % len(judged)], "score": SCORES[n % len(SCORES)], "bits": 5.0 + n,
         "actor": evil + "ana" if n % 3 else f"user{n}", "detectors": [f"{evil}unusual_country_for_command"],
         "place": "city:1", "place_name": f"{evil}Rome, IT", "networks": [f"{evil}AS{n % 2}"],
         "commands": [f"{evil}organizations:ListDelegatedServicesForAccount", f"c{n}"],
         "verdict": ("malicious", evil + "benign", None)[n % 3], "suppressed_by": None if n % 5 else "d1"}
        for n in range(40)
    ]  # fmt: skip
    seen = [row for row in rows if row["score"] >= 50 and not row["suppressed_by"]]
    levels = tuple(to_level(rows, judged, score) for score in (5.0, 50.0, 75.0, 90.0))
    return Backtest(
        **{
            "days": tuple(judged), "by_runs": True, "until": None, "left_out": 0,
            "every": to_level(rows, judged, 0.0), "levels": levels, "configured": 50.0, "chosen": levels[1],
            "by_day": tuple(sum(row["first_date"] == day for row in seen) for day in judged),
            "causes": to_causes(seen, 10),
            "bands": to_bands(rows, judged, {"high": 75.0}, Calibration(20, (30.0, 9.0))),
            "budget": to_budget(rows, judged, 1.0), **more,
        }
    )  # fmt: skip


@pytest.mark.parametrize("width", [40, 60, 75, 76, 80, 100, 120, 200])
@pytest.mark.parametrize("evil", ["", EVIL, "東京" * 30])
def test_it_fits_any_width_and_does_nothing_but_show(width: int, evil: str) -> None:
    text = backtest_text(found(evil=evil, gaps=True), Screen(width))
    assert max(map(cell_len, text.splitlines())) <= width
    acting = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") and c != "\n"}
    assert not acting
    assert not [line for line in text.splitlines() if line.startswith("forged")]
    assert "…" not in text.partition("Who")[0], "numbers are never cut"


def test_it_is_coloured_on_a_terminal_alone() -> None:
    assert "\x1b[" in backtest_text(found(), Screen(80, colour=True))
    assert "\x1b" not in backtest_text(found(), Screen(80))


def test_json_and_csv_hold_it_too() -> None:
    one = found(evil=EVIL)
    text = to_json(backtest_json(one), indent=2)
    for told in (text, "".join(csv_lines(CSV_COLUMNS, iter(backtest_rows(one))))):
        assert "\x1b" not in told and "\u202e" not in told
    top = json.loads(text)["causes"]["actor"]["top"]
    assert EVIL + "ana" in [cause["value"] for cause in top]
    formula = found(evil="=1+1;")
    assert ",'=1+1;ana,'=1+1;ana," in "".join(csv_lines(CSV_COLUMNS, iter(backtest_rows(formula))))


def test_every_row_has_only_known_columns() -> None:
    assert all(set(row) == set(CSV_COLUMNS) for row in backtest_rows(found()))


def test_marks_tell_the_thresholds_apart() -> None:
    one = found()
    text = backtest_text(one, Screen(80))
    assert "\n > 50 " in text and "> alerts.min_score\n" in text and "--min-score" not in text
    other = found(chosen=one.levels[2])
    text = backtest_text(other, Screen(80))
    assert "\n > 50 " in text and "\n * 75 " in text and "At 75 (--min-score)" in text


def test_a_sign_a_day_over_gaps_and_crowds() -> None:
    days = tuple(FIRST + timedelta(days=n) for n in (0, 1, 3, 100))
    text = backtest_text(replace(found(), days=days, by_day=(0, 9, 10, 1)), Screen(80))
    assert f"\n2026-01-01  .9_+{'_' * 59}\n" in text
    assert "\n2026-03-05  " in text, "a line begins with its own day"
    assert "a sign a day: . none, + more than 9, _ not judged" in text


def test_what_is_out_of_the_ordinary_is_said() -> None:
    until = datetime(2026, 1, 30, 17, 45, tzinfo=UTC)
    text = backtest_text(found(by_runs=False, until=until, left_out=1), Screen(100))
    assert "days with incidents are taken" in text
    assert "the last day was judged until 17:45 UTC" in text
    assert "1 incident of days that no good run judged is left out" in text


@pytest.mark.parametrize(
    ("part", "drawn"), [(0.0, ""), (1.0, "████"), (0.5, "██"), (0.6, "██▍"), (1e-9, "▏"), (2.0, "████")]
)
def test_a_bar_is_as_long_as_its_part(part: float, drawn: str) -> None:
    assert bar(part, 4) == drawn
