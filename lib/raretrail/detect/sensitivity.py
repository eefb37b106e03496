"""Sensitivity of a command: what it can do, from facts declared in `conf/sensitivity.yml`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pyspark.sql import Column
from pyspark.sql import functions as F

from raretrail.errors import UsageError

HIGHEST = 4


@dataclass(frozen=True)
class Level:
    """Commands of one level, by patterns that match the whole of `service:Name`."""

    level: int
    why: str
    patterns: tuple[str, ...]


def load_levels(path: Path) -> tuple[Level, ...]:
    """The levels in their order. UsageError names the file and what is wrong in it."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(tree, dict) or set(tree) != {"levels"} or not isinstance(tree["levels"], list):
        raise UsageError(f"{path}: needs a list under `levels` and nothing else")
    return tuple(_level(level, path, number) for number, level in enumerate(tree["levels"], 1))


def _level(tree: Any, path: Path, number: int) -> Level:
    where = f"{path}: level {number}"
    if not isinstance(tree, dict) or set(tree) != {"level", "why", "patterns"}:
        raise UsageError(f"{where}: needs `level`, `why` and `patterns`")
    if not isinstance(tree["level"], int) or not 0 <= tree["level"] <= HIGHEST:
        raise UsageError(f"{where}: level must be 0 to {HIGHEST}")
    if not isinstance(tree["patterns"], list) or not all(isinstance(p, str) for p in tree["patterns"]):
        raise UsageError(f"{where}: patterns must be a list of regular expressions")
    for pattern in tree["patterns"]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UsageError(f"{where}: {pattern!r} is not a regular expression: {error}") from error
    return Level(tree["level"], str(tree["why"]), tuple(tree["patterns"]))


def level_of(levels: tuple[Level, ...], command: str, read_only: bool) -> int:
    """The level of one command."""
    for level in levels:
        if any(re.fullmatch(pattern, command) for pattern in level.patterns):
            return level.level
    return 0 if read_only else 1


def sensitivity(levels: tuple[Level, ...], command: Column, read_only: Column) -> Column:
    """The level of a command, as a column."""
    found = F.when(F.coalesce(read_only, F.lit(False)), F.lit(0)).otherwise(F.lit(1))
    for level in reversed(levels):
        matches = F.lit(False)
        for pattern in level.patterns:
            matches = matches | command.rlike(f"^(?:{pattern})$")
        found = F.when(matches, F.lit(level.level)).otherwise(found)
    return found
