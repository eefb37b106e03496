"""What the page tells, read from a warehouse: a few queries, whatever the number of incidents.

The SQL is in the dialect that Spark and DuckDB share. It holds no value of the trail: what goes in
are days and numbers of our own, and names of columns out of `tables`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from raretrail.backtest import judged_days
from raretrail.errors import RaretrailError
from raretrail.look import Look
from raretrail.tables import ANOMALIES, DATA_QUALITY, INCIDENTS, RUNS, Table

Row = dict[str, Any]

MOST_INCIDENTS = 500
PERIOD_DAYS = 30
NEWEST = 8
# Findings and events of one incident that reach the page: beyond these it says how many there are.
FINDINGS_EACH, EVENTS_EACH, TOLD_EVENTS_EACH = 10, 400, 20
TEXT_LENGTH = 300
HEAT_COMMANDS, HEAT_PLACES, NEW_EACH = 18, 12, 12
ACCOUNTS = 24
RUNS_SHOWN = 8


@dataclass(frozen=True)
class Material:
    """Rows for every part of the page. `lacking` says of a part why it could not be read."""

    warehouse: str
    made_at: datetime
    days: int
    last_day: date | None = None
    incidents: list[Row] = field(default_factory=list)
    every_incident: list[Row] = field(default_factory=list)
    findings: dict[str, list[Row]] = field(default_factory=dict)
    events: dict[str, list[Row]] = field(default_factory=dict)
    known_places: dict[str, list[Row]] = field(default_factory=dict)
    usual_places: list[Row] = field(default_factory=list)
    habit: list[Row] = field(default_factory=list)
    habit_cells: list[Row] = field(default_factory=list)
    news: dict[str, list[Row]] = field(default_factory=dict)
    coverage: list[Row] = field(default_factory=list)
    statuses: list[Row] = field(default_factory=list)
    silent: list[Row] = field(default_factory=list)
    checks: list[Row] = field(default_factory=list)
    runs: list[Row] = field(default_factory=list)
    quarantined: list[Row] = field(default_factory=list)
    judged: frozenset[date] = frozenset()
    lacking: dict[str, str] = field(default_factory=dict)

    @property
    def first_day(self) -> date | None:
        """First day of the period the page tells of."""
        return self.last_day - timedelta(days=self.days - 1) if self.last_day else None


def gather(
    look: Look, warehouse: str, made_at: datetime, *, days: int = PERIOD_DAYS, most: int = MOST_INCIDENTS
) -> Material:
    """Read the last `days` days with events and at most `most` of their incidents, highest first.

    A part whose tables cannot be read is left empty and named in `lacking`; the rest of the page
    stands without it.
    """
    lacking: dict[str, str] = {}

    def read(part: str, sql: str) -> list[Row]:
        try:
            return list(look.query(sql).rows())
        except RaretrailError as error:
            lacking[part] = str(error).splitlines()[0][:TEXT_LENGTH]
            return []

    last = _one(read("coverage", "SELECT max(event_date) AS day FROM presence_daily"), "day")
    newest = _one(read("incidents", "SELECT max(first_date) AS day FROM incidents"), "day")
    last_day = max(filter(None, (last, newest)), default=None)
    if last_day is None:
        return Material(warehouse, made_at, days, runs=_whole(read("quality", _RUNS), RUNS), lacking=lacking)
    since = _day(last_day - timedelta(days=days - 1))
    chosen = _CHOSEN.format(since=since, most=int(most), newest=NEWEST)

    incidents = read("incidents", f"{chosen} SELECT * FROM chosen ORDER BY by_score")
    findings = read("findings", chosen + _findings(look))
    events = _grouped(read("events", chosen + _EVENTS.format(since=since)), "incident_id")
    return Material(
        warehouse=warehouse,
        made_at=made_at,
        days=days,
        last_day=last_day,
        incidents=_whole(incidents, INCIDENTS),
        every_incident=read("incidents", _EVERY_INCIDENT.format(since=since)),
        findings=_grouped(_whole(findings, ANOMALIES), "incident_id"),
        events=events,
        known_places=_grouped(read("places", chosen + _KNOWN_PLACES), "principal"),
        usual_places=read("places", _USUAL_PLACES),
        habit=read("habit", _HABIT),
        habit_cells=read("habit", _HABIT_CELLS),
        news={name: read("habit", sql) for name, sql in _NEWS.items()},
        coverage=read("coverage", _COVERAGE.format(since=since)),
        statuses=read("coverage", _STATUSES.format(since=since)),
        silent=read("coverage", _SILENT.format(since=since)),
        checks=_whole(read("quality", _CHECKS), DATA_QUALITY),
        runs=_whole(read("quality", _RUNS), RUNS),
        quarantined=read("quality", _QUARANTINED),
        judged=frozenset(judged_days(read("threshold", _WINDOWS))),
        lacking=lacking,
    )


def _one(rows: Sequence[Row], column: str) -> Any:
    return rows[0][column] if rows else None


def _whole(rows: Sequence[Row], table: Table) -> list[Row]:
    """The rows with every column of the table: one that an older warehouse lacks is empty."""
    empty = dict.fromkeys(table.column_names)
    return [{**empty, **row} for row in rows]


def _grouped(rows: Sequence[Row], column: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[column]].append(row)
    return dict(groups)


def _day(day: date) -> str:
    return f"DATE '{day:%Y-%m-%d}'"


def term_columns(columns: Sequence[str]) -> list[str]:
    """Of a table's columns those that hold a term of the score, in bits."""
    return [name for name in columns if name.endswith("_bits")]


