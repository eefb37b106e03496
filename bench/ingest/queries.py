"""Ten questions analysts ask, answered from the warehouse and from the raw trail by Spark's JSON reader.

    python -m ingest.queries TRAIL OUT AS_OF

Takes the trail in, then asks each question of the tables, by DuckDB as `raretrail sql` does, and of the trail, by
Spark with a schema given. Answers must be equal. Prints a table: seconds, how many times faster, and of how many
files of the table each read how many.
"""

from __future__ import annotations

import re
import sys
import time
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from deltalake import DeltaTable

from raretrail.look import DuckLook, open_duckdb
from raretrail.session import close_session, open_session
from raretrail.settings import load_settings
from raretrail.stages.run import run


class Question(NamedTuple):
    """What is asked, of the tables and of the trail's records `r`; both give the same rows."""

    words: str
    tables: str
    trail: str


_SCHEMA = """Records array<struct<eventTime: string, eventID: string, eventSource: string, eventName: string,
    awsRegion: string, sourceIPAddress: string, errorCode: string, recipientAccountId: string,
    userIdentity: struct<arn: string, accessKeyId: string>>>"""


def questions(day: date, names: dict[str, Any]) -> list[Question]:
    """The questions, asked of the trail's last day and of what `names` was picked."""
    week, month = day - timedelta(days=6), day - timedelta(days=29)
    arn, key, address, event_id, account, command = (
        names[n] for n in ("arn", "key", "address", "event_id", "account", "command")
    )
    source, name = command.split(":")
    on = "date(to_timestamp(eventTime))"
    called = "replace(eventSource, '.amazonaws.com', '') || ':' || eventName"
    return [
        Question(
            "What did this identity do on that day?",
            f"SELECT command, count(*) n FROM events WHERE event_date = DATE '{day}' AND user_identity_arn = '{arn}' GROUP BY 1",
            f"SELECT {called} c, count(DISTINCT eventID) n FROM r WHERE {on} = DATE '{day}' AND userIdentity.arn = '{arn}' GROUP BY 1",
        ),
        Question(
            "What is this event?",
            f"SELECT event_id, source_ip_address FROM events WHERE event_date = DATE '{day}' AND event_id = '{event_id}'",
            f"SELECT DISTINCT eventID, sourceIPAddress FROM r WHERE eventID = '{event_id}'",
        ),
        Question(
            "On which days was this key used?",
            f"SELECT event_date, count(*) n FROM events WHERE access_key_id = '{key}' GROUP BY 1",
            f"SELECT {on} d, count(DISTINCT eventID) n FROM r WHERE userIdentity.accessKeyId = '{key}' GROUP BY 1",
        ),
        Question(
            "What was called from this address, and on how many days?",
            f"SELECT command, count(DISTINCT event_date) n FROM presence_daily WHERE source_ip_address = '{address}' GROUP BY 1",
            f"SELECT {called} c, count(DISTINCT {on}) n FROM r WHERE sourceIPAddress = '{address}' GROUP BY 1",
        ),
        Question(
            "From which addresses was this command called last month?",
            f"SELECT source_ip_address, sum(event_count) n FROM presence_daily WHERE event_date >= DATE '{month}' AND command = '{command}' GROUP BY 1",
            f"SELECT sourceIPAddress, count(DISTINCT eventID) n FROM r WHERE {on} >= DATE '{month}' AND eventSource = '{source}.amazonaws.com' AND eventName = '{name}' GROUP BY 1",
        ),
        Question(
            "What failed last week, by code?",
            f"SELECT outcome, sum(event_count) n FROM presence_daily WHERE event_date >= DATE '{week}' AND outcome <> '' GROUP BY 1",
            f"SELECT errorCode, count(DISTINCT eventID) n FROM r WHERE {on} >= DATE '{week}' AND errorCode IS NOT NULL GROUP BY 1",
        ),
        Question(
            "How many events came on each day?",
            "SELECT event_date, sum(event_count) n FROM region_hour GROUP BY 1",
            f"SELECT {on} d, count(DISTINCT eventID) n FROM r GROUP BY 1",
        ),
        Question(
            "Which regions does this account use?",
            f"SELECT aws_region, sum(event_count) n FROM region_hour WHERE recipient_account_id = '{account}' GROUP BY 1",
            f"SELECT awsRegion, count(DISTINCT eventID) n FROM r WHERE recipientAccountId = '{account}' GROUP BY 1",
        ),
        Question(
            "At which hours is this account busy?",
            f"SELECT hour, sum(event_count) n FROM hour_daily WHERE recipient_account_id = '{account}' GROUP BY 1",
            f"SELECT hour(to_timestamp(eventTime)) h, count(DISTINCT eventID) n FROM r WHERE recipientAccountId = '{account}' GROUP BY 1",
        ),
        Question(
            "Which commands are new since yesterday?",
            f"SELECT command, min(event_date) d FROM presence_daily GROUP BY 1 HAVING d >= DATE '{day}'",
            f"SELECT {called} c, min({on}) d FROM r GROUP BY 1 HAVING d >= DATE '{day}'",
        ),
    ]


