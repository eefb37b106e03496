"""Looking into a warehouse: rows of its tables, and queries over all of them by plain names.

A warehouse in a directory of this machine or in S3 is read by delta-rs and DuckDB, which start in a
moment; any other, or where it is asked for, by Spark.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import unquote, urlsplit

from raretrail import s3, tables
from raretrail.cloudtrail.layout import is_table
from raretrail.errors import RaretrailError, UsageError
from raretrail.settings import Detector, load_settings
from raretrail.tables import Table
from raretrail.views import View, views

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    from deltalake import DeltaTable
    from pyspark.sql import Column, DataFrame

    from raretrail.s3_files import S3Files
    from raretrail.warehouse import Warehouse

Engine = Literal["duckdb", "spark"]
Row = dict[str, Any]
Value = Any

_SCHEMA_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*){1,2}")
_BATCH = 2048
# delta-rs takes these in a path for something else.
_UNWRITABLE = "[]%"


@dataclass(frozen=True)
class Condition:
    """What a row must meet. `starts` and `has` are about text, case ignored by `has`; `in` takes a
    sequence of texts; `null` takes whether the column is to be null."""

    column: str
    operator: Literal["=", ">=", "<", "<=", "in", "starts", "has", "null"]
    value: Value


@dataclass(frozen=True)
class Result:
    """What a query gave: column names, and rows batch by batch."""

    columns: tuple[str, ...]
    batches: Iterator[list[Row]]

    def rows(self) -> Iterator[Row]:
        """Row by row."""
        for batch in self.batches:
            yield from batch


class Look(Protocol):
    """An open warehouse to look into."""

    def rows(
        self,
        table: Table | View,
        *conditions: Condition,
        columns: Sequence[str] | None = None,
        order: Sequence[tuple[str, Literal["asc", "desc"]]] = (),
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Row]:
        """The rows that meet all conditions; none where the table is not there yet."""
        ...

    def count(self, table: Table | View, *conditions: Condition) -> int:
        """How many rows meet all conditions."""
        ...

    def query(self, sql: str) -> Result:
        """What a SELECT gives; every table and view is there under its plain name."""
        ...


def is_writable(folder: Path | None) -> bool:
    """Whether delta-rs can write to tables in a folder."""
    return folder is not None and not any(sign in str(folder) for sign in _UNWRITABLE)


def local_path(location: str) -> Path | None:
    """The directory a path or file: URI names on this machine; None for any other filesystem, and for a
    table."""
    if is_table(location):
        return None
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if "://" in location:
        return None
    return Path(location).absolute()


def directory_of(location: str) -> Path | None:
    """The directory a warehouse is in on this machine; None for a URI of elsewhere or a schema."""
    if _SCHEMA_NAME.fullmatch(location) and not Path(location).exists():
        return None
    return local_path(location)


def engine_for(location: str, wanted: Engine | None = None) -> Engine:
    """Which engine reads this warehouse. UsageError if it is to be DuckDB and cannot."""
    far = s3.is_s3(location)
    can = directory_of(location) is not None or (far and _reads_s3())
    if wanted == "duckdb" and not can:
        if far:
            raise UsageError(
                f"--engine duckdb needs boto3 and fsspec for {location}: pip install 'raretrail[s3]'"
            )
        raise UsageError(f"--engine duckdb reads directories of this machine and S3 only, not {location}")
    return wanted or ("duckdb" if can else "spark")


def _reads_s3() -> bool:
    return s3.is_installed() and find_spec("fsspec") is not None


@contextmanager
def open_duckdb(location: str, detectors: Sequence[Detector] | None = None) -> Iterator[DuckLook]:
    """Look into a directory of this machine, or of S3, with DuckDB. UsageError if it holds no table.

    detectors are those the views tell of; those of the default settings if not given. UsageError, too,
    for a warehouse of a later version.
    """
    if s3.is_s3(location):
        with s3.told(f"--warehouse {location}", "s3:ListBucket and s3:GetObject"):
            where, names = _at_s3(location)
    else:
        folder = directory_of(location)
        names = tables_in(folder) if folder else []
        where = _Where(str(folder))
    if not names:
        reason = "holds no tables" if s3.is_s3(location) or Path(where.base).is_dir() else "is not there"
        raise UsageError(f"--warehouse {location}: {reason}; `raretrail run` makes and fills it")
    require_known_version(location, _version_in(where))
    with _duckdb() as connection:
        if where.files is not None:
            connection.register_filesystem(where.files)
        yield DuckLook(connection, where, names, _known(detectors))


@dataclass(frozen=True)
class _Where:
    """A warehouse's place as delta-rs takes it, with its options, and the files of S3 where it is there."""

    base: str
    options: dict[str, str] | None = None
    files: S3Files | None = None

    def table(self, name: str) -> DeltaTable:
        from deltalake import DeltaTable

        return DeltaTable(f"{self.base}/{name}", storage_options=self.options)


