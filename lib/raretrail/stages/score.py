"""The score stage: the buckets of a window against what was known before them, into staging."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, timedelta
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail.baseline.history import History, history_of
from raretrail.baseline.nearest import to_coordinates, to_nearest
from raretrail.baseline.uses import area
from raretrail.detect.candidates import to_candidates, to_jump_ends, to_lookup, with_terms
from raretrail.detect.findings import to_evidence, to_findings
from raretrail.detect.sensitivity import load_levels
from raretrail.detect.spike import with_spikes
from raretrail.detect.surprise import to_surprises
from raretrail.geo.networks import hosting_names, with_known_network
from raretrail.settings import Settings
from raretrail.stages.baseline import (
    KnownUses,
    known_uses,
    located_jumps,
    stored_days,
    stored_history,
)
from raretrail.stages.elastic import COLUMNS as RECORD_SCORES
from raretrail.stages.elastic import with_record_scores
from raretrail.stages.evidence import first_events, with_answers
from raretrail.stages.locating import Geo, places_of
from raretrail.stages.spikes import spikes_of
from raretrail.tables import (
    AGENT_DAILY,
    BASELINE_IDENTITY_VALUE,
    BASELINES,
    CHANGES_DAILY,
    ERROR_QUARTER_HOUR,
    EVENTS,
    EVIDENCE,
    HOUR_DAILY,
    MOVES_DAILY,
    PLACES,
    PRESENCE_DAILY,
    SESSIONS_DAILY,
    STAGED_ANOMALIES,
    Table,
)
from raretrail.together import together
from raretrail.warehouse import Warehouse, conform, on_days

BUCKET = timedelta(hours=1)
# Every table the stage may read: a finding rests on these and on nothing else.
INPUTS: tuple[Table, ...] = (
    EVENTS,
    PLACES,
    PRESENCE_DAILY,
    AGENT_DAILY,
    HOUR_DAILY,
    MOVES_DAILY,
    ERROR_QUARTER_HOUR,
    CHANGES_DAILY,
    SESSIONS_DAILY,
    *BASELINES,
)
# What stands beside a finding is known once there is one; its rank once all incidents are.
_RANK = ("score", "severity")
_LATER = (*_RANK, *RECORD_SCORES, "evidence_event_ids", *(column.name for column in EVIDENCE))


@dataclass(frozen=True)
class Window:
    """The buckets to judge: all that begin in [start, end), and single earlier ones."""

    start: datetime
    end: datetime
    late: frozenset[datetime] = frozenset()

    def with_late(self, buckets: Collection[datetime]) -> Window:
        """It with these earlier buckets too."""
        return replace(self, late=self.late.union(b for b in buckets if not self.start <= b < self.end))

    @property
    def days(self) -> list[date]:
        """The days its buckets lie on, ascending."""
        days = {bucket.date() for bucket in self.late}
        day = self.start.date()
        while datetime(day.year, day.month, day.day, tzinfo=self.end.tzinfo) < self.end:
            days.add(day)
            day += timedelta(days=1)
        return sorted(days)

    def is_late(self, column: str) -> str:
        """SQL that holds for a start in one of the single earlier buckets."""
        if not self.late:
            return "false"
        return f"date_trunc('HOUR', {column}) IN ({', '.join(map(_time, sorted(self.late)))})"

    def holds(self, column: str) -> str:
        """SQL that holds for a start within the window, of a bucket or of a quarter of one."""
        within = f"({column} >= {_time(self.start)} AND {column} < {_time(self.end)})"
        return f"({within} OR {self.is_late(column)})" if self.late else within


@dataclass(frozen=True)
class Touched:
    """Published findings to be judged again beside the window: rows of `staged_touched`, of these days."""

    findings: DataFrame
    days: list[date]


def bucket_of(time: datetime) -> datetime:
    """The start of the bucket a time lies in."""
    return time.replace(minute=0, second=0, microsecond=0)


def input_versions(warehouse: Warehouse) -> dict[str, int]:
    """The Delta versions, by table, of what the stage would read now."""
    found: dict[str, int] = {}

    def note(table: Table) -> None:
        version = warehouse.version(table)
        if version is not None:
            found[table.name] = version

    together([partial(note, table) for table in INPUTS])
    return dict(sorted(found.items()))


def window_events(warehouse: Warehouse, window: Window) -> DataFrame:
    """The events of the window's buckets."""
    return (
        warehouse.read(EVENTS)
        .where(on_days("event_date", window.days))
        .where(window.holds("date_trunc('HOUR', event_time)"))
    )


def days_judged(window: Window, touched: Touched | None) -> list[date]:
    """The days of the window's buckets and of the findings beside it, ascending."""
    return sorted({*window.days, *(touched.days if touched else ())})


def judged_events(warehouse: Warehouse, window: Window, touched: Touched | None) -> DataFrame:
    """The events of the window's buckets and, of other buckets, those of the findings to be judged again."""
    events = window_events(warehouse, window)
    if touched is None:
        return events
    hour = F.date_trunc("HOUR", "event_time")
    keys = ["recipient_account_id", "principal", "actor", "command"]
    found = touched.findings.select(
        F.date_trunc("HOUR", "bucket_start").alias("hour"),
        *keys,
        F.coalesce("source_ip_address", F.lit("")).alias("address"),
        F.coalesce("error_code", F.lit("")).alias("outcome"),
    ).distinct()
    others = (
        warehouse.read(EVENTS)
        .where(on_days("event_date", touched.days))
        .where(~F.expr(window.holds("date_trunc('HOUR', event_time)")))
        .withColumns(
            {
                "hour": hour,
                "address": F.coalesce("source_ip_address", F.lit("")),
                "outcome": F.coalesce("error_code", F.lit("")),
            }
        )
        .join(F.broadcast(found), ["hour", *keys, "address", "outcome"], "left_semi")
    )
    return events.unionByName(others.select(*events.columns))


