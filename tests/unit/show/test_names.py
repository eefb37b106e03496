"""Principals as people say them."""

from __future__ import annotations

import pytest

from raretrail.show.names import place_of, short_principal, where_it_acted

ACCOUNT = "966487198478"


@pytest.mark.parametrize(
    ("principal", "kind", "short", "account"),
    [
        (f"arn:aws:iam::{ACCOUNT}:user/ana.costa", "user", "user/ana.costa", ACCOUNT),
        (f"arn:aws-cn:iam::{ACCOUNT}:user/eng/eu/ana.costa", "user", "user/ana.costa", ACCOUNT),
        (f"arn:aws:iam::{ACCOUNT}:root", "root", "root", ACCOUNT),
        (f"arn:aws:iam::{ACCOUNT}:role/team/deploy", "role", "role/deploy", ACCOUNT),
        (
            f"arn:aws:iam::{ACCOUNT}:role/team/admin/yusuf.becker",
            "person",
            "role/admin/yusuf.becker",
            ACCOUNT,
        ),
        (
            f"arn:aws:iam::{ACCOUNT}:role/aws-reserved/sso.amazonaws.com/eu-west-1/"
            "AWSReservedSSO_Power_User_34606b2e40ee197d/kofi@quillon.example",
            "person",
            "sso/Power_User/kofi@quillon.example",
            ACCOUNT,
        ),
        (
            "arn:aws:identitystore:::user/753a085a-a6dd-4d9c-8254-f229a309b7dd",
            "person",
            "sso-user/753a085a-a6dd-4d9c-8254-f229a309b7dd",
            "",
        ),
        (f"arn:aws:sts::{ACCOUNT}:federated-user/bo", "user", "federated-user/bo", ACCOUNT),
        ("lambda.amazonaws.com", "service", "lambda.amazonaws.com", ""),
        ("anonymous", "anonymous", "anonymous", ""),
    ],
)
def test_short_names(principal: str, kind: str, short: str, account: str) -> None:
    assert short_principal(principal, kind) == (short, account)


def test_accounts_begin_with_the_principals_own() -> None:
    row = {"recipient_account_ids": ["111122223333", ACCOUNT]}
    assert where_it_acted(row, ACCOUNT) == f"{ACCOUNT} and 1 more"
    assert where_it_acted({"recipient_account_id": ACCOUNT}) == ACCOUNT


def test_places_without_a_map_are_said_in_words() -> None:
    assert place_of({"place_name": "private", "geo_status": "private"}) == "a private address"
    assert place_of({"place_name": None, "geo_status": "not_found"}) == "an address on no map"
    assert place_of({"place_name": "Lisbon, PT"}) == "Lisbon, PT"
