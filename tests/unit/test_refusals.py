"""One account that may not be read holds back itself alone; nothing that may be read ends the run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from raretrail.cloudtrail.layout import Access, FileInfo, account_of, list_local
from raretrail.errors import RaretrailError, UsageError
from raretrail.quality.gate import FILE
from raretrail.quality.judge import Verdict
from raretrail.s3 import denied, expired
from raretrail.stages.check import is_told
from raretrail.stages.ingest import Ingested, heed_refusals, require_listed
from raretrail.stages.run import files_held, is_readable_again

ONE, OTHER = "111122223333", "999988887777"
DENIED = denied("s3:GetObject")


def path(account: str, name: str = "a") -> str:
    return f"s3://trail/AWSLogs/o-abc123/{account}/CloudTrail/eu-west-1/2026/02/15/{name}.json.gz"


def facts(**details: str) -> dict[str, dict[str, Any]]:
    """What a census says of one file for each account: its reason for not being read, or nothing."""
    return {
        path(account.strip("_")): {"status": "unreadable" if reason else "taken", "detail": reason or None}
        for account, reason in details.items()
    }


def test_one_of_two_accounts_is_noted_with_why() -> None:
    done = Ingested()
    heed_refusals(facts(**{f"_{ONE}": "", f"_{OTHER}": DENIED}), done, {ONE, OTHER})
    assert done.access.denied == {OTHER: f"{path(OTHER)}: {DENIED}"}


def test_the_only_new_file_being_refused_holds_back_its_account() -> None:
    """Of the other account nothing new came: nothing says that it may not be read."""
    done = Ingested()
    heed_refusals(facts(**{f"_{OTHER}": DENIED}), done, {ONE, OTHER})
    assert set(done.access.denied) == {OTHER}


def test_all_being_refused_ends_the_run() -> None:
    with pytest.raises(
        UsageError, match=r"^s3://trail/.*: AccessDenied: s3:GetObject .*; no file of the trail"
    ):
        heed_refusals(facts(**{f"_{ONE}": DENIED, f"_{OTHER}": DENIED}), Ingested(), {ONE, OTHER})
    flat = {"s3://trail/copy.json": {"status": "unreadable", "detail": DENIED}}
    with pytest.raises(UsageError, match="no file of the trail"):
        heed_refusals(flat, Ingested(), {None})


def test_expired_credentials_end_the_run_whatever_was_read_before() -> None:
    with pytest.raises(RaretrailError, match="the credentials have expired") as raised:
        heed_refusals(
            facts(**{f"_{ONE}": "", f"_{OTHER}": expired("ExpiredToken")}), Ingested(), {ONE, OTHER}
        )
    assert raised.value.exit_code == 1


def test_what_is_broken_is_no_refusal() -> None:
    done = Ingested()
    heed_refusals(facts(**{f"_{ONE}": "InternalError: We failed (asked 6 times)"}), done, {ONE})
    assert not done.access.denied


@pytest.mark.parametrize(
    "folder",
    ["AWSLogs/o-abc123/111122223333", "AWSLogs/111122223333/", "p/AWSLogs/o-abc123/111122223333/CloudTrail/",
     "AWSLogs/o-abc123/111122223333/CloudTrail/eu-west-1/2026/02/15/", "111122223333/CloudTrail/eu-west-1/"],
)  # fmt: skip
def test_an_account_s_folders_are_known(folder: str) -> None:
    assert account_of(folder) == ONE


@pytest.mark.parametrize("folder", ["", "AWSLogs/", "AWSLogs/o-abc123/", "p/"])
def test_what_lies_above_accounts_is_nobody_s(folder: str) -> None:
    assert account_of(folder) is None


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A trail in a folder of which one account's may not be listed, whoever runs this."""
    for account in (ONE, OTHER):
        file = tmp_path / path(account).removeprefix("s3://trail/")
        file.parent.mkdir(parents=True)
        file.touch()
    listing = os.scandir

    def scandir(folder: str) -> Any:
        if str(folder).endswith(OTHER):
            raise PermissionError(13, "Permission denied", folder)
        return listing(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    yield tmp_path


def test_a_folder_of_this_machine_that_may_not_be_listed_is_left_out(locked: Path) -> None:
    access, folder = Access(), f"{locked}/AWSLogs/o-abc123/{OTHER}"
    assert [ONE in info.path for info in list_local(str(locked), None, access)] == [True]
    assert access.denied == {OTHER: f"{folder}: Permission denied; make it readable or leave it out"}
    assert access.listed == {ONE}
    with pytest.raises(UsageError, match="Permission denied; make it readable or leave it out"):
        list_local(str(locked))


NOON = datetime(2026, 2, 15, 12, tzinfo=UTC)


def test_of_two_accounts_one_may_not_be_listed_and_the_other_has_nothing_new(locked: Path) -> None:
    access = Access()
    listed = list_local(str(locked), {datetime(2026, 3, 1).date()}, access)
    assert not listed and set(access.denied) == {OTHER}
    require_listed(access, listed)
    done = Ingested(access=access)
    heed_refusals(facts(**{f"_{OTHER}": DENIED}), done, access.listed)
    assert set(done.access.denied) == {OTHER}


def test_where_no_account_may_be_listed_the_run_ends() -> None:
    access = Access()
    access.allow(f"AWSLogs/o-abc123/{OTHER}/")
    access.deny(f"AWSLogs/o-abc123/{OTHER}/CloudTrail/eu-west-1/", DENIED)
    require_listed(access, [FileInfo(path(ONE), 9, NOON)])
    with pytest.raises(UsageError, match=r"^nothing of the trail may be listed: AWSLogs/.*s3:GetObject"):
        require_listed(access, [])


def test_files_that_were_held_since_everything_was_listed_are_read_again() -> None:
    file, account = f"{FILE}={path(ONE)}", f"recipient_account_id={OTHER}"
    scopes: list[list[str] | None] = [[f"{FILE}=before"], [file, account], None, ["all"]]
    runs = [
        {"started_at": NOON + timedelta(minutes=15 * at), "held_scopes": held}
        for at, held in enumerate(scopes)
    ]
    assert files_held(runs, NOON + timedelta(minutes=15)) == {path(ONE)}


def test_once_an_account_may_be_read_again_everything_is_listed() -> None:
    """Its files waited, and may be older than the days that a run lists."""

    def runs(*denied: int | None) -> list[dict[str, Any]]:
        """Runs of a quarter of an hour each; None is one that listed nothing."""
        counts = [{} if n is None else {"files_listed": 9, "accounts_denied": n} for n in denied]
        return [
            {"started_at": NOON + timedelta(minutes=15 * at), "counts": one} for at, one in enumerate(counts)
        ]

    assert not is_readable_again(runs(), NOON)
    assert not is_readable_again(runs(0, 0), NOON)
    assert not is_readable_again(runs(0, 1, 1), NOON), "until it may, what is new is enough"
    assert is_readable_again(runs(0, 1, 0), NOON)
    assert is_readable_again(runs(1, 0, None), NOON)
    assert not is_readable_again(runs(1, 0, 0), NOON + timedelta(minutes=15)), "everything was listed since"


def test_a_file_of_an_account_that_is_held_is_not_told_beside_it() -> None:
    def verdict(scope: str | None, value: str | None) -> Verdict:
        return Verdict("r", "ledger", "x", "critical", scope, value, False, 1, 1, 1, "", "{}", "", NOON)

    held = {OTHER: DENIED}
    assert is_told(verdict(FILE, path(OTHER)), held)
    assert not is_told(verdict(FILE, path(ONE)), held)
    assert not is_told(verdict(FILE, "copy.json"), held)
    assert not is_told(verdict("recipient_account_id", OTHER), held)
    assert not is_told(verdict(None, None), held)
