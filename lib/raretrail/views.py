"""Views over the tables: the questions people ask, and the findings by the names of ECS and OCSF.

Each is one SELECT in the dialect that DuckDB and Spark share, with `"` around names that need it; Spark
takes a backtick there (`View.sql`). They read tables by plain names and one another, in the order of
`views`. What a detector answers to comes from the settings as literals, so that a view stands for itself
where it is created for good.

Column names of `ecs_anomalies` and `ocsf_findings` are paths: `a.b` is b inside a, `a[0].b` b of the only
element of a list, `a[*].b` the b of each element. `nested` makes the objects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from raretrail import __version__
from raretrail.settings import Detector
from raretrail.tables import Column

Dialect = Literal["duckdb", "spark"]

ECS_VERSION = "8.17.0"
OCSF_VERSION = "1.6.0"


@dataclass(frozen=True)
class View:
    """A view: what a row is, its columns, its SELECT, and a question with the query that answers it."""

    name: str
    comment: str
    columns: tuple[Column, ...]
    body: str
    question: str
    answer: str

    @property
    def column_names(self) -> list[str]:
        """The columns in the order of the SELECT."""
        return [column.name for column in self.columns]

    def sql(self, dialect: Dialect) -> str:
        """The SELECT as the dialect quotes names."""
        return in_dialect(self.body, dialect)


def in_dialect(sql: str, dialect: Dialect) -> str:
    """sql, whose only double quotes are those around names, as the dialect quotes them."""
    return sql.replace('"', "`") if dialect == "spark" else sql


def literal(text: str) -> str:
    """Text as SQL that both engines read as it is, whatever they do with quotes and backslashes."""
    pieces = re.findall(r"[\w .,:;/()+*?!=-]+|.", text, re.DOTALL) if text else []
    plain = [f"'{p}'" if re.fullmatch(r"[\w .,:;/()+*?!=-]+", p, re.ASCII) else _by_code(p) for p in pieces]
    return " || ".join(plain) or "''"


def _by_code(text: str) -> str:
    # Spark's chr() takes Latin-1 only; letters beyond it need no escaping anyway.
    return " || ".join(f"chr({ord(c)})" if ord(c) < 128 else f"'{c}'" for c in text)


# ------------------------------------------------------------------------------------------ shared


def _minutes(start: str, end: str) -> str:
    """Minutes between two timestamps: both engines subtract to an interval and take it apart."""
    passed = f"({end} - {start})"
    return (
        f"(CAST(EXTRACT(DAY FROM {passed}) AS DOUBLE) * 1440 + CAST(EXTRACT(HOUR FROM {passed}) AS DOUBLE) * 60"
        f" + CAST(EXTRACT(MINUTE FROM {passed}) AS DOUBLE)"
        f" + floor(CAST(EXTRACT(SECOND FROM {passed}) AS DOUBLE)) / 60)"
    )


def _epoch_ms(time: str) -> str:
    """Milliseconds since 1970, to the second."""
    return f"CAST(round({_minutes(_EPOCH, time)} * 60) AS BIGINT) * 1000"


_EPOCH = "TIMESTAMP '1970-01-01 00:00:00+00:00'"


def _days_between(first: str, last: str) -> str:
    return f"CAST(EXTRACT(DAY FROM (CAST({last} AS TIMESTAMP) - CAST({first} AS TIMESTAMP))) AS DOUBLE)"


def _latest(table: str) -> str:
    return f"(SELECT max(as_of) FROM {table})"


def _list(text: str) -> str:
    """A list of texts from one text with commas: the constructors of lists differ."""
    return f"split({text}, ',')"


# Of each finding the first of its events, which holds what the finding does not repeat.
_FIRST_EVENTS = """
first_events AS (
  SELECT * FROM (
    SELECT a.anomaly_id, e.event_id, e.event_source, e.event_name, e.aws_region, e.request_id, e.event_type,
           e.event_category, e.error_message, e.request_parameters, e.user_identity_type,
           e.user_identity_arn, e.user_identity_principal_id, e.user_identity_user_name,
           e.user_identity_invoked_by, e.mfa_authenticated,
           row_number() OVER (PARTITION BY a.anomaly_id ORDER BY e.event_id) AS nth
    FROM anomalies a
    JOIN events e
      ON e.event_date = CAST(a.first_time AS DATE) AND e.event_time = a.first_time
     AND e.recipient_account_id = a.recipient_account_id AND e.principal = a.principal
     AND e.command = a.command AND coalesce(e.source_ip_address, '') = a.source_ip_address
     AND coalesce(e.error_code, '') = a.error_code
  ) AS numbered
  WHERE nth = 1
)"""


def _c(name: str, type: str, comment: str) -> Column:
    return Column(name, type, comment)


# --------------------------------------------------------------------------------------- detectors


def _detectors(detectors: Sequence[Detector]) -> View:
    columns = (
        _c("detector", "string", "Detector"),
        _c("title", "string", "What it finds"),
        _c("enabled", "boolean", "Whether it is on"),
        _c("floor", "double", "Least bits of a finding"),
        _c("severity", "string", "Severity of its rule"),
        _c("risk_score", "int", "Risk score of its rule"),
        _c("rule_id", "string", "Published rule it answers to; empty for none"),
        _c("rule_name", "string", "That rule's name"),
        _c("rule_version", "string", "That rule's version"),
        _c("tactics", "array<string>", "ATT&CK tactic of each technique below, in their order"),
        _c("techniques", "array<string>", "ATT&CK techniques, each without its sub-technique"),
        _c("subtechniques", "array<string>", "Sub-technique of each; '' for none"),
        _c("attack_version", "string", "Version of ATT&CK"),
        _c("runbook", "string", "What to do"),
    )
    return View(
        "detectors",
        "One detector as the settings have it",
        columns,
        " UNION ALL ".join(map(_detector, detectors)) or _nothing(columns),
        "Which detector answers to which published rule?",
        "SELECT detector, rule_name, rule_id, rule_version FROM detectors WHERE rule_id IS NOT NULL",
    )


def _detector(detector: Detector) -> str:
    def text(value: str | None) -> str:
        return "CAST(NULL AS STRING)" if value is None else literal(value)

    def texts(values: Sequence[str]) -> str:
        return _list(text(",".join(values) if values else None))

    rule, attack = detector.rule, detector.attack
    split = [(a.tactic, *a.technique.partition(".")[::2], a.technique) for a in attack]
    return (
        f"SELECT {text(detector.name)} AS detector, {text(detector.title)} AS title, "
        f"{str(detector.enabled).lower()} AS enabled, CAST({detector.floor} AS DOUBLE) AS floor, "
        f"{text(detector.severity)} AS severity, CAST({detector.risk_score} AS INT) AS risk_score, "
        f"{text(rule.id if rule else None)} AS rule_id, {text(rule.name if rule else None)} AS rule_name, "
        f"{text(str(rule.version) if rule else None)} AS rule_version, "
        f"{texts([s[0] for s in split])} AS tactics, {texts([s[1] for s in split])} AS techniques, "
        f"{texts([s[3] if s[2] else '' for s in split])} AS subtechniques, "
        f"{text(attack[0].version if attack else None)} AS attack_version, "
        f"{text(' '.join(detector.runbook.split()))} AS runbook"
    )


def _nothing(columns: Sequence[Column]) -> str:
    kinds = {"array<string>": "split(CAST(NULL AS STRING), ',')"}
    chosen = [f"{kinds.get(c.type, f'CAST(NULL AS {c.type})')} AS {c.name}" for c in columns]
    return f"SELECT {', '.join(chosen)} WHERE 1 = 0"


# --------------------------------------------------------------------------------------- incidents

_OPEN = "WHERE coalesce(i.state, 'open') <> 'closed' AND i.suppressed_by IS NULL"

OPEN_INCIDENTS = View(
    "open_incidents",
    "One incident that nobody has closed and nothing suppresses, with what makes it stand out",
    (
        _c("incident_id", "string", "Incident"),
        _c("score", "double", "0-100, by rank among recent incidents"),
        _c("bits", "double", "How surprising it is"),
        _c("severity", "string", "low, medium, high or critical"),
        _c("principal", "string", "Principal"),
        _c("principal_kind", "string", "Kind of principal"),
        _c("place_name", "string", "Where from"),
        _c("nearest_place", "string", "The principal's nearest known place, where this one is new to it"),
        _c("nearest_place_km", "double", "Kilometres to it"),
        _c("principal_active_days", "bigint", "Days the principal was active in the 90 before"),
        _c("first_time", "timestamp", "Its first event"),
        _c("last_time", "timestamp", "Its last event"),
        _c("minutes", "double", "Minutes from the first to the last"),
        _c("event_count", "bigint", "Events"),
        _c("findings", "bigint", "Findings"),
        _c("commands", "array<string>", "Commands, most surprising first"),
        _c("detectors", "array<string>", "Detectors that found it"),
        _c("source_ip_addresses", "array<string>", "Addresses"),
        _c("recipient_account_ids", "array<string>", "Accounts"),
        _c("summary", "string", "What happened and why it is unusual"),
        _c("quality", "string", "ok, or the checks that warned"),
        _c("alerted_at", "timestamp", "When it was alerted, if it was"),
    ),
    f"""
