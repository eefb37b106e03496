"""Is a trail as CloudTrail delivered it? Its digest files say: hashes, their chain, their signatures.

A digest names the log files of an hour with their SHA-256, and the digest before it with hash and
signature. What is signed is its end, its place, its own hash and the signature before it. A digest's
own signature is no part of the file but of the object's metadata in S3 (`x-amz-meta-signature`); the
next digest repeats it. So of a copy of a trail all digests but the newest can be proven; the newest
too where a file of its name and `.signature` beside it holds that text.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from raretrail.cloudtrail.layout import describe
from raretrail.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

# More than an hour of the largest trail makes; a digest names a file in some 400 bytes.
_LARGEST = 512 * 1024**2
_DELIVERED = re.compile(r"_(\d{8}T\d{4,6})Z?[_.]")


class LogFile(NamedTuple):
    """A log file as a digest names it."""

    key: str
    sha256: str


class Digest(NamedTuple):
    """A digest file. `sha256` is that of its decompressed text; times are as written."""

    path: str
    bucket: str
    key: str
    account: str
    start: str
    end: str
    sha256: str
    log_files: tuple[LogFile, ...]
    previous_key: str | None
    previous_sha256: str | None
    previous_signature: str | None


class Finding(NamedTuple):
    """What was found of one file: `kind` is digest or log, `status` one of
    `tables.DIGEST_STATUSES`. `source_file` is its path, also where nothing lies there."""

    source_file: str
    kind: str
    status: str
    detail: str | None
    digest_file: str | None
    account: str | None
    region: str | None
    start: datetime | None
    end: datetime | None
    expected_sha256: str | None
    found_sha256: str | None


Read = Callable[[str], bytes | None]


def verify(
    digest_paths: Iterable[str], log_paths: Iterable[str], read: Read, keys: Sequence[RSAPublicKey]
) -> Iterator[Finding]:
    """One finding for each digest file, each log file that one names, and each log file that none
    names though its time is covered.

    Args:
        digest_paths: paths of the digest files that are there.
        log_paths: paths of the log files that are there.
        read: the bytes at a path, None where nothing lies.
        keys: public keys of the trail's region; a signature by any of them is sound.
    """
    digests: list[Digest] = []
    unreadable: set[str] = set()
    for path in sorted(digest_paths):
        digest = _opened(path, read(path))
        if isinstance(digest, Digest):
            digests.append(digest)
        else:
            unreadable.add(path)
            yield digest
    by_key = {digest.key: digest for digest in digests}
    following = {d.previous_key: d for d in digests if d.previous_key}
    named: set[str] = set()
    for digest in sorted(digests, key=lambda d: (_chain(d.key), d.end, d.key)):
        root = _root(digest)
        finding = _judge_digest(digest, root, following.get(digest.key), read, keys)
        before = by_key.get(digest.previous_key or "")
        if digest.previous_key and not before:
            oldest = not any(_chain(d.key) == _chain(digest.key) and d.end < digest.end for d in digests)
            if not oldest:
                missing = _missing_digest(digest, root)
                if missing.source_file not in unreadable:
                    yield missing
            elif finding.status == "valid":
                finding = finding._replace(detail="the oldest here; what came before is not proven")
        yield finding
        for log in digest.log_files:
            path = root.path(log.key) if root else log.key
            named.add(path)
            yield _judge_log(digest, finding, log, path, read(path))
    yield from _unlisted(digests, named, log_paths)


# ------------------------------------------------------------------------------------------ digests


def _opened(path: str, data: bytes | None) -> Digest | Finding:
    """The digest at a path, or the finding that there is none to be read."""
    try:
        if data is None:
            raise ValueError("cannot be read")
        text = _inflated(data)
        tree = json.loads(text)
        if not isinstance(tree, dict):
            raise ValueError("no JSON object")
        return Digest(
            path,
            _text(tree, "digestS3Bucket"),
            _text(tree, "digestS3Object"),
            _text(tree, "awsAccountId"),
            _text(tree, "digestStartTime"),
            _text(tree, "digestEndTime"),
            hashlib.sha256(text).hexdigest(),
            tuple(
                LogFile(_text(one, "s3Object"), _text(one, "hashValue").lower())
                for one in tree.get("logFiles") or []
            ),
            _optional(tree, "previousDigestS3Object"),
            (_optional(tree, "previousDigestHashValue") or "").lower() or None,
            _optional(tree, "previousDigestSignature"),
        )
    except (ValueError, TypeError, AttributeError, EOFError, OSError, zlib.error, RecursionError) as error:
        told = describe(path)
        detail = f"no digest that can be read: {error}"[:300]
        return Finding(
            path, "digest", "unreadable", detail, None, told.account, told.region, None, None, None, None
        )


def _inflated(data: bytes) -> bytes:
    if not data.startswith(b"\x1f\x8b"):
        return data
    inflater = zlib.decompressobj(wbits=31)
    text = inflater.decompress(data, _LARGEST)
    if not inflater.eof:
        raise ValueError("gzip data damaged, cut off or too large")
    return text


def _text(tree: Mapping[str, Any], key: str) -> str:
    value = tree.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"no {key}")
    return value


def _optional(tree: Mapping[str, Any], key: str) -> str | None:
    return tree[key] if isinstance(tree.get(key), str) and tree[key] else None


def _chain(key: str) -> str:
    """What the digests of one chain share: the folder above the day, and the trail's name."""
    folder, _, name = key.rpartition("/")
    return folder.rpartition("CloudTrail-Digest/")[0] + name.rpartition("_20")[0]


