"""What the baseline may learn: not what an intruder did, and not yet what nobody has judged."""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

# So long nothing is learnt of an incident nobody has judged: time to look at it. Then an unjudged false
# alarm becomes usual.
QUARANTINE_DAYS = 14


def learnable(
    presence: DataFrame,
    findings: DataFrame,
    incidents: DataFrame,
    as_of: date,
    quarantine_days: int = QUARANTINE_DAYS,
) -> DataFrame:
    """The rows of presence (of `tables.PRESENCE_DAILY`) that a baseline as of a day may hold.

    findings and incidents are `tables.ANOMALIES` and `tables.INCIDENTS` of the same span, as published.
    Of a malicious incident nothing is learnt, ever. Of one that is open, or acknowledged without a
    verdict, nothing of the quarantine_days before as_of is, unless it is suppressed. Everything else is
    learnt at once. One that a new finding opened again waits as well, whatever it was called before.

    A fact belongs to an incident when it is the key of one of its findings; where a finding's place or
    network is new to its principal, when it has the finding's principal, address and day.
    """
    malicious = F.col("verdict") == "malicious"
    state = F.coalesce("state", F.lit("open"))
    unjudged = (state == "open") | ((state == "acknowledged") & F.col("verdict").isNull())
    pending = unjudged & F.col("suppressed_by").isNull()
    judged = incidents.select(
        "incident_id",
        F.coalesce(malicious, F.lit(False)).alias("malicious"),
        pending.alias("pending"),
    )
    withheld = findings.join(judged, "incident_id").where(
        F.col("malicious")
        | (F.col("pending") & (F.col("bucket_date") >= F.lit(as_of - timedelta(days=quarantine_days))))
    )
    at_its_address = (
        withheld.where(F.col("where_bits") > 0)
        .select(
            F.col("bucket_date").alias("event_date"),
            "principal",
            F.coalesce("source_ip_address", F.lit("")).alias("source_ip_address"),
        )
        .distinct()
    )
    alone = withheld.select(
        F.col("bucket_date").alias("event_date"),
        "recipient_account_id",
        "principal",
        "command",
        F.coalesce("source_ip_address", F.lit("")).alias("source_ip_address"),
        F.coalesce("error_code", F.lit("")).alias("outcome"),
    ).distinct()
    return (
        presence.where(F.col("event_date") < F.lit(as_of))
        .join(at_its_address, at_its_address.columns, "left_anti")
        .join(alone, alone.columns, "left_anti")
    )
