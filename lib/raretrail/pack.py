"""The library and what it needs in one archive, for executors that have nothing but Python.

What is packed is what is installed here, so that driver and executors run the same versions. Spark unpacks
the archive where an executor runs; `executor_options` are what spark-submit is told of it.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import raretrail
from raretrail.errors import UsageError
from raretrail.settings import default_conf_dir

# Spark has its own on every executor; the others serve the driver and whoever looks.
_LEFT = {"pyspark", "py4j", "delta-spark", "deltalake", "duckdb", "jinja2", "rich"}
# What an extra brings that workers use as well.
_ALSO = ("boto3",)
_FOLDER = "raretrail-env"


def pack(out: Path) -> list[str]:
    """Write the archive (.tar.gz); name and version of what is in it. UsageError where it cannot be written,
    or something that is needed is not installed."""
    if not out.name.endswith((".tar.gz", ".tgz")):
        raise UsageError(f"{out}: Spark unpacks .tar.gz; name it so")
    found = {_key(one.name): one for one in _closure()}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Fast rather than small: it is sent over a cluster's own network.
        with tarfile.open(out, "w:gz", compresslevel=1) as archive:
            for file, name in sorted(_own_files()):
                archive.add(file, name)
            for one in found.values():
                for file, name in _files(one):
                    archive.add(file, name)
    except OSError as error:
        raise UsageError(f"{out}: {error.strerror}; name a file that can be written") from None
    return sorted([f"raretrail {raretrail.__version__}", *(f"{d.name} {d.version}" for d in found.values())])


def executor_options(archive: str) -> list[str]:
    """spark-submit's options that lay the archive before executors' Python."""
    return ["--archives", f"{archive}#{_FOLDER}", "--conf", f"spark.executorEnv.PYTHONPATH={_FOLDER}"]


def _closure() -> Iterator[Distribution]:
    """What raretrail depends on as installed here, less what is left out, and what that depends on."""
    pending = [*(distribution("raretrail").requires or ()), *(name for name in _ALSO if _installed(name))]
    seen: set[str] = set()
    while pending:
        requirement = pending.pop()
        if "extra ==" in requirement:
            continue
        name = _key(re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0])
        if name in seen or name in _LEFT:
            continue
        seen.add(name)
        one = _installed(name)
        if one is None:
            if ";" in requirement:  # for another platform or Python
                continue
            raise UsageError(f"{name} is not installed here, and raretrail needs it: pip install raretrail")
        yield one
        pending += one.requires or ()


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _files(one: Distribution) -> Iterator[tuple[Path, str]]:
    for file in one.files or ():
        path = Path(str(one.locate_file(file)))
        # Scripts lie outside, tests and compiled copies are of no use.
        if ".." in file.parts or "__pycache__" in file.parts or "tests" in file.parts or not path.is_file():
            continue
        yield path, file.as_posix()


def _own_files() -> Iterator[tuple[Path, str]]:
    """The package as it runs here, installed or in a checkout, and its defaults inside it."""
    package = Path(raretrail.__file__).parent
    for folder, inside in ((package, "raretrail"), (default_conf_dir(), "raretrail/conf")):
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path, f"{inside}/{path.relative_to(folder).as_posix()}"


def lines_of(packed: Sequence[str], out: Path) -> list[str]:
    """What is told of an archive: how large it is, and how it is used."""
    options = " ".join(executor_options(str(out)))
    return [
        f"{out}: {out.stat().st_size / 2**20:.0f} MiB, {len(packed)} packages",
        f"spark-submit {options} jobs/run.py ...",
    ]
