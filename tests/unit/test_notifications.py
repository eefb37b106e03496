from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raretrail.cloudtrail.notifications import (
    MessageError,
    messages_in,
    named_below,
    objects_of,
)
from raretrail.errors import UsageError

KEY = "AWSLogs/111122223333/CloudTrail/eu-west-1/2026/02/15/a_b.json.gz"
FILE = f"s3://audit/{KEY}"


def _s3(key: str = KEY, event: str = "ObjectCreated:Put", bucket: str = "audit") -> dict[str, Any]:
    """What S3 sends."""
    return {
        "Records": [
            {
                "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-west-1",
                "eventTime": "2026-02-15T12:00:00.000Z", "eventName": event,
                "s3": {
                    "s3SchemaVersion": "1.0", "configurationId": "trail",
                    "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
                    "object": {"key": key, "size": 1024, "eTag": "d41d8cd9", "sequencer": "0055AED6"},
                },
            }
        ]
    }  # fmt: skip


def _bridge(kind: str = "Object Created") -> dict[str, Any]:
    """What S3 sends by EventBridge."""
    return {
        "version": "0", "id": "17793124-05d4-b198-2fde-7ededc63b103", "detail-type": kind, "source": "aws.s3",
        "account": "111122223333", "time": "2026-02-15T12:00:00Z", "region": "eu-west-1",
        "detail": {"version": "0", "bucket": {"name": "audit"}, "object": {"key": KEY, "size": 5},
                   "reason": "PutObject"},
    }  # fmt: skip


def _sns(message: dict[str, Any]) -> dict[str, Any]:
    return {"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:eu-west-1:1:t",
            "Message": json.dumps(message)}  # fmt: skip


CLOUDTRAIL = {"s3Bucket": "audit", "s3ObjectKey": [KEY]}


@pytest.mark.parametrize("message", [_s3(), _s3(event="s3:ObjectCreated:Put"), _bridge(), CLOUDTRAIL])
def test_a_written_object_is_named_whatever_the_envelopes(message: dict[str, Any]) -> None:
    body = json.dumps(message)
    for sent in (
        message,
        _sns(message),
        {"Messages": [{"MessageId": "1", "ReceiptHandle": "r", "Body": body}]},
        {"Messages": [{"MessageId": "1", "Body": json.dumps(_sns(message))}]},
        {"MessageId": "1", "Body": body},
        {"Records": [{"messageId": "1", "eventSource": "aws:sqs", "body": json.dumps(_sns(message))}]},
        {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": body}}]},
    ):
        assert objects_of(json.dumps(sent)) == [FILE]
        assert objects_of(json.dumps(sent).encode()) == [FILE]


def test_keys_of_s3_are_decoded_and_those_of_others_are_not() -> None:
    assert objects_of(json.dumps(_s3("a+b/100%25+%C3%B6.gz"))) == ["s3://audit/a b/100% ö.gz"]
    bridge = _bridge()
    bridge["detail"]["object"]["key"] = "a+b%25.gz"
    assert objects_of(json.dumps(bridge)) == ["s3://audit/a+b%25.gz"]


@pytest.mark.parametrize(
    "message",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "audit"},
        _s3(event="ObjectRemoved:Delete"),
        _bridge("Object Deleted"),
        {"Type": "SubscriptionConfirmation", "Message": "You have chosen to subscribe", "Token": "t"},
        {"Messages": []},
    ],
)
def test_other_notifications_name_nothing(message: dict[str, Any]) -> None:
    assert objects_of(json.dumps(message)) == []


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ("[]", "no JSON object"),
        ("{}", "no notification"),
        ('{"Records": [{"eventSource": "aws:ses"}]}', "not of S3"),
        ('{"Records": ["a"]}', "no JSON object"),
        ('{"Body": 5}', "where a text belongs"),
        ('{"Type": "Notification"}', "where a text belongs"),
        (json.dumps(_s3(bucket="Not a bucket")), "names no bucket"),
        (json.dumps(_s3(bucket="../etc")), "names no bucket"),
        (json.dumps(_s3(key="")), "names no key"),
        (json.dumps(_s3(key="a%00b")), "names no key"),
        (json.dumps(_s3(key="a%0Ab")), "names no key"),
        (json.dumps(_s3(key="k" * 1025)), "names no key"),
        (json.dumps(_s3(key="a%FFb")), "names no key"),
        (json.dumps(_s3(key="a\ud800b")), "names no key"),
        (json.dumps({"s3Bucket": "audit", "s3ObjectKey": [{"a": 1}]}), "where a text belongs"),
        ("x" * (8 * 1024 * 1024 + 1), "longer than"),
    ],
)
def test_what_is_not_understood_is_refused(message: str | bytes, why: str) -> None:
    with pytest.raises(MessageError, match=why):
        objects_of(message)


def test_envelopes_within_envelopes_end() -> None:
    message = _s3()
    for _ in range(8):
        message = _sns(message)
    with pytest.raises(MessageError, match="too many times"):
        objects_of(json.dumps(message))


_NAMES = ("Records", "Body", "Message", "Type", "Messages", "detail", "s3", "object", "key", "eventSource")
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text()
    | st.sampled_from(["aws:s3", "Notification", "aws.s3"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_NAMES) | st.text(), inner, max_size=5)
    ),
)


@given(_JSON)
def test_whatever_comes_it_names_objects_or_is_refused(message: Any) -> None:
    try:
        found = objects_of(json.dumps(message))
    except MessageError:
        return
    assert all(one.startswith("s3://") for one in found)


@given(st.binary(max_size=300))
def test_bytes_are_refused(message: bytes) -> None:
    with contextlib.suppress(MessageError):
        assert objects_of(message) == []


def test_only_what_lies_below_the_trail_counts() -> None:
    messages = [
        ("a", json.dumps(_s3())),
        ("b", json.dumps(_bridge())),  # the same object once more
        ("c", json.dumps(_s3(bucket="elsewhere"))),
        ("d", json.dumps(_s3(key="AWSLogs-of-others/x.gz"))),
        ("e", json.dumps(_s3(event="ObjectRemoved:Delete"))),
        ("f", "nonsense"),
    ]
    named = named_below(messages, ["s3a://audit/AWSLogs"])
    assert (named.objects, named.others, named.elsewhere) == ([FILE], 1, 2)
    assert named.refused == ["f: is not JSON: JSONDecodeError"]
    assert named_below(messages[:1], ["s3://audit"]).objects == [FILE]
    assert named_below(messages[:1], [FILE]).objects == [FILE]
    assert not named_below(messages[:1], ["s3://audit/AWS"]).objects


def test_messages_lie_in_files_of_lines_in_folders_or_one_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "many.jsonl").write_text(f"{json.dumps(_s3())}\n\n{json.dumps(_bridge())}\n")
    (tmp_path / "one.json").write_text(json.dumps(CLOUDTRAIL, indent=2))
    (tmp_path / ".half-written").write_text("{")
    (tmp_path / "folder").mkdir()
    places = [where for where, _ in messages_in(str(tmp_path))]
    assert places == [
        f"{tmp_path}/many.jsonl line 1",
        f"{tmp_path}/many.jsonl line 3",
        f"{tmp_path}/one.json",
    ]
    assert len(list(messages_in(str(tmp_path / "many.jsonl")))) == 2
    assert named_below(messages_in(str(tmp_path)), ["s3://audit"]).objects == [FILE]
    with pytest.raises(UsageError, match="no such file or folder"):
        list(messages_in(str(tmp_path / "none")))
