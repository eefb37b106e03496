"""The maintenance stage: drop what is past its time, compact what many small runs left, vacuum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pyspark.sql import functions as F

from raretrail import tables
from raretrail.tables import Table
from raretrail.warehouse import Warehouse

# Delta's own least: readers of a version need its files for so long.
_KEPT = timedelta(days=7)


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
    progress: Callable[[str], None] = lambda text: None,
) -> list[Maintained]:
    """Expire, compact and vacuum every table there is; what was done to each.

    Rows go when their partition's day lies more than `retain_days` before now. Tables are taken one
    after the other and each step is safe to repeat, so a run that is killed is simply run again.
    """
    done = []
    with warehouse.held():
        for table in chosen:
            if not warehouse.exists(table):
                continue
            progress(table.name)
            expired = _expire(warehouse, table, now)
            metrics = warehouse.spark.sql(_optimize(warehouse, table, now)).select("metrics.*").first()
            removed = int(metrics["numFilesRemoved"]) if metrics else 0
            added = int(metrics["numFilesAdded"]) if metrics else 0
            hours = int(_KEPT.total_seconds() // 3600)
            warehouse.spark.sql(f"VACUUM {warehouse.name(table)} RETAIN {hours} HOURS").collect()
            done.append(Maintained(table.name, expired, removed, added))
    return done


def _optimize(warehouse: Warehouse, table: Table, now: datetime) -> str:
    # Days that a run in progress may write are left alone: compacting them would make it fail.
    settled = (now - timedelta(days=2)).date()
    where = f" WHERE {table.partition_by[0]} < DATE'{settled}'" if table.partition_by else ""
    return f"OPTIMIZE {warehouse.name(table)}{where}"


def _expire(warehouse: Warehouse, table: Table, now: datetime) -> int:
    if table.retain_days is None or not table.partition_by:
        return 0
    day = table.partition_by[0]
    oldest = (now - timedelta(days=table.retain_days)).date()
    past = warehouse.read(table).where(F.col(day) < F.lit(oldest)).count()
    if past:
        empty = warehouse.spark.createDataFrame([], table.spark_schema())
        warehouse.replace(table, empty, f"{day} < DATE'{oldest}'")
    return past
