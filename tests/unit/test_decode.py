"""Reading a trail's files: one test for each oddity of the field that concerns reading."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import random
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factories import ABSENT, record, to_json, trail_file
from raretrail.cloudtrail.decode import (
    CENSUS_COLUMNS,
    QUARANTINED_COLUMNS,
    FileResult,
    census,
    census_batch,
    decode_file,
    events_batch,
    events_batches,
    quarantine_batch,
)
from raretrail.cloudtrail.documents import Limits, compact
from raretrail.cloudtrail.principals import load_rules
from raretrail.tables import DECODED_COLUMNS, QUARANTINE_REASONS, Table

RULES = load_rules(Path(__file__).parents[2] / "conf" / "principals.yml")
DATA = Path(__file__).parents[3] / "shared/data/cloudtrail"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no shared/data beside the checkout")

NAMES = [column.name for column in DECODED_COLUMNS]
PATH = (
    "AWSLogs/222222222222/CloudTrail/eu-west-1/2024/03/01/"
    "222222222222_CloudTrail_eu-west-1_20240301T0935Z_aBcDeFgHiJkLmNoP.json.gz"
)


def read(data: bytes, path: str = "file.json", **options: Any) -> FileResult:
    """The full reading, once the census agrees with it and the file balances."""
    full = decode_file(path, data, rules=RULES, **options)
    counted = census(path, data, **options)
    assert_agree(full, counted)
    return full


def assert_agree(full: FileResult, counted: FileResult) -> None:
    """Both readings found the same records in the same places, and none is unaccounted for."""
    wanted = [NAMES.index(column.name) for column in CENSUS_COLUMNS]
    if full.columns or counted.columns:
        assert [full.columns[i] for i in wanted] == counted.columns
    assert full.quarantined == counted.quarantined
    for name in ("status", "shape", "detail", "records", "content_hash", "bytes"):
        assert getattr(full, name) == getattr(counted, name)
    for result in (full, counted):
        assert result.records == result.accepted + len(result.quarantined)
        assert (result.status == "taken") == (result.records > 0)
    positions = [*full.columns[NAMES.index("source_position")]] if full.columns else []
    positions += [quarantined.source_position for quarantined in full.quarantined]
    assert sorted(positions) == list(range(full.records))
    assert {quarantined.reason for quarantined in full.quarantined} <= set(QUARANTINE_REASONS)


def events(result: FileResult) -> list[dict[str, Any]]:
    return events_batch([result]).to_pylist()


def event(overrides: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The event that one record becomes."""
    [found] = events(read(trail_file([record(overrides, **more)])))
    return found


def reasons(result: FileResult) -> list[str]:
    return [quarantined.reason for quarantined in result.quarantined]


# ------------------------------------------------------------------------------------ one record


def test_every_column_of_a_delivered_record() -> None:
    made = record(
        errorCode="AccessDenied",
        errorMessage="User: arn:aws:iam::123456789012:user/x is not authorized",
        additionalEventData={"a": 1},
        serviceEventDetails={"b": 2},
        resources=[{"ARN": "arn:aws:s3:::c"}],
        tlsDetails={"tlsVersion": "TLSv1.3"},
        addendum={"reason": "DELIVERY_DELAY"},
        sharedEventID="shared",
        vpcEndpointId="vpce-1",
        vpcEndpointAccountId="999999999999",
        apiVersion="2012-08-10",
        sessionCredentialFromConsole="true",
    )
    data = trail_file([made])
    result = read(data, PATH)
    assert (result.status, result.shape, result.records) == ("taken", "records", 1)
    assert result.content_hash == hashlib.blake2b(data, digest_size=16).hexdigest()
    assert events(result) == [
        {
            "event_time": datetime(2024, 3, 1, 9, 30, tzinfo=UTC),
            "event_date": date(2024, 3, 1),
            "event_id": made["eventID"],
            "recipient_account_id": "123456789012",
            "event_version": "1.08",
            "event_type": "AwsApiCall",
            "event_category": "Management",
            "management_event": True,
            "read_only": False,
            "event_source": "iam.amazonaws.com",
            "event_name": "CreateUser",
            "command": "iam:CreateUser",
            "aws_region": "eu-west-1",
            "source_ip_address": "203.0.113.7",
            "user_agent": "aws-cli/2.13.5 Python/3.11.4 Linux/5.10 exe/x86_64.ubuntu.22",
            "agent_family": "aws-cli/2 (Linux)",
            "principal": "arn:aws:iam::123456789012:role/Admin/ana@example.com",
            "principal_kind": "person",
            "actor": "ana",
            "user_identity_type": "AssumedRole",
            "user_identity_arn": "arn:aws:sts::123456789012:assumed-role/Admin/ana@example.com",
            "user_identity_principal_id": "AROAEXAMPLE:ana@example.com",
            "user_identity_account_id": "123456789012",
            "user_identity_user_name": "Admin",
            "user_identity_invoked_by": None,
            "access_key_id": "ASIAEXAMPLE",
            "session_issuer_arn": "arn:aws:iam::123456789012:role/Admin",
            "session_name": "ana@example.com",
            "session_created_at": datetime(2024, 3, 1, 8, tzinfo=UTC),
            "mfa_authenticated": True,
            "error_code": "AccessDenied",
            "error_message": "User: arn:aws:iam::123456789012:user/x is not authorized",
            "error_template": "User: <arn> is not authorized",
            "request_parameters": '{"userName":"bo"}',
            "response_elements": None,
            "additional_event_data": '{"a":1}',
            "service_event_details": '{"b":2}',
            "resources": '[{"ARN":"arn:aws:s3:::c"}]',
            "session_context": to_json(made["userIdentity"]["sessionContext"]).decode(),
            "tls_details": '{"tlsVersion":"TLSv1.3"}',
            "addendum": '{"reason":"DELIVERY_DELAY"}',
            "corrects_event_id": None,
            "other_fields": '{"apiVersion":"2012-08-10","vpcEndpointAccountId":"999999999999"}',
            "request_id": made["requestID"],
            "shared_event_id": "shared",
            "vpc_endpoint_id": "vpce-1",
            "session_credential_from_console": True,
            "record_hash": hashlib.blake2b(to_json(made), digest_size=16).hexdigest(),
            "source_file": PATH,
            "source_position": 0,
        }
    ]


