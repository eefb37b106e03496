"""The organisation: accounts with their resources, roles, offices, exits to the internet."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from raretrail.simulate.places import Atlas, City, Line, Seat, seat_on
from raretrail.simulate.records import Role, User, alnum, hex_id, long_time, text, unique_id, uuid
from raretrail.simulate.shape import Shape

_WORDS = (
    "billing", "orders", "ingest", "catalogue", "search", "mailer", "ledger", "gateway", "portal",
    "reports", "events", "archive", "profile", "pricing", "stock", "shipping", "media", "audit",
    "consent", "export", "metrics", "session", "invoice", "partner", "checkout", "mobile",
)  # fmt: skip
_COMPANIES = (
    "tessera",
    "northwind",
    "brightline",
    "calder",
    "ostro",
    "lumen",
    "quillon",
    "verdant",
)
_ACCOUNT_NAMES = ("identity", "production", "development", "data", "security", "staging", "shared")


class Account:
    """One AWS account and the things in it, as ids that parameters can name."""

    def __init__(self, id_: str, name: str, region: str, company: str, rng: Random) -> None:
        self.id = id_
        self.name = name
        self.region = region
        word = rng.choice

        def ids(prefix: str, count: int, length: int = 17) -> list[str]:
            return [f"{prefix}{hex_id(rng, length)}" for _ in range(count)]

        self.pools: dict[str, list[str]] = {
            "instance": ids("i-", 24),
            "image": ids("ami-", 8),
            "volume": ids("vol-", 24),
            "snapshot": ids("snap-", 20),
            "security_group": ids("sg-", 16),
            "vpc": ids("vpc-", 3),
            "subnet": ids("subnet-", 9),
            "bucket": [f"{company}-{name}-{w}" for w in rng.sample(_WORDS, 18)],
            "secret": [f"{name}/{w}/{k}-{alnum(rng, 6)}" for w in _WORDS[:14]
                       for k in ("db", "api")],
            "parameter": [f"/{name}/{w}/{k}" for w in _WORDS for k in ("url", "token")],
            "function": [f"{w}-{k}" for w in rng.sample(_WORDS, 14) for k in ("worker", "api")],
            "kms": [uuid(rng) for _ in range(6)],
            "table": [f"{w}-{name}" for w in rng.sample(_WORDS, 12)],
            "database": [f"{w}-db" for w in rng.sample(_WORDS, 6)],
            "stack": [f"{w}-stack" for w in rng.sample(_WORDS, 12)],
            "log_group": [f"/aws/lambda/{w}-worker" for w in _WORDS],
            "policy": [f"arn:aws:iam::{id_}:policy/{word(_WORDS)}-{k}" for k in ("rw", "ro", "ci")]
            + ["arn:aws:iam::aws:policy/ReadOnlyAccess", "arn:aws:iam::aws:policy/PowerUserAccess"],
            "role": [f"{w}-service" for w in rng.sample(_WORDS, 14)],
            "instance_role": [f"{name}-node", f"{name}-batch"],
            "user": [f"svc-{w}" for w in rng.sample(_WORDS, 8)],
            "word": list(_WORDS),
        }  # fmt: skip
        self.vpc_endpoint = f"vpce-{hex_id(rng, 17)}"
        self.private_block = f"10.{rng.randrange(1, 250)}"
        self.elastic: list[str] = []  # the account's own public addresses, e.g. of NAT gateways


class Values(dict[str, str]):
    """What fills the holes of one call's parameters; made on demand, the same within the call."""

    def __init__(
        self, account: Account, region: str, session: str, at: int, owner: int, rng: Random,
        given: dict[str, str] | None,
    ) -> None:  # fmt: skip
        super().__init__(given or {})
        self._account = account
        self._region = region
        self._session = session
        self._at = at
        self._owner = owner
        self._rng = rng

    def __missing__(self, name: str) -> str:
        self[name] = value = self._make(name)
        return value

    def _make(self, name: str) -> str:
        rng = self._rng
        pool = self._account.pools.get(name)
        if pool:
            # People have their own corner of the account: owner decides where it begins.
            if self._owner < 0:
                return rng.choice(pool)
            return pool[(self._owner + min(int(rng.expovariate(0.7)), len(pool))) % len(pool)]
        maker = _MAKERS.get(name)
        if maker is None:
            raise KeyError(f"no value for ${name}")
        return str(maker(self))


def _trust(v: Values) -> str:
    foreign = f'{{"AWS":"arn:aws:iam::{v["foreign_account"]}:root"}}'
    return text(f'{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{foreign},'
                '"Action":"sts:AssumeRole"}]}')[1:-1]  # fmt: skip


_MAKERS: dict[str, Any] = {
    "account": lambda v: v._account.id,
    "region": lambda v: v._region,
    "zone": lambda v: v._region + "a",
    "session": lambda v: v._session,
    "uuid": lambda v: uuid(v._rng),
    "hex": lambda v: hex_id(v._rng, 10),
    "hex17": lambda v: hex_id(v._rng, 17),
    "epoch_ms": lambda v: str(v._at * 1000),
    "long_time": lambda v: long_time(v._at),
    "new_instance": lambda v: f"i-{hex_id(v._rng, 17)}",
    "new_key": lambda v: unique_id("AKIA", v._rng),
    "some_key": lambda v: unique_id("AKIA", v._rng),
    "new_user": lambda v: f"svc-{v['word']}-{v._rng.randrange(100)}",
    "new_user_id": lambda v: unique_id("AIDA", v._rng, 17),
    "new_role": lambda v: f"{v['word']}-service-{v._rng.randrange(100)}",
    "new_role_id": lambda v: unique_id("AROA", v._rng, 17),
    "object": lambda v: f"{v['word']}/2026/{v._rng.randrange(4000):05d}.parquet",
    "private_ip": lambda v: f"{v._account.private_block}.{v._rng.randrange(64)}.{v._rng.randrange(4, 250)}",
    "elastic_ip": lambda v: v._rng.choice(v._account.elastic),
    "foreign_account": lambda v: f"{v._rng.randrange(10**11, 10**12)}",
    "trust": _trust,
}


