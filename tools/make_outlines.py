"""Make `lib/raretrail/report/outlines.json`: coasts and borders for the report's maps.

    npm pack world-atlas@2.0.2 && python tools/make_outlines.py world-atlas-2.0.2.tgz

The npm package holds Natural Earth's 1:50 million outlines (public domain) as TopoJSON. They are
projected, simplified to what a map of a few hundred pixels shows, and written as two SVG paths in
whole map units: the land, and the borders between countries.
"""

from __future__ import annotations

import heapq
import json
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "lib"))

from raretrail.report.projection import WORLD_WIDTH, project

OUT = Path(__file__).parents[1] / "lib/raretrail/report/outlines.json"
SOURCE = "package/countries-50m.json"
# Square map units (a twentieth of a degree): a bend or an island smaller than this is left out.
BEND, ISLAND = 22.0, 110.0

XY = tuple[float, float]


def main(archive: str) -> None:
    """Read the package and write the file."""
    with tarfile.open(archive) as packed:
        member = packed.extractfile(SOURCE)
        if member is None:
            raise SystemExit(f"{archive}: has no {SOURCE}")
        topology = json.load(member)
    arcs = [simplified(unwrapped(arc), BEND) for arc in decoded(topology)]
    land = [
        copy
        for polygon in polygons(topology["objects"]["land"])
        for indices in polygon
        if len(ring := unwrapped(stitched(indices, arcs))) > 3 and area(ring) >= ISLAND and closes(ring)
        for copy in copies(ring)
    ]
    uses = Counter(
        index if index >= 0 else ~index
        for country in topology["objects"]["countries"]["geometries"]
        for polygon in polygons(country)
        for ring in polygon
        for index in ring
    )
    shared = [unwrapped(arcs[index]) for index, times in sorted(uses.items()) if times > 1]
    borders = [copy for line in shared for copy in copies(line)]
    made = {
        "source": "Natural Earth 1:50m (public domain), by world-atlas 2.0.2",
        "land": "".join(path(ring, close=True) for ring in land),
        "borders": "".join(path(line) for line in borders),
    }
    OUT.write_text(json.dumps(made, indent=0) + "\n")
    print(f"{OUT.name}: {OUT.stat().st_size:,} bytes, {len(land)} shores, {len(borders)} borders")


def decoded(topology: dict[str, Any]) -> list[list[XY]]:
    """The arcs in map units."""
    (scale_x, scale_y), (move_x, move_y) = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs = []
    for deltas in topology["arcs"]:
        x = y = 0
        arc = []
        for dx, dy in deltas:
            x, y = x + dx, y + dy
            arc.append(project(y * scale_y + move_y, x * scale_x + move_x))
        arcs.append(arc)
    return arcs


def polygons(geometry: dict[str, Any]) -> Iterator[list[list[int]]]:
    """The polygons of a geometry, each a list of rings of arc indices."""
    kind = geometry["type"]
    if kind == "Polygon":
        yield geometry["arcs"]
    elif kind == "MultiPolygon":
        yield from geometry["arcs"]
    elif kind == "GeometryCollection":
        for inner in geometry["geometries"]:
            yield from polygons(inner)


def stitched(indices: Sequence[int], arcs: Sequence[Sequence[XY]]) -> list[XY]:
    """One ring from its arcs; an index below 0 is an arc read backwards."""
    ring: list[XY] = []
    for index in indices:
        arc = arcs[index] if index >= 0 else arcs[~index][::-1]
        ring.extend(arc if not ring else arc[1:])
    return ring


def unwrapped(points: Sequence[XY]) -> list[XY]:
    """The points with no jump from one edge of the world to the other: they may pass the edge."""
    line = [points[0]]
    for x, y in points[1:]:
        line.append((x - WORLD_WIDTH * round((x - line[-1][0]) / WORLD_WIDTH), y))
    return line


def closes(ring: Sequence[XY]) -> bool:
    """False for Antarctica, whose shore goes around the world; no map of the page reaches it."""
    return abs(ring[0][0] - ring[-1][0]) < WORLD_WIDTH / 2


def copies(line: list[XY]) -> list[list[XY]]:
    """The line, and where it passes an edge of the world a second one at the other edge."""
    half = WORLD_WIDTH / 2
    shift = -WORLD_WIDTH if max(x for x, _ in line) > half + 1 else 0
    shift = WORLD_WIDTH if min(x for x, _ in line) < -half - 1 else shift
    return [line, [(x + shift, y) for x, y in line]] if shift else [line]


def simplified(arc: list[XY], least: float) -> list[XY]:
    """Visvalingam's simplification: the point that bends least goes first; both ends stay."""
    before, after = list(range(-1, len(arc) - 1)), list(range(1, len(arc) + 1))
    gone = [False] * len(arc)

    def bend(i: int) -> float:
        (ax, ay), (bx, by), (cx, cy) = arc[before[i]], arc[i], arc[after[i]]
        return abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay)) / 2

    waiting = [(bend(i), i) for i in range(1, len(arc) - 1)]
    heapq.heapify(waiting)
    while waiting:
        size, i = heapq.heappop(waiting)
        if gone[i] or size != bend(i):
            continue
        if size >= least:
            break
        gone[i] = True
        after[before[i]], before[after[i]] = after[i], before[i]
        for beside in (before[i], after[i]):
            if 0 < beside < len(arc) - 1:
                heapq.heappush(waiting, (bend(beside), beside))
    return [point for point, left_out in zip(arc, gone, strict=True) if not left_out]


def area(ring: Sequence[XY]) -> float:
    """Square map units inside a ring."""
    turned = zip(ring, [*ring[1:], ring[0]], strict=True)
    return abs(sum(ax * by - bx * ay for (ax, ay), (bx, by) in turned)) / 2


def path(points: Sequence[XY], close: bool = False) -> str:
    """An SVG path in whole units, relative steps."""
    at = [(round(x), round(y)) for x, y in points]
    moves = [(bx - ax, by - ay) for (ax, ay), (bx, by) in pairwise(at)]
    steps = [move for move in moves if move != (0, 0)]
    if close and steps:
        steps = steps[:-1]  # z draws it
    drawn = "".join(f"{'' if dx < 0 and n else ' ' if n else ''}{dx}{'' if dy < 0 else ' '}{dy}"
                    for n, (dx, dy) in enumerate(steps))  # fmt: skip
    return f"M{at[0][0]} {at[0][1]}l{drawn}{'z' if close else ''}" if steps else ""


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
