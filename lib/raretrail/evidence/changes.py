"""Changes: what a call made, gave or took away, and which sessions calls handed out.

Facts of whole days, as in `baseline.facts`: read from requests and responses of calls that succeeded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

GIVEN, TAKEN, USED = "given", "taken", "used"
# Sessions of a role end after twelve hours at the latest, those of a federation token after thirty-six.
LONGEST_SESSION_DAYS = 2

_REQUEST = """
    userName string, roleName string, groupName string, policyArn string, policyName string,
    accessKeyId string, status string, name string, url string, keyName string, instanceId string,
    networkInterfaceId string, allocationId string, publicIp string, associationId string,
    natGatewayId string, instancesSet struct<items: array<struct<instanceId: string>>>,
    CreateNatGatewayRequest string, DeleteNatGatewayRequest string
"""
_INTERFACE = """
    networkInterfaceId: string, privateIpAddress: string, association: struct<publicIp: string>,
    ipv6AddressesSet: struct<item: array<struct<ipv6Address: string>>>
"""
_INSTANCE = f"""
    instanceId: string, privateIpAddress: string, iamInstanceProfile: struct<arn: string>,
    networkInterfaceSet: struct<items: array<struct<{_INTERFACE}>>>
"""
_RESPONSE = f"""
    credentials struct<accessKeyId: string>, assumedRoleUser struct<arn: string>,
    federatedUser struct<arn: string>, accessKey struct<accessKeyId: string, userName: string>,
    user struct<userName: string>, role struct<roleName: string>, policy struct<arn: string>,
    sAMLProviderArn string, openIDConnectProviderArn string,
    publicIp string, allocationId string,
    instancesSet struct<items: array<struct<{_INSTANCE}>>>,
    networkInterface struct<{_INTERFACE}>, CreateNatGatewayResponse string,
    accelerator struct<acceleratorArn: string, ipSets: array<struct<ipAddresses: array<string>>>>
