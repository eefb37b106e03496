"""The files of a trail in S3, listed without asking for each.

Below a region the keys of a trail are in the order of their days, so what was delivered since a day is one
listing that starts there, whatever lies before it.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import date

from raretrail import s3
from raretrail.cloudtrail.layout import (
    Access,
    FileInfo,
    account_of,
    day_of_folders,
    is_candidate,
    region_position,
    worth_entering,
)


def list_objects(
    root: str,
    days: Collection[date] | None = None,
    since: date | None = None,
    until: date | None = None,
    access: Access | None = None,
) -> list[FileInfo]:
    """The files below a prefix of S3 that may hold events, in the order of their paths, `s3://BUCKET/KEY`.

    As `layout.list_local`, with day folders before `since`, or on or after `until`, left out as well. With
    `days`, what lies in a region's folder itself is listed only if its name comes after the first day's.

    Requests: one for the root, each account and each service of the trail (log, digest, Insights); for each
    region of these one for each thousand objects of the span, at least one, and without `days` one more.

    Given access, a folder of one account that may not be listed is noted there and left out.

    Raises UsageError where the bucket or the right to list it is lacking, RaretrailError where S3 fails.
    """
    bucket, prefix = s3.split(root)
    first = max(filter(None, [since, min(days) if days else None]), default=None)

    def enter(folder: str) -> tuple[list[str], list[s3.Object]]:
        try:
            found = look_into(folder)
        except Exception as error:
            reason = s3.why(error, "s3:ListBucket")
            if access is None or not s3.is_denied(reason) or not account_of(folder):
                raise
            access.deny(f"s3://{bucket}/{folder}", reason)
            return [], []
        if access:
            access.allow(folder)
        return found

    def look_into(folder: str) -> tuple[list[str], list[s3.Object]]:
        parts = folder.split("/")[:-1]
        region_at = region_position(parts)
        if region_at is None:
            return s3.folder(bucket, folder)
        objects: list[s3.Object] = []
        region = "".join(f"{part}/" for part in parts[: region_at + 1])
        if days is None and region == folder:
            objects += s3.folder(bucket, folder)[1]
        start = f"{region}{first:%Y/%m/%d}" if first else ""
        end = f"{region}{until:%Y/%m/%d}" if until else None
        for found in s3.below(bucket, folder, start if start > folder else None):
            if end and found.key >= end and day_of_folders(found.key.split("/")[:-1]):
                break
            objects.append(found)
        return [], objects

    def is_wanted(key: str) -> bool:
        *folders, name = key.removeprefix(prefix).split("/")
        if not name or not is_candidate(name) or any(part.startswith((".", "_")) for part in folders):
            return False
        day = day_of_folders(key.split("/")[:-1])
        return day is None or (
            (days is None or day in days)
            and (since is None or day >= since)
            and (until is None or day < until)
        )

    found: dict[str, s3.Object] = {}
    with s3.told(root, "s3:ListBucket"), ThreadPoolExecutor(s3.AT_ONCE) as pool:
        if prefix and not prefix.endswith("/"):
            named = [one for one in s3.folder(bucket, prefix)[1] if one.key == prefix]
            if named:
                return [_info(bucket, named[0])]
            prefix += "/"
        pending = [prefix]
        while pending:
            below: list[str] = []
            for folders, objects in pool.map(enter, pending):
                below += [one for one in folders if _is_entered(one, days)]
                found |= {one.key: one for one in objects if is_wanted(one.key)}
            pending = below
    return sorted((_info(bucket, one) for one in found.values()), key=lambda info: info.path)


def _is_entered(folder: str, days: Collection[date] | None) -> bool:
    return not folder.split("/")[-2].startswith((".", "_")) and worth_entering(folder, days)


def _info(bucket: str, found: s3.Object) -> FileInfo:
    return FileInfo(f"s3://{bucket}/{found.key}", found.bytes, found.modified_at)