def _at_s3(location: str) -> tuple[_Where, list[str]]:
    """Where it is, and the names of the tables that may be there."""
    from raretrail.s3_files import S3Files

    bucket, prefix = s3.split(location.rstrip("/"))
    folders, _ = s3.folder(bucket, f"{prefix}/" if prefix else "")
    there = {folder.split("/")[-2] for folder in folders}
    names = [table.name for table in tables.ALL if table.name in there]
    base = f"s3://{bucket}/{prefix}".rstrip("/")
    return _Where(base, s3.storage_options(bucket), S3Files()), names


@contextmanager
def open_rows(
    rows: Mapping[Table, Sequence[Row]], detectors: Sequence[Detector] | None = None
) -> Iterator[DuckLook]:
    """Look into rows in hand as into a warehouse that holds them alone: tables not given are empty."""
    import pyarrow as pa

    with _duckdb() as connection:
        look = DuckLook(connection, _Where(""), (), _known(detectors))
        for table, some in rows.items():
            connection.register(table.name, pa.Table.from_pylist(list(some), schema=table.arrow_schema()))
        yield look


@contextmanager
def _duckdb() -> Iterator[duckdb.DuckDBPyConnection]:
    import duckdb

    # Nothing is fetched from anywhere, and variables of this program are no tables.
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "python_enable_replacements": "false",
        }
    )
    try:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection
    finally:
        connection.close()


def require_known_version(location: str, found: str) -> None:
    """Refuse a warehouse whose tables are of a later version than this program's: UsageError."""
    if not found.isdecimal() or int(found) > tables.SCHEMA_VERSION:
        raise UsageError(
            f"--warehouse {location}: was written by a later raretrail (tables of version {found}, "
            f"this program knows {tables.SCHEMA_VERSION}); install that version or name another warehouse"
        )


def _version_in(where: _Where) -> str:
    """The version of the tables there; '1' where they do not say."""
    from deltalake.exceptions import DeltaError

    try:
        properties = where.table(tables.RUNS.name).metadata().configuration
    except DeltaError:  # not there yet, or not to be read: reading it says so
        return "1"
    return str(properties.get(tables.VERSION_PROPERTY, "1"))


def tables_in(folder: Path) -> list[str]:
    """The names of the Delta tables in a directory, staged ones included."""
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if is_delta(p))


def is_delta(folder: Path) -> bool:
    """Whether a folder holds a Delta table: whoever died making one leaves a log without a commit."""
    log = folder / "_delta_log"
    return log.is_dir() and any(entry.name[:20].isdigit() for entry in log.iterdir())


# What a statement names that asks which tables there are.
_ASK_FOR_ALL = frozenset(
    ("show", "pragma", "information_schema", "duckdb_tables", "duckdb_views", "duckdb_columns")
)


