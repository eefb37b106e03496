from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("raretrail_setup", ROOT / "tools" / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 7), (3, 13, 1)])
def test_fit_pythons_pass(setup: ModuleType, version: tuple[int, ...]) -> None:
    assert setup.python_problem(version) is None


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 14, 0), (2, 7, 18)])
def test_other_pythons_are_named_with_the_way_out(setup: ModuleType, version: tuple[int, ...]) -> None:
    message = setup.python_problem(version)
    assert ".".join(map(str, version)) in message
    assert "PYTHON=" in message


def test_python_without_venv_is_told_which_package(setup: ModuleType) -> None:
    message = setup.python_problem((3, 12, 1), ("venv", "no_such_module"))
    assert "without no_such_module" in message
    assert "python3.12-venv" in message


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "locked"),
        ("NewConnectionError(...)\nERROR: Could not find a version that satisfies", "network"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "PIP_CERT"),
        ("OSError: [Errno 28] No space left on device", "disk"),
        ("something else", "pip's last words"),
    ],
)
def test_pip_failures_are_explained(setup: ModuleType, output: str, advice: str) -> None:
    assert advice in setup.explain_pip(output)


def test_digest_tells_order_and_boundaries(setup: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("ab")
    assert setup.digest("a", "b") != setup.digest("ab")
    assert setup.digest("a", "b") != setup.digest("b", "a")
    assert setup.digest(path) == setup.digest("ab")


def test_java_reason_is_what_find_java_saw(setup: ModuleType) -> None:
    message = "Spark needs Java 17 or 21; PATH has Java 25. Set JAVA_HOME to a Java 17 or 21"
    assert setup.java_reason(message) == "PATH has Java 25"


def test_every_locked_package_has_hashes_and_no_place_to_fetch_from() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        entries = re.findall(
            r"^([a-z0-9][^ ]*==\S+)((?:.*\\\n)(?:    --hash=sha256:[0-9a-f]{64}.*\n)+)", text, re.M
        )
        starts = re.findall(r"^[^ \n].*", text, re.M)
        assert len(entries) == len(starts), path.name
        assert not re.search(r"://|--index|--find-links|--extra-index|^-", text, re.M), path.name


def test_demo_lock_is_part_of_the_development_lock() -> None:
    pins = {
        name: set(re.findall(r"^(\S+==\S+)", (ROOT / "requirements" / name).read_text(), re.M))
        for name in ("run.txt", "dev.txt")
    }
    assert pins["run.txt"] < pins["dev.txt"]


def test_an_unfit_python_gets_one_line(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.version_info = (3, 10, 13, 'final', 0); sys.argv = ['setup.py'];"
        f"runpy.run_path({str(ROOT / 'tools' / 'setup.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("setup: raretrail needs Python 3.11, 3.12 or 3.13")
    assert done.stderr.count("\n") == 1
