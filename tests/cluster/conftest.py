"""What the tests of clusters share: an organisation, and what the job finds in it on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from cluster_tools import contents, run

from raretrail.simulate import Shape, simulate


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for logs and the Java shim."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A tiny organisation with one intrusion, and the options to play its last two days."""
    out = tmp_path_factory.mktemp("org") / "simulated"
    shape = Shape(seed=3, people=6, days=6, judged_days=2, accounts=2)
    simulate(out, shape)
    span = ["--from", shape.judged_from.isoformat(), "--to", shape.end.isoformat()]
    return ["--trail", str(out / "trail"), "--asn-db", str(out / "asn.mmdb"), *span]


@pytest.fixture(scope="session")
def local(
    options: list[str], scratch: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[tuple[Any, ...]]]:
    """What the job leaves behind when it runs on this machine alone."""
    warehouse = tmp_path_factory.mktemp("local") / "w"
    done = run([sys.executable, "-m", "raretrail", "run", *options, "--warehouse", str(warehouse)], scratch)
    assert done.returncode == 0, done.stderr
    return contents(warehouse)
