"""Candidates: what happened in a bucket, at the grain findings have, with every term of the score."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from raretrail.baseline import nearest
from raretrail.detect.sensitivity import HIGHEST, Level, sensitivity
from raretrail.detect.surprise import CAPS, bits_of, pair_bits

BUCKET = "1 hour"
_SEPARATOR = "\x1f"
# Days at a place from which a network there is judged like any other. Where the place is newer a new network
# is no news, since a new place brings one; only how unusual it is among new networks counts.
_PLACE_DAYS_FOR_NETWORK = 3
# Days in an address prefix from which somebody is settled there.
_SETTLED_DAYS = 3
# Active days from which a history is trusted in full: (days + 2) / 10.
_MATURE_OFFSET, _MATURE_DAYS = 2, 10
# An actor known on fewer days than this is judged by the habit of its principal, if that is older.
_OWN_HABIT_DAYS = 3
# Hours say something only of who has been seen at work on some days.
_HOUR_DAYS = 5
# A person on a hoster's network that nobody else uses: bits as for one in sixteen.
_HOST_BITS = 4.0
# Kinds of conf/networks.yml that are the organisation's own way out: where they come out says nothing.
_OWN_NETWORKS = ("office", "vpn")
_UNUSUAL_HOUR_BITS, _LATE_HOUR_BITS = 4, 2
# The dimension of each term, and the candidate's column that holds its value.
_VALUES = {
    "place": "place",
    "area": "area",
    "country": "country",
    "network": "network",
    "prefix": "prefix",
    "command": "command",
    "agent": "agent_family",
    "error": "error_code",
    "hour": "hour",
    "jump": "jump",
}


def to_candidates(events: DataFrame) -> DataFrame:
    """A row for bucket × account × principal × actor × command × address × error code × agent family.

    events: columns of `tables.EVENTS`, of the buckets to judge. Adds as_of, the day whose earlier
    days it is judged by (in days from 1970-01-01), counts, times, whether it only reads, and the first
    event's user agent and access key.
    """
    first = F.struct("event_time", "event_id")
    return (
        events.groupBy(
            F.window("event_time", BUCKET).alias("bucket"),
            "recipient_account_id",
            "principal",
            "principal_kind",
            "actor",
            "command",
            F.coalesce("source_ip_address", F.lit("")).alias("source_ip_address"),
            F.coalesce("error_code", F.lit("")).alias("error_code"),
            F.coalesce("agent_family", F.lit("")).alias("agent_family"),
        )
        .agg(
            F.count(F.lit(1)).alias("event_count"),
            F.min("event_time").alias("first_time"),
            F.max("event_time").alias("last_time"),
            F.max(F.unix_seconds("ingested_at") - F.unix_seconds("event_time")).alias("late_seconds"),
            F.bool_and(F.coalesce("read_only", F.lit(False))).alias("read_only"),
            F.min_by("user_agent", first).alias("user_agent"),
            F.min_by("access_key_id", first).alias("access_key_id"),
        )
        .withColumn("bucket_start", F.col("bucket.start"))
        .withColumn("bucket_end", F.col("bucket.end"))
        .withColumn("bucket_date", F.to_date("bucket_start"))
        .withColumn("late_minutes", F.expr("greatest(late_seconds, 0) DIV 60"))
        .withColumn("as_of", F.unix_date("bucket_date"))
        .drop("bucket", "late_seconds")
    )


def to_lookup(surprises: DataFrame) -> DataFrame:
    """(as_of, identity, uses, active_days): an identity's surprises of a day, as one map by dimension
    and value."""
    key = F.concat(F.col("dimension"), F.lit(_SEPARATOR), F.col("value"))
    entry = F.struct(
        key.alias("key"),
        F.struct(
            "days_90",
            "others",
            "value_days_90",
            "active_days",
            "prior",
            "rate",
            "tail",
            "bits",
            "nearest_place",
            "nearest_place_km",
            "near_reach_km",
            "near",
            "known_places",
            "known_countries",
            "rolled_out",
            "cadence_days",
            "expected_date",
            "on_cadence",
            "baseline_days",
        ).alias("value"),
    )
    return surprises.groupBy("as_of", "identity").agg(
        F.map_from_entries(F.collect_list(entry)).alias("uses"), F.max("active_days").alias("active_days")
    )


def to_jump_ends(jumps: DataFrame) -> DataFrame:
    """(as_of, actor, source_ip_address, jump_km, jump_seconds, jump_place, jump_least_km_per_hour): both ends
    of the jumps of `uses.to_jumps`, each with the farthest other end.

    jump_least_km_per_hour is the speed it takes where both places are as near to one another as their
    accuracy radii allow.
    """
    day = F.unix_date("event_date").alias("as_of")
    here = jumps.select(
        day,
        "actor",
        "source_ip_address",
        "jump_km",
        "seconds",
        F.col("from_place_name").alias("other"),
        "radius_km",
    )
    there = jumps.select(
        day,
        "actor",
        F.col("from_address").alias("source_ip_address"),
        "jump_km",
        "seconds",
        F.col("place_name").alias("other"),
        "radius_km",
    )
    farthest = F.max(F.struct("jump_km", (-F.col("seconds")).alias("quick"), "other", "radius_km"))
    least_km = F.greatest(F.col("jump.jump_km") - F.col("jump.radius_km"), F.lit(0.0))
    hours = F.greatest(-F.col("jump.quick"), F.lit(60)) / 3600
    return (
        here.unionByName(there)
        .groupBy("as_of", "actor", "source_ip_address")
        .agg(farthest.alias("jump"))
        .select(
            "as_of",
            "actor",
            "source_ip_address",
            F.col("jump.jump_km").alias("jump_km"),
            (-F.col("jump.quick")).alias("jump_seconds"),
            F.col("jump.other").alias("jump_place"),
            F.round(least_km / hours, 1).alias("jump_least_km_per_hour"),
        )
    )


def with_uses(candidates: DataFrame, lookup: DataFrame) -> DataFrame:
    """candidates plus uses and judged_as: the map of whose habit each is judged by.

    That is the actor's, or the principal's where the actor is hardly known and the principal is better.
    """
    actors = lookup.select(
        "as_of",
        F.col("identity").alias("actor"),
        F.col("uses").alias("actor_uses"),
        F.coalesce("active_days", F.lit(0)).alias("actor_days"),
    )
    principals = lookup.select(
        "as_of",
        F.col("identity").alias("principal"),
        F.col("uses").alias("principal_uses"),
        F.coalesce("active_days", F.lit(0)).alias("principal_days"),
    )
    rows = candidates.join(actors, ["as_of", "actor"], "left").join(
        principals, ["as_of", "principal"], "left"
    )
    fallback = (F.coalesce("actor_days", F.lit(0)) < _OWN_HABIT_DAYS) & (
        F.coalesce("principal_days", F.lit(0)) > F.coalesce("actor_days", F.lit(0))
    )
    return (
        rows.withColumn("uses", F.when(fallback, F.col("principal_uses")).otherwise(F.col("actor_uses")))
        .withColumn("judged_as", F.when(fallback, F.col("principal")).otherwise(F.col("actor")))
        .drop("actor_uses", "actor_days", "principal_uses", "principal_days")
    )


def with_terms(
    candidates: DataFrame,
    lookup: DataFrame,
    jump_ends: DataFrame,
    pairs: DataFrame,
    levels: tuple[Level, ...],
    hosting: str,
) -> DataFrame:
    """candidates (with places) plus the columns of `tables._TERMS`; one row a finding's key.

    Of several agent families under one key the most surprising is kept. jump_ends as `to_jump_ends`;
    pairs: as_of, kind, command, value, pair_days_90; levels are those of `sensitivity`; hosting is a
    regular expression that finds hosters by the name of their autonomous system.
    """

    def of(dimension: str, field: str) -> Column:
        return F.col(f"{dimension}_use.{field}")

    rows = with_uses(
        candidates.join(jump_ends, ["as_of", "actor", "source_ip_address"], "left").withColumns(
            {
                "hour": F.hour("bucket_start").cast("string"),
                "jump": F.when(F.col("jump_km").isNotNull(), F.lit("jump")).otherwise(""),
            }
        ),
        lookup,
    )
    for dimension, column in _VALUES.items():
        key = F.concat(F.lit(dimension + _SEPARATOR), F.col(column))
        rows = rows.withColumn(f"{dimension}_use", F.try_element_at("uses", key))
    rows = rows.drop("uses", "hour", "jump")
    for kind in ("place", "country"):
        side = pairs.where(F.col("kind") == kind).select(
            "as_of",
            "command",
            F.col("value").alias(kind),
            F.col("pair_days_90").alias(f"command_{kind}_days"),
        )
        rows = rows.join(side, ["as_of", "command", kind], "left").fillna(0, [f"command_{kind}_days"])

    zero, none = F.lit(0.0), F.lit(False)
    active = F.coalesce(of("command", "active_days"), F.lit(0))
    at_home = F.coalesce(of("place", "days_90") >= _PLACE_DAYS_FOR_NETWORK, none)
    place_new = F.coalesce(of("place", "days_90") == 0, none)
    near = F.coalesce(of("place", "near"), none)
    vague = F.coalesce(F.col("accuracy_radius") > nearest.MOST_RADIUS_KM, none) & (
        of("country", "days_90") > 0
    )
    own_network = F.coalesce(F.col("known_network_kind").isin(*_OWN_NETWORKS), none)
    hostile = F.coalesce(F.col("known_network_kind") == "hostile", none)
    hardly_new = place_new & (near | vague | own_network)
    # A suburb is as unusual as the area it lies in: the one of others there that is the more usual counts.
    metro = F.when(F.col("area") != F.col("place"), of("area", "tail"))
    tail = F.when(hardly_new, F.lit(1.0)).otherwise(F.greatest(of("place", "tail"), metro))
    new_bits = F.least(bits_of(of("place", "rate") * tail), of("place", "bits"))
    place_bits = F.when(place_new, new_bits).otherwise(of("place", "bits"))
    network_tail = F.when(
        of("network", "days_90") == 0, F.least(bits_of(of("network", "tail")), F.lit(CAPS["network"]))
    )
    network_bits = (
        F.when(hostile, CAPS["network"])
        .when(own_network, zero)
        .when(at_home | hardly_new, of("network", "bits"))
        .otherwise(network_tail)
    )
    network_known = (of("network", "days_90") > 0) | (of("network", "others") > 0)
    someone = F.col("principal_kind").isin("person", "user", "root") | (F.col("actor") != F.col("principal"))
    local = F.from_utc_timestamp("bucket_start", F.col("time_zone"))
    local_hour = F.hour(local)
    local_bits = (
        F.when(local_hour.isNull() | (local_hour < 6) | (local_hour >= 22), _UNUSUAL_HOUR_BITS)
        .when((local_hour < 8) | (local_hour >= 20) | (F.dayofweek(local).isin(1, 7)), _LATE_HOUR_BITS)
        .otherwise(0)
    )
    hosted = F.coalesce(F.col("as_organization").rlike(f"(?i){hosting}"), none) | F.coalesce(
        F.col("known_network_kind") == "hosting", none
    )
    level = sensitivity(levels, F.col("command"), F.col("read_only"))
    command = F.coalesce(of("command", "bits"), zero)
    terms: dict[str, Column] = {
        "baseline_days": of("command", "baseline_days"),
        "principal_active_days": active,
        "command_days": of("command", "value_days_90"),
        "place_days": of("place", "value_days_90"),
        "country_days": of("country", "value_days_90"),
        "nearest_place": of("place", "nearest_place"),
        "nearest_place_km": of("place", "nearest_place_km"),
        "near_reach_km": of("place", "near_reach_km"),
        "near_known_place": near,
        "known_places": of("place", "known_places"),
        "known_countries": of("place", "known_countries"),
        "vague_place": place_new & vague,
        "place_spared_bits": F.when(place_new, F.round(of("place", "bits") - place_bits, 6)),
        "rolled_out": F.coalesce(of("command", "rolled_out"), none),
        "settled_range": F.coalesce(of("prefix", "days_90") >= _SETTLED_DAYS, none),
        "cadence_days": of("command", "cadence_days"),
        "expected_date": of("command", "expected_date"),
        "on_cadence": F.coalesce(of("command", "on_cadence"), none),
        "local_hour": local_hour,
        "hosting_network": hosted,
        "sensitivity": level,
        "place_bits": F.coalesce(place_bits, zero),
        "network_bits": F.coalesce(network_bits, zero),
        "prefix_bits": F.when(network_known & ~own_network, F.coalesce(of("prefix", "bits"), zero)).otherwise(
            zero
        ),
        "jump_bits": F.when(at_home | own_network, zero).otherwise(F.coalesce(of("jump", "bits"), zero)),
        "agent_bits": F.coalesce(of("agent", "bits"), zero),
        "hour_bits": F.when(
            someone & (active >= _HOUR_DAYS), F.least(F.coalesce(of("hour", "bits"), zero), local_bits)
        ).otherwise(zero),
        "host_bits": F.when(
            someone & hosted & ~own_network & (of("network", "days_90") == 0),
            _HOST_BITS / (1 + of("network", "others")),
        ).otherwise(zero),
        # What a command can do counts only as far as it is new to whoever ran it.
        "command_bits": F.round(command + level / 2 * F.least(F.lit(1.0), command / HIGHEST), 6),
        "error_bits": F.coalesce(of("error", "bits"), zero),
        "maturity": F.least(F.lit(1.0), (active + _MATURE_OFFSET) / _MATURE_DAYS),
    }
    for dimension in ("place", "area", "network", "prefix", "agent", "command", "error", "hour", "jump"):
        terms[f"principal_{dimension}_days"] = of(dimension, "days_90")
        if dimension not in ("hour", "jump"):
            terms[f"{dimension}_principals"] = of(dimension, "others")
    for kind in ("place", "country"):
        together = F.col(f"command_{kind}_days")
        terms[f"{kind}_given_command_bits"] = pair_bits(
            together, of("command", "value_days_90"), of(kind, "prior")
        )
        terms[f"command_given_{kind}_bits"] = pair_bits(
            together, of(kind, "value_days_90"), of("command", "prior")
        )
    rows = rows.withColumns(terms).drop(*[f"{dimension}_use" for dimension in _VALUES])
    rows = rows.withColumns(
        {
            "where_bits": where_bits("place_bits", "network_bits", "prefix_bits", "jump_bits"),
            "how_bits": F.round(F.col("agent_bits") + F.col("hour_bits") + F.col("host_bits"), 6),
            "what_bits": F.greatest("command_bits", "error_bits"),
        }
    ).transform(with_bits)
    return _only_most_surprising_agent(rows)


def where_bits(place: str, network: str, prefix: str, jump: str) -> Column:
    """The sum of where: a new prefix often comes with a new place or network, so it weighs half."""
    return F.round(F.col(place) + F.col(network) + F.col(prefix) / 2 + F.col(jump), 6)


def with_bits(rows: DataFrame) -> DataFrame:
    """rows plus bits: (where + how + what) * maturity."""
    total = F.col("where_bits") + F.col("how_bits") + F.col("what_bits")
    return rows.withColumn("bits", F.round(total * F.col("maturity"), 6))


def _only_most_surprising_agent(rows: DataFrame) -> DataFrame:
    key = (
        "bucket_start",
        "recipient_account_id",
        "principal",
        "actor",
        "command",
        "source_ip_address",
        "error_code",
    )
    summed = ("event_count", "first_time", "last_time", "late_minutes")
    kept = [column for column in rows.columns if column not in (*key, *summed)]
    strangest = F.struct("bits", "agent_bits", "agent_family")
    return (
        rows.groupBy(*key)
        .agg(
            F.sum("event_count").alias("event_count"),
            F.min("first_time").alias("first_time"),
            F.max("last_time").alias("last_time"),
            F.max("late_minutes").alias("late_minutes"),
            F.max_by(F.struct(*kept), strangest).alias("kept"),
        )
        .select(*key, *summed, *[F.col(f"kept.{column}") for column in kept])
    )