SELECT i.incident_id, i.score, i.bits, i.severity, i.principal, i.principal_kind, i.place_name,
       f.nearest_place, f.nearest_place_km, f.principal_active_days, i.first_time, i.last_time,
       {_minutes("i.first_time", "i.last_time")} AS minutes, i.event_count, i.findings, i.commands, i.detectors,
       i.source_ip_addresses, i.recipient_account_ids, i.summary, i.quality, i.alerted_at
FROM incidents i
LEFT JOIN (
  SELECT incident_id, max(nearest_place) AS nearest_place, max(nearest_place_km) AS nearest_place_km,
         max(principal_active_days) AS principal_active_days
  FROM anomalies GROUP BY incident_id
) AS f ON f.incident_id = i.incident_id
{_OPEN}""",
    "What needs attention first, and how far from home was it?",
    "SELECT severity, round(score, 1) AS score, principal, place_name, round(nearest_place_km) AS km, event_count\n"
    "FROM open_incidents ORDER BY score DESC, bits DESC LIMIT 10",
)

INCIDENT_TIMELINE = View(
    "incident_timeline",
    "One thing of an incident: an event, a finding, the alert; order by happened_at, kind, id",
    (
        _c("incident_id", "string", "Incident"),
        _c("happened_at", "timestamp", "When"),
        _c("kind", "string", "event, finding or alert"),
        _c("id", "string", "event_id, anomaly_id or incident_id"),
        _c("principal", "string", "Principal"),
        _c("recipient_account_id", "string", "Account"),
        _c("command", "string", "Command"),
        _c("outcome", "string", "ok, or the error code"),
        _c("source_ip_address", "string", "Address as written"),
        _c("place_name", "string", "Where from"),
        _c("user_agent", "string", "User agent as written"),
        _c("bits", "double", "How surprising a finding is"),
        _c("detail", "string", "Request parameters of an event, detector of a finding, summary of an alert"),
    ),
    """
SELECT i.incident_id, e.event_time AS happened_at, 'event' AS kind, e.event_id AS id, e.principal,
       e.recipient_account_id, e.command, coalesce(e.error_code, 'ok') AS outcome, e.source_ip_address,
       e.place_name, e.user_agent, CAST(NULL AS DOUBLE) AS bits, e.request_parameters AS detail
FROM incidents i
JOIN events e
  ON array_contains(i.principals, e.principal)
 AND e.event_date BETWEEN CAST(i.first_time AS DATE) AND CAST(i.last_time AS DATE)
 AND e.event_time BETWEEN i.first_time AND i.last_time
 AND array_contains(i.source_ip_addresses, coalesce(e.source_ip_address, ''))
UNION ALL
SELECT incident_id, first_time, 'finding', anomaly_id, principal, recipient_account_id, command,
       CASE WHEN error_code = '' THEN 'ok' ELSE error_code END, source_ip_address, place_name, user_agent,
       bits, detector
FROM anomalies
UNION ALL
SELECT incident_id, alerted_at, 'alert', incident_id, principal, CAST(NULL AS STRING), CAST(NULL AS STRING),
       CAST(NULL AS STRING), CAST(NULL AS STRING), place_name, CAST(NULL AS STRING), bits, summary
FROM incidents WHERE alerted_at IS NOT NULL""",
    "What happened in an incident, in order?",
    "SELECT happened_at, kind, command, outcome, detail FROM incident_timeline\n"
    "WHERE incident_id LIKE '48f5d7ce%' AND kind = 'event' ORDER BY happened_at, id LIMIT 20",
)

# -------------------------------------------------------------------------------------- what is ours

_HELD = f"""
held AS (
  SELECT kind, recipient_account_id, subject, holder, max(given_at) AS given_at, max(taken_at) AS taken_at
  FROM (
    SELECT kind, recipient_account_id, subject, holder, given_at, taken_at
    FROM baseline_holdings WHERE as_of = {_latest("baseline_holdings")}
    UNION ALL
    SELECT kind, recipient_account_id, subject, holder,
           CASE WHEN change = 'given' THEN event_time END AS given_at,
           CASE WHEN change = 'taken' THEN event_time END AS taken_at
    FROM changes_daily
    WHERE event_date >= coalesce({_latest("baseline_holdings")}, DATE '1970-01-01')
  ) AS both_of_them
  GROUP BY kind, recipient_account_id, subject, holder
)"""

OWN_ADDRESSES = View(
    "own_addresses",
    "An address of the organisation's own and while it was so, by what calls in the trail gave it to",
    (
        _c("address", "string", "Address"),
        _c("valid_from", "timestamp", "Since when"),
        _c("valid_to", "timestamp", "Until when; empty while it lasts"),
        _c("recipient_account_id", "string", "Account"),
        _c("resource", "string", "Instance, network interface, NAT gateway, accelerator or allocation"),
        _c("allocation", "string", "What the address came with: the allocation, else the resource"),
        _c("instance_profile", "string", "Instance profile of an instance"),
    ),
    f"""
WITH {_HELD},
given AS (
  SELECT subject AS address, recipient_account_id, holder AS allocation, given_at,
         lead(given_at) OVER (PARTITION BY subject ORDER BY given_at, holder) AS next_at
  FROM held WHERE kind = 'address' AND given_at IS NOT NULL AND subject <> ''
),
latest AS (
  SELECT kind, subject, holder,
         row_number() OVER (PARTITION BY kind, subject ORDER BY given_at DESC, holder) AS nth
  FROM held WHERE kind IN ('lent', 'instance') AND given_at IS NOT NULL AND holder <> ''
),
ours AS (
  SELECT g.address, g.recipient_account_id, g.allocation, coalesce(l.holder, g.allocation) AS resource,
         g.given_at, g.next_at
  FROM given g LEFT JOIN latest l ON l.kind = 'lent' AND l.nth = 1 AND l.subject = g.allocation
),
ends AS (
  SELECT CASE WHEN kind = 'address' THEN holder ELSE subject END AS ended, max(taken_at) AS taken_at
  FROM held WHERE kind IN ('address', 'instance', 'interface') AND taken_at IS NOT NULL
  GROUP BY CASE WHEN kind = 'address' THEN holder ELSE subject END
)
SELECT o.address, o.given_at AS valid_from,
       least(CASE WHEN a.taken_at >= o.given_at THEN a.taken_at END,
             CASE WHEN r.taken_at >= o.given_at THEN r.taken_at END, o.next_at) AS valid_to,
       o.recipient_account_id, o.resource, o.allocation, p.holder AS instance_profile
FROM ours o
LEFT JOIN ends a ON a.ended = o.allocation
LEFT JOIN ends r ON r.ended = o.resource
LEFT JOIN latest p ON p.kind = 'instance' AND p.nth = 1 AND p.subject = o.resource""",
    "Whose address was this, and when?",
    "SELECT address, resource, recipient_account_id, valid_from, valid_to FROM own_addresses\n"
    "ORDER BY valid_from DESC LIMIT 10",
)

OWN_INFRASTRUCTURE = View(
    "own_infrastructure",
    "One address of the organisation's own, with who calls from it and what was found there",
    (
        _c("address", "string", "Address"),
        _c("resource", "string", "Instance, network interface, NAT gateway, accelerator or allocation"),
        _c("recipient_account_id", "string", "Account"),
        _c("instance_profile", "string", "Instance profile of an instance"),
        _c("valid_from", "timestamp", "Since when"),
        _c("valid_to", "timestamp", "Until when; empty while it lasts"),
        _c("principals", "bigint", "Principals that called from it while it was so"),
        _c("commands", "bigint", "Commands they ran"),
        _c("days", "bigint", "Days with calls"),
        _c("last_day", "date", "The last of them"),
        _c("findings", "bigint", "Findings there while it was so"),
        _c("incidents", "bigint", "Incidents"),
        _c("last_finding", "timestamp", "First event of the latest finding"),
    ),
    """
