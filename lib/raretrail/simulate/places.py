"""Where people, robots and intruders sit: real networks, placed by the embedded city database.

`places.json` (made by tools/make_places.py) lists cities with /24 networks that GeoLite2 places
there. Who runs a network is invented here: an organisation's trail needs lines, offices, hosters
and carriers to tell apart, and the last free ASN data with the same age is not redistributable.
AWS regions carry Amazon's real number.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

AMAZON = (16509, "Amazon.com, Inc.")
# Private-use AS numbers: nobody is accused of hosting an intruder.
_FIRST_AS = 4_200_000_000

# Half of these names say that machines, not people, are behind them; half say nothing.
_HOSTERS = (
    "Cloudberry Hosting", "ServerNest VPS", "Datacamp Hosting", "HostForge Cloud",
    "Kelvin & Sons Ltd", "Northgate Systems", "Aurora Trading BV", "Perihelion LLC",
    "VirtualRack Servers", "Meridian Partners", "BlueHill Group", "QuickVPS",
)  # fmt: skip
# What the machines' prefixes of a hub are for, in turn.
_HUB_RACKS = (
    "vpn 1", "vpn 2", "vendor", "vpn 1", "vpn 2", "hoster",
    "vpn 1", "vpn 2", "hoster", "hoster", "vendor", "hoster",
)  # fmt: skip
# A city with fewer /24s cannot have every kind of line.
_LEAST_PREFIXES = 5
_VENDOR_NETWORKS = ("Hexagon Data Inc", "Observa Systems", "Backline Software", "Fenwick Labs")


@dataclass(frozen=True)
class Network:
    """One autonomous system: `kind` is residential, mobile, business, hosting, cloud or vpn."""

    number: int
    name: str
    kind: str


@dataclass(frozen=True)
class Line:
    """A /24 of one network in one city; `city` is None where only the country is known."""

    prefix: str
    network: Network
    country: str
    city: City | None

    @property
    def place(self) -> str:
        """'Lisbon, PT', or the country alone."""
        return self.city.label if self.city else self.country

    def address(self, host: int) -> str:
        """The address with that last number, 1 to 254."""
        return f"{self.prefix}.{1 + host % 254}"


@dataclass(frozen=True)
class City:
    """A city as GeoLite2 knows it; `kind` is hub, suburb or world, `hub` the id of a suburb's."""

    id: int
    name: str
    country: str
    region: str
    latitude: float
    longitude: float
    time_zone: str
    kind: str
    hub: int
    prefixes: tuple[str, ...] = field(repr=False, compare=False)
    wide: tuple[str, ...] = field(repr=False, compare=False)

    def kilometres(self, other: City) -> float:
        """Great-circle distance."""
        a, b = math.radians(self.latitude), math.radians(other.latitude)
        half = math.sin((b - a) / 2) ** 2
        east = math.radians(other.longitude - self.longitude)
        half += math.cos(a) * math.cos(b) * math.sin(east / 2) ** 2
        return 12742 * math.asin(min(1.0, math.sqrt(half)))

    @property
    def label(self) -> str:
        """'Lisbon, PT'."""
        return f"{self.name}, {self.country}"


