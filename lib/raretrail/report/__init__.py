"""The report: one self-contained HTML page about a warehouse.

`gather` reads the rows through `raretrail.look`, the other modules are pure functions from rows to
parts of the page, `page` puts the parts into the template. Text from the trail becomes HTML in the
template alone, escaped and inert; what the functions here build by hand is numbers.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from raretrail.errors import UsageError
from raretrail.report.gather import MOST_INCIDENTS, PERIOD_DAYS, gather
from raretrail.report.page import page
from raretrail.show.text import count

if TYPE_CHECKING:
    from raretrail.look import Look
    from raretrail.settings import Settings


def write_report(
    look: Look,
    settings: Settings,
    out: Path,
    made_at: datetime,
    *,
    days: int = PERIOD_DAYS,
    most: int = MOST_INCIDENTS,
) -> str:
    """Write the page to `out`, whole or not at all, and say in a line what it holds.

    It tells of the last `days` days with events and of at most `most` of their incidents. UsageError
    if `out` cannot be written.
    """
    material = gather(look, settings.warehouse or "", made_at, days=days, most=most)
    text = page(material, threshold=settings.alerts.min_score, attribution=_attribution(settings.geo.city_db))
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(out)
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror or error}") from None
    finally:
        beside.unlink(missing_ok=True)
    shown, total = len(material.incidents), len(material.every_incident)
    told = f"{shown:,} of {count(total, 'incident')}" if total > shown else count(total, "incident")
    return f"{out}: {told}, {len(text.encode()) / 1000:,.0f} kB"


def _attribution(city_db: str | None) -> str:
    """What the licence of the city database asks to be said; of the embedded one where the database
    is not on the machine that makes the page."""
    from raretrail.geo.databases import resolve_city_database

    try:
        return resolve_city_database(city_db).attribution
    except UsageError:
        return resolve_city_database(None).attribution
