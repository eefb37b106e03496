from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geoip2.database
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raretrail.errors import RaretrailError
from raretrail.geo.databases import EMBEDDED, local_path
from raretrail.geo.locate import address_of, locate_table, place_of, to_places
from raretrail.tables import GEO_STATUSES, PLACE_COLUMNS, PLACES

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
EMBEDDED_BUILD = "GeoLite2-City@2019-12-24"
NAMES = [column.name for column in PLACE_COLUMNS]

EMBEDDED_READER = geoip2.database.Reader(local_path(EMBEDDED), locales=["en"])


def locate(address: str | None, city: Path | None = None, asn: Path | None = None) -> dict[str, Any]:
    """place_of() as a dict by column; in the embedded database where no other is named."""
    city_reader = geoip2.database.Reader(city, locales=["en"]) if city else EMBEDDED_READER
    asn_reader = geoip2.database.Reader(asn) if asn else None
    return dict(zip(NAMES, place_of(address, city_reader, asn_reader), strict=True))


def status(address: str | None) -> str:
    return locate(address)["geo_status"]


# ------------------------------------------------------------------- what is no address of a host


@pytest.mark.parametrize("text", [None, "", " ", "\t\n"])
def test_nothing_is_missing(text: str | None) -> None:
    assert status(text) == "missing"


@pytest.mark.parametrize(
    "text", ["AWS Internal", "AWS Internal/#", "AWS Internal/3", "aws.internal", " aws internal "]
)
def test_aws_internal(text: str) -> None:
    assert status(text) == "aws_internal"


@pytest.mark.parametrize(
    "text",
    [
        "cloudformation.amazonaws.com",
        "cloudformation.amazonaws.com.cn",
        "delivery.logs.amazonaws.com",
        "EKS-nodegroup.amazonaws.com",
        "workmail.amazon.com",
        "signin.api.aws",
        "ec2.c2s.ic.gov",
    ],
)
def test_service_names(text: str) -> None:
    found = locate(text)
    assert (found["geo_status"], found["place"]) == ("aws_service", "aws_service")
    assert found["place_name"] == "AWS service"
    assert found["network"] is None


@pytest.mark.parametrize("text", ["vpce-0a1b2c3d4e5f", "vpce-1-abc.s3.us-east-1.vpce.amazonaws.com"])
def test_vpc_endpoints(text: str) -> None:
    assert status(text) == "vpc_endpoint"


@pytest.mark.parametrize(
    "text",
    [
        "redacted",
        "<Attacker source IP>",
        "...",
        "30.*.0.210",
        "253.252.51.07",  # leading zeros: octal or not, nobody can tell
        "192.0.2.01",
        "00.000.000.00",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "8.8.8.8/24",
        "8.8.8.8, 10.0.0.1",
        "8.8.8.8:",
        "8.8.8.8:123456",
        "[8.8.8.8",
        "٨.8.8.8",
        "amazonaws.com",
        "amazonaws.com.evil.example",
        "1:2:3",
    ],
)
def test_text_that_is_no_address_is_unparseable(text: str) -> None:
    found = locate(text)
    assert (found["geo_status"], found["network"]) == ("unparseable", None)


@pytest.mark.parametrize(
    "text",
    [
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "250.1.2.3",
        "255.255.255.255",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "::",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:10.1.2.3",
    ],
)
def test_addresses_no_host_on_the_internet_has_are_private(text: str) -> None:
    found = locate(text)
    assert (found["geo_status"], found["place"]) == ("private", "private")
    assert found["network"] is not None


# ---------------------------------------------------------------------------- what is an address


@pytest.mark.parametrize(
    "text",
    [
        "81.2.69.160",
        "  81.2.69.160 ",
        "81.2.69.160:443",
        "[81.2.69.160]:443",
        "::ffff:81.2.69.160",
        "::FFFF:81.2.69.160",
        "[::ffff:81.2.69.160]:443",
        "::ffff:5102:45a0",
    ],
)
def test_one_address_however_written_is_one_place(text: str, maxmind_file) -> None:
    assert locate(text, maxmind_file("GeoLite2-City-Test")) == {
        "geo_status": "city",
        "place": "city:2643743",
        "place_name": "London, GB",
        "city_name": "London",
        "city_geoname_id": 2643743,
        "region_iso_code": "ENG",
        "region_name": "England",
        "country_iso_code": "GB",
        "country_name": "United Kingdom",
        "latitude": 51.5142,
        "longitude": -0.0931,
        "accuracy_radius": 100,
        "time_zone": "Europe/London",
        "as_number": None,
        "as_organization": None,
        "network": "81.2.69.0/24",
    }


