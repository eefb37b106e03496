"""What an analyst asks of an incident, as its columns: what it touched and made, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from raretrail.evidence.changes import GIVEN
from raretrail.evidence.response import steps_for, undo
from raretrail.settings import Account

BEFORE = timedelta(hours=48)
TOUCHED = timedelta(hours=24)
SHOWN = 50
CRITICALITIES = ("low", "medium", "high", "critical")
# What is taken away first: what an identity holds, then the identity.
_UNDONE = ("key", "password", "policy", "group", "trust", "key pair", "instance", "user", "role")
_MADE = (*_UNDONE, "policy document", "identity provider")


def _first(values: Column) -> Column:
    return F.slice(F.array_sort(values), 1, SHOWN)


def _seconds(span: timedelta) -> Column:
    return F.make_dt_interval(secs=F.lit(span.total_seconds()))


def _within(incidents: DataFrame) -> DataFrame:
    """(incident_id, begun, ended, addresses, who): a row for each of an incident's principals."""
    return incidents.select(
        "incident_id",
        F.col("first_time").alias("begun"),
        F.col("last_time").alias("ended"),
        F.col("source_ip_addresses").alias("addresses"),
        F.explode("principals").alias("who"),
    )


def _theirs(rows: DataFrame, incidents: DataFrame, when: Column) -> DataFrame:
    """Pairs of an incident and a row of one of its principals."""
    return rows.join(F.broadcast(_within(incidents)), (F.col("principal") == F.col("who")) & when)


def _during() -> Column:
    return F.col("event_time").between(F.col("begun"), F.col("ended"))


def to_touched(incidents: DataFrame, events: DataFrame) -> DataFrame:
    """(incident_id, touched_services, touched_accounts, touched_regions, touched_resources, resource_count,
    touched_writes, bytes_out): what the incident's principals did, and what worked, in the 24 hours up to
    its last event.

    incidents: columns of `tables.INCIDENTS`; events: those of these hours. bytes_out is null where no
    event tells it (data events of S3 do).
    """
    worked = events.where(F.col("error_code").isNull()).select(
        "principal",
        "event_time",
        F.regexp_extract("command", "^([^:]*):", 1).alias("service"),
        "recipient_account_id",
        "aws_region",
        (~F.coalesce("read_only", F.lit(False))).alias("writes"),
        F.regexp_extract_all("resources", F.lit(r'"ARN":"([^"]+)"'), F.lit(1)).alias("arns"),
        F.get_json_object("additional_event_data", "$.bytesTransferredOut").try_cast("double").alias("bytes"),
    )
    since = F.col("event_time") > F.col("ended") - _seconds(TOUCHED)
    rows = _theirs(worked, incidents, since & (F.col("event_time") <= F.col("ended")))
    return (
        rows.groupBy("incident_id")
        .agg(
            _first(F.collect_set("service")).alias("touched_services"),
            _first(F.collect_set("recipient_account_id")).alias("touched_accounts"),
            _first(F.collect_set("aws_region")).alias("touched_regions"),
            F.array_distinct(F.flatten(F.collect_set("arns"))).alias("arns"),
            F.count_if("writes").alias("touched_writes"),
            F.sum("bytes").cast("bigint").alias("bytes_out"),
        )
        .withColumn("resource_count", F.size("arns").cast("bigint"))
        .withColumn("touched_resources", _first(F.col("arns")))
        .drop("arns")
    )


def to_made(incidents: DataFrame, changes: DataFrame) -> DataFrame:
    """(incident_id, made, undo_steps): what the incident's principals made or gave from its first event to
    its last, as '<kind> <subject> of <holder>', and the commands that take it away.

    incidents: columns of `tables.INCIDENTS`; changes: of `tables.CHANGES_DAILY`, of these days.
    """
    given = changes.where((F.col("change") == GIVEN) & F.col("kind").isin(*_MADE)).select(
        "principal", "event_time", "kind", "subject", "holder"
    )
    whose = F.when(F.col("holder") != "", F.concat(F.lit("of "), F.col("holder")))
    told = F.concat_ws(" ", "kind", F.nullif("subject", F.lit("")), whose)
    place = F.array_position(F.array(*map(F.lit, _UNDONE)), F.col("kind"))
    step = F.struct(place.alias("place"), undo(F.struct("kind", "subject", "holder")).alias("step"))
    return (
        _theirs(given, incidents, _during())
        .groupBy("incident_id")
        .agg(F.collect_set(told).alias("made"), F.array_sort(F.collect_set(step)).alias("steps"))
        .select(
            "incident_id",
            _first(F.col("made")).alias("made"),
            F.filter(F.col("steps.step"), lambda one: one.isNotNull()).alias("undo_steps"),
        )
    )


def to_became(incidents: DataFrame, sessions: DataFrame) -> DataFrame:
    """(incident_id, became): the identities whose sessions the incident's principals took from its addresses
    between its first and its last event.

    incidents: columns of `tables.INCIDENTS`; sessions: of `tables.SESSIONS_DAILY`, of these days.
    """
    taken = sessions.select("principal", "event_time", "source_ip_address", "issued_arn")
    here = F.array_contains("addresses", F.coalesce("source_ip_address", F.lit("")))
    rows = _theirs(taken, incidents, _during() & here)
    return rows.groupBy("incident_id").agg(_first(F.collect_set("issued_arn")).alias("became"))


