"""New files of a trail as a stream names them: Auto Loader on Databricks, Spark's own file source elsewhere.

The stream's checkpoint knows every file it has named, so nothing is listed twice. What it names goes into
`staged_listing`, which ingest works off: a row leaves once the ledger has its file, so a run that dies loses
nothing. No function of ours runs inside the stream, since over Spark Connect it would see nothing of this
process. A file that is written anew under its old name is named again by Auto Loader alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail.cloudtrail.layout import FileInfo, describe, is_candidate
from raretrail.errors import RaretrailError, UsageError
from raretrail.tables import INGEST_FILES, STAGED_LISTING
from raretrail.warehouse import Warehouse, local_path

Source = Literal["stream", "autoloader"]
_BINARY = "path string, modificationTime timestamp, length bigint, content binary"
# Spark's source leaves out files a week older than the newest, which a trail copied late is full of.
_STREAM = {"recursiveFileLookup": "true", "maxFileAge": "36500d"}
_AUTOLOADER = {
    "cloudFiles.format": "binaryFile",
    "cloudFiles.includeExistingFiles": "true",
    "cloudFiles.allowOverwrites": "true",
}


def list_streamed(
    warehouse: Warehouse,
    root: str,
    source: Source,
    *,
    state: str | None,
    options: Mapping[str, str],
    since: date | None,
) -> list[FileInfo]:
    """Let the stream name what is new below root; all files it has named that are not taken in yet.

    state is the folder under which the stream keeps what it knows: by default in the warehouse, which
    must then be a directory or URI. Files delivered before `since` wait. UsageError for a source that is
    not there, or without a place for the state.
    """
    local = local_path(root)
    if local and not local.exists():
        raise UsageError(f"trail {root}: No such file or directory; name a folder or file that exists")
    warehouse.create(STAGED_LISTING)
    _advance(warehouse, root, source, _state(warehouse, root, state), options)
    named = warehouse.read(STAGED_LISTING).where(F.col("trail") == root)
    if since is not None:
        named = named.where(F.col("file_date") >= F.lit(since))
    rows = named.select("source_file", "bytes", "modified_at").distinct().collect()
    latest: dict[str, FileInfo] = {}
    others: list[str] = []
    for row in sorted(rows, key=lambda row: row["modified_at"]):
        info = FileInfo(row["source_file"], row["bytes"], row["modified_at"].replace(tzinfo=UTC))
        if is_candidate(info.path.rpartition("/")[2]) and describe(info.path).kind != "other":
            latest[info.path] = info
        else:
            others.append(info.path)
    if others:
        _leave(warehouse, warehouse.spark.createDataFrame([(path,) for path in others], "source_file string"))
    if local:
        # As our own listing tells local files: by their path, and to the microsecond.
        latest = {path: found for path in latest if (found := _looked_up(path))}
    return [latest[path] for path in sorted(latest)]


def leave_taken(warehouse: Warehouse) -> None:
    """Drop from `staged_listing` what the ledger has."""
    if not warehouse.exists(STAGED_LISTING):
        return
    named = warehouse.read(STAGED_LISTING)
    span = named.agg(F.min("file_date").alias("first"), F.max("file_date").alias("last")).first()
    if span is None or span["first"] is None:
        return
    taken = (
        warehouse.read(INGEST_FILES)
        .where(F.col("file_date").between(F.lit(span["first"]), F.lit(span["last"])))
        .where("status <> 'unreadable'")
    )
    done = named.join(taken.select("source_file", "bytes").distinct(), ["source_file", "bytes"], "left_semi")
    _leave(warehouse, done.select("source_file", "bytes"))


def _leave(warehouse: Warehouse, rows: DataFrame) -> None:
    warehouse.remove(STAGED_LISTING, rows.distinct(), on=rows.columns)


def to_listing(named: DataFrame, root: str) -> DataFrame:
    """`tables.STAGED_LISTING` of a stream of path, length, modificationTime."""
    # Spark writes file:/a for what is /a to everything else here.
    path = F.regexp_replace("path", "^file:/+", "/")
    day = F.regexp_extract(path, r"/(\d{4}/\d\d/\d\d)/[^/]*$", 1)
    return named.select(
        F.lit(root).alias("trail"),
        path.alias("source_file"),
        F.col("length").alias("bytes"),
        F.col("modificationTime").alias("modified_at"),
        F.coalesce(
            F.when(day != "", F.regexp_replace(day, "/", "-").try_cast("date")), F.to_date("modificationTime")
        ).alias("file_date"),
    )


def _advance(warehouse: Warehouse, root: str, source: Source, state: str, options: Mapping[str, str]) -> None:
    reader = warehouse.spark.readStream
    if source == "autoloader":
        reader = reader.format("cloudFiles").options(**{**_AUTOLOADER, **options})
    else:
        reader = reader.format("binaryFile").schema(_BINARY).options(**{**_STREAM, **options})
    try:
        # Without `content` the files themselves are not opened.
        named = reader.load(root).select("path", "length", "modificationTime")
        query = warehouse.append_stream(STAGED_LISTING, to_listing(named, root), state)
        query.awaitTermination()
        failure = query.exception()
    except Exception as error:  # a source that is not there is no PySparkException
        if source == "autoloader" and "cloudFiles" in str(error):
            raise UsageError(
                "ingest.listing: autoloader is Databricks' own; say stream or folders here"
            ) from error
        raise _failed(root, error) from error
    if failure is not None:
        raise _failed(root, failure)


def _failed(root: str, error: Exception) -> RaretrailError:
    first = " ".join(str(error).split("\n")[:2])[:300] or type(error).__name__
    return RaretrailError(f"trail {root}: its stream of new files failed: {first}")


def _state(warehouse: Warehouse, root: str, folder: str | None) -> str:
    if folder is None and warehouse.is_schema:
        raise UsageError(
            "ingest.listing by stream keeps a state, which a schema has no place for: name a folder in "
            "ingest.listing_state, on Databricks one of a volume (/Volumes/CATALOG/SCHEMA/VOLUME/listing)"
        )
    name = hashlib.sha256(root.encode()).hexdigest()[:16]
    return f"{(folder or f'{warehouse.location}/_listing').rstrip('/')}/{name}"


def _looked_up(path: str) -> FileInfo | None:
    try:
        status = os.stat(Path(path))
    except FileNotFoundError:
        return None  # removed since it was named
    return FileInfo(path, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))
