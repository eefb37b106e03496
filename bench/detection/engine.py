"""raretrail itself as a scorer: the main job's own stages over the simulated trail.

    python -m detection --cache DIR --scorer detection.engine:score

An organisation's events, as the job decodes them, and the facts of them are written once; its judged days
are then judged as the score stage does and the findings chained as the publish stage does. What is not
measured here is left out: reading of files, evidence and record scores beside the score, checks, verdicts.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import raretrail
from raretrail.detect.incidents import to_incident_events, to_incidents, with_incident_id
from raretrail.session import close_session, open_session
from raretrail.settings import Settings, load_settings
from raretrail.stages.baseline import between, ensure_known_places, known_uses
from raretrail.stages.ingest import write_facts
from raretrail.stages.locating import ensure_places, open_geo
from raretrail.stages.score import Window, judge, known_before
from raretrail.tables import ANOMALIES, EVENTS
from raretrail.warehouse import Warehouse, with_all_columns

from .measure import Incident
from .organisations import NO_ASN, Organisation, decoded, trail_of, write

Found = tuple[Sequence[Incident], Sequence[float]]

# What is taken in hangs on these sources.
_TAKEN = ("simulate", "cloudtrail", "geo", "evidence", "baseline/facts.py", "stages/ingest.py")


def score(organisation: Organisation, cache: Path) -> Found:
    """The organisation's incidents and their bits; what was played is kept in cache."""
    folder, _ = play(organisation, cache)
    return as_found(organisation, json.loads((folder / "incidents.json").read_text(encoding="utf-8")))


def play(organisation: Organisation, cache: Path) -> tuple[Path, Settings]:
    """Judge the organisation's days, unless that was done by the same formula and settings.

    The folder of cache with incidents.json, seconds.json and the warehouse, and the settings to read it by.
    """
    bare, _ = load_settings()
    folder = cache / f"{organisation.name.replace(' ', '-')}.{bare.hash[:12]}-{formula()}"
    taken = take_in(organisation, cache)
    settings = _settings(organisation, taken, folder / "warehouse")
    if (folder / "incidents.json").exists():
        return folder, settings
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(taken / "warehouse", folder / "warehouse")
    spark = open_session(driver_memory=settings.spark.driver_memory)
    try:
        rows, seconds = _judge(spark, organisation, settings)
    finally:
        close_session(spark)
    print(f"{organisation.name}: {seconds}", file=sys.stderr, flush=True)
    (folder / "seconds.json").write_text(json.dumps(seconds), encoding="utf-8")
    (folder / "incidents.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder, settings


def take_in(organisation: Organisation, cache: Path) -> Path:
    """The folder of cache that holds the organisation's maps and a warehouse with its events and facts, taken
    in once for every formula, with an ASN database or without."""
    name = organisation.name.removesuffix(NO_ASN)
    folder = cache / f"{name.replace(' ', '-')}.taken-{_hash(*_TAKEN)}"
    if (folder / "done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    simulated = trail_of(cache, name)
    if not simulated.exists():
        write(simulated, organisation.shape, organisation.real)
    records = decoded(simulated)
    shutil.rmtree(simulated / "trail", ignore_errors=True)
    folder.mkdir()
    shutil.copytree(simulated, folder / "simulated", ignore=shutil.ignore_patterns("decoded.parquet"))
    settings = _settings(organisation, folder, folder / "warehouse")
    spark = open_session(driver_memory=settings.spark.driver_memory)
    try:
        warehouse = Warehouse(spark, settings.require_warehouse())
        # An organisation's trail and an account's tell the same events.
        once = spark.read.parquet(str(records)).dropDuplicates(["recipient_account_id", "event_id"])
        warehouse.append(EVENTS, with_all_columns(once, EVENTS))
        days = [row["event_date"] for row in warehouse.read(EVENTS).select("event_date").distinct().collect()]
        write_facts(warehouse, days)
        address = F.coalesce("source_ip_address", F.lit("")).alias("source_ip_address")
        geo = open_geo(settings.geo)
        ensure_places(warehouse, warehouse.read(EVENTS).select(address), geo, datetime.now(UTC))
    finally:
        close_session(spark)
    (folder / "done").touch()
    return folder


def _settings(organisation: Organisation, taken: Path, warehouse: Path) -> Settings:
    asn = {} if organisation.name.endswith(NO_ASN) else {"asn_db": str(taken / "simulated" / "asn.mmdb")}
    return load_settings(options={"warehouse": str(warehouse), "geo": asn})[0]


def _judge(
    spark: SparkSession, organisation: Organisation, settings: Settings
) -> tuple[list[list[object]], dict[str, float]]:
    """Rows as `as_found` takes them, and the seconds of each stage."""
    warehouse = Warehouse(spark, settings.require_warehouse())
    geo, window = open_geo(settings.geo), Window(*span_of(organisation))
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    ensure_known_places(warehouse, geo, window.end.date(), datetime.now(UTC))
    uses = known_uses(warehouse, geo, window.days[0], window.end.date())
    known = known_before(warehouse, geo, window.days, uses)
    seconds["history"] = round(time.perf_counter() - start, 1)
    start = time.perf_counter()
    findings = warehouse.stage("findings", judge(warehouse, settings, geo, window, "bench", known))
    seconds["score"] = round(time.perf_counter() - start, 1)
    chained = with_incident_id(findings, settings.score.incident_gap)
    warehouse.append(ANOMALIES, with_all_columns(chained, ANOMALIES))
    return to_rows(warehouse, window, warehouse.read(ANOMALIES)), seconds


def to_rows(warehouse: Warehouse, window: Window, findings: DataFrame) -> list[list[object]]:
    """Incidents of findings with incident_id, the highest first: who, place, event ids, bits."""
    events = between(warehouse.read(EVENTS), window.start.date(), window.end.date())
    incidents = to_incidents(findings).join(to_incident_events(findings, events), "incident_id")
    ordered = incidents.orderBy(F.desc("bits"), "incident_id")
    return [list(row) for row in ordered.select("actor", "place", "evidence_event_ids", "bits").collect()]


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
    """What the stages took when the organisation was judged: history and score."""
    folder, _ = play(organisation, cache)
    found: dict[str, float] = json.loads((folder / "seconds.json").read_text(encoding="utf-8"))
    return found


def as_found(organisation: Organisation, rows: Iterable[Sequence[Any]]) -> Found:
    """Incidents as they are measured, of (who, place, event ids, bits)."""
    by_id = {event.id: event for event in organisation.events}
    found, scores = [], []
    for who, place, ids, bits in rows:
        events = sorted((by_id[i] for i in ids if i in by_id), key=lambda event: (event.at, event.id))
        if events:
            found.append(Incident(who, place, events))
            scores.append(bits)
    return found, scores
