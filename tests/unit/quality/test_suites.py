from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from raretrail.errors import UsageError
from raretrail.quality.suites import kwargs_json, load_suite, load_suites

CONF = Path(__file__).parents[3] / "conf/expectations"

GOOD: dict[str, Any] = {
    "name": "ids_present",
    "description": "Rows without an id. Report them.",
    "severity": "critical",
    "scope": "detector",
    "count_where": "id IS NULL",
    "unit": "rows",
    "expect": "expect_column_values_to_be_between",
    "kwargs": {"max_value": 0},
}


def write(folder: Path, *entries: dict[str, Any], suite: str = "mine", name: str = "m.yml") -> Path:
    file = folder / name
    file.write_text(yaml.safe_dump({"suite": suite, "expectations": list(entries)}))
    return file


def test_the_suites_shipped_are_sound() -> None:
    suites = load_suites(CONF)
    assert set(suites) == {"events", "baseline", "findings", "ledger", "coverage"}
    for suite in suites.values():
        for expectation in suite.expectations:
            assert len(expectation.description.split(".")) >= 2, "says what it means, what to do"


def test_a_suite_keeps_what_was_written(tmp_path: Path) -> None:
    (expectation,) = load_suite(write(tmp_path, GOOD)).expectations
    assert expectation.model_dump(exclude_none=True) == GOOD
    assert kwargs_json(expectation) == ('{"max_value": 0, "type": "expect_column_values_to_be_between"}')


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"severity": "fatal"}, "severity"),
        ({"scope": "principal"}, "scope"),
        ({"expect": "expect_column_to_exist"}, "expect"),
        ({"colour": "red"}, "colour"),
        ({"name": "Ids present"}, "name"),
        ({"description": " "}, "description"),
        ({"count_where": None}, "give either count_where or measure"),
        ({"measure": "count(*)"}, "give either count_where or measure"),
        ({"count_where": None, "measure": "count(*)", "among": "x"}, "among goes with count_where"),
        ({"unit": "value"}, "unit value does not go"),
        ({"unit": "share", "count_where": None, "measure": "count(*)"}, "unit share does not go"),
        ({"kwargs": {}}, "nothing can fail"),
        ({"kwargs": {"max": 0}}, "does not take max"),
        ({"kwargs": {"max_value": "0"}}, "max_value must be a number"),
        ({"kwargs": {"max_value": True}}, "max_value must be a number"),
        ({"kwargs": {"max_value": 1, "strict_max": 1}}, "strict_max must be true or false"),
        ({"expect": "expect_column_values_to_be_in_set"}, "does not take max_value"),
        (
            {"expect": "expect_column_values_to_be_in_set", "kwargs": {"value_set": []}},
            "need a value_set",
        ),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    entry = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    file = write(tmp_path, {**GOOD, "name": "first"}, entry)
    with pytest.raises(UsageError) as caught:
        load_suite(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: expectation {entry['name']}")
    assert said in message
    assert "\n" not in message


def test_wrong_files_are_named(tmp_path: Path) -> None:
    cases = {
        "a: [": "is not YAML",
        "- a": "must be a mapping",
        "suite: x": "expectations: Field required",
        "suite: x\nexpectations: []": "expectations",
        "suite: x\nexpectations: [7]": "expectation number 1",
    }
    for text, said in cases.items():
        file = tmp_path / "x.yml"
        file.write_text(text)
        with pytest.raises(UsageError) as caught:
            load_suite(file)
        assert str(caught.value).startswith(f"{file}: ")
        assert said in str(caught.value)
    with pytest.raises(UsageError, match=r"absent\.yml: cannot be read"):
        load_suite(tmp_path / "absent.yml")
    with pytest.raises(UsageError, match="two expectations are named ids_present"):
        load_suite(write(tmp_path, GOOD, GOOD))


def test_a_later_folder_replaces_a_file(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    write(ours, GOOD, suite="a", name="a.yml")
    write(ours, GOOD, suite="b", name="b.yml")
    write(theirs, {**GOOD, "severity": "warning"}, suite="b", name="b.yml")
    suites = load_suites(ours, theirs)
    assert suites["a"].expectations[0].severity == "critical"
    assert suites["b"].expectations[0].severity == "warning"

    write(theirs, GOOD, suite="a", name="c.yml")
    with pytest.raises(UsageError, match="another file holds the suite a"):
        load_suites(ours, theirs)
