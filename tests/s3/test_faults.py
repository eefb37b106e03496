"""What this process asks of S3 itself, on storage that misbehaves: lists and reads of a trail."""

from __future__ import annotations

import hashlib
import sys
from datetime import date
from pathlib import Path

import pytest

from raretrail import s3 as ours
from raretrail.cloudtrail.objects import list_objects
from raretrail.errors import RaretrailError, UsageError
from raretrail.lease import held
from s3_faults import Fault, Proxy
from s3_server import User

pytestmark = pytest.mark.cluster

BODY = hashlib.shake_128(b"body").digest(200_000)
KEY = "AWSLogs/o-abc123/111122223333/CloudTrail/eu-west-1/2026/02/15/a.json.gz"


@pytest.fixture
def location(through: Proxy, bucket: str) -> str:
    """An object as CloudTrail stores it: no checksum but its ETag."""
    through.server.client(checksums=False).put_object(Bucket=bucket, Key=KEY, Body=BODY)
    return f"s3://{bucket}/{KEY}"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("slow", times=1, seconds=1),
        Fault("answer", times=3),
        Fault("answer", times=3, status=503, code="SlowDown"),
        Fault("reset", times=3),
        Fault("cut", times=2),
        Fault("cut", times=2, share=0),
        Fault("short", times=2),
        Fault("break", times=2),
    ],
    ids=lambda fault: fault.code if fault.kind == "answer" else f"{fault.kind}-{fault.share}",
)
def test_what_passes_is_asked_for_again(through: Proxy, location: str, fault: Fault) -> None:
    through.does(fault)
    assert ours.read(location) == BODY
    assert fault.done == fault.times


@pytest.mark.parametrize(
    ("fault", "requests", "said"),
    [
        (Fault("answer"), 6, r"InternalError: .* \(asked 6 times\)"),
        (Fault("answer", status=503, code="SlowDown"), 6, r"SlowDown: .* \(asked 6 times\)"),
        (Fault("cut"), 3, r"S3 cannot be reached: .* \(asked 3 times\)"),
        (
            Fault("answer", status=403, code="AccessDenied"),
            1,
            "AccessDenied: s3:GetObject is not allowed; allow",
        ),
        (Fault("answer", status=400, code="ExpiredToken"), 2, "ExpiredToken: the credentials have expired"),
    ],
    ids=["500", "503", "cut", "denied", "expired"],
)
def test_what_lasts_is_given_up_and_said(
    through: Proxy, location: str, fault: Fault, requests: int, said: str
) -> None:
    through.does(fault)
    with pytest.raises(OSError, match=rf"^{said}") as raised:
        ours.read(location)
    assert "\n" not in str(raised.value)
    assert through.count() == requests


def test_half_an_object_is_never_taken_for_it(through: Proxy, location: str) -> None:
    """In good order: no length is wrong, only what the ETag is of."""
    through.does(Fault("short"))
    with pytest.raises(OSError, match=r"the bytes are not those that the ETag .* \(asked 3 times\)"):
        ours.read(location)


def test_a_listing_is_asked_for_again_and_a_lagging_one_is_whole_the_next_time(
    through: Proxy, location: str
) -> None:
    through.does(
        Fault("answer", operation="ListObjectsV2", times=2),
        Fault("cut", operation="ListObjectsV2", times=1),
        Fault("hide", operation="ListObjectsV2", times=8, hidden=r".*/a\.json\.gz"),
    )
    root = location.removesuffix(KEY)
    assert list_objects(root) == []
    through.does()
    assert [info.path for info in list_objects(root)] == [location]


@pytest.mark.parametrize("days", [None, {date(2026, 2, 15)}], ids=["all", "recent"])
def test_an_account_that_may_not_be_listed_is_left_out_and_named(
    through: Proxy, location: str, bucket: str, days: set[date] | None
) -> None:
    other = KEY.replace("111122223333", "999988887777")
    through.server.client().put_object(Bucket=bucket, Key=other, Body=b"")
    through.does(
        Fault(
            "answer", operation="ListObjectsV2", where=".*/999988887777/.*", status=403, code="AccessDenied"
        )
    )
    refused: dict[str, str] = {}
    listed = list_objects(location.removesuffix(KEY), days, refuse=refused.__setitem__)
    assert [info.path for info in listed] == [location]
    (folder,) = refused
    assert folder.startswith(f"s3://{bucket}/AWSLogs/o-abc123/999988887777/")
    assert refused[folder].startswith("AccessDenied: s3:ListBucket is not allowed; allow it")
    with pytest.raises(UsageError, match="AccessDenied: s3:ListBucket"):
        list_objects(location.removesuffix(KEY), days)


