"""Saying what findings are, from the command line: what is written, what is refused. No Spark starts."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from raretrail import cli, cli_verdicts, tables
from raretrail.cli import main
from raretrail.detect.rules import to_rules
from raretrail.errors import EXIT_USAGE
from raretrail.look import open_duckdb
from raretrail.tables import ANOMALIES, CHANGE_WINDOWS, DISPOSITIONS, INCIDENTS
from raretrail.verdicts import is_writable, made, write

AT = datetime(2026, 2, 23, 4, 26, tzinfo=UTC)
ANA, BO = "a" * 8 + "1" * 24, "a" * 8 + "2" * 24
USER = "arn:aws:iam::111122223333:user/"


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two incidents of two findings, from Bilbao and Durban."""
    monkeypatch.setattr(cli, "_spark", lambda settings: pytest.fail("a session was opened"))
    monkeypatch.setenv("LOGNAME", "carla")
    root = tmp_path / "w"
    incidents, findings = [], []
    for identifier, user, place, score in ((ANA, "ana", "Bilbao, ES", 70.0), (BO, "bo", "Durban, ZA", 30.0)):
        shared = {"principal": USER + user, "place": f"city:{user}", "place_name": place, "first_time": AT,
                  "last_time": AT, "score": score, "bits": score, "incident_id": identifier}  # fmt: skip
        incidents.append(
            shared | {"first_date": AT.date(), "severity": "low", "commands": ["iam:GetUser"],
                      "state": "open", "detectors": ["d"], "event_count": 2,
                      "source_ip_addresses": ["192.0.2.1"]}
        )  # fmt: skip
        for n in range(2):
            findings.append(
                shared | {"anomaly_id": identifier if n == 0 else f"f{identifier}", "bucket_date": AT.date(),
                          "bucket_start": AT, "detector": "d", "command": "iam:GetUser", "maturity": 1.0,
                          "event_count": 1, "source_ip_address": f"192.0.2.{n}"}
            )  # fmt: skip
    for table, rows in ((INCIDENTS, incidents), (ANOMALIES, findings)):
        data = pa.Table.from_pylist(rows, schema=table.arrow_schema())
        write_deltalake(str(root / table.name), data, partition_by=list(table.partition_by))
    return str(root)


