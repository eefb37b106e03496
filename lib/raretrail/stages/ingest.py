"""The ingest stage: new files of the trail become events, facts and a balanced ledger.

Files go in batches of days. Of each batch first a census is taken (which records are there), then
duplicates are found by key among the batch and what is stored, then only what is kept is decoded
whole and written. The ledger is written last: a batch whose ledger is not written is read again,
finds its own events present, and comes to the same tables.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame
from pyspark.sql import Window as Over
from pyspark.sql import functions as F

from raretrail import s3
from raretrail.baseline.facts import (
    to_agent_daily,
    to_error_quarter_hour,
    to_hour_daily,
    to_moves_daily,
    to_presence_daily,
    to_region_hour,
)
from raretrail.cloudtrail.copies import KEY, is_own_correction, to_file_verdicts, with_verdict
from raretrail.cloudtrail.forgotten import Forgotten
from raretrail.cloudtrail.layout import (
    Access,
    FileInfo,
    day_of_delivery,
    describe,
    is_candidate,
    is_table,
    list_local,
)
from raretrail.cloudtrail.notifications import messages_in, named_below
from raretrail.cloudtrail.objects import list_objects
from raretrail.cloudtrail.principals import PrincipalRules, load_rules
from raretrail.cloudtrail.reading import (
    Positions,
    ReadSettings,
    bytes_of,
    packed,
    parts_of,
    read_census,
    read_events,
    read_reused,
    read_whole,
)
from raretrail.cloudtrail.redaction import Redaction, load_redaction
from raretrail.cloudtrail.table_input import list_shares
from raretrail.errors import RaretrailError, UsageError
from raretrail.evidence.changes import to_changes_daily, to_sessions_daily
from raretrail.geo.locate import to_located
from raretrail.parts import Part, without
from raretrail.settings import Settings
from raretrail.stages.locating import Geo, ensure_places, places_of
from raretrail.stages.streaming import leave_taken, list_streamed
from raretrail.stages.tombstones import read_forgotten
from raretrail.tables import (
    AGENT_DAILY,
    CHANGES_DAILY,
    ERROR_QUARTER_HOUR,
    EVENTS,
    HOUR_DAILY,
    INGEST_FILES,
    MOVES_DAILY,
    PRESENCE_DAILY,
    QUARANTINE,
    REGION_HOUR,
    SESSIONS_DAILY,
    STAGED_CENSUS,
    Table,
)
from raretrail.together import together
from raretrail.warehouse import Warehouse, local_path, on_days

if TYPE_CHECKING:
    import pyarrow as pa

_FACTS: tuple[tuple[Table, Callable[[DataFrame], DataFrame]], ...] = (
    (PRESENCE_DAILY, to_presence_daily),
    (AGENT_DAILY, to_agent_daily),
    (HOUR_DAILY, to_hour_daily),
    (ERROR_QUARTER_HOUR, to_error_quarter_hour),
    (MOVES_DAILY, to_moves_daily),
    (CHANGES_DAILY, to_changes_daily),
    (SESSIONS_DAILY, to_sessions_daily),
    (REGION_HOUR, to_region_hour),
)
_MANY_DAYS = 7
# What names one stored record, whatever its id.
_RECORD = (*KEY, "source_file", "source_position")
_PROGRESS = Callable[[str], None]
# What the census says of a file that Spark passed over.
_UNOPENED = {
    "status": "unreadable",
    "shape": "",
    "records": 0,
    "forgotten": None,
    "written": 0,
    "content_hash": "",
    "detail": "Spark cannot open it; `raretrail doctor --spark` says what the storage answers",
}


@dataclass
class Ingested:
    """What an ingest did: counts for `runs`, the days whose facts it wrote, the days on which what is new was
    delivered, the hours from which it took copies out that had counted as events, which messages that name
    files were not understood, and which accounts' files may be listed and read."""

    counts: dict[str, int] = field(default_factory=dict)
    days: set[date] = field(default_factory=set)
    delivered: set[date] = field(default_factory=set)
    hours: set[datetime] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    access: Access = field(default_factory=Access)

    def add(self, **counts: int) -> None:
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + count


