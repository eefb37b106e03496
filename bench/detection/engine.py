"""raretrail itself as a scorer: the main job over the simulated trail, its incidents as they stand.

    python -m detection --cache DIR --scorer detection.engine:score

Each organisation is simulated once more (the same shape gives the same bytes), played forward over
its judged days by `raretrail.stages.run`, and what the table `incidents` holds is measured.
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
from .organisations import Organisation, write

Found = tuple[Sequence[Incident], Sequence[float]]


def score(organisation: Organisation, cache: Path | None = None) -> Found:
    """The organisation's incidents and their bits. With cache, what was played is kept there."""
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="raretrail-bench-") as folder:
            return _read(organisation, play(organisation, Path(folder)))
    return _read(organisation, play(organisation, cache))


def play(organisation: Organisation, cache: Path) -> Settings:
    """Play the organisation forward, unless it was by the same formula and settings; the settings to read
    it by.

    Its warehouse and its map stay in a folder of cache.
    """
    shape = organisation.shape
    bare, _ = load_settings()
    folder = cache / f"{organisation.name.replace(' ', '-')}.{bare.hash[:12]}-{formula()}"
    simulated, warehouse = folder / "simulated", folder / "warehouse"
    asn = {} if organisation.name.endswith("no ASN") else {"asn_db": str(simulated / "asn.mmdb")}
    options = {"trail": [str(simulated / "trail")], "warehouse": str(warehouse), "geo": asn}
    if (folder / "done").exists():
        return load_settings(options=options)[0]
    shutil.rmtree(folder, ignore_errors=True)
    write(simulated, shape, organisation.real)
    settings, _ = load_settings(options=options)
    start = time.perf_counter()
    spark = open_session(driver_memory=settings.spark.driver_memory)
    try:
        ended = run(spark, settings, as_of=datetime.now(UTC), span=span_of(organisation))
    finally:
        close_session(spark)
    seconds = {name: round(s) for name, s in ended.record["seconds"].items()}
    print(f"{organisation.name}: {time.perf_counter() - start:.0f} s {seconds}", file=sys.stderr)
    shutil.rmtree(simulated / "trail")
    (folder / "done").touch()
    return settings


def formula() -> str:
    """A hash of the rooms that make the score."""
    rooms = Path(raretrail.__file__).parent
    sources = [path for room in ("detect", "baseline") for path in sorted((rooms / room).glob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]


def span_of(organisation: Organisation) -> tuple[datetime, datetime]:
    """The judged days, as the job takes them."""
    shape = organisation.shape
    end = datetime(shape.end.year, shape.end.month, shape.end.day, tzinfo=UTC)
    return end - timedelta(days=shape.judged_days), end


def seconds(organisation: Organisation, cache: Path) -> dict[str, float]:
    """What each stage of the run took, by the warehouse's own record."""
    settings = play(organisation, cache)
    assert settings.warehouse
    with open_duckdb(settings.warehouse) as look:
        (run_,) = look.rows(RUNS)
    return dict(run_["seconds"])


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
