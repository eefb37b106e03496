"""A warehouse of rows made by hand, as delta-rs writes it: for what reads tables without Spark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from raretrail import tables
from raretrail.tables import Table

LAST_DAY = date(2026, 2, 28)
AS_OF = LAST_DAY + timedelta(days=1)
DAYS = 20
MIDNIGHT = datetime(2026, 2, 28, tzinfo=UTC)
PEOPLE = 12
# What an intruder may write wherever a name goes: markup, handlers, terminal escapes, reordering.
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b]0;owned\x07\u202egnp.exe\u2028{{7*7}}"
PLACES = (
    ("city:2759794", "Amsterdam, NL", 52.3716, 4.8883),
    ("city:3169070", "Rome, IT", 41.8914, 12.5095),
    ("city:4930956", "Boston, US", 42.3501, -71.0643),
    ("city:1007311", "Durban, ZA", -29.8523, 31.0191),
    ("city:2193733", "Auckland, NZ", -36.8506, 174.7679),
    ("city:5856195", "Honolulu, US", 21.3069, -157.8583),
)
COMMANDS = ("s3:GetObject", "iam:CreateUser", "iam:CreateAccessKey", "ec2:RunInstances", "sts:AssumeRole")


def write_tables(root: Path, rows: Mapping[Table, Sequence[Mapping[str, Any]]]) -> Path:
    """Each table with its rows under root; columns that a row does not name are empty."""
    for table, some in rows.items():
        data = pa.Table.from_pylist([dict(row) for row in some], schema=table.arrow_schema())
        write_deltalake(str(root / table.name), data, partition_by=list(table.partition_by))
    return root


def organisation(
    incidents: int, *, events_each: int = 12, evil: bool = False
) -> dict[Table, list[dict[str, Any]]]:
    """Rows of every table the report reads: so many incidents over the last `DAYS` days.

    Incident 0 is the newest; scores run from 15 to 95. With evil, names, user agents, commands,
    requests and messages hold `EVIL`.
    """
    bad = EVIL if evil else ""
    made: dict[Table, list[dict[str, Any]]] = {
        table: []
        for table in (
            tables.INCIDENTS, tables.ANOMALIES, tables.EVENTS, tables.PRESENCE_DAILY, tables.PLACES,
            tables.BASELINE_IDENTITY_VALUE, tables.BASELINE_VALUE, tables.BASELINE_COMMAND_PLACE,
            tables.DATA_QUALITY, tables.RUNS, tables.QUARANTINE,
        )
    }  # fmt: skip
    for number in range(incidents):
        _incident(made, number, events_each, bad)
    _habits(made, bad)
    _records(made, bad)
    return made


def principal(number: int, bad: str = "") -> str:
    """The ARN of one of the people."""
    return f"arn:aws:iam::123456789012:user/person-{number % PEOPLE:02d}{bad}"


def _placed(number: int, bad: str) -> dict[str, Any]:
    place, name, latitude, longitude = PLACES[3 + number % 3]
    return {
        "geo_status": "city", "place": place, "place_name": name + bad, "city_name": name.split(",")[0],
        "country_iso_code": name[-2:], "country_name": name[-2:], "latitude": latitude,
        "longitude": longitude, "accuracy_radius": 50,
    }  # fmt: skip


def _incident(made: dict[Table, list[dict[str, Any]]], number: int, events_each: int, bad: str) -> None:
    identity = f"{number:032x}"
    begun = MIDNIGHT + timedelta(hours=20) - timedelta(hours=number * 24 * DAYS / 520)
    address = f"198.51.{number % 200}.7"
    score = 15.0 + number * 37 % 81
    severity = next((s for s, at in (("critical", 80), ("high", 60), ("medium", 40)) if score >= at), "low")
    who = {"principal": principal(number, bad), "principal_kind": "user"}
    parts = {"where_bits": 5.5, "how_bits": 3.0, "what_bits": 6.0}
    events = [f"{number}-{n}" for n in range(events_each)]
    last = begun + timedelta(minutes=events_each - 1)
    common = {"score": score, "bits": 17.5, "severity": severity, **parts, **who, **_placed(number, bad)}
    made[tables.INCIDENTS].append(
        {
            **common, "incident_id": identity, "first_date": begun.date(), "first_time": begun,
            "last_time": last, "recipient_account_ids": ["123456789012"],
            "source_ip_addresses": [address], "networks": ["AS64500"],
            "detectors": ["unusual_city_for_command"], "commands": [c + bad for c in COMMANDS],
            "findings": 2, "event_count": events_each, "evidence_event_ids": events, "quality": "ok",
            "summary": f"iam:CreateUser{bad} from {common['place_name']}, where nobody was seen in 90 days",
        }
    )  # fmt: skip
    for n in range(2):
        made[tables.ANOMALIES].append(
            {
                **common, "anomaly_id": f"{number:030x}{n:02x}", "incident_id": identity,
                "detector": "unusual_city_for_command", "bucket_date": begun.date(),
                "bucket_start": begun.replace(minute=0), "command": COMMANDS[n] + bad,
                "recipient_account_id": "123456789012", "source_ip_address": address,
                "error_code": "AccessDenied" + bad if n else "", "user_agent": "aws-cli/2.15.0 " + bad,
                "agent_family": "aws-cli/2" + bad, "access_key_id": "AKIAEXAMPLE", "event_count": 6,
                "as_organization": "HostForge Cloud" + bad, "network": "AS64500", "as_of": begun.date(),
                "baseline_days": 27, "principal_active_days": 15, "principal_place_days": 0,
                "place_principals": 0, "place_days": 0, "command_days": 12, "command_place_days": 0,
                "nearest_place": "Amsterdam, NL", "nearest_place_km": 9487.6, "place_bits": 5.5 - n,
                "agent_bits": 3.0, "command_bits": 5.0 + n, "place_given_command_bits": 12.0,
                "maturity": 1.0,
            }
        )  # fmt: skip
    for n, event_id in enumerate(events):
        at = begun + timedelta(minutes=n)
        made[tables.EVENTS].append(
            {
                **who, "event_id": event_id, "event_time": at, "event_date": at.date(),
                "recipient_account_id": "123456789012", "aws_region": "eu-west-1",
                "source_ip_address": address, "command": COMMANDS[n % len(COMMANDS)] + bad,
                "error_code": "AccessDenied" + bad if n % 3 == 0 else None, "read_only": n % 2 == 0,
                "geo_status": "city", "request_parameters": f'{{"userName":"{bad}"}}' * (8 if bad else 1),
            }
        )  # fmt: skip


def _habits(made: dict[Table, list[dict[str, Any]]], bad: str) -> None:
    seen = {"days_7": 5, "days_30": 18, "days_90": 40, "days_decayed": 9.0, "last_day": LAST_DAY}
    by = {"principals_7": 4, "principals_30": 9, "principals_90": 12}
    old, new = LAST_DAY - timedelta(days=60), LAST_DAY - timedelta(days=2)
    for n, (place, name, latitude, longitude) in enumerate(PLACES):
        made[tables.PLACES].append(
            {"source_ip_address": f"203.0.113.{n}", "geo_build": "b", "place": place, "place_name": name,
             "latitude": latitude, "longitude": longitude, "geo_status": "city"}
        )  # fmt: skip
        made[tables.BASELINE_VALUE].append(
            {"as_of": AS_OF, "scope": "organization", "dimension": "place", "value": place, **seen, **by,
             "first_day": old}
        )  # fmt: skip
        for c, command in enumerate(COMMANDS):
            made[tables.BASELINE_COMMAND_PLACE].append(
                {"as_of": AS_OF, "scope": "organization", "command": command + bad, "place": place,
                 "place_name": name + bad, **seen, **by, "principals_30": 1 + n * c,
                 "first_day": new if n == 5 or c == 4 else old}
            )  # fmt: skip
    for person in range(PEOPLE):
        for place, _, _, _ in PLACES[:2]:
            made[tables.BASELINE_IDENTITY_VALUE].append(
                {"as_of": AS_OF, "identity": principal(person, bad), "dimension": "place", "value": place,
                 **seen, "first_day": old}
            )  # fmt: skip


def _records(made: dict[Table, list[dict[str, Any]]], bad: str) -> None:
    for back in range(DAYS):
        day = LAST_DAY - timedelta(days=back)
        made[tables.PRESENCE_DAILY].append(
            {"event_date": day, "recipient_account_id": "123456789012", "principal": principal(0, bad),
             "command": COMMANDS[0], "source_ip_address": "203.0.113.1", "outcome": "", "event_count": 10}
        )  # fmt: skip
        for n in range(10):
            made[tables.EVENTS].append(
                {"event_id": f"usual-{back}-{n}", "event_date": day, "principal": principal(n, bad),
                 "event_time": datetime(day.year, day.month, day.day, 9, n, tzinfo=UTC),
                 "recipient_account_id": "123456789012" if n % 2 else "210987654321",
                 "aws_region": "eu-west-1" + bad, "command": COMMANDS[0], "read_only": True,
                 "geo_status": "city" if n else "aws_service", "source_ip_address": "203.0.113.1"}
            )  # fmt: skip
    at = MIDNIGHT + timedelta(days=1, hours=2)
    made[tables.RUNS].append(
        {"run_id": "r1", "started_at": at, "finished_at": at, "status": "held", "mode": "scheduled",
         "message": "too few events" + bad, "window_from": MIDNIGHT - timedelta(days=DAYS - 1),
         "window_to": at, "counts": [("events", 200), ("incidents", 3)], "seconds": [("ingest", 12.5)],
         "geo_build": "GeoLite2-City@2019-12-24"}
    )  # fmt: skip
    for n, met in enumerate((True, True, False)):
        made[tables.DATA_QUALITY].append(
            {"run_id": "r1", "suite": "events", "expectation": f"check_{n}", "severity": "critical",
             "success": met, "observed_value": 0.5, "element_count": 200, "checked_at": at,
             "scope_column": None if met else "recipient_account_id", "scope_value": None if met else bad,
             "detail": "as expected" if met else "not as expected" + bad}
        )  # fmt: skip
    made[tables.QUARANTINE].append(
        {"source_file": "f", "source_position": 0, "file_date": LAST_DAY, "reason": "truncated",
         "detail": bad, "ingested_at": at}
    )  # fmt: skip
