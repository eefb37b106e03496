"""Hooks of mkdocs.yml: the pages written from the code, and a place in the navigation for every page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# The code beside this file is what the manual is about, whatever is installed.
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "lib")]

import manual  # noqa: E402
from mkdocs.config.defaults import MkDocsConfig  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill `Decisions` with its pages, and put pages that nav does not name under `More`."""
    docs = Path(config.docs_dir)
    decisions = sorted(path.relative_to(docs).as_posix() for path in (docs / "decisions").glob("*.md"))
    nav: list[Any] = config.nav or []
    named = set(_paths(nav)) | set(decisions)
    nav.append({"Decisions": ["decisions/README.md", *[p for p in decisions if not p.endswith("README.md")]]})
    there = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    if rest := sorted(there - named):
        nav.append({"More": rest})
    config.nav = nav
    return config


def _paths(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    inside = nav.values() if isinstance(nav, dict) else nav
    return [path for entry in inside for path in _paths(entry)]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages written from the code."""
    for path, text in manual.pages().items():
        files.append(File.generated(config, path, content=text))
    return files
