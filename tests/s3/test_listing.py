"""A trail in S3 is listed by a few requests, whatever its history."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from raretrail.cloudtrail.layout import list_local
from raretrail.cloudtrail.objects import list_objects
from raretrail.errors import UsageError
from s3_server import S3Server, counted

pytestmark = pytest.mark.cluster

TODAY = date(2026, 2, 15)
RECENT = {TODAY + timedelta(days=n) for n in (-2, -1, 0, 1)}
ACCOUNTS = ("111122223333", "999988887777")
REGIONS = ("eu-west-1", "us-east-1")


def _trail(root: Path, days: int, files: int = 2) -> None:
    """An empty-handed trail of two accounts and regions, its last day today, with what else lies around."""
    for account in ACCOUNTS:
        for region in REGIONS:
            for n in range(days):
                day = TODAY - timedelta(days=n)
                for kind in ("CloudTrail", "CloudTrail-Digest"):
                    folder = root / f"AWSLogs/o-abc123/{account}/{kind}/{region}/{day:%Y/%m/%d}"
                    folder.mkdir(parents=True)
                    for number in range(files):
                        name = f"{account}_{kind}_{region}_{day:%Y%m%d}T{number:04}Z_x{number}.json.gz"
                        (folder / name).write_bytes(b"x" * number)
        other = root / f"AWSLogs/o-abc123/{account}/vpcflowlogs/eu-west-1/2026/02/15"
        other.mkdir(parents=True)
        (other / "flow.log.gz").touch()


def _names(root: Path, prefix: str, **span: object) -> list[tuple[str, int]]:
    """What the same files in a folder are listed as."""
    return sorted(
        (prefix + Path(info.path).relative_to(root).as_posix(), info.bytes)
        for info in list_local(str(root), span.get("days"))  # type: ignore[arg-type]
    )


@pytest.fixture
def trail(tmp_path: Path) -> Iterator[Path]:
    _trail(tmp_path / "trail", days=5)
    yield tmp_path / "trail"


def test_the_same_files_are_listed_as_in_a_folder(trail: Path, as_root: S3Server, bucket: str) -> None:
    strange = [
        "AWSLogs/o-abc123/111122223333/CloudTrail/eu-west-1/111122223333_copied.json.gz",
        "a b/100% ö.gz",
    ]
    for name in [*strange, "_temporary/part.gz", ".hidden/part.gz", "AWSLogs/README.md"]:
        (trail / name).parent.mkdir(parents=True, exist_ok=True)
        (trail / name).touch()
    as_root.upload(trail, bucket, "prefix/")
    as_root.client().put_object(Bucket=bucket, Key="prefix/AWSLogs/marker/", Body=b"")
    root = f"s3a://{bucket}/prefix"
    wanted = _names(trail, f"s3://{bucket}/prefix/")
    assert [(info.path, info.bytes) for info in list_objects(root)] == wanted
    recent = [one for one in _names(trail, f"s3://{bucket}/prefix/", days=RECENT) if "copied" not in one[0]]
    assert [(info.path, info.bytes) for info in list_objects(f"{root}/", RECENT)] == recent
    inner = f"{root}/AWSLogs/o-abc123/999988887777/CloudTrail/us-east-1"
    assert len(list_objects(inner, since=TODAY - timedelta(days=1))) == 4
    assert len(list_objects(inner, since=TODAY - timedelta(days=3), until=TODAY)) == 6
    assert len(list_objects(f"{inner}/2026/02", RECENT)) == 6
    assert len(list_objects(f"{inner}/2026/02/11", RECENT)) == 0
    (one,) = list_objects(wanted[-1][0], RECENT)
    assert (one.path, one.bytes) == wanted[-1]
    assert not list_objects(f"s3://{bucket}/nothing/here")


@pytest.mark.parametrize("span", [{"days": RECENT}, {"since": TODAY - timedelta(days=2)}])
def test_requests_follow_the_days_listed_and_not_the_history(
    as_root: S3Server, bucket: str, tmp_path: Path, span: dict[str, object]
) -> None:
    root, spent = f"s3://{bucket}/AWSLogs/o-abc123/", []
    for days in (3, 40):
        _trail(tmp_path / str(days), days)
        as_root.upload(tmp_path / str(days), bucket)
        as_root.requests()
        assert len(list_objects(root, **span)) == 3 * 2 * 2 * 2 * 2  # type: ignore[arg-type]
        spent.append(counted(as_root.requests()))
    print(f"requests of a listing {next(iter(span))}: {spent}")
    # The root; two accounts; logs and digests of each; two regions of each of these.
    assert spent[0] == spent[1] == {"ListObjectsV2": 1 + 2 + 4 + 8 * (1 if "days" in span else 2)}


def test_ten_thousand_objects_cost_their_pages(as_root: S3Server, bucket: str) -> None:
    region = as_root.folder / bucket / f"AWSLogs/{ACCOUNTS[0]}/CloudTrail/eu-west-1"
    for n in range(10_000):
        day = TODAY - timedelta(days=n % 10)
        folder = region / f"{day:%Y/%m/%d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{ACCOUNTS[0]}_CloudTrail_eu-west-1_{day:%Y%m%d}T0000Z_{n:016}.json.gz").touch()
    as_root.requests()
    assert len(list_objects(f"s3://{bucket}")) == 10_000
    spent = counted(as_root.requests())
    print(f"requests for 10,000 objects: {spent}")
    assert set(spent) == {"ListObjectsV2"}
    assert spent.total() <= 10_000 / 1000 + 6
    assert len(list_objects(f"s3://{bucket}", RECENT)) == 3_000
    assert counted(as_root.requests()).total() <= 3 + 6


def test_what_is_wrong_is_said(as_root: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="there is no such bucket"):
        list_objects("s3://no-such-bucket/AWSLogs")
    with pytest.raises(UsageError, match="names no bucket"):
        list_objects("s3:///AWSLogs")
    stranger = as_root.make_user("stranger")
    from raretrail import s3

    s3._client.cache_clear()
    for name, value in as_root.environment(stranger).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=r"AccessDenied: s3:ListBucket is not allowed"):
        list_objects(f"s3://{bucket}/AWSLogs/")
