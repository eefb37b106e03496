"""Maps: where on the picture each place lies, and which part of the world it shows.

A map is drawn twice over itself: outlines and the way between two places in map units, stretched to
the picture; dots and names in percent of it, so that they keep their size at any width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from raretrail.geo.distance import haversine_km
from raretrail.report.projection import UNITS_PER_DEGREE, WORLD_WIDTH, beside, great_circle, project
from raretrail.show.reasons import Row

KM_PER_DEGREE = 111.2
# Width to height of the pictures; style.css says the same.
ASPECT, WORLD_ASPECT = 2.0, 2.1
_LEAST_WIDTH = 36.0 * UNITS_PER_DEGREE
_NORTH, _SOUTH = project(80, 0)[1], project(-58, 0)[1]
_KNOWN_SHOWN = 12


@dataclass(frozen=True)
class Dot:
    """A place on the picture: x and y in percent; kind is new, near, known, usual or a severity."""

    x: float
    y: float
    kind: str
    label: str = ""
    anchor: str = "start"
    above: bool = True
    size: float = 4.0


@dataclass(frozen=True)
class Picture:
    """A map: the viewBox, where to lay the world so that it covers it, and what is on it."""

    box: str
    worlds: tuple[int, ...]
    dots: tuple[Dot, ...]
    way: Markup | None = None
    halo: tuple[float, float, float, float] | None = None
    km: float | None = None
    near: str = ""


@cache
def outlines() -> dict[str, Markup]:
    """The land and the borders as SVG paths."""
    made = json.loads((files("raretrail.report") / "outlines.json").read_text())
    return {name: Markup(made[name]) for name in ("land", "borders")}


def incident_picture(incident: Row, findings: Sequence[Row], known: Sequence[Row]) -> Picture | None:
    """The place of an incident against those its principal was known at before; None without one."""
    here = _point(incident)
    if here is None:
        return None
    name = str(incident.get("place_name") or "")
    before = known_before(incident, known)
    judged = next((f for f in findings if f.get("nearest_place_km") is not None), None)
    near = _nearest(here, before, str(judged["nearest_place"]) if judged else "")
    km = float(judged["nearest_place_km"]) if judged else None
    if near is not None and km is None:
        km = haversine_km(here[0], here[1], near["latitude"], near["longitude"])
    shown = before[:_KNOWN_SHOWN]
    if near is not None and near not in shown:
        shown = [*shown[:-1], near]
    spots = [(row["latitude"], beside(row["longitude"], here[1])) for row in shown]
    left, top, width, height = _frame([project(*here), *(project(*spot) for spot in spots)])

    def at(latitude: float, longitude: float) -> tuple[float, float]:
        x, y = project(latitude, longitude)
        return round((x - left) / width * 100, 2), round((y - top) / height * 100, 2)

    new_x, new_y = at(*here)
    dots: list[Dot] = []
    way = None
    for row, spot in zip(shown, spots, strict=True):
        x, y = at(*spot)
        if row is near:
            dots.append(Dot(x, y, "near", str(row["place_name"]), _anchor(x), y < new_y, 4.5))
            way = _way((here[0], here[1]), spot)
        else:
            dots.append(Dot(x, y, "known", size=3.5))
    dots.append(Dot(new_x, new_y, "new", name, _anchor(new_x), not any(d.label and d.above for d in dots), 6))
    radius = (incident.get("accuracy_radius") or 0) / KM_PER_DEGREE
    halo = _halo(here, radius) if radius else None
    return Picture(
        box=f"{left:.0f} {top:.0f} {width:.0f} {height:.0f}",
        worlds=_worlds(left, width),
        dots=tuple(dots),
        way=way,
        halo=halo,
        km=km,
        near=str(near["place_name"] if near else judged["nearest_place"] if judged else ""),
    )


def known_before(incident: Row, known: Sequence[Row]) -> list[Row]:
    """The places a principal was seen at before the day of an incident, most days first."""
    return [
        row
        for row in known
        if row.get("place") != incident.get("place")
        and row.get("first_day") is not None
        and incident.get("first_date") is not None
        and row["first_day"] < incident["first_date"]
    ]


def world_picture(incidents: Sequence[Row], usual: Sequence[Row], named: int = 4) -> Picture:
    """Where incidents came from, over the places the organisation works from."""
    left, top, width = -WORLD_WIDTH / 2 + 160, _NORTH, WORLD_WIDTH - 160.0
    height = width / WORLD_ASPECT

    def at(latitude: float, longitude: float) -> tuple[float, float]:
        x, y = project(latitude, longitude)
        return round((x - left) / width * 100, 2), round((y - top) / height * 100, 2)

    dots = [Dot(*at(row["latitude"], row["longitude"]), "usual", size=2.5) for row in usual]
    seen: dict[tuple[float, float], Row] = {}
    for row in incidents:
        here = _point(row)
        if here is not None:
            seen.setdefault(here, row)
    labels: list[Dot] = []
    for here, row in list(seen.items())[:120]:
        x, y = at(*here)
        crowded = any(abs(x - d.x) < 24 and abs(y - d.y) < 12 for d in labels)
        label = str(row.get("place_name") or "") if len(labels) < named and not crowded else ""
        size = 3 + (row.get("score") or 0) / 20
        dot = Dot(x, y, str(row.get("severity") or "low"), label, _anchor(x), size=round(size, 1))
        labels += [dot] if label else []
        dots.append(dot)
    # The highest lies on top.
    dots = [d for d in dots if d.kind == "usual"] + [d for d in reversed(dots) if d.kind != "usual"]
    return Picture(f"{left:.0f} {top:.0f} {width:.0f} {height:.0f}", _worlds(left, width), tuple(dots))


def _point(row: Row) -> tuple[float, float] | None:
    latitude, longitude = row.get("latitude"), row.get("longitude")
    if latitude is None or longitude is None:
        return None
    return float(latitude), float(longitude)


def _nearest(here: tuple[float, float], known: Sequence[Row], named: str) -> Row | None:
    """The known place of that name, else the nearest."""
    for row in known:
        if named and row["place_name"] == named:
            return row

    def distance(row: Row) -> float:
        return haversine_km(here[0], here[1], row["latitude"], row["longitude"]) or 0.0

    return min(known, key=distance, default=None)


def _frame(points: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
    """Left, top, width and height of a view that holds all points with room around them."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    width = max((max(xs) - min(xs)) * 1.35, (max(ys) - min(ys)) * 1.6 * ASPECT, _LEAST_WIDTH)
    width = min(width, (_SOUTH - _NORTH) * ASPECT)
    height = width / ASPECT
    left = (max(xs) + min(xs)) / 2 - width / 2
    top = (max(ys) + min(ys)) / 2 - height / 2
    return left, min(max(top, _NORTH), _SOUTH - height), width, height


def _worlds(left: float, width: float) -> tuple[int, ...]:
    half = WORLD_WIDTH / 2
    shifts = [0]
    if left < -half:
        shifts.append(-WORLD_WIDTH)
    if left + width > half:
        shifts.append(WORLD_WIDTH)
    return tuple(shifts)


def _anchor(x: float) -> str:
    return "end" if x > 66 else "start" if x < 34 else "middle"


def _halo(here: tuple[float, float], degrees: float) -> tuple[float, float, float, float]:
    """Middle and half axes, in map units, of a circle of that many degrees around a point."""
    x, y = project(*here)
    across = degrees * UNITS_PER_DEGREE / max(0.1, math.cos(math.radians(here[0])))
    up = y - project(min(here[0] + degrees, 85.0), here[1])[1]
    return round(x, 1), round(y, 1), round(across, 1), round(abs(up), 1)


def _way(here: tuple[float, float], there: tuple[float, float]) -> Markup:
    points = [project(*point) for point in great_circle(here, there)]
    drawn: list[Any] = [f"{x:.0f} {y:.0f}" for x, y in points]
    return Markup("M" + "L".join(drawn))
