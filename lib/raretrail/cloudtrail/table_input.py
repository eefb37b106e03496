"""CloudTrail that lies in a table already, read as if it were files of a trail.

`table:catalog.schema.name`, or `table:delta.`path`` and `table:parquet.`path``. What the rows are is told by
the columns: one text column with the record (raw), a record's columns (flattened), or OCSF. A table's data
file is immutable, so its rows of one UTC day, in bounded shares, are to the ledger what a file is:
listed as `<root>/YYYY/MM/DD/<data file>#<share>`, taken once, balanced like any other. A share's document is
its rows as JSON lines in the order of their text. Files that compaction wrote anew come again, and their
records are copies.

Only small columns are read for a listing. Views have no data files and cannot be read so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import UTC, date, timedelta
from typing import NamedTuple

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    BinaryType,
    DataType,
    DateType,
    IntegralType,
    StringType,
    StructType,
    TimestampNTZType,
    TimestampType,
    VariantType,
)

from raretrail.cloudtrail.flattened import is_flattened
from raretrail.cloudtrail.layout import TABLE, FileInfo
from raretrail.cloudtrail.ocsf import is_ocsf
from raretrail.errors import UsageError

# What a row counts as where sizes of files decide: how much goes into a batch and a task.
_ROW_BYTES = 1024
# Rows of one day come in one document for every so many bytes of their data file.
_SHARE_BYTES = 1024 * 1024
_SHARE = re.compile(r"(?P<root>table:.+)/(?P<day>\d{4}/\d\d/\d\d)/[^/]+#\d+")
_RAW_NAMES = (
    "raw", "record", "value", "event", "cloudtrailevent", "message", "body", "json", "data", "payload",
    "content",
)  # fmt: skip


class _Shape(NamedTuple):
    """How rows become documents: the JSON text of a row, something small that tells rows apart, and the
    column that says when, if any."""

    text: Column
    key: Column
    when: str | None


def list_shares(
    spark: SparkSession,
    root: str,
    days: Collection[date] | None,
    since: date | None = None,
    time_column: str | None = None,
) -> list[FileInfo]:
    """The shares of a table's data files: path, nominal size, time of modification of the data file.

    With `days` only rows of these days, else of `since` and later. `time_column` says when an event was,
    where the columns do not (raw text), and what the table is best pruned by.

    Raises:
        UsageError: no such table, no data files, or columns that are none of those known.
    """
    try:
        rows = _shared(spark, root, days, since, time_column)
        share = (F.count(F.lit(1)).alias("rows"), F.max("modified").alias("modified_at"))
        found = rows.groupBy("path").agg(*share).collect()
    except PySparkException as error:  # by classic Spark as the plan is made, over Connect as it runs
        raise _unreadable(root, error) from error
    return sorted(
        FileInfo(row["path"], row["rows"] * _ROW_BYTES, row["modified_at"].replace(tzinfo=UTC))
        for row in found
    )


def read_shares(spark: SparkSession, paths: Sequence[str], time_column: str | None = None) -> DataFrame:
    """The documents of shares as `list_shares` named them: path, content (bytes)."""
    by_root: dict[str, set[date]] = {}
    for path in paths:
        named = _SHARE.fullmatch(path)
        assert named, path
        day = date(*map(int, named["day"].split("/")))
        by_root.setdefault(named["root"], set()).add(day)
    wanted = spark.createDataFrame([(path,) for path in paths], "path string")
    documents: DataFrame | None = None
    for root, days in sorted(by_root.items()):
        rows = _shared(spark, root, days, None, time_column, with_text=True)
        found = (
            rows.join(F.broadcast(wanted), "path", "left_semi")
            .groupBy("path")
            .agg(F.array_join(F.array_sort(F.collect_list("text")), "\n").cast("binary").alias("content"))
        )
        documents = found if documents is None else documents.unionByName(found)
    assert documents is not None, "no shares to read"
    return documents


def _shared(
    spark: SparkSession,
    root: str,
    days: Collection[date] | None,
    since: date | None,
    time_column: str | None,
    *,
    with_text: bool = False,
) -> DataFrame:
    """path, modified and, if asked for, text of each row."""
    table = _open(spark, root)
    shape = _shape(root, table.schema, time_column)
    modified = F.col("_metadata.file_modification_time")
    day = F.to_date(modified)
    if shape.when:
        day = F.coalesce(_day(F.col(shape.when), _type(table.schema, shape.when)), day)
    elif not time_column:
        at = F.get_json_object(shape.text, "$.eventTime")
        day = F.coalesce(_day(at, StringType()), day)
    name = F.regexp_extract(F.col("_metadata.file_path"), r"[^/]+$", 0)
    shares = (F.lit(1) + F.col("_metadata.file_size") / _SHARE_BYTES).cast("bigint")
    path = F.concat(
        F.lit(root + "/"),
        F.date_format("_day", "yyyy/MM/dd"),
        F.lit("/"),
        F.substring(F.md5(F.col("_file")), 1, 8),
        F.lit("-"),
        F.col("_name"),
        F.lit("#"),
        F.pmod(F.xxhash64("_key"), F.col("_shares")).cast("string"),
    )
    rows = _pruned(table, shape, days, since).select(
        day.alias("_day"),
        F.col("_metadata.file_path").alias("_file"),
        name.alias("_name"),
        shares.alias("_shares"),
        shape.key.alias("_key"),
        modified.alias("modified"),
        *([_line(shape.text).alias("text")] if with_text else []),
    )
    if days is not None:
        rows = rows.where(F.col("_day").isin(*sorted(days)))
    if since is not None:
        rows = rows.where(F.col("_day") >= F.lit(since))
    return rows.select(path.alias("path"), "modified", *(["text"] if with_text else []))


def _line(text: Column) -> Column:
    """A row as one line of JSON: a row that is none, or nothing, becomes an object that is set aside alone.

    Within JSON a line break stands between tokens only.
    """
    odd = F.to_json(F.struct(F.coalesce(text, F.lit("")).alias("not_json")))
    is_json = F.get_json_object(text, "$").isNotNull()
    return F.when(is_json, F.translate(text, "\r\n", "  ")).otherwise(odd)


def _open(spark: SparkSession, root: str) -> DataFrame:
    try:
        table = spark.read.table(root.removeprefix(TABLE))
        table.schema  # noqa: B018  (Connect analyses here)
        return table
    except PySparkException as error:
        raise _unreadable(root, error) from error


def _unreadable(root: str, error: PySparkException) -> UsageError:
    first = str(error).strip().splitlines()[0][:300]
    if "_metadata" in first:
        first = "it has no data files of its own (a view?); name the Delta or Parquet table behind it"
    if "DIRECT_QUERY" in first:
        first = (
            "there is nothing, or other files lie beside the data, as Iceberg's metadata does; name the "
            "folders of the data alone, as in table:parquet.`.../region=*`"
        )
    return UsageError(f"--trail {root}: cannot be read: {first}")


def _shape(root: str, schema: StructType, time_column: str | None) -> _Shape:
    names = [field.name for field in schema.fields]
    small = {name.lower(): name for name in names}
    if time_column is not None:
        if time_column.lower() not in small:
            raise UsageError(f"--trail {root}: has no column {time_column} (setting ingest.time_column)")
        time_column = small[time_column.lower()]
    has_own_names = {"eventTime", "eventName"} <= set(names)
    # In small letters they are known for columns, whose nested JSON may be text.
    shown = [name.lower() if has_own_names else name for name in names]
    row = F.to_json(F.struct(*[F.col(f"`{n}`").alias(s) for n, s in zip(names, shown, strict=True)]))
    if is_ocsf(set(small)):
        return _Shape(row, F.col(small["metadata"])["uid"], time_column or small.get("time"))
    letters = {re.sub(r"[_.\- ]", "", name).lower(): name for name in names}
    if is_flattened(names) or has_own_names:
        key = letters.get("eventid") or letters["eventtime"]
        return _Shape(row, F.col(f"`{key}`").cast("string"), time_column or letters.get("eventtime"))
    texts = [f for f in schema.fields if isinstance(f.dataType, StringType | BinaryType | VariantType)]
    named = [f for name in _RAW_NAMES for f in texts if f.name.lower().strip("_") == name]
    chosen = named[:1] or (texts if len(texts) == 1 else [])
    if not chosen:
        raise UsageError(
            f"--trail {root}: no columns of CloudTrail: neither a record's (eventTime, event_name, ...), nor "
            f"OCSF's (class_uid, metadata, ...), nor one text column with records. It has {', '.join(names)}"
        )
    column = F.col(f"`{chosen[0].name}`")
    is_variant = isinstance(chosen[0].dataType, VariantType)
    text = F.to_json(column) if is_variant else column.cast("string")
    return _Shape(text, text, time_column)


def _type(schema: StructType, name: str) -> DataType:
    return schema[name].dataType


def _day(when: Column, of: DataType) -> Column:
    """The UTC day of a column that says when; null where it says nothing that can be read."""
    if isinstance(of, DateType):
        return when
    if isinstance(of, TimestampType | TimestampNTZType):
        return F.to_date(when)
    if isinstance(of, IntegralType):  # OCSF: milliseconds since 1970
        return F.to_date(F.timestamp_millis(when.cast("bigint")))
    text = when.cast("string")
    digits = F.regexp_replace(text, r"^(\d{4})[-/]?(\d\d)[-/]?(\d\d).*$", "$1-$2-$3")
    return digits.try_cast("date")


def _pruned(table: DataFrame, shape: _Shape, days: Collection[date] | None, since: date | None) -> DataFrame:
    """The table without what its statistics and partitions show to lie outside; the exact days come later."""
    first = min(days) if days else since
    if first is None or shape.when is None:
        return table
    when = F.col(f"`{shape.when}`")
    of = _type(table.schema, shape.when)
    last = max(days) + timedelta(days=1) if days else None
    low, high = F.lit(first), F.lit(last)
    if isinstance(of, IntegralType):
        low, high = (F.unix_millis(one.cast("timestamp")) for one in (low, high))
    elif isinstance(of, StringType):
        # A day without its dashes sorts after one with them, so only the lower bound is safe.
        low, last = F.lit(str(first)), None
    keep = when.isNull() | (when >= low)
    rows = table.where(keep if last is None else keep & (when.isNull() | (when <= high)))
    partition = {field.name.lower(): field.name for field in table.schema.fields}.get("eventday")
    if partition:  # Security Lake's, as yyyyMMdd
        rows = rows.where(F.col(partition).cast("string") >= F.lit(f"{first:%Y%m%d}"))
    return rows
