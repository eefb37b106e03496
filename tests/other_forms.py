"""CloudTrail records as others keep them: OCSF as Security Lake writes it, Athena's and other columns."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]
_BESIDE = ("recipientAccountId", "readOnly", "managementEvent", "sharedEventID", "additionalEventData")


def ocsf_of(record: Json, version: str = "1.1.0") -> Json:
    """The OCSF event of a record, after OCSF's own mapping of CloudTrail (ocsf/examples)."""
    old = version != "1.1.0"
    who = record.get("userIdentity") or {}
    session = who.get("sessionContext") or {}
    attributes = session.get("attributes") or {}
    user = {
        "type": who.get("type"),
        "name": who.get("userName"),
        "credential_uid": who.get("accessKeyId"),
        "uid" if old else "uid_alt": who.get("principalId"),
        "uuid" if old else "uid": who.get("arn"),
    }
    user |= {"account_uid": who.get("accountId")} if old else {"account": {"uid": who.get("accountId")}}
    mfa = attributes.get("mfaAuthenticated")
    created = attributes.get("creationDate")
    address = record.get("sourceIPAddress")
    is_address = isinstance(address, str) and address.replace(".", "").isdigit()
    at = datetime.strptime(record["eventTime"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    unmapped = {name: record.get(name) for name in _BESIDE}
    sources = {"request": "requestParameters", "response": "responseElements"}
    api: Json = {
        "operation": record.get("eventName"),
        "version": record.get("apiVersion"),
        "service": {"name": record.get("eventSource")},
        "request": {"uid": record.get("requestID")},
        "response": {"error": record.get("errorCode"), "message": record.get("errorMessage")},
    }
    if old:
        for name in sources.values():
            unmapped[name] = record.get(name)
    else:
        for part, name in sources.items():
            api[part]["data"] = json.dumps(record[name]) if record.get(name) else None
    made = {
        "metadata": {
            "uid": record.get("eventID"),
            "version": version,
            "event_code": None if old else record.get("eventType"),
            "product": {
                "name": "CloudTrail",
                "vendor_name": "AWS",
                "version": record.get("eventVersion"),
                "feature": {"name": record.get("eventCategory")},
            },
        },
        "time": int(at.timestamp() * 1000),
        "class_uid": 6003,
        "category_uid": 6,
        "cloud": {"provider": "AWS", "region": record.get("awsRegion")},
        "api": api,
        "actor": {
            "user": user,
            "invoked_by": who.get("invokedBy"),
            "session": {
                "issuer": (session.get("sessionIssuer") or {}).get("arn"),
                "created_time" if old else "created_time_dt": created,
                "mfa" if old else "is_mfa": None if mfa is None else str(mfa).lower() == "true",
            },
            "idp": {"name": who.get("identityProvider")},
        },
        "http_request": {"user_agent": record.get("userAgent")},
        "src_endpoint": {"uid": record.get("vpcEndpointId"), "ip" if is_address else "domain": address},
        "resources": None if old else [
            {"uid": one.get("ARN"), "type": one.get("type"), "owner": {"account": {"uid": _owner(one)}}}
            for one in record.get("resources") or []
        ],
        "status": "Failure" if record.get("errorCode") else "Success",
        "unmapped": _flat(unmapped) | ({"eventType": record.get("eventType")} if old else {}),
    }  # fmt: skip
    return _without_nulls(made)


def _owner(resource: Json) -> Any:
    return resource.get("accountId")


def _flat(tree: Json, prefix: str = "") -> dict[str, str]:
    """As a map of text by dotted names, which is what a Parquet map can hold."""
    flat: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return flat


def athena_of(record: Json) -> Json:
    """The row Athena's table of a trail has for a record: small letters, requests and answers as text."""
    row: Json = {}
    for name, value in record.items():
        if name == "userIdentity":
            row["useridentity"] = _small(value)
        elif name == "resources":
            row["resources"] = [_small(one) for one in value or []]
        elif isinstance(value, dict) or (value and name in ("requestParameters", "responseElements")):
            row[name.lower()] = value if isinstance(value, str) else json.dumps(value)
        else:
            row[name.lower()] = value if value is None else _text(value)
    return row


def snake_of(record: Json) -> Json:
    """The row a pipeline of one's own may have: snake_case, the identity's parts columns of their own."""
    row: Json = {}
    for name, value in record.items():
        if name == "userIdentity" and isinstance(value, dict):
            for part, held in value.items():
                row[f"user_identity_{_snake(part)}"] = json.dumps(held) if isinstance(held, dict) else held
        elif isinstance(value, dict | list):
            row[_snake(name)] = json.dumps(value)
        else:
            row[_snake(name)] = value
    return row


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _small(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.lower(): _small(one) for name, one in value.items()}
    return value if value is None or isinstance(value, list) else _text(value)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return value
