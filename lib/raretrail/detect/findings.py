"""Findings: candidates that a detector picks, named and told in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from raretrail.baseline.history import LEARNING_DAYS
from raretrail.settings import Detector

_ID_LENGTH = 32
EVIDENCE_PER_FINDING = 100


def anomaly_id(detector: Column) -> Column:
    """Hash of detector, bucket and the key counted, in terms that do not move with the map."""
    key = (
        detector,
        F.unix_seconds("bucket_start").cast("string"),
        F.col("recipient_account_id"),
        F.col("principal"),
        F.col("actor"),
        F.col("command"),
        F.col("source_ip_address"),
        F.col("error_code"),
    )
    return F.substring(F.sha2(F.concat_ws("\x1f", *key), 256), 1, _ID_LENGTH)


def picks(detector: Detector) -> Column:
    """Whether the detector picks a candidate (a row with every term).

    A spike is a row beside the candidate that leads it: for detectors that ask for it, and no other.
    """
    spiking = F.col("spike_bits").isNotNull()
    condition = F.col("bits") >= detector.floor
    condition = condition & (spiking if "spike" in detector.requires else ~spiking)
    for term, least in sorted(detector.requires.items()):
        condition = condition & (F.coalesce(F.col(f"{term}_bits"), F.lit(0.0)) >= least)
    if detector.geo_status:
        condition = condition & F.col("geo_status").isin(*detector.geo_status)
    return condition


def to_findings(candidates: DataFrame, detectors: Sequence[Detector]) -> DataFrame:
    """One row a candidate and detector that picks it, with the columns of `tables._FINDING`
    but geo_build, score, severity, evidence_event_ids, settings_hash and run_id. The key is
    anomaly_id."""
    enabled = [detector for detector in detectors if detector.enabled]
    named = [
        F.when(
            picks(detector),
            F.struct(
                F.lit(detector.name).alias("detector"),
                F.lit(detector.severity).alias("rule_severity"),
                F.lit(detector.risk_score).alias("risk_score"),
            ),
        )
        for detector in enabled
    ]
    found = F.filter(F.array(*named), lambda picked: picked.isNotNull())
    return (
        candidates.withColumn("picked", F.explode(found))
        .select("*", "picked.*")
        .drop("picked")
        .withColumn("anomaly_id", anomaly_id(F.col("detector")))
        .withColumn("as_of", F.date_from_unix_date(F.col("as_of").cast("int")))
        .withColumn("summary", sentence())
    )


def _plural(count: Column, one: str) -> Column:
    return F.concat(count.cast("string"), F.lit(f" {one}"), F.when(count == 1, "").otherwise("s"))


def _seen(days: Column) -> Column:
    """Where somebody active on these days was seen until now, and how far that is; empty where no city is
    known of them."""
    places, countries = F.col("known_places"), F.size("known_countries")
    nearest = F.concat("nearest_place", F.lit(" ("), F.format_number("nearest_place_km", 0), F.lit(" km)"))
    spread = (
        F.when(countries == 1, F.concat(F.lit(" cities, all in "), F.col("known_countries")[0]))
        .when(countries > 1, F.concat(F.lit(" cities of "), countries.cast("string"), F.lit(" countries")))
        .otherwise(" cities")
    )
    seen = F.when(places == 1, F.concat(F.lit("only in "), nearest)).otherwise(
        F.concat(F.lit("in "), places.cast("string"), spread, F.lit(", the nearest "), nearest)
    )
    told = F.concat(F.lit(": on "), _plural(days, "active day"), F.lit(" seen "), seen)
    return F.coalesce(told, F.lit(""))


def sentence() -> Column:
    """What happened and why it is unusual, from a finding's columns."""
    what = F.col("command")
    at = F.coalesce(F.col("place_name"), F.col("geo_status"), F.lit("an unknown place"))
    days = F.col("principal_active_days")
    opening = (
        F.when(
            F.col("place_days") == 0,
            F.concat(what, F.lit(" from "), at, F.lit(", where nobody was seen in 90 days")),
        )
        .when(
            F.col("command_place_days") == 0,
            F.concat(F.lit("first "), what, F.lit(" from "), at, F.lit(" by anyone in 90 days")),
        )
        .otherwise(F.concat(what, F.lit(" from "), at))
    )
    where = F.when(
        (F.col("principal_place_days") == 0) & (days > 0), F.concat(F.lit("place new to them"), _seen(days))
    ).when(F.col("network_bits") > 0, F.lit("network new to them"))
    jump = F.when(
        F.col("jump_bits") > 0,
        F.concat(
            F.lit("at "),
            F.col("jump_place"),
            F.lit(", "),
            F.format_number("jump_km", 0),
            F.lit(" km away, within "),
            _plural(F.ceil(F.greatest(F.col("jump_seconds"), F.lit(60)) / 60), "minute"),
        ),
    )
    hosting = F.when(F.col("host_bits") > 0, F.concat(F.lit("hosting network "), F.col("as_organization")))
    prefix = F.when(F.col("prefix_bits") > 0, F.lit("addresses nobody used before"))
    hour = F.when(
        (F.col("hour_bits") > 1) & F.col("local_hour").isNotNull(),
        F.concat(F.lit("an hour unusual for them, "), F.col("local_hour").cast("string"), F.lit(":00 there")),
    )
    how = F.when(
        (F.col("agent_bits") > 0) & (days > 0),
        F.concat(F.lit("new tool "), F.col("agent_family")),
    )
    others = F.col("command_principals")
    own = F.when(
        (F.col("principal_command_days") == 0) & (days > 0),
        F.concat(
            F.lit("command new to them, "),
            F.when(others == 0, F.lit("used by nobody else")).otherwise(
                F.concat(F.lit("used by "), _plural(others, "other"))
            ),
        ),
    )
    failed = F.when(
        (F.col("error_code") != "") & (F.col("error_bits") > 0),
        F.concat(F.lit("first "), F.col("error_code"), F.lit(" for them")),
    )
    spike = F.when(
        F.col("spike_bits").isNotNull(),
        F.concat(
            F.col("spike_count").cast("string"),
            F.lit(" kinds of error in 15 minutes "),
            F.when(F.col("spike_scope") == "actor", "by them")
            .when(F.col("spike_scope") == "account", "in the account")
            .otherwise("in the organisation"),
            F.lit(", "),
            F.format_number("spike_expected", 1),
            F.lit(" usual"),
        ),
    )
    young = F.when(F.col("maturity") < 1, F.concat(F.lit("young principal: "), _plural(days, "active day")))
    cold = F.when(
        F.col("baseline_days") < LEARNING_DAYS,
        F.concat(F.lit("young baseline: "), _plural(F.col("baseline_days"), "day")),
    )
    return F.concat_ws(
        "; ", opening, spike, where, jump, prefix, hosting, how, hour, own, failed, young, cold
    )


