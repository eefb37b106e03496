"""What comes late, out of order or corrected, and a run that was down: the same rows as in time."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from factories import call, record, trail_file
from raretrail.errors import EXIT_DONE, EXIT_HELD
from raretrail.settings import Settings, load_settings
from raretrail.stages.run import Ended, run, to_spans
from raretrail.tables import (
    ALL,
    ANOMALIES,
    CALIBRATIONS,
    CHANGE_WINDOWS,
    COVERAGE_HOURLY,
    DATA_QUALITY,
    DISPOSITIONS,
    EVENTS,
    INCIDENTS,
    INGEST_FILES,
    PRESENCE_DAILY,
    QUARANTINE,
    REVISIONS,
    RUNS,
    Table,
)
from raretrail.warehouse import Warehouse, rows_of

ACCOUNT = "111122223333"
AMSTERDAM, MILAN, BILBAO, PORTO = "87.210.98.182", "95.251.251.132", "212.142.174.158", "94.60.1.1"
FIRST, JUDGED = date(2026, 1, 14), date(2026, 1, 26)
HOMES = {"ana": AMSTERDAM, "ben": AMSTERDAM, "carla": MILAN}
COMMANDS = ("ec2:DescribeInstances", "s3:ListBuckets", "iam:GetUser")
THIS_HOUR = f"bucket_start = TIMESTAMP'{JUDGED} 15:00:00'"
# Tables of runs, not of what came.
OF_RUNS = (RUNS, DATA_QUALITY, REVISIONS)


def at(day: date, hour: int, minute: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)


def later(days: int) -> date:
    return JUDGED + timedelta(days=days)


def deliver(trail: Path, when: datetime, records: Sequence[dict[str, Any]], name: str = "a") -> None:
    """A file of the trail, delivered then."""
    folder = trail / "AWSLogs" / ACCOUNT / "CloudTrail" / "eu-west-1" / f"{when:%Y/%m/%d}"
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{ACCOUNT}_CloudTrail_eu-west-1_{when:%Y%m%dT%H%MZ}_{name:>016}"
    (folder / f"{stem}.json.gz").write_bytes(trail_file(records))


def workday(day: date) -> list[dict[str, Any]]:
    return [
        call(user, command, address, at(day, 12, minute), eventID=f"{user}-{command}-{day}")
        for minute, (user, address) in enumerate(HOMES.items())
        for command in COMMANDS
    ]


def contents(warehouse: Warehouse, tables: Sequence[Table] = ALL) -> dict[str, Counter[str]]:
    """Every table's rows without the columns that tell of arrival."""
    held = {}
    for table in tables:
        if table in OF_RUNS or table.name.startswith("staged_") or not warehouse.exists(table):
            continue
        names = [column.name for column in table.columns if not column.arrival]
        if names:
            rows = warehouse.read(table).select(*names).collect()
            held[table.name] = Counter(repr(tuple(row)) for row in rows)
    return held


def assert_same(found: dict[str, Counter[str]], wanted: dict[str, Counter[str]]) -> None:
    for name in sorted(found.keys() | wanted.keys()):
        here, there = found.get(name, Counter()), wanted.get(name, Counter())
        assert here == there, f"{name}: surplus {here - there}\nlacking {there - here}"


@dataclass
class Place:
    """A trail and a warehouse, and runs on them at times of their own."""

    spark: SparkSession
    folder: Path

    @property
    def trail(self) -> Path:
        return self.folder / "trail"

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.spark, str(self.folder / "w"))

    @property
    def settings(self) -> Settings:
        options = {
            "trail": [str(self.trail)],
            "warehouse": str(self.folder / "w"),
            "score": {"lookback": "1h"},
            "alerts": {"min_score": 20},
        }
        return load_settings(options=options)[0]

    def run(self, as_of: datetime, **more: Any) -> Ended:
        return run(self.spark, self.settings, as_of=as_of, clock=lambda: as_of, **more)

    def rows(self, table: Table, where: str = "true") -> list[dict[str, Any]]:
        return rows_of(self.warehouse.read(table).where(where))