class Atlas:
    """Every city and network the simulator may use. Immutable; get it from `atlas()`."""

    def __init__(self) -> None:
        raw = json.loads((files(__package__) / "places.json").read_text(encoding="utf-8"))
        self.cities: dict[int, City] = {}
        for id_, name, country, region, lat, lon, zone, kind, near, wide in raw["cities"]:
            kind, _, hub = kind.partition(":")
            if len(near.split()) < _LEAST_PREFIXES:
                continue
            self.cities[id_] = City(
                id_, name, country, region, lat, lon, zone, kind, int(hub or id_),
                tuple(near.split()), tuple(wide.split()),
            )  # fmt: skip
        self.hubs = [c for c in self.cities.values() if c.kind == "hub"]
        self.world = [c for c in self.cities.values() if c.kind != "suburb"]
        self._next_as = _FIRST_AS
        self.country_names = {c: v[0] for c, v in raw["country_only"].items()}
        self._country_only = {c: tuple(v[1].split()) for c, v in raw["country_only"].items()}
        countries = sorted({c.country for c in self.cities.values()})
        self._carriers = {c: self._make_carriers(c) for c in countries}
        self.hosters = [self._network(name, "hosting") for name in _HOSTERS]
        self.vpn_providers = [self._network(n, "vpn") for n in ("Tunnelworks AG", "Safe Exit Ltd")]
        self.vendor_networks = [self._network(name, "hosting") for name in _VENDOR_NETWORKS]
        self.cloud = Network(*AMAZON, "cloud")
        self._regions: dict[str, list[Line]] = {}
        for region, (id_, name, country, sub, lat, lon, zone, prefixes) in raw["ec2"].items():
            city = self.cities.get(id_) or City(id_, name, country, sub, lat, lon, zone, "cloud", id_, (), ())
            self._regions[region] = [Line(p, self.cloud, country, city) for p in prefixes.split()]

    def _network(self, name: str, kind: str) -> Network:
        self._next_as += 1
        return Network(self._next_as, name, kind)

    def _make_carriers(self, country: str) -> dict[str, Network]:
        name = self.country_names.get(country, country)
        return {
            "a": self._network(f"{name} Telecom", "residential"),
            "b": self._network(f"{name} Broadband", "residential"),
            "c": self._network(f"{name} Cable", "residential"),
            "business": self._network(f"{name} Business Networks", "business"),
            "mobile": self._network(f"{name} Mobile", "mobile"),
        }

    def suburbs(self, hub: City) -> list[City]:
        """The towns around a hub, largest first."""
        return [c for c in self.cities.values() if c.kind == "suburb" and c.hub == hub.id]

    def _every_fifth(self, city: City, step: int) -> list[str]:
        """A city's prefixes are dealt out in fives: carriers a, b, c, business, machines."""
        return [p for i, p in enumerate(city.prefixes) if i % 5 == step]

    def residential(self, city: City, carrier: str) -> list[Line]:
        """Lines of the country's carrier a, b or c in the city."""
        network = self._carriers[city.country][carrier]
        own = self._every_fifth(city, "abc".index(carrier))
        return [Line(p, network, city.country, city) for p in own]

    def business(self, city: City) -> list[Line]:
        """Leased lines in the city: what an office sits on."""
        network = self._carriers[city.country]["business"]
        return [Line(p, network, city.country, city) for p in self._every_fifth(city, 3)]

    def machines(self, city: City) -> list[Line]:
        """Racks of hosters in the city and, in hubs, VPN providers' and vendors' lines.

        Which network runs a prefix follows from the prefix alone, so that it has one.
        """
        lines = []
        for i, prefix in enumerate(self._every_fifth(city, 4)):
            use = _HUB_RACKS[i % len(_HUB_RACKS)] if city.kind == "hub" else "hoster"
            if use == "vendor":
                network = self.vendor_networks[(city.id + i) % len(self.vendor_networks)]
            elif use == "hoster":
                network = self.hosters[crc32(prefix.encode()) % len(self.hosters)]
            else:
                network = self.vpn_providers[int(use == "vpn 2")]
            lines.append(Line(prefix, network, city.country, city))
        return lines

    def hosting(self, city: City) -> list[Line]:
        """Lines of hosters in the city."""
        return [line for line in self.machines(city) if line.network in self.hosters]

    def of_network(self, city: City, network: Network) -> list[Line]:
        """The VPN provider's or vendor's lines in the city; only hubs have any."""
        return [line for line in self.machines(city) if line.network == network]

    def mobile(self, city: City) -> list[Line]:
        """The national mobile carrier as seen from the city: places it badly, and flaps."""
        network = self._carriers[city.country]["mobile"]
        return [Line(p, network, city.country, city) for p in city.wide]

    def national(self, country: str) -> list[Line]:
        """The mobile carrier's blocks that are known by country only."""
        network = self._carriers[country]["mobile"]
        return [Line(p, network, country, None) for p in self._country_only.get(country, ())]

    @property
    def regions(self) -> list[str]:
        """AWS regions whose addresses are known."""
        return list(self._regions)

    def ec2(self, region: str) -> list[Line]:
        """Amazon's public addresses in the region."""
        return self._regions[region]


