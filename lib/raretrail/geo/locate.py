"""From a source address to a place: one row of `PLACE_COLUMNS` for any text CloudTrail may write.

Distinct addresses are looked up in Spark's Python workers, where each process opens the database
files once. Nothing here raises for an address; only for a database.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geoip2.database
from geoip2.errors import AddressNotFoundError

from raretrail.errors import RaretrailError
from raretrail.geo.addresses import Address, key_of
from raretrail.geo.databases import BROKEN, build_name, local_path
from raretrail.tables import EVENTS, PLACE_COLUMNS, PLACES

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

Place = tuple[
    str,  # geo_status
    str,  # place
    str,  # place_name
    str | None,  # city_name
    int | None,  # city_geoname_id
    str | None,  # region_iso_code
    str | None,  # region_name
    str | None,  # country_iso_code
    str | None,  # country_name
    float | None,  # latitude
    float | None,  # longitude
    int | None,  # accuracy_radius
    str | None,  # time_zone
    int | None,  # as_number
    str | None,  # as_organization
    str | None,  # network
]
"""One address's values in the order of `PLACE_COLUMNS`."""

_STATUS_NAMES = {
    "not_found": "not found",
    "private": "private",
    "vpc_endpoint": "VPC endpoint",
    "aws_service": "AWS service",
    "aws_internal": "AWS internal",
    "unparseable": "unparseable",
    "missing": "missing",
}

_AWS_INTERNAL = re.compile(r"aws internal(/.*)?|(.+\.)?aws\.internal", re.IGNORECASE)
_VPC_ENDPOINT = re.compile(r"vpce-[0-9a-z][0-9a-z.-]*", re.IGNORECASE)
# Service names of the commercial, China, ISO and European sovereign partitions.
_AWS_SERVICE = re.compile(
    r"([a-z0-9_-]+\.)+(amazonaws\.com(\.cn)?|amazonaws\.eu|amazon\.com|api\.aws|c2s\.ic\.gov"
    r"|sc2s\.sgov\.gov)",
    re.IGNORECASE,
)
_WITH_PORT = re.compile(r"(\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}")
_BRACKETED = re.compile(r"\[([^\]]*)\](?::\d{1,5})?")
_ZONE = re.compile(r"%[^%]*$")


def place_of(
    address: str | None,
    city_reader: geoip2.database.Reader,
    asn_reader: geoip2.database.Reader | None = None,
) -> Place:
    """Where `address` is, in the order of `PLACE_COLUMNS`.

    Text that is no address, and an address the databases do not know, get the status that says so;
    where a database breaks at this address, `place_name` says that. Never raises.
    """
    text = address.strip() if address else ""
    if not text:
        return _nowhere("missing")
    if _AWS_INTERNAL.fullmatch(text):
        return _nowhere("aws_internal")
    if _VPC_ENDPOINT.fullmatch(text):
        return _nowhere("vpc_endpoint")
    if _AWS_SERVICE.fullmatch(text):
        return _nowhere("aws_service")
    parsed = _parse(text)
    if parsed is None:
        return _nowhere("unparseable")

    as_number, as_organization = _autonomous_system(parsed, asn_reader)
    network = _block(parsed) if as_number is None else f"AS{as_number}"
    tail = (as_number, as_organization, network)
    try:
        found = _city(parsed, city_reader)
    except BROKEN as error:
        said = f"not found: the city database is broken here ({' '.join(str(error).split())})"
        return _nowhere("not_found", said, tail)
    if found is not None:
        return (*found, *tail)
    # Only now: a database may know an address that the standards set aside, and then it is right.
    return _nowhere("not_found" if _is_public(parsed) else "private", None, tail)


def address_of(text: str | None) -> tuple[str, str]:
    """(address_key, prefix) of an address as CloudTrail wrote it; empty for what is none."""
    parsed = _parse(text.strip()) if text else None
    return (key_of(parsed), _block(parsed)) if parsed is not None else ("", "")


