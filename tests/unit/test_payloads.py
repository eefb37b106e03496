"""What is posted of an incident: whole, within the receiver's limits, and inert whatever names hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raretrail.alerts.payloads import (
    FINDINGS_AT_MOST,
    SLACK_FIELD,
    SLACK_FIELDS,
    SLACK_HEADER,
    SLACK_TEXT,
    Format,
    gather,
    slack_message,
    to_payloads,
)
from raretrail.cli import main
from raretrail.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE
from raretrail.look import Look, open_duckdb
from raretrail.settings import load_settings
from raretrail.tables import ANOMALIES, EVENTS, INCIDENTS
from receiver import receiver
from small_warehouse import INCIDENT, make_small_warehouse
from warehouses import EVIL, organisation, write_tables

DETECTORS = load_settings()[0].detectors
FORMATS: tuple[Format, ...] = ("incident", "slack", "ecs", "ocsf")


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_small_warehouse(tmp_path_factory.mktemp("payloads") / "warehouse"))


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Look]:
    """Three incidents whose names hold whatever an intruder would write."""
    rows = organisation(3, evil=True)
    # Their findings say neither which events they are of nor when; one event each will do.
    for row in rows[ANOMALIES]:
        event = next(e for e in rows[EVENTS] if e["event_id"] == f"{int(row['incident_id'], 16)}-0")
        row |= {
            "evidence_event_ids": [event["event_id"]], "command": event["command"],
            "error_code": event["error_code"] or "", "first_time": event["event_time"],
            "last_time": event["event_time"], "summary": f"{row['command']} <!channel> & more",
        }  # fmt: skip
    root = write_tables(tmp_path_factory.mktemp("evil") / "w", rows)
    with open_duckdb(str(root)) as look:
        yield look


def payloads(look: Look, format: Format) -> dict[str, str]:
    incidents = look.rows(INCIDENTS)
    return to_payloads(format, incidents, *gather(look, incidents), DETECTORS)


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


@pytest.mark.parametrize("format", FORMATS)
def test_a_payload_is_one_text_for_one_incident(warehouse: str, format: Format) -> None:
    with open_duckdb(warehouse) as look:
        one, again = payloads(look, format), payloads(look, format)
    assert one == again
    assert list(one) == [INCIDENT]
    text = one[INCIDENT]
    assert text.isascii() and text.isprintable()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


def test_the_incident_has_its_columns_and_its_findings_sentences(warehouse: str) -> None:
    with open_duckdb(warehouse) as look:
        posted = json.loads(payloads(look, "incident")[INCIDENT])
        (incident,) = look.rows(INCIDENTS)
        findings = look.rows(ANOMALIES)
    assert list(posted["incident"]) == sorted(INCIDENTS.column_names)
    for name in ("incident_id", "score", "principal", "summary", "commands", "alert_revision"):
        assert posted["incident"][name] == incident[name]
    assert posted["incident"]["first_time"] == "2026-02-21T17:18:13Z"
    assert sorted(row["summary"] for row in posted["findings"]) == sorted(row["summary"] for row in findings)
    assert all("AccessDenied" in row["error_code"] or not row["error_code"] for row in posted["findings"])


@pytest.mark.parametrize("format", ["ecs", "ocsf"])
def test_documents_are_those_that_export_writes(
    warehouse: str, format: Format, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--warehouse", warehouse, "--format", format]) == EXIT_DONE
    exported = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    with open_duckdb(warehouse) as look:
        posted = json.loads(payloads(look, format)[INCIDENT])
    assert len(posted) == 10
    assert posted == exported


def test_documents_go_with_their_own_incident(evil: Look) -> None:
    for format in ("ecs", "ocsf"):
        made = payloads(evil, format)
        assert len(made) == 3
        for identity, text in made.items():
            documents = json.loads(text)
            assert len(documents) == 2
            for document in documents:
                own = document["raretrail"]["incident_id"] if format == "ecs" else None
                assert (own or document["metadata"]["correlation_uid"]) == identity
                assert document["cloud"]["region"] == "eu-west-1", "the finding's first event was there"


def test_an_incident_of_many_findings_is_told_by_its_most_surprising(tmp_path: Path) -> None:
    rows = organisation(1)
    (_, one) = rows[ANOMALIES]
    rows[ANOMALIES] = [
        {**one, "anomaly_id": f"{number:032x}", "bits": float(number)}
        for number in range(FINDINGS_AT_MOST + 50)
    ]
    root = write_tables(tmp_path, rows)
    with open_duckdb(str(root)) as look:
        posted = json.loads(payloads(look, "incident")[f"{0:032x}"])
    assert [row["bits"] for row in posted["findings"]] == [
        float(number) for number in range(FINDINGS_AT_MOST + 49, 49, -1)
    ]


# ------------------------------------------------------------------------------------------- Slack


def test_a_message_says_who_where_and_why(warehouse: str) -> None:
    with open_duckdb(warehouse) as look:
        message = json.loads(payloads(look, "slack")[INCIDENT])
    assert message["text"].startswith("high 86: user/farah.evans from Durban, ZA: nobody here in 90 days")
    assert [block["type"] for block in message["blocks"]] == [
        "header", "section", "section", "section", "context",
    ]  # fmt: skip
    fields = [field["text"] for field in message["blocks"][2]["fields"]]
    assert "*Addresses*\n105.2.150.54" in fields
    assert "*Found*\n10 findings in 5 events" in fields
    sentences = message["blocks"][3]["text"]["text"].split("\n")
    assert len(sentences) == len(set(sentences)) == 4, "each sentence once"
    assert message["blocks"][4]["elements"][0]["text"].startswith("raretrail show 48f5d7ce;")


def test_an_alert_that_comes_again_says_so(warehouse: str) -> None:
    with open_duckdb(warehouse) as look:
        (incident,) = look.rows(INCIDENTS)
        findings = look.rows(ANOMALIES)
    said = slack_message({**incident, "alert_revision": 2}, findings)["blocks"][-1]["elements"][0]["text"]
    assert said.endswith("alerted again (2)")


def test_names_do_nothing_in_slack(evil: Look) -> None:
    for text in payloads(evil, "slack").values():
        message = json.loads(text)
        for shown in texts(message):
            assert not re.search("[<>]", shown), shown
            assert not re.search(r"&(?!amp;|lt;|gt;)", shown), shown
            assert all(character.isprintable() or character == "\n" for character in shown), shown
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        assert "&lt;!channel&gt; &amp; more" in text
        objects = [block.get("text") for block in message["blocks"]]
        objects += [field for block in message["blocks"] for field in block.get("fields", ())]
        objects += [element for block in message["blocks"] for element in block.get("elements", ())]
        for one in filter(None, objects):
            assert one["type"] == "plain_text" or one["verbatim"] is True


@pytest.mark.parametrize("long", ["a" * 9000, "&" * 9000, "😀" * 9000, "<&😀" * 3000])
def test_a_message_keeps_to_the_limits_of_slack(warehouse: str, long: str) -> None:
    with open_duckdb(warehouse) as look:
        (incident,) = look.rows(INCIDENTS)
        findings = look.rows(ANOMALIES)
    names = {
        "principal": long, "place_name": long, "summary": long, "commands": [long] * 50,
        "source_ip_addresses": [long] * 50, "recipient_account_ids": [long] * 3,
    }  # fmt: skip
    told = [{**row, "summary": f"{number} {long}"} for number, row in enumerate(findings * 3)]
    for some in (told, []):
        message = slack_message({**incident, **names}, some)
        assert len(message["blocks"]) <= 50
        assert units(message["text"]) <= SLACK_TEXT
        header, *others = message["blocks"]
        assert units(header["text"]["text"]) <= SLACK_HEADER
        for block in others:
            assert len(block.get("fields", ())) <= SLACK_FIELDS
            assert 0 < units(block.get("text", {"text": "-"})["text"]) <= SLACK_TEXT
            for inner in [*block.get("fields", ()), *block.get("elements", ())]:
                assert 0 < units(inner["text"]) <= SLACK_FIELD
        for shown in texts(message):
            assert not re.search(r"&(?!amp;|lt;|gt;)", shown), "an entity is cut in two"
            shown.encode("utf-8")


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


@pytest.mark.parametrize("format", ["incident", "ecs", "ocsf"])
def test_names_come_out_as_they_went_in(evil: Look, format: Format) -> None:
    for text in payloads(evil, format).values():
        assert text.isascii() and text.isprintable()
        assert any(EVIL in inner for inner in texts(json.loads(text)))


# ----------------------------------------------------------------------------------- raretrail alert


def test_an_alert_is_shown_or_posted_once(
    warehouse: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RARETRAIL_WEBHOOK_URL", raising=False)
    monkeypatch.setenv("RARETRAIL_WEBHOOK_SECRET", "planted-secret")
    command = ["alert", INCIDENT[:8], "--warehouse", warehouse, "--format", "slack"]
    assert main(command) == EXIT_DONE
    shown = capsys.readouterr().out.strip()
    assert main([*command, "--send"]) == EXIT_USAGE
    assert "RARETRAIL_WEBHOOK_URL" in capsys.readouterr().err
    with receiver(tmp_path, ["200", "500|T0KEN"]) as server:
        monkeypatch.setenv("RARETRAIL_WEBHOOK_URL", f"{server.base}/T0KEN")
        assert main([*command, "--send"]) == EXIT_DONE
        told = capsys.readouterr().out
        assert told.startswith(f"127.0.0.1 took it; signed, Idempotency-Key try:{INCIDENT}:")
        (request,) = server.requests()
        assert request["body"] == shown
        assert main([*command, "--send"]) == EXIT_FAILED
        told += capsys.readouterr().err
        assert "alert to 127.0.0.1: answered 500 Internal Server Error" in told
        assert len(server.requests()) == 2
    assert "T0KEN" not in told and "planted-secret" not in told
