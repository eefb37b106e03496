"""What a replay gave, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raretrail.show.rows import rows_table
from raretrail.show.text import Screen, inert

if TYPE_CHECKING:
    from raretrail.stages.replay import Replayed


def replayed_text(done: Replayed, screen: Screen) -> str:
    """The finding, what it rests on, and whether the replay gave the same; what differs as a table."""
    finding, run = done.finding, done.run
    lines = [
        f"{finding['anomaly_id']}  {finding['summary']}",
        f"judged by run {run['run_id']} of raretrail {run['program_version']}, settings "
        f"{finding['settings_hash']}, GeoIP {finding['geo_build']}, by the {finding['baseline_days']} days "
        f"before {finding['as_of']}",
        "read " + ", ".join(f"{name} {at}" for name, at in sorted(run["input_versions"].items())),
        *(f"note: {note}" for note in done.notes),
    ]
    if not done.found:
        lines.append("the replay makes no such finding")
    elif done.same:
        lines.append(f"the same in all {done.columns} columns")
    else:
        lines.append(f"differs in {len(done.differing)} of {done.columns} columns:")
    text = "\n".join(map(inert, lines)) + "\n"
    if done.differing:
        names = ("column", "as it stands", "as computed")
        text += rows_table(names, [dict(zip(names, row, strict=True)) for row in done.differing], screen)
    return text