def run(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as ended:  # how argparse refuses
        assert isinstance(ended.code, int)
        return ended.code


def rows_of(warehouse: str, table: tables.Table) -> list[dict[str, Any]]:
    with open_duckdb(warehouse) as look:
        return look.rows(table, order=(("created_at", "asc"),))


def test_the_options_are_those_the_tables_know() -> None:
    assert tuple(tables.VERDICTS) == cli_verdicts.VERDICTS
    assert tuple(tables.STATES) == cli_verdicts.STATES


def test_a_verdict_is_a_row_on_the_incident_and_one_more_on_what_is_like_it(
    warehouse: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--reason", "on holiday", "--ticket", "SEC-1", "--suppress", "--until", "14d"]
    assert run("verdict", ANA[:9], "benign", *words, "--warehouse", warehouse) == 0
    assert "incident aaaaaaaa: benign, closed" in capsys.readouterr().out
    said, like = sorted(rows_of(warehouse, DISPOSITIONS), key=lambda row: row["suppress"] or False)
    assert (said["incident_id"], said["verdict"], said["suppress"]) == (ANA, "benign", None)
    assert (said["author"], said["reason"], said["ticket"]) == ("carla", "on holiday", "SEC-1")
    assert (like["incident_id"], like["principal"], like["place"]) == (None, USER + "ana", "city:ana")
    assert like["expires_at"] - like["created_at"] == timedelta(days=14)
    rules, problems = to_rules([said, like], [], datetime.now(UTC))
    assert (len(rules), problems) == (2, [])
    # At once on its page, before any run.
    assert run("show", ANA[:9], "--warehouse", warehouse) == 0
    assert "on holiday (SEC-1)" in capsys.readouterr().out


def test_an_incident_of_several_principals_is_suppressed_for_each(warehouse: str) -> None:
    """A sign-in and the role it took over are two principals of one visit."""
    DeltaTable(f"{warehouse}/anomalies").update(
        predicate=f"anomaly_id = 'f{ANA}'", updates={"principal": "'arn:aws:iam::1:role/admin'"}
    )
    options = ["--reason", "on holiday", "--suppress", "--warehouse", warehouse]
    assert run("verdict", ANA[:9], "benign_expected", *options) == 0
    likes = {(row["principal"], row["place"]) for row in rows_of(warehouse, DISPOSITIONS) if row["suppress"]}
    assert likes == {(USER + "ana", "city:ana"), ("arn:aws:iam::1:role/admin", "city:ana")}


def test_state_and_assignee_need_no_verdict(warehouse: str) -> None:
    options = ["--state", "acknowledged", "--assign", "dan", "--author", "eve", "--warehouse", warehouse]
    assert run("verdict", f"f{BO}"[:12], *options) == 0, "by the id of a finding"
    (row,) = rows_of(warehouse, DISPOSITIONS)
    assert (row["incident_id"], row["state"], row["assignee"], row["author"]) == (
        BO, "acknowledged", "dan", "eve",
    )  # fmt: skip


def test_a_malicious_verdict_names_the_suppressions_that_hide_others_like_it(
    warehouse: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for user in ("ana", "bo"):
        assert run("suppress", "--principal", user, "--reason", "r", "--warehouse", warehouse) == 0
    ids = {row["principal"]: row["disposition_id"] for row in rows_of(warehouse, DISPOSITIONS)}
    capsys.readouterr()
    assert run("verdict", ANA, "malicious", "--reason", "stolen key", "--warehouse", warehouse) == 0
    out = capsys.readouterr().out
    assert "malicious, acknowledged" in out
    assert f"note: {ids[USER + 'ana'][:8]} suppresses" in out
    assert ids[USER + "bo"][:8] not in out


@pytest.mark.parametrize(
    ("options", "scope", "covers"),
    [
        (["--principal", "user/ana"], {"principal": USER + "ana"}, "2 findings in 1 incidents"),
        (["--place", "Durban"], {"place": "city:bo"}, "2 findings in 1 incidents"),
        (["--cidr", "192.0.2.1/32"], {"source_ip_address": "192.0.2.1/32"}, "2 findings in 2 incidents"),
        (["--cidr", "192.0.2.0/24", "--account", "1"], {"recipient_account_id": "1"}, "0 findings"),
        (["--command", "iam:GetUser", "--detector", "d"], {"command": "iam:GetUser"}, "4 findings"),
        (["--principal", USER + "new"], {"principal": USER + "new"}, "0 findings"),
    ],
)
def test_a_suppression_says_what_it_covers(
    warehouse: str, options: list[str], scope: dict[str, str], covers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("suppress", *options, "--reason", "r", "--warehouse", warehouse) == 0
    assert f"it covers {covers}" in capsys.readouterr().out
    (row,) = rows_of(warehouse, DISPOSITIONS)
    assert row["suppress"] is True
    assert row["expires_at"] - row["created_at"] == timedelta(days=30)
    assert {name: row[name] for name in scope} == scope


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verdict", ANA, "benign"], "needs --reason"),
        (["verdict", ANA], "say what it is"),
        (["verdict", ANA, "innocent", "--reason", "r"], "invalid choice"),
        (["verdict", ANA, "malicious", "--reason", "r", "--suppress"], "other than malicious"),
        (["verdict", ANA, "benign", "--reason", "r", "--until", "3d"], "goes with --suppress"),
        (["verdict", "aaaa", "benign", "--reason", "r"], "more than one id"),
        (["verdict", "0", "benign", "--reason", "r"], "no incident or finding starts with"),
        (["suppress", "--reason", "r"], "name what it covers"),
        (["suppress", "--principal", "ana"], "--reason is missing"),
        (["suppress", "--principal", "user/", "--reason", "r"], "is part of 2 values of principal"),
        (["suppress", "--place", "Oslo", "--reason", "r"], "no finding is from 'Oslo'"),
        (["suppress", "--cidr", "10.0.0.0/64", "--reason", "r"], "is no address and no block"),
        (["suppress", "--principal", "ana", "--reason", "r", "--until", "2020-01-01"], "is past"),
        (["suppress", "--principal", "ana", "--reason", "r", "--until", "soon"], "is no date or time"),
        (["suppress", "--withdraw", "77", "--reason", "r"], "starts no id"),
        (["window", "add", "--principal", "ana", "--reason", "r"], "needs --from TIME and --to TIME"),
        (["window", "remove", "--reason", "r"], "starts no id"),
    ],
)
def test_what_cannot_be_said_is_refused_and_nothing_is_written(
    warehouse: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, "--warehouse", warehouse) == EXIT_USAGE
    assert said in capsys.readouterr().err
    assert rows_of(warehouse, DISPOSITIONS) == rows_of(warehouse, CHANGE_WINDOWS) == []


def test_windows_are_added_listed_and_removed(warehouse: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--from", "2026-02-23", "--to", "2026-02-24", "--reason", "move", "--author", "eve"]
    assert run("window", "add", "--principal", "ana", *words, "--warehouse", warehouse) == 0
    assert "so far it covers 2 findings" in capsys.readouterr().out
    assert run("window", "list", "--format", "json", "--warehouse", warehouse) == 0
    (listed,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (listed["covers"], listed["by"]) == (f"principal {USER}ana", "eve")
    assert run("window", "remove", listed["id"], "--reason", "off", "--warehouse", warehouse) == 0
    capsys.readouterr()
    assert run("window", "list", "--warehouse", warehouse) == 0
    assert capsys.readouterr().out.endswith("0 rows\n")
    assert len(rows_of(warehouse, CHANGE_WINDOWS)) == 2, "nothing is deleted"


def test_what_would_have_fired_is_reported(warehouse: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The marks are those a run makes: all findings of ana's incident, one of bo's."""
    row = made(DISPOSITIONS, "carla", AT, {"command": "iam:GetUser", "suppress": True, "reason": "noise"})
    spent = made(DISPOSITIONS, "dan", AT, {"detector": "d", "suppress": True, "reason": "never met"})
    gone = made(DISPOSITIONS, "eve", AT, {"withdraws": spent["disposition_id"]})
    write(Path(warehouse), DISPOSITIONS, [row, spent, gone])
    for table, where in ((ANOMALIES, f"anomaly_id <> '{BO}'"), (INCIDENTS, f"incident_id = '{ANA}'")):
        DeltaTable(f"{warehouse}/{table.name}").update(
            predicate=where, updates={"suppressed_by": f"'{row['disposition_id']}'"}
        )
    assert run("suppressed", "--format", "json", "--warehouse", warehouse) == 0
    (told,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (told["findings"], told["incidents"], told["would_alert"], told["holds"]) == (3, 1, 1, True)
    assert run("suppressed", "--warehouse", warehouse) == 0
    assert "3 findings; 1 incident suppressed as a whole, 1 of alert score" in capsys.readouterr().out
    assert run("incidents", "--warehouse", warehouse) == 0
    out = capsys.readouterr().out
    assert "user/bo" in out
    assert "user/ana" not in out
    assert "1 more suppressed; --suppressed lists them" in out
    assert run("incidents", "--suppressed", "--format", "json", "--warehouse", warehouse) == 0
    assert json.loads(capsys.readouterr().out)["incident_id"] == ANA
    assert run("incidents", "--state", "closed", "--warehouse", warehouse) == 0
    assert capsys.readouterr().out.startswith("no incidents")


def test_a_table_made_without_spark_refuses_nonsense_too(tmp_path: Path) -> None:
    row = made(DISPOSITIONS, "carla", AT, {"principal": "p", "verdict": "benign"})
    write(tmp_path, DISPOSITIONS, [row])
    with pytest.raises(DeltaError, match="validation check"):
        bad = pa.Table.from_pylist([row | {"verdict": "innocent"}], schema=DISPOSITIONS.arrow_schema())
        write_deltalake(str(tmp_path / "dispositions"), bad, mode="append")
    assert DeltaTable(str(tmp_path / "dispositions")).protocol().min_writer_version == 3


def test_people_who_speak_at_once_are_all_heard(warehouse: str) -> None:
    command = [sys.executable, "-m", "raretrail", "verdict", ANA[:9], "--warehouse", warehouse, "--assign"]
    talking = [
        subprocess.Popen([*command, f"n{n}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    errors = [one.communicate(timeout=120)[1] for one in talking]
    assert [one.returncode for one in talking] == [0] * 4, errors
    assert {row["assignee"] for row in rows_of(warehouse, DISPOSITIONS)} == {"n0", "n1", "n2", "n3"}


def test_a_path_delta_rs_cannot_write_to_is_left_to_spark() -> None:
    assert is_writable(Path("/tmp/my house"))
    assert not is_writable(Path("/tmp/my [ware] house"))
    assert not is_writable(None)
