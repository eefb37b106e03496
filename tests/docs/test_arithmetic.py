"""The numbers worked in `docs/how-it-decides.md` are what the code gives for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from raretrail.detect.candidates import with_bits
from raretrail.detect.rank import expected_per_day
from raretrail.detect.surprise import (
    ALPHA,
    CAPS,
    COMMAND_OFFSET_BITS,
    RATE_PRIOR_DAYS,
    RECENT_WEIGHT,
    bits_of,
    prior_of,
    with_rates,
)

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-it-decides.md").read_text(encoding="utf-8")
FLAT = " ".join(PAGE.split())

pytestmark = pytest.mark.integration


def _line(term: str) -> str:
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {term} ")]
    return line


def test_the_worked_finding_is_what_the_code_gives(spark: SparkSession) -> None:
    rows = spark.createDataFrame(
        [
            ("place", 1, 40, [6, 4, 5, 10, 8, 7], 0),
            ("agent", 2, 80, [30, 10, 10, 10, 10, 10], 0),
            ("command", 5, 300, [20, 5, 5, 10, 60, 200], 3),
        ],
        "dimension string, new_days bigint, org_new_days bigint, first_uses array<bigint>, settled_90 bigint",
    ).withColumns({"active_days": F.lit(20), "org_active_days": F.lit(800)})
    first = with_rates(rows).withColumn("bits", bits_of(F.col("rate") * F.col("tail")))
    got = {row["dimension"]: row for row in first.collect()}
    for term, dimension, value in (
        ("Ana's rate", "place", "rate"), ("tail", "place", "tail"), ("**user agent**", "agent", "rate"),
        ("**user agent**", "agent", "tail"), ("command as a first use", "command", "rate"),
        ("command as a first use", "command", "tail"),
    ):  # fmt: skip
        assert f"{got[dimension][value]:.4f}" in _line(term)
    parts = {dimension: got[dimension]["bits"] for dimension in got}
    prior = prior_of(F.lit(2), F.lit(10_000), F.lit(200), F.lit(50))
    rarity = bits_of(ALPHA * prior / (20 + ALPHA)) - COMMAND_OFFSET_BITS
    row = spark.range(1).select(prior.alias("prior"), rarity.alias("rarity")).first()
    assert row is not None
    assert f"{row['prior']:.6f}" in _line("command by its rarity")
    assert f"{row['rarity'] + COMMAND_OFFSET_BITS:.2f} − 4" in _line("command by its rarity")
    assert _line("command by its rarity").endswith(f"| {min(row['rarity'], CAPS['command']):.2f} |")
    what = min(parts["command"], row["rarity"], CAPS["command"])
    for term, bits in (
        ("**place**", parts["place"]),
        ("**user agent**", parts["agent"]),
        ("**command**", what),
    ):
        assert _line(term).endswith(f"| **{bits:.2f}** |")
    frame = spark.createDataFrame(
        [(parts["place"], parts["agent"], what, 1.0)],
        "where_bits double, how_bits double, what_bits double, maturity double",
    )
    summed = with_bits(frame).first()
    assert summed is not None
    assert _line("**sum**").endswith(f"| **{summed['bits']:.2f}** |")


def test_the_worked_score_is_what_the_code_gives(spark: SparkSession) -> None:
    bits, calibrated = F.lit(16.37), F.array(*[F.lit(b) for b in (30.0, 25.0, 16.37, 15.0)])
    nothing = expected_per_day(bits, F.array().cast("array<double>"), F.lit(0))
    row = spark.range(1).select(
        nothing.alias("prior"), expected_per_day(bits, calibrated, F.lit(14)).alias("expected")
    ).first()  # fmt: skip
    assert row is not None
    assert f"{row['prior']:.3f}` a day" in FLAT or f"= {row['prior']:.3f}`" in FLAT
    assert f"= {row['expected']:.3f}`" in FLAT
    assert f"the score is `{100 / (1 + row['expected']):.1f}`" in FLAT


def test_the_constants_named_are_those_of_the_code() -> None:
    assert CAPS == {
        "place": 10, "country": 10, "network": 8, "command": 8, "agent": 8, "error": 6, "prefix": 6,
        "jump": 6, "hour": 4,
    }  # fmt: skip
    assert (
        "At most 10 bits for a place or country, 8 for a network, command or user agent, 6 for an error "
        "code or an address prefix" in FLAT
    )
    assert (RATE_PRIOR_DAYS, ALPHA, COMMAND_OFFSET_BITS, RECENT_WEIGHT) == (10, 5, 4, 0.7)
    assert "(new_days + 10 ·" in FLAT and "5 · prior" in FLAT and "- 4`" in FLAT and "0.7 ·" in FLAT
