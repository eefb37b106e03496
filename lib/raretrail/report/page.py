"""The page: material to HTML, one string that needs nothing else.

Every value a template prints is made inert and cut here, then escaped by Jinja; only what `Markup`
marks (paths of numbers, our own style and script) goes in as it is. The page's policy lets run no
script but ours, by its hash, and fetches nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FunctionLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from raretrail import __version__
from raretrail.geo.databases import OLD_AFTER_DAYS
from raretrail.report import charts, maps, terms
from raretrail.report.gather import ACCOUNTS, Material
from raretrail.show.answers import answers
from raretrail.show.incidents import length_of, network_of, short_id
from raretrail.show.names import place_of, short_principal, where_it_acted
from raretrail.show.reasons import Row, reasons
from raretrail.show.silences import in_words, outermost
from raretrail.show.text import count, cut_middle, in_utc, inert, lasting, listed, number

LONGEST = 400
MOST_BYTES = 4_500_000
# How many incidents show all their evidence, and how many events and findings the others show: the
# first that makes a page of less than `MOST_BYTES`, else the last.
_DETAIL = ((60, 5, 3), (30, 3, 1), (10, 0, 0), (0, 0, 0))
_FULL_EVENTS, _FULL_FINDINGS = 20, 10
TOP_OF_DAY, NEWEST_SHOWN = 5, 5
# Where on the page what could not be read is missed.
_PARTS = {"habit": "habit", "coverage": "coverage", "threshold": "threshold"} | dict.fromkeys(
    ("incidents", "findings", "events", "places"), "incidents"
)
_BUILD = re.compile(r"([\w-]+)@(\d{4}-\d{2}-\d{2})")


def page(material: Material, *, threshold: float, attribution: str) -> str:
    """The whole page as HTML.

    threshold is the score from which incidents are alerted; attribution is what the licence of the
    city database asks to be said.
    """
    template = _environment().get_template("page.html.j2")
    style, script = _asset("style.css"), _asset("page.js")
    fixed = {
        "style": Markup(style),  # our own file
        "script": Markup(script),  # our own file
        "policy": _policy(style, script),
        "outlines": maps.outlines(),
        "glossary": terms.glossary(),
        "version": __version__,
        "attribution": attribution,
    }
    text = ""
    for detail in _DETAIL:
        text = template.render(**fixed, **_context(material, threshold, detail))
        if len(text.encode()) <= MOST_BYTES:
            break
    return text


def _context(material: Material, threshold: float, detail: tuple[int, int, int]) -> dict[str, Any]:
    first, last = material.first_day, material.last_day
    ranked = material.incidents
    of_day = [row for row in ranked if last is not None and _touches(row, last)]
    newest = sorted(ranked, key=lambda r: (in_utc(r["first_time"]), r["incident_id"]), reverse=True)
    whole, events, findings = detail
    full = (True, _FULL_EVENTS, _FULL_FINDINGS)
    shown = [
        _incident(row, material, *(full if n < whole else (False, events, findings)))
        for n, row in enumerate(ranked)
    ]
    by_id = {one["id"]: one for one in shown}
    day_ids = [row["incident_id"] for row in of_day[:TOP_OF_DAY]]
    new_ids = [row["incident_id"] for row in newest if row["incident_id"] not in day_ids][:NEWEST_SHOWN]
    every = material.every_incident
    judged = _judged_days(material)
    of_judged = [row for row in every if row["first_date"] in judged]
    columns, most_a_day = charts.incidents_by_day(every, first, last) if first and last else ([], 1)
    accounts, further = (
        charts.coverage(material.coverage, first, last, ACCOUNTS) if first and last else ([], 0)
    )
    statuses = charts.status_shares(material.statuses)
    return {
        "m": material,
        "warehouse": _without_secrets(material.warehouse),
        "made_at": material.made_at,
        "first": first,
        "last": last,
        "incidents": shown,
        "total": len(every),
        "of_day": [by_id[i] for i in day_ids],
        "of_day_total": sum(1 for row in every if last is not None and _touches(row, last)),
        "newest": [by_id[i] for i in new_ids],
        "severities": [(s, sum(row["severity"] == s for row in every)) for s in charts.SEVERITIES],
        "columns": columns,
        "most_a_day": most_a_day,
        "world": maps.world_picture(ranked, material.usual_places),
        "notices": notices(material, accounts),
        "tiles": _tiles(material, statuses),
        "heat": _heat(material),
        "accounts": accounts,
        "accounts_further": further,
        "statuses": statuses,
        "checks": _checks(material.checks),
        "runs": [_run(row) for row in material.runs],
        "curve": charts.threshold_curve(of_judged, len(judged), threshold),
        "threshold": threshold,
    }


def _touches(row: Row, day: date) -> bool:
    """Whether an incident was still going on, or began, on a day."""
    end = row.get("last_time")
    return bool(row["first_date"] == day or (end is not None and in_utc(end).date() == day))


def _judged_days(material: Material) -> set[date]:
    """Days of the period that runs judged; without any such run those with incidents."""
    first, last = material.first_day, material.last_day
    if first is None or last is None:
        return set()
    judged = material.judged or {row["first_date"] for row in material.every_incident}
    return {day for day in judged if first <= day <= last}


# ---------------------------------------------------------------------------------------- incidents


def _incident(
    row: Row, material: Material, full: bool, events_told: int, findings_told: int
) -> dict[str, Any]:
    findings = material.findings.get(row["incident_id"], [])
    events = material.events.get(row["incident_id"], [])
    name = short_principal(row["principal"], row.get("principal_kind"))
    told = sorted(events, key=lambda e: e["importance"])[:events_told]
    commands = list(row.get("commands") or [])
    agents = sorted({f["user_agent"] for f in findings if f.get("user_agent")})
    keys = sorted({f["access_key_id"] for f in findings if f.get("access_key_id")})
    why = reasons(findings)
    known = material.known_places.get(row["principal"], [])
    errors = sum(1 for event in events if event.get("error_code"))
    return {
        "id": row["incident_id"],
        "full": full,
        "short": short_id(row["incident_id"]),
        "row": row,
        "score": row.get("score") or 0.0,
        "severity": row.get("severity") if row.get("severity") in charts.SEVERITIES else "low",
        "who": name.short,
        "account": where_it_acted(row, name.account),
        "place": place_of(row),
        "network": network_of(row, findings),
        "lasted": length_of(row),
        "command": commands[0] if commands else "",
        "more_commands": len(commands) - 1 if commands else 0,
        "why": why or [part.strip() for part in (row.get("summary") or "").split(";")],
        "summary": row.get("summary") or "",
        "addresses": listed(row.get("source_ip_addresses") or [], 3),
        "access_keys": listed(keys, 3),
        "agents": listed([cut_middle(a[:LONGEST], 110) for a in agents], 2),
        "detectors": [d.replace("_", " ") for d in row.get("detectors") or []],
        "picture": maps.incident_picture(row, findings, known),
        "known": maps.known_before(row, known)[: 8 if full else 4],
        "known_total": len(maps.known_before(row, known)),
        "parts": terms.parts(row),
        "terms": terms.terms(findings),
        "lanes": charts.timeline(row, events),
        "errors": errors,
        "events": sorted(told, key=lambda e: (in_utc(e["event_time"]), e["event_id"])),
        "events_read": len(events),
        "findings": sorted(findings, key=lambda f: f.get("rank_of_all") or 0)[:findings_told],
        "top": findings[0] if findings else None,
        "answers": answers(row, findings),
    }


# ---------------------------------------------------------------------------------------- the top


def _tiles(material: Material, statuses: Sequence[Row]) -> list[dict[str, str]]:
    """What a glance should tell beside the incidents: figures, each leading to its part."""
    tiles: list[dict[str, str]] = []

    def tile(figure: str, name: str, told: str, to: str) -> None:
        tiles.append({"figure": figure, "name": name, "told": told, "to": to})

    if material.coverage and material.last_day is not None:
        by_day: Counter[date] = Counter()
        for row in material.coverage:
            by_day[row["event_date"]] += row["events"]
        usual = sorted(by_day.values())[len(by_day) // 2]
        on_last = by_day[material.last_day]
        tile(f"{on_last:,}", "events on the last day", f"{usual:,} on a usual day", "coverage")
    if statuses:
        share = sum(row["width"] for row in statuses if row["status"] == "city")
        others = [row for row in statuses if row["status"] != "city"]
        most = max(others, key=lambda row: row["width"], default=None)
        told = f"{most['width']:.0f} % {most['status'].replace('_', ' ')}" if most else ""
        tile(f"{share:.0f} %", "of events placed in a city", told, "coverage")
    if material.checks:
        met = sum(1 for row in material.checks if row["success"])
        failed = len(material.checks) - met
        told = f"{failed} not met" if failed else "nothing held back"
        tile(f"{met} of {len(material.checks)}", "checks met", told, "quality")
    if material.runs:
        run = material.runs[0]
        length = lasting(sum((run.get("seconds") or {}).values()))
        told = f"{in_utc(run['started_at']):%d %b %H:%M} UTC, {length}"
        tile(str(run["status"]), "last run", told, "quality")
    return tiles


def notices(material: Material, accounts: Sequence[charts.Account]) -> list[tuple[str, str, str]]:
    """What an operator must know before trusting the page: (grave or mild, sentence, part)."""
    told: list[tuple[str, str, str]] = []

    def notice(grade: str, sentence: str, part: str) -> None:
        told.append((grade, sentence, part))

    run: Row = material.runs[0] if material.runs else {}
    if run and run["status"] not in ("done", "staged"):
        message = f": {run['message']}" if run.get("message") else ""
        notice("grave", f"The last run ended as {run['status']}{message}", "quality")
    unmet = [row for row in material.checks if not row["success"]]
    if unmet:
        critical = sum(row["severity"] == "critical" for row in unmet)
        also = f", {critical} of them critical" if critical else ""
        names = listed(sorted({str(row["expectation"]) for row in unmet}), 3)
        grade = "grave" if critical else "mild"
        notice(grade, f"{count(len(unmet), 'check')} not met{also}: {names}", "quality")
    if material.last_day is not None:
        behind = (in_utc(material.made_at).date() - material.last_day).days
        if behind > 1:
            notice("mild", f"The last day with events is {behind:,} days ago", "coverage")
        silent = [a.name for a in accounts if material.last_day in a.silent and a.active > 4 * len(a.silent)]
        if material.silent:
            notice("grave", f"Quiet or blind: {in_words(outermost(material.silent))}", "coverage")
        elif silent:
            notice("mild", f"No events on the last day from {listed(silent, 3)}", "coverage")
        for build, built in _BUILD.findall(str(run.get("geo_build") or "")):
            age = (material.last_day - date.fromisoformat(built)).days
            if age > OLD_AFTER_DAYS:
                old = f"Places come from {build} of {built}, {age:,} days older than the last events"
                notice("mild", old, "coverage")
    if material.quarantined:
        pieces = sum(row["pieces"] for row in material.quarantined)
        notice("mild", f"{count(pieces, 'record or file', 'records or files')} in quarantine", "quality")
    for part, reason in material.lacking.items():
        notice("grave", f"Could not be read ({part}): {reason}", _PARTS.get(part, "quality"))
    return told


# ------------------------------------------------------------------------------- command by city


def _heat(material: Material) -> dict[str, Any] | None:
    """Commands by places: a grid of cells, shaded by how many people and roles do it from there."""
    cells = material.habit_cells
    if not cells:
        return None
    places = {r["place"]: r for r in sorted(cells, key=lambda r: (-r["place_weight"], r["place"]))}
    commands = {r["command"]: r for r in sorted(cells, key=lambda r: (-r["command_weight"], r["command"]))}
    by_key = {(r["command"], r["place"]): r for r in cells}
    most = max(r["principals_30"] for r in cells) or 1
    week = max(r["as_of"] for r in cells)
    rows = []
    for command in commands:
        line: list[dict[str, Any] | None] = []
        for place in places:
            cell = by_key.get((command, place))
            if cell is None or not cell["principals_30"]:
                line.append(None)
                continue
            # Steps of equal ratio: one alone must differ from three as thirty do from ninety.
            shade = 1 + min(4, int(5 * (cell["principals_30"] / most) ** 0.5)) if most > 1 else 1
            new = (week - cell["first_day"]).days <= 7
            counts = {"principals": cell["principals_30"], "days": cell["days_30"]}
            line.append({**counts, "shade": shade, "new": new})
        rows.append((command, line))
    head = material.habit[0] if material.habit else {}
    return {
        "places": [row["place_name"] for row in places.values()],
        "rows": rows,
        "as_of": week,
        "young": head.get("first_day") is not None and (week - head["first_day"]).days <= 14,
        "head": head,
        "news": material.news,
    }


# ---------------------------------------------------------------------------------------- quality


def _checks(rows: Sequence[Row]) -> dict[str, Any]:
    order = {"critical": 0, "warning": 1}
    unmet = sorted((r for r in rows if not r["success"]), key=lambda r: order.get(r["severity"], 2))
    return {"unmet": unmet, "met": [r for r in rows if r["success"]], "all": len(rows)}


def _run(row: Row) -> dict[str, Any]:
    counts: Mapping[str, int] = row.get("counts") or {}
    return {
        **row,
        "events": counts.get("events"),
        "found": counts.get("incidents"),
        "lasted": lasting(sum((row.get("seconds") or {}).values())),
    }


# ------------------------------------------------------------------------------------- the template


@cache
def _asset(name: str) -> str:
    return (files("raretrail.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_asset),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_safe,
    )
    environment.filters.update(
        number=number,
        count=count,
        short=_short,
        day=_day,
        day_short=lambda d: f"{d.day} {d:%b}",
        moment=lambda t: "" if t is None else f"{in_utc(t).day} {in_utc(t):%b %H:%M}",
        clock=lambda t: "" if t is None else f"{in_utc(t):%H:%M:%S}",
        machine=lambda t: "" if t is None else f"{in_utc(t):%Y-%m-%dT%H:%M:%SZ}",
    )
    return environment


def _safe(value: object) -> object:
    """What a template prints of a value: text made inert and cut; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, Markup):
        return value
    if isinstance(value, str):
        return inert(value) if len(value) <= LONGEST else inert(value[:LONGEST]) + "…"
    return value


def _short(value: object, width: int) -> str:
    text = inert(str(value or "")[: 8 * width])
    return cut_middle(text, width)


def _day(day: date | datetime) -> str:
    return f"{day:%A}, {day.day} {day:%B %Y}"


def _policy(style: str, script: str) -> str:
    def allowed(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return (
        f"default-src 'none'; style-src {allowed(style)}; script-src {allowed(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _without_secrets(location: str) -> str:
    """A location without a user and password in it."""
    if "://" not in location:
        return location
    parts = urlsplit(location)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