@dataclass(frozen=True)
class Taking:
    """Who takes files in, by what rules, when."""

    warehouse: Warehouse
    geo: Geo
    rules: PrincipalRules
    redaction: Redaction
    settings: Settings
    run_id: str
    now: datetime
    forgotten: Forgotten | None

    @property
    def finish(self) -> Callable[[pa.RecordBatch], pa.Table]:
        """Decoded records with all else that an event has; can be pickled."""
        geo = self.geo
        asn = geo.asn.worker_path if geo.asn else None
        return partial(to_located, geo.city.worker_path, asn, geo.build, self.run_id, self.now)

    @property
    def read_settings(self) -> ReadSettings:
        of, far = self.settings.ingest, reads_s3(self.warehouse, self.settings)
        return ReadSettings(of.driver_bytes, of.task_bytes, self.forgotten, far, of.time_column)


def ingest(
    warehouse: Warehouse,
    settings: Settings,
    geo: Geo,
    run_id: str,
    now: datetime,
    *,
    since: date | None,
    until: date | None,
    recent: Collection[date] | None,
    again: Collection[str] = (),
    settled: datetime | None = None,
    progress: _PROGRESS,
) -> Ingested:
    """Take in every file of the trail that is new or has changed.

    Files delivered before `since`, or on or after `until`, are left. recent limits the listing to
    these day folders; None lists everything. again names files that are looked for where messages name
    what is new (`ingest.files_from`), too. With settled, what was taken in since then is compared
    with all events once more (see `settle_copies`). An account whose files may not be listed or read is
    left out and noted. UsageError when there is no trail to read, or nothing of it may be; RaretrailError
    when the credentials have expired.
    """
    if not settings.trail:
        raise UsageError("no trail to read: give --trail PATH or the setting trail")
    rules = load_rules(settings.conf_file("principals.yml"))
    redaction = load_redaction(settings.conf_file("redaction.yml"))
    taking = Taking(warehouse, geo, rules, redaction, settings, run_id, now, read_forgotten(warehouse))
    done = Ingested()
    if settings.ingest.files_from and recent is not None:
        listed = _named_files(taking, settings.ingest.files_from, again, done)
    else:
        listed = [
            file
            for root in settings.trail
            for file in _listed(taking, root, recent, since, until, done.access)
        ]
    require_listed(done.access, listed)
    dated = [(day_of_delivery(file.path, file.modified_at), file) for file in listed]
    wanted = [
        file for day, file in dated if (since is None or day >= since) and (until is None or day < until)
    ]
    done.add(files_listed=len(listed), files_outside=len(listed) - len(wanted))
    fresh = only_new(wanted, warehouse)
    done.delivered = {day_of_delivery(file.path, file.modified_at) for file in fresh}
    others = [file for file in fresh if describe(file.path).kind != "log"]
    logs = [file for file in fresh if describe(file.path).kind == "log"]
    accounts = {describe(file.path).account for file in wanted} | done.access.listed
    if settings.ingest.files_from:
        accounts.add("")  # that others are not named says nothing of them
    done.add(files_new=len(fresh), files=0, records=0, events=0, duplicates=0, quarantined=0)
    if others:
        _skip(taking, others)
        done.add(files_skipped=len(others))
    batches = list(to_batches(logs, settings.ingest.batch_bytes))
    read = 0
    for number, batch in enumerate(batches, start=1):
        days = [day_of_delivery(file.path, file.modified_at) for file in batch]
        read += len(batch)
        progress(f"batch {number} of {len(batches)}: {len(batch)} files delivered {min(days)} to {max(days)}")
        _take(taking, batch, done, accounts)
        progress(f"{read} of {len(logs)} files, {done.counts['events']} events")
    leave_taken(warehouse)
    if settled:
        settle_copies(taking, settled, done)
    return done


