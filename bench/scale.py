"""What a run costs where an organisation is large: its metadata built for real and queried as the job does.

    .venv/bin/python bench/scale.py [--places N] [--files N] [--presence N] [--into docs/scale.md]
    .venv/bin/python bench/scale.py --arithmetic --into docs/scale.md

Builds `places`, `ingest_files`, `presence_daily` and `baseline_presence` of the given sizes under
.cache/scale (DuckDB writes the Parquet files, delta-rs one commit a table), then times what the job asks of
them. Nothing else should run beside it. The tables of the manual beyond what is measured are arithmetic over
these measurements and `bench/prices.yml`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "tools")]

from figures import put  # noqa: E402

FIRST = date(2026, 1, 1)
DAYS = 90
AS_OF = FIRST + timedelta(days=DAYS)
BUILD = "GeoLite2-City@20191224"
# Batches hold so many addresses; nine in ten are known already.
ADDRESSES = 100_000


def log(text: str) -> None:
    print(text, flush=True)


# ------------------------------------------------------------------------------------------ building


def build(folder: Path, places: int, files: int, presence: int) -> dict[str, Any]:
    """The tables, unless they are there in these sizes; rows, files, bytes and seconds of each."""
    stamp = folder / "built.json"
    wanted = {"places": places, "ingest_files": files, "presence_daily": presence}
    if stamp.is_file():
        held = json.loads(stamp.read_text())
        if held["wanted"] == wanted:
            made: dict[str, Any] = held["made"]
            return made
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    a_day, files_a_day = presence // DAYS, files // (DAYS * 4)
    keys = a_day * 3
    address = "concat_ws('.', 1 + {0} % 223, ({0} // 223) % 256, ({0} // 57088) % 256, hash({0}) % 256)"
    who = """lpad(((k % 997) * 1000003 % 1000000000000)::VARCHAR, 12, '0') AS recipient_account_id,
        'arn:aws:iam::' || (k % 997) || ':role/role-' || (k % 20011) AS principal,
        CASE k % 3 WHEN 0 THEN 'person' WHEN 1 THEN 'role' ELSE 'service' END AS principal_kind,
        'role-' || (k % 20011) AS actor,
        'service' || (k % 101) || ':Action' || (k % 1013) AS command,
        """ + address.format(f"(k * 7919 % {places})") + """ AS source_ip_address,
        CASE WHEN k % 17 = 0 THEN 'AccessDenied' ELSE '' END AS outcome"""  # fmt: skip
    day_of = "DATE '{}'".format
    made = {}
    made["places"] = _table(
        folder / "places",
        [
            ("", f"""SELECT {address.format("i")} AS source_ip_address, '{BUILD}' AS geo_build,
                'city' AS geo_status, 'city:' || (i % 40009) AS place, 'City ' || (i % 40009) AS place_name,
                'City ' || (i % 40009) AS city_name, (i % 40009)::BIGINT AS city_geoname_id,
                'R' || (i % 997) AS region_iso_code, 'Region ' || (i % 997) AS region_name,
                chr((65 + i % 26)::INT) || 'X' AS country_iso_code, 'Country ' || (i % 26) AS country_name,
                (i % 180 - 90)::DOUBLE AS latitude, (i % 360 - 180)::DOUBLE AS longitude,
                5::INT AS accuracy_radius, 'Etc/UTC' AS time_zone, (i % 70000)::BIGINT AS as_number,
                'Network ' || (i % 70000) AS as_organization, 'AS' || (i % 70000) AS network,
                {address.format("i")} AS address_key, 'prefix:' || (i // 256) AS prefix,
                TIMESTAMPTZ '2026-01-01 00:00:00+00' AS located_at
                FROM range({lo}, {hi}) t(i)""")
            for lo, hi in _shares(places, 2_000_000)
        ],
        None,
    )  # fmt: skip
    made["ingest_files"] = _table(
        folder / "ingest_files",
        [
            (f"file_date={FIRST - timedelta(days=3 * DAYS) + timedelta(days=d)}", f"""SELECT
                {_file_sql(FIRST - timedelta(days=3 * DAYS) + timedelta(days=d))} AS source_file,
                md5((i + {d * files_a_day})::VARCHAR) AS content_hash,
                {day_of(FIRST - timedelta(days=3 * DAYS) + timedelta(days=d))} AS file_date,
                1000 + i % 9000 AS bytes, TIMESTAMPTZ '2026-01-01 00:00:00+00' AS modified_at,
                'taken' AS status, 'records' AS shape, i % 50 AS records, i % 50 AS events,
                0::BIGINT AS duplicates, 0::BIGINT AS quarantined, NULL::VARCHAR AS detail,
                'run-' || ({d} * 96 + i % 96) AS run_id, TIMESTAMPTZ '2026-01-01 00:00:00+00' AS ingested_at
                FROM range({files_a_day}) t(i)""")
            for d in range(DAYS * 4)
        ],
        "file_date",
    )  # fmt: skip
    made["presence_daily"] = _table(
        folder / "presence_daily",
        [
            (f"event_date={FIRST + timedelta(days=d)}", f"""SELECT {day_of(FIRST + timedelta(days=d))}
                AS event_date, {who}, 1 + k % 40 AS event_count,
                TIMESTAMPTZ '2026-01-01 00:00:00+00' AS first_time,
                TIMESTAMPTZ '2026-01-01 12:00:00+00' AS last_time, (k % 16777216)::INT AS hours
                FROM (SELECT (i * 3 + hash(i * 131 + {d}) % 3)::BIGINT AS k FROM range({a_day}) t(i))""")
            for d in range(DAYS)
        ],
        "event_date",
    )  # fmt: skip
    made["baseline_presence"] = _table(
        folder / "baseline_presence",
        [
            (f"as_of={AS_OF - timedelta(days=1)}", f"""SELECT
                {day_of(AS_OF - timedelta(days=1))} AS as_of, {who},
                (hash(k) % 35184372088832)::BIGINT AS seen_low,
                (hash(k + 1) % 35184372088832)::BIGINT AS seen_high
                FROM (SELECT i AS k FROM range({lo}, {hi}) t(i))""")
            for lo, hi in _shares(keys, 2_000_000)
        ],
        "as_of",
    )  # fmt: skip
    stamp.write_text(json.dumps({"wanted": wanted, "made": made}))
    return made


def _file_sql(day: date) -> str:
    return (
        f"'s3://org-trail/AWSLogs/o-abc123/' || lpad((i % 997)::VARCHAR, 12, '0') || "
        f"'/CloudTrail/eu-west-1/{day:%Y/%m/%d}/' || lpad((i % 997)::VARCHAR, 12, '0') || "
        f"'_CloudTrail_eu-west-1_{day:%Y%m%d}T' || lpad((i % 288)::VARCHAR, 4, '0') || 'Z_' || "
        f"lpad(i::VARCHAR, 16, '0') || '.json.gz'"
    )


def _shares(rows: int, share: int) -> list[tuple[int, int]]:
    return [(low, min(rows, low + share)) for low in range(0, rows, share)]


def _table(folder: Path, parts: list[tuple[str, str]], partition: str | None) -> dict[str, Any]:
    """A Delta table of Parquet files, one a part, with one commit."""
    os.environ.setdefault("RUST_LOG", "error")  # it warns of each column of each file without statistics
    from deltalake import Field, Schema, convert_to_deltalake

    begun = time.perf_counter()
    rows = 0
    engine = duckdb.connect()
    engine.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false; SET memory_limit = '4GB'")
    for number, (below, query) in enumerate(parts):
        into = folder / below
        into.mkdir(parents=True, exist_ok=True)
        without = f" EXCLUDE ({partition})" if partition else ""
        found = engine.execute(
            f"COPY (SELECT *{without} FROM ({query})) TO '{into}/part-{number:05}.parquet' "
            "(FORMAT parquet, COMPRESSION zstd)"
        ).fetchone()
        rows += found[0] if found else 0
    engine.close()
    if partition:
        by = Schema([Field(partition, "date", nullable=True)])
        convert_to_deltalake(str(folder), partition_by=by, partition_strategy="hive")
    else:
        convert_to_deltalake(str(folder))
    files = list(folder.rglob("*.parquet"))
    size = sum(file.stat().st_size for file in files)
    seconds = round(time.perf_counter() - begun, 1)
    log(f"{folder.name}: {rows:,} rows, {len(files)} files, {size / 1e9:.2f} GB in {seconds:.0f} s")
    return {"rows": rows, "files": len(files), "bytes": size, "seconds": seconds}


# ----------------------------------------------------------------------------------------- measuring


def measure(folder: Path, memory: str) -> dict[str, float]:
    """Seconds of what the job asks of the tables, each once in one session."""
    from pyspark.sql import functions as F

    from raretrail.baseline.snapshot import advance_fold
    from raretrail.cloudtrail.layout import FileInfo
    from raretrail.session import close_session, open_session
    from raretrail.stages.baseline import first_fact_day
    from raretrail.stages.ingest import only_new
    from raretrail.stages.locating import places_of
    from raretrail.tables import BASELINE_PRESENCE, INGEST_FILES, PLACES, PRESENCE_DAILY
    from raretrail.warehouse import Warehouse

    spark = open_session(driver_memory=memory, size="large", conf={"spark.sql.shuffle.partitions": "32"})
    warehouse = Warehouse(spark, str(folder))
    seconds: dict[str, float] = {}

    def timed(name: str, what: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        try:
            found = what()
        except Exception as error:
            first = str(error).strip().splitlines()[0][:200]
            log(f"{name}: failed: {first}")
            seconds[name] = -1.0
            return None
        seconds[name] = round(time.perf_counter() - begun, 2)
        log(f"{name}: {seconds[name]:.1f} s  ({found})")
        return found

    try:
        spark.range(10).count()
        for table in (INGEST_FILES, PLACES, PRESENCE_DAILY, BASELINE_PRESENCE):
            timed(f"open {table.name}", lambda t=table: len(warehouse.read(t).columns))

        last = [AS_OF - timedelta(days=DAYS + n) for n in (1, 2, 3)]
        ledger = warehouse.read(INGEST_FILES).where(F.col("file_date").isin(*last))
        rows = ledger.select("source_file", "bytes", "modified_at").collect()
        listed = [FileInfo(r["source_file"], r["bytes"], r["modified_at"].replace(tzinfo=UTC)) for r in rows]
        seconds["files of three days"] = len(listed)
        new = [FileInfo(f"{one.path}x", one.bytes, one.modified_at) for one in listed[:200]]
        del rows, ledger
        listing = sum(sum(map(sys.getsizeof, (one, *one))) + 8 for one in listed)
        before = _resident()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        timed("ledger: which files of three days are new", lambda: len(only_new([*listed, *new], warehouse)))
        seconds["bytes a listed file"] = round((listing + _peak() - before) / len(listed))

        known = warehouse.read(PLACES).select("source_ip_address")
        some = known.where(F.pmod(F.xxhash64("source_ip_address"), F.lit(1000)) < 10).limit(
            ADDRESSES * 9 // 10
        )
        fresh = spark.range(ADDRESSES // 10).select(
            F.concat(F.lit("2001:db8::"), "id").alias("source_ip_address")
        )
        warehouse.stage("addresses", some.unionByName(fresh))
        batch = spark.read.format("delta").load(f"{folder}/staged_addresses")
        places = warehouse.read(PLACES).where(F.col("geo_build") == BUILD)
        timed(
            "places: which of 100,000 addresses are not placed",
            lambda: batch.join(places, "source_ip_address", "left_anti").count(),
        )
        located = places_of(warehouse, BUILD, batch)
        timed(
            "places: where 100,000 addresses are",
            lambda: batch.join(F.broadcast(located), "source_ip_address").agg(F.count("place")).first(),
        )

        day = AS_OF - timedelta(days=1)
        presence = warehouse.read(PRESENCE_DAILY)
        today = presence.where(F.col("event_date") == F.lit(day))
        timed("presence: one day", lambda: today.select("principal", "command").distinct().count())
        timed("presence: the first day", lambda: first_fact_day(warehouse))
        timed(
            "presence: addresses of 90 days that have no place (once a night)",
            lambda: presence.select("source_ip_address").distinct()
            .join(places, "source_ip_address", "left_anti").count(),
        )  # fmt: skip
        fold = warehouse.read(BASELINE_PRESENCE).where(F.col("as_of") == F.lit(day))
        moved = advance_fold(fold, day, today, AS_OF, [day]).withColumn("as_of", F.lit(AS_OF))
        timed(
            "baseline: the fold of 90 days moved on by a day (once a night)",
            lambda: warehouse.replace(BASELINE_PRESENCE, moved, f"as_of = DATE'{AS_OF}'"),
        )
    finally:
        close_session(spark)
    return seconds


def _resident() -> int:
    """Bytes this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _peak() -> int:
    """Bytes this process has held at most since its peak was last cleared."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


# ---------------------------------------------------------------------------------------- arithmetic


# Events a day, accounts.
ORGANISATIONS = (
    (1e7, 1), (1e7, 100), (1e8, 100), (1e8, 1000), (1e9, 1000), (1e9, 10000), (1e10, 10000),
)  # fmt: skip


def reckon(kept: dict[str, Any], inputs: dict[str, Any]) -> tuple[str, str]:
    """The tables beyond what is measured, an organisation a row: work of a day; state and cost."""
    work = [
        "| events a day | accounts | files a day | GB a day as delivered | requests a day | listing of a run "
        "| cores | core hours a day, runs + night | shuffled, GB a day |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    state = [
        "| events a day | accounts | `events` kept, TB | rows of `presence_daily`, 90 days "
        "| `presence_daily` kept, GB | driver's list at a run | at night "
        "| USD a month: cores + requests + storage |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for events, accounts in ORGANISATIONS:
        of = needs(events, accounts, kept, inputs["assumed"])
        cores, requests, storage = month_of(of, inputs["prices"])
        who = f"| {_short(events)} | {accounts:,} "
        work.append(
            f"{who}| {_short(of['files'])} | {of['delivered'] / 1e9:,.1f} "
            f"| {_short(of['gets'] + of['lists'])} | {of['listing_seconds']:,.0f} s | {of['cores']:,.0f} "
            f"| {of['run_core_hours']:,.1f} + {of['night_core_hours']:,.1f} | {of['shuffled'] / 1e9:,.1f} |"
        )
        state.append(
            f"{who}| {of['events_bytes'] / 1e12:,.1f} | {_short(of['presence'])} "
            f"| {of['presence_bytes'] / 1e9:,.1f} | {_short(of['driver_run'])}B "
            f"| {_short(of['driver_night'])}B "
            f"| {cores:,.0f} + {requests:,.0f} + {storage:,.0f} = {cores + requests + storage:,.0f} |"
        )
    return "\n".join(work), "\n".join(state)


def needs(events: float, accounts: int, kept: dict[str, Any], a: dict[str, float]) -> dict[str, float]:
    """What an organisation's day takes: bytes, seconds, core hours, by the formulae of docs/scale.md.

    kept is what `measure` found, for what follows presence rows and listed files; a is `assumed`.
    """
    slots = accounts * a["active_regions"] * a["files_a_day"]
    delivered = events * a["gz_bytes_an_event"]
    files = max(min(slots, events), delivered / a["file_bytes"])
    active, regions = accounts * a["active_regions"], accounts * a["listed_regions"]
    thousands = math.ceil(files * a["listed_days"] / active / 1000)
    lists = 1 + 3 * accounts + 2 * regions + active * (thousands - 1)
    night = sum(s for name, s in kept["seconds"].items() if "once a night" in name and s > 0)
    built = kept["built"]
    presence = events * a["presence_an_event"] * DAYS
    busiest = events / a["runs_a_day"] * a["peak"] / a["events_a_core_second"] / a["run_seconds"]
    cores = max(2.0, math.ceil(busiest))
    started = a["runs_a_day"] * a["start_seconds"] * cores
    moved = built["baseline_presence"]["bytes"] / built["presence_daily"]["rows"]
    row_bytes = built["presence_daily"]["bytes"] / built["presence_daily"]["rows"]
    of_file = kept["seconds"]["bytes a listed file"]
    return {
        "files": files,
        "delivered": delivered,
        "gets": files * a["gets_a_file"],
        "lists": lists * a["runs_a_day"],
        "listing_seconds": lists * a["list_seconds"] / min(a["lists_at_once"], lists),
        "cores": cores,
        "run_core_hours": (events / a["events_a_core_second"] + started) / 3600,
        "night_core_hours": night * kept["cores"] / 3600 * presence / built["presence_daily"]["rows"],
        "shuffled": events * a["shuffled_bytes_an_event"] + presence * moved,
        "events_bytes": events * a["stored_bytes_an_event"] * a["retain_events_days"],
        "presence": presence,
        "presence_bytes": presence / DAYS * a["retain_facts_days"] * row_bytes,
        "driver_run": files * a["listed_days"] * of_file,
        "driver_night": files * a["history_days"] * of_file,
    }


def month_of(of: dict[str, float], price: dict[str, float]) -> tuple[float, float, float]:
    """USD a month for cores, requests and storage."""
    return (
        30 * (of["run_core_hours"] + of["night_core_hours"]) * price["core_hour"],
        30 * (of["gets"] / 1000 * price["s3_get_1000"] + of["lists"] / 1000 * price["s3_list_1000"]),
        (of["events_bytes"] + of["presence_bytes"]) / 1e9 * price["s3_gb_month"],
    )


def _short(number: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def tell(kept: dict[str, Any]) -> str:
    """What was built and measured, as tables."""
    lines = ["| table | rows | files | GB | built in |", "|---|---|---|---|---|"]
    for name, one in kept["built"].items():
        lines.append(
            f"| `{name}` | {one['rows']:,} | {one['files']:,} | {one['bytes'] / 1e9:.2f} "
            f"| {one['seconds']:.0f} s |"
        )
    lines += ["", "| what the job asks | seconds |", "|---|---|"]
    for name, seconds in kept["seconds"].items():
        if name in ("files of three days", "bytes a listed file"):
            continue
        shown = name.replace(
            "files of three days", f"{kept['seconds']['files of three days']:,.0f} files of three days"
        )
        lines.append(f"| {shown} | {f'{seconds:.1f}' if seconds >= 0 else 'failed'} |")
    lines += [
        "",
        f"Spark in one process, {kept['cores']} cores, {kept['memory']} of heap, {kept['at']}; load of the "
        f"machine by others: {kept['load']}, so seconds are no less than they would be alone. For each "
        "listed file Python holds "
        f"{kept['seconds']['bytes a listed file']:,.0f} bytes, the list and the ledger's days beside it.",
    ]
    return "\n".join(lines)


def tell_inputs(text: str) -> str:
    """What was reckoned with, as a table, with what the file says of each."""
    inputs = yaml.safe_load(text)
    said = dict(re.findall(r"^  (\w+): \S+ +# (.+)$", text, re.MULTILINE))
    lines = ["| input | value | |", "|---|---|---|"]
    for part in ("prices", "assumed"):
        lines += [f"| `{name}` | {value:,} | {said.get(name, '')} |" for name, value in inputs[part].items()]
    lines += ["", f"`bench/prices.yml` as of {inputs['noted']}, {inputs['region']}, list prices in USD."]
    return "\n".join(lines)


def main() -> int:
    """Build, measure, tell; 0."""
    parser = argparse.ArgumentParser(description="Measure the job's queries on large metadata.")
    parser.add_argument("--places", type=int, default=10_000_000)
    parser.add_argument("--files", type=int, default=20_000_000)
    parser.add_argument("--presence", type=int, default=100_000_000)
    parser.add_argument("--memory", default="6g", help="heap of Spark's driver")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache" / "scale")
    parser.add_argument("--keep", action="store_true", help="leave the tables for another run")
    parser.add_argument("--arithmetic", action="store_true", help="measure nothing; reckon anew")
    parser.add_argument("--into", type=Path, help="page that holds the figures")
    options = parser.parse_args()
    results = ROOT / "bench" / "scale.json"
    assumptions = (ROOT / "bench" / "prices.yml").read_text()
    inputs = yaml.safe_load(assumptions)
    if not options.arithmetic:
        built = build(options.folder / "w", options.places, options.files, options.presence)
        load = os.getloadavg()[0]
        seconds = measure(options.folder / "w", options.memory)
        kept = {
            "built": built,
            "seconds": seconds,
            "cores": os.cpu_count() or 1,
            "memory": options.memory,
            "load": round(load, 1),
            "at": datetime.now(UTC).date().isoformat(),
        }
        results.write_text(json.dumps(kept, indent=1) + "\n")
        if not options.keep:
            shutil.rmtree(options.folder)
    kept = json.loads(results.read_text())
    shown = {"scale-measured": tell(kept)}
    shown["scale-work"], shown["scale-state"] = reckon(kept, inputs)
    shown["scale-inputs"] = tell_inputs(assumptions)
    for name, text in shown.items():
        if options.into:
            put(options.into, name, text)
        print(f"\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
