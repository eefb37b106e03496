"""Incidents on the screen: the table, the page, and that they hold what a log smuggles in."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from rich.cells import cell_len

from raretrail.show.incidents import incidents_table, range_line
from raretrail.show.one import incident_page, revisions_of
from raretrail.show.reasons import reasons
from raretrail.show.text import Screen

AT = datetime(2026, 2, 23, 4, 26, 26, tzinfo=UTC)
EVIL = "x\x1b]0;owned\x07\u202egnp.exe\x9b2J\nforged line"
ID = "202626a3c7a5f42c7a48956a19877e31"


def finding(**more: Any) -> dict[str, Any]:
    return {
        "anomaly_id": ID,
        "incident_id": ID,
        "detector": "unusual_city_for_command",
        "bucket_start": AT.replace(minute=0, second=0),
        "command": "iam:CreateUser",
        "error_code": "",
        "event_count": 2,
        "user_agent": "aws-cli/2.15.0",
        "agent_family": "aws-cli/2 (Linux)",
        "access_key_id": "AKIAEXAMPLE",
        "as_organization": "HostForge Cloud",
        "network": "AS64500",
        "as_of": date(2026, 2, 23),
        "baseline_days": 29,
        "settings_hash": "abc",
        "maturity": 1.0,
        "principal_active_days": 20,
        "principal_place_days": 0,
        "principal_network_days": 0,
        "principal_agent_days": 0,
        "principal_command_days": 0,
        "place_principals": 0,
        "agent_principals": 3,
        "command_principals": 4,
        "place_days": 0,
        "command_place_days": 0,
        "command_days": 12,
        "nearest_place": "Amsterdam, NL",
        "nearest_place_km": 1166.4,
        "place_bits": 5.3,
        "network_bits": 0.0,
        "agent_bits": 0.0,
        "command_bits": 7.2,
        "error_bits": 0.0,
        "where_bits": 5.3,
        "how_bits": 0.0,
        "what_bits": 7.2,
        "bits": 12.5,
        **more,
    }


def incident(**more: Any) -> dict[str, Any]:
    return {
        "incident_id": ID,
        "principal": "arn:aws:iam::922479636132:user/ana.costa",
        "principal_kind": "user",
        "recipient_account_ids": ["922479636132"],
        "geo_status": "city",
        "place_name": "Bilbao, ES",
        "source_ip_addresses": ["212.142.174.158"],
        "networks": ["AS64500"],
        "first_time": AT,
        "last_time": AT + timedelta(seconds=97),
        "score": 31.21,
        "bits": 12.485,
        "severity": "medium",
        "detectors": ["unusual_city_for_command"],
        "commands": ["iam:CreateUser", "iam:ListUsers"],
        "event_count": 40,
        "evidence_event_ids": ["e1"],
        "summary": "iam:CreateUser from Bilbao, ES",
        **more,
    }


def event(**more: Any) -> dict[str, Any]:
    return {
        "event_time": AT,
        "event_id": "e1",
        "command": "iam:CreateUser",
        "error_code": None,
        "request_parameters": json.dumps({"userName": "n" * 300}),
        **more,
    }


def test_a_table_says_when_who_where_what_and_why() -> None:
    text = incidents_table([incident()], {ID: [finding()]}, Screen(100))
    for said in (
        "31.2", "medium", "202626a3", "2026-02-23 04:26", "40 events, 1 min", "user/ana.costa",
        "922479636132", "Bilbao, ES", "212.142.174.158", "HostForge", "iam:CreateUser and 1 more",
        "1,166 km from Amsterdam, NL",
    ):  # fmt: skip
        assert said in " ".join(text.split()), said


@pytest.mark.parametrize("width", [40, 60, 71, 72, 80, 93, 94, 120, 200])
@pytest.mark.parametrize("extra", [None, ("planted", {ID: "home_city_new_network"})])
def test_no_line_is_wider_than_the_screen(width: int, extra: Any) -> None:
    long = incident(
        principal=f"arn:aws:iam::922479636132:role/{'a' * 60}/{'b' * 64}@{'c' * 40}.example",
        principal_kind="person",
        source_ip_addresses=["2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "192.0.2.1"],
        place_name="Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch, GB",
        commands=["elasticloadbalancing:" + "D" * 60],
    )
    told = {ID: [finding()]}
    text = incidents_table([long], told, Screen(width), extra=extra)
    text += incident_page(long, [finding()], [event()], Screen(width))
    assert max(map(cell_len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [50, 100])
@pytest.mark.parametrize("colour", [False, True])
def test_what_a_log_smuggles_in_stays_inert(width: int, colour: bool) -> None:
    # Every text of every row is hostile at once.
    def spoilt(row: dict[str, Any]) -> dict[str, Any]:
        kept = {"incident_id", "anomaly_id", "severity"}
        return {
            key: EVIL if isinstance(value, str) and key not in kept
            else [EVIL] if isinstance(value, list) else value
            for key, value in row.items()
        }  # fmt: skip

    one, found, seen = spoilt(incident()), spoilt(finding(error_bits=4.0)), spoilt(event(error_code="x"))
    screen = Screen(width, colour)
    text = incidents_table([one], {ID: [found]}, screen, extra=("planted", {ID: EVIL}))
    text += incident_page(one, [found], [seen], screen)
    bare = text
    for number in ("0", "1", "2", "31", "32", "33", "36", "1;31"):
        bare = bare.replace(f"\x1b[{number}m", "") if colour else bare
    assert not {c for c in bare if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or c == "\u202e"}
    assert not any(line.startswith("forged line") for line in bare.splitlines())


def test_a_page_shows_terms_with_counts_and_the_events() -> None:
    text = incident_page(incident(), [finding()], [event(error_code="AccessDenied")], Screen(120))
    joined = " ".join(text.split())
    assert ID in text
    assert "arn:aws:iam::922479636132:user/ana.costa" in text
    assert "0 of its 20 active days here; 0 others known here" in joined
    assert "█" in text
    assert "AccessDenied" in text
    assert "AKIAEXAMPLE" in text
    assert "nnn…" in text, "long request parameters are shortened"


def test_reasons_come_of_the_finding_that_is_strangest_in_each_way() -> None:
    found = [
        finding(bits=12.5),
        finding(
            anomaly_id="f2", bits=9.0, where_bits=1.0, what_bits=1.0, how_bits=8.0, agent_bits=8.0,
            agent_family="curl",
        ),
    ]  # fmt: skip
    told = "; ".join(reasons(found))
    assert "1,166 km from Amsterdam, NL" in told
    assert "new tool curl" in told
    assert "used by 4 others" in told


def test_a_guard_that_spared_a_place_is_said() -> None:
    near = reasons([finding(nearest_place_km=133.0, near_known_place=True)])
    assert "133 km from Amsterdam, NL, so hardly new" in near
    assert "a place the database only guesses" in reasons([finding(vague_place=True)])


def test_a_young_principal_is_said_to_be_young() -> None:
    assert reasons([finding(maturity=0.5, principal_active_days=2)])[-1] == "only 2 days of history"


def test_a_spike_of_errors_is_said_with_its_count() -> None:
    assert "25 kinds of error in 15 minutes" in reasons([finding(spike_bits=8.0, spike_count=25)])
    assert not any("15 minutes" in told for told in reasons([finding(spike_bits=None, spike_count=None)]))


def test_which_incidents_a_page_shows() -> None:
    assert range_line(0, 1, 0) == "no incidents"
    assert range_line(3, 1, 3) == "3 incidents, most unusual first"
    assert range_line(25, 26, 340) == "incidents 26 to 50 of 340, most unusual first"
    assert range_line(0, 51, 40) == "no incidents on this page; there are 40"


def test_an_incident_tells_what_became_of_its_findings() -> None:
    def revised(detector: str, **more: Any) -> dict[str, Any]:
        row = {
            "anomaly_id": detector, "score_revision": 1, "revised_at": AT + timedelta(hours=30),
            "bucket_start": AT.replace(minute=0, second=0), "detector": detector, "command": "iam:CreateUser",
            "reason": "late_history", "withdrawn": False, "was_bits": 17.03, "bits": 15.8, "was_score": 90.0,
            "score": 85.6, "changed": ["place_bits 8.65 to 2.90"],
        }  # fmt: skip
        return row | more

    gone = revised("c", withdrawn=True, bits=None, score=None, changed=None, reason=f"late_events{EVIL}")
    rows = revisions_of([gone, revised("b"), revised("a"), revised("a")])
    one = incident(supersedes=["0123456789abcdef"])
    text = incident_page(one, [finding()], [event()], Screen(200), revised=rows, late_minutes=1800)
    assert "Revised (3)" in text and "\x1b" not in text
    assert (
        "iam:CreateUser at 2026-02-23 04:00, a, b  17.0 bits, score 90.0 to 15.8 bits, score 85.6 "
        "(late history): place_bits 8.65 to 2.90"
    ) in text
    assert "c  " in text and "17.0 bits, score 90.0; no longer stands (late events" in text
    assert "taken in up to 1 d 6 h after it happened" in text
    assert "formerly  01234567" in text