def _listed(
    taking: Taking,
    root: str,
    recent: Collection[date] | None,
    since: date | None,
    until: date | None,
    access: Access,
) -> list[FileInfo]:
    """What there is to read below one root of the trail, however it is found."""
    warehouse, how = taking.warehouse, taking.settings.ingest
    if is_table(root):
        return list_shares(warehouse.spark, root, recent, since, how.time_column)
    if how.listing == "folders":
        return list_files(warehouse, taking.settings, root, recent, since, until, access)
    return list_streamed(
        warehouse, root, how.listing, state=how.listing_state, options=how.listing_options, since=since
    )


def reads_s3(warehouse: Warehouse, settings: Settings) -> bool:
    """Whether Python lists and opens objects of S3 itself, and not Spark."""
    if settings.ingest.s3_reader != "auto":
        return settings.ingest.s3_reader == "python"
    return s3.is_ours(warehouse.spark) and s3.is_installed()


def list_files(
    warehouse: Warehouse,
    settings: Settings,
    root: str,
    recent: Collection[date] | None,
    since: date | None = None,
    until: date | None = None,
    access: Access | None = None,
) -> list[FileInfo]:
    """The files of a trail below root: path, bytes, time of modification. Those before `since`, or from
    `until` on, may be left out already. access is told whose folders may be listed."""
    local = local_path(root)
    if local:
        return list_local(str(local), recent, access)
    if s3.is_s3(root) and reads_s3(warehouse, settings):
        return list_objects(root, recent, since, until, access)
    rows = (
        warehouse.spark.read.format("binaryFile")
        .option("recursiveFileLookup", "true")
        .load(root)
        .select("path", "length", "modificationTime")
        .collect()
    )
    files = [FileInfo(r["path"], r["length"], r["modificationTime"].replace(tzinfo=UTC)) for r in rows]
    if recent is None:
        return files
    return [file for file in files if day_of_delivery(file.path, file.modified_at) in recent]


def _named_files(taking: Taking, location: str, again: Collection[str], done: Ingested) -> list[FileInfo]:
    """The files of the trail that messages name, and these. One that is gone is left to the next night."""
    if not reads_s3(taking.warehouse, taking.settings):
        raise UsageError(
            "--files-from: files are named by notifications only where Python reads S3 (boto3 installed, "
            "neither Databricks nor Connect, ingest.s3_reader not spark)"
        )
    roots = [root for root in taking.settings.trail if s3.is_s3(root)]
    named = named_below(messages_in(location), roots)
    paths = list(dict.fromkeys([*named.objects, *again]))
    with s3.told(f"--files-from {location}", "s3:GetObject on what it names"):
        found = list(s3.in_order(s3.look_up, paths))
    done.add(
        files_named=len(named.objects),
        files_named_elsewhere=named.elsewhere,
        messages_refused=len(named.refused),
    )
    done.refused = named.refused
    return [
        FileInfo(path, one.bytes, one.modified_at)
        for path, one in zip(paths, found, strict=True)
        if one and is_candidate(path.rpartition("/")[2])
    ]


def only_new(files: Sequence[FileInfo], warehouse: Warehouse) -> list[FileInfo]:
    """The files that the ledger lacks, or has with another size or time, or as unreadable."""
    if not files or not warehouse.exists(INGEST_FILES):
        return list(files)
    days = {day_of_delivery(file.path, file.modified_at) for file in files}
    ledger = (
        warehouse.read(INGEST_FILES)
        .where(F.col("file_date").between(F.lit(min(days)), F.lit(max(days))))
        .where("status <> 'unreadable'")
        .select("source_file", "bytes", F.unix_micros("modified_at").alias("modified"))
    )
    known = {(row["source_file"], row["bytes"], row["modified"]) for row in ledger.collect()}
    return [file for file in files if (file.path, file.bytes, _micros(file.modified_at)) not in known]


def still_unreadable(warehouse: Warehouse, files: Collection[str]) -> dict[str, date]:
    """Those of these files that could not be read when last tried, each with its day of delivery."""
    ledger = warehouse.read(INGEST_FILES).where(F.col("source_file").isin(*sorted(files)))
    last = ledger.groupBy("source_file").agg(
        F.max_by("status", "ingested_at").alias("status"), F.max_by("file_date", "ingested_at").alias("day")
    )
    return {row["source_file"]: row["day"] for row in last.where("status = 'unreadable'").collect()}


