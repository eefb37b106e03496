"""Tombstones and the key that tells whom they are of, which lies outside the warehouse."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pyspark.sql import functions as F

from raretrail.cloudtrail.forgotten import KEY, KEY_FILE, Forgotten, Tombstone, hashed, key_id, key_of
from raretrail.errors import UsageError
from raretrail.tables import FORGETTINGS, TOMBSTONES
from raretrail.warehouse import Warehouse, rows_of


def require_key(warehouse: Warehouse, environment: Mapping[str, str] = os.environ) -> bytes:
    """The key, where it is that of the tombstones there are; UsageError otherwise."""
    key = key_of(warehouse.directory, environment)
    if key is None:
        raise UsageError(
            f"{warehouse.location}: only a key tells whom tombstones are of: set {KEY} or {KEY_FILE} "
            "(docs/privacy.md says how, and what to do where it is lost)"
        )
    known = warehouse.read(TOMBSTONES).select("key_id").distinct().collect()
    strange = sorted({row["key_id"] for row in known} - {key_id(key)})
    if strange:
        raise UsageError(
            f"{warehouse.location}: tombstones are of key {', '.join(strange)}, that given is {key_id(key)}; "
            "give theirs (docs/privacy.md says what to do where it is lost)"
        )
    return key


def read_forgotten(warehouse: Warehouse, environment: Mapping[str, str] = os.environ) -> Forgotten | None:
    """Everybody forgotten; None where nobody was. UsageError where the key of the tombstones is not given."""
    if not warehouse.exists(TOMBSTONES):
        return None
    columns = ("kind", "hash", "recipient_account_id", F.unix_micros("forgotten_at"))
    rows = warehouse.read(TOMBSTONES).select(*columns).collect()
    return Forgotten(require_key(warehouse, environment), [Tombstone(*row) for row in rows]) if rows else None


def forgotten_finding(
    warehouse: Warehouse, anomaly_id: str, environment: Mapping[str, str] = os.environ
) -> str | None:
    """When a finding was forgotten and the receipt, in words, where the key that can tell is given."""
    key = key_of(warehouse.directory, environment) if warehouse.exists(TOMBSTONES) else None
    if key is None:
        return None
    rows = rows_of(warehouse.read(TOMBSTONES).where(F.col("hash") == hashed(key, "finding", anomaly_id)))
    return _when(rows[0]) if rows else None


def last_forgetting(warehouse: Warehouse) -> tuple[datetime, str] | None:
    """When somebody was forgotten last, and that with the receipt in words; None for never."""
    rows = rows_of(warehouse.read(FORGETTINGS).orderBy(F.desc("forgotten_at")).limit(1))
    return (rows[0]["forgotten_at"], _when(rows[0])) if rows else None


def _when(row: Mapping[str, Any]) -> str:
    return f"forgotten at {row['forgotten_at']:%Y-%m-%d %H:%M} UTC (receipt {row['receipt_id']})"
