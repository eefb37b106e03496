"""An intruder who comes back every day: alerted each day, learnt on none, until somebody says otherwise."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from test_main_job import AMSTERDAM, BILBAO, _deliver, _record

from raretrail.settings import load_settings
from raretrail.stages.run import run
from raretrail.tables import ANOMALIES, BASELINE_IDENTITY_VALUE, DISPOSITIONS, INCIDENTS, WITHHELD
from raretrail.verdicts import made, write
from raretrail.warehouse import Warehouse

pytestmark = [pytest.mark.long, pytest.mark.integration]

FIRST, BREACH = date(2026, 1, 1), date(2026, 1, 15)


def _noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


def test_who_comes_back_daily_does_not_become_normal(spark: SparkSession, tmp_path: Path) -> None:
    """Fourteen quiet days, then ana's key from Bilbao on three; the fourth is after a verdict."""
    trail, where = tmp_path / "trail", str(tmp_path / "w")
    conf = tmp_path / "conf.yml"
    conf.write_text("alerts: {min_score: 1}")
    settings, _ = load_settings(str(conf), {"trail": [str(trail)], "warehouse": where})
    warehouse = Warehouse(spark, where)
    for n in range((BREACH - FIRST).days + 4):
        at = _noon(FIRST + timedelta(days=n))
        home = [_record(who, "iam:GetUser", AMSTERDAM, at) for who in ("ana", "ben")]
        _deliver(trail, at.date(), "home", home)

    def day_of_breach(n: int) -> tuple[float, int]:
        """Deliver the intruder's call of the n-th day and run: its place_bits and the run's alerts."""
        day = BREACH + timedelta(days=n)
        call = _record("ana", "iam:CreateAccessKey", BILBAO, _noon(day) + timedelta(minutes=30))
        _deliver(trail, day, "away", [call])
        ended = run(spark, settings, as_of=_noon(day) + timedelta(hours=1))
        found = warehouse.read(ANOMALIES).where(f"bucket_date = DATE'{day}' AND place_name LIKE 'Bilbao%'")
        return max(row.place_bits for row in found.collect()), ended.record["counts"]["alerts"]

    days = [day_of_breach(n) for n in range(3)]
    assert [alerts for _, alerts in days] == [1, 1, 1]
    assert min(bits for bits, _ in days) >= days[0][0] - 1, "the place stays as new as it was"
    held = warehouse.read(WITHHELD).collect()
    assert {(row.event_date, row.reason) for row in held} == {
        (BREACH + timedelta(days=n), "unjudged") for n in range(2)
    }
    assert _days_in_bilbao(warehouse) == 0

    # Called benign, all of it is learnt: by the next day the place is known.
    for row in warehouse.read(INCIDENTS).collect():
        said = {
            "incident_id": row.incident_id,
            "verdict": "benign",
            "state": "closed",
            "reason": "new office",
        }
        write(Path(where), DISPOSITIONS, [made(DISPOSITIONS, "bo", datetime.now(UTC), said)])
    run(spark, settings, as_of=_noon(BREACH + timedelta(days=2)) + timedelta(hours=2))
    run(spark, settings, as_of=_noon(BREACH + timedelta(days=3)))
    assert warehouse.read(WITHHELD).count() == 0
    assert _days_in_bilbao(warehouse) == 3


def _days_in_bilbao(warehouse: Warehouse) -> int:
    """Days on which the latest baseline knows ana outside Amsterdam, where she is daily."""
    known = warehouse.read(BASELINE_IDENTITY_VALUE).where("dimension = 'place'").collect()
    latest = max(row.as_of for row in known)
    days = [row.days_90 for row in known if row.as_of == latest and row.identity.endswith("ana")]
    return min(days) if len(days) > 1 else 0
