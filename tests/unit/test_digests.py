"""Digests: what was altered, removed or added to a trail is named, and nothing else is."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from factories import record, trail_file
from raretrail.cli import main
from raretrail.cloudtrail.digests import load_keys
from raretrail.cloudtrail.layout import describe, list_local
from raretrail.errors import EXIT_DONE, EXIT_HELD, EXIT_USAGE, UsageError
from raretrail.simulate import Shape, simulate
from raretrail.stages.verifying import verify_trail
from raretrail.tables import DIGEST_RESULTS, DIGEST_STATUSES

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BUCKET = "trail-bucket"
PREFIX = "some/prefix"
DAY = datetime(2024, 3, 1, tzinfo=UTC)
ACCOUNT = "123456789012"


@pytest.fixture(scope="module")
def signer() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def other_signer() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def write_digests(root: Path, signer: rsa.RSAPrivateKey, prefix: str = "") -> list[Path]:
    """A chain of hourly digests for the log files below `root`, by account and region, as CloudTrail
    writes them; the newest with its signature beside it. In the order of their chains."""
    made: list[Path] = []
    chains: dict[tuple[str | None, str | None], list[tuple[datetime, Path]]] = {}
    for file in list_local(str(root)):
        facts = describe(file.path)
        if facts.kind == "log":
            stamp = Path(file.path).name.split("_")[3].rstrip("Z")
            time = datetime.strptime(stamp, "%Y%m%dT%H%M").replace(tzinfo=UTC)
            chains.setdefault((facts.account, facts.region), []).append((time, Path(file.path)))
    for (account, region), files in sorted(chains.items()):
        start = min(files)[0].replace(minute=0)
        previous: dict[str, Any] = {"key": None, "hash": None, "signature": None}
        path = root
        while start <= max(files)[0]:
            end = start + timedelta(hours=1)
            stamp = f"{end:%Y%m%dT%H%M%SZ}"
            name = f"{account}_CloudTrail-Digest_{region}_my-trail_eu-west-1_{stamp}.json.gz"
            folder = f"AWSLogs/{account}/CloudTrail-Digest/{region}/{end:%Y/%m/%d}"
            key = f"{prefix}{folder}/{name}"
            tree = {
                "awsAccountId": account,
                "digestStartTime": f"{start:%Y-%m-%dT%H:%M:%SZ}",
                "digestEndTime": f"{end:%Y-%m-%dT%H:%M:%SZ}",
                "digestS3Bucket": BUCKET,
                "digestS3Object": key,
                "digestPublicKeyFingerprint": "00",
                "digestSignatureAlgorithm": "SHA256withRSA",
                "previousDigestS3Bucket": BUCKET if previous["key"] else None,
                "previousDigestS3Object": previous["key"],
                "previousDigestHashValue": previous["hash"],
                "previousDigestHashAlgorithm": "SHA-256",
                "previousDigestSignature": previous["signature"],
                "logFiles": [
                    {
                        "s3Bucket": BUCKET,
                        "s3Object": prefix + log.relative_to(root).as_posix(),
                        "hashValue": hashlib.sha256(gzip.decompress(log.read_bytes())).hexdigest(),
                        "hashAlgorithm": "SHA-256",
                    }
                    for time, log in sorted(files)
                    if start <= time < end
                ],
            }
            text = json.dumps(tree).encode()
            digest = hashlib.sha256(text).hexdigest()
            to_sign = f"{tree['digestEndTime']}\n{BUCKET}/{key}\n{digest}\n{previous['signature'] or 'null'}"
            signature = signer.sign(to_sign.encode(), padding.PKCS1v15(), hashes.SHA256()).hex()
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(text))
            made.append(path)
            previous = {"key": key, "hash": digest, "signature": signature}
            start = end
        path.with_name(path.name + ".signature").write_text(previous["signature"] + "\n")
    return made


def public(signer: rsa.RSAPrivateKey, path: Path, form: str = "pem") -> Path:
    key = signer.public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    path.write_bytes(
        {
            "pem": key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "pem of pkcs1": key.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
            "der": key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "pkcs1": der,
            "base64": base64.encodebytes(der),
            "answer": json.dumps(
                {"PublicKeyList": [{"Value": base64.b64encode(der).decode(), "Fingerprint": "x"}]}
            ).encode(),
        }[form]
    )
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, signer: rsa.RSAPrivateKey) -> Path:
    """Six hours of one account's trail, two files an hour, with digests; some hours without files."""
    root = tmp_path_factory.mktemp("sound")
    for hour in (0, 1, 2, 4, 5):
        for minute in (5, 40):
            time = DAY + timedelta(hours=hour, minutes=minute)
            folder = root / f"AWSLogs/{ACCOUNT}/CloudTrail/eu-west-1/{time:%Y/%m/%d}"
            folder.mkdir(parents=True, exist_ok=True)
            name = (
                f"{ACCOUNT}_CloudTrail_eu-west-1_{time:%Y%m%dT%H%M}Z_aBcDeFgHiJkL{hour:02}{minute:02}.json.gz"
            )
            (folder / name).write_bytes(trail_file([record(), record()]))
    write_digests(root, signer)
    return root


