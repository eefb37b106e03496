"""Reading files in Spark: the same decoder here in the driver, in workers, or over `binaryFile`.

A few small files are read in this process, which spares starting a worker. More of them go to the
workers, which open the files themselves; a task takes delivery days, or a bounded share of one, so
that copies of a record mostly meet in one task and a day's events are written to few files. So it is
with local files, and objects of S3 where Python may reach them. Files on any other filesystem come
through Spark's `binaryFile` source.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import chain, groupby, starmap
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from raretrail.cloudtrail.copies import KEY
from raretrail.cloudtrail.decode import (
    QUARANTINED_COLUMNS,
    FileResult,
    census,
    census_batch,
    decode_file,
    events_batches,
    quarantine_batch,
    whole_census_batch,
)
from raretrail.cloudtrail.forgotten import Forgotten
from raretrail.cloudtrail.layout import FileInfo, day_of_delivery, is_table
from raretrail.cloudtrail.principals import PrincipalRules
from raretrail.cloudtrail.redaction import Redaction
from raretrail.cloudtrail.table_input import read_shares
from raretrail.parts import Part, PartWriter
from raretrail.s3 import in_order, is_s3
from raretrail.s3 import read as read_object
from raretrail.tables import DECODED_COLUMNS, EVENTS, STAGED_CENSUS, Table
from raretrail.warehouse import local_path

if TYPE_CHECKING:
    import pyarrow as pa

EVENTS_DECODED = Table("decoded", "", DECODED_COLUMNS, key=())
QUARANTINED = Table("quarantined", "", QUARANTINED_COLUMNS, key=())
_ROWS = 10_000

T = TypeVar("T")


class Positions(NamedTuple):
    """Positions of a file that are not to become events: copies, and ids used for other content."""

    leave_out: Sequence[int] = ()
    reused: Sequence[int] = ()


class Opened(NamedTuple):
    """A file and its bytes; `error` says why there are none."""

    path: str
    data: bytes
    error: str | None
    positions: Positions


class ReadSettings(NamedTuple):
    """How much is read where, bytes as stored; whose records are left out, where anybody was forgotten. With
    s3, Python opens objects of S3 itself. time_column is that of a table that says when."""

    driver_bytes: int
    task_bytes: int
    forgotten: Forgotten | None = None
    s3: bool = False
    time_column: str | None = None

    def opens(self, path: str) -> bool:
        """Whether a file is opened by Python, here or in workers, and not by Spark."""
        return local_path(path) is not None or (self.s3 and is_s3(path))


Read = Callable[[Iterable[Opened]], Iterator["pa.RecordBatch"]]


def read_census(
    spark: SparkSession,
    files: Sequence[FileInfo],
    rules: PrincipalRules,
    redaction: Redaction,
    settings: ReadSettings,
) -> DataFrame:
    """`tables.STAGED_CENSUS` of the files, without the records of the forgotten."""
    forgotten = settings.forgotten

    def read(opened: Iterable[Opened]) -> Iterator[pa.RecordBatch]:
        yield from _census(opened, rules, redaction, forgotten)

    return _map_files(spark, files, {}, read, STAGED_CENSUS, settings)


def read_whole(
    spark: SparkSession,
    files: Sequence[FileInfo],
    rules: PrincipalRules,
    redaction: Redaction,
    settings: ReadSettings,
    finish: Callable[[pa.RecordBatch], pa.Table],
    folder: str,
) -> DataFrame:
    """`tables.STAGED_CENSUS` of the files, and their events written into files of EVENTS below `folder`.

    The files have all of EVENTS' columns, as `finish` makes them of DECODED_COLUMNS; a row of kind `part`
    tells of each. Of copies within one task only the first is written, as `copies.with_verdict` would
    decide; `written` says how many records of a file were. What is written twice, because a task was, is
    told once. To be computed once: each computing writes anew.
    """
    forgotten = settings.forgotten

    def read(opened: Iterable[Opened]) -> Iterator[pa.RecordBatch]:
        writer = PartWriter(folder, EVENTS)
        # What is made of records lives until it is written, and holds no cycles.
        collected = gc.isenabled()
        gc.disable()
        try:
            yield from _whole(opened, rules, redaction, forgotten, finish, writer)
            parts = writer.close()
        except BaseException:
            writer.give_up()
            raise
        finally:
            if collected:
                gc.enable()
            _release()
        if parts:
            yield _part_rows(parts)

    return _map_files(spark, sorted(files), {}, read, STAGED_CENSUS, settings)


def _release() -> None:
    """Give back what Arrow keeps for later: this process waits, perhaps for long, for its next task."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


