"""Locating: every address a run meets has a row in `places`, by the databases of that run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from raretrail.geo import databases
from raretrail.geo.locate import locate_table, to_places
from raretrail.settings import GeoSettings
from raretrail.tables import PLACES
from raretrail.warehouse import Warehouse

# Up to so many new addresses are looked up here, where the reader is open already, rather than in a
# worker that would have to be started.
_FEW = 5000


@dataclass(frozen=True)
class Geo:
    """The databases of a run: where workers find them, their build, what to say of them."""

    city: databases.GeoDatabase
    asn: databases.GeoDatabase | None

    @property
    def build(self) -> str:
        """`geo_build` of everything placed by them."""
        return databases.geo_build(self.city, self.asn)

    @property
    def attribution(self) -> str:
        """What their licences ask to print."""
        return self.city.attribution


def open_geo(settings: GeoSettings) -> Geo:
    """The databases the settings name; UsageError when they cannot serve."""
    return Geo(
        databases.resolve_city_database(settings.city_db),
        databases.resolve_asn_database(settings.asn_db),
    )


def ensure_places(warehouse: Warehouse, addresses: DataFrame, geo: Geo, now: datetime) -> int:
    """Look up those of addresses (source_ip_address, '' where missing) that `places` lacks in this
    build, and add them; how many there were."""
    known = warehouse.read(PLACES).where(F.col("geo_build") == geo.build)
    missing = addresses.select("source_ip_address").distinct().join(known, "source_ip_address", "left_anti")
    few = [row.source_ip_address for row in missing.limit(_FEW + 1).collect()]
    if not few:
        return 0
    asn = geo.asn.worker_path if geo.asn else None
    if len(few) <= _FEW:
        table = locate_table(sorted(few), geo.city.worker_path, asn, geo.build, now)
        warehouse.append(PLACES, warehouse.spark.createDataFrame(table), few=True)
        return len(few)
    many = missing.count()
    partitions = 1 + many // 100_000
    warehouse.append(PLACES, to_places(missing, geo.city.worker_path, asn, geo.build, now, partitions))
    return many


def places_of(warehouse: Warehouse, build: str, addresses: DataFrame | None = None) -> DataFrame:
    """`places` of one build, one row an address; only of addresses (source_ip_address), few of them, where
    given."""

    def placed(rows: DataFrame) -> DataFrame:
        return rows.where(F.col("geo_build") == build).dropDuplicates(["source_ip_address"])

    if addresses is None:
        return warehouse.kept(PLACES, f"places of {build}", placed)
    wanted = F.broadcast(addresses.select("source_ip_address").distinct())
    return placed(warehouse.read(PLACES).join(wanted, "source_ip_address", "left_semi"))