class DuckLook:
    """`Look` by delta-rs and DuckDB."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        where: _Where,
        names: Sequence[str],
        detectors: Sequence[Detector],
    ) -> None:
        self._connection = connection
        self._where = where
        # Looking at a table takes its log and the ends of its files, so those named in what is asked are
        # looked at, and not before.
        self._pending = set(names)
        for table in tables.ALL:
            if table.name not in names and not table.name.startswith("staged_"):
                connection.register(table.name, table.arrow_schema().empty_table())
        self._views = views(detectors)
        self._made: set[str] = set()

    def _register(self, names: Iterable[str]) -> None:
        for name in sorted(self._pending & set(names)):
            _register(self._connection, name, self._where)
        self._pending -= set(names)

    def _make_views(self, text: str) -> None:
        """Create what the text names: binding all views takes longer than most looks."""
        words = set(re.findall(r"\w+", text.lower()))
        if not words.isdisjoint(_ASK_FOR_ALL):
            words |= self._pending | {view.name for view in self._views}
        needed: list[View] = []
        for view in reversed(self._views):  # a view reads those before it
            if view.name in words:
                needed.insert(0, view)
                words |= set(re.findall(r"\w+", view.sql("duckdb").lower()))
        self._register(words)
        for view in needed:
            if view.name not in self._made:
                self._connection.execute(f"CREATE TEMP VIEW {view.name} AS {view.sql('duckdb')}")
                self._made.add(view.name)

    def rows(
        self,
        table: Table | View,
        *conditions: Condition,
        columns: Sequence[str] | None = None,
        order: Sequence[tuple[str, Literal["asc", "desc"]]] = (),
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Row]:
        """As `Look.rows`."""
        self._make_views(table.name)
        chosen = ", ".join(f'"{name}"' for name in columns or ["*"]).replace('"*"', "*")
        where, values = _duck_where(conditions)
        sql = f'SELECT {chosen} FROM "{table.name}"{where}'
        if order:
            sql += " ORDER BY " + ", ".join(f'"{name}" {way} NULLS LAST' for name, way in order)
        if limit is not None:
            sql += f" LIMIT {int(limit)} OFFSET {int(offset)}"
        relation = self._connection.sql(sql, params=values)
        return _to_rows(relation.to_arrow_table())

    def count(self, table: Table | View, *conditions: Condition) -> int:
        """As `Look.count`."""
        self._make_views(table.name)
        where, values = _duck_where(conditions)
        # All rows are fetched: a result left open blocks the connection.
        found = self._connection.execute(f'SELECT count(*) FROM "{table.name}"{where}', values).fetchall()
        return int(found[0][0])

    def query(self, sql: str) -> Result:
        """As `Look.query`; UsageError with DuckDB's words if the query is wrong."""
        import duckdb

        self._make_views(sql)
        try:
            relation = self._connection.sql(sql)
            if relation is None:  # a statement that gives nothing back
                return Result((), iter(()))  # type: ignore[unreachable]
            reader = relation.to_arrow_reader(_BATCH)
        except duckdb.Error as error:
            raise _query_error(error) from None

        def batches() -> Iterator[list[Row]]:
            try:
                for batch in reader:
                    yield _to_rows(batch)
            except (duckdb.Error, OSError) as error:
                raise _query_error(error) from None

        return Result(tuple(relation.columns), batches())


def _query_error(error: Exception) -> RaretrailError:
    return UsageError(f"the query failed in DuckDB: {str(error).strip()}")


def _known(detectors: Sequence[Detector] | None) -> Sequence[Detector]:
    return load_settings()[0].detectors if detectors is None else detectors


def _register(connection: duckdb.DuckDBPyConnection, name: str, where: _Where) -> None:
    """Make a Delta table readable under its name.

    DuckDB reads the Parquet files that the log lists. An Arrow dataset would do the same, but the
    threads it leaves behind a LIMIT hang or crash the process as it ends.
    """
    import duckdb
    import pyarrow as pa
    from deltalake.exceptions import DeltaError, TableNotFoundError
    from deltalake.schema import ArrayType

    path = f"{where.base}/{name}"
    try:
        table = where.table(name)
        features = table.protocol().reader_features or []
        files, schema = table.file_uris(), table.schema()
        if where.files is not None:
            files = where.files.of_table(table)
    except TableNotFoundError:
        if where.files is None:
            raise
        connection.register(name, next(t for t in tables.ALL if t.name == name).arrow_schema().empty_table())
        return
    except DeltaError as error:
        raise RaretrailError(f"{path}: delta-rs cannot read it ({error}); `--engine spark` may") from None
    if features:
        raise RaretrailError(f"{path}: has {', '.join(features)}, which only `--engine spark` reads")
    if not files:
        connection.register(name, pa.schema(schema.to_arrow()).empty_table())
        return
    # delta-rs writes some of a path as %xx, and DuckDB takes each for a pattern.
    far = where.files is not None
    there = [file if far or Path(file).exists() else unquote(file) for file in files]
    literal = [re.sub(r"([*?\[])", r"[\1]", file) for file in there]
    try:
        read = connection.read_parquet(literal, hive_partitioning=True, union_by_name=True)
    except duckdb.Error as error:
        # The other tables stand; whoever asks for this one is told.
        lost = duckdb.ConstantExpression(f"{path}: {str(error).strip()}")
        connection.sql("SELECT 1").select(
            duckdb.FunctionExpression("error", lost).alias("unreadable")
        ).create_view(name)
        return
    partitions = table.metadata().partition_columns
    columns = []
    for field in schema.fields:
        column = '"' + field.name.replace('"', '""') + '"'
        if field.name in partitions and '"date"' in str(field.type):
            columns.append(f"CAST({column} AS DATE) AS {column}")
        elif field.name not in read.columns:
            continue
        elif '"timestamp"' in str(field.type):
            # Spark writes it without its zone (INT96) where its settings are not ours, as over Connect.
            several = "[]" if isinstance(field.type, ArrayType) else ""
            columns.append(f"CAST({column} AS TIMESTAMPTZ{several}) AS {column}")
        else:
            columns.append(column)
    # A table written before a column was declared reads as if it were empty there.
    there_already = {field.name for field in schema.fields}
    for declared in next((t.columns for t in tables.ALL if t.name == name), ()):
        if declared.name not in there_already:
            columns.append(f'CAST(NULL AS {_duck_type(declared.type)}) AS "{declared.name}"')
    read.project(", ".join(columns)).create_view(name)


