"""The examples of every detector, executed: one organisation, one score stage over real tables.

All examples live in one organisation, beside a staff at work in two offices. Whoever acts in an example
is a person of their own, with a copy of what the history says of them; the others of a history are
shared by the detector's examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from factories import call, trail_file
from raretrail.cloudtrail.decode import decode_file, events_batches
from raretrail.cloudtrail.principals import load_rules
from raretrail.settings import Detector, Example, Use, load_settings
from raretrail.stages.ingest import write_facts
from raretrail.stages.locating import ensure_places, open_geo
from raretrail.stages.score import Window, score
from raretrail.tables import EVENTS, STAGED_ANOMALIES
from raretrail.warehouse import Warehouse

pytestmark = pytest.mark.integration

# A Wednesday, and as many days before it as the longest history of an example.
DAY, DAYS = date(2026, 3, 4), 30
# Addresses the embedded database places there, a network (/24) each.
LINES = {
    "Lisbon": ("5.158.52.10", "5.249.44.10", "46.189.144.10"),
    "Sintra": ("79.168.40.10", "81.84.220.10"),
    "Porto": ("2.80.156.10", "2.82.112.10"),
    "Madrid": ("2.137.32.10", "2.137.124.10"),
    "Dublin": ("5.179.68.10", "31.169.100.10"),
    "Toronto": ("4.28.140.10", "23.91.152.10"),
    "Hanoi": ("1.53.8.10", "1.54.136.10"),
    "Durban": ("41.0.152.10", "41.8.56.10"),
}
EVERYDAY = (
    "s3:ListBuckets",
    "ec2:DescribeInstances",
    "logs:GetLogEvents",
    "iam:GetUser",
    "sts:GetCallerIdentity",
)
STAFF = [
    Use(who=f"staff{n:02}", commands=[EVERYDAY[(n + m) % 5] for m in range(3)],
        city=("Lisbon", "Porto")[n % 2], days=DAYS)
    for n in range(12)
] + [
    # Now and then one of them is in the other office, or tries a command that others use.
    Use(who=f"staff{n:02}", commands=[EVERYDAY[(n + 3) % 5]], city=("Porto", "Lisbon")[n % 2],
        days=2 * n + 4, every=61)
    for n in range(12)
]  # fmt: skip

SETTINGS, _ = load_settings()
CASES = [
    (detector, kind, number, example)
    for detector in SETTINGS.detectors
    if detector.examples
    for kind in ("positive", "negative")
    for number, example in enumerate(getattr(detector.examples, kind))
]


def records(use: Use, name: str, day: date) -> Iterator[dict[str, object]]:
    start = datetime(day.year, day.month, day.day, 10, tzinfo=UTC)
    for minute, command in enumerate(use.commands):
        more: dict[str, object] = {"userAgent": use.tool} if use.tool else {}
        if use.error:
            action = f"User: arn:aws:iam::111122223333:user/{name} is not authorized to perform: {command}"
            more |= {"errorCode": use.error, "errorMessage": action}
        address = LINES[use.city][use.line - 1]
        yield call(name, command, address, start + timedelta(minutes=minute % 15), **more)


def past(use: Use, name: str) -> Iterator[dict[str, object]]:
    for back in range(use.days, 0, -use.every):
        yield from records(use, name, DAY - timedelta(days=back))


def acting(detector: Detector, kind: str, number: int, who: str) -> str:
    return f"{detector.name}.{kind}{number}.{who}"


def everything() -> Iterator[dict[str, object]]:
    for use in STAFF:
        yield from past(use, use.who)
    for detector in SETTINGS.detectors:
        if not detector.examples:
            continue
        actors = {
            event.who
            for example in (*detector.examples.positive, *detector.examples.negative)
            for event in example.events
        }
        for use in detector.examples.history:
            if use.who not in actors:
                yield from past(use, f"{detector.name}.{use.who}")
    for detector, kind, number, example in CASES:
        assert detector.examples
        for who in {event.who for event in example.events}:
            for use in detector.examples.history:
                if use.who == who:
                    yield from past(use, acting(detector, kind, number, who))
        for event in example.events:
            yield from records(event, acting(detector, kind, number, event.who), DAY)


@pytest.fixture(scope="module")
def found(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """(detector, user) of every finding."""
    warehouse = Warehouse(spark, str(tmp_path_factory.mktemp("examples") / "w"))
    settings = SETTINGS.model_copy(update={"warehouse": warehouse.location})
    rules = load_rules(settings.conf_file("principals.yml"))
    done = list(everything())
    decoded = decode_file("examples.json.gz", trail_file(done), rules=rules)
    assert (decoded.records, len(decoded.quarantined)) == (len(done), 0)
    events = spark.createDataFrame(pa.Table.from_batches(list(events_batches([decoded], 100_000))))
    lacking = [column for column in EVENTS.columns if column.name not in events.columns]
    events = events.withColumns({c.name: F.lit(None).cast(c.type) for c in lacking})
    warehouse.append(EVENTS, events)
    days = [DAY - timedelta(days=back) for back in range(DAYS + 1)]
    write_facts(warehouse, days)
    geo = open_geo(settings.geo)
    ensure_places(warehouse, warehouse.read(EVENTS), geo, datetime.now(UTC))
    start = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)
    score(warehouse, settings, geo, Window(start, start + timedelta(days=1)), "examples")
    rows = warehouse.read(STAGED_ANOMALIES).select("detector", "principal").distinct().collect()
    return {(row.detector, row.principal.rpartition("/")[2]) for row in rows}


@pytest.mark.parametrize("detector", SETTINGS.detectors, ids=lambda detector: detector.name)
def test_every_detector_says_what_it_finds_and_what_it_leaves(detector: Detector) -> None:
    assert detector.examples, f"conf/detectors/{detector.name}.yml has no examples"


@pytest.mark.parametrize(
    ("detector", "kind", "number", "example"), CASES,
    ids=[f"{detector.name}: {kind}: {example.why}" for detector, kind, _, example in CASES],
)  # fmt: skip
def test_an_example_comes_out_as_it_says(
    detector: Detector, kind: str, number: int, example: Example, found: set[tuple[str, str]]
) -> None:
    users = {acting(detector, kind, number, event.who) for event in example.events}
    by = {name for name, user in found if user in users}
    if kind == "positive":
        assert detector.name in by, f"not found; others found it: {sorted(by)}"
    else:
        assert detector.name not in by
