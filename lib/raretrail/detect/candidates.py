"""Candidates: what happened in a bucket, at the grain findings have, with every term of the score."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from raretrail.baseline.uses import DIMENSIONS
from raretrail.detect.surprise import pair_bits

BUCKET = "1 hour"
_SEPARATOR = "\x1f"
# A network says nothing of its own where the place is new: a new place brings a new network.
_PLACE_DAYS_FOR_NETWORK = 3
# Active days from which a principal's history is trusted in full: (days + 2) / 10.
_MATURE_OFFSET, _MATURE_DAYS = 2, 10


def to_candidates(events: DataFrame) -> DataFrame:
    """A row for bucket × account × principal × command × address × error code × agent family.

    events: columns of `tables.EVENTS`, of the buckets to judge. Adds as_of, the day whose earlier
    days it is judged by (in days from 1970-01-01), counts, times, and the first event's user
    agent and access key.
    """
    first = F.struct("event_time", "event_id")
    return (
        events.groupBy(
            F.window("event_time", BUCKET).alias("bucket"),
            "recipient_account_id",
            "principal",
            "principal_kind",
            "command",
            F.coalesce("source_ip_address", F.lit("")).alias("source_ip_address"),
            F.coalesce("error_code", F.lit("")).alias("error_code"),
            F.coalesce("agent_family", F.lit("")).alias("agent_family"),
        )
        .agg(
            F.count(F.lit(1)).alias("event_count"),
            F.min("event_time").alias("first_time"),
            F.max("event_time").alias("last_time"),
            F.min_by("user_agent", first).alias("user_agent"),
            F.min_by("access_key_id", first).alias("access_key_id"),
        )
        .withColumn("bucket_start", F.col("bucket.start"))
        .withColumn("bucket_end", F.col("bucket.end"))
        .withColumn("bucket_date", F.to_date("bucket_start"))
        .withColumn("as_of", F.unix_date("bucket_date"))
        .drop("bucket")
    )


def to_lookup(surprises: DataFrame) -> DataFrame:
    """(as_of, principal, uses): a principal's surprises of a day as one map by dimension and value."""
    key = F.concat(F.col("dimension"), F.lit(_SEPARATOR), F.col("value"))
    entry = F.struct(
        key.alias("key"),
        F.struct(
            "days_90",
            "others",
            "value_days_90",
            "active_days",
            "prior",
            "bits",
            "nearest_place",
            "nearest_place_km",
            "near",
            "baseline_days",
        ).alias("value"),
    )
    return surprises.groupBy("as_of", "principal").agg(
        F.map_from_entries(F.collect_list(entry)).alias("uses")
    )


def with_terms(candidates: DataFrame, lookup: DataFrame, pairs: DataFrame) -> DataFrame:
    """candidates (with places) plus the columns of `tables._TERMS`; one row a finding's key.

    Of several agent families under one key the most surprising is kept. pairs: as_of, kind,
    command, value, pair_days_90.
    """

    def of(dimension: str, field: str) -> Column:
        return F.col(f"{dimension}_use.{field}")

    values = {
        "place": "place",
        "country": "country",
        "network": "network",
        "command": "command",
        "agent": "agent_family",
        "error": "error_code",
    }
    rows = candidates.join(lookup, ["as_of", "principal"], "left")
    for dimension in DIMENSIONS:
        key = F.concat(F.lit(dimension + _SEPARATOR), F.col(values[dimension]))
        rows = rows.withColumn(f"{dimension}_use", F.try_element_at("uses", key))
    rows = rows.drop("uses")
    for kind in ("place", "country"):
        side = pairs.where(F.col("kind") == kind).select(
            "as_of",
            "command",
            F.col("value").alias(kind),
            F.col("pair_days_90").alias(f"command_{kind}_days"),
        )
        rows = rows.join(side, ["as_of", "command", kind], "left").fillna(0, [f"command_{kind}_days"])

    settled = (of("place", "days_90") >= _PLACE_DAYS_FOR_NETWORK) | of("place", "near")
    zero = F.lit(0.0)
    active = F.coalesce(of("command", "active_days"), F.lit(0))
    terms: dict[str, Column] = {
        "baseline_days": of("command", "baseline_days"),
        "principal_active_days": active,
        "command_days": of("command", "value_days_90"),
        "place_days": of("place", "value_days_90"),
        "country_days": of("country", "value_days_90"),
        "nearest_place": of("place", "nearest_place"),
        "nearest_place_km": of("place", "nearest_place_km"),
        "place_bits": F.coalesce(of("place", "bits"), zero),
        "network_bits": F.when(settled, F.coalesce(of("network", "bits"), zero)).otherwise(zero),
        "agent_bits": F.coalesce(of("agent", "bits"), zero),
        "command_bits": F.coalesce(of("command", "bits"), zero),
        "error_bits": F.coalesce(of("error", "bits"), zero),
        "maturity": F.least(F.lit(1.0), (active + _MATURE_OFFSET) / _MATURE_DAYS),
    }
    for dimension in ("place", "network", "agent", "command", "error"):
        terms[f"principal_{dimension}_days"] = of(dimension, "days_90")
        terms[f"{dimension}_principals"] = of(dimension, "others")
    for kind in ("place", "country"):
        together = F.col(f"command_{kind}_days")
        terms[f"{kind}_given_command_bits"] = pair_bits(
            together, of("command", "value_days_90"), of(kind, "prior")
        )
        terms[f"command_given_{kind}_bits"] = pair_bits(
            together, of(kind, "value_days_90"), of("command", "prior")
        )
    rows = rows.withColumns(terms).drop(*[f"{dimension}_use" for dimension in DIMENSIONS])
    rows = rows.withColumns(
        {
            "where_bits": F.col("place_bits") + F.col("network_bits"),
            "how_bits": F.col("agent_bits"),
            "what_bits": F.greatest("command_bits", "error_bits"),
        }
    ).transform(with_bits)
    return _only_most_surprising_agent(rows)


def with_bits(rows: DataFrame) -> DataFrame:
    """rows plus bits, from where, how, what and maturity (research §9.1).

    (where + how + what + min(where, how, what)) * maturity: what is unusual in every way at once
    counts once more.
    """
    parts = ("where_bits", "how_bits", "what_bits")
    total = F.col(parts[0]) + F.col(parts[1]) + F.col(parts[2]) + F.least(*parts)
    return rows.withColumn("bits", F.round(total * F.col("maturity"), 6))


def _only_most_surprising_agent(rows: DataFrame) -> DataFrame:
    key = (
        "bucket_start",
        "recipient_account_id",
        "principal",
        "command",
        "source_ip_address",
        "error_code",
    )
    summed = ("event_count", "first_time", "last_time")
    kept = [column for column in rows.columns if column not in (*key, *summed)]
    strangest = F.struct("bits", "agent_bits", "agent_family")
    return (
        rows.groupBy(*key)
        .agg(
            F.sum("event_count").alias("event_count"),
            F.min("first_time").alias("first_time"),
            F.max("last_time").alias("last_time"),
            F.max_by(F.struct(*kept), strangest).alias("kept"),
        )
        .select(*key, *summed, *[F.col(f"kept.{column}") for column in kept])
    )
