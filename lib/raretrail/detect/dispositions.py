"""Dispositions and change windows laid on findings: what is suppressed, what incidents become.

No score changes by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, fields

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as Over
from pyspark.sql import functions as F

from raretrail.detect.rules import EQUAL, Rule

# Columns of an incident that come of what people say.
STATE_COLUMNS = ("state", "assignee", "verdict", "verdict_by", "verdict_at", "suppressed_by")
_TYPES = {"created_at": "timestamp", "starts_at": "timestamp", "ends_at": "timestamp", "suppress": "boolean"}
_RULES = "rules array<struct<{}>>".format(
    ",".join(f"{field.name}:{_TYPES.get(field.name, 'string')}" for field in fields(Rule))
)


# --------------------------------------------------------------------------------- what findings become


def with_suppressed_by(findings: DataFrame, rules: Sequence[Rule]) -> DataFrame:
    """findings (with incident_id) plus suppressed_by: the oldest rule that suppresses each, if any.

    What a rule calls malicious is suppressed by none.
    """
    if not rules:
        return findings.withColumn("suppressed_by", F.lit(None).cast("string"))
    suppressing = F.filter("covering", lambda rule: rule["suppress"])
    malicious = F.exists("covering", lambda rule: F.coalesce(rule["verdict"] == "malicious", F.lit(False)))
    mark = F.when(~malicious, F.try_element_at(suppressing, F.lit(1))["rule_id"])
    kept = [column for column in findings.columns if column != "suppressed_by"]
    return with_covering(findings, rules).withColumn("suppressed_by", mark).select(*kept, "suppressed_by")


def with_covering(findings: DataFrame, rules: Sequence[Rule]) -> DataFrame:
    """findings (with incident_id and former_incident_ids) plus covering: the rules that cover each, as an
    array of structs, oldest first.

    A rule that names an incident covers all findings of the incident which holds the finding of that
    id now, or one that was part of the incident once. A rule with times covers findings all of whose
    events lie within them.
    """
    listed = findings.sparkSession.createDataFrame([([astuple(rule) for rule in rules],)], _RULES)
    none = F.array().cast("array<string>")
    ids = F.array_append(F.coalesce("former_incident_ids", none), F.col("anomaly_id"))
    is_named = F.filter(ids, lambda id: F.exists("rules", lambda rule: rule["incident_id"] == id))
    incident = Over.partitionBy("incident_id")
    return (
        findings.crossJoin(F.broadcast(listed))
        .withColumn("named", F.flatten(F.collect_set(is_named).over(incident)))
        .withColumn("covering", F.filter("rules", _covers))
        .drop("rules", "named")
    )


def _covers(rule: Column) -> Column:
    named = rule["incident_id"]
    covers = (
        named.isNull() | (named == F.col("incident_id")) | F.array_contains("named", named)
    )  # fmt: skip
    for name in ("anomaly_id", *EQUAL):
        covers = covers & (rule[name].isNull() | (rule[name] == F.col(name)))
    within = F.col("address_key").between(rule["address_first"], rule["address_last"])
    covers = covers & (rule["address_first"].isNull() | within)
    covers = covers & (rule["starts_at"].isNull() | (F.col("first_time") >= rule["starts_at"]))
    covers = covers & (rule["ends_at"].isNull() | (F.col("last_time") < rule["ends_at"]))
    return F.coalesce(covers, F.lit(False))


# -------------------------------------------------------------------------------- what incidents become


def to_incident_states(findings: DataFrame, rules: Sequence[Rule]) -> DataFrame:
    """(incident_id, state, assignee, verdict, verdict_by, verdict_at, suppressed_by, closed_at) of the
    incidents of findings, which have suppressed_by and first_scored_at.

    The latest word counts, and one that names the incident counts for more than one of a wider scope,
    which must cover all findings to be a verdict on the incident unless it says malicious. closed_at is
    when it was last closed, also where a finding that came later, and is not suppressed, opened it.
    """
    order = F.struct("bits", "anomaly_id")
    open_finding = F.when(F.col("suppressed_by").isNull(), F.col("first_scored_at"))
    whole = findings.groupBy("incident_id").agg(
        F.count(F.lit(1)).alias("findings"),
        F.max(open_finding).alias("newest"),
        F.count_if(F.col("suppressed_by").isNull()).alias("not_suppressed"),
        F.max_by("suppressed_by", order).alias("suppressed_by"),
    )
    suppressed = F.when(F.col("not_suppressed") == 0, F.col("suppressed_by")).alias("suppressed_by")
    if not rules:
        nothing = {"assignee": "string", "verdict": "string", "verdict_by": "string"}
        nothing |= {"verdict_at": "timestamp", "closed_at": "timestamp"}
        said_nothing = [F.lit(None).cast(type).alias(name) for name, type in nothing.items()]
        return whole.select("incident_id", F.lit("open").alias("state"), suppressed, *said_nothing)
    said = (
        with_covering(findings, rules)
        .select("incident_id", F.explode("covering").alias("rule"))
        .groupBy("incident_id", "rule")
        .agg(F.count(F.lit(1)).alias("covered"))
        .join(whole.select("incident_id", "findings"), "incident_id")
    )
    named = F.col("rule.incident_id").isNotNull()
    when = F.struct("rule.created_at", "rule.rule_id")
    counts = named | (F.col("rule.verdict") == "malicious") | (F.col("covered") == F.col("findings"))
    judged = F.struct(named.alias("named"), when.alias("when"))
    latest = said.groupBy("incident_id").agg(
        _latest("state", when, named),
        _latest("assignee", when, named),
        _latest("verdict", judged, counts),
    )
    closed = F.when(F.col("state.state") == "closed", F.col("state.created_at"))
    return (
        whole.join(latest, "incident_id", "left")
        .withColumn("closed_at", closed)
        .select(
            "incident_id",
            F.when(F.col("newest") > F.col("closed_at"), F.lit("open"))
            .otherwise(F.coalesce("state.state", F.lit("open")))
            .alias("state"),
            F.col("assignee.assignee").alias("assignee"),
            F.col("verdict.verdict").alias("verdict"),
            F.col("verdict.author").alias("verdict_by"),
            F.col("verdict.created_at").alias("verdict_at"),
            suppressed,
            "closed_at",
        )
    )


def with_states(incidents: DataFrame, states: DataFrame) -> DataFrame:
    """incidents with the columns of `to_incident_states` in place of their own."""
    return incidents.drop(*STATE_COLUMNS).join(states, "incident_id", "left")


def _latest(field: str, order: Column, counts: Column) -> Column:
    """The rule that speaks last of those that count and say something of the field."""
    says = counts & F.col(f"rule.{field}").isNotNull()
    return F.max_by("rule", F.when(says, order)).alias(field)
