"""The balance of every published set, against counts made by other means."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import record, to_json, trail_file
from raretrail.cloudtrail.accounting import account, kept, main
from raretrail.cloudtrail.decode import census
from raretrail.errors import UsageError

DATA = Path(__file__).parents[3] / "shared/data/cloudtrail"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no shared/data beside the checkout")


def test_copies_and_reused_ids(tmp_path: Path) -> None:
    one, two = record(), record()
    other = {**one, "awsRegion": "us-east-1"}
    third = {**one, "awsRegion": "us-east-2"}
    foreign = {**one, "recipientAccountId": "999999999999"}
    (tmp_path / "b.json").write_bytes(to_json({"Records": [other, one, two]}, indent=2))
    (tmp_path / "a.json.gz").write_bytes(trail_file([one, third, foreign, {"a": 1}]))
    (tmp_path / "c.json").write_bytes(b"")
    (tmp_path / "AWSLogs/123456789012/CloudTrail-Digest").mkdir(parents=True)
    (tmp_path / "AWSLogs/123456789012/CloudTrail-Digest/d.json.gz").write_bytes(b"{")
    [found] = account([str(tmp_path)])
    assert (found.files, found.skipped, found.empty, found.records) == (4, 1, 1, 7)
    # one, other and third share an id: the smallest hash is kept, the other two are set aside once each;
    # `one`, which is there twice, is a duplicate either way.
    assert (found.events, found.duplicates) == (3, 1)
    assert dict(found.quarantined) == {"not_cloudtrail": 1, "id_reused": 2}
    assert found.balances


def _corrects(event_id: str, own: str, content: int) -> dict[str, Any]:
    addendum = {"reason": "UPDATED_DATA", "originalEventID": event_id}
    return record(eventID=own, requestID=str(content), addendum=addendum)


# Ids used twice, copies, corrections under their own and under other ids, of what is there and what is not.
_ids = st.sampled_from(["a", "b", "c"])
_some_records = st.lists(
    st.one_of(
        st.builds(lambda id, content: record(eventID=id, requestID=str(content)), _ids, st.integers(0, 2)),
        st.builds(_corrects, _ids, st.sampled_from(["a", "b", "x", "y"]), st.integers(0, 1)),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(records=_some_records, data=st.data())
def test_any_order_and_grouping_gives_the_same_events(records: list[dict[str, Any]], data: Any) -> None:
    def outcome(files: list[list[dict[str, Any]]]) -> tuple[list[Any], list[Any], int]:
        results = [census(f"{n}.json", to_json({"Records": some})) for n, some in enumerate(files)]
        decided = kept(results)
        events, aside, copies = [], [], 0
        for result in results:
            left = decided[result.source_file]
            for row in result.rows:
                what = (*row[2:5], row[-1])
                if row[1] in left.duplicates:
                    copies += 1
                elif row[1] in left.reused | left.superseded:
                    aside.append((*what, row[1] in left.superseded))
                else:
                    events.append(what)
        return sorted(events, key=repr), sorted(aside, key=repr), copies

    order = data.draw(st.permutations(records))
    cut = data.draw(st.integers(0, len(records)))
    found = outcome([order[:cut], order[cut:]])
    assert found == outcome([records])
    events, aside, copies = found
    assert len(events) + len(aside) + copies == len(records)
    assert len({event[:2] for event in events}) == len(events), "an id stands twice"
    calls = [event[-1] or event[0] for event in events]
    assert len(set(calls)) == len(calls), "an event stands beside what corrects it"


# records, events (distinct account and id), duplicates, quarantined by reason
_EXPECTED = {
    "honeybucket": (1, 0, 0, {"csv": 1}),
    "invictus": (2900, 2900, 0, {}),
    "opensearch": (841, 840, 0, {"not_json": 1}),
    "rubysoho07": (37, 37, 0, {}),
    "stratus": (310, 310, 0, {}),
    "traildiscover": (563, 314, 249, {}),
    # 7 and 3 of CloudTrail; policy-to-guess.json is an IAM policy. One record of the gzip copy
    # carries "someSessionToken" where the plain file has "REDACTED".
    "trailscraper": (8, 3, 3, {"not_cloudtrail": 1, "id_reused": 1}),
    # 205 and 203 that carry an eventID; examples/1_0.json holds one that does not.
    "umccr": (206, 204, 0, {"id_reused": 2}),
}


@needs_data
@pytest.mark.parametrize("folder", list(_EXPECTED))
def test_published_set(folder: str) -> None:
    [found] = account([str(DATA / folder)])
    assert (found.records, found.events, found.duplicates, dict(found.quarantined)) == _EXPECTED[folder]
    assert found.balances


@needs_data
def test_panther_lines() -> None:
    path = DATA / "panther/derived-test-events.jsonl"
    [found] = account([str(path)], unwrap="event")
    # Of the records whose id another content took, copies of one set aside are duplicates of it.
    assert (found.records, found.events, found.duplicates) == (464, 166, 23)
    assert found.balances
    assert dict(found.quarantined) == {
        "id_reused": 256,
        "missing_event_time": 16,
        "bad_event_time": 2,
        "not_cloudtrail": 1,
    }
    # 410 carry ids, 130 distinct with their account: as rows, or in quarantine with what could be
    # read of them.
    result = census(str(path), path.read_bytes(), unwrap="event")
    ids = [(row[3], row[2]) for row in result.rows if not row[2].startswith("sha256:")]
    ids += [(q.recipient_account_id, q.event_id) for q in result.quarantined if q.event_id]
    assert (len(ids), len(set(ids))) == (410, 130)


@needs_data
def test_every_file_balances() -> None:
    for path in sorted(DATA.rglob("*")):
        if path.is_file():
            result = census(str(path), path.read_bytes())
            assert result.records == result.accepted + len(result.quarantined), path


@needs_data
def test_the_command_prints_the_table() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "raretrail.cloudtrail.accounting", str(DATA)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    assert lines["invictus"][1:9] == ["55", "0", "0", "2,900", "2,900", "0", "0", "yes"]
    assert set(lines) == {"set", *_EXPECTED, "panther", "total"}


def test_a_missing_folder_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError):
        account([str(tmp_path / "nowhere")])
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_reading_needs_neither_spark_nor_pandas() -> None:
    # Spark's workers import this for every task.
    code = (
        "import sys, raretrail.cloudtrail.decode, raretrail.cloudtrail.layout\n"
        "heavy = {'pyspark', 'pandas', 'pydantic', 'yaml', 'numpy'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