def _findings(look: Look) -> str:
    """The most surprising findings of each incident, and the most surprising in each term."""
    try:
        terms = term_columns(look.query("SELECT * FROM anomalies LIMIT 0").columns)
    except RaretrailError:
        terms = []  # the query itself will say what is wrong
    ranks = "".join(
        f", row_number() OVER (PARTITION BY a.incident_id ORDER BY a.{term} DESC NULLS LAST, a.anomaly_id)"
        f" AS rank_{number}"
        for number, term in enumerate(terms)
    )
    first = "".join(f" OR rank_{number} = 1" for number in range(len(terms)))
    return f"""
        SELECT * FROM (
            SELECT a.*, row_number() OVER (
                PARTITION BY a.incident_id ORDER BY a.bits DESC NULLS LAST, a.anomaly_id
            ) AS rank_of_all{ranks}
            FROM anomalies a JOIN chosen c ON c.incident_id = a.incident_id
        ) ranked
        WHERE rank_of_all <= {FINDINGS_EACH}{first}
        ORDER BY incident_id, rank_of_all
    """


_CHOSEN = """
    WITH chosen AS (
        SELECT * FROM (
            SELECT *,
                row_number() OVER (ORDER BY score DESC NULLS LAST, bits DESC NULLS LAST, incident_id)
                    AS by_score,
                row_number() OVER (ORDER BY first_time DESC NULLS LAST, incident_id) AS by_time
            FROM incidents WHERE first_date >= {since}
        ) ordered
        WHERE by_score <= {most} OR by_time <= {newest}
    )
"""

_EVERY_INCIDENT = """
    SELECT first_date, score, severity, last_time, suppressed_by FROM incidents WHERE first_date >= {since}
"""

# An incident lists the ids of its events; principal, addresses and times find them quickly.
_EVENTS = f"""
    SELECT incident_id, event_time, event_id, command, error_code, read_only, importance,
        CASE WHEN importance <= {TOLD_EVENTS_EACH} THEN aws_region END AS aws_region,
        CASE WHEN importance <= {TOLD_EVENTS_EACH} THEN recipient_account_id END AS recipient_account_id,
        CASE WHEN importance <= {TOLD_EVENTS_EACH} THEN source_ip_address END AS source_ip_address,
        CASE WHEN importance <= {TOLD_EVENTS_EACH}
            THEN substr(request_parameters, 1, {TEXT_LENGTH}) END AS request_parameters
    FROM (
        SELECT c.incident_id, e.event_time, e.event_id, e.command, e.error_code, e.read_only,
            e.aws_region, e.recipient_account_id, e.source_ip_address, e.request_parameters,
            row_number() OVER (
                PARTITION BY c.incident_id
                ORDER BY CASE WHEN e.read_only THEN 1 ELSE 0 END, e.event_time, e.event_id
            ) AS importance
        FROM chosen c JOIN events e
            ON e.principal = c.principal
            AND e.event_time >= c.first_time AND e.event_time <= c.last_time
            AND array_contains(c.source_ip_addresses, e.source_ip_address)
            AND array_contains(c.evidence_event_ids, e.event_id)
        WHERE e.event_date >= {{since}}
    ) numbered
    WHERE importance <= {EVENTS_EACH}
    ORDER BY incident_id, event_time, event_id
"""

_PLACED = """(
        SELECT place, max(place_name) AS place_name, round(avg(latitude), 4) AS latitude,
            round(avg(longitude), 4) AS longitude
        FROM places WHERE latitude IS NOT NULL AND longitude IS NOT NULL GROUP BY place
    )"""

_KNOWN_PLACES = f"""
    SELECT v.identity AS principal, v.value AS place, v.days_90, v.first_day, v.last_day,
        p.place_name, p.latitude, p.longitude
    FROM baseline_identity_value v JOIN {_PLACED} p ON p.place = v.value
    WHERE v.dimension = 'place'
        AND v.as_of = (SELECT max(as_of) FROM baseline_identity_value)
        AND v.identity IN (SELECT principal FROM chosen)
    ORDER BY v.identity, v.days_90 DESC, v.value
"""

