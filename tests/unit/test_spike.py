"""Spikes of error kinds: the tail against scipy, the counting against a plain loop, what stays quiet."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from scipy.stats import nbinom

from raretrail.baseline.facts import to_error_quarter_hour
from raretrail.detect.spike import (
    ALPHA,
    CAP,
    LEAST_KINDS,
    POOLED_QUARTERS,
    PRIOR_MEAN,
    PRIOR_SQUARE,
    only_many,
    tail_probability,
    to_error_hours,
    to_error_quarters,
    to_habits,
    to_pooled,
    to_spikes,
)

DAY = date(2026, 3, 2)  # a Monday
NUMBER = (DAY - date(1970, 1, 1)).days
SCHEMA = (
    "event_id string, event_time timestamp, event_date date, recipient_account_id string, "
    "principal string, principal_kind string, actor string, command string, source_ip_address string, "
    "error_code string, error_message string, error_template string, user_agent string, access_key_id string"
)


def event(number: int, at: datetime, who: str, kind: str | None, **more: Any) -> tuple[Any, ...]:
    values = {
        "account": "1",
        "command": "s3:Get",
        "address": "203.0.113.1",
        "message": f"{kind} for {who}",
        **more,
    }
    failed = kind is not None
    return (
        f"e{number}",
        at,
        at.date(),
        values["account"],
        who,
        "person",
        who,
        values["command"],
        values["address"],
        "Denied" if failed else None,
        values["message"] if failed else None,
        kind,
        "cli",
        "AKIA",
    )


def at(back: int, hour: int = 9, minute: int = 0) -> datetime:
    return datetime(DAY.year, DAY.month, DAY.day, hour, minute, tzinfo=UTC) - timedelta(days=back)


def spikes(spark: SparkSession, rows: list[tuple[Any, ...]], days: int = 60) -> DataFrame:
    events = spark.createDataFrame(rows, SCHEMA)
    today = events.where(F.col("event_date") == F.lit(DAY))
    hours = to_error_hours(to_error_quarters(to_error_quarter_hour(events)))
    hours = hours.withColumn("as_of", F.lit(NUMBER))
    habits = to_habits(hours)
    ages = spark.createDataFrame([(NUMBER, days)], "as_of int, baseline_days int")
    found = to_spikes(today, habits, to_pooled(habits), ages)
    return found.select("*", "spike.*").drop("spike")


@pytest.mark.integration
def test_the_tail_is_scipys(spark: SparkSession) -> None:
    cases = [
        (count, mean, size)
        for count in (1, 2, 3, 7, 25, 180)
        for mean in (1e-4, 0.02, 1.5, 60.0)
        for size in (1e-3, 0.3, 5.0, 1e6)
    ]
    rows = spark.createDataFrame(cases, "count int, mean double, size double")
    tail = tail_probability(F.col("count"), F.col("mean"), F.col("size"))
    for row in rows.withColumn("tail", tail).collect():
        r, p = row["size"], row["size"] / (row["size"] + row["mean"])
        wanted = nbinom.sf(row["count"] - 1, r, p) / nbinom.sf(0, r, p)
        assert row["tail"] == pytest.approx(wanted, rel=1e-5, abs=1e-9), row


@pytest.mark.integration
def test_where_the_tail_would_underflow_the_bound_is_above_it(spark: SparkSession) -> None:
    cases = [
        (count, mean, size) for mean in (250.0, 900.0) for size in (8.0, 1e6) for count in (100, 999, 3000)
    ]
    rows = spark.createDataFrame(cases, "count int, mean double, size double")
    tail = tail_probability(F.col("count"), F.col("mean"), F.col("size"))
    for row in rows.withColumn("tail", tail).collect():
        wanted = nbinom.sf(row["count"] - 1, row["size"], row["size"] / (row["size"] + row["mean"]))
        assert wanted * (1 - 1e-9) <= row["tail"] <= 1
    assert rows.withColumn("tail", tail).where("count = 3000 AND size > 9 AND tail > 1e-9").count() == 0


def ordinary(days: int = 60) -> list[tuple[Any, ...]]:
    """Ten people at work; each day two are refused something, in every tenth of these four things."""
    rows = []
    for back in range(1, days + 1):
        for turn in range(2):
            who, size = f"p{(back + 5 * turn) % 10}", 4 if (back + turn) % 10 == 0 else 1
            rows += [event(len(rows), at(back, 9 + turn, kind), who, f"kind {kind}") for kind in range(size)]
    return rows


@pytest.mark.integration
@pytest.mark.parametrize(("kinds", "least", "most"), [(3, 0, 5), (4, 0, 5), (20, CAP, CAP)])
def test_a_burst_like_those_of_the_staff_is_quiet_and_a_probe_is_not(
    spark: SparkSession, kinds: int, least: float, most: float
) -> None:
    rows = ordinary()
    rows += [event(1000 + n, at(0, 10, n % 15), "p3", f"kind {n}") for n in range(kinds)]
    (found,) = spikes(spark, rows).collect()
    assert found.spike_count == kinds
    assert least <= found.spike_bits <= most


@pytest.mark.integration
def test_two_kinds_are_no_spike_however_often(spark: SparkSession) -> None:
    rows = [event(n, at(0, 10, n % 15), "p3", f"kind {n % 2}") for n in range(300)]
    assert spikes(spark, ordinary() + rows).count() == 0


@pytest.mark.integration
def test_a_robot_that_always_fails_in_one_way_spikes_sooner_than_a_person(spark: SparkSession) -> None:
    rows = ordinary()
    rows += [event(5000 + n, at(1 + n // 24, n % 24), "robot", "kind 0", account="2") for n in range(1400)]
    for who, account in (("robot", "2"), ("p3", "1")):
        rows += [event(9000 + n, at(0, 3 if who == "robot" else 10), who, f"kind {n}", account=account)
                 for n in range(4)]  # fmt: skip
    bits = {row.principal: row.spike_bits for row in spikes(spark, rows).collect()}
    assert bits["robot"] == CAP
    assert bits["p3"] < CAP - 1


@pytest.mark.integration
def test_the_one_with_most_kinds_leads_with_its_leading_call(spark: SparkSession) -> None:
    rows = [event(n, at(0, 10, 1), "other", f"kind {n % 2}") for n in range(40)]
    calls = [("iam:Get", "a"), ("iam:Get", "b"), ("iam:List", "c"), ("iam:List", "c"), ("iam:List", "c")]
    rows += [
        event(100 + n, at(0, 10, 2 + n), "lead", kind, command=command, message=f"{kind} {n}")
        for n, (command, kind) in enumerate(calls)
    ]
    found = spikes(spark, rows).where("command LIKE 'iam:%'").collect()
    assert [(row.principal, row.command) for row in found] == [("lead", "iam:Get")]
    (row,) = found
    assert (row.event_count, row.first_time.minute, row.last_time.minute) == (2, 2, 3)
    # All that failed in that quarter hour, whoever it was: two messages of the other and five.
    assert row.distinct_messages == 7


@pytest.mark.integration
def test_many_with_one_refusal_each_are_the_organisations_spike(spark: SparkSession) -> None:
    rows = ordinary()
    rows += [event(1000 + n, at(0, 10), f"q{n}", f"kind {n}", account=str(n)) for n in range(25)]
    (found,) = spikes(spark, rows).collect()
    assert (found.spike_scope, found.spike_count, found.distinct_messages) == ("organization", 25, 25)
    assert found.spike_bits == CAP


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 1, 7, 14, 90, 91]),
        st.sampled_from([0, 9, 23]),
        st.sampled_from([0, 14, 15, 59]),
        st.sampled_from("uvw"),
        st.sampled_from("12"),
        st.sampled_from(["a", "b", "c", "d", None]),
        st.sampled_from(["s3:Get", "s3:List"]),
    ),
    min_size=10,
    max_size=150,
)


def plain(rows: list[tuple[Any, ...]], days: int) -> dict[tuple[Any, ...], tuple[float, int, str]]:
    """(quarter, leader) → bits, kinds and scope of the spike it leads, by loops."""
    kinds: dict[tuple[str, str, datetime], set[str]] = defaultdict(set)
    for row in rows:
        _, when, _, account, who, _, _, _, _, code, _, kind, *_ = row
        if code:
            quarter = quarter_of(when)
            for scope, value in (("actor", who), ("account", account), ("organization", "")):
                kinds[scope, value, quarter].add(kind)
    past = {key: len(found) for key, found in kinds.items() if 0 < (DAY - key[2].date()).days <= 90}
    best: dict[tuple[Any, ...], tuple[float, int, int, str]] = {}
    for (scope, value, quarter), found in kinds.items():
        if quarter.date() != DAY:
            continue
        lead = leader(rows, scope, value, quarter)
        led = {row[11] for row in rows if row[4] == lead[1] and row[9] and quarter_of(row[1]) == quarter
               and (scope != "account" or row[3] == value)}  # fmt: skip
        count = len(found) - (len(led) - 1 if scope != "actor" else 0)
        if count < LEAST_KINDS:
            continue
        own = [n for (s, v, _), n in past.items() if (s, v) == (scope, value)]
        every = defaultdict(list)
        for (s, v, _), n in past.items():
            if s == scope:
                every[v].append(n)
        then = sum(
            n
            for (s, v, q), n in past.items()
            if (s, v) == (scope, value) and (q.weekday(), q.hour) == (quarter.weekday(), quarter.hour)
        )
        means = []
        for power, prior in ((1, PRIOR_MEAN), (2, PRIOR_SQUARE)):
            pooled = (pool(every, power) + ALPHA * prior) / (pool(every, 0) + ALPHA)
            means.append(
                (sum(n**power for n in own) + POOLED_QUARTERS * pooled) / (len(own) + POOLED_QUARTERS)
            )
        rate = (len(own) + 1) / (96 * days + 1)
        m, square = rate * means[0], rate * means[1]
        r = m**2 / max(square - m - m**2, m**2 * 1e-6)
        mean = m * (then + ALPHA) / (m * 4 * (days // 7) + ALPHA)
        p = r / (r + mean)
        bits = min(CAP, -math.log2(nbinom.sf(count - 1, r, p) / nbinom.sf(0, r, p)))
        rank = (round(bits, 5), -("actor", "account", "organization").index(scope), count, scope)
        best[quarter, *lead] = max(best.get((quarter, *lead), (-1.0, 0, 0, "")), rank)
    return {key: (bits, count, scope) for key, (bits, _, count, scope) in best.items()}


def pool(every: dict[str, list[int]], power: int) -> float:
    """Sum of powers of kinds, a scope's value with more than 50 quarter hours scaled down to these."""
    return sum(sum(n**power for n in ns) * min(1, POOLED_QUARTERS / len(ns)) for ns in every.values())