WITH calls AS (
  SELECT o.address, o.valid_from, count(DISTINCT p.principal) AS principals,
         count(DISTINCT p.command) AS commands, count(DISTINCT p.event_date) AS days, max(p.event_date) AS last_day
  FROM own_addresses o
  JOIN presence_daily p ON p.source_ip_address = o.address AND p.last_time >= o.valid_from
   AND (o.valid_to IS NULL OR p.first_time <= o.valid_to)
  GROUP BY o.address, o.valid_from
),
found AS (
  SELECT o.address, o.valid_from, count(*) AS findings, count(DISTINCT a.incident_id) AS incidents,
         max(a.first_time) AS last_finding
  FROM own_addresses o
  JOIN anomalies a ON a.source_ip_address = o.address AND a.last_time >= o.valid_from
   AND (o.valid_to IS NULL OR a.first_time <= o.valid_to)
  GROUP BY o.address, o.valid_from
)
SELECT o.address, o.resource, o.recipient_account_id, o.instance_profile, o.valid_from, o.valid_to,
       coalesce(c.principals, 0) AS principals, coalesce(c.commands, 0) AS commands, coalesce(c.days, 0) AS days,
       c.last_day, coalesce(f.findings, 0) AS findings, coalesce(f.incidents, 0) AS incidents, f.last_finding
FROM own_addresses o
LEFT JOIN calls c ON c.address = o.address AND c.valid_from = o.valid_from
LEFT JOIN found f ON f.address = o.address AND f.valid_from = o.valid_from""",
    "Was anything found at an address of our own?",
    "SELECT address, resource, principals, commands, findings, incidents FROM own_infrastructure\n"
    "ORDER BY findings DESC, valid_from DESC LIMIT 10",
)

# A person is named by role and session: those of one role are peers, all others those of their kind and account.
_PEERS = "CASE WHEN {k} = 'person' THEN regexp_extract({p}, '^(.*)/[^/]+$', 1) ELSE {a} || ' ' || {k} END"

INCIDENT_EVIDENCE = View(
    "incident_evidence",
    "One incident with the answers that change after it: what came later, planned changes, peers, permissions",
    (
        _c("incident_id", "string", "Incident"),
        _c("score", "double", "0-100, by rank among recent incidents"),
        _c("principal", "string", "Principal of its most surprising finding"),
        _c("command", "string", "Command of that finding"),
        _c("own_days", "bigint", "Days they used that command in the 90 before"),
        _c(
            "peers",
            "bigint",
            "Others of a person's role, else of the same kind and account, active in the last 90 days",
        ),
        _c("peers_with_command", "bigint", "Of these, with that command"),
        _c("commands_90", "bigint", "Distinct commands they used in the last 90 days"),
        _c("policies_seen", "array<string>", "Policies attached to them, as far as the trail shows"),
        _c("earlier_count", "bigint", "Findings of its actors in the 48 hours before, in other incidents"),
        _c("later_count", "bigint", "In the 48 hours after"),
        _c("change_windows", "bigint", "Change windows within a day of it that name nobody else"),
        _c(
            "jump_least_km_per_hour",
            "double",
            "Speed its fastest change of place takes at least, the accuracy radii allowed for",
        ),
        _c("response_steps", "array<string>", "AWS CLI commands that stop it: text, never run"),
    ),
    f"""
WITH ranked AS (
  SELECT *, row_number() OVER (PARTITION BY incident_id ORDER BY bits DESC, anomaly_id) AS nth FROM anomalies
),
top AS (
  SELECT t.incident_id, t.command, t.principal_command_days AS own_days, t.recipient_account_id, t.principal_kind,
         j.jump_least_km_per_hour
  FROM ranked t
  LEFT JOIN (
    SELECT incident_id, max(jump_least_km_per_hour) AS jump_least_km_per_hour
    FROM anomalies WHERE jump_bits > 0 GROUP BY incident_id
  ) AS j ON j.incident_id = t.incident_id
  WHERE t.nth = 1
),
active AS (
  SELECT DISTINCT principal, command, {_PEERS.format(p="principal", a="recipient_account_id", k="principal_kind")}
         AS peer_group
  FROM baseline_presence WHERE as_of = {_latest("baseline_presence")}
),
grouped AS (
  SELECT i.incident_id, i.principal, t.command,
         {_PEERS.format(p="i.principal", a="t.recipient_account_id", k="t.principal_kind")} AS peer_group
  FROM incidents i JOIN top t ON t.incident_id = i.incident_id
),
peers AS (
  SELECT g.incident_id, count(DISTINCT a.principal) AS peers,
         count(DISTINCT CASE WHEN a.command = g.command THEN a.principal END) AS peers_with_command
  FROM grouped g JOIN active a ON a.peer_group = g.peer_group AND a.principal <> g.principal
  GROUP BY g.incident_id
),
used AS (SELECT principal, count(DISTINCT command) AS commands_90 FROM active GROUP BY principal),
later AS (
  SELECT i.incident_id, count(DISTINCT a.anomaly_id) AS later_count
  FROM incidents i
  JOIN anomalies a ON a.actor = i.actor AND a.incident_id <> i.incident_id AND a.first_time > i.last_time
   AND a.first_time <= i.last_time + INTERVAL '48' HOUR
  GROUP BY i.incident_id
),
planned AS (
  SELECT i.incident_id, count(DISTINCT w.window_id) AS change_windows
  FROM incidents i
  JOIN change_windows w ON w.starts_at <= i.last_time + INTERVAL '24' HOUR
   AND w.ends_at > i.first_time - INTERVAL '24' HOUR AND (w.principal IS NULL OR array_contains(i.principals, w.principal))
   AND (w.recipient_account_id IS NULL OR array_contains(i.recipient_account_ids, w.recipient_account_id))
  WHERE w.withdraws IS NULL
    AND w.window_id NOT IN (SELECT withdraws FROM change_windows WHERE withdraws IS NOT NULL)
  GROUP BY i.incident_id
)
SELECT i.incident_id, i.score, i.principal, t.command, t.own_days, coalesce(p.peers, 0) AS peers,
       coalesce(p.peers_with_command, 0) AS peers_with_command, coalesce(u.commands_90, 0) AS commands_90,
       i.policies_seen, coalesce(i.earlier_count, 0) AS earlier_count, coalesce(l.later_count, 0) AS later_count,
       coalesce(w.change_windows, 0) AS change_windows, t.jump_least_km_per_hour, i.response_steps
FROM incidents i
LEFT JOIN top t ON t.incident_id = i.incident_id
LEFT JOIN peers p ON p.incident_id = i.incident_id
LEFT JOIN used u ON u.principal = i.principal
LEFT JOIN later l ON l.incident_id = i.incident_id
LEFT JOIN planned w ON w.incident_id = i.incident_id""",
    "Do colleagues run this command, and has more of theirs been found since?",
    "SELECT incident_id, principal, command, own_days, peers, peers_with_command, later_count FROM incident_evidence\n"
    "ORDER BY score DESC LIMIT 10",
)

# ---------------------------------------------------------------------------------------- profiles

_DAYS = (
    _c("days_7", "int", "Days among the last 7"),
    _c("days_30", "int", "Days among the last 30"),
    _c("days_90", "int", "Days among the last 90"),
)

PRINCIPAL_PROFILE = View(
    "principal_profile",
    "One thing a principal does, by the latest baseline: a place, country, network, command, user agent "
    "family, error code, or hour of the day (UTC)",
    (
        _c("as_of", "date", "The baseline holds the days before this one"),
        _c("principal", "string", "Principal, or the actor behind several"),
        _c("dimension", "string", "place, country, network, prefix, command, agent, error, hour or jump"),
        _c("value", "string", "The place, network, command, ..., or hour as two digits"),
        _c("value_name", "string", "The place in words; else the value"),
        _c("days_90", "bigint", "Days of the principal with it among the last 90"),
        _c("active_days", "bigint", "Days the principal was active among the last 90"),
        _c("share", "double", "days_90 of active_days"),
        _c("first_day", "date", "First day with it"),
        _c("last_day", "date", "Last day with it"),
        _c("others", "bigint", "Other principals with it"),
    ),
    f"""
WITH names AS (
  SELECT place, min(place_name) AS place_name FROM baseline_command_place
  WHERE as_of = {_latest("baseline_command_place")} GROUP BY place
),
active AS (
  SELECT identity, max(active_days) AS active_days FROM baseline_identity
  WHERE as_of = {_latest("baseline_identity")} GROUP BY identity
)
SELECT v.as_of, v.identity AS principal, v.dimension,
       CASE WHEN v.dimension = 'hour' THEN lpad(v.value, 2, '0') ELSE v.value END AS value,
       coalesce(n.place_name, CASE WHEN v.dimension = 'hour' THEN lpad(v.value, 2, '0') ELSE v.value END)
         AS value_name,
       CAST(v.days_90 AS BIGINT) AS days_90, a.active_days,
       CAST(v.days_90 AS DOUBLE) / nullif(a.active_days, 0) AS share, v.first_day, v.last_day,
       greatest(o.principals_90 - 1, 0) AS others