@pytest.fixture
def trail(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "trail"))


@pytest.fixture
def checked(trail: Path, signer: rsa.RSAPrivateKey) -> Callable[[], dict[str, tuple[str, str]]]:
    """What is not valid, by the name of the file: kind and status."""

    def check() -> dict[str, tuple[str, str]]:
        rows = verify_trail([str(trail)], [signer.public_key()], NOW)
        assert {row["status"] for row in rows} <= set(DIGEST_STATUSES)
        assert all(list(row) == DIGEST_RESULTS.column_names for row in rows)
        return {
            Path(row["source_file"]).name: (row["kind"], row["status"])
            for row in rows
            if row["status"] != "valid"
        }

    return check


def logs(trail: Path) -> list[Path]:
    return sorted(trail.rglob("*_CloudTrail_*.json.gz"))


def digests(trail: Path) -> list[Path]:
    return sorted(trail.rglob("*_CloudTrail-Digest_*.json.gz"))


Checked = Callable[[], dict[str, tuple[str, str]]]


def test_a_sound_trail_is_valid(trail: Path, checked: Checked, signer: rsa.RSAPrivateKey) -> None:
    assert checked() == {}
    rows = verify_trail([str(trail)], [signer.public_key()], NOW)
    assert len(rows) == len(logs(trail)) + len(digests(trail)) == 16


def test_a_simulated_trail_with_digests_is_valid(tmp_path: Path, signer: rsa.RSAPrivateKey) -> None:
    simulate(tmp_path / "s", Shape(seed=5, people=5, days=3, judged_days=1, accounts=2, campaigns=0))
    root = tmp_path / "s" / "trail"
    made = write_digests(root, signer)
    rows = verify_trail([str(root)], [signer.public_key()], NOW)
    assert {row["status"] for row in rows} == {"valid"}
    assert sum(row["kind"] == "digest" for row in rows) == len(made)


def test_an_altered_log_file_is_named(trail: Path, checked: Checked) -> None:
    log = logs(trail)[3]
    log.write_bytes(trail_file([record()]))
    assert checked() == {log.name: ("log", "altered")}


def test_a_log_file_compressed_anew_is_the_same(trail: Path, checked: Checked) -> None:
    log = logs(trail)[3]
    log.write_bytes(gzip.compress(gzip.decompress(log.read_bytes()), 1))
    assert checked() == {}


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b", b"\x1f\x8b\x08 nonsense"])
def test_a_damaged_log_file_is_altered(trail: Path, checked: Checked, data: bytes) -> None:
    log = logs(trail)[3]
    log.write_bytes(data)
    assert checked() == {log.name: ("log", "altered")}


def test_a_missing_log_file_is_named(trail: Path, checked: Checked) -> None:
    log = logs(trail)[2]
    log.unlink()
    assert checked() == {log.name: ("log", "missing")}


def test_a_log_file_that_nobody_delivered_is_named(trail: Path, checked: Checked) -> None:
    log = logs(trail)[2]
    added = log.with_name(log.name.replace("aBcD", "zZzZ"))
    added.write_bytes(trail_file([record()]))
    after = log.with_name(log.name.replace("20240301T0105", "20240302T0105"))
    after.write_bytes(trail_file([record()]))
    assert checked() == {added.name: ("log", "unlisted")}, "later ones are not yet covered"


def test_a_missing_digest_is_named_and_leaves_the_one_before_it_unproven(
    trail: Path, checked: Checked
) -> None:
    _, before, removed, *_ = digests(trail)
    named = json.loads(gzip.decompress(before.read_bytes()))["logFiles"]
    removed.unlink()
    assert checked() == {
        removed.name: ("digest", "missing"),
        before.name: ("digest", "unproven"),
        **{Path(one["s3Object"]).name: ("log", "unproven") for one in named},
    }
    assert len(named) == 2


def test_removing_the_oldest_digests_is_how_a_copy_begins(trail: Path, checked: Checked) -> None:
    digests(trail)[0].unlink()
    assert checked() == {}


def _changed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    tree = json.loads(gzip.decompress(path.read_bytes()))
    change(tree)
    path.write_bytes(gzip.compress(json.dumps(tree).encode()))


def test_hiding_a_log_file_in_its_digest_is_seen(trail: Path, checked: Checked) -> None:
    digest = digests(trail)[1]
    _changed(digest, lambda tree: tree["logFiles"].pop())
    found = checked()
    assert found[digest.name] == ("digest", "altered")
    assert sorted(status for _, status in found.values()) == ["altered", "unlisted", "unproven"]