def _duck_type(spark: str) -> str:
    if spark.startswith("array<"):
        return f"{_duck_type(spark[6:-1])}[]"
    if spark.startswith("map<"):
        key, value = spark[4:-1].split(",")
        return f"MAP({_duck_type(key)}, {_duck_type(value)})"
    return "TIMESTAMPTZ" if spark == "timestamp" else spark


def _duck_where(conditions: Sequence[Condition]) -> tuple[str, list[Any]]:
    texts: list[str] = []
    values: list[Any] = []
    for condition in conditions:
        column, operator = f'"{condition.column}"', condition.operator
        if operator == "in":
            texts.append(f"{column} IN (SELECT unnest(?::VARCHAR[]))")
            values.append(list(condition.value))
            continue
        if operator == "null":
            texts.append(f"{column} IS {'' if condition.value else 'NOT '}NULL")
            continue
        if operator == "starts":
            texts.append(f"starts_with({column}, ?)")
        elif operator == "has":
            texts.append(f"contains(lower({column}), lower(?))")
        else:
            texts.append(f"{column} {operator} ?")
        values.append(condition.value)
    return (" WHERE " + " AND ".join(texts) if texts else ""), values


def _to_rows(table: pa.Table | pa.RecordBatch) -> list[Row]:
    rows: list[Row] = table.to_pylist(maps_as_pydicts="strict")
    return rows


class SparkLook:
    """`Look` by Spark."""

    def __init__(self, warehouse: Warehouse, detectors: Sequence[Detector] | None = None) -> None:
        self.warehouse = warehouse
        self._views = views(_known(detectors))

    def _read(self, table: Table | View) -> DataFrame:
        if isinstance(table, Table):
            return self.warehouse.read(table)
        self.warehouse.register_views(views=self._views)
        return self.warehouse.spark.table(table.name)

    def rows(
        self,
        table: Table | View,
        *conditions: Condition,
        columns: Sequence[str] | None = None,
        order: Sequence[tuple[str, Literal["asc", "desc"]]] = (),
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Row]:
        """As `Look.rows`."""

        frame = self._read(table)
        for condition in conditions:
            frame = frame.where(_spark_where(condition))
        if order:
            frame = frame.orderBy(*[getattr(_column(name), f"{way}_nulls_last")() for name, way in order])
        if offset:
            frame = frame.offset(offset)
        if limit is not None:
            frame = frame.limit(limit)
        if columns:
            frame = frame.select(*map(_column, columns))
        return [row.asDict(recursive=True) for row in frame.collect()]

    def count(self, table: Table | View, *conditions: Condition) -> int:
        """As `Look.count`."""
        frame = self._read(table)
        for condition in conditions:
            frame = frame.where(_spark_where(condition))
        return frame.count()

    def query(self, sql: str) -> Result:
        """As `Look.query`; UsageError with Spark's words if the query is wrong."""
        from pyspark.errors import AnalysisException, ParseException, PySparkException

        self.warehouse.register_views(views=self._views)
        try:
            frame = self.warehouse.spark.sql(sql.strip().rstrip(";"))
        except (AnalysisException, ParseException) as error:
            raise UsageError(f"the query failed in Spark: {str(error).strip()}") from None

        def batches() -> Iterator[list[Row]]:
            batch: list[Row] = []
            try:
                for row in frame.toLocalIterator():
                    batch.append(row.asDict(recursive=True))
                    if len(batch) == _BATCH:
                        yield batch
                        batch = []
            except PySparkException as error:
                raise UsageError(f"the query failed in Spark: {str(error).strip()}") from None
            yield batch

        return Result(tuple(frame.columns), batches())


def _column(name: str) -> Column:
    """A column by its whole name: a dot in it is part of it."""
    from pyspark.sql import functions as F

    return F.col(f"`{name}`")


def _spark_where(condition: Condition) -> Column:
    from pyspark.sql import functions as F

    column, value = _column(condition.column), condition.value
    if condition.operator == "in":
        return column.isin(*value)
    if condition.operator == "starts":
        return column.startswith(value)
    if condition.operator == "null":
        return column.isNull() if condition.value else column.isNotNull()
    if condition.operator == "has":
        return F.lower(column).contains(F.lower(F.lit(value)))
    compared: dict[str, Column] = {
        "=": column == value,
        ">=": column >= value,
        "<": column < value,
        "<=": column <= value,
    }
    return compared[condition.operator]
