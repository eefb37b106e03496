"""What all tests share: one Spark session for the whole run, opened only if a test asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from raretrail.session import _small, close_session, open_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Small frames: one task each and no re-planning. Tests of real plans open their own session.
_FAST = {**_small("1"), "spark.default.parallelism": "1"}


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A local session with Delta; over Spark Connect where RARETRAIL_TEST_REMOTE is `local[2]`."""
    session = open_session(
        remote=os.environ.get("RARETRAIL_TEST_REMOTE"),
        cores="2",
        # One JVM for all tests lives long enough for its full compiler to pay.
        size="large",
        scratch=tmp_path_factory.mktemp("spark"),
        conf=_FAST,
    )
    yield session
    close_session(session)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest first, so that no process is left with one of them while the other is done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    whole = {item.path for item in items if item.get_closest_marker("integration")}
    items.sort(key=lambda item: (item.path not in slow, item.path not in whole))
