"""Independent work done at once.

Most of a small Spark job is one thread planning and committing while the rest of the machine, or of the
cluster, waits. What does not depend on each other is therefore handed over together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

# Jobs handed to Spark at once; more would only wait for its scheduler.
_AT_ONCE = 4


def together(work: Sequence[Callable[[], T]]) -> list[T]:
    """The results in the order of `work`; once all have ended, the first error in that order is raised."""
    if len(work) < 2:
        return [one() for one in work]
    with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(work))) as pool:
        begun = [pool.submit(one) for one in work]
    return [one.result() for one in begun]


@contextlib.contextmanager
def beside(work: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Do work in a thread beside the body; what is yielded waits for its result, or raises its error.

    It has ended when the body is left, however that is left.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool.submit(work).result


def ahead(work: Callable[[], object]) -> None:
    """Begin what a later step will wait for; an error is left for that step to meet."""

    def quietly() -> None:
        with contextlib.suppress(Exception):
            work()

    Thread(target=quietly, daemon=True).start()
