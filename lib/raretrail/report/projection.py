"""Where a point of the globe lies on the page's map: Miller's cylindrical projection."""

from __future__ import annotations

import math
from collections.abc import Sequence

UNITS_PER_DEGREE = 20
"""Map units to a degree of longitude; `outlines.json` is in whole units."""

WORLD_WIDTH = 360 * UNITS_PER_DEGREE

Point = tuple[float, float]
"""Degrees: latitude, longitude."""


def project(latitude: float, longitude: float) -> Point:
    """x and y in map units, x to the east and y to the south, (0, 0) where 0° N meets 0° E."""
    phi = math.radians(max(-89.0, min(89.0, latitude)))
    y = math.degrees(1.25 * math.log(math.tan(math.pi / 4 + 0.4 * phi)))
    return longitude * UNITS_PER_DEGREE, -y * UNITS_PER_DEGREE


def great_circle(start: Point, end: Point, steps: int = 16) -> list[Point]:
    """The shortest way from start to end in steps + 1 points (degrees).

    Longitudes go on without a jump where the way crosses the date line, so they may pass ±180.
    """
    a, b = _unit(start), _unit(end)
    angle = math.acos(max(-1.0, min(1.0, sum(x * y for x, y in zip(a, b, strict=True)))))
    if angle < 1e-9 or math.pi - angle < 1e-6:
        return [start, end]
    points: list[Point] = []
    for step in range(steps + 1):
        part = step / steps
        one, two = math.sin((1 - part) * angle), math.sin(part * angle)
        x, y, z = ((one * p + two * q) / math.sin(angle) for p, q in zip(a, b, strict=True))
        latitude, longitude = math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))
        points.append((latitude, beside(longitude, points[-1][1] if points else start[1])))
    return points


def beside(longitude: float, other: float) -> float:
    """The same meridian, named within half a turn of another."""
    return longitude + 360 * round((other - longitude) / 360)


def _unit(point: Point) -> Sequence[float]:
    phi, lam = math.radians(point[0]), math.radians(point[1])
    return math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)
