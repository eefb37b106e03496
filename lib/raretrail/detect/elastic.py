"""What Elastic's job `rare_method_for_a_city` would give, so that a team that migrates can compare.

The job asks which action is rare among those of its own city: for each city name a Dirichlet weight
by action, plus one for every hour the action was seen in, decayed by every hour in which the city
showed anything. The formulae are re-derived in research/detection.md §2, the code is our own.

An action's probability is that of seeing one no more likely than it, given its city (`probability`).
`record_score` is the least of four ceilings there:

    (1) noise            not binding where most hours score nothing, as they do
    (2) percentile of the score among all past scores of the job    left out
    (3) share of the highest score its own city and action had      left out
    (4) absolute, from the probability alone                        what is computed here

(2) and (3) depend on all that one running job has seen, in the order it arrived; they only lower a
score. So the column is the most the job would give: below the rule's 50 the rule stays quiet.
Weights rest on the 90 days before the bucket's day and on the day up to its bucket; the job forgets
only by decay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from raretrail.baseline.history import WINDOW_DAYS

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Row, SparkSession

# Weight a city loses in an hour in which it shows anything: e^-DECAY of each.
DECAY = 0.0005
# Records less rare than this are not written.
LEAST_RARE = 0.035
# Slices the posterior is cut into, by the weight of the whole city: fewer the more it has seen.
_SLICES = ((100.0, 7), (1_000.0, 5), (10_000.0, 3), (math.inf, 1))
# Likelihoods are raised by so much, that of two nearly equal ones both count as no more likely.
_NEARLY = 1.05
_SURE = 1e-12
_TYPES = {
    "city_name": "string",
    "as_of": "int",
    "hour": "int",
    "event_name": "string",
    "elastic_probability": "double",
    "elastic_record_score": "double",
}
_SCORED = ", ".join(f"{name} {kind}" for name, kind in _TYPES.items())


def weights(hours: Iterable[Iterable[str]]) -> dict[str, float]:
    """The weight of each action after a city's hours, in order; empty ones count for nothing."""
    learnt: dict[str, float] = {}
    for hour in hours:
        learnt = _after(learnt, set(hour))
    return learnt


def _after(learnt: Mapping[str, float], shown: Set[str]) -> dict[str, float]:
    """Weights after one more hour, as this hour is judged: taken in, then decayed."""
    if not shown:
        return dict(learnt)
    added = {action: weight + (action in shown) for action, weight in learnt.items()}
    added |= {action: 1.0 for action in shown if action not in learnt}
    return {action: weight * math.exp(-DECAY) for action, weight in added.items()}


def judged_day(
    learnt: Mapping[str, float], shown: Iterable[tuple[str, int]], asked: Iterable[tuple[int, str]]
) -> Iterator[tuple[int, str, float, float]]:
    """(hour, action, probability, record score) of what is asked, (hour, action), of a city's day.

    learnt are its weights at the day's first moment, shown its actions of the day, each with its mask
    of hours. What is asked and was not shown in its hour gives nothing.
    """
    masks = list(shown)
    wanted = set(asked)
    known = dict(learnt)
    for hour in range(24):
        there = {action for action, mask in masks if mask >> hour & 1}
        known = _after(known, there)
        for action in sorted(action for at, action in wanted if at == hour and action in there):
            p = probability(known[action], list(known.values()))
            # Rounded, so that platforms agree.
            yield hour, action, float(f"{p:.9g}"), round(record_score(p), 2)


def probability(weight: float, levels: Sequence[float]) -> float:
    """P(an action no more likely than this one), by its weight and those of all its city's actions.

    levels hold the action's own weight too, in any order. The probability at a likelihood p is the
    mass of all actions whose mean likelihood is at most p, drawn out linearly between them; it is
    averaged over the Beta posterior of the action's own likelihood.
    """
    ordered = sorted(levels)
    total = math.fsum(ordered)
    steps = _steps(ordered, total)
    own = _posterior_means(weight, total - weight)
    return math.fsum(_mass_upto(_NEARLY * p, steps) for p in own) / len(own)


def record_score(p: float) -> float:
    """Ceiling (4): 0..100 from the probability; 0 for what is not written as a record."""
    if p > LEAST_RARE:
        return 0.0
    return min(100.0, 100.0 * (0.95 * math.log(0.05 / max(p, 1e-300)) / math.log(500.0) + 0.05))


