"""From the bytes of a trail file to events, with what could not be taken and why.

Two readings of one file share every decision about what is a record, where it stands and what it
is called: `census` says which records there are, enough to find duplicates before anything is
built; `decode_file` builds the events of those that are to be kept. Both give columns of plain
Python values; `census_batch`, `events_batches` and `quarantine_batch` make Arrow of them.

Records go through a typed decoder that leaves nested JSON as text. What it refuses gets a second,
tolerant look that never fails: a value of an unexpected type becomes its text or nothing, and
only the reasons of `QUARANTINE_REASONS` keep a record out.

Secrets are taken out of all that leaves here. Hashes are of the text before that, so that copies of
a record still compare as they came.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec

from raretrail.cloudtrail.agents import agent_family
from raretrail.cloudtrail.documents import (
    SIGNATURE,
    Damage,
    Limits,
    Piece,
    compact,
    object_fields,
    read_document,
    string_value,
    unwrap_record,
)
from raretrail.cloudtrail.errors_text import error_template
from raretrail.cloudtrail.layout import describe
from raretrail.cloudtrail.principals import IdentityFacts, PrincipalRules
from raretrail.cloudtrail.redaction import Redaction, default_redaction
from raretrail.cloudtrail.times import DAY, microseconds
from raretrail.tables import DECODED_COLUMNS, QUARANTINE, Column

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_LIMITS = Limits()

CENSUS_COLUMNS: tuple[Column, ...] = tuple(
    next(column for column in DECODED_COLUMNS if column.name == name)
    for name in (
        "source_file",
        "source_position",
        "event_id",
        "recipient_account_id",
        "record_hash",
        "event_time",
        "event_date",
        "source_ip_address",
        "corrects_event_id",
    )
)

# What the reader knows of a quarantined piece; the rest is the run's.
QUARANTINED_COLUMNS: tuple[Column, ...] = tuple(
    column for column in QUARANTINE.columns if column.name not in ("file_date", "run_id", "ingested_at")
)


class Quarantined(NamedTuple):
    """One record or piece set aside. `event_time` in microseconds since 1970."""

    source_file: str
    source_position: int
    reason: str
    detail: str
    raw: str
    raw_bytes: int
    record_hash: str
    event_id: str | None = None
    recipient_account_id: str | None = None
    event_time: int | None = None


@dataclass(slots=True)
class FileResult:
    """One file as it was read.

    `records` counts records and pieces of damage: each is among `columns`, left out, or
    quarantined. `columns` holds a list of values for each of `DECODED_COLUMNS` (or
    `CENSUS_COLUMNS`) in their order, times as microseconds and days since 1970, nested JSON as
    bytes. Nested JSON is as delivered: `redaction` is done a column at a time by `events_batches`.
    """

    source_file: str
    content_hash: str
    bytes: int
    status: str
    shape: str
    detail: str | None
    records: int = 0
    columns: list[list[Any]] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    redaction: Redaction | None = None
    # Of `records`, those taken out since as somebody's who was forgotten.
    forgotten: int = 0

    @property
    def accepted(self) -> int:
        """Records among `columns`."""
        return len(self.columns[0]) if self.columns else 0

    @property
    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The records one by one. Columns are what is fast; this is for small results."""
        return zip(*self.columns, strict=True)


def census(
    source_file: str,
    data: bytes,
    *,
    limits: Limits = DEFAULT_LIMITS,
    unwrap: str | None = None,
    redaction: Redaction | None = None,
) -> FileResult:
    """Which records a file holds: columns of `CENSUS_COLUMNS`. Never raises on any bytes.

    Args:
        source_file: path or URI; asked for the account where no record says it.
        data: the file's bytes, as stored.
        limits: bounds on sizes; what exceeds them is quarantined.
        unwrap: key under which documents of an unknown shape carry their record.
        redaction: what is a secret; by default what `conf/redaction.yml` says.
    """
    reading = _Reading(source_file, limits, unwrap, redaction or default_redaction())
    return _read(reading, data, _decode_census, _census_columns, (), ())


