"""Parquet files of a partitioned table, written by whoever has the rows, for a commit to take up later.

What is written here is no part of a table before `Warehouse.add_files` commits it.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from raretrail.tables import Table

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# A group of rows is written once it has so many, or so many bytes.
_GROUP_ROWS = 100_000
_GROUP_BYTES = 48 * 1024**2
# Files open at once; more days than that in one task close the oldest.
_OPEN = 8
# Delta keeps this much of a text in its statistics.
_STATS_CHARACTERS = 32
_HIGHEST = "\U0010ffff"
# A dictionary that grows beyond this is given up: most of such a column's texts differ.
_DICTIONARY_BYTES = 256 * 1024


class Part(NamedTuple):
    """A file of a table, as Delta's log describes it; `sources` are the trail's files it has rows of."""

    path: str  # below the table's folder
    bytes: int
    rows: int
    partition: dict[str, str]
    stats: str
    sources: list[str]


class PartWriter:
    """Writes rows of one table into files, one or more for each of its partition's days."""

    def __init__(self, folder: str, table: Table) -> None:
        """folder: the table's own; table: partitioned by one column, a date."""
        self._folder = folder
        self._table = table
        (self._day,) = table.partition_by
        self._open: dict[date, _File] = {}
        self._done: list[Part] = []

    def add(self, rows: pa.Table, sources: Iterable[str]) -> None:
        """Take in rows with all columns of the table; sources: the trail's files they may be from."""
        import pyarrow.compute as pc

        sources = set(sources)
        days = rows.column(self._day)
        distinct = pc.unique(days).to_pylist()
        for day in distinct:
            of_day = rows.filter(pc.equal(days, day)) if len(distinct) > 1 else rows
            if day not in self._open and len(self._open) >= _OPEN:
                self._done.append(self._open.pop(next(iter(self._open))).close())
            file = self._open.get(day)
            if file is None:
                file = self._open[day] = _File(self._folder, self._table, day)
            file.add(of_day.drop_columns([self._day]), sources)

    def close(self) -> list[Part]:
        """Finish all files; what was written."""
        while self._open:
            self._done.append(self._open.pop(next(iter(self._open))).close())
        return self._done

    def give_up(self) -> None:
        """Remove what was written, also where the disk it is on has no room for more."""
        for file in self._open.values():
            file.give_up()
        self._open.clear()
        for part in self._done:
            Path(self._folder, part.path).unlink(missing_ok=True)


class _File:
    """One file in the making."""

    def __init__(self, folder: str, table: Table, day: date) -> None:
        (column,) = table.partition_by
        self._partition = {column: day.isoformat()}
        self._path = f"{column}={day}/part-{uuid.uuid4()}.zstd.parquet"
        self._whole = Path(folder, self._path)
        self._schema = _file_schema(table)
        self._stats = _Stats([name for name in table.stats if name not in table.partition_by])
        self._pending: list[pa.Table] = []
        self._writer: pq.ParquetWriter | None = None
        self._sources: set[str] = set()
        self._rows = 0

    def add(self, rows: pa.Table, sources: Collection[str]) -> None:
        self._pending.append(rows.select(self._schema.names))
        self._sources.update(sources)
        self._rows += rows.num_rows
        held = self._pending
        if sum(p.num_rows for p in held) >= _GROUP_ROWS or sum(p.nbytes for p in held) >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        group = pa.concat_tables(self._pending).cast(self._schema)
        self._pending = []
        if self._writer is None:
            self._whole.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(
                str(self._whole),
                self._schema,
                compression="zstd",
                compression_level=1,
                dictionary_pagesize_limit=_DICTIONARY_BYTES,
                write_statistics=self._stats.names,
                store_schema=False,
            )
        self._writer.write_table(group, row_group_size=group.num_rows)
        self._stats.add(group)

    def give_up(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._whole.unlink(missing_ok=True)

    def close(self) -> Part:
        if self._pending:
            self._flush()
        assert self._writer is not None
        self._writer.close()
        size = self._whole.stat().st_size
        stats = self._stats.text(self._rows)
        return Part(self._path, size, self._rows, self._partition, stats, sorted(self._sources))


def _file_schema(table: Table) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([field for field in table.arrow_schema() if field.name not in table.partition_by])


class _Stats:
    """Least, greatest and missing values of some columns, as Delta's log writes them."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._least: dict[str, Any] = {}
        self._greatest: dict[str, Any] = {}
        self._missing: dict[str, int] = dict.fromkeys(names, 0)

    def add(self, rows: pa.Table) -> None:
        import pyarrow.compute as pc

        for name in self.names:
            column = rows.column(name)
            self._missing[name] += column.null_count
            found = pc.min_max(column).as_py()
            if found["min"] is None:
                continue
            self._least[name] = min(self._least.get(name, found["min"]), found["min"])
            self._greatest[name] = max(self._greatest.get(name, found["max"]), found["max"])

    def text(self, rows: int) -> str:
        return json.dumps(
            {
                "numRecords": rows,
                "minValues": {name: _told(value, up=False) for name, value in self._least.items()},
                "maxValues": {name: _told(value, up=True) for name, value in self._greatest.items()},
                "nullCount": self._missing,
            },
            ensure_ascii=False,
        )


def _told(value: Any, *, up: bool) -> Any:
    """A value as Delta's statistics write it: bounds, where it is written shorter than it is."""
    if isinstance(value, str) and len(value) > _STATS_CHARACTERS:
        return value[:_STATS_CHARACTERS] + (_HIGHEST if up else "")
    if isinstance(value, datetime):
        spare = value.microsecond % 1000
        if spare:
            value += timedelta(microseconds=1000 - spare if up else -spare)
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value


def without(folder: str, table: Table, part: Part, unwanted: Callable[[str, int], bool]) -> list[Part]:
    """The part written anew without the rows that `unwanted` (source file, position) names; it goes.

    A group of rows is in memory at a time.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    (column,) = table.partition_by
    writer = PartWriter(folder, table)
    path = Path(folder, part.path)
    field = table.arrow_schema().field(column)
    day = pa.scalar(date.fromisoformat(part.partition[column]), field.type)
    with pq.ParquetFile(path) as file:
        for at in range(file.num_row_groups):
            group = file.read_row_group(at)
            named = zip(
                group.column("source_file").to_pylist(),
                group.column("source_position").to_pylist(),
                strict=True,
            )
            kept = group.filter(pa.array([not unwanted(*name) for name in named], pa.bool_()))
            if kept.num_rows:
                days = pa.repeat(day, kept.num_rows)
                sources = set(kept.column("source_file").to_pylist())
                writer.add(kept.append_column(field, days), sources)
    parts = writer.close()
    path.unlink()
    return parts
