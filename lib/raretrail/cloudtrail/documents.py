"""From the bytes of a file to the texts of its records, whatever shape they come in.

Shapes, by content and never by name: `{"Records": [...]}`, a bare array, one event, JSON lines or
documents one after another, the answer of `LookupEvents`, EventBridge events, `{"aws":
{"cloudtrail": ...}}`, rows of a table and OCSF events; each plain or gzip, also with members one after
another and gzip in gzip.
What is damaged is read around: whole records are kept, the rest is set aside as it stands.

Texts of records come without the whitespace between tokens, so that a pretty-printed copy equals
the delivered record; nothing else in them is touched.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import zlib
from collections.abc import Callable
from json.decoder import scanstring  # type: ignore[attr-defined]  # not in typeshed
from typing import Any, NamedTuple

import msgspec

from raretrail.cloudtrail import flattened, ocsf

_decompressor: Callable[..., Any]
try:
    from isal import isal_zlib

    _decompressor = isal_zlib.decompressobj
except ImportError:  # a platform without wheels
    _decompressor = zlib.decompressobj


class Limits(NamedTuple):
    """Bounds, in bytes. Of a file: its decompressed size, and how many `records` it may hold, above
    which it is set aside as a whole (memory is a small multiple of it). Of a record: its size as
    compact JSON. `raw` is how much of the text of what is set aside is kept."""

    file: int = 512 * 1024**2
    record: int = 4 * 1024**2
    raw: int = 1024**2
    records: int = 1_000_000


class Damage(NamedTuple):
    """A piece of a file that is no record: why, what exactly, and its text."""

    reason: str
    detail: str
    text: bytes
    whole_bytes: int | None = None  # where `text` is only the start


Piece = bytes | msgspec.Raw | Damage


class Document(NamedTuple):
    """A file taken apart. `status` as in the ledger; `pieces` in the order of the file."""

    shape: str
    status: str
    detail: str | None
    pieces: list[Piece]


class _TooLarge(Exception):
    def __init__(self, start: bytes) -> None:
        self.start = start


class _TooMany(Exception):
    """More records than a file may hold."""


class _Envelope(msgspec.Struct, gc=False):
    Records: list[msgspec.Raw] | None = None
    Events: list[msgspec.Raw] | None = None


# Keys that say "this is a CloudTrail record", in lower case: two of them are enough.
SIGNATURE = frozenset(("eventversion", "eventtime", "eventname", "eventsource", "eventid", "useridentity"))

_envelope = msgspec.json.Decoder(_Envelope).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_string = msgspec.json.Decoder(str).decode

_BLANK = b" \t\r\n\0"
_GZIP = b"\x1f\x8b"
_OTHER_FORMATS = {
    b"(\xb5/\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
    b"PAR1": "Parquet",
    b"Obj\x01": "Avro",
    b"\x04\x22\x4d\x18": "lz4",
    b"SQLite format 3": "SQLite",
}


def read_document(data: bytes, limits: Limits, unwrap: str | None = None) -> Document:
    """Take the bytes of one file apart into records and damage. Never raises on any bytes.

    `unwrap` names a key under which documents of an unknown shape carry their record.
    """
    if not data:
        return Document("empty", "empty", "no bytes", [])
    try:
        text, notes, tail = _inflate(data, limits.file)
    except _TooLarge as large:
        detail = f"more than {limits.file} bytes decompressed"
        return Document(
            "unknown",
            "taken",
            detail,
            [Damage("too_large", detail, large.start[: limits.raw], len(data))],
        )
    text = _utf8(text, notes)
    stripped = text.strip(_BLANK)
    if not stripped and tail is None:
        return Document("empty", "empty", "nothing but whitespace", [])
    try:
        document = _taken_apart(text, stripped, limits, unwrap, notes, tail)
    except _TooMany:
        detail = f"more than {limits.records} records"
        damage = Damage("too_large", detail, stripped[: limits.raw], len(stripped))
        return Document("unknown", "taken", detail, [damage])
    if tail:
        document.pieces.append(Damage("not_json", "bytes after the gzip data", tail))
    if document.detail:
        notes.append(document.detail)
    return document._replace(detail="; ".join(notes) or None)


def _taken_apart(
    text: bytes, stripped: bytes, limits: Limits, unwrap: str | None, notes: list[str], tail: bytes | None
) -> Document:
    # A record takes some hundred bytes; a list of millions of items of a few bytes each would take
    # many times the memory of its text before they could be counted.
    small = len(stripped) <= limits.records
    signs = 0 if small else stripped.count(b",") + stripped.count(b"\n")
    if signs > limits.records and signs * _SMALLEST_ITEM > len(stripped):
        raise _TooMany
    document = None
    if tail is None and stripped[:1] in (b"{", b"["):
        document = _whole(stripped, unwrap) or _lines(stripped, limits, unwrap)
    if document is None and tail is None:
        document = _foreign(stripped)
    if document is None:
        document = _salvage(text, limits, unwrap, notes, truncated=tail is not None)
    if len(document.pieces) > limits.records:
        raise _TooMany
    return document


_SMALLEST_ITEM = 12  # bytes, on average


# ------------------------------------------------------------------------------------ compression


def _inflate(data: bytes, limit: int) -> tuple[bytes, list[str], bytes | None]:
    """The decompressed bytes, what was odd, and None, or if the compression is damaged, what
    follows its last sound byte as text (may be empty)."""
    notes: list[str] = []
    if len(data) > limit and not data.startswith(_GZIP):
        raise _TooLarge(data)
    for layer in range(3):
        if not data.startswith(_GZIP):
            break
        if layer:
            notes.append("gzip in gzip")
        data, sound, rest = _gunzip(data, limit)
        if not sound:
            return data, [*notes, "gzip data damaged or cut off"], b""
        if rest.strip(b"\0"):
            return data, [*notes, f"{len(rest)} bytes after the gzip data"], _replaced(rest)
    return data, notes, None


def _gunzip(data: bytes, limit: int) -> tuple[bytes, bool, bytes]:
    """Decompress all members: the bytes, whether the compression was sound, what follows it."""
    out: list[bytes] = []
    size = 0
    while data.startswith(_GZIP):
        inflater = _decompressor(wbits=31)
        try:
            part = inflater.decompress(data, limit - size + 1)
        except Exception:
            # zlib.error or isal's own: the output of the call that failed is lost with it.
            out.append(_sound_prefix(data, limit - size))
            return b"".join(out), False, b""
        out.append(part)
        size += len(part)
        if size > limit:
            raise _TooLarge(b"".join(out))
        if not inflater.eof:
            return b"".join(out), False, b""
        data = inflater.unused_data
    return b"".join(out), True, data


def _sound_prefix(data: bytes, limit: int) -> bytes:
    """What can be decompressed of a gzip member before its damage."""
    inflater = zlib.decompressobj(wbits=31)
    out: list[bytes] = []
    size = 0
    for at in range(0, len(data), 1024):
        before = inflater.copy()
        try:
            part = inflater.decompress(data[at : at + 1024])
        except zlib.error:
            # Byte by byte through the block that holds the damage.
            for one in range(at, min(at + 1024, len(data))):
                try:
                    out.append(before.decompress(data[one : one + 1]))
                except zlib.error:
                    break
            break
        out.append(part)
        size += len(part)
        if size > limit:
            raise _TooLarge(b"".join(out))
    return b"".join(out)


def _utf8(data: bytes, notes: list[str]) -> bytes:
    """The bytes as valid UTF-8 without a byte order mark."""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if data.startswith(mark):
            notes.append("UTF-16")
            return data[2:].decode(encoding, "replace").encode("utf-8", "replace")
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    if data.isascii():
        return data
    try:
        data.decode()
    except UnicodeDecodeError:
        notes.append("bytes that are not UTF-8 were replaced")
        return _replaced(data)
    return data


def _replaced(data: bytes) -> bytes:
    return data.decode("utf-8", "replace").encode()


# ------------------------------------------------------------------------------------------ shapes


def compact(text: bytes) -> bytes:
    """JSON text without the whitespace between tokens, otherwise byte for byte."""
    try:
        return msgspec.json.format(text, indent=-1)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # What msgspec refuses and others write: NaN, lone surrogates, deep nesting.
        return _SPACE_OUTSIDE_STRINGS.sub(rb"\1", text)


_SPACE_OUTSIDE_STRINGS = re.compile(rb'("(?:[^"\\]++|\\.)*+"?)|[ \t\r\n]+', re.DOTALL)


def _whole(text: bytes, unwrap: str | None) -> Document | None:
    """The file as one JSON document; None if it is not one."""
    try:
        text = msgspec.json.format(text, indent=-1)
        shape, pieces = open_document(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if shape == "digest":
        return Document("digest", "skipped", "digest file", [])
    if shape == "single":
        wrapped = unwrap_record(object_fields(text), unwrap)
        shape = wrapped[0] if wrapped else shape
    return Document(shape, "taken" if pieces else "empty", None if pieces else "no records", pieces)


def _lines(text: bytes, limits: Limits, unwrap: str | None) -> Document | None:
    """The file as one JSON document a line; None if any line is not one."""
    pieces: list[Piece] = []
    lines = 0
    try:
        for line in io.BytesIO(text):
            line = line.strip(_BLANK)
            if line:
                lines += 1
                pieces.extend(open_document(msgspec.json.format(line, indent=-1))[1])
                if len(pieces) > limits.records:
                    raise _TooMany
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if lines < 2:
        return None
    return Document("json_lines", "taken" if pieces else "empty", None, pieces)


def open_document(text: bytes) -> tuple[str, list[Piece]]:
    """The shape of one compact JSON document, and its records: those in its list of records if it
    has one, else itself (still in its wrapping, if it has one).

    Raises:
        msgspec.MsgspecError: it is not JSON.
    """
    if text.startswith(b"["):
        return "array", list(_array(text))
    if not text.startswith(b"{"):
        return "unknown", [Damage("not_cloudtrail", "neither an object nor an array", text)]
    try:
        envelope = _envelope(text)
    except msgspec.ValidationError:
        envelope = _Envelope()
    if envelope.Records is not None:
        return "records", list(envelope.Records)
    if envelope.Events is not None:
        return "lookup_events", list(envelope.Events)
    if b'"digestS3Object"' in text and "digestS3Object" in object_fields(text):
        return "digest", []
    return "single", [text]


def unwrap_record(
    fields: dict[str, bytes], unwrap: str | None
) -> tuple[str, list[bytes | msgspec.Raw]] | None:
    """The shape and the record or records inside of an object that wraps them; None for an object
    that does not."""
    delivered = len(SIGNATURE.intersection(key.lower() for key in fields)) >= 2
    try:
        if flattened.is_flattened(fields):
            return "flattened", [flattened.to_record(_values(fields))]
        if not delivered and ocsf.is_ocsf(fields.keys()):
            made = ocsf.to_record(_values(fields))
            return ("ocsf", [made]) if made else None
    except RecursionError:
        return None
    if delivered:
        return None
    for shape, key in (("records", "Records"), ("lookup_events", "Events")):
        if fields.get(key, b"")[:1] == b"[":
            try:
                return shape, list(_array(fields[key]))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return None
    if fields.get("CloudTrailEvent", b"")[:1] == b'"':
        return "lookup_events", [compact(string_value(fields["CloudTrailEvent"]).encode())]
    if fields.get("detail", b"")[:1] == b"{":
        return "eventbridge", [fields["detail"]]
    if fields.get("aws", b"")[:1] == b"{":
        inner = object_fields(fields["aws"]).get("cloudtrail", b"")
        if inner[:1] == b"{":
            return "aws.cloudtrail", [inner]
    if unwrap and fields.get(unwrap, b"")[:1] == b"{":
        return unwrap, [fields[unwrap]]
    return None


def _values(fields: dict[str, bytes]) -> dict[str, Any]:
    """The fields' values; what is no JSON is taken as text."""
    return {key: _value(text) for key, text in fields.items()}


