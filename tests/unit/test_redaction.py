"""Secrets do not leave the reader, wherever they stand; all else does, byte for byte."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import record, to_json, trail_file
from raretrail.cloudtrail.decode import FileResult, census, decode_file, events_batch, quarantine_batch
from raretrail.cloudtrail.documents import Limits
from raretrail.cloudtrail.principals import load_rules
from raretrail.cloudtrail.redaction import MARKER, default_redaction, load_redaction
from raretrail.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
RULES = load_rules(ROOT / "conf" / "principals.yml")
REDACTION = default_redaction()

# Made up, but of the real forms.
PASSWORD = "correct-horse-9-battery"
KEY = "wJalrXUtnFEMIzK7MDENGzbPxRfiCYzEXAMPLEKEY"[:40]
ID = "AKIAIOSFODNN7EXAMPLE"
SESSION = "IQoJb3JpZ2luX2VjEHoaCXVzLWVhc3QtMSJHMEUCIQDnotreal" + "Ab3/" * 40 + "=="
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.c2lnbmF0dXJlLXBsYW50ZWQ"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEplantedplantedplanted\nAAAA\n-----END RSA PRIVATE KEY-----"
NAMED = {
    "sessionToken": SESSION,
    "secretAccessKey": KEY,
    "password": PASSWORD,
    "masterUserPassword": PASSWORD,
    "SecretString": PASSWORD,
    "privateKey": PEM,
    "x-amz-security-token": SESSION,
    "X-Amz-Signature": KEY,
    "client_secret": PASSWORD,
    "DB-PASSWORD": PASSWORD,
    "x-api-key": PASSWORD,
    "Authorization": f"Basic {base64.b64encode(PASSWORD.encode()).decode()}",
}
LOOKS = {"jwt": JWT, "pem": PEM, "session": SESSION, "pair": f"{ID}:{KEY}"}
# No row may hold any of these.
PLANTED = [PASSWORD, KEY, SESSION[:40], SESSION[60:100], "eyJzdWIi", "plantedplanted",
           base64.b64encode(PASSWORD.encode()).decode()]  # fmt: skip


def rows(data: bytes, **options: Any) -> str:
    """All that leaves the two readings of a file, as text, once they agree and balance."""
    full = decode_file("f.json", data, rules=RULES, **options)
    counted = census("f.json", data, **options)
    assert full.records == full.accepted + len(full.quarantined)
    assert counted.quarantined == full.quarantined
    batches = [events_batch([full]), quarantine_batch([full]), quarantine_batch([counted])]
    text = "\n".join(str(value) for batch in batches for row in batch.to_pylist() for value in row.values())
    return text + repr(counted.columns) + repr(full.detail)


def assert_clean(text: str) -> None:
    for planted in PLANTED:
        assert planted not in text, text[max(0, text.index(planted) - 200) :][:400]


def positions(made: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every leaf of a record."""
    if isinstance(made, dict):
        for key, value in made.items():
            yield from positions(value, (*at, key))
    elif isinstance(made, list):
        for i, value in enumerate(made):
            yield from positions(value, (*at, i))
    else:
        yield at


def planted_at(made: dict[str, Any], at: tuple[Any, ...], value: Any) -> dict[str, Any]:
    made = copy.deepcopy(made)
    inside: Any = made
    for key in at[:-1]:
        inside = inside[key]
    inside[at[-1]] = value
    return made


FULL = record(
    errorCode="AccessDenied",
    errorMessage="no",
    requestParameters={"a": "x", "list": ["x", {"b": "x"}]},
    responseElements={"credentials": {"accessKeyId": ID}},
    additionalEventData={"a": "x"},
    serviceEventDetails={"a": "x"},
    resources=[{"ARN": "x"}],
    tlsDetails={"cipherSuite": "x"},
    addendum={"reason": "x"},
    eventContext={"a": "x"},
    sharedEventID="x",
    vpcEndpointId="x",
    apiVersion="x",
)


