"""One CloudTrail record: the forms of userIdentity, and the envelope around a call."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from time import gmtime, strftime

from raretrail.simulate.commands import Command
from raretrail.simulate.places import Seat

_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_HEX = "0123456789abcdef"
_VERSIONS = ("1.08", "1.09", "1.10", "1.11")
_ALNUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def text(value: object) -> str:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def unique_id(prefix: str, rng: Random, length: int = 16) -> str:
    """AKIA…, ASIA…, AROA…, AIDA… followed by base 32."""
    return prefix + "".join(rng.choices(_BASE32, k=length))


def hex_id(rng: Random, length: int) -> str:
    """That many hexadecimal digits."""
    return f"{rng.getrandbits(4 * length):0{length}x}"


def alnum(rng: Random, length: int) -> str:
    """Letters of both cases and digits."""
    return "".join(rng.choices(_ALNUM, k=length))


def uuid(rng: Random) -> str:
    """A version 4 UUID from `rng`."""
    h = f"{rng.getrandbits(128):032x}"
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"


def iso(at: int) -> str:
    """2026-02-03T04:05:06Z."""
    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(at))


def long_time(at: int) -> str:
    """Feb 3, 2026 4:05:06 AM, as IAM and STS write times in responses."""
    return strftime("%b %d, %Y %I:%M:%S %p", gmtime(at)).replace(" 0", " ")


@dataclass(frozen=True)
class Role:
    """An IAM role. `path` begins and ends with a slash."""

    account: str
    name: str
    id: str
    path: str = "/"

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:role{self.path}{self.name}"


@dataclass(frozen=True)
class User:
    """An IAM user with a long-term key."""

    account: str
    name: str
    id: str
    key: str

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:user/{self.name}"


@dataclass(frozen=True)
class Session:
    """Credentials as a caller holds them: what the records they sign carry.

    `arn` is that of userIdentity, `principal` that of the role or user behind it, `identity` the
    JSON text of userIdentity, times are epoch seconds (UTC).
    """

    account: str
    arn: str
    principal: str
    key: str
    name: str
    identity: str
    created: int
    expires: int
    console: bool = False


_FOREVER = 1 << 40


def user_session(user: User) -> Session:
    """The user's long-term key, no session behind it."""
    identity = {
        "type": "IAMUser", "principalId": user.id, "arn": user.arn, "accountId": user.account,
        "accessKeyId": user.key, "userName": user.name,
    }  # fmt: skip
    return Session(user.account, user.arn, user.arn, user.key, user.name, text(identity), 0, _FOREVER)


def user_console_session(user: User, rng: Random, at: int, mfa: bool) -> Session:
    """What the console works with after the user signed in."""
    key = unique_id("ASIA", rng)
    identity = {
        "type": "IAMUser", "principalId": user.id, "arn": user.arn, "accountId": user.account,
        "accessKeyId": key, "userName": user.name,
        "sessionContext": {
            "attributes": {"creationDate": iso(at), "mfaAuthenticated": str(mfa).lower()}
        },
    }  # fmt: skip
    return Session(user.account, user.arn, user.arn, key, user.name, text(identity), at, at + 12 * 3600, True)


def role_session(
    role: Role,
    name: str,
    rng: Random,
    at: int,
    *,
    hours: int = 8,
    mfa: bool = False,
    console: bool = False,
    invoked_by: str = "",
    ec2: bool = False,
    federated: str = "",
    source_identity: str = "",
) -> Session:
    """Temporary credentials of the role under that session name."""
    key = unique_id("ASIA", rng)
    arn = f"arn:aws:sts::{role.account}:assumed-role/{role.name}/{name}"
    attributes: dict[str, str] = {"creationDate": iso(at), "mfaAuthenticated": str(mfa).lower()}
    context: dict[str, object] = {
        "sessionIssuer": {
            "type": "Role", "principalId": role.id, "arn": role.arn,
            "accountId": role.account, "userName": role.name,
        },
        "attributes": attributes,
    }  # fmt: skip
    if federated:
        context["webIdFederationData"] = {"federatedProvider": federated, "attributes": {}}
    if source_identity:
        context["sourceIdentity"] = source_identity
    if ec2:
        context["ec2RoleDelivery"] = "2.0"
    identity: dict[str, object] = {
        "type": "AssumedRole", "principalId": f"{role.id}:{name}", "arn": arn,
        "accountId": role.account, "accessKeyId": key, "sessionContext": context,
    }  # fmt: skip
    if invoked_by:
        identity["invokedBy"] = invoked_by
    return Session(role.account, arn, role.arn, key, name, text(identity), at, at + hours * 3600, console)


def bare_session(account: str, identity: dict[str, object], name: str = "") -> Session:
    """A caller that signs with nothing of the account's own: a service, a SAML or outside user."""
    who = str(identity.get("arn") or identity.get("invokedBy") or identity.get("principalId") or "")
    return Session(account, who, who, "", name or who, text(identity), 0, _FOREVER)


def root_session(account: str, rng: Random, at: int) -> Session:
    """The account's root user in the console."""
    key, arn = unique_id("ASIA", rng), f"arn:aws:iam::{account}:root"
    identity = {
        "type": "Root", "principalId": account, "arn": arn, "accountId": account,
        "accessKeyId": key, "sessionContext": {
            "attributes": {"creationDate": iso(at), "mfaAuthenticated": "true"}
        },
    }  # fmt: skip
    return Session(account, arn, arn, key, "root", text(identity), at, at + 43200, True)