def to_batches(files: Sequence[FileInfo], batch_bytes: int) -> Iterator[list[FileInfo]]:
    """The files by day of delivery, whole days together up to batch_bytes."""
    by_day: dict[date, list[FileInfo]] = {}
    for file in files:
        by_day.setdefault(day_of_delivery(file.path, file.modified_at), []).append(file)
    days = (by_day[day] for day in sorted(by_day))
    return (list(chain.from_iterable(some)) for some in packed(days, bytes_of, batch_bytes))


def write_facts(warehouse: Warehouse, days: Collection[date], without: DataFrame | None = None) -> None:
    """Write the facts of these days anew from their events, without those of `without`."""
    events = warehouse.read(EVENTS).where(F.col("event_date").isin(*sorted(days)))
    if without is not None:
        events = events.join(without, list(_RECORD), "left_anti")
    these = on_days("event_date", sorted(days))
    # Facts of a kind are seldom more than events.
    few = warehouse.has_few(EVENTS, days)

    def facts(of: Callable[[DataFrame], DataFrame]) -> DataFrame:
        # Else each task that counts would write a file for each of many days.
        many = len(days) > _MANY_DAYS and not few
        return of(events).repartition("event_date") if many else of(events)

    together([partial(warehouse.replace, table, facts(of), these, few=few) for table, of in _FACTS])


def _take(taking: Taking, files: list[FileInfo], done: Ingested, accounts: Collection[str | None]) -> None:
    warehouse = taking.warehouse
    census = _staged_census(taking, files)
    told = [row.asDict() for row in census.where("kind IN ('file', 'part')").collect()]
    parts = parts_of(row for row in told if row["kind"] == "part")
    records = census.where("kind = 'record'")
    span = records.agg(F.min("event_date").alias("start"), F.max("event_date").alias("end")).first()
    stored = _stored_records(taking, files, span) if span and span["start"] else None
    judged = with_verdict(records, stored) if stored is not None else with_verdict(records, records.limit(0))
    addresses = records.select(F.coalesce("source_ip_address", F.lit("")).alias("source_ip_address"))
    placed: Callable[[], Any] = partial(ensure_places, warehouse, addresses, taking.geo, taking.now)
    verdict_rows, _ = together([to_file_verdicts(judged).collect, placed])
    verdicts = {row["source_file"]: row.asDict() for row in verdict_rows}
    if any(verdict["reused"] or verdict["corrections"] for verdict in verdicts.values()):
        # Seldom: a second look, with what is set aside already.
        others = stored if stored is not None else records.limit(0)
        judged = with_verdict(records, others, _set_aside_before(warehouse, span))
        verdicts = {row["source_file"]: row.asDict() for row in to_file_verdicts(judged).collect()}
    facts_of_files = {file.path: dict(_UNOPENED) for file in files}
    facts_of_files |= {row["source_file"]: row for row in told if row["kind"] == "file"}
    heed_refusals(facts_of_files, done, accounts)
    displaced = sorted(path for path, verdict in verdicts.items() if verdict["displaced"])
    days = {day for verdict in verdicts.values() for day in verdict["days"]}

    info = {file.path: file for file in files}
    _write_quarantine(taking, census, info, verdicts, facts_of_files)
    if displaced:
        _set_displaced_aside(taking, judged, displaced)
    if parts and not displaced:
        _add_events(taking, parts, verdicts, facts_of_files)
    else:  # an event that replaces a stored one is merged, which is not done with files
        warehouse.drop_parts()
        _write_events(taking, files, verdicts, facts_of_files, addresses, replacing=bool(displaced))
    if displaced:
        _remove_corrected(taking, judged)
    if days:
        write_facts(warehouse, days)
    rows = [
        _ledger_row(taking, info[path], facts, verdicts.get(path, {}))
        for path, facts in facts_of_files.items()
    ]
    ledger = warehouse.spark.createDataFrame(rows, INGEST_FILES.spark_schema())
    warehouse.merge(INGEST_FILES, ledger, only=_in_ledger(files), few=True)
    for name in ("superseded", "displaced"):
        if count := sum(verdict[name] for verdict in verdicts.values()):
            done.add(**{name: count})
    done.days |= days
    for row in rows:
        done.add(
            files=1,
            **{name: row[name] for name in ("records", "events", "duplicates", "quarantined")},
        )
        if row["status"] == "unreadable":
            done.add(files_unreadable=1)
        if row["forgotten"]:
            done.add(forgotten=row["forgotten"])


