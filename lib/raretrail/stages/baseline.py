"""The baseline stage: stored snapshots follow the days, one day's work a day."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail.baseline import coverage
from raretrail.baseline.history import (
    WINDOW_DAYS,
    History,
    to_first_uses,
    to_values,
    with_first_uses,
)
from raretrail.baseline.learnable import only_learnable, to_withheld
from raretrail.baseline.snapshot import (
    ORGANIZATION,
    Snapshot,
    advance_fold,
    history_as_of,
    to_first_uses_of_day,
    to_fold,
    to_folded_uses,
    to_snapshot,
)
from raretrail.baseline.uses import to_jumps, to_pairs, to_uses, with_places
from raretrail.detect.elastic import to_city_hours, to_weights
from raretrail.detect.spike import to_error_hours, to_error_quarters, to_habits
from raretrail.evidence.changes import to_holdings
from raretrail.stages.locating import Geo, ensure_places, places_of
from raretrail.tables import (
    AGENT_DAILY,
    ANOMALIES,
    BASELINE_CITY_ACTION,
    BASELINE_COMMAND_COUNTRY,
    BASELINE_COMMAND_PLACE,
    BASELINE_COVERAGE_HOUR,
    BASELINE_DIMENSION,
    BASELINE_ERROR_HOUR,
    BASELINE_HOLDINGS,
    BASELINE_IDENTITY,
    BASELINE_IDENTITY_VALUE,
    BASELINE_PRESENCE,
    BASELINE_VALUE,
    BASELINES,
    CHANGES_DAILY,
    ERROR_QUARTER_HOUR,
    FIRST_USES,
    HOUR_DAILY,
    INCIDENTS,
    MOVES_DAILY,
    PRESENCE_DAILY,
    REGION_HOUR,
    WITHHELD,
    Table,
)
from raretrail.together import together
from raretrail.warehouse import Warehouse, on_days

# A gap of more days than this is built from the facts rather than walked day by day.
_WALKED_DAYS = 7
# What was given longer ago is known only if it was given again.
_HELD_DAYS = 400
_SNAPSHOT: dict[str, Table] = {
    "command_place": BASELINE_COMMAND_PLACE,
    "command_country": BASELINE_COMMAND_COUNTRY,
    "value": BASELINE_VALUE,
    "identity_value": BASELINE_IDENTITY_VALUE,
    "identity": BASELINE_IDENTITY,
    "dimension": BASELINE_DIMENSION,
}


def between(rows: DataFrame, start: date, end: date) -> DataFrame:
    """rows whose event_date lies in [start, end)."""
    return rows.where((F.col("event_date") >= F.lit(start)) & (F.col("event_date") < F.lit(end)))


def first_fact_day(warehouse: Warehouse) -> date | None:
    """The organisation's first day of facts; None before any."""
    row = warehouse.read(PRESENCE_DAILY).agg(F.min("event_date").alias("day")).first()
    return row["day"] if row else None


def located_uses(
    warehouse: Warehouse, geo: Geo, start: date, end: date, presence: DataFrame | None = None
) -> tuple[DataFrame, DataFrame]:
    """(uses, pairs) of the facts of [start, end), placed by the run's databases; presence, where given, is
    read in place of the whole of `presence_daily`."""
    presence = between(presence or warehouse.read(PRESENCE_DAILY), start, end)
    placed = with_places(presence, places_of(warehouse, geo.build))
    agents = between(warehouse.read(AGENT_DAILY), start, end)
    hours = between(warehouse.read(HOUR_DAILY), start, end)
    jumps = located_jumps(warehouse, geo, start, end)
    return to_uses(placed, agents, hours, jumps), to_pairs(placed)


def located_jumps(warehouse: Warehouse, geo: Geo, start: date, end: date) -> DataFrame:
    """`uses.to_jumps` of the days [start, end), placed by the run's databases."""
    return to_jumps(between(warehouse.read(MOVES_DAILY), start, end), places_of(warehouse, geo.build))


@dataclass(frozen=True)
class KnownUses:
    """Uses of a span with what was known before them, their values and pairs; the first two staged."""

    known: DataFrame
    values: DataFrame
    pairs: DataFrame


