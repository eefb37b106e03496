"""Hostile input by the hundred thousand: mutated files and records through both readings.

    python tests/robustness/fuzz.py [--count N] [--processes 2] [--seed S] [--case I] [--into PAGE]

Each case is made from its number alone, so that `--case I` runs one again. Held for each: nothing is
raised, both readings agree, the ledger balances, every row is valid under the tables' Arrow schemas,
and what comes out is bounded by what went in. Seeds are records of the factories in every shape, and
published files where `shared/data` lies beside the checkout.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "tests"), str(ROOT / "tools")]

from figures import put  # noqa: E402

from factories import record, to_json  # noqa: E402
from raretrail.cloudtrail.decode import (  # noqa: E402
    CENSUS_COLUMNS,
    QUARANTINED_COLUMNS,
    FileResult,
    census,
    census_batch,
    decode_file,
    events_batches,
    quarantine_batch,
)
from raretrail.cloudtrail.documents import Limits  # noqa: E402
from raretrail.cloudtrail.principals import load_rules  # noqa: E402
from raretrail.cloudtrail.times import EARLIEST, LATEST  # noqa: E402
from raretrail.tables import DECODED_COLUMNS, QUARANTINE_REASONS, Table  # noqa: E402

DATA = ROOT.parent / "shared/data/cloudtrail"
RULES = load_rules(ROOT / "conf" / "principals.yml")
# Smaller than the defaults, so that they are met often.
LIMITS = Limits(file=4 * 1024**2, record=512 * 1024, raw=32 * 1024, records=20_000)
EVENTS = Table("", "", DECODED_COLUMNS, ()).arrow_schema()
CENSUS = Table("", "", CENSUS_COLUMNS, ()).arrow_schema()
QUARANTINED = Table("", "", QUARANTINED_COLUMNS, ()).arrow_schema()
NAMES = [column.name for column in DECODED_COLUMNS]
SLOW = 20.0  # seconds; a case takes a few milliseconds

Random = random.Random


# ------------------------------------------------------------------------------------------- seeds


@lru_cache(maxsize=1)
def seed_records() -> list[Any]:
    """Records to start from."""
    found: list[Any] = [
        record(),
        record(errorCode="AccessDenied", errorMessage="User: arn:aws:iam::1:user/é is not authorized"),
        record(userIdentity={"type": "Root"}, userAgent="é🛰"),
        record(responseElements={"credentials": {"accessKeyId": "ASIAX", "sessionToken": "IQoJb3JpZ2lu"}}),
        record(addendum={"reason": "UPDATED_DATA", "originalEventID": "x"}, apiVersion="2012-08-10"),
        {"eventVersion": "1.08", "eventTime": "2024-01-01T00:00:00Z", "eventName": "X"},
    ]
    for path in sorted(DATA.rglob("*.json*")) if DATA.is_dir() else []:
        if path.stat().st_size < 2_000_000 and len(found) < 400:
            try:
                tree = json.loads(path.read_bytes())
            except ValueError:
                continue
            records = tree.get("Records", [tree]) if isinstance(tree, dict) else tree
            found += records[:: max(1, len(records) // 4)][:4]
    return found


@lru_cache(maxsize=1)
def seed_files() -> list[bytes]:
    """Small published files as they are."""
    if not DATA.is_dir():
        return [b""]
    paths = [path for path in sorted(DATA.rglob("*")) if path.is_file() and path.stat().st_size < 20_000]
    return [path.read_bytes() for path in paths[::3]]


def _wrapped(rng: Random, records: list[Any]) -> bytes:
    """The records as a file of some shape."""
    indent = rng.choice([None, None, 1])
    shape = rng.randrange(7)
    if shape == 0:
        return b"\n".join(to_json(one) for one in records)
    if shape == 1:
        return to_json(records, indent)
    if shape == 2:
        return to_json({"Events": [{"CloudTrailEvent": json.dumps(one)} for one in records]}, indent)
    if shape == 3:
        return to_json([{"detail-type": "x", "detail": one} for one in records], indent)
    if shape == 4:
        return to_json(records[0], indent)
    return to_json({"Records": records}, indent)


# --------------------------------------------------------------------------------- hostile values

HOSTILE = (
    "'; DROP TABLE events; --",
    "` OR 1=1 -- \\",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "../../../../etc/passwd",
    "/dev/zero\0.json",
    "C:\\con\\aux",
    "file:///etc/shadow",
    "\x1b]0;owned\x07\x1b[2J\x1b[31m",
    "\x9b31m\u202eevil\u2066",
    "=cmd|'/c calc'!A1",
    "a" * 5_000,
    "\0",
    "\ufeff\u200b\U000e0041",
    "",
    " ",
    "null",
    "arn:aws:sts::123456789012:assumed-role/" + "x/" * 300,
    "%s%n%x",
    "\\ud800",
    "☃" * 200,
)
NUMBERS = (
    "1e400", "-1e-400", "1" + "0" * 400, "-0", "0.1e1000000", "9007199254740993", "NaN", "Infinity",
    "-Infinity", "9223372036854775808", "1.7976931348623159e308", "0x10", "01", "1_000", "+1",
)  # fmt: skip


def _raw_value(rng: Random) -> str:
    """The JSON (or nearly) of a hostile value."""
    kind = rng.randrange(12)
    if kind == 0:
        depth = rng.choice([10, 100, 900, 1_100, 10_000])
        opener, closer = rng.choice([("[", "]"), ('{"a":', "}"), ('{"value":', "}"), ('{"password":', "}")])
        return opener * depth + "1" + closer * rng.choice([depth, depth, depth - 1, depth + 3, 0])
    if kind == 1:
        some = rng.choice([3, 300, 5_000])
        return "{" + ",".join(f'"{rng.choice("kK")}{i % 977}":{i}' for i in range(some)) + "}"
    if kind == 2:
        return rng.choice(NUMBERS)
    if kind == 3:
        text = f"{rng.randrange(10_000):04}-{rng.randrange(0, 14):02}-{rng.randrange(0, 33):02}"
        return json.dumps(text + rng.choice(["T", " "]) + rng.choice(["00:00:00Z", "23:59:60+14:00", "9"]))
    if kind == 4:
        return rng.choice([r'"\ud800"', r'"\udfff\ud83d"', r'"\u0000"', r'"\x00"', '"\n"', '"\x00"', '"'])
    if kind == 5:
        return json.dumps([rng.choice(HOSTILE)] * rng.choice([1, 50]))
    if kind == 6:
        return json.dumps({rng.choice(HOSTILE): rng.choice(HOSTILE)})
    if kind == 7:
        return rng.choice(["null", "true", "[]", "{}", '""', "", "{", "[", "nul", "{]}"])
    if kind == 8:
        return json.dumps(json.dumps(rng.choice(seed_records())))
    if kind == 9:
        return json.dumps(rng.choice(["{", "[{", '{"eventVersion":', '{"Records":[']) * rng.choice([1, 99]))
    if kind == 10:
        return '"' + "x" * rng.choice([1_000, 40_000, 600_000]) + '"'
    return json.dumps(rng.choice(HOSTILE), ensure_ascii=rng.random() < 0.5)


_SLOT = "@slot@"


def _hostile_record(rng: Random) -> tuple[Any, dict[str, str]]:
    """A record with slots, and what goes into each."""
    made = json.loads(json.dumps(rng.choice(seed_records())))
    if not isinstance(made, dict):
        made = {"eventName": made}
    slots: dict[str, str] = {}
    for _ in range(rng.choice([1, 1, 2, 5])):
        inside = made
        while rng.random() < 0.4:
            deeper = [value for value in inside.values() if isinstance(value, dict) and value]
            if not deeper:
                break
            inside = rng.choice(deeper)
        key = rng.choice([*inside, *inside, rng.choice(HOSTILE), "other", "Records", "detail", "eventname"])
        slot = f"{_SLOT}{len(slots)}"
        slots[slot] = _raw_value(rng)
        inside[key] = slot
    return made, slots


def _records(rng: Random) -> bytes:
    made, slots = [], {}
    for number in range(rng.choice([1, 1, 2, 4])):
        one, found = _hostile_record(rng)
        text = json.dumps(one)
        for slot in found:
            text = text.replace(slot + '"', f"{number}{slot}" + '"')
            slots[f"{number}{slot}"] = found[slot]
        made.append(json.loads(text))
    data = _wrapped(rng, made)
    for slot, value in slots.items():
        data = data.replace(f'"{slot}"'.encode(), value.encode("utf-8", "surrogatepass"))
    return data


# ---------------------------------------------------------------------------------- hostile bytes

_PIECES = (
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\xff", b"\0", b"\n", b"\x1f\x8b", b"\xed\xa0\x80",
    b'{"Records":[', b'"eventVersion"', b"\xef\xbb\xbf", b"PK\x03\x04", b"a,b,c\n1,2,3\n", b"\x1b[2J",
)  # fmt: skip


def _flip(rng: Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 30])):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _cut(rng: Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] if rng.random() < 0.7 else data[at:]


def _drop(rng: Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice([1, 1, 20, 500]) :]


def _insert(rng: Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(_PIECES) * rng.choice([1, 1, 3, 2_000]) + data[at:]


def _double(rng: Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data + data[at:]


def _splice(rng: Random, data: bytes) -> bytes:
    other = rng.choice(seed_files())
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _press(rng: Random, data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0) * rng.choice([1, 1, 1, 2])


def _bomb(rng: Random, data: bytes) -> bytes:
    size = rng.choice([1_000_000, 30_000_000])
    inner = gzip.compress(rng.choice([b" ", b"[", b'{"a":', b"{},"]) * (size // 4), 1, mtime=0)
    return rng.choice([inner, gzip.compress(inner), gzip.compress(data) + inner])


_BYTES: tuple[Callable[[Random, bytes], bytes], ...] = (
    _flip, _flip, _cut, _drop, _insert, _double, _splice, _press,
)  # fmt: skip


def case(seed: int, number: int) -> tuple[str, bytes]:
    """The path and bytes of one case."""
    rng = Random(f"{seed}:{number}")
    if rng.random() < 0.05:
        data = rng.choice(seed_files())
    elif rng.random() < 0.5:
        data = _wrapped(rng, [rng.choice(seed_records()) for _ in range(rng.choice([1, 2, 5]))])
    else:
        data = _records(rng)
    if rng.random() < 0.3:
        data = _press(rng, data)
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        data = rng.choice(_BYTES)(rng, data)
    if rng.random() < 0.003:
        data = _bomb(rng, data)
    path = rng.choice(["x.json.gz", "AWSLogs/123456789012/CloudTrail/eu-west-1/2024/03/01/x.json", *HOSTILE])
    return path, data


# ------------------------------------------------------------------------------------------ checks


def check(path: str, data: bytes, limits: Limits = LIMITS) -> FileResult:
    """Read one file and hold it to everything that must be true of any.

    Raises:
        AssertionError: something is not.
    """
    started = time.process_time()
    full = decode_file(path, data, rules=RULES, limits=limits)
    counted = census(path, data, limits=limits)
    spent = time.process_time() - started
    assert spent < SLOW, f"took {spent:.0f} s"

    for name in ("status", "shape", "detail", "records", "content_hash", "bytes"):
        assert getattr(full, name) == getattr(counted, name), name
    assert full.quarantined == counted.quarantined
    assert full.records == full.accepted + len(full.quarantined)
    assert full.records <= 4 * limits.records, "records are bounded"
    wanted = [NAMES.index(column.name) for column in CENSUS_COLUMNS]
    if full.accepted:
        assert [full.columns[i] for i in wanted] == counted.columns, "both readings agree"
        assert all(EARLIEST <= moment < LATEST for moment in full.columns[0])
    positions = [*full.columns[NAMES.index("source_position")]] if full.columns else []
    positions += [one.source_position for one in full.quarantined]
    assert sorted(positions) == list(range(full.records)), "every record has its own place"
    assert {one.reason for one in full.quarantined} <= set(QUARANTINE_REASONS)

    size = 0
    for batch in events_batches([full], rows=500):
        assert batch.schema == EVENTS
        batch.validate(full=True)
        size += batch.nbytes
    for batch, schema in (
        (quarantine_batch([full]), QUARANTINED),
        (census_batch([counted]), CENSUS),
    ):
        assert batch.schema == schema
        batch.validate(full=True)
        size += batch.nbytes
    inflated = min(limits.file, max(len(data), 1_100 * len(data)))
    bound = 1_000_000 + 10 * inflated + full.records * (4_000 + 4 * len(path))
    assert size <= bound, f"{size} bytes out of {len(data)}"
    assert all(len(one.raw.encode()) <= limits.raw for one in full.quarantined)
    return full


def run(seed: int, numbers: range) -> tuple[Counter[str], list[tuple[int, str]], float]:
    """Outcomes, failures (case, what failed) and the longest time of some cases."""
    outcomes: Counter[str] = Counter()
    failures: list[tuple[int, str]] = []
    longest = 0.0
    for number in numbers:
        path, data = case(seed, number)
        started = time.perf_counter()
        try:
            result = check(path, data)
            outcomes["records"] += result.records
            outcomes["events"] += result.accepted
            outcomes["quarantined"] += len(result.quarantined)
            outcomes[f"file {result.status}"] += 1
            outcomes.update(f"reason {one.reason}" for one in result.quarantined)
        except Exception as error:
            failures.append((number, f"{type(error).__name__}: {error}"[:300]))
        longest = max(longest, time.perf_counter() - started)
    return outcomes, failures, longest


def _chunks(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(count, start + size))


def told(count: int, outcomes: Counter[str], failed: int, longest: float) -> str:
    """The figures of a run in a sentence."""
    reasons = {name[7:]: number for name, number in outcomes.items() if name.startswith("reason ")}
    most = ", ".join(
        f"{number:,} `{name}`" for name, number in sorted(reasons.items(), key=lambda r: -r[1])[:6]
    )
    records = outcomes["events"] + outcomes["quarantined"]
    return (
        f"{count:,} hostile files: {failed} raised or failed a check, {outcomes['records'] - records:,} "
        f"records unaccounted for. {outcomes['records']:,} records, of which {outcomes['events']:,} could be "
        f"taken and {outcomes['quarantined']:,} were set aside: {most} and {len(reasons) - 6} more reasons. "
        f"The slowest file took {longest:.1f} s."
    )


def main(arguments: list[str] | None = None) -> int:
    """Run many cases and say what came of them; 1 if any failed."""
    parser = argparse.ArgumentParser(description="Mutated trail files through the decoder.")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="run this one and show what fails")
    parser.add_argument("--into", type=Path, help="a page of the manual to write the figures into")
    options = parser.parse_args(arguments)
    if options.case is not None:
        path, data = case(options.seed, options.case)
        sys.stdout.write(f"{path!r}: {len(data)} bytes: {data[:200]!r}\n")
        check(path, data)
        return 0
    started = time.perf_counter()
    outcomes: Counter[str] = Counter()
    failures: list[tuple[int, str]] = []
    longest, done = 0.0, 0
    with ProcessPoolExecutor(options.processes) as pool:
        futures = {pool.submit(run, options.seed, part): part for part in _chunks(options.count, 500)}
        for future in as_completed(futures):
            part, failed, slowest = future.result()
            outcomes += part
            failures += failed
            longest = max(longest, slowest)
            done += len(futures[future])
            if done % 10_000 < 500:
                sys.stderr.write(f"{done:,} of {options.count:,}, {len(failures)} failed\n")
    spent = time.perf_counter() - started
    sys.stdout.write(
        f"{options.count:,} cases of seed {options.seed} in {spent:.0f} s; slowest {longest:.1f} s\n"
    )
    for name, number in sorted(outcomes.items()):
        sys.stdout.write(f"  {name}: {number:,}\n")
    for number, what in sorted(failures)[:20]:
        sys.stdout.write(f"FAILED --seed {options.seed} --case {number}: {what}\n")
    sys.stdout.write(f"{len(failures)} failed\n")
    if options.into:
        put(options.into, "fuzz", told(options.count, outcomes, len(failures), longest))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