@pytest.fixture(scope="module")
def base(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Three people at work for twelve days, judged over the last four; on the last one of their keys is used
    from Bilbao, at one, which playing history finds, and at two, which a scheduled run finds and alerts."""
    return make_base(Place(spark, tmp_path_factory.mktemp("base")))


def make_base(place: Place) -> Place:
    for n in range((JUDGED - FIRST).days + 1):
        day = FIRST + timedelta(days=n)
        deliver(place.trail, at(day, 12, 10), workday(day))
    for hour, command in ((13, "iam:CreateAccessKey"), (14, "ec2:DescribeInstances")):
        deliver(place.trail, at(JUDGED, hour, 10), [call("ana", command, BILBAO, at(JUDGED, hour))])
    place.run(at(JUDGED, 14), span=(at(later(-4), 0), at(JUDGED, 14)))
    ended = place.run(at(JUDGED, 15, 30))
    assert ended.exit_code == EXIT_DONE and ended.record["counts"]["alerts"] == 1
    return place


@pytest.fixture
def copy(base: Place, tmp_path: Path) -> Callable[[str], Place]:
    """Copies of the base to go on from: the warehouse's, with the same trail at first."""

    def made(name: str) -> Place:
        # Files are known by their path, so each copy lists the base's trail under the base's own name.
        shutil.copytree(base.folder / "w", tmp_path / name / "w")
        return _Going(base.spark, tmp_path / name, base.trail)

    return made


@dataclass
class _Going(Place):
    """A place whose warehouse goes on from another's: its own trail beside the other's."""

    before: Path

    @property
    def settings(self) -> Settings:
        return super().settings.model_copy(update={"trail": [str(self.before), str(self.trail)]})


@pytest.mark.slow
def test_late_events_revise_what_rests_on_them(base: Place, copy: Callable[[str], Place]) -> None:
    late = copy("late")
    before = {row["anomaly_id"]: row for row in late.rows(ANOMALIES)}
    (alerted,) = late.rows(INCIDENTS, "alerted_at IS NOT NULL")
    late.warehouse.create(DISPOSITIONS)
    said = {name: None for name in DISPOSITIONS.column_names} | {
        "disposition_id": "d1", "incident_id": alerted["incident_id"], "verdict": "malicious",
        "author": "bo", "created_at": at(JUDGED, 15, 45),
    }  # fmt: skip
    late.warehouse.append(DISPOSITIONS, late.spark.createDataFrame([said], DISPOSITIONS.spark_schema()))

    # Late come: an earlier call of the same visit, and one of ana's, from Bilbao, days before.
    visit = call("ana", "s3:ListBuckets", BILBAO, at(JUDGED, 12, 20))
    trip = call("ana", "s3:ListBuckets", BILBAO, at(later(-3), 12, 40))
    deliver(late.trail, at(JUDGED, 17), [visit, trip], "late")
    ended = late.run(at(JUDGED, 17, 30))
    assert ended.exit_code == EXIT_DONE
    counts = ended.record["counts"]
    assert set(ended.record["late_buckets"]) == {at(JUDGED, 12), at(later(-3), 12)}
    found_at_one = [row for row in before.values() if row["bucket_start"] == at(JUDGED, 13)]
    assert counts["touched"] == len(found_at_one) > 0
    assert counts["revised"] == len(before), "at two too, which lies within the look-back"
    assert counts["alerts"] == 1, "of the earlier trip; the visit has been alerted"

    # Each late event is in its own bucket, under the calibration that its day had before.
    after = {row["anomaly_id"]: row for row in late.rows(ANOMALIES)}
    new = [row for row in after.values() if row["anomaly_id"] not in before]
    assert {row["bucket_start"] for row in new} == {at(JUDGED, 12), at(later(-3), 12)}
    assert {row["first_scored_at"] for row in new} == {at(JUDGED, 17, 30)}
    assert {row["late_minutes"] for row in new} == {310, 4610}

    # What was found without them is revised, not silently and not twice.
    revisions = {row["anomaly_id"]: row for row in late.rows(REVISIONS)}
    for identity, was in before.items():
        told = revisions.get(identity)
        if identity not in after:
            assert told and told["withdrawn"] and told["reason"] == "late_history"
            continue
        now = after[identity]
        assert now["first_scored_at"] == was["first_scored_at"]
        assert now["score_revision"] == (1 if told else 0)
        assert (now["bits"] != was["bits"]) == bool(told)
        if told:
            assert (told["reason"], told["was_bits"], told["bits"]) == (
                "late_history",
                was["bits"],
                now["bits"],
            )
            assert (told["was_score"], told["score"]) == (was["score"], now["score"])
            assert any(text.startswith("place_bits ") for text in told["changed"]), told["changed"]
    assert any(row["command"] == "iam:CreateAccessKey" and not row["withdrawn"] for row in revisions.values())

    # The incident begins with the earlier call now: its id is another, what was said and alerted follows.
    (heir,) = late.rows(INCIDENTS, f"array_contains(supersedes, '{alerted['incident_id']}')")
    assert heir["incident_id"] in {row["anomaly_id"] for row in new}
    assert (heir["verdict"], heir["verdict_by"]) == ("malicious", "bo")
    assert heir["alerted_at"] == alerted["alerted_at"]
    assert not late.rows(INCIDENTS, f"incident_id = '{alerted['incident_id']}'")
    assert not late.rows(ANOMALIES, f"incident_id = '{alerted['incident_id']}'")

    # The same, had they come in time, played at once.
    in_time = copy("in-time")
    shutil.rmtree(in_time.folder / "w")
    deliver(in_time.trail, at(JUDGED, 12, 25), [visit], "visit")
    deliver(in_time.trail, at(later(-3), 12, 45), [trip], "trip")
    in_time.run(at(JUDGED, 17, 30), span=(at(later(-4), 0), at(JUDGED, 18)))
    by_people = (DISPOSITIONS, CHANGE_WINDOWS)
    tables = [table for table in ALL if table not in (COVERAGE_HOURLY, CALIBRATIONS, *by_people)]
    assert_same(contents(late.warehouse, tables), contents(in_time.warehouse, tables))


@pytest.mark.long
def test_a_run_that_was_down_for_three_days_catches_up(base: Place, copy: Callable[[str], Place]) -> None:
    """Every table is as runs in time leave it; meanwhile an intruder comes twice and an event comes late."""
    files = {
        at(later(1), 12, 10): workday(later(1)),
        at(later(1), 11, 40): [call("ben", "iam:CreateUser", BILBAO, at(later(1), 11, 30))],
        at(later(2), 12, 10): workday(later(2)),
        at(later(2), 11, 40): [call("ben", "iam:CreateUser", BILBAO, at(later(2), 11, 30))],
        at(later(3), 12, 10): [
            *workday(later(3)),
            call("carla", "s3:ListBuckets", MILAN, at(later(1), 10, 30)),
        ],
    }
    places = copy("in-time"), copy("down")
    for place in places:
        for when, records in files.items():
            if place is places[1]:
                deliver(place.trail, when, records)
    in_time, down = places
    caught = down.run(at(later(3), 15, 30))
    assert caught.exit_code == EXIT_DONE
    for days in (1, 2, 3):
        now = at(later(days), 15, 30)
        for when, records in files.items():
            if now - timedelta(days=1) < when <= now:
                deliver(in_time.trail, when, records)
        assert in_time.run(now).exit_code == EXIT_DONE
    assert caught.record["counts"]["alerts"] >= 2
    assert_same(contents(down.warehouse), contents(in_time.warehouse))
    # A score is that of the day's calibration, which is the same here too.
    names = ("anomaly_id", "score", "severity", "score_revision")
    scores = [sorted(tuple(row[n] for n in names) for row in place.rows(ANOMALIES)) for place in places]
    assert [row[:3] for row in scores[0]] == [row[:3] for row in scores[1]]


def test_a_gap_is_judged_day_by_day() -> None:
    start, day = at(JUDGED, 20), timedelta(days=1)
    two_hours = timedelta(hours=2)
    assert to_spans(start, None, at(later(3), 1), two_hours) == ((start, at(later(3), 1), later(3)),)
    assert to_spans(start, at(JUDGED, 22), at(later(1), 0), two_hours) == (
        (start, at(later(1), 0), later(1)),
    )
    spans = to_spans(start, at(JUDGED, 22), at(later(2), 9), two_hours)
    assert spans == (
        (start, at(later(1), 0), JUDGED),
        (at(later(1), 0), at(later(2), 0), later(1)),
        (at(later(2), 0), at(later(2), 9), later(2)),
    )
    assert all(end == begin for (_, end, _), (begin, _, _) in pairwise(spans))
    assert [upto for *_, upto in spans] == [JUDGED, JUDGED + day, JUDGED + 2 * day]


# ------------------------------------------------------------------------------- corrected, out of order


def _corrects(event: dict[str, Any], event_id: str, **more: Any) -> dict[str, Any]:
    addendum = {
        "reason": "UPDATED_DATA", "updatedFields": ", ".join(more), "originalEventID": event["eventID"],
    }  # fmt: skip
    return {**event, "eventID": event_id, "addendum": addendum, **more}


@pytest.mark.slow
def test_a_correction_takes_the_place_of_what_it_corrects(spark: SparkSession, tmp_path: Path) -> None:
    place = Place(spark, tmp_path)
    noon = at(JUDGED, 12)
    wrong = call("ana", "iam:GetUser", BILBAO, noon, eventID="wrong")
    right = _corrects(wrong, "right", sourceIPAddress=AMSTERDAM)
    own = call("ben", "iam:GetUser", BILBAO, noon, eventID="own")
    deliver(place.trail, noon, [wrong, own, call("ana", "s3:ListBuckets", AMSTERDAM, noon, eventID="x")])
    place.run(at(JUDGED, 13), steps=("ingest",))
    deliver(place.trail, at(JUDGED, 14), [right, _corrects(own, "own", sourceIPAddress=AMSTERDAM)], "b")
    ended = place.run(at(JUDGED, 15), steps=("ingest",))
    assert ended.record["counts"]["superseded"] == 2

    events = {row["event_id"]: row for row in place.rows(EVENTS)}
    assert events.keys() == {"right", "own", "x"}
    assert {row["source_ip_address"] for row in events.values()} == {AMSTERDAM}
    assert events["right"]["corrects_event_id"] == "wrong"
    aside = place.rows(QUARANTINE)
    assert {(row["event_id"], row["reason"]) for row in aside} == {
        ("wrong", "superseded"), ("own", "superseded"),
    }  # fmt: skip
    assert all(BILBAO in row["raw"] for row in aside), "what was superseded can be read again"
    assert {row["source_ip_address"] for row in place.rows(PRESENCE_DAILY)} == {AMSTERDAM}
    for row in place.rows(INGEST_FILES):
        assert row["records"] == row["events"] + row["duplicates"] + row["quarantined"]
    assert sum(row["events"] for row in place.rows(INGEST_FILES)) == 3


_NOON = at(JUDGED, 12)
_ONE = call("ana", "iam:GetUser", AMSTERDAM, _NOON, eventID="one")
_TWO = call("ana", "iam:GetUser", MILAN, _NOON - timedelta(days=1), eventID="two")
# Copies, an id used twice, corrections with a rival and under the id corrected, a neighbour day.
_RECORDS = (
    _ONE,
    _ONE,
    {**_ONE, "awsRegion": "us-east-1"},
    {**_ONE, "awsRegion": "us-east-1"},
    _TWO,
    _TWO,
    _corrects(_TWO, "c1", sourceIPAddress=BILBAO),
    _corrects(_TWO, "c2", sourceIPAddress=AMSTERDAM),
    call("ben", "s3:ListBuckets", AMSTERDAM, at(JUDGED, 23, 59), eventID="three"),
    _corrects(
        call("ben", "s3:ListBuckets", AMSTERDAM, at(JUDGED, 23, 59), eventID="three"),
        "three",
        errorCode="AccessDenied",
    ),
    record(eventTime="1999-01-01T00:00:00Z", eventID="old"),
)
# Each record's delivery: which run takes it in, and which file of that run.
_deliveries = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=11, max_size=11)