def _steps(ordered: Sequence[float], total: float) -> list[tuple[float, float]]:
    """(mean likelihood, mass of all at most as likely), by likelihood; equal ones share a step."""
    steps: list[tuple[float, float]] = []
    mass = 0.0
    for weight in ordered:
        mass += weight / total
        likelihood = weight / total
        if steps and steps[-1][0] == likelihood:
            steps.pop()
        steps.append((likelihood, mass))
    return steps


def _mass_upto(likelihood: float, steps: Sequence[tuple[float, float]]) -> float:
    below, mass_below = 0.0, 0.0
    for step, mass in steps:
        if likelihood <= step:
            return mass_below + (likelihood - below) / (step - below) * (mass - mass_below)
        below, mass_below = step, mass
    return mass_below


@lru_cache(maxsize=65536)
def _posterior_means(a: float, b: float) -> tuple[float, ...]:
    """Means of Beta(a, b) over equally probable slices."""
    mean = a / (a + b)
    slices = next(n for upto, n in _SLICES if a + b <= upto)
    if slices == 1 or b <= 0:
        return (mean,)
    # The mean over a slice is the mean times n times the slice's probability under Beta(a + 1, b), whose
    # distribution function lies below that of Beta(a, b) by x^a (1 - x)^b / (a B(a, b)).
    means, before = [], 0.0
    for k in range(1, slices + 1):
        q = k / slices
        x = _beta_quantile(q, a, b) if k < slices else 1.0
        until = q - math.exp(_log_density(x, a, b)) * x * (1 - x) / a if x < 1.0 else 1.0
        means.append(mean * slices * (until - before))
        before = until
    return tuple(means)


def _log_density(x: float, a: float, b: float) -> float:
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return scale + (a - 1) * math.log(x) + (b - 1) * math.log1p(-x)


def _beta_probability(x: float, a: float, b: float) -> float:
    """I_x(a, b), by its continued fraction (DLMF 8.17.22) in Lentz's form."""
    if x <= 0.0 or x >= 1.0:
        return float(x > 0.0)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _beta_probability(1.0 - x, b, a)
    tiny = 1e-300
    c, d = 1.0, 1.0 / ((1.0 - (a + b) * x / (a + 1)) or tiny)
    fraction = d
    for m in range(1, 10_000):
        for coefficient in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / ((1.0 + coefficient * d) or tiny)
            c = (1.0 + coefficient / c) or tiny
            fraction *= c * d
        if abs(c * d - 1.0) < _SURE:
            break
    return math.exp(_log_density(x, a, b)) * x * (1 - x) / a * fraction


def _beta_quantile(q: float, a: float, b: float) -> float:
    """x with I_x(a, b) = q: Newton's steps, halving where one would leave what is known to hold it."""
    low, high = 0.0, 1.0
    x = a / (a + b)
    for _ in range(200):
        off = _beta_probability(x, a, b) - q
        if abs(off) < _SURE:
            break
        low, high = (x, high) if off < 0 else (low, x)
        x -= off / math.exp(_log_density(x, a, b))
        if not low < x < high:
            x = (low + high) / 2
    return x


def to_city_hours(presence: DataFrame, places: DataFrame) -> DataFrame:
    """(city_name, event_name, day, hours): in which hours of a day a city showed an action.

    presence is `presence_daily`, hours its mask with a bit an hour, UTC; day counts from 1970-01-01.
    An action is the bare name of the API call and a city its name, as the job has them: actions of
    two services and cities of two countries fall together. What has no city is left out there.
    """
    cities = places.where(F.col("city_name").isNotNull()).select("source_ip_address", "city_name")
    return (
        presence.join(cities, "source_ip_address")
        .groupBy("city_name", event_name().alias("event_name"), F.unix_date("event_date").alias("day"))
        .agg(F.bit_or("hours").alias("hours"))
    )


def event_name() -> Column:
    """The action of a row's command: what follows the service."""
    return F.substring_index("command", ":", -1)


