"""The maintenance stage: drop what is past its time, compact what many small runs left, vacuum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from pyspark.sql import functions as F

from raretrail import s3, tables
from raretrail.tables import EVENTS, INGEST_FILES, Table
from raretrail.together import together
from raretrail.warehouse import Warehouse

# Delta's own least: readers of a version need its files for so long.
_KEPT = timedelta(days=7)
# So many runs append to a day before its files are made one.
_APPENDED = 16
# Written anew by every run and in no list of tables; only what old versions leave has to go.
SCRATCH = (
    "chained",
    "findings",
    "first_events",
    "fold",
    "folded_uses",
    "forgetting",
    "incidents",
    "marked",
    "news",
    "surprises",
    "uses",
    "uses_of_days",
    "values",
    "withheld",
)
# Vacuuming lists a table's files with so many tasks, 10,000 by default: a minute or two for each table on one
# machine, whatever its size. A table has a folder a day, and a listing of S3 takes some milliseconds.
_LISTING = "spark.sql.sources.parallelPartitionDiscovery.parallelism"
_LISTING_HERE = 8
_LISTING_ELSEWHERE = 64
# A list of everything below a folder, where Delta 4.3.1 wants what is in it: VACUUM then meets the entries of
# the log among the files, finds them in no version, and deletes them.
_FAST_LISTING = "delta.enableFastS3AListFrom"


@dataclass(frozen=True)
class Maintained:
    """What was done to one table: rows past their time, files before and after compacting."""

    table: str
    expired: int
    files_removed: int
    files_added: int


def maintain(
    warehouse: Warehouse,
    now: datetime,
    *,
    chosen: Sequence[Table] = tables.ALL,
    retention: Mapping[str, int] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Maintained]:
    """Expire, compact and vacuum every table there is, and let go of entries of its log past their time; what
    was done to each. UsageError where nothing may be deleted.

    Rows go when their partition's day lies more days before now than retention says of their table, by
    name, or else the table's `retain_days`. Tables are taken one
    after the other and each step is safe to repeat, so a run that is killed is simply run again.
    """
    done = []
    scratch = [Table(f"staged_{name}", "", (), ()) for name in SCRATCH]
    with warehouse.held(), _vacuuming(warehouse):
        for table in [*chosen, *scratch]:
            if not warehouse.exists(table):
                continue
            progress(table.name)
            if table.name.startswith("staged_"):
                _vacuum(warehouse, table)
                continue
            expired = _expire(warehouse, table, now, (retention or {}).get(table.name, table.retain_days))
            metrics = warehouse.spark.sql(_optimize(warehouse, table, now)).select("metrics.*").first()
            removed = int(metrics["numFilesRemoved"]) if metrics else 0
            added = int(metrics["numFilesAdded"]) if metrics else 0
            _vacuum(warehouse, table)
            warehouse.tidy_log(table)
            done.append(Maintained(table.name, expired, removed, added))
    return done


def purge(warehouse: Warehouse, scratch: Sequence[str]) -> dict[str, int | None]:
    """Leave of every table its current version alone, of scratch tables nothing; files deleted, by table.

    In a directory of this machine the log's entries before go as well, since their statistics hold names;
    elsewhere Delta deletes these as the table's log retention says, and how many files went is not known.
    The caller holds the warehouse.
    """
    listed = [*tables.ALL, *(Table(f"staged_{name}", "", (), ()) for name in scratch)]
    before = {table.name: _files(warehouse, table) for table in listed if warehouse.exists(table)}
    for name in scratch:
        warehouse.drop_scratch(name)
    chosen = [table for table in tables.ALL if warehouse.exists(table)]
    if warehouse.directory:
        for table in chosen:
            _keep_current(warehouse.directory / table.name)
    else:
        with _vacuuming(warehouse):
            together([partial(_vacuum_whole, warehouse, table) for table in chosen])
    after = {table.name: _files(warehouse, table) for table in listed}
    return {
        name: None if files is None else len(files - (after[name] or set())) for name, files in before.items()
    }


def _keep_current(path: Path) -> None:
    """Vacuum a table on this machine and cut its log to a checkpoint of its current version."""
    from deltalake import DeltaTable

    table = DeltaTable(str(path))
    table.vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)
    # The entry of the checkpoint's own version stays, so it must be one that lists no files.
    asked = {"raretrail.purged_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    table.alter.set_table_properties(asked, raise_if_not_exists=False)
    table = DeltaTable(str(path))
    table.create_checkpoint()
    for entry in (path / "_delta_log").iterdir():
        version = entry.name.removeprefix(".")[:20]
        if version.isdigit() and int(version) < table.version():
            entry.unlink()


def _vacuum_whole(warehouse: Warehouse, table: Table) -> None:
    """Vacuum to the current version. The table itself says that nothing is to be kept, since serverless does
    not let a session say so."""
    kept = "delta.deletedFileRetentionDuration"
    for statement in (
        f"ALTER TABLE {warehouse.name(table)} SET TBLPROPERTIES ('{kept}' = 'interval 0 hours')",
        f"VACUUM {warehouse.name(table)}",
        f"ALTER TABLE {warehouse.name(table)} UNSET TBLPROPERTIES IF EXISTS ('{kept}')",
    ):
        warehouse.spark.sql(statement).collect()


def _files(warehouse: Warehouse, table: Table) -> set[str] | None:
    if not warehouse.directory:
        return None
    # Checksums of files are Hadoop's own.
    return {
        str(path)
        for path in (warehouse.directory / table.name).rglob("*")
        if path.is_file() and path.suffix != ".crc"
    }


@contextmanager
def _vacuuming(warehouse: Warehouse) -> Iterator[None]:
    """List with few tasks, and safely; on Databricks and over Connect leave it to the cluster, whose setting
    it is. UsageError where nothing may be deleted in S3: Delta would say that there was nothing to delete."""
    conf = warehouse.spark.conf
    if not warehouse.directory and not s3.is_ours(warehouse.spark):
        yield
        return
    if s3.is_s3(warehouse.location):
        s3.require_delete(warehouse.location)
    wanted = {
        _LISTING: str(_LISTING_HERE if warehouse.directory else _LISTING_ELSEWHERE),
        _FAST_LISTING: "false",
    }
    before = {name: conf.get(name, None) for name in wanted}
    for name, value in wanted.items():
        conf.set(name, value)
    try:
        yield
    finally:
        for name, was in before.items():
            if was is None:
                conf.unset(name)
            else:
                conf.set(name, was)


def _vacuum(warehouse: Warehouse, table: Table) -> None:
    hours = int(_KEPT.total_seconds() // 3600)
    warehouse.spark.sql(f"VACUUM {warehouse.name(table)} RETAIN {hours} HOURS").collect()


def compact_day(warehouse: Warehouse, day: date, earlier: Sequence[Mapping[str, Any]]) -> bool:
    """Make few files of what many runs appended to a day, once every so many of them; whether it was time.

    earlier are the records of the runs before. A day is read again by every run of it, and maintenance leaves
    the last days alone; so without this a run would read more files the later in the day it comes.
    """
    written = sum(day in (record["event_days"] or ()) for record in earlier)
    if not written or written % _APPENDED:
        return False
    for table in (EVENTS, INGEST_FILES):
        where = f"{table.partition_by[0]} = DATE'{day}'"
        warehouse.spark.sql(f"OPTIMIZE {warehouse.name(table)} WHERE {where}").collect()
    return True


def _optimize(warehouse: Warehouse, table: Table, now: datetime) -> str:
    # Days that a run in progress may write are left alone: compacting them would make it fail.
    settled = (now - timedelta(days=2)).date()
    where = f" WHERE {table.partition_by[0]} < DATE'{settled}'" if table.partition_by else ""
    return f"OPTIMIZE {warehouse.name(table)}{where}"


def _expire(warehouse: Warehouse, table: Table, now: datetime, days: int | None) -> int:
    if days is None or not table.partition_by:
        return 0
    day = table.partition_by[0]
    oldest = (now - timedelta(days=days)).date()
    past = warehouse.read(table).where(F.col(day) < F.lit(oldest)).count()
    if past:
        warehouse.delete(table, f"{day} < DATE'{oldest}'")
    return past
