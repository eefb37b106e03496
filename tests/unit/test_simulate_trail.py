from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from raretrail.simulate.trail import Trail

START = int(datetime(2026, 1, 5, tzinfo=UTC).timestamp())


def fill(root: Path, offsets: list[int], hold: int, redelivered: float = 0.0) -> Trail:
    trail = Trail(root, "o-abc", 1, slot=900, hold=hold, redelivered=redelivered)
    for number, offset in enumerate(offsets):
        trail.add(START + offset, "111122223333", "eu-west-1", f'{{"n":{number},"at":{offset}}}')
    return trail


def delivered(root: Path) -> list[tuple[datetime, list[dict[str, int]]]]:
    found = []
    for path in root.rglob("*.gz"):
        stamp = path.name.split("_")[3]
        sent = datetime.strptime(stamp, "%Y%m%dT%H%MZ").replace(tzinfo=UTC)
        found.append((sent, json.loads(gzip.decompress(path.read_bytes()))["Records"]))
    return sorted(found, key=lambda f: f[0])


@settings(max_examples=25, deadline=None)
@given(
    offsets=st.lists(st.integers(0, 3 * 86400), max_size=200),
    hold=st.sampled_from([0, 3600, 10800]),
    cut=st.integers(0, 4 * 86400),
)
def test_every_event_is_delivered_once_and_in_time(offsets: list[int], hold: int, cut: int) -> None:
    with TemporaryDirectory() as folder:
        trail = fill(Path(folder), offsets, hold)
        trail.deliver(until=START + cut)
        trail.deliver()
        files = delivered(Path(folder))
        numbers = Counter(r["n"] for _, records in files for r in records)
        assert numbers == Counter(range(len(offsets)))
        assert (trail.files, trail.records) == (len(files), len(offsets))
        for sent, records in files:
            for record in records:
                late = sent.timestamp() - (START + record["at"])
                # The slot, what it waits for others, one slot for stragglers, a quarter of an hour.
                assert 0 <= late <= 900 + hold + 900 + 900


def test_redelivered_events_come_with_the_same_text(tmp_path: Path) -> None:
    trail = fill(tmp_path, list(range(0, 86400, 30)), 0, redelivered=0.2)
    trail.deliver()
    copies = Counter(json.dumps(r) for _, records in delivered(tmp_path) for r in records)
    assert len(copies) == trail.events
    assert 0.1 < trail.records / trail.events - 1 < 0.3
    assert max(copies.values()) == 2
