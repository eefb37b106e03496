"""Replay: a finding computed once more from the very versions of the tables its run read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail import __version__
from raretrail.detect.rank import with_score
from raretrail.errors import RaretrailError, UsageError
from raretrail.settings import Settings
from raretrail.stages.locating import Geo, open_geo
from raretrail.stages.score import Window, bucket_of, score
from raretrail.stages.tombstones import forgotten_finding, last_forgetting
from raretrail.tables import ANOMALIES, CALIBRATIONS, RUNS, STAGED_ANOMALIES, Table
from raretrail.warehouse import Warehouse, rows_of, with_all_columns

# Named by the run that computes, and known at publication only.
_NOT_COMPUTED = {"run_id"}


@dataclass(frozen=True)
class Replayed:
    """A finding as it stands, and by column what came otherwise: (column, as it stands, as computed).

    columns is how many were compared; found is False when the replay makes no such finding at all.
    """

    finding: dict[str, Any]
    run: dict[str, Any]
    columns: int
    differing: tuple[tuple[str, Any, Any], ...]
    found: bool
    notes: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the replay gave the very same finding."""
        return self.found and not self.differing


class Past(Warehouse):
    """A warehouse as it was at given versions; what is computed from it is written to scratch."""

    def __init__(self, now: Warehouse, versions: Mapping[str, int], scratch: str) -> None:
        super().__init__(now.spark, scratch)
        self._now = now
        self._versions = versions

    def exists(self, table: Table) -> bool:
        """Whether the table was there then, or is in scratch."""
        return table.name in self._versions or super().exists(table)

    def version(self, table: Table) -> int | None:
        """The version it is read at."""
        return self._versions[table.name] if table.name in self._versions else super().version(table)

    def read(self, table: Table) -> DataFrame:
        """The table at its version; else that of scratch."""
        if table.name in self._versions:
            return with_all_columns(self._now.read_at(table, self._versions[table.name]), table)
        return super().read(table)


@dataclass(frozen=True)
class _Placed(Geo):
    """Databases that need not be there any more: their build, whose places the table holds."""

    of: str = ""

    @property
    def build(self) -> str:
        return self.of


def replay(warehouse: Warehouse, settings: Settings, anomaly_id: str, scratch: str) -> Replayed:
    """Compute the finding of that id (or the only one that begins so) once more.

    Raises UsageError for an id nobody has and for settings that are not those it was judged by, and
    RaretrailError when what its run read has been vacuumed or forgotten.
    """
    finding = _finding(warehouse, anomaly_id)
    run = _run(warehouse, finding)
    forgotten = last_forgetting(warehouse)
    if forgotten and forgotten[0] > run["started_at"]:
        raise RaretrailError(
            f"{finding['anomaly_id']} cannot be replayed: part of what run {run['run_id']} read was "
            f"{forgotten[1]}, and with it went the old versions of all tables"
        )
    if finding["settings_hash"] != settings.hash:
        raise UsageError(
            f"{finding['anomaly_id']} was judged by settings {finding['settings_hash']}, these are "
            f"{settings.hash}: give the --conf, --city-db and --asn-db of that run"
        )
    notes = []
    if run["program_version"] != __version__:
        notes.append(f"it was judged by raretrail {run['program_version']}, this is {__version__}")
    past = Past(warehouse, run["input_versions"], scratch)
    geo = open_geo(settings.geo)
    geo = _Placed(geo.city, geo.asn, of=finding["geo_build"])
    start = bucket_of(finding["bucket_start"])
    try:
        score(past, settings, geo, Window(start, start + timedelta(hours=1)), finding["run_id"])
        staged = past.read(STAGED_ANOMALIES).where(F.col("anomaly_id") == finding["anomaly_id"])
        calibrations = warehouse.read(CALIBRATIONS).where(F.col("settings_hash") == settings.hash)
        rows = rows_of(with_score(staged, "bucket_date", calibrations, settings.score))
    except Exception as error:  # Spark's own, or of the bridge to its JVM
        if not _is_gone(str(error)):
            raise
        raise RaretrailError(
            f"{finding['anomaly_id']} cannot be replayed: what run {run['run_id']} read is gone; `raretrail "
            "maintain` keeps the old versions of tables for 7 days"
        ) from error
    compared = sorted(set(STAGED_ANOMALIES.column_names) - _NOT_COMPUTED)
    differing = tuple(
        (name, finding[name], row[name]) for row in rows for name in compared if row[name] != finding[name]
    )
    return Replayed(finding, run, len(compared), differing, bool(rows), tuple(notes))


def _finding(warehouse: Warehouse, anomaly_id: str) -> dict[str, Any]:
    begins = F.col("anomaly_id").startswith(anomaly_id)
    rows = rows_of(warehouse.read(ANOMALIES).where(begins).limit(2)) if anomaly_id else []
    forgotten = None if rows or not anomaly_id else forgotten_finding(warehouse, anomaly_id)
    if forgotten:
        raise RaretrailError(f"{anomaly_id} cannot be replayed: it was {forgotten}")
    if len(rows) != 1:
        raise UsageError(
            f"{anomaly_id!r}: {'no finding has' if not rows else 'several findings have'} this anomaly_id; "
            "`raretrail show` lists those of an incident"
        )
    return rows[0]


def _run(warehouse: Warehouse, finding: Mapping[str, Any]) -> dict[str, Any]:
    rows = rows_of(warehouse.read(RUNS).where(F.col("run_id") == finding["run_id"]))
    run = rows[0] if rows else {}
    if "events" not in (run.get("input_versions") or {}):
        raise RaretrailError(
            f"{finding['anomaly_id']} cannot be replayed: table runs does not say what run "
            f"{finding['run_id']} read"
        )
    return run


def _is_gone(message: str) -> bool:
    """Whether Spark or Delta says that files or versions of a table are not there any more."""
    signs = ("FILE_NOT_EXIST", "FILE_NOT_FOUND", "FileNotFoundException", "DELTA_VERSION", "VersionNotFound",
             "DELTA_CANNOT_RECONSTRUCT", "TIME_TRAVEL", "DELTA_LOG_FILE_NOT_FOUND")  # fmt: skip
    return any(sign in message for sign in signs)
