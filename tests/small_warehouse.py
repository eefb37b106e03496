"""A small warehouse written by delta-rs alone: a principal's month, one intrusion, what a run leaves.

It tells the story of the manual's example (the demo's farah.evans) in a few rows a table, so that every
query of the manual has something to find.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from raretrail import tables
from raretrail.tables import Table

Row = dict[str, Any]

FARAH = "arn:aws:iam::922479636132:user/farah.evans"
ROLE = "arn:aws:iam::922479636132:role/r-740eab"
ACCOUNT = "922479636132"
KEY = "AKIALRGYZWI72FXWTPGT"
ATTACK_ADDRESS = "105.2.150.54"
INCIDENT = "48f5d7ce54e04d98150887f8a78edf58"
FIRST, JUDGED = date(2026, 1, 26), date(2026, 2, 21)
SILENT_SINCE = datetime(2026, 2, 20, 20, tzinfo=UTC)
RUN, PLAYED = "20260221T174500Z-0000aaaa", "20260221T000500Z-0000bbbb"

_PLACES: dict[str, Row] = {
    "Amsterdam": {
        "geo_status": "city", "place": "city:2759794", "place_name": "Amsterdam, NL",
        "city_name": "Amsterdam", "city_geoname_id": 2759794, "region_iso_code": "NH",
        "region_name": "North Holland", "country_iso_code": "NL", "country_name": "Netherlands",
        "latitude": 52.37, "longitude": 4.89,
        "accuracy_radius": 20, "time_zone": "Europe/Amsterdam", "as_number": 4200000001,
        "as_organization": "Meridian Partners", "network": "AS4200000001",
    },
    "Durban": {
        "geo_status": "city", "place": "city:1007311", "place_name": "Durban, ZA", "city_name": "Durban",
        "city_geoname_id": 1007311, "region_iso_code": "KZN", "region_name": "KwaZulu-Natal",
        "country_iso_code": "ZA", "country_name": "South Africa", "latitude": -29.86, "longitude": 31.03,
        "accuracy_radius": 50, "time_zone": "Africa/Johannesburg", "as_number": 4200000524,
        "as_organization": "HostForge Cloud", "network": "AS4200000524",
    },
    "nowhere": {"geo_status": "aws_service", "place": "aws_service", "place_name": "an AWS service"},
}  # fmt: skip
_INSTANCE = "i-0123456789abcdef0"
_HASH = "0123456789abcdef"
_USUAL = ("s3:ListBuckets", "logs:FilterLogEvents", "dynamodb:Query")
_OF_EVENT = ("recipient_account_id", "principal", "principal_kind", "actor", "command",
             "source_ip_address", "user_agent", "agent_family", "access_key_id")  # fmt: skip
_ATTACK = (
    ("iam:ListUsers", None), ("ses:GetSendQuota", None), ("ses:GetSendQuota", "AccessDeniedException"),
    ("sts:GetFederationToken", None), ("secretsmanager:ListSecrets", "AccessDenied"),
)  # fmt: skip
_USUAL_AGENT, _ATTACK_AGENT = "aws-cli/2 (Linux)", "aws-sdk-go/1 (Linux)"
_AGENTS = {
    _USUAL_AGENT: "aws-cli/2.17.20 md/awscrt#0.23.8",
    _ATTACK_AGENT: "aws-sdk-go/1.44.157 (go1.19.3; linux; amd64) cloudfox/1.14.1",
}


def make_small_warehouse(root: Path) -> Path:
    """Write it into root, a folder that is not there yet, and give root back."""
    events = _events()
    rows: dict[str, list[Row]] = {
        "events": events,
        "places": _places(events),
        **_facts(events),
        **_baselines(events),
        **_findings(events),
        **_runs(events),
    }
    for table in tables.ALL:
        if not table.name.startswith("staged_"):
            assert rows[table.name], f"no rows for {table.name}"
            _write(root, table, rows[table.name])
    return root


def _write(root: Path, table: Table, rows: list[Row]) -> None:
    unknown = {name for row in rows for name in row} - set(table.column_names)
    assert not unknown, f"{table.name} has no {unknown}"
    data = pa.Table.from_pylist(rows, schema=table.arrow_schema())
    write_deltalake(str(root / table.name), data, partition_by=list(table.partition_by) or None)


def _event(at: datetime, number: int, command: str, **more: Any) -> Row:
    service, _, name = command.partition(":")
    place = more.pop("place", "Amsterdam")
    agent = more.pop("agent_family", _USUAL_AGENT)
    return {
        "event_time": at, "event_date": at.date(), "event_id": f"event-{number:04d}",
        "recipient_account_id": ACCOUNT, "event_version": "1.11", "event_type": "AwsApiCall",
        "event_category": "Management", "management_event": True, "read_only": True,
        "event_source": f"{service}.amazonaws.com", "event_name": name, "command": command,
        "aws_region": "eu-west-1", "source_ip_address": "203.0.113.7", "agent_family": agent,
        "user_agent": _AGENTS.get(agent, agent), "principal": FARAH, "principal_kind": "user",
        "actor": "farah.evans",
        "user_identity_type": "IAMUser", "user_identity_arn": FARAH, "user_identity_account_id": ACCOUNT,
        "user_identity_user_name": "farah.evans", "user_identity_principal_id": "AIDAEXAMPLE",
        "access_key_id": KEY, "request_id": f"request-{number}", "record_hash": f"hash-{number}",
        "source_file": "AWSLogs/922479636132/CloudTrail/eu-west-1/one.json.gz", "source_position": number,
        **_PLACES[place], "geo_build": "GeoLite2-City@2026-02-01", "run_id": PLAYED,
        "ingested_at": at + timedelta(minutes=7), **more,
    }  # fmt: skip


def _events() -> list[Row]:
    made: list[Row] = []

    def add(at: datetime, command: str, **more: Any) -> None:
        made.append(_event(at, len(made), command, **more))

    for day in range((JUDGED - FIRST).days):
        noon = datetime(FIRST.year, FIRST.month, FIRST.day, 17, tzinfo=UTC) + timedelta(days=day)
        if noon.weekday() < 5:
            for minute, command in enumerate(_USUAL[: 1 + day % 3]):
                add(noon + timedelta(minutes=minute), command)
        if day % 7 == 0:
            add(noon - timedelta(hours=9), "iam:CreateRole", principal=ROLE,
                principal_kind="role", actor=ROLE,
                user_identity_type="AssumedRole", user_identity_arn=f"{ROLE}/session", access_key_id="ASIA1",
                read_only=False)  # fmt: skip
    start = datetime(2026, 2, 21, 17, 18, 13, tzinfo=UTC)
    for number, (command, error) in enumerate(_ATTACK):
        add(start + timedelta(seconds=70 * number), command, place="Durban", error_code=error,
            agent_family=_ATTACK_AGENT, source_ip_address=ATTACK_ADDRESS, run_id=RUN,
            request_parameters='{"name":"farah.evans"}')  # fmt: skip
    later = datetime(2026, 2, 22, 10, 3, 9, tzinfo=UTC)
    add(later, "iam:CreateRole", principal=ROLE,
                principal_kind="role", actor=ROLE, access_key_id="ASIA1",
        user_identity_type="AssumedRole", user_identity_arn=f"{ROLE}/session", read_only=False)  # fmt: skip
    add(later, "kms:Decrypt", principal="unknown", principal_kind="unknown", actor="unknown", place="nowhere",
        user_identity_type="Novel", user_identity_arn=None, source_ip_address="ses.amazonaws.com",
        access_key_id=None, user_agent=None, agent_family=None)  # fmt: skip
    return made


def _places(events: list[Row]) -> list[Row]:
    placed = {row["source_ip_address"]: row for row in events}
    names = [c.name for c in tables.PLACES.columns if c.name != "located_at"]
    return [{name: row.get(name) for name in names} for row in placed.values()]


def _counted(events: list[Row], *keys: str) -> list[Row]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in events:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        {**dict(zip(keys, values, strict=True)), "event_count": len(group),
         "first_time": min(r["event_time"] for r in group), "last_time": max(r["event_time"] for r in group)}
        for values, group in groups.items()
    ]  # fmt: skip


def _facts(events: list[Row]) -> dict[str, list[Row]]:
    who = ("event_date", "recipient_account_id", "principal", "principal_kind", "actor")
    told = [
        {**row, "outcome": row.get("error_code") or "", "hour": row["event_time"].hour,
         "error_template": "denied", "agent_family": row["agent_family"] or "",
         "quarter_start": row["event_time"].replace(minute=row["event_time"].minute // 15 * 15, second=0)}
        for row in events
    ]  # fmt: skip
    failed = [row for row in told if row.get("error_code")]
    return {
        "presence_daily": [
            {**row, "hours": 1 << row["first_time"].hour | 1 << row["last_time"].hour}
            for row in _counted(told, *who, "command", "source_ip_address", "outcome")
        ],
        "agent_daily": _counted(told, *who, "agent_family"),
        "hour_daily": _counted(told, *who, "hour"),
        "moves_daily": [
            {
                "event_date": JUDGED,
                "actor": "farah.evans",
                "from_address": "203.0.113.7",
                "source_ip_address": ATTACK_ADDRESS,
                "seconds": 3600,
                "first_time": told[-1]["event_time"],
            }
        ],
        **_held(),
        "region_hour": _counted(
            [
                *({**row, "hour_start": row["event_time"].replace(minute=0, second=0)} for row in events),
                {
                    **events[0],
                    "aws_region": "eu-central-1",
                    "hour_start": SILENT_SINCE,
                    "event_time": SILENT_SINCE + timedelta(minutes=30),
                    "event_date": SILENT_SINCE.date(),
                },
            ],
            "event_date",
            "hour_start",
            "recipient_account_id",
            "aws_region",
        ),
        "error_quarter_hour": _counted(failed, *who, "quarter_start", "error_code", "error_template"),
    }


def _held() -> dict[str, list[Row]]:
    """An instance of the organisation's own with an address, farah's key, and the session of the role."""
    at = datetime(FIRST.year, FIRST.month, FIRST.day, 9, tzinfo=UTC)
    call = {"event_date": FIRST, "event_time": at, "recipient_account_id": ACCOUNT, "principal": ROLE,
            "actor": ROLE, "source_ip_address": "203.0.113.7", "access_key_id": "ASIA1"}  # fmt: skip
    held = (
        ("key", KEY, "user/farah.evans", "iam:CreateAccessKey"),
        ("policy", "arn:aws:iam::aws:policy/ReadOnlyAccess", "user/farah.evans", "iam:AttachUserPolicy"),
        (
            "instance",
            "i-0123456789abcdef0",
            f"arn:aws:iam::{ACCOUNT}:instance-profile/web",
            "ec2:RunInstances",
        ),
        ("address", "203.0.113.7", "eipalloc-1", "ec2:AllocateAddress"),
        ("lent", "eipalloc-1", _INSTANCE, "ec2:AssociateAddress"),
    )
    return {
        "changes_daily": [
            {**call, "event_id": f"change-{number}", "command": command, "kind": kind, "change": "given",
             "subject": subject, "holder": holder}
            for number, (kind, subject, holder, command) in enumerate(held)
        ],
        "sessions_daily": [
            {**call, "event_id": "session-1", "command": "sts:AssumeRole", "principal": FARAH,
             "access_key_id": KEY, "issued_key_id": "ASIA1", "issued_arn": f"{ROLE}/session"},
        ],
        "baseline_holdings": [
            {"as_of": JUDGED, "kind": kind, "recipient_account_id": ACCOUNT, "subject": subject,
             "holder": holder, "given_at": at, "given_by": ROLE, "given_command": command,
             "given_event_id": f"change-{number}"}
            for number, (kind, subject, holder, command) in enumerate(held)
        ],
    }  # fmt: skip


def _days(rows: list[Row]) -> Row:
    days = sorted({row["event_date"] for row in rows})

    def within(last: int) -> int:
        return sum(JUDGED - timedelta(days=last) <= day < JUDGED for day in days)

    return {"days_7": within(7), "days_30": within(30), "days_90": within(90),
            "days_decayed": float(within(90)), "first_day": days[0], "last_day": days[-1]}  # fmt: skip


def _baselines(events: list[Row]) -> dict[str, list[Row]]:
    before = [{**row, "hour": str(row["event_time"].hour)} for row in events if row["event_date"] < JUDGED]
    values = {"place": "place", "country": "country_iso_code", "network": "network", "command": "command",
              "agent": "agent_family", "hour": "hour"}  # fmt: skip
    org = {"as_of": JUDGED, "scope": "organization"}

    def groups(*keys: str) -> dict[tuple[Any, ...], list[Row]]:
        made: dict[tuple[Any, ...], list[Row]] = {}
        for row in before:
            made.setdefault(tuple(row[key] for key in keys), []).append(row)
        return made

    def behind(rows: list[Row]) -> Row:
        count = len({row["principal"] for row in rows})
        return {f"principals_{last}": count for last in (7, 30, 90)}

    pairs = groups("command", "place", "place_name", "country_iso_code")
    active = {p[0]: len({row["event_date"] for row in rows}) for p, rows in groups("principal").items()}
    return {
        "baseline_presence": [
            {"as_of": JUDGED, "recipient_account_id": ACCOUNT, "principal": p, "principal_kind": "user",
             "command": c, "source_ip_address": a, "outcome": "", "seen_low": 1, "seen_high": 0}
            for p, c, a in groups("principal", "command", "source_ip_address")
        ],
        "baseline_command_place": [
            {**org, "command": c, "place": p, "place_name": n, "country_iso_code": k,
             **_days(rows), **behind(rows)}
            for (c, p, n, k), rows in pairs.items()
        ],
        "baseline_command_country": [
            {**org, "command": c, "country": k, **_days(rows), **behind(rows)}
            for (c, k), rows in groups("command", "country_iso_code").items()
        ],
        "baseline_value": [
            {**org, "dimension": d, "value": v, **_days(rows), **behind(rows)}
            for d, column in values.items() for (v,), rows in groups(column).items()
        ],
        "baseline_identity_value": [
            {"as_of": JUDGED, "identity": p, "dimension": d, "value": v, **_days(rows), "recent_5": 5,
             "on_last_day": 1, "last_gap": 1, "gap_before": 1}
            for d, column in values.items() for (p, v), rows in groups("principal", column).items()
        ],
        "baseline_identity": [
            {"as_of": JUDGED, "identity": p, "dimension": d, "active_days": n, "new_days": 1}
            for p, n in active.items() for d in [*values, "error"]
        ],
        "baseline_dimension": [
            {**org, "dimension": d, "value_days": 100, "values_seen": 5, "values_once": 1, "active_days": 30,
             "new_days": 4, "first_uses": [2, 1, 0, 0, 0, 0], "baseline_days": (JUDGED - FIRST).days}
            for d in [*values, "error"]
        ],
        "baseline_error_hour": [
            {"as_of": JUDGED, "scope": "organization", "value": "", "hour_of_week": 81, "error_quarters": 2,
             "kinds": 3, "kinds_squared": 5},
        ],
        "baseline_coverage_hour": [
            {"as_of": JUDGED, "recipient_account_id": ACCOUNT, "aws_region": region, "hour": hour,
             "expected": 40.0, "expected_by": "hour_of_week", "expected_share": 0.9, "least_count": 20,
             "silent_bits": 3.3, "off_bits": 3.3, "recorded_days": 26, "longest_silence": 0,
             "last_hour": SILENT_SINCE, "silent_bits_before": 0.0, "silent_expected_before": 0.0}
            for region in ("eu-west-1", "eu-central-1", "all") for hour in range(24)
        ],
        "coverage_hourly": _coverage(),
        "baseline_city_action": [
            {"as_of": JUDGED, "city_name": "Amsterdam", "event_name": name, "weight": weight}
            for name, weight in (("ListUsers", 14.2), ("CreateRole", 3.9))
        ],
        "withheld": [
            {**{name: before[0][name] for name in ("event_date", "recipient_account_id", "principal", "actor",
                                                   "command", "source_ip_address")},
             "outcome": "", "reason": "unjudged", "incident_id": "0" * 32},
        ],
        "first_uses": [
            {"event_date": rows[0]["event_date"], "identity": p, "dimension": "command", "value": c,
             "others": 0, "active_days": 0, "is_actor": True}
            for (p, c), rows in groups("principal", "command").items()
        ],
    }  # fmt: skip


def _coverage() -> list[Row]:
    """Two hours of two regions; eu-central-1 has been silent since the day before."""
    made: list[Row] = []
    for hour, late in (
        (datetime(2026, 2, 21, 16, tzinfo=UTC), False),
        (datetime(2026, 2, 21, 17, tzinfo=UTC), True),
    ):
        for region in ("eu-west-1", "eu-central-1", "all"):
            silent = region == "eu-central-1"
            made.append({
                "event_date": JUDGED, "hour_start": hour, "recipient_account_id": ACCOUNT,
                "aws_region": region, "came": 0 if silent else 4, "expected": 40.0 if silent else 3.0,
                "expected_by": "hour_of_week", "expected_share": 0.9, "recorded_days": 26,
                "longest_silence": 2, "silent_hours": 20 if silent else 0,
                "silent_expected": 800.0 if silent else 0.0, "silent_bits": 66.0 if silent else 0.0,
                "status": "late" if late else "silent" if silent else "ok",
            })  # fmt: skip
    return made


def _findings(events: list[Row]) -> dict[str, list[Row]]:
    attack = [row for row in events if row["source_ip_address"] == ATTACK_ADDRESS]
    start, end = datetime(2026, 2, 21, 17, tzinfo=UTC), datetime(2026, 2, 21, 18, tzinfo=UTC)
    scored = datetime(2026, 2, 21, 17, 46, tzinfo=UTC)
    place = {c.name: attack[0].get(c.name) for c in tables.PLACE_COLUMNS}
    terms: Row = {
        "as_of": JUDGED, "baseline_days": 26, "principal_active_days": 15, "principal_place_days": 0,
        "principal_network_days": 0, "principal_agent_days": 0, "principal_command_days": 0,
        "place_principals": 0, "network_principals": 0, "agent_principals": 0, "command_principals": 0,
        "command_days": 0, "place_days": 0, "command_place_days": 0, "nearest_place": "Amsterdam, NL",
        "nearest_place_km": 9488.0, "place_given_command_bits": 14.0, "place_bits": 5.4, "network_bits": 0.0,
        "agent_bits": 8.0, "command_bits": 5.2, "error_bits": 0.0, "elastic_record_score": 0.0,
        "elastic_probability": 0.68, "where_bits": 5.4, "how_bits": 8.0,
        "what_bits": 5.2, "maturity": 1.0, "score": 82.5, "bits": 23.9, "severity": "high",
    }  # fmt: skip
    found: list[Row] = []
    for number, row in enumerate(attack):
        for detector in ("unusual_city_for_command", "unusual_place_for_principal"):
            first = not found
            found.append({
                "anomaly_id": INCIDENT if first else f"{number:02d}{detector[:12]}".ljust(32, "0"),
                "detector": detector, "bucket_start": start, "bucket_end": end, "bucket_date": JUDGED,
                **{name: row[name] for name in _OF_EVENT},
                "credential": "access key", "user_identity_type": "IAMUser", "user_identity_arn": FARAH,
                "request_parameters": row["request_parameters"], "aws_region": "eu-west-1",
                "error_code": row["error_code"] or "", "event_count": 1, "first_time": row["event_time"],
                "last_time": row["event_time"], **place, "geo_build": row["geo_build"], **terms,
                "rule_severity": "low", "risk_score": 21, "evidence_event_ids": [row["event_id"]],
                "summary": f"{row['command']} from Durban, ZA, where nobody was seen in 90 days",
                "settings_hash": _HASH, "run_id": RUN, "incident_id": INCIDENT, "quality": "ok",
                "first_scored_at": scored, "score_revision": 0,
            })  # fmt: skip
    kept = {c.name for c in tables.INCIDENTS.columns}
    incident = {
        **{name: value for name, value in {**place, **terms}.items() if name in kept},
        "incident_id": INCIDENT, "first_date": JUDGED, "principals": [FARAH],
        "principal": FARAH, "principal_kind": "user",
        "actor": "farah.evans",
        "recipient_account_ids": [ACCOUNT], "source_ip_addresses": [ATTACK_ADDRESS],
        "networks": ["AS4200000524"], "first_time": attack[0]["event_time"],
        "last_time": attack[-1]["event_time"], "score": 86.0, "severity": "high",
        "detectors": ["unusual_city_for_command", "unusual_place_for_principal"],
        "commands": sorted({row["command"] for row in attack}), "findings": len(found),
        "event_count": len(attack), "evidence_event_ids": [row["event_id"] for row in attack],
        "summary": found[0]["summary"], "quality": "ok", "alerted_at": scored, "run_id": RUN,
        "state": "open", "alert_revision": 0, "verdict": "malicious", "verdict_by": "ana",
        "verdict_at": scored + timedelta(minutes=75), "access_key_ids": [KEY], "credentials": ["access key"],
        "key_created_at": datetime(FIRST.year, FIRST.month, FIRST.day, 9, tzinfo=UTC),
        "policies_seen": ["arn:aws:iam::aws:policy/ReadOnlyAccess"],
        "touched_services": ["iam", "ses", "sts"], "touched_accounts": [ACCOUNT],
        "touched_regions": ["eu-west-1"], "touched_writes": 0,
        "resource_count": 0, "account_names": ["retail-prod"],
        "account_owners": ["Retail (retail@example.com)"],
        "criticality": "high",
        "response_steps": [
            f"# {FARAH}, in account {ACCOUNT}",
            f"aws iam update-access-key --user-name farah.evans --access-key-id {KEY} --status Inactive",
        ],
    }  # fmt: skip
    alert = {
        "incident_id": INCIDENT, "revision": 0, "alerted_at": scored, "alerted_date": scored.date(),
        "format": "slack", "payload": "{}", "created_at": scored, "run_id": RUN, "attempts": 2,
        "last_attempt_at": scored, "delivered_at": scored, "status": "delivered",
    }  # fmt: skip
    revision = {
        "anomaly_id": found[-1]["anomaly_id"], "score_revision": 0, "revised_at": scored,
        "revised_date": scored.date(), "reason": "late_events", "withdrawn": False,
        "detector": found[-1]["detector"], "bucket_start": start, "recipient_account_id": ACCOUNT,
        "principal": FARAH, "command": found[-1]["command"], "place_name": "Durban, ZA", "late_minutes": 46,
        "was_bits": 25.3, "bits": 23.9, "was_score": 84.0, "score": 82.5, "was_event_count": 1,
        "event_count": 1, "changed": ["agent_bits 9.40 to 8.00"], "was_incident_id": INCIDENT,
        "incident_id": INCIDENT, "run_id": RUN,
    }  # fmt: skip
    calibration = {
        "as_of": JUDGED,
        "settings_hash": _HASH,
        "judged_days": 14,
        "bits": [24.0, 12.5],
    }
    said = {"author": "ana", "created_at": scored + timedelta(hours=1), "reason": "asked her"}
    window = {"window_id": "w1", "principal": ROLE, "starts_at": start, "ends_at": end, **said}
    return {
        "anomalies": found,
        "incidents": [incident],
        "outbox": [alert],
        "calibrations": [calibration],
        "revisions": [revision],
        "dispositions": [{"disposition_id": "d1", "incident_id": INCIDENT, "state": "acknowledged", **said}],
        "change_windows": [window],
    }


def _runs(events: list[Row]) -> dict[str, list[Row]]:
    started = datetime(2026, 2, 21, 17, 45, tzinfo=UTC)
    shared: Row = {
        "status": "done", "late_buckets": [], "event_days": [JUDGED], "held_scopes": [],
        "seconds": [("ingest", 6.0), ("score", 9.0)], "input_versions": [("events", 3)],
        "settings_hash": _HASH, "geo_build": "GeoLite2-City@2026-02-01", "program_version": "0",
    }  # fmt: skip
    history = {
        **shared, "run_id": PLAYED, "started_at": started - timedelta(hours=17), "mode": "history",
        "finished_at": started - timedelta(hours=16), "as_of": started - timedelta(hours=17),
        "window_from": datetime(2026, 2, 7, tzinfo=UTC), "window_to": datetime(2026, 2, 21, tzinfo=UTC),
        "counts": [("events", 60), ("published", 0), ("incidents", 0)],
    }  # fmt: skip
    scheduled = {
        **shared, "run_id": RUN, "started_at": started, "finished_at": started + timedelta(seconds=20),
        "mode": "scheduled", "as_of": started, "window_from": datetime(2026, 2, 21, 15, tzinfo=UTC),
        "window_to": started, "counts": [("events", 5), ("published", 10), ("incidents", 1), ("alerts", 1)],
    }  # fmt: skip
    file = {
        "source_file": events[0]["source_file"], "content_hash": "c0", "file_date": JUDGED, "bytes": 4096,
        "modified_at": started, "status": "taken", "shape": "records", "records": len(events),
        "events": len(events), "duplicates": 0, "quarantined": 0, "run_id": RUN, "ingested_at": started,
    }  # fmt: skip
    unreadable = {**file, "source_file": "two.json.gz", "content_hash": "c1", "status": "unreadable",
                  "records": 0, "events": 0, "detail": "AccessDenied"}  # fmt: skip
    region = "AWSLogs/922479636132/CloudTrail{}/eu-central-1/2026/02/{}"
    last_log = {**file, "source_file": region.format("", "14/two.json.gz"), "content_hash": "c2",
                "modified_at": datetime(2026, 2, 14, tzinfo=UTC)}  # fmt: skip
    digest = {**file, "source_file": region.format("-Digest", "21/d.json.gz"), "content_hash": "",
              "status": "skipped", "shape": "digest", "records": 0, "events": 0,
              "modified_at": datetime(2026, 2, 21, 16, 45, tzinfo=UTC)}  # fmt: skip
    set_aside = {
        "source_file": "three.csv", "source_position": 0, "file_date": JUDGED, "reason": "csv",
        "detail": "a table", "recipient_account_id": ACCOUNT, "raw": "a,b", "raw_bytes": 3,
        "record_hash": "r", "run_id": RUN, "ingested_at": started,
    }  # fmt: skip
    superseded = {**set_aside, "source_file": "four.json.gz", "reason": "superseded",
                  "event_id": "event-0000", "detail": "another record corrects it", "raw": "{}"}  # fmt: skip
    checked = {"run_id": RUN, "severity": "warning", "checked_at": started, "gx_version": "1", "kwargs": "{}",
               "element_count": 5, "scope_value": None}  # fmt: skip
    stone = {"kind": "actor", "hash": "5e", "forgotten_at": started - timedelta(days=30),
             "key_id": "k1", "receipt_id": "f1"}  # fmt: skip
    receipt = {**stone, "kind": "person", "table_name": "events", "rows_removed": 7, "rows_rewritten": 1,
               "rebuilt": False, "files_removed": 9, "author": "kim", "program_version": "0"}  # fmt: skip
    return {
        "runs": [history, scheduled],
        "tombstones": [stone],
        "forgettings": [receipt],
        "ingest_files": [file, unreadable, last_log, digest],
        "digest_results": [
            {"source_file": file["source_file"], "kind": "log", "status": "valid",
             "recipient_account_id": ACCOUNT, "aws_region": "eu-west-1", "checked_at": file["ingested_at"]},
        ],
        "quarantine": [set_aside, superseded],
        "data_quality": [
            {**checked, "suite": "events", "expectation": "some_events", "success": True,
             "observed_value": 5.0, "detail": "as expected"},
            {**checked, "suite": "ledger", "expectation": "files_readable", "success": False,
             "observed_value": 1.0, "unexpected_count": 1, "detail": "1 file could not be read"},
        ],
    }  # fmt: skip
