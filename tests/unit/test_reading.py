"""Files of events written with the census hold in the end just what the verdicts call events."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import record, trail_file
from raretrail.cloudtrail.accounting import kept
from raretrail.cloudtrail.decode import census
from raretrail.cloudtrail.principals import load_rules
from raretrail.cloudtrail.reading import Opened, Positions, _whole
from raretrail.cloudtrail.redaction import default_redaction
from raretrail.parts import PartWriter
from raretrail.stages.ingest import _add_events
from raretrail.tables import EVENTS, STAGED_CENSUS
from raretrail.warehouse import Warehouse

RULES = load_rules(Path(__file__).resolve().parents[2] / "conf" / "principals.yml")
SPARK = cast(Any, SimpleNamespace())  # which is not asked


def _finish(decoded: pa.RecordBatch) -> pa.Table:
    names, rows = decoded.schema.names, decoded.num_rows
    columns = [
        decoded.column(names.index(field.name)) if field.name in names else pa.nulls(rows, field.type)
        for field in EVENTS.arrow_schema()
    ]
    return pa.Table.from_arrays(columns, schema=EVENTS.arrow_schema())


# Of each file the (id, content) of its records; how many files the first task has; which are stored already.
IDS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=6)
FILES = st.lists(IDS, min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(FILES, st.integers(0, 4), st.sets(st.integers(0, 3)))
def test_what_is_committed_is_what_is_decided(tmp_path_factory, files, first, stored) -> None:  # type: ignore[no-untyped-def]
    warehouse = Warehouse(SPARK, str(tmp_path_factory.mktemp("warehouse")))
    data = {
        f"f{n}": trail_file([record(eventID=f"id{i}", requestID=f"r{content}") for i, content in records])
        for n, records in enumerate(files)
    }
    paths = list(data)
    rows: list[dict[str, Any]] = []
    parts = []
    for task in (paths[:first], paths[first:]):
        opened = [Opened(path, data[path], None, Positions()) for path in task]
        writer = PartWriter(warehouse.parts_folder(EVENTS), EVENTS)
        batches = list(_whole(opened, RULES, default_redaction(), None, _finish, writer))
        rows += pa.Table.from_batches(batches, STAGED_CENSUS.arrow_schema()).to_pylist()
        parts += writer.close()
    assert sum(row["kind"] == "record" for row in rows) == sum(map(len, files))

    decided = kept([census(path, content) for path, content in data.items()])
    wanted, verdicts = set(), {}
    for n, (path, (duplicates, *aside)) in enumerate(decided.items()):
        reused = set.union(*aside)
        left = set(range(len(files[n]))) - duplicates - reused
        # What a run that was killed has committed is there, and is not written again.
        present = left if n in stored else set()
        wanted |= {(path, at) for at in left - present}
        if files[n]:
            verdicts[path] = {
                "events": len(left),
                "duplicates": len(duplicates),
                "leave_out": sorted(duplicates | present),
                "reused_at": sorted(reused),
            }
    facts = {row["source_file"]: row for row in rows if row["kind"] == "file"}
    _add_events(cast(Any, SimpleNamespace(warehouse=warehouse)), parts, verdicts, facts)

    found: list[tuple[str, int]] = []
    if warehouse.exists(EVENTS):
        table = DeltaTable(f"{warehouse.location}/events").to_pyarrow_table()
        names = (table.column(name).to_pylist() for name in ("source_file", "source_position"))
        found = list(zip(*names, strict=True))
    assert sorted(found) == sorted(wanted)
    assert not Path(warehouse.location, "_parts").exists()
