"""What people said since: dispositions and change windows, read, judged and laid on what is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pyspark.sql import functions as F

from raretrail.detect.dispositions import (
    STATE_COLUMNS,
    to_incident_states,
    with_states,
    with_suppressed_by,
)
from raretrail.detect.rules import Rule, named_since, to_rules
from raretrail.settings import Settings
from raretrail.tables import ANOMALIES, CHANGE_WINDOWS, DISPOSITIONS, INCIDENTS
from raretrail.warehouse import Warehouse

# What is said later reaches back so far, and to every incident it names.
REACH_DAYS = 30
# An incident's findings lie within so many days.
_CHAIN_DAYS = 35
_SHOWN_PROBLEMS = 10


@dataclass(frozen=True)
class Said:
    """The rules as of a run, what of the rows cannot be used, the Delta versions they were read at."""

    rules: tuple[Rule, ...]
    problems: tuple[str, ...]
    versions: Mapping[str, int]
    is_news: bool
    """Whether anything was written since the last run that laid it on."""
    named: frozenset[str]
    """The incidents that what was written since then names."""

    @property
    def messages(self) -> list[str]:
        """What to tell of rows that cannot be used."""
        if not self.problems:
            return []
        shown = list(self.problems[:_SHOWN_PROBLEMS])
        if len(self.problems) > len(shown):
            shown.append(f"and {len(self.problems) - len(shown)} more")
        return ["ignored, since it cannot be used: " + "; ".join(shown)]


def read_said(
    warehouse: Warehouse,
    settings: Settings,
    now: datetime,
    earlier: Sequence[Mapping[str, Any]],
    oldest: datetime,
) -> Said:
    """What was said as of now, for findings from `oldest` on. earlier are the records of the runs before.

    The tables are made, so that SQL can write to them.
    """
    versions = {}
    rows: list[list[dict[str, Any]]] = []
    for table in (DISPOSITIONS, CHANGE_WINDOWS):
        warehouse.create(table)
        # The version goes first: what is written in between is read now and laid on once more.
        versions[table.name] = warehouse.version(table) or 0
        rows.append([row.asDict() for row in warehouse.read(table).collect()])
    rules, problems = to_rules(rows[0], rows[1], now, {detector.name for detector in settings.detectors})
    last = next(
        (run for run in reversed(earlier) if DISPOSITIONS.name in (run["input_versions"] or {})), None
    )
    known = (last["input_versions"] or {}) if last else {}
    since = last["started_at"] if last else datetime.min.replace(tzinfo=UTC)
    named = named_since(rows[0], since)
    # An incident is named after it began; so older rules that name one cannot matter, and do not pile up.
    cutoff = oldest - timedelta(days=REACH_DAYS + 2 * _CHAIN_DAYS)
    kept = [r for r in rules if r.incident_id is None or r.incident_id in named or r.created_at >= cutoff]
    is_news = any(known.get(name) != version for name, version in versions.items()) if last else bool(rules)
    return Said(tuple(kept), tuple(problems), versions, is_news, frozenset(named))


def lay_on(warehouse: Warehouse, said: Said, as_of: date) -> int:
    """Mark the findings and incidents of the last 30 days, and the incidents newly named, as the rules
    say now; scores stay. How many findings changed."""
    rules = said.rules
    if not warehouse.exists(ANOMALIES) or not warehouse.exists(INCIDENTS):
        return 0
    warehouse.create(ANOMALIES)
    warehouse.create(INCIDENTS)
    recent = F.col("last_time") >= F.lit(as_of - timedelta(days=REACH_DAYS))
    named = F.lit(False)
    if said.named:
        ids = sorted(said.named)
        formerly = F.coalesce(F.arrays_overlap("supersedes", F.array(*map(F.lit, ids))), F.lit(False))
        named = F.col("incident_id").isin(*ids) | formerly
    chosen = warehouse.read(INCIDENTS).where(recent | named)
    first = chosen.agg(F.min("first_date").alias("day")).first()
    if first is None or first["day"] is None:
        return 0
    start = min(first["day"], as_of - timedelta(days=_CHAIN_DAYS))
    findings = (
        warehouse.read(ANOMALIES)
        .where(F.col("bucket_date") >= F.lit(start))
        .join(F.broadcast(chosen.select("incident_id")), "incident_id", "left_semi")
        .withColumn("was", F.col("suppressed_by"))
    )
    marked = warehouse.stage("marked", with_suppressed_by(findings, rules), few=True)
    changed = marked.where(~F.col("suppressed_by").eqNullSafe(F.col("was")))
    count = changed.count()
    if count:
        warehouse.merge(
            ANOMALIES, changed, update=["suppressed_by"], only=f"t.bucket_date >= DATE'{start}'", few=True
        )
    states = to_incident_states(marked, rules)
    stale = with_states(
        chosen.withColumn("was", F.struct(*STATE_COLUMNS)), states
    ).where(F.struct(*STATE_COLUMNS) != F.col("was"))  # fmt: skip
    warehouse.merge(INCIDENTS, stale, update=STATE_COLUMNS, few=True)
    return count