def to_weights(hours: DataFrame) -> DataFrame:
    """(city_name, as_of, event_name, weight) at the first moment of as_of, from the 90 days before.

    hours are `to_city_hours` and, by as_of, the days asked for (both in days from 1970-01-01).
    """
    before = (F.col("day") >= F.col("as_of") - WINDOW_DAYS) & (F.col("day") < F.col("as_of"))
    known = hours.where(before)
    newer = Window.partitionBy("city_name", "as_of").orderBy(F.desc("day"))
    days = (
        known.groupBy("city_name", "as_of", "day")
        .agg(F.bit_or("hours").alias("shown"))
        .withColumn(
            "since", F.sum(F.bit_count("shown")).over(newer.rowsBetween(Window.unboundedPreceding, -1))
        )
    )
    part = _decayed(F.col("hours"), F.col("shown"), F.coalesce("since", F.lit(0)))
    # Added up in the order of days, so that equal input gives equal bits.
    parts = F.sort_array(F.collect_list(F.struct("day", part.alias("part"))))
    weight = F.aggregate(parts, F.lit(0.0), lambda total, one: total + one["part"])
    return (
        known.join(days, ["city_name", "as_of", "day"])
        .groupBy("city_name", "as_of", "event_name")
        .agg(weight.alias("weight"))
    )


def to_record_scores(asked: DataFrame, weights: DataFrame, hours: DataFrame) -> DataFrame:
    """(city_name, as_of, hour, event_name, elastic_probability, elastic_record_score) of what is asked.

    asked (city_name, as_of, hour, event_name) names actions and the hours to judge them in; weights
    are `to_weights` of their days, hours `to_city_hours` of these days themselves.
    """
    day = ["city_name", "as_of"]
    today = hours.withColumnRenamed("day", "as_of")
    gathered = (
        asked.groupBy(*day)
        .agg(F.collect_set(F.struct("hour", "event_name")).alias("asked"))
        .join(today.groupBy(*day).agg(F.collect_list(F.struct("event_name", "hours")).alias("shown")), day)
        .join(
            weights.groupBy(*day).agg(F.collect_list(F.struct("event_name", "weight")).alias("learnt")),
            day,
            "left",
        )
        .select(*day, "learnt", "shown", "asked")
    )
    return gathered.mapInArrow(_judge_batches, _SCORED)


def record_scores(
    spark: SparkSession, asked: Sequence[Row], weights: Sequence[Row], hours: Sequence[Row]
) -> DataFrame:
    """`to_record_scores` worked out here, where there is little: its frames as rows."""
    learnt, shown, wanted = (_by_day(rows, *names) for rows, *names in (
        (weights, "as_of", "event_name", "weight"),
        (hours, "day", "event_name", "hours"),
        (asked, "as_of", "hour", "event_name"),
    ))  # fmt: skip
    found = [
        (*day, *one)
        for day, keys in wanted.items()
        for one in judged_day(dict(learnt.get(day, ())), shown.get(day, ()), keys)
    ]
    return spark.createDataFrame(found, _SCORED)


def _by_day(rows: Iterable[Row], day: str, *names: str) -> dict[tuple[str, int], list[tuple[Any, ...]]]:
    found: dict[tuple[str, int], list[tuple[Any, ...]]] = {}
    for row in rows:
        found.setdefault((row["city_name"], row[day]), []).append(tuple(row[name] for name in names))
    return found


def _decayed(hours: Column, shown: Column, since: Column) -> Column:
    """What a day's hours weigh, after those the city has shown from each on, and `since` more."""

    def one(hour: Column) -> Column:
        there = F.call_function("shiftright", hours, hour).bitwiseAND(F.lit(1)) != 0
        passed = F.bit_count(F.call_function("shiftright", shown, hour)) + since
        return F.when(there, F.exp(passed * -DECAY)).otherwise(0.0)

    every = F.sequence(F.lit(0), F.lit(23))
    return F.aggregate(every, F.lit(0.0), lambda total, hour: total + one(hour))


def _judge_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    for batch in batches:
        found = [
            (row["city_name"], row["as_of"], *one)
            for row in batch.to_pylist()
            for one in judged_day(
                {pair["event_name"]: pair["weight"] for pair in row["learnt"] or ()},
                [(pair["event_name"], pair["hours"]) for pair in row["shown"]],
                [(pair["hour"], pair["event_name"]) for pair in row["asked"]],
            )
        ]
        kinds = {"string": pa.string(), "int": pa.int32(), "double": pa.float64()}
        schema = pa.schema([(name, kinds[kind]) for name, kind in _TYPES.items()])
        yield pa.RecordBatch.from_pylist([dict(zip(_TYPES, row, strict=True)) for row in found], schema)
