"""What the figures were taken on, beside them wherever they are told."""

from __future__ import annotations

import os
from pathlib import Path

from figures import put


def tell(text: str, name: str, into: Path | None) -> None:
    """Print figures and, where a page of the manual is given, write them to its mark `name`."""
    print(text, flush=True)
    if into:
        put(into, name, f"{machine()}\n\n{text}")


def machine() -> str:
    """Cores, processor and memory of this machine."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), "unknown processor",
    )  # fmt: skip
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({model}), {gib:.0f} GiB."
