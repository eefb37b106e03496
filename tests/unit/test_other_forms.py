"""Records kept as OCSF or as a table's rows become the events that the trail's own files become."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from factories import ABSENT, record
from other_forms import Json, athena_of, ocsf_of, snake_of
from raretrail.cloudtrail import flattened, ocsf
from raretrail.cloudtrail.decode import DEFAULT_LIMITS, decode_file
from raretrail.cloudtrail.documents import read_document
from raretrail.cloudtrail.principals import load_rules
from raretrail.settings import default_conf_dir
from raretrail.tables import DECODED_COLUMNS

ROOT = Path(__file__).resolve().parents[2]
NAMES = [column.name for column in DECODED_COLUMNS]
RULES = load_rules(default_conf_dir() / "principals.yml")
JSON_COLUMNS = {
    "request_parameters", "response_elements", "additional_event_data", "service_event_details",
    "resources", "session_context", "tls_details", "addendum", "other_fields",
}  # fmt: skip
# Where a record stood and the hash of its text differ between the forms.
OF_THE_TEXT = {"record_hash", "source_file", "source_position"}
# What OCSF has no place for, as docs/ingest.md says.
NOT_IN_OCSF = {"session_context", "other_fields", "additional_event_data", "tls_details", "addendum"} | {
    "corrects_event_id",
    "service_event_details", "session_credential_from_console", "user_identity_user_name",
}  # fmt: skip


def _shared() -> Path | None:
    for folder in (ROOT.parent / "shared" / "data", ROOT.parent.parent / "shared" / "data"):
        if (folder / "cloudtrail").is_dir():
            return folder / "cloudtrail"
    return None


def _real() -> Iterator[Json]:
    """Records of two public trails, as delivered."""
    shared = _shared()
    assert shared
    for name in ("invictus", "umccr"):
        for path in sorted((shared / name).rglob("*.json*")):
            for piece in read_document(path.read_bytes(), DEFAULT_LIMITS).pieces:
                try:
                    found = json.loads(bytes(piece))  # type: ignore[arg-type]
                except (ValueError, TypeError):
                    continue
                if isinstance(found, dict) and {"eventID", "eventTime", "eventName"} <= found.keys():
                    yield found


def _distinct() -> list[Json]:
    return list({(one["eventID"], one["eventName"]): one for one in _real()}.values())


def _is_federated(one: Json) -> bool:
    """Whether who it was stands where OCSF has no place for it."""
    session = (one.get("userIdentity") or {}).get("sessionContext") or {}
    return bool(session.get("sourceIdentity") or session.get("webIdFederationData"))


def _events(records: list[Json]) -> dict[tuple[Any, ...], Json]:
    lines = "\n".join(json.dumps(one) for one in records).encode()
    result = decode_file("/t/x.json", lines, rules=RULES)
    assert not result.quarantined, result.quarantined[:2]
    rows = [dict(zip(NAMES, row, strict=True)) for row in result.rows]
    return {(row["recipient_account_id"], row["event_id"], row["event_name"]): row for row in rows}


def _comparable(row: Json, without: set[str]) -> Json:
    kept = {name: value for name, value in row.items() if name not in without | OF_THE_TEXT}
    return {name: _read(value) if name in JSON_COLUMNS else value for name, value in kept.items()}


def _read(value: Any) -> Any:
    """JSON text as what it says; parts that are null or empty are as good as absent."""
    return (_bare(json.loads(value)) if value else None) or None


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _bare(one) for name, one in value.items() if one not in (None, "", {}, [])}
    return [_bare(one) for one in value] if isinstance(value, list) else value


def _differences(records: list[Json], form: Callable[[Json], Json], without: set[str]) -> list[str]:
    delivered, converted = _events(records), _events([form(one) for one in records])
    assert delivered.keys() == converted.keys()
    said = []
    for key, row in delivered.items():
        one, other = _comparable(row, without), _comparable(converted[key], without)
        said += [f"{key} {name}: {one[name]!r} {other[name]!r}" for name in one if one[name] != other[name]]
    return said


@pytest.mark.skipif(_shared() is None, reason="no shared/data beside the checkout")
@pytest.mark.parametrize("form", [athena_of, snake_of])
def test_rows_of_real_records_become_the_same_events(form: Callable[[Json], Json]) -> None:
    records = _distinct()
    assert len(records) > 2000
    assert not _differences(records, form, set())[:5]


@pytest.mark.skipif(_shared() is None, reason="no shared/data beside the checkout")
@pytest.mark.parametrize("version", ["1.1.0", "1.0.0-rc.2"])
def test_ocsf_of_real_records_becomes_the_same_events(version: str) -> None:
    records = [one for one in _distinct() if not _is_federated(one)]
    # The first version kept them as a map of text, which has lost their types.
    lost = {"request_parameters", "response_elements", "resources"} if version != "1.1.0" else set()
    assert not _differences(records, lambda one: ocsf_of(one, version), NOT_IN_OCSF | lost)[:5]


def test_ocsf_of_another_product_is_no_record() -> None:
    event = ocsf_of(record())
    event["metadata"]["product"]["name"] = "Route 53"
    result = decode_file("/t/x.json", json.dumps(event).encode(), rules=RULES)
    assert [piece.reason for piece in result.quarantined] == ["not_cloudtrail"]


def test_fields_that_ocsf_flattened_are_put_together_again() -> None:
    event = {
        "metadata": {"product": {"name": "CloudTrail"}},
        "class_uid": 6003,
        "unmapped": {
            "requestParameters.a": "b",
            "requestParameters.tag.key": "k",
            "readOnly": "true",
        },
    }
    made = json.loads(ocsf.to_record(event) or b"")
    assert made == {"requestParameters": {"a": "b", "tag": {"key": "k"}}, "readOnly": "true"}


def test_a_failed_sign_in_of_ocsf_fails_here_too() -> None:
    one = record(
        {"eventSource": "signin.amazonaws.com", "eventName": "ConsoleLogin", "requestParameters": None,
         "responseElements": None}
    )  # fmt: skip
    event = ocsf_of(one) | {"status": "Failure", "class_uid": 3002}
    [row] = _events([event]).values()
    assert row["error_code"] == "Failure"


@pytest.mark.parametrize("hostile", [None, 3, "x", [], {}, [[1]], {"a": {"b": 1}}])
def test_values_of_any_type_raise_nothing(hostile: Any) -> None:
    for name in ("metadata", "actor", "api", "time", "unmapped", "resources"):
        event = ocsf_of(record()) | {name: hostile}
        decode_file("/t/x.json", json.dumps(event).encode(), rules=RULES)
    for name in ("useridentity", "eventtime", "resources", "requestparameters"):
        row = athena_of(record()) | {name: hostile}
        decode_file("/t/x.json", json.dumps(row).encode(), rules=RULES)


def test_a_delivered_record_is_no_row() -> None:
    assert not flattened.is_flattened(record().keys())
    assert flattened.is_flattened(athena_of(record()).keys())
    assert flattened.is_flattened(snake_of(record()).keys())


@pytest.mark.parametrize("form", [dict, athena_of, snake_of])
def test_a_record_without_its_time_and_name_is_set_aside_and_no_row_for_ever(
    form: Callable[[Json], Json],
) -> None:
    made = form(record(eventTime=ABSENT, eventName=ABSENT))
    result = decode_file("s3://trail/one.json", json.dumps(made).encode(), rules=RULES)
    assert (result.records, len(result.quarantined)) == (1, 1)


def test_a_text_that_nests_too_deep_takes_nothing_down() -> None:
    """A row is still read by its keys, the text as a text; an OCSF event is set aside."""
    deep = "[" * 10_000 + "]" * 10_000
    row, event = athena_of(record()), ocsf_of(record(), "1.1.0")
    row["requestparameters"] = event["api"].setdefault("request", {})["data"] = deep
    for made, aside in ((row, 0), (event, 1)):
        result = decode_file("s3://trail/one.json", json.dumps(made).encode(), rules=RULES)
        assert (result.records, len(result.quarantined)) == (1, aside)


def test_the_manual_says_where_ocsf_keeps_what() -> None:
    manual = (ROOT / "docs" / "ingest.md").read_text()
    for name, places in ocsf.MAPPING.items():
        assert f"| `{name}` | {', '.join(f'`{place}`' for place in places)} |" in manual
