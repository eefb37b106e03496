"""What the baseline may learn: not what an intruder did, and not yet what nobody has judged."""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail.tables import PRESENCE_DAILY

# So long nothing is learnt of an alert nobody has judged: time to look at it. Then an unjudged false
# alarm becomes usual.
QUARANTINE_DAYS = 14


def to_withheld(
    presence: DataFrame,
    findings: DataFrame,
    incidents: DataFrame,
    as_of: date,
    quarantine_days: int = QUARANTINE_DAYS,
) -> DataFrame:
    """`tables.WITHHELD` as of a day: the facts of presence before it that no baseline may hold.

    presence, findings and incidents are `tables.PRESENCE_DAILY`, `tables.ANOMALIES` and
    `tables.INCIDENTS` of the same span. Of a malicious incident nothing is learnt, ever. Of one that was
    alerted and is open, or acknowledged without a verdict, nothing of the quarantine_days before as_of
    is, unless it is suppressed. Everything else is learnt at once. One that a new finding opened again
    waits as well, whatever it was called before.

    A fact belongs to an incident when it is the key of one of its findings; where a finding's place or
    network is new to its principal, when it has the finding's principal, address and day.
    """
    malicious = F.coalesce(F.col("verdict") == "malicious", F.lit(False))
    state = F.coalesce("state", F.lit("open"))
    unjudged = (state == "open") | ((state == "acknowledged") & F.col("verdict").isNull())
    pending = unjudged & F.col("suppressed_by").isNull() & F.col("alerted_at").isNotNull()
    reason = F.when(malicious, F.lit("malicious")).when(pending, F.lit("unjudged"))
    judged = incidents.select("incident_id", reason.alias("reason")).where("reason IS NOT NULL")
    waits = F.col("bucket_date") >= F.lit(as_of - timedelta(days=quarantine_days))
    withheld = (
        findings.join(judged, "incident_id")
        .where((F.col("reason") == "malicious") | waits)
        .where(F.col("bucket_date") < F.lit(as_of))
    )
    address = F.coalesce("source_ip_address", F.lit("")).alias("source_ip_address")
    day = F.col("bucket_date").alias("event_date")
    at_its_address = withheld.where("where_bits > 0").select(
        day, "principal", address, "incident_id", "reason"
    )
    alone = withheld.select(
        day,
        "recipient_account_id",
        "principal",
        "command",
        address,
        F.coalesce("error_code", F.lit("")).alias("outcome"),
        "incident_id",
        "reason",
    )
    facts = presence.select(*PRESENCE_DAILY.key)
    found = facts.join(at_its_address, ["event_date", "principal", "source_ip_address"]).unionByName(
        facts.join(
            alone,
            ["event_date", "recipient_account_id", "principal", "command", "source_ip_address", "outcome"],
        )
    )
    # The reasons' names are in the order of what they weigh.
    return found.groupBy(*PRESENCE_DAILY.key).agg(
        F.min("reason").alias("reason"), F.min("incident_id").alias("incident_id")
    )


def only_learnable(presence: DataFrame, withheld: DataFrame) -> DataFrame:
    """The rows of presence that are not withheld (`to_withheld`)."""
    return presence.join(withheld.select(*PRESENCE_DAILY.key), list(PRESENCE_DAILY.key), "left_anti")
