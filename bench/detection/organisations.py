"""Simulated organisations to measure on: made once, decoded once, kept as compact columns.

    for organisation in organisations(Path("cache"), CHOOSING): ...

Nothing here knows a scorer. Labels are looked up by event id only.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

import geoip2.database
import pyarrow.parquet as pq

from raretrail.cloudtrail.decode import FileResult, decode_file, events_batches
from raretrail.cloudtrail.principals import load_rules
from raretrail.geo.databases import local_path, resolve_city_database
from raretrail.geo.locate import place_of
from raretrail.simulate import Mix, Shape, simulate
from raretrail.tables import DECODED_COLUMNS

from .real import write as write_real

# Raise when what is cached would come out otherwise.
_VERSION = 1
# The end of the name of an organisation seen without an ASN database.
NO_ASN = " no ASN"
_ROOT = Path(__file__).resolve().parents[2]
_ROW_GROUP = 50_000
_EPOCH_DAY = date(1970, 1, 1)
_MEASURED = Shape(people=160, days=90, judged_days=30)


class Event(NamedTuple):
    """One event as scorers see it. Times are seconds since 1970 (UTC), absent text is ''.

    `named` holds what the request names, as `key=value`; `made` the identities and keys that the
    response says now exist (user and role ARNs, access key ids).
    """

    at: int
    id: str
    account: str
    principal: str
    kind: str
    command: str
    read_only: bool
    address: str
    agent: str
    error: str
    key: str
    arn: str
    session: str
    session_at: int
    mfa: int  # 1 with, 0 without, -1 not said
    console: bool
    type: str
    named: tuple[str, ...]
    made: tuple[str, ...]

    @property
    def day(self) -> int:
        """Days since 1970-01-01."""
        return self.at // 86400


class Place(NamedTuple):
    """What is known of an address; `network` is the AS, or the /24 without an ASN database."""

    status: str
    place: str
    name: str
    country: str
    latitude: float | None
    longitude: float | None
    radius: int | None
    time_zone: str
    owner: str
    network: str


@dataclass
class Organisation:
    """One simulated organisation: events by time, places by address, labels by event id.

    `places` is the map of the first day, `moved` the one that holds from day `moves_on`.
    """

    name: str
    shape: Shape
    events: list[Event]
    places: dict[str, Place]
    moved: dict[str, Place]
    moves_on: int
    campaigns: list[dict[str, Any]]
    innocents: list[dict[str, Any]]
    campaign_of: dict[str, str] = field(default_factory=dict)
    real: bool = False  # its intrusions and part of its background are real; see `real`

    @property
    def judged_from(self) -> int:
        """First judged day, in days since 1970-01-01."""
        return (self.shape.judged_from - _EPOCH_DAY).days

    @property
    def judged(self) -> range:
        """The judged days."""
        return range(self.judged_from, (self.shape.end - _EPOCH_DAY).days)

    def place(self, address: str, day: int) -> Place:
        """Where the map of that day places the address."""
        return (self.moved if day >= self.moves_on else self.places)[address]

    def without_networks(self) -> Organisation:
        """The same without an ASN database."""
        bare = {a: _without_network(a, p) for a, p in self.places.items()}
        moved = {a: _without_network(a, p) for a, p in self.moved.items()}
        return replace(self, name=self.name + NO_ASN, places=bare, moved=moved)


def shapes(seeds: Sequence[int], base: Shape = _MEASURED) -> list[Shape]:
    """A shape a seed: naming, addresses, accounts, offices and mix go round with the seed.

    So that no two organisations of a table differ by chance alone.
    """
    namings = ("mixed", "sso", "federated", "mixed", "iam_users", "opaque")
    plans = ("mixed", "offices", "homes", "vpn", "mixed", "roaming", "homes")
    mixes = (
        Mix(),
        Mix(travellers=1.5, long_tails=1.5, new_exits=2.0),
        Mix(travellers=0.5, suburbs=2.0, national_carriers=2.0, denied_bursts=2.0),
        Mix(always_travelling=2.0, tool_upgrades=2.0, newcomers=2.0),
        Mix(remote_desktops=2.0, cloud_desktops=2.0, geoip_update=2.0, job_change=2.0),
    )
    return [
        replace(
            base, seed=seed, naming=namings[seed % len(namings)],
            addresses=plans[seed % len(plans)], mix=mixes[seed % len(mixes)],
            accounts=3 + seed % 4, offices=2 + seed % 3,
        )
        for seed in seeds
    ]  # fmt: skip


def organisations(cache: Path, wanted: Sequence[Shape], real: bool = False) -> Iterator[Organisation]:
    """The organisations of these shapes, one at a time; what is missing in `cache` is made."""
    for shape in wanted:
        yield organisation(cache, shape, real)


def organisation(cache: Path, shape: Shape, real: bool = False) -> Organisation:
    """The organisation of this shape, from `cache`; what `decoded` gives of it stays there too."""
    name = f"{shape.people}x{shape.days} seed {shape.seed} {shape.naming} {shape.addresses}"
    name += " real" if real else ""
    kept = cache / f"{name.replace(' ', '-')}.pickle"
    if kept.exists():
        version, found = pickle.loads(kept.read_bytes())
        if version == (_VERSION, shape) and isinstance(found, Organisation):
            return found
    work = trail_of(cache, name)
    shutil.rmtree(work, ignore_errors=True)
    write(work, shape, real)
    made = replace(load(work, name, shape), real=real)
    shutil.rmtree(work / "trail")
    kept.write_bytes(pickle.dumps(((_VERSION, shape), made), protocol=5))
    return made


def trail_of(cache: Path, name: str) -> Path:
    """The folder of cache with what was simulated for the organisation of that name."""
    return cache / f"{name.replace(' ', '-')}.trail"


def write(folder: Path, shape: Shape, real: bool) -> None:
    """Write the trail, the labels and the maps of the organisation of this shape under folder."""
    if real:
        write_real(folder, shape)
    else:
        simulate(folder, shape)


def load(folder: Path, name: str, shape: Shape) -> Organisation:
    """Decode and locate what `simulate` wrote under `folder`."""
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    events = read_events(folder)
    addresses = sorted({event.address for event in events})
    asn = geoip2.database.Reader(folder / "asn.mmdb") if shape.networks_db else None
    embedded = local_path(resolve_city_database(None).worker_path)
    places = _places(addresses, Path(embedded), asn)
    redrawn = folder / "city-moved.mmdb"
    moves_on = (shape.end - _EPOCH_DAY).days
    for innocent in labels["innocents"]:
        if innocent["kind"] == "geoip_update" and redrawn.exists():
            moves_on = (date.fromisoformat(innocent["days"][0]) - _EPOCH_DAY).days
    moved = _places(addresses, redrawn, asn) if redrawn.exists() else places
    # What the redrawn map leaves out has not moved: it holds the simulator's networks only.
    moved = {a: places[a] if p.status == "not_found" else p for a, p in moved.items()}
    campaign_of = {e: c["id"] for c in labels["campaigns"] for e in c["event_ids"]}
    return Organisation(
        name, shape, events, places, moved, moves_on, labels["campaigns"], labels["innocents"],
        campaign_of,
    )  # fmt: skip


def decoded(folder: Path) -> Path:
    """A Parquet file in folder with every record of its trail, as the job decodes it."""
    kept = folder / "decoded.parquet"
    if not kept.exists():
        for _ in _decode(folder):
            pass
    return kept


def _decode(folder: Path) -> Iterator[FileResult]:
    """What each file of the folder's trail holds, which is written to `decoded` on the way."""
    rules = load_rules(_ROOT / "conf" / "principals.yml")
    partial = folder / "decoded.partial"
    writer: pq.ParquetWriter | None = None
    results: list[FileResult] = []
    for path in [*sorted((folder / "trail").rglob("*.json.gz")), None]:
        if path:
            results.append(decode_file(str(path), path.read_bytes(), rules=rules))
            yield results[-1]
        if sum(result.records for result in results) > _ROW_GROUP or not path:
            for batch in events_batches(results, _ROW_GROUP):
                writer = writer or pq.ParquetWriter(partial, batch.schema)
                writer.write_batch(batch)
            results = []
    if writer:
        writer.close()
        partial.rename(folder / "decoded.parquet")