@dataclass
class Exit:
    """A VPN exit: one or many addresses through which people reach the internet."""

    name: str
    seats: list[Seat]
    since: int = 0  # first day (number) it is in use


@dataclass
class Office:
    """An office: its city, its leased addresses, the towns people live in."""

    city: City
    seats: list[Seat]
    towns: list[City]


@dataclass
class Organisation:
    """Everything that stays while people come and go."""

    company: str
    domain: str
    id: str
    accounts: list[Account]
    offices: list[Office]
    exits: list[Exit]
    regions: list[str]
    management: Account
    sso_suffix: dict[str, str] = field(default_factory=dict)
    roles: dict[tuple[str, str], Role] = field(default_factory=dict)
    used_lines: dict[str, Line] = field(default_factory=dict)

    def account(self, id_: str) -> Account:
        """The account with that id."""
        return next(a for a in self.accounts if a.id == id_)

    def role(self, account: Account, name: str, path: str = "/") -> Role:
        """The role of that name in the account; the same object every time."""
        key = (account.id, name)
        if key not in self.roles:
            rng = Random(f"{self.id}/role/{account.id}/{name}")
            self.roles[key] = Role(account.id, name, unique_id("AROA", rng, 17), path)
        return self.roles[key]

    def sso_role(self, account: Account, permission_set: str) -> Role:
        """The role IAM Identity Center made for the permission set."""
        rng = Random(f"{self.id}/sso/{account.id}/{permission_set}")
        name = f"AWSReservedSSO_{permission_set}_{hex_id(rng, 16)}"
        return self.role(account, name, "/aws-reserved/sso.amazonaws.com/")

    def user(self, account: Account, name: str) -> User:
        """The IAM user of that name, with its key; the same every time."""
        rng = Random(f"{self.id}/user/{account.id}/{name}")
        return User(account.id, name, unique_id("AIDA", rng, 17), unique_id("AKIA", rng))


# Which AWS region an organisation with its head office in a country lives in.
_HOME_REGION = {
    "US": "us-east-1", "CA": "ca-central-1", "BR": "sa-east-1", "AR": "sa-east-1",
    "GB": "eu-west-2", "IE": "eu-west-1", "IN": "ap-south-1",
    "SG": "ap-southeast-1", "JP": "ap-northeast-1",
    "AU": "ap-southeast-2", "NZ": "ap-southeast-2", "KR": "ap-northeast-1", "DE": "eu-central-1",
    "MX": "us-east-1", "CO": "us-east-1",
}  # fmt: skip


def found(shape: Shape, atlas: Atlas) -> Organisation:
    """Make the organisation of this shape."""
    rng = Random(f"{shape.seed}/organisation")
    company = rng.choice(_COMPANIES)
    cities = [rng.choice([h for h in atlas.hubs if len(atlas.suburbs(h)) >= 8])]
    while len(cities) < shape.offices:
        near = rng.random() < 0.6  # most offices are in reach of the head office
        candidates = [
            h
            for h in atlas.hubs
            if all(h.kilometres(c) > 200 for c in cities)
            and (h.kilometres(cities[0]) < 3000) == near
            and len(atlas.suburbs(h)) >= 4
        ]
        if candidates:
            cities.append(rng.choice(candidates))
    home_region = _HOME_REGION.get(cities[0].country, rng.choice(("eu-west-1", "eu-central-1")))
    regions = [home_region]
    accounts = []
    for i in range(shape.accounts):
        name = _ACCOUNT_NAMES[i % len(_ACCOUNT_NAMES)] + (f"-{i}" if i >= len(_ACCOUNT_NAMES) else "")
        digits = 12 if rng.random() < 0.9 else 11  # an id may begin with zero
        id_ = f"{rng.randrange(10 ** (digits - 1), 10**digits):012d}"
        account = Account(id_, name, home_region, company, rng)
        account.elastic = [seat_on(rng.choice(atlas.ec2(home_region)), rng).address for _ in range(4)]
        accounts.append(account)
    offices = []
    for city in cities:
        line = rng.choice(atlas.business(city))
        seats = [seat_on(line, rng) for _ in range(rng.choice((1, 1, 2)))]
        offices.append(Office(city, seats, [city, *atlas.suburbs(city)]))
    organisation = Organisation(
        company, f"{company}.example", f"o-{alnum(rng, 10).lower()}", accounts, offices, [],
        regions, accounts[0],
    )  # fmt: skip
    provider = rng.choice(atlas.vpn_providers)
    many = shape.mix.vpn_many_addresses > 0
    for city in cities[: 1 + (shape.offices > 1)]:
        lines = atlas.of_network(city, provider)
        count = round(rng.randrange(12, 28) * shape.mix.vpn_many_addresses) if many else 1
        seats = [seat_on(rng.choice(lines), rng) for _ in range(max(1, count))]
        organisation.exits.append(Exit(city.label, seats))
    return organisation
