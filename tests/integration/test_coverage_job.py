"""Quiet or blind: an account that stops is told within hours, one that rests at the weekend is not."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from factories import call, trail_file
from raretrail.errors import EXIT_DONE
from raretrail.settings import Settings, load_settings
from raretrail.stages.run import Ended, run
from raretrail.tables import COVERAGE_HOURLY, DATA_QUALITY, RUNS
from raretrail.warehouse import Warehouse, rows_of

pytestmark = [pytest.mark.integration, pytest.mark.long]

ROBOT, STOPS, OFFICE = "111122223333", "222233334444", "333344445555"
SUNDAY = date(2026, 2, 1)
DAYS = 28
# Events come to the half of an hour; the last of STOPS is this one.
LAST = 6


def _at(hour: int) -> datetime:
    return datetime(SUNDAY.year, SUNDAY.month, SUNDAY.day, tzinfo=UTC) + timedelta(hours=hour)


def _active(account: str, at: datetime) -> bool:
    if account == OFFICE:
        return at.weekday() < 5 and 9 <= at.hour < 17
    return account == ROBOT or at <= _at(LAST)


def _deliver(root: Path, account: str, name: str, hours: Iterable[datetime]) -> None:
    by_day: dict[date, list[dict[str, Any]]] = {}
    for at in hours:
        record = call(
            f"u{account[0]}",
            "ec2:DescribeInstances",
            "87.210.98.182",
            at + timedelta(minutes=30),
            recipientAccountId=account,
        )
        by_day.setdefault(at.date(), []).append(record)
    for day, records in by_day.items():
        folder = root / "AWSLogs" / account / "CloudTrail" / "eu-west-1" / f"{day:%Y/%m/%d}"
        folder.mkdir(parents=True, exist_ok=True)
        file = f"{account}_CloudTrail_eu-west-1_{day:%Y%m%d}T0005Z_{name:>016}.json.gz"
        (folder / file).write_bytes(trail_file(records))


def _settings(trail: Path, warehouse: Path) -> Settings:
    return load_settings(options={"trail": [str(trail)], "warehouse": str(warehouse)})[0]


def _run(spark: SparkSession, settings: Settings, as_of: datetime) -> Ended:
    return run(spark, settings, as_of=as_of, clock=lambda: as_of)


def _judged(warehouse: Warehouse) -> list[dict[str, Any]]:
    rows = warehouse.read(COVERAGE_HOURLY).orderBy(*COVERAGE_HOURLY.key)
    return rows_of(rows)


def _status(warehouse: Warehouse, account: str, hour: int) -> str:
    row = (
        warehouse.read(COVERAGE_HOURLY)
        .where((F.col("hour_start") == F.lit(_at(hour))) & (F.col("recipient_account_id") == account))
        .where("aws_region = 'eu-west-1'")
        .first()
    )
    assert row is not None
    return str(row["status"])


def _unmet(warehouse: Warehouse, run_id: str) -> set[tuple[str, str | None]]:
    rows = warehouse.read(DATA_QUALITY).where((F.col("run_id") == run_id) & ~F.col("success")).collect()
    return {(row["expectation"], row["scope_value"]) for row in rows if row["suite"] == "coverage"}


def test_an_account_that_stops_is_told_and_a_weekend_is_not(spark: SparkSession, tmp_path: Path) -> None:
    trail, where = tmp_path / "trail", tmp_path / "w"
    for account in (ROBOT, STOPS, OFFICE):
        hours = [_at(h) for h in range(-24 * DAYS, 10)]
        _deliver(trail, account, "a", [at for at in hours if _active(account, at)])
    settings = _settings(trail, where)
    warehouse = Warehouse(spark, str(where))

    # Two hours of silence are no news yet.
    early = _run(spark, settings, _at(9) + timedelta(minutes=40))
    assert early.exit_code == EXIT_DONE
    assert early.record["counts"]["silent"] == 0
    assert not any("silent" in text.lower() for text in early.messages), early.messages
    assert [_status(warehouse, account, 8) for account in (ROBOT, STOPS, OFFICE)] == ["ok"] * 3
    assert _status(warehouse, ROBOT, 9) == "late"

    # Five are: within six and a half hours of its last event.
    _deliver(trail, ROBOT, "b", [_at(h) for h in range(10, 13)])
    told = _run(spark, settings, _at(LAST) + timedelta(hours=6, minutes=30))
    assert told.exit_code == EXIT_DONE, "what did come is published"
    assert told.record["counts"]["silent"] == 1
    message = told.record["message"]
    assert message.startswith(f"Silent: account {STOPS} for 5 hours, 5 events expected. ")
    assert message in told.messages
    assert _unmet(warehouse, told.record["run_id"]) == {("accounts_speak", STOPS)}
    assert [_status(warehouse, account, 11) for account in (ROBOT, STOPS, OFFICE)] == ["ok", "silent", "ok"]
    (stored,) = warehouse.read(RUNS).where(F.col("run_id") == told.record["run_id"]).collect()
    assert (stored["status"], stored["message"]) == ("done", message)

    # A rerun changes nothing.
    before = _judged(warehouse)
    _run(spark, settings, _at(LAST) + timedelta(hours=6, minutes=30))
    assert _judged(warehouse) == before

    # What comes late speaks for its hour, and the silence after it is shorter.
    _deliver(trail, STOPS, "late", [_at(9)])
    late = _run(spark, settings, _at(LAST) + timedelta(hours=6, minutes=30))
    assert late.record["counts"]["silent"] == 0
    assert [_status(warehouse, STOPS, hour) for hour in (8, 9, 11)] == ["ok", "ok", "ok"]

    # When everything stops a run has nothing to judge, and says so rather than that all is well.
    _run(spark, settings, _at(23) + timedelta(minutes=35))
    blind = _run(spark, settings, _at(23) + timedelta(minutes=40))
    assert blind.record["counts"]["files_new"] == 0 and "publish" not in blind.record["seconds"]
    assert blind.record["message"].startswith("Silent: the whole trail for 10 hours")
    assert ("trail_speaks", None) in _unmet(warehouse, blind.record["run_id"])
    assert _status(warehouse, OFFICE, 22) == "ok"

    # Played forward, by facts instead of the stored baseline, every judged hour comes to the same.
    span = (_at(0), _at(24))
    played = Warehouse(spark, str(tmp_path / "played"))
    run(spark, _settings(trail, tmp_path / "played"), as_of=_at(48), span=span)
    ours = [row for row in _judged(warehouse) if row["status"] != "late"]
    theirs = {tuple(row[key] for key in COVERAGE_HOURLY.key): row for row in _judged(played)}
    assert len(ours) > 100
    assert [theirs[tuple(row[key] for key in COVERAGE_HOURLY.key)] for row in ours] == ours