@dataclass(frozen=True)
class Known:
    """What was known before the days judged, the places known then (identity, value, day), and whether
    stored snapshots say so."""

    history: History
    places: DataFrame
    stored: bool


def score(
    warehouse: Warehouse,
    settings: Settings,
    geo: Geo,
    window: Window,
    run_id: str,
    uses: KnownUses | None = None,
    touched: Touched | None = None,
) -> int:
    """Judge the window's buckets, and the touched findings of others, and stage what they find; how many
    findings there are.

    uses, where the run has them already, are those of the window's days and the history before.
    """
    days = days_judged(window, touched)
    known = known_before(warehouse, geo, days, uses)
    findings = judge(warehouse, settings, geo, window, run_id, known, touched)
    staged = warehouse.stage("findings", findings, few=known.stored)
    events = judged_events(warehouse, window, touched)
    # The record scores ask for cities and commands: beside the answers, whose joins they would wait for.
    scored, firsts = together(
        [
            partial(with_record_scores, staged, warehouse, geo, days, stored=known.stored),
            partial(first_events, staged, warehouse, events),
        ]
    )
    answered = with_answers(scored, warehouse, firsts, days, stored=known.stored)
    rows = answered.join(to_evidence(staged, events), "anomaly_id", "left")
    warehouse.replace(STAGED_ANOMALIES, rows.withColumns(dict.fromkeys(_RANK, F.lit(None))), few=known.stored)
    return staged.count()


def judge(
    warehouse: Warehouse,
    settings: Settings,
    geo: Geo,
    window: Window,
    run_id: str,
    known: Known,
    touched: Touched | None = None,
) -> DataFrame:
    """The findings of the window's buckets and of what is touched, without the columns that stand beside
    the score: their events, evidence, what the original's arithmetic gives, the rank that publication
    finds."""
    places = places_of(warehouse, geo.build)
    new_places = known.history.identity_values.where("dimension = 'place' AND days_90 = 0").select(
        "as_of", "identity", "value"
    )
    nearest = to_nearest(new_places, known.places, to_coordinates(places), settings.baseline.near_km)
    surprises = warehouse.stage("surprises", to_surprises(known.history, nearest), few=known.stored)

    address = F.coalesce("source_ip_address", F.lit(""))
    placed = (
        with_known_network(places, settings.networks)
        .withColumns(
            {
                "area": area(),
                "country": F.coalesce("country_iso_code", "geo_status"),
                "network": F.coalesce("network", "geo_status"),
                "source_ip_address": address,
            }
        )
        .drop("located_at")
    )
    ages = surprises.groupBy("as_of").agg(F.max("baseline_days").alias("baseline_days"))
    spikes = spikes_of(warehouse, window_events(warehouse, window), ages, window.days, stored=known.stored)
    candidates = (
        to_candidates(judged_events(warehouse, window, touched))
        .join(F.broadcast(placed), "source_ip_address", "left")
        .transform(
            with_terms,
            to_lookup(surprises),
            to_jump_ends(_jumps(warehouse, geo, days_judged(window, touched))),
            known.history.pairs,
            load_levels(settings.conf_file("sensitivity.yml")),
            hosting_names(settings.conf_file("hosting.yml")),
        )
        .transform(with_spikes, spikes)
    )
    findings = to_findings(candidates, settings.detectors).withColumns(
        {"run_id": F.lit(run_id), "settings_hash": F.lit(settings.hash)}
    )
    return conform(findings, STAGED_ANOMALIES, without=_LATER)


def _jumps(warehouse: Warehouse, geo: Geo, days: list[date]) -> DataFrame:
    jumps = located_jumps(warehouse, geo, days[0], days[-1] + timedelta(days=1))
    return jumps.where(on_days("event_date", days))


def known_before(warehouse: Warehouse, geo: Geo, days: list[date], uses: KnownUses | None) -> Known:
    """What was known before each of these days, from their stored snapshots where all have one."""
    if uses is None and _is_stored(warehouse, days):
        places = (
            warehouse.read(BASELINE_IDENTITY_VALUE)
            # Each day's own snapshot: a later one knows only that a place was used again since.
            .where(on_days("as_of", days) + " AND dimension = 'place'")
            .select("identity", "value", F.unix_date("last_day").alias("day"))
        )
        return Known(stored_history(warehouse, geo, days), places, stored=True)
    if uses is None:
        uses = known_uses(warehouse, geo, days[0], days[-1] + timedelta(days=1))
    history = history_of(uses.known, uses.values, uses.pairs)
    judged = F.col("as_of").isin(*[(day - date(1970, 1, 1)).days for day in days])
    only = History(**{f.name: getattr(history, f.name).where(judged) for f in fields(History)})
    places = uses.known.where("dimension = 'place'").select("identity", "value", "day")
    return Known(only, places, stored=False)


def _is_stored(warehouse: Warehouse, days: list[date]) -> bool:
    """Whether the snapshots of all of these days are there."""
    return set(days) <= set(stored_days(warehouse, days[0], days[-1]))


def _time(time: datetime) -> str:
    return f"TIMESTAMP'{time.strftime('%Y-%m-%d %H:%M:%S')}'"
