"""Objects of S3 as files that DuckDB opens, by the process's own client."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

from raretrail import s3

if TYPE_CHECKING:
    from deltalake import DeltaTable

# An object up to this size is fetched whole, once; of a larger one what is asked for, and some on.
_WHOLE = 4 * 1024 * 1024
_AHEAD = 1024 * 1024
_KEPT = 512 * 1024 * 1024


class S3Files(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Objects to be read by their `s3://` location. Sizes that are known already are not asked for, and small
    objects are kept, since DuckDB opens each several times."""

    protocol = "s3"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[str, int] = {}
        self._kept: dict[str, bytes] = {}

    def of_table(self, table: DeltaTable) -> list[str]:
        """The locations of a table's files, whose sizes its log has; small ones are fetched at once."""
        actions = pa.table(table.get_add_actions(flatten=True))
        base = table.table_uri.rstrip("/")
        names = [f"{base}/{unquote(path)}" for path in actions["path"].to_pylist()]
        sizes = dict(zip(map(self._strip_protocol, names), actions["size_bytes"].to_pylist(), strict=True))
        self.sizes |= sizes
        small = [name for name, size in sizes.items() if size <= _WHOLE]
        if sum(map(sizes.__getitem__, small)) + sum(map(len, self._kept.values())) <= _KEPT:
            fetched = s3.in_order(lambda name: s3.read(f"s3://{name}"), small)
            self._kept |= zip(small, fetched, strict=True)
        return names

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("s3://")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, size and kind of an object. FileNotFoundError where there is none."""
        name = self._strip_protocol(path)
        if name not in self.sizes:
            found = s3.look_up(f"s3://{name}")
            if found is None:
                raise FileNotFoundError(f"s3://{name}")
            self.sizes[name] = found.bytes
        return {"name": name, "size": self.sizes[name], "type": "file"}

    def modified(self, path: str) -> datetime:
        """The same for ever: what Delta has written is not written over."""
        return datetime.fromtimestamp(0, UTC)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> BytesIO | AbstractBufferedFile:
        name, size = self._strip_protocol(path), self.info(path)["size"]
        if name in self._kept:
            return BytesIO(self._kept[name])
        return _S3File(self, name, mode, _AHEAD, cache_type="readahead", size=size)


class _S3File(AbstractBufferedFile):  # type: ignore[misc]
    def _fetch_range(self, start: int, end: int) -> bytes:
        return s3.read_range(f"s3://{self.path}", start, min(end, self.size))
