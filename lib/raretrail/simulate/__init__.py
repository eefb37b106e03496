"""A simulated organisation's CloudTrail, with labelled intrusions among innocent troubles.

    from raretrail.simulate import Shape, simulate
    summary = simulate(Path("demo"), Shape(seed=7))

Writes `trail/AWSLogs/o-…/<account>/CloudTrail/<region>/YYYY/MM/DD/*.json.gz`, `labels.json`,
`asn.mmdb` (who runs each network) and `city-moved.mmdb` (the map as the provider redraws it on the
day of the `geoip_update`; before that day the embedded database holds).

Where to change what: shape (sizes, knobs), places (cities, networks), commands (what records hold,
what jobs do), organisation, people, robots, innocents, campaigns, records (the record itself),
world (calls and sign-ins), trail (delivery).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raretrail.errors import UsageError
from raretrail.simulate import campaigns, innocents, people, robots
from raretrail.simulate.organisation import found
from raretrail.simulate.places import atlas, write_moved_db, write_networks_db
from raretrail.simulate.shape import (
    ADDRESS_PLANS,
    CAMPAIGN_KINDS,
    INNOCENT_KINDS,
    NAMINGS,
    Mix,
    Shape,
    Summary,
)
from raretrail.simulate.trail import Trail
from raretrail.simulate.world import World

__all__ = [
    "ADDRESS_PLANS",
    "CAMPAIGN_KINDS",
    "INNOCENT_KINDS",
    "NAMINGS",
    "Mix",
    "Shape",
    "Summary",
    "simulate",
]


def simulate(out: Path, shape: Shape, intrusions: Mapping[str, campaigns.Kind] | None = None) -> Summary:
    """Play the organisation of this shape and write it under `out`, which must be new or empty.

    intrusions, by kind, are played in place of the shape's campaigns. The same shape gives the same
    bytes. Raises UsageError if `out` holds something already, or if the databases are wanted
    (`networks_db`) and mmdb-writer is not installed.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty directory; name a new one for the simulated trail")
    if shape.networks_db and find_spec("mmdb_writer") is None:
        raise UsageError("asn.mmdb needs mmdb-writer: install raretrail[simulate], or leave it out")
    out.mkdir(parents=True, exist_ok=True)
    organisation = found(shape, atlas())
    trail = Trail(
        out / "trail", organisation.id, shape.seed, slot=shape.slot_minutes * 60,
        hold=shape.hold_minutes * 60, redelivered=shape.redelivered_share,
    )  # fmt: skip
    world = World(shape, atlas(), organisation, trail)
    everybody = people.hire(world)
    machines = robots.install(world)
    innocents.arrange(world, everybody)
    season = campaigns.Season(world, intrusions)
    played: list[dict[str, Any]] = []
    for day in range(shape.days):
        for machine in machines:
            machine.day(world, day)
        for person in everybody:
            person.day(world, day)
        played += season.play(day, everybody, machines)
        trail.deliver(until=world.at(day + 1, 0) - 86400)
    trail.deliver()
    lines = [world.lines[prefix] for prefix in sorted(world.lines)]
    moved = innocents.redrawn(world, lines)
    moves = [
        {
            "network": f"{prefix}.0/24",
            "from": world.lines[prefix].place,
            "to": city.label,
            "to_geoname_id": city.id,
        }
        for prefix, city in moved.items()
    ]
    labels = {
        "shape": {
            "seed": shape.seed, "people": shape.people, "days": shape.days,
            "first_day": shape.start.isoformat(), "end": shape.end.isoformat(),
            "judged_from": shape.judged_from.isoformat(), "naming": shape.naming,
            "addresses": shape.addresses,
        },
        "offices": [o.city.label for o in organisation.offices],
        "campaigns": played,
        "campaigns_not_played": season.not_played,
        "innocents": world.happened(),
        "geo_moves": moves,
    }  # fmt: skip
    (out / "labels.json").write_text(
        json.dumps(labels, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    if shape.networks_db:
        write_networks_db(out / "asn.mmdb", lines, world.end)
        if moved:
            write_moved_db(out / "city-moved.mmdb", lines, moved, world.end)
    return Summary(
        out=out, files=trail.files, events=trail.events, records=trail.records,
        first_day=shape.start, last_day=shape.end, campaigns=tuple(played),
        innocents=tuple(world.happened()),
    )  # fmt: skip
