"""How a run tells other systems how it went: lines of JSON, a Prometheus text file, a heartbeat.

None of it may change how a run ends: what cannot be written or reached becomes a warning.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO
from urllib.parse import urlsplit

from raretrail import __version__
from raretrail.errors import EXIT_DONE

HEARTBEAT_VARIABLE = "RARETRAIL_HEARTBEAT_URL"
_HEARTBEAT_SECONDS = 10
_LAST_GOOD = "raretrail_last_good_run_timestamp_seconds"
_STATUSES = ("done", "held", "staged", "failed")

Level = Literal["info", "warning", "error"]


class JsonLog:
    """Lines of JSON: time, level, message, the invocation they belong to, and what else is given.

    A run's id is known once it has one; until then `invocation` is what ties lines together.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """From here on lines belong to another invocation: a resident process has one a run."""
        self.invocation = uuid.uuid4().hex[:8]

    def write(self, level: Level, message: str, **fields: Any) -> None:
        """Write one line; fields must have names of their own."""
        line = {
            "time": self._clock().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "message": message,
            "invocation": self.invocation,
            **fields,
        }
        print(json.dumps(line, default=_plain), file=self._stream, flush=True)


def _plain(value: object) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


# ----------------------------------------------------------------------------------------- metrics


def metrics_text(
    record: Mapping[str, Any] | None, exit_code: int, now: datetime, last_good: float | None
) -> str:
    """The state after a run in Prometheus' text format.

    record is the run's row of `runs`, None where the run ended without one; last_good is the Unix
    time of the last run that ended well before this one, if that is known.
    """
    lines: list[str] = []

    def gauge(name: str, text: str, *samples: tuple[Mapping[str, str], float]) -> None:
        if samples:
            lines.extend((f"# HELP {name} {text}", f"# TYPE {name} gauge"))
        for labels, value in samples:
            listed = ",".join(f'{key}="{_label(text)}"' for key, text in labels.items())
            lines.append(f"{name}{{{listed}}} {value:.17g}" if listed else f"{name} {value:.17g}")

    good = now.timestamp() if exit_code == EXIT_DONE else last_good
    gauge("raretrail_last_run_timestamp_seconds", "When the last run ended.", ({}, now.timestamp()))
    gauge("raretrail_last_run_exit_code", "Exit code of the last run.", ({}, exit_code))
    if good is not None:
        gauge(_LAST_GOOD, "When the last run that ended well did so.", ({}, good))
    status = record["status"] if record else "failed"
    gauge(
        "raretrail_last_run_status",
        "1 for how the last run ended.",
        *(({"status": name}, float(name == status)) for name in _STATUSES),
    )
    info = {"version": __version__}
    if record:
        info |= {name: str(record.get(name) or "") for name in ("run_id", "mode", "geo_build")}
    gauge("raretrail_last_run_info", "What the last run was.", (info, 1))
    if record:
        gauge(
            "raretrail_last_run_stage_seconds",
            "Seconds each stage of the last run took.",
            *(({"stage": name}, seconds) for name, seconds in record["seconds"].items()),
        )
        gauge(
            "raretrail_last_run_count",
            "What the last run counted: files, records, events, findings and so on.",
            *(({"kind": name}, count) for name, count in record["counts"].items()),
        )
        gauge(
            "raretrail_last_run_held_scopes",
            "Scopes the last run held back.",
            ({}, len(record["held_scopes"])),
        )
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def write_metrics(file: str, record: Mapping[str, Any] | None, exit_code: int, now: datetime) -> str | None:
    """Put the metrics of a run into `file`, whole or not at all; what went wrong, or None.

    When the last good run was is taken over from what the file says so far.
    """
    path = Path(file)
    try:
        text = metrics_text(record, exit_code, now, _last_good(path))
        handle, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(text)
            os.chmod(temporary, 0o644)  # read by an exporter, which is another user
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        return f"metrics_file {file}: cannot be written ({(error.strerror or str(error)).lower()})"
    return None


def _last_good(path: Path) -> float | None:
    try:
        found = re.search(rf"^{_LAST_GOOD} (\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        return float(found[1]) if found else None
    except (OSError, ValueError):
        return None


# --------------------------------------------------------------------------------------- heartbeat


def heartbeat_url(setting: str | None) -> str | None:
    """The URL to call after a good run: that of the environment, else that of the settings."""
    return os.environ.get(HEARTBEAT_VARIABLE) or setting


def send_heartbeat(url: str) -> str | None:
    """Call `url` once with GET; what went wrong, or None. Names the host only: the rest may be secret."""
    host = urlsplit(url).hostname or "?"
    if urlsplit(url).scheme not in ("http", "https"):
        return "heartbeat_url: is no http or https URL; nothing was called"
    request = urllib.request.Request(url, headers={"User-Agent": f"raretrail/{__version__}"})
    try:
        with urllib.request.urlopen(request, timeout=_HEARTBEAT_SECONDS) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        return f"heartbeat to {host}: answered {error.code}"
    except (OSError, ValueError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        return f"heartbeat to {host}: not reached ({type(reason).__name__})"
    except Exception as error:  # http.client's own: whatever the other side says must not fail a run
        return f"heartbeat to {host}: not understood ({type(error).__name__})"
    return None
