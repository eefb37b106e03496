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
from typing import NamedTuple

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


class Decided(NamedTuple):
    """The positions in a file of duplicates, of reused ids, of records that others correct."""

    duplicates: set[int]
    reused: set[int]
    superseded: set[int]


def kept(results: Sequence[FileResult]) -> dict[str, Decided]:
    """For each file of `census` results what is not kept, by the rules of `copies.with_verdict`."""
    decided = {result.source_file: Decided(set(), set(), set()) for result in results}
    by_id: dict[tuple[str, str], list[tuple[bool, str, str, int, str | None]]] = {}
    for result in results:
        for file, at, event_id, account, content, _, _, _, corrects in result.rows:
            found = (corrects != event_id, content, file, at, corrects)
            by_id.setdefault((account, event_id), []).append(found)
    calls: dict[tuple[str, str], list[tuple[bool, str, str, str, int]]] = {}
    for (account, event_id), records in by_id.items():
        is_other, content, file, at, corrects = min(records, key=lambda one: one[:4])
        calls.setdefault((account, corrects or event_id), []).append(
            (corrects is None, content, event_id, file, at)
        )
        seen = {content}
        for _, other, place, position, _ in sorted(records, key=lambda one: one[1:4]):
            if (place, position) == (file, at):
                continue
            if other in seen:
                decided[place].duplicates.add(position)
            else:
                seen.add(other)
                (decided[place].reused if is_other else decided[place].superseded).add(position)
    for of_call in calls.values():
        for *_, file, at in sorted(of_call)[1:]:
            decided[file].superseded.add(at)
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
        left = decided[file.source_file]
        result.duplicates += len(left.duplicates)
        for reason, aside in (("id_reused", left.reused), ("superseded", left.superseded)):
            if aside:
                result.quarantined[reason] += len(aside)
        result.events += file.accepted - sum(map(len, left))
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
