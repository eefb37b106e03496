from __future__ import annotations

from pathlib import Path

import pytest

from raretrail.errors import UsageError
from raretrail.settings import load_settings


def folder(path: Path, **files: str) -> Path:
    for name, text in files.items():
        target = path / name.replace("__", "/").replace("_yml", ".yml")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return path


def test_unknown_keys_are_refused_with_their_place(tmp_path: Path) -> None:
    conf = folder(tmp_path, settings_yml="score:\n  lookbak: 2h\n")
    with pytest.raises(UsageError, match="lookbak"):
        load_settings(conf=str(conf))


def test_hash_is_the_same_wherever_trail_and_warehouse_lie() -> None:
    one, _ = load_settings(options={"trail": ["a"], "warehouse": "b"})
    other, _ = load_settings(options={"trail": ["c"], "warehouse": "d"})
    assert one.hash == other.hash


def test_hash_is_the_same_however_files_are_read_and_moves_with_which_are() -> None:
    usual, _ = load_settings()
    how = {"driver_bytes": 0, "task_bytes": 1, "batch_bytes": 1, "recent_days": 5, "direct": False}
    assert load_settings(options={"ingest": how})[0].hash == usual.hash
    assert load_settings(options={"ingest": {"history": "30d"}})[0].hash != usual.hash


def test_hash_is_the_same_wherever_alerts_go_and_moves_with_which_there_are() -> None:
    usual, _ = load_settings()
    webhook = {"url": "https://a.example.com", "format": "slack", "timeout": "3s", "max_attempts": 1}
    assert load_settings(options={"alerts": {"webhook": webhook}})[0].hash == usual.hash
    assert load_settings(options={"alerts": {"max_per_run": 1}})[0].hash != usual.hash


@pytest.mark.parametrize(
    "webhook", [{"timeout": "0s"}, {"max_attempts": 0}, {"format": "xml"}, {"url": "x"}, {"secret": "s"}]
)
def test_a_webhook_that_cannot_be_is_refused(webhook: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=f"alerts.webhook.{next(iter(webhook))}"):
        load_settings(options={"alerts": {"webhook": webhook}})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("principals_yml", "rules: []\n"),
        ("expectations__events_yml", "suite: events\nexpectations: []\n"),
        ("settings_yml", "score:\n  lookback: 3h\n"),
    ],
)
def test_hash_moves_with_every_file_that_decides_results(tmp_path: Path, name: str, text: str) -> None:
    usual, _ = load_settings()
    changed, _ = load_settings(conf=str(folder(tmp_path, **{name: text})))
    assert usual.hash != changed.hash


def test_examples_of_a_detector_leave_the_hash_as_it_is() -> None:
    settings, _ = load_settings()
    assert any(detector.examples for detector in settings.detectors)

    def changed(**how: object) -> str:
        # Of fresh settings, since a copy of those whose hash was asked for keeps it.
        detectors = [detector.model_copy(update=how) for detector in settings.detectors]
        return load_settings()[0].model_copy(update={"detectors": detectors}).hash

    assert changed(examples=None) == settings.hash
    assert changed(enabled=False) != settings.hash


def test_retention_moves_no_hash_and_is_of_tables_with_days(tmp_path: Path) -> None:
    usual, _ = load_settings()
    kept, _ = load_settings(conf=str(folder(tmp_path, settings_yml="retention: {quarantine: 30}\n")))
    assert kept.retention == {"quarantine": 30}
    assert kept.hash == usual.hash
    for retention, why in (
        ({"nosuch": 30}, "'nosuch' is none of the tables with days"),
        ({"runs": 30}, "'runs' is none"),
        ({"quarantine": 0}, "greater than or equal to 1"),
        ({"presence_daily": 100}, "181 days at least"),
        ({"events": 30}, "90 days at least"),
    ):
        with pytest.raises(UsageError, match=why):
            load_settings(options={"retention": retention})
    with pytest.raises(UsageError, match=r"less than ingest.history \(200d\)"):
        load_settings(options={"retention": {"events": 120}, "ingest": {"history": "200d"}})


_GOOD = "name: mine\ntitle: t\ndescription: d\nrequires: {place: 1}\nfloor: 5\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (_GOOD.replace("floor", "flor"), "flor: unknown setting"),
        (_GOOD.replace("place", "plaice"), "plaice: no such term"),
        (_GOOD.replace("mine", "yours"), "name must be 'mine'"),
        ("requires: {place: [", "not YAML"),
        ("- a\n", "must be a mapping"),
    ],
)
def test_a_detector_that_cannot_be_used_is_held_and_no_other(tmp_path: Path, text: str, why: str) -> None:
    usual, _ = load_settings()
    found, _ = load_settings(conf=str(folder(tmp_path, detectors__mine_yml=text)))
    assert [d.name for d in found.detectors] == [d.name for d in usual.detectors]
    assert found.broken_detectors.keys() == {"mine"}
    assert why in found.broken_detectors["mine"] and "mine.yml" in found.broken_detectors["mine"]
    assert found.hash == usual.hash


def test_a_default_that_is_overlaid_by_a_broken_file_is_held(tmp_path: Path) -> None:
    usual, _ = load_settings()
    name = usual.detectors[0].name
    found, _ = load_settings(conf=str(folder(tmp_path, **{f"detectors__{name}_yml": "floor: [\n"})))
    assert found.broken_detectors.keys() == {name}
    assert [d.name for d in found.detectors] == [d.name for d in usual.detectors[1:]]
    assert found.hash != usual.hash