_USUAL_PLACES = f"""
    SELECT v.value AS place, v.days_90, v.principals_90, p.place_name, p.latitude, p.longitude
    FROM baseline_value v JOIN {_PLACED} p ON p.place = v.value
    WHERE v.dimension = 'place' AND v.as_of = (SELECT max(as_of) FROM baseline_value)
        AND v.principals_90 > 1
    ORDER BY v.principals_90 DESC, v.value LIMIT 60
"""

_ON_THE_MAP = "(place LIKE 'city:%' OR place LIKE 'region:%' OR place LIKE 'country:%')"
_LATEST = f"""
    SELECT * FROM baseline_command_place
    WHERE as_of = (SELECT max(as_of) FROM baseline_command_place) AND {_ON_THE_MAP}
"""

_HABIT = f"""
    SELECT max(as_of) AS as_of, min(first_day) AS first_day,
        count(DISTINCT place) AS places, count(DISTINCT command) AS commands, count(*) AS pairs
    FROM ({_LATEST}) latest
"""

_HABIT_CELLS = f"""
    WITH latest AS ({_LATEST}),
    top_places AS (
        SELECT place, sum(principals_30) AS weight FROM latest GROUP BY place
        ORDER BY weight DESC, place LIMIT {HEAT_PLACES}
    ),
    top_commands AS (
        SELECT command, sum(principals_30) AS weight FROM latest GROUP BY command
        ORDER BY weight DESC, command LIMIT {HEAT_COMMANDS}
    )
    SELECT l.command, l.place, l.place_name, l.days_30, l.principals_30, l.first_day, l.as_of,
        p.weight AS place_weight, c.weight AS command_weight
    FROM latest l JOIN top_places p ON p.place = l.place JOIN top_commands c ON c.command = l.command
    WHERE l.days_30 > 0
"""

# The name of a column made stays clear of those it is made of: Spark takes them for one another.
_NEWS = {
    "places": f"""
        SELECT name, begun AS first_day, commands, principals, count(*) OVER () AS total
        FROM (
            SELECT max(place_name) AS name, min(first_day) AS begun, max(as_of) AS until,
                count(*) AS commands, max(principals_7) AS principals
            FROM ({_LATEST}) latest GROUP BY place
        ) places
        WHERE begun >= until - INTERVAL '7' DAY
        ORDER BY principals DESC, commands DESC, name LIMIT {NEW_EACH}
    """,
    "commands": f"""
        SELECT name, begun AS first_day, places, principals, count(*) OVER () AS total
        FROM (
            SELECT command AS name, min(first_day) AS begun, max(as_of) AS until,
                count(*) AS places, max(principals_7) AS principals
            FROM ({_LATEST}) latest GROUP BY command
        ) commands
        WHERE begun >= until - INTERVAL '7' DAY
        ORDER BY principals DESC, places DESC, name LIMIT {NEW_EACH}
    """,
    "pairs": f"""
        SELECT command, place_name, first_day, principals_7 AS principals, count(*) OVER () AS total
        FROM ({_LATEST}) latest WHERE first_day >= as_of - INTERVAL '7' DAY
        ORDER BY principals DESC, days_7 DESC, command, place_name LIMIT {NEW_EACH}
    """,
}

_COVERAGE = """
    SELECT recipient_account_id, aws_region, event_date, count(*) AS events FROM events
    WHERE event_date >= {since} GROUP BY recipient_account_id, aws_region, event_date
"""

_SILENT = """
    SELECT recipient_account_id, aws_region, silent_hours, silent_expected, silent_bits FROM coverage_hourly
    WHERE event_date >= {since} AND status = 'silent' AND hour_start = (
      SELECT max(hour_start) FROM coverage_hourly WHERE event_date >= {since} AND status <> 'late'
    )
"""

_STATUSES = """
    SELECT geo_status, count(*) AS events, count(DISTINCT source_ip_address) AS addresses FROM events
    WHERE event_date >= {since} GROUP BY geo_status
"""

_CHECKS = """
    SELECT * FROM data_quality
    WHERE run_id = (SELECT run_id FROM data_quality ORDER BY checked_at DESC, run_id DESC LIMIT 1)
    ORDER BY suite, expectation, scope_value
"""

_RUNS = f"SELECT * FROM runs ORDER BY started_at DESC, run_id DESC LIMIT {RUNS_SHOWN}"

_QUARANTINED = """
    SELECT reason, count(*) AS pieces, max(ingested_at) AS latest FROM quarantine
    GROUP BY reason ORDER BY pieces DESC, reason
"""

_WINDOWS = "SELECT status, window_from, window_to FROM runs WHERE status = 'done'"