def parts_of(rows: Iterable[Mapping[str, Any]]) -> list[Part]:
    """The parts that rows of kind `part` tell of."""
    return [Part(**json.loads(row["raw"])) for row in rows]


def read_events(
    spark: SparkSession,
    files: Sequence[FileInfo],
    positions: Mapping[str, Positions],
    hashes: Mapping[str, str],
    rules: PrincipalRules,
    redaction: Redaction,
    settings: ReadSettings,
) -> DataFrame:
    """`tables.DECODED_COLUMNS` of the files' records, without those of `positions`.

    hashes: content_hash by path as the census saw it. A file that has changed since raises, so that
    nothing is taken that was not counted.
    """

    forgotten = settings.forgotten

    def read(opened: Iterable[Opened]) -> Iterator[pa.RecordBatch]:
        yield from events_batches(_decoded(opened, hashes, rules, redaction, forgotten), _ROWS)

    return _map_files(spark, files, positions, read, EVENTS_DECODED, settings)


def read_reused(
    spark: SparkSession,
    files: Sequence[FileInfo],
    positions: Mapping[str, Positions],
    hashes: Mapping[str, str],
    rules: PrincipalRules,
    redaction: Redaction,
    settings: ReadSettings,
) -> DataFrame:
    """QUARANTINED_COLUMNS of the records that `positions` says reuse an id."""

    forgotten = settings.forgotten

    def read(opened: Iterable[Opened]) -> Iterator[pa.RecordBatch]:
        for result in _decoded(opened, hashes, rules, redaction, forgotten):
            result.quarantined = [row for row in result.quarantined if row.reason == "id_reused"]
            yield quarantine_batch([result])

    return _map_files(spark, files, positions, read, QUARANTINED, settings)


def _decoded(
    opened: Iterable[Opened],
    hashes: Mapping[str, str],
    rules: PrincipalRules,
    redaction: Redaction,
    forgotten: Forgotten | None,
) -> Iterator[FileResult]:
    for file in opened:
        result = decode_file(
            file.path,
            file.data,
            rules=rules,
            leave_out=frozenset(file.positions.leave_out),
            reused=frozenset(file.positions.reused),
            redaction=redaction,
        )
        if file.error:
            raise OSError(f"{file.path}: {file.error}; run again")
        if result.content_hash != hashes[file.path]:
            raise OSError(f"{file.path}: changed while it was read; run again")
        if forgotten:
            forgotten.take_out(result)
        yield result


def _census(
    opened: Iterable[Opened], rules: PrincipalRules, redaction: Redaction, forgotten: Forgotten | None
) -> Iterator[pa.RecordBatch]:
    def read(file: Opened) -> FileResult:
        result = _or_unreadable(file, census(file.path, file.data, redaction=redaction))
        if forgotten and not file.error:
            # A census does not ask whose a record is.
            whole = decode_file(file.path, file.data, rules=rules, redaction=redaction)
            forgotten.leave_out(result, whole)
        return result

    for results in _some(map(read, opened)):
        yield from _census_batches(results, census_batch(results))


