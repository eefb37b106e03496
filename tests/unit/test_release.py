"""What is released, as far as reading it tells: one version, workflows that call make, a complete bill."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raretrail import __version__
from raretrail.runtime import DELTA_JARS, S3_JARS, SPARK_SERIES

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        yield from job["steps"]


def test_the_version_is_written_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "lib/raretrail/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    done = subprocess.run(
        [sys.executable, "-m", "raretrail", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"raretrail {__version__}\n"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_targets_that_are_there_and_nothing_else(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    ran = [step["run"] for step in steps(path) if "run" in step]
    made = [command.split() for command in ran if command.startswith("make ")]
    assert made
    assert all(len(words) == 2 and words[1] in targets for words in made)
    others = [command for command in ran if not command.startswith("make ")]
    assert len(others) <= 1
    for command in others:
        # Text from outside comes by way of the environment, never into a command.
        assert "${{" not in command


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_with_their_version_beside(path: Path) -> None:
    used = [line.strip() for line in path.read_text().splitlines() if "uses:" in line]
    assert used
    for line in used:
        assert re.fullmatch(r"- uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_read_and_no_more(path: Path) -> None:
    tree = yaml.safe_load(path.read_text())
    assert tree["permissions"] == {"contents": "read"}
    for job in tree["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"] <= 180


def test_the_release_looks_at_its_tag() -> None:
    check = next(s for s in steps(ROOT / ".github" / "workflows" / "release.yml") if "env" in s)
    for tag, code in ((f"v{__version__}", 0), (__version__, 1), ("v9.9.9", 1)):
        done = subprocess.run(["sh", "-c", check["run"]], env={"TAG": tag, "PATH": "/usr/bin:/bin"}, cwd=ROOT)
        assert done.returncode == code, tag


def test_the_bill_of_materials_is_complete_valid_and_repeatable(tmp_path: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for file in files:
        subprocess.run(
            [sys.executable, str(ROOT / "tools" / "sbom.py"), "--out", str(file)],
            check=True, capture_output=True,
        )  # fmt: skip
    text = files[0].read_text()
    assert text == files[1].read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    sbom = json.loads(text)
    assert sbom["metadata"]["component"]["version"] == __version__
    named = {component["purl"] for component in sbom["components"]}
    locked = re.findall(
        r"^([a-z0-9][^ ;=]*)==([^ ;\\]+)", (ROOT / "requirements" / "run.txt").read_text(), re.MULTILINE
    )
    assert named == {
        *(f"pkg:pypi/{name.lower()}@{version}" for name, version in locked),
        *(
            f"pkg:maven/{group}/{name}@{version}"
            for group, name, version in DELTA_JARS[SPARK_SERIES] | S3_JARS
        ),
    }
    refs = {component["bom-ref"] for component in sbom["components"]}
    assert all(set(one["dependsOn"]) <= refs for one in sbom["dependencies"])
    licensed = sum("licenses" in component for component in sbom["components"])
    assert licensed > 0.7 * len(locked)
    assert str(ROOT) not in text
