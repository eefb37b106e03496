"""CloudTrail records out of the rows of a table: Athena's and Glue's columns, or snake_case ones.

Athena's table of a trail has the record's keys in small letters and its nested JSON as text; others write
`event_time` or `user_identity_arn`. The record is put together under CloudTrail's own names, so that what
reads records need not know of tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

_TOP = (
    "eventVersion", "userIdentity", "eventTime", "eventSource", "eventName", "awsRegion", "sourceIPAddress",
    "userAgent", "errorCode", "errorMessage", "requestParameters", "responseElements", "additionalEventData",
    "requestID", "eventID", "readOnly", "resources", "eventType", "apiVersion", "managementEvent",
    "recipientAccountId", "sharedEventID", "serviceEventDetails", "vpcEndpointId", "vpcEndpointAccountId",
    "eventCategory", "addendum", "sessionCredentialFromConsole", "edgeDeviceDetails", "tlsDetails",
    "eventContext",
)  # fmt: skip
_IDENTITY = (
    "type", "principalId", "arn", "accountId", "accessKeyId", "userName", "invokedBy", "identityProvider",
    "credentialId", "sessionContext", "onBehalfOf", "inScopeOf",
)  # fmt: skip
_SESSION = ("sessionIssuer", "attributes", "webIdFederationData", "sourceIdentity", "ec2RoleDelivery")
# What columns of their own may be called, by the letters of their names: where the value belongs.
_PLACES: dict[str, tuple[str, ...]] = {
    **{name.lower(): (name,) for name in _TOP},
    **{f"useridentity{name}".lower(): ("userIdentity", name) for name in _IDENTITY},
    **{
        f"useridentitysessioncontext{name}".lower(): ("userIdentity", "sessionContext", name)
        for name in _SESSION
    },
    **{
        f"useridentitysessioncontextsessionissuer{name}".lower(): (
            "userIdentity", "sessionContext", "sessionIssuer", name,
        )
        for name in ("type", "principalId", "arn", "accountId", "userName")
    },
    **{
        f"useridentitysessioncontextattributes{name}".lower(): (
            "userIdentity", "sessionContext", "attributes", name,
        )
        for name in ("creationDate", "mfaAuthenticated")
    },
}  # fmt: skip
# Keys within, by their letters. Those of requests and responses are the services' own and stay.
_WITHIN = {
    name.lower(): name
    for name in (
        *_IDENTITY, *_SESSION, "creationDate", "mfaAuthenticated", "federatedProvider", "userId",
        "identityStoreArn", "assumedRoot", "sessionCredentialFromConsole",
        "issuerType", "credentialsIssuedTo",
    )
}  # fmt: skip
_WITHIN_OF = {
    "userIdentity": _WITHIN,
    "resources": {"arn": "ARN", "accountid": "accountId", "type": "type", "arnprefix": "ARNPrefix"},
    "tlsDetails": {
        name.lower(): name
        for name in ("tlsVersion", "cipherSuite", "clientProvidedHostHeader", "keyExchange")
    },
    "addendum": {
        name.lower(): name for name in ("reason", "updatedFields", "originalRequestID", "originalEventID")
    },
}
_NESTED = frozenset(
    ("userIdentity", "requestParameters", "responseElements", "additionalEventData", "resources")
) | {"serviceEventDetails", "addendum", "edgeDeviceDetails", "tlsDetails", "eventContext"}
_SEPARATORS = re.compile(r"[_.\- ]")
_ENOUGH = {"eventtime", "eventname", "eventsource", "eventid", "eventversion"}


def _letters(name: str) -> str:
    return _SEPARATORS.sub("", name).lower()


def is_flattened(names: Collection[str]) -> bool:
    """Are these the names of a record's columns, and not already a record's own?

    What `to_record` makes is never flattened again, whatever it lacks.
    """
    known = {_letters(name) for name in set(names).difference(_TOP)} & _ENOUGH
    return len(known) >= 2 and not {"eventTime", "eventName"} & set(names)


def to_record(row: dict[str, Any]) -> bytes:
    """The CloudTrail record (compact JSON) of a row; columns that are none of a record's are left out.

    Nested JSON that stands as text becomes JSON again; nulls and empty lists are left out.
    """
    record: dict[str, Any] = {}
    for name, value in row.items():
        path = _PLACES.get(_letters(name))
        if path is None or value is None:
            continue
        if path[0] in _NESTED:
            value = parsed(value)
            if path[0] in _WITHIN_OF:
                value = _renamed(value, _WITHIN_OF[path[0]])
        tree = record
        for part in path[:-1]:
            below = tree.setdefault(part, {})
            if not isinstance(below, dict):
                break
            tree = below
        else:
            if isinstance(value, dict) and isinstance(tree.get(path[-1]), dict):
                tree[path[-1]] |= value
            else:
                tree[path[-1]] = value
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def parsed(value: Any) -> Any:
    """The JSON that a text holds, else the value as it is. RecursionError where it nests too deep."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """The value with its keys spelt as CloudTrail spells them, without nulls."""
    if isinstance(value, list):
        return [_renamed(one, names) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        names.get(_letters(key), key): _renamed(one, names) for key, one in value.items() if one is not None
    }
