from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import geoip2.database
import pytest

from raretrail.errors import UsageError
from raretrail.simulate import CAMPAIGN_KINDS, INNOCENT_KINDS, Mix, Shape, Summary, simulate
from raretrail.simulate.campaigns import KINDS, Intrusion

TINY = Shape(
    seed=3, people=16, days=24, judged_days=12, accounts=3, campaigns=CAMPAIGN_KINDS,
    events_per_person_day=8, robot_activity=0.4, mix=Mix(travellers=4),
)  # fmt: skip
Played = tuple[Summary, dict[str, Any]]
LIB = Path(__file__).parents[2] / "lib"
FILE_NAME = re.compile(
    r"AWSLogs/o-[a-z0-9]{10}/(\d{12})/CloudTrail/([a-z0-9-]+)/(\d{4})/(\d\d)/(\d\d)/"
    r"\1_CloudTrail_\2_(\d{8})T(\d{4})Z_[A-Za-z0-9]{16}\.json\.gz$"
)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    summary = simulate(tmp_path_factory.mktemp("simulate") / "org", TINY)
    return summary, json.loads((summary.out / "labels.json").read_text())


@pytest.fixture(scope="module")
def records(played: Played) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted((played[0].out / "trail").rglob("*.gz")):
        found += json.loads(gzip.decompress(path.read_bytes()))["Records"]
    return found


def digest(out: Path) -> dict[str, str]:
    return {
        str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(out.rglob("*")) if p.is_file()
    }  # fmt: skip


def small(**changes: Any) -> Shape:
    shape = Shape(
        seed=5, people=5, days=6, judged_days=3, accounts=2, campaigns=2, robot_activity=0.2,
        events_per_person_day=5,
    )  # fmt: skip
    return replace(shape, **changes)


def test_same_seed_gives_the_same_bytes_whatever_the_hash_seed(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from raretrail.simulate import Shape, simulate;"
        "simulate(Path(sys.argv[1]), Shape(seed=5, people=5, days=6, judged_days=3, accounts=2,"
        " campaigns=2, robot_activity=0.2, events_per_person_day=5))"
    )
    for name in ("0", "4711"):
        env = {**os.environ, "PYTHONHASHSEED": name, "PYTHONPATH": str(LIB), "TZ": f"UTC{name[0]}"}
        subprocess.run([sys.executable, "-c", script, str(tmp_path / name)], check=True, env=env)
    assert digest(tmp_path / "0") == digest(tmp_path / "4711")
    assert len(digest(tmp_path / "0")) > 10
    simulate(tmp_path / "other", small(seed=6))
    assert digest(tmp_path / "0") != digest(tmp_path / "other")


def test_files_lie_where_cloudtrail_puts_them(played: Played) -> None:
    summary, _ = played
    paths = [p.relative_to(summary.out / "trail").as_posix() for p in (summary.out / "trail").rglob("*.gz")]
    assert len(paths) == summary.files
    late = 0
    for path in paths:
        match = FILE_NAME.match(path)
        assert match, path
        account, region, *day, stamp, clock = match.groups()
        assert "".join(day) == stamp
        sent = datetime.strptime(stamp + clock, "%Y%m%d%H%M")
        content = json.loads(gzip.decompress((summary.out / "trail" / path).read_bytes()))
        for record in content["Records"]:
            assert record["recipientAccountId"] == account
            assert record["awsRegion"] == region
            at = datetime.fromisoformat(record["eventTime"]).replace(tzinfo=None)
            assert at <= sent + timedelta(minutes=1)
            late += at.date() < sent.date()
    assert late > 0, "some events must lie in the next day's folder"


def test_ids_are_unique_save_redeliveries(played: Played, records: list[dict[str, Any]]) -> None:
    summary, _ = played
    by_id = Counter((r["recipientAccountId"], r["eventID"]) for r in records)
    assert len(by_id) == summary.events
    assert len(records) == summary.records
    assert 0 < summary.redelivered < 0.02 * summary.events
    assert len({r["eventID"] for r in records}) == summary.events
    again = [k for k, n in by_id.items() if n > 1]
    for key in again:
        copies = {json.dumps(r) for r in records if (r["recipientAccountId"], r["eventID"]) == key}
        assert len(copies) == 1


def test_events_lie_within_the_span(records: list[dict[str, Any]]) -> None:
    times = [r["eventTime"][:10] for r in records]
    assert min(times) == TINY.start.isoformat()
    assert max(times) == (TINY.end - timedelta(days=1)).isoformat()