def require_listed(access: Access, listed: Collection[FileInfo]) -> None:
    """UsageError where nothing of the trail may be listed. An account that may be may have nothing new."""
    if access.denied and not listed and access.listed <= access.denied.keys():
        raise UsageError("nothing of the trail may be listed: " + "; ".join(access.denied.values()))


def heed_refusals(facts: dict[str, dict[str, Any]], done: Ingested, accounts: Collection[str | None]) -> None:
    """Note the accounts whose files may not be read.

    facts are the census' rows of files by path; accounts those of all files and folders listed, None among
    them for a file that names none. RaretrailError where credentials have expired, UsageError where nothing
    of the trail may be read.
    """
    reasons = {path: row["detail"] for path, row in facts.items() if row["status"] == "unreadable"}
    for path, reason in reasons.items():
        if s3.is_expired(reason):
            raise RaretrailError(f"{path}: {reason}")
        if s3.is_denied(reason):
            done.access.deny(path, reason)
    # An account of which nothing new came may still be readable: then only the others are held back.
    denied = [path for path, reason in reasons.items() if s3.is_denied(reason)]
    if denied and len(denied) == len(facts) and set(accounts) - {None} <= done.access.denied.keys():
        raise UsageError(f"{denied[0]}: {reasons[denied[0]]}; no file of the trail may be read")


def _staged_census(taking: Taking, files: list[FileInfo]) -> DataFrame:
    """What the files hold. Where the warehouse takes files, their events are written on the way."""
    spark, redaction, settings = taking.warehouse.spark, taking.redaction, taking.read_settings
    opened = all(settings.opens(file.path) for file in files)
    if opened and taking.settings.ingest.direct and taking.warehouse.takes_files_of(EVENTS):
        taking.warehouse.drop_parts()
        folder = taking.warehouse.parts_folder(EVENTS)
        census = read_whole(spark, files, taking.rules, redaction, settings, taking.finish, folder)
    else:
        census = read_census(spark, files, taking.rules, redaction, settings)
    if opened and bytes_of(files) <= settings.driver_bytes:
        return census
    taking.warehouse.replace(STAGED_CENSUS, census)
    return taking.warehouse.read(STAGED_CENSUS)


def _stored_records(taking: Taking, files: list[FileInfo], span: Any) -> DataFrame | None:
    """What could be a copy: the stored events some days either side; all, for a large batch."""
    if not taking.warehouse.exists(EVENTS):
        return None
    events = taking.warehouse.read(EVENTS)
    if bytes_of(files) > taking.settings.ingest.driver_bytes:
        return events
    margin = timedelta(days=taking.settings.ingest.duplicate_days)
    return events.where(
        F.col("event_date").between(F.lit(span["start"] - margin), F.lit(span["end"] + margin))
    )


def _set_aside_before(warehouse: Warehouse, span: Any) -> DataFrame:
    """Records of these days that have lost their id, or been corrected, before."""
    days = F.to_date("event_time").between(F.lit(span["start"]), F.lit(span["end"]))
    aside = warehouse.read(QUARANTINE).where(days & F.col("reason").isin("id_reused", "superseded"))
    return aside.select(*KEY, "record_hash", "source_file", "source_position")