_PICKED = """SELECT user_identity_arn arn, access_key_id AS key, source_ip_address address, event_id,
    recipient_account_id account, command FROM events
    WHERE event_date = DATE '{day}' AND access_key_id LIKE 'AKIA%' ORDER BY event_id LIMIT 1"""


def main() -> None:
    """Take in, ask, print."""
    trail, out, as_of = sys.argv[1:4]
    day = datetime.fromisoformat(as_of).date() - timedelta(days=1)
    settings, _ = load_settings(options={"trail": [trail], "warehouse": f"{out}/warehouse"})
    spark = open_session(driver_memory=settings.spark.driver_memory, size="large")
    run(spark, settings, as_of=datetime.fromisoformat(as_of), steps=("ingest",))
    spark.read.schema(_SCHEMA).option("recursiveFileLookup", "true").json(trail).createOrReplaceTempView(
        "files"
    )
    spark.sql("CREATE OR REPLACE TEMP VIEW r AS SELECT inline(Records) FROM files")
    spark.sql("SELECT count(*) FROM r WHERE eventID IS NOT NULL").collect()  # what is compiled once, is
    lines = ["| question | tables, seconds | files read | trail, seconds | times |", "|---|---|---|---|---|"]
    with open_duckdb(f"{out}/warehouse") as look:
        names = next(look.query(_PICKED.format(day=day)).rows())
    for question in questions(day, names):
        start = time.perf_counter()
        with open_duckdb(f"{out}/warehouse") as look:
            found = [list(row.values()) for row in look.query(question.tables).rows()]
            here = time.perf_counter() - start
            files = files_read(look, f"{out}/warehouse", question.tables)
        start = time.perf_counter()
        wanted = [list(row) for row in spark.sql(question.trail).collect()]
        there = time.perf_counter() - start
        if _told(found) != _told(wanted):
            raise SystemExit(f"{question.words}: {_told(found)[:3]} is not {_told(wanted)[:3]}")
        lines.append(f"| {question.words} | {here:.2f} | {files} | {there:.1f} | {there / here:,.0f} |")
    print("\n".join(lines))
    close_session(spark)


def files_read(look: DuckLook, warehouse: str, sql: str) -> str:
    """Of how many files of the table how many are opened, by DuckDB's plan."""
    plan = "\n".join(map(str, look.query(f"EXPLAIN {sql}").rows()))
    found = re.search(r"Scanning Files:\W*(\d+)/(\d+)", plan)
    if found:
        return f"{found[1]} of {found[2]}"
    table = re.findall(r"FROM (\w+)", sql)[0]
    count = len(DeltaTable(f"{warehouse}/{table}").file_uris())
    return f"{count} of {count}"


def _told(rows: list[list[Any]]) -> list[str]:
    return sorted(str([str(value) for value in row]) for row in rows)


if __name__ == "__main__":
    main()
