"""New files of a trail as messages name them, in place of a listing.

Understood are what S3 sends (to SQS, SNS or EventBridge) when an object has been written, and what CloudTrail
sends to a topic of its own; each bare, in an envelope of SNS, of SQS (`aws sqs receive-message`) or of a
Lambda function's queue. Nothing is opened here but the messages.

A message is what anyone who may write to the queue wants it to be. It is taken at no more than its word: it
names objects, and of these only those below the trail count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

from raretrail.errors import UsageError
from raretrail.s3 import split

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_LONGEST = 8 * 1024 * 1024  # of one message; SQS allows 1 MiB
_DEEPEST = 6  # envelopes within each other
_LONGEST_KEY = 1024  # bytes, by S3's own rule
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class MessageError(ValueError):
    """A message that is none of those understood; says why."""


@dataclass
class Named:
    """What messages name: objects in `s3://` form, each once, in the order of the messages; how many messages
    tell of something else (tests, removals); why which are not understood; how many objects lie elsewhere."""

    objects: list[str] = field(default_factory=list)
    others: int = 0
    refused: list[str] = field(default_factory=list)
    elsewhere: int = 0


def objects_of(message: str | bytes) -> list[str]:
    """The objects one message says were written, in `s3://` form; none if it tells of something else.

    Raises MessageError if it is not understood, or names what can be no object.
    """
    if len(message) > _LONGEST:
        raise MessageError(f"is longer than {_LONGEST} bytes")
    return list(_objects(_parsed(message), _DEEPEST))


def named_below(messages: Iterable[tuple[str, str | bytes]], roots: Collection[str]) -> Named:
    """What messages, each with where it came from, name of the trail below these roots."""
    named = Named()
    trails = [_with_slash(*split(root)) for root in roots]
    seen: set[str] = set()
    for where, message in messages:
        try:
            found = objects_of(message)
        except MessageError as error:
            named.refused.append(f"{where}: {error}")
            continue
        named.others += not found
        for one in found:
            if one in seen:
                continue
            seen.add(one)
            if any(one == trail.rstrip("/") or one.startswith(trail) for trail in trails):
                named.objects.append(one)
            else:
                named.elsewhere += 1
    return named


def messages_in(location: str) -> Iterator[tuple[str, bytes]]:
    """The messages of a file of JSON lines, or of a folder of such files, each with where it stands.

    A file that is one JSON document over several lines is one message. Names that start with a dot or an
    underscore are left. UsageError where there is nothing to read.
    """
    path = Path(location)
    if not path.exists():
        raise UsageError(f"--files-from {location}: no such file or folder")
    hidden = (".", "_")
    files = [path] if path.is_file() else [f for f in sorted(path.iterdir()) if not f.name.startswith(hidden)]
    for file in files:
        if not file.is_file():
            continue
        try:
            whole = file.read_bytes()
        except OSError as error:
            raise UsageError(f"--files-from {file}: {error.strerror}; make it readable") from None
        lines = [(number, line) for number, line in enumerate(whole.splitlines(), 1) if line.strip()]
        if len(lines) > 1 and _is_json(whole):
            yield str(file), whole
        else:
            yield from ((f"{file} line {number}", line) for number, line in lines)


def _with_slash(bucket: str, prefix: str) -> str:
    return f"s3://{bucket}/{prefix.rstrip('/')}/" if prefix.strip("/") else f"s3://{bucket}/"


def _is_json(text: bytes) -> bool:
    try:
        _parsed(text)
    except MessageError:
        return False
    return True


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"is not JSON: {type(error).__name__}") from None


def _objects(message: Any, depth: int) -> Iterator[str]:
    if not isinstance(message, dict):
        raise MessageError("is no JSON object")
    if not depth:
        raise MessageError("is wrapped too many times")
    if isinstance(message.get("Messages"), list):  # `aws sqs receive-message`
        for one in message["Messages"]:
            yield from _objects(one, depth - 1)
    elif "Body" in message or message.get("Type") == "Notification":  # SQS; SNS
        yield from _objects(_parsed(_text(message.get("Body", message.get("Message")))), depth - 1)
    elif isinstance(message.get("Records"), list):
        for one in message["Records"]:
            yield from _of_record(one, depth)
    elif message.get("source") == "aws.s3" and isinstance(message.get("detail"), dict):  # EventBridge
        if message.get("detail-type") == "Object Created":
            detail = message["detail"]
            yield _location(_within(detail, "bucket", "name"), _within(detail, "object", "key"))
    elif "s3Bucket" in message and "s3ObjectKey" in message:  # CloudTrail's own
        keys = message["s3ObjectKey"]
        for key in keys if isinstance(keys, list) else [keys]:
            yield _location(message["s3Bucket"], key)
    elif message.get("Event") != "s3:TestEvent" and "Type" not in message:
        # What SNS sends of itself (a confirmation of a subscription) has a Type.
        raise MessageError("is no notification of S3 or CloudTrail")


def _of_record(record: Any, depth: int) -> Iterator[str]:
    if not isinstance(record, dict):
        raise MessageError("has a record that is no JSON object")
    source = record.get("eventSource", record.get("EventSource"))
    if source == "aws:sqs":
        yield from _objects(_parsed(_text(record.get("body"))), depth - 1)
    elif source == "aws:sns":
        yield from _objects(_parsed(_text(_within(record, "Sns", "Message"))), depth - 1)
    elif source == "aws:s3":
        if _text(record.get("eventName")).removeprefix("s3:").startswith("ObjectCreated:"):
            # S3 writes keys here, and only here, as forms are written.
            key = unquote_plus(_text(_within(record, "s3", "object", "key")), errors="surrogateescape")
            yield _location(_within(record, "s3", "bucket", "name"), key)
    else:
        raise MessageError("has a record that is not of S3")


def _within(tree: Any, *names: str) -> Any:
    for name in names:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise MessageError("has something else where a text belongs")
    return value


def _location(bucket: Any, key: Any) -> str:
    if not _BUCKET.fullmatch(_text(bucket)):
        raise MessageError("names no bucket")
    try:
        length = len(_text(key).encode())
    except UnicodeEncodeError:
        raise MessageError("names no key") from None
    if not 0 < length <= _LONGEST_KEY or _CONTROL.search(key):
        raise MessageError("names no key")
    return f"s3://{bucket}/{key}"
