"""The report as a person sees it: a real browser, both widths, light and dark, on paper, from disk.

Screenshots and figures go to the folder that RARETRAIL_SCREENSHOTS names, else to pytest's own.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from raretrail.look import open_duckdb
from raretrail.report import write_report
from raretrail.settings import load_settings
from warehouses import organisation, write_tables

_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]

WIDTHS = (1440, 390)
_QUIET = ("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Chromium's sandbox does not start for root, as whom containers of a CI run.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=_CHROMIUM, args=[*_QUIET, *sandbox])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("RARETRAIL_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _written(folder: Path, **shape: Any) -> Path:
    warehouse = write_tables(folder / "warehouse", organisation(**shape))
    settings, _ = load_settings(options={"warehouse": str(warehouse)})
    with open_duckdb(str(warehouse)) as look:
        write_report(look, settings, folder / "report.html", datetime(2026, 3, 1, 6, tzinfo=UTC))
    return folder / "report.html"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _written(tmp_path_factory.mktemp("report"), incidents=30)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _written(tmp_path_factory.mktemp("hostile"), incidents=30, evil=True)


class Watched:
    """A page with what it said on its console and what it asked the network for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, file: Path, fragment: str = "") -> Page:
        self.page.goto(file.as_uri() + fragment)
        return self.page


@pytest.fixture
def watched(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Watched]:
    options = {"width": 1440, "scheme": "light", **getattr(request, "param", {})}
    page = browser.new_page(
        viewport={"width": options["width"], "height": 900},
        color_scheme=options["scheme"],
        java_script_enabled=options.get("script", True),
        reduced_motion="reduce",
    )
    yield Watched(page)
    page.close()


def _views() -> list[Any]:
    return [
        pytest.param({"width": width, "scheme": scheme}, id=f"{width}-{scheme}")
        for width in WIDTHS
        for scheme in ("light", "dark")
    ]


@pytest.mark.parametrize("watched", _views(), indirect=True)
@pytest.mark.parametrize("which", ["report", "hostile"])
def test_it_is_quiet_fits_and_is_accessible(
    watched: Watched, which: str, shots: Path, request: pytest.FixtureRequest
) -> None:
    file: Path = request.getfixturevalue(which)
    page = watched.open(file)
    for fold in page.locator("details.fold-in").all()[:4]:
        fold.evaluate("e => { e.open = true; }")
    name = request.node.callspec.id
    page.screenshot(path=shots / f"{name}.png", full_page=True)
    assert watched.said == []
    assert watched.asked == [file.as_uri()]
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], "the page scrolls sideways"
    found = Axe().run(page).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]][:5]) for v in found] == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(13, 17, 23)" if name.endswith("dark") else "rgb(245, 246, 248)")


@pytest.mark.parametrize("watched", [{"script": False}, {"script": True}], indirect=True, ids=["no-js", "js"])
def test_everything_can_be_read_without_script(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    second = page.locator("details.incident").nth(1)
    assert second.locator(".map").is_hidden()
    second.locator("summary").first.click()
    expect(second.locator(".map")).to_be_visible()
    expect(second.locator("table").first).to_be_visible()
    assert page.locator(".filter").is_visible() == (page.locator("output").inner_text() != "")


def test_incidents_are_found_by_words_severity_and_order(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    shown = page.locator("details.incident:visible")
    assert shown.count() == 30
    page.get_by_role("searchbox").fill("person-03 durban")
    expect(page.locator("output")).to_contain_text("of 30 shown")
    assert 0 < shown.count() < 30
    assert all(
        "person-03" in text and "Durban" in text for text in shown.locator(".headline").all_inner_texts()
    )
    page.get_by_role("searchbox").fill("")
    page.get_by_role("checkbox", name="low").uncheck()
    assert page.locator("details.incident.low:visible").count() == 0 < shown.count()
    page.get_by_role("checkbox", name="low").check()
    page.get_by_label("Order").select_option("time")
    times = [e.get_attribute("data-time") or "" for e in shown.all()]
    assert times == sorted(times, reverse=True)
    assert watched.said == []


def test_a_link_opens_the_incident_it_names(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    link = page.locator(".brief a").nth(3)
    target = page.locator(link.get_attribute("href") or "")
    link.click()
    expect(target.locator(".body")).to_be_visible()
    fresh = watched.open(report, "#i-" + f"{7:032x}")
    expect(fresh.locator(f"#i-{7:032x} .body")).to_be_visible()


def test_the_keyboard_reaches_and_opens_an_incident(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('details.incident:not([open]) > summary') !== null"):
            break
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.parentElement.open")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "what has the focus must show it"


def test_marks_keep_within_their_pictures(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    outside = page.evaluate("""() => [...document.querySelectorAll(".map")]
        .filter(map => map.checkVisibility())
        .flatMap(map => {
            const box = map.getBoundingClientRect();
            return [...map.querySelectorAll("circle, text")].filter(e => {
                const r = e.getBoundingClientRect();
                return r.left < box.left - 1 || r.right > box.right + 1
                    || r.top < box.top - 1 || r.bottom > box.bottom + 1;
            }).map(e => e.outerHTML);
        })""")
    assert outside == []


def test_it_prints_what_is_open_in_light_colours(watched: Watched, report: Path, shots: Path) -> None:
    page = watched.open(report)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator(".filter").is_hidden()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    page.screenshot(path=shots / "print.png", full_page=True)
    paper = page.pdf(path=shots / "report.pdf", format="A4", print_background=True)
    assert paper.startswith(b"%PDF") and paper.count(b"/Type /Page\n") in range(2, 30)


def test_five_hundred_incidents_open_and_are_filtered(watched: Watched, shots: Path, tmp_path: Path) -> None:
    file = _written(tmp_path, incidents=500, events_each=30)
    assert file.stat().st_size < 5_000_000
    begun = time.monotonic()
    page = watched.open(file)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    loaded = time.monotonic() - begun
    assert page.locator("details.incident").count() == 500
    begun = time.monotonic()
    page.get_by_role("searchbox").fill("person-03")
    expect(page.locator("output")).not_to_contain_text("500 of 500")
    filtered = time.monotonic() - begun
    megabytes = file.stat().st_size / 1e6
    told = f"500 incidents, {megabytes:.1f} MB: {loaded:.2f} s to draw, {filtered:.2f} s to filter\n"
    (shots / "figures.txt").write_text(told)
    assert watched.said == []


def test_its_policy_stops_what_would_slip_through_the_escaping(
    watched: Watched, report: Path, tmp_path: Path
) -> None:
    slipped = '<script>document.title="owned"</script><img src="http://127.0.0.1:9/x" onerror="alert(1)">'
    text = report.read_text(encoding="utf-8").replace('<main id="main">', '<main id="main">' + slipped)
    broken = tmp_path / "broken.html"
    broken.write_text(text, encoding="utf-8")
    stopped: list[str | None] = []
    watched.page.on("requestfailed", lambda request: stopped.append(request.failure))
    page = watched.open(broken)
    assert page.title().startswith("raretrail")
    # A request that the policy stops before it leaves is announced, and failed, all the same.
    assert stopped == ["csp"] and len(watched.asked) == 2
    assert len(watched.said) >= 2 and all("Content Security Policy" in said for said in watched.said)
