"""The same records as files of a trail, in tables, as OCSF, and as files a stream names: the same events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from factories import call, trail_file
from other_forms import Json, athena_of, ocsf_of
from raretrail import doctor
from raretrail.cloudtrail.decode import FileResult, decode_file
from raretrail.cloudtrail.principals import load_rules
from raretrail.cloudtrail.table_input import list_shares, read_shares
from raretrail.errors import UsageError
from raretrail.settings import Settings, default_conf_dir, load_settings
from raretrail.stages.ingest import Ingested, ingest
from raretrail.stages.locating import open_geo
from raretrail.tables import (
    DECODED_COLUMNS,
    EVENTS,
    INGEST_FILES,
    PRESENCE_DAILY,
    QUARANTINE,
    STAGED_LISTING,
    Table,
)
from raretrail.warehouse import Warehouse

pytestmark = pytest.mark.integration

FIRST = date(2026, 1, 5)
NOW = datetime(2026, 1, 9, tzinfo=UTC)
# What tells of the text a record came in, and of running.
OF_THE_TEXT = ("record_hash", "source_file", "source_position", "run_id", "ingested_at")
RULES = load_rules(default_conf_dir() / "principals.yml")
ADDRESSES = ("87.210.98.182", "95.251.251.132", "212.142.174.158")


def _records(day: date) -> list[Json]:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    return [
        call(user, command, ADDRESSES[n % 3], noon + timedelta(minutes=n))
        for n, user in enumerate(("ana", "ben", "carla"))
        for command in ("ec2:DescribeInstances", "iam:GetUser")
    ]


@pytest.fixture(scope="module")
def records() -> list[Json]:
    """Three days of records."""
    return [one for n in range(3) for one in _records(FIRST + timedelta(days=n))]


@pytest.fixture(scope="module")
def trail(records: list[Json], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """They, as files, one of them twice and with what is no record."""
    root = tmp_path_factory.mktemp("trail")
    for n in range(3):
        day = FIRST + timedelta(days=n)
        _deliver(root, day, "a", [one for one in records if one["eventTime"].startswith(str(day))])
    _deliver(root, FIRST, "b", [records[0], {"no": "record"}])
    return root


def _deliver(root: Path, day: date, name: str, records: list[Json]) -> None:
    folder = root / "AWSLogs" / "111122223333" / "CloudTrail" / "eu-west-1" / f"{day:%Y/%m/%d}"
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"111122223333_CloudTrail_eu-west-1_{day:%Y%m%d}T1205Z_{name:>016}"
    (folder / f"{stem}.json.gz").write_bytes(trail_file(records))


def _take(spark: SparkSession, root: str, where: str, **how: Any) -> tuple[Warehouse, Ingested]:
    settings: Settings
    settings, _ = load_settings(options={"trail": [root], "warehouse": where, "ingest": how})
    warehouse = Warehouse(spark, where)
    done = ingest(
        warehouse, settings, open_geo(settings.geo), "run", NOW,
        since=FIRST - timedelta(days=30), until=None, recent=None, progress=lambda text: None,
    )  # fmt: skip
    return warehouse, done


def _rows(warehouse: Warehouse, table: Table, *without: str) -> list[str]:
    rows = warehouse.read(table).drop(*without).collect()
    return sorted(repr(row) for row in rows)


def _balances(warehouse: Warehouse) -> bool:
    ledger = warehouse.read(INGEST_FILES).collect()
    assert sum(row.events for row in ledger) == warehouse.read(EVENTS).count()
    assert sum(row.quarantined for row in ledger) == warehouse.read(QUARANTINE).count()
    return all(row.records == row.events + row.duplicates + row.quarantined for row in ledger)


@pytest.fixture(scope="module")
def of_files(
    spark: SparkSession, trail: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Warehouse]:
    """The warehouse that the files give."""
    yield _take(spark, str(trail), str(tmp_path_factory.mktemp("files") / "w"))[0]


@pytest.mark.slow
def test_rows_of_raw_text_become_what_files_become(
    spark: SparkSession, records: list[Json], of_files: Warehouse, tmp_path: Path
) -> None:
    path = f"{tmp_path}/raw"
    texts = [json.dumps(one) for one in records]
    odd = [texts[0], json.dumps({"no": "record"}), "{cut", None]
    rows = [(text, FIRST) for text in texts + odd]
    spark.createDataFrame(rows, "value string, landed date").write.format("delta").save(path)
    warehouse, done = _take(spark, f"table:delta.`{path}`", f"{tmp_path}/w")
    assert _rows(warehouse, EVENTS, *OF_THE_TEXT) == _rows(of_files, EVENTS, *OF_THE_TEXT)
    assert _rows(warehouse, PRESENCE_DAILY) == _rows(of_files, PRESENCE_DAILY)
    hashes = [
        {row.record_hash for row in one.read(EVENTS).select("record_hash").collect()}
        for one in (warehouse, of_files)
    ]
    assert hashes[0] == hashes[1], "raw text is the record as delivered"
    assert _balances(warehouse)
    assert done.counts["duplicates"] == 1 and done.counts["quarantined"] == 3
    assert done.counts["records"] == len(rows)

    _, again = _take(spark, f"table:delta.`{path}`", f"{tmp_path}/w")
    assert again.counts["files_new"] == 0
    new = [json.dumps(one) for one in _records(FIRST + timedelta(days=3))]
    more = spark.createDataFrame([(text, FIRST) for text in new], "value string, landed date")
    more.write.format("delta").mode("append").save(path)
    warehouse, later = _take(spark, f"table:delta.`{path}`", f"{tmp_path}/w")
    assert (later.counts["files_new"], later.counts["events"], later.counts["records"]) == (1, 6, 6)

    # Compaction writes the rows to another file: they come again, and are copies.
    spark.sql(f"OPTIMIZE delta.`{path}`").collect()
    warehouse, compacted = _take(spark, f"table:delta.`{path}`", f"{tmp_path}/w")
    assert compacted.counts["events"] == 0
    assert compacted.counts["duplicates"] == len(records) + len(new) + 1
    assert warehouse.read(EVENTS).count() == len(records) + len(new)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["athena", "ocsf"])
def test_columns_in_parquet_become_what_files_become(
    spark: SparkSession, records: list[Json], of_files: Warehouse, tmp_path: Path, form: str
) -> None:
    forms: dict[str, Callable[[Json], Json]] = {"athena": athena_of, "ocsf": ocsf_of}
    convert = forms[form]
    rows: DataFrame = spark.read.json(_written(tmp_path, [convert(one) for one in records]))
    path = f"{tmp_path}/lake"
    if form == "ocsf":  # as Security Lake lays it out, Iceberg's metadata beside it
        day = F.date_format(F.timestamp_millis("time"), "yyyyMMdd")
        laid_out = rows.withColumn("region", F.col("cloud.region")).withColumn("eventDay", day)
        laid_out.write.partitionBy("region", "eventDay").parquet(path)
        metadata = Path(path) / "metadata"
        metadata.mkdir()
        (metadata / "00001-a.metadata.json").write_text("{}")
        with pytest.raises(UsageError, match="other files lie beside the data"):
            list_shares(spark, f"table:parquet.`{path}`", None)
        path += "/region=*"
    else:
        rows.write.parquet(path)
    lost = ("session_context",) if form == "ocsf" else ()
    warehouse, _ = _take(spark, f"table:parquet.`{path}`", f"{tmp_path}/w")
    wanted = [name for name in EVENTS.column_names if name not in (*OF_THE_TEXT, *lost)]
    found = [
        sorted(repr(row) for row in one.read(EVENTS).select(*wanted).collect())
        for one in (warehouse, of_files)
    ]
    assert found[0] == found[1]
    assert _balances(warehouse)
    # A scheduled run asks for recent days only.
    last = FIRST + timedelta(days=2)
    shares = list_shares(spark, f"table:parquet.`{path}`", {last})
    assert sum(share.bytes for share in shares) == 6 * 1024
    assert all(f"/{last:%Y/%m/%d}/" in share.path for share in shares)


def test_columns_under_their_delivered_names_are_a_record_too(
    spark: SparkSession, records: list[Json], tmp_path: Path
) -> None:
    spark.read.json(_written(tmp_path, records)).write.parquet(f"{tmp_path}/lake")
    root = f"table:parquet.`{tmp_path}/lake`"
    after = datetime(2026, 1, 8, tzinfo=UTC)
    assert doctor._remote_trail(spark, root, after).state == "ok"
    assert doctor._remote_trail(spark, root, after + timedelta(days=1)).state == "warn"
    shares = list_shares(spark, root, None)
    assert [share.path.split("/")[-4:-1] for share in shares] == [
        [f"{FIRST + timedelta(days=n):%Y}", "01", f"{(FIRST + timedelta(days=n)).day:02}"] for n in range(3)
    ]
    read = read_shares(spark, [share.path for share in shares]).collect()
    results = [decode_file(row.path, bytes(row.content), rules=RULES) for row in read]
    assert not any(result.quarantined for result in results)
    of_columns = {row for result in results for row in _decoded(result)}
    delivered = decode_file("a", trail_file(records), rules=RULES)
    assert of_columns == set(_decoded(delivered))


def _decoded(result: FileResult) -> list[str]:
    """Its events but for what tells of the text they came in."""
    kept = [at for at, one in enumerate(DECODED_COLUMNS) if one.name not in OF_THE_TEXT]
    return [repr([row[at] for at in kept]) for row in zip(*result.columns, strict=True)]


def _written(folder: Path, rows: list[Json]) -> str:
    path = folder / "rows.json"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def test_what_is_no_trail_is_told(spark: SparkSession, tmp_path: Path) -> None:
    spark.range(3).withColumn("b", F.lit(1)).write.parquet(f"{tmp_path}/p")
    with pytest.raises(UsageError, match=r"no columns of CloudTrail.* It has id, b"):
        _take(spark, f"table:parquet.`{tmp_path}/p`", f"{tmp_path}/w")
    with pytest.raises(UsageError, match=r"--trail table:nowhere\.nothing: cannot be read"):
        _take(spark, "table:nowhere.nothing", f"{tmp_path}/w")
    spark.read.parquet(f"{tmp_path}/p").selectExpr("cast(id AS string) AS value").createOrReplaceTempView(
        "seen"
    )
    with pytest.raises(UsageError, match="cannot be read"):
        _take(spark, "table:seen", f"{tmp_path}/w")


@pytest.mark.slow
def test_a_stream_names_the_files_that_a_listing_finds(
    spark: SparkSession, trail: Path, of_files: Warehouse, tmp_path: Path
) -> None:
    (trail / "README.md").write_text("no record")
    other = trail / "AWSLogs" / "111122223333" / "elasticloadbalancing" / "eu-west-1" / "2026" / "01" / "05"
    other.mkdir(parents=True, exist_ok=True)
    (other / "x.log").write_text("no record")
    warehouse, done = _take(spark, str(trail), f"{tmp_path}/w", listing="stream")
    assert done.counts["files_new"] == 4
    for table in (EVENTS, PRESENCE_DAILY, QUARANTINE, INGEST_FILES):
        assert _rows(warehouse, table) == _rows(of_files, table), table.name
    assert not warehouse.read(STAGED_LISTING).count(), "nothing waits that is taken or no trail's"

    _, again = _take(spark, str(trail), f"{tmp_path}/w", listing="stream")
    assert again.counts["files_new"] == 0
    _deliver(trail, FIRST, "c", _records(FIRST + timedelta(days=4)))
    warehouse, later = _take(spark, str(trail), f"{tmp_path}/w", listing="stream")
    assert (later.counts["files_new"], later.counts["events"]) == (1, 6)


def test_a_source_that_is_not_there_is_told(spark: SparkSession, trail: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="autoloader is Databricks' own"):
        _take(spark, str(trail), f"{tmp_path}/w", listing="autoloader")
    with pytest.raises(UsageError, match="No such file"):
        _take(spark, f"{tmp_path}/nothing", f"{tmp_path}/w", listing="stream")
    spark.sql("CREATE SCHEMA IF NOT EXISTS listing_test")
    try:
        with pytest.raises(UsageError, match=r"ingest\.listing_state"):
            _take(spark, str(trail), "spark_catalog.listing_test", listing="stream")
    finally:
        spark.sql("DROP SCHEMA listing_test CASCADE")
