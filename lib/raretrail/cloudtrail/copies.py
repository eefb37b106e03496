"""Copies: which record of an id becomes the event, which are its copies, which have other content."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

KEY = ("recipient_account_id", "event_id")


def with_verdict(records: DataFrame, stored: DataFrame) -> DataFrame:
    """records and those of stored that share a key, plus `is_stored` and `verdict`.

    Both have KEY, record_hash, source_file, source_position, event_date. Of the contents under one
    key that with the smallest hash is kept, whatever came first; of its copies the stored one, else
    the first by file and position. verdict: event (the one kept), duplicate (a copy of it), id_reused
    (other content). A record that stands in the warehouse already, read again after a run was
    killed, is `event` again and has `is_present`.
    """
    columns = [*KEY, "record_hash", "source_file", "source_position", "event_date"]
    both = (
        records.select(*columns, F.lit(False).alias("is_stored"))
        .unionByName(
            stored.select(*columns, F.lit(True).alias("is_stored")).join(
                records.select(*KEY).distinct(), list(KEY), "left_semi"
            )
        )
        .withColumn(
            "kept",
            F.min(
                F.struct(
                    "record_hash",
                    (~F.col("is_stored")).alias("is_fresh"),
                    "source_file",
                    "source_position",
                )
            ).over(Window.partitionBy(*KEY)),
        )
    )
    same_place = (F.col("source_file") == F.col("kept.source_file")) & (
        F.col("source_position") == F.col("kept.source_position")
    )
    same_content = F.col("record_hash") == F.col("kept.record_hash")
    return both.withColumn(
        "verdict",
        F.when(~same_content, "id_reused").when(same_place, "event").otherwise("duplicate"),
    ).withColumn("is_present", same_place & same_content & ~F.col("kept.is_fresh"))


def to_file_verdicts(judged: DataFrame) -> DataFrame:
    """One row a file: events, duplicates, reused, displaced; positions to leave out; days touched.

    displaced counts stored events that lost their id to a record of this batch.
    """
    fresh = ~F.col("is_stored")
    verdict = F.col("verdict")
    position = F.col("source_position").cast("int")
    not_written = fresh & ((verdict == "duplicate") | F.col("is_present"))
    return judged.groupBy("source_file").agg(
        F.count_if(fresh & (verdict == "event")).alias("events"),
        F.count_if(fresh & (verdict == "duplicate")).alias("duplicates"),
        F.count_if(fresh & (verdict == "id_reused")).alias("reused"),
        F.count_if(~fresh & (verdict != "event")).alias("displaced"),
        F.collect_list(F.when(not_written, position)).alias("leave_out"),
        F.collect_list(F.when(fresh & (verdict == "id_reused"), position)).alias("reused_at"),
        F.collect_set(
            F.when(
                (fresh & (verdict == "event")) | (~fresh & (verdict != "event")),
                F.col("event_date"),
            )
        ).alias("days"),
    )