def decode_file(
    source_file: str,
    data: bytes,
    *,
    rules: PrincipalRules,
    limits: Limits = DEFAULT_LIMITS,
    leave_out: Collection[int] = (),
    reused: Collection[int] = (),
    unwrap: str | None = None,
    redaction: Redaction | None = None,
) -> FileResult:
    """The events of a file: columns of `DECODED_COLUMNS`. Never raises on any bytes.

    Args:
        source_file: path or URI; asked for the account where no record says it.
        data: the file's bytes, as stored.
        rules: who is which principal.
        limits: bounds on sizes; what exceeds them is quarantined.
        leave_out: positions (as `census` gives them) of duplicates: counted, not built.
        reused: positions of records whose id another record has: quarantined as `id_reused`.
        unwrap: key under which documents of an unknown shape carry their record.
        redaction: what is a secret; by default what `conf/redaction.yml` says.
    """

    def columns(reading: _Reading, accepted: _Accepted) -> list[list[Any]]:
        return _event_columns(reading, accepted, rules)

    reading = _Reading(source_file, limits, unwrap, redaction or default_redaction())
    return _read(reading, data, _decode_record, columns, leave_out, reused)


# ----------------------------------------------------------------------------------------- records


_NULL = msgspec.Raw(b"null")


# Longer ones get the second look, and are looked through for secrets there.
_Short = Annotated[str, msgspec.Meta(max_length=60)]


