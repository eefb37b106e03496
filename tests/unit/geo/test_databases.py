from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from raretrail.errors import UsageError
from raretrail.geo.databases import (
    EMBEDDED,
    geo_build,
    local_path,
    old_databases_warning,
    resolve_asn_database,
    resolve_city_database,
)

LISBON = {
    "city": {"geoname_id": 2267057, "names": {"en": "Lisbon"}},
    "country": {"iso_code": "PT", "names": {"en": "Portugal"}},
}
NET = "203.0.113.0/24"


def test_the_embedded_database_is_the_one_of_2019() -> None:
    database = resolve_city_database(None)
    assert database == resolve_city_database(EMBEDDED)
    assert database.build == "GeoLite2-City@2019-12-24"
    assert database.embedded and database.worker_path == EMBEDDED
    assert database.built_at == datetime(2019, 12, 24, 17, 41, 41, tzinfo=UTC)
    assert "GeoLite2 data created by MaxMind" in database.attribution
    assert database.attribution.endswith("(CC BY-SA 4.0)")


def test_finding_the_embedded_database_runs_none_of_its_packages_code() -> None:
    code = (
        "import sys; from raretrail.geo.databases import local_path; local_path('embedded');"
        "sys.exit(any('geoip_geolite2' in name for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_named_file_is_known_by_its_absolute_path(write_mmdb, monkeypatch) -> None:
    path = write_mmdb("GeoIP2-City", {NET: LISBON})
    monkeypatch.chdir(path.parent)
    for name in (path.name, str(path), f"file://{path}"):
        database = resolve_city_database(name)
        assert database.path == database.worker_path == str(path)
        assert not database.embedded
        assert local_path(database.worker_path) == str(path)


@pytest.mark.parametrize(
    ("database_type", "attribution"),
    [
        ("GeoLite2-City", "GeoLite2 data created by MaxMind"),
        ("GeoIP2-City-Europe", "GeoIP2 data by MaxMind"),
        ("GeoIP2-Enterprise", "GeoIP2 data by MaxMind"),
        ("DBIP-City-Lite", "IP Geolocation by DB-IP"),
        ("DBIP-Location (compat=City)", "IP Geolocation by DB-IP"),
        ("My-City", ""),
    ],
)
def test_any_database_with_cities_will_do(write_mmdb, database_type: str, attribution: str) -> None:
    database = resolve_city_database(str(write_mmdb(database_type, {NET: LISBON})))
    assert database.database_type == database_type
    assert attribution in database.attribution
    assert bool(database.attribution) == bool(attribution)


@pytest.mark.parametrize(
    ("database_type", "attribution"),
    [
        ("GeoLite2-ASN", "MaxMind"),
        ("GeoIP2-ISP", "MaxMind"),
        ("DBIP-ASN-Lite (compat=GeoLite2-ASN)", "DB-IP"),
    ],
)
def test_any_database_with_as_numbers_will_do(write_mmdb, database_type, attribution) -> None:
    record = {"autonomous_system_number": 64500, "autonomous_system_organization": "Example"}
    database = resolve_asn_database(str(write_mmdb(database_type, {NET: record})))
    assert database is not None
    assert database.database_type == database_type
    assert attribution in database.attribution


def test_there_is_no_asn_database_unless_named() -> None:
    assert resolve_asn_database(None) is None


@pytest.mark.parametrize(
    ("resolve", "database_type", "said"),
    [
        (resolve_city_database, "GeoLite2-Country", "is a GeoLite2-Country database"),
        (resolve_city_database, "GeoLite2-ASN", "is a GeoLite2-ASN database"),
        (resolve_asn_database, "GeoLite2-City", "is a GeoLite2-City database"),
        (resolve_asn_database, "GeoLite2-Country", "is a GeoLite2-Country database"),
    ],
)
def test_the_wrong_kind_is_refused_by_name(write_mmdb, resolve, database_type, said) -> None:
    path = write_mmdb(database_type, {NET: LISBON})
    with pytest.raises(UsageError, match=said) as caught:
        resolve(str(path))
    assert_one_helpful_line(caught.value, path)


@pytest.mark.parametrize(
    "name", ["GeoIP2-City-Test-Broken-Double-Format", "GeoIP2-City-Test-Invalid-Node-Count"]
)
def test_maxminds_broken_files_are_refused(maxmind_file, name: str) -> None:
    path = maxmind_file(name)
    with pytest.raises(UsageError, match="is broken, cut short") as caught:
        resolve_city_database(str(path))
    assert_one_helpful_line(caught.value, path)


def test_a_file_cut_short_is_refused(write_mmdb) -> None:
    path = write_mmdb("GeoLite2-City", {NET: LISBON})
    content = path.read_bytes()
    for kept in (0, 1, len(content) // 3, len(content) * 9 // 10, len(content) - 1):
        path.write_bytes(content[:kept])
        with pytest.raises(UsageError, match="is broken, cut short") as caught:
            resolve_city_database(str(path))
        assert_one_helpful_line(caught.value, path)


def test_a_file_whose_tree_was_lost_is_refused_and_does_not_crash(maxmind_file, tmp_path) -> None:
    # The C extension ends the process with a segmentation fault on some of these.
    content = maxmind_file("GeoLite2-City-Test").read_bytes()
    path = tmp_path / "shifted.mmdb"
    path.write_bytes(content[5000:])
    with pytest.raises(UsageError, match="is broken, cut short"):
        resolve_city_database(str(path))


def test_other_files_missing_files_folders_and_uris_are_refused(tmp_path) -> None:
    text = tmp_path / "notes.mmdb"
    text.write_text("not a database\n" * 1000)
    cases = {
        str(text): "is broken, cut short or no MaxMind database",
        str(tmp_path / "absent.mmdb"): "no such file",
        str(tmp_path): "is not a file",
        "s3://bucket/city.mmdb": "from a local path, not from a URI",
    }
    for path, said in cases.items():
        with pytest.raises(UsageError, match=said) as caught:
            resolve_city_database(path)
        assert_one_helpful_line(caught.value, path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_refused(write_mmdb) -> None:
    path = write_mmdb("GeoLite2-City", {NET: LISBON})
    path.chmod(0)
    with pytest.raises(UsageError, match="permission denied"):
        resolve_city_database(str(path))


def test_the_build_names_both_databases(maxmind_file) -> None:
    city = resolve_city_database(str(maxmind_file("GeoLite2-City-Test")))
    asn = resolve_asn_database(str(maxmind_file("GeoLite2-ASN-Test")))
    assert geo_build(city, None) == "GeoLite2-City@2026-02-04"
    assert geo_build(city, asn) == "GeoLite2-City@2026-02-04+GeoLite2-ASN@2026-02-04"


def test_age_is_said_only_beyond_180_days(write_mmdb) -> None:
    city = resolve_city_database(str(write_mmdb("GeoLite2-City", {NET: LISBON})))
    asn = resolve_asn_database(str(write_mmdb("GeoLite2-ASN", {NET: {}})))
    assert city.age_days(city.built_at - timedelta(days=3)) == 0
    assert old_databases_warning(city, asn, city.built_at + timedelta(days=180)) is None

    said = old_databases_warning(city, asn, city.built_at + timedelta(days=182))
    assert said is not None
    assert city.build in said and asn.build in said
    assert "--city-db and --asn-db" in said and "(182 days old)" in said

    said = old_databases_warning(resolve_city_database(None), asn, asn.built_at)
    assert said is not None
    assert "GeoLite2-City@2019-12-24" in said and "GeoLite2-ASN" not in said
    assert said.endswith("give a newer file with --city-db.")


def assert_one_helpful_line(error: UsageError, path: object) -> None:
    message = str(error)
    assert message.startswith(("--city-db", "--asn-db")), "names the option"
    assert str(path) in message, "names the file"
    assert "\n" not in message
    assert ";" in message, "says what to do"
