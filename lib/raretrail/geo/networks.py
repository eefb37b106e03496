"""The organisation's known networks (conf/networks.yml): which of them an address lies in.

A block is a range of address keys (`geo.addresses`), so matching needs no Python worker.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from raretrail.errors import UsageError
from raretrail.geo.addresses import range_of
from raretrail.settings import KnownNetwork

_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(\.{_OCTET}){{3}}"
# What stands around an address: a port after IPv4; brackets with or without a port; a zone.
_WITH_PORT = rf"^({_IPV4}):[0-9]{{1,5}}$"
_BRACKETED = r"^\[([^\]]*)\](:[0-9]{1,5})?$"
_ZONE = r"%[^%]*$"
_MAPPED = "6" + "0" * 20 + "ffff"
_ENTRY = (
    "networks array<struct<first:string,last:string,as_number:bigint,"
    "known_network:string,known_network_kind:string>>"
)


def address_key(address: Column) -> Column:
    """`key_of` the address a text column holds, as `geo.locate` reads it; null where it holds none."""
    text = F.lower(F.trim(address))
    text = F.when(text.rlike(_WITH_PORT), F.substring_index(text, ":", 1)).otherwise(text)
    text = F.regexp_replace(F.regexp_replace(text, _BRACKETED, "$1"), _ZONE, "")
    four = F.when(text.rlike(f"^{_IPV4}$"), text)
    # ::ffff:192.0.2.1 is written with the tail of an IPv4 address, which stands for two groups.
    tail = F.regexp_extract(text, rf":({_IPV4})$", 1)
    groups = F.regexp_replace(_hex_of(tail), "^(.{4})(.{4})$", "$1:$2")
    six = F.when(tail != "", F.concat(F.regexp_extract(text, "^(.*:)[^:]*$", 1), groups))
    wide = _wide(F.coalesce(six, text))
    key = F.when(four.isNotNull(), F.concat(F.lit("4"), _hex_of(four))).otherwise(
        F.when(wide.isNotNull(), F.concat(F.lit("6"), wide))
    )
    return F.when(key.startswith(_MAPPED), F.concat(F.lit("4"), F.substring(key, 26, 8))).otherwise(key)


def _hex_of(dotted: Column) -> Column:
    """Eight hexadecimal digits of a dotted IPv4 address."""
    octets = F.split(dotted, r"\.")
    return F.lower(
        F.array_join(F.transform(octets, lambda o: F.lpad(F.hex(o.try_cast("bigint")), 2, "0")), "")
    )


def _wide(text: Column) -> Column:
    """The 32 hexadecimal digits of an IPv6 address; null for any other text."""
    parts = F.split(text, "::")
    halves = F.transform(parts, lambda half: F.filter(F.split(half, ":"), lambda group: group != ""))
    before, after = F.try_element_at(halves, F.lit(1)), F.try_element_at(halves, F.lit(2))
    missing = 8 - F.size(before) - F.coalesce(F.size(after), F.lit(0))
    groups = F.when(F.size(parts) == 1, before).otherwise(
        F.concat(before, F.array_repeat(F.lit("0"), F.greatest(missing, F.lit(0)).cast("int")), after)
    )
    written = (
        text.contains(":")
        & (F.size(parts) <= 2)
        & ~text.rlike("(^|[^:]):$|^:([^:]|$)|:::")
        & F.when(F.size(parts) == 1, missing == 0).otherwise(missing >= 1)
        & F.forall(groups, lambda group: group.rlike("^[0-9a-f]{1,4}$"))
    )
    return F.when(written, F.array_join(F.transform(groups, lambda group: F.lpad(group, 4, "0")), ""))


def with_known_network(rows: DataFrame, networks: Sequence[KnownNetwork]) -> DataFrame:
    """rows (source_ip_address, as_number) plus known_network and known_network_kind.

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
        .withColumn("address_key", address_key(F.col("source_ip_address")))
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
