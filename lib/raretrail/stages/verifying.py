"""Holding a trail to its digests, and writing what was found."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from raretrail.cloudtrail.digests import verify
from raretrail.cloudtrail.layout import describe, list_local
from raretrail.errors import UsageError
from raretrail.tables import DIGEST_RESULTS
from raretrail.warehouse import Warehouse, local_path

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey


def verify_trail(trail: Sequence[str], keys: Sequence[RSAPublicKey], now: datetime) -> list[dict[str, Any]]:
    """Rows of `DIGEST_RESULTS` for what lies below the folders of a trail on this machine.

    Raises:
        UsageError: no trail is named, one lies elsewhere, or none holds a digest.
    """
    if not trail:
        raise UsageError("no trail to check: give --trail PATH or the setting trail")
    paths: dict[str, None] = {}
    for root in trail:
        local = local_path(root)
        if local is None:
            raise UsageError(
                f"--trail {root}: digests of a copy on this machine can be checked; make one with "
                "`aws s3 sync`, or let `aws cloudtrail validate-logs` check it where it lies"
            )
        paths |= dict.fromkeys(file.path for file in list_local(str(local)))
    kinds = {path: describe(path).kind for path in paths}
    digests = [path for path, kind in kinds.items() if kind == "digest" and not path.endswith(".signature")]
    if not digests:
        raise UsageError(f"{' '.join(trail)}: no digest file below; does the trail deliver them?")
    logs = [path for path, kind in kinds.items() if kind == "log"]
    findings = verify(digests, logs, _bytes, keys)
    names = [name for name in DIGEST_RESULTS.column_names if name != "checked_at"]
    # A file that two digests name keeps the worst that was found of it.
    rows: dict[str, dict[str, Any]] = {}
    for finding in findings:
        before = rows.get(finding.source_file)
        if before is None or _WORSE.index(finding.status) < _WORSE.index(before["status"]):
            rows[finding.source_file] = dict(zip(names, finding, strict=True)) | {"checked_at": now}
    return sorted(rows.values(), key=lambda row: (_WORSE.index(row["status"]), row["source_file"]))


_WORSE = ("altered", "missing", "unlisted", "unreadable", "unproven", "valid")


def _bytes(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def write_results(warehouse: Warehouse, rows: Sequence[dict[str, Any]]) -> None:
    """Merge rows into `digest_results`."""
    frame = warehouse.spark.createDataFrame(list(rows), DIGEST_RESULTS.spark_schema())
    warehouse.merge(DIGEST_RESULTS, frame)
