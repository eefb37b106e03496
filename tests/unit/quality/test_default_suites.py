"""Every expectation shipped in conf/ has an input here that makes it, and it alone, fail."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from raretrail.quality.gate import gate, only_files_held
from raretrail.quality.judge import Verdict, judge
from raretrail.quality.measure import measure
from raretrail.quality.suites import Expectation, load_suites
from raretrail.tables import (
    BASELINE_COMMAND_PLACE,
    COVERAGE_HOURLY,
    EVENTS,
    INGEST_FILES,
    STAGED_ANOMALIES,
)

pytestmark = pytest.mark.integration

SUITES = load_suites(Path(__file__).parents[3] / "conf/expectations")
TABLES = {
    "events": EVENTS,
    "baseline": BASELINE_COMMAND_PLACE,
    "findings": STAGED_ANOMALIES,
    "ledger": INGEST_FILES,
    "coverage": COVERAGE_HOURLY,
}

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
TODAY = date(2026, 11, 24)
HOUR = timedelta(hours=1)

# Rows nothing is wrong with; {i} is the row's number.
GOOD: dict[str, dict[str, Any]] = {
    "events": {
        "event_id": "e{i}",
        "recipient_account_id": "111111111111",
        "event_time": NOON,
        "event_date": TODAY,
        "ingested_at": NOON + HOUR,
        "event_name": "CreateUser",
        "command": "iam:CreateUser",
        "principal": "arn:aws:iam::111111111111:user/ana",
        "principal_kind": "user",
        "geo_status": "city",
        "place": "city:2267057",
        "geo_build": "GeoLite2-City@2026-06-01",
    },
    "baseline": {
        "as_of": TODAY,
        "scope": "organization",
        "command": "iam:Command{i}",
        "place": "city:2267057",
        "days_7": 1,
        "days_30": 2,
        "days_90": 3,
        "days_decayed": 2.5,
        "principals_7": 1,
        "principals_30": 1,
        "principals_90": 2,
        "first_day": TODAY - timedelta(days=80),
        "last_day": TODAY - timedelta(days=1),
    },
    "findings": {
        "anomaly_id": "a{i}",
        "detector": "command_place",
        "recipient_account_id": "111111111111",
        "principal": "arn:aws:iam::111111111111:user/ana",
        "principal_kind": "user",
        "bucket_start": NOON,
        "bucket_end": NOON + HOUR,
        "bucket_date": TODAY,
        "first_time": NOON,
        "last_time": NOON + HOUR / 2,
        "as_of": TODAY,
        "bits": 18.25,
        "where_bits": 10.0,
        "how_bits": 0.0,
        "what_bits": 4.5,
        "maturity": 1.0,
        "event_count": 3,
        "evidence_event_ids": ["e1", "e2", "e3"],
    },
    "ledger": {
        "source_file": "f{i}",
        "status": "taken",
        "records": 1000,
        "events": 980,
        "duplicates": 15,
        "quarantined": 5,
    },
    "coverage": {
        "hour_start": NOON,
        "recipient_account_id": "111111111111",
        "aws_region": "eu-west-1",
        "came": 40,
        "expected": 40.0,
        "silent_hours": 0,
        "silent_bits": 0.0,
        "status": "ok",
    },
}
# Rows of everything, of a region in all accounts, of an account in all regions.
EVERYTHING = {"recipient_account_id": "all", "aws_region": "all"}
A_REGION, AN_ACCOUNT = {"recipient_account_id": "all"}, {"aws_region": "all"}
SILENT = {"status": "silent", "came": 0}

# {suite: {expectation: changes, each of which makes one of twenty good rows bad}}; None for an
# empty table.
BAD: dict[str, dict[str, list[dict[str, Any] | None]]] = {
    "events": {
        "some_events": [None],
        "ids_present": [{"event_id": None}, {"event_id": ""}, {"recipient_account_id": None}],
        "no_duplicates": [{"event_id": "e7"}],
        "times_present": [{"event_time": None}, {"event_date": date(2026, 11, 23)}],
        "not_in_the_future": [{"ingested_at": NOON - HOUR - timedelta(seconds=1)}],
        "commands_present": [{"command": None}, {"event_name": ""}],
        "principals_present": [{"principal": None}, {"principal": ""}, {"principal_kind": None}],
        "places_present": [{"place": None}, {"geo_status": None}, {"geo_status": "town"}],
        "public_addresses_located": [{"geo_status": "not_found"}],
        "addresses_readable": [{"geo_status": "unparseable"}],
        "principals_known": [{"principal_kind": "unknown"}],
        "top_level_keys_known": [
            {"other_fields": '{{"aNewKey":1}}'},
            {"other_fields": '{{"apiVersion":"1","aNewKey":null}}'},
        ],
        "places_recent": [{"geo_build": "GeoLite2-City@2019-12-24+GeoLite2-ASN@2026-06-01"}],
    },
    "baseline": {
        "some_rows": [None],
        "keys_present": [{"command": None}, {"place": None}, {"as_of": None}, {"scope": None}],
        "keys_unique": [{"command": "iam:Command7"}],
        "days_nest": [
            {"days_7": -1},
            {"days_7": 3},
            {"days_30": 4},
            {"days_30": None},
            {"days_90": 91},
            {"days_7": 8, "days_30": 9, "days_90": 10},
        ],
        "principals_nest": [
            {"principals_7": 2},
            {"principals_30": 3},
            {"principals_90": None},
            {"principals_7": 0, "principals_30": 0, "principals_90": 0},
        ],
        "decay_is_a_number": [
            {"days_decayed": float("nan")},
            {"days_decayed": -0.5},
            {"days_decayed": 3.1},
            {"days_decayed": None},
        ],
        "only_days_before": [
            {"last_day": TODAY},
            {"first_day": TODAY - timedelta(days=91)},
            {"first_day": TODAY - timedelta(days=1), "last_day": TODAY - timedelta(days=2)},
            {"last_day": None},
        ],
    },
    "findings": {
        "ids_present": [{"anomaly_id": ""}, {"bucket_end": None}, {"recipient_account_id": None}],
        "ids_unique": [{"anomaly_id": "a7"}],
        "parts_in_range": [
            {"where_bits": None},
            {"how_bits": -0.1},
            {"what_bits": -1.0},
            {"maturity": 1.1},
            {"maturity": None},
        ],
        "bits_finite": [
            {"bits": float("inf")},
            {"bits": float("-inf")},
            {"bits": float("nan")},
            {"bits": None},
        ],
        "evidence_present": [
            {"evidence_event_ids": []},
            {"evidence_event_ids": None},
            {"event_count": 2},
            {"event_count": None},
        ],
        "within_their_bucket": [
            {"first_time": NOON - HOUR},
            {"last_time": NOON + HOUR},
            {"bucket_end": NOON, "last_time": NOON - HOUR, "first_time": NOON},
        ],
        "judged_by_earlier_days": [{"as_of": TODAY + timedelta(days=1)}],
        "principals_known": [{"principal_kind": "unknown"}],
    },
    "ledger": {
        "records_balance": [
            {"records": 1001},
            {"duplicates": None},
            {"events": 1015, "duplicates": -20},
        ],
        "status_known": [{"status": None}, {"status": "lost"}],
        "files_readable": [{"status": "unreadable"}],
        "little_in_quarantine": [{"events": 0, "quarantined": 985}],
        "few_copies": [{"records": 30_000, "events": 10, "duplicates": 29_990, "quarantined": 0}],
    },
    "coverage": {
        "fresh": [{**EVERYTHING, "silent_hours": 25}],
        "trail_speaks": [{**EVERYTHING, **SILENT}],
        "accounts_speak": [SILENT, {**AN_ACCOUNT, **SILENT}],
        "regions_speak": [{**A_REGION, **SILENT}],
        "volume_as_usual": [{**AN_ACCOUNT, "status": "low", "came": 3}],
        "region_volume_as_usual": [{**A_REGION, "status": "low", "came": 3}],
    },
}
# A share fails when more than some rows are bad.
HOW_MANY = {
    ("events", "public_addresses_located"): 5,
    ("events", "addresses_readable"): 2,
    ("events", "principals_known"): 2,
    ("findings", "principals_known"): 5,
}
# Some look at sums alone, of which a case has one row.
LOOKED_AT = {
    ("coverage", "trail_speaks"): 1,
    ("coverage", "regions_speak"): 1,
    ("coverage", "volume_as_usual"): 1,
    ("coverage", "region_volume_as_usual"): 1,
}


def rows(suite: str, bad: dict[str, Any] | None, how_many: int = 1, good: int = 20) -> list[dict]:
    made = []
    for i in range(good):
        change = bad if bad and good - i <= how_many else {}
        row = {**GOOD[suite], **change}
        made.append({k: v.format(i=i) if isinstance(v, str) else v for k, v in row.items()})
    return made


def verdicts_on(spark, suite: str, made: list[dict[str, Any]]) -> list[Verdict]:
    schema = TABLES[suite].spark_schema()
    frame = spark.createDataFrame([tuple(r.get(n) for n in schema.names) for r in made], schema)
    return judge(measure(frame, SUITES[suite]), SUITES[suite], run_id="r", checked_at=NOON)


def named(suite: str, expectation: str) -> Expectation:
    return next(e for e in SUITES[suite].expectations if e.name == expectation)


@pytest.fixture(scope="module")
def failures(spark) -> dict[tuple[str, str, int], list[Verdict]]:
    """What fails for each (suite, expectation, number of the change) in BAD.

    All tables of a suite are judged in one pass: stacked, each under a value of a column that no
    expectation of the suite reads, with every expectation scoped to that column.
    """
    found: dict[tuple[str, str, int], list[Verdict]] = {}
    for name, suite in SUITES.items():
        cases = {
            f"{expectation}/{number}": rows(name, change, HOW_MANY.get((name, expectation), 1))
            for expectation, changes in BAD[name].items()
            for number, change in enumerate(changes)
            if change is not None
        }
        schema = TABLES[name].spark_schema()
        by = "detector" if name == "coverage" else "aws_region"
        if by not in schema.names:
            schema = schema.add(by, "string")
        stacked = [
            tuple({**row, by: case}.get(column) for column in schema.names)
            for case, made in cases.items()
            for row in made
        ]
        scoped = suite.model_copy(
            update={"expectations": [e.model_copy(update={"scope": by}) for e in suite.expectations]}
        )
        measures = measure(spark.createDataFrame(stacked, schema), scoped)
        for case in cases:
            expectation, number = case.split("/")
            found[name, expectation, int(number)] = []
        for verdict in judge(measures, scoped, run_id="r", checked_at=NOON):
            if not verdict.success:
                expectation, number = verdict.scope_value.split("/")
                found[name, expectation, int(number)].append(verdict)
    return found


@pytest.mark.parametrize("suite", TABLES)
def test_a_good_table_passes(spark, suite: str) -> None:
    assert [v for v in verdicts_on(spark, suite, rows(suite, None)) if not v.success] == []


def test_every_expectation_has_an_input_that_fails_it() -> None:
    for name, suite in SUITES.items():
        tested = set(BAD[name]) | ({"not_a_flood"} if name == "findings" else set())
        assert tested == {e.name for e in suite.expectations}


@pytest.mark.parametrize(
    ("suite", "expectation", "number"),
    [
        (suite, expectation, number)
        for suite, entries in BAD.items()
        for expectation, changes in entries.items()
        for number, change in enumerate(changes)
        if change is not None
    ],
)
def test_one_bad_row_fails_one_expectation(failures, suite, expectation, number) -> None:
    (verdict,) = failures[suite, expectation, number]
    assert verdict.expectation == expectation
    declared = named(suite, expectation)
    assert f"{suite}.{expectation} failed" in verdict.detail
    assert verdict.detail.endswith(declared.description)
    if declared.unit != "value":
        how_many = HOW_MANY.get((suite, expectation), 1)
        looked_at = LOOKED_AT.get((suite, expectation), 20)
        assert (verdict.unexpected_count, verdict.element_count) == (how_many, looked_at)
    assert gate([verdict]).held == (declared.severity == "critical")


@pytest.mark.parametrize(
    ("suite", "empty_fails"),
    [
        ("events", ["some_events"]),
        ("baseline", ["some_rows"]),
        ("findings", []),
        ("ledger", []),
        ("coverage", []),
    ],
)
def test_an_empty_table_warns_at_most(spark, suite: str, empty_fails: list[str]) -> None:
    verdicts = verdicts_on(spark, suite, [])
    assert [v.expectation for v in verdicts if not v.success] == empty_fails
    assert not gate(verdicts).held


def test_a_critical_failure_of_the_whole_table_holds_everything(spark) -> None:
    closed = gate(verdicts_on(spark, "events", rows("events", {"event_id": "e7"}, how_many=2)))
    assert closed.held_all
    (message,) = closed.messages
    assert message.startswith(
        "Everything is held: events.no_duplicates failed: 2 of 20 events. Events were taken in "
    )


def test_a_flood_of_findings_is_a_warning(spark) -> None:
    suite = SUITES["findings"]
    flood = named("findings", "not_a_flood")
    lowered = flood.model_copy(update={"kwargs": {"max_value": 19}})
    small = suite.model_copy(update={"expectations": [lowered]})
    schema = STAGED_ANOMALIES.spark_schema()
    made = [tuple(r.get(n) for n in schema.names) for r in rows("findings", None)]
    measures = measure(spark.createDataFrame(made, schema), small)
    (verdict,) = judge(measures, small, run_id="r", checked_at=NOON)
    assert (verdict.success, verdict.scope_value) == (False, "command_place")
    assert gate([verdict]).warnings


def test_one_accounts_fault_holds_that_account_alone(spark) -> None:
    made = rows("events", {"command": "", "recipient_account_id": "222222222222"}, how_many=3)
    closed = gate(verdicts_on(spark, "events", made))
    assert not closed.held_all
    assert closed.held_scopes == {("recipient_account_id", "222222222222")}
    (message,) = closed.messages
    assert message.startswith(
        "The findings of recipient_account_id 222222222222 are held: events.commands_present "
        "failed in recipient_account_id 222222222222: 3 of 3 events. "
    )


def test_one_regions_fault_holds_that_region_of_that_account_alone(spark) -> None:
    bad = {"aws_region": "eu-north-1", "ingested_at": NOON - 2 * HOUR}
    closed = gate(verdicts_on(spark, "events", rows("events", bad, how_many=3)))
    assert closed.held_scopes == closed.held_findings == {("account_region", "111111111111/eu-north-1")}
    assert not closed.held_all


def test_one_files_fault_holds_that_file_and_no_finding(spark) -> None:
    closed = gate(verdicts_on(spark, "ledger", rows("ledger", {"status": "unreadable"})))
    assert closed.held and not closed.held_all
    assert closed.held_scopes == {("source_file", "f19")}
    assert closed.held_findings == frozenset()
    (message,) = closed.messages
    assert message.startswith("The file f19 is held: ledger.files_readable failed in source_file f19: ")
    assert only_files_held(["source_file=f19"])
    assert not only_files_held(["source_file=f19", "detector=errors"]) and not only_files_held([])


def test_one_detectors_fault_holds_that_detector_alone(spark) -> None:
    closed = gate(verdicts_on(spark, "findings", rows("findings", {"detector": "errors", "what_bits": -1.0})))
    assert closed.held_scopes == {("detector", "errors")}
    assert not closed.held_all