@pytest.mark.parametrize("at", list(positions(FULL)), ids=str)
def test_looks_are_taken_out_of_every_position(at: tuple[Any, ...]) -> None:
    for look in LOOKS.values():
        for value in (look, f"before {look} after", {"k": look}, [look], {look: 1}):
            assert_clean(rows(to_json({"Records": [FULL, planted_at(FULL, at, value), FULL]})))


@pytest.mark.parametrize("at", sorted({at[:-1] for at in positions(FULL)}, key=str), ids=str)
@pytest.mark.parametrize("name", list(NAMED))
def test_names_are_found_in_every_object(at: tuple[Any, ...], name: str) -> None:
    inside: Any = FULL
    for key in at:
        inside = inside[key]
    secret = NAMED[name]
    for value in (secret, [secret], {"a": {"b": secret}}, {"name": name, "value": secret}):
        held = {name: value} if value is secret or "name" not in value else value
        put = {**inside, **held} if isinstance(inside, dict) else [*inside, held]
        text = rows(to_json({"Records": [planted_at(FULL, at, put) if at else put]}))
        assert_clean(text)
        assert MARKER in text or at == ("userIdentity",), "of an identity only known fields are kept"


@pytest.mark.parametrize("name", list(NAMED))
@pytest.mark.parametrize(
    "template",
    [
        '{"%s":"%s"}',
        "%s=%s",
        "export %s='%s' && run",
        "--%s %s --other",
        "<%s>%s</x>",
        "%s: %s",
        "https://host/path?x=1&%s=%s&y=2",
        '[{"name":"%s","value":"%s"}]',
    ],
)
def test_names_are_found_in_text_and_in_json_inside_of_text(name: str, template: str) -> None:
    text = template % (name, PASSWORD)
    deeper = json.dumps({"inner": json.dumps({"innermost": text})})
    for value in (text, deeper):
        for made in (record(requestParameters={"command": value}), record(errorMessage=value)):
            assert_clean(rows(trail_file([made])))


def test_a_value_before_its_name_goes_too() -> None:
    pair = {"value": {"v": [PASSWORD]}, "parameterKey": "DBPassword"}
    text = rows(trail_file([record(requestParameters={"parameters": [pair, {"value": "kept"}]})]))
    assert_clean(text)
    assert "kept" in text


def test_names_spelt_with_escapes_are_found() -> None:
    data = to_json(record(requestParameters={"password": PASSWORD}))
    spelt = data.replace(b'"password"', rb'"p\u0061ssw\u006frd"')
    assert spelt != data
    assert_clean(rows(spelt))


@pytest.mark.parametrize("name", ["token", "TOKEN", "_token", "session_Token", "idToken", "x-api-key"])
@pytest.mark.parametrize(
    "before", ["", "\\n", "\\r", "\\t", "\\u000a", "a ", "--", '\\"', "?a=b&", "été ", ", x: {", "/"]
)
def test_a_column_finds_what_a_document_finds(name: str, before: str) -> None:
    """Arrow's matcher goes over a column; a name may follow on an escape."""
    text = f'{{"text":"{before}{name}={PASSWORD}","next{name}":"kept"}}'.encode()
    wanted = REDACTION.document(text)
    assert PASSWORD.encode() not in wanted
    found = REDACTION.column([text, None], pa.array([text, None], pa.string()))
    assert found == [wanted, None]


def test_pages_of_a_listing_are_no_secrets() -> None:
    text = b'{"maxResults":50,"nextToken":"c3a012d3ad2a487222fb49e3b69672ad"}'
    assert REDACTION.column([text], pa.array([text], pa.string())) is None


