"""The work by polars with delta-rs.

    python -m ingest.with_polars TRAIL OUT

Records are split off by msgspec, since polars wants a row each; it decodes them by a schema, which is its
fastest way, and takes nested JSON, which that cannot keep as text, by path. Three delivery days at a time.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import polars as pl
from deltalake import WriterProperties, write_deltalake
from isal import igzip

from ingest.rows import COLUMNS, Places, done, files_by_day, paths, since

_T = pl.String
_ISSUER = pl.Struct({"arn": _T})
_RECORD = pl.Struct(
    {
        "eventVersion": _T,
        "userIdentity": pl.Struct(
            {
                "type": _T, "arn": _T, "principalId": _T, "accountId": _T, "accessKeyId": _T, "invokedBy": _T,
                "sessionContext": pl.Struct({"sessionIssuer": _ISSUER}),
            }
        ),
        "eventTime": _T, "eventSource": _T, "eventName": _T, "awsRegion": _T, "sourceIPAddress": _T,
        "userAgent": _T, "errorCode": _T, "errorMessage": _T, "requestID": _T, "eventID": _T,
        "readOnly": pl.Boolean, "eventType": _T, "managementEvent": pl.Boolean, "recipientAccountId": _T,
        "eventCategory": _T,
    }
)  # fmt: skip
_NESTED = {
    "request_parameters": "requestParameters",
    "response_elements": "responseElements",
    "additional_event_data": "additionalEventData",
    "resources": "resources",
    "tls_details": "tlsDetails",
}


class _File(msgspec.Struct):
    Records: list[msgspec.Raw]


_file = msgspec.json.Decoder(_File).decode


def main() -> None:
    """Do the work."""
    start = time.perf_counter()
    trail, out = paths()
    days = files_by_day(trail)
    places = Places()
    counted: list[pl.DataFrame] = []
    properties = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=100_000)
    ordered = sorted(days)
    for at in range(0, len(ordered), 3):
        events = _events([path for day in ordered[at : at + 3] for path in days[day]], places)
        counted.append(_presence(events))
        table = events.select(COLUMNS.names).to_arrow()
        write_deltalake(
            str(out / "events"),
            table,
            mode="append",
            partition_by=["event_date"],
            writer_properties=properties,
        )
    # A day may be counted in two chunks.
    keys = [name for name in counted[0].columns if name not in ("event_count", "place")]
    presence = pl.concat(counted).group_by(keys).agg(pl.col("place").first(), pl.col("event_count").sum())
    presence.write_parquet(out / "presence.parquet", compression_level=1)
    (
        presence.filter(pl.col("event_date") >= since(max(days)))
        .group_by("command", "place")
        .agg(pl.col("event_date").n_unique().alias("days"))
        .write_parquet(out / "baseline.parquet", compression_level=1)
    )
    done(start)


def _events(files: list[Path], places: Places) -> pl.DataFrame:
    texts: list[str] = []
    sources: list[str] = []
    for path in files:
        records = _file(igzip.decompress(path.read_bytes())).Records
        texts += [bytes(record).decode() for record in records]
        sources += [str(path)] * len(records)
    raw = pl.col("record")
    record = pl.col("r").struct.field
    who = record("userIdentity").struct.field
    rows = (
        pl.DataFrame({"record": texts, "source_file": sources})
        .lazy()
        .with_columns(
            raw.str.json_decode(_RECORD).alias("r"),
            *[raw.str.json_path_match(f"$.{key}").alias(name) for name, key in _NESTED.items()],
        )
        .select(
            record("eventTime").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us").alias("event_time"),
            record("eventID").alias("event_id"),
            record("recipientAccountId").alias("recipient_account_id"),
            record("eventVersion").alias("event_version"),
            record("eventType").alias("event_type"),
            record("eventCategory").alias("event_category"),
            record("managementEvent").alias("management_event"),
            record("readOnly").alias("read_only"),
            record("eventSource").alias("event_source"),
            record("eventName").alias("event_name"),
            record("awsRegion").alias("aws_region"),
            record("sourceIPAddress").alias("source_ip_address"),
            record("userAgent").alias("user_agent"),
            who("type").alias("identity_type"),
            who("arn").alias("identity_arn"),
            who("principalId").alias("identity_principal_id"),
            who("accountId").alias("identity_account_id"),
            who("accessKeyId").alias("access_key_id"),
            who("invokedBy").alias("invoked_by"),
            who("sessionContext")
            .struct.field("sessionIssuer")
            .struct.field("arn")
            .alias("session_issuer_arn"),
            record("errorCode").alias("error_code"),
            record("errorMessage").alias("error_message"),
            *_NESTED,
            record("requestID").alias("request_id"),
            "source_file",
        )
        .with_columns(
            pl.col("event_time").dt.replace_time_zone("UTC"),
            pl.col("event_time").dt.date().alias("event_date"),
            (pl.col("event_source").str.strip_suffix(".amazonaws.com") + ":" + pl.col("event_name")).alias(
                "command"
            ),
        )
        .unique(["recipient_account_id", "event_id"], keep="first", maintain_order=True)
        .collect()
    )
    at = pl.from_arrow(places.of(rows["source_ip_address"].to_arrow().cast(COLUMNS.field("place").type)))
    return rows.join(at, on="source_ip_address", how="left")


def _presence(events: pl.DataFrame) -> pl.DataFrame:
    return (
        events.with_columns(
            pl.coalesce("identity_arn", "invoked_by").alias("identity"),
            pl.col("error_code").fill_null("").alias("outcome"),
        )
        .group_by("event_date", "recipient_account_id", "identity", "command", "source_ip_address", "outcome")
        .agg(pl.col("place").first(), pl.len().cast(pl.Int64).alias("event_count"))
    )


if __name__ == "__main__":
    main()