def test_batches_have_the_types_of_the_tables() -> None:
    result = read(trail_file([record(), record(eventTime="x")]))
    assert events_batch([result]).schema == Table("", "", DECODED_COLUMNS, ()).arrow_schema()
    counted = census("file.json", trail_file([record()]))
    assert census_batch([counted]).schema == Table("", "", CENSUS_COLUMNS, ()).arrow_schema()
    quarantined = quarantine_batch([result])
    assert quarantined.schema == Table("", "", QUARANTINED_COLUMNS, ()).arrow_schema()
    assert quarantined.num_rows == 1
    for empty in (events_batch([]), census_batch([]), quarantine_batch([])):
        assert empty.num_rows == 0


def test_batches_are_bounded_by_rows_and_by_text() -> None:
    results = [read(trail_file([record() for _ in range(7)])) for _ in range(4)]
    batches = list(events_batches(results, rows=10))
    assert [batch.num_rows for batch in batches] == [10, 10, 8]
    assert pa.Table.from_batches(batches).to_pylist() == [e for r in results for e in events(r)]
    assert [b.num_rows for b in events_batches(results, text_bytes=17)] == [1] * 28
    assert list(events_batches([])) == []


def test_nested_json_stays_byte_for_byte() -> None:
    text = r'{"b":1.0e5,"a":"\u00e9\/é","n":12345678901234567890123,"a":[ ]}'
    data = trail_file([record(requestParameters="HERE")], compressed=False)
    data = data.replace(b'"HERE"', text.encode())
    [found] = events(read(data))
    assert found["request_parameters"] == text.replace("[ ]", "[]")


def test_keys_that_differ_only_in_case() -> None:
    found = event(requestParameters={"Tagging": "a", "tagging": {"TagSet": [], "tagSet": []}})
    assert found["request_parameters"] == ('{"Tagging":"a","tagging":{"TagSet":[],"tagSet":[]}}')


@pytest.mark.parametrize("value", ["a text", ["a", "list"], 1, 1.5, True, {}, "", []])
def test_request_and_response_of_any_type(value: Any) -> None:
    found = event(requestParameters=value, responseElements=value, resources=value)
    for name in ("request_parameters", "response_elements", "resources"):
        assert json.loads(found[name]) == value


@pytest.mark.parametrize("value", [None, ABSENT])
def test_null_and_absent_request(value: Any) -> None:
    found = event(requestParameters=value, userAgent=value, sourceIPAddress=value)
    assert found["request_parameters"] is None
    assert found["user_agent"] is None
    assert found["agent_family"] is None
    assert found["source_ip_address"] is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), ("true", True), ("True", True), ("false", False), (None, None), ("no", None)],
)
def test_flags_as_text(value: Any, expected: bool | None) -> None:
    found = event(readOnly=value, managementEvent=value, sessionCredentialFromConsole=value)
    assert found["read_only"] is expected
    assert found["management_event"] is expected
    assert found["session_credential_from_console"] is expected


@pytest.mark.parametrize(
    "value", [None, ABSENT, "a text", "", 7, [], ["x"], {}, {"type": None}, {"type": 5, "arn": []}]
)
def test_identity_of_any_type_never_fails(value: Any) -> None:
    found = event(userIdentity=ABSENT) if value is ABSENT else None
    if found is None:
        made = record()
        made["userIdentity"] = value
        [found] = events(read(trail_file([made])))
    assert found["principal_kind"] in ("unknown", "user")
    assert found["principal"]


def test_identity_written_as_text_by_an_export() -> None:
    made = record()
    made["userIdentity"] = json.dumps(made["userIdentity"])
    [found] = events(read(trail_file([made])))
    assert found["principal"] == "arn:aws:iam::123456789012:role/Admin/ana@example.com"
    assert found["mfa_authenticated"] is True


@pytest.mark.parametrize("value", ["text", None, [], {"sessionIssuer": 1, "attributes": "x"}])
def test_session_context_of_any_type(value: Any) -> None:
    made = record()
    made["userIdentity"]["sessionContext"] = value
    [found] = events(read(trail_file([made])))
    assert found["mfa_authenticated"] is None
    assert found["session_created_at"] is None
    assert found["principal"] == "arn:aws:iam::123456789012:role/Admin/ana@example.com"


