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
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from .measure import GAP, LONGEST, Incident
from .organisations import Event, Organisation, Place

VERSION = 1
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


@lru_cache(maxsize=None)
def _role(arn: str, kind: str) -> str:
    m = re.search(r"assumed-role/([^/]+)/|:role/(?:.*/)?([^/]+)$", arn)
    return (m.group(1) or m.group(2)) if m else kind


# ------------------------------------------------------------------------------------ sensitivity

_WATCHERS = ("cloudtrail", "guardduty", "config", "securityhub", "access-analyzer", "macie2", "detective")
_READS = ("Get", "List", "Describe", "Head", "Lookup", "Search", "Query", "Scan", "BatchGet", "View", "Check")


@lru_cache(maxsize=None)
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
    return datetime.fromtimestamp(at_hour * 3600, tz=timezone.utc).astimezone(ZoneInfo(zone)).hour


@lru_cache(maxsize=None)
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
    hours: set[int] = field(default_factory=set)
    place_hours: set[tuple[str, int]] = field(default_factory=set)
    errors: int = 0
    denied: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)
    events: int = 0
    peers: set[str] = field(default_factory=set)
    mfa: set[int] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)


@lru_cache(maxsize=None)
def is_denied(error: str) -> bool:
    return bool(_DENIED.search(error))


