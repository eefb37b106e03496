"""The page as a whole: what it holds, that nothing of a log acts in it, that it stands without tables."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from raretrail import tables
from raretrail.look import open_duckdb
from raretrail.report.gather import Material, gather
from raretrail.report.page import page
from warehouses import EVIL, LAST_DAY, organisation, write_tables

MADE_AT = datetime(2026, 3, 1, 6, tzinfo=UTC)
ATTRIBUTION = "This product includes GeoLite2 data created by MaxMind, available from https://www.maxmind.com"
_VOID = {"meta", "link", "input", "br", "img", "circle", "rect", "path", "use", "line", "ellipse"}


class Parsed(HTMLParser):
    """Elements with their attributes, text, and what the scripts and styles are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.read: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.inside.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.inside.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        around = self.inside[-1] if self.inside else ""
        self.texts.setdefault(around, []).append(data)
        if around not in ("script", "style"):
            self.read.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.read))


def material_of(root: Path, **more: Any) -> Material:
    with open_duckdb(str(root)) as look:
        return gather(look, str(root), MADE_AT, **more)


def html_of(material: Material) -> str:
    return page(material, threshold=40.0, attribution=ATTRIBUTION)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tables(tmp_path_factory.mktemp("plain"), organisation(30))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tables(tmp_path_factory.mktemp("hostile"), organisation(30, evil=True))


def test_the_page_tells_of_incidents_habits_coverage_quality_and_threshold(warehouse: Path) -> None:
    material = material_of(warehouse)
    assert not material.lacking
    parsed = Parsed(html_of(material))
    assert not parsed.inside
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {"incidents", "habit", "coverage", "quality", "threshold"} <= set(ids)
    assert sum(tag == "details" and "incident" in (a.get("class") or "") for tag, a in parsed.elements) == 30
    for said in (
        "on Saturday, 28 February 2026",
        "9,488 km from Amsterdam, NL",
        "Known before: Amsterdam, NL (40 days)",
        "on 0 of 15 active days of this principal and by nobody else",
        "New this week",
        "eu-west-1 100 %",
        "1 check not met, 1 of them critical",
        "The last run ended as held: too few events",
        "alerts from 40",
        "GeoLite2-City of 2019-12-24",
        ATTRIBUTION,
    ):
        assert said in parsed.words, said


def test_links_within_the_page_lead_somewhere(warehouse: Path) -> None:
    parsed = Parsed(html_of(material_of(warehouse)))
    ids = {a["id"] for _, a in parsed.elements if "id" in a}
    inner = [a["href"] for tag, a in parsed.elements if tag in ("a", "use") and a.get("href")]
    assert len(inner) > 10
    assert {link for link in inner if link is not None and link[1:] not in ids} == set()