FROM baseline_identity_value v
LEFT JOIN active a ON a.identity = v.identity
LEFT JOIN baseline_value o ON o.as_of = v.as_of AND o.dimension = v.dimension AND o.value = v.value
LEFT JOIN names n ON v.dimension = 'place' AND n.place = v.value
WHERE v.as_of = {_latest("baseline_identity_value")}""",
    "Where does somebody usually come from, and at which hours?",
    "SELECT dimension, value_name, days_90, round(share, 2) AS share, last_day FROM principal_profile\n"
    "WHERE principal LIKE '%farah.evans' AND dimension IN ('place', 'hour') ORDER BY dimension, days_90 DESC",
)

PLACE_PROFILE = View(
    "place_profile",
    "One place somebody was seen in, by the latest baseline, or that an incident came from",
    (
        _c("place", "string", "Key of the place"),
        _c("place_name", "string", "The place in words"),
        _c("country_iso_code", "string", "Its country"),
        *_DAYS,
        _c("principals_90", "bigint", "Principals seen there in the last 90 days"),
        _c("commands", "bigint", "Commands that came from there in the last 90 days"),
        _c("first_day", "date", "First day seen among the last 90"),
        _c("last_day", "date", "Last day seen"),
        _c("incidents", "bigint", "Incidents from there, of all time"),
        _c("last_incident", "timestamp", "First event of the latest of them"),
    ),
    f"""
WITH pairs AS (
  SELECT place, min(place_name) AS place_name, min(country_iso_code) AS country_iso_code, count(*) AS commands
  FROM baseline_command_place WHERE as_of = {_latest("baseline_command_place")} GROUP BY place
),
seen AS (
  SELECT value AS place, days_7, days_30, days_90, principals_90, first_day, last_day
  FROM baseline_value WHERE dimension = 'place' AND as_of = {_latest("baseline_value")}
),
bad AS (
  SELECT place, min(place_name) AS place_name, min(country_iso_code) AS country_iso_code, count(*) AS incidents,
         max(first_time) AS last_incident
  FROM incidents GROUP BY place
)
SELECT coalesce(s.place, b.place) AS place, coalesce(p.place_name, b.place_name) AS place_name,
       coalesce(p.country_iso_code, b.country_iso_code) AS country_iso_code,
       coalesce(s.days_7, 0) AS days_7, coalesce(s.days_30, 0) AS days_30, coalesce(s.days_90, 0) AS days_90,
       coalesce(s.principals_90, 0) AS principals_90, coalesce(p.commands, 0) AS commands, s.first_day, s.last_day,
       coalesce(b.incidents, 0) AS incidents, b.last_incident
FROM seen s
FULL OUTER JOIN bad b ON b.place = s.place
LEFT JOIN pairs p ON p.place = coalesce(s.place, b.place)""",
    "From which places does the organisation work, and which of them are rare?",
    "SELECT place_name, days_90, principals_90, commands, incidents FROM place_profile\n"
    "ORDER BY principals_90 DESC, days_90 DESC LIMIT 20",
)

COMMAND_PROFILE = View(
    "command_profile",
    "One command, by the latest baseline: who uses it, from where, how often, when next",
    (
        _c("command", "string", "Command"),
        *_DAYS,
        _c("principals_90", "bigint", "Principals who ran it in the last 90 days"),
        _c("first_day", "date", "First day seen among the last 90"),
        _c("last_day", "date", "Last day seen"),
        _c("every_days", "double", "Days from one day of use to the next, on average; empty for one day"),
        _c("next_day", "date", "When it is due if it goes on like that"),
        _c("places", "bigint", "Places it came from"),
        _c("usual_place", "string", "The place it came from on most days"),
        _c("usual_place_days", "int", "On how many of the last 90"),
        _c("findings", "bigint", "Findings with it, of all time"),
        _c("last_finding", "timestamp", "First event of the latest of them"),
    ),
    f"""
WITH pairs AS (
  SELECT command, place_name, days_90, count(*) OVER (PARTITION BY command) AS places,
         row_number() OVER (PARTITION BY command ORDER BY days_90 DESC, place) AS nth
  FROM baseline_command_place WHERE as_of = {_latest("baseline_command_place")}
),
found AS (
  SELECT command, count(*) AS findings, max(first_time) AS last_finding FROM anomalies GROUP BY command
),
used AS (
  SELECT value AS command, days_7, days_30, days_90, principals_90, first_day, last_day,
         CASE WHEN days_90 > 1 THEN {_days_between("first_day", "last_day")} / (days_90 - 1) END AS every_days
  FROM baseline_value WHERE dimension = 'command' AND as_of = {_latest("baseline_value")}
)
SELECT u.command, u.days_7, u.days_30, u.days_90, u.principals_90, u.first_day, u.last_day, u.every_days,
       u.last_day + CAST(round(u.every_days) AS INT) AS next_day, p.places, p.place_name AS usual_place,
       p.days_90 AS usual_place_days, coalesce(f.findings, 0) AS findings, f.last_finding
FROM used u
LEFT JOIN pairs p ON p.command = u.command AND p.nth = 1
LEFT JOIN found f ON f.command = u.command""",
    "Is a command housekeeping: few people, a steady cadence?",
    "SELECT command, principals_90, days_90, round(every_days, 1) AS every_days, next_day, usual_place\n"
    "FROM command_profile WHERE days_90 >= 3 AND principals_90 <= 2 ORDER BY every_days DESC LIMIT 20",
)

# ------------------------------------------------------------------------------------------ health

QUALITY_LATEST = View(
    "quality_latest",
    "One check of the last run that checked",
    (
        _c("run_id", "string", "Run that checked"),
        _c("checked_at", "timestamp", "When"),
        _c("run_status", "string", "How that run ended: done, held, staged or failed"),
        _c("suite", "string", "Suite: events, baseline, findings, ledger or coverage"),
        _c("expectation", "string", "Check, by its name in conf/expectations"),
        _c("severity", "string", "critical (holds publication) or warning"),
        _c("success", "boolean", "Whether it was met"),
        _c("scope_column", "string", "Column whose values are judged one by one"),
        _c("scope_value", "string", "The value that failed"),
        _c("observed_value", "double", "What was measured"),
        _c("unexpected_count", "bigint", "Rows that were not as expected, where counted"),
        _c("element_count", "bigint", "Rows it looked at"),
        _c("detail", "string", "What failed on how many rows and what to do"),
    ),
    """
SELECT q.run_id, q.checked_at, r.status AS run_status, q.suite, q.expectation, q.severity, q.success,
       q.scope_column, q.scope_value, q.observed_value, q.unexpected_count, q.element_count, q.detail
FROM data_quality q
LEFT JOIN runs r ON r.run_id = q.run_id
WHERE q.run_id = (SELECT max_by(run_id, checked_at) FROM data_quality)""",
    "Did the last run's checks hold, and what failed?",
    "SELECT suite, expectation, severity, success, detail FROM quality_latest ORDER BY success, suite, expectation",
)

_IN_PATH = "'([0-9]{12})/CloudTrail(-Digest)?/([a-z0-9-]+)/'"


def _with_sums(selected: str, rows: str) -> str:
    """rows (with account and region) counted by each pair and, under all, by what sums them up."""
    return (
        "SELECT coalesce(account, 'all') AS recipient_account_id, coalesce(region, 'all') AS aws_region, "
        f"{selected} FROM ({rows}) AS counted "
        "GROUP BY GROUPING SETS ((account, region), (account), (region), ())"
    )


def _since(days: int) -> str:
    """The day that many days before the latest hour judged."""
    return (
        f"(SELECT CAST(max(hour_start) - INTERVAL '{days}' DAY AS DATE) FROM coverage_hourly "
        "WHERE status <> 'late')"
    )


COVERAGE = View(
    "coverage",
    "One account and region, or all regions of an account, a region in all accounts, everything: what it "
    "sends and how long it has been silent, as of the latest hour judged",
    (
        _c("recipient_account_id", "string", "Account; all for all of them together"),
        _c("aws_region", "string", "Region; all for all of them together"),
        _c("status", "string", "ok, low, silent, gone, new or unknown; see coverage_hourly"),
        _c("last_event", "timestamp", "Its last event of the 57 days up to then"),
        _c("silent_hours", "bigint", "Hours without an event since"),
        _c("silent_expected", "double", "Events usual in these hours"),
        _c("silent_bits", "double", "How improbable their silence is; silent from 20 on"),
        _c("longest_silence", "bigint", "Most hours in a row without an event in the 56 days before"),
        _c("hour_start", "timestamp", "The latest hour judged"),
        _c("came", "bigint", "Events in it"),
        _c("expected", "double", "Events usual in it"),
        _c("events_7", "bigint", "Events of the 7 days up to then"),
        _c("located_share", "double", "Of these, from a public address, the share placed on the map"),
        _c("quarantined_share", "double", "Of the records of its account in these days, the share set aside"),
        _c(
            "last_file", "timestamp", "When its last log file was written, by its path; empty for other paths"
        ),
        _c(
            "last_digest",
            "timestamp",
            "When its last digest was written: hourly where the trail delivers, though nothing happens",
        ),
    ),
    f"""
