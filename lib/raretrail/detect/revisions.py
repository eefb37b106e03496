"""Revisions: what became of findings published before, and why."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

# What makes a published finding another than it was.
REVISED_BY = ("bits", "event_count", "evidence_event_ids")
# Its terms, in the order they are told.
TERMS = (
    "place_bits",
    "network_bits",
    "prefix_bits",
    "jump_bits",
    "agent_bits",
    "hour_bits",
    "host_bits",
    "command_bits",
    "error_bits",
    "spike_bits",
    "maturity",
)
# What a revision says of the finding itself.
NAMED = (
    "anomaly_id",
    "detector",
    "bucket_start",
    "recipient_account_id",
    "principal",
    "command",
    "place_name",
)
# What a judged finding carries of the row published before.
WAS = (
    "incident_id",
    "suppressed_by",
    "former_incident_ids",
    "first_scored_at",
    "score_revision",
    "settings_hash",
    "score",
    *REVISED_BY,
    *TERMS,
)


def is_revised() -> Column:
    """Whether a finding is another than its struct `was`; false where it was not published."""
    differs = F.struct(*REVISED_BY) != F.struct(*[F.col(f"was.{name}") for name in REVISED_BY])
    return F.coalesce(F.col("was").isNotNull() & differs, F.lit(False))


def is_told(is_late: Column) -> Column:
    """Whether a revision is kept: not that a bucket still filling gained events which changed no bits."""
    return is_revised() & (is_late | (F.col("bits") != F.col("was.bits")))


def with_former_ids(findings: DataFrame) -> DataFrame:
    """findings (with incident_id, and what each was) with the incidents they were in before added to
    former_incident_ids, without the one each is in now."""
    was_in = F.when(F.col("was").isNotNull(), F.array("was.incident_id"))
    none = F.array().cast("array<string>")
    ids = F.array_union(F.coalesce("former_incident_ids", none), F.coalesce(was_in, none))
    others = F.array_sort(F.array_remove(ids, F.col("incident_id")))
    return findings.withColumn("former_incident_ids", F.when(F.size(others) > 0, others))


def to_revisions(
    judged: DataFrame, gone: DataFrame, is_late: Column, touched: DataFrame | None, *, met_late: bool = False
) -> DataFrame:
    """`tables.REVISIONS` but revised_at, revised_date and run_id, of findings judged once more.

    judged are scored and carry what they `was` (null where new); gone are published ones that no longer
    stand. is_late tells by bucket_start whether events came late for the bucket, touched (anomaly_id) are
    those judged again for what they rest on; with met_late the run met something late, of which others
    with the same events as before changed too.
    """
    late = F.col("is_late")
    revised = judged.where(is_told(is_late)).withColumn("is_late", is_late)
    stands = revised.select(
        *NAMED,
        F.lit(False).alias("withdrawn"),
        "score_revision",
        "late_minutes",
        "bits",
        "score",
        "event_count",
        "incident_id",
        F.filter(F.array(*[_changed(term) for term in TERMS]), lambda told: told.isNotNull()).alias(
            "changed"
        ),
        (F.col("settings_hash") != F.col("was.settings_hash")).alias("other_settings"),
        "is_late",
        "was",
    )
    nothing = {"bits": "double", "score": "double", "event_count": "bigint", "incident_id": "string"}
    nothing |= {"changed": "array<string>"}
    fallen = gone.withColumn("is_late", is_late).select(
        *NAMED,
        F.lit(True).alias("withdrawn"),
        (F.col("score_revision") + 1).alias("score_revision"),
        "late_minutes",
        *[F.lit(None).cast(kind).alias(name) for name, kind in nothing.items()],
        F.lit(False).alias("other_settings"),
        "is_late",
        "was",
    )
    rows = stands.unionByName(fallen)
    if touched is None:
        rows = rows.withColumn("is_touched", F.lit(False))
    else:
        named = F.broadcast(touched.select("anomaly_id", F.lit(True).alias("is_touched")))
        rows = rows.join(named, "anomaly_id", "left")
    same_events = F.col("withdrawn") | (F.col("event_count") == F.col("was.event_count"))
    reason = (
        F.when(F.col("other_settings"), "settings")
        .when(late, "late_events")
        .when(F.col("is_touched") | (F.lit(met_late) & same_events), "late_history")
        .otherwise("judged_again")
    )
    return rows.withColumns(
        {
            "reason": reason,
            "was_bits": F.col("was.bits"),
            "was_score": F.col("was.score"),
            "was_event_count": F.col("was.event_count"),
            "was_incident_id": F.col("was.incident_id"),
        }
    ).drop("was", "is_late", "is_touched", "other_settings")


def _changed(term: str) -> Column:
    was, now = F.coalesce(f"was.{term}", F.lit(0.0)), F.coalesce(term, F.lit(0.0))
    shown = [F.format_string("%.2f", value) for value in (was, now)]
    return F.when(was != now, F.concat(F.lit(f"{term} "), shown[0], F.lit(" to "), shown[1]))
