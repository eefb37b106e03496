"""From an incident to a verdict to the run that heeds it, with the tables the command line writes."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from test_main_job import AMSTERDAM, BILBAO, _deliver, _record

from raretrail.cli import main
from raretrail.detect.rules import to_rules
from raretrail.errors import EXIT_DONE
from raretrail.settings import load_settings
from raretrail.stages.run import run
from raretrail.tables import ANOMALIES, CHANGE_WINDOWS, DISPOSITIONS, INCIDENTS
from raretrail.warehouse import Warehouse

pytestmark = [pytest.mark.slow, pytest.mark.integration]

FIRST, LAST = date(2026, 1, 1), date(2026, 1, 12)


def _noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


def _deliver_days(root: Path) -> None:
    for n in range((LAST - FIRST).days + 1):
        day = FIRST + timedelta(days=n)
        records = [
            _record("ana", "iam:GetUser", AMSTERDAM, _noon(day)),
            _record("ben", "iam:GetUser", AMSTERDAM, _noon(day)),
        ]
        _deliver(root, day, "a", records)


def test_a_verdict_is_heeded_by_the_next_run(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trail, where = tmp_path / "trail", str(tmp_path / "w")
    _deliver_days(trail)
    conf = tmp_path / "conf.yml"
    conf.write_text("alerts: {min_score: 1}")  # a month of quiet would give the first incident a higher score
    settings, _ = load_settings(str(conf), {"trail": [str(trail)], "warehouse": where})
    warehouse = Warehouse(spark, where)

    def play(hour: int, called: float | None = None, command: str = "") -> dict[str, Any]:
        """Run at an hour past noon of the last day; before it, what ana called from Bilbao is delivered."""
        if called:
            call = _record("ana", command, BILBAO, _noon(LAST) + timedelta(hours=called))
            _deliver(trail, LAST, command.partition(":")[2].lower(), [call])
        ended = run(spark, settings, as_of=_noon(LAST) + timedelta(hours=hour))
        assert ended.exit_code == EXIT_DONE
        counts: dict[str, Any] = ended.record["counts"] | {"messages": " ".join(ended.messages)}
        return counts

    def say(*arguments: str) -> str:
        capsys.readouterr()
        assert main([*arguments, "--warehouse", where, "--conf", str(conf)]) == EXIT_DONE, (
            capsys.readouterr().err
        )
        return capsys.readouterr().out

    def incidents() -> list[dict[str, Any]]:
        return [json.loads(line) for line in say("incidents", "--format", "json").splitlines()]

    first = play(1, 0.7, "iam:CreateUser")
    assert (first["alerts"], first["suppressed"]) == (1, 0)
    (incident,) = incidents()
    assert (incident["state"], incident["verdict"]) == ("open", None)
    scores = {row.anomaly_id: row.score for row in warehouse.read(ANOMALIES).collect()}

    # Benign, and what is like it is suppressed: then the same principal comes from the same place again.
    identifier = incident["incident_id"]
    told = say("verdict", identifier[:8], "benign", "--reason", "on holiday", "--suppress", "--author", "bo")
    assert "benign, closed" in told
    again = play(7, 6.7, "iam:CreateAccessKey")
    assert "marked_again" in again, "what was said is laid on what is there"
    assert again["suppressed"] == again["published"] > 0
    assert (again["alerts"], again["alerts_cut"]) == (0, 0)
    row = warehouse.read(INCIDENTS).where(f"incident_id = '{identifier}'").collect()[0]
    assert (row.state, row.verdict, row.verdict_by) == ("closed", "benign", "bo")
    assert incidents() == []
    assert len(say("incidents", "--suppressed", "--format", "json").splitlines()) == 2
    (report,) = [json.loads(line) for line in say("suppressed", "--format", "json").splitlines()]
    assert report["findings"] == warehouse.read(ANOMALIES).count()
    assert (report["incidents"], report["would_alert"]) == (2, 2)

    # Withdrawn, it marks no more. A new finding in a closed incident opens it, and it is alerted.
    (newest,) = set(_ids(warehouse)) - {identifier}
    say("suppress", "--withdraw", report["id"], "--reason", "over")
    say("verdict", newest[:10], "--state", "closed", "--assign", "carla")
    reopened = play(10, 7.2, "iam:DeleteUser")
    assert (reopened["alerts"], reopened["suppressed"]) == (1, 0)
    states = {row["incident_id"]: (row["state"], row["assignee"], row["alerted_at"]) for row in incidents()}
    assert states[newest][:2] == ("open", "carla")
    assert states[newest][2] is not None
    assert states[identifier][0] == "closed"

    # A window entered afterwards reaches back, by a run that has nothing else to do; a row nobody can use
    # is reported and ignored.
    start, end = _noon(LAST).isoformat(), (_noon(LAST) + timedelta(hours=3)).isoformat()
    say("window", "add", "--principal", "ana", "--from", start, "--to", end, "--reason", "drill")
    table = warehouse.name(DISPOSITIONS)
    spark.sql(
        f"INSERT INTO {table} (disposition_id, source_ip_address, suppress, reason, author, created_at) "
        "SELECT uuid(), '10.0.0.0/64', true, 'typo', 'eve', current_timestamp()"
    ).collect()
    quiet = play(13)
    assert (quiet["findings"], quiet["dispositions_ignored"]) == (0, 1)
    assert "10.0.0.0/64" in quiet["messages"]
    assert quiet["marked_again"] == len(scores) > 0
    (drill,) = (row.window_id for row in warehouse.read(CHANGE_WINDOWS).collect())
    rows = warehouse.read(ANOMALIES).collect()
    assert {row.suppressed_by for row in rows if row.incident_id == identifier} == {drill}
    assert {row.suppressed_by for row in rows if row.incident_id != identifier} == {None}
    assert {row.anomaly_id: row.score for row in rows}.items() >= scores.items(), "scores never move"
    assert [row["incident_id"] for row in incidents()] == [newest]


def _ids(warehouse: Warehouse) -> list[str]:
    return [row.incident_id for row in warehouse.read(INCIDENTS).collect()]


@pytest.mark.parametrize(
    "values",
    [
        {"verdict": "'innocent'"},
        {"author": "''"},
        {"created_at": "NULL"},
        {"state": "'done'"},
        {"suppress": "true", "reason": "NULL"},
        {"suppress": "true", "principal": "NULL"},
        {"suppress": "true", "verdict": "'malicious'"},
        {"expires_at": "TIMESTAMP'2020-01-01'"},
    ],
)
def test_gross_nonsense_from_sql_is_refused_at_once(
    spark: SparkSession, nonsense: Warehouse, values: dict[str, str]
) -> None:
    usual = {
        "disposition_id": "uuid()", "principal": "'p'", "verdict": "'benign'", "reason": "'r'",
        "author": "'a'", "created_at": "current_timestamp()",
    }  # fmt: skip
    row = usual | values
    with pytest.raises(Exception, match="CHECK constraint"):  # the JVM's own, which Spark does not translate
        spark.sql(
            f"INSERT INTO {nonsense.name(DISPOSITIONS)} ({', '.join(row)}) SELECT {', '.join(row.values())}"
        ).collect()


def test_a_table_made_by_an_earlier_version_gets_the_columns_it_lacks(
    spark: SparkSession, tmp_path: Path
) -> None:
    warehouse = Warehouse(spark, str(tmp_path / "w"))
    older = spark.createDataFrame([("i", LAST)], "incident_id string, first_date date")
    older.write.format("delta").partitionBy("first_date").save(f"{warehouse.location}/incidents")
    warehouse.create(INCIDENTS)
    (row,) = warehouse.read(INCIDENTS).collect()
    assert (row.incident_id, row.state, row.suppressed_by) == ("i", None, None)
    warehouse.merge(INCIDENTS, warehouse.read(INCIDENTS), update=["state"])


def test_the_insert_of_the_manual_is_taken(spark: SparkSession, nonsense: Warehouse) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "verdicts.md").read_text(encoding="utf-8")
    statement = page.split("```sparksql\n")[1].split("```")[0]
    assert statement.startswith("INSERT INTO dispositions ")
    spark.sql(statement.replace("INTO dispositions", f"INTO {nonsense.name(DISPOSITIONS)}")).collect()
    rows = [row.asDict() for row in nonsense.read(DISPOSITIONS).collect()]
    rules, problems = to_rules(rows, [], datetime.now(UTC))
    assert ([rule.suppress for rule in rules], problems) == ([True], [])


@pytest.fixture(scope="module")
def nonsense(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    warehouse = Warehouse(spark, str(tmp_path_factory.mktemp("nonsense")))
    warehouse.create(DISPOSITIONS)
    return warehouse
