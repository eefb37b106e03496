"""The floor: two processes of msgspec write Parquet by delivery day, one commit takes it up, DuckDB counts.

    python -m ingest.floor TRAIL OUT

No rules for principals, no redaction, no ledger, no quarantine, copies found within a delivery day only: what
the machine needs for the bytes alone.
"""

from __future__ import annotations

import gc
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction
from isal import igzip

from ingest.rows import COLUMNS, DICTIONARY, STATISTICS, Places, done, files_by_day, paths, since

_NULL = msgspec.Raw(b"null")


class _Record(msgspec.Struct, gc=False):
    eventVersion: str | None = None
    userIdentity: msgspec.Raw = _NULL
    eventTime: str | None = None
    eventSource: str | None = None
    eventName: str | None = None
    awsRegion: str | None = None
    sourceIPAddress: str | None = None
    userAgent: str | None = None
    errorCode: str | None = None
    errorMessage: str | None = None
    requestParameters: msgspec.Raw = _NULL
    responseElements: msgspec.Raw = _NULL
    additionalEventData: msgspec.Raw = _NULL
    requestID: str | None = None
    eventID: str | None = None
    readOnly: bool | None = None
    resources: msgspec.Raw = _NULL
    eventType: str | None = None
    managementEvent: bool | None = None
    recipientAccountId: str | None = None
    eventCategory: str | None = None
    tlsDetails: msgspec.Raw = _NULL


class _File(msgspec.Struct):
    Records: list[_Record]


class _Issuer(msgspec.Struct, gc=False):
    arn: str | None = None


class _Context(msgspec.Struct, gc=False):
    sessionIssuer: _Issuer | None = None


class _Who(msgspec.Struct, gc=False):
    type: str | None = None
    arn: str | None = None
    principalId: str | None = None
    accountId: str | None = None
    accessKeyId: str | None = None
    invokedBy: str | None = None
    sessionContext: _Context | None = None


_file = msgspec.json.Decoder(_File).decode
_decode_who = msgspec.json.Decoder(_Who).decode


@lru_cache(maxsize=8192)
def _who(identity: bytes) -> tuple[str | None, ...]:
    w = _decode_who(identity)
    issuer = (
        w.sessionContext.sessionIssuer.arn if w.sessionContext and w.sessionContext.sessionIssuer else None
    )
    return (w.type, w.arn, w.principalId, w.accountId, w.accessKeyId, w.invokedBy, issuer)


def _text(value: msgspec.Raw) -> bytes | None:
    text = bytes(value)
    return None if text == b"null" else text


def _write_day(work: tuple[date, list[Path], Path]) -> list[tuple[str, int, str, int]]:
    _, files, out = work
    gc.disable()
    places = Places()
    seen: set[tuple[str | None, str | None]] = set()
    tables: list[pa.Table] = []
    for path in files:
        kept: list[_Record] = []
        for record in _file(igzip.decompress(path.read_bytes())).Records:
            key = (record.recipientAccountId, record.eventID)
            if key not in seen:
                seen.add(key)
                kept.append(record)
        tables.append(_table(kept, str(path)))
    whole = pa.concat_tables(tables)
    at = places.of(whole.column("source_ip_address"))
    index = pc.index_in(whole.column("source_ip_address"), at.column("source_ip_address"))
    for name in ("place", "country_iso_code"):
        whole = whole.append_column(name, at.column(name).take(index))
    written = []
    for day in pc.unique(whole.column("event_date")).to_pylist():
        rows = whole.filter(pc.equal(whole.column("event_date"), day)).drop_columns(["event_date"])
        path = f"event_date={day}/{files[0].name}.parquet"
        (out / "events" / path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            rows, out / "events" / path, compression="zstd", compression_level=1, store_schema=False,
            use_dictionary=[n for n in DICTIONARY if n != "event_date"], write_statistics=STATISTICS,
        )  # fmt: skip
        written.append((path, (out / "events" / path).stat().st_size, str(day), rows.num_rows))
    return written