class _Root(NamedTuple):
    """Where the keys of a digest lie: `folder` before them, in place of `prefix`."""

    folder: str
    prefix: str

    def path(self, key: str) -> str:
        return self.folder + key.removeprefix(self.prefix)


def _root(digest: Digest) -> _Root | None:
    """Where the files of the digest's trail lie; None if the digest is not where it says.

    A copy may begin below the trail's prefix: the part of the key from `AWSLogs/` on must be the end
    of the path.
    """
    prefix = digest.key[: max(0, digest.key.rfind("AWSLogs/"))]
    for dropped in ("", prefix):
        rest = digest.key.removeprefix(dropped)
        if digest.path.endswith("/" + rest):
            return _Root(digest.path.removesuffix(rest), dropped)
    return None


def _judge_digest(
    digest: Digest, root: _Root | None, after: Digest | None, read: Read, keys: Sequence[RSAPublicKey]
) -> Finding:
    expected = after.previous_sha256 if after else None
    signature = _beside(digest.path, read) or (after.previous_signature if after else None)
    if root is None:
        status, detail = "altered", f"lies elsewhere than it says: {digest.key}"
    elif expected and expected != digest.sha256:
        status, detail = "altered", "its hash is not the one the next digest names"
    elif not signature:
        status, detail = "unproven", "its signature is in no digest here, nor in a file beside it"
    elif not _signed(digest, signature, keys):
        status, detail = "altered", "its signature does not fit it, or is by another key"
    else:
        status, detail = "valid", None
    return _finding(digest, digest.path, "digest", status, detail, expected, digest.sha256)._replace(
        digest_file=after.path if after else None
    )


def _missing_digest(digest: Digest, root: _Root | None) -> Finding:
    detail = f"the digest up to {digest.end} names it as the one before"
    key = digest.previous_key or ""
    path = root.path(key) if root else key
    found = _finding(digest, path, "digest", "missing", detail, digest.previous_sha256, None)
    return found._replace(start=None, end=_time(digest.start))


def _beside(path: str, read: Read) -> str | None:
    data = read(path + ".signature")
    return data.decode("ascii", "replace").strip() if data else None


def to_sign(digest: Digest) -> bytes:
    """What CloudTrail signs of a digest."""
    place = f"{digest.bucket}/{digest.key}"
    parts = (digest.end, place, digest.sha256, digest.previous_signature or "null")
    return "\n".join(parts).encode()


def _signed(digest: Digest, signature: str, keys: Sequence[RSAPublicKey]) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        mark = bytes.fromhex(signature)
    except ValueError:
        return False
    for key in keys:
        try:
            key.verify(mark, to_sign(digest), PKCS1v15(), SHA256())
        except InvalidSignature:
            continue
        return True
    return False


