"""The scheduled job as one resident process: a run every so often, over a session that stays open.

What decides when to run, when to stop and when to open the session anew is here; what a run does is given.
"""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, Protocol, TypeVar

from raretrail.errors import RaretrailError, SparkError, UsageError

S = TypeVar("S")

# A run of every quarter of an hour opens its session anew once a day: what a JVM gathers then goes.
RUNS_A_SESSION = 96
# The clock may jump, and a machine may sleep: it is looked at this often.
_LOOK_SECONDS = 30.0


class Sessions(Protocol[S]):
    """Where runs get their session from."""

    def open(self) -> S:
        """A new session."""

    def rest(self, session: S) -> None:
        """Give back memory until the next run."""

    def close(self, session: S) -> None:
        """End it."""


@dataclass(frozen=True, kw_only=True)
class Watch(Generic[S]):
    """How often runs begin, how many there are at most (None: until stopped), how many a session serves."""

    every: timedelta
    sessions: Sessions[S]
    runs: int | None = None
    runs_a_session: int = RUNS_A_SESSION
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    tell: Callable[[str], None] = lambda text: None
    failed: Callable[[Exception], None] = lambda error: None

    def watch(self, run: Callable[[S], object], stop: threading.Event) -> int:
        """Call run at once and then every `every` until stop is set; how many runs there were.

        A run that fails is told and the next one comes at its time; whatever was no error of raretrail's
        own may have hurt the session, which is then opened anew. What only the user can mend ends it, but
        only before anything went well. A run that takes longer than `every` is followed by the next one
        that is due: none is made up for.
        """
        session: S | None = None
        done = served = 0
        went_well = False
        due = self.clock()
        try:
            while not stop.is_set():
                try:
                    if session is None:
                        session, served = self.sessions.open(), 0
                        if stop.is_set():
                            break
                    served += 1
                    run(session)
                    went_well = True
                except UsageError as error:
                    if not went_well:
                        raise
                    self.failed(error)
                except Exception as error:
                    self.failed(error)
                    if isinstance(error, SparkError) or not isinstance(error, RaretrailError):
                        served = self.runs_a_session
                done += 1
                if self.runs is not None and done >= self.runs:
                    break
                if session is not None and served >= self.runs_a_session:
                    closing, session = session, None
                    self.sessions.close(closing)
                elif session is not None:
                    gc.collect()
                    self.sessions.rest(session)
                due = self._next(due)
                self._wait(due, stop)
        finally:
            if session is not None:
                self.sessions.close(session)
        return done

    def _next(self, due: datetime) -> datetime:
        """When the next run begins; the schedule goes by when the first one did."""
        missed = max(0, (self.clock() - due) // self.every)
        if missed:
            self.tell(f"the run took longer than {self.every}: {missed} left out")
        return due + (missed + 1) * self.every

    def _wait(self, due: datetime, stop: threading.Event) -> None:
        while (left := (due - self.clock()).total_seconds()) > 0:
            if stop.wait(min(left, _LOOK_SECONDS)):
                return


@contextmanager
def stopped_by_signals(tell: Callable[[str], None]) -> Iterator[tuple[threading.Event, Callable[[], None]]]:
    """An event that SIGTERM and SIGINT set, and what takes these signals (again).

    The first one lets a run that is under way end; a second one interrupts it. Spark puts a handler of its
    own for SIGINT in place when a session opens, so ours is put back after that.
    """
    stop = threading.Event()

    def asked(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        tell(f"{signal.Signals(number).name}: stopping when what is under way is done")

    def take() -> None:
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, asked)

    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    take()
    try:
        yield stop, take
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