WITH seen AS (
  {
        _with_sums(
            "max(last_time) AS last_event",
            "SELECT recipient_account_id AS account, aws_region AS region, "
            f"last_time FROM region_hour WHERE event_date >= {_since(57)}",
        )
    }
),
week AS (
  {
        _with_sums(
            "count(*) AS events_7, CAST(sum(placed) AS DOUBLE) / nullif(sum(placeable), 0) AS located_share",
            "SELECT recipient_account_id AS account, coalesce(aws_region, '') AS region, "
            "CASE WHEN geo_status IN ('city', 'region', 'country') THEN 1 ELSE 0 END AS placed, "
            "CASE WHEN geo_status IN ('city', 'region', 'country', 'not_found') THEN 1 ELSE 0 END AS placeable "
            f"FROM events WHERE event_date > {_since(7)}",
        )
    }
),
aside AS (
  SELECT coalesce(account, 'all') AS recipient_account_id, count(*) AS pieces
  FROM (SELECT coalesce(recipient_account_id, '') AS account FROM quarantine WHERE file_date > {
        _since(7)
    } AND reason <> 'superseded') AS q
  GROUP BY GROUPING SETS ((account), ())
),
files AS (
  {
        _with_sums(
            "max(CASE WHEN NOT digest THEN modified_at END) AS last_file, "
            "max(CASE WHEN digest THEN modified_at END) AS last_digest",
            f"SELECT regexp_extract(source_file, {_IN_PATH}, 1) AS account, "
            f"regexp_extract(source_file, {_IN_PATH}, 3) AS region, "
            "source_file LIKE '%/CloudTrail-Digest/%' AS digest, modified_at "
            f"FROM ingest_files WHERE file_date >= {_since(57)}",
        )
    }
)
SELECT c.recipient_account_id, c.aws_region, c.status, s.last_event, c.silent_hours, c.silent_expected,
       c.silent_bits, c.longest_silence, c.hour_start, c.came, c.expected, coalesce(w.events_7, 0) AS events_7,
       w.located_share,
       CAST(coalesce(q.pieces, 0) AS DOUBLE) / nullif(coalesce(q.pieces, 0) + coalesce(t.events_7, 0), 0)
         AS quarantined_share,
       f.last_file, f.last_digest
FROM coverage_hourly c
JOIN (SELECT max(hour_start) AS hour_start FROM coverage_hourly WHERE status <> 'late') AS latest
  ON latest.hour_start = c.hour_start
LEFT JOIN seen s ON s.recipient_account_id = c.recipient_account_id AND s.aws_region = c.aws_region
LEFT JOIN week w ON w.recipient_account_id = c.recipient_account_id AND w.aws_region = c.aws_region
LEFT JOIN week t ON t.recipient_account_id = c.recipient_account_id AND t.aws_region = 'all'
LEFT JOIN aside q ON q.recipient_account_id = c.recipient_account_id
LEFT JOIN files f ON f.recipient_account_id = c.recipient_account_id AND f.aws_region = c.aws_region""",
    "Which account or region is silent, and does its trail still deliver?",
    "SELECT recipient_account_id, aws_region, last_event, silent_hours, silent_expected, last_file, last_digest\n"
    "FROM coverage WHERE status = 'silent' ORDER BY silent_bits DESC",
)

DETECTOR_HEALTH = View(
    "detector_health",
    "One detector: what it finds, how much of it is alerted, how long that takes",
    (
        _c("detector", "string", "Detector"),
        _c("enabled", "boolean", "Whether the settings have it on; empty when they do not know it any more"),
        _c("judged_days", "double", "Days from the first hour judged to the last"),
        _c("findings", "bigint", "Findings"),
        _c("incidents", "bigint", "Incidents it has a part in"),
        _c("incidents_a_day", "double", "Of these, a judged day"),
        _c("alerts", "bigint", "Of these, alerted"),
        _c("alerts_a_day", "double", "Alerted, a judged day"),
        _c("alone", "bigint", "Incidents that it alone found"),
        _c("judged", "bigint", "Of its incidents, those with a verdict"),
        _c("malicious", "bigint", "Of these, malicious"),
        _c("precision", "double", "malicious of judged; empty without a verdict"),
        _c("median_minutes_to_verdict", "double", "Minutes from publication to the verdict, median"),
        _c("median_score", "double", "Median score of its findings"),
        _c("last_finding", "timestamp", "First event of its latest finding"),
        _c(
            "median_minutes_to_finding",
            "double",
            "Minutes from a finding's last event to its publication, median; scheduled runs only",
        ),
        _c("max_minutes_to_finding", "double", "The longest of them"),
    ),
    f"""
WITH span AS (
  SELECT {_minutes("min(window_from)", "max(window_to)")} / 1440 AS judged_days
  FROM runs WHERE status = 'done' AND window_to IS NOT NULL
),
parts AS (SELECT incident_id, count(DISTINCT detector) AS detectors FROM anomalies GROUP BY incident_id),
found AS (
  SELECT a.detector, count(*) AS findings, count(DISTINCT a.incident_id) AS incidents,
         count(DISTINCT CASE WHEN i.alerted_at IS NOT NULL THEN a.incident_id END) AS alerts,
         count(DISTINCT CASE WHEN p.detectors = 1 THEN a.incident_id END) AS alone,
         count(DISTINCT CASE WHEN i.verdict IS NOT NULL THEN a.incident_id END) AS judged,
         count(DISTINCT CASE WHEN i.verdict = 'malicious' THEN a.incident_id END) AS malicious,
         median(a.score) AS median_score, max(a.first_time) AS last_finding
  FROM anomalies a
  LEFT JOIN incidents i ON i.incident_id = a.incident_id
  LEFT JOIN parts p ON p.incident_id = a.incident_id
  GROUP BY a.detector
),
verdicts AS (
  SELECT a.detector, a.incident_id, min(a.first_scored_at) AS published_at, max(i.verdict_at) AS verdict_at
  FROM anomalies a JOIN incidents i ON i.incident_id = a.incident_id
  WHERE i.verdict_at IS NOT NULL GROUP BY a.detector, a.incident_id
),
decided AS (
  SELECT detector, median({_minutes("published_at", "verdict_at")}) AS median_minutes
  FROM verdicts GROUP BY detector
),
waits AS (
  SELECT a.detector, {_minutes("a.last_time", "a.first_scored_at")} AS minutes
  FROM anomalies a JOIN runs r ON r.run_id = a.run_id WHERE r.mode <> 'history'
),
waited AS (
  SELECT detector, median(minutes) AS median_minutes, max(minutes) AS max_minutes FROM waits GROUP BY detector
)
SELECT coalesce(d.detector, f.detector) AS detector, d.enabled, s.judged_days,
       coalesce(f.findings, 0) AS findings, coalesce(f.incidents, 0) AS incidents,
       coalesce(f.incidents, 0) / nullif(s.judged_days, 0) AS incidents_a_day, coalesce(f.alerts, 0) AS alerts,
       coalesce(f.alerts, 0) / nullif(s.judged_days, 0) AS alerts_a_day, coalesce(f.alone, 0) AS alone,
       coalesce(f.judged, 0) AS judged, coalesce(f.malicious, 0) AS malicious,
       CAST(f.malicious AS DOUBLE) / nullif(f.judged, 0) AS precision,
       v.median_minutes AS median_minutes_to_verdict, f.median_score, f.last_finding, w.median_minutes AS median_minutes_to_finding,
       w.max_minutes AS max_minutes_to_finding