@pytest.fixture(scope="module")
def at_once(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Counter[str]]:
    place = Place(spark, tmp_path_factory.mktemp("once"))
    deliver(place.trail, _NOON, _RECORDS)
    place.run(at(JUDGED, 13), steps=("ingest",))
    return contents(place.warehouse)


@pytest.mark.long
@settings(
    max_examples=2, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(deliveries=_deliveries)
def test_any_order_and_grouping_of_deliveries_gives_the_same_rows(
    spark: SparkSession,
    at_once: dict[str, Counter[str]],
    tmp_path_factory: pytest.TempPathFactory,
    deliveries: list[tuple[int, int]],
) -> None:
    place = Place(spark, tmp_path_factory.mktemp("grouped"))
    for turn in sorted({turn for turn, _ in deliveries}):
        for file in (0, 1):
            records = [r for r, to in zip(_RECORDS, deliveries, strict=True) if to == (turn, file)]
            if records:
                deliver(place.trail, _NOON + timedelta(hours=turn, minutes=file), records[:: 1 - 2 * file])
        place.run(at(JUDGED, 13 + turn), steps=("ingest",))
        for row in place.rows(INGEST_FILES):
            assert row["records"] == row["events"] + row["duplicates"] + row["quarantined"]
    assert_same(contents(place.warehouse), at_once)


# ---------------------------------------------------------------------------------------- scale of failure


@pytest.mark.long
def test_one_bad_account_region_file_and_detector_hold_back_themselves_and_no_other(
    copy: Callable[[str], Place], tmp_path: Path
) -> None:
    """All four at once; nothing of them is published until each is mended, and everything else is at once."""
    place = copy("faults")
    # From where nobody else came, so that these are incidents of their own.
    now, other, london = at(JUDGED, 15, 45), "222233334444", "81.2.69.142"
    conf = tmp_path / "conf" / "detectors"
    conf.mkdir(parents=True)
    (conf / "unusual_command_for_user.yml").write_text("requires: {command: [\n")
    calls = [
        call("ben", "iam:CreateUser", london, now),
        call("ben", "iam:CreateRole", london, now, recipientAccountId=other),
        call("carla", "iam:CreateUser", london, now, awsRegion="eu-north-1"),
    ]
    future = call("carla", "iam:GetUser", MILAN, datetime(2098, 1, 1, tzinfo=UTC), awsRegion="eu-north-1")
    deliver(place.trail, now, calls)
    deliver(place.trail, now, [future], "future")
    unreadable = (
        place.trail / "AWSLogs" / ACCOUNT / "CloudTrail" / "eu-west-1" / f"{now:%Y/%m/%d}" / "bad.json"
    )
    unreadable.symlink_to("/proc/self/mem")

    def go(minute: int, *, broken: bool = True) -> Ended:
        settings = place.settings
        if broken:
            found = load_settings(conf=str(conf.parent))[0]
            settings = settings.model_copy(
                update={"detectors": found.detectors, "broken_detectors": found.broken_detectors}
            )
        as_of = at(JUDGED, 16, minute)
        return run(place.spark, settings, as_of=as_of, clock=lambda: as_of)

    def published() -> set[tuple[str, str, str]]:
        rows = place.rows(ANOMALIES, THIS_HOUR)
        return {(row["recipient_account_id"], row["aws_region"], row["detector"]) for row in rows}

    # An account's events are spoilt where nothing else would: in the table.
    place.run(at(JUDGED, 16), steps=("ingest",))
    events = place.warehouse.name(EVENTS)
    spoilt = f"recipient_account_id = '{other}'"
    place.spark.sql(f"UPDATE {events} SET event_name = '' WHERE {spoilt}").collect()
    bad = {
        f"recipient_account_id={other}",
        f"account_region={ACCOUNT}/eu-north-1",
        "detector=unusual_command_for_user",
        f"source_file={unreadable}",
    }
    for minute in (10, 20):
        held = go(minute)
        assert held.exit_code == EXIT_HELD
        assert set(held.record["held_scopes"]) == bad
        (row,) = place.rows(RUNS, f"run_id = '{held.record['run_id']}'")
        assert (row["status"], set(row["held_scopes"])) == ("held", bad)
        assert {(account, region) for account, region, _ in published()} == {(ACCOUNT, "eu-west-1")}
        assert "unusual_command_for_user" not in {detector for *_, detector in published()}
    ours = published()
    assert ours
    assert place.rows(INCIDENTS, "principal LIKE '%ben' AND alerted_at IS NOT NULL")

    place.spark.sql(f"UPDATE {events} SET event_name = 'CreateRole' WHERE {spoilt}").collect()
    place.spark.sql(f"DELETE FROM {events} WHERE event_date > DATE'2090-01-01'").collect()
    unreadable.unlink()
    unreadable.write_bytes(trail_file([call("ben", "s3:ListBuckets", london, now)], compressed=False))
    released = go(30, broken=False)
    assert released.exit_code == EXIT_DONE, released.messages
    assert {(account, region) for account, region, _ in published()} == {
        (ACCOUNT, "eu-west-1"), (ACCOUNT, "eu-north-1"), (other, "eu-west-1"),
    }  # fmt: skip
    assert "unusual_command_for_user" in {detector for *_, detector in published()}
    assert "s3:ListBuckets" in {row["command"] for row in place.rows(ANOMALIES, THIS_HOUR)}
