"""What the tests of clusters share: an organisation, and what the job finds in it on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cluster_tools import run

import tiny


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for logs and the Java shim."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A tiny organisation with one intrusion, and the options to play its last two days."""
    return tiny.played(tmp_path_factory.mktemp("org") / "simulated")


@pytest.fixture(scope="session")
def local_warehouse(options: list[str], scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the job has run on this machine alone."""
    warehouse = tmp_path_factory.mktemp("local") / "w"
    done = run([sys.executable, "-m", "raretrail", "run", *options, "--warehouse", str(warehouse)], scratch)
    assert done.returncode == 0, done.stderr
    return warehouse


@pytest.fixture(scope="session")
def local(local_warehouse: Path) -> tiny.Contents:
    """What it leaves behind there."""
    return tiny.contents(local_warehouse)