def federated_session(user: User, name: str, rng: Random, at: int) -> Session:
    """What GetFederationToken gives: a FederatedUser that the user stands for."""
    key = unique_id("ASIA", rng)
    arn = f"arn:aws:sts::{user.account}:federated-user/{name}"
    identity = {
        "type": "FederatedUser", "principalId": f"{user.account}:{name}", "arn": arn,
        "accountId": user.account, "accessKeyId": key, "sessionContext": {
            "sessionIssuer": {
                "type": "IAMUser", "principalId": user.id, "arn": user.arn,
                "accountId": user.account, "userName": user.name,
            },
            "attributes": {"creationDate": iso(at), "mfaAuthenticated": "false"},
        },
    }  # fmt: skip
    return Session(user.account, arn, user.arn, key, name, text(identity), at, at + 3600)


def service(account: str, name: str) -> Session:
    """An AWS service acting on its own."""
    return bare_session(account, {"type": "AWSService", "invokedBy": name}, name)


@dataclass(frozen=True)
class Failure:
    """errorCode and errorMessage."""

    code: str
    message: str


def denied(command: Command, session: Session) -> Failure:
    """Access denied, in the words of the command's service."""
    action = f"{command.service}:{command.name}"
    if command.service == "ec2":
        return Failure(
            "Client.UnauthorizedOperation",
            f"You are not authorized to perform this operation. User: {session.arn} is not"
            f" authorized to perform: {action} because no identity-based policy allows the"
            f" {action} action",
        )
    if command.service == "s3":
        return Failure("AccessDenied", "Access Denied")
    return Failure(
        "AccessDenied" if command.service in ("iam", "sts", "sqs") else "AccessDeniedException",
        f"User: {session.arn} is not authorized to perform: {action} because no identity-based"
        f" policy allows the {action} action",
    )


def throttled(command: Command) -> Failure:
    """Rate exceeded."""
    if command.service == "ec2":
        return Failure("Client.RequestLimitExceeded", "Request limit exceeded.")
    return Failure("ThrottlingException", "Rate exceeded")


def missing(command: Command, rng: Random) -> Failure:
    """The thing asked for is not there."""
    if command.service == "s3":
        return Failure("NoSuchKey", "The specified key does not exist.")
    if command.service == "iam":
        return Failure("NoSuchEntityException", f"The name {alnum(rng, 8)} cannot be found.")
    return Failure("ResourceNotFoundException", f"Requested resource {hex_id(rng, 12)} not found")


def record(
    *,
    at: int,
    identity: str,
    source: str,
    name: str,
    region: str,
    seat: Seat,
    agent: str,
    account: str,
    event_id: str,
    request_id: str,
    read_only: bool,
    data: bool = False,
    request: str = "null",
    response: str = "null",
    resources: str = "",
    failure: Failure | None = None,
    extra: str = "",
    event_type: str = "AwsApiCall",
    shared: str = "",
    console: bool = False,
    host: str = "",
) -> str:
    """The record's JSON text; identity, request, response, resources and extra are JSON text."""
    tls_1_3 = event_id[0] < "c"
    version = _VERSIONS[len(source) % 4]  # services move to new formats one by one
    parts = [
        f'{{"eventVersion":"{version}","userIdentity":{identity},"eventTime":"{iso(at)}",'
        f'"eventSource":"{source}","eventName":"{name}","awsRegion":"{region}",'
        f'"sourceIPAddress":"{seat.address}","userAgent":{text(agent)},'
    ]
    if failure:
        parts.append(
            f'"errorCode":"{failure.code}","errorMessage":{text(failure.message)},'
            if failure.code
            else f'"errorMessage":{text(failure.message)},'
        )
    parts.append(f'"requestParameters":{request},"responseElements":{response},')
    if extra:
        parts.append(f'"additionalEventData":{extra},')
    if event_type != "AwsConsoleSignIn":
        parts.append(f'"requestID":"{request_id}",')
    parts.append(f'"eventID":"{event_id}","readOnly":{"true" if read_only else "false"},')
    if resources:
        parts.append(f'"resources":{resources},')
    parts.append(
        f'"eventType":"{event_type}","managementEvent":{"false" if data else "true"},'
        f'"recipientAccountId":"{account}",'
    )
    if shared:
        parts.append(f'"sharedEventID":"{shared}",')
    if seat.vpc_endpoint:
        parts.append(f'"vpcEndpointId":"{seat.vpc_endpoint}",')
    parts.append(f'"eventCategory":"{"Data" if data else "Management"}"')
    if host and not console:
        parts.append(
            ',"tlsDetails":{"tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256",'
            if tls_1_3
            else ',"tlsDetails":{"tlsVersion":"TLSv1.2","cipherSuite":"ECDHE-RSA-AES128-GCM-SHA256",'
        )
        parts.append(f'"clientProvidedHostHeader":"{host}"}}')
    if console:
        parts.append(',"sessionCredentialFromConsole":"true"')
    parts.append("}")
    return "".join(parts)