def _write_quarantine(
    taking: Taking,
    census: DataFrame,
    info: dict[str, FileInfo],
    verdicts: dict[str, dict[str, Any]],
    facts: dict[str, dict[str, Any]],
) -> None:
    spark = taking.warehouse.spark
    with_damage = any(_damaged(row, verdicts.get(path, {})) for path, row in facts.items())
    reused = {
        path: Positions(reused=verdict["reused_at"])
        for path, verdict in verdicts.items()
        if verdict["reused"]
    }
    frames = [census.where("kind = 'quarantined'")] if with_damage else []
    if reused:
        chosen = [info[path] for path in sorted(reused)]
        hashes = {path: facts[path]["content_hash"] for path in reused}
        rows = read_reused(
            spark, chosen, reused, hashes, taking.rules, taking.redaction, taking.read_settings
        )
        corrected = [(path, at) for path in reused for at in verdicts[path]["superseded_at"]]
        named = spark.createDataFrame(corrected, "source_file string, source_position bigint")
        rows = rows.join(
            F.broadcast(named.withColumn("corrected", F.lit(True))),
            ["source_file", "source_position"],
            "left",
        )
        frames.append(rows.transform(_with_reason).drop("corrected"))
    for frame in frames:
        dates = spark.createDataFrame(
            [(path, day_of_delivery(path, file.modified_at)) for path, file in info.items()],
            "source_file string, file_date date",
        )
        rows = frame.join(F.broadcast(dates), "source_file")
        taking.warehouse.merge(QUARANTINE, _stamped(taking, rows), update=[])


def _with_reason(rows: DataFrame) -> DataFrame:
    """rows with reason and detail as of records that lost their id, or are `corrected`."""
    corrected = F.coalesce("corrected", F.lit(False))
    detail = F.when(corrected, F.lit("another record corrects it")).otherwise(F.col("detail"))
    reason = F.when(corrected, F.lit("superseded")).otherwise(F.lit("id_reused"))
    return rows.withColumn("reason", reason).withColumn("detail", detail)


def _damaged(facts: dict[str, Any], verdict: dict[str, Any]) -> int:
    """Pieces of a file that the census set aside."""
    records: int = facts["records"] - (facts["forgotten"] or 0)
    return records - sum(int(verdict.get(name, 0)) for name in ("events", "duplicates", "reused"))


def _stamped(taking: Taking, rows: DataFrame) -> DataFrame:
    return rows.withColumn("run_id", F.lit(taking.run_id)).withColumn("ingested_at", F.lit(taking.now))


def _set_displaced_aside(taking: Taking, judged: DataFrame, files: Sequence[str]) -> None:
    """Stored events that lost their id, or are corrected, go to quarantine, and their files' ledger says so.

    Everything is computed from what the tables hold, so that doing it again changes nothing.
    """
    lost = judged.where(F.col("is_stored") & (F.col("verdict") != "event")).select(
        *KEY, "record_hash", (F.col("verdict") == "superseded").alias("corrected")
    )
    events = taking.warehouse.read(EVENTS)
    on = [*KEY, "record_hash"]
    _quarantine_stored(taking, events.join(lost, on), files)
    _restate_ledger(taking.warehouse, events.join(lost, on, "left_anti"), files)


def _remove_corrected(taking: Taking, judged: DataFrame) -> None:
    """Take out the stored events that others correct. Those that lost their id are overwritten."""
    corrected = judged.where("is_stored AND verdict = 'superseded'").select(*_RECORD)
    rows = corrected.collect()
    if rows:
        names = "recipient_account_id string, event_id string, source_file string, source_position bigint"
        taking.warehouse.remove(EVENTS, taking.warehouse.spark.createDataFrame(rows, names), on=_RECORD)


def _quarantine_stored(taking: Taking, rows: DataFrame, files: Sequence[str]) -> None:
    """Set stored events of these files aside: as superseded where `corrected`, else as id_reused."""
    warehouse = taking.warehouse
    ledger = warehouse.read(INGEST_FILES).where(F.col("source_file").isin(*files))
    text = F.to_json(F.struct(*[name for name in EVENTS.column_names if name not in ("run_id",)]))
    aside = (
        rows.join(ledger.select("source_file", "file_date").distinct(), "source_file", "left")
        .withColumn(
            "detail",
            F.lit("a record delivered later has this event id; as stored, not as delivered"),
        )
        .transform(_with_reason)
        .withColumn("raw", text)
        .withColumn("raw_bytes", F.octet_length(text))
        .withColumn("file_date", F.coalesce("file_date", "event_date"))
    )
    warehouse.merge(QUARANTINE, _stamped(taking, aside), update=[])