def known_uses(warehouse: Warehouse, geo: Geo, start: date, end: date) -> KnownUses:
    """The uses of the facts of [start, end), with as much history before as first uses need."""
    uses, pairs = located_uses(warehouse, geo, start - timedelta(days=2 * WINDOW_DAYS), end)
    known = warehouse.stage("uses", with_first_uses(uses))
    return KnownUses(known, warehouse.stage("values", to_values(known)), pairs)


def known_changes(warehouse: Warehouse, end: date) -> DataFrame:
    """What the trail of the days before `end` says was given, taken and used."""
    return between(warehouse.read(CHANGES_DAILY), end - timedelta(days=_HELD_DAYS), end)


def stored_days(warehouse: Warehouse, first: date, last: date) -> list[date]:
    """The days from first to last that the warehouse has a snapshot of, ascending. One made before areas
    were counted is none."""
    within = F.col("as_of").between(F.lit(first), F.lit(last)) & (F.col("dimension") == "area")
    rows = warehouse.read(BASELINE_DIMENSION).where(within).select("as_of").distinct().collect()
    return sorted(row["as_of"] for row in rows)


def stored_snapshot(warehouse: Warehouse, days: Collection[date]) -> Snapshot:
    """The snapshots of these days, as their tables hold them; as_of counted from 1970-01-01."""
    these = on_days("as_of", sorted(days))
    return Snapshot(
        **{
            field: warehouse.read(table).where(these).withColumn("as_of", F.unix_date("as_of")).drop("scope")
            for field, table in _SNAPSHOT.items()
        }
    )


def stored_history(
    warehouse: Warehouse, geo: Geo, days: Collection[date], presence: DataFrame | None = None
) -> History:
    """What was known before each of these days of what was used on it, from their stored snapshots."""
    uses, pairs = located_uses(warehouse, geo, min(days), max(days) + timedelta(days=1), presence)
    uses = warehouse.stage("uses_of_days", uses, few=True)
    these = F.col("day").isin(*[(day - date(1970, 1, 1)).days for day in days])
    return history_as_of(uses.where(these), pairs.where(these), stored_snapshot(warehouse, days))


def advance_baseline(
    warehouse: Warehouse,
    geo: Geo,
    as_of: date,
    changed: Collection[date],
    now: datetime,
    uses: KnownUses | None = None,
    *,
    judged_anew: bool = False,
) -> str:
    """Make the snapshot of as_of hold the facts of the days before it, and those stored before it theirs.

    changed are the days whose facts were written since; uses, where the run has them already, are those
    of the days before as_of at least. With judged_anew something was alerted on a day before as_of since
    its snapshot was made. Says what it did: 'kept', 'advanced' or 'built'.
    """
    within = sorted(day for day in changed if as_of - timedelta(days=WINDOW_DAYS) <= day)
    # An older snapshot than of these days is neither walked from nor made again; looking for one would take
    # longer with every day.
    stored = stored_days(warehouse, min([as_of - timedelta(days=_WALKED_DAYS), *within]), as_of)
    latest = stored[-1] if stored else None
    stale = [day for day in within if latest and day < latest]
    if latest == as_of and not stale and not judged_anew:
        return "kept"
    first = first_fact_day(warehouse)
    if first is None or first >= as_of:
        return "kept"
    ensure_known_places(warehouse, geo, as_of, now)
    moved = _withhold(warehouse, as_of)
    # The snapshots that were made without what has come since.
    again = [day for day in stored if stale and stale[0] < day]
    # First uses of a day are found from its own snapshot; where one is lacking, from the facts.
    between_there = not again or (stale[0] in stored and len(again) == (again[-1] - stale[0]).days)
    walked = between_there and len(again) <= _WALKED_DAYS
    if latest is None or (as_of - latest).days > _WALKED_DAYS or not walked:
        _forget(warehouse, again)
        _build(warehouse, geo, as_of, first, uses or known_uses(warehouse, geo, as_of, as_of))
        return "built"
    since = min(stale, default=latest)
    for day in again:
        learnt = _learnt(warehouse) if day == latest else _learnt_as_of(warehouse, stale, day)
        firsts = [since + timedelta(days=n) for n in range((day - since).days)]
        _advance(warehouse, geo, day, day, [one for one in stale if one < day], first, firsts, learnt)
        since = day
    moved = {day for day in moved if day < latest}
    if moved:
        _advance(warehouse, geo, latest, latest, sorted(moved), first)
    elif latest == as_of and not stale:
        return "kept"
    for step in range((as_of - latest).days):
        day = latest + timedelta(days=step)
        _advance(warehouse, geo, day, day + timedelta(days=1), [day], first)
    return "advanced"