def test_every_kind_is_played_and_its_events_are_in_the_trail(
    played: Played, records: list[dict[str, Any]]
) -> None:
    summary, labels = played
    assert labels["campaigns"] == list(summary.campaigns)
    assert sorted(c["kind"] for c in labels["campaigns"]) == sorted(CAMPAIGN_KINDS)
    by_id = {r["eventID"]: r for r in records}
    owned: set[str] = set()
    for label in labels["campaigns"]:
        ids = set(label["event_ids"])
        assert ids and ids <= by_id.keys()
        assert not ids & owned, "no event belongs to two campaigns"
        owned |= ids
        events = [by_id[i] for i in label["event_ids"]]
        addresses = {p["address"] for p in label["from"]}
        assert {e["sourceIPAddress"] for e in events} == addresses
        assert min(e["eventTime"] for e in events) == label["first_time"]
        assert max(e["eventTime"] for e in events) == label["last_time"]
        arns = {e["userIdentity"].get("arn") for e in events}
        assert set(label["principal_arns"]) <= arns
        assert label["victim"] in label["description"]
    # Nobody else calls from an intruder's address.
    attack = {p["address"] for c in labels["campaigns"] for p in c["from"]}
    assert {r["eventID"] for r in records if r["sourceIPAddress"] in attack} == owned


def test_campaigns_begin_in_the_judged_days_one_a_day(played: Played) -> None:
    _, labels = played
    days = [c["first_time"][:10] for c in labels["campaigns"]]
    assert min(days) >= TINY.judged_from.isoformat()
    assert len(set(days)) == len(days)


def test_innocent_kinds_are_labelled_and_their_events_exist(
    played: Played, records: list[dict[str, Any]]
) -> None:
    _, labels = played
    kinds = {i["kind"] for i in labels["innocents"]}
    assert kinds >= set(INNOCENT_KINDS) - {"monthly_housekeeping", "incident_response", "new_exits"}
    ids = {r["eventID"] for r in records}
    for label in labels["innocents"]:
        assert set(label.get("event_ids", ())) <= ids


def test_knobs_at_zero_leave_the_troubles_out(tmp_path: Path) -> None:
    calm = Mix(**{kind: 0.0 for kind in INNOCENT_KINDS})
    summary = simulate(tmp_path / "calm", small(mix=calm))
    assert summary.innocents == ()
    text = b"".join(gzip.decompress(p.read_bytes()) for p in (tmp_path / "calm").rglob("*.gz")).decode()
    assert "cloudtrail.amazonaws.com" not in text.replace('cloudtrail.amazonaws.com","eventName', "")
    assert "vpcEndpointId" not in text
    assert not (tmp_path / "calm/city-moved.mmdb").exists()


def test_addresses_resolve_where_labels_and_databases_claim(
    played: Played, records: list[dict[str, Any]]
) -> None:
    summary, labels = played
    city_db = str(files("_geoip_geolite2") / "GeoLite2-City.mmdb")
    with (
        geoip2.database.Reader(city_db) as city,
        geoip2.database.Reader(summary.out / "asn.mmdb") as asn,
        geoip2.database.Reader(summary.out / "city-moved.mmdb") as moved,
    ):
        for label in labels["campaigns"]:
            for place in label["from"]:
                found = city.city(place["address"])
                assert found.city.geoname_id == place["city_geoname_id"]
                assert found.city.name == place["city"]
                assert found.country.iso_code == place["country"]
                assert found.location.accuracy_radius <= 50
                network = asn.asn(place["address"])
                assert network.autonomous_system_number == place["as_number"]
                assert network.autonomous_system_organization == place["as_organization"]
        public = {
            r["sourceIPAddress"] for r in records
            if re.match(r"\d", r["sourceIPAddress"]) and not r["sourceIPAddress"].startswith("10.")
        }  # fmt: skip
        assert len(public) > 50
        new_city = {m["network"].removesuffix(".0/24"): m["to_geoname_id"] for m in labels["geo_moves"]}
        assert new_city
        for address in public:
            before = city.city(address)
            asn.asn(address)
            after = moved.city(address)
            expected = new_city.get(address.rsplit(".", 1)[0], before.city.geoname_id)
            assert after.city.geoname_id == expected
            assert after.country.iso_code == before.country.iso_code
        assert moved.metadata().build_epoch == int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())


def test_records_are_faithful(records: list[dict[str, Any]]) -> None:
    always = {
        "eventVersion", "userIdentity", "eventTime", "eventSource", "eventName", "awsRegion",
        "sourceIPAddress", "userAgent", "requestParameters", "responseElements", "eventID",
        "readOnly", "eventType", "managementEvent", "recipientAccountId", "eventCategory",
    }  # fmt: skip
    types = set()
    for record in records:
        assert always <= record.keys()
        assert record["eventVersion"] in ("1.08", "1.09", "1.10", "1.11")
        who = record["userIdentity"]
        types.add(who["type"])
        if who["type"] == "AssumedRole":
            issuer = who["sessionContext"]["sessionIssuer"]
            assert who["principalId"].startswith(issuer["id"] if "id" in issuer else issuer["principalId"])
            assert who["sessionContext"]["attributes"]["creationDate"] <= record["eventTime"]
        if who["type"] == "AWSService":
            assert record["sourceIPAddress"] == who["invokedBy"]
    assert types >= {
        "AssumedRole", "IAMUser", "AWSService", "AWSAccount", "SAMLUser", "WebIdentityUser",
        "IdentityCenterUser", "FederatedUser",
    }  # fmt: skip


