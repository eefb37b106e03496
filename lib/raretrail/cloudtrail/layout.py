"""What the path of a trail file says, and which files below a folder are worth reading.

A trail lies at `[prefix/]AWSLogs/[o-<org>/]<account>/<service>/<region>/YYYY/MM/DD/<file>`. The
record always has the last word: a path is asked only for what a record does not say, and for
what to leave unread. Paths and URIs of any scheme are understood; nothing is opened here except
by `list_local` (`objects.list_objects` is its like for S3).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Literal, NamedTuple

from raretrail.errors import UsageError

Kind = Literal["log", "digest", "insight", "other"]

# What a root of a trail begins with that names a table.
TABLE = "table:"

_KINDS: dict[str, Kind] = {
    "CloudTrail": "log",
    "CloudTrail-Digest": "digest",
    "CloudTrail-Insight": "insight",
}
_ORGANIZATION = re.compile(r"o-[a-z0-9]{3,32}")
_ACCOUNT = re.compile(r"\d{12}")
# <account>_CloudTrail_<region>_<time>_<16 characters>, and the same with the separator before the
# time or the time's Z missing; a digest's name has the trail's name and the region again.
_FILE_NAME = re.compile(
    r"(?P<account>\d{12})_(?P<kind>CloudTrail(?:-Digest|-Insight)?)_(?P<region>[a-z]{2}[a-z0-9_-]*?\d)"
    r"(?:[_-].*?)?[_-](?P<day>20\d{6})T\d{4,6}Z?(?:_.*)?\..*"
)
_REGION = re.compile(r"[a-z]{2,}(?:[-_][a-z]+)+[-_]\d+\w?")

# Files that hold no events whatever their content. Everything else is opened and judged by its
# content: a suffix nobody thought of must not lose events.
_IGNORED_NAMES = re.compile(r"(?i)(?:licen[cs]e|notice|readme|copying|changelog)(?:[.-].*)?|thumbs\.db")
_IGNORED_SUFFIXES = (
    ".md", ".rst", ".html", ".pdf", ".png", ".jpg", ".svg", ".yml", ".yaml", ".toml", ".ini",
    ".py", ".js", ".css", ".sh", ".crc", ".tmp", ".part", ".swp", ".parquet", ".avro", ".orc",
)  # fmt: skip


class PathFacts(NamedTuple):
    """What a path says. `account`, `region` and `day` (of delivery) are None where it is silent.

    `kind`: `log` holds events or may; `digest` and `insight` are the trail's own other files;
    `other` belongs to another service under the same `AWSLogs`.
    """

    kind: Kind
    account: str | None
    region: str | None
    day: date | None


@dataclass
class Access:
    """Which accounts' folders of a trail were listed, and by account what of it may not be listed or read,
    and why."""

    listed: set[str] = field(default_factory=set)
    denied: dict[str, str] = field(default_factory=dict)

    def allow(self, folder: str) -> None:
        """Note that a folder was listed."""
        account = account_of(folder)
        if account:
            self.listed.add(account)

    def deny(self, where: str, why: str) -> None:
        """Note that an account's file or folder may not be read; the first of each account stays."""
        account = describe(where).account or account_of(where)
        if account:
            self.denied.setdefault(account, f"{where}: {why}")


class FileInfo(NamedTuple):
    """One file as listed: its path, its size in bytes, its time of modification (UTC)."""

    path: str
    bytes: int
    modified_at: datetime


def is_table(root: str) -> bool:
    """Does this root of a trail name a table?"""
    return root.startswith(TABLE)


def describe(path: str) -> PathFacts:
    """What `path` (a path or URI of a file) says about the file. Never raises."""
    parts = [part for part in re.split(r"[/\\]+", path) if part]
    name = parts.pop() if parts else ""
    named = _FILE_NAME.fullmatch(name)
    kind: Kind | None = None
    account = region = None

    service_at = _service_position(parts)
    if service_at is not None:
        kind = _KINDS.get(parts[service_at], "other")
    else:
        service_at = _kind_position(parts)
        if service_at is not None:
            kind = _KINDS[parts[service_at]]
    if service_at is not None:
        if service_at and _ACCOUNT.fullmatch(parts[service_at - 1]):
            account = parts[service_at - 1]
        after = parts[service_at + 1 : service_at + 2]
        if after and _REGION.fullmatch(after[0]):
            region = after[0]
    if named:
        kind = kind or _KINDS[named["kind"]]
        account = account or named["account"]
        region = region or named["region"]
    return PathFacts(
        kind or "log",
        account,
        region.replace("_", "-") if region else None,
        day_of_folders(parts) or (_day(named["day"]) if named else None),
    )


def account_of(folder: str) -> str | None:
    """The account whose folder of a trail this is, or lies in; None for what lies above."""
    folder = folder.rstrip("/")
    return describe(f"{folder}/file").account or describe(f"{folder}/CloudTrail/file").account


def day_of_delivery(path: str, modified_at: datetime) -> date:
    """The UTC day a file was delivered: from its path, else from its time of modification."""
    return describe(path).day or modified_at.astimezone(UTC).date()


