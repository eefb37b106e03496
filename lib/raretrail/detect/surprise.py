"""Surprise, in bits: how unusual a use is for its identity, given what was known before that day.

The formulae are those of research/detection.md §9.1 and §6, less what the measure did not bear out;
docs/decisions/0007 says why each is so. A use is new when the identity did not make it in 90 days:

    new:        -log2 rate - log2 tail, at most CAPS[dimension]
    place:      known: -log2((1 - rate) * max((days + 1/2) / (active + 1/2), .7 * recent_5 / 5,
                .7 if on the last active day)), but never more than a new one would have
    prefix:     new to everybody: as new; else 0
    hour:       -log2((days + 1/2) / (active + 1)), at most 4
    jump:       -log2 of the rate of days with a jump, at most 6
    command:    -log2((days + A * prior) / (active + A)) - 4, within 0..8; new: no more than as new;
                0 where it is rolled out to many, or comes when its cadence expects it
    anything else that is known: 0

rate   the identity's own rate of days with something new in the dimension, drawn to the organisation's
tail   the share of the organisation's past first uses that as few, or fewer, others had made before
prior  the share of the organisation's value-days; what was never seen gets the Good-Turing mass
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from raretrail.baseline.history import OTHERS_CLASSES, History, others_class

# Bits a first use can add. Rounded to what 1 in 1,000 (10) and 1 in 250 (8) days are worth.
CAPS = {
    "place": 10.0,
    "country": 10.0,
    "network": 8.0,
    "command": 8.0,
    "agent": 8.0,
    "error": 6.0,
    "prefix": 6.0,
    "jump": 6.0,
    "hour": 4.0,
}
# A command this young to the organisation, taken up by this many others, is being rolled out.
ROLL_OUT_DAYS = 21
ROLL_OUT_OTHERS = 3
# Work that comes this seldom has a date; its last two intervals, and the day it comes on, may differ by a
# day and a tenth: weekly work by one, monthly work by four, as months and weekends have it.
CADENCE_DAYS = 5
# Days of the organisation's habit that a principal's own is mixed with.
RATE_PRIOR_DAYS = 10.0
# Pseudo-days of the back-off distribution (research §6: alpha of 5).
ALPHA = 5.0
# A habit counts as broken only by what is rarer than one day in sixteen.
COMMAND_OFFSET_BITS = 4.0
RECENT_WEIGHT = 0.7


def bits_of(probability: Column) -> Column:
    """-log2 of a probability, rounded to 1e-6 so that platforms agree."""
    return F.round(-F.log2(probability), 6)


def prior_of(value_days: Column, total: Column, seen: Column, once: Column) -> Column:
    """P(value) in the organisation, with Good-Turing mass for the unseen.

    value_days of the value out of total value-days; seen distinct values of which once were seen on
    one day only. The unseen share once / total (at least one in total + 1) is divided among as many
    values as were seen and one more, so that a value never seen is rarer than one seen once.
    """
    unseen = F.greatest(once, F.lit(1)) / (total + 1)
    known = (1 - unseen) * value_days / F.greatest(total, F.lit(1))
    return F.when(value_days > 0, known).otherwise(unseen / (seen + 1))


def with_rates(rows: DataFrame) -> DataFrame:
    """rows plus rate and tail, from new_days, active_days, org_new_days, org_active_days,
    first_uses and settled_90 (a new value's others, the last two days left out)."""
    organisation = (F.col("org_new_days") + 1) / (F.col("org_active_days") + 2)
    rate = (F.col("new_days") + RATE_PRIOR_DAYS * organisation) / (F.col("active_days") + RATE_PRIOR_DAYS)
    index = others_class(F.col("settled_90"))
    zero = F.lit(0).cast("bigint")
    upto = F.aggregate(F.slice("first_uses", 1, index + 1), zero, lambda total, n: total + n)
    every = F.aggregate("first_uses", zero, lambda total, n: total + n)
    return rows.withColumn("rate", rate).withColumn("tail", (upto + 0.5) / (every + 1))


def to_surprises(history: History, nearest: DataFrame) -> DataFrame:
    """One row a use: its counts, rate, tail, prior and bits.

    history as `History`; nearest (as_of, identity, value, nearest_place, nearest_place_km, near_reach_km,
    near, known_places, known_countries) for places new to their identity. Columns: as_of, dimension,
    identity, value, days_90, others, value_days_90, active_days, new_days, prior, rate, tail, bits,
    nearest_place, nearest_place_km, near_reach_km, near, known_places, known_countries, rolled_out,
    cadence_days, expected_date, on_cadence, baseline_days. `others`
    leaves the identity itself out.
    """
    dimensions = history.dimensions.withColumnsRenamed(
        {"active_days": "org_dimension_days", "new_days": "org_new_days"}
    )
    # Whoever is active runs commands, so that dimension knows the organisation's active days.
    active = history.dimensions.where("dimension = 'command'").select(
        "as_of", F.col("active_days").alias("org_active_days")
    )
    rows = (
        history.identity_values.join(history.values, ["as_of", "dimension", "value"], "left")
        .join(history.identities, ["as_of", "dimension", "identity"], "left")
        .join(F.broadcast(dimensions), ["as_of", "dimension"], "left")
        .join(F.broadcast(active), "as_of", "left")
        .join(
            nearest.withColumn("dimension", F.lit("place")),
            ["as_of", "dimension", "identity", "value"],
            "left",
        )
        .fillna(
            0,
            [
                "value_days_90",
                "principals_90",
                "settled_90",
                "active_days",
                "new_days",
                "value_days",
                "values_seen",
                "values_once",
                "org_active_days",
                "org_dimension_days",
                "org_new_days",
                "baseline_days",
            ],
        )
        .withColumn(
            "first_uses",
            F.coalesce("first_uses", F.array(*[F.lit(0).cast("bigint") for _ in OTHERS_CLASSES])),
        )
        .withColumn(
            "others",
            F.greatest(
                F.col("principals_90") - F.when((F.col("days_90") > 0) & F.col("is_actor"), 1).otherwise(0),
                F.lit(0),
            ),
        )
        .transform(with_rates)
        .withColumn(
            "prior",
            prior_of(*map(F.col, ("value_days_90", "value_days", "values_seen", "values_once"))),
        )
    )
    new = F.col("days_90") == 0
    cap = F.lit(8.0)
    for dimension, most in CAPS.items():
        cap = F.when(F.col("dimension") == dimension, F.lit(most)).otherwise(cap)
    first = F.least(bits_of(F.col("rate") * F.col("tail")), cap)
    share = (F.col("days_90") + 0.5) / (F.col("active_days") + 0.5)
    habit = F.greatest(
        share,
        RECENT_WEIGHT * F.col("recent_5") / 5,
        F.when(F.col("on_last_day") > 0, RECENT_WEIGHT).otherwise(0.0),
    )
    place = F.least(F.greatest(bits_of((1 - F.col("rate")) * habit), F.lit(0.0)), first)
    backed_off = bits_of((F.col("days_90") + ALPHA * F.col("prior")) / (F.col("active_days") + ALPHA))
    command = F.least(F.greatest(backed_off - COMMAND_OFFSET_BITS, F.lit(0.0)), F.lit(CAPS["command"]))
    rolled_out = (
        (F.col("dimension") == "command")
        & new
        & (F.col("others") >= ROLL_OUT_OTHERS)
        & (F.col("value_first_day") >= F.col("as_of") - ROLL_OUT_DAYS)
    )
    cadence, expected, on_cadence = _cadence()
    hour = bits_of((F.col("days_90") + 0.5) / (F.col("active_days") + 1))
    org_jumps = (F.col("org_dimension_days") + 1) / (F.col("org_active_days") + 2)
    jump = bits_of(
        (F.col("days_90") + RATE_PRIOR_DAYS * org_jumps) / (F.col("active_days") + RATE_PRIOR_DAYS)
    )
    is_of = {name: F.col("dimension") == name for name in CAPS}
    bits = (
        F.when(rolled_out | on_cadence, 0.0)
        .when(is_of["command"] & new, F.least(command, first))
        .when(is_of["command"], command)
        .when(is_of["hour"], F.least(hour, cap))
        .when(is_of["jump"], F.least(jump, cap))
        .when(is_of["prefix"] & (F.col("others") > 0), 0.0)
        .when(new, first)
        .when(is_of["place"] | is_of["country"], place)
        .otherwise(0.0)
    )
    return rows.select(
        "as_of",
        "dimension",
        "identity",
        "value",
        "days_90",
        "others",
        "value_days_90",
        "active_days",
        "new_days",
        "prior",
        "rate",
        "tail",
        F.round(F.greatest(bits, F.lit(0.0)), 6).alias("bits"),
        "nearest_place",
        "nearest_place_km",
        "near_reach_km",
        F.coalesce("near", F.lit(False)).alias("near"),
        "known_places",
        "known_countries",
        F.coalesce(rolled_out, F.lit(False)).alias("rolled_out"),
        cadence.alias("cadence_days"),
        expected.alias("expected_date"),
        on_cadence.alias("on_cadence"),
        "baseline_days",
    )


def _cadence() -> tuple[Column, Column, Column]:
    """Days between uses of a command that come regularly, when the next is expected, and whether it is
    now: of last_use, last_gap, gap_before."""
    every = (F.col("last_gap") + F.col("gap_before")) / 2
    slack = 1 + F.floor(every / 10)
    regular = (
        (F.col("dimension") == "command")
        & (every >= CADENCE_DAYS)
        & (F.abs(F.col("last_gap") - F.col("gap_before")) <= slack)
    )
    next_use = F.when(regular, (F.col("last_use") + F.round(every)).cast("int"))
    now = F.abs(F.col("as_of") - next_use) <= slack
    return (
        F.when(regular, F.round(every).cast("int")),
        F.date_from_unix_date(next_use),
        F.coalesce(now, F.lit(False)),
    )


def pair_bits(pair_days: Column, given_days: Column, prior: Column) -> Column:
    """Surprise of b given a: seen together on pair_days of the given_days of a, backed off to P(b)."""
    return bits_of((pair_days + ALPHA * prior) / (given_days + ALPHA))
