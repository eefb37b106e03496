"""Snapshots: the baseline as of one day, stored, advanced by a day for the price of a day.

`baseline_presence` folds the last 90 days of `presence_daily` into one row a key with a bit for each
day. A new day shifts the bits and adds its own; a day that late events changed is cleared and added
again. All other baselines are windowed aggregates of that fold: `bit_or` over what a key leaves out,
then counts of bits. The fold keeps the address, so that a new map needs no history read again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from raretrail.baseline.history import (
    LAG_DAYS,
    LEARNING_DAYS,
    MEASURES,
    OTHERS_CLASSES,
    WINDOW_DAYS,
    History,
    gaps,
    is_news,
    others_class,
)
from raretrail.baseline.uses import DIMENSIONS, identities, placed_uses, use

WORD = 45
_MASK = (1 << WORD) - 1
KEY = (
    "recipient_account_id",
    "principal",
    "principal_kind",
    "actor",
    "command",
    "source_ip_address",
    "outcome",
)
HALF_LIFE_DAYS = 30
ORGANIZATION = "organization"


def _day_number(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def _bit(offset: Column, word: int) -> Column:
    """The bit of a day `offset` days before the last one, in word 0 or 1; 0 where it lies outside."""
    place = offset - word * WORD
    shifted = F.call_function("shiftleft", F.lit(1).cast("bigint"), place.cast("int"))
    return F.when((place >= 0) & (place < WORD), shifted).otherwise(F.lit(0).cast("bigint"))


def to_fold(presence: DataFrame, as_of: date) -> DataFrame:
    """KEY, seen_low, seen_high of the 90 days before as_of; presence is `presence_daily`."""
    offset = F.lit(_day_number(as_of) - 1) - F.unix_date("event_date")
    return (
        presence.where((offset >= 0) & (offset < WINDOW_DAYS))
        .groupBy(*KEY)
        .agg(
            F.bit_or(_bit(offset, 0)).alias("seen_low"),
            F.bit_or(_bit(offset, 1)).alias("seen_high"),
        )
    )


def advance_fold(
    fold: DataFrame, fold_as_of: date, presence: DataFrame, as_of: date, changed: Collection[date]
) -> DataFrame:
    """The fold as of a later (or the same) day.

    presence holds the days of `changed`, which are taken anew: those from fold_as_of on, and earlier
    ones that late events changed. Days are at most WORD apart.
    """
    days = (as_of - fold_as_of).days
    if not 0 <= days < WORD:
        raise ValueError(f"a fold cannot advance by {days} days; build it from the facts")
    offsets = [(as_of - day).days - 1 for day in changed]
    keep_low = _MASK & ~sum(1 << offset for offset in offsets if 0 <= offset < WORD)
    keep_high = _MASK & ~sum(1 << (offset - WORD) for offset in offsets if WORD <= offset < 2 * WORD)
    low, high = F.col("seen_low"), F.col("seen_high")
    carried = F.shiftrightunsigned(low, WORD - days) if days else F.lit(0).cast("bigint")
    shifted = fold.select(
        *KEY,
        # Bits that leave the word are masked first: a shift may not reach the sign.
        F.shiftleft(low.bitwiseAND(_MASK >> days), days).bitwiseAND(keep_low).alias("seen_low"),
        F.shiftleft(high.bitwiseAND(_MASK >> days), days)
        .bitwiseOR(carried)
        .bitwiseAND(keep_high)
        .alias("seen_high"),
    )
    return (
        shifted.unionByName(to_fold(presence, as_of))
        .groupBy(*KEY)
        .agg(F.bit_or("seen_low").alias("seen_low"), F.bit_or("seen_high").alias("seen_high"))
        .where("seen_low <> 0 OR seen_high <> 0")
    )


def _ones(low: Column, high: Column | None = None) -> Column:
    return F.bit_count(low) + (F.bit_count(high) if high is not None else F.lit(0))


def _last_bit(word: Column) -> Column:
    """Index of the highest bit set."""
    return F.length(F.bin(word)) - 1


def _newest(low: Column, high: Column) -> Column:
    """How many days before the last one the most recent bit lies; null where there is none."""
    return F.when(low != 0, _last_bit(low.bitwiseAND(-low))).when(
        high != 0, _last_bit(high.bitwiseAND(-high)) + WORD
    )


def _without_newest(low: Column, high: Column) -> tuple[Column, Column]:
    """The words without their most recent bit."""
    only_high = (low == 0) & (high != 0)
    return (
        F.when(low != 0, low.bitwiseAND(low - 1)).otherwise(low),
        F.when(only_high, high.bitwiseAND(high - 1)).otherwise(high),
    )


def with_gaps(rows: DataFrame) -> DataFrame:
    """rows (with seen_low, seen_high) plus last_gap and gap_before, as `history.gaps` has them."""
    words = F.col("seen_low"), F.col("seen_high")
    offsets = {}
    for nth in (1, 2, 3):
        offsets[f"use_{nth}"] = -_newest(*words)
        words = _without_newest(*words)
    measures = gaps(*offsets)
    return rows.withColumns(offsets).withColumns(
        {name: measures[name] for name in ("last_gap", "gap_before")}
    ).drop(*offsets)  # fmt: skip


def _day_measures(as_of: date) -> list[Column]:
    low, high = F.col("seen_low"), F.col("seen_high")
    newest = _newest(low, high)
    oldest = F.when(high != 0, _last_bit(high) + WORD).otherwise(_last_bit(low))
    last = F.lit(as_of)

    def decayed(word: Column, start: int) -> Column:
        return F.aggregate(
            F.sequence(F.lit(0), F.lit(WORD - 1)),
            F.lit(0.0),
            lambda total, i: (
                total
                + F.when(
                    F.call_function("shiftrightunsigned", word, i).bitwiseAND(F.lit(1).cast("bigint")) != 0,
                    F.pow(F.lit(2.0), -(i + start) / HALF_LIFE_DAYS),
                ).otherwise(0.0)
            ),
        )

    return [
        _ones(low.bitwiseAND((1 << 7) - 1)).alias("days_7"),
        _ones(low.bitwiseAND((1 << 30) - 1)).alias("days_30"),
        _ones(low, high).alias("days_90"),
        F.round(decayed(low, 0) + decayed(high, WORD), 6).alias("days_decayed"),
        F.date_sub(last, oldest + 1).alias("first_day"),
        F.date_sub(last, newest + 1).alias("last_day"),
    ]


def _actor_counts() -> list[Column]:
    low, high = F.col("seen_low"), F.col("seen_high")
    recent = [low.bitwiseAND((1 << days) - 1) != 0 for days in (7, 30)]
    settled = low.bitwiseAND(_MASK & ~((1 << LAG_DAYS) - 1)) != 0
    return [
        F.count_if(recent[0]).alias("principals_7"),
        F.count_if(recent[1]).alias("principals_30"),
        F.count_if((low != 0) | (high != 0)).alias("principals_90"),
        F.count_if(settled | (high != 0)).alias("settled_90"),
    ]


def _to_baseline(rows: DataFrame, keys: tuple[str, ...], as_of: date) -> DataFrame:
    """keys plus days and actors, of rows (who, keys…, seen_low, seen_high); each `who` counts once."""
    by_actor = rows.groupBy("who", *keys).agg(*_folded())
    counted = by_actor.groupBy(*keys).agg(
        *_actor_counts(),
        F.bit_or("seen_low").alias("folded_low"),
        F.bit_or("seen_high").alias("folded_high"),
    )
    renamed = counted.withColumnsRenamed({"folded_low": "seen_low", "folded_high": "seen_high"})
    return renamed.select("*", *_day_measures(as_of))


def _folded() -> list[Column]:
    return [F.bit_or("seen_low").alias("seen_low"), F.bit_or("seen_high").alias("seen_high")]


@dataclass(frozen=True)
class Snapshot:
    """The baselines as of one day, with the columns of their tables but as_of and scope."""

    command_place: DataFrame
    command_country: DataFrame
    value: DataFrame
    identity_value: DataFrame
    identity: DataFrame
    dimension: DataFrame


def to_snapshot(
    placed: DataFrame, uses: DataFrame, first_uses: DataFrame, as_of: date, first_day: date
) -> Snapshot:
    """Windowed aggregates of a located fold (see `uses.with_places`) and of its `to_folded_uses`.

    first_uses are those of the 90 days before as_of; first_day is the organisation's first.
    """
    names = placed.groupBy("place").agg(
        F.min("place_name").alias("place_name"), F.min("country_iso_code").alias("country_iso_code")
    )
    active = uses.groupBy("identity").agg(
        F.bit_or("seen_low").alias("active_low"), F.bit_or("seen_high").alias("active_high")
    )
    by_actor = placed.withColumnRenamed("actor", "who")
    counted = uses.where("actor_low <> 0 OR actor_high <> 0").select(
        "dimension",
        "value",
        F.col("identity").alias("who"),
        F.col("actor_low").alias("seen_low"),
        F.col("actor_high").alias("seen_high"),
    )
    return Snapshot(
        command_place=_to_baseline(by_actor, ("command", "place"), as_of).join(names, "place", "left"),
        command_country=_to_baseline(by_actor, ("command", "country"), as_of),
        value=_to_baseline(counted, ("dimension", "value"), as_of),
        identity_value=with_gaps(uses)
        .select("*", *_day_measures(as_of))
        .join(_with_recent(active), "identity")
        .withColumn("recent_5", _ones(*_both("recent")))
        .withColumn("on_last_day", _ones(*_both("last"))),
        identity=_to_identities(active, first_uses),
        dimension=_to_dimensions(counted, first_uses.where("is_actor"), as_of, first_day),
    )


def _to_identities(active: DataFrame, first_uses: DataFrame) -> DataFrame:
    days = active.select(
        "identity",
        _ones(F.col("active_low"), F.col("active_high")).alias("active_days"),
        F.explode(F.array(*map(F.lit, DIMENSIONS))).alias("dimension"),
    )
    new = first_uses.groupBy("identity", "dimension").agg(F.count_distinct("event_date").alias("new_days"))
    return days.join(new, ["identity", "dimension"], "left").fillna(0, ["new_days"])


def _to_dimensions(counted: DataFrame, first_uses: DataFrame, as_of: date, first_day: date) -> DataFrame:
    days = _ones(F.col("seen_low"), F.col("seen_high"))
    values = (
        counted.groupBy("dimension", "value")
        .agg(*_folded())
        .groupBy("dimension")
        .agg(
            F.sum(days).alias("value_days"),
            F.count(F.lit(1)).alias("values_seen"),
            F.count_if(days == 1).alias("values_once"),
        )
    )
    active = (
        counted.groupBy("dimension", "who")
        .agg(*_folded())
        .groupBy("dimension")
        .agg(F.sum(days).alias("active_days"))
    )
    learnt = first_uses.where(F.col("event_date") >= F.date_add(F.lit(first_day), LEARNING_DAYS))
    classes = learnt.groupBy("dimension").agg(
        F.array(*[F.count_if(others_class(F.col("others")) == i) for i in range(len(OTHERS_CLASSES))]).alias(
            "first_uses"
        )
    )
    new = (
        first_uses.select("dimension", "identity", "event_date")
        .distinct()
        .groupBy("dimension")
        .agg(F.count(F.lit(1)).alias("new_days"))
    )
    none = F.array(*[F.lit(0).cast("bigint") for _ in OTHERS_CLASSES])
    return (
        values.join(active, "dimension")
        .join(new, "dimension", "left")
        .join(classes, "dimension", "left")
        .withColumn("first_uses", F.coalesce("first_uses", none))
        .withColumn("baseline_days", F.lit(min((as_of - first_day).days, WINDOW_DAYS)))
        .fillna(0, ["new_days"])
    )


def to_first_uses_of_day(history: History) -> DataFrame:
    """`tables.FIRST_USES` of one day, from the history of its uses."""
    return (
        history.identity_values.withColumn("news", is_news(F.col("days_90") == 0, "as_of"))
        .where("news")
        .join(history.identities.where("active_days > 0"), ["as_of", "dimension", "identity"])
        .join(history.values, ["as_of", "dimension", "value"])
        .select(
            F.date_from_unix_date(F.col("as_of").cast("int")).alias("event_date"),
            "identity",
            "dimension",
            "value",
            F.col("settled_90").alias("others"),
            "active_days",
            "is_actor",
        )
    )


def history_as_of(uses: DataFrame, pairs: DataFrame, stored: Snapshot) -> History:
    """`History` for the uses and pairs of days, each judged by its own stored snapshot.

    uses (dimension, identity, value, day, is_actor) and pairs (kind, command, value, day); stored as its
    tables hold it, with as_of counted from 1970-01-01. What the snapshot of a day does not know counts as
    never seen.
    """
    asked = uses.select(F.col("day").alias("as_of"), "dimension", "identity", "value", "is_actor")
    known = stored.identity_value.withColumn("last_use", F.unix_date("last_day")).select(
        "as_of", "dimension", "identity", "value", *MEASURES
    )
    identity_values = asked.join(known, ["as_of", "dimension", "identity", "value"], "left").fillna(
        0, ["days_90", "recent_5", "on_last_day"]
    )
    values = (
        asked.select("as_of", "dimension", "value")
        .distinct()
        .join(
            stored.value.select(
                "as_of",
                "dimension",
                "value",
                F.col("days_90").alias("value_days_90"),
                "principals_90",
                "settled_90",
                F.unix_date("first_day").alias("value_first_day"),
            ),
            ["as_of", "dimension", "value"],
            "left",
        )
        .fillna(0, ["value_days_90", "principals_90", "settled_90"])
    )
    identities = (
        asked.select("as_of", "dimension", "identity")
        .distinct()
        .join(
            stored.identity.select("as_of", "dimension", "identity", "active_days", "new_days"),
            ["as_of", "dimension", "identity"],
            "left",
        )
        .fillna(0, ["active_days", "new_days"])
    )
    day = asked.select("as_of").distinct()
    both = stored.command_place.select(
        "as_of", F.lit("place").alias("kind"), "command", F.col("place").alias("value"), "days_90"
    ).unionByName(
        stored.command_country.select(
            "as_of", F.lit("country").alias("kind"), "command", F.col("country").alias("value"), "days_90"
        )
    )
    return History(
        identity_values=identity_values,
        values=values,
        identities=identities,
        dimensions=stored.dimension.join(day, "as_of"),
        pairs=pairs.withColumnRenamed("day", "as_of")
        .join(
            both.withColumnRenamed("days_90", "pair_days_90"), ["as_of", "kind", "command", "value"], "left"
        )
        .fillna(0, ["pair_days_90"]),
    )


def _both(name: str) -> tuple[Column, Column]:
    return (
        F.col("seen_low").bitwiseAND(F.col(f"{name}_low")),
        F.col("seen_high").bitwiseAND(F.col(f"{name}_high")),
    )


def to_folded_uses(
    placed: DataFrame, agents: DataFrame, hours: DataFrame, jumps: DataFrame, as_of: date
) -> DataFrame:
    """(dimension, identity, value, seen_low, seen_high, actor_low, actor_high): the uses of the 90 days
    before as_of, with a bit for each day; actor_* of those that count in the organisation's numbers.

    placed is a located fold, agents `agent_daily`, hours `hour_daily`, jumps as `uses.to_jumps`.
    """
    offset = F.lit(_day_number(as_of) - 1) - F.unix_date("event_date")
    bits = (_bit(offset, 0).alias("seen_low"), _bit(offset, 1).alias("seen_high"))
    lately = (offset >= 0) & (offset < WINDOW_DAYS)
    who = F.explode(identities()).alias("who")
    actor = F.struct(F.col("actor").alias("identity"), F.lit(True).alias("is_actor")).alias("who")
    shown = (
        placed.select(who, "seen_low", "seen_high", F.explode(placed_uses()).alias("use"))
        .unionByName(agents.where(lately).select(who, *bits, use("agent", "agent_family").alias("use")))
        .unionByName(
            hours.where(lately)
            .withColumn("hour", F.col("hour").cast("string"))
            .select(who, *bits, use("hour", "hour").alias("use"))
        )
        .unionByName(
            jumps.where(lately)
            .withColumn("jump", F.lit("jump"))
            .select(actor, *bits, use("jump", "jump").alias("use"))
        )
    )
    none = F.lit(0).cast("bigint")
    return (
        shown.where("use.value <> ''")
        .select("use.dimension", "who.identity", "use.value", "who.is_actor", "seen_low", "seen_high")
        .groupBy("dimension", "identity", "value")
        .agg(
            *_folded(),
            F.bit_or(F.when(F.col("is_actor"), F.col("seen_low")).otherwise(none)).alias("actor_low"),
            F.bit_or(F.when(F.col("is_actor"), F.col("seen_high")).otherwise(none)).alias("actor_high"),
        )
    )


def _with_recent(active: DataFrame) -> DataFrame:
    """active plus masks of the last five active days (recent_*) and of the last one (last_*)."""
    low, high = F.col("active_low"), F.col("active_high")
    rest_low, rest_high = low, high
    masks = {}
    for step in range(1, 6):
        rest_low, rest_high = _without_newest(rest_low, rest_high)
        if step in (1, 5):
            name = "last" if step == 1 else "recent"
            masks[f"{name}_low"] = low.bitwiseXOR(rest_low)
            masks[f"{name}_high"] = high.bitwiseXOR(rest_high)
    return active.withColumns(masks)