FROM detectors d
FULL OUTER JOIN found f ON f.detector = d.detector
CROSS JOIN span s
LEFT JOIN waited w ON w.detector = coalesce(d.detector, f.detector)
LEFT JOIN decided v ON v.detector = coalesce(d.detector, f.detector)""",
    "Which detector is loud, which finds nothing, and how long does a finding take?",
    "SELECT detector, findings, round(incidents_a_day, 2) AS incidents_a_day, alone, median_minutes_to_finding\n"
    "FROM detector_health ORDER BY findings DESC",
)

# --------------------------------------------------------------------------------- for wider audiences

# Nothing of whom it is and where exactly, no text a person or an intruder wrote, and no id either: ids are
# hashes of who and where, which could be tried out.
SHARED_INCIDENTS = View(
    "shared_incidents",
    "One incident without personal data, for those who are to see how many and of what kind: no name, "
    "address, ARN, text or id",
    (
        _c("first_date", "date", "UTC day of its first finding"),
        _c("severity", "string", "low, medium, high or critical"),
        _c("score", "double", "0-100, rounded"),
        _c("principal_kind", "string", "person, role, user, root, service, account, anonymous or unknown"),
        _c("country_iso_code", "string", "Country it came from, ISO 3166-1 alpha-2"),
        _c("country_name", "string", "That country"),
        _c("detectors", "array<string>", "Detectors that found it"),
        _c("commands", "array<string>", "Commands, most surprising first"),
        _c("findings", "bigint", "Findings in it"),
        _c("event_count", "bigint", "Events"),
        _c("minutes", "double", "Minutes from its first event to its last"),
        _c("account_environments", "array<string>", "Environments of its accounts (conf/accounts.yml)"),
        _c("account_data", "array<string>", "Kinds of data these hold"),
        _c("regulations", "array<string>", "What these fall under"),
        _c("criticality", "string", "The highest of theirs"),
        _c("is_alerted", "boolean", "Whether it was alerted"),
        _c("is_suppressed", "boolean", "Whether all its findings are suppressed"),
        _c("state", "string", "open, acknowledged or closed"),
        _c("verdict", "string", "Latest verdict on it"),
        _c("minutes_to_verdict", "double", "Minutes from its last event to that verdict"),
    ),
    f"""
SELECT first_date, severity, round(score, 0) AS score, principal_kind, country_iso_code, country_name, detectors,
       commands, findings, event_count, {_minutes("first_time", "last_time")} AS minutes, account_environments,
       account_data, regulations, criticality, alerted_at IS NOT NULL AS is_alerted,
       suppressed_by IS NOT NULL AS is_suppressed, coalesce(state, 'open') AS state, verdict,
       {_minutes("last_time", "verdict_at")} AS minutes_to_verdict
FROM incidents""",
    "How many incidents of what severity were there, and from which countries?",
    "SELECT severity, country_name, count(*) AS incidents FROM shared_incidents\n"
    "GROUP BY severity, country_name ORDER BY incidents DESC, severity, country_name",
)

SHARED_MONTHS = View(
    "shared_months",
    "Incidents of a month by severity and verdict: numbers alone",
    (
        _c("month", "string", "UTC month, as in 2026-02"),
        _c("severity", "string", "low, medium, high or critical"),
        _c("verdict", "string", "Latest verdict; none without one"),
        _c("incidents", "bigint", "Incidents"),
        _c("alerted", "bigint", "Of these, alerted"),
        _c("median_minutes_to_verdict", "double", "Minutes from the last event to the verdict, median"),
    ),
    """
SELECT substring(CAST(first_date AS STRING), 1, 7) AS "month", severity, coalesce(verdict, 'none') AS verdict,
       count(*) AS incidents, count(CASE WHEN is_alerted THEN 1 END) AS alerted,
       median(minutes_to_verdict) AS median_minutes_to_verdict
FROM shared_incidents
GROUP BY substring(CAST(first_date AS STRING), 1, 7), severity, coalesce(verdict, 'none')""",
    "How many incidents a month, and how quickly were they judged?",
    'SELECT "month", severity, verdict, incidents, median_minutes_to_verdict FROM shared_months\n'
    'ORDER BY "month", severity, verdict',
)

# -------------------------------------------------------------------------------------------- ECS

_PLACED = "('city', 'region', 'country', 'not_found', 'private')"

ECS_ANOMALIES = View(
    "ecs_anomalies",
    f"One finding under the names of the Elastic Common Schema {ECS_VERSION}, with the fields its AWS "
    "integration has for CloudTrail; raretrail's own under raretrail.*",
    (
        _c("@timestamp", "timestamp", "The finding's first event"),
        _c("ecs.version", "string", "Version of the schema"),
        _c("message", "string", "What happened and why it is unusual"),
        _c("event.kind", "string", "alert"),
        _c("event.category", "array<string>", "intrusion_detection"),
        _c("event.type", "array<string>", "info"),
        _c("event.module", "string", "raretrail"),
        _c("event.dataset", "string", "raretrail.anomalies"),
        _c("event.id", "string", "anomaly_id"),
        _c("event.action", "string", "API action, e.g. CreateUser"),
        _c("event.provider", "string", "Service, e.g. iam.amazonaws.com"),
        _c("event.outcome", "string", "success or failure of the request"),
        _c("event.reason", "string", "Why it is unusual"),
        _c("event.start", "timestamp", "First event"),
        _c("event.end", "timestamp", "Last event"),
        _c("event.created", "timestamp", "When the finding was first published"),
        _c("event.severity", "int", "1 low, 2 medium, 3 high, 4 critical"),
        _c("event.risk_score", "double", "Risk score of the rule"),
        _c("event.risk_score_norm", "double", "The finding's own score, 0-100"),
        _c("rule.id", "string", "Published rule it answers to, else the detector"),
        _c("rule.name", "string", "Its name"),
        _c("rule.version", "string", "Its version; raretrail's where there is no published rule"),
        _c("rule.ruleset", "string", "raretrail"),
        _c("rule.category", "string", "Detector"),
        _c("threat.framework", "string", "MITRE ATT&CK"),
        _c("threat.tactic.id", "array<string>", "Tactics"),
        _c("threat.technique.id", "array<string>", "Techniques"),
        _c("threat.technique.subtechnique.id", "array<string>", "Sub-techniques; '' for a technique without"),
        _c("source.address", "string", "Address as CloudTrail wrote it"),
        _c("source.ip", "string", "The address, where it is one"),
        _c("source.geo.city_name", "string", "City"),
        _c("source.geo.region_iso_code", "string", "Region, with its country: PT-11"),
        _c("source.geo.region_name", "string", "Region"),
        _c("source.geo.country_iso_code", "string", "Country"),
        _c("source.geo.country_name", "string", "Country"),
        _c("source.geo.location.lat", "double", "Degrees north"),
        _c("source.geo.location.lon", "double", "Degrees east"),
        _c("source.geo.timezone", "string", "Time zone of the place"),
        _c("source.as.number", "bigint", "Autonomous system"),
        _c("source.as.organization.name", "string", "Who runs it"),
        _c("user.id", "string", "userIdentity.principalId of the first event"),
        _c("user.name", "string", "User, else the name of the role"),
        _c("user_agent.original", "string", "User agent as written"),
        _c("related.ip", "array<string>", "The address, where it is one"),
        _c("cloud.provider", "string", "aws"),
        _c("cloud.account.id", "string", "Account"),
        _c("cloud.region", "string", "Region the request was made to"),
        _c("aws.cloudtrail.user_identity.arn", "string", "ARN of the identity, its session included"),
        _c("aws.cloudtrail.user_identity.type", "string", "Kind of identity"),
        _c("aws.cloudtrail.user_identity.access_key_id", "string", "Access key"),
        _c("aws.cloudtrail.user_identity.invoked_by", "string", "Service that called on its behalf"),
        _c("aws.cloudtrail.user_identity.session_context.mfa_authenticated", "string", "true or false"),
        _c("aws.cloudtrail.event_type", "string", "eventType"),
        _c("aws.cloudtrail.event_category", "string", "eventCategory"),
        _c("aws.cloudtrail.error_code", "string", "errorCode"),
        _c("aws.cloudtrail.error_message", "string", "errorMessage"),
        _c("aws.cloudtrail.request_id", "string", "requestID"),
        _c("aws.cloudtrail.request_parameters", "string", "requestParameters, JSON text"),
        _c("aws.cloudtrail.recipient_account_id", "string", "Account that logged it"),
        _c("raretrail.incident_id", "string", "Incident it belongs to"),
        _c("raretrail.detector", "string", "Detector"),
        _c("raretrail.principal", "string", "Identity that stays the same between sessions"),
        _c("raretrail.command", "string", "Service and action, e.g. iam:CreateUser"),
        _c("raretrail.place", "string", "Key of the place"),
        _c("raretrail.severity", "string", "low, medium, high or critical"),
        _c("raretrail.bits", "double", "How surprising it is"),
        _c("raretrail.event_count", "bigint", "Events"),
        _c("raretrail.evidence_event_ids", "array<string>", "Their event ids, first 100"),
    ),
    f"""