@lru_cache(maxsize=1)
def atlas() -> Atlas:
    """The one atlas; reading it takes some milliseconds."""
    return Atlas()


@dataclass
class Seat:
    """Where a call comes from: an address and what stands behind it.

    `note` collects the ids of events sent from here, for the labels; `vpc_endpoint` is set where
    the address is private.
    """

    address: str
    line: Line | None
    note: list[str] | None = None
    vpc_endpoint: str | None = None

    @property
    def city(self) -> City | None:
        return self.line.city if self.line else None


def seat_on(line: Line, rng: Random, note: list[str] | None = None) -> Seat:
    """A seat at a random address of the line."""
    return Seat(line.address(rng.randrange(254)), line, note)


def write_networks_db(path: Path, lines: list[Line], build_epoch: int) -> None:
    """Write a GeoLite2-ASN type database of these lines. Needs the `simulate` extra."""
    import mmdb_writer

    writer = mmdb_writer.MMDBWriter(
        ip_version=4, database_type="GeoLite2-ASN", description={"en": "simulated networks"}
    )
    by_network: dict[Network, set[str]] = {}
    for line in lines:
        by_network.setdefault(line.network, set()).add(line.prefix)
    for network in sorted(by_network, key=lambda n: n.number):
        writer.insert_network(
            _set(sorted(by_network[network])),
            {
                "autonomous_system_number": mmdb_writer.MmdbU32(network.number),
                "autonomous_system_organization": network.name,
            },
        )
    writer.to_db_file(str(path))
    _stamp(path, build_epoch)


def write_moved_db(path: Path, lines: list[Line], moves: dict[str, City], build_epoch: int) -> None:
    """Write a City database of these lines as the provider places them after it redrew its map.

    `moves` says for a prefix which city it is placed in now; the rest keeps the embedded
    database's record. Needs the `simulate` extra.
    """
    import maxminddb
    import mmdb_writer

    source = files("_geoip_geolite2") / "GeoLite2-City.mmdb"
    kinds = {
        "geoname_id": mmdb_writer.MmdbU32, "accuracy_radius": mmdb_writer.MmdbU16,
        "latitude": mmdb_writer.MmdbF64, "longitude": mmdb_writer.MmdbF64,
    }  # fmt: skip

    def typed(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            names = {"en": value["en"]} if "en" in value else value  # one language is enough
            return {k: typed(v, k) for k, v in sorted(names.items())}
        if isinstance(value, list):
            return [typed(v) for v in value]
        return kinds[key](value) if key in kinds else value

    writer = mmdb_writer.MMDBWriter(
        ip_version=4, database_type="GeoLite2-City", languages=["en"],
        description={"en": "Derived from GeoLite2 data created by MaxMind (CC BY-SA 4.0)"},
    )  # fmt: skip
    with maxminddb.open_database(str(source)) as reader:
        grouped: dict[str, tuple[Any, list[str]]] = {}
        for line in lines:
            shown = moves[line.prefix].prefixes[0] if line.prefix in moves else line.prefix
            record = reader.get(f"{shown}.1")
            if record is not None:
                key = json.dumps(record, sort_keys=True)
                grouped.setdefault(key, (record, []))[1].append(line.prefix)
    for record, networks in grouped.values():
        writer.insert_network(_set(networks), typed(record))
    writer.to_db_file(str(path))
    _stamp(path, build_epoch)


def _set(prefixes: list[str]) -> Any:
    """The /24s as the writer takes them."""
    from netaddr import IPSet  # type: ignore[import-untyped]

    return IPSet([f"{p}.0/24" for p in prefixes])


def _stamp(path: Path, build_epoch: int) -> None:
    """Replace the build time in the metadata: the writer puts the wall clock there."""
    data = bytearray(path.read_bytes())
    # The key is followed by an uint64 in its shortest form: type byte pair, then the bytes.
    at = data.rindex(b"build_epoch") + len(b"build_epoch")
    size = data[at] & 0x1F
    data[at + 2 : at + 2 + size] = build_epoch.to_bytes(size, "big")
    path.write_bytes(data)
