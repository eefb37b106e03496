"""The command line: what it takes, what it refuses, how it ends. No Spark starts here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from raretrail import cli
from raretrail.cli import main, step_main
from raretrail.errors import EXIT_FAILED, EXIT_USAGE, BusyError
from raretrail.settings import load_settings
from raretrail.tables import ANOMALIES, EVENTS, INCIDENTS

AT = datetime(2026, 2, 23, 4, 26, tzinfo=UTC)
ANA, BO = "a" * 8 + "1" * 24, "a" * 8 + "2" * 24


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("w")

    def incident(identifier: str, user: str, score: float, at: datetime) -> dict[str, Any]:
        return {
            "incident_id": identifier, "first_date": at.date(), "first_time": at, "last_time": at,
            "principal": f"arn:aws:iam::111122223333:user/{user}", "principal_kind": "user",
            "recipient_account_ids": ["111122223333"], "place_name": "Bilbao, ES", "score": score,
            "bits": score / 2.5, "severity": "high" if score > 60 else "low", "event_count": 1,
            "commands": ["iam:GetUser"], "source_ip_addresses": ["192.0.2.1"], "summary": "why",
            "evidence_event_ids": [f"event-{user}"], "detectors": ["d"],
        }  # fmt: skip

    def write(table: Any, rows: list[dict[str, Any]], partition: str) -> None:
        data = pa.Table.from_pylist(rows, schema=table.arrow_schema())
        write_deltalake(str(root / table.name), data, partition_by=[partition])

    write(
        INCIDENTS,
        [incident(ANA, "ana", 70.0, AT), incident(BO, "bo", 30.0, AT.replace(day=24))],
        "first_date",
    )
    finding = {
        "anomaly_id": "f" * 32, "incident_id": ANA, "bucket_date": AT.date(), "bucket_start": AT,
        "detector": "d", "command": "iam:GetUser", "bits": 28.0, "event_count": 1, "maturity": 1.0,
    }  # fmt: skip
    write(ANOMALIES, [finding], "bucket_date")
    events = [
        {"event_id": f"event-{user}", "event_time": AT, "event_date": AT.date(), "command": "iam:GetUser",
         "request_parameters": '{"userName":"\\u001b"}'}
        for user in ("ana", "bo")
    ]  # fmt: skip
    write(EVENTS, events, "event_date")
    return str(root)


def run(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as ended:  # how argparse refuses
        assert isinstance(ended.code, int)
        return ended.code


def test_help_answers_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "raretrail", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    heavy = {"pyspark", "pydantic", "pyarrow", "duckdb", "deltalake", "rich", "yaml", "pandas"}
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not heavy & loaded
    for name in (
        "run",
        "ingest",
        "baseline",
        "score",
        "publish",
        "demo",
        "simulate",
        "sql",
        "incidents",
        "show",
        "export",
        "backtest",
    ):
        assert f"\n    {name}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "2026-02-15", "--to", "2026-02-01"], "is not before --to"),
        (["--from", "2026-02-15"], "--from and --to go together"),
        (["--from", "2999-01-01", "--to", "2999-01-02"], "lies in the future"),
        (["--as-of", "2999-01-01"], "lies in the future"),
        (["--from", "2026-02-15T10:30", "--to", "2026-02-16"], "must be a full hour"),
        (["--from", "yesterday", "--to", "2026-02-16"], "is no date or time: write 2026-02-15"),
        (["--lookback", "soon"], "is no duration"),
        (["--conf", "/no/such/file.yml"], "no such file or folder"),
        (["--no-such-option"], "unrecognized arguments"),
    ],
)
def test_what_only_the_user_can_mend_is_said_before_anything_starts(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_spark", lambda settings: pytest.fail("a session was opened"))
    assert run("run", "--trail", "t", "--warehouse", "w", *arguments) == EXIT_USAGE
    assert said in capsys.readouterr().err


def test_times_without_a_zone_are_utc() -> None:
    assert cli._moment("2026-02-15") == datetime(2026, 2, 15, tzinfo=UTC)
    assert cli._moment("2026-02-15T14:30") == datetime(2026, 2, 15, 14, 30, tzinfo=UTC)
    assert cli._moment("2026-02-15T14:30+02:00") == datetime(2026, 2, 15, 12, 30, tzinfo=UTC)


def test_settings_say_where_each_came_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = tmp_path / "mine.yml"
    conf.write_text("score: {lookback: 3h}\nalerts: {max_per_run: 5}\n")
    options = ["--conf", str(conf), "--lookback", "4h", "--trail", "a", "b", "--print-settings"]
    assert main(["run", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'score.lookback: "4h"  # command line' in lines
    assert f"alerts.max_per_run: 5  # {conf}" in lines
    assert 'ingest.history: "90d"  # defaults' in lines
    assert 'trail: ["a", "b"]  # command line' in lines


def test_jobs_take_the_same_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert step_main("score", ["--history", "30d", "--print-settings"]) == 0
    assert 'ingest.history: "30d"  # command line' in capsys.readouterr().out


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.delenv("RARETRAIL_DEBUG", raising=False)
    yield monkeypatch


def test_each_failure_has_its_exit_code(
    failing: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_with(error: BaseException) -> tuple[int, str]:
        def fail(arguments: object) -> None:
            raise error

        failing.setattr(cli, "_settings", fail)
        code = main(["run", "--trail", "t"])
        return code, capsys.readouterr().err

    assert fail_with(BusyError("held")) == (4, "raretrail: held\n")
    code, said = fail_with(ValueError("bad\nlong story"))
    assert code == EXIT_FAILED
    assert said == "raretrail: failed: ValueError: bad; --debug shows where\n"
    code, said = fail_with(KeyboardInterrupt())
    assert (code, "goes on where it was" in said) == (130, True)
    failing.setenv("RARETRAIL_DEBUG", "1")
    assert "Traceback" in fail_with(ValueError("bad"))[1]


def test_incidents_are_sorted_filtered_and_paged(warehouse: str, capsys: pytest.CaptureFixture[str]) -> None:
    def ids(*options: str) -> list[str]:
        assert main(["incidents", "--warehouse", warehouse, "--format", "json", *options]) == 0
        return [json.loads(line)["incident_id"] for line in capsys.readouterr().out.splitlines()]

    assert ids() == [ANA, BO]
    assert ids("--limit", "1", "--page", "2") == [BO]
    assert ids("--min-score", "50") == ids("--severity", "high") == ids("--principal", "ANA") == [ANA]
    assert ids("--since", "2026-02-24") == [BO]
    assert ids("--until", "2026-02-24") == [ANA]
    assert main(["incidents", "--warehouse", warehouse, "--limit", "0"]) == EXIT_USAGE


def test_incidents_say_so_when_there_are_none(warehouse: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["incidents", "--warehouse", warehouse, "--min-score", "99"]) == 0
    assert capsys.readouterr().out == "no incidents\n"


def test_show_takes_any_prefix_that_names_one(warehouse: str, capsys: pytest.CaptureFixture[str]) -> None:
    def shown(identifier: str) -> Any:
        assert main(["show", identifier, "--warehouse", warehouse, "--format", "json"]) == 0
        text = capsys.readouterr().out
        assert "\x1b" not in text
        return json.loads(text)

    page = shown(ANA[:9])
    assert page["incident"]["incident_id"] == ANA
    assert [row["anomaly_id"] for row in page["findings"]] == ["f" * 32]
    assert [row["event_id"] for row in page["events"]] == ["event-ana"]
    assert shown("ffff")["incident"]["incident_id"] == ANA, "a finding shows its incident"
    assert main(["show", "aaaa", "--warehouse", warehouse]) == EXIT_USAGE
    assert "more than one" in capsys.readouterr().err
    assert main(["show", "0000", "--warehouse", warehouse]) == EXIT_USAGE
    assert "no incident or finding starts with" in capsys.readouterr().err


def test_sql_in_each_format(warehouse: str, capsys: pytest.CaptureFixture[str]) -> None:
    query = "select principal, score from incidents order by score"
    assert main(["sql", query, "--warehouse", warehouse, "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "principal,score",
        "arn:aws:iam::111122223333:user/bo,30",
    ]
    assert main(["sql", query, "--warehouse", warehouse, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[1])["score"] == 70.0
    assert main(["sql", query, "--warehouse", warehouse]) == 0
    assert capsys.readouterr().out.endswith("2 rows\n")
    assert main(["sql", "selec", "--warehouse", warehouse]) == EXIT_USAGE
    assert capsys.readouterr().err.startswith("raretrail: the query failed")


def test_without_a_warehouse_looking_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["incidents"]) == EXIT_USAGE
    assert "no warehouse: give --warehouse" in capsys.readouterr().err
    assert main(["incidents", "--warehouse", str(tmp_path / "none")]) == EXIT_USAGE
    assert "is not there" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_failure(warehouse: str) -> None:
    query = "select range, repeat('x', 100) from range(200000)"
    command = [sys.executable, "-m", "raretrail", "sql", query, "--warehouse", warehouse, "--format", "csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0


def test_simulate_writes_a_trail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "s"
    options = ["--people", "4", "--days", "3", "--judged-days", "1", "--accounts", "1", "--campaigns", "0"]
    assert main(["simulate", str(out), *options]) == 0
    assert list(out.glob("trail/AWSLogs/**/*.json.gz"))
    assert "labels.json" in capsys.readouterr().out
    assert main(["simulate", str(out), *options]) == EXIT_USAGE
    assert "is not an empty directory" in capsys.readouterr().err


def test_the_demo_leaves_other_folders_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["demo", "--out", str(tmp_path), "--quiet"]) == EXIT_USAGE
    assert "holds files that no demo made" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_months_to_be_read_get_a_large_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trail = tmp_path / "trail"
    trail.mkdir()
    (trail / "a.json.gz").write_bytes(b"x" * 100)
    options: dict[str, Any] = {"trail": [str(trail)], "warehouse": str(tmp_path / "w")}

    def size(span: object = None, **spark: str) -> str:
        settings, _ = load_settings(options=options | {"spark": spark})
        return cli._size_of_run(settings, span)

    assert size() == "small"
    monkeypatch.setattr(cli, "_LARGE_BYTES", 100)
    assert size() == "large" and size(size="small") == "small"
    (tmp_path / "w" / "events").mkdir(parents=True)
    assert size() == "small" and size(span=("from", "to")) == "large"


@pytest.mark.parametrize(
    ("trail", "warehouse", "needs"),
    [
        ("/trail", "/w", False),
        ("s3://b/trail", "/w", True),
        ("/trail", "s3a://b/w", True),
        ("table:main.security.cloudtrail", "/w", False),
        ("table:parquet.`/lake/region=*`", "/w", False),
        ("table:parquet.`s3a://b/lake/region=*`", "/w", True),
    ],
)
def test_a_session_has_s3_where_trail_or_warehouse_lies_there(
    trail: str, warehouse: str, needs: bool
) -> None:
    settings, _ = load_settings(options={"trail": [trail], "warehouse": warehouse})
    assert cli._session_settings(settings, "small").s3 is needs
