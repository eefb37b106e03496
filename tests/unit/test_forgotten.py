"""Who was forgotten is known again by keyed hashes, in records and in the words of others."""

from __future__ import annotations

import json
import pickle
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from factories import call, trail_file
from raretrail import tables
from raretrail.cloudtrail.decode import FileResult, census, decode_file
from raretrail.cloudtrail.forgotten import MARKER, Forgotten, Tombstone, hashed, is_word, key_id, pattern_of
from raretrail.cloudtrail.principals import PrincipalRules, load_rules
from raretrail.errors import UsageError
from raretrail.settings import default_conf_dir, load_settings
from raretrail.tables import DECODED_COLUMNS

KEY = b"0123456789abcdef"
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
AFTER = int(datetime(2026, 2, 1, tzinfo=UTC).timestamp() * 1e6)
HOME, OTHER = "87.210.98.182", "2001:db8::7"
ZELDA = "arn:aws:iam::111122223333:user/zelda.quist"


@pytest.fixture(scope="module")
def rules() -> PrincipalRules:
    return load_rules(default_conf_dir() / "principals.yml")


def forgotten(*names: tuple[str, str], account: str | None = None, before: int = AFTER) -> Forgotten:
    return Forgotten(KEY, [Tombstone(kind, hashed(KEY, kind, name), account, before) for kind, name in names])


def column(result: FileResult, name: str) -> list[Any]:
    return result.columns[[c.name for c in DECODED_COLUMNS].index(name)]


def read(stones: Forgotten, data: bytes, rules: PrincipalRules) -> tuple[FileResult, FileResult]:
    counted, whole = census("f", data), decode_file("f", data, rules=rules)
    stones.leave_out(counted, whole)
    whole = decode_file("f", data, rules=rules)
    stones.take_out(whole)
    return counted, whole


FOUND = [
    "{}", '"{}"', "user/{}", "{}@example.com", "AROAEXAMPLE:{}", r'{{\"userName\":\"{}\"}}', "a%2F{}",
    r"x\u002f{}", r"text\n{}", "by {}.", "({})", "arn:aws:s3:::{}", "user={}&x=1", "{}/32", "{}:443",
]  # fmt: skip
NOT_FOUND = ["{}x", "x{}", "x.{}", "{}-2", "x-{}", "{}.com", "_{}"]


@pytest.mark.parametrize("name", ["zelda", "zelda.quist", "zelda-q", HOME])
def test_words_are_searched_alike_by_names_and_by_hashes(name: str) -> None:
    """By pattern while a warehouse is cleaned, by hashes when the trail is read again."""
    pattern = re.compile(pattern_of([name]), re.IGNORECASE)
    stones = forgotten(("name", name))
    assert is_word(name)
    for text in FOUND:
        written, wanted = text.format(name.title()), text.format(MARKER)
        assert pattern.sub(MARKER, written) == wanted
        assert stones.without_names(written, None, 0) == wanted
    for text in NOT_FOUND:
        written = text.format(name)
        assert pattern.sub(MARKER, written) == written
        assert stones.without_names(written, None, 0) == written


def test_an_address_of_ipv6_is_one_word() -> None:
    stones, pattern = forgotten(("address", OTHER)), re.compile(pattern_of([OTHER]), re.IGNORECASE)
    for text, wanted in (
        (f'{{"cidr":"{OTHER}/128"}}', f'{{"cidr":"{MARKER}/128"}}'),
        (f"from {OTHER.upper()}.", f"from {MARKER}."),
        (f"{OTHER}:1", f"{OTHER}:1"),
        (f"1{OTHER}", f"1{OTHER}"),
    ):
        assert stones.without_names(text, None, 0) == wanted
        assert pattern.sub(MARKER, text) == wanted


def test_a_pattern_holds_nothing_but_the_name() -> None:
    assert not re.search(pattern_of(["a.c"]), "abc")
    assert re.search(pattern_of(["o'neil (x)"]), "for o'neil (x) only") and not is_word("o'neil (x)")


def test_records_of_the_forgotten_are_left_out_and_counted(rules: PrincipalRules) -> None:
    mention = {"requestParameters": {"userName": "Zelda.Quist", "note": "x"}}
    records = [
        call("zelda.quist", "iam:GetUser", HOME, NOON),
        call("ben", "iam:DeleteUser", HOME, NOON, **mention),
        {
            "eventVersion": "1.08",
            "eventName": "X",
            "eventTime": "soon",
            "userIdentity": {"userName": "zelda.quist"},
        },
        {"eventVersion": "1.08", "eventName": "X", "eventTime": "soon", "userIdentity": {"userName": "ben"}},
    ]
    stones = forgotten(("actor", "zelda.quist"), ("name", "zelda.quist"))
    counted, whole = read(pickle.loads(pickle.dumps(stones)), trail_file(records), rules)
    assert (counted.records, counted.forgotten, counted.accepted, len(counted.quarantined)) == (4, 2, 1, 1)
    assert counted.columns[1] == [1], "its position stays what it is"
    assert column(whole, "source_position") == [1]
    assert json.loads(column(whole, "request_parameters")[0]) == {"userName": MARKER, "note": "x"}


@pytest.mark.parametrize(
    ("kind", "name"), [("actor", "zelda.quist"), ("principal", ZELDA), ("address", HOME)]
)
def test_a_record_is_known_by_actor_principal_or_address(kind: str, name: str, rules: PrincipalRules) -> None:
    data = trail_file(
        [call("zelda.quist", "iam:GetUser", HOME, NOON), call("ben", "iam:GetUser", OTHER, NOON)]
    )
    counted, whole = read(forgotten((kind, name)), data, rules)
    assert (counted.forgotten, column(whole, "user_identity_user_name")) == (1, ["ben"])


def test_only_what_came_before_and_in_the_account_is_left_out(rules: PrincipalRules) -> None:
    data = trail_file([call("zelda.quist", "iam:GetUser", HOME, NOON)])
    noon = int(NOON.timestamp() * 1e6)
    for account, before, gone in (
        (None, noon + 1, 1), (None, noon, 0), ("111122223333", AFTER, 1), ("999", AFTER, 0),
    ):  # fmt: skip
        stones = forgotten(("actor", "zelda.quist"), account=account, before=before)
        assert read(stones, data, rules)[0].forgotten == gone


def test_hashes_tell_nothing_without_the_key() -> None:
    assert hashed(KEY, "actor", "zelda") == hashed(KEY, "actor", "ZELDA")
    assert (
        len(
            {hashed(KEY, "actor", "zelda"), hashed(KEY, "name", "zelda"), hashed(b"x" * 16, "actor", "zelda")}
        )
        == 3
    )
    assert key_id(KEY) != key_id(b"x" * 16)


def test_every_column_of_text_says_what_it_holds() -> None:
    """One that does not would be left as it is when somebody is forgotten, and shown to whoever asks."""
    unsaid = [
        f"{table.name}.{column.name}"
        for table in tables.ALL
        for column in table.columns
        if ("string" in column.type) != (column.holds is not None)
    ]
    assert not unsaid, "say in tables._HOLDS whether they hold a person, an address or words"
    assert tables._c("nickname", "string", "A new one").holds is None
    assert set(tables._HOLDS) <= {column.name for table in tables.ALL for column in table.columns}


def test_tombstones_and_receipts_are_kept_for_ever() -> None:
    for name in ("tombstones", "forgettings"):
        with pytest.raises(UsageError, match=f"'{name}' is none of the tables with days"):
            load_settings(options={"retention": {name: 30}})
