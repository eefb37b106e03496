"""The main job end to end on a small trail: what it finds, that it can be run again, that it can hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from factories import ABSENT, record, trail_file
from raretrail.errors import EXIT_DONE, EXIT_HELD, BusyError
from raretrail.settings import Settings, load_settings
from raretrail.stages.run import Ended, run
from raretrail.tables import (
    ALL,
    ANOMALIES,
    BASELINE_COMMAND_PLACE,
    EVENTS,
    INCIDENTS,
    INGEST_FILES,
    OUTBOX,
    PRESENCE_DAILY,
    QUARANTINE,
    RUNS,
)
from raretrail.warehouse import Warehouse

ACCOUNT = "111122223333"
AMSTERDAM, MILAN, BILBAO = "87.210.98.182", "95.251.251.132", "212.142.174.158"
FIRST = date(2026, 1, 1)
JUDGED = date(2026, 1, 25)
COMMANDS = ("ec2:DescribeInstances", "s3:ListBuckets", "iam:GetUser")


def _record(user: str, command: str, address: str, at: datetime, **more: Any) -> dict[str, Any]:
    service, name = command.split(":")
    return record(
        {
            "userIdentity.type": "IAMUser",
            "userIdentity.principalId": f"AIDA{user.upper()}",
            "userIdentity.arn": f"arn:aws:iam::{ACCOUNT}:user/{user}",
            "userIdentity.userName": user,
            "userIdentity.accountId": ACCOUNT,
            "userIdentity.sessionContext": ABSENT,
            "eventSource": f"{service}.amazonaws.com",
            "eventName": name,
            "sourceIPAddress": address,
            "eventTime": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "recipientAccountId": ACCOUNT,
            "userAgent": "aws-cli/2.15.0 Python/3.11.6 Linux/6.1",
            **more,
        }
    )


def _deliver(root: Path, day: date, name: str, records: list[dict[str, Any]]) -> None:
    folder = root / "AWSLogs" / ACCOUNT / "CloudTrail" / "eu-west-1" / f"{day:%Y/%m/%d}"
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{ACCOUNT}_CloudTrail_eu-west-1_{day:%Y%m%d}T1205Z_{name:>016}"
    (folder / f"{stem}.json.gz").write_bytes(trail_file(records))


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people at work for 24 days; on the 25th one of their keys is used from Bilbao."""
    root = tmp_path_factory.mktemp("trail")
    homes = {"ana": AMSTERDAM, "ben": AMSTERDAM, "carla": MILAN}
    for n in range((JUDGED - FIRST).days + 1):
        day = FIRST + timedelta(days=n)
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        records = [
            _record(user, command, address, noon + timedelta(minutes=i))
            for i, (user, address) in enumerate(homes.items())
            for command in COMMANDS
        ]
        if day == JUDGED:
            at = noon + timedelta(hours=2)
            records.append(_record("ana", "iam:CreateAccessKey", BILBAO, at))
            records.append(_record("ana", "ec2:DescribeInstances", BILBAO, at + timedelta(minutes=1)))
        _deliver(root, day, "a", records)
        if n == 3:
            _deliver(root, day, "b", records[:2])
    return root


def _settings(trail: Path, warehouse: Path) -> Settings:
    settings, _ = load_settings(options={"trail": [str(trail)], "warehouse": str(warehouse)})
    return settings


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _history(spark: SparkSession, trail: Path, warehouse: Path) -> Ended:
    span = (_midnight(JUDGED), _midnight(JUDGED + timedelta(days=1)))
    return run(spark, _settings(trail, warehouse), as_of=datetime.now(UTC), span=span)


@pytest.fixture(scope="module")
def played(
    spark: SparkSession, trail: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Warehouse, Ended]]:
    """The trail's last day played forward."""
    where = tmp_path_factory.mktemp("warehouse") / "w"
    ended = _history(spark, trail, where)
    yield Warehouse(spark, str(where)), ended