def to_evidence(findings: DataFrame, events: DataFrame) -> DataFrame:
    """(anomaly_id, evidence_event_ids): the first events of each finding, in order of time."""
    # Buckets are hours or quarters of one: joined by the hour, then held to the bucket.
    on = [
        "hour",
        "recipient_account_id",
        "principal",
        "actor",
        "command",
        "source_ip_address",
        "error_code",
    ]
    keys = findings.select(
        "anomaly_id",
        "bucket_start",
        "bucket_end",
        F.date_trunc("HOUR", "bucket_start").alias("hour"),
        *on[1:],
    )
    shown = events.select(
        "event_time",
        "event_id",
        F.date_trunc("HOUR", "event_time").alias("hour"),
        "recipient_account_id",
        "principal",
        "actor",
        "command",
        F.coalesce("source_ip_address", F.lit("")).alias("source_ip_address"),
        F.coalesce("error_code", F.lit("")).alias("error_code"),
    )
    within = (F.col("event_time") >= F.col("bucket_start")) & (F.col("event_time") < F.col("bucket_end"))
    return to_first_ids(shown.join(keys, on).where(within), "anomaly_id", EVIDENCE_PER_FINDING)


def to_first_ids(rows: DataFrame, key: str, most: int) -> DataFrame:
    """(key, evidence_event_ids): the event ids of the key's first `most` events by time."""
    from pyspark.sql import Window

    nth = F.row_number().over(Window.partitionBy(key).orderBy("event_time", "event_id"))
    return (
        rows.select(key, "event_time", "event_id")
        .distinct()
        .withColumn("nth", nth)
        .where(F.col("nth") <= most)
        .groupBy(key)
        .agg(F.sort_array(F.collect_list(F.struct("event_time", "event_id"))).alias("ordered"))
        .select(key, F.col("ordered.event_id").alias("evidence_event_ids"))
    )
