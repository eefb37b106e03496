"""Oddities of real trails that no other test file meets; `docs/ingest.md` lists them all."""

from __future__ import annotations

import ast
import re
import time
from datetime import UTC, date, datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from factories import ABSENT, record, to_json, trail_file
from raretrail.cloudtrail.accounting import account, kept
from raretrail.cloudtrail.decode import FileResult, census, decode_file, events_batch
from raretrail.cloudtrail.layout import FileInfo
from raretrail.cloudtrail.principals import load_rules
from raretrail.cloudtrail.times import microseconds

ROOT = Path(__file__).resolve().parents[2]
RULES = load_rules(ROOT / "conf" / "principals.yml")
RESEARCH = ROOT.parent / "shared/research/cloudtrail-oddities.md"


def read(data: bytes, path: str = "file.json") -> FileResult:
    result = decode_file(path, data, rules=RULES)
    assert result.records == result.accepted + len(result.quarantined)
    return result


def events(data: bytes, path: str = "file.json") -> list[dict[str, Any]]:
    return events_batch([read(data, path)]).to_pylist()


def event(overrides: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    [found] = events(trail_file([record(overrides, **more)]))
    return found


# ------------------------------------------------------------------------------- files and folders


def test_the_day_is_that_of_the_event_not_of_the_folder() -> None:
    path = "AWSLogs/123456789012/CloudTrail/eu-west-1/2024/03/02/x.json.gz"
    [found] = events(trail_file([record(eventTime="2024-03-01T23:58:00Z")]), path)
    assert found["event_date"] == date(2024, 3, 1)


def test_the_order_of_records_and_files_decides_nothing() -> None:
    one = record()
    other = {**one, "awsRegion": "us-east-1"}
    late = record(eventTime="2024-02-01T00:00:00Z")
    files = {"a": [one, late], "b": [late, other], "c": [other, one]}
    outcomes = set()
    for order in permutations(files):
        for turn in (1, -1):
            results = [census(name, to_json({"Records": files[name][::turn]})) for name in order]
            decided = kept(results)
            left = [
                row[2:5]
                for result in results
                for row in result.rows
                if row[1] not in set().union(*decided[row[0]])
            ]
            outcomes.add(tuple(sorted(left)))
    assert len(outcomes) == 1
    assert len(next(iter(outcomes))) == 2


def test_many_tiny_files_of_a_day_are_one_task() -> None:
    from raretrail.cloudtrail.reading import to_tasks

    at = datetime(2024, 3, 1, tzinfo=UTC)
    tiny = [FileInfo(f"2024/03/{1 + i % 2:02}/{i}.json.gz", 900, at) for i in range(4_000)]
    tasks = to_tasks(tiny, 16 * 1024**2)
    assert [len(task) for task in tasks] == [2_000, 2_000]
    assert [len(task) for task in to_tasks(tiny, 900_000)] == [1_000] * 4


def test_small_days_share_a_task_and_none_is_cut() -> None:
    from raretrail.cloudtrail.reading import to_tasks

    at = datetime(2024, 3, 1, tzinfo=UTC)

    def day_of(file: FileInfo) -> str:
        return file.path[:10]

    days = [f"2024/{1 + n // 28:02}/{1 + n % 28:02}" for n in range(90)]
    files = [FileInfo(f"{day}/{i}.json.gz", 500_000, at) for day in days for i in range(10)]
    tasks = to_tasks(files, 16 * 1024**2)
    assert [file for task in tasks for file in task] == sorted(files)
    assert [len({day_of(file) for file in task}) for task in tasks] == [3] * 30
    few = to_tasks(files[:90], 16 * 1024**2)
    assert [len({day_of(file) for file in task}) for task in few] == [1] * 9


def test_a_day_of_empty_files_is_a_task_like_any() -> None:
    from raretrail.cloudtrail.reading import to_tasks

    at = datetime(2024, 3, 1, tzinfo=UTC)
    empty, full = (FileInfo(f"2024/03/0{n}/a.json.gz", n * 900, at) for n in (0, 1))
    first = empty._replace(path="2024/03/01/empty.json.gz")
    for files in ([first], [first, full._replace(path="2024/03/02/a.json.gz")]):
        assert [file for task in to_tasks(files, 1024) for file in task] == files


def test_logstash_copies_without_an_event_time_are_set_aside() -> None:
    # @timestamp may be when logstash read it; to take it for the event's time would place it wrong.
    made = record({"@timestamp": "2024-03-01T09:30:00.000Z", "@version": "1"}, eventTime=ABSENT)
    [found] = read(to_json(made)).quarantined
    assert found.reason == "missing_event_time"
    assert "@timestamp" in found.raw


def test_a_plain_copy_beside_the_gzip_is_counted_once(tmp_path: Path) -> None:
    made = [record(), record()]
    (tmp_path / "x.json").write_bytes(to_json({"Records": made}, indent=4))
    (tmp_path / "x.json.gz").write_bytes(trail_file(made))
    [found] = account([str(tmp_path)])
    assert (found.records, found.events, found.duplicates) == (4, 2, 2)


def test_copies_under_other_regions_are_counted_once(tmp_path: Path) -> None:
    made = record(eventSource="iam.amazonaws.com", awsRegion="us-east-1")
    for region in ("us-east-1", "us-west-2"):
        folder = tmp_path / f"AWSLogs/123456789012/CloudTrail/{region}/2024/03/01"
        folder.mkdir(parents=True)
        (folder / f"{region}.json.gz").write_bytes(trail_file([made]))
    [found] = account([str(tmp_path)])
    assert (found.records, found.events, found.duplicates) == (2, 1, 1)


def test_stray_brackets_between_records() -> None:
    one, two = record(), record()
    data = b"[" + to_json(one) + b"}," + to_json(two) + b"]}"
    result = read(data)
    assert [e["event_id"] for e in events(data)] == [one["eventID"], two["eventID"]]
    assert "stray bracket" in (result.detail or "")


def test_plain_text_named_gz_is_set_aside_and_fails_nothing() -> None:
    [found] = read(b"not a trail at all", "x.json.gz").quarantined
    assert (found.reason, found.raw) == ("not_json", "not a trail at all")


# ------------------------------------------------------------------------------------------ schema


@pytest.mark.parametrize(
    "parameters",
    [
        {"location": "eu", "instanceType": "m5.large", "maxResults": 5, "tags": []},
        {"location": [""], "instanceType": {"value": "m5"}, "maxResults": "5", "tags": {"a": "b"}},
        {"location": None, "bytesTransferredIn": 1.5},
        {"location": True, "bytesTransferredIn": 12},
    ],
)
def test_paths_whose_type_differs_between_records(parameters: dict[str, Any]) -> None:
    found = event(requestParameters=parameters, additionalEventData=parameters)
    assert found["request_parameters"] == to_json(parameters).decode()
    assert found["additional_event_data"] == to_json(parameters).decode()


def test_keys_with_any_characters() -> None:
    keys = {"x-amz-acl": 1, "aws:cloudformation/stack-id": 2, "a b": 3, "a.b": 4, "`": 5, "é": 6, "": 7}
    assert event(requestParameters=keys)["request_parameters"] == to_json(keys).decode()


def test_one_odd_record_does_not_touch_its_neighbours() -> None:
    made = [record(), {**record(), "userIdentity": "text"}, 7, record()]
    result = read(to_json({"Records": made}))
    assert result.accepted == 3
    assert [q.source_position for q in result.quarantined] == [2]


def test_what_cloudtrail_left_out_for_size_says_so() -> None:
    omitted = {"omitted": True, "originalSize": 204800, "reason": "responseElements too large"}
    assert event(responseElements=omitted)["response_elements"] == to_json(omitted).decode()


def test_optional_keys_are_kept() -> None:
    optional = {
        "edgeDeviceDetails": {"type": "snowball"},
        "eventContext": {"requestContext": {}},
        "insightDetails": {"state": "Start"},
        "vpcEndpointAccountId": "111111111111",
    }
    found = event(optional, eventCategory="Data", sharedEventID="s", vpcEndpointId="v")
    for key in optional:
        assert f'"{key}":' in found["other_fields"]
    assert (found["event_category"], found["shared_event_id"], found["vpc_endpoint_id"]) == ("Data", "s", "v")


# ------------------------------------------------------------------------------- time, copies, who


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone of the process cannot be set")
def test_the_time_zone_of_the_machine_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    written = ["2031-07-10T11:42:02Z", "2031-12-11 19:42:55", "20311102T010628Z", "1941285400"]
    seen = set()
    for zone in ("UTC", "Asia/Kathmandu", "America/Los_Angeles"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        for cached in ("_any_form", "_of_day", "_day_start"):
            getattr(__import__("raretrail.cloudtrail.times", fromlist=[cached]), cached).cache_clear()
        seen.add(tuple(microseconds(text) for text in written))
    monkeypatch.undo()
    time.tzset()
    assert len(seen) == 1
    assert None not in next(iter(seen))


def test_a_correction_is_an_event_of_its_own_and_names_what_it_corrects() -> None:
    first = record()
    correction = record(
        addendum={"reason": "UPDATED_DATA", "updatedFields": "x", "originalEventID": first["eventID"]}
    )
    found = events(trail_file([first, correction]))
    assert [e["event_id"] for e in found] == [first["eventID"], correction["eventID"]]
    assert [e["corrects_event_id"] for e in found] == [None, first["eventID"]]


def test_a_correction_takes_the_place_of_what_it_corrects_in_any_order(tmp_path: Path) -> None:
    """One record with a correction under an id of its own and a rival of that, one with a correction under
    its id, and one that came late but corrects nothing."""

    def corrects(event: dict[str, Any], region: str, **more: Any) -> dict[str, Any]:
        addendum = {
            "reason": "UPDATED_DATA",
            "updatedFields": "awsRegion",
            "originalEventID": event["eventID"],
        }
        return record({**more}, awsRegion=region, addendum=addendum)

    one, two, late = record(), record(), record(addendum={"reason": "DELIVERY_DELAY"})
    rivals = [corrects(one, "us-east-1"), corrects(one, "us-east-2")]
    own = corrects(two, "us-east-1", eventID=two["eventID"])
    for n, records in enumerate(permutations([one, two, late, *rivals, own])):
        if n % 24:
            continue
        for of, some in enumerate((records[:2], records[2:3], records[3:])):
            (tmp_path / f"{of}.json").write_bytes(to_json({"Records": some}))
        [found] = account([str(tmp_path)])
        assert (found.events, found.duplicates, dict(found.quarantined)) == (3, 0, {"superseded": 3})


@pytest.mark.parametrize("written", ["20131102T010628Z", "2013-11-02T01:06:28Z"])
def test_session_creation_in_either_form(written: str) -> None:
    found = event({"userIdentity.sessionContext.attributes.creationDate": written})
    assert found["session_created_at"] == datetime(2013, 11, 2, 1, 6, 28, tzinfo=UTC)


def test_one_call_logged_in_two_accounts_is_two_events(tmp_path: Path) -> None:
    caller = record(sharedEventID="s")
    owner = {**caller, "eventID": "another", "recipientAccountId": "999999999999"}
    same_id = {**caller, "recipientAccountId": "888888888888"}
    (tmp_path / "x.json").write_bytes(to_json({"Records": [caller, owner, same_id]}))
    [found] = account([str(tmp_path)])
    assert (found.events, found.duplicates, found.quarantined.total()) == (3, 0, 0)


def test_a_misspelt_event_id_is_the_event_id() -> None:
    made = record({"eventId": "misspelt"}, eventID=ABSENT)
    [found] = events(to_json(made))
    assert found["event_id"] == "misspelt"
    assert found["other_fields"] is None


@pytest.mark.parametrize(
    "address",
    ["cloudtrail.amazonaws.com", "AWS Internal", "AWS Internal/3", "redacted", "30.*.0.210",
     "035.249.253.232", "2001:DB8::1", "::ffff:1.2.3.4", "fe80::1%eth0", ""],
)  # fmt: skip
def test_addresses_are_kept_as_written(address: str) -> None:
    assert event(sourceIPAddress=address)["source_ip_address"] == address


def test_an_empty_access_key_is_none() -> None:
    assert event({"userIdentity": {"accessKeyId": ""}})["access_key_id"] is None


def test_a_call_from_another_account_names_both() -> None:
    found = event({"userIdentity": {"accountId": "999999999999"}}, recipientAccountId="123456789012")
    assert (found["user_identity_account_id"], found["recipient_account_id"]) == (
        "999999999999",
        "123456789012",
    )


def test_an_anonymous_caller_has_a_principal() -> None:
    made = record()
    made["userIdentity"] = {"type": "AWSAccount", "principalId": "", "accountId": "ANONYMOUS_PRINCIPAL"}
    [found] = events(to_json(made))
    assert found["principal_kind"] == "anonymous"


@pytest.mark.parametrize(
    "code", ["AccessDenied", "Client.UnauthorizedOperation", "VpceAccessDenied", "NoSuchWebsiteConfiguration"]
)
def test_error_codes_are_kept_as_the_service_spells_them(code: str) -> None:
    assert event(errorCode=code)["error_code"] == code


@pytest.mark.parametrize(
    "kind",
    ["AwsApiCall", "AwsServiceEvent", "AwsConsoleSignIn", "AwsConsoleAction", "AwsVpceEvent", None, ABSENT],
)
def test_event_types_are_kept(kind: Any) -> None:
    assert event(eventType=kind)["event_type"] == (None if kind is ABSENT else kind)


def test_cloudtrails_own_deliveries_are_a_services() -> None:
    made = record(
        eventSource="s3.amazonaws.com",
        eventName="GetBucketAcl",
        sourceIPAddress="cloudtrail.amazonaws.com",
    )
    made["userIdentity"] = {"type": "AWSService", "invokedBy": "cloudtrail.amazonaws.com"}
    [found] = events(to_json(made))
    assert (found["principal"], found["principal_kind"]) == ("cloudtrail.amazonaws.com", "service")
    assert found["user_identity_account_id"] is None


# ------------------------------------------------------------------------------------- the document

_ROW = re.compile(r"^\| (\d+) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)


def _documented() -> dict[int, list[str]]:
    text = (ROOT / "docs" / "ingest.md").read_text(encoding="utf-8")
    return {int(number): re.findall(r"`([^`]+)`", tests) for number, tests in _ROW.findall(text)}


def test_every_oddity_names_tests_that_exist() -> None:
    documented = _documented()
    assert sorted(documented) == list(range(1, 43))
    defined: dict[str, set[str]] = {}
    for number, names in documented.items():
        assert names, f"oddity {number} names no test"
        for name in names:
            file, _, test = name.partition("::")
            if file not in defined:
                tree = ast.parse((ROOT / "tests" / "unit" / file).read_text(encoding="utf-8"))
                defined[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert test in defined[file], f"oddity {number}: {name} is not there"


@pytest.mark.skipif(not RESEARCH.is_file(), reason="no shared/research beside the checkout")
def test_every_oddity_of_the_research_is_documented() -> None:
    numbers = re.findall(r"^(\d+)\. ", RESEARCH.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(_documented()) == sorted(map(int, numbers))