def _whole(
    opened: Iterable[Opened],
    rules: PrincipalRules,
    redaction: Redaction,
    forgotten: Forgotten | None,
    finish: Callable[[pa.RecordBatch], pa.Table],
    writer: PartWriter,
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    def read(file: Opened) -> FileResult:
        whole = _or_unreadable(file, decode_file(file.path, file.data, rules=rules, redaction=redaction))
        if forgotten and not file.error:
            # What is set aside is told as a census tells it: without what names somebody forgotten.
            slim = census(file.path, file.data, redaction=redaction)
            forgotten.leave_out(slim, whole)
            forgotten.take_out(whole)
            whole.quarantined, whole.forgotten = slim.quarantined, slim.forgotten
        return whole

    seen: set[tuple[str, ...]] = set()
    for results in _some(map(read, opened)):
        kept = [_first_of_its_content(result, seen) for result in results]
        yield from _census_batches(results, whole_census_batch(results), [sum(keeps) for keeps in kept])
        wanted = [keep for keeps in kept for keep in keeps]
        sources = [result.source_file for result, keeps in zip(results, kept, strict=True) if any(keeps)]
        start = 0
        for batch in events_batches(results, _ROWS):
            keeps = wanted[start : start + batch.num_rows]
            start += batch.num_rows
            chosen = batch if all(keeps) else batch.filter(pa.array(keeps, pa.bool_()))
            if chosen.num_rows:
                writer.add(finish(chosen), sources)


def _first_of_its_content(result: FileResult, seen: set[tuple[str, ...]]) -> list[bool]:
    """Which records of a file are to be written, after those that `seen` has ids and hashes of.

    Files come in the order of their paths, so that of equal copies the first is the one kept, whatever
    becomes of its content.
    """
    keeps = []
    for content in zip(*(result.columns[at] for at in _CONTENT), strict=True):
        keeps.append(content not in seen)
        seen.add(content)
    return keeps


_CONTENT = [[column.name for column in DECODED_COLUMNS].index(name) for name in (*KEY, "record_hash")]


def _or_unreadable(file: Opened, result: FileResult) -> FileResult:
    """The result, or where the file could not be opened what says so."""
    if file.error:
        result.status, result.shape, result.detail, result.records = ("unreadable", "", file.error, 0)
        result.quarantined.clear()
    return result


def _some(results: Iterable[FileResult]) -> Iterator[list[FileResult]]:
    """Results in groups of some thousand records."""
    group: list[FileResult] = []
    size = 0
    for result in results:
        group.append(result)
        size += result.records
        if size >= _ROWS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _part_rows(parts: list[Part]) -> pa.RecordBatch:
    import pyarrow as pa

    rows = [{"source_file": part.path, "raw": json.dumps(part._asdict())} for part in parts]
    chosen = [STAGED_CENSUS.arrow_schema().field(name) for name in ("source_file", "raw")]
    return _widened(pa.RecordBatch.from_pylist(rows, pa.schema(chosen)), "part")


def _census_batches(
    results: list[FileResult], records: pa.RecordBatch, written: list[int] | None = None
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    yield _widened(records, "record")
    yield _widened(quarantine_batch(results), "quarantined")
    files = [
        {
            "source_file": result.source_file,
            "source_position": -1,
            "content_hash": result.content_hash,
            "status": result.status,
            "shape": result.shape,
            "detail": result.detail,
            "records": result.records,
            "forgotten": result.forgotten,
            "written": count,
        }
        for result, count in zip(results, written or [0] * len(results), strict=True)
    ]
    chosen = [field for field in STAGED_CENSUS.arrow_schema() if field.name in files[0]]
    yield _widened(pa.RecordBatch.from_pylist(files, pa.schema(chosen)), "file")


def _widened(batch: pa.RecordBatch, kind: str) -> pa.RecordBatch:
    """The batch as rows of STAGED_CENSUS of one kind; columns it lacks are null."""
    import pyarrow as pa

    arrays = []
    for field in STAGED_CENSUS.arrow_schema():
        if field.name == "kind":
            arrays.append(pa.array([kind] * batch.num_rows, field.type))
        elif field.name in batch.schema.names:
            arrays.append(batch.column(field.name))
        else:
            arrays.append(pa.nulls(batch.num_rows, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=STAGED_CENSUS.arrow_schema())


# ------------------------------------------------------------------------------------ where it runs


def _open(path: str, positions: Positions) -> Opened:
    try:
        return Opened(path, read_object(path) if is_s3(path) else _read_local(path), None, positions)
    except OSError as error:
        return Opened(path, b"", f"{error.strerror or error}", positions)


def _read_local(path: str) -> bytes:
    with open(local_path(path) or path, "rb") as file:
        return file.read()


def _open_all(files: Iterable[tuple[str, Positions]]) -> Iterator[Opened]:
    """The files, one after the other; those of S3 while the next ones are under way."""
    for far, some in groupby(files, key=lambda file: is_s3(file[0])):
        if far:
            yield from in_order(lambda file: _open(*file), some)
        else:
            yield from starmap(_open, some)


# Each task costs Python a look through its archives and a collection of garbage; fewer leave cores idle.
_LEAST_TASKS = 16


def to_tasks(files: Sequence[FileInfo], task_bytes: int) -> list[list[FileInfo]]:
    """The files by day of delivery: days over task_bytes in several shares, small ones together while some
    sixteen tasks are left."""
    dated = sorted((day_of_delivery(file.path, file.modified_at), file.path, file) for file in files)
    days = ([file for *_, file in group] for _, group in groupby(dated, key=lambda entry: entry[0]))
    shares = (share for day in days for share in packed(day, lambda file: file.bytes, task_bytes))
    enough = min(task_bytes, bytes_of(files) // _LEAST_TASKS)
    return [list(chain.from_iterable(some)) for some in packed(shares, bytes_of, enough)]


def packed(items: Iterable[T], size: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """The items in their order, in groups of at most `most` together; one that is larger is alone."""
    group: list[T] = []
    filled = 0
    for item in items:
        if group and filled + size(item) > most:
            yield group
            group, filled = [], 0
        group.append(item)
        filled += size(item)
    if group:
        yield group


def bytes_of(files: Iterable[FileInfo]) -> int:
    """Bytes of files together, as stored."""
    return sum(file.bytes for file in files)


def _map_files(
    spark: SparkSession,
    files: Sequence[FileInfo],
    positions: Mapping[str, Positions],
    read: Read,
    table: Table,
    settings: ReadSettings,
) -> DataFrame:
    none = Positions()
    opened_here = all(settings.opens(file.path) for file in files)
    if opened_here and bytes_of(files) <= settings.driver_bytes:
        import pyarrow as pa

        opened = _open_all((file.path, positions.get(file.path, none)) for file in files)
        schema = table.arrow_schema()
        # createDataFrame stops at the first empty batch of a table and drops the rest unsaid.
        batches = [batch.cast(schema) for batch in read(opened) if batch.num_rows]
        rows = pa.Table.from_batches(batches, schema)
        if rows.num_rows == 0:
            return spark.createDataFrame([], table.spark_schema())
        return spark.createDataFrame(rows, table.spark_schema())
    if opened_here:
        return _map_here(spark, files, positions, read, table, settings.task_bytes)
    skip = table is STAGED_CENSUS
    return _map_binary(spark, files, positions, read, table, settings.time_column, skip=skip)


def _map_here(
    spark: SparkSession,
    files: Sequence[FileInfo],
    positions: Mapping[str, Positions],
    read: Read,
    table: Table,
    task_bytes: int,
) -> DataFrame:
    none = Positions()
    tasks = [
        ([(file.path, *map(list, positions.get(file.path, none))) for file in task],)
        for task in to_tasks(files, task_bytes)
    ]
    schema = "files array<struct<path: string, leave_out: array<int>, reused: array<int>>>"

    def in_worker(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from read(
            _open_all(
                (file["path"], Positions(file["leave_out"], file["reused"]))
                for batch in batches
                for task in batch.column(0).to_pylist()
                for file in task
            )
        )

    # One row a task, one task a partition: repartition without a key deals rows out in turn.
    frame = spark.createDataFrame(tasks, schema).coalesce(1).repartition(len(tasks))
    return frame.mapInArrow(in_worker, table.spark_schema())


def _map_binary(
    spark: SparkSession,
    files: Sequence[FileInfo],
    positions: Mapping[str, Positions],
    read: Read,
    table: Table,
    time_column: str | None,
    *,
    skip: bool,
) -> DataFrame:
    """With skip, a file that cannot be opened is left out, whole; else it fails the job."""
    listed = [(path, *map(list, places)) for path, places in positions.items()]
    schema = "path string, leave_out array<int>, reused array<int>"
    content = _contents(spark, [file.path for file in files], time_column, skip=skip).join(
        F.broadcast(spark.createDataFrame(listed, schema)), "path", "left"
    )

    def in_worker(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from read(
            Opened(
                row["path"],
                row["content"],
                None,
                Positions(row["leave_out"] or (), row["reused"] or ()),
            )
            for batch in batches
            for row in batch.to_pylist()
        )

    return content.mapInArrow(in_worker, table.spark_schema())


def _contents(spark: SparkSession, paths: Sequence[str], time_column: str | None, *, skip: bool) -> DataFrame:
    """path and content of files elsewhere and of shares of tables."""
    shares = [path for path in paths if is_table(path)]
    others = [path for path in paths if not is_table(path)]
    frames = []
    if others:
        files = spark.read.format("binaryFile").option("ignoreCorruptFiles", skip).load(others)
        frames.append(files.select("path", "content"))
    if shares:
        frames.append(read_shares(spark, shares, time_column))
    return reduce(DataFrame.unionByName, frames)
