"""Files of a table: one for each day, what the log says of them, and taking rows out again."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from raretrail import parts
from raretrail.look import open_duckdb
from raretrail.parts import Part, PartWriter, without
from raretrail.tables import EVENTS, Column, Table
from raretrail.warehouse import Warehouse

TABLE = Table(
    "t",
    "",
    (
        Column("day", "date", ""),
        Column("at", "timestamp", ""),
        Column("name", "string", ""),
        Column("source_file", "string", ""),
        Column("source_position", "bigint", ""),
    ),
    key=("name",),
    partition_by=("day",),
    stats=("day", "at", "name"),
)
START = datetime(2026, 1, 1, tzinfo=UTC)


def _rows(days: list[int], file: str = "f") -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "day": (START + timedelta(days=day)).date(),
                "at": START + timedelta(days=day, microseconds=n),
                "name": f"n{n}" if n % 3 else None,
                "source_file": file,
                "source_position": n,
            }
            for n, day in enumerate(days)
        ],
        schema=TABLE.arrow_schema(),
    )


def _read(folder: Path, written: list[Part]) -> list[tuple[str, str, int]]:
    found = []
    for part in written:
        table = pq.read_table(folder / part.path, partitioning=None)
        assert table.num_rows == part.rows and (folder / part.path).stat().st_size == part.bytes
        assert "day" not in table.column_names and part.path.startswith(f"day={part.partition['day']}/")
        names = zip(table["source_file"].to_pylist(), table["source_position"].to_pylist(), strict=True)
        found += [(part.partition["day"], *name) for name in names]
    return sorted(found)


def test_each_day_has_its_files_and_more_days_than_may_be_open_are_no_matter(tmp_path: Path) -> None:
    days = [n % 20 for n in range(200)]
    writer = PartWriter(str(tmp_path), TABLE)
    for start in range(0, 200, 50):
        writer.add(_rows(days).slice(start, 50), ["f"])
    written = writer.close()
    wanted = [(str(date(2026, 1, 1) + timedelta(days=day)), "f", n) for n, day in enumerate(days)]
    assert _read(tmp_path, written) == sorted(wanted)
    assert all(part.sources == ["f"] for part in written)


def test_statistics_are_bounds(tmp_path: Path) -> None:
    rows = _rows([0, 0, 0])
    long = pa.array(["é" * 40, "\U0001f600" * 33, None])
    rows = rows.set_column(2, "name", long)
    writer = PartWriter(str(tmp_path), TABLE)
    writer.add(rows, ["f"])
    (part,) = writer.close()
    stats = json.loads(part.stats)
    assert stats["numRecords"] == 3 and stats["nullCount"] == {"at": 0, "name": 1}
    least, greatest = stats["minValues"], stats["maxValues"]
    assert least["at"] == "2026-01-01T00:00:00.000Z" and greatest["at"] == "2026-01-01T00:00:00.001Z"
    found = pc.min_max(long).as_py()
    assert (
        least["name"].encode() <= found["min"].encode() and found["max"].encode() <= greatest["name"].encode()
    )
    assert len(greatest["name"]) == 33


def test_rows_are_written_in_groups_and_taken_out_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_GROUP_ROWS", 10)
    writer = PartWriter(str(tmp_path), TABLE)
    for file in ("f", "g"):
        writer.add(_rows([0] * 25, file), [file])
    (part,) = writer.close()
    assert pq.ParquetFile(tmp_path / part.path).num_row_groups > 1
    (left,) = without(str(tmp_path), TABLE, part, lambda file, at: file == "g" and at % 2 == 0)
    assert [name[1:] for name in _read(tmp_path, [left])] == [
        *[("f", n) for n in range(25)],
        *[("g", n) for n in range(1, 25, 2)],
    ]
    assert not (tmp_path / part.path).exists() and left.sources == ["f", "g"]
    assert without(str(tmp_path), TABLE, left, lambda file, at: True) == []


def test_what_was_written_can_be_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files that are done, that have a group of rows, and that have only some in memory."""
    writer = PartWriter(str(tmp_path), TABLE)
    writer.add(_rows(list(range(12))), ["f"])
    monkeypatch.setattr(parts, "_GROUP_ROWS", 1)
    writer.add(_rows([11]), ["f"])
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 5
    writer.give_up()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_commit_takes_them_up(tmp_path: Path) -> None:
    """Made, filled and told of without Spark; column comments, statistics and properties are Delta's own."""
    warehouse = Warehouse(cast(Any, SimpleNamespace()), str(tmp_path / "a b"))
    folder = warehouse.parts_folder(EVENTS)
    names = EVENTS.column_names
    for days in (2, 3):
        writer = PartWriter(folder, EVENTS)
        rows = {name: None for name in names} | {"event_id": "e", "recipient_account_id": "1"}
        events = [
            rows | {"event_date": date(2026, 1, n + 1), "event_time": START + timedelta(days=n)}
            for n in range(days)
        ]
        writer.add(pa.Table.from_pylist(events, EVENTS.arrow_schema()), ["f"])
        warehouse.add_files(EVENTS, writer.close())
    table = DeltaTable(str(tmp_path / "a b/events"))
    assert table.version() == 2 and len(table.file_uris()) == 5
    assert table.metadata().configuration["delta.dataSkippingStatsColumns"].startswith("event_time,")
    assert [field.metadata["comment"] for field in table.schema().fields] == [
        c.comment for c in EVENTS.columns
    ]
    with open_duckdb(str(tmp_path / "a b")) as look:
        assert [row["event_id"] for row in look.rows(EVENTS)] == ["e"] * 5
    kept = table.get_add_actions(flatten=True)
    assert set(pa.table(kept).column("num_records").to_pylist()) == {1}
    warehouse.drop_parts()
    assert sorted(path.name for path in (tmp_path / "a b").iterdir()) == ["events"]