def rebuild_baseline(warehouse: Warehouse, geo: Geo, now: datetime) -> date | None:
    """Make the latest snapshot anew from the facts as they are, and drop the older ones; its day, if any.

    One made before areas were counted is made anew as well. Killed in between it leaves no snapshot, and the
    next run builds one.
    """
    latest = warehouse.read(BASELINE_DIMENSION).agg(F.max("as_of").alias("as_of")).first()
    as_of: date | None = latest["as_of"] if latest else None
    # The dimension table goes first: while it has a day, that day counts as stored.
    for table in (BASELINE_DIMENSION, *BASELINES, BASELINE_COVERAGE_HOUR):
        if warehouse.exists(table):
            warehouse.replace(table, warehouse.spark.createDataFrame([], table.spark_schema()))
    first = first_fact_day(warehouse)
    if as_of is None or first is None or first >= as_of:
        return None
    ensure_known_places(warehouse, geo, as_of, now)
    _withhold(warehouse, as_of)
    _build(warehouse, geo, as_of, first, known_uses(warehouse, geo, as_of, as_of))
    return as_of


def _learnt(warehouse: Warehouse) -> DataFrame:
    """The facts of presence that a baseline may hold."""
    return only_learnable(warehouse.read(PRESENCE_DAILY), warehouse.read(WITHHELD))


def _learnt_as_of(warehouse: Warehouse, days: Collection[date], as_of: date) -> DataFrame:
    """The same of these days, as a baseline as of a day that is gone by may hold them."""
    presence = warehouse.read(PRESENCE_DAILY).where(on_days("event_date", sorted(days)))
    if not warehouse.exists(INCIDENTS):
        return presence
    return only_learnable(presence, _wanted(warehouse, presence, as_of))


def _wanted(warehouse: Warehouse, presence: DataFrame, as_of: date) -> DataFrame:
    since = as_of - timedelta(days=WINDOW_DAYS)
    incidents = F.col("first_date") >= F.lit(since - timedelta(days=WINDOW_DAYS))
    return to_withheld(
        presence,
        warehouse.read(ANOMALIES).where(F.col("bucket_date") >= F.lit(since)),
        warehouse.read(INCIDENTS).where(incidents),
        as_of,
    )


def _withhold(warehouse: Warehouse, as_of: date) -> set[date]:
    """Set aside what a baseline as of a day may not hold; the days on which that is another than it was."""
    if not warehouse.exists(INCIDENTS):
        return set()
    since = as_of - timedelta(days=WINDOW_DAYS)
    presence = between(warehouse.read(PRESENCE_DAILY), since, as_of)
    wanted = warehouse.stage("withheld", _wanted(warehouse, presence, as_of))
    stored = between(warehouse.read(WITHHELD), since, as_of)
    keys = list(WITHHELD.key)
    differ = (
        wanted.select(*keys, F.lit(1).alias("n"))
        .unionByName(stored.select(*keys, F.lit(-1).alias("n")))
        .groupBy(*keys)
        .agg(F.sum("n").alias("n"))
        .where("n <> 0")
    )
    days = {row["event_date"] for row in differ.select("event_date").distinct().collect()}
    if days:
        warehouse.replace(
            WITHHELD,
            wanted.where(F.col("event_date").isin(*days)),
            on_days("event_date", sorted(days)),
            few=True,
        )
    return days


def ensure_known_places(warehouse: Warehouse, geo: Geo, as_of: date, now: datetime) -> None:
    """Place every address of the facts that baselines as of a day rest on, by the run's databases."""
    start = as_of - timedelta(days=2 * WINDOW_DAYS)
    presence = between(warehouse.read(PRESENCE_DAILY), start, as_of + timedelta(days=1))
    ensure_places(warehouse, presence.select("source_ip_address"), geo, now)


def _forget(warehouse: Warehouse, days: Sequence[date]) -> None:
    """Take snapshots out: each made anew would cost a night's work. What they are asked for is then made
    from the facts."""
    if days:
        for table in (*BASELINES, BASELINE_COVERAGE_HOUR):
            warehouse.replace(table, warehouse.read(table).limit(0), on_days("as_of", days), few=True)


