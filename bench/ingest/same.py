"""Whether the job and the other engines wrote the same rows, compared by value."""

from __future__ import annotations

from pathlib import Path

import duckdb
from deltalake import DeltaTable

from ingest.rows import BASELINE_DAYS

# What both have, under the names of either.
_EVENTS = (
    "event_time, event_id, recipient_account_id, command, aws_region, source_ip_address, user_agent, "
    "coalesce(error_code, ''), coalesce(error_message, ''), coalesce({arn}, ''), coalesce(access_key_id, ''), "
    "read_only, request_id, source_file, place, coalesce(country_iso_code, '')"
)


def digests(out: Path, engine: str) -> dict[str, tuple[int, int]]:
    """Rows and the sum of their hashes: of events, of presence by day, account, command, address and
    outcome, and of the last 30 days' commands by place."""
    con = duckdb.connect()
    con.execute("SET threads = 2; SET TimeZone = 'UTC'")
    job = engine == "job"
    folder = out / "warehouse-0" if job else out
    _read(con, folder / "events", "events")
    if job:
        for name in ("presence_daily", "baseline_command_place"):
            _read(con, folder / name, name)
        presence = "SELECT *, outcome AS o FROM presence_daily"
        days = f"days_{BASELINE_DAYS}"
        baseline = f"SELECT command, place, {days} AS days FROM baseline_command_place WHERE {days} > 0"
    else:
        presence = f"SELECT *, outcome AS o FROM '{out}/presence.parquet'"
        baseline = f"SELECT command, place, days FROM '{out}/baseline.parquet'"
    columns = _EVENTS.format(arn="user_identity_arn" if job else "identity_arn")
    counted = (
        "SELECT event_date, recipient_account_id, command, source_ip_address, o, sum(event_count)::BIGINT AS n "
        f"FROM ({presence}) GROUP BY ALL"
    )
    return {
        "events": _digest(con, f"SELECT {columns} FROM events"),
        "presence": _digest(con, counted),
        "baseline": _digest(con, f"SELECT command, place, days::BIGINT FROM ({baseline})"),
    }


def _read(con: duckdb.DuckDBPyConnection, folder: Path, name: str) -> None:
    files = [uri.removeprefix("file://") for uri in DeltaTable(str(folder)).file_uris()]
    con.read_parquet(files, hive_partitioning=True).create_view(name)


def _digest(con: duckdb.DuckDBPyConnection, rows: str) -> tuple[int, int]:
    found = con.execute(f"SELECT count(*), sum(hash(t)::HUGEINT) FROM ({rows}) t").fetchone()
    assert found
    return int(found[0]), int(found[1] or 0)