@pytest.mark.parametrize(
    ("status", "code", "error", "said"),
    [
        (403, "AccessDenied", UsageError, "AccessDenied: s3:ListBucket is not allowed; allow it"),
        (403, "InvalidAccessKeyId", UsageError, "InvalidAccessKeyId: S3 does not take these keys"),
        (400, "ExpiredToken", RaretrailError, "ExpiredToken: the credentials have expired"),
        (500, "InternalError", RaretrailError, r"InternalError: .*asked 6 times"),
    ],
)
def test_a_listing_that_fails_is_one_line(
    through: Proxy, location: str, status: int, code: str, error: type[RaretrailError], said: str
) -> None:
    through.does(Fault("answer", status=status, code=code))
    root = location.removesuffix(KEY)
    refused: dict[str, str] = {}
    with pytest.raises(RaretrailError, match=rf"^{root}: {said}") as raised:
        list_objects(root, refuse=refused.__setitem__)
    assert type(raised.value) is error
    assert "\n" not in str(raised.value)
    assert not refused


def test_a_lock_that_is_asked_for_on_a_bad_day_is_held_or_left_to_others(through: Proxy, bucket: str) -> None:
    """What fails after the lock was written must not block the next run until the lock grows old."""
    warehouse = f"s3://{bucket}/w"
    passing = Fault("cut", operation="GetObject", times=2)
    through.does(passing)
    with held(warehouse):
        assert passing.done == 2
    through.does(Fault("answer", operation="GetObject"))
    with pytest.raises(RaretrailError, match="InternalError"), held(warehouse):
        pass
    through.does()
    with held(warehouse) as lease:
        lease.require()


# ------------------------------------------------------------------------------------- credentials


@pytest.fixture
def old_and_new(through: Proxy, location: str, bucket: str) -> tuple[User, User]:
    """Two keys that may read; the storage says of the first that it has expired."""
    old, new = (through.server.make_user(f"{name}-{bucket}") for name in ("old", "new"))
    through.server.set_policy(
        bucket,
        [{"Effect": "Allow", "Principal": {"AWS": [old.access, new.access]}, "Action": ["s3:GetObject"],
          "Resource": [f"arn:aws:s3:::{bucket}/*"]}],
    )  # fmt: skip
    through.does(Fault("answer", user=old.access, status=400, code="ExpiredToken"))
    return old, new


@pytest.fixture
def no_keys(through: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys come from a file and not from the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)


def _keys(user: User) -> str:
    return f"aws_access_key_id = {user.access}\naws_secret_access_key = {user.secret}\n"


@pytest.mark.usefixtures("no_keys")
def test_keys_renewed_in_their_file_are_taken_up(
    through: Proxy,
    location: str,
    old_and_new: tuple[User, User],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = old_and_new
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    file.write_text(f"[default]\n{_keys(old)}")
    with pytest.raises(OSError, match=r"^ExpiredToken: .* no newer ones are found"):
        ours.read(location)
    file.write_text(f"[default]\n{_keys(new)}")
    through.asked.clear()
    assert ours.read(location) == BODY
    assert [one.user for one in through.asked] == [old.access, new.access]
    assert ours.read(location) == BODY
    assert len(through.asked) == 3, "the new ones are kept"


@pytest.mark.usefixtures("no_keys")
def test_a_profile_that_renews_its_keys_never_shows_old_ones(
    through: Proxy,
    location: str,
    old_and_new: tuple[User, User],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process gives keys that are about to end, and then others; the bucket is read by its profile."""
    old, new = old_and_new
    through.does()
    script, given = tmp_path / "keys.py", tmp_path / "given"
    script.write_text(
        f"""import json, pathlib, sys
given = pathlib.Path({str(given)!r})
access, secret, year = {(*new, 2099)!r} if given.exists() else {(*old, 2026)!r}
given.touch()
end = f"{{year}}-01-01T00:00:00Z"
print(json.dumps({{"Version": 1, "AccessKeyId": access, "SecretAccessKey": secret, "Expiration": end}}))
"""
    )
    config = tmp_path / "config"
    config.write_text(f"[profile trail]\ncredential_process = {sys.executable} {script}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("RARETRAIL_S3_PROFILES", f"elsewhere=nobody, {location.split('/')[2]}=trail")
    assert ours.read(location) == BODY
    assert {one.user for one in through.asked} == {new.access}
    monkeypatch.setenv("RARETRAIL_S3_PROFILES", f"{location.split('/')[2]}=nobody")
    with pytest.raises(
        UsageError, match="RARETRAIL_S3_PROFILES: the AWS configuration has no profile nobody"
    ):
        ours.read(location)
    monkeypatch.setenv("RARETRAIL_S3_PROFILES", "trail")
    with pytest.raises(UsageError, match="'trail' is no bucket=profile"):
        ours.read(location)


@pytest.mark.usefixtures("no_keys")
def test_no_keys_at_all_are_one_line(location: str) -> None:
    with pytest.raises(
        UsageError, match=r"Unable to locate credentials; give keys and region as for the AWS"
    ):
        list_objects(location.removesuffix(KEY))