def _value(text: bytes) -> Any:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return text.decode("utf-8", "replace")


def object_fields(text: bytes | msgspec.Raw) -> dict[str, bytes]:
    """The values of a JSON object as JSON text, by key; empty for what is no object."""
    try:
        return {key: bytes(value) for key, value in _object(text).items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _lenient_fields(bytes(text).decode("utf-8", "replace"))


def string_value(text: bytes) -> str:
    """The value of a JSON string; halves of surrogate pairs are replaced."""
    try:
        return _string(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        try:
            value, _ = scanstring(text.decode("utf-8", "replace"), 1, False)
        except ValueError:
            return text.decode("utf-8", "replace")
        return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# ----------------------------------------------------------------------------------------- salvage

# Python's own decoder can stop at the end of a value, and takes NaN, control characters and lone
# surrogates. Numbers are left as text: their size is of no interest here.
_lenient = json.JSONDecoder(strict=False, parse_int=str, parse_float=str, parse_constant=str)
_scan_once = _lenient.scan_once  # type: ignore[attr-defined]  # not in typeshed
_JSON_SPACE = re.compile(r"[ \t\r\n]*")
_SKIPPED = re.compile(r"[\s,\]}\[\0]*")
_LIST_START = re.compile(r'\{\s*"(?:Records|Events)"\s*:\s*\[')
# With which of these a record, or what wraps one, may start.
_FIRST_KEYS = (
    "eventVersion",
    "userIdentity",
    "eventTime",
    "eventSource",
    "eventName",
    "awsRegion",
    "sourceIPAddress",
    "userAgent",
    "errorCode",
    "errorMessage",
    "requestParameters",
    "responseElements",
    "additionalEventData",
    "requestID",
    "eventID",
    "readOnly",
    "resources",
    "eventType",
    "apiVersion",
    "managementEvent",
    "recipientAccountId",
    "sharedEventID",
    "serviceEventDetails",
    "vpcEndpointId",
    "vpcEndpointAccountId",
    "eventCategory",
    "addendum",
    "tlsDetails",
    "sessionCredentialFromConsole",
    "EventId",
    "EventName",
    "CloudTrailEvent",
    "aws",
    "detail",
    "version",
)


def _lenient_fields(text: str) -> dict[str, bytes]:
    fields: dict[str, bytes] = {}
    at = _blank_end(text, 0)
    if text[at : at + 1] != "{":
        return {}
    at = _blank_end(text, at + 1)
    try:
        while text[at] == '"':
            key, at = scanstring(text, at + 1, False)
            at = _blank_end(text, at)
            if text[at] != ":":
                return {}
            start = _blank_end(text, at + 1)
            _, at = _scan_once(text, start)
            key = str(key).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            fields[key] = compact(text[start:at].encode())
            at = _blank_end(text, at)
            if text[at] == "}":
                return fields
            at = _blank_end(text, at + 1)
    except (ValueError, IndexError, StopIteration, RecursionError):
        return {}
    return fields


def _blank_end(text: str, at: int) -> int:
    found = _JSON_SPACE.match(text, at)
    return found.end() if found else at


def _salvage(
    data: bytes, limits: Limits, unwrap: str | None, notes: list[str], *, truncated: bool
) -> Document:
    """Every whole record of a damaged file; what lies between them is set aside.

    After damage, reading goes on at the next object that starts with a key of a CloudTrail record
    and holds two of its signature, so that an object inside of a broken record is not taken for a
    record. Stray brackets and commas are only noted.
    """
    text = data.decode()
    pieces: list[Piece] = []
    shape = "json_lines"
    open_lists = found = at = 0
    # Looking for the next record may read far and find nothing; crafted input must not make that
    # quadratic. When the budget (in characters) is spent, the rest is set aside in one piece.
    budget = 20 * len(text) + 1_000_000
    start_keys = [*_FIRST_KEYS, *([unwrap] if unwrap else [])]
    next_start = re.compile(r'\{\s*"(?:' + "|".join(map(re.escape, start_keys)) + ')"')
    stray: list[int] = []
    while True:
        skipped = _SKIPPED.match(text, at)
        end = skipped.end() if skipped else at
        for i in range(at, end):
            if text[i] == "[":
                open_lists += 1
                shape = "array" if not found else shape
            elif text[i] == "]":
                open_lists -= 1
            elif text[i] == "}" and (open_lists > 0 or not found):
                stray.append(i)
        at = end
        if at >= len(text):
            break
        if len(pieces) > limits.records:
            raise _TooMany
        damaged_at = at
        head = _LIST_START.match(text, at)
        if head:
            open_lists += 1
            shape = "records" if '"Records"' in head[0] else "lookup_events"
            at = head.end()
            continue
        reason, detail, ended = "not_json", "neither an object nor an array", truncated
        if text[at] == "{":
            try:
                _, end = _decode_at(text, at)
                pieces.append(compact(text[at:end].encode()))
                found += 1
                at = end
                continue
            except RecursionError:
                reason, detail = "too_large", "nested too deeply"
            except _Broken as broken:
                detail, ended = broken.what, ended or broken.at == len(text)
        resumed = None
        for candidate in next_start.finditer(text, at + 1):
            start = candidate.start()
            if budget < 0:
                break
            try:
                value, end = _decode_at(text, start)
                budget -= end - start
                if _like_record(value, unwrap):
                    resumed = start
            except RecursionError:
                budget -= 10_000
            except _Broken as broken:
                budget -= broken.at - start + 1_000
                if _LIST_START.match(text, start):
                    resumed = start
            if resumed is not None:
                break
        end = len(text) if resumed is None else resumed
        if resumed is None and ended and reason == "not_json":
            reason = "truncated"
        piece = text[damaged_at:end].rstrip(" \t\r\n,[\0")
        pieces.append(Damage(reason, f"{detail}, at character {damaged_at}", piece.encode()))
        at = end
        if resumed is None:
            break
    ends_whole = not pieces or not isinstance(pieces[-1], Damage)
    if ends_whole and (truncated or open_lists > 0):
        pieces.append(Damage("truncated", "the file ends where more records should follow", b""))
    if stray:
        more = f" and {len(stray) - 1} more" if stray[1:] else ""
        notes.append(f"stray bracket at character {stray[0]}{more}")
    damaged = sum(isinstance(piece, Damage) for piece in pieces)
    if damaged:
        notes.append(f"damaged: {found} records read around {damaged} pieces set aside")
    if not found:
        shape = "unknown"
    elif shape == "json_lines" and found == 1 and not damaged:
        shape = "single"
    return Document(shape, "taken" if pieces else "empty", None, pieces)


class _Broken(Exception):
    """Text that is no JSON value: what is wrong, and up to where it was read."""

    def __init__(self, what: str, at: int) -> None:
        self.what = what
        self.at = at


def _decode_at(text: str, start: int) -> tuple[object, int]:
    """The JSON value that starts there, and where it ends.

    In windows that grow as long as the value reaches their end: an error costs the decoder a pass
    over all text before it, to count lines.
    """
    size = 1 << 16
    while True:
        window = text[start : start + size]
        try:
            value, end = _lenient.raw_decode(window)
            return value, start + end
        except json.JSONDecodeError as error:
            # Within a string, an escape or a literal the position is that of its start.
            to_the_end = error.msg.startswith("Unterminated") or error.pos > len(window) - 8
            at_the_end = start + len(window) >= len(text)
            if not to_the_end or at_the_end:
                at = len(text) if to_the_end else start + error.pos
                raise _Broken(error.msg.removesuffix(" starting at"), at) from None
        size *= 16


def _like_record(value: object, unwrap: str | None) -> bool:
    if not isinstance(value, dict):
        return False
    if len(SIGNATURE.intersection(str(key).lower() for key in value)) >= 2:
        return True
    if isinstance(value.get("CloudTrailEvent"), str):
        return True
    inner = value.get("detail") or (unwrap and value.get(unwrap))
    if isinstance(value.get("aws"), dict):
        inner = value["aws"].get("cloudtrail")
    return isinstance(inner, dict) and _like_record(inner, None)


# ----------------------------------------------------------------------------------- other formats


def _foreign(data: bytes) -> Document | None:
    """A file of another format as one piece set aside; None if it may hold records."""
    name = next((name for magic, name in _OTHER_FORMATS.items() if data.startswith(magic)), None)
    if name:
        return Document("unknown", "taken", name, [Damage("not_json", f"a file of format {name}", data)])
    if data[:1] in (b"{", b"["):
        return None
    rows = _csv_rows(data)
    if rows:
        return Document("csv", "taken", None, [Damage("csv", f"a header and {rows} rows", data)])
    if b"{" not in data:
        return Document("unknown", "taken", None, [Damage("not_json", "text without any JSON", data)])
    return None


def _csv_rows(data: bytes) -> int:
    """How many rows a CSV export has below its header; 0 if it is none."""
    text = data.decode()
    try:
        header = next(csv.reader([text.partition("\n")[0].rstrip("\r")]), [])
    except csv.Error:
        return 0
    if len(header) < 3 or not all(re.fullmatch(r"[\w @./()#-]{1,60}", cell) for cell in header):
        return 0
    rows = -1  # the header is none
    with contextlib.suppress(csv.Error):
        for row in csv.reader(io.StringIO(text, newline="")):
            rows += len(row) > 2
    return max(rows, 0)
