"""Incidents: findings of one actor in one place, close in time."""

from __future__ import annotations

from datetime import timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from raretrail.detect.candidates import where_bits, with_bits
from raretrail.detect.findings import to_first_ids

EVIDENCE_PER_INCIDENT = 1000
_COMMANDS_SHOWN = 50
# Commands more surprising than this add to the burst (research §9.1).
_BURST_BITS = 2.0
_LARGEST = ("place", "network", "prefix", "jump", "agent", "host")
_FROM_STRANGEST = (
    "principal",
    "principal_kind",
    "geo_status",
    "place_name",
    "city_name",
    "city_geoname_id",
    "region_iso_code",
    "region_name",
    "country_iso_code",
    "country_name",
    "latitude",
    "longitude",
    "accuracy_radius",
    "time_zone",
    "summary",
)


def with_incident_id(findings: DataFrame, gap: timedelta) -> DataFrame:
    """findings plus incident_id: the anomaly_id of the earliest of a chain without a longer gap.

    A chain is of one actor and place; each finding begins at most `gap` after the latest end of
    those before it.
    """
    order = Window.partitionBy("actor", "place").orderBy("first_time", "anomaly_id")
    before = order.rowsBetween(Window.unboundedPreceding, -1)
    ended = F.max("last_time").over(before)
    begins = ended.isNull() | (
        F.col("first_time") > ended + F.make_dt_interval(secs=F.lit(gap.total_seconds()))
    )
    chain = Window.partitionBy("actor", "place", "chain").orderBy("first_time", "anomaly_id")
    return (
        findings.drop("incident_id")
        .withColumn("begins", begins.cast("int"))
        .withColumn("chain", F.sum("begins").over(order.rowsBetween(Window.unboundedPreceding, 0)))
        .withColumn("incident_id", F.first("anomaly_id").over(chain))
        .drop("begins", "chain")
    )


def to_incidents(findings: DataFrame) -> DataFrame:
    """One row an incident, of findings with incident_id: the columns of `tables.INCIDENTS` but those
    of `to_incident_events`, score, severity, quality, alerted_at and run_id; and bucket_start, bucket_end.

    Its bits come from the most surprising terms of its findings, whichever finding has them; of the
    hour the least, since who begins late may end in an hour that is theirs. Every further command that
    surprises raises what by half the log2 of their number, so that a burst counts once but raises its
    incident.
    """
    strangest = F.struct("bits", F.hash("anomaly_id"))
    commands = (
        findings.groupBy("incident_id", "command")
        .agg(F.max("command_bits").alias("command_bits"), F.max("bits").alias("bits"))
        .groupBy("incident_id")
        .agg(
            F.sort_array(F.collect_list(F.struct("bits", "command")), asc=False).alias("ranked"),
            F.count_if(F.col("command_bits") > _BURST_BITS).alias("surprising"),
        )
    )
    gathered = findings.groupBy("incident_id", "actor", "place").agg(
        F.max_by(F.struct(*_FROM_STRANGEST), strangest).alias("strangest"),
        _distinct("recipient_account_id").alias("recipient_account_ids"),
        _distinct("source_ip_address").alias("source_ip_addresses"),
        _distinct("network").alias("networks"),
        _distinct("detector").alias("detectors"),
        F.min("bucket_start").alias("bucket_start"),
        F.max("bucket_end").alias("bucket_end"),
        _distinct("principal").alias("principals"),
        *[F.max(f"{term}_bits").alias(f"{term}_bits") for term in _LARGEST],
        F.min("hour_bits").alias("hour_bits"),
        F.max("what_bits").alias("strangest_what"),
        F.max("maturity").alias("maturity"),
        F.count(F.lit(1)).alias("findings"),
    )
    return (
        gathered.join(commands, "incident_id")
        .withColumn("first_date", F.to_date("bucket_start"))
        .withColumn("where_bits", where_bits("place_bits", "network_bits", "prefix_bits", "jump_bits"))
        .withColumn("how_bits", F.round(F.col("agent_bits") + F.col("hour_bits") + F.col("host_bits"), 6))
        .withColumn("what_bits", F.round(F.col("strangest_what") + 0.5 * F.log2(1 + F.col("surprising")), 6))
        .transform(with_bits)
        .withColumn("commands", F.slice(F.col("ranked.command"), 1, _COMMANDS_SHOWN))
        .select("*", "strangest.*")
        .withColumn(
            "summary",
            F.when(
                F.size("ranked") > 1,
                F.concat(
                    F.col("summary"),
                    F.lit("; "),
                    (F.size("ranked") - 1).cast("string"),
                    F.when(F.size("ranked") == 2, " further command").otherwise(" further commands"),
                    F.lit(" found with it"),
                ),
            ).otherwise(F.col("summary")),
        )
        .drop("strangest", "strangest_what", "ranked", "surprising", "maturity", "hour_bits")
        .drop(*[f"{term}_bits" for term in _LARGEST])
    )


def to_incident_events(incidents: DataFrame, events: DataFrame) -> DataFrame:
    """(incident_id, event_count, first_time, last_time, evidence_event_ids): all events of the
    incident's actor from its addresses in the buckets from its first finding to its last."""
    spans = incidents.select(
        "incident_id",
        "actor",
        "bucket_start",
        "bucket_end",
        F.explode("source_ip_addresses").alias("source_ip_address"),
    )
    shown = events.select(
        "event_time",
        "event_id",
        "actor",
        F.coalesce("source_ip_address", F.lit("")).alias("source_ip_address"),
    )
    within = shown.join(spans, ["actor", "source_ip_address"]).where(
        (F.col("event_time") >= F.col("bucket_start")) & (F.col("event_time") < F.col("bucket_end"))
    )
    counts = within.groupBy("incident_id").agg(
        F.count_distinct("event_id").alias("event_count"),
        F.min("event_time").alias("first_time"),
        F.max("event_time").alias("last_time"),
    )
    return counts.join(to_first_ids(within, "incident_id", EVIDENCE_PER_INCIDENT), "incident_id")


def _distinct(column: str) -> Column:
    return F.sort_array(F.collect_set(column))
