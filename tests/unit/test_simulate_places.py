from __future__ import annotations

from importlib.resources import files

import maxminddb

from raretrail.simulate.places import atlas


def test_every_network_is_where_the_database_places_it() -> None:
    with maxminddb.open_database(str(files("_geoip_geolite2") / "GeoLite2-City.mmdb")) as reader:

        def placed(prefix: str) -> tuple[int, str, int]:
            first, last = reader.get(f"{prefix}.1"), reader.get(f"{prefix}.254")
            assert first == last, prefix
            assert isinstance(first, dict)
            city, country, spot = first.get("city", {}), first["country"], first["location"]
            return city.get("geoname_id", 0), country["iso_code"], spot["accuracy_radius"]

        for city in atlas().cities.values():
            assert city.prefixes or city.kind == "world"
            for prefix in city.prefixes:
                where, country, radius = placed(prefix)
                assert (where, country) == (city.id, city.country)
                assert radius <= 50
            for prefix in city.wide:
                assert placed(prefix)[0] == city.id
        for country in ("PT", "US", "IN"):
            lines = atlas().national(country)
            assert lines
            for line in lines:
                assert placed(line.prefix)[:2] == (0, country)
        for region in atlas().regions:
            for line in atlas().ec2(region):
                assert line.city is not None
                assert placed(line.prefix)[0] == line.city.id


def test_lines_of_one_city_are_of_different_character() -> None:
    for hub in atlas().hubs:
        kinds = {
            line.prefix: line.network.kind
            for lines in (
                *(atlas().residential(hub, carrier) for carrier in "abc"),
                atlas().business(hub),
                atlas().hosting(hub),
            )
            for line in lines
        }
        assert set(kinds.values()) == {"residential", "business", "hosting"}
        for suburb in atlas().suburbs(hub):
            assert suburb.kilometres(hub) <= 40


def test_a_prefix_has_one_network_and_one_city() -> None:
    owners: dict[str, set[tuple[int, int]]] = {}
    for city in atlas().cities.values():
        lines = [
            *(line for carrier in "abc" for line in atlas().residential(city, carrier)),
            *atlas().business(city),
            *atlas().machines(city),
            *atlas().mobile(city),
        ]
        assert len(lines) == len(city.prefixes) + len(city.wide)
        assert atlas().hosting(city)
        for line in lines:
            owners.setdefault(line.prefix, set()).add((line.network.number, city.id))
    for region in atlas().regions:
        for line in atlas().ec2(region):
            owners.setdefault(line.prefix, set()).add((line.network.number, 0))
    assert all(len(found) == 1 for found in owners.values())
    for provider in atlas().vpn_providers:
        assert all(atlas().of_network(hub, provider) for hub in atlas().hubs)


def test_half_of_the_hosters_names_tell_nothing() -> None:
    telling = ("host", "cloud", "server", "vps", "datacamp")
    names = [network.name.lower() for network in atlas().hosters]
    told = sum(any(word in name for word in telling) for name in names)
    assert 2 * told == len(names)