def is_candidate(name: str) -> bool:
    """May a file of this name hold events?

    No: names that start with `.` or `_` (`_SUCCESS`, `.DS_Store`), licences and read-mes, and
    suffixes of documents, images, code, checksums, half-written and columnar files. Yes:
    everything else, with or without suffix.
    """
    return not (
        name.startswith((".", "_"))
        or name.lower().endswith(_IGNORED_SUFFIXES)
        or _IGNORED_NAMES.fullmatch(name)
    )


def list_local(
    root: str, days: Collection[date] | None = None, access: Access | None = None
) -> list[FileInfo]:
    """The files below a local folder that may hold events, in the order of their paths.

    With `days`, folders `YYYY/MM/DD` of other days are not entered; files outside such folders are
    listed whatever their day. Folders of other services under `AWSLogs`, and folders that start
    with `.` or `_`, are never entered; digests and Insights are listed, so that they can be
    counted. A `root` that is a file is listed whatever its name. Given access, a folder of one
    account that may not be listed is noted there and left out.

    Raises:
        UsageError: `root` does not exist, or it or a folder below cannot be listed.
    """
    try:
        if os.path.isfile(root):
            return [_info(root, os.stat(root))]
        os.scandir(root).close()
    except OSError as error:
        raise UsageError(f"trail {root}: {error.strerror}; name a folder or file that exists") from error
    return sorted(_walk(os.path.abspath(root), days, access), key=lambda info: info.path)


def _walk(root: str, days: Collection[date] | None, access: Access | None) -> Iterator[FileInfo]:
    seen: set[tuple[int, int]] = set()
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue  # a link that leads back up
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
        except FileNotFoundError:
            continue  # removed since it was listed
        except OSError as error:
            reason = f"{error.strerror}; make it readable or leave it out"
            if access is None or not account_of(folder):
                raise UsageError(f"trail folder {folder}: {reason}") from error
            access.deny(folder, reason)
            continue
        if access:
            access.allow(folder)
        for entry in entries:
            if entry.is_dir():
                if not entry.name.startswith((".", "_")) and worth_entering(entry.path, days):
                    pending.append(entry.path)
            elif is_candidate(entry.name) and entry.is_file():
                with contextlib.suppress(FileNotFoundError):
                    yield _info(entry.path, entry.stat())


def worth_entering(folder: str, days: Collection[date] | None) -> bool:
    """May a folder hold files of these days? Not one of another service, nor one of another day, month or
    year of the trail."""
    parts = [part for part in re.split(r"[/\\]+", folder) if part]
    service_at = _service_position(parts)
    if service_at is not None and parts[service_at] not in _KINDS:
        return False
    if days is None:
        return True
    day = day_of_folders(parts)
    if day is not None:
        return day in days
    # Years and months are left out only where the layout says that they are such.
    year = parts[-3:] if len(parts) > 2 and parts[-3] in _KINDS else parts[-4:-1]
    if len(year) < 3 or year[0] not in _KINDS or not re.fullmatch(r"20\d\d", year[2]):
        return True
    if len(parts) > 2 and parts[-3] in _KINDS:
        return any(f"{day:%Y}" == parts[-1] for day in days)
    return any(f"{day:%Y/%m}" == f"{parts[-2]}/{parts[-1]}" for day in days)


def _service_position(parts: list[str]) -> int | None:
    """Where in the folders the service's name stands: after `AWSLogs/[o-<org>/]<account>/`."""
    at = next((i for i in reversed(range(len(parts))) if parts[i] == "AWSLogs"), None)
    if at is None:
        return None
    at += 1
    if at < len(parts) and _ORGANIZATION.fullmatch(parts[at]):
        at += 1
    if at < len(parts) and _ACCOUNT.fullmatch(parts[at]):
        at += 1
        return at if at < len(parts) else None
    return None


def region_position(parts: Sequence[str]) -> int | None:
    """Where in the folders that of a region of the trail stands; below it are years, months and days."""
    service_at = _kind_position(parts)
    if service_at is None or not _REGION.fullmatch("".join(parts[service_at + 1 : service_at + 2])):
        return None
    return service_at + 1


def _kind_position(parts: Sequence[str]) -> int | None:
    """In a copy of part of a trail the service's folder may stand without AWSLogs above it."""
    return next((i for i in reversed(range(len(parts))) if parts[i] in _KINDS), None)


def day_of_folders(parts: list[str]) -> date | None:
    """The day that folders `YYYY/MM/DD` among these name; None if none do."""
    for i in reversed(range(len(parts) - 2)):
        if len(parts[i]) == 4 and len(parts[i + 1]) <= 2 and len(parts[i + 2]) <= 2:
            day = _day(parts[i] + parts[i + 1].zfill(2) + parts[i + 2].zfill(2))
            if day:
                return day
    return None


def _day(digits: str) -> date | None:
    try:
        day = datetime.strptime(digits, "%Y%m%d").date()
    except ValueError:
        return None
    return day if 2000 <= day.year < 2100 else None


def _info(path: str, status: os.stat_result) -> FileInfo:
    return FileInfo(path, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))
