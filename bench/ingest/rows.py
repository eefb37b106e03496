"""What every engine is to write, and what they share: the columns, where addresses are, the commit.

Each is given a trail and an empty folder, and leaves there `events` (Delta, by day), `presence.parquet` and
`baseline.parquet`, deduplicated by (account, event id):

- events: `COLUMNS`, nested JSON as text, placed by the embedded city database;
- presence: day × account × identity × command × address × outcome, with how often;
- baseline: command × place over the last 30 days, on how many of them.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from raretrail.geo.databases import resolve_city_database
from raretrail.geo.locate import locate_table

_T = pa.string()
COLUMNS = pa.schema(
    [
        ("event_time", pa.timestamp("us", tz="UTC")), ("event_date", pa.date32()), ("event_id", _T),
        ("recipient_account_id", _T), ("event_version", _T), ("event_type", _T), ("event_category", _T),
        ("management_event", pa.bool_()), ("read_only", pa.bool_()), ("event_source", _T), ("event_name", _T),
        ("command", _T), ("aws_region", _T), ("source_ip_address", _T), ("user_agent", _T),
        ("identity_type", _T), ("identity_arn", _T), ("identity_principal_id", _T), ("identity_account_id", _T),
        ("access_key_id", _T), ("invoked_by", _T), ("session_issuer_arn", _T), ("error_code", _T),
        ("error_message", _T), ("request_parameters", _T), ("response_elements", _T),
        ("additional_event_data", _T), ("resources", _T), ("tls_details", _T), ("request_id", _T),
        ("source_file", _T), ("place", _T), ("country_iso_code", _T),
    ]
)  # fmt: skip
# Of the Parquet files: statistics only where somebody asks, no dictionary of what is different each time.
STATISTICS = ["event_time", "event_id", "recipient_account_id", "command", "source_ip_address"]
DISTINCT = ["event_id", "request_id", "request_parameters", "response_elements"]
DICTIONARY = [name for name in COLUMNS.names if name not in DISTINCT]
BASELINE_DAYS = 30


def files_by_day(trail: Path) -> dict[date, list[Path]]:
    """The trail's files by day of delivery, which the folders say."""
    days: dict[date, list[Path]] = {}
    for path in sorted(trail.rglob("*.json.gz")):
        year, month, day = map(int, path.parts[-4:-1])
        days.setdefault(date(year, month, day), []).append(path)
    return days


class Places:
    """Where addresses are: each is looked up once."""

    def __init__(self) -> None:
        self._city = resolve_city_database(None)
        self._known: dict[str, tuple[str, str | None]] = {}

    def of(self, addresses: pa.Array | pa.ChunkedArray) -> pa.Table:
        """address, place, country_iso_code of distinct addresses."""
        texts = pc.unique(addresses).to_pylist()
        new = [text for text in texts if text not in self._known]
        if new:
            found = locate_table(new, self._city.worker_path, None, self._city.build, datetime.now(UTC))
            rows = zip(*(found.column(n).to_pylist() for n in ("place", "country_iso_code")), strict=True)
            self._known |= dict(zip(new, rows, strict=True))
        values = [self._known[text] for text in texts]
        return pa.table(
            {
                "source_ip_address": pa.array(texts, _T),
                "place": pa.array([v[0] for v in values], _T),
                "country_iso_code": pa.array([v[1] for v in values], _T),
            }
        )


def since(last: date) -> date:
    """The first day of the baseline that ends with `last`."""
    return last - timedelta(days=BASELINE_DAYS - 1)


def paths() -> tuple[Path, Path]:
    """The trail and the folder that the command line names."""
    return Path(sys.argv[1]), Path(sys.argv[2])


def done(start: float) -> None:
    """Say how long the work itself took, without this process's start."""
    print(f"worked {time.perf_counter() - start:.2f} seconds")