def to_places(
    addresses: DataFrame,
    city_path: str,
    asn_path: str | None,
    geo_build: str,
    located_at: datetime,
    partitions: int | None = None,
) -> DataFrame:
    """Look up distinct addresses in the workers.

    `addresses` has a column `source_ip_address` without repetitions; one row each comes out, with
    the columns of `PLACES`. `city_path` and `asn_path` are `GeoDatabase.worker_path`. Where there
    are hundreds of thousands of addresses give `partitions`, else Spark may put them into one.
    `located_at` must be aware. The job fails if a worker lacks a database or has another build.
    """
    _require_aware(located_at)
    distinct = addresses.select("source_ip_address")
    if partitions is not None:
        distinct = distinct.repartition(partitions, "source_ip_address")

    def look_up(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            table = _located(batch.column(0).to_pylist(), city_path, asn_path, geo_build, located_at)
            yield from table.to_batches()

    return distinct.mapInArrow(look_up, PLACES.spark_schema())


def locate_table(
    addresses: list[str | None],
    city_path: str,
    asn_path: str | None,
    geo_build: str,
    located_at: datetime,
) -> pa.Table:
    """What `to_places` does, in this process: one row of `PLACES` for each of `addresses`.

    Raises RaretrailError if a database cannot be read or is another build than `geo_build` says.
    """
    _require_aware(located_at)
    return _located(addresses, city_path, asn_path, geo_build, located_at)


def to_located(
    city_path: str, asn_path: str | None, geo_build: str, run_id: str, now: datetime, decoded: pa.RecordBatch
) -> pa.Table:
    """DECODED_COLUMNS as rows of EVENTS, taken in by a run at a time.

    Raises RaretrailError as `locate_table` does.
    """
    import pyarrow as pa

    address = decoded.column(decoded.schema.get_field_index("source_ip_address"))
    columns = dict(zip(decoded.schema.names, decoded.columns, strict=True))
    names = [column.name for column in PLACE_COLUMNS]
    columns |= zip(names, place_columns(address, city_path, asn_path, geo_build), strict=True)
    schema = EVENTS.arrow_schema()
    for name, value in (("geo_build", geo_build), ("run_id", run_id), ("ingested_at", now)):
        columns[name] = pa.repeat(pa.scalar(value, schema.field(name).type), decoded.num_rows)
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def place_columns(
    addresses: pa.Array, city_path: str, asn_path: str | None, geo_build: str
) -> list[pa.Array]:
    """Where addresses are: an array for each of `PLACE_COLUMNS`, aligned with `addresses`.

    Raises RaretrailError as `locate_table` does.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded = pc.dictionary_encode(pc.fill_null(addresses, ""))
    readers = _checked_readers(city_path, asn_path, geo_build)
    places = [_place_again(address, *readers) for address in encoded.dictionary.to_pylist()]
    types = PLACES.arrow_schema()
    return [
        pa.array([place[at] for place in places], types.field(column.name).type).take(encoded.indices)
        for at, column in enumerate(PLACE_COLUMNS)
    ]


_place_again = lru_cache(maxsize=100_000)(place_of)


def _checked_readers(
    city_path: str, asn_path: str | None, geo_build: str
) -> tuple[geoip2.database.Reader, geoip2.database.Reader | None]:
    """The databases, which must be those the run was started with."""
    city_reader = _reader(city_path)
    asn_reader = _reader(asn_path) if asn_path is not None else None
    here = "+".join(_build(reader) for reader in (city_reader, asn_reader) if reader is not None)
    if here != geo_build:
        raise RaretrailError(
            f"this worker has the databases {here}, the run was started with {geo_build}: "
            "give every machine the same files"
        )
    return city_reader, asn_reader


def _located(
    addresses: list[str | None],
    city_path: str,
    asn_path: str | None,
    geo_build: str,
    located_at: datetime,
) -> pa.Table:
    import pyarrow as pa

    city_reader, asn_reader = _checked_readers(city_path, asn_path, geo_build)
    places = [(*place_of(address, city_reader, asn_reader), *address_of(address)) for address in addresses]
    columns: list[Any] = list(zip(*places, strict=True)) or [()] * (len(PLACE_COLUMNS) + 2)
    rows = len(addresses)
    values = [addresses, [geo_build] * rows, *columns, [located_at] * rows]
    schema = PLACES.arrow_schema()
    return pa.table(
        [pa.array(value, type=field.type) for value, field in zip(values, schema, strict=True)],
        schema=schema,
    )


def _reader(worker_path: str) -> geoip2.database.Reader:
    path = local_path(worker_path)
    try:
        stat = Path(path).stat()
        return _open_reader(path, stat.st_mtime_ns, stat.st_size)
    except BROKEN as error:
        raise RaretrailError(
            f"the database {path} cannot be read on this machine ({error}): put it where every "
            "worker sees it under this path, or use the embedded one"
        ) from error


# By time and size as well: a resident process must notice that the file was replaced.
# Opened in the process that uses it, never before a fork: a reader cannot be pickled or shared.
@lru_cache(maxsize=4)
def _open_reader(path: str, mtime_ns: int, size: int) -> geoip2.database.Reader:
    return geoip2.database.Reader(path, locales=["en"])


def _build(reader: geoip2.database.Reader) -> str:
    metadata = reader.metadata()
    return build_name(metadata.database_type, datetime.fromtimestamp(metadata.build_epoch, UTC))


def _require_aware(located_at: datetime) -> None:
    if located_at.tzinfo is None:
        raise ValueError("located_at must have a time zone")


def _parse(text: str) -> Address | None:
    """The address in `text`, without port, brackets, zone and IPv4 mapping; None if there is none.

    Octets with leading zeros are refused: whether they are octal is anybody's guess.
    """
    if match := _WITH_PORT.fullmatch(text) or _BRACKETED.fullmatch(text):
        text = match[1]
    try:
        parsed = ipaddress.ip_address(_ZONE.sub("", text.strip()))
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


def _is_public(address: Address) -> bool:
    return address.is_global and not address.is_multicast


def _block(address: Address) -> str:
    prefix = 24 if address.version == 4 else 48
    return str(ipaddress.ip_network((address, prefix), strict=False))


def _city(address: Address, reader: geoip2.database.Reader) -> tuple[Any, ...] | None:
    """The columns from geo_status to time_zone, or None where the database names no country.

    The country of registration is no location and is not looked at.
    """
    record = _record(address, reader)
    if record is None:
        return None
    country_iso, country = _text(record.country.iso_code), _text(record.country.name)
    region = record.subdivisions[0] if record.subdivisions else None
    region_iso = _text(region.iso_code) if region else None
    region_name = _text(region.name) if region else None
    city, city_id = _text(record.city.name), _whole(record.city.geoname_id, 2**63 - 1)
    region_key, region_shown = region_iso or region_name, region_name or region_iso
    country_key = country_iso or country

    if city is not None or city_id is not None:
        status = "city"
        if city_id is not None:
            place = f"city:{city_id}"
        else:
            key = f"{(region_key or '').casefold()}/{(city or '').casefold()}"
            place = f"city:{country_key or ''}/{key}"
        name = ", ".join(part for part in (city or f"city {city_id}", country_key) if part)
    elif region_key is not None and country_key is not None:
        status, place = "region", f"region:{country_key}-{region_key}"
        name = f"{region_shown}, {country_key}"
    elif country_key is not None:
        status, place, name = "country", f"country:{country_key}", country or country_key
    else:
        return None
    location = record.location
    return (
        status,
        place,
        name,
        city,
        city_id,
        region_iso,
        region_name,
        country_iso,
        country,
        _degrees(location.latitude, 90.0),
        _degrees(location.longitude, 180.0),
        _whole(location.accuracy_radius, 2**31 - 1),
        _text(location.time_zone),
    )


def _autonomous_system(
    address: Address, reader: geoip2.database.Reader | None
) -> tuple[int | None, str | None]:
    try:
        record = _record(address, reader) if reader is not None else None
    except BROKEN:
        return None, None
    if record is None:
        return None, None
    # An Enterprise database keeps them among the traits.
    record = getattr(record, "traits", record)
    return (
        _whole(record.autonomous_system_number, 2**32 - 1),
        _text(record.autonomous_system_organization),
    )


def _record(address: Address, reader: geoip2.database.Reader) -> Any:
    """What the database has on the address as geoip2's model; None for nothing."""
    look_up, only_ipv4 = _look_up(reader)
    if only_ipv4 and address.version == 6:
        return None
    try:
        return look_up(address)
    except AddressNotFoundError:
        return None


@lru_cache(maxsize=8)
def _look_up(reader: geoip2.database.Reader) -> tuple[Callable[[Address], Any], bool]:
    """The method for this type of database, and whether the database is for IPv4 only."""
    metadata = reader.metadata()
    methods = {
        "Enterprise": reader.enterprise,
        "City": reader.city,
        "GeoLite2-ASN": reader.asn,
        "ISP": reader.isp,
    }
    look_up = next(m for part, m in methods.items() if part in metadata.database_type)
    return look_up, metadata.ip_version == 4


def _nowhere(
    status: str,
    name: str | None = None,
    tail: tuple[int | None, str | None, str | None] = (None, None, None),
) -> Place:
    empty = (None,) * 10
    return (status, status, name or _STATUS_NAMES[status], *empty, *tail)


def _text(value: object) -> str | None:
    """`value` as text without blanks around it; None where nothing is left."""
    text = str(value).strip() if value is not None else ""
    return text or None


def _degrees(value: object, bound: float) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) <= bound else None


def _whole(value: object, bound: int) -> int | None:
    return value if isinstance(value, int) and 0 < value <= bound else None
