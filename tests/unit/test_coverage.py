"""Coverage: the arithmetic against a plain loop, and what is silent, quiet, low, new or late."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from raretrail.baseline.coverage import (
    DAY_OFF_BITS,
    DELAY,
    GONE_HOURS,
    HOUR_BITS,
    LEAST_HOURS,
    SILENT_BITS,
    WINDOW_DAYS,
    to_coverage,
    to_expected,
    to_scopes,
)
from raretrail.baseline.facts import to_region_hour
from raretrail.tables import BASELINE_COVERAGE_HOUR, COVERAGE_HOURLY, REGION_HOUR
from raretrail.warehouse import conform

pytestmark = pytest.mark.integration

TODAY = date(2026, 3, 2)  # a Monday
NUMBER = (TODAY - date(1970, 1, 1)).days
SCHEMA = (
    "event_date date, hour_start timestamp, recipient_account_id string, aws_region string, "
    "event_count bigint"
)
# Hours before the beginning of TODAY, by how many events they had.
Counts = dict[int, int]


def hours(when: Callable[[datetime], int], days: int, account: str = "a") -> list[tuple[Any, ...]]:
    """Rows of region_hour of the days before TODAY, and those of TODAY: `when` says how many events."""
    midnight = datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC)
    made = []
    for hour in range(-24 * days, 24):
        at = midnight + timedelta(hours=hour)
        if count := when(at):
            made.append((at.date(), at, account, "eu-west-1", count))
    return made


def robot(at: datetime) -> int:
    return 30 + at.hour % 3


def office(at: datetime) -> int:
    return 40 if at.weekday() < 5 and 8 <= at.hour < 18 else 0


def until(last: datetime, when: Callable[[datetime], int]) -> Callable[[datetime], int]:
    return lambda at: when(at) if at <= last else 0


def moment(hour: int, back: int = 0) -> datetime:
    return datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC) + timedelta(hours=hour, days=-back)


def covered(
    spark: SparkSession, rows: Iterable[tuple[Any, ...]], now: datetime, day: date = TODAY
) -> DataFrame:
    """coverage of a day as of now, from rows of region_hour."""
    facts = spark.createDataFrame(list(rows), SCHEMA)
    number = (day - date(1970, 1, 1)).days
    moments = spark.createDataFrame([(number,)], "as_of int")
    since = day - timedelta(days=WINDOW_DAYS)
    before = facts.where(F.col("event_date").between(F.lit(since), F.lit(day - timedelta(days=1))))
    expected = to_expected(to_scopes(before), moments)
    came = to_scopes(facts.where(F.col("event_date") == F.lit(day)))
    return conform(to_coverage(expected, came, now), COVERAGE_HOURLY)


def statuses(frame: DataFrame, account: str = "a", region: str = "eu-west-1") -> dict[int, str]:
    rows = frame.where((F.col("recipient_account_id") == account) & (F.col("aws_region") == region))
    return {row["hour_start"].hour: row["status"] for row in rows.collect()}


# ------------------------------------------------------------------------------------------ arithmetic


def plainly(counts: Counts) -> dict[int, dict[str, Any]]:
    """What `to_expected` must say of TODAY, by hour, of an account with these counts."""
    first, last = min(counts), max(counts)
    start = math.floor(first / 24) * 24
    end = math.floor(last / 24) * 24 + 24
    recorded = range(start, end)

    def weekday(hour: int) -> int:
        return math.floor(hour / 24) % 7  # TODAY, day 0, is a Monday

    by_weekday = {d: [h for h in recorded if weekday(h) == d] for d in range(7)}
    rates = sorted(
        (sum(h in counts for h in hs) / (len(hs) / 24) if hs else 25.0, -d) for d, hs in by_weekday.items()
    )
    rest = {-back for _, back in rates[:2]}
    overall = (len(counts) + 0.5) / (len(recorded) + 1)

    def of_kind(resting: bool, hour: int) -> list[int]:
        return [h for h in recorded if (weekday(h) in rest) == resting and h % 24 == hour]

    def kind_share(resting: bool, hour: int) -> float:
        alike = of_kind(resting, hour)
        return (sum(h in counts for h in alike) + 2 * overall) / (len(alike) + 2)

    def bits(share: float) -> float:
        return round(min(HOUR_BITS, -math.log2(1 - share)), 4)

    def told(day: int, hour: int) -> dict[str, Any]:
        resting = day in rest
        same = [h for h in by_weekday[day] if h % 24 == hour]
        share = (sum(h in counts for h in same) + 2 * kind_share(resting, hour)) / (len(same) + 2)
        alike = of_kind(resting, hour)
        compared, by = (
            (same, "hour_of_week") if len(same) >= LEAST_HOURS
            else (alike, "hour_of_day") if len(alike) >= LEAST_HOURS
            else (list(recorded), "any_hour")
        )  # fmt: skip
        came = [counts.get(h, 0) for h in compared]
        return {
            "expected": float(median(came)), "expected_by": by, "least_count": min(came),
            "expected_share": share, "silent_bits": bits(share),
            "off_bits": bits(share if resting else kind_share(True, hour)),
        }  # fmt: skip

    slots = {(day, hour): told(day, hour) for day in range(7) for hour in range(24)}
    before = {"bits": 0.0, "expected": 0.0}
    for hour in range(last + 1, end):
        slot = slots[weekday(hour), hour % 24]
        before["bits"] += slot["silent_bits"]
        before["expected"] += slot["expected"]
    for start_of_day in range(end, 0, 24):
        day = [slots[weekday(start_of_day), hour] for hour in range(24)]
        before["bits"] += min(
            sum(s["silent_bits"] for s in day), DAY_OFF_BITS + sum(s["off_bits"] for s in day)
        )
        before["expected"] += sum(s["expected"] for s in day)
    ordered = sorted(counts)
    gaps = [b - a - 1 for a, b in pairwise(ordered)]
    whole = {
        "recorded_days": len(recorded) // 24, "longest_silence": max(gaps, default=0),
        "last_hour": moment(last), "silent_bits_before": before["bits"],
        "silent_expected_before": before["expected"],
    }  # fmt: skip
    return {hour: {**slots[0, hour], **whole} for hour in range(24)}


def expected_of(spark: SparkSession, by_account: dict[str, Counts]) -> DataFrame:
    rows = [
        (moment(hour).date(), moment(hour), account, "eu-west-1", count)
        for account, counts in by_account.items()
        for hour, count in counts.items()
    ]
    moments = spark.createDataFrame([(NUMBER,)], "as_of int")
    return to_expected(to_scopes(spark.createDataFrame(rows, SCHEMA)), moments)


def test_what_is_expected_is_what_a_plain_loop_says(spark: SparkSession) -> None:
    chance = random.Random(4)
    by_account = {
        "robot": {h: 5 + h % 7 for h in range(-24 * 56, 0)},
        "office": {h: 9 for h in range(-24 * 56, 0) if math.floor(h / 24) % 7 < 5 and 8 <= h % 24 < 18},
        "stopped": {h: 3 for h in range(-24 * 50, -24 * 3 - 5)},
        "seldom": {h: 2 for h in range(-24 * 56, -24 * 9, 50)},
        "young": {h: 4 for h in range(-24 * 5, 0)},
        "once": {-30: 7},
        **{
            f"any {n}": {h: chance.randint(1, 9) for h in range(-24 * 40, 0) if chance.random() < n / 8}
            for n in range(1, 7)
        },
    }
    rows = expected_of(spark, by_account).where("aws_region <> 'all' AND recipient_account_id <> 'all'")
    found = {(row["recipient_account_id"], row["hour"]): row.asDict() for row in rows.collect()}
    assert len(found) == 24 * len(by_account)
    for account, counts in by_account.items():
        for hour, wanted in plainly(counts).items():
            row = found[account, hour]
            row["last_hour"] = row["last_hour"].replace(tzinfo=UTC)
            for name, value in wanted.items():
                near = {"expected_share": 1e-6, "silent_bits": 2e-4, "off_bits": 2e-4}.get(name)
                near = 0.05 if name == "silent_bits_before" else near
                wanted_value = pytest.approx(value, abs=near) if near else value
                assert row[name] == wanted_value, (account, hour, name)


def test_sums_stand_beside_what_they_sum_up(spark: SparkSession) -> None:
    rows = [
        (TODAY, moment(3), "a", "eu-west-1", 2),
        (TODAY, moment(3), "a", "us-east-1", 3),
        (TODAY, moment(3), "b", "us-east-1", 5),
    ]
    found = {
        (row["recipient_account_id"], row["aws_region"]): row["event_count"]
        for row in to_scopes(spark.createDataFrame(rows, SCHEMA)).collect()
    }
    assert found == {
        ("a", "eu-west-1"): 2, ("a", "us-east-1"): 3, ("b", "us-east-1"): 5, ("a", "all"): 5,
        ("b", "all"): 5, ("all", "eu-west-1"): 2, ("all", "us-east-1"): 8, ("all", "all"): 10,
    }  # fmt: skip


@pytest.mark.slow
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.integers(-24 * 30, 23), st.sampled_from(["a", "b"]), st.sampled_from(["r", "s", None])),
        min_size=1,
        max_size=40,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_events_does_not_matter(
    spark: SparkSession, events: list, shuffled: random.Random
) -> None:
    schema = "event_date date, event_time timestamp, recipient_account_id string, aws_region string"

    def coverage(some: list) -> list:
        rows = [(moment(h).date(), moment(h) + timedelta(minutes=7), a, r) for h, a, r in some]
        facts = to_region_hour(spark.createDataFrame(rows, schema)).select(*SCHEMA.split(" ")[::2])
        return sorted(map(str, covered(spark, [tuple(r) for r in facts.collect()], moment(23)).collect()))

    other = list(events)
    shuffled.shuffle(other)
    assert coverage(events) == coverage(other)


def test_columns_are_those_of_the_tables(spark: SparkSession) -> None:
    expected = expected_of(spark, {"a": {-1: 1}})
    assert set(expected.columns) == set(BASELINE_COVERAGE_HOUR.column_names)
    events = spark.createDataFrame(
        [(TODAY, moment(3), "a", None)],
        "event_date date, event_time timestamp, recipient_account_id string, aws_region string",
    )
    assert to_region_hour(events).columns == REGION_HOUR.column_names


# ------------------------------------------------------------------------------------------ statuses


def test_a_machine_that_stops_is_silent_after_five_hours(spark: SparkSession) -> None:
    """Each silent hour counts 4 bits, the most one may, and from 20 on it is told."""
    rows = hours(until(moment(2), robot), WINDOW_DAYS)
    found = statuses(covered(spark, rows, moment(12)))
    assert {hour: found[hour] for hour in range(8)} == {
        0: "ok", 1: "ok", 2: "ok", 3: "low", 4: "low", 5: "low", 6: "low", 7: "silent",
    }  # fmt: skip
    assert found[10] == "silent"


def test_young_hours_are_late_and_not_judged(spark: SparkSession) -> None:
    frame = covered(spark, hours(robot, WINDOW_DAYS), moment(9) + DELAY)
    found = statuses(frame)
    assert (found[8], found[9], max(found)) == ("ok", "late", 9)
    assert (
        statuses(covered(spark, hours(robot, WINDOW_DAYS), moment(9) + DELAY - timedelta(seconds=1)))[8]
        == "late"
    )


@pytest.mark.parametrize("days", [35, WINDOW_DAYS])
def test_an_office_is_silent_on_the_third_working_day_nobody_comes(spark: SparkSession, days: int) -> None:
    """Last seen on Friday afternoon: a weekend, a holiday and the day after it are none."""
    rows = hours(until(moment(17, back=3), office), days)
    for later in range(-1, 2):
        day = TODAY + timedelta(days=later)
        found = statuses(covered(spark, rows, moment(24, back=-later) + DELAY, day))
        assert set(found.values()) <= {"ok", "low"} and len(found) == 24, day
    found = statuses(covered(spark, rows, moment(23, back=-2), TODAY + timedelta(days=2)))
    assert found[3] != "silent"
    assert found[17] == "silent"


def test_a_silence_does_not_make_itself_usual_and_ends_being_told(spark: SparkSession) -> None:
    gone = GONE_HOURS // 24
    rows = hours(until(moment(23, back=gone - 1), robot), WINDOW_DAYS)
    assert set(statuses(covered(spark, rows, moment(23))).values()) == {"silent", "late"}
    rows = hours(until(moment(23, back=gone + 1), robot), WINDOW_DAYS)
    frame = covered(spark, rows, moment(23))
    assert set(statuses(frame).values()) == {"gone", "late"}
    assert frame.where("aws_region = 'eu-west-1'").agg(F.min("silent_bits")).collect()[0][0] > SILENT_BITS


def test_what_is_often_silent_for_long_is_not_told(spark: SparkSession) -> None:
    """Five busy days a month, then none: improbable by hours alone, and as ever."""

    def monthly(at: datetime) -> int:
        return 50 if (at.date() - date(1970, 1, 1)).days % 21 < 5 else 0

    quiet = next(
        n for n in range(21) if monthly(moment(0, back=-n)) == 0 and monthly(moment(0, back=-n - 10)) == 0
    )
    day = TODAY + timedelta(days=quiet + 8)
    rows = hours(until(moment(23, back=1), monthly), WINDOW_DAYS)
    frame = covered(spark, rows, moment(23, back=-quiet - 8), day)
    assert "silent" not in statuses(frame).values()


def test_a_drop_is_low(spark: SparkSession) -> None:
    rows = hours(lambda at: 2 if at.date() == TODAY else 100, WINDOW_DAYS)
    assert set(statuses(covered(spark, rows, moment(23))).values()) == {"low", "late"}
    often = hours(lambda at: 2 if at.date() == TODAY or at.isocalendar().week % 4 == 0 else 100, WINDOW_DAYS)
    assert set(statuses(covered(spark, often, moment(23))).values()) == {"ok", "late"}


def test_what_was_not_seen_before_is_new_and_then_unknown(spark: SparkSession) -> None:
    rows = [*hours(robot, WINDOW_DAYS), (TODAY, moment(5), "b", "eu-west-1", 1)]
    found = statuses(covered(spark, rows, moment(12)), "b")
    assert found == {hour: "new" if hour < 11 else "late" for hour in range(5, 13)}
    young = [*hours(robot, WINDOW_DAYS), *hours(robot, 3, account="b")]
    assert set(statuses(covered(spark, young, moment(12)), "b").values()) == {"unknown", "late"}


def test_an_organisation_without_history_has_nothing_new(spark: SparkSession) -> None:
    rows = [*hours(robot, 5), (TODAY, moment(5), "b", "eu-west-1", 1)]
    frame = covered(spark, rows, moment(12))
    assert {row["status"] for row in frame.collect()} == {"unknown", "late"}


def test_an_account_that_moves_is_silent_where_it_was_and_not_as_a_whole(spark: SparkSession) -> None:
    """It goes on in another region: the account speaks, its old region does not."""
    moved = moment(2)
    rows = hours(until(moved, robot), WINDOW_DAYS)
    rows += [(day, at, account, "eu-north-1", n) for day, at, account, _, n in hours(robot, 1) if at > moved]
    frame = covered(spark, rows, moment(12))
    assert statuses(frame)[9] == "silent"
    assert statuses(frame, region="eu-north-1")[9] == "new"
    assert statuses(frame, region="all")[9] == "ok"
    assert statuses(frame, account="all", region="all")[9] == "ok"


def test_late_events_take_a_silence_back(spark: SparkSession) -> None:
    rows = hours(until(moment(2), robot), WINDOW_DAYS)
    before = statuses(covered(spark, rows, moment(12)))
    after = statuses(covered(spark, [*rows, (TODAY, moment(8), "a", "eu-west-1", 40)], moment(12)))
    assert (before[8], before[9]) == ("silent", "silent")
    assert (after[7], after[8], after[9]) == ("silent", "ok", "low")


def test_the_whole_trail_is_told_by_the_sum_of_what_is_seldom(spark: SparkSession) -> None:
    """Forty accounts, each silent most hours: none alone is improbable, all together are."""
    counts: dict[str, dict[int, int]] = defaultdict(dict)
    chance = random.Random(1)
    for number in range(40):
        for hour in range(-24 * WINDOW_DAYS, 0):
            if chance.random() < 0.15:
                counts[f"a{number}"][hour] = 1
    rows = [
        (moment(h).date(), moment(h), account, "eu-west-1", n)
        for account, some in counts.items()
        for h, n in some.items()
    ]
    frame = covered(spark, rows, moment(9))
    assert statuses(frame, "all", "all")[7] == "silent"
    alone = frame.where("recipient_account_id <> 'all' AND status = 'silent'")
    assert alone.count() == 0
