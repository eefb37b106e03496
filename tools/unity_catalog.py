"""Write deploy/unity-catalog: who may see what on Databricks, from the tables and views as they are declared.

    PYTHONPATH=lib python tools/unity_catalog.py

`grants.sql` is written by hand. A test holds the files to what this gives.
"""

from __future__ import annotations

import sys
from pathlib import Path

from raretrail.tables import ANOMALIES, COVERAGE_HOURLY, DATA_QUALITY, INCIDENTS, RUNS, Table
from raretrail.views import SHARED_INCIDENTS, SHARED_MONTHS

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "unity-catalog"
# What readers may look at. No table that a finding rests on is among them: replay reads old versions of it,
# which a table with a filter or mask does not give.
PROTECTED: tuple[Table, ...] = (ANOMALIES, INCIDENTS, COVERAGE_HOURLY, DATA_QUALITY, RUNS)
SHARED = (SHARED_INCIDENTS, SHARED_MONTHS)

_HEAD = """\
-- Written by tools/unity_catalog.py from the tables and views as declared; change it there.
-- The first line names the schema that --warehouse names.
USE SCHEMA security.raretrail;
"""

_FUNCTIONS = """\
-- Plain functions, without subqueries: the job merges into these tables.
CREATE OR REPLACE FUNCTION raretrail_sees_all() RETURNS BOOLEAN
  COMMENT 'Whether nothing is kept from the user: the job, and those who investigate'
  RETURN is_account_group_member('raretrail_job') OR is_account_group_member('raretrail_analysts');

CREATE OR REPLACE FUNCTION raretrail_masked(value STRING) RETURNS STRING
  COMMENT 'A name, an address, or words that may have either'
  RETURN CASE WHEN value IS NULL OR raretrail_sees_all() THEN value ELSE '[masked]' END;

CREATE OR REPLACE FUNCTION raretrail_masked_list(value ARRAY<STRING>) RETURNS ARRAY<STRING>
  COMMENT 'A list of such'
  RETURN CASE WHEN value IS NULL OR raretrail_sees_all() THEN value ELSE array('[masked]') END;

-- The audience of the shared views has no grant on the tables; the views show them incidents of all accounts.
CREATE OR REPLACE FUNCTION raretrail_of_account(account STRING) RETURNS BOOLEAN
  COMMENT 'Whether the user may see rows of the account: members of the group raretrail_<account>'
  RETURN raretrail_sees_all() OR is_account_group_member('raretrail_audience')
    OR is_account_group_member(concat('raretrail_', account));

CREATE OR REPLACE FUNCTION raretrail_of_accounts(accounts ARRAY<STRING>) RETURNS BOOLEAN
  COMMENT 'The same, of any of several'
  RETURN raretrail_sees_all() OR is_account_group_member('raretrail_audience')
    OR exists(accounts, account -> is_account_group_member(concat('raretrail_', account)));
"""


def files() -> dict[str, str]:
    """The text of each file, by its name."""
    return {"protect.sql": _protect(), "views.sql": _views()}


def _protect() -> str:
    parts = [_HEAD, _FUNCTIONS]
    for table in PROTECTED:
        lines = []
        for name, function in (
            ("recipient_account_id", "raretrail_of_account"),
            ("recipient_account_ids", "raretrail_of_accounts"),
        ):
            if name in table.column_names:
                lines.append(f"ALTER TABLE {table.name} SET ROW FILTER {function} ON ({name});")
        for column in table.columns:
            if column.holds not in (None, "neither"):
                mask = "raretrail_masked_list" if column.type.startswith("array<") else "raretrail_masked"
                lines.append(f"ALTER TABLE {table.name} ALTER COLUMN {column.name} SET MASK {mask};")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _views() -> str:
    made = [
        f"CREATE OR REPLACE VIEW {view.name}\n  COMMENT '{view.comment}'\nAS{view.sql('spark')};\n"
        for view in SHARED
    ]
    return "\n".join([_HEAD, *made])


def main() -> int:
    """Write the files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{FOLDER / name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