def collect(o: Organisation) -> list[Chain]:
    """Chains that begin on judged days, with their facts."""
    who = [e.principal for e in o.events] if os.environ.get("RARETRAIL_PRINCIPAL") else actors(o)
    facts: dict[int, dict[str, Days]] = defaultdict(lambda: defaultdict(Days))
    sign_in = re.compile(r"signin:|sso:Federate|UserAuthentication")
    for e, u in zip(o.events, who, strict=True):
        d = facts[e.day][u]
        d.addresses.add(e.address)
        d.agents.add(e.agent)
        d.commands.add(e.command)
        d.hours.add(e.at // 3600)
        d.place_hours.add((e.address, e.at // 3600))
        d.events += 1
        if is_denied(e.error):
            d.errors += 1
            d.denied.add(e.command)
        d.named.update(e.named)
        d.keys.add(e.key)
        d.accounts.add(e.account)
        d.peers.add(role_of(e))
        d.kinds.add(e.kind)
        if e.mfa >= 0:
            d.mfa.add(e.mfa)
    # All chains of all days, under the map of their day.
    chains = make_chains(o, who)
    by_actor: dict[str, list[Chain]] = defaultdict(list)
    for c in chains:
        by_actor[c.who].append(c)
    concurrency(o, chains, by_actor)
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


def concurrency(o: Organisation, chains: list[Chain], by_actor: dict[str, list[Chain]]) -> None:
    """For each chain: was its actor, or its key, elsewhere within the hour before and after."""
    born: dict[str, tuple[str, str, str]] = {}
    for e in o.events:
        p = o.place(e.address, e.day)
        for m in e.made:
            if m.startswith("ASIA"):
                born.setdefault(m, (p.place, p.network, p.status))
    first_seen: dict[str, tuple[str, str, str]] = {}
    for e in o.events:
        if e.key.startswith("ASIA") and e.key not in first_seen:
            p = o.place(e.address, e.day)
            if _geographic(p.status):
                first_seen[e.key] = (p.place, p.network, p.status)
    for own in by_actor.values():
        if len(own) < 2:
            for c in own:
                c.facts.update(inter=0, inter_key=0, before=0, after=0, speed=0.0, inter_far=0)
                away(c, born, first_seen)
            continue
        for number, c in enumerate(own):
            away(c, born, first_seen)
            f = c.facts
            f.update(inter=0, inter_key=0, before=0, after=0, speed=0.0, inter_far=0)
            if not _geographic(c.status):
                continue
            start, end = c.events[0].at, c.events[-1].at
            near = []
            for x in own[max(0, number - 60) : number + 60]:
                if (
                    x is not c
                    and x.events[0].at <= end + 12 * HOUR
                    and x.events[-1].at >= start - 12 * HOUR
                    and _geographic(x.status)
                ):
                    near.append(x)  # fmt: skip
            if not near:
                continue
            here = _spot(o, c)
            times = [e.at for e in c.events]
            for x in near:
                other = [e.at for e in x.events]
                b = a = 0
                for t in times:
                    i = bisect_left(other, t - HOUR)
                    if i < len(other) and other[i] <= t:
                        b = 1
                    i = bisect_left(other, t)
                    if i < len(other) and other[i] <= t + HOUR:
                        a = 1
                f["before"] |= b
                f["after"] |= a
                if b and a:
                    f["inter"] = 1
                    there = _spot(o, x)
                    km = kilometres(here, there) if here and there else 0.0
                    if km > NEAR_KM:
                        f["inter_far"] = 1
                if True:
                    there = _spot(o, x)
                    if here and there:
                        km = kilometres(here, there)
                        if km > NEAR_KM:
                            gap = min(
                                min(abs(t - other[min(max(j, 0), len(other) - 1)]) for j in (i - 1, i))
                                for t in times
                                for i in (bisect_left(other, t),)
                            )
                            f["speed"] = max(f["speed"], km / max(gap / 3600, 1 / 60))
                keys = {e.key for e in c.events if e.key} & {e.key for e in x.events if e.key}
                if keys:
                    for k in keys:
                        mine = [e.at for e in c.events if e.key == k]
                        theirs = [e.at for e in x.events if e.key == k]
                        bk = any(
                            theirs[max(bisect_right(theirs, t) - 1, 0)] <= t
                            and t - theirs[max(bisect_right(theirs, t) - 1, 0)] <= HOUR
                            for t in mine
                        )
                        ak = any(
                            (i := bisect_left(theirs, t)) < len(theirs) and theirs[i] - t <= HOUR
                            for t in mine
                        )
                        if bk and ak:
                            f["inter_key"] = 1


def _spot(o: Organisation, c: Chain) -> tuple[float, float] | None:
    p = o.place(c.events[0].address, c.day)
    return (p.latitude, p.longitude) if p.latitude is not None and p.longitude is not None else None


def _geographic(status: str) -> bool:
    return status in ("city", "country", "not_found")


def away(
    c: Chain, born: dict[str, tuple[str, str, str]], first_seen: dict[str, tuple[str, str, str]]
) -> None:
    """Temporary keys of the chain that were made, or first used, somewhere else."""
    n = 0
    if _geographic(c.status):
        for k in {e.key for e in c.events}:
            at = born.get(k)
            if at is None or not _geographic(at[2]):
                at = first_seen.get(k)
            if at and _geographic(at[2]) and (at[0], at[1]) != (c.place, c.network):
                n = 1
    c.facts["away"] = n


def replay(
    o: Organisation,
    facts: dict[int, dict[str, Days]],
    begins: dict[int, list[Chain]],
    all_by_day: dict[int, list[Chain]],
    low: int,
    high: int,
) -> None:
    """Go through the days under one map and note for each chain what was known before its day."""
    place_k, net_k, pre_k, addr_k, agent_k, cmd_k, res_k, acc_k, pair_k = (Known() for _ in range(9))
    far_k, near_k, net0_k, net1_k, net2_k = (Known() for _ in range(5))
    flag_k = {
        n: [Counter(), 0, 0]
        for n in ("inter", "inter_key", "away", "before", "denied", "nomfa", "speed", "twice")
    }
    active_days: dict[str, list[int]] = defaultdict(list)
    hours: dict[str, Counter[int]] = defaultdict(Counter)  # local org working hours by day-presence
    own_hours: dict[str, Counter[int]] = defaultdict(Counter)
    org_hours: Counter[int] = Counter()
    org_hour_days = 0
    owner_users: dict[str, set[str]] = defaultdict(set)
    denied_days: Counter[str] = Counter()
    events_seen: Counter[str] = Counter()
    errors_seen: Counter[str] = Counter()
    org_events = org_errors = 0
    cloudy: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    peer_cmd: dict[str, Counter[str]] = defaultdict(Counter)
    peer_days: Counter[str] = Counter()
    adopters: dict[str, dict[str, int]] = defaultdict(dict)
    mfa_days: Counter[str] = Counter()
    kinds: dict[str, set[str]] = defaultdict(set)
    places = o.moved if high >= o.moves_on else o.places
    coords: dict[str, tuple[float, float]] = {}
    start = o.events[0].day

    for day in range(start, high + 1):
        for k in (place_k, net_k, pre_k, addr_k, agent_k, cmd_k, res_k, acc_k, pair_k):
            k.catch_up(day - LAG + 1)
        if day >= low:
            for c in begins.get(day, ()):
                note(
                    o,
                    c,
                    day,
                    (far_k, near_k, net0_k, net1_k, net2_k),
                    place_k,
                    net_k,
                    pre_k,
                    addr_k,
                    agent_k,
                    cmd_k,
                    res_k,
                    acc_k,
                    pair_k,
                    flag_k,
                    active_days,
                    own_hours,
                    org_hours,
                    org_hour_days,
                    owner_users,
                    events_seen,
                    errors_seen,
                    org_events,
                    org_errors,
                    cloudy,
                    peer_cmd,
                    peer_days,
                    adopters,
                    coords,
                    places,
                    denied_days,
                    mfa_days,
                    start,
                )
        teach = day - start >= LEARNING_DAYS
        flags: dict[str, set[str]] = {n: set() for n in flag_k}
        for c in all_by_day.get(day, ()):
            for n in ("inter", "inter_key", "away", "before"):
                if c.facts.get(n):
                    flags[n].add(c.who)
            if c.facts["speed"] > 800:
                flags["speed"].add(c.who)
            if c.facts["speed"] > 800 or c.facts["inter"]:
                flags["twice"].add(c.who)
        for u, d in facts.get(day, {}).items():
            ps = [places[a] for a in d.addresses]
            for p in ps:
                if p.latitude is not None and p.longitude is not None:
                    coords[p.place] = (p.latitude, p.longitude)
                if p.owner:
                    owner_users[p.owner].add(u)
            own_places = place_k.days[u]
            own_nets = net_k.days[u]
            old = bool(place_k.active[u])
            grade: dict[str, int] = {}
            for p in ps:
                if p.place not in grade:
                    grade[p.place] = grade_of(p.place, (p.latitude, p.longitude), own_places, coords)
            settled = {v: 0 if len(own_places.get(v, ())) >= SETTLED else g for v, g in grade.items()}
            if old:
                for k, g in ((far_k, 2), (near_k, 1)):
                    some = {v for v, h in grade.items() if h == g and v not in own_places}
                    k.org_active += 1
                    k.active[u] += 1
                    k.news[u] += bool(some)
                    k.org_news += bool(some)
                    if teach:
                        for v in some:
                            k.firsts[class_of(place_k.others(u, v))] += 1
                for k, g in ((net0_k, 0), (net1_k, 1), (net2_k, 2)):
                    some = {p.network for p in ps if settled[p.place] == g}
                    if not some:
                        continue
                    fresh = {v for v in some if v not in own_nets}
                    k.org_active += 1
                    k.active[u] += 1
                    k.news[u] += bool(fresh)
                    k.org_news += bool(fresh)
                    if teach:
                        for v in fresh:
                            k.firsts[class_of(net_k.others(u, v))] += 1
            place_k.learn(day, u, {p.place for p in ps}, teach)
            net_k.learn(day, u, {p.network for p in ps}, teach)
            pair_k.learn(day, u, {p.place + "|" + p.network for p in ps}, teach)
            pre_k.learn(day, u, {prefix_of(a) for a in d.addresses}, teach)
            addr_k.learn(day, u, set(d.addresses), teach)
            agent_k.learn(day, u, set(d.agents), teach)
            for cmd in d.commands:
                if cmd not in cmd_k.days[u]:
                    adopters[cmd][u] = day
            cmd_k.learn(day, u, set(d.commands), teach)
            res_k.learn(day, u, set(d.named), teach)
            acc_k.learn(day, u, set(d.accounts), teach)
            cloud = any(_CLOUD(p) for p in ps if _geographic(p.status))
            ground = any(_geographic(p.status) and not _CLOUD(p) for p in ps)
            cloudy[u][0] += cloud
            cloudy[u][1] += ground
            active_days[u].append(day)
            for h in {h % 24 for h in d.hours}:
                own_hours[u][h] += 1
            if d.kinds & {"person", "user"}:
                local = {local_hour(h, places[a].time_zone) for a, h in d.place_hours if places[a].time_zone}
                if local:
                    org_hour_days += 1
                    org_hours.update(local)
            for n in ("inter", "inter_key", "away", "before", "speed", "twice"):
                flag_k[n][2] += 1
                if u in flags[n]:
                    flag_k[n][0][u] += 1
                    flag_k[n][1] += 1
            flag_k["denied"][2] += 1
            if len(d.denied) >= 3:
                flag_k["denied"][0][u] += 1
                flag_k["denied"][1] += 1
            flag_k["nomfa"][2] += bool(d.mfa)
            mfa_days[u] += bool(d.mfa)
            if 0 in d.mfa and 1 not in d.mfa:
                flag_k["nomfa"][0][u] += 1
                flag_k["nomfa"][1] += 1
            events_seen[u] += d.events
            errors_seen[u] += d.errors
            org_events += d.events
            org_errors += d.errors
            for r in d.peers:
                peer_days[r] += 1
                peer_cmd[r].update(d.commands)


SETTLED = 3


def grade_of(
    place: str, at: tuple[float | None, float | None], own: dict[str, list[int]],
    coords: dict[str, tuple[float, float]],
) -> int:  # fmt: skip
    """1 if near a better known place of the actor's, else 2."""
    if at[0] is None or at[1] is None:
        return 2
    here = (at[0], at[1])
    days = len(own.get(place, ()))
    return 1 if any(
        len(d) > days and q != place and q in coords and kilometres(here, coords[q]) <= NEAR_KM
        for q, d in own.items()
    ) else 2  # fmt: skip


@lru_cache(maxsize=None)
def _CLOUD(p: Place) -> bool:
    return bool(_HOSTING.search(p.owner))


def note(
    o, c, day, graded, place_k, net_k, pre_k, addr_k, agent_k, cmd_k, res_k, acc_k, pair_k, flag_k, active_days,
    own_hours, org_hours, org_hour_days, owner_users, events_seen, errors_seen, org_events,
    org_errors, cloudy, peer_cmd, peer_days, adopters, coords, places, denied_days, mfa_days, start,
):  # fmt: skip
    """What was known before the day, for one chain."""
    far_k, near_k, net0_k, net1_k, net2_k = graded
    f, u = c.facts, c.who
    days = active_days.get(u, [])
    f["n"] = len(days)
    f["baseline"] = day - start
    fifth = days[-5] if len(days) >= 5 else 0
    f["kinds"] = sorted({e.kind for e in c.events})
    p = o.place(c.events[0].address, day)

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
            "value_days": k.value_days.get(value, 0),
        }

    f["place"] = known(place_k, c.place)
    f["net"] = known(net_k, c.network)
    f["pair"] = known(pair_k, c.place + "|" + c.network)
    here = _spot(o, c)
    km = near_known = 1e9
    if here:
        for q, own in place_k.days.get(u, {}).items():
            if q in coords and q != c.place:
                d = kilometres(here, coords[q])
                km = min(km, d)
                # A neighbour vouches for a place only if it is better known.
                if len(own) > len(place_k.days[u].get(c.place, ())):
                    near_known = min(near_known, d)
    f["km"], f["near_known"] = km, near_known
    g = 0 if f["place"]["days"] >= SETTLED else 1 if near_known <= NEAR_KM else 2
    f["far"] = {"rate": far_k.rate(u), "tail": far_k.tail(f["place"]["others"])}
    f["near"] = {"rate": near_k.rate(u), "tail": near_k.tail(f["place"]["others"])}
    k = (net0_k, net1_k, net2_k)[g]
    f["netc"] = {"rate": k.rate(u), "tail": k.tail(f["net"]["others"])}
    f["prefixes"] = [known(pre_k, v) for v in sorted({prefix_of(e.address) for e in c.events})]
    f["addresses"] = [known(addr_k, v) for v in sorted({e.address for e in c.events})[:20]]
    f["agents"] = {v: known(agent_k, v) for v in sorted({e.agent for e in c.events})}
    f["owner"] = p.owner
    f["hosting"] = bool(_HOSTING.search(p.owner))
    f["owner_others"] = len(owner_users.get(p.owner, set()) - {u})
    f["cloudy"] = tuple(cloudy.get(u, [0, 0]))
    f["geographic"] = _geographic(c.status)
    # hours
    best = 99.0
    for h in sorted({e.at // 3600 for e in c.events}):
        mine = max(own_hours[u][(h + s) % 24] for s in (-1, 0, 1)) if u in own_hours else 0
        lh = local_hour(h, p.time_zone)
        org = max(org_hours[(lh + s) % 24] for s in (-1, 0, 1)) / max(org_hour_days, 1) if lh >= 0 else 1.0
        own = (mine + 5 * org) / (len(days) + 5)
        best = min(best, -math.log2(max(min(1.0, max(own, org)), 1e-3)))
    f["hour"] = best
    # commands
    role = Counter(role_of(e) for e in c.events).most_common(1)[0][0]
    f["role"] = role
    denied = Counter(e.command for e in c.events if is_denied(e.error))
    total = sum(cmd_k.value_days.values())
    once = sum(1 for v in cmd_k.value_days.values() if v == 1)
    seen = len(cmd_k.value_days)
    cmds: dict[str, dict[str, Any]] = {}
    read = {e.command: e.read_only for e in c.events}
    uses = Counter(e.command for e in c.events)
    for v in sorted(uses):
        k = known(cmd_k, v)
        vd = cmd_k.value_days.get(v, 0)
        unseen = max(once, 1) / (total + 1)
        prior = (1 - unseen) * vd / max(total, 1) if vd else unseen / (seen + 1)
        k["prior"] = prior
        k["peer_days"] = peer_cmd[role][v] if role in peer_cmd else 0
        k["peer_total"] = peer_days.get(role, 0)
        k["sens"] = sensitivity(v, read[v])
        taken = adopters.get(v, {})
        k["first"] = next(iter(taken.values()), day)
        k["takers"] = len(taken) - (u in taken)
        k["own"] = cmd_k.days.get(u, {}).get(v, [])[-12:]
        k["denied"] = denied.get(v, 0)
        k["uses"] = uses[v]
        cmds[v] = k
    f["cmds"] = cmds
    f["org_cmd"] = (total, once, seen)
    f["res"] = [known(res_k, v) for v in sorted({x for e in c.events for x in e.named})[:60]]
    f["acc"] = [known(acc_k, v) for v in sorted({e.account for e in c.events})]
    f["errors"] = (sum(denied.values()), len(denied), len(c.events))
    org_rate = (org_errors + 1) / (org_events + 2)
    f["error_rate"] = (errors_seen[u] + 100 * org_rate) / (events_seen[u] + 100)
    f["rates"] = {n: (v[0][u] + 10 * (v[1] + 1) / (v[2] + 2)) / (len(days) + 10) for n, v in flag_k.items()}
    f["mfa"] = tuple(sorted({e.mfa for e in c.events}))
    f["mfa_days"] = mfa_days[u]
    f["start"], f["end"] = c.events[0].at, c.events[-1].at


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
    near = (f["near_known"] if place["days"] else f["km"]) <= NEAR_KM
    settled = pair["days"] >= 3  # the actor's own place and network: nothing below is strange there
    if f["geographic"]:
        first = (
            bits(f["near"]["rate"]) if near and w("near")
            else bits(f["far"]["rate"]) + w("tail") * bits(f["far"]["tail"])
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
        if f["speed"] > 800 and not settled and (not w("speed_net") or net["days"] < SETTLED):
            t["speed"] = min(w("speed_cap", 4), bits(f["rates"]["speed"]))
    where = sum(w(x) * t[x] for x in ("place", "net", "prefix", "speed"))

    fresh = [k for k in f["agents"].values() if not k["days"]]
    t["agent"] = max((first_bits(k, w("agent_cap", 8)) for k in fresh), default=0.0)
    if f["hosting"] and person and f["cloudy"][0] < 3 and not net["days"]:
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
    t["inter"] = (
        min(w("inter_cap", 8), bits(f["rates"]["inter"]))
        if f["inter"] and not settled and (not w("inter_net", 0) or net["days"] < SETTLED)
        else 0.0
    )
    t["where"], t["how"], t["what"] = where, how, what
    return (where + how + what) * mature + w("inter") * t["inter"], t


def command_bits(k: dict[str, Any], n: int) -> float:
    """How unusual the command is for its actor."""
    prior = k["prior"]
    if k["peer_total"] >= 5 and w("peers"):
        prior = (k["peer_days"] + 5 * prior) / (k["peer_total"] + 5)
    q = (k["days"] + 5 * prior) / (n + 5)
    b = min(w("cmd_cap", 8), max(0.0, bits(q) - w("cmd_offset", 4)))
    if not k["days"]:
        b = min(b, first_bits(k, 8))
    return b


def merged(chains: list[Chain], scores: list[float]) -> list[list[int]]:
    """Chains of one incident: of one actor, or from one address range new to everybody, within 4 hours.

    Only what scores at least half of the incident's best belongs to it.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    of: dict[int, int] = {}
    found: list[list[int]] = []
    keys: dict[str, list[int]] = defaultdict(list)
    for n in sorted(range(len(chains)), key=lambda n: (-scores[n], chains[n].day)):
        c = chains[n]
        ids = ["who " + c.who] if w("merge_who", 0) else ["who " + c.who + c.place]
        if w("merge_prefix"):
            ids += (
                ["prefix " + c.prefix]
                if all(not k["days"] and not k["others"] for k in c.facts["prefixes"])
                and c.facts["geographic"]
                else []
            )
        home = None
        for id_ in ids:
            for g in keys[id_]:
                if scores[n] < scores[found[g][0]] / 2:
                    continue
                if any(
                    c.facts["start"] <= chains[m].facts["end"] + GAP and chains[m].facts["start"] <= c.facts["end"] + GAP
                    for m in found[g]
                ):  # fmt: skip
                    home = g
                    break
            if home is not None:
                break
        if home is None:
            home = len(found)
            found.append([])
        found[home].append(n)
        for id_ in ids:
            if home not in keys[id_]:
                keys[id_].append(home)
    return found


def score(o: Organisation) -> tuple[list[Incident], list[float]]:
    """Incidents and their scores."""
    chains = features(o)
    scores = [combine(c)[0] for c in chains]
    incidents: list[Incident] = []
    out: list[float] = []
    for group in merged(chains, scores):
        head = chains[group[0]]
        events = sorted((e for n in group for e in chains[n].events), key=lambda e: (e.at, e.id))
        incidents.append(Incident(head.who, head.place, events))
        out.append(scores[group[0]])
    return incidents, out
