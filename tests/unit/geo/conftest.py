"""Databases to look things up in: MaxMind's own test files, and small ones written here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

MAXMIND_TEST_DATA = Path(__file__).parents[3].parent / "shared/data/geo/test-data"


@pytest.fixture(scope="session")
def maxmind_file() -> Callable[[str], Path]:
    """The path of one of MaxMind's test files, by name; skips where they are not at hand."""

    def find(name: str) -> Path:
        file = MAXMIND_TEST_DATA / f"{name}.mmdb"
        if not file.is_file():
            pytest.skip(f"MaxMind's test database {name} is not in ../shared/data/geo")
        return file

    return find


@pytest.fixture
def write_mmdb(tmp_path: Path) -> Callable[..., Path]:
    """Write an mmdb file of a type from {network: record}."""

    def write(database_type: str, records: dict[str, Any], ip_version: int = 6) -> Path:
        writer = MMDBWriter(
            ip_version=ip_version,
            ipv4_compatible=ip_version == 6,
            database_type=database_type,
            languages=["en"],
            description={"en": "written by a test"},
        )
        for network, record in records.items():
            writer.insert_network(IPSet([network]), record)
        path = tmp_path / f"{database_type}.mmdb"
        writer.to_db_file(str(path))
        return path

    return write
