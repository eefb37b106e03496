"""Spikes: more kinds of error in a quarter of an hour than its hour of the week has had.

A kind is an error code and the template of its message, so that names, ids and ARNs make none. Kinds
are counted for each actor, each account and the organisation; in the latter two the actor with most
of them counts as one, since its own burst is judged as its own. X, the kinds of a quarter hour, is
taken as negative binomial of mean m and variance m + m^2 / r, which allows for bursts (Hilbe, Negative
Binomial Regression, 2011, ch. 8), and judged among quarter hours that have an error at all:

    bits = -log2 P(X >= k | X >= 1), at most 6

so that the first refusals of somebody who never meets any are no spike for being the first, which
error_bits tells already. With E quarter hours with errors among the N of the last 90 days (at most),
and a mean a and mean square b of kinds in these:

    rate  = (E + 1) / (N + 1)
    a, b  = own, mixed with 50 quarter hours such as all scopes of this sort have had (of each at most
            50, so that a robot that fails all day does not speak for the staff), these in turn with 5 of
            a geometric distribution of mean 3
    m     = rate * a, drawn to what the hour of the week had: m * (kinds then + 5) / (m * n + 5)
            for the n quarter hours it has had
    r     = (rate * a)^2 / (rate * b - rate * a - (rate * a)^2)

The tail is summed term by term; from a mean of 200 on, where that underflows, Chernoff's bound stands
in, (theta (r + k) / k)^k ((1 - theta) (r + k) / r)^r with theta = m / (r + m), which is never below it.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from raretrail.baseline.facts import to_error_quarter_hour
from raretrail.baseline.history import WINDOW_DAYS
from raretrail.detect.candidates import with_bits

QUARTER = "15 minutes"
LEAST_KINDS = 3
# As for an error code: bursts have a heavier tail than any two moments tell.
CAP = 6.0
# Quarter hours with errors that those of others count for: bursts that come one time in twenty are not
# known to be absent before.
POOLED_QUARTERS = 50.0
# Quarter hours that the prior counts for, and kinds that all hours of the week count for in one.
ALPHA = 5.0
# Until an organisation has shown its own bursts: what an unpermitted page of the console brings.
PRIOR_MEAN, PRIOR_SQUARE = 3.0, 15.0
# From this mean on, exp(-mean) comes near what a double holds.
_SUMMED_UPTO = 200.0
# Terms summed at most: the tail from there stands for what lies further out.
_TERMS = 2000
# Where variance does not exceed the mean, r is bounded by this: Poisson in effect.
_LEAST_EXCESS = 1e-6
SCOPES = ("actor", "account", "organization")
_COUNTS = ("error_quarters", "kinds", "kinds_squared")
_CANDIDATE = (
    "bucket_start",
    "recipient_account_id",
    "principal",
    "actor",
    "command",
    "source_ip_address",
    "error_code",
)
# What a spike's finding has of the quarter hour rather than of the hour.
_OF_THE_QUARTER = (
    "bucket_start",
    "bucket_end",
    "event_count",
    "first_time",
    "last_time",
    "user_agent",
    "access_key_id",
)
COLUMNS = {
    "spike_bits": "double",
    "spike_count": "bigint",
    "spike_expected": "double",
    "spike_scope": "string",
    "distinct_messages": "bigint",
}


def _in_scopes() -> Column:
    named = (F.col("actor"), F.col("recipient_account_id"), F.lit(""))
    return F.explode(
        F.array(
            *[
                F.struct(F.lit(scope).alias("scope"), value.alias("value"))
                for scope, value in zip(SCOPES, named, strict=True)
            ]
        )
    )


def to_error_quarters(errors: DataFrame) -> DataFrame:
    """(scope, value, day, quarter_start, kinds): kinds of error by quarter hour that has any.

    errors is `error_quarter_hour`; scope is one of SCOPES and value its actor or account; day
    counts from 1970-01-01.
    """
    return (
        errors.select(
            _in_scopes().alias("scoped"),
            F.unix_date("event_date").alias("day"),
            "quarter_start",
            F.struct("error_code", "error_template").alias("kind"),
        )
        .groupBy("scoped.scope", "scoped.value", "day", "quarter_start")
        .agg(F.count_distinct("kind").alias("kinds"))
    )


def to_error_hours(quarters: DataFrame) -> DataFrame:
    """(scope, value, day, hour_of_week, error_quarters, kinds, kinds_squared) of `to_error_quarters`.

    hour_of_week counts from Monday midnight, UTC.
    """
    return quarters.groupBy("scope", "value", "day", _hour_of_week().alias("hour_of_week")).agg(
        F.count(F.lit(1)).alias("error_quarters"),
        F.sum("kinds").alias("kinds"),
        F.sum(F.col("kinds") * F.col("kinds")).alias("kinds_squared"),
    )


def _hour_of_week() -> Column:
    return F.weekday("quarter_start") * 24 + F.hour("quarter_start")


def to_habits(hours: DataFrame) -> DataFrame:
    """(as_of, scope, value, hour_of_week, error_quarters, kinds, kinds_squared) of the 90 days before.

    hours are `to_error_hours` and, by as_of, the days asked for (days from 1970-01-01).
    """
    before = (F.col("day") >= F.col("as_of") - WINDOW_DAYS) & (F.col("day") < F.col("as_of"))
    return (
        hours.where(before)
        .groupBy("as_of", "scope", "value", "hour_of_week")
        .agg(*[F.sum(name).alias(name) for name in _COUNTS])
    )


def to_pooled(habits: DataFrame) -> DataFrame:
    """(as_of, scope, error_quarters, kinds, kinds_squared) of all values of a scope together, each
    counted for at most POOLED_QUARTERS quarter hours; habits are `to_habits` of all."""
    values = habits.groupBy("as_of", "scope", "value").agg(*[F.sum(name).alias(name) for name in _COUNTS])
    share = F.least(F.lit(1.0), POOLED_QUARTERS / F.col("error_quarters"))
    # Added up as decimals, so that the order does not matter.
    parts = [
        F.sum((F.col(name) * share).cast("decimal(28,6)")).cast("double").alias(name) for name in _COUNTS
    ]
    return values.groupBy("as_of", "scope").agg(*parts)


def only_many(quarters: DataFrame) -> DataFrame:
    """The quarter hours (`to_error_quarters`) that have kinds enough for a spike, with as_of."""
    return quarters.where(F.col("kinds") >= LEAST_KINDS).withColumnRenamed("day", "as_of")


def to_spikes(events: DataFrame, habits: DataFrame, pooled: DataFrame, ages: DataFrame) -> DataFrame:
    """A row for each key of a candidate that leads a spike of its quarter hour: the key with
    bucket_start of the hour, and `spike`, a struct of COLUMNS and of what a finding has of its quarter.

    events are those judged; habits and pooled as `to_habits` and `to_pooled` give them; ages (as_of,
    baseline_days) says how many days before were recorded. Of a spike the actor with most kinds
    leads, and of its calls the command, address and error with most. One key leads once a quarter
    hour, for the scope where it surprises most.
    """
    failed = events.where(F.col("error_code").isNotNull())
    many = only_many(to_error_quarters(to_error_quarter_hour(failed)))
    others = F.when(F.col("scope") == "actor", 0).otherwise(F.col("actor_kinds") - 1)
    told = (
        many.join(_leaders(failed), ["scope", "value", "quarter_start"])
        .withColumn("kinds", F.col("kinds") - others)
        .where(F.col("kinds") >= LEAST_KINDS)
        .withColumn("hour_of_week", _hour_of_week())
    )
    keys = ["as_of", "scope", "value"]
    own = habits.groupBy(*keys).agg(*[F.sum(name).alias(f"own_{name}") for name in _COUNTS])
    every = pooled.select("as_of", "scope", *[F.col(name).alias(f"all_{name}") for name in _COUNTS])
    hour = habits.select(*keys, "hour_of_week", F.col("kinds").alias("hour_kinds"))
    zeros = {f"{part}_{name}": 0 for part in ("own", "all") for name in _COUNTS} | {"hour_kinds": 0}
    judged = (
        told.join(own, keys, "left")
        .join(F.broadcast(every), ["as_of", "scope"], "left")
        .join(hour, [*keys, "hour_of_week"], "left")
        .join(F.broadcast(ages), "as_of", "left")
        .fillna({**zeros, "baseline_days": 0})
        .transform(with_spike_bits)
    )
    messages = failed.groupBy(_quarter().alias("quarter_start")).agg(
        F.count_distinct("error_message").alias("distinct_messages")
    )
    narrowest = F.array_position(F.array(*map(F.lit, SCOPES)), F.col("spike_scope"))
    spike = F.struct(
        *COLUMNS,
        F.col("quarter_start").alias("bucket_start"),
        (F.col("quarter_start") + F.expr(f"INTERVAL {QUARTER}")).alias("bucket_end"),
        *[name for name in _OF_THE_QUARTER if not name.startswith("bucket")],
    )
    led = (
        judged.join(messages, "quarter_start")
        .withColumnsRenamed({"scope": "spike_scope", "kinds": "spike_count"})
        .select(
            *_CANDIDATE[1:],
            F.date_trunc("HOUR", "quarter_start").alias("bucket_start"),
            "quarter_start",
            spike.alias("spike"),
            F.struct("spike_bits", -narrowest).alias("rank"),
        )
    )
    return led.groupBy(*_CANDIDATE, "quarter_start").agg(F.max_by("spike", "rank").alias("spike")).drop(
        "quarter_start"
    )  # fmt: skip


def _quarter() -> Column:
    return F.window("event_time", QUARTER)["start"]


def _leaders(failed: DataFrame) -> DataFrame:
    """By scope, value and quarter_start the key that stands for it, and what its calls were."""
    first = F.struct("event_time", "event_id")
    calls = failed.groupBy(
        _quarter().alias("quarter_start"),
        "recipient_account_id",
        "principal",
        "actor",
        "command",
        F.coalesce("source_ip_address", F.lit("")).alias("source_ip_address"),
        "error_code",
    ).agg(
        F.count(F.lit(1)).alias("event_count"),
        F.min("event_time").alias("first_time"),
        F.max("event_time").alias("last_time"),
        F.min_by("user_agent", first).alias("user_agent"),
        F.min_by("access_key_id", first).alias("access_key_id"),
        F.collect_set(F.struct("error_code", F.coalesce("error_template", F.lit("")))).alias("kind_set"),
    )
    place = Window.partitionBy("scope", "value", "quarter_start")
    who = Window.partitionBy("scope", "value", "quarter_start", "actor")
    order: list[Column | str] = [
        F.desc("actor_kinds"),
        F.desc("actor_events"),
        "actor",
        F.desc(F.size("kind_set")),
        F.desc("event_count"),
        *(name for name in _CANDIDATE[1:] if name != "actor"),
    ]
    return (
        calls.withColumn("scoped", _in_scopes())
        .select("*", "scoped.*")
        .withColumn("actor_kinds", F.size(F.array_distinct(F.flatten(F.collect_list("kind_set").over(who)))))
        .withColumn("actor_events", F.sum("event_count").over(who))
        .withColumn("nth", F.row_number().over(place.orderBy(*order)))
        .where("nth = 1")
        .drop("scoped", "kind_set", "actor_events", "nth")
    )


def with_spike_bits(rows: DataFrame) -> DataFrame:
    """rows plus spike_bits and spike_expected, the kinds of such a quarter hour among those with errors.

    From kinds, own_* and all_* (error_quarters, kinds, kinds_squared of the scope's value and of the
    whole scope), hour_kinds and baseline_days.
    """
    own, every = (
        {name: F.col(f"{part}_{name}").cast("double") for name in _COUNTS} for part in ("own", "all")
    )
    days = F.col("baseline_days")
    quarters, same_hour = 96 * days, 4 * F.floor(days / 7)
    more = every["error_quarters"] + ALPHA
    usual_mean = (every["kinds"] + ALPHA * PRIOR_MEAN) / more
    usual_square = (every["kinds_squared"] + ALPHA * PRIOR_SQUARE) / more
    rate = (own["error_quarters"] + 1) / (quarters + 1)
    seen = own["error_quarters"] + POOLED_QUARTERS
    overall = rate * (own["kinds"] + POOLED_QUARTERS * usual_mean) / seen
    square = rate * (own["kinds_squared"] + POOLED_QUARTERS * usual_square) / seen
    mean = overall * (F.col("hour_kinds") + ALPHA) / (overall * same_hour + ALPHA)
    level = overall * overall
    size = level / F.greatest(square - overall - level, level * _LEAST_EXCESS)
    rows = rows.withColumns({"_mean": mean, "_size": size})
    some = -F.expm1(-F.col("_size") * F.log1p(F.col("_mean") / F.col("_size")))
    tail = tail_probability(F.col("kinds"), F.col("_mean"), F.col("_size"))
    return rows.withColumns(
        {
            "spike_bits": F.round(F.least(-F.log2(F.greatest(tail, F.lit(2.0**-20))), F.lit(CAP)), 6),
            "spike_expected": F.round(F.col("_mean") / some, 6),
        }
    ).drop("_mean", "_size")


def tail_probability(count: Column, mean: Column, size: Column) -> Column:
    """P(X >= count | X >= 1) of a negative binomial, count at least 1; see the module."""
    theta = mean / (size + mean)
    none = -size * F.log1p(mean / size)
    first = F.exp(none) * size * theta / -F.expm1(none)
    # Terms of 1 .. count - 1, each from the one before.
    start = F.struct(F.lit(0.0).alias("total"), first.alias("term"))

    def add(state: Column, k: Column) -> Column:
        term = state["term"] * theta * (k + size) / (k + 1)
        return F.struct((state["total"] + state["term"]).alias("total"), term.alias("term"))

    last = F.least(count - 1, F.lit(_TERMS)).cast("int")
    ks = F.when(last >= 1, F.sequence(F.lit(1), last)).otherwise(F.array().cast("array<int>"))
    summed = F.aggregate(ks, start, add)["total"]
    bound = F.exp(
        count * F.log(theta * (size + count) / count) + size * F.log((1 - theta) * (size + count) / size)
    )
    chernoff = F.when(count > mean, bound).otherwise(F.lit(1.0))
    tail = F.when(mean > _SUMMED_UPTO, chernoff).otherwise(1 - summed)
    return F.least(F.greatest(tail, F.lit(0.0)), F.lit(1.0))


def with_spikes(candidates: DataFrame, spikes: DataFrame | None) -> DataFrame:
    """candidates (with every term) plus COLUMNS, null, and beside each that leads a spike a row with
    them filled in: the same call, counted in its quarter hour, as unusual as the spike makes it."""
    if spikes is None:
        return candidates.withColumns({name: F.lit(None).cast(kind) for name, kind in COLUMNS.items()})
    led = spikes.groupBy(*_CANDIDATE).agg(F.collect_list("spike").alias("spikes"))
    rows = candidates.join(F.broadcast(led), list(_CANDIDATE), "left").withColumn(
        "spike", F.explode_outer(F.array_append("spikes", F.lit(None)))
    )
    taken = {name: F.coalesce(F.col(f"spike.{name}"), F.col(name)) for name in _OF_THE_QUARTER}
    own = {name: F.col(f"spike.{name}") for name in COLUMNS}
    what = F.greatest(F.col("what_bits"), F.coalesce("spike.spike_bits", F.lit(0.0)))
    return rows.withColumns({**taken, **own, "what_bits": what}).drop("spike", "spikes").transform(with_bits)