def test_a_country_alone_is_a_country_and_registration_is_no_location(maxmind_file) -> None:
    # In Bhutan, registered in Romania.
    found = locate("67.43.156.1", maxmind_file("GeoLite2-City-Test"))
    assert (found["geo_status"], found["place"]) == ("country", "country:BT")
    assert found["place_name"] == "Bhutan"


def test_names_are_kept_as_written_and_ipv6_is_placed(maxmind_file) -> None:
    database = maxmind_file("GeoIP2-City-Test")
    assert locate("89.160.20.112", database)["place_name"] == "Linköping, SE"
    found = locate("2001:480:10::1", database)
    assert (found["place_name"], found["network"]) == ("San Diego, US", "2001:480:10::/48")


def test_a_continent_or_a_registration_alone_is_not_found(write_mmdb) -> None:
    database = write_mmdb(
        "GeoLite2-City",
        {
            "8.8.8.0/24": {"continent": {"code": "EU", "names": {"en": "Europe"}}},
            "9.9.9.0/24": {"registered_country": {"iso_code": "US", "names": {"en": "USA"}}},
        },
    )
    for address in ("8.8.8.8", "9.9.9.9", "1.1.1.1"):
        found = locate(address, database)
        assert (found["geo_status"], found["place"]) == ("not_found", "not_found")
        assert found["place_name"] == "not found"


def test_without_a_city_the_region_is_the_place(write_mmdb) -> None:
    country = {"iso_code": "US", "names": {"en": "United States"}}
    database = write_mmdb(
        "GeoLite2-City",
        {
            "8.8.8.0/24": {
                "country": country,
                "subdivisions": [
                    {"iso_code": "CA", "names": {"en": "California"}},
                    {"iso_code": "XX", "names": {"en": "a county"}},
                ],
            },
            "9.9.9.0/24": {"country": country, "subdivisions": [{"names": {"en": "Ohio"}}]},
        },
    )
    found = locate("8.8.8.8", database)
    assert (found["geo_status"], found["place"]) == ("region", "region:US-CA")
    assert (found["place_name"], found["region_iso_code"]) == ("California, US", "CA")
    assert locate("9.9.9.9", database)["place"] == "region:US-Ohio"


def test_without_ids_the_key_is_country_region_and_city(write_mmdb) -> None:
    def springfield(region: str, name: str) -> dict[str, Any]:
        return {
            "city": {"names": {"en": name}},
            "country": {"iso_code": "US", "names": {"en": "United States"}},
            "subdivisions": [{"names": {"en": region}}],
            "location": {"latitude": 39.8, "longitude": -89.6},
        }

    database = write_mmdb(
        "DBIP-City-Lite",
        {
            "8.8.8.0/25": springfield("Illinois", "Springfield"),
            "8.8.8.128/25": springfield("Illinois", "SPRINGFIELD"),
            "9.9.9.0/24": springfield("Missouri", "Springfield"),
        },
    )
    found = locate("8.8.8.8", database)
    assert (found["geo_status"], found["place"]) == ("city", "city:US/illinois/springfield")
    assert (found["city_geoname_id"], found["accuracy_radius"]) == (None, None)
    assert found["latitude"] == 39.8
    assert locate("8.8.8.200", database)["place"] == found["place"], "case makes no other city"
    assert locate("9.9.9.9", database)["place"] == "city:US/missouri/springfield"


def test_cities_of_one_name_are_kept_apart_and_a_nameless_one_is_a_city(write_mmdb) -> None:
    def city(geoname_id: int, names: dict[str, str]) -> dict[str, Any]:
        return {"city": {"geoname_id": geoname_id, "names": names}, "country": {"iso_code": "US"}}

    database = write_mmdb(
        "GeoLite2-City",
        {
            "8.8.8.0/25": city(4250542, {"en": "Springfield"}),
            "8.8.8.128/25": city(4409896, {"en": "Springfield"}),
            "9.9.9.0/24": city(7, {"de": "Neustadt"}),
        },
    )
    assert locate("8.8.8.8", database)["place"] == "city:4250542"
    assert locate("8.8.8.200", database)["place"] == "city:4409896"
    nameless = locate("9.9.9.9", database)
    assert (nameless["geo_status"], nameless["city_name"]) == ("city", None)
    assert nameless["place_name"] == "city 7, US"


