"""The lock of a warehouse in S3: an object that one run holds and keeps young.

S3 knows no locks, but it writes an object on condition: only where there is none (If-None-Match), or only
over the one that was seen (If-Match). Whoever writes the object holds the warehouse, and writes it again
every minute. Of a run that died the object grows old, and after `LASTS` the next run writes over it. How old
it is, the server says; clocks of this machine do not count.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from raretrail import s3
from raretrail.errors import BusyError, RaretrailError, UsageError

# A dead run's lock blocks others this long; a run that cannot renew its own for as long gives up.
LASTS = timedelta(minutes=5)
_RENEWED_EVERY = LASTS / 5
_NAME = "_raretrail.lock"
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


class Lease:
    """The lock, held from `take` until `release`; `require` raises when it has been lost."""

    def __init__(self, location: str, lasts: timedelta = LASTS) -> None:
        self.location = location
        self._bucket, prefix = s3.split(location.rstrip("/"))
        self._key = f"{prefix}/{_NAME}" if prefix else _NAME
        self._lasts = lasts
        self._etag = ""
        self._renewed = 0.0
        self._ended = threading.Event()
        self._lost: str | None = None
        self._thread: threading.Thread | None = None

    def take(self) -> None:
        """Hold the warehouse; BusyError where another run does.

        UsageError where the server writes whatever the condition: it could not keep two runs apart.
        """
        with s3.told(f"--warehouse {self.location}", "s3:GetObject and s3:PutObject"):
            while not self._put(IfNoneMatch="*"):
                found = self._find()
                if found is None:
                    continue  # taken away in between
                if found.holder and found.age < self._lasts:
                    raise BusyError(
                        f"{self.location}: {found.holder} is running on this warehouse, last heard of "
                        f"{found.age.total_seconds():.0f} s ago; try again when it is done. If it has died, "
                        f"this passes {self._lasts.total_seconds():.0f} s after it was last heard of"
                    )
                if self._put(IfMatch=found.etag):
                    break
            if self._put(IfNoneMatch="*"):
                raise UsageError(
                    f"--warehouse {self.location}: this server writes over objects where it is asked not to "
                    "(no conditional writes), so that two runs at once would lose data; see "
                    "docs/object-storage.md"
                )
        self._thread = threading.Thread(target=self._keep, name="raretrail-lease", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """RaretrailError where the lock has been lost: another run may be writing already."""
        if self._lost is None and time.monotonic() - self._renewed > self._lasts.total_seconds():
            self._lost = "it could not be renewed in time"
        if self._lost is not None:
            raise RaretrailError(
                f"{self.location}: the lock of the warehouse was lost ({self._lost}); nothing more is "
                "written, run again"
            )

    def release(self) -> None:
        """Let others in."""
        self._ended.set()
        if self._thread:
            self._thread.join()
        if self._lost is None and self._etag:
            with suppress(Exception):  # it grows old by itself
                self._put(holder="", IfMatch=self._etag)

    def _keep(self) -> None:
        every = _RENEWED_EVERY.total_seconds() * (self._lasts / LASTS)
        while not self._ended.wait(every):
            with suppress(Exception):  # tried again; `require` says when it has been too long
                if not self._put(IfMatch=self._etag):
                    self._lost = "another run took over"
                    return

    def _put(self, holder: str | None = None, **condition: str) -> bool:
        from botocore.exceptions import ClientError

        asked = time.monotonic()
        told = f"process {os.getpid()} on {socket.gethostname()}" if holder is None else holder
        mark = uuid.uuid4().hex
        body = json.dumps({"holder": told, "mark": mark})
        try:
            answer = s3.ask("put_object", Bucket=self._bucket, Key=self._key, Body=body.encode(), **condition)
        except ClientError as error:
            if error.response["Error"].get("Code") not in _TAKEN:
                raise
            # A request whose answer was lost is sent again, and then finds its own object there.
            found = self._find()
            if found is None or found.mark != mark:
                return False
            answer = {"ETag": found.etag}
        self._etag, self._renewed = answer["ETag"], asked
        return True

    def _find(self) -> _Found | None:
        from botocore.exceptions import ClientError

        try:
            text, answer = s3.whole(self._bucket, self._key)
        except ClientError as error:
            if error.response["Error"].get("Code") in ("NoSuchKey", "404"):
                return None
            raise
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        age = max(now - answer["LastModified"], timedelta(0))
        try:
            body = json.loads(text)
            return _Found(str(body["holder"]), str(body["mark"]), answer["ETag"], age)
        except (ValueError, KeyError, TypeError):
            return _Found("another process", "", answer["ETag"], age)


class _Found(NamedTuple):
    """Who holds the lock (nobody where it was released), by which write; its age by the server's clock."""

    holder: str
    mark: str
    etag: str
    age: timedelta


@contextmanager
def held(location: str, lasts: timedelta = LASTS) -> Iterator[Lease]:
    """Hold a warehouse in S3 for the length of a block."""
    lease = Lease(location, lasts)
    try:
        lease.take()  # which may have written it and fail then
        yield lease
    finally:
        lease.release()
