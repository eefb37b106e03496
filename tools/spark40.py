"""Makes .cache/spark40: a Python environment with Spark 4.0 and its Delta over everything .venv has.

    .venv/bin/python tools/spark40.py

Prints its Python. Quick when nothing has changed; needs a network the first time, and some minutes,
since pyspark comes as source.
"""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".cache" / "spark40"
PYTHON = ENVIRONMENT / "bin" / "python"
LOCK = ROOT / "requirements" / "spark40.txt"


def make_environment() -> Path:
    """The environment's Python, made or found again."""
    stamp = ENVIRONMENT / "lock.txt"
    below = sysconfig.get_path("purelib")
    wanted = f"{below}\n{LOCK.read_text(encoding='utf-8')}"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return PYTHON
    venv.EnvBuilder(clear=True, symlinks=True).create(ENVIRONMENT)
    # What .venv has is found after what is installed here; its own .pth files count too.
    purelib = next((ENVIRONMENT / "lib").glob("python3.*")) / "site-packages"
    line = f"import site; site.addsitedir({below!r})\n"
    (purelib / "below.pth").write_text(line, encoding="utf-8")
    command = [
        *(sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "--quiet"),
        *("--no-deps", "--no-build-isolation", "--require-hashes", "--ignore-installed", "-r", str(LOCK)),
    ]
    subprocess.run(command, check=True, stdout=sys.stderr)
    stamp.write_text(wanted, encoding="utf-8")
    return PYTHON


if __name__ == "__main__":
    print(make_environment())