@pytest.mark.parametrize(("value", "expected"), [("false", False), (False, False), ("true", True)])
def test_mfa_is_a_text_or_a_flag(value: Any, expected: bool) -> None:
    found = event({"userIdentity.sessionContext.attributes.mfaAuthenticated": value})
    assert found["mfa_authenticated"] is expected


def test_user_agent_as_a_list() -> None:
    found = event(userAgent=["aws-cli/2.1", "x"])
    assert found["user_agent"] == '["aws-cli/2.1","x"]'
    assert found["agent_family"] == "aws-cli/2"


def test_unknown_top_level_keys_are_kept() -> None:
    found = event({"zNew": {"k": [1, 2.0]}, "aNew": None, "é": "x"}, apiVersion="1")
    assert found["other_fields"] == ('{"aNew":null,"apiVersion":"1","zNew":{"k":[1,2.0]},"\\u00e9":"x"}')
    assert found["request_parameters"] == '{"userName":"bo"}'


@pytest.mark.parametrize("key", ["other", "records", "hash"])
def test_no_key_of_a_record_reaches_what_only_we_fill(key: str) -> None:
    # A text of base64 under the name of a field of ours was once taken for its bytes.
    found = event({key: "aGVsbG8gd29ybGQh"})
    assert found["other_fields"] == json.dumps({key: "aGVsbG8gd29ybGQh"}, separators=(",", ":"))


def _identities() -> list[dict[str, Any]]:
    made: dict[str, Any] = record()["userIdentity"]
    context = made["sessionContext"]
    return [
        {},
        {"type": None},
        made,
        {**made, "sessionContext": None},
        {**made, "sessionContext": {**context, "webIdFederationData": {}, "sourceIdentity": "ana"}},
        {**made, "sessionContext": {"attributes": {"mfaAuthenticated": "false"}}},
        {"type": "IAMUser", "arn": "arn:aws:iam::1:user/é", "userName": "é", "accessKeyId": ""},
        {"type": "AWSService", "invokedBy": "config.amazonaws.com"},
        {"type": "WebIdentityUser", "identityProvider": "accounts.google.com", "userName": "x"},
    ]


@pytest.mark.parametrize("identity", _identities(), ids=str)
def test_both_looks_at_an_identity_see_the_same(identity: dict[str, Any]) -> None:
    def identified(identity: dict[str, Any]) -> dict[str, Any]:
        made = record()
        made["userIdentity"] = identity
        [found] = events(read(trail_file([made])))
        return {
            key: found[key] for key in NAMES if key.startswith(("user", "session", "princ", "mfa", "acc"))
        }

    # A key that nobody knows leads to the tolerant look.
    assert identified(identity) == identified({**identity, "zNew": 1})


def test_keys_in_small_letters_as_athena_exports_them() -> None:
    made = {key.lower(): value for key, value in record().items()}
    [found] = events(read(to_json(made)))
    assert found["command"] == "iam:CreateUser"
    assert found["event_id"] == made["eventid"]
    assert found["principal"] == "arn:aws:iam::123456789012:role/Admin/ana@example.com"
    assert found["other_fields"] is None


def test_the_exact_key_goes_before_its_misspelling() -> None:
    found = event({"eventid": "wrong"}, eventID="right")
    assert found["event_id"] == "right"
    assert found["other_fields"] == '{"eventid":"wrong"}'


def test_version_1_10_is_no_number() -> None:
    assert event(eventVersion="1.10")["event_version"] == "1.10"


def test_version_1_0_lacks_type_account_and_id() -> None:
    found = event(eventVersion="1.0", eventType=ABSENT, recipientAccountId=ABSENT, eventID=ABSENT)
    assert found["event_type"] is None
    assert found["recipient_account_id"] == "123456789012"


def test_values_with_nul_and_characters_outside_the_plane() -> None:
    found = event(userAgent="a\0b 🛰 \u202e", eventName="Málaga")
    assert found["user_agent"] == "a\0b 🛰 \u202e"
    assert found["command"] == "iam:Málaga"


def test_failed_console_sign_in_has_no_error_code_of_its_own() -> None:
    failed = {
        "eventSource": "signin.amazonaws.com",
        "eventName": "ConsoleLogin",
        "eventType": "AwsConsoleSignIn",
        "errorMessage": "Failed authentication",
    }
    assert event(failed, responseElements={"ConsoleLogin": "Failure"})["error_code"] == "Failure"
    assert event(failed, responseElements={"ConsoleLogin": "Success"})["error_code"] is None
    assert event(failed, responseElements=None)["error_code"] is None
    named = event(failed, responseElements={"ConsoleLogin": "Failure"}, errorCode="Denied")
    assert named["error_code"] == "Denied"


@pytest.mark.parametrize(
    ("source", "name", "command"),
    [
        ("iam.amazonaws.com", "CreateUser", "iam:CreateUser"),
        ("transfer.amazonaws.com", "CreateUser", "transfer:CreateUser"),
        ("s3.amazonaws.com.cn", "GetObject", "s3:GetObject"),
        ("lambda.amazonaws.com", "CreateFunction20150331", "lambda:CreateFunction20150331"),
        ("custom.example", "Do", "custom.example:Do"),
        (None, "Do", "unknown:Do"),
    ],
)
def test_command_is_service_and_action(source: str | None, name: str, command: str) -> None:
    assert event(eventSource=source, eventName=name)["command"] == command


