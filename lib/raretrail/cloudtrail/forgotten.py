"""Whoever was forgotten, known again by keyed hashes alone, and kept out of what is read.

A tombstone says that records of an actor, a principal or an address before a time are not taken in, and
that names of theirs go from the words of others. It holds the HMAC of each, so that only who has the key
can tell whether a name is among them.
"""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from raretrail.cloudtrail.decode import CENSUS_COLUMNS, FileResult
from raretrail.errors import UsageError
from raretrail.tables import DECODED_COLUMNS

MARKER = "[forgotten]"
KEY = "RARETRAIL_FORGET_KEY"
KEY_FILE = "RARETRAIL_FORGET_KEY_FILE"
_SHORTEST = 16

# A name in a text: letters and digits, joined by dots and hyphens. What an escape of JSON or of a URL ends
# with is no part of the name after it. An address of IPv6 is one word, one of IPv4 is a name by its look.
_NAME = r"\w+(?:[.-]\w+)*"
_IPV6 = r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])"
_WORD = re.compile(rf"%[0-9A-Fa-f]{{2}}|\\u[0-9A-Fa-f]{{4}}|\\[nrtbf]|(?P<name>{_IPV6}|{_NAME})")
_BEFORE = r"(?:(?<=%[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4})|(?<=\\[nrtbf])|(?<!\w)(?<!\w[.-]))"
_AFTER = r"(?!\w)(?![.-]\w)"


def key_of(directory: Path | None, environment: Mapping[str, str] = os.environ) -> bytes | None:
    """The key from the environment, or from the file that it names; None where it has neither. directory is
    the warehouse's, where it lies on this machine.

    Raises UsageError for a key shorter than 16 bytes, a file that cannot be read or lies in the warehouse.
    """
    text, named = environment.get(KEY), environment.get(KEY_FILE)
    if text:
        key, where = text.encode(), KEY
    elif named:
        path, where = Path(named), f"{KEY_FILE} {named}"
        if directory and path.resolve().is_relative_to(directory.resolve()):
            raise UsageError(f"{where}: lies in the warehouse, which it must not; keep it elsewhere")
        try:
            key = path.read_bytes().strip()
        except OSError as error:
            raise UsageError(f"{where}: cannot be read: {error.strerror or error}") from None
    else:
        return None
    if len(key) < _SHORTEST:
        raise UsageError(f"{where}: is shorter than {_SHORTEST} bytes; `openssl rand -hex 32` makes one")
    return key


def hashed(key: bytes, kind: str, text: str) -> str:
    """The keyed hash of a name of a kind; letters count alike in any case."""
    return hmac.digest(key, f"{kind}:{text.lower()}".encode(), "sha256").hex()


def key_id(key: bytes) -> str:
    """Which key it is, telling nothing of it."""
    return hashed(key, "key", "")[:16]


def is_word(text: str) -> bool:
    """Whether a text is one name to whoever looks for it in words."""
    found = _WORD.fullmatch(text)
    return bool(found and found["name"])


def pattern_of(names: Iterable[str]) -> str:
    """A regular expression that finds each of the names as a whole one, as Python and Java read it."""
    plain = {name: re.sub(r"([^\w\s])", r"\\\1", name) for name in names}
    # An address of IPv6 may be the beginning of another.
    each = [text + "(?!:)" if ":" in text and "/" not in text else text for text in plain.values()]
    return f"{_BEFORE}(?:{'|'.join(sorted(each, key=len, reverse=True))}){_AFTER}"


class Tombstone(NamedTuple):
    """A hash of a kind (`tables.TOMBSTONE_KINDS`); account None is any; before in microseconds since 1970."""

    kind: str
    hash: str
    account: str | None
    before: int


_POSITION = [column.name for column in CENSUS_COLUMNS].index("source_position")
_AT = {column.name: number for number, column in enumerate(DECODED_COLUMNS)}
_WORDS = [number for number, column in enumerate(DECODED_COLUMNS) if column.holds == "words"]