def to_earlier(incidents: DataFrame, findings: DataFrame) -> DataFrame:
    """(incident_id, earlier_findings, earlier_count): the findings of its actors, in other incidents, in the
    48 hours before its first event.

    incidents: columns of `tables.INCIDENTS`; findings: anomaly_id, incident_id, actor, first_time, of its
    own actors among others.
    """
    whose = findings.select("incident_id", F.col("actor").alias("whose")).distinct()
    asked = incidents.select("incident_id", F.col("first_time").alias("begun")).join(whose, "incident_id")
    other = findings.select(
        "anomaly_id",
        F.col("actor").alias("other_actor"),
        F.col("first_time").alias("at"),
        F.col("incident_id").alias("other_incident"),
    )
    before = (F.col("at") < F.col("begun")) & (F.col("at") >= F.col("begun") - _seconds(BEFORE))
    same = (F.col("whose") == F.col("other_actor")) & (F.col("incident_id") != F.col("other_incident"))
    rows = asked.join(other, same & before)
    return rows.groupBy("incident_id").agg(
        _first(F.collect_set("anomaly_id")).alias("earlier_findings"),
        F.count_distinct("anomaly_id").alias("earlier_count"),
    )


def to_identities(findings: DataFrame) -> DataFrame:
    """(incident_id, access_key_ids, credentials, key_created_at, key_first_used_at, any_mfa,
    origin_principals, own_resources, policies_seen, stop_steps): of all findings of an incident together;
    stop_steps are the commands that stop its identities.
    """
    identity = F.struct(
        "recipient_account_id",
        "user_identity_arn",
        "user_identity_type",
        "session_issuer_arn",
        "access_key_id",
    )
    # One of a role's many sessions stands for the others: what stops it stops them.
    by_role = F.coalesce("session_issuer_arn", F.concat_ws(" ", "user_identity_arn", "access_key_id"))
    sets = {
        "access_key_ids": "access_key_id",
        "credentials": "credential",
        "origin_principals": "origin_principal",
        "own_resources": "own_resource",
    }
    each = findings.groupBy("incident_id", by_role.alias("by_role")).agg(F.min(identity).alias("identity"))
    ordered = F.array_sort(F.collect_list("identity"))
    steps = each.groupBy("incident_id").agg(F.flatten(F.transform(ordered, steps_for)).alias("stop_steps"))
    policies = F.array_distinct(F.flatten(F.collect_set("policies_seen")))
    told = findings.groupBy("incident_id").agg(
        *[_first(F.collect_set(column)).alias(name) for name, column in sets.items()],
        _first(policies).alias("policies_seen"),
        F.min("key_created_at").alias("key_created_at"),
        F.min("key_first_used_at").alias("key_first_used_at"),
        F.bool_or("mfa_authenticated").alias("any_mfa"),
    )
    return told.join(steps, "incident_id")


def with_accounts(incidents: DataFrame, accounts: Sequence[Account]) -> DataFrame:
    """incidents plus account_names, account_owners, account_environments, account_data, regulations and
    criticality, the highest of its accounts', by `conf/accounts.yml`; empty where that says nothing."""

    def looked_up(told: Callable[[Account], Sequence[str]]) -> Column:
        pairs = [
            F.lit(part)
            for account in accounts
            for part in (account.id, "\x1f".join(filter(None, told(account))))
        ]
        if not pairs:
            return F.array().cast("array<string>")
        known = F.create_map(*pairs)
        found = F.transform("recipient_account_ids", lambda one: F.split(known[one], "\x1f"))
        each = F.flatten(F.filter(found, lambda one: one.isNotNull()))
        return F.array_sort(F.array_distinct(F.filter(each, lambda one: one != "")))

    worst = F.filter(
        F.array(*map(F.lit, reversed(CRITICALITIES))),
        lambda one: F.array_contains(looked_up(lambda account: [account.criticality]), one),
    )
    return incidents.withColumns(
        {
            "account_names": looked_up(lambda account: [account.name]),
            "account_owners": looked_up(lambda account: [account.told_owner]),
            "account_environments": looked_up(lambda account: [account.environment or ""]),
            "account_data": looked_up(lambda account: [account.data or ""]),
            "regulations": looked_up(lambda account: account.regulation),
            "criticality": F.get(worst, 0),
        }
    )


def with_answers(
    incidents: DataFrame,
    findings: DataFrame,
    known_findings: DataFrame,
    events: DataFrame,
    changes: DataFrame,
    sessions: DataFrame,
    accounts: Sequence[Account],
) -> DataFrame:
    """incidents plus the columns `tables.INCIDENT_EVIDENCE` names.

    findings: the incidents' own; known_findings: all of the 48 hours before too; events, changes and
    sessions: those of the days from one before the first incident to the last.
    """
    rows = incidents
    for answers in (
        to_identities(findings),
        to_earlier(incidents, known_findings),
        to_touched(incidents, events),
        to_made(incidents, changes),
        to_became(incidents, sessions),
    ):
        rows = rows.join(answers, "incident_id", "left")
    nothing = F.array().cast("array<string>")
    steps = F.concat(F.coalesce("stop_steps", nothing), F.coalesce("undo_steps", nothing))
    return with_accounts(rows.withColumn("response_steps", steps), accounts).drop("stop_steps", "undo_steps")
