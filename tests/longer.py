"""A long history made cheaply: the days a warehouse has, repeated before its first, straight into its tables.

What names one row of one day (events, findings, incidents, files, runs) is named anew; what is usual
(principals, commands, addresses) stays. A day is one file, and so is a table without days, as maintenance
leaves them.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
from deltalake import DeltaTable, write_deltalake

from raretrail.tables import ALL, CALIBRATIONS, DATA_QUALITY, RUNS, Table

# Of these every day has its own.
_NAMES = ("event_id", "anomaly_id", "incident_id", "source_file", "content_hash", "record_hash", "run_id")
# Not partitioned, but with rows of every day.
_BY_TIME = {RUNS.name: "started_at", DATA_QUALITY.name: "checked_at", CALIBRATIONS.name: "as_of"}


def lengthen(warehouse: Path, days: int) -> dict[str, int]:
    """Let every partitioned table reach back `days` days from its last; the files of each that grew."""
    grown = {}
    for table in ALL:
        if (warehouse / table.name / "_delta_log").is_dir() and not table.name.startswith("staged_"):
            day = table.partition_by[0] if table.partition_by else _BY_TIME.get(table.name)
            if day and _lengthen(warehouse / table.name, table, day, days):
                grown[table.name] = len(DeltaTable(str(warehouse / table.name)).file_uris())
    return grown


def _lengthen(path: Path, table: Table, day: str, days: int) -> bool:
    held = DeltaTable(str(path)).to_pyarrow_table()
    if not held.num_rows:
        return False
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.register("held", held)
        ((first, last),) = db.sql(f"SELECT min({day}::date), max({day}::date) FROM held").fetchall()
        oldest = last - timedelta(days=days - 1)
        period = (last - first).days + 1
        if day != "as_of":
            period += -period % 7  # whole weeks, so that a Monday stays one
        parts = [
            f"SELECT {_moved(held.schema, back)} FROM held "
            f"WHERE {day}::date - {back} BETWEEN DATE '{oldest}' AND DATE '{_before(first)}'"
            for back in range(period, days + period, period)
        ]
        more = db.sql(" UNION ALL ".join(parts)).to_arrow_table().cast(held.schema)
    if more.num_rows:
        write_deltalake(str(path), more, mode="append", partition_by=list(table.partition_by) or None)
    if not table.partition_by:
        DeltaTable(str(path)).optimize.compact()
    return bool(more.num_rows)


def _before(day: date) -> date:
    return day - timedelta(days=1)


def _moved(schema: Any, back: int) -> str:
    columns = []
    for field in schema:
        name, kind = f'"{field.name}"', str(field.type)
        if kind.startswith("date"):
            columns.append(f"({name} - {back})::date AS {name}")
        elif kind.startswith("timestamp"):
            columns.append(f"{name} - INTERVAL {back} DAY AS {name}")
        elif field.name in _NAMES:
            columns.append(f"{name} || '-{back}' AS {name}")
        else:
            columns.append(name)
    return ", ".join(columns)
