"""Make `lib/raretrail/simulate/places.json`: which real networks the simulator may use, and where.

    python tools/make_places.py

Walks the embedded GeoLite2-City database once (half a minute) and keeps, for the cities named
below and the suburbs around those that can hold an office, a few dozen /24 networks that the
database places there with a small accuracy radius. Run it again only when the database or the
lists change; the simulator's output for a seed changes with the file.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import maxminddb

OUT = Path(__file__).parents[1] / "lib/raretrail/simulate/places.json"

NETWORKS = {"hub": 60, "suburb": 16, "world": 28}
WIDE = {"hub": 10, "suburb": 4, "world": 4}
SUBURBS_PER_HUB = 10
PER_COUNTRY = 24

# Cities an organisation may have an office in.
HUBS = """
PT:Lisbon,Porto DE:Berlin,Munich,Hamburg GB:London,Manchester,Edinburgh IE:Dublin FR:Paris,Lyon
ES:Madrid,Barcelona IT:Milan,Rome NL:Amsterdam PL:Warsaw,Krakow CZ:Prague AT:Vienna CH:Zurich
SE:Stockholm DK:Copenhagen NO:Oslo FI:Helsinki BE:Brussels HU:Budapest RO:Bucharest GR:Athens
US:New York,Boston,Chicago,Austin,San Francisco,Seattle,Denver,Atlanta CA:Toronto,Vancouver
BR:São Paulo AR:Buenos Aires MX:Mexico City CO:Bogotá IN:Bengaluru,Pune,Mumbai SG:Singapore
JP:Tokyo,Osaka AU:Sydney,Melbourne IL:Tel Aviv ZA:Cape Town,Johannesburg AE:Dubai KR:Seoul
NZ:Auckland TR:Istanbul
"""

# Cities people travel to, and intruders come from.
WORLD = """
VN:Hanoi,Ho Chi Minh City ID:Jakarta,Surabaya PH:Manila,Cebu City TH:Bangkok,Chiang Mai
MY:Kuala Lumpur TW:Taipei HK:Hong Kong CN:Shanghai,Beijing,Shenzhen,Guangzhou NG:Lagos KE:Nairobi
EG:Cairo MA:Casablanca,Rabat TN:Tunis GH:Accra UA:Kyiv,Kiev,Kharkiv,Odessa,Lviv BG:Sofia,Varna
RS:Belgrade MD:Chisinau,Chişinău BY:Minsk RU:Moscow,St Petersburg,Novosibirsk,Yekaterinburg,Kazan
GE:Tbilisi AM:Yerevan AZ:Baku KZ:Almaty UZ:Tashkent PK:Karachi,Lahore,Islamabad BD:Dhaka
LK:Colombo NP:Kathmandu IQ:Baghdad SA:Riyadh,Jeddah JO:Amman LB:Beirut QA:Doha KW:Kuwait City
CO:Medellín,Cali PE:Lima EC:Quito,Guayaquil CL:Santiago UY:Montevideo PY:Asunción BO:La Paz
VE:Caracas PA:Panama City CR:San José GT:Guatemala City JM:Kingston DO:Santo Domingo
PR:San Juan CA:Montreal,Calgary,Ottawa US:Phoenix,Las Vegas,Houston,Dallas,Miami,Orlando
US:Philadelphia,Washington,Nashville,Minneapolis,Salt Lake City,Portland,San Diego,Los Angeles
US:Honolulu,Anchorage
US:Detroit,Charlotte,St Louis,Pittsburgh,New Orleans IS:Reykjavik NO:Bergen DK:Aarhus FI:Tampere
EE:Tallinn LV:Riga LT:Vilnius PL:Wroclaw,Gdansk,Poznan SK:Bratislava SI:Ljubljana HR:Zagreb,Split
BA:Sarajevo MK:Skopje AL:Tirana MT:Valletta CY:Nicosia IT:Palermo,Naples,Turin,Florence,Bologna
ES:Seville,Valencia,Bilbao,Málaga PT:Faro,Funchal,Coimbra,Braga FR:Marseille,Toulouse,Bordeaux,Nice
FR:Lille,Strasbourg BE:Antwerp NL:Rotterdam,Eindhoven LU:Luxembourg CH:Geneva,Basel
DE:Cologne,Frankfurt am Main,Stuttgart,Leipzig,Dresden AT:Salzburg,Graz GB:Glasgow,Birmingham
GB:Bristol,Leeds,Belfast IE:Cork,Galway JP:Fukuoka,Sapporo,Nagoya AU:Brisbane,Perth,Adelaide
NZ:Wellington IN:Chennai,Hyderabad,New Delhi,Kolkata ZA:Durban BR:Rio de Janeiro,Curitiba,Recife
AR:Córdoba MX:Guadalajara,Monterrey KR:Busan TR:Ankara,Izmir GR:Thessaloniki SE:Gothenburg,Malmo
CZ:Brno RO:Cluj-Napoca HU:Debrecen SN:Dakar CI:Abidjan ET:Addis Ababa UG:Kampala TZ:Dar es Salaam
DZ:Algiers MU:Port Louis KH:Phnom Penh MM:Yangon MN:Ulan Bator
"""

# Well-known EC2 blocks; where the database places them is asked, not assumed.
EC2 = {
    "us-east-1": ["3.80.0.0/12", "18.204.0.0/14", "34.192.0.0/12", "52.0.0.0/15", "54.144.0.0/14"],
    "us-east-2": ["3.16.0.0/14", "18.216.0.0/14", "52.14.0.0/16"],
    "us-west-2": ["34.208.0.0/12", "52.24.0.0/14", "54.68.0.0/14"],
    "eu-west-1": ["34.240.0.0/13", "52.16.0.0/15", "54.72.0.0/15"],
    "eu-west-2": ["35.176.0.0/15", "18.130.0.0/16", "3.8.0.0/14"],
    "eu-central-1": ["18.184.0.0/15", "35.156.0.0/14", "52.28.0.0/16"],
    "ap-southeast-1": ["13.228.0.0/15", "52.74.0.0/16", "54.169.0.0/16"],
    "ap-southeast-2": ["13.54.0.0/15", "52.62.0.0/15", "13.236.0.0/14"],
    "ap-northeast-1": ["13.112.0.0/14", "52.68.0.0/15", "54.64.0.0/15"],
    "ap-south-1": ["13.126.0.0/15", "13.232.0.0/14", "35.154.0.0/16"],
    "sa-east-1": ["54.207.0.0/16", "52.67.0.0/16", "18.228.0.0/16"],
    "ca-central-1": ["35.182.0.0/15", "52.60.0.0/16", "99.79.0.0/16"],
}
AMAZON = [
    ipaddress.ip_network(b)
    for b in (
        "3.0.0.0/8",
        "13.32.0.0/11",
        "13.112.0.0/12",
        "13.124.0.0/14",
        "13.208.0.0/12",
        "13.224.0.0/11",
        "18.128.0.0/9",
        "34.192.0.0/10",
        "35.152.0.0/13",
        "35.160.0.0/11",
        "50.16.0.0/14",
        "52.0.0.0/8",
        "54.0.0.0/8",
        "99.77.0.0/16",
        "99.79.0.0/16",
    )
]


def _named(text: str) -> dict[tuple[str, str], None]:
    """`CC:Name,Name` words, where a name may hold spaces, as (country, name) in order."""
    found: dict[tuple[str, str], None] = {}
    country = ""
    for part in text.replace("\n", " ").split(","):
        words = part.split()
        name: list[str] = []
        for word in words:
            if ":" in word:
                if name:
                    found[(country, " ".join(name))] = None
                country, word = word.split(":")
                name = []
            name.append(word)
        if name:
            found[(country, " ".join(name))] = None
    return found


def _order(prefix: str) -> bytes:
    return hashlib.sha256(prefix.encode()).digest()


def _spread(prefixes: set[str], limit: int) -> list[str]:
    """At most `limit` of them, at most two of one /16, in an order that only the text decides."""
    taken: list[str] = []
    per_block: dict[str, int] = {}
    for prefix in sorted(prefixes, key=_order):
        block = prefix.rsplit(".", 1)[0]
        if per_block.get(block, 0) < 2:
            per_block[block] = per_block.get(block, 0) + 1
            taken.append(prefix)
            if len(taken) == limit:
                break
    return taken


def _kilometres(a: tuple[float, float], b: tuple[float, float]) -> float:
    la, lb = math.radians(a[0]), math.radians(b[0])
    half = math.sin((lb - la) / 2) ** 2
    half += math.cos(la) * math.cos(lb) * math.sin(math.radians(b[1] - a[1]) / 2) ** 2
    return 12742 * math.asin(math.sqrt(half))


class City:
    def __init__(self, record: dict[str, Any]) -> None:
        self.id: int = record["city"]["geoname_id"]
        self.name: str = record["city"]["names"]["en"]
        self.country: str = record["country"]["iso_code"]
        self.region: str = (record.get("subdivisions") or [{}])[0].get("iso_code", "")
        place = record["location"]
        self.at = (place["latitude"], place["longitude"])
        self.time_zone: str = place.get("time_zone", "")
        self.near: set[str] = set()
        self.wide: set[str] = set()


def _keep(pool: set[str], network: ipaddress.IPv4Network) -> None:
    """Up to 16 /24s of one network, evenly spaced, so that a /12 does not fill the memory."""
    count = 1 << (24 - network.prefixlen)
    first = int(network.network_address) >> 8
    for i in range(0, count, max(1, count // 16)):
        pool.add(str(ipaddress.ip_address((first + i) << 8)).rsplit(".", 1)[0])


def main() -> None:
    path = str(files("_geoip_geolite2") / "GeoLite2-City.mmdb")
    reader: Any = maxminddb.open_database(path)
    cities: dict[int, City] = {}
    countries: dict[str, set[str]] = {}
    country_names: dict[str, str] = {}
    amazon = [(int(n.network_address), int(n.broadcast_address)) for n in AMAZON]
    for network, record in reader:
        if network.version != 4 or network.prefixlen > 24 or not isinstance(record, dict):
            continue
        start = int(network.network_address)
        if any(low <= start <= high for low, high in amazon) or "country" not in record:
            continue
        country_names[record["country"]["iso_code"]] = record["country"]["names"]["en"]
        radius = record.get("location", {}).get("accuracy_radius", 1000)
        if "city" in record and "en" in record["city"].get("names", {}):
            if "time_zone" not in record["location"]:
                continue
            city = cities.get(record["city"]["geoname_id"])
            if city is None:
                city = cities[record["city"]["geoname_id"]] = City(record)
            if radius <= 50:
                _keep(city.near, network)
            elif radius <= 500:
                _keep(city.wide, network)
        elif "subdivisions" not in record:
            _keep(countries.setdefault(record["country"]["iso_code"], set()), network)

    by_name: dict[tuple[str, str], City] = {}
    for city in sorted(cities.values(), key=lambda c: len(c.near)):
        by_name[(city.country, city.name)] = city  # the biggest of a name wins
    rows: list[list[Any]] = []
    taken: set[int] = set()

    def add(city: City, kind: str) -> None:
        taken.add(city.id)
        rows.append(
            [
                city.id,
                city.name,
                city.country,
                city.region,
                *(round(x, 4) for x in city.at),
                city.time_zone,
                kind,
                " ".join(_spread(city.near, NETWORKS[kind.split(":")[0]])),
                " ".join(_spread(city.wide, WIDE[kind.split(":")[0]])),
            ]
        )

    hubs, world = _named(HUBS), _named(WORLD)
    reserved = {by_name[k].id for k in (*hubs, *world) if k in by_name}
    for key in hubs:
        hub = by_name.get(key)
        if hub is None or len(hub.near) < 24:
            print("no hub", key)
            continue
        add(hub, "hub")
        around = [
            c
            for c in cities.values()
            if len(c.near) >= 4
            and c.id not in reserved
            and c.id not in taken
            and c.country == hub.country
            and 5 <= _kilometres(c.at, hub.at) <= 40
        ]
        for suburb in sorted(around, key=lambda c: (-len(c.near), c.id))[:SUBURBS_PER_HUB]:
            add(suburb, f"suburb:{hub.id}")
    for key in world:
        city = by_name.get(key)
        if city is None or len(city.near) < 6:
            print("no city", key)
        elif city.id not in taken:
            add(city, "world")

    ec2: dict[str, list[Any]] = {}
    for region, blocks in EC2.items():
        found: dict[str, set[str]] = {}
        for block in blocks:
            base = ipaddress.IPv4Network(block)
            for i in range(0, base.num_addresses, base.num_addresses // 24):
                prefix = str(base.network_address + i).rsplit(".", 1)[0]
                record, length = reader.get_with_prefix_len(prefix + ".77")
                if record and length <= 120 and "city" in record:
                    found.setdefault(f"{record['city']['geoname_id']}", set()).add(prefix)
        best = max(found, key=lambda k: (len(found[k]), k))
        record = reader.get(min(found[best]) + ".77")
        print(
            region,
            record["city"]["names"]["en"],
            len(found[best]),
            {k: len(v) for k, v in found.items()},
        )
        place = record["location"]
        ec2[region] = [
            int(best),
            record["city"]["names"]["en"],
            record["country"]["iso_code"],
            (record.get("subdivisions") or [{}])[0].get("iso_code", ""),
            place["latitude"],
            place["longitude"],
            place["time_zone"],
            " ".join(_spread(found[best], 24)),
        ]
    used = {row[2] for row in rows}
    document: dict[str, Any] = {
        "attribution": "This product includes GeoLite2 data created by MaxMind, available from"
        " https://www.maxmind.com; build 2019-12-24, CC BY-SA 4.0."
        " Selected by tools/make_places.py.",
        "cities": rows,
        "country_only": {
            c: [country_names[c], " ".join(_spread(n, PER_COUNTRY))]
            for c, n in sorted(countries.items())
            if c in used
        },
        "ec2": ec2,
    }
    lines = ["{", f' "attribution": {json.dumps(document["attribution"])},', ' "cities": [']
    lines += [",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows), " ],"]
    for name in ("country_only", "ec2"):
        items = (f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in document[name].items())
        lines += [f' "{name}": {{', ",\n".join(items), " }," if name == "country_only" else " }"]
    OUT.write_text("\n".join([*lines, "}", ""]), encoding="utf-8")
    print(len(rows), "cities,", sum(len(r[8].split()) for r in rows), "networks,", OUT.stat().st_size)


if __name__ == "__main__":
    main()