def _terms(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    names = [c.name for c in ANOMALIES.columns if c.type in ("double", "bigint") and not c.arrival]
    names.append("score")
    rows = warehouse.read(ANOMALIES).select("anomaly_id", "incident_id", "summary", *names).collect()
    return sorted(tuple(row) for row in rows)


def test_the_run_is_done_and_says_what_it_did(played: tuple[Warehouse, Ended]) -> None:
    warehouse, ended = played
    assert ended.exit_code == EXIT_DONE
    days = (JUDGED - FIRST).days + 1
    assert ended.record["counts"]["events"] == days * 9 + 2
    assert ended.record["counts"]["duplicates"] == 2
    assert [row.status for row in warehouse.read(RUNS).collect()] == ["done"]


def test_the_ledger_balances_for_each_file(played: tuple[Warehouse, Ended]) -> None:
    rows = played[0].read(INGEST_FILES).collect()
    assert len(rows) == (JUDGED - FIRST).days + 2
    assert all(row.records == row.events + row.duplicates + row.quarantined for row in rows)
    assert sum(row.events for row in rows) == played[0].read(EVENTS).count()


def test_the_stolen_key_is_the_first_incident(played: tuple[Warehouse, Ended]) -> None:
    top = played[0].read(INCIDENTS).orderBy(F.desc("bits")).first()
    assert top is not None
    assert (top.principal, top.city_name) == (f"arn:aws:iam::{ACCOUNT}:user/ana", "Bilbao")
    assert set(top.commands) == {"iam:CreateAccessKey", "ec2:DescribeInstances"}
    assert len(top.evidence_event_ids) == top.event_count == 2
    assert top.alerted_at is None, "playing history forward alerts nobody"


def test_the_day_is_judged_by_the_days_before_it(played: tuple[Warehouse, Ended]) -> None:
    rows = played[0].read(ANOMALIES).collect()
    assert rows
    for row in rows:
        assert row.as_of == row.bucket_date == JUDGED
        assert row.baseline_days == row.principal_active_days == (JUDGED - FIRST).days
        assert row.principal_place_days == row.place_days == 0


def test_the_baseline_names_days_and_principals(played: tuple[Warehouse, Ended]) -> None:
    rows = played[0].read(BASELINE_COMMAND_PLACE).where("command = 'iam:GetUser'").collect()
    by_name = {row.place_name: row for row in rows}
    amsterdam = by_name["Amsterdam, NL"]
    assert (amsterdam.days_7, amsterdam.days_30, amsterdam.days_90) == (7, 25, 25)
    assert (amsterdam.principals_90, by_name["Milan, IT"].principals_90) == (2, 1)
    assert (amsterdam.first_day, amsterdam.last_day) == (FIRST, JUDGED)


def test_every_table_has_the_columns_it_is_declared_with(played: tuple[Warehouse, Ended]) -> None:
    warehouse = played[0]
    for table in ALL:
        if warehouse.exists(table):
            assert warehouse.read(table).columns == table.column_names, table.name


def test_running_it_again_changes_nothing(
    spark: SparkSession, trail: Path, played: tuple[Warehouse, Ended]
) -> None:
    warehouse, _ = played
    before, incidents = _terms(warehouse), warehouse.read(INCIDENTS).drop("run_id").collect()
    again = _history(spark, trail, Path(warehouse.location))
    assert again.record["counts"]["files_new"] == 0
    assert _terms(warehouse) == before
    assert warehouse.read(INCIDENTS).drop("run_id").collect() == incidents
    assert {row.score_revision for row in warehouse.read(ANOMALIES).collect()} == {0}


def test_a_scheduled_run_by_the_stored_snapshot_finds_the_same(
    spark: SparkSession, trail: Path, played: tuple[Warehouse, Ended], tmp_path: Path
) -> None:
    settings = _settings(trail, tmp_path / "w")
    settings = settings.model_copy(
        update={"score": settings.score.model_copy(update={"lookback": timedelta(hours=23)})}
    )
    ended = run(spark, settings, as_of=_midnight(JUDGED) + timedelta(hours=23, minutes=30))
    warehouse = Warehouse(spark, str(tmp_path / "w"))
    assert ended.record["counts"]["baseline_built"] == 1
    assert _terms(warehouse) == _terms(played[0])
    assert (
        ended.record["counts"]["alerts"] == warehouse.read(INCIDENTS).where("alerted_at IS NOT NULL").count()
    )
    assert not warehouse.exists(OUTBOX), "nothing is to be delivered where nothing says whereto"
    assert warehouse.read(INCIDENTS).where("alert_revision IS NOT NULL").count() == 0


@pytest.mark.slow
def test_a_copy_that_comes_weeks_later_is_found_by_night(spark: SparkSession, tmp_path: Path) -> None:
    """One id twice with one content and another id with two, each three weeks apart."""
    settings = _settings(tmp_path / "trail", tmp_path / "w")
    noon = _midnight(FIRST) + timedelta(hours=12)
    later = noon + timedelta(days=21)

    def named(event_id: str, command: str, at: datetime) -> dict[str, Any]:
        return _record("ana", command, AMSTERDAM, at, eventID=event_id)

    def take(name: str, at: datetime, now: datetime, records: list[dict[str, Any]]) -> None:
        _deliver(tmp_path / "trail", at.date(), name, records)
        ended = run(spark, settings, as_of=at + timedelta(hours=1), steps=("ingest",), clock=lambda: now)
        assert ended.exit_code == EXIT_DONE

    same = named("id-same", "iam:GetUser", noon)
    take("a", noon, noon, [same, named("id-other", "iam:GetUser", noon), named("x", "iam:GetUser", noon)])
    take("b", later, noon + timedelta(hours=1), [same, named("id-other", "iam:GetRole", later)])
    warehouse = Warehouse(spark, str(tmp_path / "w"))
    take("c", later, noon + timedelta(hours=30), [named("y", "iam:GetUser", later)])

    ids = sorted(row.event_id for row in warehouse.read(EVENTS).collect())
    assert ids == ["id-other", "id-same", "x", "y"]
    assert [row.reason for row in warehouse.read(QUARANTINE).collect()] == ["id_reused"]
    rows = warehouse.read(INGEST_FILES).collect()
    assert all(row.records == row.events + row.duplicates + row.quarantined for row in rows)
    assert sum(row.events for row in rows) == 4
    facts = warehouse.read(PRESENCE_DAILY).agg(F.sum("event_count")).collect()
    assert facts[0][0] == 4


@pytest.mark.slow
def test_a_scheduled_run_with_nothing_new_judges_nothing(
    spark: SparkSession, trail: Path, played: tuple[Warehouse, Ended]
) -> None:
    settings = _settings(trail, Path(played[0].location))
    before = played[0].read(ANOMALIES).count()
    ended = run(spark, settings, as_of=_midnight(JUDGED) + timedelta(days=3))
    assert ended.record["counts"]["findings"] == 0
    assert "score" in ended.record["seconds"] and "publish" not in ended.record["seconds"]
    assert played[0].read(ANOMALIES).count() == before


@pytest.mark.slow
def test_a_snapshot_advanced_day_by_day_equals_one_built(
    spark: SparkSession, trail: Path, played: tuple[Warehouse, Ended], tmp_path: Path
) -> None:
    settings = _settings(trail, tmp_path / "w")
    for back in (2, 1, -1):
        as_of = _midnight(JUDGED) - timedelta(days=back) + timedelta(hours=1)
        run(spark, settings, as_of=as_of, steps=("ingest", "baseline"))
    advanced = Warehouse(spark, str(tmp_path / "w"))
    day = F.col("as_of") == F.lit(JUDGED + timedelta(days=1))
    for table in ALL:
        if table.name.startswith("baseline_"):
            ours = advanced.read(table).where(day).orderBy(*table.key).collect()
            built = played[0].read(table).where(day).orderBy(*table.key).collect()
            assert ours == built, table.name


@pytest.mark.slow
def test_bad_input_holds_its_account_until_it_is_mended(
    spark: SparkSession, trail: Path, tmp_path: Path
) -> None:
    root = tmp_path / "trail"
    root.mkdir()
    (root / "AWSLogs").symlink_to(trail / "AWSLogs")
    bad = root / "more" / "bad.json"
    bad.parent.mkdir()
    bad.write_bytes(
        trail_file(
            [_record("ana", "iam:GetUser", AMSTERDAM, datetime(2098, 1, 1, tzinfo=UTC))], compressed=False
        )
    )
    stamp = _midnight(JUDGED).timestamp()
    os.utime(bad, (stamp, stamp))
    where = tmp_path / "w"
    held = _history(spark, root, where)
    warehouse = Warehouse(spark, str(where))
    assert held.exit_code == EXIT_HELD
    assert held.record["held_scopes"] == [f"account_region={ACCOUNT}/eu-west-1"]
    assert any("not_in_the_future" in message for message in held.messages), held.messages
    assert warehouse.read(ANOMALIES).count() == warehouse.read(INCIDENTS).count() == 0
    assert held.record["counts"]["findings"] > 0

    spark.sql(f"DELETE FROM {warehouse.name(EVENTS)} WHERE event_date > DATE'2090-01-01'").collect()
    released = _history(spark, root, where)
    assert released.exit_code == EXIT_DONE
    assert warehouse.read(ANOMALIES).count() == held.record["counts"]["findings"]


@pytest.mark.slow
def test_an_old_file_that_cannot_be_read_is_held_by_every_run_until_it_can(
    spark: SparkSession, tmp_path: Path
) -> None:
    """A quarter-hour's run lists the last days only; what a nightly one could not read it reads again."""
    trail, where = tmp_path / "trail", tmp_path / "w"
    noon = _midnight(JUDGED) + timedelta(hours=12)
    _deliver(trail, JUDGED, "a", [_record("ana", "iam:GetUser", AMSTERDAM, noon)])
    old = JUDGED - timedelta(days=12)
    lost = _record("ana", "iam:GetUser", AMSTERDAM, noon - timedelta(days=12))
    _deliver(trail, old, "b", [lost])
    (file,) = (trail / "AWSLogs").rglob(f"*{old:%Y%m%d}*")
    file.unlink()
    file.symlink_to("/proc/self/mem")

    def go(minute: int) -> Ended:
        at = noon + timedelta(hours=1, minutes=minute)
        return run(spark, _settings(trail, where), as_of=at, clock=lambda: at)

    for minute in (0, 15, 30):
        ended = go(minute)
        assert ended.exit_code == EXIT_HELD
        assert ended.record["held_scopes"] == [f"source_file={file}"]
        assert ended.record["counts"]["listed_all"] == (minute == 0)
    file.unlink()
    _deliver(trail, old, "b", [lost])
    assert go(45).exit_code == EXIT_DONE
    assert Warehouse(spark, str(where)).read(EVENTS).where(F.col("event_date") == F.lit(old)).count() == 1
    last = go(59)
    assert (last.exit_code, last.record["counts"]["files_listed"]) == (EXIT_DONE, 1)


def test_a_second_run_on_a_held_warehouse_yields(spark: SparkSession, trail: Path, tmp_path: Path) -> None:
    warehouse = Warehouse(spark, str(tmp_path / "w"))
    with warehouse.held(), pytest.raises(BusyError, match="is running on this warehouse"):
        _history(spark, trail, tmp_path / "w")
