"""Records as the table `events` has them, without files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from raretrail.cloudtrail.decode import decode_file, events_batch
from raretrail.cloudtrail.principals import load_rules

_RULES = load_rules(Path(__file__).parents[1] / "conf" / "principals.yml")


def events_of(spark: SparkSession, records: Iterable[dict[str, Any]]) -> DataFrame:
    """The records decoded: `tables.DECODED_COLUMNS`."""
    result = decode_file("file.json", json.dumps({"Records": list(records)}).encode(), rules=_RULES)
    return spark.createDataFrame(pa.Table.from_batches([events_batch([result])]))
