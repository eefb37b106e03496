from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from raretrail.cloudtrail.layout import (
    PathFacts,
    day_of_delivery,
    describe,
    is_candidate,
    list_local,
)
from raretrail.errors import UsageError

NAME = "123456789012_CloudTrail_eu-west-1_20240301T0930Z_aBcDeFgHiJkLmNoP.json.gz"
FOLDERS = "123456789012/CloudTrail/eu-west-1/2024/03/01"
DELIVERED = PathFacts("log", "123456789012", "eu-west-1", date(2024, 3, 1))


@pytest.mark.parametrize(
    "path",
    [
        f"/trail/AWSLogs/{FOLDERS}/{NAME}",
        f"s3://bucket/AWSLogs/{FOLDERS}/{NAME}",
        f"s3a://bucket/a/prefix/of/2019/01/02/AWSLogs/{FOLDERS}/{NAME}",
        f"abfss://c@acct.dfs.core.windows.net/AWSLogs/o-exampleorgid/{FOLDERS}/{NAME}",
        f"file:/trail/AWSLogs/o-abcd/{FOLDERS}/{NAME}",
        f"s3://aws-controltower-logs-1-eu-west-1/o-exampleorgid/AWSLogs/o-exampleorgid/{FOLDERS}/{NAME}",
        f"s3://aws-controltower-logs-1-eu-west-1/o-exampleorgid/AWSLogs/{FOLDERS}/{NAME}",
        f"/copy/of/{FOLDERS}/{NAME}",
        f"C:\\trail\\AWSLogs\\{FOLDERS}\\{NAME}".replace("/", "\\"),
    ],
)
def test_delivered_file_wherever_the_trail_lies(path: str) -> None:
    assert describe(path) == DELIVERED


def test_name_alone() -> None:
    assert describe(NAME) == DELIVERED


def test_region_folder_with_underscores() -> None:
    path = "AWSLogs/811596193553/CloudTrail/us_east_1/2017/02/12/flaws_cloudtrail00.json"
    assert describe(path) == PathFacts("log", "811596193553", "us-east-1", date(2017, 2, 12))


def test_name_without_separator_zone_and_unique_part() -> None:
    facts = describe("811596193553_CloudTrail_us-east-1-20200930T2200.json")
    assert facts == PathFacts("log", "811596193553", "us-east-1", date(2020, 9, 30))


def test_account_of_the_folder_goes_before_that_of_the_name() -> None:
    path = f"AWSLogs/999999999999/CloudTrail/eu-west-1/2024/03/01/{NAME}"
    assert describe(path).account == "999999999999"


@pytest.mark.parametrize(
    ("service", "kind"),
    [
        ("CloudTrail", "log"),
        ("CloudTrail-Digest", "digest"),
        ("CloudTrail-Insight", "insight"),
        ("elasticloadbalancing", "other"),
        ("vpcflowlogs", "other"),
        ("Config", "other"),
        ("WAFLogs", "other"),
    ],
)
@pytest.mark.parametrize("organization", ["", "o-exampleorgid/"])
def test_kind_by_the_service_folder(service: str, kind: str, organization: str) -> None:
    path = f"s3://b/AWSLogs/{organization}123456789012/{service}/eu-west-1/2024/03/01/x.json.gz"
    assert describe(path).kind == kind


def test_digest_known_by_its_name() -> None:
    name = "123456789012_CloudTrail-Digest_us-east-1_my-trail_us-east-1_20240301T093000Z.json.gz"
    assert describe(f"/tmp/{name}")[:3] == ("digest", "123456789012", "us-east-1")


@pytest.mark.parametrize("path", ["", "/", "events.json", "/data/2024/13/40/x", "AWSLogs/x"])
def test_path_that_says_nothing(path: str) -> None:
    assert describe(path) == PathFacts("log", None, None, None)


def test_day_of_delivery_falls_back_to_the_time_of_the_file() -> None:
    modified = datetime(2024, 3, 2, 0, 5, tzinfo=UTC)
    assert day_of_delivery("events.json", modified) == date(2024, 3, 2)
    assert day_of_delivery(f"AWSLogs/{FOLDERS}/{NAME}", modified) == date(2024, 3, 1)


