"""What is expected of a table, as an operator writes it down in `conf/expectations/*.yml`.

An expectation measures something about the table by an SQL expression and says which values of
that measure are right. The SQL is trusted as settings are: it is the operator's, never data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from raretrail.errors import UsageError

NO_SCOPE = "none"
# A region of an account: "111122223333/eu-west-1".
ACCOUNT_REGION = "account_region"

# The arguments that Great Expectations takes for each type, beside the column.
_BETWEEN = "expect_column_values_to_be_between"
_KWARGS = {
    _BETWEEN: {"min_value", "max_value", "strict_min", "strict_max", "mostly"},
    "expect_column_values_to_be_in_set": {"value_set", "mostly"},
    "expect_column_values_to_not_be_in_set": {"value_set", "mostly"},
}

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]


class Expectation(BaseModel):
    """One expectation. Either `count_where` (violations) or `measure` (an aggregate) is given.

    `count_where` counts the rows for which it is true: null is not true, so ask for nulls by name.
    `among` restricts the rows it looks at. `unit` is what comes out: `rows` (a count of bad rows),
    `share` (of the rows looked at, 0..1; 0 of none is 0) or `value` (whatever `measure` gives).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: _Name
    description: _Text
    severity: Literal["critical", "warning"]
    scope: Literal[
        "none", "recipient_account_id", "aws_region", "account_region", "detector", "source_file"
    ] = "none"
    count_where: _Text | None = None
    among: _Text | None = None
    measure: _Text | None = None
    unit: Literal["rows", "share", "value"]
    expect: Literal[
        "expect_column_values_to_be_between",
        "expect_column_values_to_be_in_set",
        "expect_column_values_to_not_be_in_set",
    ]
    kwargs: dict[str, Any]

    @field_validator("kwargs")
    @classmethod
    def _numbers(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        for name, value in kwargs.items():
            wanted = {"strict_min": bool, "strict_max": bool, "value_set": list}.get(name)
            if wanted is None:
                right = isinstance(value, int | float) and not isinstance(value, bool)
            else:
                right = isinstance(value, wanted)
            if not right:
                said = {bool: "true or false", list: "a list"}.get(wanted or float, "a number")
                raise ValueError(f"{name} must be {said}, not {value!r}")
        return kwargs

    @model_validator(mode="after")
    def _fits(self) -> Expectation:
        if (self.count_where is None) == (self.measure is None):
            raise ValueError("give either count_where or measure")
        if self.measure is not None and self.among is not None:
            raise ValueError("among goes with count_where; a measure filters for itself")
        wrong_unit = "value" if self.count_where is not None else "share"
        if self.unit == wrong_unit:
            raise ValueError(f"unit {wrong_unit} does not go with this kind of measurement")
        known = _KWARGS[self.expect]
        if unknown := sorted(set(self.kwargs) - known):
            raise ValueError(f"{self.expect} does not take {', '.join(unknown)}")
        if self.expect == _BETWEEN:
            if not {"min_value", "max_value"} & set(self.kwargs):
                raise ValueError("kwargs need a min_value or a max_value, else nothing can fail")
        elif not self.kwargs.get("value_set"):
            raise ValueError("kwargs need a value_set")
        return self


class Suite(BaseModel):
    """The expectations on one table. `noun` is what its rows are called in messages."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    suite: _Name
    noun: _Text = "rows"
    expectations: Annotated[list[Expectation], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> Suite:
        names = [expectation.name for expectation in self.expectations]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two expectations are named {', '.join(twice)}")
        return self


def load_suite(file: Path) -> Suite:
    """The suite in a YAML file. Raises UsageError naming file and entry."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read ({error}); give a readable YAML file") from None
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise UsageError(f"{file}: is not YAML: {said}; correct it there") from None
    if not isinstance(content, dict):
        raise UsageError(f"{file}: must be a mapping with the keys suite and expectations")
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(_problems(error, content))
        raise UsageError(f"{file}: {problems}") from None


def load_suites(*folders: Path) -> dict[str, Suite]:
    """The suites of all `*.yml` files, by suite name; a later folder's files replace an earlier's
    of the same file name. Raises UsageError, also where two files hold one suite.
    """
    files = {file.name: file for folder in folders for file in sorted(folder.glob("*.yml"))}
    suites: dict[str, Suite] = {}
    for file in files.values():
        suite = load_suite(file)
        if suite.suite in suites:
            raise UsageError(f"{file}: another file holds the suite {suite.suite}; rename one")
        suites[suite.suite] = suite
    return suites


def _problems(error: ValidationError, content: dict[str, Any]) -> Iterator[str]:
    for problem in error.errors():
        where = [str(part) for part in problem["loc"]]
        if len(where) >= 2 and where[0] == "expectations":
            entry = content["expectations"][int(where[1])]
            name = entry.get("name") if isinstance(entry, dict) else None
            where[:2] = [f"expectation {name or 'number ' + str(int(where[1]) + 1)}"]
        message = problem["msg"].removeprefix("Value error, ")
        yield f"{', '.join(where)}: {message}" if where else message


def kwargs_json(expectation: Expectation) -> str:
    """Type and arguments, as one line of JSON with sorted keys."""
    return json.dumps({"type": expectation.expect, **expectation.kwargs}, sort_keys=True)