WITH {_FIRST_EVENTS}
SELECT a.first_time AS "@timestamp", '{ECS_VERSION}' AS "ecs.version", a.summary AS "message",
       'alert' AS "event.kind", {_list("'intrusion_detection'")} AS "event.category",
       {_list("'info'")} AS "event.type", 'raretrail' AS "event.module",
       'raretrail.anomalies' AS "event.dataset", a.anomaly_id AS "event.id",
       coalesce(e.event_name, split_part(a.command, ':', 2)) AS "event.action",
       e.event_source AS "event.provider",
       CASE WHEN a.error_code = '' THEN 'success' ELSE 'failure' END AS "event.outcome",
       a.summary AS "event.reason", a.first_time AS "event.start", a.last_time AS "event.end",
       a.first_scored_at AS "event.created",
       CASE a.severity WHEN 'critical' THEN 4 WHEN 'high' THEN 3 WHEN 'medium' THEN 2 ELSE 1 END
         AS "event.severity",
       CAST(a.risk_score AS DOUBLE) AS "event.risk_score", a.score AS "event.risk_score_norm",
       coalesce(d.rule_id, a.detector) AS "rule.id", coalesce(d.rule_name, d.title, a.detector) AS "rule.name",
       CASE WHEN d.rule_id IS NULL THEN '{__version__}' ELSE d.rule_version END AS "rule.version",
       'raretrail' AS "rule.ruleset", a.detector AS "rule.category",
       CASE WHEN d.techniques IS NOT NULL THEN 'MITRE ATT' || chr(38) || 'CK' END AS "threat.framework",
       array_sort(array_distinct(d.tactics)) AS "threat.tactic.id",
       array_sort(array_distinct(d.techniques)) AS "threat.technique.id",
       array_sort(array_distinct(d.subtechniques)) AS "threat.technique.subtechnique.id",
       a.source_ip_address AS "source.address",
       CASE WHEN a.geo_status IN {_PLACED} THEN a.source_ip_address END AS "source.ip",
       a.city_name AS "source.geo.city_name",
       a.country_iso_code || '-' || a.region_iso_code AS "source.geo.region_iso_code",
       a.region_name AS "source.geo.region_name", a.country_iso_code AS "source.geo.country_iso_code",
       a.country_name AS "source.geo.country_name", a.latitude AS "source.geo.location.lat",
       a.longitude AS "source.geo.location.lon", a.time_zone AS "source.geo.timezone",
       a.as_number AS "source.as.number", a.as_organization AS "source.as.organization.name",
       e.user_identity_principal_id AS "user.id", e.user_identity_user_name AS "user.name",
       a.user_agent AS "user_agent.original",
       {_list(f"CASE WHEN a.geo_status IN {_PLACED} THEN a.source_ip_address END")} AS "related.ip",
       'aws' AS "cloud.provider", a.recipient_account_id AS "cloud.account.id", e.aws_region AS "cloud.region",
       coalesce(e.user_identity_arn, a.principal) AS "aws.cloudtrail.user_identity.arn",
       e.user_identity_type AS "aws.cloudtrail.user_identity.type",
       a.access_key_id AS "aws.cloudtrail.user_identity.access_key_id",
       e.user_identity_invoked_by AS "aws.cloudtrail.user_identity.invoked_by",
       CAST(e.mfa_authenticated AS STRING)
         AS "aws.cloudtrail.user_identity.session_context.mfa_authenticated",
       e.event_type AS "aws.cloudtrail.event_type", e.event_category AS "aws.cloudtrail.event_category",
       nullif(a.error_code, '') AS "aws.cloudtrail.error_code",
       e.error_message AS "aws.cloudtrail.error_message", e.request_id AS "aws.cloudtrail.request_id",
       e.request_parameters AS "aws.cloudtrail.request_parameters",
       a.recipient_account_id AS "aws.cloudtrail.recipient_account_id",
       a.incident_id AS "raretrail.incident_id", a.detector AS "raretrail.detector",
       a.principal AS "raretrail.principal", a.command AS "raretrail.command", a.place AS "raretrail.place",
       a.severity AS "raretrail.severity", a.bits AS "raretrail.bits",
       a.event_count AS "raretrail.event_count", a.evidence_event_ids AS "raretrail.evidence_event_ids"
FROM anomalies a
LEFT JOIN first_events e ON e.anomaly_id = a.anomaly_id
LEFT JOIN detectors d ON d.detector = a.detector""",
    "Which identity, by its ARN and key, with which tool, as the rule's guide asks?",
    'SELECT DISTINCT "rule.id", "aws.cloudtrail.user_identity.arn", "aws.cloudtrail.user_identity.access_key_id",\n'
    '       "user_agent.original", "event.action"\n'
    "FROM ecs_anomalies WHERE \"rule.id\" = '809b70d3-e2c3-455e-af1b-2626a5a1a276' ORDER BY 2, 5 LIMIT 20",
)

# ------------------------------------------------------------------------------------------- OCSF

_ACTIVITY = "CASE WHEN coalesce(a.score_revision, 0) = 0 THEN 1 ELSE 2 END"
_TECHNIQUE = "finding_info.attacks[*]"
_EVIDENCE = "evidences[0]"
_SOURCE = f"{_EVIDENCE}.src_endpoint"

OCSF_FINDINGS = View(
    "ocsf_findings",
    f"One finding as a Detection Finding (2004) of OCSF {OCSF_VERSION} with the cloud profile; what has no "
    "place there under unmapped",
    (
        _c("activity_id", "int", "1 Create, 2 Update once its row changed"),
        _c("activity_name", "string", "Create or Update"),
        _c("category_uid", "int", "2"),
        _c("category_name", "string", "Findings"),
        _c("class_uid", "int", "2004"),
        _c("class_name", "string", "Detection Finding"),
        _c("type_uid", "bigint", "class_uid * 100 + activity_id"),
        _c("type_name", "string", "Detection Finding: Create or Update"),
        _c("severity_id", "int", "2 Low, 3 Medium, 4 High, 5 Critical"),
        _c("severity", "string", "The same in words"),
        _c("status_id", "int", "1 New"),
        _c("status", "string", "New"),
        _c("time", "bigint", "When it was first published; milliseconds since 1970, as all times here"),
        _c("start_time", "bigint", "First event"),
        _c("end_time", "bigint", "Last event"),
        _c("count", "int", "Events"),
        _c("message", "string", "What happened and why it is unusual"),
        _c("is_alert", "boolean", "Whether its incident was alerted"),
        _c("risk_score", "int", "Score, 0-100"),
        _c("metadata.version", "string", "Version of the schema"),
        _c("metadata.uid", "string", "anomaly_id"),
        _c("metadata.correlation_uid", "string", "incident_id"),
        _c("metadata.profiles", "array<string>", "cloud"),
        _c("metadata.product.name", "string", "raretrail"),
        _c("metadata.product.vendor_name", "string", "raretrail"),
        _c("metadata.product.version", "string", "Version of raretrail"),
        _c("cloud.provider", "string", "AWS"),
        _c("cloud.account.uid", "string", "Account"),
        _c("cloud.region", "string", "Region the request was made to"),
        _c("finding_info.uid", "string", "anomaly_id"),
        _c("finding_info.title", "string", "What the detector finds"),
        _c("finding_info.desc", "string", "What happened and why it is unusual"),
        _c("finding_info.created_time", "bigint", "When it was first published"),
        _c("finding_info.first_seen_time", "bigint", "First event"),
        _c("finding_info.last_seen_time", "bigint", "Last event"),
        _c("finding_info.data_sources", "array<string>", "AWS CloudTrail"),
        _c("finding_info.analytic.uid", "string", "Detector"),
        _c("finding_info.analytic.name", "string", "What it finds"),
        _c("finding_info.analytic.type_id", "int", "3 Statistical"),
        _c("finding_info.analytic.type", "string", "Statistical"),
        _c("finding_info.analytic.version", "string", "Version of raretrail"),
        _c(f"{_TECHNIQUE}.tactic.uid", "array<string>", "ATT&CK tactic of each"),
        _c(f"{_TECHNIQUE}.technique.uid", "array<string>", "ATT&CK technique of each"),
        _c(f"{_TECHNIQUE}.sub_technique.uid", "array<string>", "ATT&CK sub-technique of each"),
        _c(f"{_EVIDENCE}.api.operation", "string", "API action, e.g. CreateUser"),
        _c(f"{_EVIDENCE}.api.service.name", "string", "Service, e.g. iam.amazonaws.com"),
        _c(f"{_EVIDENCE}.api.request.uid", "string", "requestID of the first event"),
        _c(f"{_EVIDENCE}.api.response.error", "string", "errorCode"),
        _c(f"{_EVIDENCE}.api.response.error_message", "string", "errorMessage"),
        _c(f"{_EVIDENCE}.actor.user.uid", "string", "ARN of the identity, its session included"),
        _c(f"{_EVIDENCE}.actor.user.name", "string", "User, else the name of the role"),
        _c(f"{_EVIDENCE}.actor.user.type", "string", "userIdentity.type"),
        _c(f"{_EVIDENCE}.actor.user.credential_uid", "string", "Access key"),
        _c(f"{_SOURCE}.ip", "string", "The address, where it is one"),
        _c(f"{_SOURCE}.svc_name", "string", "What CloudTrail wrote where it is no address"),
        _c(f"{_SOURCE}.autonomous_system.number", "bigint", "Autonomous system"),
        _c(f"{_SOURCE}.autonomous_system.name", "string", "Who runs it"),
        _c(f"{_SOURCE}.location.city", "string", "City"),
        _c(f"{_SOURCE}.location.region", "string", "Region, with its country: PT-11"),
        _c(f"{_SOURCE}.location.country", "string", "Country, ISO code"),
        _c(f"{_SOURCE}.location.lat", "double", "Degrees north"),
        _c(f"{_SOURCE}.location.long", "double", "Degrees east"),
        _c(f"{_EVIDENCE}.http_request.user_agent", "string", "User agent as written"),
        _c("unmapped.detector", "string", "Detector"),
        _c("unmapped.rule_id", "string", "Published rule it answers to"),
        _c("unmapped.rule_version", "string", "Its version"),
        _c("unmapped.principal", "string", "Identity that stays the same between sessions"),
        _c("unmapped.command", "string", "Service and action"),
        _c("unmapped.place", "string", "Key of the place"),
        _c("unmapped.score", "double", "Score, 0-100, as it is"),
        _c("unmapped.bits", "double", "How surprising it is"),
        _c("unmapped.evidence_event_ids", "array<string>", "Ids of its events, first 100"),
    ),
    f"""