class Forgotten:
    """All tombstones under the key that tells whom they are of. Can be pickled."""

    def __init__(self, key: bytes, tombstones: Sequence[Tombstone]) -> None:
        self._key = key
        self._tombstones = tuple(tombstones)
        self._found: dict[tuple[str, str], list[Tombstone]] = {}
        for stone in tombstones:
            self._found.setdefault((stone.kind, stone.hash), []).append(stone)
        self._of = lru_cache(maxsize=65536)(self._look_up)

    def __reduce__(self) -> tuple[type[Forgotten], tuple[bytes, tuple[Tombstone, ...]]]:
        return Forgotten, (self._key, self._tombstones)

    def _look_up(self, kind: str, text: str) -> tuple[Tombstone, ...]:
        return tuple(self._found.get((kind, hashed(self._key, kind, text)), ()))

    def covers(self, kind: str, text: str | None, account: str | None, time: int | None) -> bool:
        """Whether a name of that kind is forgotten in a record of the account and time; what a record does
        not say is taken to be covered."""
        return bool(text) and any(
            (stone.account is None or account in (None, stone.account))
            and (time is None or time < stone.before)
            for stone in self._of(kind, text or "")
        )

    def without_names(self, text: str, account: str | None, time: int | None) -> str:
        """text, with the marker for every name that is forgotten in a record of the account and time."""

        def instead(found: re.Match[str]) -> str:
            name = found["name"]
            gone = name and any(self.covers(kind, name, account, time) for kind in ("name", "address"))
            return MARKER if gone else found[0]

        return _WORD.sub(instead, text)

    def left_out(self, result: FileResult) -> set[int]:
        """The rows of a `decode_file` result, by their number in its columns, that are of the forgotten."""
        columns = result.columns
        named = [(kind, columns[_AT[name]]) for kind, name in _RECORD]
        accounts, times = columns[_AT["recipient_account_id"]], columns[_AT["event_time"]]
        return {
            row
            for row in range(result.accepted)
            if any(self.covers(kind, values[row], accounts[row], times[row]) for kind, values in named)
        }

    def leave_out(self, census: FileResult, decoded: FileResult) -> None:
        """Take records of the forgotten, and what is set aside and names them, out of a census; count them.

        decoded is `decode_file` of the same file.
        """
        at = decoded.columns[_AT["source_position"]]
        gone = {at[row] for row in self.left_out(decoded)}
        census.forgotten = len(gone) + len(census.quarantined)
        census.quarantined = [
            piece
            for piece in census.quarantined
            if self.without_names(piece.raw, piece.recipient_account_id, piece.event_time) == piece.raw
        ]
        census.forgotten -= len(census.quarantined)
        positions = census.columns[_POSITION]
        _keep(census, [row for row, position in enumerate(positions) if position not in gone])

    def take_out(self, decoded: FileResult) -> None:
        """Take the records of the forgotten out of a `decode_file` result, and their names out of others'."""
        gone = self.left_out(decoded)
        if gone:
            _keep(decoded, [row for row in range(decoded.accepted) if row not in gone])
        accounts, times = decoded.columns[_AT["recipient_account_id"]], decoded.columns[_AT["event_time"]]
        for number in _WORDS:
            column = decoded.columns[number]
            for row, value in enumerate(column):
                if value:
                    column[row] = self._in_words(value, accounts[row], times[row])
        decoded.quarantined = [
            piece._replace(
                raw=self.without_names(piece.raw, piece.recipient_account_id, piece.event_time),
                detail=self.without_names(piece.detail, piece.recipient_account_id, piece.event_time),
            )
            for piece in decoded.quarantined
        ]

    def _in_words(self, value: Any, account: str | None, time: int | None) -> Any:
        """A text, or JSON as bytes, without names."""
        if isinstance(value, str):
            return self.without_names(value, account, time)
        text = value.decode("utf-8", "surrogateescape")
        return self.without_names(text, account, time).encode("utf-8", "surrogateescape")


# Which columns of a record say whose it is.
_RECORD = (("actor", "actor"), ("principal", "principal"), ("address", "source_ip_address"))


def _keep(result: FileResult, rows: list[int]) -> None:
    result.columns = [[column[row] for row in rows] for column in result.columns]
