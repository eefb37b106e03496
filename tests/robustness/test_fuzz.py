"""Hostile input: a part of the fuzz run, single big files in bounded memory, inert output."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import fuzz
import pytest

from factories import record, to_json
from raretrail.cli import main
from raretrail.cloudtrail import accounting
from raretrail.cloudtrail.decode import census
from raretrail.cloudtrail.documents import Limits
from raretrail.show.rows import csv_lines, json_lines, rows_table
from raretrail.show.text import Screen

MIB = 1024**2


def test_two_thousand_hostile_cases() -> None:
    # `make fuzz` runs a hundred thousand.
    outcomes, failures, _ = fuzz.run(seed=7, numbers=range(2_000))
    assert not failures, failures[:5]
    assert outcomes["records"] == outcomes["events"] + outcomes["quarantined"]
    assert outcomes["events"] > 500
    assert outcomes["quarantined"] > 500


def test_the_fuzz_run_would_see_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    reread = fuzz.census

    def losing(*arguments: object, **options: object) -> object:
        counted = reread(*arguments, **options)  # type: ignore[arg-type]
        counted.records += 1
        return counted

    monkeypatch.setattr(fuzz, "census", losing)
    _, failures, _ = fuzz.run(seed=7, numbers=range(3))
    assert len(failures) == 3


@pytest.mark.parametrize(
    "data",
    [
        b'{"Records":[' + b"{}," * 30_000 + b"{}]}",
        b"[" + b"1," * 30_000 + b"1]",
        b"{}\n" * 30_000,
        b"[]\n" * 30_000 + b"{",
        b'{"a":1}' * 30_000,
        b"\n".join([to_json(record())] * 1_001),
        to_json({"Records": [record()] * 1_001}),
    ],
    ids=["objects", "numbers", "lines", "cut lines", "glued", "many lines", "many records"],
)
def test_a_file_of_too_many_records_is_set_aside_whole(data: bytes) -> None:
    result = fuzz.check("x.json", data, Limits(records=1_000, raw=100))
    assert [(one.reason, one.raw_bytes) for one in result.quarantined] == [("too_large", len(data.strip()))]
    assert result.detail == "more than 1000 records"


def test_as_many_records_as_may_be_are_taken() -> None:
    assert fuzz.check("x", to_json([record()] * 1_000), Limits(records=1_000)).accepted == 1_000


# What is made, decoded and measured in a process of its own. Limits are the defaults.
_CHILD = """
import gzip, json, resource, sys
from pathlib import Path
sys.path[:0] = {path!r}
import raretrail.cloudtrail.decode as decode
from raretrail.cloudtrail.principals import load_rules
import pyarrow
made = {made}
rules = load_rules(Path({rules!r}))
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
result = decode.decode_file("x.json", made, rules=rules)
rows = sum(batch.num_rows for batch in decode.events_batches([result]))
aside = decode.quarantine_batch([result])
print(json.dumps({{
    "records": result.records, "accepted": rows, "reasons": [one.reason for one in result.quarantined][:3],
    "aside": aside.num_rows, "kept": aside.nbytes, "before": before, "peak": peak(), "size": len(made),
}}))
"""
_ONE = '{"eventVersion":"1.08","eventTime":"2024-01-01T00:00:00Z","eventName":"X","eventSource":"a","x":"'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "records", "accepted", "reason", "bound"),
    [
        # 100 MB in one record: set aside, a MiB of it kept.
        (f"(b'{_ONE}' + b'a' * 100_000_000 + b'\"}}')", 1, 0, "too_large", 700 * MIB),
        (f"(b'{{\"Records\":[{_ONE}' + b'a' * 100_000_000 + b'\"}}]}}')", 1, 0, "too_large", 900 * MIB),
        # The same cut off, so that it goes the way of damaged files.
        (f"(b'{{\"Records\":[{_ONE}' + b'a' * 100_000_000)", 1, 0, "truncated", 1_500 * MIB),
        # Ten million tiny records, in a list and as lines.
        ("(b'{\"Records\":[' + b'{},' * 10_000_000 + b'{}]}')", 1, 0, "too_large", 300 * MIB),
        ("(b'{}\\n' * 10_000_000)", 1, 0, "too_large", 300 * MIB),
        # Ten million that could be events.
        (
            'gzip.compress(b\'\\n\'.join([b\'{"eventTime":1,"eventName":"X"}\'] * 10_000_000), 1)',
            1,
            0,
            "too_large",
            1_500 * MIB,
        ),
        # A gzip bomb of 10 GB: reading stops at the bound of a file (512 MiB).
        (
            "gzip.compress(gzip.compress(b' ' * 100_000_000, 9) * 100, 9)",
            1,
            0,
            "too_large",
            2_000 * MIB,
        ),
    ],
    ids=["record", "record in a list", "record cut", "tiny records", "tiny lines", "small events", "bomb"],
)
def test_big_files_are_read_in_bounded_memory(
    made: str, records: int, accepted: int, reason: str, bound: int
) -> None:
    code = _CHILD.format(
        path=[str(fuzz.ROOT / "lib")], made=made, rules=str(fuzz.ROOT / "conf/principals.yml")
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    found = json.loads(done.stdout)
    assert (found["records"], found["accepted"]) == (records, accepted)
    assert found["reasons"] == [reason]
    assert found["kept"] < 2 * MIB
    used = found["peak"] - found["before"]
    assert used < bound, f"{used / MIB:.0f} MiB"


def test_the_census_of_a_bomb_stops_at_the_bound() -> None:
    import gzip

    bomb = gzip.compress(b"[" * 30_000_000)
    [found] = census("x", bomb, limits=Limits(file=MIB, raw=1_000)).quarantined
    assert (found.reason, len(found.raw)) == ("too_large", 1_000)


def test_the_seeds_are_there() -> None:
    assert len(fuzz.seed_records()) >= 6
    if Path(fuzz.DATA).is_dir():
        assert len(fuzz.seed_records()) > 100


# ---------------------------------------------------------------------------- what is printed is inert


def _acting(text: str) -> set[str]:
    return {c for c in text if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}}


@pytest.mark.parametrize("evil", [text for text in fuzz.HOSTILE if _acting(text)], ids=ascii)
def test_hostile_names_act_on_no_terminal(
    evil: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = evil.replace("/", "_").replace("\0", "")[:80] or "x"
    row = {name: evil, "n": [evil], "m": {evil: evil}}
    screen = Screen(width=90)
    shown = [
        rows_table(list(row), [row], screen),
        "".join(json_lines(list(row), [row])),
        "".join(csv_lines(list(row), [row])),
    ]
    assert [_acting(text.replace("\r\n", "\n")) for text in shown] == [set(), set(), set()]

    folder = tmp_path / name
    folder.mkdir()
    (folder / f"{name}.json").write_bytes(to_json({"Records": [record(eventName=evil, userAgent=evil)]}))
    assert accounting.main([str(folder)]) == 0
    assert accounting.main([str(folder / "nowhere")]) == 2
    assert main(["sql", "select 1", "--warehouse", str(folder)]) == 2
    assert main(["verify-trail", "--trail", str(folder), "--public-key", str(folder / "key")]) == 2
    printed = capsys.readouterr()
    assert "raretrail: " in printed.err
    assert _acting(printed.out + printed.err) == set()
