"""How much sooner two workers are done than one: the main job on Spark's own cluster, all of it in S3.

    python bench/cluster.py [--people 80] [--days 35] [--judged 14] [--into PAGE]

Months are played forward from nothing, once on one worker of one core, once on two. Server, driver and
workers share this machine, so what two workers gain here is the least they do.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "cluster"))

from cluster_tools import Cluster
from figures import put

from raretrail.pack import pack
from raretrail.simulate import Shape, simulate
from s3_server import counted, s3_server


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(prog="cluster", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--people", type=int, default=80)
    parser.add_argument("--days", type=int, default=35)
    parser.add_argument("--judged", type=int, default=14)
    parser.add_argument("--into", type=Path, help="a page of the manual to write the table into")
    options = parser.parse_args()
    shape = Shape(people=options.people, days=options.days, judged_days=options.judged)
    lines = ["| workers | seconds | requests to S3 |", "|---|---|---|"]
    seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="raretrail-cluster-") as name:
        folder = Path(name)
        events = simulate(folder / "simulated", shape).events
        pack(folder / "env.tar.gz")
        with s3_server(folder / "s3") as server:
            bucket = server.make_bucket("organisation")
            files = server.upload(folder / "simulated" / "trail", bucket, "trail/")
            for workers in (1, 2):
                server.requests()
                seconds.append(_run(folder, workers, server.environment(), bucket, shape))
                asked = counted(server.requests())
                told = ", ".join(f"{count:,} {operation}" for operation, count in asked.most_common(4))
                lines.append(f"| {workers} | {seconds[-1]:.0f} | {told} |")
    text = (
        f"{events:,} events in {files:,} files (`--people={shape.people} --days={shape.days} "
        f"--judged={shape.judged_days}`), on {os.cpu_count()} cores that server and driver share.\n\n"
        + "\n".join(lines)
        + f"\n\nTwo workers are done {seconds[0] / seconds[1]:.2f} times as fast as one."
    )
    print(text)
    if options.into:
        put(options.into, "cluster", text)


def _run(folder: Path, workers: int, environment: dict[str, str], bucket: str, shape: Shape) -> float:
    here = folder / f"cluster-{workers}"
    here.mkdir()
    cluster = Cluster(here, here, environment)
    with cluster.running(workers):
        start = time.perf_counter()
        given = [
            "--trail", f"s3a://{bucket}/trail", "--warehouse", f"s3a://{bucket}/warehouse-{workers}",
            "--asn-db", str(folder / "simulated" / "asn.mmdb"), "--quiet",
            "--from", shape.judged_from.isoformat(), "--to", shape.end.isoformat(),
        ]  # fmt: skip
        log = here / "job.log"
        job = cluster.submit(given, folder / "env.tar.gz", log)
        try:
            job.wait(3600)
        finally:
            job.kill()
        if job.returncode:
            raise SystemExit(f"the job ended with {job.returncode}:\n{log.read_text()[-3000:]}")
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
