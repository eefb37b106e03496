"""CloudTrail records for tests."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Iterable
from datetime import datetime
from itertools import count
from typing import Any

_numbers = count()

_RECORD: dict[str, Any] = {
    "eventVersion": "1.08",
    "userIdentity": {
        "type": "AssumedRole",
        "principalId": "AROAEXAMPLE:ana@example.com",
        "arn": "arn:aws:sts::123456789012:assumed-role/Admin/ana@example.com",
        "accountId": "123456789012",
        "accessKeyId": "ASIAEXAMPLE",
        "sessionContext": {
            "sessionIssuer": {
                "type": "Role",
                "principalId": "AROAEXAMPLE",
                "arn": "arn:aws:iam::123456789012:role/Admin",
                "accountId": "123456789012",
                "userName": "Admin",
            },
            "attributes": {"creationDate": "2024-03-01T08:00:00Z", "mfaAuthenticated": "true"},
        },
    },
    "eventTime": "2024-03-01T09:30:00Z",
    "eventSource": "iam.amazonaws.com",
    "eventName": "CreateUser",
    "awsRegion": "eu-west-1",
    "sourceIPAddress": "203.0.113.7",
    "userAgent": "aws-cli/2.13.5 Python/3.11.4 Linux/5.10 exe/x86_64.ubuntu.22",
    "requestParameters": {"userName": "bo"},
    "responseElements": None,
    "requestID": "0b3e7c1e-0000-4000-8000-000000000000",
    "eventID": "",
    "readOnly": False,
    "eventType": "AwsApiCall",
    "managementEvent": True,
    "recipientAccountId": "123456789012",
    "eventCategory": "Management",
}
ABSENT = object()


def record(overrides: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """One CloudTrail record, by default a successful iam:CreateUser with an event id of its own.

    Overrides by keyword or mapping: `record(eventName="DeleteUser")`,
    `record({"userIdentity.sessionContext.attributes.mfaAuthenticated": "false"})`. A mapping for
    `userIdentity` or inside of it is laid over what is there; `ABSENT` takes a key out.
    """
    made = copy.deepcopy(_RECORD)
    made["eventID"] = f"00000000-0000-4000-8000-{next(_numbers):012d}"
    for path, value in {**(overrides or {}), **more}.items():
        *parents, key = path.split(".")
        inside = made
        for parent in parents:
            inside = inside.setdefault(parent, {})
        _lay(inside, key, value, path.startswith("userIdentity"))
    return made


def call(user: str, command: str, address: str, at: datetime, **more: Any) -> dict[str, Any]:
    """A record of an IAM user's call, from its own long-lived key: `call("ana", "iam:GetUser", ...)`."""
    service, _, name = command.partition(":")
    account = "111122223333"
    return record(
        {
            "userIdentity.type": "IAMUser",
            "userIdentity.principalId": f"AIDA{user.upper()}",
            "userIdentity.arn": f"arn:aws:iam::{account}:user/{user}",
            "userIdentity.userName": user,
            "userIdentity.accountId": account,
            "userIdentity.accessKeyId": f"AKIA{user.upper()}",
            "userIdentity.sessionContext": ABSENT,
            "eventSource": f"{service}.amazonaws.com",
            "eventName": name,
            "sourceIPAddress": address,
            "eventTime": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "recipientAccountId": account,
            "userAgent": "aws-cli/2.15.0 Python/3.11.6 Linux/6.1",
            "readOnly": name.startswith(("Get", "List", "Describe")),
            **more,
        }
    )


def _lay(inside: dict[str, Any], key: str, value: Any, over: bool) -> None:
    if value is ABSENT:
        inside.pop(key, None)
    elif over and isinstance(value, dict) and isinstance(inside.get(key), dict):
        for name, inner in value.items():
            _lay(inside[key], name, inner, over)
    else:
        inside[key] = value


def to_json(value: Any, indent: int | None = None) -> bytes:
    """Compact JSON as CloudTrail delivers it, or pretty-printed; UTF-8, not escaped."""
    separators = None if indent else (",", ":")
    return json.dumps(value, indent=indent, separators=separators, ensure_ascii=False).encode()


def trail_file(records: Iterable[dict[str, Any]], *, compressed: bool = True) -> bytes:
    """The bytes of a delivered file."""
    data = to_json({"Records": list(records)})
    return gzip.compress(data, mtime=0) if compressed else data
