"""What came late: the buckets to be judged again, and the findings of other buckets that rest on it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail.baseline.news import REACH_DAYS, only_touched, to_changed_uses, to_news
from raretrail.stages.locating import Geo, places_of
from raretrail.stages.score import Touched, Window
from raretrail.tables import ANOMALIES, EVENTS, QUARANTINE, STAGED_TOUCHED
from raretrail.warehouse import Warehouse, on_days, rows_of

# Why a stored event was taken out again.
_TAKEN_OUT = ("id_reused", "superseded")


@dataclass(frozen=True)
class Late:
    """Buckets judged before that hold something else now, the days on which they lie."""

    buckets: frozenset[datetime]

    @property
    def days(self) -> list[date]:
        return sorted({bucket.date() for bucket in self.buckets})


def late_buckets(
    warehouse: Warehouse,
    judged: Sequence[tuple[datetime, datetime]],
    days: Collection[date],
    since: datetime,
    start: datetime,
    taken_out: Collection[datetime] | None,
) -> Late:
    """The buckets before start, on days and within the judged spans, for which events came since then, or
    went.

    taken_out are hours from which copies went; None where nothing did, which spares a look.
    """
    first = min(begin for begin, _ in judged)
    days = [day for day in days if first.date() <= day <= start.date()]
    if not days:
        return Late(frozenset())
    hour = F.date_trunc("HOUR", "event_time").alias("bucket")
    rows = _came(warehouse, days, since).select(hour)
    if taken_out is not None:
        rows = rows.unionByName(_went(warehouse, days, since).select(hour))
    rows = rows.distinct().where((F.col("bucket") >= F.lit(first)) & (F.col("bucket") < F.lit(start)))
    found = {row["bucket"] for row in rows_of(rows)}.union(
        bucket for bucket in taken_out or () if first <= bucket < start
    )
    return Late(frozenset(b for b in found if any(begin <= b < end for begin, end in judged)))


def touched_by(
    warehouse: Warehouse, geo: Geo, late: Late, since: datetime, window: Window, settings_hash: str
) -> tuple[Window, Touched | None]:
    """The findings outside the window that rest on what came late, staged; and the window, to which the
    hours of spikes among them are added, since a spike is judged with all errors of its quarter hour.

    Findings judged under other settings stay as they are.
    """
    if not late.buckets or not warehouse.exists(ANOMALIES):
        return window, None
    events = warehouse.read(EVENTS).where(on_days("event_date", late.days))
    came, went = _came(warehouse, late.days, since), _went(warehouse, late.days, since)
    stayed = events.where(F.col("ingested_at") <= F.lit(since))
    changed = to_changed_uses(stayed, came, went, places_of(warehouse, geo.build))
    moved = came.select("event_date", "actor").unionByName(went.select("event_date", "actor"))
    news = warehouse.stage("news", to_news(changed, moved), few=True)
    last = late.days[-1] + timedelta(days=REACH_DAYS)
    findings = (
        warehouse.read(ANOMALIES)
        .where(F.col("bucket_date").between(F.lit(late.days[0]), F.lit(last)))
        .where(F.col("settings_hash") == settings_hash)
        .where(~F.expr(window.holds("bucket_start")))
    )
    warehouse.replace(STAGED_TOUCHED, only_touched(findings, news), few=True)
    staged = warehouse.read(STAGED_TOUCHED)
    spiking = staged.where("spike_bits IS NOT NULL").select(
        F.date_trunc("HOUR", "bucket_start").alias("hour")
    )
    hours = {row["hour"] for row in rows_of(spiking.distinct())}
    return window.with_late(hours), staged_touched(warehouse)


def staged_touched(warehouse: Warehouse) -> Touched | None:
    """The findings staged to be judged again, or none."""
    staged = warehouse.read(STAGED_TOUCHED)
    days = sorted(row["bucket_date"] for row in staged.select("bucket_date").distinct().collect())
    return Touched(staged, days) if days else None


def _came(warehouse: Warehouse, days: Sequence[date], since: datetime) -> DataFrame:
    events = warehouse.read(EVENTS).where(on_days("event_date", days))
    return events.where(F.col("ingested_at") > F.lit(since))


def _went(warehouse: Warehouse, days: Sequence[date], since: datetime) -> DataFrame:
    """Stored events taken out since then, as they were: quarantine holds them as JSON."""
    aside = warehouse.read(QUARANTINE).where(
        # Its file was delivered after the event, or about midnight with a clock that is off.
        (F.col("file_date") >= F.lit(min(days) - timedelta(days=1)))
        & F.col("reason").isin(*_TAKEN_OUT)
        & (F.col("ingested_at") > F.lit(since))
    )
    stored = F.from_json("raw", EVENTS.spark_schema()).alias("event")
    return aside.select(stored).select("event.*").where(on_days("event_date", days))
