"""S3 as this process reaches it, beside what Spark does there by itself.

Who it is, which region and which endpoint come from where the AWS command line takes them (environment,
profile, role of the machine or pod), never from settings. boto3 is needed, the extra `s3`.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from raretrail.errors import RaretrailError, UsageError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_S = TypeVar("_S")
_T = TypeVar("_T")
_SCHEMES = ("s3://", "s3a://")
# Requests under way at a time, of one process.
AT_ONCE = 16
_DENIED = {
    "AccessDenied",
    "403",
    "AllAccessDisabled",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
}


class Object(NamedTuple):
    """One object as listed: its key, its size in bytes, its time of modification (UTC)."""

    key: str
    bytes: int
    modified_at: datetime


def is_s3(location: str) -> bool:
    """Whether a location is an object or prefix of S3."""
    return location.startswith(_SCHEMES)


def is_installed() -> bool:
    """Whether this process can reach S3 by itself."""
    return find_spec("boto3") is not None


def is_ours(spark: SparkSession) -> bool:
    """Whether Python, here and in workers, has the rights in S3 that this session has.

    Not on Databricks, whose catalog grants files to Spark alone, nor over Connect, where the rights are the
    server's.
    """
    return "DATABRICKS_RUNTIME_VERSION" not in os.environ and ".connect." not in type(spark).__module__


def split(location: str) -> tuple[str, str]:
    """Bucket and key (or prefix, or nothing) of a location. UsageError where it names no bucket."""
    bucket, _, key = re.sub(r"^s3a?://", "", location).partition("/")
    if not is_s3(location) or not bucket:
        raise UsageError(f"{location}: names no bucket; write s3://BUCKET/PREFIX")
    return bucket, key


def client() -> Any:
    """This process's client, as boto3 makes it. UsageError where boto3 is not installed."""
    return _client(os.getpid())


@lru_cache(maxsize=1)
def _client(pid: int) -> Any:
    if not is_installed():
        raise UsageError("S3 needs boto3: pip install 'raretrail[s3]'")
    import boto3
    from botocore.config import Config

    # Another server than Amazon's is addressed by path: nobody has made a name of the bucket for it.
    other = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return boto3.session.Session().client(
        "s3",
        region_name=os.environ.get("AWS_REGION"),  # which boto3, alone of AWS' own, does not look at
        config=Config(
            max_pool_connections=AT_ONCE,
            retries={"mode": "standard", "total_max_attempts": 6},
            connect_timeout=10,
            read_timeout=60,
            s3={"addressing_style": "path"} if other else {},
        ),
    )


@contextmanager
def told(location: str, what: str) -> Iterator[None]:
    """What goes wrong within, in a line: UsageError for what only the user can mend, else RaretrailError."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

    try:
        yield
    except ClientError as error:
        code = error.response["Error"].get("Code", "")
        if code in _DENIED:
            raise UsageError(f"{location}: {code}; whose keys these are lacks {what}") from None
        if code == "NoSuchBucket":
            raise UsageError(f"{location}: there is no such bucket") from None
        raise RaretrailError(f"{location}: S3 answered {code}: {_words(error)}") from None
    except (NoCredentialsError, NoRegionError) as error:
        raise UsageError(
            f"{location}: {_words(error)}; give keys and region as for the AWS command line (AWS_PROFILE, "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_REGION, a role of the machine or pod)"
        ) from None
    except BotoCoreError as error:
        raise RaretrailError(f"{location}: S3 cannot be reached: {_words(error)}") from None


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def folder(bucket: str, prefix: str) -> tuple[list[str], list[Object]]:
    """What lies directly below a prefix: prefixes, each with its slash, and objects."""
    folders: list[str] = []
    objects: list[Object] = []
    pages = client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    for page in pages:
        folders += [one["Prefix"] for one in page.get("CommonPrefixes", ())]
        objects += map(_object, page.get("Contents", ()))
    return folders, objects


def below(bucket: str, prefix: str, after: str | None = None) -> Iterator[Object]:
    """All objects below a prefix in the order of their keys, those after `after` only: a request for each
    thousand, as they are asked for."""
    more = {"StartAfter": after} if after else {}
    for page in client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **more):
        yield from map(_object, page.get("Contents", ()))


def _object(entry: dict[str, Any]) -> Object:
    # Whole seconds, as the header of an answer has them, whatever a server lists.
    return Object(entry["Key"], entry["Size"], entry["LastModified"].replace(microsecond=0))


def look_up(location: str) -> Object | None:
    """One object; None where there is none."""
    from botocore.exceptions import ClientError

    bucket, key = split(location)
    try:
        found = client().head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"].get("Code") in ("404", "NoSuchKey"):
            return None
        raise
    return Object(key, found["ContentLength"], found["LastModified"].replace(microsecond=0))


def read(location: str) -> bytes:
    """An object's bytes. OSError that says what is wrong."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, key = split(location)
    try:
        data: bytes = client().get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        raise OSError(f"S3 answered {error.response['Error'].get('Code')}") from None
    except BotoCoreError as error:
        raise OSError(_words(error)) from None
    return data


def in_order(function: Callable[[_S], _T], items: Iterable[_S], ahead: int = AT_ONCE) -> Iterator[_T]:
    """What function gives of each item, in their order, `ahead` of them under way."""
    waiting: deque[Any] = deque()
    with ThreadPoolExecutor(ahead) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def storage_options() -> dict[str, str]:
    """What delta-rs is told so that it is who this process is, where this process is."""
    asked = client()
    options = {"AWS_REGION": asked.meta.region_name}
    if os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        options["AWS_ENDPOINT_URL"] = asked.meta.endpoint_url
        options["AWS_ALLOW_HTTP"] = "true"
    # Never part of a message: delta-rs keeps them to itself.
    keys = asked._request_signer._credentials
    if keys is not None:
        frozen = keys.get_frozen_credentials()
        options |= {"AWS_ACCESS_KEY_ID": frozen.access_key, "AWS_SECRET_ACCESS_KEY": frozen.secret_key}
        if frozen.token:
            options["AWS_SESSION_TOKEN"] = frozen.token
    return options


def read_range(location: str, start: int, end: int) -> bytes:
    """The bytes of an object from start to before end."""
    bucket, key = split(location)
    answer = client().get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}")
    data: bytes = answer["Body"].read()
    return data
