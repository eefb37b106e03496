"""The scoring formula in plain Python, to try changes on before they are built into the engine.

    python -m detection --cache DIR --scorer detection.prototype:score

`collect` turns an organisation into chains (events of one actor in one place over one network,
gaps of at most 4 hours) with every count the formula uses, known from earlier days or from the
window itself; `combine` makes bits of them. `score` does both and merges chains into incidents.
"""

from __future__ import annotations

import math
import os
import pickle
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from .measure import GAP, LONGEST, Incident
from .organisations import Event, Organisation, Place

VERSION = 2
LEARNING_DAYS = 14
CLASSES = (0, 1, 2, 3, 5, 10)
LAG = int(os.environ.get("RARETRAIL_LAG", "2"))  # days by which what the organisation knows stays behind
NEAR_KM = 100.0

_GENERATED = re.compile(
    r"(?i)(?:.*[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}.*|m?i-[0-9a-f]{8,17}"
    r"|[^@]*\d{7,}[^@]*|(?:[^@]*[-_.])?(?=[a-z]*\d)[0-9a-f]{8,}(?:[-_.][^@]*)?"
    r"|(?:botocore|boto3?|aws-sdk|aws-go-sdk|awscli|aws-cli|terraform|jenkins|gitlab|githubactions"
    r"|session|lambda|codebuild|codepipeline|cloudformation|eks|ecs|ssm|karpenter)(?:[-_.\d][^@]*)?"
    r"|(?:run|build|job|task)-?\d+)"
)
_HOSTING = re.compile(
    r"(?i)\b(?:host\w*|cloud\w*|vps|\w*vps|server\w*|\w*servers?|data\s?cent\w*|datacamp|colo\w*|vpn"
    r"|amazon\w*|aws|google|microsoft|azure|digitalocean|ovh|hetzner|linode|akamai|vultr|contabo"
    r"|choopa|m247|leaseweb|oracle|alibaba|tencent)\b"
)
_DENIED = re.compile(r"(?i)access\s?denied|unauthorized|not\s?authorized|forbidden")


def class_of(others: int) -> int:
    """Index into CLASSES."""
    found = 0
    for index, least in enumerate(CLASSES):
        if others >= least:
            found = index
    return found


# ------------------------------------------------------------------------------------------- who


def actors(organisation: Organisation) -> list[str]:
    """Who made each event: the person behind roles and accounts, where the record says it.

    A session's own name where it names somebody; the maker of the session's key where the name was
    made up; else the principal.
    """
    born: dict[str, str] = {}
    found: list[str] = []
    for e in organisation.events:
        if e.kind == "person":
            who = e.principal.rsplit("/", 1)[-1].lower().split("@")[0]
        elif e.kind == "user" and ":user/" in e.principal:
            who = e.principal.rsplit("/", 1)[-1].lower()
        elif e.kind == "role":
            name = e.session.lower()
            if name and re.search(r"[\d@.]", name) and not _GENERATED.fullmatch(name):
                who = name.split("@")[0]
            else:
                who = born.get(e.key, e.principal)
        else:
            who = e.principal
        if e.kind in ("person", "user", "role"):
            for made in e.made:
                if made.startswith("ASIA"):
                    born[made] = who
        found.append(who)
    return found


def role_of(e: Event) -> str:
    """The peer group: the role's name without its account, or the kind."""
    return _role(e.arn, e.kind)


@cache
def _role(arn: str, kind: str) -> str:
    m = re.search(r"assumed-role/([^/]+)/|:role/(?:.*/)?([^/]+)$", arn)
    return (m.group(1) or m.group(2)) if m else kind


# ------------------------------------------------------------------------------------ sensitivity

_WATCHERS = ("cloudtrail", "guardduty", "config", "securityhub", "access-analyzer", "macie2", "detective")


