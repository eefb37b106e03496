"""The work by DuckDB with delta-rs.

    python -m ingest.with_duckdb TRAIL OUT

The files are read by a schema in which nested JSON stays text, so that each byte is parsed once. Ten delivery
days at a time.
"""

from __future__ import annotations

import time

import duckdb
from deltalake import WriterProperties, write_deltalake

from ingest.rows import COLUMNS, Places, done, files_by_day, paths, since

_RECORDS = """STRUCT(
    eventVersion VARCHAR,
    userIdentity STRUCT(type VARCHAR, arn VARCHAR, principalId VARCHAR, accountId VARCHAR, accessKeyId VARCHAR,
        invokedBy VARCHAR, sessionContext STRUCT(sessionIssuer STRUCT(arn VARCHAR))),
    eventTime VARCHAR, eventSource VARCHAR, eventName VARCHAR, awsRegion VARCHAR, sourceIPAddress VARCHAR,
    userAgent VARCHAR, errorCode VARCHAR, errorMessage VARCHAR, requestParameters JSON, responseElements JSON,
    additionalEventData JSON, requestID VARCHAR, eventID VARCHAR, readOnly BOOLEAN, resources JSON,
    eventType VARCHAR, managementEvent BOOLEAN, recipientAccountId VARCHAR, eventCategory VARCHAR,
    tlsDetails JSON)[]"""
_EVENTS = f"""
CREATE OR REPLACE TEMP TABLE events AS
WITH records AS (
    SELECT unnest(Records) AS r, filename
    FROM read_json($files, format = 'newline_delimited', compression = 'gzip', filename = true,
        maximum_object_size = 16777216, columns = {{Records: '{_RECORDS}'}})
)
SELECT strptime(r.eventTime, '%Y-%m-%dT%H:%M:%SZ') AT TIME ZONE 'UTC' AS event_time,
    CAST(strptime(r.eventTime, '%Y-%m-%dT%H:%M:%SZ') AS DATE) AS event_date,
    r.eventID AS event_id, r.recipientAccountId AS recipient_account_id, r.eventVersion AS event_version,
    r.eventType AS event_type, r.eventCategory AS event_category, r.managementEvent AS management_event,
    r.readOnly AS read_only, r.eventSource AS event_source, r.eventName AS event_name,
    replace(r.eventSource, '.amazonaws.com', '') || ':' || r.eventName AS command, r.awsRegion AS aws_region,
    r.sourceIPAddress AS source_ip_address, r.userAgent AS user_agent, r.userIdentity.type AS identity_type,
    r.userIdentity.arn AS identity_arn, r.userIdentity.principalId AS identity_principal_id,
    r.userIdentity.accountId AS identity_account_id, r.userIdentity.accessKeyId AS access_key_id,
    r.userIdentity.invokedBy AS invoked_by,
    r.userIdentity.sessionContext.sessionIssuer.arn AS session_issuer_arn, r.errorCode AS error_code,
    r.errorMessage AS error_message, CAST(r.requestParameters AS VARCHAR) AS request_parameters,
    CAST(r.responseElements AS VARCHAR) AS response_elements,
    CAST(r.additionalEventData AS VARCHAR) AS additional_event_data, CAST(r.resources AS VARCHAR) AS resources,
    CAST(r.tlsDetails AS VARCHAR) AS tls_details, r.requestID AS request_id, filename AS source_file
FROM records
QUALIFY row_number() OVER (PARTITION BY r.recipientAccountId, r.eventID ORDER BY filename) = 1
"""


def main() -> None:
    """Do the work."""
    start = time.perf_counter()
    trail, out = paths()
    days = files_by_day(trail)
    places = Places()
    con = duckdb.connect()
    con.execute("SET threads = 2; SET memory_limit = '4GB'; SET preserve_insertion_order = false")
    con.execute("SET TimeZone = 'UTC'")
    con.execute(f"SET temp_directory = '{out}/spill'")
    properties = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=100_000)
    ordered = sorted(days)
    for at in range(0, len(ordered), 10):
        files = [str(path) for day in ordered[at : at + 10] for path in days[day]]
        con.execute(_EVENTS, {"files": files})
        addresses = con.sql("SELECT DISTINCT source_ip_address FROM events").to_arrow_table()
        located = places.of(addresses.column(0))  # read by name below
        assert located.num_rows
        rows = con.sql(
            f"SELECT {', '.join(COLUMNS.names)} FROM events LEFT JOIN located USING (source_ip_address)"
        )
        counted = con.sql(
            """SELECT event_date, recipient_account_id, coalesce(identity_arn, invoked_by) AS identity, command,
            source_ip_address, coalesce(error_code, '') AS outcome, any_value(located.place) AS place,
            count(*) AS event_count FROM events LEFT JOIN located USING (source_ip_address) GROUP BY ALL"""
        )
        if at:
            counted.insert_into("presence")
        else:
            counted.create("presence")
        write_deltalake(
            str(out / "events"), rows.to_arrow_reader(50_000), mode="append", partition_by=["event_date"],
            writer_properties=properties,
        )  # fmt: skip
    # A day may be counted in two chunks.
    con.execute(
        f"""COPY (SELECT * REPLACE (sum(event_count)::BIGINT AS event_count, any_value(place) AS place)
        FROM presence GROUP BY ALL) TO '{out}/presence.parquet' (COMPRESSION zstd)"""
    )
    con.execute(
        f"""COPY (SELECT command, place, count(DISTINCT event_date) AS days FROM presence
        WHERE event_date >= DATE '{since(max(days))}' GROUP BY ALL)
        TO '{out}/baseline.parquet' (COMPRESSION zstd)"""
    )
    done(start)


if __name__ == "__main__":
    main()