def test_a_database_that_knows_a_reserved_address_is_believed(write_mmdb) -> None:
    record = {"country": {"iso_code": "PT", "names": {"en": "Portugal"}}}
    database = write_mmdb("GeoLite2-City", {"203.0.113.0/24": record})
    assert locate("203.0.113.9", database)["place"] == "country:PT"


def test_odd_values_are_left_out_and_names_stay_text(write_mmdb) -> None:
    odd_name = "'; DROP TABLE x -- <b>\n✈"
    database = write_mmdb(
        "GeoLite2-City",
        {
            "8.8.8.0/24": {
                "city": {"geoname_id": 5, "names": {"en": odd_name}},
                "country": {"iso_code": "", "names": {"en": "  "}},
                "location": {"latitude": 91.0, "longitude": -180.5, "accuracy_radius": 0},
            }
        },
    )
    found = locate("8.8.8.8", database)
    assert found["city_name"] == odd_name
    assert found["country_iso_code"] is found["country_name"] is None
    assert found["latitude"] is found["longitude"] is found["accuracy_radius"] is None


def test_a_database_for_ipv4_alone_does_not_find_ipv6(write_mmdb) -> None:
    record = {"country": {"iso_code": "PT"}}
    database = write_mmdb("GeoLite2-City", {"8.8.8.0/24": record}, ip_version=4)
    assert locate("8.8.8.8", database)["place"] == "country:PT"
    assert locate("2001:4860::1", database)["place_name"] == "not found"


def test_where_the_database_breaks_the_row_says_so(maxmind_file) -> None:
    found = locate("81.2.69.160", maxmind_file("GeoIP2-City-Test-Broken-Double-Format"))
    assert (found["geo_status"], found["place"]) == ("not_found", "not_found")
    assert "the city database is broken here" in found["place_name"]
    assert "81.2.69.160" in found["place_name"]
    assert found["network"] == "81.2.69.0/24"


def test_a_record_of_another_shape_is_said_and_not_raised(write_mmdb) -> None:
    database = write_mmdb("GeoLite2-City", {"8.8.8.0/24": {"city": "Lisbon", "country": 7}})
    found = locate("8.8.8.8", database)
    assert found["geo_status"] == "not_found"
    assert "broken here" in found["place_name"]


def test_the_network_is_the_as_where_the_database_knows_it(maxmind_file, write_mmdb) -> None:
    city, asn = maxmind_file("GeoLite2-City-Test"), maxmind_file("GeoLite2-ASN-Test")
    found = locate("1.128.0.1", city, asn)
    assert (found["as_number"], found["network"]) == (1221, "AS1221")
    assert found["as_organization"] == "Telstra Pty Ltd"
    assert locate("203.0.113.77", city, asn)["network"] == "203.0.113.0/24"
    assert locate("2001:db8:1:2::3", city, asn)["network"] == "2001:db8:1::/48"

    isp = write_mmdb("GeoIP2-ISP", {"8.8.8.0/24": {"autonomous_system_number": 15169}})
    assert locate("8.8.8.8", city, isp)["network"] == "AS15169"
    enterprise = write_mmdb(
        "GeoIP2-Enterprise",
        {"8.8.8.0/24": {"country": {"iso_code": "US"}, "traits": {"autonomous_system_number": 15}}},
    )
    found = locate("8.8.8.8", enterprise, enterprise)
    assert (found["place"], found["network"]) == ("country:US", "AS15")


@given(st.none() | st.text() | st.ip_addresses().map(str) | st.from_regex(r"[0-9a-f.:%\[\]]{1,40}"))
def test_any_text_gets_a_row_of_the_right_types(text: str | None) -> None:
    found = locate(text)
    assert found["geo_status"] in GEO_STATUSES
    prefix = {"city": "city:", "region": "region:", "country": "country:"}
    assert found["place"].startswith(prefix.get(found["geo_status"], found["geo_status"]))
    assert found["place_name"]
    types = {"string": str, "bigint": int, "int": int, "double": float}
    for column in PLACE_COLUMNS:
        value = found[column.name]
        assert value is None or type(value) is types[column.type]