def test_keys_keep_to_their_session_and_chains_can_be_followed(
    records: list[dict[str, Any]],
) -> None:
    owner: dict[str, set[str]] = {}
    issued: dict[str, str] = {}
    for record in records:
        who = record["userIdentity"]
        if who.get("accessKeyId"):
            owner.setdefault(who["accessKeyId"], set()).add(who["arn"])
        if record["eventName"].startswith("AssumeRole") and record["responseElements"]:
            response = record["responseElements"]
            issued[response["credentials"]["accessKeyId"]] = response["assumedRoleUser"]["arn"]
    assert all(len(arns) == 1 for arns in owner.values())
    followed = issued.keys() & owner.keys()
    assert len(followed) > 50
    for key in followed:
        assert owner[key] == {issued[key]}


def test_cross_account_calls_are_logged_twice_under_one_shared_id(
    records: list[dict[str, Any]],
) -> None:
    shared: dict[str, set[str]] = {}
    for record in records:
        if record["eventName"] == "AssumeRole" and "sharedEventID" in record:
            shared.setdefault(record["sharedEventID"], set()).add(record["recipientAccountId"])
    assert any(len(accounts) == 2 for accounts in shared.values())


def test_stolen_session_key_is_used_in_two_places_while_it_holds(
    played: Played, records: list[dict[str, Any]]
) -> None:
    _, labels = played
    label = next(c for c in labels["campaigns"] if c["kind"] == "session_key_two_places")
    ids = set(label["event_ids"])
    keys = {r["userIdentity"]["accessKeyId"] for r in records if r["eventID"] in ids}
    assert len(keys) == 1
    others = {
        r["sourceIPAddress"] for r in records
        if r["userIdentity"].get("accessKeyId") in keys and r["eventID"] not in ids
    }  # fmt: skip
    assert others and not others & {p["address"] for p in label["from"]}


def test_made_identity_exists_only_through_the_intruder(
    played: Played, records: list[dict[str, Any]]
) -> None:
    _, labels = played
    label = next(c for c in labels["campaigns"] if c["kind"] == "intruder_made_identity")
    made = label["principal_arns"][-1]
    own = [r for r in records if r["userIdentity"].get("arn") == made]
    assert own and {r["eventID"] for r in own} <= set(label["event_ids"])
    created = [
        r for r in records
        if r["eventName"] == "CreateAccessKey" and r["eventID"] in set(label["event_ids"])
    ]  # fmt: skip
    keys = {r["responseElements"]["accessKey"]["accessKeyId"] for r in created}
    assert keys == {r["userIdentity"]["accessKeyId"] for r in own}


@pytest.mark.parametrize("naming", ["sso", "federated", "opaque", "iam_users"])
@pytest.mark.parametrize("addresses", ["offices", "roaming"])
def test_other_shapes_play(tmp_path: Path, naming: str, addresses: str) -> None:
    summary = simulate(tmp_path / "org", small(naming=naming, addresses=addresses, accounts=1, offices=1))
    assert len(summary.campaigns) == 2
    assert summary.events > 50


def test_wrong_shapes_and_full_directories_are_refused(tmp_path: Path) -> None:
    for wrong in (
        {"people": 1}, {"days": 2}, {"judged_days": 99}, {"accounts": 0}, {"naming": "x"},
        {"campaigns": ("nothing",)}, {"mix": Mix(travellers=-1)}, {"slot_minutes": 240},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            small(**wrong)
    (tmp_path / "something").write_text("")
    with pytest.raises(UsageError, match="not an empty directory"):
        simulate(tmp_path, small())


def test_every_published_kind_has_its_campaign() -> None:
    assert tuple(KINDS) == CAMPAIGN_KINDS


def test_default_shape_ends_when_it_says() -> None:
    assert Shape().start == date(2026, 1, 25)
    assert Shape().campaign_count == 7


def test_intrusions_of_ones_own_are_played_and_labelled(tmp_path: Path) -> None:
    def knock(intrusion: Intrusion) -> None:
        intrusion.sit(intrusion.city_where(intrusion.far_from_victim))
        session, account, at = intrusion.stolen(intrusion.start())
        intrusion.act(session, account, at, ["iam:ListUsers"], 10, 0)

    out = simulate(tmp_path / "org", small(), {"knock:one": knock, "knock:two": knock}).out
    labels = json.loads((out / "labels.json").read_text())
    assert sorted(c["kind"] for c in labels["campaigns"]) == ["knock:one", "knock:two"]
    assert all(c["event_ids"] and "iam:ListUsers" in c["commands"] for c in labels["campaigns"])
