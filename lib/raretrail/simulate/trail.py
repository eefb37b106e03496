"""How CloudTrail delivers: files per account and region, late, unordered, now and then twice."""

from __future__ import annotations

import gzip
from collections import defaultdict
from heapq import heapify, heappop, heappush
from pathlib import Path
from random import Random
from time import gmtime, strftime

from raretrail.simulate.records import alnum

DAY = 86400


class Trail:
    """Takes records in any order, writes them as an organisation trail under `root`.

    A slot of `slot` seconds becomes one file, named for its delivery up to a quarter of an hour
    after the slot's end, in the folder of that day. A slot with few events waits for the next, up
    to `hold` seconds: it keeps the number of files near that of a trail with many more events.
    One record in a hundred comes a slot late; a share `redelivered` comes twice.
    """

    FEW = 40

    def __init__(
        self, root: Path, organisation: str, seed: int, *, slot: int, hold: int, redelivered: float
    ) -> None:
        self._root = root / "AWSLogs" / organisation
        self._seed = seed
        self._slot = slot
        self._hold = hold
        self._redelivered = redelivered
        self._waiting: dict[tuple[int, str, str], list[tuple[int, str]]] = defaultdict(list)
        self._again: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.files = 0
        self.events = 0
        self.records = 0

    def add(self, at: int, account: str, region: str, body: str) -> None:
        """Take one event that happened at `at` (epoch seconds)."""
        self._waiting[(at - at % self._slot, account, region)].append((at, body))
        self.events += 1

    def deliver(self, until: int | None = None) -> None:
        """Write every slot that ended by `until` (epoch seconds; None: all that wait)."""
        due = [k for k in self._waiting if until is None or k[0] + self._slot <= until]
        heapify(due)  # in the order of time: what waits or comes again goes to a later file
        while due:
            key = heappop(due)
            events = self._waiting.pop(key, None)
            if events:
                self._deliver(*key, events)
                following = (key[0] + self._slot, *key[1:])
                if following in self._waiting and (until is None or following[0] + self._slot <= until):
                    heappush(due, following)

    def _deliver(self, start: int, account: str, region: str, events: list[tuple[int, str]]) -> None:
        following = (start + self._slot, account, region)
        events.sort()
        if len(events) < self.FEW and start + self._slot - events[0][0] < self._hold:
            self._waiting[following] += events
            return
        rng = Random(f"{self._seed}/delivery/{account}/{region}/{start}")
        batch = [(float("inf"), body) for body in self._again.pop((account, region), ())]
        for at, body in events:
            if rng.random() < 0.01 and start - at < self._hold:
                self._waiting[following].append((at, body))
                continue
            batch.append((at + rng.gauss(0, 60), body))
            if rng.random() < self._redelivered:
                if rng.random() < 0.5:
                    self._again[(account, region)].append(body)  # in the next file
                else:
                    batch.append((at + rng.uniform(0, 300), body))
        if not batch:
            return
        batch.sort()
        sent = start + self._slot + rng.randrange(0, 900)
        sent -= sent % 300
        day = strftime("%Y/%m/%d", gmtime(sent))
        stamp = strftime("%Y%m%dT%H%MZ", gmtime(sent))
        folder = self._root / account / "CloudTrail" / region / day
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{account}_CloudTrail_{region}_{stamp}_{alnum(rng, 16)}.json.gz"
        payload = '{"Records":[' + ",".join(body for _, body in batch) + "]}"
        (folder / name).write_bytes(gzip.compress(payload.encode(), 5, mtime=0))
        self.files += 1
        self.records += len(batch)
