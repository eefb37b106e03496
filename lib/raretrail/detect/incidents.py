"""Incidents: findings of one actor in one place, or from one address new to them, close in time."""

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
# Stolen credentials are hardly ever used from where their owner sits: bits as for one in sixteen.
_HOME_BITS = 4.0
_LARGEST = ("place", "network", "prefix", "jump", "agent", "host")
_SUMS = ("where_bits", "how_bits", "what_bits", "home_bits", "bits")
_FROM_STRANGEST = (
    "place",
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
    """findings plus incident_id: the anomaly_id of the earliest finding of the incident.

    Findings of one actor in one place, each beginning at most `gap` after the latest end of those
    before, are one incident. So are those of several actors from one address prefix that nobody used
    before its day, or from one address in a prefix new to each of them, as close in time: a sign-in, the
    session it began and the role that took over are several identities and one visit.
    """
    new_to_them = (F.col("principal_prefix_days") == 0) & (F.col("prefix") != "")
    new_to_all = new_to_them & (F.col("prefix_principals") == 0)
    shared = F.coalesce(
        F.when(new_to_all, F.col("prefix")), F.when(new_to_them, F.col("address_key")), F.col("anomaly_id")
    )
    rows = _chained(findings.drop("incident_id"), ("actor", "place"), gap, "visit")
    rows = _chained(rows.withColumn("range", shared), ("range",), gap, "stay")
    # Visits that share a stay are one incident, and so are stays that share a visit. Two rounds of taking
    # the least name reach every visit that is a stay away from a neighbour; windows alone do it.
    rows = rows.withColumn("joined", F.col("visit"))
    for chain in ("stay", "visit", "stay", "visit"):
        rows = rows.withColumn("joined", F.min("joined").over(Window.partitionBy(chain)))
    together = Window.partitionBy("joined").orderBy("first_time", "anomaly_id")
    return rows.withColumn("incident_id", F.first("anomaly_id").over(together)).drop(
        "visit", "stay", "range", "joined"
    )


def _chained(rows: DataFrame, keys: tuple[str, ...], gap: timedelta, name: str) -> DataFrame:
    """rows plus `name`: the anomaly_id of the first of a chain of one key without a longer gap."""
    order = Window.partitionBy(*keys).orderBy("first_time", "anomaly_id")
    before = order.rowsBetween(Window.unboundedPreceding, -1)
    ended = F.max("last_time").over(before)
    begins = ended.isNull() | (
        F.col("first_time") > ended + F.make_dt_interval(secs=F.lit(gap.total_seconds()))
    )
    chain = Window.partitionBy(*keys, "chain").orderBy("first_time", "anomaly_id")
    return (
        rows.withColumn("begins", begins.cast("int"))
        .withColumn("chain", F.sum("begins").over(order.rowsBetween(Window.unboundedPreceding, 0)))
        .withColumn(name, F.first("anomaly_id").over(chain))
        .drop("begins", "chain")
    )


def to_incidents(findings: DataFrame) -> DataFrame:
    """One row an incident, of findings with incident_id: the columns of `tables.INCIDENTS` but those
    of `to_incident_events`, score, severity, quality, alerted_at, alert_revision and run_id; and
    bucket_start, bucket_end.

    Its bits are those of its most surprising actor: of the most surprising terms of the actor's findings,
    whichever finding has them; of the hour the least, since who begins late may end in an hour that is
    theirs. Every command that surprises raises what by half the log2 of 1 + their number, so that a
    burst counts once but raises its incident. What came only from addresses its actor is settled at loses
    _HOME_BITS.
    """
    strangest = F.struct("bits", F.hash("anomaly_id"))
    surprising = F.when(F.col("command_bits") > _BURST_BITS, F.col("command"))
    by_actor = (
        findings.groupBy("incident_id", "actor")
        .agg(
            *[F.max(f"{term}_bits").alias(f"{term}_bits") for term in _LARGEST],
            F.min("hour_bits").alias("hour_bits"),
            F.max("what_bits").alias("most"),
            F.count_distinct(surprising).alias("surprising"),
            F.max("maturity").alias("maturity"),
            F.when(F.bool_and(F.coalesce("settled_range", F.lit(False))), -_HOME_BITS)
            .otherwise(0.0)
            .alias("home_bits"),
        )
        .withColumn("where_bits", where_bits("place_bits", "network_bits", "prefix_bits", "jump_bits"))
        .withColumn("how_bits", F.round(F.col("agent_bits") + F.col("hour_bits") + F.col("host_bits"), 6))
        .withColumn("what_bits", F.round(F.col("most") + 0.5 * F.log2(1 + F.col("surprising")), 6))
        .transform(with_bits)
        .withColumn("bits", F.round(F.greatest(F.col("bits") + F.col("home_bits"), F.lit(0.0)), 6))
        .groupBy("incident_id")
        .agg(F.max_by(F.struct("actor", *_SUMS), F.struct("bits", "actor")).alias("worst"))
        .select("incident_id", "worst.*")
    )
    commands = (
        findings.groupBy("incident_id", "command")
        .agg(F.max("bits").alias("bits"))
        .groupBy("incident_id")
        .agg(F.sort_array(F.collect_list(F.struct("bits", "command")), asc=False).alias("ranked"))
    )
    own = (
        findings.join(by_actor.select("incident_id", "actor"), ["incident_id", "actor"])
        .groupBy("incident_id")
        .agg(F.max_by(F.struct(*_FROM_STRANGEST), strangest).alias("strangest"))
    )
    gathered = findings.groupBy("incident_id").agg(
        _distinct("recipient_account_id").alias("recipient_account_ids"),
        _distinct("source_ip_address").alias("source_ip_addresses"),
        _distinct("network").alias("networks"),
        _distinct("detector").alias("detectors"),
        _distinct("principal").alias("principals"),
        F.min("bucket_start").alias("bucket_start"),
        F.max("bucket_end").alias("bucket_end"),
        F.count(F.lit(1)).alias("findings"),
    )
    return (
        gathered.join(commands, "incident_id")
        .join(by_actor, "incident_id")
        .join(own, "incident_id")
        .withColumn("first_date", F.to_date("bucket_start"))
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
        .drop("strangest", "ranked")
    )


def to_incident_events(findings: DataFrame, events: DataFrame) -> DataFrame:
    """(incident_id, event_count, first_time, last_time, evidence_event_ids): all events of the incident's
    actors from the addresses of their findings, from the first bucket with one to the last."""
    spans = findings.groupBy("incident_id", "actor", "source_ip_address").agg(
        F.min("bucket_start").alias("bucket_start"), F.max("bucket_end").alias("bucket_end")
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