"""
SESSION_COMMANDS = (
    "sts:AssumeRole",
    "sts:AssumeRoleWithSAML",
    "sts:AssumeRoleWithWebIdentity",
    "sts:AssumeRoot",
    "sts:GetFederationToken",
    "sts:GetSessionToken",
)
_WHO = ("recipient_account_id", "principal", "actor", "source_ip_address")
_NOTHING = "array<struct<kind: string, change: string, subject: string, holder: string>>"


@dataclass(frozen=True)
class _Rule:
    """What a command changes, from its parsed request q and response r, as an array of changes."""

    command: str
    changes: Column


def _one(kind: str, change: str, subject: Column, holder: Column | None = None) -> Column:
    return F.struct(
        F.lit(kind).alias("kind"),
        F.lit(change).alias("change"),
        F.coalesce(subject, F.lit("")).alias("subject"),
        F.coalesce(holder if holder is not None else F.lit(None).cast("string"), F.lit("")).alias("holder"),
    )


def _inside(struct: str) -> Callable[[str], Column]:
    return lambda name: F.col(f"{struct}.{name}")


def _rules() -> Iterable[_Rule]:
    q, r = _inside("q"), _inside("r")
    # Whose own key or password it is, where the request names nobody.
    own = F.nullif(F.regexp_extract("user_identity_arn", r":user/(?:.*/)?([^/]+)$", 1), F.lit(""))
    user = F.coalesce(q("userName"), own)
    of_user = F.concat(F.lit("user/"), user)
    holders = {
        "User": of_user,
        "Role": _named("role", q("roleName")),
        "Group": _named("group", q("groupName")),
    }

    def rule(command: str, *changes: Column) -> _Rule:
        return _Rule(command, F.array(*changes))

    yield rule("iam:CreateUser", _one("user", GIVEN, F.coalesce(r("user.userName"), q("userName"))))
    yield rule("iam:DeleteUser", _one("user", TAKEN, q("userName")))
    yield rule("iam:CreateRole", _one("role", GIVEN, F.coalesce(r("role.roleName"), q("roleName"))))
    yield rule("iam:DeleteRole", _one("role", TAKEN, q("roleName")))
    yield rule("iam:UpdateAssumeRolePolicy", _one("trust", GIVEN, q("roleName")))
    yield rule("iam:CreateAccessKey", _one("key", GIVEN, r("accessKey.accessKeyId"), of_user))
    yield rule("iam:DeleteAccessKey", _one("key", TAKEN, q("accessKeyId"), of_user))
    for status, change in (("Active", GIVEN), ("Inactive", TAKEN)):
        yield _Rule(f"iam:UpdateAccessKey {status}", F.array(_one("key", change, q("accessKeyId"), of_user)))
    for verb, change in (("Create", GIVEN), ("Update", GIVEN), ("Delete", TAKEN)):
        yield rule(f"iam:{verb}LoginProfile", _one("password", change, user))
    yield rule("iam:EnableMFADevice", _one("mfa", GIVEN, user))
    yield rule("iam:DeactivateMFADevice", _one("mfa", TAKEN, user))
    yield rule("iam:AddUserToGroup", _one("group", GIVEN, q("groupName"), of_user))
    yield rule("iam:RemoveUserFromGroup", _one("group", TAKEN, q("groupName"), of_user))
    for kind, holder in holders.items():
        inline = F.concat(F.lit("inline:"), q("policyName"))
        yield rule(f"iam:Attach{kind}Policy", _one("policy", GIVEN, q("policyArn"), holder))
        yield rule(f"iam:Detach{kind}Policy", _one("policy", TAKEN, q("policyArn"), holder))
        yield rule(f"iam:Put{kind}Policy", _one("policy", GIVEN, inline, holder))
        yield rule(f"iam:Delete{kind}Policy", _one("policy", TAKEN, inline, holder))
    yield rule("iam:CreatePolicy", _one("policy document", GIVEN, r("policy.arn")))
    yield rule("iam:CreatePolicyVersion", _one("policy document", GIVEN, q("policyArn")))
    yield rule(
        "iam:CreateSAMLProvider",
        _one("identity provider", GIVEN, F.coalesce(r("sAMLProviderArn"), q("name"))),
    )
    yield rule(
        "iam:CreateOpenIDConnectProvider",
        _one("identity provider", GIVEN, F.coalesce(r("openIDConnectProviderArn"), q("url"))),
    )
    for verb in ("Create", "Import"):
        yield rule(f"ec2:{verb}KeyPair", _one("key pair", GIVEN, q("keyName")))
    yield from _of_addresses(q, r)


def _of_addresses(q: Callable[[str], Column], r: Callable[[str], Column]) -> Iterable[_Rule]:
    holder = F.coalesce(q("instanceId"), q("networkInterfaceId"))
    lent = F.coalesce(q("allocationId"), q("publicIp"))
    yield _Rule(
        "ec2:AllocateAddress",
        F.array(_one("address", GIVEN, r("publicIp"), F.coalesce(r("allocationId"), r("publicIp")))),
    )
    yield _Rule(
        "ec2:AssociateAddress",
        F.array(
            _one("lent", GIVEN, lent, holder),
            # The request may name the address itself, whoever allocated it.
            _one("address", GIVEN, q("publicIp"), F.coalesce(q("allocationId"), q("publicIp"))),
        ),
    )
    yield _Rule(
        "ec2:ReleaseAddress",
        F.array(_one("address", TAKEN, q("publicIp"), F.coalesce(q("allocationId"), q("publicIp")))),
    )
    # NAT gateways write what others say as text of their own.
    made = r("CreateNatGatewayResponse")
    gateway = F.nullif(F.regexp_extract(made, r'"natGatewayId":"([^"]+)"', 1), F.lit(""))
    lends = F.regexp_extract_all(made, F.lit(r'"allocationId":"([^"]+)"'), 1)
    yield _Rule("ec2:CreateNatGateway", F.transform(lends, lambda one: _one("lent", GIVEN, one, gateway)))
    yield _Rule(
        "ec2:DeleteNatGateway",
        F.array(
            _one(
                "interface",
                TAKEN,
                F.regexp_extract(q("DeleteNatGatewayRequest"), r'"NatGatewayId":"([^"]+)"', 1),
            )
        ),
    )
    interface = r("networkInterface")
    yield _Rule("ec2:CreateNetworkInterface", _addresses(interface, interface["networkInterfaceId"]))
    yield _Rule("ec2:DeleteNetworkInterface", F.array(_one("interface", TAKEN, q("networkInterfaceId"))))

    def launched(item: Column) -> Column:
        instance = item["instanceId"]
        own = F.array(
            _one("instance", GIVEN, instance, item["iamInstanceProfile"]["arn"]),
            _one("address", GIVEN, item["privateIpAddress"], instance),
        )
        interfaces = F.transform(item["networkInterfaceSet"]["items"], lambda one: _addresses(one, instance))
        return F.concat(own, F.flatten(F.coalesce(interfaces, F.array().cast(f"array<{_NOTHING}>"))))

    yield _Rule("ec2:RunInstances", F.flatten(F.transform(r("instancesSet.items"), launched)))
    yield _Rule(
        "ec2:TerminateInstances",
        F.transform(q("instancesSet.items"), lambda item: _one("instance", TAKEN, item["instanceId"])),
    )
    sets = F.flatten(F.transform(r("accelerator.ipSets"), lambda one: one["ipAddresses"]))
    yield _Rule(
        "globalaccelerator:CreateAccelerator",
        F.transform(sets, lambda one: _one("address", GIVEN, one, r("accelerator.acceleratorArn"))),
    )


def _named(kind: str, name: Column) -> Column:
    return F.concat(F.lit(f"{kind}/"), name)


def _addresses(interface: Column, holder: Column) -> Column:
    """The addresses a response gives a network interface, each as a change."""
    sixes = F.coalesce(
        F.transform(interface["ipv6AddressesSet"]["item"], lambda one: one["ipv6Address"]),
        F.array().cast("array<string>"),
    )
    fours = F.array(interface["privateIpAddress"], interface["association"]["publicIp"])
    return F.transform(F.concat(fours, sixes), lambda one: _one("address", GIVEN, one, holder))


def to_changes_daily(events: DataFrame) -> DataFrame:
    """`tables.CHANGES_DAILY`: a row for event × kind × subject × holder, and one for day × long-lived key
    used.

    events: columns of `tables.EVENTS`, of whole days.
    """
    rules = list(_rules())
    status = F.get_json_object("request_parameters", "$.status")
    ruled = F.when(F.col("command") == "iam:UpdateAccessKey", F.concat_ws(" ", "command", status)).otherwise(
        F.col("command")
    )
    # One after the other, not one inside the other: Connect refuses what is nested a hundred deep.
    changes = reduce(
        lambda chain, rule: chain.when(F.col("ruled") == rule.command, rule.changes),
        rules[1:],
        F.when(F.col("ruled") == rules[0].command, rules[0].changes),
    )
    made = (
        events.where(F.col("error_code").isNull())
        .withColumn("ruled", ruled)
        .where(F.col("ruled").isin(*[rule.command for rule in rules]))
        .withColumn("q", F.from_json("request_parameters", _REQUEST))
        .withColumn("r", F.from_json("response_elements", _RESPONSE))
        .withColumn("one", F.explode(changes))
        .where("one.subject <> '' OR one.holder <> ''")
        .select("event_date", "event_time", "event_id", *_WHO, "access_key_id", "command", "one.*")
        .dropDuplicates(["recipient_account_id", "event_id", "kind", "subject", "holder"])
    )
    return made.unionByName(_to_used_keys(events))


def _to_used_keys(events: DataFrame) -> DataFrame:
    """The first use of each long-lived key on a day."""
    first = F.struct("event_time", "event_id", "principal", "actor", "source_ip_address", "command")
    return (
        events.where(F.col("access_key_id").startswith("AKIA"))
        .groupBy("event_date", "recipient_account_id", "access_key_id")
        .agg(F.min(first).alias("first"))
        .select(
            "event_date",
            "recipient_account_id",
            "access_key_id",
            "first.*",
            F.lit("key").alias("kind"),
            F.lit(USED).alias("change"),
            F.col("access_key_id").alias("subject"),
            F.lit("").alias("holder"),
        )
    )


def to_sessions_daily(events: DataFrame) -> DataFrame:
    """`tables.SESSIONS_DAILY`: a row for each session a call handed out, by its access key.

    A role of another account is assumed in both accounts' logs; the row of the earlier event id stays.
    """
    issued = (
        events.where(F.col("error_code").isNull() & F.col("command").isin(*SESSION_COMMANDS))
        .withColumn("r", F.from_json("response_elements", _RESPONSE))
        .select(
            "event_date",
            "event_time",
            "event_id",
            *_WHO,
            "access_key_id",
            "command",
            F.col("r.credentials.accessKeyId").alias("issued_key_id"),
            F.coalesce("r.assumedRoleUser.arn", "r.federatedUser.arn", "user_identity_arn").alias(
                "issued_arn"
            ),
        )
        .where("issued_key_id IS NOT NULL")
    )
    chosen = F.min(F.struct("event_time", "event_id", F.struct("*").alias("row")))
    names = issued.columns
    keys = ["event_date", "issued_key_id"]
    return (
        issued.groupBy(*keys)
        .agg(chosen.alias("chosen"))
        .select(*[F.col(f"chosen.row.{name}").alias(name) for name in names])
    )


def to_holdings(changes: DataFrame) -> DataFrame:
    """`tables.BASELINE_HOLDINGS` without as_of: changes folded into what each kind, account, subject and
    holder was given last, taken last and used first."""
    given, taken, used = (F.col("change") == change for change in (GIVEN, TAKEN, USED))
    by = F.struct("event_time", "event_id", "principal", "command")
    return (
        changes.groupBy("kind", "recipient_account_id", "subject", "holder")
        .agg(
            F.max(F.when(given, by)).alias("last"),
            F.max(F.when(taken, F.col("event_time"))).alias("taken_at"),
            F.min(F.when(used, F.col("event_time"))).alias("first_used_at"),
        )
        .select(
            "kind",
            "recipient_account_id",
            "subject",
            "holder",
            F.col("last.event_time").alias("given_at"),
            F.col("last.principal").alias("given_by"),
            F.col("last.command").alias("given_command"),
            F.col("last.event_id").alias("given_event_id"),
            "taken_at",
            "first_used_at",
        )
    )


def to_changes(holdings: DataFrame) -> DataFrame:
    """Holdings as changes again (kind, recipient_account_id, subject, of, change, event_time, event_id,
    principal, command): what was folded away is not there."""
    nothing = F.lit(None).cast("string")
    one = F.explode(
        F.array(
            F.struct(
                F.lit(GIVEN).alias("change"),
                F.col("given_at").alias("event_time"),
                F.col("given_event_id").alias("event_id"),
                F.col("given_by").alias("principal"),
                F.col("given_command").alias("command"),
            ),
            *[
                F.struct(
                    F.lit(change).alias("change"),
                    F.col(column).alias("event_time"),
                    nothing.alias("event_id"),
                    nothing.alias("principal"),
                    nothing.alias("command"),
                )
                for change, column in ((TAKEN, "taken_at"), (USED, "first_used_at"))
            ],
        )
    )
    return (
        holdings.select("kind", "recipient_account_id", "subject", "holder", one.alias("one"))
        .select("kind", "recipient_account_id", "subject", "holder", "one.*")
        .where("event_time IS NOT NULL")
    )
