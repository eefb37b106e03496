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
from raretrail.geo.locate import _parse
from raretrail.geo.networks import address_key, with_known_network
from raretrail.settings import KnownNetwork, load_settings

ODD = [
    None, "", " ", "AWS Internal", "ec2.amazonaws.com", "vpce-0a1b", "256.1.1.1", "1.2.3", "01.2.3.4",
    "1.2.3.4:443", "1.2.3.4:", "[2001:db8::1]", "[2001:db8::1]:443", "[1.2.3.4]", "fe80::1%eth0", "::",
    "::1", "1::", ":1", "1:", ":::", "1:::2", "1::2::3", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::",
    "1:2:3:4:5:6:7",
    "::ffff:192.0.2.1", "::ffff:c000:201", "2001:db8::192.0.2.1", "2001:DB8::A", " 192.0.2.1 ", "12345::1",
    "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "g::1", "::ffff:256.0.0.1", "192.0.2.1/24", "1.2.3.4.5",
]  # fmt: skip


def _random_addresses(n: int) -> list[str]:
    rng = random.Random(5)
    made: list[str] = []
    for _ in range(n):
        made.append(str(ipaddress.IPv4Address(rng.getrandbits(32))))
        wide = ipaddress.IPv6Address(rng.getrandbits(128) & ~(rng.getrandbits(1) * ((1 << 80) - 1) << 16))
        made += [str(wide), wide.exploded]
    return made


@pytest.mark.integration
def test_the_key_of_an_address_is_the_one_python_reads(spark: SparkSession) -> None:
    texts = ODD + _random_addresses(200)
    rows = spark.createDataFrame([(text,) for text in texts], "address string")
    found = rows.select("address", address_key(F.col("address")).alias("key")).collect()
    for row in found:
        parsed = _parse(row.address) if row.address else None
        assert row.key == (key_of(parsed) if parsed else None), row.address


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
