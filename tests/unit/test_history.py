"""History's windows against the same questions answered by plain loops."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raretrail.baseline.history import (
    LAG_DAYS,
    LEARNING_DAYS,
    OTHERS_CLASSES,
    WINDOW_DAYS,
    history_of,
    to_values,
    with_first_uses,
)

# The dimension of each value: a place or a network.
DIMENSIONS = {"a": "place", "b": "place", "c": "network", "d": "network"}
USES = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("abcd"), st.integers(20000, 20240)),
    min_size=1,
    max_size=40,
    unique=True,
)


def _known(uses, day, **wanted):
    names = ("identity", "value")
    return [
        (u, v, d)
        for u, v, d in uses
        if day - WINDOW_DAYS <= d < day
        and all(dict(zip(names, (u, v), strict=True))[k] == x for k, x in wanted.items())
    ]


def _counted(uses):
    """w is a role judged for itself; each of its uses is u's too, who counts."""
    return {use for use in uses if use[0] != "w"}


def _facts(uses):
    """(identity, value, day) → days_90, recent_5, on_last_day, active_days, first, principals."""
    facts = {}
    for u, v, day in uses:
        active = sorted({d for p, _, d in uses if p == u and d < day})
        recent = active[-5:]
        facts[u, v, day] = {
            "days_90": len(_known(uses, day, identity=u, value=v)),
            "recent_5": sum((u, v, d) in uses for d in recent),
            "on_last_day": int(bool(active) and (u, v, active[-1]) in uses),
            "active_days": len({d for _, _, d in _known(uses, day, identity=u)}),
            "principals_90": len({p for p, _, _ in _counted(_known(uses, day, value=v))}),
            "uses": sorted((d for _, _, d in _known(uses, day, identity=u, value=v)), reverse=True)[:3],
            "settled_90": len({p for p, _, d in _counted(_known(uses, day, value=v)) if d < day - LAG_DAYS}),
            "value_days_90": len({d for _, _, d in _counted(_known(uses, day, value=v))}),
            "value_first_day": min((d for _, _, d in _counted(_known(uses, day, value=v))), default=None),
        }
        fact = facts[u, v, day]
        fact["first"] = fact["days_90"] == 0 and fact["active_days"] > 0
    for (u, v, day), fact in facts.items():
        places = [facts.get((u, place, day)) for place in "ab"]
        if DIMENSIONS[v] == "network" and any(place and place["days_90"] == 0 for place in places):
            fact["first"] = False  # a new place brings a new network
    return facts


def _class(others):
    return max(i for i, least in enumerate(OTHERS_CLASSES) if others >= least)


@given(USES)
@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_history_equals_a_plain_count(spark, listed):
    uses = {use for u, v, d in listed for use in {(u, v, d), ("u" if u == "w" else u, v, d)}}
    frame = spark.createDataFrame(
        [(DIMENSIONS[use[1]], *use, use[0] != "w") for use in uses],
        "dimension string, identity string, value string, day int, is_actor boolean",
    )
    pairs = spark.createDataFrame(
        [("place", u, v, d) for u, v, d in uses],
        "kind string, command string, value string, day int",
    )
    known = with_first_uses(frame)
    history = history_of(known, to_values(known), pairs)
    facts = _facts(uses)

    for row in history.identity_values.collect():
        fact = facts[row.identity, row.value, row.as_of]
        assert (row.days_90, row.recent_5, row.on_last_day) == (
            fact["days_90"], fact["recent_5"], fact["on_last_day"]
        )  # fmt: skip
        before = fact["uses"]
        gaps = [later - earlier for later, earlier in pairwise(before)] + [None, None]
        assert (row.last_use, row.last_gap, row.gap_before) == (before[0] if before else None, *gaps[:2])
    for row in history.values.collect():
        fact = next(f for (_, v, d), f in facts.items() if (v, d) == (row.value, row.as_of))
        for name in ("value_days_90", "principals_90", "settled_90", "value_first_day"):
            assert row[name] == fact[name], name
    new_days = defaultdict(set)
    for (u, v, d), fact in facts.items():
        if fact["first"]:
            new_days[DIMENSIONS[v], u].add(d)
    for row in history.identities.collect():
        day = row.as_of
        assert row.new_days == sum(
            day - WINDOW_DAYS <= d < day for d in new_days[row.dimension, row.identity]
        )
        assert row.active_days == len({d for _, _, d in _known(uses, day, identity=row.identity)})
    for row in history.pairs.collect():
        assert row.pair_days_90 == facts[row.command, row.value, row.as_of]["days_90"]

    counted = _counted(uses)
    first_day, last_day = min(d for _, _, d in counted), max(d for _, _, d in counted)
    rows = history.dimensions.collect()
    assert {(row.dimension, row.as_of) for row in rows} == {
        (DIMENSIONS[v], day) for _, v, _ in counted for day in range(first_day, last_day + 1)
    }
    for row in rows:
        day = row.as_of
        known = [use for use in _known(counted, day) if DIMENSIONS[use[1]] == row.dimension]
        value_days = {(v, d) for _, v, d in known}
        per_value = defaultdict(set)
        for v, d in value_days:
            per_value[v].add(d)
        assert row.value_days == len(value_days)
        assert row.values_seen == len(per_value)
        assert row.values_once == sum(len(days) == 1 for days in per_value.values())
        assert row.active_days == len({(u, d) for u, _, d in known})
        assert row.new_days == sum(
            day - WINDOW_DAYS <= d < day
            for (dimension, u), days in new_days.items()
            if u != "w" and dimension == row.dimension
            for d in days
        )
        hist = [0] * len(OTHERS_CLASSES)
        for (u, v, d), fact in facts.items():
            if (
                DIMENSIONS[v] == row.dimension
                and u != "w"
                and fact["first"]
                and max(day - WINDOW_DAYS, first_day + LEARNING_DAYS) <= d < day
            ):
                hist[_class(fact["settled_90"])] += 1
        assert row.first_uses == hist
        assert row.baseline_days == min(day - first_day, WINDOW_DAYS)
