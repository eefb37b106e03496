"""The warehouse: the one place that creates, reads and writes tables.

A warehouse is a directory or URI, where table T lies at W/T, or a `catalog.schema`. Only what
Spark Connect allows is used; MERGE is SQL whose source is a DataFrame, never text made of data.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, DataFrameWriter, SparkSession
from pyspark.sql import functions as F

from raretrail import tables
from raretrail.errors import BusyError, UsageError
from raretrail.look import is_delta, is_writable, require_known_version
from raretrail.look import local_path as local_path
from raretrail.parts import Part
from raretrail.s3 import is_ours, is_s3
from raretrail.tables import Table
from raretrail.views import View

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql.streaming.query import StreamingQuery

    from raretrail.lease import Lease

# As long as maintenance keeps the files of old versions; Delta's own month is 3,000 commits of a run every
# quarter of an hour, which are listed when a table is opened.
_LOG_KEPT = {"delta.logRetentionDuration": "interval 7 days"}
# What is staged is read whole, so statistics of its columns would be gathered for nothing.
_NO_STATISTICS = {"delta.dataSkippingNumIndexedCols": "0"}
# More rows than this are written rather than carried along in plans.
_FEW = 20_000
# Nor more bytes, whose plans would fill the JVM.
_FEW_BYTES = 16 * 2**20
# More rows than this are written by Spark rather than committed from here.
_FEW_WRITTEN = 100_000
# As often as Spark makes one of its own commits; delta-rs would after a hundred.
_CHECKPOINTED = {"delta.checkpointInterval": "10"}
# Delta's writer version of a table that has constraints and nothing beyond.
_PLAIN = 3
_NAMES = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*){1,2}")


class Warehouse:
    """All tables of one organisation, under a directory, a URI or a schema.

    Raises UsageError when the location cannot be a warehouse.
    """

    def __init__(self, spark: SparkSession, location: str) -> None:
        self.spark = spark
        self.location = location.rstrip("/") or "/"
        self.is_schema = bool(_NAMES.fullmatch(location)) and not Path(location).exists()
        self.directory = None if self.is_schema else local_path(location)
        if "`" in location or "\n" in location:
            raise UsageError(f"--warehouse {location!r}: a backtick or newline cannot be part of it")
        if self.directory and self.directory.exists() and not self.directory.is_dir():
            raise UsageError(f"--warehouse {location}: is a file; name a directory")
        if self.directory:
            self.location = str(self.directory)
        self._made: set[str] = set()
        self._current: set[str] = set()
        self._complete: set[str] = set()
        self._lease: Lease | None = None
        self._plain: dict[str, bool] = {}
        self._kept: dict[str, tuple[int | None, DataFrame]] = {}

    def name(self, table: Table) -> str:
        """The table's name as SQL takes it, after FROM or MERGE INTO."""
        if self.is_schema:
            return ".".join(f"`{part}`" for part in [*self.location.split("."), table.name])
        return f"delta.`{self._path(table)}`"

    def _path(self, table: Table) -> str:
        """Where the table lies, of a warehouse that is no schema."""
        return f"{self.location}/{table.name}"

    def exists(self, table: Table) -> bool:
        """Whether the table has been created."""
        if table.name in self._made:
            return True
        if self.directory:
            found = is_delta(self.directory / table.name)
        elif self.is_schema:
            found = self.spark.catalog.tableExists(f"{self.location}.{table.name}")
        else:
            try:
                self.spark.read.table(self.name(table)).schema  # noqa: B018  (Connect analyses here)
                found = True
            except AnalysisException:
                found = False
        if found:
            self._made.add(table.name)
        return found

    def create(self, table: Table) -> None:
        """Create the table as `tables.py` declares it; one that exists gets the columns it lacks."""
        if table.name in self._current:
            return
        if self.exists(table):
            self._add_columns(table)
            self._current.add(table.name)
            return
        properties = {tables.VERSION_PROPERTY: str(tables.SCHEMA_VERSION), **_LOG_KEPT, **_CHECKPOINTED}
        if table.name.startswith("staged_"):
            properties |= _NO_STATISTICS
        else:
            stats = [name for name in table.stats or table.key if name not in table.partition_by]
            properties["delta.dataSkippingStatsColumns"] = ",".join(stats)
        if self.takes_files and not table.checks:
            self._create_here(table, properties)
        else:
            self._create_by_spark(table, properties)
        self._made.add(table.name)
        self._current.add(table.name)

    def _create_here(self, table: Table, properties: dict[str, str]) -> None:
        """Make the table by delta-rs: the same as Spark makes, in a hundredth of the time."""
        import pyarrow as pa
        from deltalake import DeltaTable

        fields = zip(table.arrow_schema(), table.columns, strict=True)
        DeltaTable.create(
            self._path(table),
            pa.schema([field.with_metadata({"comment": column.comment}) for field, column in fields]),
            mode="ignore",
            partition_by=list(table.partition_by),
            description=table.comment,
            configuration=properties,
            raise_if_key_not_exists=False,
        )

    def _create_by_spark(self, table: Table, properties: dict[str, str]) -> None:
        columns = ",\n".join(f"`{c.name}` {c.type} COMMENT {_text(c.comment)}" for c in table.columns)
        partitioned = f"PARTITIONED BY ({', '.join(table.partition_by)})" if table.partition_by else ""
        properties |= {f"delta.constraints.{name}": check for name, check in table.checks.items()}
        listed = ", ".join(f"{_text(key)} = {_text(value)}" for key, value in properties.items())
        self.spark.sql(
            f"CREATE TABLE IF NOT EXISTS {self.name(table)} (\n{columns}\n) USING DELTA {partitioned} "
            f"COMMENT {_text(table.comment)} TBLPROPERTIES ({listed})"
        )

    def require_known_version(self) -> None:
        """Refuse a warehouse of a later version: UsageError. One of an earlier version gets the columns it
        lacks as its tables are written; what it was made without says so by being null."""
        if not self.exists(tables.RUNS):
            return
        shown = self.spark.sql(f"SHOW TBLPROPERTIES {self.name(tables.RUNS)}").collect()
        found = {row["key"]: row["value"] for row in shown}.get(tables.VERSION_PROPERTY, "1")
        require_known_version(self.location, found)

    def _add_columns(self, table: Table) -> None:
        """Tables made by an earlier version lack columns declared since."""
        if self.takes_files:
            from deltalake import DeltaTable

            there = {field.name for field in DeltaTable(self._path(table)).schema().fields}
        else:
            there = set(self.spark.read.table(self.name(table)).columns)
        lacking = [c for c in table.columns if c.name not in there]
        if lacking:
            columns = ", ".join(f"`{c.name}` {c.type} COMMENT {_text(c.comment)}" for c in lacking)
            self.spark.sql(f"ALTER TABLE {self.name(table)} ADD COLUMNS ({columns})")

    def read(self, table: Table) -> DataFrame:
        """The table; an empty frame of its columns before its first write. Columns declared since it was
        written are there, as nulls."""
        if not self.exists(table):
            return self.spark.createDataFrame([], table.spark_schema())
        rows = self.spark.read.table(self.name(table))
        if table.name in self._complete:
            return rows
        whole = with_all_columns(rows, table)
        if whole is rows:
            self._complete.add(table.name)
        return whole

    def read_at(self, table: Table, version: int) -> DataFrame:
        """The table as it was at that Delta version."""
        reader = self.spark.read.option("versionAsOf", version)
        if self.is_schema:
            return reader.table(self.name(table))
        return reader.format("delta").load(self._path(table))

    def append(self, table: Table, rows: DataFrame, *, few: bool = False) -> None:
        """Add rows. few says that there are probably few (see `_few`)."""
        self.create(table)
        if few and (found := self._few(table, rows)) is not None:
            from deltalake import write_deltalake

            if found.num_rows:
                write_deltalake(self._path(table), found, mode="append")
            return
        self._save(table, self._writer(table, rows).mode("append"))

    @cached_property
    def takes_files(self) -> bool:
        """Whether what Python writes into a table's folder, here or in workers, can be committed by
        `add_files`: Spark is ours, and the warehouse is a directory that delta-rs can write to (one that
        all machines share, where there are several)."""
        return is_ours(self.spark) and is_writable(self.directory)

    def takes_files_of(self, table: Table) -> bool:
        """The same of a table: not where someone has given it a feature that only Spark writes, such as
        deletion vectors or a feed of changes."""
        if not self.takes_files:
            return False
        if table.name not in self._plain:
            from deltalake import DeltaTable

            there = self.exists(table)
            self._plain[table.name] = (
                not there or DeltaTable(self._path(table)).protocol().min_writer_version <= _PLAIN
            )
        return self._plain[table.name]

    def parts_folder(self, table: Table) -> str:
        """Where files for a table are written before `add_files` takes them up."""
        return f"{self.location}/_parts/{table.name}"

    def drop_parts(self) -> None:
        """Remove files that no commit took up, of this run or of one that was killed."""
        if self.directory:
            shutil.rmtree(self.directory / "_parts", ignore_errors=True)

    def add_files(self, table: Table, parts: Sequence[Part]) -> None:
        """Add files of the table's `parts_folder`, all at once.

        They are moved among the table's files first: one that no commit names there is no part of the
        table, and goes with the next vacuum.
        """
        from deltalake import DeltaTable
        from deltalake.transaction import AddAction, RemoveAction

        self.create(table)
        self._require_held()
        for part in parts:
            place = Path(self.location, table.name, part.path)
            place.parent.mkdir(exist_ok=True)
            os.replace(Path(self.parts_folder(table), part.path), place)
        now = int(datetime.now(UTC).timestamp() * 1000)
        added: list[AddAction | RemoveAction] = [
            AddAction(p.path, p.bytes, p.partition, now, True, p.stats) for p in parts
        ]
        target = DeltaTable(self._path(table))
        target.create_write_transaction(added, "append", target.schema(), list(table.partition_by))

    def has_few(self, table: Table, days: Collection[object]) -> bool:
        """Whether these days of a table hold few rows, by its log; False where that is not told at once."""
        if not self.takes_files or not self.exists(table):
            return False
        import pyarrow as pa
        from deltalake import DeltaTable

        (column,) = table.partition_by
        wanted = set(map(str, days))
        files = pa.table(DeltaTable(self._path(table)).get_add_actions(flatten=True))
        told = zip(files[f"partition.{column}"].to_pylist(), files["num_records"].to_pylist(), strict=True)
        return sum(count or 0 for day, count in told if str(day) in wanted) <= _FEW_WRITTEN

    def _few(self, table: Table, rows: DataFrame) -> pa.Table | None:
        """rows, computed, to be committed from here; None where Spark writes them.

        A commit by Spark costs far more than its rows do where these are few: files are chosen by jobs, and
        the table's state is computed anew. delta-rs does the same in a moment, where Spark is ours, the
        warehouse a directory, and the table as we make it.
        """
        if not self.takes_files_of(table):
            return None
        self._require_held()
        found = conform(rows, table).limit(_FEW_WRITTEN + 1).toArrow()
        return None if found.num_rows > _FEW_WRITTEN else copied(found).cast(table.arrow_schema())

    def append_stream(self, table: Table, rows: DataFrame, checkpoint: str) -> StreamingQuery:
        """Start adding what a stream has now to the table, once, by what `checkpoint` knows it has added."""
        self.create(table)
        writer = (
            conform(rows, table)
            .writeStream.format("delta")
            .outputMode("append")
            .option("checkpointLocation", checkpoint)
            .partitionBy(*table.partition_by)
            .trigger(availableNow=True)
        )
        if self.is_schema:
            return writer.toTable(f"{self.location}.{table.name}")
        return writer.start(self._path(table))

    def replace(
        self, table: Table, rows: DataFrame, condition: str | None = None, *, few: bool = False
    ) -> None:
        """Replace the rows that meet `condition` (all of them without one) by `rows`, atomically.

        condition is SQL over the table's columns, built from declared names and dates only. few says that
        there are probably few rows (see `_few`).
        """
        self.create(table)
        if few and (found := self._few(table, rows)) is not None:
            from deltalake import write_deltalake

            write_deltalake(self._path(table), found, mode="overwrite", predicate=condition)
            return
        writer = self._writer(table, rows).mode("overwrite")
        if condition:
            writer = writer.option("replaceWhere", condition)
        self._save(table, writer)

    def stage(self, name: str, rows: DataFrame, *, few: bool = False) -> DataFrame:
        """rows, computed once and read back from the scratch table staged_<name>.

        What several results are made of is staged, since a plan is computed anew for each use and
        nothing may be cached where Spark is reached over Connect. few says that there are probably few rows:
        up to _FEW of them go into the plans that use them, which spares a commit and, each time, a scan.
        """
        if few and (carried := self._carried(rows)) is not None:
            return carried
        self._require_held()
        writer = rows.write.format("delta").mode("overwrite").option("overwriteSchema", "true")
        writer = writer.options(**_NO_STATISTICS)
        if self.is_schema:
            writer.saveAsTable(f"{self.location}.staged_{name}")
            return self.spark.read.table(f"{self.location}.staged_{name}")
        path = f"{self.location}/staged_{name}"
        writer.save(path)
        return self.spark.read.format("delta").load(path)

    def kept(self, table: Table, name: str, made: Callable[[DataFrame], DataFrame]) -> DataFrame:
        """What made makes of the table, under a name; where that is few rows, computed once for as long as
        the table stays as it is."""
        if not self.directory:  # elsewhere it takes as long to ask whether it is
            return made(self.read(table))
        version = self.version(table)
        if name not in self._kept or self._kept[name][0] != version:
            self._kept[name] = version, self.carried(made(self.read(table)))
        return self._kept[name][1]

    def carried(self, rows: DataFrame) -> DataFrame:
        """rows; where they are few, computed once, as part of the plans that use them.

        For what one plan uses many times and may be too much to write: a table's files are chosen anew for
        each use, by a job of its own.
        """
        carried = self._carried(rows)
        return rows if carried is None else carried

    def _carried(self, rows: DataFrame) -> DataFrame | None:
        """rows as part of the plans that use them; None where they are too many or too large."""
        found = rows.limit(_FEW + 1).toArrow()
        if not found.num_rows:
            return self.spark.createDataFrame([], rows.schema)
        if found.num_rows > _FEW or (found := copied(found)).nbytes > _FEW_BYTES:
            return None
        return self.spark.createDataFrame(found, rows.schema)

    def merge(
        self,
        table: Table,
        rows: DataFrame,
        *,
        update: Sequence[str] | None = None,
        when: str | None = None,
        only: str | None = None,
        delete_missing: str | None = None,
        few: bool = False,
    ) -> None:
        """Insert rows by the table's key; update those present.

        update names the columns to set (all by default; an empty sequence inserts only). when is a
        further condition for updating, only one that narrows what of the target is looked at, and
        delete_missing deletes target rows that meet it and have no source row. Conditions are SQL
        over t (target) and s (source), built from declared names and dates only. few says that there are
        probably few rows (see `_few`).
        """
        self.create(table)
        columns = table.column_names if update is None else list(update)
        # Without parentheses delta-rs compares with all that follows.
        same = [f"(t.`{key}` IS NOT DISTINCT FROM s.`{key}`)" for key in table.key]
        on = " AND ".join([*same, *filter(None, [only])])
        if few and (found := self._few(table, rows)) is not None:
            self._commit_merge(table, found, on, columns, when, delete_missing)
            return
        clauses = []
        if columns:
            also = f" AND ({when})" if when else ""
            sets = ", ".join(f"t.`{c}` = s.`{c}`" for c in columns)
            clauses.append(f"WHEN MATCHED{also} THEN UPDATE SET {sets}")
        names = ", ".join(f"`{c}`" for c in table.column_names)
        values = ", ".join(f"s.`{c}`" for c in table.column_names)
        clauses.append(f"WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({values})")
        if delete_missing:
            clauses.append(f"WHEN NOT MATCHED BY SOURCE AND ({delete_missing}) THEN DELETE")
        self._require_held()
        self.spark.sql(
            f"MERGE INTO {self.name(table)} AS t USING {{source}} AS s ON {on} {' '.join(clauses)}",
            source=conform(rows, table),
        ).collect()

    def _commit_merge(
        self,
        table: Table,
        rows: pa.Table,
        on: str,
        columns: Sequence[str],
        when: str | None,
        delete_missing: str | None,
    ) -> None:
        """`merge`, of rows that are here."""
        from deltalake import DeltaTable

        if not rows.num_rows and not delete_missing:
            return
        merging = DeltaTable(self._path(table)).merge(rows, on, source_alias="s", target_alias="t")
        if columns:
            merging = merging.when_matched_update({c: f"s.`{c}`" for c in columns}, predicate=when)
        merging = merging.when_not_matched_insert({c: f"s.`{c}`" for c in table.column_names})
        if delete_missing:
            merging = merging.when_not_matched_by_source_delete(delete_missing)
        merging.execute()

    def tidy_log(self, table: Table) -> None:
        """Remove entries of the table's log that are past its log retention, by way of a checkpoint.

        Elsewhere than in a directory Delta does it with its own checkpoints.
        """
        if not self.takes_files_of(table):
            return
        from deltalake import DeltaTable

        self._require_held()
        kept = DeltaTable(self._path(table))
        kept.create_checkpoint()
        kept.cleanup_metadata()

    def delete(self, table: Table, condition: str) -> None:
        """Delete the rows that meet a condition: SQL over the table's columns, built from declared names and
        dates only."""
        self._require_held()
        self.spark.sql(f"DELETE FROM {self.name(table)} WHERE {condition}").collect()

    def remove(self, table: Table, rows: DataFrame, on: Sequence[str] | None = None) -> None:
        """Delete what rows name, by the columns `on`: by default the key columns they have."""
        if not self.exists(table):
            return
        names = on or [key for key in table.key if key in rows.columns]
        same = " AND ".join(f"t.`{name}` <=> s.`{name}`" for name in names)
        self._require_held()
        self.spark.sql(
            f"MERGE INTO {self.name(table)} AS t USING {{source}} AS s ON {same} WHEN MATCHED THEN DELETE",
            source=rows,
        ).collect()

    def drop_scratch(self, name: str) -> None:
        """Delete the scratch table staged_<name>, old versions and log included, where it is; of one at a URI
        its rows."""
        table = Table(f"staged_{name}", "", (), ())
        if not self.exists(table):
            return
        if self.directory:
            shutil.rmtree(self.directory / table.name)
        elif self.is_schema:
            self.spark.sql(f"DROP TABLE IF EXISTS {self.name(table)}")
        else:
            self.stage(name, self.spark.createDataFrame([], "nothing int"))
            return
        self._made.discard(table.name)

    def version(self, table: Table) -> int | None:
        """The table's current Delta version, or None before its first write."""
        if not self.exists(table):
            return None
        if self.directory:
            log = self.directory / table.name / "_delta_log"
            return max(int(f.name[:20]) for f in log.glob("*.json") if f.name[:20].isdigit())
        row = self.spark.sql(f"DESCRIBE HISTORY {self.name(table)} LIMIT 1").select("version").first()
        return row["version"] if row else None

    def register_views(self, chosen: Sequence[Table] = tables.ALL, views: Sequence[View] = ()) -> None:
        """Make every existing table readable under its plain name in this session, and the views.

        With views, which may read any table, those that are not there yet are there empty.
        """
        for table in chosen:
            if self.exists(table) or (views and not table.name.startswith("staged_")):
                self.read(table).createOrReplaceTempView(table.name)
        for view in views:
            self.spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW `{view.name}` AS {view.sql('spark')}")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the warehouse for one run; BusyError when another run does.

        A local directory is held by a lock of the operating system, which goes with its process, so a
        killed run blocks nobody; in S3 by an object that a killed run blocks others with for
        `lease.LASTS`. Elsewhere, on Databricks and over Connect Delta's own conflict detection decides.
        """
        if self.directory:
            with self._held_directory(self.directory):
                yield
        elif is_s3(self.location) and is_ours(self.spark):
            from raretrail import lease

            with lease.held(self.location) as self._lease:
                yield
        else:
            yield

    @contextlib.contextmanager
    def _held_directory(self, directory: Path) -> Iterator[None]:
        import fcntl

        directory.mkdir(parents=True, exist_ok=True)
        with open(directory / "_raretrail.lock", "a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                holder = lock.read().strip() or "another process"
                raise BusyError(
                    f"{self.location}: {holder} is running on this warehouse; try again when it is done"
                ) from None
            lock.truncate(0)
            lock.write(f"process {os.getpid()}")
            lock.flush()
            self.drop_parts()  # what a run left that was killed
            yield

    def _require_held(self) -> None:
        """Before each write: RaretrailError where the lock was lost to another run."""
        if self._lease is not None:
            self._lease.require()

    def _save(self, table: Table, writer: DataFrameWriter) -> None:
        self._require_held()
        if self.is_schema:
            writer.saveAsTable(self.name(table))
        else:
            writer.save(self._path(table))

    def _writer(self, table: Table, rows: DataFrame) -> DataFrameWriter:
        writer = conform(rows, table).write.format("delta")
        return writer.partitionBy(*table.partition_by) if table.partition_by else writer


def with_all_columns(rows: DataFrame, table: Table) -> DataFrame:
    """rows, with nulls for columns declared since the table was written."""
    missing = {c.name: F.lit(None).cast(c.type) for c in table.columns if c.name not in rows.columns}
    return rows.withColumns(missing) if missing else rows


def copied(rows: pa.Table) -> pa.Table:
    """The same rows in memory of their own.

    Where all lists of a column are empty, Java does not set the one offset of what is in them; Rust reads it,
    and so does Arrow itself when it is asked how large they are.
    """
    import pyarrow as pa

    return rows.take(pa.array(range(rows.num_rows), pa.int64()))


def conform(rows: DataFrame, table: Table, without: Collection[str] = ()) -> DataFrame:
    """rows with exactly the table's columns, in its order and types, but those of `without`."""
    chosen = [c for c in table.columns if c.name not in without]
    return rows.select(*[F.col(c.name).cast(c.type).alias(c.name) for c in chosen])


def rows_of(frame: DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries; times, which Spark hands over bare, carry their zone, UTC."""
    return [
        {name: _zoned(value) for name, value in row.asDict(recursive=True).items()} for row in frame.collect()
    ]


def _zoned(value: Any) -> Any:
    if isinstance(value, list):
        return [_zoned(one) for one in value]
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def on_days(column: str, days: Sequence[object]) -> str:
    """SQL that holds on these days of a date column; false for none."""
    if not days:
        return "false"
    return f"{column} IN ({', '.join(f'DATE{chr(39)}{day}{chr(39)}' for day in sorted(set(map(str, days))))})"


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
