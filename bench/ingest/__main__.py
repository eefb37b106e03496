"""The job's ingest and baseline beside other engines that do less, on one trail, one after the other.

    python -m ingest [--events 200000,2000000] [--alone 20000000] [--parts engines,spent,played,queries] [--cache DIR]
                     [--into PAGE]

Nothing else should run beside it. Prints a table of seconds, processor seconds, memory and bytes, and ratios;
checks that all wrote the same events, presence and baseline. A trail of --alone is taken in by the job only. The
largest of --events is also profiled, played forward, and asked what analysts ask.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

_BENCH = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_BENCH), str(_BENCH.parent / "tools")]

from machine import tell  # noqa: E402

from ingest.measure import Taken, measured, shares, size_of  # noqa: E402
from ingest.same import digests  # noqa: E402
from ingest.trail import Trail, write_trail  # noqa: E402

_OTHERS = ("with_polars", "with_duckdb", "floor")
_NAMES = {
    "job": "raretrail, ingest and baseline",
    "with_polars": "polars and delta-rs",
    "with_duckdb": "DuckDB and delta-rs",
    "floor": "two processes of msgspec, one commit",
}
# What may be asked for, with the mark in the manual it is written to.
_PARTS = {"engines": "ingest", "spent": "spent", "played": "played", "queries": "queries"}
# What is aimed at: seconds as shares of the others'.
_COLD, _WARM, _PLAYED = 0.75, 2.5, 2


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(prog="ingest", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=_numbers, default=[200_000])
    parser.add_argument("--alone", type=int, help="events of a trail that only the job takes in")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(_PARTS))
    parser.add_argument(
        "--cache", type=Path, default=_BENCH.parent / ".cache/bench", help="where trails stay"
    )
    parser.add_argument("--into", type=Path, help="a page of the manual to write the tables into")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(_PARTS):
        parser.error(f"--parts: {', '.join(sorted(unknown))}: there are {', '.join(_PARTS)}")
    options.cache = options.cache.resolve()
    parts: dict[str, Callable[[], str]] = {
        "engines": lambda: _engines(options.cache, options.events, options.alone),
        "spent": lambda: _spent(options.cache, options.events[-1]),
        "played": lambda: _played(options.cache, options.events[-1]),
        "queries": lambda: _asked(options.cache, options.events[-1]),
    }
    for part, name in _PARTS.items():
        if part in options.parts:
            tell(parts[part](), name, options.into)


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def _engines(cache: Path, sizes: list[int], alone: int | None) -> str:
    """The job beside the others on trails of these sizes, and what grows with them."""
    texts, jobs = [], []
    for events in sorted(sizes):
        trail = _trail(cache, events)
        with tempfile.TemporaryDirectory(prefix="raretrail-ingest-") as folder:
            text, job = _compared(
                cache / f"trail-{events}", trail, Path(folder), cache / f"trail-{min(sizes)}"
            )
        texts.append(text)
        jobs.append((events, job))
    if alone:
        trail = _trail(cache, alone)
        with tempfile.TemporaryDirectory(prefix="raretrail-ingest-") as folder:
            job = measured(_job(cache / f"trail-{alone}", Path(folder), trail))
        jobs.append((alone, job))
    if len(jobs) > 1:
        texts.append(_growth(jobs))
    return "\n\n".join(texts)


def _job(root: Path, out: Path, trail: Trail) -> list[str]:
    return [sys.executable, "-m", "ingest.job", str(root), str(out), f"{trail.end}T00:00:00+00:00"]


def _asked(cache: Path, events: int) -> str:
    """What analysts ask of the trail, and of its tables."""
    trail = _trail(cache, events)
    with tempfile.TemporaryDirectory(prefix="raretrail-ingest-") as folder:
        root, as_of = str(cache / f"trail-{events}"), f"{trail.end}T00:00:00+00:00"
        taken = measured([sys.executable, "-m", "ingest.queries", root, folder, as_of])
    table = "\n".join(line for line in taken.output.splitlines() if line.startswith("|"))
    return f"Of {events:,} events:\n\n{table}"


def _trail(cache: Path, events: int) -> Trail:
    """The trail of so many events, made if the cache lacks it."""
    root, told = cache / f"trail-{events}", cache / f"trail-{events}.json"
    if not told.exists():
        shutil.rmtree(root, ignore_errors=True)
        told.write_text(json.dumps(write_trail(root, events), default=str))
    *counts, first, last = json.loads(told.read_text())
    return Trail(*counts, date.fromisoformat(first), date.fromisoformat(last))


def _compared(root: Path, trail: Trail, folder: Path, before: Path) -> tuple[str, Taken]:
    """The job beside the others on a trail; warm once it has taken in another."""
    taken: dict[str, Taken] = {}
    found: dict[str, dict[str, tuple[int, int]]] = {}
    sizes: dict[str, int] = {}
    warm = 0.0
    for engine in ("job", *_OTHERS):
        out = folder / engine
        out.mkdir()
        if engine == "job":
            taken[engine] = measured(_job(root, out, trail))
            again = measured([*_job(root, folder / "warm", trail), str(before)])
            warm = _told(again)[1]["seconds"]
            events = out / "warehouse-0/events"
            shutil.rmtree(folder / "warm")
        else:
            taken[engine] = measured([sys.executable, "-m", f"ingest.{engine}", str(root), str(out)])
            events = out / "events"
        sizes[engine] = size_of(events)
        found[engine] = digests(out, engine)
        shutil.rmtree(out)
    unlike = [engine for engine in _OTHERS if found[engine] != found["job"]]
    if unlike:
        raise SystemExit(f"not the same rows: {found}")
    return _table(trail, taken, sizes, warm), taken["job"]


def _table(trail: Trail, taken: dict[str, Taken], sizes: dict[str, int], warm: float) -> str:
    lines = [
        f"{trail.events:,} events of {trail.first_day} to {trail.last_day} in {trail.files:,} files, "
        f"{trail.bytes / 1e6:,.0f} MB gzipped:",
        "",
        "| engine | seconds, cold | processor seconds | events a second | peak memory | `events` on disk |",
        "|---|---|---|---|---|---|",
    ]
    for engine, name in _NAMES.items():
        took = taken[engine]
        lines.append(
            f"| {name} | {took.seconds:.0f} | {took.cpu:.0f} | {trail.events / took.seconds:,.0f} "
            f"| {took.peak:,.0f} MB | {sizes[engine] / 1e6:,.0f} MB |"
        )
    job, floor = taken["job"].seconds, taken["floor"].seconds
    fastest = min(taken[engine].seconds for engine in ("with_polars", "with_duckdb"))
    lines += [
        "",
        "| ratio | is | aim |",
        "|---|---|---|",
        f"| the job, cold, to the faster of polars and DuckDB | {job / fastest:.2f} | {_COLD} |",
        f"| the job in a warm session ({warm:.0f} seconds) to two processes of msgspec | {warm / floor:.2f} "
        f"| {_WARM} |",
        f"| bytes of `events` to the gzipped trail | {sizes['job'] / trail.bytes:.2f} | 1.5 |",
        "",
        "All wrote the same events, presence and 30 days' commands by place. The job writes eight kinds of facts "
        "and twelve tables of a baseline where the others write one of each, looks for copies among all that is "
        "stored, takes secrets out, sets damage aside and keeps a ledger.",
    ]
    return "\n".join(lines)


def _played(cache: Path, events: int) -> str:
    """What judging takes beside ingest, when all days are played forward."""
    trail, root = _trail(cache, events), cache / f"trail-{events}"
    with tempfile.TemporaryDirectory(prefix="raretrail-ingest-") as folder:
        days = [str(trail.first_day), str(trail.end)]
        taken = measured([sys.executable, "-m", "ingest.played", str(root), folder, *days])
    told = _told(taken)[0]
    stages, counts = told["stages"], told["counts"]
    judging = sum(stages.values()) - stages["ingest"]
    each = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in stages.items())
    return (
        f"{events:,} events, played forward over their {(trail.end - trail.first_day).days} days, all detectors and evidence: "
        f"{judging:.0f} seconds beside {stages['ingest']:.0f} of ingest, {judging / stages['ingest']:.2f} times "
        f"(aim {_PLAYED}); {counts['findings']:,} findings, {counts['incidents']:,} incidents; {each}."
    )


def _spent(cache: Path, events: int) -> str:
    """Where the job's seconds go."""
    trail = _trail(cache, events)
    with tempfile.TemporaryDirectory(prefix="raretrail-ingest-") as folder:
        taken = measured(_job(cache / f"trail-{events}", Path(folder), trail))
    told = _told(taken)[0]
    stages = ", ".join(f"{seconds:.0f} of {stage}" for stage, seconds in told["stages"].items())
    cores = os.cpu_count() or 1
    lines = [
        f"{events:,} events take {taken.seconds:.0f} seconds, {stages}, and {taken.cpu:.0f} processor seconds, "
        f"{taken.cpu / taken.seconds / cores:.0%} of what {cores} cores have:",
        "",
        *shares(taken.spent),
        "",
        f"At the most it holds {taken.peak:,.0f} MB: {_holders(taken)}.",
    ]
    return "\n".join(lines)


def _holders(taken: Taken) -> str:
    """What held the memory at its peak."""
    return ", ".join(f"{kind} {held:,.0f} MB" for kind, held in taken.held.most_common())


def _told(taken: Taken) -> list[dict[str, Any]]:
    """The objects that a measured program printed, a line each."""
    return [json.loads(line) for line in taken.output.splitlines() if line.startswith("{")]


def _growth(jobs: list[tuple[int, Taken]]) -> str:
    lines = [
        "| events | the job's peak memory | of which | seconds, cold | seconds per million events |",
        "|---|---|---|---|---|",
        *(
            f"| {events:,} | {job.peak:,.0f} MB | {_holders(job)} | {job.seconds:.0f} "
            f"| {job.seconds / events * 1e6:.0f} |"
            for events, job in jobs
        ),
    ]
    (few, small), (many, large) = jobs[0], jobs[-1]
    lines += [
        "",
        f"From {few:,} to {many:,} events memory grows by {large.peak / small.peak:.2f} (aim 1.3, and 2.5 GB), "
        f"seconds per million events by {large.seconds / many / (small.seconds / few):.2f} (aim 1).",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
