"""Backtests: the arithmetic by hand, what is read of a warehouse, the command. No Spark starts here."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from raretrail import backtest, cli
from raretrail.backtest import (
    Calibration,
    Period,
    bits_for,
    expected_per_day,
    judged_days,
    promised_per_day,
    score_of,
    to_bands,
    to_budget,
    to_causes,
    to_level,
)
from raretrail.errors import EXIT_USAGE, UsageError
from raretrail.look import open_duckdb
from raretrail.report.charts import threshold_curve
from raretrail.report.gather import gather
from raretrail.report.page import _judged_days
from raretrail.settings import load_settings
from raretrail.tables import ANOMALIES, CALIBRATIONS, INCIDENTS, RUNS, Table
from small_warehouse import make_small_warehouse

FIRST = date(2026, 2, 1)
SEVERITY = {"medium": 50.0, "high": 75.0, "critical": 90.0}


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def incident(on: int, score: float | None, **more: Any) -> dict[str, Any]:
    return {"first_date": day(on), "score": score, "bits": (score or 0) / 4, **more}


FOUR = [day(n) for n in range(4)]
# Three on the first day, one suppressed on the second, none on the third, two on the fourth.
ROWS = [
    incident(0, 95.0, verdict="malicious"), incident(0, 80.0, verdict="benign"), incident(0, 20.0),
    incident(1, 85.0, suppressed_by="d1", verdict="planned"), incident(3, 50.0), incident(3, 49.99),
]  # fmt: skip


# ------------------------------------------------------------------------------------------ arithmetic


def test_a_level_counts_by_hand() -> None:
    level = to_level(ROWS, FOUR, 50.0)
    assert (level.incidents, level.suppressed, level.a_day) == (3, 1, 0.75)
    assert (level.most, level.most_day, level.days_without) == (2, day(0), 2)
    assert level.promised == 1.0
    assert level.verdicts == {"malicious": 1, "benign": 1, "planned": 1}
    assert level.with_verdict == 3 and level.precision == pytest.approx(1 / 3)
    everything = to_level(ROWS, FOUR, 0.0)
    assert (everything.incidents, everything.most, everything.promised) == (5, 3, None)


def test_a_level_of_nothing_is_nothing() -> None:
    level = to_level([], FOUR, 50.0)
    assert (level.incidents, level.most, level.most_day, level.days_without) == (0, 0, None, 4)
    assert level.precision is None
    assert to_level([incident(0, None)], FOUR, 5.0).incidents == 0
    assert to_level([incident(0, None)], FOUR, 0.0).incidents == 1


@pytest.mark.parametrize(("score", "a_day"), [(50, 1.0), (75, 1 / 3), (90, 1 / 9), (100, 0.0), (5, 19.0)])
def test_a_threshold_promises_what_the_settings_say(score: float, a_day: float) -> None:
    assert promised_per_day(score) == pytest.approx(a_day)


def test_expectation_is_that_of_the_rank() -> None:
    from raretrail.detect import rank

    assert (backtest.PRIOR_DAYS, backtest.PRIOR_LEVEL, backtest.PRIOR_HALVING) == (
        rank.PRIOR_DAYS, rank.PRIOR_LEVEL, rank.PRIOR_HALVING,
    )  # fmt: skip
    # The worked example of docs/how-it-decides.md.
    after = Calibration(14, (30.0, 25.0, 16.37, 15.0))
    assert expected_per_day(16.37, after) == pytest.approx(0.216, abs=5e-4)
    assert round(score_of(16.37, after), 1) == 82.2
    assert score_of(12.0, Calibration()) == 50.0, "the prior alone is one a day at 12 bits"


def test_bits_for_a_score_are_the_fewest_that_reach_it() -> None:
    assert bits_for(50.0, Calibration()) == pytest.approx(12.0)
    after = Calibration(14, (30.0, 25.0, 16.37, 15.0))
    for score in (10.0, 50.0, 75.0, 90.0):
        bits = bits_for(score, after)
        assert bits is not None
        assert score_of(bits, after) >= score > score_of(bits - 0.01, after)
    assert bits_for(0.0, after) == 0.0
    assert bits_for(99.99, Calibration(30, (99.0,) * 30)) is None, "as many outrank whatever there is"


def test_bands_are_those_of_the_settings() -> None:
    critical, high, medium, low = to_bands(ROWS, FOUR, SEVERITY, Calibration())
    assert [b.severity for b in (critical, high, medium, low)] == ["critical", "high", "medium", "low"]
    assert (critical.incidents, high.incidents, high.suppressed) == (1, 1, 1)
    assert (medium.incidents, low.incidents, low.most) == (1, 2, 1)
    assert (high.least_bits, high.most_bits) == (20.0, 21.25)
    assert high.promised == pytest.approx(1 / 3 - 1 / 9) and critical.promised == pytest.approx(1 / 9)
    assert low.promised is None and medium.takes_bits == pytest.approx(12.0)
    only = to_bands([], FOUR, {"high": 75.0}, Calibration())
    assert [(b.severity, b.incidents, b.least_bits) for b in only] == [("high", 0, None), ("low", 0, None)]


def test_a_budget_is_kept_by_the_lowest_threshold_that_does() -> None:
    budget = to_budget(ROWS, FOUR, 1.0)
    assert budget.promising == 50.0
    # Four may pass in four days: 20 must not, 49.99 may.
    assert (budget.on_average, budget.on_average_incidents) == (21.0, 4)
    # The second of the first day, 80, must not pass: nor the second of the last.
    assert (budget.on_every_day, budget.on_every_day_incidents) == (81.0, 1)
    assert to_budget(ROWS, FOUR, 1.25).on_average == 0.0, "all five pass"
    assert to_budget(ROWS, FOUR, 0.25).on_average == 81.0
    half = to_budget(ROWS, FOUR, 0.5)
    assert half.on_every_day == 96.0 and half.on_every_day_incidents == 0


def test_a_threshold_is_as_round_as_it_can_be() -> None:
    def lowest(*scores: float) -> float | None:
        """The threshold that lets only the highest pass."""
        return to_budget([incident(0, score) for score in scores], [day(0)], 1.0).on_average

    assert lowest(54.56, 44.74) == 45.0
    assert lowest(54.56, 54.32) == 54.4
    assert lowest(54.56, 54.51) == 54.52
    assert lowest(54.56, 54.55) == 54.56
    assert lowest(54.56, 54.56) == 55.0, "of equals none passes"
    assert lowest(100.0, 100.0) is None
    assert lowest() == 0.0


def test_a_share_of_days_is_no_fraction_too_few() -> None:
    rows = [incident(n, 60.0 + n) for n in range(4)]
    assert to_budget(rows, [day(n) for n in range(30)], 0.1).on_average_incidents == 3


def test_causes_are_ranked_with_shares() -> None:
    def row(actor: str, detectors: list[str], commands: list[str] | None) -> dict[str, Any]:
        return {"actor": actor, "detectors": detectors, "commands": commands, "place": "city:1",
                "place_name": "Rome, IT", "networks": ["AS1", None]}  # fmt: skip

    rows = [row("ana", ["a", "b"], ["x", "y"]), row("ana", ["a"], ["y", "x"]), row("bo", ["b"], None)]
    rows.append(row("arn:aws:iam::111122223333:role/deploy", ["b"], ["y"]))
    causes = to_causes(rows, 2)
    assert [(c.value, c.incidents, c.share, c.alone) for c in causes["actor"].top] == [
        ("ana", 2, 0.5, 2), ("arn:aws:iam::111122223333:role/deploy", 1, 0.25, 1),
    ]  # fmt: skip
    assert causes["actor"].top[1].name == "role/deploy in 111122223333"
    assert causes["actor"].total == 3
    assert [(c.value, c.incidents, c.alone) for c in causes["detector"].top] == [("b", 3, 2), ("a", 2, 1)]
    assert [(c.value, c.incidents) for c in causes["command"].top] == [("y", 3), ("x", 2)]
    assert [(c.value, c.name, c.incidents) for c in causes["place"].top] == [("city:1", "Rome, IT", 4)]
    assert [c.value for c in causes["network"].top] == ["AS1"]
    assert all(not kind.top for kind in to_causes([], 10).values())


def test_judged_days_are_those_of_windows_that_are_done() -> None:
    def run(status: str, start: datetime | None, end: datetime | None) -> dict[str, Any]:
        return {"status": status, "window_from": start, "window_to": end}

    at = datetime(2026, 2, 1, tzinfo=UTC)
    runs = [
        run("done", at, at + timedelta(days=2)), run("held", at, at + timedelta(days=9)),
        run("done", None, None),
        run("done", at + timedelta(days=4, hours=23), at + timedelta(days=5, hours=1)),
    ]  # fmt: skip
    assert judged_days(runs) == {day(0), day(1), day(4), day(5)}


def test_the_reports_curve_is_the_same_count() -> None:
    curve = threshold_curve(ROWS, len(FOUR), 50.0)
    assert curve is not None
    for threshold, number, a_day in [*curve.table, curve.chosen]:
        level = to_level(ROWS, FOUR, threshold)
        assert (number, a_day) == (level.incidents, round(level.a_day, 2))


# --------------------------------------------------------------------------------------------- reading


def write(root: Path, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    write_deltalake(str(root / table.name), pa.Table.from_pylist(list(rows), schema=table.arrow_schema()))


def numbered(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"incident_id": f"{n:032x}", "actor": f"user{n}", "detectors": ["d"], "networks": ["AS7"],
         "commands": ["iam:GetUser"], "place": "city:1", "place_name": "Rome, IT"} | row
        for n, row in enumerate(rows)
    ]  # fmt: skip


def done(start: int, end: int, **more: Any) -> dict[str, Any]:
    midnight = datetime(2026, 2, 1, tzinfo=UTC)
    return {"run_id": f"r{start}", "status": "done", "started_at": midnight + timedelta(days=end),
            "window_from": midnight + timedelta(days=start), "window_to": midnight + timedelta(days=end),
            "settings_hash": "new"} | more  # fmt: skip


@pytest.fixture
def warehouse(tmp_path: Path) -> str:
    """The rows above on judged days, and one of a day that no run judged."""
    root = tmp_path / "w"
    write(root, INCIDENTS, numbered([*ROWS, incident(2, 99.0, commands=None, networks=None)]))
    write(root, RUNS, [done(0, 2), done(3, 4), done(2, 3, status="held")])
    names = {"network": "AS7", "as_organization": "HostForge", "bucket_date": day(0)}
    write(
        root, ANOMALIES, [names | {"anomaly_id": "a"}, {**names, "anomaly_id": "b", "as_organization": None}]
    )
    shared = {"as_of": day(3), "judged_days": 2}
    write(
        root,
        CALIBRATIONS,
        [
            shared | {"settings_hash": "old", "bits": [90.0] * 50},
            shared | {"settings_hash": "new", "bits": []},
        ],
    )
    return str(root)


def test_a_warehouse_is_read_by_its_judged_days(warehouse: str) -> None:
    settings, _ = load_settings()
    with open_duckdb(warehouse) as look:
        found = backtest.read(look, settings, Period())
        assert found.days == (day(0), day(1), day(3)) and found.by_runs and found.left_out == 1
        assert found.until is None and found.configured == found.chosen.score == 50.0
        assert found.chosen.incidents == 3 and found.by_day == (2, 0, 1)
        assert [level.score for level in found.levels] == [*backtest.THRESHOLDS]
        assert found.causes["network"].top[0].name == "AS7 HostForge"
        # Of the calibrations of one day that of the settings which judged last.
        assert found.bands[2].takes_bits == bits_for(50.0, Calibration(2, ()))
        other = backtest.read(look, settings, Period(), min_score=83.5, top=1)
        assert other.chosen.score == 83.5 and 83.5 in [level.score for level in other.levels]
        assert (len(other.causes["actor"].top), other.chosen.incidents) == (1, 1)


def test_a_period_is_the_last_days_or_from_and_to(warehouse: str) -> None:
    settings, _ = load_settings()

    def days(period: Period) -> tuple[date, ...]:
        with open_duckdb(warehouse) as look:
            return backtest.read(look, settings, period).days

    assert days(Period(days=1)) == (day(3),)
    assert days(Period(days=3)) == (day(1), day(3))
    assert days(Period(end=day(3))) == (day(0), day(1))
    assert days(Period(start=day(1))) == (day(1), day(3))
    assert days(Period(start=day(0), end=day(1))) == (day(0),)
    with pytest.raises(UsageError, match="nothing was judged from 2026-02-03 to 2026-02-03; judged days lie"):
        days(Period(start=day(2), end=day(3)))


def test_without_runs_the_days_with_incidents_stand_in(tmp_path: Path) -> None:
    write(tmp_path, INCIDENTS, numbered(ROWS))
    settings, _ = load_settings()
    with open_duckdb(str(tmp_path)) as look:
        found = backtest.read(look, settings, Period())
    assert (found.days, found.by_runs) == ((day(0), day(1), day(3)), False)
    assert found.bands[2].takes_bits == pytest.approx(12.0), "no calibration: the prior alone"


# --------------------------------------------------------------------------------------------- command


def run(*arguments: str) -> int:
    try:
        return cli.main(["backtest", *arguments])
    except SystemExit as ended:  # how argparse refuses
        assert isinstance(ended.code, int)
        return ended.code


def test_json_table_and_csv_tell_the_same(
    warehouse: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    told = {}
    for form in ("text", "json", "csv"):
        assert run("--warehouse", warehouse, "--format", form, "--min-score", "60") == 0
        told[form] = capsys.readouterr().out
    page = json.loads(told["json"])
    rows = list(csv.DictReader(io.StringIO(told["csv"])))
    lines = [line.replace("> ", "").replace("* ", "").split() for line in told["text"].splitlines()]
    by_csv = {float(row["score"]): row for row in rows if row["part"] == "threshold"}
    assert len(page["thresholds"]) == len(by_csv) == 10
    for level in page["thresholds"]:
        (line,) = [words for words in lines if words and words[0] == f"{level['score']:g}" and len(words) > 8]
        shown = [f"{level['promised_a_day']:.2f}", f"{level['a_day']:.2f}"]
        shown += [str(level[name]) for name in ("most", "days_without", "incidents", "suppressed")]
        shown += [str(level["malicious"]), "of", str(level["with_verdict"])]
        assert line[1:10] == shown
        for name, value in level.items():
            shown_there = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
            assert by_csv[level["score"]][name] == shown_there
    for kind, causes in page["causes"].items():
        own = [row for row in rows if row["part"] == kind]
        assert own[0]["value"] == str(causes["total"])
        assert [row["name"] for row in own[1:]] == [cause["name"] for cause in causes["top"]]
        assert all(cause["name"] in told["text"] for cause in causes["top"])
    assert page["verdicts"] == {"malicious": 1, "benign": 1, "planned": 1}
    assert page["precision"] == 0.3333
    assert "on 3 of 3, suppressed ones too: 1 malicious, 1 benign, 1 planned; precision 33%" in told["text"]
    assert page["days"] == [{"day": str(day(n)), "incidents": times} for n, times in ((0, 2), (1, 0), (3, 0))]
    assert "2026-02-01  2._." in told["text"]
    names = [row["name"] for row in rows if row["part"] == "threshold" and row["name"]]
    assert names == ["alerts.min_score", "min_score"]
    budget = page["budget"]
    assert f"kept on average by    {budget['on_average']:g}  " in told["text"]
    assert {row["name"]: row["score"] for row in rows if row["part"] == "budget"} == {
        name: f"{budget[name]:g}" for name in ("promising", "on_average", "on_every_day")
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--days", "0"], "--days is 1 to 3660"),
        (["--per-day", "0"], "--per-day is a number of incidents above 0"),
        (["--per-day", "nan"], "--per-day is a number of incidents above 0"),
        (["--min-score", "101"], "--min-score is a score, 0 to 100"),
        (["--min-score", "nan"], "--min-score is a score, 0 to 100"),
        (["--top", "0"], "--top starts at 1"),
        (["--from", "2026-02-02", "--to", "2026-02-02"], "is not before --to"),
        (["--from", "2026-02-02T10:00"], "--from must be a day"),
        (["--from", "2026-02-02", "--days", "3"], "give it or --from"),
        (["--from", "2027-01-01", "--to", "2027-02-01"], "nothing was judged from 2027-01-01 to 2027-01-31"),
        (["--from", "2027-01-01"], "nothing was judged from 2027-01-01 on"),
    ],
)
def test_what_cannot_be_answered_is_said_in_a_line(
    options: list[str], said: str, warehouse: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--warehouse", warehouse, *options) == EXIT_USAGE
    told = capsys.readouterr()
    assert said in told.err and told.err.count("\n") == 1 and not told.out


def test_where_nothing_was_judged_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, RUNS, [done(0, 1, status="failed")])
    assert run("--warehouse", str(tmp_path)) == EXIT_USAGE
    told = capsys.readouterr()
    assert told.err.startswith("raretrail: nothing was judged yet: `raretrail run`") and not told.out


def test_judged_days_without_an_incident_are_an_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, RUNS, [done(0, 5)])
    for form in ("text", "json", "csv"):
        assert run("--warehouse", str(tmp_path), "--format", form) == 0
        assert capsys.readouterr().out
    assert run("--warehouse", str(tmp_path)) == 0
    text = capsys.readouterr().out
    assert text.startswith("2026-02-01 to 2026-02-05: 5 judged days, 0 incidents (0.00 a day)\n")
    assert "At 50 (alerts.min_score): 0 incidents, 0.00 a day" in text and "Who" not in text


def test_the_manuals_warehouse_has_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    warehouse = str(make_small_warehouse(tmp_path / "w"))
    assert run("--warehouse", warehouse) == 0
    text = capsys.readouterr().out
    assert text.startswith("2026-02-07 to 2026-02-21: 15 judged days, 1 incident (0.07 a day)\n")
    assert "the last day was judged until 17:45 UTC" in text
    assert "Who, one incident each\nfarah.evans\n" in text
    assert "AS4200000524 HostForge Cloud" in text


def test_the_report_takes_the_same_days(tmp_path: Path) -> None:
    root = make_small_warehouse(tmp_path / "w")
    settings, _ = load_settings()
    with open_duckdb(str(root)) as look:
        found = backtest.read(look, settings, Period())
        material = gather(look, str(root), datetime(2026, 3, 1, tzinfo=UTC))
    assert sorted(_judged_days(material)) == [*found.days]