def _restate_ledger(warehouse: Warehouse, events: DataFrame, files: Sequence[str]) -> None:
    """Count events, quarantined and duplicates of these files anew; events are those that stay."""
    left = (
        events.where(F.col("source_file").isin(*files))
        .groupBy("source_file")
        .agg(F.count(F.lit(1)).alias("kept"))
    )
    quarantined = (
        warehouse.read(QUARANTINE)
        .where(F.col("source_file").isin(*files))
        .groupBy("source_file")
        .agg(F.count(F.lit(1)).alias("aside"))
    )
    restated = (
        warehouse.read(INGEST_FILES)
        .where(F.col("source_file").isin(*files) & (F.col("status") == "taken"))
        .join(left, "source_file", "left")
        .join(quarantined, "source_file", "left")
        .fillna(0, ["kept", "aside"])
        .withColumn("gone", F.coalesce("forgotten", F.lit(0)))
        .withColumn("events", F.col("kept"))
        .withColumn("quarantined", F.col("aside"))
        .withColumn("duplicates", F.col("records") - F.col("kept") - F.col("aside") - F.col("gone"))
    )
    warehouse.merge(INGEST_FILES, restated)


def settle_copies(taking: Taking, since: datetime, done: Ingested) -> None:
    """Leave one event an id, of those taken in since then and all others.

    A small batch is compared only with the days around it, so a copy that comes weeks later is found
    here, once a night. The record kept is the one `copies.with_verdict` keeps. Events go last: until
    then everything is found again by a run that starts anew.
    """
    warehouse = taking.warehouse
    if not warehouse.exists(EVENTS):
        return
    events = warehouse.read(EVENTS)
    fresh = events.where(F.col("ingested_at") >= F.lit(since)).select(*KEY).distinct()
    order = F.struct(
        (~is_own_correction()).alias("is_other"),
        "record_hash",
        "ingested_at",
        "source_file",
        "source_position",
    )
    judged = (
        events.select(*_RECORD, "record_hash", "ingested_at", "event_time", "event_date", "corrects_event_id")
        .join(fresh, list(KEY), "left_semi")
        .withColumn("kept", F.min(order).over(Over.partitionBy(*KEY)))
        .where(order != F.col("kept"))
        .withColumn("reused", F.col("record_hash") != F.col("kept.record_hash"))
        .withColumn("corrected", F.col("reused") & ~F.col("kept.is_other"))
    )
    rows = judged.select(*_RECORD, "reused", "event_date", "corrected", "event_time").collect()
    if not rows:
        return
    lost = taking.warehouse.spark.createDataFrame(
        rows,
        "recipient_account_id string, event_id string, source_file string, source_position bigint, "
        "reused boolean, event_date date, corrected boolean, event_time timestamp",
    )
    files = sorted({row["source_file"] for row in rows})
    days = {row["event_date"] for row in rows}
    aside = lost.where("reused").select(*_RECORD, "corrected")
    _quarantine_stored(taking, events.join(aside, list(_RECORD)), files)
    names = lost.select(*_RECORD)
    _restate_ledger(warehouse, events.join(names, list(_RECORD), "left_anti"), files)
    write_facts(warehouse, days, without=names)
    warehouse.remove(EVENTS, names, on=_RECORD)
    done.days |= days
    done.hours |= {row["event_time"].replace(minute=0, second=0, microsecond=0, tzinfo=UTC) for row in rows}


