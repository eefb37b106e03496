"""A small warehouse as an earlier version left it, and how each is made.

    PYTHONPATH=lib:tests python tests/old_warehouse.py

plays twelve days of three people and a stolen key, has a verdict and a change window said of it, runs
once more, and packs the tables into tests/fixtures/warehouse-v<schema version>.tar.xz. The rows are the
same each time but for ids of runs and of what was said. An archive of a version is made once, by the last
program of that version, and never again.
"""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factories import call, trail_file
from raretrail import tables

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FIXTURES = Path(__file__).resolve().parent / "fixtures"
ARCHIVES = sorted(FIXTURES.glob("warehouse-v*.tar.xz"))

AMSTERDAM, MILAN, BILBAO = "87.210.98.182", "95.251.251.132", "212.142.174.158"
HOMES = {"ana": AMSTERDAM, "ben": AMSTERDAM, "carla": MILAN}
FIRST, JUDGED = date(2026, 1, 1), date(2026, 1, 13)
# Where the trail lies while it is read: its path stands in the tables.
_AT = Path("/tmp/raretrail-fixture")


def at(day: date, hour: int = 12, minute: int = 0) -> datetime:
    """A time of a day, UTC."""
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)


def deliver(trail: Path, day: date, name: str, records: list[dict[str, Any]]) -> Path:
    """Lay a file of records into a day's folder of a trail."""
    folder = trail / f"AWSLogs/111122223333/CloudTrail/eu-west-1/{day:%Y/%m/%d}"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"111122223333_CloudTrail_eu-west-1_{day:%Y%m%d}T1205Z_{name:>016}.json.gz"
    file.write_bytes(trail_file(records))
    return file


def workday(day: date) -> list[dict[str, Any]]:
    """What the three do on a day: three commands each, one refused."""
    refused = {"errorCode": "AccessDenied", "errorMessage": "not authorized"}
    return [
        _call(user, command, address, at(day, minute=n), **(refused if command == "iam:ListUsers" else {}))
        for n, (user, address) in enumerate(HOMES.items())
        for command in ("ec2:DescribeInstances", "s3:ListBuckets", "iam:ListUsers")
    ]


def theft(day: date, user: str = "ana") -> list[dict[str, Any]]:
    """A key used from Bilbao two hours later."""
    commands = ("iam:CreateAccessKey", "sts:GetCallerIdentity")
    return [_call(user, name, BILBAO, at(day, 14, n)) for n, name in enumerate(commands)]


def _call(user: str, command: str, address: str, when: datetime, **more: Any) -> dict[str, Any]:
    """A record whose id says what it is, so that it is the same whenever it is made."""
    return call(user, command, address, when, eventID=f"{when:%Y%m%d%H%M}-{user}-{command}", **more)


def make(spark: SparkSession, trail: Path, where: Path) -> None:
    """The trail, and the warehouse that today's program makes of it."""
    from raretrail.settings import load_settings
    from raretrail.stages.run import run
    from raretrail.verdicts import made, write

    for n in range((JUDGED - FIRST).days + 1):
        day = FIRST + timedelta(days=n)
        records = workday(day) + (theft(day) if day == JUDGED else [])
        deliver(trail, day, "a", records)
        if n == 3:
            deliver(trail, day, "b", records[:2])
    deliver(trail, JUDGED, "c", [])
    deliver(trail, JUDGED, "d", [_call("ben", "s3:ListBuckets", AMSTERDAM, at(JUDGED), eventTime="soon")])
    settings, _ = load_settings(options={"trail": [str(trail)], "warehouse": str(where)})
    night = at(JUDGED, 23)
    span = (at(JUDGED, 0), at(JUDGED + timedelta(days=1), 0))
    run(spark, settings, as_of=night, span=span, clock=lambda: night)
    run(spark, settings, as_of=night + timedelta(hours=2), clock=lambda: night + timedelta(hours=2))
    said = night + timedelta(hours=3)
    incidents = spark.read.format("delta").load(str(where / "incidents")).orderBy("bits").collect()
    verdict = {"incident_id": incidents[-1].incident_id, "verdict": "malicious", "reason": "a stolen key"}
    write(where, tables.DISPOSITIONS, [made(tables.DISPOSITIONS, "kim", said, verdict)])
    window = {"command": "ec2:RunInstances", "starts_at": said, "ends_at": said + timedelta(days=1)}
    window["reason"] = "a migration"
    write(where, tables.CHANGE_WINDOWS, [made(tables.CHANGE_WINDOWS, "kim", said, window)])
    run(spark, settings, as_of=night + timedelta(hours=4), clock=lambda: night + timedelta(hours=4))


def pack(where: Path, archive: Path) -> None:
    """The tables' files but scratch and Hadoop's checksums, in an archive without times and owners."""
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for path in sorted(where.rglob("*")):
            relative = path.relative_to(where)
            if not path.is_file() or relative.parts[0].startswith(("staged_", "_")) or path.suffix == ".crc":
                continue
            entry = tarfile.TarInfo(relative.as_posix())
            entry.size = path.stat().st_size
            packed.addfile(entry, io.BytesIO(path.read_bytes()))


def unpack(archive: Path, where: Path) -> Path:
    """The warehouse of an archive, in a folder that is not there yet."""
    with tarfile.open(archive) as packed:
        packed.extractall(where, filter="data")
    return where


def main() -> int:
    """Make this version's archive; 1 where there is one."""
    from raretrail.session import close_session, open_session

    archive = FIXTURES / f"warehouse-v{tables.SCHEMA_VERSION}.tar.xz"
    if archive.exists() or _AT.exists():
        sys.stderr.write(f"{archive if archive.exists() else _AT} is there already\n")
        return 1
    FIXTURES.mkdir(exist_ok=True)
    spark = open_session()
    try:
        make(spark, _AT / "trail", _AT / "warehouse")
    finally:
        close_session(spark)
    pack(_AT / "warehouse", archive)
    shutil.rmtree(_AT)
    sys.stdout.write(f"{archive}: {archive.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