@pytest.mark.parametrize(
    ("text", "key", "prefix"),
    [
        ("203.0.113.7", "4cb007107", "203.0.113.0/24"),
        (" 203.0.113.7:443 ", "4cb007107", "203.0.113.0/24"),
        ("::ffff:203.0.113.7", "4cb007107", "203.0.113.0/24"),
        ("2001:DB8:1:2::5", "620010db8000100020000000000000005", "2001:db8:1::/48"),
        ("[fe80::1%eth0]:443", "6fe800000000000000000000000000001", "fe80::/48"),
        *[(text, "", "") for text in (None, "", "AWS Internal", "ec2.amazonaws.com", "01.2.3.4", "1::2::3")],
    ],
)
def test_an_address_has_a_key_that_sorts_and_a_prefix(text: str | None, key: str, prefix: str) -> None:
    assert address_of(text) == (key, prefix)
    table = locate_table([text], EMBEDDED, None, EMBEDDED_BUILD, NOW)
    assert [table[name][0].as_py() for name in ("address_key", "prefix")] == [key, prefix]


# ------------------------------------------------------------------------------------- as a table


def test_locate_table_has_the_columns_of_places() -> None:
    table = locate_table(["85.240.1.1", None, "x"], EMBEDDED, None, EMBEDDED_BUILD, NOW)
    assert table.schema.equals(PLACES.arrow_schema())
    assert table["source_ip_address"].to_pylist() == ["85.240.1.1", None, "x"]
    assert table["geo_status"].to_pylist() == ["city", "missing", "unparseable"]
    assert table["country_iso_code"].to_pylist() == ["PT", None, None]
    assert set(table["geo_build"].to_pylist()) == {EMBEDDED_BUILD}
    assert set(table["located_at"].to_pylist()) == {NOW}
    assert locate_table([], EMBEDDED, None, EMBEDDED_BUILD, NOW).num_rows == 0


def test_another_build_than_the_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RaretrailError, match="has the databases GeoLite2-City@2019-12-24"):
        locate_table(["8.8.8.8"], EMBEDDED, None, "GeoLite2-City@2026-01-01", NOW)
    absent = str(tmp_path / "absent.mmdb")
    with pytest.raises(RaretrailError, match=re.escape(absent)):
        locate_table(["8.8.8.8"], absent, None, EMBEDDED_BUILD, NOW)
    with pytest.raises(ValueError, match="time zone"):
        locate_table([], EMBEDDED, None, EMBEDDED_BUILD, NOW.replace(tzinfo=None))


def test_a_replaced_file_is_opened_anew(write_mmdb) -> None:
    record = {"country": {"iso_code": "PT"}}
    path = str(write_mmdb("GeoLite2-City", {"8.8.8.0/24": record}))
    build = f"GeoLite2-City@{datetime.now(UTC):%Y-%m-%d}"
    first = locate_table(["8.8.8.8"], path, None, build, NOW)
    replacement = write_mmdb("DBIP-City-Lite", {"8.8.8.0/24": {"country": {"iso_code": "ES"}}})
    os.replace(replacement, path)
    build = build.replace("GeoLite2-City", "DBIP-City-Lite")
    second = locate_table(["8.8.8.8"], path, None, build, NOW)
    assert first["place"].to_pylist() == ["country:PT"]
    assert second["place"].to_pylist() == ["country:ES"]


@pytest.mark.integration
def test_to_places_gives_what_locate_table_gives(spark, maxmind_file) -> None:
    addresses = ["81.2.69.160", "1.128.0.1", "10.0.0.1", "x", None, "s3.amazonaws.com", "::1"]
    city, asn = (str(maxmind_file(f"GeoLite2-{kind}-Test")) for kind in ("City", "ASN"))
    build = "GeoLite2-City@2026-02-04+GeoLite2-ASN@2026-02-04"
    frame = spark.createDataFrame([(a,) for a in addresses], "source_ip_address string")

    places = to_places(frame, city, asn, build, NOW)
    assert places.columns == PLACES.column_names
    assert places.schema == PLACES.spark_schema()
    expected = locate_table(addresses, city, asn, build, NOW)
    got = places.toArrow().cast(expected.schema)
    assert got.sort_by("source_ip_address") == expected.sort_by("source_ip_address")

    # The embedded file is found by the workers themselves; an empty frame has no rows.
    embedded = to_places(frame.limit(1), EMBEDDED, None, EMBEDDED_BUILD, NOW, partitions=2)
    assert [row.place_name for row in embedded.collect()] == ["Gamlingay, GB"]