def test_rewriting_the_chain_without_the_key_is_seen(
    trail: Path, checked: Checked, other_signer: rsa.RSAPrivateKey
) -> None:
    for path in [*trail.rglob("*.signature"), *digests(trail)]:
        path.unlink()
    log = logs(trail)[0]
    log.write_bytes(trail_file([record()]))
    write_digests(trail, other_signer)
    found = checked()
    assert {found[path.name] for path in digests(trail)} == {("digest", "altered")}
    assert found[log.name] == ("log", "unproven")


def test_the_newest_digest_is_unproven_without_its_signature(trail: Path, checked: Checked) -> None:
    for path in trail.rglob("*.signature"):
        path.unlink()
    newest = digests(trail)[-1]
    found = checked()
    assert found.pop(newest.name) == ("digest", "unproven")
    assert set(found.values()) == {("log", "unproven")}
    assert len(found) == 2


@pytest.mark.parametrize("mark", ["", "zz", "00" * 256])
def test_a_wrong_signature_beside_the_newest_is_seen(trail: Path, checked: Checked, mark: str) -> None:
    [beside] = trail.rglob("*.signature")
    beside.write_text(mark)
    assert checked()[digests(trail)[-1].name] == ("digest", "altered" if mark else "unproven")


def test_a_moved_digest_is_seen(trail: Path, checked: Checked) -> None:
    digest = digests(trail)[1]
    moved = digest.with_name(digest.name.replace("20240301T02", "20240301T07"))
    digest.rename(moved)
    assert checked()[moved.name] == ("digest", "altered")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b"\x1f\x8b\x08", gzip.compress(b'{"awsAccountId":"1"}', mtime=0)]
)
def test_a_digest_that_cannot_be_read_is_named(trail: Path, checked: Checked, data: bytes) -> None:
    digest = digests(trail)[2]
    digest.write_bytes(data)
    assert checked()[digest.name] == ("digest", "unreadable")


@pytest.mark.parametrize("below", ["", "AWSLogs", f"AWSLogs/{ACCOUNT}"])
def test_a_prefix_in_the_keys_and_a_start_below_it(
    tmp_path: Path, sound: Path, signer: rsa.RSAPrivateKey, below: str
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(sound, root)
    for path in [*root.rglob("*.signature"), *digests(root)]:
        path.unlink()
    write_digests(root, signer, prefix=f"{PREFIX}/")
    rows = verify_trail([str(root / below)], [signer.public_key()], NOW)
    assert {row["status"] for row in rows} == {"valid"}
    assert len(rows) == 16


@pytest.mark.parametrize("form", ["pem", "pem of pkcs1", "der", "pkcs1", "base64", "answer"])
def test_keys_in_every_form(tmp_path: Path, signer: rsa.RSAPrivateKey, form: str) -> None:
    [key] = load_keys([str(public(signer, tmp_path / "key", form))])
    assert key.public_numbers() == signer.public_key().public_numbers()


@pytest.mark.parametrize(
    "data", [b"", b"no key", b'{"PublicKeyList":[]}', b'{"PublicKeyList":[{"Value":5}]}']
)
def test_what_is_no_key_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "key").write_bytes(data)
    with pytest.raises(UsageError, match="no RSA public key"):
        load_keys([str(tmp_path / "key")])
    with pytest.raises(UsageError, match="No such file"):
        load_keys([str(tmp_path / "nowhere")])


def test_the_command_names_what_is_wrong_and_ends_with_3(
    trail: Path, tmp_path: Path, signer: rsa.RSAPrivateKey, capsys: pytest.CaptureFixture[str]
) -> None:
    key = str(public(signer, tmp_path / "key"))
    assert main(["verify-trail", "--trail", str(trail), "--public-key", key]) == EXIT_DONE
    assert capsys.readouterr().out == "6 digests valid, 10 logs valid\n"
    log = logs(trail)[0]
    log.unlink()
    assert main(["verify-trail", "--trail", str(trail), "--public-key", key, "--format", "json"]) == EXIT_HELD
    [row] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["status"], row["source_file"]) == ("missing", str(log))
    for trails in ([str(tmp_path / "key")], [str(tmp_path / "nowhere")], ["s3a://bucket/x"]):
        assert main(["verify-trail", "--trail", *trails, "--public-key", key]) == EXIT_USAGE


@pytest.mark.integration
def test_results_are_written_and_restated(
    spark: Any, trail: Path, tmp_path: Path, signer: rsa.RSAPrivateKey
) -> None:
    from raretrail.stages.verifying import write_results
    from raretrail.warehouse import Warehouse

    warehouse = Warehouse(spark, str(tmp_path / "w"))
    for wanted in ("valid", "missing"):
        write_results(warehouse, verify_trail([str(trail)], [signer.public_key()], NOW))
        found = {row.source_file: row.status for row in warehouse.read(DIGEST_RESULTS).collect()}
        assert len(found) == 16
        log = sorted(path for path in found if "_CloudTrail_" in path)[0]
        assert found[log] == wanted
        Path(log).unlink(missing_ok=True)