def _write_events(
    taking: Taking,
    files: Sequence[FileInfo],
    verdicts: dict[str, dict[str, Any]],
    facts: dict[str, dict[str, Any]],
    addresses: DataFrame,
    *,
    replacing: bool,
) -> None:
    warehouse = taking.warehouse
    chosen = [
        file
        for file in files
        if (verdict := verdicts.get(file.path))
        and len(verdict["leave_out"]) < sum(verdict[name] for name in ("events", "duplicates"))
    ]
    if not chosen:
        return
    positions = {
        file.path: Positions(verdicts[file.path]["leave_out"], verdicts[file.path]["reused_at"])
        for file in chosen
    }
    hashes = {file.path: facts[file.path]["content_hash"] for file in chosen}
    decoded = read_events(
        warehouse.spark,
        chosen,
        positions,
        hashes,
        taking.rules,
        taking.redaction,
        taking.read_settings,
    )
    # All of `places` in every task would grow with history; what a batch names is little of it.
    places = places_of(warehouse, taking.geo.build, addresses).drop("located_at")
    address = F.coalesce("source_ip_address", F.lit(""))
    located = decoded.withColumn("address", address).join(
        F.broadcast(places.withColumnRenamed("source_ip_address", "address")), "address", "left"
    )
    rows = _stamped(taking, located)
    if replacing:
        warehouse.merge(EVENTS, rows)
    else:
        warehouse.append(EVENTS, rows)


def _add_events(
    taking: Taking,
    parts: Sequence[Part],
    verdicts: dict[str, dict[str, Any]],
    facts: dict[str, dict[str, Any]],
) -> None:
    """Commit the files of events that were written with the census, without what has proved to be a copy.

    What a task left out itself is left out by the verdicts too, so a file of the trail of which as many
    records were written as are wanted needs no second look.
    """
    folder = taking.warehouse.parts_folder(EVENTS)
    wanted = {
        path: verdict["events"] + verdict["duplicates"] - len(verdict["leave_out"])
        for path, verdict in verdicts.items()
    }
    unlike = {path for path, fact in facts.items() if fact["written"] != wanted.get(path, 0)}
    left_out = {
        path: {*verdicts[path]["leave_out"], *verdicts[path]["reused_at"]}
        for path in unlike & verdicts.keys()
    }
    added: list[Part] = []
    for part in parts:
        if not any(wanted.get(path) for path in part.sources):
            continue
        if unlike.isdisjoint(part.sources):
            added.append(part)
        else:
            added += without(folder, EVENTS, part, lambda path, at: at in left_out.get(path, ()))
    if sum(part.rows for part in added) != sum(wanted.values()):
        raise RaretrailError(
            f"{sum(part.rows for part in added)} events were written where {sum(wanted.values())} were "
            "counted: the trail changed while it was read; run again"
        )
    if added:
        taking.warehouse.add_files(EVENTS, added)
    taking.warehouse.drop_parts()


def _in_ledger(files: Sequence[FileInfo]) -> str | None:
    """Where in the ledger these files are if they are there, as `merge` takes it. One whose path has no day
    is kept under that of its modification, which may have been another."""
    days = [describe(file.path).day for file in files]
    return None if None in days else on_days("t.file_date", days)


def _ledger_row(
    taking: Taking, file: FileInfo, facts: dict[str, Any], verdict: dict[str, Any]
) -> dict[str, Any]:
    status = facts["status"]
    if status == "taken" and not facts["records"]:
        status = "empty"
    return {
        "source_file": file.path,
        "content_hash": facts["content_hash"],
        "file_date": day_of_delivery(file.path, file.modified_at),
        "bytes": file.bytes,
        "modified_at": file.modified_at,
        "status": status,
        "shape": facts["shape"],
        "records": facts["records"],
        "events": verdict.get("events", 0),
        "duplicates": verdict.get("duplicates", 0),
        "quarantined": _damaged(facts, verdict) + verdict.get("reused", 0),
        "forgotten": facts["forgotten"] or None,
        "detail": facts["detail"],
        "run_id": taking.run_id,
        "ingested_at": taking.now,
    }


def _skip(taking: Taking, files: Sequence[FileInfo]) -> None:
    """Digests, Insights and other services' files are counted without being opened."""
    rows = [
        {
            **_ledger_row(
                taking,
                file,
                {
                    "status": "skipped",
                    "shape": describe(file.path).kind,
                    "records": 0,
                    "forgotten": None,
                    "content_hash": "",
                    "detail": "by its folder",
                },
                {},
            ),
        }
        for file in files
    ]
    taking.warehouse.merge(
        INGEST_FILES, taking.warehouse.spark.createDataFrame(rows, INGEST_FILES.spark_schema())
    )


def _micros(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