# ---------------------------------------------------------------------------- id, account and hash


@pytest.mark.parametrize("missing", [ABSENT, None, ""])
def test_missing_event_id_becomes_the_hash_of_the_record(missing: Any) -> None:
    made = record(eventID=missing)
    [found] = events(read(trail_file([made])))
    assert found["event_id"] == "sha256:" + hashlib.sha256(to_json(made)).hexdigest()


def test_missing_account_is_that_of_the_identity_then_of_the_path_then_unknown() -> None:
    def account(overrides: dict[str, Any], path: str) -> str:
        made = record(overrides, recipientAccountId=ABSENT)
        [found] = events(read(trail_file([made]), path))
        return str(found["recipient_account_id"])

    assert account({}, PATH) == "123456789012"
    assert account({"userIdentity": {"accountId": ABSENT}}, PATH) == "222222222222"
    assert account({"userIdentity": {"accountId": "ANONYMOUS_PRINCIPAL"}}, PATH) == "222222222222"
    assert account({"userIdentity": {"accountId": ABSENT}}, "x.json") == "unknown"


def test_account_of_the_record_goes_before_all_others() -> None:
    [found] = events(read(trail_file([record(recipientAccountId="333333333333")]), PATH))
    assert found["recipient_account_id"] == "333333333333"


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        ("012345678901", "012345678901"),
        (12345678901, "012345678901"),
        ("5.28758E+11", "5.28758E+11"),
        ("YOUR_ACCOUNT_ID", "YOUR_ACCOUNT_ID"),
        ("123456789", "123456789"),
    ],
)
def test_account_is_text_with_its_leading_zeros(account: Any, expected: str) -> None:
    assert event(recipientAccountId=account)["recipient_account_id"] == expected


def test_pretty_printed_copy_is_the_same_event() -> None:
    made = [record(requestParameters={"policy": '{"a": [1, 2]}', "list": [1, {"b": []}]})]
    delivered = read(trail_file(made))
    copies = [
        read(to_json({"Records": made}, indent=4)),
        read(json.dumps({"Records": made}, ensure_ascii=False).encode()),
        read(to_json(made, indent=2)),
        read(to_json(made[0], indent="\t")),  # type: ignore[arg-type]
        read(to_json({"Records": made}, indent=4).replace(b"\n", b"\r\n")),
    ]
    for copy in copies:
        assert events(copy) == events(delivered)


@pytest.mark.parametrize(
    ("delivered", "pretty"),
    [
        (
            "trailscraper/tests/cloudtrail/data/"
            "111111111111_CloudTrail_eu-central-1_20171211T1505Z_A6kvhMoVeCsc7v8U.json",
            "trailscraper/tests/smoke/events-for-smoke-test.json",
        ),
        (
            "traildiscover/docs/logExamples/IAM-ListAccessKeys.json.cloudtrail",
            "traildiscover/docs/logExamples/ListAccessKeys.json.cloudtrail",
        ),
    ],
)
@needs_data
def test_published_copies_hash_alike(delivered: str, pretty: str) -> None:
    first, second = (
        {found["event_id"]: found["record_hash"] for found in events(read((DATA / p).read_bytes()))}
        for p in (delivered, pretty)
    )
    assert first.keys() & second.keys()
    for event_id in first.keys() & second.keys():
        assert first[event_id] == second[event_id]


# ------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2024-03-01T09:30:00Z", datetime(2024, 3, 1, 9, 30)),
        ("2022-12-11 19:42:55", datetime(2022, 12, 11, 19, 42, 55)),
        ("2024-01-01 00:00:00.000", datetime(2024, 1, 1)),
        ("2025-01-20 16:52:14.123456789", datetime(2025, 1, 20, 16, 52, 14, 123456)),
        ("2022-02-08T09:23:37+11:00", datetime(2022, 2, 7, 22, 23, 37)),
        ("2022-02-08 09:23:37-0230", datetime(2022, 2, 8, 11, 53, 37)),
        ("2024-03-01T09:30:00.5Z", datetime(2024, 3, 1, 9, 30, 0, 500000)),
        ("2024-03-01 09:30:00 UTC", datetime(2024, 3, 1, 9, 30)),
        ("20131102T010628Z", datetime(2013, 11, 2, 1, 6, 28)),
        (1709285400, datetime(2024, 3, 1, 9, 30)),
        (1709285400.25, datetime(2024, 3, 1, 9, 30, 0, 250000)),
        (1709285400123, datetime(2024, 3, 1, 9, 30, 0, 123000)),
        ("1709285400", datetime(2024, 3, 1, 9, 30)),
        (1.7092854e9, datetime(2024, 3, 1, 9, 30)),
        ("2000-01-01T00:00:00Z", datetime(2000, 1, 1)),
        ("2099-12-31T23:59:59Z", datetime(2099, 12, 31, 23, 59, 59)),
    ],
)
def test_times_in_any_form(written: Any, expected: datetime) -> None:
    found = event(eventTime=written)
    assert found["event_time"] == expected.replace(tzinfo=UTC)
    assert found["event_date"] == expected.date()


