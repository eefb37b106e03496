"""SQL for Unity Catalog: it parses, names only what there is, and leaves nothing of anybody unmasked."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import sqlglot
from sqlglot import exp

from raretrail import tables
from raretrail.stages.score import INPUTS
from raretrail.tables import Table
from raretrail.views import SHARED_INCIDENTS

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import unity_catalog  # noqa: E402

FILES = sorted(unity_catalog.FOLDER.glob("*.sql"))
TABLES = {table.name: table for table in tables.ALL}
ALTERED = re.compile(
    r"ALTER TABLE (\w+) (?:SET ROW FILTER (?P<filter>\w+) ON \((?P<by>\w+)\)"
    r"|ALTER COLUMN (?P<column>\w+) SET MASK (?P<mask>\w+));"
)
GROUPS = {"raretrail_job", "raretrail_analysts", "raretrail_readers", "raretrail_audience"}


def statements(path: Path) -> list[exp.Expr]:
    return [one for one in sqlglot.parse(path.read_text(encoding="utf-8"), dialect="databricks") if one]


def test_files_are_what_the_tool_writes() -> None:
    for name, text in unity_catalog.files().items():
        assert (unity_catalog.FOLDER / name).read_text(encoding="utf-8") == text, "run tools/unity_catalog.py"
    assert {path.name for path in FILES} == {*unity_catalog.files(), "grants.sql"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_statement_parses(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    # The parser knows no filters, masks and catalogs: these are held to their form.
    unknown = [str(one.this) for one in statements(path) if isinstance(one, exp.Command)]
    assert unknown.count("ALTER") == len(ALTERED.findall(text)) == text.count("ALTER TABLE")
    catalogs = re.findall(r"^GRANT USE CATALOG ON CATALOG security TO `\w+`;$", text, re.MULTILINE)
    assert unknown.count("GRANT") == len(catalogs)
    assert len(unknown) == unknown.count("ALTER") + unknown.count("GRANT")


def test_filters_and_masks_are_on_columns_there_are_and_on_all_that_hold_somebody() -> None:
    text = (unity_catalog.FOLDER / "protect.sql").read_text(encoding="utf-8")
    made = {
        one.this.this.name
        for one in statements(unity_catalog.FOLDER / "protect.sql")
        if isinstance(one, exp.Create) and one.args["kind"] == "FUNCTION"
    }
    masked: set[tuple[str, str]] = set()
    filtered: set[str] = set()
    for found in ALTERED.finditer(text):
        (column,) = [c for c in TABLES[found[1]].columns if c.name == (found["by"] or found["column"])]
        is_list = column.type == "array<string>"
        wanted = ("raretrail_of_account", "s") if found["filter"] else ("raretrail_masked", "_list")
        assert (found["filter"] or found["mask"]) == wanted[0] + wanted[1] * is_list
        assert (found["filter"] or found["mask"]) in made
        if found["filter"]:
            filtered.add(found[1])
        else:
            masked.add((found[1], column.name))
    open_to = {table.name: table for table in unity_catalog.PROTECTED}
    assert masked == {
        (table.name, column.name)
        for table in open_to.values()
        for column in table.columns
        if column.holds in ("subject", "person", "address", "words")
    }
    with_account = [name for name, t in open_to.items() if any("account_id" in c.name for c in t.columns)]
    assert filtered == {"anomalies", "incidents", "coverage_hourly"} <= set(with_account)
    assert not set(unity_catalog.PROTECTED) & set(INPUTS), "replay reads old versions of these"


def test_grants_are_on_what_there_is_and_readers_see_only_what_is_masked() -> None:
    views = {view.name for view in unity_catalog.SHARED}
    granted: dict[str, set[str]] = {}
    for one in statements(unity_catalog.FOLDER / "grants.sql"):
        if isinstance(one, exp.Grant):
            (group,) = [principal.name for principal in one.args["principals"]]
            kind, name = one.args["kind"], one.args["securable"].name
            assert group in GROUPS
            assert kind in ("CATALOG", "SCHEMA") or name in (TABLES if kind == "TABLE" else views)
            for privilege in one.args["privileges"]:
                granted.setdefault(group, set()).add(f"{privilege.this.name} {kind} {name}")
    assert set(granted) == GROUPS
    masked = {table.name for table in unity_catalog.PROTECTED}
    for group, seen in (("raretrail_readers", masked), ("raretrail_audience", views)):
        selected = {text.split()[-1] for text in granted[group] if text.startswith("SELECT")}
        assert selected == seen
        assert not any(text.startswith(("MODIFY", "CREATE")) for text in granted[group])


def test_shared_views_read_only_columns_that_hold_nobody() -> None:
    reads: dict[str, Table] = {"incidents": tables.INCIDENTS}
    for one in statements(unity_catalog.FOLDER / "views.sql"):
        if isinstance(one, exp.Create):
            sources = {table.name for table in one.expression.find_all(exp.Table)}
            assert sources <= {*reads, SHARED_INCIDENTS.name}
            if sources == {"incidents"}:
                named = {column.name for column in one.expression.find_all(exp.Column)}
                holds = {c.name: c.holds for c in tables.INCIDENTS.columns}
                assert named <= set(holds)
                assert {holds[name] for name in named} <= {None, "neither"}
                assert not named & {"incident_id", "evidence_event_ids"}
