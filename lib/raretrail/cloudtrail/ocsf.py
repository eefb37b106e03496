"""CloudTrail records out of OCSF events, as Amazon Security Lake keeps them.

Security Lake writes CloudTrail as OCSF 1.0.0-rc.2 (source version 1) or 1.1.0 (source version 2); what
stands where follows OCSF's own mapping of CloudTrail (ocsf/examples, "Event Dossier: Amazon CloudTrail").
What OCSF does not carry is absent in the record made, and null in `events`.
"""

from __future__ import annotations

import json
from collections.abc import Set
from datetime import UTC, datetime
from typing import Any

from raretrail.cloudtrail.flattened import parsed
from raretrail.cloudtrail.times import microseconds

# A field of a CloudTrail record: where OCSF keeps it, the first place that holds something first.
# Fields below `unmapped` are those that OCSF has no place for and keeps by CloudTrail's own name.
MAPPING: dict[str, tuple[str, ...]] = {
    "eventVersion": ("metadata.product.version",),
    "userIdentity.type": ("actor.user.type",),
    "userIdentity.principalId": ("actor.user.uid_alt", "actor.user.uid"),
    "userIdentity.arn": ("actor.user.uuid", "actor.user.uid"),
    "userIdentity.accountId": ("actor.user.account.uid", "actor.user.account_uid"),
    "userIdentity.accessKeyId": ("actor.user.credential_uid",),
    "userIdentity.userName": ("actor.user.name",),
    "userIdentity.sessionContext.sessionIssuer.arn": ("actor.session.issuer",),
    "userIdentity.sessionContext.attributes.creationDate": (
        "actor.session.created_time_dt",
        "actor.session.created_time",
    ),
    "userIdentity.sessionContext.attributes.mfaAuthenticated": ("actor.session.is_mfa", "actor.session.mfa"),
    "userIdentity.invokedBy": ("actor.invoked_by",),
    "userIdentity.identityProvider": ("actor.idp.name",),
    "eventTime": ("time_dt", "time"),
    "eventSource": ("api.service.name",),
    "eventName": ("api.operation",),
    "awsRegion": ("cloud.region",),
    "sourceIPAddress": ("src_endpoint.ip", "src_endpoint.domain"),
    "userAgent": ("http_request.user_agent",),
    "errorCode": ("api.response.error",),
    "errorMessage": ("api.response.message",),
    "requestParameters": ("api.request.data", "unmapped.requestParameters"),
    "responseElements": ("api.response.data", "unmapped.responseElements"),
    "additionalEventData": ("unmapped.additionalEventData",),
    "requestID": ("api.request.uid",),
    "eventID": ("metadata.uid",),
    "readOnly": ("unmapped.readOnly",),
    "resources": ("resources",),
    "eventType": ("metadata.event_code", "unmapped.eventType"),
    "apiVersion": ("api.version",),
    "managementEvent": ("unmapped.managementEvent",),
    "recipientAccountId": ("unmapped.recipientAccountId", "cloud.account.uid", "accountid", "accountId"),
    "sharedEventID": ("unmapped.sharedEventID",),
    "serviceEventDetails": ("unmapped.serviceEventDetails",),
    "vpcEndpointId": ("src_endpoint.uid",),
    "eventCategory": ("metadata.product.feature.name", "unmapped.eventCategory"),
    "addendum": ("unmapped.addendum",),
    "sessionCredentialFromConsole": ("unmapped.sessionCredentialFromConsole",),
    "tlsDetails": ("unmapped.tlsDetails",),
}
_TIMES = {"eventTime", "userIdentity.sessionContext.attributes.creationDate"}
# OCSF keeps these as JSON text.
_JSON = {
    "requestParameters",
    "responseElements",
    "additionalEventData",
    "serviceEventDetails",
    "addendum",
    "tlsDetails",
}
_RESOURCE = {"ARN": ("uid",), "accountId": ("owner.account.uid", "account_uid"), "type": ("type",)}