@pytest.mark.parametrize(
    "written",
    ["...", "redacted", "1970-01-01T00:00:00.000Z", "2100-01-01T00:00:00Z", "2024-02-30T00:00:00Z",
     "1999-12-31T23:59:59Z", "2024-03-01T24:00:00Z", "2024-03-01T09:30Z", 0, -5, [], {}, True,
     "٢٠٢٤-03-01T09:30:00Z", "2024-03-01"],
)  # fmt: skip
def test_no_time_between_2000_and_2100(written: Any) -> None:
    assert reasons(read(trail_file([record(eventTime=written)]))) == ["bad_event_time"]


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"eventTime": ABSENT}, "missing_event_time"),
        ({"eventTime": None}, "missing_event_time"),
        ({"eventName": ABSENT}, "missing_event_name"),
        ({"eventName": ""}, "missing_event_name"),
        ({"eventVersion": "2.1"}, "unsupported_version"),
        ({"eventVersion": "10.0"}, "unsupported_version"),
        ({"eventVersion": "2.1", "eventSource": "aws:s3"}, "s3_notification"),
    ],
)
def test_records_that_cannot_be_taken(overrides: dict[str, Any], reason: str) -> None:
    good, bad = record(), record(overrides)
    result = read(trail_file([good, bad, good]))
    [found] = result.quarantined
    assert (found.reason, found.source_position, result.accepted) == (reason, 1, 2)
    assert json.loads(found.raw) == bad
    assert found.raw_bytes == len(to_json(bad))
    assert found.record_hash == hashlib.blake2b(to_json(bad), digest_size=16).hexdigest()
    assert found.event_id == bad["eventID"]
    assert found.recipient_account_id == "123456789012"
    if "eventTime" not in overrides:
        assert found.event_time == 1709285400_000000


@pytest.mark.parametrize("version", [ABSENT, None, "...", "1", "1.08", 1.08])
def test_versions_that_can_be_taken(version: Any) -> None:
    assert read(trail_file([record(eventVersion=version)])).accepted == 1


def test_elements_that_are_no_objects() -> None:
    result = read(to_json({"Records": [record(), None, "text", 5, [record()], record()]}))
    assert reasons(result) == ["not_an_object"] * 4
    assert result.accepted == 2


def test_s3_notification() -> None:
    notification = {
        "Records": [
            {"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
             "eventTime": "1970-01-01T00:00:00.000Z", "userIdentity": {"principalId": "x"}}
        ]
    }  # fmt: skip
    assert reasons(read(to_json(notification))) == ["s3_notification"]


@pytest.mark.parametrize("value", [{"a": 1}, {}, {"eventName": "x"}, {"Statement": [], "Version": 1}])
def test_json_of_another_kind(value: Any) -> None:
    assert reasons(read(to_json(value))) == ["not_cloudtrail"]


@pytest.mark.parametrize("text", [b"1", b'"x"', b"null", b"true"])
def test_json_that_is_no_document(text: bytes) -> None:
    assert reasons(read(text)) == ["not_json"]


def test_record_over_the_bound() -> None:
    big = record(requestParameters={"policy": "x" * 5000})
    result = read(trail_file([record(), big]), limits=Limits(record=4000, raw=1000))
    [found] = result.quarantined
    assert (found.reason, found.source_position) == ("too_large", 1)
    assert len(found.raw) == 1000
    assert found.raw_bytes == len(to_json(big))


def test_request_of_a_hundred_kilobytes_is_taken_whole() -> None:
    text = "x" * 100_000
    assert len(event(requestParameters={"policy": text})["request_parameters"]) > 100_000


def test_insights_among_events_are_set_aside_and_alone_are_skipped() -> None:
    insight = {
        "eventVersion": "1.07", "eventTime": "2024-03-01T09:30:00Z", "awsRegion": "eu-west-1",
        "eventID": "i", "eventType": "AwsCloudTrailInsight", "recipientAccountId": "123456789012",
        "insightDetails": {"state": "Start"}, "eventCategory": "Insight",
    }  # fmt: skip
    mixed = read(to_json({"Records": [insight, record()]}))
    assert (reasons(mixed), mixed.accepted) == (["insight"], 1)
    alone = read(to_json({"Records": [insight, insight]}))
    assert (alone.status, alone.shape, alone.records) == ("skipped", "insight", 0)
    assert alone.detail == "2 Insights records"


def test_digest_is_skipped() -> None:
    digest = {"awsAccountId": "1", "digestStartTime": "x", "digestS3Object": "x", "logFiles": []}
    result = read(gzip.compress(to_json(digest)))
    assert (result.status, result.shape, result.records) == ("skipped", "digest", 0)


# ------------------------------------------------------------------------------------------ shapes