def _build(warehouse: Warehouse, geo: Geo, as_of: date, first: date, uses: KnownUses) -> None:
    start = as_of - timedelta(days=2 * WINDOW_DAYS)
    first_uses = (
        to_first_uses(uses.known, uses.values)
        .withColumn("event_date", F.date_from_unix_date(F.col("day").cast("int")))
        .transform(between, start, as_of)
    )
    warehouse.replace(
        FIRST_USES,
        first_uses,
        f"event_date >= DATE'{start}' AND event_date < DATE'{as_of}'",
    )
    presence = between(_learnt(warehouse), as_of - timedelta(days=WINDOW_DAYS), as_of)
    _store(warehouse, geo, to_fold(presence, as_of), as_of, first)


def _advance(
    warehouse: Warehouse,
    geo: Geo,
    old: date,
    new: date,
    changed: Collection[date],
    first: date,
    firsts: Collection[date] | None = None,
    learnt: DataFrame | None = None,
) -> None:
    """Make the snapshot of new from that of old: changed are the days whose facts it has not, or others.

    firsts are the days whose first uses are to be found anew, by default the same; learnt is what may be
    held, by default as of the latest baseline.
    """
    days = changed if firsts is None else firsts
    known = set(stored_days(warehouse, min(days), max(days)))
    for day in days:
        if day in known:
            warehouse.replace(
                FIRST_USES,
                to_first_uses_of_day(stored_history(warehouse, geo, [day], _learnt(warehouse))),
                on_days("event_date", [day]),
                few=True,
            )
    fold = warehouse.read(BASELINE_PRESENCE).where(F.col("as_of") == F.lit(old))
    presence = (learnt or _learnt(warehouse)).where(F.col("event_date").isin(*changed))
    _store(warehouse, geo, advance_fold(fold, old, presence, new, changed), new, first)


def _store(warehouse: Warehouse, geo: Geo, fold: DataFrame, as_of: date, first: date) -> None:
    this_day = f"as_of = DATE'{as_of}'"
    warehouse.replace(BASELINE_PRESENCE, fold.withColumn("as_of", F.lit(as_of)), this_day)
    stored = warehouse.read(BASELINE_PRESENCE).where(F.col("as_of") == F.lit(as_of))
    start = as_of - timedelta(days=WINDOW_DAYS)
    places = places_of(warehouse, geo.build)
    placed = warehouse.stage("fold", with_places(stored, places))
    agents = between(warehouse.read(AGENT_DAILY), start, as_of)
    hours = between(warehouse.read(HOUR_DAILY), start, as_of)
    jumps = located_jumps(warehouse, geo, start, as_of)
    uses = warehouse.stage("folded_uses", to_folded_uses(placed, agents, hours, jumps, as_of))
    first_uses = between(warehouse.read(FIRST_USES), start, as_of)
    snapshot = to_snapshot(placed, uses, first_uses, as_of, first)
    shown = to_city_hours(between(warehouse.read(PRESENCE_DAILY), start, as_of), places)
    weights = to_weights(shown.withColumn("as_of", F.unix_date(F.lit(as_of))))
    errors = between(warehouse.read(ERROR_QUARTER_HOUR), start, as_of)
    failed = to_error_hours(to_error_quarters(errors)).withColumn("as_of", F.unix_date(F.lit(as_of)))
    held = to_holdings(known_changes(warehouse, as_of))
    heard = between(warehouse.read(REGION_HOUR), as_of - timedelta(days=coverage.WINDOW_DAYS), as_of)
    moment = warehouse.spark.createDataFrame([(as_of,)], "day date").select(F.unix_date("day").alias("as_of"))
    covered = coverage.to_expected(coverage.to_scopes(heard), moment)
    baselines = [
        (BASELINE_CITY_ACTION, weights),
        (BASELINE_ERROR_HOUR, to_habits(failed)),
        (BASELINE_HOLDINGS, held),
        (BASELINE_COVERAGE_HOUR, covered),
    ] + [
        (table, getattr(snapshot, field).withColumn("scope", F.lit(ORGANIZATION)))
        for field, table in _SNAPSHOT.items()
    ]
    # Of the other tables' rows most are counts of these.
    few = warehouse.has_few(BASELINE_PRESENCE, [as_of])
    stores = [
        partial(warehouse.replace, table, rows.withColumn("as_of", F.lit(as_of)), this_day, few=few)
        for table, rows in baselines
    ]
    together(stores[:-1])
    # The dimension table, the last one, waits: a snapshot counts as stored only once all of it is.
    stores[-1]()
