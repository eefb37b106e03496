"""Coverage: what was to be expected from each account and region in an hour, and what came.

Most accounts are silent in most regions most of the time, so silence alone says nothing. Judged is how
improbable it is, from the 56 days before, and only from the first event in them to the last, so that a
silence does not make itself usual. An hour has any event with the probability

    p = (hours with events + 2 s) / (n + 2)        of the same hour of the weekday, n of them
    s = (hours with events + 2 a) / (m + 2)        of the same hour of all its working days, or rest days
    a = (hours with events + 1/2) / (h + 1)        of all its hours

where its rest days are the two weekdays with the fewest such hours: a weekend wherever one lives, and
for a machine two days like the others. An hour without events counts -log2(1 - p) bits, and at most
HOUR_BITS: what stops once seldom stops for that hour alone. Hours add up from the last event on. A day
without any counts at most DAY_OFF_BITS more than it would as a rest day, since whole days off
come at once: a holiday says little of an office and all of a machine. From SILENT_BITS on, and
where it is longer than any silence of the 56 days, the account or region is silent.

Bits are kept in ten-thousandths while they are added, so that no order of rows shows in a sum.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from raretrail.tables import EVERY

# Whole weeks, so that each hour of the week is recorded as often.
WINDOW_DAYS = 56
LEARNING_DAYS = 14
# A median of fewer hours says little.
LEAST_HOURS = 4
HOUR_BITS = 4.0
DAY_OFF_BITS = 6.0
SILENT_BITS = 20.0
GONE_HOURS = 14 * 24
LOW_SHARE = 0.1
LOW_EXPECTED = 20
# Twice what CloudTrail mostly takes to deliver.
DELAY = timedelta(minutes=30)
SCOPE = ("recipient_account_id", "aws_region")
# Hours of level above that one hour's own share is mixed with.
_DRAWN = 2
_UNIT = 10_000


def to_scopes(region_hours: DataFrame) -> DataFrame:
    """(recipient_account_id, aws_region, at, event_count) of `region_hour`, each pair as it is and in
    its sums, which have EVERY for what they sum over; at counts hours from 1970-01-01."""
    scopes = [
        F.struct(account.alias("account"), region.alias("region"))
        for account in (F.col("recipient_account_id"), F.lit(EVERY))
        for region in (F.col("aws_region"), F.lit(EVERY))
    ]
    return (
        region_hours.select(
            F.explode(F.array(*scopes)).alias("scope"),
            F.expr("unix_seconds(hour_start) DIV 3600").alias("at"),
            "event_count",
        )
        .groupBy(
            F.col("scope.account").alias("recipient_account_id"),
            F.col("scope.region").alias("aws_region"),
            "at",
        )
        .agg(F.sum("event_count").alias("event_count"))
    )


def _weekday(day: Column) -> Column:
    """Of a day counted from 1970-01-01; Monday is 0."""
    return F.pmod(day + 3, F.lit(7))


def _whole(value: Column, by: int) -> Column:
    return F.floor(value / by).cast("bigint")


def to_expected(scopes: DataFrame, moments: DataFrame) -> DataFrame:
    """`tables.BASELINE_COVERAGE_HOUR` (as_of as a number of days) for each as_of of moments.

    scopes is `to_scopes` of the WINDOW_DAYS days before each of them, at least.
    """
    group = ("as_of", *SCOPE)
    earlier = F.lag("at").over(Window.partitionBy(*SCOPE).orderBy("at"))
    start, end = (F.col("as_of") - WINDOW_DAYS) * 24, F.col("as_of") * 24
    seen = (
        scopes.withColumn("earlier", earlier)
        .join(F.broadcast(moments), (F.col("at") >= start) & (F.col("at") < end))
        .withColumns(
            {
                "slot": (_weekday(_whole(F.col("at"), 24)) * 24 + F.pmod("at", F.lit(24))).cast("int"),
                "gap": F.when(F.col("earlier") >= start, F.col("at") - F.col("earlier") - 1).otherwise(0),
            }
        )
    )
    slots = seen.groupBy(*group, "slot").agg(F.sort_array(F.collect_list("event_count")).alias("counts"))
    rows = (
        _spans(seen, group)
        .withColumn("slot", F.explode(F.sequence(F.lit(0), F.lit(167))))
        .join(slots, [*group, "slot"], "left")
        .withColumn("counts", F.coalesce("counts", F.array().cast("array<bigint>")))
        .withColumns({"weekday": _whole(F.col("slot"), 24), "hour": F.pmod("slot", F.lit(24)).cast("int")})
        .withColumn("n", _weekdays("weekday"))
        .withColumn("rest", F.array_contains("rest_days", F.col("weekday")))
    )
    rows = _with_silence(_with_shares(rows, group), group)
    return rows.where(F.col("weekday") == _weekday(F.col("as_of"))).select(
        *group,
        "hour",
        "expected",
        "expected_by",
        F.round("share", 6).alias("expected_share"),
        "least_count",
        (F.col("bits") / _UNIT).alias("silent_bits"),
        (F.col("off") / _UNIT).alias("off_bits"),
        "recorded_days",
        "longest_silence",
        F.timestamp_seconds(F.col("last") * 3600).alias("last_hour"),
        (F.col("bits_before") / _UNIT).alias("silent_bits_before"),
        F.col("expected_before").alias("silent_expected_before"),
    )


def _spans(seen: DataFrame, group: tuple[str, ...]) -> DataFrame:
    """A row for each of group: its first and last hour and day, its rest days, all its counts."""
    by_weekday = [
        F.count_if(_whole(F.col("slot"), 24) == weekday).alias(f"active_{weekday}") for weekday in range(7)
    ]
    spans = (
        seen.groupBy(*group)
        .agg(
            F.min("at").alias("first"),
            F.max("at").alias("last"),
            F.max("gap").alias("longest_silence"),
            F.sort_array(F.collect_list("event_count")).alias("all_counts"),
            *by_weekday,
        )
        .withColumns({"first_day": _whole(F.col("first"), 24), "last_day": _whole(F.col("last"), 24)})
        .withColumn("recorded_days", (F.col("last_day") - F.col("first_day") + 1).cast("int"))
    )
    # Fewest active hours first; of equals the later in the week, so that a machine rests at the weekend.
    rates = [
        F.struct(
            F.coalesce(F.try_divide(f"active_{weekday}", _weekdays(weekday)), F.lit(25.0)).alias("rate"),
            F.lit(-weekday).cast("bigint").alias("back"),
        )
        for weekday in range(7)
    ]
    rest = F.transform(F.slice(F.sort_array(F.array(*rates)), 1, 2), lambda one: -one["back"])
    return spans.withColumn("rest_days", rest).drop(*[f"active_{weekday}" for weekday in range(7)])


def _weekdays(weekday: int | str) -> Column:
    """How many of the days from first_day to last_day fall on that weekday."""
    wanted = F.lit(weekday) if isinstance(weekday, int) else F.col(weekday)
    first = F.col("first_day") + F.pmod(wanted - _weekday(F.col("first_day")), F.lit(7))
    return F.when(first <= F.col("last_day"), _whole(F.col("last_day") - first, 7) + 1).otherwise(0)


def _with_shares(rows: DataFrame, group: tuple[str, ...]) -> DataFrame:
    """rows plus share, bits, off (in _UNIT), expected, expected_by, least_count."""
    kind = Window.partitionBy(*group, "rest", "hour")
    same_hour = Window.partitionBy(*group, "hour")
    rows = rows.withColumns(
        {
            "kind_n": F.sum("n").over(kind),
            "kind_counts": F.sort_array(F.flatten(F.collect_list("counts").over(kind))),
            "all_n": F.col("recorded_days") * 24,
        }
    )
    overall = (F.size("all_counts") + 0.5) / (F.col("all_n") + 1)
    of_kind = (F.size("kind_counts") + _DRAWN * overall) / (F.col("kind_n") + _DRAWN)
    rows = rows.withColumn("of_kind", of_kind).withColumns(
        {
            "share": (F.size("counts") + _DRAWN * F.col("of_kind")) / (F.col("n") + _DRAWN),
            "resting": F.max(F.when(F.col("rest"), F.col("of_kind"))).over(same_hour),
        }
    )
    own = F.col("n") >= LEAST_HOURS
    alike = F.col("kind_n") >= LEAST_HOURS

    def chosen(make: str) -> Column:
        levels = [_ranked(f"{level}counts", f"{level}n", make) for level in ("", "kind_", "all_")]
        return F.when(own, levels[0]).when(alike, levels[1]).otherwise(levels[2])

    by = F.when(own, "hour_of_week").when(alike, "hour_of_day").otherwise("any_hour")
    return rows.withColumns(
        {
            "bits": _bits(F.col("share")),
            "off": _bits(F.when(F.col("rest"), F.col("share")).otherwise(F.col("resting"))),
            "expected": chosen("median").cast("double"),
            "least_count": chosen("least").cast("bigint"),
            "expected_by": by,
        }
    ).drop("kind_counts", "all_counts")


def _bits(share: Column) -> Column:
    return F.round(F.least(-F.log2(1 - share), F.lit(HOUR_BITS)) * _UNIT).cast("bigint")


def _ranked(counts: str, n: str, make: str) -> Column:
    """The median or the least of n hours, of which only those with events have counts (ascending)."""

    def at(rank: Column) -> Column:
        return F.coalesce(F.get(counts, (rank - F.col(n) + F.size(counts)).cast("int")), F.lit(0))

    if make == "least":
        return at(F.lit(0))
    return (at(_whole(F.col(n) - 1, 2)) + at(_whole(F.col(n), 2))) / 2


def _with_silence(rows: DataFrame, group: tuple[str, ...]) -> DataFrame:
    """rows plus bits_before and expected_before: of the hours after the last event before as_of."""
    every = Window.partitionBy(*group)

    def by_weekday(name: str) -> list[Column]:
        return [F.sum(F.when(F.col("weekday") == day, F.col(name))).over(every) for day in range(7)]

    usual, off = by_weekday("bits"), by_weekday("off")
    least = [F.least(u, o + int(DAY_OFF_BITS * _UNIT)) for u, o in zip(usual, off, strict=True)]
    rows = rows.withColumns({"day_bits": F.array(*least), "day_expected": F.array(*by_weekday("expected"))})
    rest_of_day = (F.col("weekday") == _weekday(F.col("last_day"))) & (
        F.col("hour") > F.pmod("last", F.lit(24))
    )
    days = F.col("as_of") - 1 - F.col("last_day")
    since = F.when(days > 0, F.sequence(F.lit(1).cast("bigint"), days)).otherwise(
        F.array().cast("array<bigint>")
    )

    def before(name: str, of_day: str, zero: Column) -> Column:
        tail = F.sum(F.when(rest_of_day, F.col(name)).otherwise(zero)).over(every)
        return F.aggregate(
            since,
            tail,
            lambda total, i: (
                total + F.get(of_day, F.pmod(_weekday(F.col("last_day")) + i, F.lit(7)).cast("int"))
            ),
        )

    return rows.withColumns(
        {
            "bits_before": before("bits", "day_bits", F.lit(0).cast("bigint")),
            "expected_before": before("expected", "day_expected", F.lit(0.0)),
        }
    )


def to_coverage(expected: DataFrame, scopes: DataFrame, now: datetime) -> DataFrame:
    """`tables.COVERAGE_HOURLY` of the days of expected and scopes, up to the hour now lies in.

    expected is `to_expected` of these days, scopes `to_scopes` of the same. Of what is not expected there
    are rows from its first event on.
    """
    key = ("as_of", *SCOPE)
    this_hour = int(now.timestamp()) // 3600
    came = scopes.select(
        _whole(F.col("at"), 24).cast("int").alias("as_of"),
        *SCOPE,
        F.pmod("at", F.lit(24)).cast("int").alias("hour"),
        F.col("event_count").alias("came"),
    )
    strangers = (
        came.select(*key)
        .distinct()
        .join(expected.select(*key).distinct(), list(key), "left_anti")
        .withColumn("hour", F.explode(F.sequence(F.lit(0), F.lit(23))))
    )
    everything = expected.where((F.col("recipient_account_id") == EVERY) & (F.col("aws_region") == EVERY))
    ages = everything.groupBy("as_of").agg(F.max("recorded_days").alias("age"))
    by_hour = Window.partitionBy(*key).orderBy("hour")
    counted = {
        "_bits": (F.col("silent_bits") * _UNIT).cast("decimal(18,0)").cast("bigint"),
        "_off": (F.col("off_bits") * _UNIT).cast("decimal(18,0)").cast("bigint"),
        "_usual": F.col("expected"),
    }
    rows = (
        expected.unionByName(strangers, allowMissingColumns=True)
        .join(came, [*key, "hour"], "left")
        .join(F.broadcast(ages), "as_of", "left")
        .withColumn("came", F.coalesce("came", F.lit(0)))
        .withColumn("at", F.col("as_of").cast("bigint") * 24 + F.col("hour"))
        .where(F.col("at") <= this_hour)
        .withColumns({name: F.sum(value).over(by_hour) for name, value in counted.items()})
    )
    spoke = F.col("came") > 0
    rows = rows.withColumns(
        {
            name: F.last(F.when(spoke, F.col(of)), ignorenulls=True).over(by_hour)
            for name, of in {"spoke_at": "at", "spoke_bits": "_bits", "spoke_usual": "_usual"}.items()
        }
    )
    # A day on which somebody was at work already is no day off.
    at_work = F.col("spoke_at").isNotNull()
    unspoken = F.least(F.col("_bits"), F.col("_off") + int(DAY_OFF_BITS * _UNIT)) / _UNIT
    before = F.expr("unix_seconds(last_hour) DIV 3600")
    return (
        rows.where(at_work | F.col("last_hour").isNotNull())
        .withColumns(
            {
                "silent_hours": F.col("at") - F.coalesce("spoke_at", before),
                "silent_expected": F.when(at_work, F.col("_usual") - F.col("spoke_usual")).otherwise(
                    F.col("silent_expected_before") + F.col("_usual")
                ),
                "silent_bits": F.round(
                    F.when(at_work, (F.col("_bits") - F.col("spoke_bits")) / _UNIT).otherwise(
                        F.col("silent_bits_before") + unspoken
                    ),
                    4,
                ),
                "hour_start": F.timestamp_seconds(F.col("at") * 3600),
                "event_date": F.date_from_unix_date("as_of"),
            }
        )
        .withColumn("status", _status(now))
    )


def _status(now: datetime) -> Column:
    """One of `tables.COVERAGE_STATUSES`."""
    settled = int((now - DELAY).timestamp()) // 3600
    few = F.col("came") < F.least(F.col("expected") * LOW_SHARE, F.col("least_count"))
    silent = (
        (F.col("came") == 0)
        & (F.col("silent_bits") >= SILENT_BITS)
        & (F.col("silent_hours") > F.col("longest_silence"))
    )
    return (
        F.when(F.col("at") >= settled, "late")
        .when(F.coalesce("age", F.lit(0)) < LEARNING_DAYS, "unknown")
        .when(F.col("last_hour").isNull(), "new")
        .when(F.col("recorded_days") < LEARNING_DAYS, "unknown")
        .when(silent & (F.col("silent_hours") >= GONE_HOURS), "gone")
        .when(silent, "silent")
        .when((F.col("expected") >= LOW_EXPECTED) & few, "low")
        .otherwise("ok")
    )
