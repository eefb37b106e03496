"""Findings as JSON lines: whole, chosen, in order, and without a JVM."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raretrail.cli import main
from raretrail.errors import EXIT_DONE, EXIT_USAGE
from small_warehouse import FARAH, INCIDENT, make_small_warehouse


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_small_warehouse(tmp_path_factory.mktemp("export") / "warehouse"))


@pytest.fixture
def export(warehouse: str, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*options: str) -> list[dict[str, Any]]:
        assert main(["export", "--warehouse", warehouse, *options]) == EXIT_DONE
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return call


def test_ecs_is_the_default_and_comes_by_time(export: Any) -> None:
    lines = export()
    assert lines == export("--format", "ecs")
    assert len({line["event"]["id"] for line in lines}) == len(lines) == 10
    times = [line["@timestamp"] for line in lines]
    assert times == sorted(times)
    first = next(line for line in lines if line["event"]["id"] == INCIDENT)
    assert first["@timestamp"] == "2026-02-21T17:18:13Z"
    assert first["aws"]["cloudtrail"]["user_identity"]["arn"] == FARAH
    assert first["event"]["category"] == ["intrusion_detection"]


def test_both_formats_tell_of_the_same_findings(export: Any) -> None:
    ecs = [line["event"]["id"] for line in export("--format", "ecs")]
    ocsf = [line["finding_info"]["uid"] for line in export("--format", "ocsf")]
    assert ecs == ocsf


@pytest.mark.parametrize("format", ["ecs", "ocsf"])
def test_findings_are_chosen_by_time_and_score(export: Any, format: str) -> None:
    def count(*options: str) -> int:
        return len(export("--format", format, *options))

    # Two findings of each of five events, 70 seconds apart from 17:18:13; published at 17:46; score 82.5.
    assert count("--since", "2026-02-21T17:18:13") == 10
    assert count("--since", "2026-02-21T17:18:14") == 8
    assert count("--since", "2026-02-22") == 0
    assert count("--published-since", "2026-02-21T17:46") == 10
    assert count("--published-since", "2026-02-21T17:46:01") == 0
    assert count("--min-score", "82.5") == 10
    assert count("--min-score", "82.6") == 0


def test_a_format_that_is_none_is_refused(warehouse: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", "--warehouse", warehouse, "--format", "csv"])
    assert ended.value.code == EXIT_USAGE
    assert "ecs" in capsys.readouterr().err


def test_no_spark_is_loaded(warehouse: str) -> None:
    code = (
        "import sys; from raretrail.cli import main\n"
        f"code = main(['export', '--warehouse', {warehouse!r}])\n"
        "sys.exit(code or 'pyspark' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(warehouse).is_dir() and len(done.stdout.splitlines()) == 10
