"""The pages of the manual that are written from the code: tables, settings, detectors, checks, commands.

`pages()` gives them by name; `mkdocs.yml` takes them in through `tools/mkdocs_hooks.py`, and tests read
them as they read the pages that are files. None is committed: what they say is what the code says.
"""

from __future__ import annotations

import argparse
import itertools
import re
import typing
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from raretrail import cli, tables
from raretrail.quality.suites import Expectation, load_suites
from raretrail.settings import Detector, Settings, default_conf_dir, format_duration, load_settings
from raretrail.views import views

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"
REFERENCE = "reference"


def pages() -> dict[str, str]:
    """Markdown by path below docs/."""
    made = {
        "tables": tables_page(),
        "views": views_page(),
        "settings": settings_page(),
        "detectors": detectors_page(),
        "checks": checks_page(),
        "commands": commands_page(),
    }
    return {f"{REFERENCE}/{name}.md": text for name, text in made.items()}


def cell(text: object) -> str:
    """Text for a cell of a table: on one line, nothing in it markup."""
    flat = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]|$])", r"\\\1", flat).replace("<", "&lt;").replace(">", "&gt;")


def _grid(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(titles)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _code(text: object) -> str:
    shown = str(text).replace("|", "\\|")
    return f"`{shown}`" if shown else ""


# ---------------------------------------------------------------------------------------- tables


def tables_page() -> str:
    """Every table with every column."""
    parts = [
        "# Tables\n\nWritten from `lib/raretrail/tables.py`. In a directory warehouse W table T lies at "
        "`W/T` as a Delta table; on a catalog it is `catalog.schema.T`. A column marked † depends on the "
        "order in which files came; all others are the same whatever came first. Tables named `staged_…` "
        "hold what a run has in hand.\n"
    ]
    for table in tables.ALL:
        facts = [f"Key: {', '.join(map(_code, table.key))}."]
        if table.partition_by:
            facts.append(f"Partitioned by {', '.join(map(_code, table.partition_by))}.")
        facts.append(f"Meant to be kept {table.retain_days} days." if table.retain_days else "Kept.")
        rows = [
            [_code(c.name) + (" †" if c.arrival else ""), _code(c.type), cell(c.comment)]
            for c in table.columns
        ]
        parts.append(
            f"## {table.name}\n\n{cell(table.comment)}.\n\n{' '.join(facts)}\n\n"
            + _grid(["column", "type", "what it holds"], rows)
        )
    return "\n".join(parts)


# ----------------------------------------------------------------------------------------- views


def views_page() -> str:
    """Every view with every column, and a question it answers."""
    settings, _ = load_settings()
    parts = [
        "# Views\n\nWritten from `lib/raretrail/views.py`. `raretrail sql` sees them by their plain names, "
        "whichever engine reads the warehouse. Each is a SELECT that DuckDB and Spark share; a name with "
        'dots stands in `"double quotes"` for DuckDB and in backticks for Spark.\n'
    ]
    for view in views(settings.detectors):
        rows = [[_code(c.name), _code(c.type), cell(c.comment)] for c in view.columns]
        question = f"{cell(view.question)}\n\n```sql\n{view.answer}\n```\n\n"
        parts.append(
            f"## {view.name}\n\n{cell(view.comment)}.\n\n{question}"
            + _grid(["column", "type", "what it holds"], rows)
        )
    return "\n".join(parts)


# -------------------------------------------------------------------------------------- settings


def settings_page() -> str:
    """Every setting: type, default, and its comment in conf/settings.yml."""
    source = default_conf_dir() / "settings.yml"
    comments = _comments(source.read_text(encoding="utf-8"))
    defaults, _ = load_settings()
    rows = []
    for key, info in _leaves(Settings):
        value: Any = defaults.model_dump(mode="json")
        for part in key.split("."):
            value = value[part]
        rows.append([_code(key), cell(_type_name(info)), _code(_yaml(value)), cell(comments.get(key, ""))])
    return (
        "# Settings\n\nWritten from `lib/raretrail/settings.py` and `conf/settings.yml`. `--conf` lays a "
        "file, or a folder with `settings.yml`, `principals.yml`, `redaction.yml`, `detectors/` and "
        "`expectations/`, over these defaults; options of the command line lie over both. An unknown key "
        "is refused. What applies, and where each value came from:\n\n"
        "```sh\nraretrail run --print-settings\n```\n\n"
        + _grid(["setting", "type", "default", "what it does"], rows)
        + "\nA duration is a number and s, m, h or d. The hash of the settings that decide results is in "
        "every finding as `settings_hash`; where things lie, how Spark runs and how long rows are kept are "
        "left out of it.\n"
        + "".join(
            f"\n## {path.name}\n\n```yaml\n{_opening(path)}\n```\n"
            for path in sorted(default_conf_dir().glob("*.yml"))
            if path != source
        )
    )


def _opening(path: Path) -> str:
    """The comment a file of conf opens with, which says what it is for."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(itertools.takewhile(lambda line: line.startswith("#"), lines))


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        if name in ("conf_dirs", "broken_detectors") or any(
            _is_model(kind) for kind in typing.get_args(info.annotation)
        ):
            continue  # where settings came from; what has files of its own
        if _is_model(info.annotation):
            yield from _leaves(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, info


def _is_model(kind: Any) -> typing.TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _comments(text: str) -> dict[str, str]:
    """Dotted key → the comment beside it, or the comment lines above it."""
    found: dict[str, str] = {}
    above: list[str] = []
    sections: list[tuple[int, str]] = []  # those the line is in, each with its indent
    for line in text.splitlines():
        comment = re.match(r"\s*# ?(.*)", line)
        entry = re.match(r"( *)(\w+):\s*([^#]*?)\s*(?:#\s*(.*))?$", line)
        if comment:
            above.append(comment[1].strip())
            continue
        if entry:
            indent, name, value, beside = entry.groups()
            sections = [(depth, section) for depth, section in sections if depth < len(indent)]
            if not value:
                sections.append((len(indent), name))
            elif beside or above:
                key = ".".join([section for _, section in sections] + [name])
                found[key] = beside or " ".join(above)
        above = []
    return found


def _type_name(info: FieldInfo) -> str:
    names = {"timedelta": "duration", "str": "text", "int": "whole number", "float": "number"}

    def name(kind: Any) -> str:
        origin, inside = typing.get_origin(kind), typing.get_args(kind)
        if origin is typing.Annotated:
            return name(inside[0])
        if origin is list:
            return f"list of {name(inside[0])}"
        if origin is dict:
            return f"{name(inside[0])} to {name(inside[1])}"
        if origin is typing.Literal:
            return ", ".join(map(str, inside))
        if type(None) in inside:
            return f"{name(inside[0])} or null"
        if kind is bool:
            return "true or false"
        plain = str(kind.__name__)
        return names.get(plain, plain)

    least = [f"{sign} {_bound(getattr(m, attribute))}" for m in info.metadata
             for attribute, sign in _BOUNDS.items() if getattr(m, attribute, None) is not None]  # fmt: skip
    return ", ".join([name(info.annotation), *least])


def _bound(value: object) -> object:
    return format_duration(value) if isinstance(value, timedelta) else value


_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def _yaml(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_yaml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


# ------------------------------------------------------------------------------------- detectors


def detectors_page() -> str:
    """Every detector with what it asks for."""
    settings, _ = load_settings()
    parts = [
        "# Detectors\n\nWritten from `conf/detectors/*.yml`. Each takes the candidates (bucket × account × "
        "principal × command × address × error code) whose terms are surprising enough: every term under "
        "*requires* must reach its bits, and the sum of the finding's bits the *floor*. A file of the same "
        "name in the `detectors/` of your own conf replaces one; `enabled: false` in it turns it off.\n"
    ]
    for detector in settings.detectors:
        parts.append(_detector(detector))
    return "\n".join(parts)


def _detector(detector: Detector) -> str:
    requires = ", ".join(f"`{term}_bits` ≥ {bits:g}" for term, bits in sorted(detector.requires.items()))
    rows = [["requires", requires], ["floor", f"{detector.floor:g} bits"]]
    if detector.geo_status:
        rows.append(["only where placed as", ", ".join(map(_code, detector.geo_status))])
    rows.append(["severity, risk score", f"{detector.severity}, {detector.risk_score}"])
    if detector.rule:
        rule = detector.rule
        rows.append(["answers the rule", f"{cell(rule.name)}, version {rule.version}, `{rule.id}`"])
    attack = [f"{a.technique} under {a.tactic} (ATT&CK {a.version})" for a in detector.attack]
    rows.append(["ATT&CK", "; ".join(attack) or "none"])
    rows.append(["state", "on" if detector.enabled else "off"])
    return (
        f"## {detector.name}\n\n**{cell(detector.title)}.** {cell(detector.description)}\n\n"
        + _grid(["", ""], rows)
        + (f"\nWhat to do: {cell(detector.runbook)}\n" if detector.runbook else "")
        + _examples(detector)
    )


def _examples(detector: Detector) -> str:
    if not detector.examples:
        return ""
    told = (("Finds", detector.examples.positive), ("Leaves", detector.examples.negative))
    lines = [f"- {verb}: {cell(example.why)}." for verb, examples in told for example in examples]
    return "\nExamples, executed by a test:\n\n" + "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------- checks


def checks_page() -> str:
    """Every expectation: what a failure means and what it holds."""
    parts = [
        "# Checks\n\nWritten from `conf/expectations/*.yml`. Every run judges these before it publishes. A "
        "critical one that fails holds what it covers: everything, or the one account or detector where it "
        "has a scope. A warning marks what is published in the column `quality`. Results are in "
        "[`data_quality`](tables.md#data_quality).\n"
    ]
    for suite in load_suites(default_conf_dir() / "expectations").values():
        rows = [[_code(e.name), _severity(e), _expected(e), cell(e.description)] for e in suite.expectations]
        parts.append(
            f"## {suite.suite}\n\n" + _grid(["check", "a failure", "expected", "what a failure means"], rows)
        )
    return "\n".join(parts)


def _severity(expectation: Expectation) -> str:
    if expectation.severity == "warning":
        return "warns"
    return "holds all" if expectation.scope == "none" else f"holds that `{expectation.scope}`"


def _expected(expectation: Expectation) -> str:
    bounds = [
        f"{sign} {expectation.kwargs[name]:g}"
        for name, sign in (("min_value", "≥"), ("max_value", "≤"))
        if name in expectation.kwargs
    ]
    what = {"rows": "bad rows", "share": "share of rows", "value": "the measure"}[expectation.unit]
    return f"{what} {' and '.join(bounds) or cell(expectation.kwargs)}"


# -------------------------------------------------------------------------------------- commands


def commands_page() -> str:
    """Every command with every option, from the parser itself."""
    parts = [
        "# Commands\n\nWritten from the parser in `lib/raretrail/cli.py`; `raretrail COMMAND --help` says "
        "the same. Times are UTC; a time without a zone is taken as UTC.\n"
    ]
    for name, parser in commands():
        rows = [
            [_code(", ".join(action.option_strings) or action.metavar or action.dest), _takes(action),
             _default(action), cell(action.help or "")]
            for action in parser._actions
            if action.dest not in ("help", "debug")
        ]  # fmt: skip
        parts.append(
            f"## raretrail {name}\n\n{cell(parser.description)}\n\n"
            + _grid(["option", "takes", "default", ""], rows)
        )
    parts.append(
        "## Everywhere\n\n"
        + _grid(["option", ""], [["`--help`", "the options"], ["`--debug`", "a traceback when it fails"]])
    )
    return "\n".join(parts)


def commands() -> list[tuple[str, argparse.ArgumentParser]]:
    """Name and parser of every command."""
    for action in cli._parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return list(action.choices.items())
    return []


def _takes(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices:
        return ", ".join(map(_code, action.choices))
    name = action.metavar or ("" if not action.option_strings else action.dest.upper())
    return _code(f"{name} ..." if action.nargs == "+" else name)


def _default(action: argparse.Action) -> str:
    return "" if action.default in (None, False) else _code(action.default)