# -------------------------------------------------------------------------------------------- logs


def _judge_log(digest: Digest, of_digest: Finding, log: LogFile, path: str, data: bytes | None) -> Finding:
    found = None
    if data is not None:
        try:
            found = hashlib.sha256(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).hexdigest()
        except (OSError, EOFError, zlib.error):
            found = "damaged"
    if of_digest.status == "altered":
        status, detail = "unproven", "the digest that names it is altered"
    elif data is None:
        status, detail = "missing", "named by a digest, not there"
    elif found != log.sha256:
        status, detail = "altered", "not what was delivered: its hash is another"
    elif of_digest.status != "valid":
        status, detail = "unproven", "as its digest says, whose signature is not here"
    else:
        status, detail = "valid", None
    return _finding(digest, path, "log", status, detail, log.sha256, found)


def _unlisted(digests: Sequence[Digest], named: set[str], log_paths: Iterable[str]) -> Iterator[Finding]:
    """Log files that no digest names, though digests cover the account, region and time."""
    covered: dict[tuple[str | None, str | None], list[tuple[datetime, datetime]]] = {}
    for digest in digests:
        start, end = _time(digest.start), _time(digest.end)
        if start and end:
            covered.setdefault(describe(digest.path)[1:3], []).append((start, end))
    for path in sorted(log_paths):
        delivered = _delivered(path)
        if path in named or delivered is None:
            continue
        where = describe(path)[1:3]
        if any(start <= delivered < end for start, end in covered.get(where, ())):
            detail = "no digest names it, though they cover its time: not CloudTrail's, or added later"
            yield Finding(path, "log", "unlisted", detail, None, *where, delivered, None, None, None)


def _delivered(path: str) -> datetime | None:
    found = _DELIVERED.search(path.rpartition("/")[2])
    if not found:
        return None
    form = "%Y%m%dT%H%M" if len(found[1]) == 13 else "%Y%m%dT%H%M%S"
    try:
        return datetime.strptime(found[1], form).replace(tzinfo=UTC)
    except ValueError:
        return None


def _finding(
    digest: Digest,
    path: str,
    kind: str,
    status: str,
    detail: str | None,
    expected: str | None,
    found: str | None,
) -> Finding:
    told = describe(digest.path)
    return Finding(
        path,
        kind,
        status,
        detail,
        digest.path,
        told.account or digest.account,
        told.region,
        _time(digest.start),
        _time(digest.end),
        expected,
        found,
    )


def _time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


# -------------------------------------------------------------------------------------------- keys


def load_keys(paths: Iterable[str]) -> list[RSAPublicKey]:
    """The RSA public keys of files: PEM, DER (PKCS#1 as CloudTrail gives it, or SubjectPublicKeyInfo),
    base64 of DER, or the JSON answer of `aws cloudtrail list-public-keys`.

    Raises:
        UsageError: a file cannot be read or holds no such key, or `cryptography` is not installed.
    """
    keys: list[RSAPublicKey] = []
    for path in paths:
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise UsageError(f"--public-key {path}: {error.strerror}") from None
        found = [key for text in _key_texts(data) if (key := _key(text))]
        if not found:
            raise UsageError(
                f"--public-key {path}: no RSA public key; give PEM, DER, or the answer of "
                "`aws cloudtrail list-public-keys`"
            )
        keys += found
    return keys


def _key_texts(data: bytes) -> list[bytes]:
    if data.lstrip()[:1] == b"{":
        try:
            listed = json.loads(data).get("PublicKeyList") or []
            return [base64.b64decode(one["Value"]) for one in listed]
        except (ValueError, TypeError, KeyError, AttributeError):
            return []
    try:
        return [data, base64.b64decode(data, validate=False)]
    except binascii.Error:
        return [data]


def _key(data: bytes) -> RSAPublicKey | None:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.serialization import (
            load_der_public_key,
            load_pem_public_key,
        )
    except ImportError:
        raise UsageError("digests need the package cryptography: pip install 'raretrail[digests]'") from None
    for load in (load_pem_public_key, load_der_public_key):
        try:
            key = load(data)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            continue
        if isinstance(key, RSAPublicKey):
            return key
    return None
