"""Dispositions and change windows: which findings they cover, and what incidents become by them.

Rows are read as people wrote them, from the command line or SQL. `to_rules` tells what cannot be used
and turns the rest into rules; the other functions apply rules to findings, and change no score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as Over
from pyspark.sql import functions as F

from raretrail.geo.networks import address_key, range_of
from raretrail.tables import STATES, VERDICTS

Row = Mapping[str, Any]

# What a disposition or window may be limited to, beside addresses: columns of a finding.
NAMED = ("incident_id", "anomaly_id")
EQUAL = ("detector", "principal", "command", "place", "network", "recipient_account_id")
SCOPE = (*NAMED, *EQUAL, "source_ip_address")
# Columns of an incident that come of what people say.
STATE_COLUMNS = ("state", "assignee", "verdict", "verdict_by", "verdict_at", "suppressed_by")
# Clocks differ between machines; what is further ahead would outlast every later word.
_AHEAD = timedelta(hours=1)


@dataclass(frozen=True)
class Rule:
    """One usable disposition or window, without what is withdrawn or overtaken."""

    rule_id: str
    author: str
    created_at: datetime
    incident_id: str | None = None
    anomaly_id: str | None = None
    detector: str | None = None
    principal: str | None = None
    command: str | None = None
    place: str | None = None
    network: str | None = None
    recipient_account_id: str | None = None
    address_first: str | None = None
    address_last: str | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    verdict: str | None = None
    suppress: bool = False
    state: str | None = None
    assignee: str | None = None


_TYPES = {"created_at": "timestamp", "starts_at": "timestamp", "ends_at": "timestamp", "suppress": "boolean"}
_RULES = "rules array<struct<{}>>".format(
    ",".join(f"{field.name}:{_TYPES.get(field.name, 'string')}" for field in fields(Rule))
)


# ------------------------------------------------------------------------------------ what was written


def to_rules(
    dispositions: Sequence[Row],
    windows: Sequence[Row],
    now: datetime,
    detectors: Collection[str] | None = None,
) -> tuple[list[Rule], list[str]]:
    """The rules that rows of `dispositions` and `change_windows` make as of now, oldest first, and a
    sentence for each row that cannot be used. detectors, where given, are those there are."""
    rules: list[Rule] = []
    problems: list[str] = []
    for table, key, rows in (
        ("dispositions", "disposition_id", dispositions),
        ("change_windows", "window_id", windows),
    ):
        tidy = [_tidy(row) for row in rows]
        times = Counter(row.get(key) for row in tidy)
        usable = []
        for row in tidy:
            wrong = problem_of(row, key, now, detectors)
            if not wrong and times[row[key]] > 1:
                wrong = "its id is used more than once"
            if not wrong and row.get("withdraws") and row["withdraws"] not in times:
                wrong = f"withdraws {row['withdraws']!r}, which is not there"
            if wrong:
                problems.append(f"{table} {row.get(key)!r}: {wrong}")
            else:
                usable.append(row)
        withdrawn = {row["withdraws"] for row in usable if row.get("withdraws")}
        rules += [_rule(row, key) for row in usable if row[key] not in withdrawn and not row.get("withdraws")]
    return _latest_verdicts(sorted(rules, key=lambda rule: (rule.created_at, rule.rule_id))), problems


def problem_of(row: Row, key: str, now: datetime, detectors: Collection[str] | None = None) -> str | None:
    """Why a row (of the table whose key is `key`) cannot be used; None if it can."""
    row = _tidy(row)
    scoped = [name for name in SCOPE if row.get(name)]
    created, address = row.get("created_at"), row.get("source_ip_address")
    for name in (key, "author"):
        if not row.get(name):
            return f"has no {name}"
    if created is None:
        return "has no created_at"
    if created > now + _AHEAD:
        return f"created_at lies in the future ({created:%Y-%m-%d %H:%M} UTC)"
    if row.get("withdraws"):
        return None
    if address is not None:
        try:
            range_of(address)
        except ValueError:
            return f"source_ip_address {address!r} is no address and no block in CIDR notation"
    if detectors is not None and row.get("detector") and row["detector"] not in detectors:
        return f"there is no detector {row['detector']!r}"
    if key == "window_id":
        return _window_problem(row, scoped)
    return _disposition_problem(row, scoped)


def _window_problem(row: Row, scoped: Sequence[str]) -> str | None:
    if not row.get("reason"):
        return "has no reason"
    if not scoped:
        return "covers everything: name a principal, command, place, address, network, account or detector"
    if row.get("starts_at") is None or row.get("ends_at") is None or row["ends_at"] <= row["starts_at"]:
        return "needs starts_at, and ends_at after it"
    return None


def _disposition_problem(row: Row, scoped: Sequence[str]) -> str | None:
    verdict, state, expires = row.get("verdict"), row.get("state"), row.get("expires_at")
    if verdict and verdict not in VERDICTS:
        return f"verdict {verdict!r} is none of {', '.join(VERDICTS)}"
    if state and state not in STATES:
        return f"state {state!r} is none of {', '.join(STATES)}"
    if not (verdict or state or row.get("assignee") or row.get("suppress")):
        return "says nothing: it has no verdict, suppress, state, assignee or withdraws"
    if not scoped:
        return "covers everything: name an incident, principal, command, place, address, network, ..."
    if (state or row.get("assignee")) and not row.get("incident_id"):
        return "state and assignee are of an incident: it needs an incident_id"
    if row.get("suppress") and not row.get("reason"):
        return "suppresses without a reason"
    if row.get("suppress") and verdict == "malicious":
        return "suppresses what it calls malicious"
    if expires is not None and expires <= row["created_at"]:
        return "expires before it was created"
    return None


def _tidy(row: Row) -> dict[str, Any]:
    """The row with blanks as None and times in UTC."""
    tidy = dict(row)
    for name, value in row.items():
        if isinstance(value, str):
            tidy[name] = value.strip() or None
        elif isinstance(value, datetime):
            tidy[name] = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return tidy


def _rule(row: Row, key: str) -> Rule:
    address = row.get("source_ip_address")
    first, last = range_of(address) if address else (None, None)
    scope: dict[str, Any] = {name: row.get(name) for name in (*NAMED, *EQUAL)}
    rule = Rule(
        row[key], row["author"], row["created_at"], **scope, address_first=first, address_last=last
    )  # fmt: skip
    if key == "window_id":
        return replace(rule, suppress=True, starts_at=row["starts_at"], ends_at=row["ends_at"])
    verdict = row.get("verdict")
    state = row.get("state")
    if verdict and row.get("incident_id") and not state:
        # Somebody who says malicious is at work on it; any other verdict is the end of it.
        state = "acknowledged" if verdict == "malicious" else "closed"
    return replace(
        rule,
        ends_at=row.get("expires_at"),
        verdict=verdict,
        suppress=bool(row.get("suppress")),
        state=state,
        assignee=row.get("assignee"),
    )


def _latest_verdicts(rules: list[Rule]) -> list[Rule]:
    """The rules, each verdict but the latest on the same scope taken out."""

    def scope(rule: Rule) -> tuple[str | None, ...]:
        named = tuple(getattr(rule, name) for name in (*NAMED, *EQUAL))
        return (*named, rule.address_first, rule.address_last)

    latest = {scope(rule): rule.rule_id for rule in rules if rule.verdict}
    return [
        replace(rule, verdict=None) if rule.verdict and latest[scope(rule)] != rule.rule_id else rule
        for rule in rules
    ]


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
    """findings plus covering: the rules that cover each, as an array of structs, oldest first.

    A rule that names an incident covers all findings of the incident which holds the finding of that
    id now. A rule with times covers findings all of whose events lie within them.
    """
    listed = findings.sparkSession.createDataFrame([([astuple(rule) for rule in rules],)], _RULES)
    is_named = F.exists("rules", lambda rule: rule["incident_id"] == F.col("anomaly_id"))
    incident = Over.partitionBy("incident_id")
    return (
        findings.crossJoin(F.broadcast(listed))
        .withColumn("named", F.collect_set(F.when(is_named, F.col("anomaly_id"))).over(incident))
        .withColumn("address_key", address_key(F.col("source_ip_address")))
        .withColumn("covering", F.filter("rules", _covers))
        .drop("rules", "named", "address_key")
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
            F.when(F.col("not_suppressed") == 0, F.col("suppressed_by")).alias("suppressed_by"),
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


def named_incidents(rules: Iterable[Rule]) -> list[str]:
    """The ids of incidents that rules name, sorted."""
    return sorted({rule.incident_id for rule in rules if rule.incident_id})
