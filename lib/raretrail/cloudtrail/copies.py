"""Copies: which record of an id becomes the event, which are its copies, which have other content or are
corrected by another."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

KEY = ("recipient_account_id", "event_id")


_PLACE = ("source_file", "source_position")
_COLUMNS = (*KEY, "record_hash", *_PLACE, "event_date", "corrects_event_id")


def is_own_correction() -> Column:
    """Whether a record corrects another of its own id."""
    return F.coalesce(F.col("corrects_event_id") == F.col("event_id"), F.lit(False))


def with_verdict(records: DataFrame, stored: DataFrame, aside: DataFrame | None = None) -> DataFrame:
    """records and those of stored that they decide upon, plus `is_stored` and `verdict`.

    Both have KEY, record_hash, source_file, source_position, event_date, corrects_event_id. Of the
    contents under one key a correction goes before the others, and then the smallest hash, whatever
    came first; of its copies the stored one, else the first by file and position. Of an event and those
    that correct it the correction with the smallest hash stays. verdict: event (the one kept), duplicate
    (a copy of it, or of one set aside), id_reused (other content), superseded (corrected). A record that
    stands in the warehouse already, read again after a run was killed, is `event` again and has
    `is_present`.

    aside (KEY, record_hash and place) are records set aside as reused or superseded before. Without it
    this is a first look, which is the last where `to_file_verdicts` counts nothing reused or corrected.
    """
    named = records.select(*KEY).unionByName(
        records.where("corrects_event_id IS NOT NULL").select(
            "recipient_account_id", F.col("corrects_event_id").alias("event_id")
        )
    )
    corrected = ("recipient_account_id", "corrects_event_id")
    of_same_id = stored.join(named.distinct(), list(KEY), "left_semi")
    of_their_own = stored.where("corrects_event_id IS NOT NULL").join(
        named.withColumnRenamed("event_id", "corrects_event_id"), list(corrected), "left_semi"
    )
    related = of_same_id.select(*_COLUMNS).unionByName(of_their_own.select(*_COLUMNS)).distinct()
    order = F.struct(
        (~is_own_correction()).alias("is_other"),
        "record_hash",
        (~F.col("is_stored")).alias("is_fresh"),
        *_PLACE,
    )
    both = (
        records.select(*_COLUMNS, F.lit(False).alias("is_stored"))
        .unionByName(related.withColumn("is_stored", F.lit(True)))
        .withColumn("kept", F.min(order).over(Window.partitionBy(*KEY)))
    )
    same_place = (F.col("source_file") == F.col("kept.source_file")) & (
        F.col("source_position") == F.col("kept.source_position")
    )
    same_content = F.col("record_hash") == F.col("kept.record_hash")
    other = F.when(F.col("kept.is_other"), "id_reused").otherwise("superseded")
    judged = both.withColumn(
        "verdict", F.when(~same_content, other).when(same_place, "event").otherwise("duplicate")
    ).withColumn("is_present", same_place & same_content & ~F.col("kept.is_fresh"))
    return judged if aside is None else _only_one_aside(_with_corrected(judged), aside)


def _with_corrected(judged: DataFrame) -> DataFrame:
    """judged, where of the events that are one call, an event and those that correct it, one stays."""
    is_correction = F.col("corrects_event_id").isNotNull()
    call = F.coalesce("corrects_event_id", "event_id")
    order = F.when(
        F.col("verdict") == "event", F.struct((~is_correction).alias("is_other"), "record_hash", "event_id")
    )
    best = F.min(order).over(Window.partitionBy("recipient_account_id", call))
    corrected = (F.col("verdict") == "event") & (best["event_id"] != F.col("event_id"))
    return judged.withColumns(
        {
            "verdict": F.when(corrected, "superseded").otherwise(F.col("verdict")),
            "is_present": F.col("is_present") & ~corrected,
        }
    )


def _only_one_aside(judged: DataFrame, aside: DataFrame) -> DataFrame:
    """judged, where of copies with one content one is set aside, the stored one first."""
    is_aside = F.col("verdict").isin("id_reused", "superseded")
    content = Window.partitionBy(*KEY, "record_hash", is_aside)
    nth = F.row_number().over(content.orderBy(F.desc("is_stored"), *_PLACE))
    known = aside.groupBy(*KEY, "record_hash").agg(F.min(F.struct(*_PLACE)).alias("there"))
    elsewhere = F.struct(*_PLACE) != F.col("there")
    copy = is_aside & F.when(F.col("there").isNotNull(), elsewhere).otherwise(F.col("nth") > 1)
    verdict = F.when(copy & ~F.col("is_stored"), "duplicate").otherwise(F.col("verdict"))
    return (
        judged.withColumn("nth", nth)
        .join(known, [*KEY, "record_hash"], "left")
        .withColumn("verdict", verdict)
        .drop("there", "nth")
    )


def to_file_verdicts(judged: DataFrame) -> DataFrame:
    """One row a file: events, duplicates, reused (those set aside), superseded, corrections, displaced;
    positions to leave out, to set aside, and of these the superseded; days touched.

    displaced counts stored events that lost their id or their place to a record of this batch.
    """
    aside = F.col("verdict").isin("id_reused", "superseded")
    fresh = ~F.col("is_stored")
    verdict = F.col("verdict")
    position = F.col("source_position").cast("int")
    not_written = fresh & ((verdict == "duplicate") | F.col("is_present"))
    return judged.groupBy("source_file").agg(
        F.count_if(fresh & (verdict == "event")).alias("events"),
        F.count_if(fresh & (verdict == "duplicate")).alias("duplicates"),
        F.count_if(fresh & aside).alias("reused"),
        F.count_if(verdict == "superseded").alias("superseded"),
        F.count("corrects_event_id").alias("corrections"),
        F.count_if(~fresh & (verdict != "event")).alias("displaced"),
        F.collect_list(F.when(not_written, position)).alias("leave_out"),
        F.collect_list(F.when(fresh & aside, position)).alias("reused_at"),
        F.collect_list(F.when(fresh & (verdict == "superseded"), position)).alias("superseded_at"),
        F.collect_set(
            F.when(
                (fresh & (verdict == "event")) | (~fresh & (verdict != "event")),
                F.col("event_date"),
            )
        ).alias("days"),
    )