def is_ocsf(names: Set[str]) -> bool:
    """Are these the top-level fields of an OCSF event?"""
    return names >= {"class_uid", "metadata"}


def to_record(event: dict[str, Any]) -> bytes | None:
    """The CloudTrail record (compact JSON) that an OCSF event was made of; None if it is of another product.

    Nothing raises: a value of an unexpected type is taken as it is, and judged as any record's is.
    """
    product = _at(event, "metadata.product.name")
    if not isinstance(product, str) or product.lower() != "cloudtrail":
        return None
    record: dict[str, Any] = {}
    for name, places in MAPPING.items():
        value = next((found for place in places if not _is_nothing(found := _at(event, place))), None)
        if _is_nothing(value):
            continue
        if name in _TIMES:
            value = _time(value)
        elif name in _JSON:
            value = parsed(value)
        elif name == "resources":
            value = [_named(one, _RESOURCE) for one in value] if isinstance(value, list) else value
        elif name.endswith("mfaAuthenticated"):
            value = str(value).lower()
        _put(record, name, value)
    _mend_identity(record)
    if not record.get("responseElements") and not record.get("errorCode"):
        # A failed sign-in carries no error code; only its status tells.
        failed = event.get("status") == "Failure" or event.get("status_id") == 2
        if failed and record.get("eventSource") == "signin.amazonaws.com" and record.get("eventName"):
            record["responseElements"] = {record["eventName"]: "Failure"}
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _at(tree: Any, path: str) -> Any:
    """What stands at a dotted path. Below `unmapped` also the fields that were flattened: those named
    `<rest>.<more>`, put together again."""
    names = path.split(".")
    for at, name in enumerate(names):
        if not isinstance(tree, dict):
            return None
        if at and names[0] == "unmapped":
            rest = ".".join(names[at:])
            below = {key[len(rest) + 1 :]: tree[key] for key in tree if key.startswith(rest + ".")}
            if rest not in tree and below:
                whole: dict[str, Any] = {}
                for key, value in below.items():
                    _put(whole, key, value)
                return whole
        tree = tree.get(name)
    return tree


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        below = tree.setdefault(name, {})
        if not isinstance(below, dict):
            return
        tree = below
    tree[last] = value


def _is_nothing(value: Any) -> bool:
    return value is None or value == "" or value == [] or value == {}


def _time(value: Any) -> Any:
    """A time as CloudTrail writes it; the text as it is where it is none."""
    moment = microseconds(str(value))
    if moment is None:
        return value
    text = datetime.fromtimestamp(moment // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = moment % 1_000_000
    return f"{text}.{fraction:06}Z" if fraction else f"{text}Z"


def _named(one: Any, places: dict[str, tuple[str, ...]]) -> Any:
    if not isinstance(one, dict):
        return one
    found = {name: next((v for p in paths if (v := _at(one, p))), None) for name, paths in places.items()}
    return {name: value for name, value in found.items() if value is not None}


def _mend_identity(record: dict[str, Any]) -> None:
    """What one place of OCSF holds for two fields: 1.1 keeps the ARN where rc.2 kept the principal id."""
    who = record.get("userIdentity")
    if not isinstance(who, dict):
        return
    for name, is_arn in (("arn", True), ("principalId", False)):
        value = who.get(name)
        if isinstance(value, str) and value.startswith("arn:") is not is_arn:
            del who[name]
    session = who.get("sessionContext")
    issuer = session.get("sessionIssuer") if isinstance(session, dict) else None
    arn = issuer.get("arn") if isinstance(issuer, dict) else None
    if isinstance(issuer, dict) and isinstance(arn, str) and arn.count(":") >= 5:
        # OCSF keeps only the issuer's ARN, which says the rest.
        kind, _, name = arn.split(":", 5)[5].partition("/")
        issuer |= {"type": kind.capitalize(), "accountId": arn.split(":", 5)[4]}
        if name:
            issuer["userName"] = name.rpartition("/")[2]
