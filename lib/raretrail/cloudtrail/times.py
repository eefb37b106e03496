"""Times as trails and their copies write them, as microseconds since 1970 in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
DAY = 86_400_000_000
# A time outside of these is a mistake or the 1970 of an S3 notification.
EARLIEST = (datetime(2000, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
LATEST = (datetime(2100, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND

_NUMBER = re.compile(r"\d{9,10}(?:\.\d+)?|\d{13}|\d{16}|\d(?:\.\d+)?[eE]\+?(?:9|09|12)", re.ASCII)
_WRITTEN = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)[T ](\d\d):?(\d\d):?(\d\d)(?:[.,](\d{1,9}))?"
    r" ?(Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII,
)


def microseconds(text: str) -> int | None:
    """The time `text` stands for, or None if it is none between 2000 and 2100.

    Taken: `2023-07-10T11:42:02Z` as delivered; a space for the T; fractions (cut to microseconds);
    `Z`, `UTC` or an offset, and no zone for UTC; `20230710T114202Z`; seconds, milliseconds or
    microseconds since 1970.
    """
    if len(text) == 20 and text[19] == "Z":
        # The delivered form, from the two halves it is made of: both are met again and again.
        day, clock = _day_start(text[:11]), _of_day(text[11:])
        if day is not None and clock is not None:
            return day + clock
    return _any_form(text)


@lru_cache(maxsize=4096)
def _day_start(text: str) -> int | None:
    return _any_form(text + "00:00:00Z") if len(text) == 11 and text[10] == "T" else None


@lru_cache(maxsize=90_000)
def _of_day(text: str) -> int | None:
    moment = _any_form("2000-01-01T" + text)
    return None if moment is None else moment - EARLIEST


@lru_cache(maxsize=4096)
def _any_form(text: str) -> int | None:
    found = _WRITTEN.fullmatch(text)
    try:
        if found:
            year, month, day, hour, minute, second, fraction, zone = found.groups()
            moment = datetime(
                int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC
            )
            value = (moment - _EPOCH) // _MICROSECOND
            if fraction:
                value += int(fraction[:6].ljust(6, "0"))
            if zone and zone[0] in "+-":
                digits = zone[1:].replace(":", "").ljust(4, "0")
                offset = (int(digits[:2]) * 60 + int(digits[2:])) * 60_000_000
                value += offset if zone[0] == "-" else -offset
        elif _NUMBER.fullmatch(text):
            number = float(text)
            scale = 1 if number >= 1e14 else 1_000 if number >= 1e11 else 1_000_000
            value = int(text) * scale if text.isdigit() else round(number * scale)
        else:
            return None
    except ValueError:
        return None
    return value if EARLIEST <= value < LATEST else None