def test_nothing_in_the_page_is_fetched_and_only_its_own_script_may_run(warehouse: Path) -> None:
    text = html_of(material_of(warehouse))
    parsed = Parsed(text)
    for tag, attributes in parsed.elements:
        for name in ("src", "href", "action", "data", "poster"):
            value = attributes.get(name)
            assert not value or value.startswith(("#", "data:image/svg")), (tag, name, value)
    assert "url(" not in text and "@import" not in text
    policy = next(a["content"] for tag, a in parsed.elements if a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'") and "unsafe" not in policy
    for kind in ("script", "style"):
        own = "".join(parsed.texts[kind])
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_what_an_intruder_wrote_is_shown_and_does_nothing(hostile: Path, warehouse: Path) -> None:
    text = html_of(material_of(hostile))
    parsed = Parsed(text)
    assert sum(tag == "script" for tag, _ in parsed.elements) == 1
    assert not [tag for tag, _ in parsed.elements if tag == "img"]
    handlers = [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    assert handlers == []
    plain = {tag for tag, _ in Parsed(html_of(material_of(warehouse))).elements}
    assert {tag for tag, _ in parsed.elements} <= plain
    acting = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") and c != "\n"}
    assert acting == set()
    words = parsed.words
    assert "<script>alert(1)</script>" in words, "it must be told, not hidden"
    assert "\\u202e" in words and "\\x1b]0;owned" in words
    assert "{{7*7}}" in words and EVIL not in text


def test_five_hundred_hostile_incidents_stay_under_five_megabytes(tmp_path: Path) -> None:
    root = write_tables(tmp_path, organisation(500, events_each=20, evil=True))
    material = material_of(root)
    assert len(material.incidents) == 500
    assert len(html_of(material).encode()) < 5_000_000


def test_very_long_values_are_cut(tmp_path: Path) -> None:
    rows = organisation(3)
    for row in rows[tables.INCIDENTS]:
        row["summary"] = "s" * 500_000
        row["commands"] = ["c" * 500_000] * 3
        row["principal"] = "p" * 500_000
    for row in rows[tables.ANOMALIES]:
        row["user_agent"] = row["as_organization"] = row["principal"] = "u" * 500_000
    text = html_of(material_of(write_tables(tmp_path, rows)))
    assert len(text) < 400_000
    assert "s" * 500 not in text


def test_the_most_unusual_and_the_newest_are_shown_and_the_rest_counted(warehouse: Path) -> None:
    material = material_of(warehouse, most=5)
    scores = sorted((row["score"] for row in material.every_incident), reverse=True)
    assert [row["score"] for row in material.incidents[:5]] == scores[:5]
    assert f"{0:032x}" in {row["incident_id"] for row in material.incidents}, "the newest"
    assert len(material.incidents) < len(material.every_incident) == 30
    words = Parsed(html_of(material)).words
    assert f"The {len(material.incidents)} most unusual and newest of 30" in words


def test_an_incident_of_before_the_period_is_left_out(warehouse: Path) -> None:
    material = material_of(warehouse, days=1)
    assert {row["first_date"] for row in material.incidents} == {LAST_DAY}
    assert "in the 1 day to then" in html_of(material)


def test_all_events_of_an_incident_are_drawn_and_changes_are_told_first(warehouse: Path) -> None:
    material = material_of(warehouse)
    assert {len(events) for events in material.events.values()} == {12}
    for events in material.events.values():
        first = sorted(events, key=lambda e: e["importance"])
        assert [e["read_only"] for e in first] == [False] * 6 + [True] * 6


def test_a_warehouse_with_hardly_any_table_gives_a_page(tmp_path: Path) -> None:
    write_tables(tmp_path, {tables.EVENTS: []})
    material = material_of(tmp_path)
    assert material.last_day is None and not material.lacking
    parsed = Parsed(html_of(material))
    assert "Nothing has been taken in yet" in parsed.words
    assert not parsed.inside


def test_what_fell_silent_is_told_before_all_else(tmp_path: Path) -> None:
    hour = datetime(2026, 2, 28, 20, tzinfo=UTC)
    silent = {
        "event_date": hour.date(), "hour_start": hour, "recipient_account_id": "123456789012",
        "aws_region": "eu<b>", "status": "silent", "silent_hours": 9, "silent_expected": 90.0,
        "silent_bits": 30.0,
    }  # fmt: skip
    rows = {**organisation(2), tables.COVERAGE_HOURLY: [silent]}
    text = html_of(material_of(write_tables(tmp_path, rows)))
    told = "Quiet or blind: account 123456789012 in eu<b> for 9 hours, 90 events expected"
    assert told in Parsed(text).words
    assert "eu<b>" not in text


def test_days_without_incidents_say_so(tmp_path: Path) -> None:
    parsed = Parsed(html_of(material_of(write_tables(tmp_path, organisation(0)))))
    assert "No incident on Saturday, 28 February 2026" in parsed.words
    assert "Nothing stood out on this day." in parsed.words
    assert not parsed.inside


def test_columns_that_older_or_newer_versions_have_or_lack_do_not_break_the_page(tmp_path: Path) -> None:
    rows = organisation(4)
    for name, gone, extra in (
        (
            "anomalies",
            {"nearest_place_km", "maturity", "error_bits"},
            {"moon_bits": 4.25, "moon_days": 3},
        ),
        ("incidents", {"accuracy_radius", "quality", "how_bits"}, {"mood": "open"}),
    ):
        table = next(t for t in rows if t.name == name)
        schema = table.arrow_schema()
        data = pa.Table.from_pylist(rows.pop(table), schema=schema).drop_columns(sorted(gone))
        for column, value in extra.items():
            data = data.append_column(column, pa.array([value] * data.num_rows))
        write_deltalake(str(tmp_path / name), data)
    material = material_of(write_tables(tmp_path, rows))
    assert not material.lacking
    words = Parsed(html_of(material)).words
    assert "moon 4.2 days 3" in words


def test_a_part_that_cannot_be_read_is_named_and_the_rest_stands(tmp_path: Path) -> None:
    rows = organisation(4)
    rows.pop(tables.RUNS)
    write_deltalake(str(tmp_path / "runs"), pa.table({"run_id": ["r1"]}))
    for lost in (tmp_path / "runs").glob("*.parquet"):
        lost.unlink()
    material = material_of(write_tables(tmp_path, rows))
    assert set(material.lacking) == {"quality", "threshold"}
    words = Parsed(html_of(material)).words
    assert "Could not be read (quality)" in words and "9,488 km from Amsterdam, NL" in words


def test_the_same_rows_give_the_same_page(warehouse: Path) -> None:
    assert html_of(material_of(warehouse)) == html_of(material_of(warehouse))


def test_a_password_in_the_location_stays_out_of_the_page(warehouse: Path) -> None:
    with open_duckdb(str(warehouse)) as look:
        material = gather(look, "s3a://ana:secret@bucket/w?sig=secret", MADE_AT)
    text = html_of(material)
    assert "secret" not in text and "s3a://bucket/w" in text
