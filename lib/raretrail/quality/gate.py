"""What may be published, given the verdicts of all suites of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from raretrail.quality.judge import Verdict


@dataclass(frozen=True)
class Gate:
    """What is held back and what is said of it.

    `held_scopes`: (column, value) pairs; rows with that value stay staged. `messages`: a line for
    each critical failure, what it held first. `warnings`: a line for each failed warning.
    """

    held_all: bool
    held_scopes: frozenset[tuple[str, str]]
    warnings: tuple[str, ...]
    messages: tuple[str, ...]

    @property
    def held(self) -> bool:
        """Whether anything is held."""
        return self.held_all or bool(self.held_scopes)


def gate(verdicts: Iterable[Verdict]) -> Gate:
    """A failed critical expectation holds everything, one with a scope that value alone.

    A scoped one that failed for no value in particular (it could not be judged) or for null, which
    a row to be held may not carry, holds everything.
    """
    held_all = False
    held_scopes: set[tuple[str, str]] = set()
    warnings: list[str] = []
    messages: list[str] = []
    for verdict in verdicts:
        if verdict.success:
            continue
        if verdict.severity == "warning":
            warnings.append(verdict.detail)
        elif verdict.scope_column is None or verdict.scope_value in (None, "null"):
            held_all = True
            messages.append(f"Everything is held: {verdict.detail}")
        else:
            held_scopes.add((verdict.scope_column, str(verdict.scope_value)))
            named = f"{verdict.scope_column} {verdict.scope_value}"
            messages.append(f"The findings of {named} are held: {verdict.detail}")
    return Gate(held_all, frozenset(held_scopes), tuple(warnings), tuple(messages))