def read_events(folder: Path) -> list[Event]:
    """Every event of the folder's trail once, by time and id."""
    names = [column.name for column in DECODED_COLUMNS]
    seen: dict[tuple[str, str], Event] = {}
    for result in _decode(folder):
        columns = dict(zip(names, result.columns, strict=True))
        wanted = (
            "event_time", "event_id", "recipient_account_id", "principal", "principal_kind",
            "command", "read_only", "source_ip_address", "agent_family", "error_code",
            "access_key_id", "user_identity_arn", "session_name", "session_created_at",
            "mfa_authenticated", "session_credential_from_console", "event_type",
            "request_parameters", "response_elements", "additional_event_data",
        )  # fmt: skip
        for row in zip(*(columns[w] for w in wanted), strict=True):
            event = _event(*row)
            seen.setdefault((event.account, event.id), event)
    return sorted(seen.values(), key=lambda e: (e.at, e.id))


def _event(
    time: int, id_: str, account: str, principal: str, kind: str, command: str,
    read_only: bool | None, address: str | None, agent: str | None, error: str | None,
    key: str | None, arn: str | None, session: str | None, created: int | None, mfa: bool | None,
    console: bool | None, type_: str | None, request: str | None, response: str | None,
    more: str | None,
) -> Event:  # fmt: skip
    def text(value: str | None) -> str:
        return intern(value or "")

    asked = json.loads(request) if request else None
    factor = mfa if mfa is not None or not more else _second_factor(json.loads(more))
    return Event(
        time // 1_000_000, id_, text(account), text(principal), text(kind), text(command),
        bool(read_only), text(address), text(agent), text(error), text(key), text(arn),
        text(session), (created or 0) // 1_000_000, -1 if factor is None else int(factor),
        bool(console), text(type_), named_by(asked),
        made_by(command, account, asked, json.loads(response) if response else None),
    )  # fmt: skip


