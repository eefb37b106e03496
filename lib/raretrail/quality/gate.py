"""What may be published, given the verdicts of all suites of a run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from raretrail.quality.judge import Verdict

# The scope of what the ledger says of one file.
FILE = "source_file"


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
    def held_findings(self) -> frozenset[tuple[str, str]]:
        """The scopes that hold findings back; a file that cannot be read has none."""
        return frozenset(scope for scope in self.held_scopes if scope[0] != FILE)

    @property
    def held(self) -> bool:
        """Whether anything is held."""
        return self.held_all or bool(self.held_scopes)


def files_among(scopes: Collection[str]) -> set[str]:
    """The files among held scopes, as `runs.held_scopes` names them."""
    return {scope.removeprefix(f"{FILE}=") for scope in scopes if scope.startswith(f"{FILE}=")}


def only_files_held(scopes: Collection[str]) -> bool:
    """Whether held scopes are files and nothing else."""
    return bool(scopes) and len(files_among(scopes)) == len(set(scopes))


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
            if verdict.scope_column != FILE:
                named = f"The findings of {named} are"
            else:
                named = f"The file {verdict.scope_value} is"
            messages.append(f"{named} held: {verdict.detail}")
    return Gate(held_all, frozenset(held_scopes), tuple(warnings), tuple(messages))


def with_broken_detectors(given: Gate, broken: Mapping[str, str]) -> Gate:
    """given, with detectors held whose files cannot be used; broken says why, by name."""
    return replace(
        given,
        held_scopes=given.held_scopes.union(("detector", name) for name in broken),
        messages=(
            *given.messages,
            *(
                f"The findings of detector {name} are held: {' '.join(why.split())}"
                for name, why in sorted(broken.items())
            ),
        ),
    )
