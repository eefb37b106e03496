"""The manual does what it says: its queries find something, its commands are commands, its site builds."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from raretrail import __version__, cli, tables
from raretrail.alerts.webhook import Target, headers
from raretrail.look import open_duckdb
from raretrail.settings import load_settings
from small_warehouse import INCIDENT, make_small_warehouse

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import manual  # noqa: E402

FENCE = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
# Those that look into a warehouse run; the others, which would start Spark or write, are parsed.
LOOKS = ("sql", "incidents", "show", "suppressed", "export", "backtest", "alert")


def _blocks(*languages: str) -> Iterator[tuple[str, str]]:
    """(page and line, text) of every fenced block in these languages, of written and generated pages."""
    pages = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in _files()}
    for page, text in {**pages, **{f"docs/{name}": text for name, text in manual.pages().items()}}.items():
        for block in FENCE.finditer(text):
            if block[2] in languages:
                line = text[: block.start()].count("\n") + 1
                yield f"{page}:{line}", re.sub(f"^{block[1]}", "", block[3], flags=re.MULTILINE)


def _files() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _commands() -> list[tuple[str, list[str]]]:
    found = []
    for where, text in _blocks("sh", "cron"):
        for line in text.splitlines():
            command = line[line.index("raretrail ") :] if line.startswith("*/") else line
            if command.strip():
                found.append((where, shlex.split(command, comments=True)))
    return found


QUERIES = list(_blocks("sql"))
COMMANDS = _commands()


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_small_warehouse(tmp_path_factory.mktemp("manual") / "warehouse"))


def test_the_manual_has_queries_and_commands() -> None:
    assert len(QUERIES) >= 15
    assert {words[1] for _, words in COMMANDS if words[0] == "raretrail"} >= {
        "run",
        "sql",
        "show",
        "incidents",
    }


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_a_query_finds_something(where: str, query: str, warehouse: str) -> None:
    with open_duckdb(warehouse) as look:
        assert list(look.query(query).rows()), f"{where}: no row"


@pytest.mark.parametrize(("where", "words"), COMMANDS, ids=[f"{w} {c[0]} {c[1]}" for w, c in COMMANDS])
def test_a_command_is_one(
    where: str, words: list[str], warehouse: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), where
    elif words[0] == "spark-submit":
        script = ROOT / words[1]
        assert script.is_file(), where
        cli._parser().parse_args([script.stem, *words[2:]])
    else:
        assert words[0] == "raretrail", f"{where}: not a command this test knows"
        arguments = words[1:]
        cli._parser().parse_args(arguments)
        if arguments[0] in LOOKS and not {"spark", "--send"} & set(arguments):
            arguments[arguments.index("--warehouse") + 1] = warehouse
            assert cli.main(arguments) == 0, where
            assert capsys.readouterr().out.strip(), f"{where}: nothing shown"


def test_every_table_column_setting_detector_and_command_is_in_the_reference() -> None:
    pages = manual.pages()
    for table in tables.ALL:
        section = pages["reference/tables.md"].split(f"## {table.name}\n")[1].split("\n## ")[0]
        for column in table.columns:
            assert f"| `{column.name}`" in section
            assert manual.cell(column.comment) in section
    settings, _ = load_settings()
    for key, _ in manual._leaves(type(settings)):
        (line,) = [ln for ln in pages["reference/settings.md"].splitlines() if ln.startswith(f"| `{key}` |")]
        assert not line.endswith("|  |"), f"conf/settings.yml: {key} has no comment to put into the manual"
    for detector in settings.detectors:
        assert f"## {detector.name}\n" in pages["reference/detectors.md"]
    for name, parser in manual.commands():
        section = pages["reference/commands.md"].split(f"## raretrail {name}\n")[1].split("\n## ")[0]
        for option in parser._option_string_actions:
            assert option in ("-h", "--help", "--debug") or f"`{option}`" in section


ALERTS = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("format", ["incident", "slack", "ecs", "ocsf"])
def test_an_example_of_a_payload_is_what_is_posted(
    format: str, warehouse: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (shown,) = re.findall(rf"^### {format}\n.*?^```json\n(.*?)^```", ALERTS, re.MULTILINE | re.DOTALL)
    assert cli.main(["alert", INCIDENT, "--warehouse", warehouse, "--format", format]) == 0
    assert _but_for_cut_lists(json.loads(shown), json.loads(capsys.readouterr().out))


def _but_for_cut_lists(shown: Any, posted: Any) -> bool:
    if isinstance(shown, dict):
        return shown.keys() == posted.keys() and all(_but_for_cut_lists(shown[k], posted[k]) for k in shown)
    if isinstance(shown, list):
        return len(shown) <= len(posted) and all(map(_but_for_cut_lists, shown, posted))
    return bool(shown == posted or posted == __version__)


def test_the_example_of_a_signature_is_one_and_is_verified_as_shown() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", ALERTS, re.MULTILINE | re.DOTALL)
    assert len(code.splitlines()) <= 8
    made: dict[str, Any] = {}
    exec(code, made)
    words = {name: re.findall(rf"^{name} +(\S+)$", ALERTS, re.MULTILINE)[0]
             for name in ("secret", "timestamp", "body", "signature")}  # fmt: skip
    secret, body = words["secret"].encode(), words["body"].encode()
    at = datetime.fromtimestamp(int(words["timestamp"]), UTC)
    posted = headers(Target("https://alerts.example.com", secret), "key", body, at)
    assert posted["X-Raretrail-Signature"] == words["signature"]

    def verified(secret: bytes = secret, body: bytes = body, seconds: int = 0, **more: str) -> bool:
        return bool(made["is_ours"](secret, posted | more, body, now=at.timestamp() + seconds))

    assert verified() and verified(seconds=299)
    assert not verified(seconds=301) and not verified(seconds=-301)
    assert not verified(secret=b"other") and not verified(body=body + b" ")
    assert not verified(**{"X-Raretrail-Timestamp": str(int(words["timestamp"]) + 1)})


def test_a_setting_is_told_by_its_comment() -> None:
    comments = manual._comments(
        "a:\n  # above\n  b: 1\n  c: 2  # beside\n  d: 3\n  f:  # inner\n    g: 1  # deep\n  h: 2 # back\n"
        "e: null # top\n"
    )
    assert comments == {"a.b": "above", "a.c": "beside", "a.f.g": "deep", "a.h": "back", "e": "top"}


def test_text_in_a_cell_is_no_markup() -> None:
    assert manual.cell("a | b_c <d> `e`\nf") == r"a \| b\_c &lt;d&gt; \`e\` f"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it: strict, so that a broken link or anchor fails."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def test_the_site_asks_nothing_of_any_network(site: Path) -> None:
    asked = re.compile(
        r"<(?:script|img|iframe|source|video)[^>]+src=[\"']?(?:https?:)?//[^\"' >]+"
        r"|<link(?![^>]+rel=[\"']?canonical)[^>]+href=[\"']?(?:https?:)?//[^\"' >]+"
        r"|(?:url\(|@import )[\"']?(?:https?:)?//[^\"')]+"
    )
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 12
    for page in pages:
        found = asked.findall(page.read_text(encoding="utf-8"))
        assert not found, f"{page.relative_to(site)}: {found[:3]}"


def test_every_page_of_the_site_is_reached_from_the_first(site: Path) -> None:
    first = (site / "index.html").read_text(encoding="utf-8")
    linked = set(re.findall(r'href="?([\w/.-]+\.html)', first))
    there = {page.relative_to(site).as_posix() for page in site.rglob("*.html")}
    assert there - linked <= {"404.html", "index.html"}


def test_every_promise_names_a_command_that_is_there() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    table = text.split("| promise |")[1].split("\n\n")[0].splitlines()[2:]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    defined = re.findall(r"^def (test_\w+)", tests, re.MULTILINE)
    assert len(table) > 10
    for row in table:
        proofs = re.findall(r"`((?:make|raretrail) [^`]+)`", row.split(" | ")[-1])
        assert proofs, row
        for proof in proofs:
            program, word, rest = [*proof.split(" ", 2), ""][:3]
            assert word in (targets if program == "make" else {name for name, _ in manual.commands()}), proof
            for name in re.findall(r"-k (\w+)", rest):
                assert any(name in test for test in defined), proof
            for path in re.findall(r"ARGS=(tests/\S+)", rest):
                assert (ROOT / path).exists(), proof
