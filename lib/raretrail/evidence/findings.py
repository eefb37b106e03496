"""What an analyst asks of a finding, as its columns: whose credentials, from where, since when."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from raretrail.evidence.changes import GIVEN, TAKEN, USED

# Sessions made by sessions made by ... : so far back a chain is followed.
CHAIN_LINKS = 4
REQUEST_LENGTH = 1000
_POLICIES = 50
# What is asked of changes and of sessions.
CHANGE = (
    "kind",
    "recipient_account_id",
    "subject",
    "holder",
    "change",
    "event_time",
    "event_id",
    "principal",
)
SESSION = (
    "issued_key_id",
    "principal",
    "access_key_id",
    "source_ip_address",
    "event_time",
    "event_id",
    "command",
)
# How a session was obtained, by the call that handed it out.
_BY_CALL = {
    "sts:AssumeRoleWithSAML": "saml",
    "sts:AssumeRoleWithWebIdentity": "web identity",
    "sts:AssumeRoot": "root session",
    "sts:GetFederationToken": "federation token",
    "sts:GetSessionToken": "session token",
}
CREDENTIALS: dict[str, str] = {
    "access key": "a long-lived access key",
    "console": "a sign-in to the console, or the session it began",
    "identity center": "a session of IAM Identity Center",
    "instance role": "credentials that an instance's metadata service hands out",
    "assumed role": "a session of a role that some identity assumed",
    "saml": "a session of a role assumed by a SAML assertion",
    "web identity": "a session of a role assumed by a token of an OpenID Connect provider",
    "federation token": "a session handed out by sts:GetFederationToken",
    "session token": "a session handed out by sts:GetSessionToken",
    "root session": "a session of sts:AssumeRoot",
    "root": "the account's root user",
    "service": "an AWS service",
    "unknown": "the record does not say",
}


def to_first_events(findings: DataFrame, events: DataFrame) -> DataFrame:
    """(anomaly_id, user_identity_type, user_identity_arn, session_issuer_arn, session_created_at,
    mfa_authenticated, aws_region, request_parameters, credential): of each finding's first event.

    Of request_parameters the first 1,000 characters. findings: anomaly_id and the columns that tell a
    finding's events; events: those of their buckets.
    """
    keys = ("recipient_account_id", "principal", "actor", "command", "source_ip_address", "error_code")
    first = findings.select(
        "anomaly_id", F.col("first_time").alias("at"), *[F.col(key).alias(f"of_{key}") for key in keys]
    )
    told = events.select(
        "event_time",
        "event_id",
        *keys[:4],
        *[F.coalesce(key, F.lit("")).alias(key) for key in keys[4:]],
        "user_identity_type",
        "user_identity_arn",
        "session_issuer_arn",
        "session_created_at",
        "mfa_authenticated",
        "aws_region",
        F.substring("request_parameters", 1, REQUEST_LENGTH).alias("request_parameters"),
        credential().alias("credential"),
    )
    same = [F.col(key) == F.col(f"of_{key}") for key in keys]
    rows = told.join(first, [F.col("event_time") == F.col("at"), *same])
    names = [name for name in told.columns if name not in ("event_time", "event_id", *keys)]
    row = F.min_by(F.struct(*names), F.col("event_id")).alias("first")
    return rows.groupBy("anomaly_id").agg(row).select("anomaly_id", "first.*")


def credential() -> Column:
    """How the credentials of an event were obtained, as far as its record says: one of CREDENTIALS."""
    kind, key, issuer = F.col("user_identity_type"), F.col("access_key_id"), F.col("session_issuer_arn")
    context = F.col("session_context")
    session = F.regexp_extract("user_identity_arn", r"/([^/]+)$", 1)
    by_service = kind.isin("AWSService", "AWSAccount") | F.col("user_identity_invoked_by").isNotNull()
    console = F.col("session_credential_from_console") | (F.col("event_type") == "AwsConsoleSignIn")
    return (
        F.when(kind.isin("AWSService", "AWSAccount") | by_service, "service")
        .when((kind == "Root") & ~F.coalesce(key.startswith("ASIA"), F.lit(False)), "root")
        .when(key.startswith("AKIA"), "access key")
        .when(F.coalesce(issuer, F.lit("")).contains("/AWSReservedSSO_"), "identity center")
        .when(kind == "IdentityCenterUser", "identity center")
        .when(kind == "SAMLUser", "saml")
        .when(kind == "WebIdentityUser", "web identity")
        .when(session.rlike(r"^m?i-[0-9a-f]{8,17}$"), "instance role")
        .when(context.contains('"ec2RoleDelivery"'), "instance role")
        .when(context.rlike(r'"webIdFederationData":\{"'), "web identity")
        .when(F.coalesce(console, F.lit(False)), "console")
        .when(kind == "AssumedRole", "assumed role")
        .when(kind == "FederatedUser", "federation token")
        .when(kind == "IAMUser", "session token")
        .when(kind == "Root", "root")
        .otherwise("unknown")
    )


def to_chains(findings: DataFrame, sessions: DataFrame) -> DataFrame:
    """(anomaly_id, session_command, session_chain, origin_principal, origin_access_key_id,
    origin_source_ip_address, origin_time): who handed out a finding's session, and who theirs.

    session_chain has the principals from the one that handed it out back to the first the trail shows;
    origin_* are that first's. Only findings whose session was handed out in sessions, columns of
    `tables.SESSIONS_DAILY`, have a row.
    """
    held = _each_once(sessions)
    chain = findings.select("anomaly_id", F.col("access_key_id").alias("next")).where("next IS NOT NULL")
    for link in range(CHAIN_LINKS):
        step = held.select(
            F.col("issued_key_id").alias("next"),
            F.struct("principal", "access_key_id", "source_ip_address", "event_time", "command").alias(
                f"link_{link}"
            ),
        )
        chain = chain.join(step, "next", "inner" if link == 0 else "left").withColumn(
            "next", F.col(f"link_{link}.access_key_id")
        )
    links = F.filter(
        F.array(*[F.col(f"link_{link}") for link in range(CHAIN_LINKS)]), lambda one: one.isNotNull()
    )
    origin = F.element_at("links", -1)
    return chain.withColumn("links", links).select(
        "anomaly_id",
        F.col("link_0.command").alias("session_command"),
        F.transform("links", lambda one: one["principal"]).alias("session_chain"),
        origin["principal"].alias("origin_principal"),
        origin["access_key_id"].alias("origin_access_key_id"),
        origin["source_ip_address"].alias("origin_source_ip_address"),
        origin["event_time"].alias("origin_time"),
    )


def _each_once(sessions: DataFrame) -> DataFrame:
    """A session that two accounts logged, or two days, by its earliest record."""
    nth = F.row_number().over(Window.partitionBy("issued_key_id").orderBy("event_time", "event_id"))
    return sessions.withColumn("nth", nth).where("nth = 1")


def _known(findings: DataFrame, changes: DataFrame, on: Column) -> DataFrame:
    """Pairs of a finding and a change that lies before its first event; on names columns of either."""
    return findings.join(changes, on & (F.col("event_time") <= F.col("first_time")))


def to_keys(findings: DataFrame, changes: DataFrame) -> DataFrame:
    """(anomaly_id, key_created_at, key_created_by, key_first_used_at): of a finding's access key, as far as
    the trail shows."""
    held = findings.select("anomaly_id", "first_time", "access_key_id")
    keys = changes.where("kind = 'key'")
    created = F.when(F.col("change") == GIVEN, F.struct("event_time", "principal"))
    return (
        _known(held, keys, F.col("access_key_id") == F.col("subject"))
        .groupBy("anomaly_id")
        .agg(
            F.min(created).alias("created"),
            F.min(F.when(F.col("change") == USED, F.col("event_time"))).alias("key_first_used_at"),
        )
        .select(
            "anomaly_id",
            F.col("created.event_time").alias("key_created_at"),
            F.col("created.principal").alias("key_created_by"),
            "key_first_used_at",
        )
    )


def holder_of(user_identity_type: Column, arn: Column, issuer: Column) -> Column:
    """'user/<name>' or 'role/<name>' of an identity, as `changes` name who holds a policy; else null."""
    user = F.regexp_extract(arn, r":user/(?:.*/)?([^/]+)$", 1)
    role = F.regexp_extract(issuer, r":role/(?:.*/)?([^/]+)$", 1)
    return F.when((user_identity_type == "IAMUser") & (user != ""), F.concat(F.lit("user/"), user)).when(
        role != "", F.concat(F.lit("role/"), role)
    )


def to_identities(findings: DataFrame, changes: DataFrame) -> DataFrame:
    """(anomaly_id, identity_created_at, identity_created_by, policies_seen): when the user or role was made,
    by whom, and which policies were attached to it and not detached, as far as the trail shows.

    findings: with the columns of `to_first_events`.
    """
    named = findings.select(
        "anomaly_id",
        "first_time",
        F.col("recipient_account_id").alias("account"),
        holder_of(F.col("user_identity_type"), F.col("user_identity_arn"), F.col("session_issuer_arn")).alias(
            "named"
        ),
    ).where("named IS NOT NULL")
    itself = F.concat_ws("/", "kind", "subject")
    theirs = changes.where("kind IN ('user', 'role', 'policy')").withColumn(
        "whose", F.when(F.col("kind") == "policy", F.col("holder")).otherwise(itself)
    )
    same = (F.col("account") == F.col("recipient_account_id")) & (F.col("named") == F.col("whose"))
    known = _known(named, theirs, same)
    made = known.where((F.col("kind") != "policy") & (F.col("change") == GIVEN))
    made = made.groupBy("anomaly_id").agg(F.max(F.struct("event_time", "principal")).alias("made"))
    last = F.max(F.struct("event_time", "event_id", "change")).alias("last")
    attached = (
        known.where("kind = 'policy'")
        .groupBy("anomaly_id", "subject")
        .agg(last)
        .where(F.col("last.change") == GIVEN)
        .groupBy("anomaly_id")
        .agg(F.slice(F.sort_array(F.collect_list("subject")), 1, _POLICIES).alias("policies_seen"))
    )
    return made.join(attached, "anomaly_id", "full").select(
        "anomaly_id",
        F.col("made.event_time").alias("identity_created_at"),
        F.col("made.principal").alias("identity_created_by"),
        "policies_seen",
    )


def to_owners(findings: DataFrame, changes: DataFrame) -> DataFrame:
    """(anomaly_id, own_resource, own_account_id, own_since, own_instance_profile): what of the
    organisation's own had a finding's address at its first event.

    own_resource is the instance, network interface, NAT gateway or allocation. An address that was given
    back by then, with its allocation or its instance, is nobody's.
    """
    asked = findings.select("anomaly_id", "first_time", F.col("source_ip_address").alias("address")).where(
        "address <> ''"
    )
    given = changes.where(F.col("kind") == "address").where(F.col("change") == GIVEN)
    latest = F.max(F.struct("event_time", "holder", "recipient_account_id")).alias("had")
    had = (
        _known(asked, given, F.col("address") == F.col("subject"))
        .groupBy("anomaly_id", "first_time")
        .agg(latest)
        .select(
            "anomaly_id",
            "first_time",
            F.col("had.holder").alias("resource"),
            F.col("had.event_time").alias("since"),
            F.col("had.recipient_account_id").alias("own_account_id"),
        )
    )
    # An allocation is lent to an instance, an interface or a gateway.
    lent = changes.where((F.col("kind") == "lent") & (F.col("change") == GIVEN))
    lending = (
        _known(had, lent, F.col("resource") == F.col("subject"))
        .groupBy("anomaly_id")
        .agg(F.max(F.struct("event_time", "holder")).alias("to"))
        .select("anomaly_id", F.col("to.holder").alias("lent_to"))
    )
    had = had.join(lending, "anomaly_id", "left").withColumn(
        "own_resource", F.coalesce(F.nullif("lent_to", F.lit("")), F.col("resource"))
    )
    ends = changes.where(
        (F.col("change") == TAKEN) & F.col("kind").isin("address", "instance", "interface")
    ).withColumn("ended", F.when(F.col("kind") == "address", F.col("holder")).otherwise(F.col("subject")))
    over = (
        _known(had, ends, F.col("ended").isin(F.col("resource"), F.col("own_resource")))
        .where(F.col("event_time") >= F.col("since"))
        .select("anomaly_id")
        .distinct()
    )
    profiles = changes.where((F.col("kind") == "instance") & (F.col("change") == GIVEN)).select(
        F.col("subject").alias("own_resource"), F.col("holder").alias("profile"), "event_time"
    )
    profile = profiles.groupBy("own_resource").agg(
        F.max_by("profile", F.struct("event_time", "profile")).alias("profile")
    )
    return (
        had.join(over, "anomaly_id", "left_anti")
        .join(profile, "own_resource", "left")
        .select(
            "anomaly_id",
            "own_resource",
            "own_account_id",
            F.col("since").alias("own_since"),
            F.nullif("profile", F.lit("")).alias("own_instance_profile"),
        )
    )


def with_evidence(
    findings: DataFrame, firsts: DataFrame, sessions: DataFrame, changes: DataFrame
) -> DataFrame:
    """findings plus the columns `tables.EVIDENCE` names.

    firsts: `to_first_events`; sessions: those of the days a session may be handed out on before it is used;
    changes: all before, of `to_changes_daily` or folded and unfolded again by `to_holdings` and `to_changes`.
    """
    rows = findings.join(firsts, "anomaly_id", "left")
    changes = changes.select(*CHANGE)
    for answers in (
        to_chains(rows, sessions),
        to_keys(rows, changes),
        to_identities(rows, changes),
        to_owners(rows, changes),
    ):
        rows = rows.join(answers, "anomaly_id", "left")
    by_call = F.create_map(*[F.lit(text) for pair in _BY_CALL.items() for text in pair])
    named = F.col("as_organization").rlike("(?i)^amazon")
    return rows.withColumns(
        {
            "credential": F.when(
                F.col("credential").isin("assumed role", "session token"),
                F.coalesce(by_call[F.col("session_command")], F.col("credential")),
            ).otherwise(F.col("credential")),
            "aws_network": F.when(F.col("as_number").isNotNull(), F.coalesce(named, F.lit(False))),
        }
    )