def test_what_is_set_aside_is_redacted_too() -> None:
    made = record(responseElements={"credentials": {"sessionToken": SESSION}}, eventTime="never")
    whole = to_json({"Records": [made]})
    assert_clean(rows(whole))
    assert "bad_event_time" in rows(whole)
    good = record(requestParameters={"password": PASSWORD}, responseElements={"sessionToken": SESSION})
    text = to_json({"Records": [good, good]})
    for cut in range(len(text) // 2, len(text), 7):
        assert_clean(rows(text[:cut]))
        assert_clean(rows(text[len(text) - cut :]))
    for limit in (300, 900, 1_000, 1_100):
        assert_clean(rows(text, limits=Limits(record=200, raw=limit)))
    assert_clean(rows(b"name,password,x\n" + f'a,b,"{{""password"":""{PASSWORD}""}}"\n'.encode()))
    lookup = to_json({"Events": [{"CloudTrailEvent": json.dumps(good)}]})
    assert_clean(rows(lookup))
    assert_clean(rows(lookup[:-60]))
    assert_clean(rows(to_json([json.dumps(good)])))


def test_access_key_ids_and_what_only_sounds_secret_stay() -> None:
    kept = {
        "accessKeyId": ID,
        "nextToken": "page-two-of-many",
        "clientRequestToken": "0b3e7c1e-0000-4000-8000-000000000000",
        "secretId": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/portal/api-r3vRUO",
        "passwordResetRequired": True,
        "password": None,
        "maxPasswordAge": 90,
        "names": ["/development/catalogue/token"],
        "policy": '{"Statement":[{"Action":"secretsmanager:GetSecretValue","Resource":"*"}]}',
        "newPassword": "HIDDEN_DUE_TO_SECURITY_REASONS",
        "CredentialType": "PASSWORD,TOTP",
        "keyId": "arn:aws:kms:eu-west-1:123456789012:key/0b3e7c1e-0000-4000-8000-000000000000",
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    }
    [found] = events_batch([read(record(requestParameters=kept))]).to_pylist()
    assert found["request_parameters"] == to_json(kept).decode()
    assert found["access_key_id"] == "ASIAEXAMPLE"


def read(made: dict[str, Any]) -> FileResult:
    return decode_file("f.json", trail_file([made]), rules=RULES)


def test_all_but_the_secret_stays_byte_for_byte() -> None:
    text = r'{"n":1.0e5,"a":"\u00e9\/é","password":"HERE","big":12345678901234567890123,"a":[],"z":"\u0061"}'
    data = to_json(record(requestParameters="SLOT")).replace(b'"SLOT"', text.encode())
    [found] = events_batch([decode_file("f", data, rules=RULES)]).to_pylist()
    assert found["request_parameters"] == text.replace("HERE", MARKER)


def test_copies_compare_by_what_was_delivered() -> None:
    one = record(requestParameters={"password": PASSWORD})
    other = {**one, "requestParameters": {"password": "another-one"}}
    again = copy.deepcopy(one)
    hashes = [row[4] for made in (one, other, again) for row in census("f", to_json(made)).rows]
    assert hashes[0] == hashes[2] != hashes[1]
    full = decode_file("f", to_json({"Records": [one, other]}), rules=RULES)
    stored = events_batch([full]).column("request_parameters").to_pylist()
    assert stored == ['{"password":"[redacted]"}'] * 2
    nameless = [{key: value for key, value in made.items() if key != "eventID"} for made in (one, other)]
    ids = [row[2] for row in census("f", to_json({"Records": nameless})).rows]
    assert len(set(ids)) == 2


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "name", "value", "token", "é", "x y"]), inner, max_size=3)
    ),
    max_leaves=6,
)
_secret = st.one_of(
    st.sampled_from(sorted(NAMED)).map(lambda name: {name: NAMED[name]}),
    st.sampled_from(sorted(NAMED)).map(lambda name: {"Name": name, "Value": [PASSWORD, {"x": PASSWORD}]}),
    st.sampled_from(sorted(LOOKS.values())),
    st.sampled_from(sorted(NAMED)).map(lambda name: f"{name} = {PASSWORD}"),
)


@st.composite
def _with_a_secret(draw: st.DrawFn) -> Any:
    """Any JSON with a secret anywhere in it, perhaps as JSON in a string, and that in another."""
    value = draw(_secret)
    for _ in range(draw(st.integers(0, 5))):
        how = draw(st.sampled_from(["list", "object", "text"]))
        if how == "list":
            value = [*draw(st.lists(_json, max_size=2)), value, *draw(st.lists(_json, max_size=2))]
        elif how == "object":
            around = draw(st.dictionaries(st.text(max_size=5), _json, max_size=3))
            value = {**around, draw(st.text(max_size=5)): value, "z": draw(_json)}
        else:
            value = json.dumps(value, ensure_ascii=draw(st.booleans()))
    return value


