"""Principals, accounts and networks as people say them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_ARN = re.compile(r"arn:[^:]*:(?P<service>[^:]*):[^:]*:(?P<account>[^:]*):(?P<rest>.+)", re.DOTALL)
_RESERVED = re.compile(r"AWSReservedSSO_(?P<set>.+)_[0-9a-f]{16}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Name(NamedTuple):
    """A principal for people: its short name, and the account its ARN names (may be empty)."""

    short: str
    account: str


def short_principal(principal: str, kind: str | None = None) -> Name:
    """user/ana.costa, role/deploy, role/admin/yusuf.becker, sso/Billing/kofi@example.com, root.

    Paths and the hash of a permission set go; what no rule knows stays as it is. `kind` is the
    principal's kind: a role of kind person ends in the person's name.
    """
    match = _ARN.fullmatch(principal)
    if not match:
        return Name(principal, "")
    account, parts = match["account"], match["rest"].split("/")
    if parts == ["root"]:
        return Name("root", account)
    if match["service"] == "identitystore" and _UUID.fullmatch(parts[-1]):
        return Name(f"sso-user/{parts[-1]}", account)
    if parts[0] == "user":
        return Name(f"user/{parts[-1]}", account)
    if parts[0] in ("role", "assumed-role") and len(parts) > 1:
        reserved = next((i for i, part in enumerate(parts) if _RESERVED.fullmatch(part)), None)
        if reserved is not None:
            found = _RESERVED.fullmatch(parts[reserved])
            assert found is not None
            return Name("/".join(["sso", found["set"], *parts[reserved + 1 :]]), account)
        named = kind == "person" or parts[0] == "assumed-role"
        return Name("/".join(["role", *parts[-2 if named and len(parts) > 2 else -1 :]]), account)
    return Name(match["rest"], account)


def where_it_acted(row: Mapping[str, Any], account: str = "") -> str:
    """The accounts of an incident or finding: '966487198478', '966487198478 and 2 more'."""
    accounts: Sequence[str] = row.get("recipient_account_ids") or [row.get("recipient_account_id") or account]
    first = account if account in accounts else accounts[0]
    return first if len(accounts) == 1 else f"{first} and {len(accounts) - 1} more"


def place_of(row: Mapping[str, Any]) -> str:
    """The place in words, 'an unplaced address' style for the kinds of absence."""
    name = row.get("place_name") or row.get("geo_status") or "unknown"
    return {
        "private": "a private address",
        "vpc_endpoint": "a VPC endpoint",
        "aws_service": "an AWS service",
        "aws_internal": "inside AWS",
        "not_found": "an address on no map",
        "unparseable": "an unreadable address",
        "missing": "no address",
    }.get(name, name)