def _shapes(made: list[dict[str, Any]]) -> dict[str, bytes]:
    lookup = [{"EventId": r["eventID"], "CloudTrailEvent": json.dumps(r)} for r in made]
    bus = [
        {"version": "0", "detail-type": "AWS API Call via CloudTrail", "source": "aws.iam",
         "account": "1", "time": "x", "region": "y", "resources": [], "detail": r}
        for r in made
    ]  # fmt: skip
    wrapped = [{"aws": {"cloudtrail": r}} for r in made]

    def lines(values: list[Any]) -> bytes:
        return b"\n".join(to_json(value) for value in values)

    return {
        "records": to_json({"Records": made}),
        "records-pretty": to_json({"Records": made}, indent=2),
        "records-not-first": to_json({"other": {"Records": 1}, "Records": made}),
        "array": to_json(made),
        "array-pretty": to_json(made, indent=2),
        "json_lines": lines(made),
        "json_lines-crlf": b"\r\n".join(to_json(r) for r in made) + b"\r\n\r\n",
        "json_lines-pretty": b"\n".join(to_json(r, indent=2) for r in made),
        "json_lines-glued": b"".join(to_json(r) for r in made),
        "json_lines-envelopes": lines([{"Records": [r]} for r in made]),
        "records-glued": b"".join(to_json({"Records": [r]}) for r in made),
        "json_lines-arrays": lines([[r] for r in made]),
        "array-envelopes": to_json([{"Records": made[:1]}, {"Records": made[1:]}]),
        "lookup_events": to_json({"Events": lookup}),
        "lookup_events-pretty": to_json({"Events": lookup}, indent=4),
        "json_lines-lookup": lines(lookup),
        "array-lookup": to_json(lookup),
        "json_lines-eventbridge": lines(bus),
        "array-eventbridge": to_json(bus),
        "array-wrapped": to_json(wrapped),
    }


@pytest.mark.parametrize("shape", list(_shapes([record()])))
def test_every_shape_gives_the_same_events(shape: str) -> None:
    made = [record(), record(eventName="DeleteUser"), record(userIdentity={"type": "Root"})]
    expected = events(read(to_json({"Records": made})))
    result = read(_shapes(made)[shape])
    assert result.shape == shape.partition("-")[0]
    assert [e["event_id"] for e in events(result)] == [r["eventID"] for r in made]
    if "lookup" not in shape:  # json.dumps above writes spaces and escapes
        assert events(result) == expected
    else:
        for found, wanted in zip(events(result), expected, strict=True):
            assert found == wanted