@given(_with_a_secret(), st.sampled_from(["requestParameters", "responseElements", "other", "errorMessage"]))
@settings(max_examples=300, deadline=None)
def test_a_secret_anywhere_in_any_json_goes(value: Any, field: str) -> None:
    made = {**record(), field: value}
    assert_clean(rows(trail_file([made, record()])))


@given(_json)
@settings(max_examples=200, deadline=None)
def test_redacting_twice_changes_nothing_more_and_json_stays_json(value: Any) -> None:
    once = REDACTION.document(to_json(value))
    assert REDACTION.document(once) == once
    json.loads(once)


@given(st.text(max_size=80), st.sampled_from(["document", "fragment", "text"]))
@settings(max_examples=300, deadline=None)
def test_any_text_can_be_redacted(text: str, how: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    for one in (text, f'{text}"password":"{text}', f"password={text}"):
        if how == "document":
            REDACTION.document(one.encode())
        else:
            getattr(REDACTION, how)(one)


@pytest.mark.parametrize(
    "data",
    [
        b'{"value":' * 30_000,
        b'{"password":' * 30_000,
        b'[{"name":"password","value":[' * 20_000,
        b'{"a":"password ' + b"a=b " * 100_000,
        b'{"a":"password ' + b'\\"' * 200_000,
        b"-----BEGIN PRIVATE KEY-----" * 10_000,
        b"AKIA" * 100_000 + b"password",
        b'"a' * 100_000 + b"password",
        b"\\" * 300_000 + b"password",
    ],
)
def test_crafted_text_takes_no_more_than_linear_time(data: bytes) -> None:
    def spent(text: bytes) -> float:
        start = time.process_time()
        REDACTION.document(text)
        REDACTION.fragment(text.decode())
        return time.process_time() - start

    # What grows with the square takes 64 times as long. The least of three: a busy machine only adds.
    part, whole = (min(spent(text) for _ in range(3)) for text in (data[: len(data) // 8], data))
    assert whole < 32 * part + 0.5


def test_rules_travel_to_workers() -> None:
    again = pickle.loads(pickle.dumps(REDACTION))
    assert again.document(b'{"password":"secret!"}') == b'{"password":"[redacted]"}'


def test_rules_can_be_added(tmp_path: Path) -> None:
    text = (ROOT / "conf/redaction.yml").read_text()
    mine = tmp_path / "redaction.yml"
    mine.write_text(text.replace("keys:\n", "keys:\n  - teddyName\n", 1))
    redaction = load_redaction(mine)
    assert redaction.document(b'{"teddy_name":"Bruin","b":1}') == b'{"teddy_name":"[redacted]","b":1}'
    assert REDACTION.document(b'{"teddy_name":"Bruin","b":1}') == b'{"teddy_name":"Bruin","b":1}'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  - token\n", "  - tok\n", "four letters"),
        ("keys:\n", "names:\n", "must hold"),
        ("contains: [eyJ]", "contains: []", "contains must list"),
        ("contains: [eyJ]", "contains: 5", "contains must list"),
        ("pattern: 'eyJ", "pattern: '(eyJ", "is no pattern"),
        ("masks: '", "masks: '(", "is no pattern"),
        ("keys:\n", "keys: [\n", "not YAML"),
    ],
)
def test_wrong_rules_are_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (ROOT / "conf/redaction.yml").read_text()
    assert old in text
    wrong = tmp_path / "redaction.yml"
    wrong.write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError, match=said):
        load_redaction(wrong)


def test_a_presigned_url_opens_nothing_any_more() -> None:
    url = f"https://b.s3.amazonaws.com/k?X-Amz-Security-Token={KEY}&X-Amz-Signature={KEY}&X-Amz-Expires=900"
    kept = f"https://b.s3.amazonaws.com/k?X-Amz-Security-Token={MARKER}&X-Amz-Signature={MARKER}&X-Amz-Expires=900"
    assert REDACTION.text(url) == kept
    assert REDACTION.document(to_json({"a": url})) == to_json({"a": kept})