def quarter_of(when: datetime) -> datetime:
    return when.replace(minute=when.minute // 15 * 15)


def leader(rows: list[tuple[Any, ...]], scope: str, value: str, quarter: datetime) -> tuple[str, ...]:
    column = {"actor": 4, "account": 3}.get(scope)
    within = [
        row
        for row in rows
        if row[9] and quarter_of(row[1]) == quarter and (column is None or row[column] == value)
    ]
    who = min(
        {row[4] for row in within},
        key=lambda w: (
            -len({row[11] for row in within if row[4] == w}),
            -sum(row[4] == w for row in within),
            w,
        ),
    )
    calls: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in within:
        if row[4] == who:
            calls[row[3], row[7]].append(row[11])
    account, command = min(calls, key=lambda c: (-len(set(calls[c])), -len(calls[c]), c))
    return account, who, command


@pytest.mark.integration
@given(EVENTS, st.sampled_from([0, 6, 7, 60]))
@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counting_equals_a_plain_loop(spark: SparkSession, listed, days: int) -> None:
    rows = [
        event(n, at(back, hour, minute), who, kind, account=account, command=command)
        for n, (back, hour, minute, who, account, kind, command) in enumerate(listed)
    ]
    found = spikes(spark, rows, days).collect()
    wanted = plain(rows, days)
    shown = {}
    for row in found:
        start = row.first_time.replace(minute=row.first_time.minute // 15 * 15, tzinfo=UTC)
        shown[start, row.recipient_account_id, row.principal, row.command] = row
    assert len(shown) == len(found)
    assert shown.keys() == wanted.keys()
    for key, row in shown.items():
        bits, count, scope = wanted[key]
        assert row.spike_bits == pytest.approx(bits, abs=2e-5)
        assert (row.spike_count, row.spike_scope) == (count, scope)


@pytest.mark.integration
def test_only_quarter_hours_with_many_kinds_are_asked_about(spark: SparkSession) -> None:
    rows = [event(n, at(0, 10), "p", f"kind {n}") for n in range(3)] + [event(9, at(0, 11), "p", "kind 0")]
    quarters = to_error_quarters(to_error_quarter_hour(spark.createDataFrame(rows, SCHEMA)))
    assert only_many(quarters).select("scope", "as_of").distinct().count() == 3