@pytest.mark.parametrize(
    ("wrap", "shape"),
    [
        (lambda r: r, "single"),
        (lambda r: {"version": "0", "detail-type": "x", "detail": r}, "eventbridge"),
        (lambda r: {"EventId": "1", "CloudTrailEvent": json.dumps(r)}, "lookup_events"),
        (lambda r: {"aws": {"cloudtrail": r}}, "aws.cloudtrail"),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_single_event(wrap: Any, shape: str, indent: int | None) -> None:
    made = record()
    result = read(to_json(wrap(made), indent))
    assert result.shape == shape
    assert [e["record_hash"] for e in events(result)] == [
        hashlib.blake2b(to_json(made), digest_size=16).hexdigest()
    ]


def test_eventbridge_event_of_another_service() -> None:
    value = {"version": "0", "detail-type": "EC2 State-change", "detail": {"state": "running"}}
    assert reasons(read(to_json(value))) == ["not_cloudtrail"]


def test_unwrap_takes_a_key_of_the_readers_choice() -> None:
    made = record()
    line = to_json({"source": "a", "test": "b", "event": made})
    assert reasons(read(line)) == ["not_cloudtrail"]
    result = read(line + b"\n" + line, unwrap="event")
    assert [e["event_id"] for e in events(result)] == [made["eventID"]] * 2


@pytest.mark.parametrize("data", [b"", b"\n \r\n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0), b"\0\0"])
def test_empty_file(data: bytes) -> None:
    result = read(data)
    assert (result.status, result.records) == ("empty", 0)


@pytest.mark.parametrize("data", [b'{"Records":[]}', b"[]", b'{"Records": [ ]}\n', b"[\n]"])
def test_file_without_records(data: bytes) -> None:
    result = read(data)
    assert (result.status, result.records, result.detail) == ("empty", 0, "no records")


def test_csv_is_set_aside_with_its_text() -> None:
    data = b'Event name,Event time,User name\r\nCreateUser,2024,ana\r\nX,2024,"a\nb"\r\n'
    result = read(data)
    [found] = result.quarantined
    assert (result.shape, found.reason, found.detail) == ("csv", "csv", "a header and 2 rows")
    assert found.raw == data.strip().decode()


# ------------------------------------------------------------------------ encoding and compression


def test_gzip_is_known_by_its_bytes_not_by_its_name() -> None:
    data = trail_file([record()])
    plain = gzip.decompress(data)
    assert events(read(data, "x.json"))[0]["event_id"] == events(read(plain, "x.json.gz"))[0]["event_id"]


def test_gzip_of_several_members() -> None:
    one, two = record(), record()
    text = to_json(one) + b"\n" + to_json(two)
    data = gzip.compress(text[:700]) + gzip.compress(text[700:]) + b"\0" * 40
    result = read(data)
    assert [e["event_id"] for e in events(result)] == [one["eventID"], two["eventID"]]
    assert result.detail is None


def test_gzip_in_gzip() -> None:
    result = read(gzip.compress(trail_file([record()])))
    assert (result.accepted, result.detail) == (1, "gzip in gzip")


def test_gzip_cut_in_the_middle_keeps_whole_records() -> None:
    made = [record(requestParameters={"x": random.Random(i).random()}) for i in range(200)]
    data = trail_file(made)
    result = read(data[: len(data) // 2])
    assert 50 < result.accepted < 150
    assert [e["event_id"] for e in events(result)] == [r["eventID"] for r in made[: result.accepted]]
    assert reasons(result) == ["truncated"]
    assert "gzip data damaged or cut off" in (result.detail or "")


def test_gzip_without_its_last_bytes_keeps_all_records_and_says_so() -> None:
    result = read(trail_file([record(), record()])[:-4])
    assert (result.accepted, reasons(result)) == (2, ["truncated"])


def test_gzip_with_a_flipped_byte() -> None:
    data = bytearray(trail_file([record(requestParameters={"x": i}) for i in range(300)]))
    data[len(data) // 2] ^= 0xFF
    result = read(bytes(data))
    assert result.quarantined
    assert result.accepted < 300


def test_gzip_header_and_nothing_else() -> None:
    assert reasons(read(b"\x1f\x8b")) == ["truncated"]
    assert reasons(read(b"\x1f\x8b\x08\x00nonsense that is no deflate stream")) == ["truncated"]


def test_bytes_after_the_gzip_data_are_kept() -> None:
    result = read(trail_file([record()]) + b"appended by mistake")
    assert result.accepted == 1
    assert [q.raw for q in result.quarantined if q.reason == "not_json"] == ["appended by mistake"]


def test_gzip_bomb_is_set_aside_within_bounds() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    result = read(bomb, limits=Limits(file=1_000_000, raw=1000))
    [found] = result.quarantined
    assert (found.reason, len(found.raw), found.raw_bytes) == ("too_large", 1000, len(bomb))


@pytest.mark.parametrize("compress", [bz2.compress, lambda data: b"PK\x03\x04" + data])
def test_other_compressions_are_named(compress: Any) -> None:
    [found] = read(compress(trail_file([record()], compressed=False))).quarantined
    assert (found.reason, found.detail[:9]) == ("not_json", "a file of")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_mark(encoding: str) -> None:
    text = trail_file([record(userAgent="é")], compressed=False).decode()
    [found] = events(read(text.encode(encoding)))
    assert found["user_agent"] == "é"


def test_bytes_that_are_not_utf8_are_replaced() -> None:
    data = trail_file([record(userAgent="HERE", requestParameters={"a": "HERE"})], compressed=False)
    result = read(data.replace(b"HERE", b"\xff\xc3"))
    [found] = events(result)
    assert found["user_agent"] == "��"
    assert found["request_parameters"] == '{"a":"��"}'
    assert "UTF-8" in (result.detail or "")


def test_half_of_a_surrogate_pair() -> None:
    made = [record(userAgent="HERE", requestParameters={"a": "HERE"}), record()]
    data = trail_file(made, compressed=False).replace(b"HERE", rb"x\ud83d")
    result = read(data)
    assert result.quarantined == []
    found = events(result)[0]
    assert found["user_agent"] == "x�"
    assert found["request_parameters"] == r'{"a":"x\ud83d"}'


def test_numbers_that_json_does_not_know() -> None:
    data = trail_file([record(additionalEventData={"x": "HERE"})], compressed=False)
    [found] = events(read(data.replace(b'"HERE"', b"NaN")))
    assert found["additional_event_data"] == '{"x":NaN}'


def test_control_characters_in_strings() -> None:
    data = trail_file([record(userAgent="HERE")], compressed=False).replace(b"HERE", b"a\tb")
    [found] = events(read(data))
    assert found["user_agent"] == "a\tb"


# ------------------------------------------------------------------------------------------ damage


def test_file_cut_in_the_middle_of_a_record() -> None:
    made = [record() for _ in range(5)]
    data = trail_file(made, compressed=False)
    result = read(data[: data.index(made[3]["eventID"].encode())])
    assert result.accepted == 3
    [found] = result.quarantined
    assert (found.reason, found.source_position) == ("truncated", 3)
    assert found.raw.startswith('{"eventVersion"')
    assert found.raw_bytes == len(found.raw.encode())


@pytest.mark.parametrize("indent", [None, 2])
def test_file_cut_between_records_says_that_more_should_follow(indent: int | None) -> None:
    data = to_json({"Records": [record(), record()]}, indent).rstrip(b"\n ]}")
    result = read(data + b"}" + b"," * (indent is None))
    assert (result.accepted, reasons(result)) == (2, ["truncated"])


def test_cut_single_event_and_cut_lines() -> None:
    text = to_json(record())
    assert reasons(read(text[:-40])) == ["truncated"]
    result = read(text + b"\n" + text + b"\n" + text[:200])
    assert (result.accepted, reasons(result)) == (2, ["truncated"])


def test_fragment_that_starts_in_the_middle_of_a_record() -> None:
    one, two = record(), record()
    data = trail_file([one, two], compressed=False)
    result = read(data[data.index(b'"eventName"') :])
    assert [e["event_id"] for e in events(result)] == [two["eventID"]]
    [found] = result.quarantined
    assert (found.reason, found.source_position) == ("not_json", 0)
    assert found.raw.startswith('"eventName"')


def test_bad_line_among_lines() -> None:
    made = [record(), record()]
    data = b"\n".join([to_json(made[0]), b'{"eventVersion": oops', to_json(made[1])])
    result = read(data)
    assert [e["event_id"] for e in events(result)] == [r["eventID"] for r in made]
    assert [(q.reason, q.raw) for q in result.quarantined] == [("not_json", '{"eventVersion": oops')]


def test_objects_inside_of_a_broken_record_are_no_records() -> None:
    broken = to_json(record()).replace(b'"eventTime":', b'"eventTime"')
    result = read(b"[" + broken + b"," + to_json(record()) + b"]")
    assert (result.accepted, reasons(result)) == (1, ["not_json"])


@needs_data
def test_stray_braces_in_an_array() -> None:
    result = read((DATA / "opensearch/samples-large.json").read_bytes())
    assert (result.shape, result.accepted) == ("array", 840)
    assert "stray bracket" in (result.detail or "")
    # The file opens a wrapping twice in one place; that opening is all that is set aside.
    assert [q.raw.split() for q in result.quarantined] == [["{", '"aws":', "{", '"cloudtrail":']]


@pytest.mark.parametrize("depth", [900, 2_000, 10_000])
def test_nesting_that_some_pythons_take_and_others_do_not(depth: int) -> None:
    data = trail_file([record(requestParameters="HERE"), record()], compressed=False)
    result = read(data.replace(b'"HERE"', b"[" * depth + b"]" * depth))
    assert reasons(result) in ([], ["too_large"])


@pytest.mark.parametrize("depth", [20_000, 200_000])
@pytest.mark.parametrize("opener", ["[", '{"a":'])
def test_deep_nesting(depth: int, opener: str) -> None:
    deep = opener * depth + "1" + ("]" if opener == "[" else "}") * depth
    made = [record(), record(requestParameters="HERE"), record()]
    data = trail_file(made, compressed=False).replace(b'"HERE"', deep.encode())
    result = read(data)
    assert [e["event_id"] for e in events(result)] == [made[0]["eventID"], made[2]["eventID"]]
    assert reasons(result) == ["too_large"]
    assert reasons(read(deep.encode())) == ["too_large" if opener != "[" else "not_json"]


def test_crafted_input_is_read_in_time() -> None:
    for data in (
        b'{"eventVersion":' * 100_000,
        b'[{"eventVersion":"' * 50_000,
        b'{"Records":[' * 100_000,
        b"[" * 1_000_000,
        b'{"a":"' + b"\\" * 1_000_001,
        b"{" * 500_000,
    ):
        read(data)


# ---------------------------------------------------------------------------------- both readings


def test_left_out_and_reused_positions() -> None:
    made = [record() for _ in range(5)]
    data = to_json([{"Records": made[:3]}, made[3], "no object", made[4]])
    result = decode_file("f", data, rules=RULES, leave_out={0, 3}, reused={1})
    assert [(e["event_id"], e["source_position"]) for e in events(result)] == [
        (made[2]["eventID"], 2),
        (made[4]["eventID"], 5),
    ]
    assert [(q.reason, q.source_position) for q in result.quarantined] == [
        ("id_reused", 1),
        ("not_an_object", 4),
    ]
    reused = result.quarantined[0]
    assert json.loads(reused.raw) == made[1]
    assert (reused.event_id, reused.recipient_account_id) == (made[1]["eventID"], "123456789012")
    assert result.records == 6


@needs_data
@pytest.mark.parametrize("folder", sorted(p.name for p in DATA.iterdir()) if DATA.is_dir() else [])
def test_both_readings_agree_on_published_data(folder: str) -> None:
    for path in sorted((DATA / folder).rglob("*")):
        if path.is_file():
            events_batch([read(path.read_bytes(), str(path), unwrap="event")])


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "arn", "eventName", "x", "Records"]), inner, max_size=3)
    ),
    max_leaves=8,
)
_keys = st.sampled_from([*record(), "eventid", "detail", "Records", "CloudTrailEvent", "new"])
_records = st.dictionaries(_keys, _values, max_size=4).map(lambda more: {**record(), **more})


@given(st.lists(_records | _values, max_size=4), st.sampled_from([None, 2]))
@settings(max_examples=200, deadline=None)
def test_any_values_in_any_field(values: list[Any], indent: int | None) -> None:
    data = to_json({"Records": values}, indent) if values else b"[]"
    events_batch([read(data)])


_FILES = [
    trail_file([record(), record(userAgent="é🛰")], compressed=False),
    trail_file([record() for _ in range(3)]),
    *_shapes([record(), record()]).values(),
]
_edits = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["cut", "drop", "insert", "flip", "double"]),
        st.sampled_from([b"{", b"}", b"[", b"]", b'"', b",", b"\\", b"\xff", b"\0", b"\n", b"\x1f\x8b"]),
    ),
    min_size=1,
    max_size=4,
)


@given(st.sampled_from(_FILES), _edits)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_bytes_never_raise_and_always_balance(data: bytes, edits: Any) -> None:
    for where, kind, piece in edits:
        at = int(where * len(data))
        data = {
            "cut": data[:at],
            "drop": data[:at] + data[at + 1 :],
            "insert": data[:at] + piece + data[at:],
            "flip": data[:at] + bytes(b ^ 0x20 for b in data[at : at + 1]) + data[at + 1 :],
            "double": data + data[at:],
        }[kind]
    result = read(data)
    events_batch([result])
    quarantine_batch([result])


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes(data: bytes) -> None:
    quarantine_batch([read(data)])


@given(_values)
@settings(max_examples=200, deadline=None)
def test_compact_changes_only_the_space_between_tokens(value: Any) -> None:
    text = to_json(value)
    assert compact(to_json(value, indent=2)) == text
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return
    assert compact(text) == text
