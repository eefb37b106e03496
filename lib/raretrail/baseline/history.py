"""History: for what was used on a day, how usual it was before that day.

`history_of` answers for every day at once, by windows that end the day before, so that
playing months forward reads the facts once and no bucket is judged by its own or a later day.
`raretrail.baseline.snapshot` answers for one day from stored tables; tests hold both to the same
numbers. Windows are 90 days; all measures are whole numbers, so that equal input gives equal bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F

WINDOW_DAYS = 90
# While the organisation's own record is younger, everything is a first use and teaches nothing of how
# unusual first uses are.
LEARNING_DAYS = 14
LAG_DAYS = 2
# So many of an identity's active days are recent.
_RECENT = 5
# Before any day.
_EVER = -(2**31)
# How many others already do so, in classes: 0, 1, 2, 3-4, 5-9, 10 and more (research §9.1).
OTHERS_CLASSES = (0, 1, 2, 3, 5, 10)

# What `identity_values` say of an identity and a value.
MEASURES = ("days_90", "recent_5", "on_last_day", "last_use", "last_gap", "gap_before")


@dataclass(frozen=True)
class History:
    """What was known before each day. `as_of` counts days from 1970-01-01.

    Of values and dimensions only actors count. settled_90 are the actors who used a value before the
    last LAG_DAYS days: what the organisation is taken to know, so that an intruder's own yesterday, or
    an accomplice's, makes nothing usual.

    identity_values  as_of, dimension, identity, value: days_90, recent_5, on_last_day, last_use (a day),
                      last_gap and gap_before (days between the last three uses of the 90 days), is_actor
    values            as_of, dimension, value: value_days_90, principals_90, settled_90, value_first_day
    identities        as_of, dimension, identity: active_days, new_days
    dimensions        as_of, dimension: value_days, values_seen, values_once, active_days,
                      new_days, first_uses (array by class of others), baseline_days
    pairs             as_of, kind, command, value: pair_days_90
    """

    identity_values: DataFrame
    values: DataFrame
    identities: DataFrame
    dimensions: DataFrame
    pairs: DataFrame


def others_class(others: Column) -> Column:
    """Index into OTHERS_CLASSES of a number of other actors."""
    chosen = F.lit(0)
    for index, least in enumerate(OTHERS_CLASSES):
        chosen = F.when(others >= least, F.lit(index)).otherwise(chosen)
    return chosen


def _window(*keys: str) -> WindowSpec:
    return Window.partitionBy(*keys).orderBy("day")


def _before(total: Column, *keys: str) -> Column:
    """A count or a sum of whole numbers over the WINDOW_DAYS before each row's.

    As the difference of two that begin with the first row: Spark adds a row to those, where it would go
    through all rows of a window that moves.
    """
    until, earlier = (
        F.coalesce(total.over(_window(*keys).rangeBetween(Window.unboundedPreceding, -back)), F.lit(0))
        for back in (1, WINDOW_DAYS + 1)
    )
    return until - earlier


def with_first_uses(uses: DataFrame) -> DataFrame:
    """uses plus, for the 90 days before: days_90, active_days, recent_5, on_last_day, first_use, last_use,
    last_gap, gap_before.

    recent_5 counts the identity's last five active days, wherever they lie. A first use is one
    not made in the 90 days before, by an identity that was active in them, and news (see `is_news`).
    """
    by_identity = Window.partitionBy("identity").orderBy("day")
    active = (
        uses.select("identity", "day")
        .distinct()
        .select(
            "identity",
            "day",
            F.lag("day").over(by_identity).alias("last_day"),
            F.lag("day", _RECENT, _EVER).over(by_identity).alias("recent_day"),
            _before(F.count(F.lit(1)), "identity").alias("active_days"),
        )
    )
    keys = ("dimension", "identity", "value")
    used = {f"use_{back}": F.lag("day", back).over(_window(*keys)) for back in range(1, _RECENT + 1)}
    # A value is used once a day at most, so that the days of its uses are as good as a count of them.
    recent = [F.when(F.col(name) >= F.col("recent_day"), 1).otherwise(0) for name in used]
    return (
        uses.join(active, ["identity", "day"])
        .withColumn("days_90", _before(F.count(F.lit(1)), *keys))
        .withColumns(used)
        .withColumn("recent_5", reduce(add, recent).cast("bigint"))
        .withColumn("on_last_day", F.when(F.col("use_1") == F.col("last_day"), 1).otherwise(0).cast("bigint"))
        .withColumn("first_use", is_news(F.col("days_90") == 0, "day") & (F.col("active_days") > 0))
        .withColumns({name: _within(name) for name in ("use_1", "use_2", "use_3")})
        .withColumns(gaps("use_1", "use_2", "use_3"))
        .drop("last_day", "recent_day", *used)
    )


def is_news(new: Column, day: str) -> Column:
    """Whether what is new says something of its own: a new network on a day with a new place does not,
    since a new place brings one.

    For rows with identity, dimension and all of what an identity used on a day, whose column is named.
    """
    place = F.max(F.when(F.col("dimension") == "place", new).otherwise(False))
    brought = (F.col("dimension") == "network") & place.over(Window.partitionBy("identity", day))
    return new & ~brought


def _within(use: str) -> Column:
    """The day of an earlier use, if it lies within the window."""
    return F.when(F.col(use) >= F.col("day") - WINDOW_DAYS, F.col(use))


def gaps(last: str, second: str, third: str) -> dict[str, Column]:
    """last_use, last_gap and gap_before of the columns with the days of the last three uses."""
    return {
        "last_use": F.col(last),
        "last_gap": (F.col(last) - F.col(second)).cast("int"),
        "gap_before": (F.col(second) - F.col(third)).cast("int"),
    }


def _steps_while_known(uses: DataFrame, keys: tuple[str, ...], *group: str, lag: int = 0) -> DataFrame:
    """Steps of the number of distinct keys known in a group: (group…, day, step).

    A key is known as of day t when it was used in [t - 90, t - lag): each use opens
    (d + lag, d + 90], uses close together run together.
    """
    order = Window.partitionBy(*keys).orderBy("day")
    spans = uses.select(
        *group,
        "day",
        F.lag("day").over(order).alias("earlier"),
        F.lead("day").over(order).alias("later"),
    )
    apart = WINDOW_DAYS - lag
    opens = spans.where(F.col("earlier").isNull() | (F.col("day") - F.col("earlier") > apart))
    closes = spans.where(F.col("later").isNull() | (F.col("later") - F.col("day") > apart))
    return opens.select(*group, (F.col("day") + 1 + lag).alias("day"), F.lit(1).alias("step")).unionByName(
        closes.select(*group, (F.col("day") + WINDOW_DAYS + 1).alias("day"), F.lit(-1).alias("step"))
    )


def _steps_while_once(uses: DataFrame, keys: tuple[str, ...], *group: str) -> DataFrame:
    """Steps of the number of keys used on exactly one day of the 90 before: (group…, day, step)."""
    order = Window.partitionBy(*keys).orderBy("day")
    spans = uses.select(
        *group,
        F.greatest(F.col("day"), F.lag("day").over(order) + WINDOW_DAYS).alias("start"),
        F.least(F.col("day") + WINDOW_DAYS, F.lead("day").over(order)).alias("end"),
    ).where("end > start")
    return spans.select(*group, (F.col("start") + 1).alias("day"), F.lit(1).alias("step")).unionByName(
        spans.select(*group, (F.col("end") + 1).alias("day"), F.lit(-1).alias("step"))
    )


def _at(asked: DataFrame, steps: DataFrame, name: str, *group: str) -> DataFrame:
    """asked (distinct group…, day) plus `name`: the sum of the steps up to and with the day."""
    until = Window.partitionBy(*group).orderBy("day").rangeBetween(Window.unboundedPreceding, 0)
    questions = asked.select(*group, "day", F.lit(0).alias("step"), F.lit(True).alias("asked"))
    return (
        questions.unionByName(steps.withColumn("asked", F.lit(False)))
        .withColumn(name, F.sum("step").over(until))
        .where("asked")
        .drop("step", "asked")
    )


def to_values(uses: DataFrame) -> DataFrame:
    """History.values for every (dimension, value, day) used."""
    counted = uses.where("is_actor")
    asked = uses.select("dimension", "value", "day").distinct()
    per_day = counted.select("dimension", "value", "day").distinct()
    before = _window("dimension", "value").rangeBetween(-WINDOW_DAYS, -1)
    days = per_day.select(
        "*",
        _before(F.count(F.lit(1)), "dimension", "value").alias("value_days_90"),
        F.min("day").over(before).alias("value_first_day"),
    )
    keys, group = ("dimension", "value", "identity"), ("dimension", "value")
    known = _at(asked, _steps_while_known(counted, keys, *group), "principals_90", *group)
    settled = _at(asked, _steps_while_known(counted, keys, *group, lag=LAG_DAYS), "settled_90", *group)
    on = ["dimension", "value", "day"]
    return days.join(known, on).join(settled, on).withColumnRenamed("day", "as_of")


def to_first_uses(uses: DataFrame, values: DataFrame) -> DataFrame:
    """First uses (see with_first_uses) with `others`: settled_90 of the value then."""
    return (
        uses.where("first_use")
        .join(values.withColumnRenamed("as_of", "day"), ["dimension", "value", "day"])
        .select(
            "day",
            "identity",
            "dimension",
            "value",
            F.col("settled_90").alias("others"),
            "active_days",
            "is_actor",
        )
    )


def to_identities(uses: DataFrame) -> DataFrame:
    """History.identities for every (dimension, identity, day) used."""
    per_day = uses.groupBy("dimension", "identity", "day").agg(
        F.max("active_days").alias("active_days"),
        F.max(F.col("first_use").cast("int")).alias("new"),
    )
    new_days = _before(F.sum("new"), "dimension", "identity")
    return per_day.select(
        F.col("day").alias("as_of"),
        "dimension",
        "identity",
        "active_days",
        new_days.alias("new_days"),
    )


def to_dimensions(uses: DataFrame, first_uses: DataFrame) -> DataFrame:
    """History.dimensions for every (dimension, day) of the span of uses, quiet days included."""
    uses = uses.where("is_actor")
    span = uses.agg(F.min("day").alias("start"), F.max("day").alias("end"))
    kinds = uses.select("dimension").distinct()
    asked = span.select(F.explode(F.sequence("start", "end")).alias("day")).crossJoin(kinds)
    value_day = uses.select("dimension", "value", "day").distinct()
    keys = ("dimension", "value")
    daily = (
        value_day.groupBy("dimension", "day")
        .agg(F.count(F.lit(1)).alias("value_days"))
        .join(
            uses.select("dimension", "identity", "day", "first_use")
            .groupBy("dimension", "identity", "day")
            .agg(F.max(F.col("first_use").cast("int")).alias("new"))
            .groupBy("dimension", "day")
            .agg(F.count(F.lit(1)).alias("active_days"), F.sum("new").alias("new_days")),
            ["dimension", "day"],
        )
        .join(
            first_uses.where("is_actor")
            .join(span.select("start"), how="cross")
            .where(F.col("day") >= F.col("start") + LEARNING_DAYS)
            .groupBy("dimension", "day")
            .agg(
                *[
                    F.count_if(others_class(F.col("others")) == index).alias(f"first_uses_{index}")
                    for index in range(len(OTHERS_CLASSES))
                ]
            ),
            ["dimension", "day"],
            "left",
        )
    )
    summed = ["value_days", "active_days", "new_days"] + [
        f"first_uses_{index}" for index in range(len(OTHERS_CLASSES))
    ]
    rolled = (
        asked.join(daily, ["dimension", "day"], "left")
        .join(span.select("start"), how="cross")
        .select(
            "dimension",
            "day",
            *[_before(F.sum(name), "dimension").alias(name) for name in summed],
            F.least(F.col("day") - F.col("start"), F.lit(WINDOW_DAYS)).alias("baseline_days"),
        )
    )
    seen = _at(asked, _steps_while_known(value_day, keys, "dimension"), "values_seen", "dimension")
    once = _at(asked, _steps_while_once(value_day, keys, "dimension"), "values_once", "dimension")
    return (
        rolled.join(seen, ["dimension", "day"])
        .join(once, ["dimension", "day"])
        .select(
            F.col("day").alias("as_of"),
            "dimension",
            "value_days",
            "values_seen",
            "values_once",
            "active_days",
            "new_days",
            F.array(*[f"first_uses_{index}" for index in range(len(OTHERS_CLASSES))]).alias("first_uses"),
            "baseline_days",
        )
    )


def to_pair_days(pairs: DataFrame) -> DataFrame:
    """History.pairs for every (kind, command, value, day) used."""
    days = _before(F.count(F.lit(1)), "kind", "command", "value")
    return pairs.select(F.col("day").alias("as_of"), "kind", "command", "value", days.alias("pair_days_90"))


def history_of(known: DataFrame, values: DataFrame, pairs: DataFrame) -> History:
    """What was known before each day on which it was used; see History for the columns.

    known is `with_first_uses` of the uses, values `to_values` of them (both are used many times, so
    the caller stages them), pairs those of `uses.to_pairs`.
    """
    return History(
        identity_values=known.select(
            F.col("day").alias("as_of"),
            "dimension",
            "identity",
            "value",
            *MEASURES,
            "is_actor",
        ),
        values=values,
        identities=to_identities(known),
        dimensions=to_dimensions(known, to_first_uses(known, values)),
        pairs=to_pair_days(pairs),
    )