@pytest.mark.parametrize(
    "name",
    ["a.json", "a.json.gz", "a.gz", "a.jsonl", "a.csv", "a", "GetUser.json.cloudtrail", "a.log"],
)
def test_candidates(name: str) -> None:
    assert is_candidate(name)


@pytest.mark.parametrize(
    "name",
    [
        "_SUCCESS",
        ".DS_Store",
        ".a.json.crc",
        "LICENSE",
        "LICENSE.txt",
        "README.md",
        "a.PNG",
        "x.py",
    ],
)
def test_not_candidates(name: str) -> None:
    assert not is_candidate(name)


def _make(root: Path, *files: str) -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def _listed(root: Path, days: set[date] | None = None) -> list[str]:
    return [os.path.relpath(info.path, root) for info in list_local(str(root), days)]


def test_list_local_is_sorted_and_leaves_out_other_services(tmp_path: Path) -> None:
    account = "AWSLogs/123456789012"
    _make(
        tmp_path,
        f"{account}/CloudTrail/eu-west-1/2024/03/02/b.json",
        f"{account}/CloudTrail/eu-west-1/2024/03/01/a.json",
        f"{account}/CloudTrail-Digest/eu-west-1/2024/03/01/d.json.gz",
        f"{account}/vpcflowlogs/eu-west-1/2024/03/01/v.log.gz",
        "_temporary/0/part.json",
        "plain.json",
        "_SUCCESS",
    )
    assert _listed(tmp_path) == [
        f"{account}/CloudTrail-Digest/eu-west-1/2024/03/01/d.json.gz",
        f"{account}/CloudTrail/eu-west-1/2024/03/01/a.json",
        f"{account}/CloudTrail/eu-west-1/2024/03/02/b.json",
        "plain.json",
    ]


def test_list_local_enters_only_the_days_asked_for(tmp_path: Path) -> None:
    trail = "AWSLogs/o-abcd/123456789012/CloudTrail/eu-west-1"
    _make(
        tmp_path,
        f"{trail}/2023/12/31/a.json",
        f"{trail}/2024/02/29/b.json",
        f"{trail}/2024/03/01/c.json",
        f"{trail}/2024/03/02/d.json",
        "elsewhere/e.json",
    )
    assert _listed(tmp_path, {date(2024, 3, 1)}) == [
        f"{trail}/2024/03/01/c.json",
        "elsewhere/e.json",
    ]
    assert _listed(tmp_path, {date(2023, 12, 31), date(2024, 3, 2)}) == [
        f"{trail}/2023/12/31/a.json",
        f"{trail}/2024/03/02/d.json",
        "elsewhere/e.json",
    ]


def test_list_local_survives_links_in_a_circle(tmp_path: Path) -> None:
    _make(tmp_path, "a/x.json")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    assert _listed(tmp_path) == ["a/x.json"]


def test_list_local_of_a_file_and_of_nothing(tmp_path: Path) -> None:
    _make(tmp_path, "_odd.md")
    [info] = list_local(str(tmp_path / "_odd.md"))
    assert info.bytes == 2
    assert info.modified_at.tzinfo is UTC
    with pytest.raises(UsageError, match="nowhere"):
        list_local(str(tmp_path / "nowhere"))


def test_what_lies_beside_a_trail_is_left_alone(tmp_path: Path) -> None:
    """Results of CloudTrail Lake's queries, Config's snapshots of Control Tower."""
    beside = [
        "AWSLogs/123456789012/CloudTrail-Lake/Query/2024/03/01/0b3e7c1e/result_1.csv.gz",
        "AWSLogs/123456789012/CloudTrail-Lake/Query/2024/03/01/0b3e7c1e/result_sign.json",
        "o-exampleorgid/AWSLogs/o-exampleorgid/123456789012/Config/eu-west-1/2024/3/1/ConfigSnapshot/x.json.gz",
    ]
    delivered = f"o-exampleorgid/AWSLogs/o-exampleorgid/{FOLDERS}/{NAME}"
    for name in (*beside, delivered):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    assert {describe(f"s3://bucket/{name}").kind for name in beside} == {"other"}
    for days in (None, {date(2024, 3, 1)}):
        assert [info.path for info in list_local(str(tmp_path), days)] == [str(tmp_path / delivered)]