class _Record(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A record as delivered; the keys in the order of delivery, which is the fastest to decode."""

    eventVersion: _Short | None = None
    userIdentity: msgspec.Raw = _NULL
    eventTime: _Short | None = None
    eventSource: _Short | None = None
    eventName: _Short | None = None
    awsRegion: _Short | None = None
    sourceIPAddress: _Short | None = None
    userAgent: str | None = None
    errorCode: _Short | None = None
    errorMessage: str | None = None
    requestParameters: msgspec.Raw = _NULL
    responseElements: msgspec.Raw = _NULL
    additionalEventData: msgspec.Raw = _NULL
    requestID: _Short | None = None
    eventID: _Short | None = None
    readOnly: bool | _Short | None = None
    resources: msgspec.Raw = _NULL
    eventType: _Short | None = None
    apiVersion: msgspec.Raw = _NULL
    managementEvent: bool | _Short | None = None
    recipientAccountId: _Short | None = None
    sharedEventID: _Short | None = None
    serviceEventDetails: msgspec.Raw = _NULL
    vpcEndpointId: _Short | None = None
    vpcEndpointAccountId: msgspec.Raw = _NULL
    eventCategory: _Short | None = None
    addendum: msgspec.Raw = _NULL
    sessionCredentialFromConsole: bool | _Short | None = None
    edgeDeviceDetails: msgspec.Raw = _NULL
    tlsDetails: msgspec.Raw = _NULL
    eventContext: msgspec.Raw = _NULL


class _Tolerated(_Record, gc=False):
    """A record as the tolerant look found it."""

    # Keys that have no field, as one JSON object.
    other: bytes | None = None


class _CensusRecord(msgspec.Struct, gc=False):
    eventVersion: _Short | None = None
    eventTime: _Short | None = None
    eventName: _Short | None = None
    sourceIPAddress: _Short | None = None
    eventID: _Short | None = None
    recipientAccountId: _Short | None = None
    addendum: msgspec.Raw = _NULL


_decode_record = msgspec.json.Decoder(_Record).decode
_decode_census = msgspec.json.Decoder(_CensusRecord).decode

_TEXTS = (
    "eventVersion",
    "eventTime",
    "eventSource",
    "eventName",
    "awsRegion",
    "sourceIPAddress",
    "userAgent",
    "errorCode",
    "errorMessage",
    "requestID",
    "eventID",
    "readOnly",
    "eventType",
    "managementEvent",
    "recipientAccountId",
    "sharedEventID",
    "vpcEndpointId",
    "eventCategory",
    "sessionCredentialFromConsole",
)
_EXTRAS = ("apiVersion", "vpcEndpointAccountId", "edgeDeviceDetails", "eventContext")
_FLAGS: dict[bool | str | None, bool] = {
    True: True,
    False: False,
    "true": True,
    "false": False,
    "True": True,
    "False": False,
    "TRUE": True,
    "FALSE": False,
}


@dataclass(slots=True)
class _Accepted:
    """The records of a file that are to be built, and what both readings know of each."""

    records: list[Any] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    event_ids: list[str] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)


class _Refused(NamedTuple):
    reason: str
    detail: str


class _Reading(NamedTuple):
    """One file being read: its path, and how."""

    source_file: str
    limits: Limits
    unwrap: str | None
    redaction: Redaction


def _read(
    reading: _Reading,
    data: bytes,
    decode: Callable[[Any], Any],
    columns: Callable[[_Reading, _Accepted], list[list[Any]]],
    leave_out: Collection[int],
    reused: Collection[int],
) -> FileResult:
    source_file, limits, unwrap, _ = reading
    document = read_document(data, limits, unwrap)
    result = FileResult(
        source_file,
        hashlib.blake2b(data, digest_size=16).hexdigest(),
        len(data),
        document.status,
        document.shape,
        document.detail,
        redaction=reading.redaction,
    )
    path_account = lru_cache(maxsize=1)(lambda: describe(source_file).account)
    set_aside = result.quarantined
    accepted = _Accepted()
    blake2b = hashlib.blake2b
    position = 0
    # Reversed, as a stack: a piece that wraps several records is replaced by these.
    pending = document.pieces[::-1]
    while pending:
        piece = pending.pop()
        if isinstance(piece, Damage):
            set_aside.append(_damaged(reading, position, piece))
            position += 1
            continue
        # Plain is what both readings see alike: whatever one of them might miss (a key in another
        # case of letters) or judge differently goes to the second look.
        try:
            record = decode(piece)
            time = microseconds(record.eventTime)
            event_id, account, version = (
                record.eventID,
                record.recipientAccountId,
                record.eventVersion,
            )
            plain = (
                time is not None
                and event_id
                and account
                and record.eventName
                and version is not None
                and version[:2] == "1."
                and record.sourceIPAddress is not None
                and (memoryview(piece).nbytes <= limits.record)
            )
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, RecursionError):
            plain = False
        if plain:
            hash_ = blake2b(piece, digest_size=16).hexdigest()
        else:
            looked = _second_look(bytes(piece), reading, path_account)
            if isinstance(looked, list):
                pending.extend(reversed(looked))
                continue
            record, refused, hash_, time, event_id, account = looked
            if refused:
                set_aside.append(_set_aside(reading, position, refused, piece, looked))
                position += 1
                continue
        if position in reused:
            refused = _Refused("id_reused", "another record has this event id")
            looked = _Looked(record, refused, hash_, time, event_id, account)
            set_aside.append(_set_aside(reading, position, refused, piece, looked))
        elif position not in leave_out:
            accepted.records.append(record)
            accepted.positions.append(position)
            accepted.times.append(time or 0)
            accepted.event_ids.append(event_id)
            accepted.accounts.append(account)
            accepted.hashes.append(hash_)
        position += 1
    result.records = position
    if not position and result.status == "taken":
        result.status = "empty"
    result.columns = columns(reading, accepted)
    if position == len(set_aside) and all(q.reason == "insight" for q in set_aside) and position:
        # A file of Insights only is one of the trail's other files, wherever it lies.
        result.detail = f"{position} Insights records"
        result.status, result.shape, result.records = "skipped", "insight", 0
        set_aside.clear()
    return result


class _Looked(NamedTuple):
    record: Any
    refused: _Refused | None
    record_hash: str
    event_time: int | None
    event_id: str | None
    recipient_account_id: str | None


def _second_look(
    text: bytes, reading: _Reading, path_account: Callable[[], str | None]
) -> _Looked | list[Piece]:
    """What the types refused: the records inside if it is a wrapping, else the record and, where
    it cannot be taken, why."""
    limits = reading.limits
    if text[:1] != b"{":
        refused = _Refused("not_an_object", "neither an object nor a wrapping of one")
        return _Looked(_Record(), refused, _hash(text), None, None, None)
    if len(text) > limits.record:
        refused = _Refused("too_large", f"{len(text)} bytes, more than {limits.record}")
        if b'"Records"' not in text[:4096] and b'"Events"' not in text[:4096]:
            return _Looked(_Record(), refused, _hash(text), None, None, None)
    fields = object_fields(text)
    wrapped = unwrap_record(fields, reading.unwrap)
    if wrapped:
        return list(wrapped[1])
    record = _tolerant(fields, reading.redaction)
    time = microseconds(record.eventTime) if record.eventTime else None
    reason = _refusal(record, fields, time)
    if len(text) > limits.record:
        reason = _Refused("too_large", f"{len(text)} bytes, more than {limits.record}")
    event_id, account = record.eventID, record.recipientAccountId
    if reason is None:
        event_id = event_id or "sha256:" + hashlib.sha256(text).hexdigest()
        account = account or _account_otherwise(record, path_account)
    return _Looked(record, reason, _hash(text), time, event_id, account)


def _refusal(record: _Record, fields: dict[str, bytes], time: int | None) -> _Refused | None:
    major = (record.eventVersion or "1").partition(".")[0]
    other_version = major.isdecimal() and int(major[:9]) != 1
    if other_version and (record.eventSource or "").startswith("aws:"):
        return _Refused("s3_notification", f"eventSource {record.eventSource}"[:200])
    if len(SIGNATURE.intersection(key.lower() for key in fields)) < 2:
        keys = ", ".join(sorted(fields)[:8]) or "nothing that can be read"
        return _Refused("not_cloudtrail", f"an object with {keys[:200]}")
    if not record.eventName and (
        record.eventCategory == "Insight" or record.eventType == "AwsCloudTrailInsight"
    ):
        return _Refused("insight", "a record of CloudTrail Insights")
    if other_version:
        return _Refused("unsupported_version", f"eventVersion {record.eventVersion}"[:200])
    if not record.eventTime:
        return _Refused("missing_event_time", "no eventTime")
    if time is None:
        return _Refused("bad_event_time", f"eventTime {record.eventTime}"[:200])
    if not record.eventName:
        return _Refused("missing_event_name", "no eventName")
    return None


def _tolerant(fields: dict[str, bytes], redaction: Redaction) -> _Record:
    """A record of whatever is there. Keys are known in any case of letters where the exact
    spelling is missing (exports by Athena write them small)."""
    spelt = {name.lower(): name for name in _Record.__struct_fields__}
    values: dict[str, Any] = {}
    others: dict[str, bytes] = {}
    for key, value in fields.items():
        name = spelt.get(key.lower())
        # The census reads an addendum by its own spelling alone.
        if name is None or (name != key and (name in fields or name in values or name == "addendum")):
            others[key] = value
        elif name in _TEXTS:
            text = _scalar(value)
            values[name] = text and redaction.text(text)
        else:
            values[name] = msgspec.Raw(value)
    account = values.get("recipientAccountId")
    if account and fields.get("recipientAccountId", b'"')[:1] != b'"' and account.isdigit():
        values["recipientAccountId"] = account.zfill(12)  # a number has lost its leading zeros
    for name in _EXTRAS:
        if name in values:
            others[name] = bytes(values.pop(name))
    values["other"] = _json_object(others) if others else None
    return _Tolerated(**values)


def _scalar(value: bytes) -> str | None:
    """The text of a JSON value: that of a string, else the JSON itself; None for null."""
    if value == b"null":
        return None
    return string_value(value) if value[:1] == b'"' else value.decode("utf-8", "replace")


def _json_object(fields: dict[str, bytes]) -> bytes:
    return b"{%s}" % b",".join(
        json.dumps(key).encode() + b":" + value for key, value in sorted(fields.items())
    )


def _account_otherwise(record: _Record, path_account: Callable[[], str | None]) -> str:
    account = _identity_fields(bytes(record.userIdentity)).get("accountid")
    if account and account.isdigit():
        return account
    return path_account() or "unknown"


def _hash(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def _damaged(reading: _Reading, position: int, piece: Damage) -> Quarantined:
    return Quarantined(
        reading.source_file,
        position,
        piece.reason,
        piece.detail,
        _kept(reading.redaction.fragment(_start(piece.text, reading), cut=piece.reason != "csv"), reading),
        len(piece.text) if piece.whole_bytes is None else piece.whole_bytes,
        _hash(piece.text),
    )


def _set_aside(
    reading: _Reading, position: int, refused: _Refused, piece: bytes | msgspec.Raw, looked: _Looked
) -> Quarantined:
    text = bytes(piece)
    redaction = reading.redaction
    return Quarantined(
        reading.source_file,
        position,
        refused.reason,
        redaction.text(refused.detail),
        _kept(redaction.document(_start(text, reading).encode()).decode("utf-8", "replace"), reading),
        len(text),
        looked.record_hash,
        looked.event_id or None,
        looked.recipient_account_id or None,
        looked.event_time,
    )


# How much more than is kept is looked at for secrets, so that one at the cut is seen whole.
_MARGIN = 8192


def _start(text: bytes, reading: _Reading) -> str:
    return _text(text[: reading.limits.raw + _MARGIN])


def _kept(text: str, reading: _Reading) -> str:
    bound = reading.limits.raw
    return text if len(text) * 4 <= bound else _text(text.encode()[:bound])


def _text(data: bytes) -> str:
    # The cut at the bound may have split a character.
    return data.decode("utf-8", "ignore") if data else ""


# ----------------------------------------------------------------------------------------- columns


def _census_columns(reading: _Reading, accepted: _Accepted) -> list[list[Any]]:
    """The values of `CENSUS_COLUMNS` in their order."""
    return [
        [reading.source_file] * len(accepted.records),
        accepted.positions,
        accepted.event_ids,
        accepted.accounts,
        accepted.hashes,
        accepted.times,
        [time // DAY for time in accepted.times],
        [r.sourceIPAddress for r in accepted.records],
        [_corrected(r.addendum) for r in accepted.records],
    ]


def _corrected(addendum: msgspec.Raw) -> str | None:
    """The id of the event that a record with this addendum takes the place of."""
    if addendum is _NULL:
        return None
    fields = object_fields(bytes(addendum)) if bytes(addendum)[:1] == b"{" else {}
    if fields.get("reason") != b'"UPDATED_DATA"':
        return None
    named = _scalar(fields.get("originalEventID", b"null"))
    # No id is longer; what is may be anything.
    return named if named and len(named) <= 60 else None


def _event_columns(reading: _Reading, accepted: _Accepted, rules: PrincipalRules) -> list[list[Any]]:
    """The values of `DECODED_COLUMNS` in their order."""
    records: list[_Record] = accepted.records
    redaction = reading.redaction
    flag = _FLAGS.get
    # A column at a time: nothing is made for a record that the garbage collector would follow.
    who = [_who(rules, redaction, r) for r in records]
    agents = redaction.texts([r.userAgent for r in records])
    messages = redaction.texts([r.errorMessage for r in records])
    return [
        accepted.times,
        [time // DAY for time in accepted.times],
        accepted.event_ids,
        accepted.accounts,
        [r.eventVersion for r in records],
        [r.eventType for r in records],
        [r.eventCategory for r in records],
        [flag(r.managementEvent) for r in records],
        [flag(r.readOnly) for r in records],
        [r.eventSource for r in records],
        [r.eventName for r in records],
        [_command(r.eventSource, r.eventName) for r in records],
        [r.awsRegion for r in records],
        [r.sourceIPAddress for r in records],
        agents,
        [None if text is None else agent_family(text) for text in agents],
        [w.principal for w in who],
        [w.kind for w in who],
        [w.actor for w in who],
        [w.type for w in who],
        [w.arn for w in who],
        [w.principal_id for w in who],
        [w.account_id for w in who],
        [w.user_name for w in who],
        [w.invoked_by for w in who],
        [w.access_key_id for w in who],
        [w.issuer_arn for w in who],
        [w.session_name for w in who],
        [w.created_at for w in who],
        [w.mfa for w in who],
        [r.errorCode or _sign_in_failure(r) for r in records],
        messages,
        [None if text is None else error_template(text) for text in messages],
        _nested([r.requestParameters for r in records]),
        _nested([r.responseElements for r in records]),
        _nested([r.additionalEventData for r in records]),
        _nested([r.serviceEventDetails for r in records]),
        _nested([r.resources for r in records]),
        [w.session_context for w in who],
        _nested([r.tlsDetails for r in records]),
        _nested([r.addendum for r in records]),
        [_corrected(r.addendum) for r in records],
        [r.other if type(r) is _Tolerated else _other(r) for r in records],
        [r.requestID for r in records],
        [r.sharedEventID for r in records],
        [r.vpcEndpointId for r in records],
        [flag(r.sessionCredentialFromConsole) for r in records],
        accepted.hashes,
        [reading.source_file] * len(records),
        accepted.positions,
    ]


def _nested(values: list[msgspec.Raw]) -> list[bytes | None]:
    return [None if v is _NULL or (b := bytes(v)) == b"null" else b for v in values]


def _who(rules: PrincipalRules, redaction: Redaction, r: _Record) -> _Identity:
    partition = _partition(r.awsRegion)
    who = _identity(rules, redaction, bytes(r.userIdentity), partition)
    if who.nameless:
        return _identity(rules, redaction, b"", partition, r.eventSource, r.eventType)
    return who


def _other(r: _Record) -> bytes | None:
    if (
        r.apiVersion is _NULL
        and r.vpcEndpointAccountId is _NULL
        and r.edgeDeviceDetails is _NULL
        and r.eventContext is _NULL
    ):
        return None
    return _json_object({n: bytes(v) for n in _EXTRAS if (v := getattr(r, n)) is not _NULL})


@lru_cache(maxsize=16384)
def _command(source: str | None, name: str) -> str:
    service = (source or "unknown").removesuffix(".cn").removesuffix(".amazonaws.com")
    return f"{service}:{name}"


@lru_cache(maxsize=256)
def _partition(region: str | None) -> str:
    """The partition of a region, for identities without any ARN."""
    if region is None:
        return "aws"
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def _sign_in_failure(r: _Record) -> str | None:
    """`Failure` for a console sign-in whose answer says so: it has no errorCode of its own."""
    if r.eventSource != "signin.amazonaws.com":
        return None
    answer = object_fields(r.responseElements)
    return "Failure" if answer.get(r.eventName or "") == b'"Failure"' else None


# ---------------------------------------------------------------------------------------- identity


class _Identity(NamedTuple):
    """What the events table says of an identity. Parsed once for all calls of a session."""

    principal: str
    kind: str
    actor: str
    type: str | None
    arn: str | None
    principal_id: str | None
    account_id: str | None
    user_name: str | None
    invoked_by: str | None
    access_key_id: str | None
    issuer_arn: str | None
    session_name: str | None
    created_at: int | None
    mfa: bool | None
    session_context: bytes | None
    nameless: bool


@lru_cache(maxsize=8192)
def _identity(
    rules: PrincipalRules,
    redaction: Redaction,
    identity: bytes,
    partition: str,
    event_source: str | None = None,
    event_type: str | None = None,
) -> _Identity:
    told = _plain_identity(redaction, identity) or _any_identity(redaction, identity)
    arn, principal_id = told.arn, told.principal_id
    session_name = None
    if arn and ":assumed-role/" in arn and arn.count("/") >= 2:
        session_name = arn.rpartition("/")[2]
    elif told.type == "AssumedRole" and principal_id and ":" in principal_id:
        session_name = principal_id.partition(":")[2]
    facts = IdentityFacts(
        type=told.type,
        arn=arn,
        principal_id=principal_id,
        account_id=told.account_id,
        user_name=told.user_name,
        invoked_by=told.invoked_by,
        session_name=session_name,
        source_identity=told.source_identity,
        issuer_type=told.issuer_type,
        issuer_arn=told.issuer_arn,
        issuer_user_name=told.issuer_user_name,
        identity_provider=told.identity_provider,
        on_behalf_of=told.on_behalf_of,
        partition=partition,
        event_source=event_source,
        event_type=event_type,
    )
    principal = rules.decide(facts)
    return _Identity(
        principal.principal,
        principal.kind,
        principal.actor,
        facts.type,
        arn,
        principal_id,
        facts.account_id,
        facts.user_name or facts.issuer_user_name,
        facts.invoked_by,
        told.access_key_id or None,
        facts.issuer_arn,
        session_name,
        microseconds(told.created) if told.created else None,
        _FLAGS.get(told.mfa),
        told.context if told.context != b"null" else None,
        not any(facts[:13]),
    )


class _Told(NamedTuple):
    """What an identity says of itself, as text."""

    type: str | None
    arn: str | None
    principal_id: str | None
    account_id: str | None
    user_name: str | None
    invoked_by: str | None
    source_identity: str | None
    issuer_type: str | None
    issuer_arn: str | None
    issuer_user_name: str | None
    identity_provider: str | None
    on_behalf_of: str | None
    access_key_id: str | None
    created: str | None
    mfa: str | None
    context: bytes | None


class _Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Part of an identity as CloudTrail delivers it; anything else gets the tolerant look."""


class _Empty(_Plain):
    pass


class _Federation(_Plain):
    federatedProvider: str | None = None
    attributes: _Empty | None = None


class _Issuer(_Plain):
    type: str | None = None
    principalId: str | None = None
    arn: str | None = None
    accountId: str | None = None
    userName: str | None = None


class _Attributes(_Plain):
    creationDate: str | None = None
    mfaAuthenticated: str | None = None


class _Context(_Plain):
    sessionIssuer: _Issuer | None = None
    webIdFederationData: _Federation | None = None
    attributes: _Attributes | None = None
    sourceIdentity: str | None = None
    ec2RoleDelivery: str | None = None


class _PlainIdentity(_Plain):
    type: str | None = None
    principalId: str | None = None
    arn: str | None = None
    accountId: str | None = None
    accessKeyId: _Short | None = None
    userName: str | None = None
    sessionContext: msgspec.Raw = _NULL
    invokedBy: str | None = None
    identityProvider: str | None = None


_decode_identity = msgspec.json.Decoder(_PlainIdentity).decode
_decode_context = msgspec.json.Decoder(_Context | None).decode
_NO_CONTEXT, _NO_ISSUER, _NO_ATTRIBUTES = _Context(), _Issuer(), _Attributes()


def _plain_identity(redaction: Redaction, identity: bytes) -> _Told | None:
    """What an identity in the delivered form says; None for any other, and where it may hold a
    secret (no name in the form is that of one)."""
    try:
        who = _decode_identity(identity)
        session = _decode_context(who.sessionContext) or _NO_CONTEXT
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if redaction.looks_secret(identity, 1 if who.accessKeyId else 0):
        return None
    issuer = session.sessionIssuer or _NO_ISSUER
    attributes = session.attributes or _NO_ATTRIBUTES
    return _Told(
        who.type,
        who.arn,
        who.principalId,
        who.accountId,
        who.userName,
        who.invokedBy,
        session.sourceIdentity,
        issuer.type,
        issuer.arn,
        issuer.userName,
        who.identityProvider,
        None,
        who.accessKeyId,
        attributes.creationDate,
        attributes.mfaAuthenticated,
        None if who.sessionContext is _NULL else bytes(who.sessionContext),
    )


def _any_identity(redaction: Redaction, identity: bytes) -> _Told:
    """What an identity of whatever form says."""
    raw = _identity_raw(redaction.document(identity))
    fields = {key: _scalar(value) for key, value in raw.items()}
    session = _lowered(raw.get("sessioncontext"))
    issuer = {key: _scalar(value) for key, value in _lowered(session.get("sessionissuer")).items()}
    attributes = {key: _scalar(value) for key, value in _lowered(session.get("attributes")).items()}
    behalf = {key: _scalar(value) for key, value in _lowered(raw.get("onbehalfof")).items()}
    return _Told(
        fields.get("type"),
        fields.get("arn"),
        fields.get("principalid"),
        fields.get("accountid"),
        fields.get("username"),
        fields.get("invokedby"),
        _scalar(session.get("sourceidentity", b"null")),
        issuer.get("type"),
        issuer.get("arn"),
        issuer.get("username"),
        fields.get("identityprovider"),
        behalf.get("userid"),
        fields.get("accesskeyid"),
        attributes.get("creationdate"),
        attributes.get("mfaauthenticated"),
        raw.get("sessioncontext"),
    )


def _identity_raw(identity: bytes) -> dict[str, bytes]:
    if identity[:2] == b'"{':
        # An export that wrote the object as text.
        identity = compact(string_value(identity).encode())
    return _lowered(identity)


def _identity_fields(identity: bytes) -> dict[str, str | None]:
    return {key: _scalar(value) for key, value in _identity_raw(identity).items()}


def _lowered(value: bytes | None) -> dict[str, bytes]:
    """The fields of an object with their keys in lower case; empty for anything else."""
    if not value or value[:1] != b"{":
        return {}
    return {key.lower(): text for key, text in object_fields(value).items()}


# ------------------------------------------------------------------------------------------- Arrow


def census_batch(results: Iterable[FileResult]) -> pa.RecordBatch:
    """The records of `census` results as one batch of `CENSUS_COLUMNS`."""
    return _batch(_joined(results, CENSUS_COLUMNS), CENSUS_COLUMNS)


def whole_census_batch(results: Iterable[FileResult]) -> pa.RecordBatch:
    """What `census_batch` gives, of `decode_file` results."""
    names = [column.name for column in DECODED_COLUMNS]
    chosen = [names.index(column.name) for column in CENSUS_COLUMNS]
    joined: list[list[Any]] = [[] for _ in chosen]
    for result in results:
        for into, at in zip(joined, chosen, strict=True):
            into.extend(result.columns[at])
    return _batch(joined, CENSUS_COLUMNS)


def events_batch(results: Iterable[FileResult]) -> pa.RecordBatch:
    """The records of `decode_file` results as one batch of `DECODED_COLUMNS`, without secrets.

    A string column of a batch holds 2 GiB; for more than some thousand records use
    `events_batches`.
    """
    results = list(results)
    return _batch(_joined(results, DECODED_COLUMNS), DECODED_COLUMNS, _redaction(results))


def events_batches(
    results: Iterable[FileResult], rows: int = 10_000, text_bytes: int = 256 * 1024**2
) -> Iterator[pa.RecordBatch]:
    """The records of `decode_file` results as batches of `DECODED_COLUMNS`, without secrets.

    A batch is full at `rows` records, or once the largest texts in it, requests and responses,
    reach `text_bytes`. Results are taken one by one: memory holds one file and one batch.
    """
    pending: list[list[Any]] = [[] for _ in DECODED_COLUMNS]
    size = 0
    redaction: Redaction | None = None
    for result in results:
        if pending[0] and result.redaction is not redaction:
            yield _batch(pending, DECODED_COLUMNS, redaction)
            pending, size = [[] for _ in DECODED_COLUMNS], 0
        redaction = result.redaction
        start, sizes = 0, _sizes(result)
        for end in range(1, len(sizes) + 1):
            size += sizes[end - 1]
            if len(pending[0]) + end - start >= rows or size >= text_bytes:
                _extend(pending, result, start, end)
                yield _batch(pending, DECODED_COLUMNS, redaction)
                pending, size, start = [[] for _ in DECODED_COLUMNS], 0, end
        _extend(pending, result, start, len(sizes))
    if pending[0]:
        yield _batch(pending, DECODED_COLUMNS, redaction)


def _redaction(results: list[FileResult]) -> Redaction:
    """The rules that results share, which they must."""
    [redaction] = {result.redaction or default_redaction() for result in results} or {default_redaction()}
    return redaction


_LARGE = [i for i, c in enumerate(DECODED_COLUMNS) if c.name in ("request_parameters", "response_elements")]


def _sizes(result: FileResult) -> list[int]:
    if not result.columns:
        return []
    request, response = (result.columns[i] for i in _LARGE)
    return [len(a or b"") + len(b or b"") for a, b in zip(request, response, strict=True)]


def _extend(pending: list[list[Any]], result: FileResult, start: int, end: int) -> None:
    for into, column in zip(pending, result.columns, strict=True):
        into.extend(column[start:end])


def _joined(results: Iterable[FileResult], columns: tuple[Column, ...]) -> list[list[Any]]:
    joined: list[list[Any]] = [[] for _ in columns]
    for result in results:
        _extend(joined, result, 0, result.accepted)
    return joined


def quarantine_batch(results: Iterable[FileResult]) -> pa.RecordBatch:
    """What was set aside, as one batch of `QUARANTINED_COLUMNS`."""
    rows = [row for result in results for row in result.quarantined]
    return _batch([[row[i] for row in rows] for i in range(len(QUARANTINED_COLUMNS))], QUARANTINED_COLUMNS)


# What holds nested JSON, as delivered until it is made into a batch.
_NESTED_COLUMNS = frozenset(
    ("request_parameters", "response_elements", "additional_event_data", "service_event_details")
) | {"resources", "tls_details", "addendum", "other_fields"}


def _batch(
    values: list[list[Any]], columns: tuple[Column, ...], redaction: Redaction | None = None
) -> pa.RecordBatch:
    import pyarrow as pa

    kinds = {
        "string": (pa.string(), None),
        "boolean": (pa.bool_(), None),
        "bigint": (pa.int64(), None),
        "date": (pa.int32(), pa.date32()),
        "timestamp": (pa.int64(), pa.timestamp("us", tz="UTC")),
    }
    arrays = []
    for column, of_column in zip(columns, values, strict=True):
        stored, shown = kinds[column.type]
        array = pa.array(of_column, stored)
        if column.name in _NESTED_COLUMNS:
            changed = (redaction or default_redaction()).column(of_column, array)
            array = array if changed is None else pa.array(changed, stored)
        arrays.append(array.view(shown) if shown else array)
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])
