"""raretrail itself as a scorer: the main job over the simulated trail, its incidents as they stand.

    python -m detection --cache DIR --scorer detection.engine:score

Each organisation's trail is taken in once; its judged days are played forward by `raretrail.stages.run`,
and what the table `incidents` holds is measured.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import raretrail
from raretrail.look import open_duckdb
from raretrail.session import close_session, open_session
from raretrail.settings import Settings, load_settings
from raretrail.stages.run import run
from raretrail.tables import INCIDENTS, RUNS

from .measure import Incident
from .organisations import NO_ASN, Organisation, trail_of, write

Found = tuple[Sequence[Incident], Sequence[float]]

# What ingest makes of a trail hangs on these sources.
_INGEST = ("simulate", "cloudtrail", "geo", "evidence", "baseline/facts.py", "stages/ingest.py")


def score(organisation: Organisation, cache: Path | None = None) -> Found:
    """The organisation's incidents and their bits. With cache, what was played is kept there."""
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="raretrail-bench-") as folder:
            return _read(organisation, play(organisation, Path(folder)))
    return _read(organisation, play(organisation, cache))


def play(organisation: Organisation, cache: Path) -> Settings:
    """Judge the organisation's days, unless that was done by the same formula and settings; the settings to
    read them by.

    Its warehouse and its map stay in a folder of cache.
    """
    bare, _ = load_settings()
    folder = cache / f"{organisation.name.replace(' ', '-')}.{bare.hash[:12]}-{formula()}"
    taken = take_in(organisation, cache)
    settings = _settings(organisation, taken, folder / "warehouse")
    if (folder / "done").exists():
        return settings
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(taken / "warehouse", folder / "warehouse")
    # The snapshot as of the day after the last is for runs to come: none of these days is judged by it.
    _run(organisation, settings, ("score", "publish"))
    (folder / "done").touch()
    return settings


def take_in(organisation: Organisation, cache: Path) -> Path:
    """The folder of cache that holds the organisation's map and a warehouse with its events, taken in once
    for every formula, with an ASN database or without."""
    name = organisation.name.removesuffix(NO_ASN)
    folder = cache / f"{name.replace(' ', '-')}.taken-{_hash(*_INGEST)}"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if trail_of(cache, name).exists():
            shutil.move(trail_of(cache, name), folder / "simulated")
        else:
            write(folder / "simulated", organisation.shape, organisation.real)
        _run(organisation, _settings(organisation, folder, folder / "warehouse"), ("ingest",))
        shutil.rmtree(folder / "simulated" / "trail")
        (folder / "done").touch()
    return folder


def _settings(organisation: Organisation, taken: Path, warehouse: Path) -> Settings:
    simulated = taken / "simulated"
    asn = {} if organisation.name.endswith(NO_ASN) else {"asn_db": str(simulated / "asn.mmdb")}
    options = {"trail": [str(simulated / "trail")], "warehouse": str(warehouse), "geo": asn}
    return load_settings(options=options)[0]


def _run(organisation: Organisation, settings: Settings, steps: tuple[str, ...]) -> None:
    start = time.perf_counter()
    spark = open_session(driver_memory=settings.spark.driver_memory)
    try:
        ended = run(spark, settings, as_of=datetime.now(UTC), span=span_of(organisation), steps=steps)
    finally:
        close_session(spark)
    seconds = {name: round(s) for name, s in ended.record["seconds"].items()}
    print(f"{organisation.name}: {time.perf_counter() - start:.0f} s {seconds}", file=sys.stderr, flush=True)


def formula() -> str:
    """A hash of the sources that make the score."""
    return _hash("detect", "baseline", "stages/score.py")


def _hash(*sources: str) -> str:
    """A hash of files, and of the Python files of folders, of the package."""
    rooms = Path(raretrail.__file__).parent
    paths = [path for source in sources for path in sorted((rooms / source).glob("*.py")) or [rooms / source]]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:8]


def span_of(organisation: Organisation) -> tuple[datetime, datetime]:
    """The judged days, as the job takes them."""
    shape = organisation.shape
    end = datetime(shape.end.year, shape.end.month, shape.end.day, tzinfo=UTC)
    return end - timedelta(days=shape.judged_days), end


def seconds(organisation: Organisation, cache: Path) -> dict[str, float]:
    """What each stage took, by the warehouse's own record."""
    settings = play(organisation, cache)
    assert settings.warehouse
    with open_duckdb(settings.warehouse) as look:
        runs = look.rows(RUNS)
    return {name: took for run_ in runs for name, took in dict(run_["seconds"]).items()}


def _read(organisation: Organisation, settings: Settings) -> Found:
    assert settings.warehouse
    with open_duckdb(settings.warehouse) as look:
        rows = look.rows(INCIDENTS, order=(("bits", "desc"), ("incident_id", "asc")))
    return as_found(
        organisation, [(r["actor"], r["place"], r["evidence_event_ids"] or (), r["bits"]) for r in rows]
    )


def as_found(organisation: Organisation, rows: Iterable[tuple[str, str, Sequence[str], float]]) -> Found:
    """Incidents as they are measured, of (who, place, event ids, bits)."""
    by_id = {event.id: event for event in organisation.events}
    found, scores = [], []
    for who, place, ids, bits in rows:
        events = sorted((by_id[i] for i in ids if i in by_id), key=lambda event: (event.at, event.id))
        if events:
            found.append(Incident(who, place, events))
            scores.append(bits)
    return found, scores
