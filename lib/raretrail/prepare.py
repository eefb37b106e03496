"""What setup does last: prove that this installation works, and make later starts fast."""

from __future__ import annotations

import os
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

from raretrail import runtime
from raretrail.errors import RaretrailError
from raretrail.session import SessionSettings, close_session, open_to_archive

# As few people and days as make every stage do something.
_PEOPLE, _DAYS = 4, 3


def prepare() -> None:
    """Run the whole job once over a tiny simulated organisation and keep an archive of the classes this
    loaded: a class that a run needs and the archive lacks is read, checked and linked by every run.

    RaretrailError if the job fails or does not find what was planted.
    """
    from raretrail.settings import load_settings
    from raretrail.simulate import Shape, simulate
    from raretrail.stages.run import run

    java = runtime.find_java()
    archive = runtime.class_archive(java)
    archive.parent.mkdir(parents=True, exist_ok=True)
    unfinished = archive.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="raretrail-") as folder:
        out = Path(folder) / "simulated"
        shape = Shape(people=_PEOPLE, days=_DAYS, judged_days=1, accounts=1, campaigns=("recon_burst",))
        planted = simulate(out, shape)
        options = {
            "trail": [str(out / "trail")],
            "warehouse": str(Path(folder) / "warehouse"),
            "geo": {"asn_db": str(out / "asn.mmdb")},
        }
        settings, _ = load_settings(options=options)
        as_of = datetime.fromisoformat(planted.campaigns[0]["last_time"]) + timedelta(minutes=30)
        spark = open_to_archive(
            SessionSettings(app_name="raretrail setup", driver_memory="1g"),
            unfinished if runtime.can_archive(java) else None,
        )
        try:
            ended = run(spark, settings, as_of=as_of)
            # So few files are read here; many are in workers of Python.
            spark.range(1).mapInArrow(lambda batches: batches, "id bigint").collect()
        except RaretrailError:
            raise
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise RaretrailError(f"Spark starts, but the job fails: {lines[0]}") from error
        finally:
            close_session(spark)
    if not ended.record["counts"].get("incidents"):
        raise RaretrailError(f"the job ran, but found nothing of what was planted: {ended.record}")
    if unfinished.is_file():
        os.replace(unfinished, archive)