def _table(records: list[_Record], source: str) -> pa.Table:
    who = [_who(bytes(r.userIdentity)) for r in records]
    time_ = pc.assume_timezone(
        pc.strptime(pa.array([r.eventTime for r in records]), format="%Y-%m-%dT%H:%M:%SZ", unit="us"), "UTC"
    )
    columns: dict[str, Any] = {
        "event_time": time_,
        "event_date": time_.cast(pa.timestamp("us")).cast(pa.date32()),
        "event_id": [r.eventID for r in records],
        "recipient_account_id": [r.recipientAccountId for r in records],
        "event_version": [r.eventVersion for r in records],
        "event_type": [r.eventType for r in records],
        "event_category": [r.eventCategory for r in records],
        "management_event": [r.managementEvent for r in records],
        "read_only": [r.readOnly for r in records],
        "event_source": [r.eventSource for r in records],
        "event_name": [r.eventName for r in records],
        "command": [f"{(r.eventSource or '').removesuffix('.amazonaws.com')}:{r.eventName}" for r in records],
        "aws_region": [r.awsRegion for r in records],
        "source_ip_address": [r.sourceIPAddress for r in records],
        "user_agent": [r.userAgent for r in records],
        "identity_type": [w[0] for w in who],
        "identity_arn": [w[1] for w in who],
        "identity_principal_id": [w[2] for w in who],
        "identity_account_id": [w[3] for w in who],
        "access_key_id": [w[4] for w in who],
        "invoked_by": [w[5] for w in who],
        "session_issuer_arn": [w[6] for w in who],
        "error_code": [r.errorCode for r in records],
        "error_message": [r.errorMessage for r in records],
        "request_parameters": [_text(r.requestParameters) for r in records],
        "response_elements": [_text(r.responseElements) for r in records],
        "additional_event_data": [_text(r.additionalEventData) for r in records],
        "resources": [_text(r.resources) for r in records],
        "tls_details": [_text(r.tlsDetails) for r in records],
        "request_id": [r.requestID for r in records],
        "source_file": [source] * len(records),
    }
    schema = pa.schema([field for field in COLUMNS if field.name in columns])
    return pa.table([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def main() -> None:
    """Do the work."""
    start = time.perf_counter()
    trail, out = paths()
    days = files_by_day(trail)
    with ProcessPoolExecutor(2) as pool:
        parts = [
            p for day in pool.map(_write_day, [(d, files, out) for d, files in days.items()]) for p in day
        ]
    table = DeltaTable.create(str(out / "events"), COLUMNS, partition_by=["event_date"])
    now = int(time.time() * 1000)
    added = [
        AddAction(path, size, {"event_date": day}, now, True, f'{{"numRecords":{rows}}}')
        for path, size, day, rows in parts
    ]
    table.create_write_transaction(added, "append", table.schema(), ["event_date"])
    count(out, [str(out / "events" / path) for path, *_ in parts], max(days))
    done(start)


def count(out: Path, files: list[str], last: date) -> None:
    """Presence and baseline, counted by DuckDB from the files of events."""
    con = duckdb.connect()
    con.execute("SET threads = 2")
    con.read_parquet(files, hive_partitioning=True).create_view("events")
    con.execute(
        f"""COPY (SELECT event_date, recipient_account_id, coalesce(identity_arn, invoked_by) AS identity, command,
        source_ip_address, coalesce(error_code, '') AS outcome, any_value(place) AS place, count(*) AS event_count
        FROM events GROUP BY ALL) TO '{out}/presence.parquet' (COMPRESSION zstd)"""
    )
    con.execute(
        f"""COPY (SELECT command, place, count(DISTINCT event_date) AS days FROM '{out}/presence.parquet'
        WHERE event_date >= DATE '{since(last)}' GROUP BY ALL) TO '{out}/baseline.parquet' (COMPRESSION zstd)"""
    )


if __name__ == "__main__":
    main()