def _second_factor(more: object) -> bool | None:
    """What a sign-in's additionalEventData says of the second factor."""
    said = more if isinstance(more, dict) else {}
    if "MFAUsed" in said:
        return bool(said["MFAUsed"] == "Yes")
    kind = said.get("CredentialType")
    return "," in kind or "TOTP" in kind if isinstance(kind, str) else None


# Values of these keys are chosen for the one call and name nothing that stays.
_PASSING = ("token", "host", "sessionname", "samlassertionid", "externalid", "marker")


def named_by(request: object) -> tuple[str, ...]:
    """`key=value` for every thing a request names: values of keys ending in name, id or arn."""
    found: list[str] = []

    def walk(value: object, key: str) -> None:
        if isinstance(value, dict):
            for inner, item in value.items():
                walk(item, str(inner))
        elif isinstance(value, list):
            for item in value:
                walk(item, key)
        elif isinstance(value, str) and value:
            low = key.lower()
            if low.endswith(("name", "id", "arn")) and not low.endswith(_PASSING):
                found.append(intern(f"{key}={value}"))

    walk(request, "")
    return tuple(dict.fromkeys(found))


_MADE_USER = ("iam:CreateUser", "iam:CreateAccessKey", "iam:CreateLoginProfile")


def made_by(command: str, account: str, request: object, response: object) -> tuple[str, ...]:
    """Identities and keys that exist, or can be used, through this call."""
    asked = request if isinstance(request, dict) else {}
    got = response if isinstance(response, dict) else {}
    made: list[str] = []
    if not got:
        return ()
    if command in _MADE_USER and asked.get("userName"):
        made.append(f"arn:aws:iam::{account}:user/{asked['userName']}")
    if command == "iam:CreateRole" and asked.get("roleName"):
        made.append(f"arn:aws:iam::{account}:role/{asked['roleName']}")
    for part in ("accessKey", "credentials"):
        held = got.get(part)
        if isinstance(held, dict) and held.get("accessKeyId"):
            made.append(str(held["accessKeyId"]))
    return tuple(intern(m) for m in made)


def _places(addresses: list[str], city: Path, asn: geoip2.database.Reader | None) -> dict[str, Place]:
    with geoip2.database.Reader(city, locales=["en"]) as reader:
        return {address: _place(address, reader, asn) for address in addresses}


def _place(address: str, city: geoip2.database.Reader, asn: geoip2.database.Reader | None) -> Place:
    found = place_of(address, city, asn)
    status, place, name = found[:3]
    country, latitude, longitude, radius, zone, _, owner, network = found[7], *found[9:]
    return Place(
        intern(status), intern(place), name, country or "", latitude, longitude, radius,
        zone or "", owner or "", intern(network or status),
    )  # fmt: skip


def _without_network(address: str, place: Place) -> Place:
    if not place.network.startswith("AS"):
        return place
    return place._replace(owner="", network=".".join(address.split(".")[:3]) + ".0/24")