WITH {_FIRST_EVENTS}
SELECT {_ACTIVITY} AS activity_id,
       CASE {_ACTIVITY} WHEN 1 THEN 'Create' ELSE 'Update' END AS activity_name, 2 AS category_uid,
       'Findings' AS category_name, 2004 AS class_uid, 'Detection Finding' AS class_name,
       CAST(200400 + {_ACTIVITY} AS BIGINT) AS type_uid,
       CASE {_ACTIVITY} WHEN 1 THEN 'Detection Finding: Create' ELSE 'Detection Finding: Update' END
         AS type_name,
       CASE a.severity WHEN 'critical' THEN 5 WHEN 'high' THEN 4 WHEN 'medium' THEN 3 ELSE 2 END AS severity_id,
       CASE a.severity WHEN 'critical' THEN 'Critical' WHEN 'high' THEN 'High' WHEN 'medium' THEN 'Medium'
         ELSE 'Low' END AS severity,
       1 AS status_id, 'New' AS status, {_epoch_ms("a.first_scored_at")} AS "time",
       {_epoch_ms("a.first_time")} AS start_time, {_epoch_ms("a.last_time")} AS end_time,
       CAST(a.event_count AS INT) AS "count", a.summary AS message, i.alerted_at IS NOT NULL AS is_alert,
       CAST(round(a.score) AS INT) AS risk_score, '{OCSF_VERSION}' AS "metadata.version",
       a.anomaly_id AS "metadata.uid", a.incident_id AS "metadata.correlation_uid",
       {_list("'cloud'")} AS "metadata.profiles", 'raretrail' AS "metadata.product.name",
       'raretrail' AS "metadata.product.vendor_name", '{__version__}' AS "metadata.product.version",
       'AWS' AS "cloud.provider", a.recipient_account_id AS "cloud.account.uid", e.aws_region AS "cloud.region",
       a.anomaly_id AS "finding_info.uid", coalesce(d.title, a.detector) AS "finding_info.title",
       a.summary AS "finding_info.desc", {_epoch_ms("a.first_scored_at")} AS "finding_info.created_time",
       {_epoch_ms("a.first_time")} AS "finding_info.first_seen_time",
       {_epoch_ms("a.last_time")} AS "finding_info.last_seen_time",
       {_list("'AWS CloudTrail'")} AS "finding_info.data_sources",
       a.detector AS "finding_info.analytic.uid", coalesce(d.title, a.detector) AS "finding_info.analytic.name",
       3 AS "finding_info.analytic.type_id", 'Statistical' AS "finding_info.analytic.type",
       '{__version__}' AS "finding_info.analytic.version",
       d.tactics AS "{_TECHNIQUE}.tactic.uid", d.techniques AS "{_TECHNIQUE}.technique.uid",
       d.subtechniques AS "{_TECHNIQUE}.sub_technique.uid",
       coalesce(e.event_name, split_part(a.command, ':', 2)) AS "{_EVIDENCE}.api.operation",
       e.event_source AS "{_EVIDENCE}.api.service.name", e.request_id AS "{_EVIDENCE}.api.request.uid",
       nullif(a.error_code, '') AS "{_EVIDENCE}.api.response.error",
       e.error_message AS "{_EVIDENCE}.api.response.error_message",
       coalesce(e.user_identity_arn, a.principal) AS "{_EVIDENCE}.actor.user.uid",
       e.user_identity_user_name AS "{_EVIDENCE}.actor.user.name",
       e.user_identity_type AS "{_EVIDENCE}.actor.user.type",
       a.access_key_id AS "{_EVIDENCE}.actor.user.credential_uid",
       CASE WHEN a.geo_status IN {_PLACED} THEN a.source_ip_address END AS "{_SOURCE}.ip",
       CASE WHEN a.geo_status NOT IN {_PLACED} THEN nullif(a.source_ip_address, '') END AS "{_SOURCE}.svc_name",
       a.as_number AS "{_SOURCE}.autonomous_system.number",
       a.as_organization AS "{_SOURCE}.autonomous_system.name", a.city_name AS "{_SOURCE}.location.city",
       a.country_iso_code || '-' || a.region_iso_code AS "{_SOURCE}.location.region",
       a.country_iso_code AS "{_SOURCE}.location.country",
       CASE WHEN a.country_iso_code IS NOT NULL THEN a.latitude END AS "{_SOURCE}.location.lat",
       CASE WHEN a.country_iso_code IS NOT NULL THEN a.longitude END AS "{_SOURCE}.location.long",
       a.user_agent AS "{_EVIDENCE}.http_request.user_agent", a.detector AS "unmapped.detector",
       d.rule_id AS "unmapped.rule_id", d.rule_version AS "unmapped.rule_version",
       a.principal AS "unmapped.principal", a.command AS "unmapped.command", a.place AS "unmapped.place",
       a.score AS "unmapped.score", a.bits AS "unmapped.bits", a.evidence_event_ids AS "unmapped.evidence_event_ids"
FROM anomalies a
LEFT JOIN incidents i ON i.incident_id = a.incident_id
LEFT JOIN first_events e ON e.anomaly_id = a.anomaly_id
LEFT JOIN detectors d ON d.detector = a.detector""",
    "How many findings of each class and severity would a lake in OCSF get?",
    "SELECT class_uid, type_uid, severity_id, severity, count(*) AS findings FROM ocsf_findings\n"
    "GROUP BY class_uid, type_uid, severity_id, severity ORDER BY severity_id DESC",
)


def views(detectors: Sequence[Detector]) -> tuple[View, ...]:
    """Every view, in an order in which each reads only tables and views before it."""
    return (
        _detectors(detectors),
        OPEN_INCIDENTS,
        INCIDENT_TIMELINE,
        OWN_ADDRESSES,
        OWN_INFRASTRUCTURE,
        INCIDENT_EVIDENCE,
        PRINCIPAL_PROFILE,
        PLACE_PROFILE,
        COMMAND_PROFILE,
        QUALITY_LATEST,
        COVERAGE,
        DETECTOR_HEALTH,
        SHARED_INCIDENTS,
        SHARED_MONTHS,
        ECS_ANOMALIES,
        OCSF_FINDINGS,
    )


# ----------------------------------------------------------------------------------------- objects

_STEP = re.compile(r"([^.\[]+)(?:\[(0|\*)\])?(?:\.|$)")


def nested(row: Mapping[str, Any]) -> dict[str, Any]:
    """The object that a row of `ecs_anomalies` or `ocsf_findings` describes; what is empty is left out."""
    made: dict[str, Any] = {}
    for path, value in row.items():
        steps = [(step[1], step[2]) for step in _STEP.finditer(path)]
        each = next((n for n, (_, index) in enumerate(steps) if index == "*"), None)
        if each is None:
            _put(made, steps, value)
            continue
        # A list beside others of the same elements: the nth value belongs to the nth of them.
        head, rest = steps[:each], steps[each + 1 :]
        for number, one in enumerate(value or ()):
            _put(made, [*head, (steps[each][0], str(number)), *rest], one)
    return made


def _put(inside: dict[str, Any], steps: Sequence[tuple[str, str | None]], value: Any) -> None:
    if isinstance(value, list):
        value = [one for one in value if one not in (None, "")]
    if value is None or value == "" or value == []:
        return
    for name, index in steps[:-1]:
        if index is None:
            inside = inside.setdefault(name, {})
        else:
            elements = inside.setdefault(name, [])
            while len(elements) <= int(index):
                elements.append({})
            inside = elements[int(index)]
    name, _ = steps[-1]
    inside[name] = value
