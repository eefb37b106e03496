"""What of the job another engine that speaks Spark's API takes: pysail, through Connect.

    python bench/sail.py --sail PATH [--into PAGE]

PATH is the `sail` program of an environment that has pysail. Each kind of statement the job is made of is
tried on its server, then the job itself, of a tiny organisation. Prints a table: what works, and what is said
where it does not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT / "tools"), str(_ROOT / "tests"), str(_ROOT / "tests" / "cluster")]

from cluster_tools import free_port, server  # noqa: E402
from figures import put  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402
from pyspark.sql import functions as F  # noqa: E402

import tiny  # noqa: E402

# The job takes about a minute on Spark; one that takes five is not going to end.
_PATIENCE = 300


def main() -> None:
    """Read the options, try, print."""
    parser = argparse.ArgumentParser(prog="sail", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sail", required=True, help="the `sail` program")
    parser.add_argument("--into", type=Path, help="a page of the manual to write the table into")
    options = parser.parse_args()
    version = subprocess.run([options.sail, "--version"], capture_output=True, text=True, check=True).stdout
    port = free_port()
    serve = [options.sail, "spark", "server", "--port", str(port)]
    with tempfile.TemporaryDirectory(prefix="raretrail-sail-") as name:
        folder, remote = Path(name), f"sc://127.0.0.1:{port}"
        with server(serve, folder / "server.log", port, folder):
            rows = list(_statements(remote, folder))
            rows.append(("the main job, as it is", _job(remote, folder)))
    table = "\n".join(f"| {name} | {said} |" for name, said in rows)
    text = f"{version.strip()}:\n\n| tried | outcome |\n|---|---|\n{table}"
    print(text)
    if options.into:
        put(options.into, "sail", text)


def _statements(remote: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Each kind of statement, and `works` or what is said instead."""
    spark = SparkSession.builder.remote(remote).getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    spark.conf.set("spark.sql.ansi.enabled", "true")
    path, other = folder / "table", folder / "other"
    table = f"delta.`{path}`"
    rows = spark.range(5).withColumn("day", F.lit("2026-01-01").cast("date"))
    pairs = F.array(*[F.struct(F.col("id").alias("a"), (-F.col("id")).alias("b")) for _ in range(3)])
    tried: dict[str, Callable[[], Any]] = {
        "write a partitioned Delta table": lambda: (
            rows.write.format("delta").partitionBy("day").save(str(path))
        ),
        "append to it": lambda: rows.write.format("delta").mode("append").save(str(path)),
        "replace days of it (`replaceWhere`)": lambda: (
            rows.write.format("delta")
            .mode("overwrite")
            .option("replaceWhere", "day IN (DATE'2026-01-01')")
            .save(str(path))
        ),
        "read it by path": lambda: spark.read.table(table).count(),
        "read an earlier version": lambda: (
            spark.read.format("delta").option("versionAsOf", 0).load(str(path)).count()
        ),
        "`MERGE` a frame into it": lambda: spark.sql(
            f"MERGE INTO {table} AS t USING {{source}} AS s ON t.id <=> s.id "
            "WHEN MATCHED THEN UPDATE SET t.day = s.day WHEN NOT MATCHED THEN INSERT *",
            source=rows,
        ).collect(),
        "`CREATE TABLE` at a path": lambda: spark.sql(
            f"CREATE TABLE delta.`{other}` (id bigint COMMENT 'n') USING DELTA TBLPROPERTIES ('a' = 'b')"
        ).collect(),
        "`SHOW TBLPROPERTIES`": lambda: spark.sql(f"SHOW TBLPROPERTIES {table}").collect(),
        "`DESCRIBE HISTORY`": lambda: spark.sql(f"DESCRIBE HISTORY {table} LIMIT 1").collect(),
        "`OPTIMIZE`": lambda: spark.sql(f"OPTIMIZE {table}").collect(),
        "`VACUUM`": lambda: spark.sql(f"VACUUM {table}").collect(),
        "`mapInArrow`": lambda: rows.select("id").mapInArrow(lambda batches: batches, "id long").count(),
        "windows by range": lambda: rows.selectExpr(
            "sum(id) OVER (ORDER BY id RANGE BETWEEN 90 PRECEDING AND 1 PRECEDING)"
        ).collect(),
        "`try_element_at` of a map": lambda: rows.select(
            F.try_element_at(F.create_map(F.lit("a"), F.lit(1)), F.lit("b"))
        ).collect(),
        "a part of a sorted array of structs": lambda: rows.select(
            F.slice(F.sort_array(pairs), 1, 2)
        ).collect(),
    }
    for name, statement in tried.items():
        yield name, _outcome(statement)
    spark.stop()


def _outcome(statement: Callable[[], Any]) -> str:
    try:
        statement()
    except Exception as error:  # whatever another engine says
        words = " ".join(str(error).split()).replace("|", "/")
        return f"no: {type(error).__name__}, {words[:120]}"
    return "works"


def _job(remote: str, folder: Path) -> str:
    """How the main job ends there."""
    command = [
        sys.executable, "-m", "raretrail", "run", *tiny.played(folder / "organisation"),
        "--warehouse", str(folder / "warehouse"), "--remote", remote,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"no: not done after {_PATIENCE} s"
    if done.returncode:
        return f"no: {' '.join(done.stderr.strip().splitlines()[-1].split())[:160]}"
    return "works"


if __name__ == "__main__":
    main()
