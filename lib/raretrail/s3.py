"""S3 as this process reaches it, beside what Spark does there by itself.

Who it is, which region and which endpoint come from where the AWS command line takes them (environment,
profile, role of the machine or pod), never from settings. RARETRAIL_S3_PROFILES names the profile of the AWS
configuration for buckets that somebody else reaches: `bucket=profile,bucket=profile`. boto3 is needed, the
extra `s3`.

What fails is asked again with growing pauses, six times at most; a body that breaks off, three times; with
expired credentials once more, by those that are found anew.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from hashlib import md5
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
PROFILES_VARIABLE = "RARETRAIL_S3_PROFILES"
_ATTEMPTS = 6
_READS = 3
_DENIED = {"AccessDenied", "AllAccessDisabled", "403"}
_UNKNOWN = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_making = threading.Lock()


class Object(NamedTuple):
    """One object as listed: its key, its size in bytes, its time of modification (UTC)."""

    key: str
    bytes: int
    modified_at: datetime


def is_s3(location: str) -> bool:
    """Whether a location is an object or prefix of S3."""
    return location.startswith(_SCHEMES)


def needs_s3(location: str) -> bool:
    """Whether whoever opens a location meets S3: it lies there, or is a table (`table:parquet.`s3a://…``)
    whose path does."""
    return is_s3(location) or is_s3(location.partition("`")[2])


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


def client(bucket: str = "") -> Any:
    """This process's client for a bucket, as boto3 makes it. UsageError where boto3 is not installed."""
    with _making:
        return _client(os.getpid(), _profile(bucket))


def ask(operation: str, **parameters: Any) -> Any:
    """The answer to one request of boto3's client for `Bucket`. Where the credentials have expired it is
    sent once more with those found anew: a profile's may have been renewed. ClientError, BotoCoreError."""
    from botocore.exceptions import ClientError

    asked = client(parameters["Bucket"])
    try:
        return getattr(asked, operation)(**parameters)
    except ClientError as error:
        # An answer to HEAD has no text, and so no code but its number.
        if _code(error) not in (_EXPIRED | {"400"} if operation.startswith("head") else _EXPIRED):
            raise
        with _making:
            if _client(os.getpid(), _profile(parameters["Bucket"])) is asked:
                _client.cache_clear()
    return getattr(client(parameters["Bucket"]), operation)(**parameters)


def _profile(bucket: str) -> str | None:
    listed = os.environ.get(PROFILES_VARIABLE, "")
    for entry in filter(None, map(str.strip, listed.split(","))):
        name, found, profile = entry.partition("=")
        if not (name and found and profile):
            raise UsageError(f"{PROFILES_VARIABLE}: {entry!r} is no bucket=profile")
        if name == bucket:
            return profile
    return None


@lru_cache(maxsize=8)
def _client(pid: int, profile: str | None) -> Any:
    if not is_installed():
        raise UsageError("S3 needs boto3: pip install 'raretrail[s3]'")
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ProfileNotFound

    # Another server than Amazon's is addressed by path: nobody has made a name of the bucket for it.
    other = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    try:
        session = boto3.session.Session(profile_name=profile)
    except ProfileNotFound:
        where = PROFILES_VARIABLE if profile else "AWS_PROFILE"
        raise UsageError(
            f"{where}: the AWS configuration has no profile {profile or os.environ.get('AWS_PROFILE')}; "
            "write it into ~/.aws/config, or into the file that AWS_CONFIG_FILE names"
        ) from None
    return session.client(
        "s3",
        region_name=os.environ.get("AWS_REGION"),  # which boto3, alone of AWS' own, does not look at
        config=Config(
            max_pool_connections=AT_ONCE,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            connect_timeout=10,
            read_timeout=60,
            s3={"addressing_style": "path"} if other else {},
        ),
    )


@contextmanager
def told(location: str, action: str) -> Iterator[None]:
    """What goes wrong within, in a line: UsageError for what only the user can mend, else RaretrailError.

    action is what is asked of S3, as policies name it; what the answer names goes first.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        reason = why(error, action)
        mended_by_user = _code(error) in _DENIED | _UNKNOWN | {"NoSuchBucket"}
        raise (UsageError if mended_by_user else RaretrailError)(f"{location}: {reason}") from None
    except BotoCoreError as error:
        mended_by_user = type(error).__name__ in _NOBODY
        raise (UsageError if mended_by_user else RaretrailError)(
            f"{location}: {why(error, action)}"
        ) from None


_NOBODY = {"NoCredentialsError", "NoRegionError", "PartialCredentialsError", "InvalidRegionError"}


def why(error: Exception, action: str) -> str:
    """What is wrong and what to do about it, in a line that starts with S3's code where there is one."""
    code = _code(error)
    if code in _DENIED:
        found = re.search(r"not authorized to perform: ([\w:*]+)", str(error))
        return denied(found[1] if found else action)
    if code in _EXPIRED:
        return expired(code)
    if code in _UNKNOWN:
        return _unknown(code)
    if code == "NoSuchBucket":
        return "NoSuchBucket: there is no such bucket"
    if code:
        answer: dict[str, Any] = getattr(error, "response", {})
        said = answer["Error"].get("Message") or "no message"
        times = answer.get("ResponseMetadata", {}).get("RetryAttempts", 0) + 1
        return f"{code}: {said}" + (f" (asked {times} times)" if times > 1 else "")
    if type(error).__name__ in _NOBODY:
        return f"{_words(error)}; {_GIVE_KEYS}"
    return f"S3 cannot be reached: {_words(error)}"


def denied(action: str) -> str:
    """What to say where S3 refuses an action of policies."""
    does, what = ("are", "them") if " and " in action else ("is", "it")
    return f"AccessDenied: {action} {does} not allowed; allow {what} (docs/setup.md has the policies)"


def expired(code: str) -> str:
    """What to say where the credentials have expired, and those found anew as well."""
    return (
        f"{code}: the credentials have expired, and no newer ones are found; renew them, or use a role or a "
        "profile that renews its own"
    )


def is_denied(reason: str) -> bool:
    """Whether a line of `why` tells of a lacking permission."""
    return reason.partition(":")[0] in _DENIED


def is_expired(reason: str) -> bool:
    """Whether a line of `why` tells of expired credentials."""
    return reason.partition(":")[0] in _EXPIRED


# How s3a tells what S3 answered: what it did, where, S3's words, the status and S3's code.
_FROM_SPARK = re.compile(
    r"(?P<did>[^\n]*?)software\.amazon\.awssdk\.[\w.]+Exception: (?P<said>[^\n]*?) "
    r"\(Service: \w+, Status Code: (?P<status>\d+)[^)\n]*\)(?::(?P<code>\w+))?"
)
_ACTIONS = (
    ("PutObject", ("Writing Object", "PUT", "upload", "multipart", "mkdirs", "create")),
    ("DeleteObject", ("delete", "DELETE")),
    ("ListBucket", ("listStatus", "LIST", "list")),
    ("GetObject", ("open", "read", "GET", "getFileStatus")),
)


def from_spark(text: str) -> RaretrailError | None:
    """What a failure of Spark says of S3, in a line; None where it says nothing of it.

    UsageError for what only the user can mend.
    """
    if "Unable to load credentials" in text or "NoAuthWithAWSException" in text:
        return UsageError(f"S3: no credentials are found; {_GIVE_KEYS}")
    found = _FROM_SPARK.search(text)
    if found is None:
        return None
    did, status = found["did"], found["status"]
    place = re.search(r"s3a?://[^\s:,`]+", did) or re.search(r"s3a?://[^\s:,`]+", text)
    where = place[0].rstrip(".") if place else "S3"
    code = found["code"] if found["code"] not in (None, "null") else status
    # An answer to HEAD has no text. Where nothing may be listed, what is not there is refused as well.
    action = next(name for name, words in (*_ACTIONS, ("*", ("",))) if any(word in did for word in words))
    if "getFileStatus" in did:
        action = "ListBucket" if code in _DENIED - {"403"} else "GetObject or s3:ListBucket"
    if code in _DENIED:
        named = re.search(r"not authorized to perform: ([\w:*]+)", found["said"])
        return UsageError(f"{where}: {denied(named[1] if named else f's3:{action}')}")
    if code in _UNKNOWN:
        return UsageError(f"{where}: {_unknown(code)}")
    if code in _EXPIRED:
        return RaretrailError(f"{where}: {expired(code)}")
    if code == "400":
        return RaretrailError(
            f"{where}: S3 refuses the request and does not say why (400); most often credentials have expired"
        )
    return RaretrailError(f"{where}: {code}: {found['said'].rstrip('.')}; run again once the storage answers")


def _unknown(code: str) -> str:
    return f"{code}: S3 does not take these keys; see which ones the environment or the profile names"


_GIVE_KEYS = (
    "give keys and region as for the AWS command line (AWS_PROFILE, AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, AWS_REGION, a role of the machine or pod)"
)


def _code(error: Exception) -> str:
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def folder(bucket: str, prefix: str) -> tuple[list[str], list[Object]]:
    """What lies directly below a prefix: prefixes, each with its slash, and objects."""
    folders: list[str] = []
    objects: list[Object] = []
    for page in _pages(Bucket=bucket, Prefix=prefix, Delimiter="/"):
        folders += [one["Prefix"] for one in page.get("CommonPrefixes", ())]
        objects += map(_object, page.get("Contents", ()))
    return folders, objects


def below(bucket: str, prefix: str, after: str | None = None) -> Iterator[Object]:
    """All objects below a prefix in the order of their keys, those after `after` only: a request for each
    thousand, as they are asked for."""
    more = {"StartAfter": after} if after else {}
    for page in _pages(Bucket=bucket, Prefix=prefix, **more):
        yield from map(_object, page.get("Contents", ()))


def _pages(**parameters: str) -> Iterator[dict[str, Any]]:
    # Keys come encoded, since XML cannot carry every character of them; boto3 decodes what it asked for so.
    page: dict[str, Any] = {}
    while not page or page.get("IsTruncated"):
        more = {"ContinuationToken": page["NextContinuationToken"]} if page else {}
        page = ask("list_objects_v2", **parameters, **more)
        yield page


def _object(entry: dict[str, Any]) -> Object:
    # Whole seconds, as the header of an answer has them, whatever a server lists.
    return Object(entry["Key"], entry["Size"], entry["LastModified"].replace(microsecond=0))


def look_up(location: str) -> Object | None:
    """One object; None where there is none."""
    from botocore.exceptions import ClientError

    bucket, key = split(location)
    try:
        found = ask("head_object", Bucket=bucket, Key=key)
    except ClientError as error:
        if _code(error) in ("404", "NoSuchKey"):
            return None
        raise
    return Object(key, found["ContentLength"], found["LastModified"].replace(microsecond=0))


def require_delete(location: str) -> None:
    """UsageError where objects below a location may not be deleted. Asked of one that is not there."""
    bucket, prefix = split(location)
    with told(location, "s3:DeleteObject"):
        ask("delete_object", Bucket=bucket, Key=f"{prefix.rstrip('/')}/_raretrail.none")


def whole(
    bucket: str, key: str, fits: Callable[[bytes, dict[str, Any]], bool] = lambda data, answer: True
) -> tuple[bytes, dict[str, Any]]:
    """An object's bytes and the answer they came with; what breaks off or does not fit is asked for again.

    ClientError, BotoCoreError; OSError where no bytes did fit.
    """
    from botocore.exceptions import BotoCoreError

    lost: Exception = AssertionError()
    for _ in range(_READS):
        try:
            answer = ask("get_object", Bucket=bucket, Key=key)
            data: bytes = answer["Body"].read()
        except BotoCoreError as error:
            lost = error
            continue
        if fits(data, answer):
            return data, answer
        lost = OSError(
            "the bytes are not those that the ETag is the MD5 of; where this server's ETags are none, set "
            f"ingest.s3_reader to spark (asked {_READS} times)"
        )
    raise lost


def read(location: str) -> bytes:
    """An object's bytes, all of them. OSError that says what is wrong, in a line of `why`.

    What breaks off, or is not what the object's checksum or ETag says, is asked for again.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return whole(*split(location), _is_as_stored)[0]
    except ClientError as error:
        raise OSError(why(error, "s3:GetObject")) from None
    except BotoCoreError as error:
        raise OSError(f"{why(error, 's3:GetObject')} (asked {_READS} times)") from None


def _is_as_stored(data: bytes, answer: dict[str, Any]) -> bool:
    """Whether bytes fit the object's ETag; true where it is no MD5 of them, as under a key of KMS."""
    etag = answer.get("ETag", "").strip('"')
    if answer.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in answer:
        return True
    return not re.fullmatch("[0-9a-f]{32}", etag) or md5(data, usedforsecurity=False).hexdigest() == etag


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


def storage_options(bucket: str = "") -> dict[str, str]:
    """What delta-rs is told so that it is who this process is, where this process is."""
    asked = client(bucket)
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
    answer = ask("get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}")
    data: bytes = answer["Body"].read()
    return data
