"""Known networks: which block or autonomous system an address lies in, without a Python worker."""

from __future__ import annotations

import ipaddress
import random
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from raretrail.errors import UsageError
from raretrail.geo.addresses import key_of, range_of
from raretrail.geo.locate import address_of
from raretrail.geo.networks import with_known_network
from raretrail.settings import KnownNetwork, load_settings


def test_a_block_is_the_range_of_its_addresses() -> None:
    rng = random.Random(6)
    for _ in range(300):
        version, bits = rng.choice([(4, 32), (6, 128)])
        cls = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        block = ipaddress.ip_network((rng.getrandbits(bits), rng.randint(0, bits)), strict=False)
        if block.version != version:
            continue
        address = cls(int(block[0]) ^ (1 << rng.randrange(bits)))
        first, last = range_of(str(block))
        assert (first <= key_of(address) <= last) == (address in block)
    with pytest.raises(ValueError):
        range_of("no block")


@pytest.mark.integration
def test_the_smallest_block_names_an_address_else_its_autonomous_system(spark: SparkSession) -> None:
    networks = [
        KnownNetwork.model_validate(
            {"name": "group", "kind": "office", "cidr": ["203.0.0.0/16", "2001:db8::/32"]}
        ),
        KnownNetwork.model_validate({"name": "exit", "kind": "vpn", "cidr": "203.0.113.0/24"}),
        KnownNetwork.model_validate({"name": "bad", "kind": "hostile", "as_number": [64500]}),
    ]
    rows = spark.createDataFrame(
        [
            ("203.0.113.9", 64500),
            ("203.0.1.1", None),
            ("2001:db8:1::5", None),
            ("198.51.100.1", 64500),
            ("198.51.100.2", 64501),
            ("AWS Internal", None),
            (None, None),
        ],
        "source_ip_address string, as_number bigint",
    )
    keys = [(text, address_of(text)[0]) for text in (row.source_ip_address for row in rows.collect())]
    keyed = spark.createDataFrame(keys, "address string, address_key string")
    rows = rows.join(keyed, F.col("address").eqNullSafe(F.col("source_ip_address"))).drop("address")
    found = with_known_network(rows, networks)
    assert found.columns == [*rows.columns, "known_network", "known_network_kind"]
    named = {row.source_ip_address: (row.known_network, row.known_network_kind) for row in found.collect()}
    nothing = (None, None)
    assert named == {
        "203.0.113.9": ("exit", "vpn"),
        "203.0.1.1": ("group", "office"),
        "2001:db8:1::5": ("group", "office"),
        "198.51.100.1": ("bad", "hostile"),
        "198.51.100.2": nothing,
        "AWS Internal": nothing,
        None: nothing,
    }
    assert {row.known_network for row in with_known_network(rows, []).collect()} == {None}


def _conf(path: Path, text: str) -> str:
    (path / "networks.yml").write_text(text)
    return str(path)


def test_networks_come_from_conf_and_move_the_hash(tmp_path: Path) -> None:
    usual, _ = load_settings()
    text = "networks:\n  - {name: office, kind: office, cidr: 203.0.113.0/24, as_number: [64500]}\n"
    settings, _ = load_settings(conf=_conf(tmp_path, text))
    (network,) = settings.networks
    assert (network.name, network.cidr, network.as_number) == ("office", ("203.0.113.0/24",), (64500,))
    assert usual.networks == []
    assert settings.hash != usual.hash


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{name: a, kind: office, cdir: 203.0.113.0/24}", "cdir: unknown setting"),
        ("{name: a, kind: office}", "needs a cidr or an as_number"),
        ("{name: a, kind: home, cidr: 203.0.113.0/24}", "networks.0.kind"),
        ("{name: a, kind: office, cidr: 203.0.113.9/24}", "has host bits set; write a block as"),
        ("{name: a, kind: office, as_number: 0}", "greater than or equal to 1"),
        (
            "{name: a, kind: office, cidr: 203.0.113.0/24}\n  - {name: b, kind: vpn, cidr: 203.0.113.0/24}",
            "203.0.113.0/24 is both 'a' and 'b'",
        ),
    ],
)
def test_networks_that_cannot_be_used_are_refused_with_their_place(
    tmp_path: Path, entry: str, said: str
) -> None:
    with pytest.raises(UsageError, match=r"networks\.yml") as refused:
        load_settings(conf=_conf(tmp_path, f"networks:\n  - {entry}\n"))
    assert said in str(refused.value)
