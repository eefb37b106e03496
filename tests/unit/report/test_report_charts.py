"""Terms, maps and charts as numbers: that they agree with plain counting."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from raretrail.geo.distance import haversine_km
from raretrail.report.charts import coverage, incidents_by_day, status_shares, threshold_curve, timeline
from raretrail.report.maps import incident_picture, outlines, world_picture
from raretrail.report.projection import great_circle, project
from raretrail.report.terms import parts, terms

AT = datetime(2026, 2, 28, 12, tzinfo=UTC)


def finding(**more: Any) -> dict[str, Any]:
    return {"anomaly_id": "a", "principal_active_days": 15, **more}


# ------------------------------------------------------------------------------------------- terms


def test_each_term_is_of_the_finding_most_unusual_in_it_with_its_counts() -> None:
    low = finding(place_bits=2.0, principal_place_days=3, place_principals=4)
    high = finding(anomaly_id="b", place_bits=5.0, principal_place_days=0, place_principals=1)
    [bar] = terms([low, high])
    assert (bar.name, bar.bits, bar.kind) == ("place", 5.0, "term")
    assert bar.told == "on 0 of 15 active days of this principal and by 1 other"


def test_a_term_that_nobody_has_heard_of_shows_its_own_counts() -> None:
    [bar] = terms([finding(peer_group_bits=3.5, peer_group_size=12, peer_group_days=0)])
    assert (bar.name, bar.bits) == ("peer group", 3.5)
    assert bar.told == "size 12, days 0"


def test_one_thing_given_another_stands_beside_the_sum() -> None:
    row = finding(place_given_command_bits=12.0, command_place_days=0, command_days=12, place_bits=1.0)
    bars = terms([row])
    assert [bar.kind for bar in bars] == ["term", "aside"]
    assert bars[1].told == "on 0 of the 12 days of this command it was this place"


def test_parts_are_told_with_what_they_add_together() -> None:
    bars = parts({"where_bits": 5.5, "how_bits": 0.0, "what_bits": 6.0, "bits": 14.5})
    assert [(bar.name, bar.bits) for bar in bars] == [("where", 5.5), ("what", 6.0), ("together", 3.0)]


def test_parts_say_what_takes_from_the_sum() -> None:
    settled = {"where_bits": 1.0, "how_bits": 8.0, "what_bits": 6.0, "home_bits": -4.0, "bits": 11.0}
    assert [(bar.name, bar.bits) for bar in parts(settled)] == [
        ("where", 1.0), ("how", 8.0), ("what", 6.0), ("home", -4.0),
    ]  # fmt: skip
    young = {"where_bits": 6.0, "how_bits": 4.0, "what_bits": 0.0, "home_bits": 0.0, "bits": 5.0}
    assert [(bar.name, bar.bits) for bar in parts(young)] == [
        ("where", 6.0), ("how", 4.0), ("young history", -5.0),
    ]  # fmt: skip


# -------------------------------------------------------------------------------------------- maps


def place(name: str, latitude: float, longitude: float, first: date, days: int = 3) -> dict[str, Any]:
    return {
        "place": name, "place_name": name, "latitude": latitude, "longitude": longitude,
        "first_day": first, "days_90": days,
    }  # fmt: skip


def incident(name: str, latitude: float | None, longitude: float | None) -> dict[str, Any]:
    row = {"place": name, "place_name": name, "latitude": latitude, "longitude": longitude}
    return {**row, "first_date": AT.date(), "accuracy_radius": 50, "severity": "high", "score": 70.0}


OLD = date(2026, 1, 1)


def test_the_way_over_the_date_line_is_the_short_one() -> None:
    way = great_circle((-36.85, 174.77), (21.31, -157.86))
    longitudes = [longitude for _, longitude in way]
    assert max(longitudes) - min(longitudes) == pytest.approx(360 - 174.77 - 157.86, abs=0.5)
    assert all(abs(b - a) < 10 for a, b in pairwise(longitudes))
    length = sum(haversine_km(*a, *b) or 0 for a, b in pairwise(way))
    assert length == pytest.approx(haversine_km(-36.85, 174.77, 21.31, -157.86) or 0, rel=1e-3)


@pytest.mark.parametrize(
    "here", [(-29.85, 31.02), (-36.85, 174.77), (64.1, -21.9), (78.2, 15.6), (-54.8, -68.3)]
)
def test_every_place_lies_inside_the_picture(here: tuple[float, float]) -> None:
    known = [place("Amsterdam", 52.37, 4.89, OLD, 9), place("Honolulu", 21.31, -157.86, OLD)]
    picture = incident_picture(incident("X", *here), [], known)
    assert picture is not None and len(picture.dots) == 3
    for dot in picture.dots:
        assert 1 <= dot.x <= 99 and 1 <= dot.y <= 99, dot
    _, _, width, height = map(float, picture.box.split())
    assert width / height == pytest.approx(2, rel=0.01)


def test_the_distance_is_the_one_the_finding_was_judged_by() -> None:
    known = [place("Amsterdam", 52.37, 4.89, OLD), place("Rome", 41.89, 12.51, OLD)]
    judged = finding(nearest_place="Amsterdam", nearest_place_km=9487.6)
    picture = incident_picture(incident("Durban", -29.85, 31.02), [judged], known)
    assert picture is not None and (picture.near, picture.km) == ("Amsterdam", 9487.6)
    unjudged = incident_picture(incident("Durban", -29.85, 31.02), [], known)
    assert unjudged is not None and unjudged.near == "Rome"
    assert unjudged.km == pytest.approx(haversine_km(-29.85, 31.02, 41.89, 12.51))


def test_a_place_first_seen_with_the_incident_was_not_known_before() -> None:
    known = [place("Durban", -29.85, 31.02, AT.date()), place("Oslo", 59.9, 10.7, AT.date())]
    picture = incident_picture(incident("Durban", -29.85, 31.02), [], known)
    assert picture is not None and [dot.kind for dot in picture.dots] == ["new"] and picture.km is None


def test_an_incident_from_nowhere_has_no_map() -> None:
    assert incident_picture(incident("private", None, None), [], []) is None
    assert world_picture([incident("private", None, None)], []).dots == ()


def test_the_outlines_hold_the_world_and_no_line_across_it() -> None:
    assert len(outlines()["land"]) + len(outlines()["borders"]) < 80_000
    for name in ("land", "borders"):
        for drawn in outlines()[name].split("M")[1:]:
            steps = re.findall(r"-?\d+", drawn.partition("l")[2])
            assert max((abs(int(step)) for step in steps[::2]), default=0) < 1000, drawn[:60]
    # Lisbon lies on the shore of the land that holds Vladivostok; Kyoto does not.
    for latitude, longitude, on_land in ((40.4, -3.7, True), (64.0, 100.0, True), (30.0, -40.0, False)):
        assert _covered(outlines()["land"], *project(latitude, longitude)) is on_land


def _covered(path: str, x: float, y: float) -> bool:
    inside = False
    for drawn in path.split("M")[1:]:
        start, _, steps = drawn.partition("l")
        at_x, at_y = map(float, start.split())
        numbers = [int(n) for n in re.findall(r"-?\d+", steps)]
        ring = [(at_x, at_y)]
        for dx, dy in zip(numbers[::2], numbers[1::2], strict=True):
            ring.append((ring[-1][0] + dx, ring[-1][1] + dy))
        for (ax, ay), (bx, by) in zip(ring, [*ring[1:], ring[0]], strict=True):
            if (ay > y) != (by > y) and x < (bx - ax) * (y - ay) / (by - ay) + ax:
                inside = not inside
    return inside


# ------------------------------------------------------------------------------------------ charts


def event(minute: int, command: str, error: str | None = None) -> dict[str, Any]:
    return {"event_time": AT + timedelta(minutes=minute), "command": command, "error_code": error}


def test_a_timeline_holds_every_event_by_outcome_in_order() -> None:
    row = {"first_time": AT, "last_time": AT + timedelta(minutes=10)}
    events = [event(0, "iam:A"), event(5, "iam:A", "AccessDenied"), event(10, "iam:B")]
    lanes = timeline(row, events)
    assert [(lane.name, lane.events) for lane in lanes] == [("iam:A", 2), ("iam:B", 1)]
    assert lanes[0].fine.startswith("M1 ") and lanes[0].failed.startswith("M50 ")
    assert lanes[1].fine.startswith("M99 ")


def test_many_commands_share_the_lanes_of_their_services() -> None:
    row = {"first_time": AT, "last_time": AT + timedelta(minutes=39)}
    events = [event(n, f"service{n % 13}:Action{n}") for n in range(40)]
    lanes = timeline(row, events)
    assert len(lanes) == 8 and lanes[-1].name == "other"
    assert sum(lane.events for lane in lanes) == 40


def test_the_threshold_curve_counts_what_is_at_or_above_it() -> None:
    rows = [{"score": score} for score in (10.0, 40.0, 40.0, 65.3, 90.0)]
    curve = threshold_curve(rows, 2, 40.0)
    assert curve is not None and curve.chosen == (40.0, 4, 2.0)
    for threshold, number, a_day in curve.table:
        assert number == sum(row["score"] >= threshold for row in rows)
        assert a_day == pytest.approx(number / 2)
    assert threshold_curve([], 2, 40.0) is None and threshold_curve(rows, 0, 40.0) is None


def test_a_days_columns_stack_to_its_incidents() -> None:
    rows = [{"first_date": AT.date(), "severity": s} for s in ("low", "low", "critical")]
    columns, most = incidents_by_day(rows, AT.date() - timedelta(days=1), AT.date())
    assert [(c.total, c.told) for c in columns] == [(0, ""), (3, "1 critical, 2 low")] and most == 3
    assert [box[0] for box in columns[1].boxes] == ["low", "critical"]


def test_days_on_which_an_account_fell_silent_are_named() -> None:
    first, last = date(2026, 2, 25), date(2026, 2, 28)
    rows = [
        {
            "recipient_account_id": "a",
            "aws_region": "eu-west-1",
            "event_date": date(2026, 2, day),
            "events": 4,
        }
        for day in (26, 28)
    ] + [{"recipient_account_id": "b", "aws_region": None, "event_date": last, "events": 1}]
    accounts, further = coverage(rows, first, last, 5)
    assert [(a.name, a.events, a.silent) for a in accounts] == [("a", 8, (date(2026, 2, 27),)), ("b", 1, ())]
    assert further == 0 and coverage(rows, first, last, 1)[1] == 1
    assert accounts[1].regions == (("no region", 1),)


def test_shares_of_statuses_make_a_whole() -> None:
    rows = [
        {"geo_status": s, "events": n, "addresses": 1} for s, n in (("private", 1), ("city", 3), ("new", 4))
    ]
    shares = status_shares(rows)
    assert [s["status"] for s in shares] == ["city", "private", "new"]
    assert sum(s["width"] for s in shares) == pytest.approx(100)
    assert [s["x"] for s in shares] == [0, 37.5, 50]