@cache
def sensitivity(command: str, read_only: bool) -> int:
    """0 to 4 from what the command can do."""
    service, _, name = command.partition(":")
    if re.match(
        r"secretsmanager:(Batch)?GetSecretValue|ec2:GetPasswordData|redshift.*:GetClusterCredentials"
        r"|iam:Create(AccessKey|LoginProfile)|iam:UpdateLoginProfile|iam:DeactivateMFADevice"
        r"|sts:GetFederationToken|ecr:GetDownload|rds:.*AuthToken",
        command,
    ):
        return 4
    if not read_only:
        if service in _WATCHERS or re.match(
            r"(logs:Delete|events:(Disable|Delete)|ec2:DeleteFlowLogs)", command
        ):
            return 4
        if service in ("iam", "organizations", "sso-admin", "identitystore"):
            return 4 if re.match(r"(Attach|Put|Add|Update|Create|Set)", name) else 3
        if re.search(
            r"SnapshotAttribute|ImageAttribute|BucketPolicy|BucketAcl|AddPermission|Export|ResourcePolicy",
            name,
        ):
            return 3
        if re.match(
            r"ssm:(SendCommand|StartSession)|ec2:(CreateKeyPair|ImportKeyPair|AuthorizeSecurityGroup)",
            command,
        ):
            return 3
        if re.search(r"Snapshot|UpdateFunctionCode|RunInstances|kms:", command):
            return 2
        return 1
    if re.match(
        r"ssm:GetParameter|iam:(GetAccountAuthorizationDetails|Simulate|GetLoginProfile|ListAccessKeys)|secretsmanager:",
        command,
    ):
        return 2
    if service in ("iam", "organizations", "kms", *_WATCHERS):
        return 1
    return 0


# ------------------------------------------------------------------------------------- geography


def kilometres(a: tuple[float, float], b: tuple[float, float]) -> float:
    la, lb = math.radians(a[0]), math.radians(b[0])
    h = math.sin((lb - la) / 2) ** 2
    h += math.cos(la) * math.cos(lb) * math.sin(math.radians(b[1] - a[1]) / 2) ** 2
    return 12742 * math.asin(min(1.0, math.sqrt(h)))


@lru_cache(maxsize=200_000)
def local_hour(at_hour: int, zone: str) -> int:
    if not zone:
        return -1
    return datetime.fromtimestamp(at_hour * 3600, tz=UTC).astimezone(ZoneInfo(zone)).hour


@cache
def prefix_of(address: str) -> str:
    parts = address.split(".")
    return ".".join(parts[:3]) if len(parts) == 4 and parts[0].isdigit() else address


# ----------------------------------------------------------------------------------- chains


@dataclass(eq=False)
class Chain:
    """Events of one actor in one place over one network, and what is known about them."""

    who: str
    place: str
    network: str
    status: str
    prefix: str
    events: list[Event] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def day(self) -> int:
        return self.events[0].day


@dataclass
class Known:
    """Values of one dimension: days by actor and value, days with news by actor, first uses."""

    days: dict[str, dict[str, list[int]]] = field(default_factory=lambda: defaultdict(dict))
    users: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    value_days: Counter[str] = field(default_factory=Counter)
    last_value_day: dict[str, int] = field(default_factory=dict)
    news: Counter[str] = field(default_factory=Counter)
    active: Counter[str] = field(default_factory=Counter)
    org_news: int = 0
    org_active: int = 0
    firsts: list[int] = field(default_factory=lambda: [0] * len(CLASSES))
    pending: list[tuple[int, str, str]] = field(default_factory=list)
    taken: int = 0

    def catch_up(self, until: int) -> None:
        """Let the organisation know what was used before that day."""
        while self.taken < len(self.pending) and self.pending[self.taken][0] < until:
            day, who, value = self.pending[self.taken]
            self.taken += 1
            self.users[value].add(who)
            if self.last_value_day.get(value) != day:
                self.last_value_day[value] = day
                self.value_days[value] += 1

    def others(self, who: str, value: str) -> int:
        users = self.users.get(value)
        return 0 if not users else len(users) - (who in users)

    def learn(self, day: int, who: str, values: set[str], teach: bool, near: set[str] = frozenset()) -> None:
        own = self.days[who]
        before = self.active[who]
        fresh = [v for v in values if v not in own]
        if before:
            self.org_active += 1
            if fresh:
                self.news[who] += 1
                self.org_news += 1
            if teach:
                for v in fresh:
                    self.firsts[class_of(self.others(who, v))] += 1
        self.active[who] += 1
        for v in values:
            own.setdefault(v, []).append(day)
            self.pending.append((day, who, v))

    def count(self, who: str, news: bool, others: Sequence[int] = ()) -> None:
        """Count a day of news, or of none; others knew the new things before."""
        self.active[who] += 1
        self.org_active += 1
        self.news[who] += news
        self.org_news += news
        for b in others:
            self.firsts[class_of(b)] += 1

    def rate(self, who: str) -> float:
        org = (self.org_news + 1) / (self.org_active + 2)
        n = max(self.active[who] - 1, 0)
        return (self.news[who] + 10 * org) / (n + 10)

    def tail(self, others: int) -> float:
        return (sum(self.firsts[: class_of(others) + 1]) + 0.5) / (sum(self.firsts) + 1)


