"""What can go wrong, and the exit code a scheduler sees for it.

0 done, 1 failed, 2 wrong usage or settings, 3 held by a quality check, 4 another run holds the
warehouse. Every error a user can act on is one of these; its message says what is wrong, where,
and what to do.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_HELD = 3
EXIT_BUSY = 4


class RaretrailError(Exception):
    """A failure raretrail can put into words. `exit_code` is what the process ends with."""

    exit_code = EXIT_FAILED


class SparkError(RaretrailError):
    """Spark failed; its own words, and the kind of its error."""


class UsageError(RaretrailError):
    """An option, a setting or a file the user named is wrong; only the user can mend it."""

    exit_code = EXIT_USAGE


class HeldError(RaretrailError):
    """A critical expectation failed: nothing was published for the scope it covers."""

    exit_code = EXIT_HELD


class BusyError(RaretrailError):
    """Another run holds the warehouse."""

    exit_code = EXIT_BUSY
