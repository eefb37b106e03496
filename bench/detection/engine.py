"""raretrail itself as a scorer: the main job over the simulated trail, its incidents as they stand.

    python -m detection --cache DIR --scorer detection.engine:score

Each organisation is simulated once more (the same shape gives the same bytes), played forward over
its judged days by `raretrail.stages.run`, and what the table `incidents` holds is measured.
"""

from __future__ import annotations

import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from raretrail.look import open_duckdb
from raretrail.session import close_session, open_session
from raretrail.settings import load_settings
from raretrail.simulate import simulate
from raretrail.stages.run import run
from raretrail.tables import INCIDENTS

from .measure import Incident
from .organisations import Organisation

Found = tuple[Sequence[Incident], Sequence[float]]


def score(organisation: Organisation, cache: Path | None = None) -> Found:
    """The organisation's incidents and their bits. With cache, kept there under the settings' hash."""
    with_asn = not organisation.name.endswith("no ASN")
    settings, _ = load_settings()
    kept = cache and cache / f"{organisation.name.replace(' ', '-')}.{settings.hash}.incidents"
    if kept and kept.exists():
        rows = pickle.loads(kept.read_bytes())
    else:
        rows = _played(organisation, with_asn)
        if kept:
            kept.write_bytes(pickle.dumps(rows))
    by_id = {event.id: event for event in organisation.events}
    found, scores = [], []
    for who, place, ids, bits in rows:
        events = sorted((by_id[i] for i in ids if i in by_id), key=lambda event: (event.at, event.id))
        if events:
            found.append(Incident(who, place, events))
            scores.append(bits)
    return found, scores


def _played(organisation: Organisation, with_asn: bool) -> list[tuple[str, str, list[str], float]]:
    shape = organisation.shape
    work = Path(tempfile.mkdtemp(prefix="raretrail-bench-"))
    try:
        simulated = work / "simulated"
        simulate(simulated, shape)
        asn = {"asn_db": str(simulated / "asn.mmdb")} if with_asn else {}
        options = {"trail": [str(simulated / "trail")], "warehouse": str(work / "warehouse"), "geo": asn}
        settings, _ = load_settings(options=options)
        end = datetime(shape.end.year, shape.end.month, shape.end.day, tzinfo=UTC)
        span = (end - timedelta(days=shape.judged_days), end)
        start = time.perf_counter()
        spark = open_session(driver_memory=settings.spark.driver_memory)
        try:
            ended = run(spark, settings, as_of=datetime.now(UTC), span=span)
        finally:
            close_session(spark)
        seconds = {name: round(s) for name, s in ended.record["seconds"].items()}
        print(f"{organisation.name}: {time.perf_counter() - start:.0f} s {seconds}", file=sys.stderr)
        with open_duckdb(str(work / "warehouse")) as look:
            rows = look.rows(INCIDENTS, order=(("bits", "desc"), ("incident_id", "asc")))
        return [(r["actor"], r["place"], list(r["evidence_event_ids"] or ()), r["bits"]) for r in rows]
    finally:
        shutil.rmtree(work, ignore_errors=True)