@dataclass
class Days:
    """Day facts of one actor."""

    addresses: set[str] = field(default_factory=set)
    agents: set[str] = field(default_factory=set)
    commands: set[str] = field(default_factory=set)
    in_accounts: set[tuple[str, str]] = field(default_factory=set)
    hours: set[int] = field(default_factory=set)
    place_hours: set[tuple[str, int]] = field(default_factory=set)
    peers: set[str] = field(default_factory=set)
    human: bool = False


@cache
def is_denied(error: str) -> bool:
    return bool(_DENIED.search(error))


def collect(o: Organisation) -> list[Chain]:
    """Chains that begin on judged days, with their facts."""
    who = [e.principal for e in o.events] if os.environ.get("RARETRAIL_PRINCIPAL") else actors(o)
    facts: dict[int, dict[str, Days]] = defaultdict(lambda: defaultdict(Days))
    for e, u in zip(o.events, who, strict=True):
        d = facts[e.day][u]
        d.addresses.add(e.address)
        d.agents.add(e.agent)
        d.commands.add(e.command)
        d.in_accounts.add((e.account, e.command))
        d.hours.add(e.at // 3600)
        d.place_hours.add((e.address, e.at // 3600))
        d.peers.add(role_of(e))
        d.human |= e.kind in ("person", "user")
    # All chains of all days, under the map of their day.
    chains = make_chains(o, who)
    by_actor: dict[str, list[Chain]] = defaultdict(list)
    for c in chains:
        by_actor[c.who].append(c)
    concurrency(o, by_actor)
    judged = [
        c for c in chains
        if c.day >= o.judged_from and c.status not in ("aws_service", "aws_internal")
        and not {e.kind for e in c.events} & {"service", "account"}
    ]  # fmt: skip
    begins: dict[int, list[Chain]] = defaultdict(list)
    for c in judged:
        begins[c.day].append(c)
    all_by_day: dict[int, list[Chain]] = defaultdict(list)
    for c in chains:
        all_by_day[c.day].append(c)
    first, last, moves = o.judged[0], o.judged[-1], o.moves_on
    spans = [(first, last)] if moves > last else [(first, moves - 1), (moves, last)]
    for low, high in spans:
        replay(o, facts, begins, all_by_day, low, high)
    return judged


def make_chains(o: Organisation, who: list[str]) -> list[Chain]:
    last: dict[tuple[str, str, str], Chain] = {}
    found: list[Chain] = []
    for e, u in zip(o.events, who, strict=True):
        p = o.place(e.address, e.day)
        key = (u, p.place, p.network)
        c = last.get(key)
        if c is None or e.at - c.events[-1].at > GAP or e.at - c.events[0].at > LONGEST:
            c = last[key] = Chain(u, p.place, p.network, p.status, prefix_of(e.address))
            found.append(c)
        c.events.append(e)
    return found


HOUR = 3600


def concurrency(o: Organisation, by_actor: dict[str, list[Chain]]) -> None:
    """For each chain: was its actor elsewhere within the hour before and after (inter), and how fast
    would they have travelled to or from elsewhere within 12 hours (speed, km/h)."""
    for own in by_actor.values():
        for number, c in enumerate(own):
            f = c.facts
            f["inter"], f["speed"], f["speed_past"] = 0, 0.0, 0.0
            if not _geographic(c.status):
                continue
            here, times = _spot(o, c), [e.at for e in c.events]
            for x in own[max(0, number - 60) : number + 60]:
                if x is c or not _geographic(x.status):
                    continue
                if x.events[0].at > times[-1] + 12 * HOUR or x.events[-1].at < times[0] - 12 * HOUR:
                    continue
                other = [e.at for e in x.events]
                before = after = math.inf
                for t in times:
                    i = bisect_right(other, t)
                    if i:
                        before = min(before, t - other[i - 1])
                    if i < len(other):
                        after = min(after, other[i] - t)
                if before <= HOUR and after <= HOUR:
                    f["inter"] = 1
                there = _spot(o, x)
                km = kilometres(here, there) if here and there else 0.0
                if km > NEAR_KM:
                    f["speed"] = max(f["speed"], km / max(min(before, after) / HOUR, 1 / 60))
                    f["speed_past"] = max(f["speed_past"], km / max(before / HOUR, 1 / 60))


def _spot(o: Organisation, c: Chain) -> tuple[float, float] | None:
    p = o.place(c.events[0].address, c.day)
    return (p.latitude, p.longitude) if p.latitude is not None and p.longitude is not None else None


def _geographic(status: str) -> bool:
    return status in ("city", "country", "not_found")


SETTLED = 3


def grade_of(
    place: str,
    at: tuple[float, float] | None,
    own: dict[str, list[int]],
    coords: dict[str, tuple[float, float]],
) -> int:
    """1 if near a better known place of the actor's, else 2. A neighbour that is no better known
    vouches for nothing."""
    days = len(own.get(place, ()))
    near = at is not None and any(
        len(d) > days and q != place and q in coords and kilometres(at, coords[q]) <= NEAR_KM
        for q, d in own.items()
    )
    return 1 if near else 2


@dataclass
class State:
    """What is known before a day, under one map."""

    place: Known = field(default_factory=Known)
    net: Known = field(default_factory=Known)
    pair: Known = field(default_factory=Known)
    prefix: Known = field(default_factory=Known)
    agent: Known = field(default_factory=Known)
    command: Known = field(default_factory=Known)
    # News only: far and near places; networks on settled, near and far places.
    far: Known = field(default_factory=Known)
    near: Known = field(default_factory=Known)
    nets: tuple[Known, Known, Known] = field(default_factory=lambda: (Known(), Known(), Known()))
    inter: Known = field(default_factory=Known)
    speed: Known = field(default_factory=Known)
    active: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    own_hours: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    org_hours: Counter[int] = field(default_factory=Counter)
    org_hour_days: int = 0
    owner_users: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    cloud_days: Counter[str] = field(default_factory=Counter)
    peer_commands: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    peer_days: Counter[str] = field(default_factory=Counter)
    account_commands: Counter[tuple[str, str]] = field(default_factory=Counter)
    account_days: Counter[str] = field(default_factory=Counter)
    coords: dict[str, tuple[float, float]] = field(default_factory=dict)

    def catch_up(self, until: int) -> None:
        """The organisation learns what was used before that day."""
        for k in (self.place, self.net, self.pair, self.prefix, self.agent, self.command):
            k.catch_up(until)

    def learn(
        self, day: int, u: str, d: Days, places: dict[str, Place], teach: bool, inter: bool, speed: bool
    ) -> None:
        """Learn one actor's day."""
        ps = [places[a] for a in d.addresses]
        for p in ps:
            if p.latitude is not None and p.longitude is not None:
                self.coords[p.place] = (p.latitude, p.longitude)
            if p.owner:
                self.owner_users[p.owner].add(u)
        if self.active[u]:
            self._grades(u, ps, teach)
        self.place.learn(day, u, {p.place for p in ps}, teach)
        self.net.learn(day, u, {p.network for p in ps}, teach)
        self.pair.learn(day, u, {p.place + "|" + p.network for p in ps}, teach)
        self.prefix.learn(day, u, {prefix_of(a) for a in d.addresses}, teach)
        self.agent.learn(day, u, d.agents, teach)
        self.command.learn(day, u, d.commands, teach)
        self.cloud_days[u] += any(_CLOUD(p) for p in ps if _geographic(p.status))
        self.active[u].append(day)
        self.own_hours[u].update({h % 24 for h in d.hours})
        if d.human:
            local = {local_hour(h, places[a].time_zone) for a, h in d.place_hours if places[a].time_zone}
            self.org_hour_days += bool(local)
            self.org_hours.update(local)
        self.inter.count(u, inter)
        self.speed.count(u, speed)
        for r in d.peers:
            self.peer_days[r] += 1
            self.peer_commands[r].update(d.commands)
        self.account_commands.update(d.in_accounts)
        self.account_days.update({account for account, _ in d.in_accounts})

    def _grades(self, u: str, ps: list[Place], teach: bool) -> None:
        own, nets = self.place.days[u], self.net.days[u]
        grade = {p.place: grade_of(p.place, self.coords.get(p.place), own, self.coords) for p in ps}
        for k, g in ((self.far, 2), (self.near, 1)):
            fresh = {v for v, h in grade.items() if h == g and v not in own}
            k.count(u, bool(fresh), [self.place.others(u, v) for v in fresh] if teach else [])
        for g, k in enumerate(self.nets):
            some = {
                p.network for p in ps if (0 if len(own.get(p.place, ())) >= SETTLED else grade[p.place]) == g
            }
            if some:
                fresh = some - nets.keys()
                k.count(u, bool(fresh), [self.net.others(u, v) for v in fresh] if teach else [])


def replay(
    o: Organisation,
    facts: dict[int, dict[str, Days]],
    begins: dict[int, list[Chain]],
    all_by_day: dict[int, list[Chain]],
    low: int,
    high: int,
) -> None:
    """Go through the days under one map and note for each chain what was known before its day."""
    state, start = State(), o.events[0].day
    places = o.moved if high >= o.moves_on else o.places
    for day in range(start, high + 1):
        state.catch_up(day - LAG + 1)
        if day >= low:
            for c in begins.get(day, ()):
                note(o, c, day, state)
        inter = {c.who for c in all_by_day.get(day, ()) if c.facts["inter"]}
        speed = {c.who for c in all_by_day.get(day, ()) if c.facts["speed"] > 800}
        for u, d in facts.get(day, {}).items():
            state.learn(day, u, d, places, day - start >= LEARNING_DAYS, u in inter, u in speed)


@cache
def _CLOUD(p: Place) -> bool:
    return bool(_HOSTING.search(p.owner))


def note(o: Organisation, c: Chain, day: int, s: State) -> None:
    """Note what was known before the day, for one chain."""
    f, u = c.facts, c.who
    days = s.active.get(u, [])
    p = o.place(c.events[0].address, day)
    f["n"] = len(days)
    fifth = days[-5] if len(days) >= 5 else 0
    f["kinds"] = sorted({e.kind for e in c.events})

    def known(k: Known, value: str) -> dict[str, Any]:
        own = k.days.get(u, {}).get(value, [])
        others = k.others(u, value)
        return {
            "days": len(own),
            "recent": sum(1 for d in own[-5:] if d >= fifth),
            "last": int(bool(days) and bool(own) and own[-1] == days[-1]),
            "others": others,
            "tail": k.tail(others),
            "rate": k.rate(u),
        }

    f["place"] = known(s.place, c.place)
    f["net"] = known(s.net, c.network)
    f["pair"] = known(s.pair, c.place + "|" + c.network)
    grade = grade_of(c.place, _spot(o, c), s.place.days.get(u, {}), s.coords)
    f["is_near"] = grade == 1
    f["far"] = {"rate": s.far.rate(u), "tail": s.far.tail(f["place"]["others"])}
    f["near"] = {"rate": s.near.rate(u), "tail": s.near.tail(f["place"]["others"])}
    k = s.nets[0 if f["place"]["days"] >= SETTLED else grade]
    f["netc"] = {"rate": k.rate(u), "tail": k.tail(f["net"]["others"])}
    f["prefixes"] = [known(s.prefix, v) for v in sorted({prefix_of(e.address) for e in c.events})]
    f["agents"] = {v: known(s.agent, v) for v in sorted({e.agent for e in c.events})}
    f["hosting"] = bool(_HOSTING.search(p.owner))
    f["owner_others"] = len(s.owner_users.get(p.owner, set()) - {u})
    f["cloud_days"] = s.cloud_days[u]
    f["geographic"] = _geographic(c.status)
    f["hour"] = min(_hour(h, p.time_zone, u, len(days), s) for h in {e.at // HOUR for e in c.events})
    role = Counter(role_of(e) for e in c.events).most_common(1)[0][0]
    account = Counter(e.account for e in c.events).most_common(1)[0][0]
    denied = {e.command for e in c.events if is_denied(e.error)}
    total = sum(s.command.value_days.values())
    once = sum(1 for v in s.command.value_days.values() if v == 1)
    unseen = max(once, 1) / (total + 1)
    cmds: dict[str, dict[str, Any]] = {}
    for v, read_only in sorted({(e.command, e.read_only) for e in c.events}):
        on = s.command.value_days.get(v, 0)
        cmds[v] = known(s.command, v) | {
            "prior": (1 - unseen) * on / max(total, 1) if on else unseen / (len(s.command.value_days) + 1),
            "peer_days": s.peer_commands[role][v] if role in s.peer_commands else 0,
            "peer_total": s.peer_days.get(role, 0),
            "account_days": s.account_commands[account, v],
            "account_total": s.account_days[account],
            "sens": sensitivity(v, read_only),
            "denied": v in denied,
        }
    f["cmds"] = cmds
    f["rates"] = {"inter": s.inter.rate(u), "speed": s.speed.rate(u)}
    f["start"], f["end"] = c.events[0].at, c.events[-1].at


def _hour(hour: int, zone: str, u: str, n: int, s: State) -> float:
    """Surprise of the hour, give or take one: the lesser of own habit (UTC) and of local working hours."""
    own = max(s.own_hours[u][(hour + d) % 24] for d in (-1, 0, 1))
    local = local_hour(hour, zone)
    if local < 0:
        return 0.0
    usual = max(s.org_hours[(local + d) % 24] for d in (-1, 0, 1)) / max(s.org_hour_days, 1)
    return -math.log2(max(min(1.0, max((own + 5 * usual) / (n + 5), usual)), 1e-3))


def features(o: Organisation) -> list[Chain]:
    """`collect`, kept beside the organisations when RARETRAIL_BENCH_CACHE names a folder."""
    folder = os.environ.get("RARETRAIL_BENCH_CACHE")
    if not folder:
        return collect(o)
    kept = Path(folder) / f"features-{VERSION}-{o.name.replace(' ', '-')}.pickle"
    if kept.exists():
        found: list[Chain] = pickle.loads(kept.read_bytes())
        return found
    made = collect(o)
    kept.write_bytes(pickle.dumps(made, protocol=5))
    return made


# ------------------------------------------------------------------------------------- the formula

ON: dict[str, float] = {}


def w(name: str, value: float = 1.0) -> float:
    """A constant by name; experiments put others in ON."""
    return ON.get(name, value)


def bits(p: float) -> float:
    return -math.log2(min(1.0, max(p, 1e-9)))


def first_bits(k: dict[str, Any], cap: float, near: bool = False) -> float:
    """Surprise of a first use: the own rate of news, and how few others had it before."""
    return min(cap, bits(k["rate"]) + (0.0 if near else w("tail") * bits(k["tail"])))


def combine(c: Chain) -> tuple[float, dict[str, float]]:
    """Bits of a chain, in all and by part."""
    f = c.facts
    n = f["n"]
    t = dict.fromkeys(("place", "net", "prefix", "speed", "agent", "host", "hour"), 0.0)
    person = bool(set(f["kinds"]) & {"person", "user", "root"})
    place, net, pair = f["place"], f["net"], f["pair"]
    near = f["is_near"]
    settled = pair["days"] >= SETTLED  # the actor's own place and network: nothing below is strange there
    if f["geographic"]:
        # News of near and of far places are told apart, unless an experiment asks for one rate of both.
        close, far = (f["near"], f["far"]) if w("graded") else (place, place)
        first = (
            bits(close["rate"]) if near and w("near")
            else bits(far["rate"]) + w("tail") * bits(far["tail"])
        )  # fmt: skip
        t["place"] = min(w("place_cap", 10), first)
        if place["days"]:
            habit = max(
                (place["days"] + 0.5) / (n + 0.5),
                w("recency", 0.7) * place["recent"] / 5, w("recency", 0.7) * place["last"],
            )  # fmt: skip
            # Having been there once never makes a place more unusual than never.
            t["place"] = min(t["place"], bits((1 - place["rate"]) * habit))
        if not net["days"]:
            k = f["netc"]
            t["net"] = min(w("net_cap", 8), bits(k["rate"]) + w("tail") * bits(k["tail"]))
        elif not pair["days"] and place["days"]:
            t["net"] = first_bits(pair, w("pair_cap", 4))
        fresh = [k for k in f["prefixes"] if not k["days"]]
        if fresh and net["days"] and place["days"]:
            t["prefix"] = min(first_bits(k, w("prefix_cap", 4)) for k in fresh)
        speed = f["speed_past" if w("past", 0) else "speed"]
        # A carrier or a VPN one already uses flaps; only a strange network needs a journey.
        if speed > 800 and not settled and net["days"] < SETTLED:
            t["speed"] = min(w("speed_cap", 4), bits(f["rates"]["speed"]))
    where = sum(w(x) * t[x] for x in ("place", "net", "prefix", "speed"))

    fresh = [k for k in f["agents"].values() if not k["days"]]
    t["agent"] = max((first_bits(k, w("agent_cap", 8)) for k in fresh), default=0.0)
    if f["hosting"] and person and f["cloud_days"] < SETTLED and not net["days"]:
        t["host"] = w("host_bits", 4) / (1 + f["owner_others"])
    if person and f["geographic"]:
        t["hour"] = min(w("hour_cap", 4), max(0.0, f["hour"] - 1))
    how = sum(w(x) * t[x] for x in ("agent", "host", "hour"))

    each = {v: command_bits(k, n) for v, k in f["cmds"].items()}
    sens = w("sens", 0.5)
    t["cmd"] = max(b + sens * f["cmds"][v]["sens"] * min(1.0, b / 4) for v, b in each.items())
    t["burst"] = 0.5 * math.log2(1 + sum(b > 2 for b in each.values()))
    # Refusals count by kind, and only of what the actor does not usually do: a script that lacks
    # one permission repeats itself, one who probes does not.
    probes = sum(1 for k in f["cmds"].values() if k["denied"] and not k["days"])
    t["probe"] = min(w("probe_cap", 3), math.log2(1 + probes))
    calm = w("calm", 4)
    scale = min(1.0, 0.25 + 0.75 * (where + how) / calm) if calm else 1.0
    what = scale * sum(w(x) * t[x] for x in ("cmd", "burst", "probe"))

    mature = min(1.0, (n + 2) / w("mature", 10)) if w("mature", 10) else 1.0
    t["inter"] = min(w("inter_cap", 8), bits(f["rates"]["inter"])) if f["inter"] and not settled else 0.0
    t["where"], t["how"], t["what"] = where, how, what
    return (where + how + what) * mature + w("inter") * t["inter"], t


def command_bits(k: dict[str, Any], n: int) -> float:
    """How unusual the command is for its actor."""
    prior = k["prior"]
    if w("accounts", 0):
        prior = (k["account_days"] + 5 * prior) / (k["account_total"] + 5)
    if k["peer_total"] >= 5 and w("peers"):
        prior = (k["peer_days"] + 5 * prior) / (k["peer_total"] + 5)
    q = (k["days"] + 5 * prior) / (n + 5)
    b = min(w("cmd_cap", 8), max(0.0, bits(q) - w("cmd_offset", 4)))
    if not k["days"]:
        b = min(b, first_bits(k, 8))
    return b


def merged(chains: Sequence[Chain], scores: Sequence[float]) -> list[list[int]]:
    """Chains of one incident: those from one address range new to everybody, within 4 hours.

    Only what scores at least half of the incident's best belongs to it.
    """
    found: list[list[int]] = []
    by_prefix: dict[str, list[list[int]]] = defaultdict(list)
    for n in sorted(range(len(chains)), key=lambda n: (-scores[n], chains[n].day)):
        c = chains[n]
        f = c.facts
        fresh = f["geographic"] and all(not k["days"] and not k["others"] for k in f["prefixes"])
        home: list[int] | None = None
        if fresh and w("merge_prefix"):
            near = (g for g in by_prefix[c.prefix] if scores[n] >= scores[g[0]] / 2 and _close(c, g, chains))
            home = next(near, None)
        if home is None:
            home = []
            found.append(home)
            if fresh:
                by_prefix[c.prefix].append(home)
        home.append(n)
    return found


def _close(c: Chain, group: list[int], chains: Sequence[Chain]) -> bool:
    """Within the gap of one of the group's chains."""
    f = c.facts
    return any(
        f["start"] <= chains[m].facts["end"] + GAP and chains[m].facts["start"] <= f["end"] + GAP
        for m in group
    )


def score(o: Organisation, cache: Path | None = None) -> tuple[list[Incident], list[float]]:
    """Incidents and their scores."""
    chains = features(o)
    return as_incidents(chains, [combine(c)[0] for c in chains])


def as_incidents(chains: Sequence[Chain], scores: Sequence[float]) -> tuple[list[Incident], list[float]]:
    """Chains merged into incidents, each with the score of its best."""
    incidents: list[Incident] = []
    out: list[float] = []
    for group in merged(chains, scores):
        head = chains[group[0]]
        events = sorted((e for n in group for e in chains[n].events), key=lambda e: (e.at, e.id))
        incidents.append(Incident(head.who, head.place, events))
        out.append(scores[group[0]])
    return incidents, out
