"""The organisation's known networks (conf/networks.yml): which of them an address lies in.

A block is a range of address keys (`geo.addresses`), so matching needs no Python worker.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail.errors import UsageError
from raretrail.geo.addresses import range_of
from raretrail.settings import KnownNetwork

_ENTRY = (
    "networks array<struct<first:string,last:string,as_number:bigint,"
    "known_network:string,known_network_kind:string>>"
)


def with_known_network(rows: DataFrame, networks: Sequence[KnownNetwork]) -> DataFrame:
    """rows (address_key, as_number) plus known_network and known_network_kind.

    The smallest block that holds the address names it, else its AS number; null where neither is
    known.
    """
    known = rows.sparkSession.createDataFrame([(_entries(networks),)], _ENTRY)
    entry = F.try_element_at(
        F.filter(
            "networks",
            lambda known: F.coalesce(
                F.when(known["first"].isNull(), known["as_number"] == F.col("as_number")).otherwise(
                    F.col("address_key").between(known["first"], known["last"])
                ),
                F.lit(False),
            ),
        ),
        F.lit(1),
    )
    return (
        rows.crossJoin(F.broadcast(known))
        .withColumn("known", entry)
        .select(*rows.columns, "known.known_network", "known.known_network_kind")
    )


def _entries(networks: Sequence[KnownNetwork]) -> list[tuple[str | None, str | None, int | None, str, str]]:
    """What each network is known by, in the order in which the first that fits names an address."""
    blocks = [(ipaddress.ip_network(block), network) for network in networks for block in network.cidr]
    smallest_first = sorted(blocks, key=lambda pair: (-pair[0].prefixlen, str(pair[0])))
    entries: list[tuple[str | None, str | None, int | None, str, str]] = [
        (*range_of(str(block)), None, network.name, network.kind) for block, network in smallest_first
    ]
    return entries + [
        (None, None, number, network.name, network.kind)
        for network in networks
        for number in network.as_number
    ]


def hosting_names(path: Path) -> str:
    """One regular expression of `conf/hosting.yml`: names of autonomous systems that are hosters.

    Raises UsageError that names the file and what is wrong in it.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as YAML: {error}") from error
    names = tree.get("names") if isinstance(tree, dict) and set(tree) == {"names"} else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{path}: needs a list of regular expressions under `names` and nothing else")
    for name in names:
        try:
            re.compile(name)
        except re.error as error:
            raise UsageError(f"{path}: {name!r} is not a regular expression: {error}") from error
    return "|".join(f"(?:{name})" for name in names)
