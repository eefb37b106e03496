"""The demo: a small simulated organisation, every stage over it, and what was found of what was planted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from raretrail.errors import UsageError
from raretrail.geo.databases import resolve_city_database
from raretrail.look import open_duckdb
from raretrail.report import write_report
from raretrail.settings import Settings, load_settings
from raretrail.show.incidents import incidents_table, range_line
from raretrail.show.text import Screen
from raretrail.simulate import CAMPAIGN_KINDS, Shape, simulate
from raretrail.tables import INCIDENTS

TOP = 12
_MARK = ".raretrail-demo"


def demo(out: Path, seed: int, progress: Callable[[str], None]) -> str:
    """Make the demo in `out` and give the text to print.

    An `out` left by an earlier demo is replaced; UsageError for any other folder that holds files.
    """
    from raretrail.session import close_session, in_words, open_session
    from raretrail.stages.run import run

    _clear(out)
    progress("simulate")
    shape = Shape(seed=seed, campaigns=CAMPAIGN_KINDS)
    simulated = out / "simulated"
    warehouse = out / "warehouse"
    settings, _ = load_settings(
        options={
            "trail": [str(simulated / "trail")],
            "warehouse": str(warehouse),
            "geo": {"asn_db": str(simulated / "asn.mmdb")},
        }
    )
    with ThreadPoolExecutor(max_workers=1) as pool:
        # Spark takes seconds to start, on another core.
        opening = pool.submit(open_session, driver_memory=settings.spark.driver_memory)
        simulate(simulated, shape)
    end = datetime(shape.end.year, shape.end.month, shape.end.day, tzinfo=UTC)
    span = (end - timedelta(days=shape.judged_days), end)
    spark = opening.result()
    try:
        ended = run(spark, settings, as_of=datetime.now(UTC), span=span, progress=progress)
    except Exception as error:
        raise in_words(error) from error
    finally:
        close_session(spark)
    progress("report")
    return _told(out, settings, simulated, ended.record["counts"], shape, end)


def _clear(out: Path) -> None:
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / _MARK).exists())):
        raise UsageError(f"{out} holds files that no demo made; name another folder with --out")
    if out.is_dir():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / _MARK).write_text("Made by `raretrail demo`, which replaces this folder when run again.\n")


def _told(
    out: Path, settings: Settings, simulated: Path, counts: dict[str, int], shape: Shape, end: datetime
) -> str:
    from raretrail.cli import findings_of

    warehouse = out / "warehouse"

    labels = json.loads((simulated / "labels.json").read_text())
    planted = {c["id"]: (c["kind"], set(c["event_ids"])) for c in labels["campaigns"]}
    with open_duckdb(str(warehouse)) as look:
        rows = look.rows(INCIDENTS, order=(("score", "desc"), ("bits", "desc"), ("incident_id", "asc")))
        findings = findings_of(look, [row["incident_id"] for row in rows[:TOP]])
        # The page speaks as of the end of what was simulated.
        write_report(look, settings, out / "report.html", end)
    carried = {row["incident_id"]: _carried(row, planted) for row in rows}
    shown = rows[:TOP]

    def said(campaign: str) -> str:
        return str(planted[campaign][0]).replace("_", " ")  # words: a narrow column can break them

    column = ("planted", {i: ", ".join(map(said, ids)) for i, ids in carried.items()})
    table = incidents_table(shown, findings, Screen.of(_stdout()), extra=column)
    found = {c for row in shown for c in carried[row["incident_id"]]}
    anywhere = {c for ids in carried.values() for c in ids}
    missed = sorted(planted[c][0] for c in set(planted) - found)
    lines = [
        "",
        f"{shape.people} people in {shape.accounts} accounts, {shape.days} days: {counts['events']:,} events "
        f"in {counts['files']:,} files; the last {shape.judged_days} days judged",
        "",
        table.rstrip("\n"),
        "",
        range_line(len(shown), 1, len(rows)),
        f"{len(found)} of {len(planted)} planted intrusions are among these {len(shown)}, "
        f"{len(anywhere)} in all incidents" + (f"; not shown: {', '.join(missed)}" if missed else ""),
        "",
        f"The report is {out / 'report.html'}: open it in a browser.",
        f"The tables lie in {warehouse}. Go on with:",
    ]
    if shown:
        lines.append(f"  raretrail show {shown[0]['incident_id'][:8]} --warehouse {warehouse}")
    lines += [
        f"  raretrail incidents --warehouse {warehouse} --limit 50",
        f'  raretrail sql "select place_name, count(*) n from events group by 1 order by n desc limit 10"'
        f" --warehouse {warehouse}",
        "",
        resolve_city_database(None).attribution,
        "",
    ]
    return "\n".join(lines)


def _carried(row: dict[str, Any], planted: dict[str, tuple[str, set[str]]]) -> list[str]:
    events = set(row["evidence_event_ids"] or ())
    return sorted(name for name, (_, ids) in planted.items() if ids & events)


def _stdout() -> Any:
    import sys

    return sys.stdout
