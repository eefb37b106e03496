"""Figures into the manual: between marks, so that none is typed by hand."""

from __future__ import annotations

from pathlib import Path


def put(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- figures: NAME -->` and `<!-- /figures -->` in a page by text.

    Raises ValueError when the page has no such marks.
    """
    whole = page.read_text(encoding="utf-8")
    begin, end = f"<!-- figures: {name} -->", "<!-- /figures -->"
    before, mark, rest = whole.partition(begin)
    _, closing, after = rest.partition(end)
    if not mark or not closing:
        raise ValueError(f"{page} has no {begin} ... {end}")
    page.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")
