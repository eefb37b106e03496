"""The policies of deploy/policies, filled in."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "policies"

Statement = dict[str, Any]


def statements(name: str, **values: str) -> dict[str, Statement]:
    """Sid → statement of a policy, its `${...}` replaced as Terraform does; KeyError for one not given."""
    text = Template((FOLDER / f"{name}.json").read_text()).substitute(values)
    return {one["Sid"]: one for one in json.loads(text)["Statement"]}


def canonical(statement: Statement) -> Statement:
    """The statement with every value that may be one or a list as a sorted list."""
    made = dict(statement)
    for name in ("Action", "Resource"):
        made[name] = _listed(made[name])
    if "Condition" in made:
        made["Condition"] = {
            test: {key: _listed(value) for key, value in keys.items()}
            for test, keys in made["Condition"].items()
        }
    return made


def _listed(value: Any) -> list[str]:
    return sorted(value) if isinstance(value, list) else [value]
