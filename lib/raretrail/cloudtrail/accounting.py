"""What became of every record of a trail, counted in plain Python, without Spark or tables.

    python -m raretrail.cloudtrail.accounting [--unwrap KEY] FOLDER...

prints one line for each folder (or, given one folder that holds only folders, for each of these):
records found = events + duplicates + quarantined. It is the reference that ingest is held to.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from raretrail.cloudtrail.decode import FileResult, census
from raretrail.cloudtrail.layout import describe, list_local
from raretrail.errors import UsageError


@dataclass
class Account:
    """The count of one set of files. `events` is also the number of distinct
    (account, event id): of records that share one, the one kept."""

    name: str
    files: int = 0
    skipped: int = 0
    empty: int = 0
    records: int = 0
    events: int = 0
    duplicates: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    shapes: Counter[str] = field(default_factory=Counter)

    @property
    def balances(self) -> bool:
        """Is every record found accounted for?"""
        return self.records == self.events + self.duplicates + self.quarantined.total()


def account(paths: Iterable[str], unwrap: str | None = None) -> list[Account]:
    """One `Account` for each path (a folder or a file), each on its own.

    Of several records with one (account, event id) the one with the smallest record hash is the
    event, so that the order of files does not matter; copies of it are duplicates, the others are
    quarantined as `id_reused`.

    Raises:
        UsageError: a path does not exist.
    """
    return [_account(path, unwrap) for path in paths]


def kept(results: Sequence[FileResult]) -> dict[str, tuple[set[int], set[int]]]:
    """For each file of `census` results: the positions of duplicates, and of reused ids."""
    best: dict[tuple[str, str], tuple[str, str, int]] = {}
    for result in results:
        for file, position, event_id, recipient, record_hash, *_ in zip(*result.columns, strict=True):
            found = (record_hash, file, position)
            if found < best.get((recipient, event_id), ("~", "", 0)):
                best[recipient, event_id] = found
    decided: dict[str, tuple[set[int], set[int]]] = {r.source_file: (set(), set()) for r in results}
    for result in results:
        duplicates, reused = decided[result.source_file]
        for file, position, event_id, recipient, record_hash, *_ in zip(*result.columns, strict=True):
            winner = best[recipient, event_id]
            if winner != (record_hash, file, position):
                (duplicates if winner[0] == record_hash else reused).add(position)
    return decided


def _account(path: str, unwrap: str | None) -> Account:
    result = Account(os.path.basename(os.path.normpath(path)))
    read: list[FileResult] = []
    for info in list_local(path):
        result.files += 1
        if describe(info.path).kind != "log":
            result.skipped += 1
            continue
        file = census(info.path, Path(info.path).read_bytes(), unwrap=unwrap)
        result.shapes[file.shape] += 1
        result.records += file.records
        result.skipped += file.status == "skipped"
        result.empty += file.status == "empty"
        result.quarantined.update(quarantined.reason for quarantined in file.quarantined)
        read.append(file)
    decided = kept(read)
    for file in read:
        duplicates, reused = decided[file.source_file]
        result.duplicates += len(duplicates)
        if reused:
            result.quarantined["id_reused"] += len(reused)
        result.events += file.accepted - len(duplicates) - len(reused)
    return result


def _sets(paths: list[str]) -> list[str]:
    """The paths, or the folders within the only one if it holds nothing else."""
    if len(paths) == 1 and os.path.isdir(paths[0]):
        entries = sorted(os.scandir(paths[0]), key=lambda entry: entry.name)
        if entries and all(entry.is_dir() for entry in entries):
            return [entry.path for entry in entries]
    return paths


def table(accounts: Iterable[Account]) -> str:
    """The accounts as a table of text, with a total."""
    from raretrail.show.text import inert

    header = ("set", "files", "skipped", "empty", "records", "events", "duplicates", "quarantined")
    accounts = list(accounts)
    total = Account("total")
    for one in accounts:
        for name in ("files", "skipped", "empty", "records", "events", "duplicates"):
            setattr(total, name, getattr(total, name) + getattr(one, name))
        total.quarantined.update(one.quarantined)
    lines: list[tuple[str, ...]] = [(*header, "balances", "reasons")]
    for one in [*accounts, total]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in one.quarantined.most_common())
        numbers = (one.files, one.skipped, one.empty, one.records, one.events, one.duplicates)
        lines.append(
            (
                inert(one.name),
                *(f"{number:,}" for number in numbers),
                f"{one.quarantined.total():,}",
                "yes" if one.balances else "NO",
                reasons,
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]) - 1)]
    text = []
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:], strict=True)]
        text.append("  ".join([*cells, line[-1]]).rstrip())
    return "\n".join(text)


def main(arguments: list[str] | None = None) -> int:
    """Print the table for the folders named; 1 if one does not balance, 2 if one is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m raretrail.cloudtrail.accounting",
        description="What became of every record: events, duplicates, quarantined.",
    )
    parser.add_argument("folder", nargs="+", help="a trail, a folder below it, or a file")
    parser.add_argument(
        "--unwrap", metavar="KEY", help="take documents of unknown shape by what is under KEY"
    )
    options = parser.parse_args(arguments)
    try:
        accounts = account(_sets(options.folder), options.unwrap)
    except UsageError as error:
        from raretrail.show.text import inert

        sys.stderr.write(f"{inert(error)}\n")
        return error.exit_code
    sys.stdout.write(table(accounts) + "\n")
    return 0 if all(one.balances for one in accounts) else 1


if __name__ == "__main__":
    sys.exit(main())
