"""The intrusions. A kind is one function decorated with `campaign`; nothing else names it but
`shape.CAMPAIGN_KINDS`, the list that is published.

The function gets an `Intrusion` (victim, intruder, the day) and makes the intruder's calls through
it; every event it causes is labelled. It raises `NoChance` when the day does not offer what it
needs, and the campaign then moves to another victim or day.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from raretrail.simulate import records
from raretrail.simulate.commands import COMMANDS, HIDE, PERSIST, RECON, STEAL
from raretrail.simulate.organisation import Account
from raretrail.simulate.people import Person, Use, usual_tools
from raretrail.simulate.places import City, Line, Seat, seat_on
from raretrail.simulate.records import Session, User
from raretrail.simulate.robots import INSTANCE, Instance, Robot
from raretrail.simulate.shape import CAMPAIGN_KINDS
from raretrail.simulate.world import World

_ATTACK_AGENTS = (
    "Boto3/1.26.165 Python/3.11.2 Linux/6.5.0-kali3-amd64 Botocore/1.29.165",
    "aws-cli/2.9.19 Python/3.11.2 Linux/6.1.0-kali9-amd64 source/x86_64.kali.2023 prompt/off",
    "aws-cli/1.29.12 Python/3.10.12 Linux/5.15.0-91-generic botocore/1.31.12",
    "Boto3/1.9.89 Python/2.7.15rc1 Linux/4.15.0-38-generic Botocore/1.12.89",
    "python-requests/2.31.0",
    "aws-sdk-go/1.44.157 (go1.19.3; linux; amd64) cloudfox/1.14.1",
    "TruffleHog",
)


class NoChance(Exception):
    """This victim or day does not offer what the kind needs."""


@dataclass
class Intrusion:
    """One campaign under way.

    `quiet` intruders run only what the victim runs; `in_hours` ones keep to the victim's hours;
    `residential` ones use a home line and everyday tools.
    """

    world: World
    kind: str
    id: str
    day: int
    rng: Random
    people: list[Person]
    robots: list[Robot]
    victim: Person
    quiet: bool
    in_hours: bool
    residential: bool
    return_day: int | None
    returned: int | None = None
    seat: Seat = field(init=False)
    agent: str = field(init=False)
    note: list[str] = field(default_factory=list)
    arns: dict[str, None] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    seats: list[Seat] = field(default_factory=list)
    victim_name: str = ""
    how: str = ""

    def __post_init__(self) -> None:
        self.victim_name = self.victim.name
        if self.residential:
            tools = usual_tools(self.rng)
            self.agent = tools.agent(self.rng.choice(("cli", "script")))
        else:
            self.agent = self.rng.choice(_ATTACK_AGENTS)

    # ----------------------------------------------------------------------------------- where

    def sit(self, city: City, lines: list[Line] | None = None) -> None:
        """Take a line in the city: at home there, or with a hoster."""
        if lines is None:
            if self.residential:
                lines = self.world.atlas.residential(city, self.rng.choice("abc"))
            else:
                lines = self.world.atlas.hosting(city)
        self.seat = seat_on(self.rng.choice(lines), self.rng)
        self.seats.append(self.seat)

    def city_where(self, wanted: Callable[[City], bool]) -> City:
        """A city of the atlas for which that holds."""
        cities = [c for c in self.world.atlas.world if wanted(c)]
        if not cities:
            raise NoChance
        return self.rng.choice(cities)

    def far_from_victim(self, city: City) -> bool:
        """More than 100 km from everywhere the victim has been."""
        own = [self.world.atlas.cities[i] for i in self.victim.places if i in self.world.atlas.cities]
        return all(city.kilometres(c) > 100 for c in (*own, self.victim.town, self.victim.office.city))

    def unseen(self, city: City) -> bool:
        """Nobody of the organisation has been there or within 60 km."""
        return self.far_from_victim(city) and not any(
            self.world.seen[i] and city.kilometres(self.world.atlas.cities[i]) < 60
            for i in list(self.world.seen) if i in self.world.atlas.cities
        )  # fmt: skip

    # ------------------------------------------------------------------------------------ when

    def start(self) -> int:
        """When the intruder begins: in the victim's hours or in the other half of the day."""
        zone = self.victim.office.city.time_zone
        begin = self.victim.start_hour
        hour = begin + 1 + self.rng.random() * 6 if self.in_hours else begin + 12 + self.rng.random() * 8
        if hour > 23.5:
            hour -= 24
        at = self.world.at(self.day, hour, zone)
        # However far the time zone, the campaign begins on its day (UTC).
        low = self.world.at(self.day, 0.05)
        return min(max(at, low), self.world.at(self.day, 23.3))

    # ------------------------------------------------------------------------------ credentials

    def stolen(self, at: int) -> tuple[Session, Account, int]:
        """The victim's credentials as the intruder gets them, the account, and from when on.

        A long-term key where there is one; else the victim's sign-in, without the second factor
        half of the time.
        """
        if self.victim.user is not None:
            account = self.world.org.account(self.victim.user.account)
            self.how = "the victim's access key"
            return records.user_session(self.victim.user), account, at
        account = self.victim.accounts[0]
        console = self.residential and self.rng.random() < 0.4
        if console:
            self.agent = usual_tools(self.rng).agent("console")
        session = self.victim.sign_in(
            self.world, self.rng, account, at, self.seat, self.agent, console=console,
            mfa=self.rng.random() < 0.5, note=self.note,
        )  # fmt: skip
        self.how = "the victim's password" if console else "the victim's portal session"
        return session, account, at + 5

    def uses(self) -> list[Use]:
        """What the victim did today, where it helps an intruder: with temporary keys."""
        return [u for u in self.victim.today if u.session.key.startswith("ASIA")]

    # ------------------------------------------------------------------------------------- acts

    def own_commands(self, count: int) -> list[str]:
        """Commands as the victim runs them."""
        return [self.victim.choose(self.world, self.rng, self.day) for _ in range(count)]

    def script(self, count: int) -> list[str]:
        """What the intruder runs: the victim's own, or look round, take, stay and hide."""
        if self.quiet:
            return self.own_commands(count)
        rng = self.rng
        look = rng.sample(RECON, min(max(2, count // 2), len(RECON)))
        rest = [
            rng.choice(rng.choices((STEAL, PERSIST, HIDE), (5, 3, 2))[0]) for _ in range(count - len(look))
        ]
        return ["sts:GetCallerIdentity", *look, *rest][: max(1, count)]

    def act(
        self, session: Session, account: Account, at: int, commands: list[str], pause: float,
        denied: float,
    ) -> int:  # fmt: skip
        """Run the commands one after the other; returns when they end."""
        self.arns[session.arn] = None
        for key in commands:
            command = COMMANDS[key]
            failure = records.denied(command, session) if self.rng.random() < denied else None
            self.world.call(
                self.rng, session, at, command, self.seat, self.agent, failure=failure,
                account=account, note=self.note,
            )  # fmt: skip
            self.calls.append(key)
            at += 1 + int(self.rng.expovariate(1 / pause))
        return at

    def visit(self, count: int, pause: float = 30) -> None:
        """The usual course: get in, run the script."""
        at = self.start()
        session, account, at = self.stolen(at)
        commands = self.script(count)
        denied = 0.02 if self.quiet else 0.15
        others = [a for a in self.victim.accounts if a.id != account.id]
        half = len(commands)
        if others and not self.quiet and self.rng.random() < 0.3:
            half = len(commands) // 2
        at = self.act(session, account, at, commands[:half], pause, denied)
        if half < len(commands):
            account = self.rng.choice(others)
            session = self.pivot(session, account, at)
            self.act(session, account, at + 5, commands[half:], pause, denied)

    def pivot(self, session: Session, account: Account, at: int) -> Session:
        """Assume a role in another account with what one has."""
        role = self.world.org.role(account, f"{self.world.org.company}-{self.victim.job.name}")
        name = self.rng.choice((self.victim.name, f"botocore-session-{at}"))
        self.calls.append("sts:AssumeRole")
        return self.world.assume_role(
            self.rng, session, role, name, at, self.seat, self.agent, note=self.note
        )


Kind = Callable[[Intrusion], None]
KINDS: dict[str, Kind] = {}


def campaign(play: Kind) -> Kind:
    """Register the function under its own name, which is its kind."""
    KINDS[play.__name__] = play
    return play


@campaign
def new_city(i: Intrusion) -> None:
    """A stolen key used from a city nobody of the organisation has been to."""
    i.sit(i.city_where(i.unseen))
    i.visit(i.rng.randrange(4, 25))


@campaign
def rare_city(i: Intrusion) -> None:
    """From a city that one or two others have been to, some time."""

    def rarely(city: City) -> bool:
        visitors = i.world.seen.get(city.id, {})
        others = {n for n in visitors if n != i.victim.name}
        days = {d for v in visitors.values() for d in v}
        return 1 <= len(others) <= 2 and len(days) <= 12 and i.far_from_victim(city)

    i.sit(i.city_where(rarely))
    i.visit(i.rng.randrange(4, 22))


@campaign
def other_office(i: Intrusion) -> None:
    """From the city of an office that is not the victim's."""
    cities = [o.city for o in i.world.org.offices if i.far_from_victim(o.city)]
    if not cities:
        raise NoChance
    i.sit(i.rng.choice(cities))
    i.visit(i.rng.randrange(4, 22))


@campaign
def home_city_new_network(i: Intrusion) -> None:
    """From the city the victim lives or works in, over another network."""
    city = i.victim.town
    if i.residential:
        other = i.rng.choice([c for c in "abc" if c != i.victim.carrier])
        i.sit(city, i.world.atlas.residential(city, other))
    else:
        i.sit(city)
    i.visit(i.rng.randrange(4, 20))


@campaign
def blended_travel_city(i: Intrusion) -> None:
    """From where colleagues often travel, mostly with everyday commands."""

    def common(city: City) -> bool:
        visitors = {n for n in i.world.seen.get(city.id, {}) if n != i.victim.name}
        return len(visitors) >= 2 and i.far_from_victim(city)

    i.sit(i.city_where(common))
    commands = i.own_commands(i.rng.randrange(5, 16))
    if not i.quiet:
        for _ in range(i.rng.randrange(1, 3)):
            commands.insert(i.rng.randrange(len(commands)), i.rng.choice(STEAL + PERSIST))
    session, account, at = i.stolen(i.start())
    i.act(session, account, at, commands, 40, 0.02)


@campaign
def single_quiet_call(i: Intrusion) -> None:
    """One call from elsewhere, and never again."""
    i.sit(i.city_where(i.far_from_victim))
    session, account, at = i.stolen(i.start())
    command = i.own_commands(1) if i.quiet else [i.rng.choice(STEAL[:6] + RECON[:4])]
    i.act(session, account, at, command, 30, 0)


@campaign
def recon_burst(i: Intrusion) -> None:
    """Everything there is to list, in a few minutes, much of it refused."""
    i.sit(i.city_where(i.far_from_victim))
    session, account, at = i.stolen(i.start())
    i.quiet = False
    count = i.rng.randrange(40, 160)
    commands = list(RECON) + [i.rng.choice(RECON) for _ in range(count)]
    i.rng.shuffle(commands)
    i.act(session, account, at, commands[:count], 2, 0.45)


@campaign
def instance_credentials_outside(i: Intrusion) -> None:
    """A machine's own temporary key, taken from its metadata, used from outside."""
    machines = [r for r in i.robots if isinstance(r, Instance) and r.session is not None]
    if not machines:
        raise NoChance
    machine = i.rng.choice(machines)
    session = machine.session
    assert session is not None
    i.victim_name = f"{machine.role}/{machine.id}"
    i.sit(i.city_where(lambda c: True))
    i.how = "the key of an instance"
    at = session.created + i.rng.randrange(600, 15000)
    at = min(at, i.world.at(i.day, 23.6))
    count = i.rng.randrange(3, 18)
    commands = (
        [i.rng.choice(INSTANCE) for _ in range(count)]
        if i.quiet else i.script(count)
    )  # fmt: skip
    i.act(session, machine.account, at, commands, 25, 0.02 if i.quiet else 0.3)


@campaign
def session_key_two_places(i: Intrusion) -> None:
    """The victim's session key, used elsewhere while the victim goes on using it."""
    uses = i.uses()
    if len(uses) < 2:
        raise NoChance
    noon = i.world.at(i.day, 12)
    uses = [u for u in uses[:-1] if abs(u.at + 1200 - noon) < 11.4 * 3600]  # ends on its day (UTC)
    if not uses:
        raise NoChance
    use = i.rng.choice(uses)
    i.sit(i.city_where(i.far_from_victim))
    i.how = "the victim's session key while it is in use"
    if i.residential and use.session.console:
        i.agent = use.agent
    at = use.at + i.rng.randrange(60, 1500)
    if at >= use.session.expires:
        raise NoChance
    i.in_hours = True
    count = i.rng.randrange(3, 16)
    i.act(use.session, use.account, at, i.script(count), 20, 0.02 if i.quiet else 0.15)


@campaign
def intruder_made_identity(i: Intrusion) -> None:
    """The intruder makes a user of their own, and comes back as that user from elsewhere."""
    i.sit(i.city_where(i.far_from_victim))
    at = i.start()
    session, account, at = i.stolen(at)
    name = f"svc-{i.rng.choice(account.pools['word'])}-{i.rng.choice(('sync', 'backup', 'agent'))}"
    user = User(account.id, name, records.unique_id("AIDA", i.rng, 17), records.unique_id("AKIA", i.rng))
    made = {
        "user": name, "new_user": name, "new_user_id": user.id, "new_key": user.key,
        "policy": "arn:aws:iam::aws:policy/AdministratorAccess",
    }  # fmt: skip
    i.arns[session.arn] = None
    for key in ("iam:CreateUser", "iam:AttachUserPolicy", "iam:CreateAccessKey"):
        i.world.call(i.rng, session, at, key, i.seat, i.agent, account=account, values=made, note=i.note)
        i.calls.append(key)
        at += i.rng.randrange(4, 60)
    if i.return_day is not None and i.rng.random() < 0.8:
        i.returned = i.return_day
        back = i.world.at(i.return_day, i.rng.random() * 23)
    else:
        latest = i.world.at(i.day, 23.4)
        back = at + 300 + i.rng.randrange(max(1, latest - at))
    i.sit(i.city_where(i.far_from_victim))
    i.how += f", then as {name}, a user made by the intruder"
    i.act(records.user_session(user), account, back, i.script(i.rng.randrange(4, 18)), 30, 0.05)


# ---------------------------------------------------------------------------------------- planning


class Season:
    """When which campaign is played: one a day where the judged days suffice.

    A kind the day has no chance for is put off and another played in its place; what never finds
    its chance is in `not_played` at the end. `further` kinds are played in place of the shape's, once each.
    """

    def __init__(self, world: World, further: Mapping[str, Kind] | None = None) -> None:
        shape, rng = world.shape, world.rng("campaigns")
        self._world = world
        self._kinds = {**KINDS, **(further or {})}
        if further:
            kinds = list(further)
        elif isinstance(shape.campaigns, tuple):
            kinds = list(shape.campaigns)
        else:
            kinds = []
            while len(kinds) < shape.campaign_count:
                kinds += rng.sample(CAMPAIGN_KINDS, len(CAMPAIGN_KINDS))
            kinds = kinds[: shape.campaign_count]
        rng.shuffle(kinds)
        self._left = list(enumerate(kinds))
        days = list(range(shape.days - shape.judged_days, shape.days))
        self._days: list[int] = []
        while len(self._days) < len(kinds):
            self._days += rng.sample(days, min(len(days), len(kinds) - len(self._days)))
        self._days.sort()
        self._victims: set[str] = set()
        self._taken: set[int] = set()  # days on which a made identity comes back

    def play(self, day: int, people: list[Person], robots: list[Robot]) -> list[dict[str, Any]]:
        """Play what is due on the day; returns the labels."""
        labels = []
        due = sum(d == day for d in self._days)
        if self._days and self._days[0] < day and day not in self._taken:
            due = max(due, 1)  # one that was put off; never a second beside the day's own
        for _ in range(due):
            label = self._one(day, people, robots)
            if label is None:
                break
            labels.append(label)
            self._days.pop(0)
        return labels

    @property
    def not_played(self) -> list[str]:
        """Kinds that are still waiting for their chance."""
        return [kind for _, kind in self._left]

    def free_day(self, day: int) -> int | None:
        """The next day, or the one after, if nothing is planned on it."""
        last = self._world.shape.days - 1
        busy = {*self._days, *self._taken}
        return next((d for d in (day + 1, day + 2) if d <= last and d not in busy), None)

    def _one(self, day: int, people: list[Person], robots: list[Robot]) -> dict[str, Any] | None:
        settled = [
            p for p in people if p.name not in self._victims and len(p.active_days) >= 5
            and p.joined < day - 5
        ]  # fmt: skip
        for number, kind in list(self._left):
            rng = self._world.rng("campaign", number, day)
            candidates = rng.sample(settled or people, len(settled or people))
            for victim in candidates[:60]:
                shape = self._world.shape
                intrusion = Intrusion(
                    self._world, kind, f"c{number:02d}-{kind}", day, rng, people, robots, victim,
                    quiet=rng.random() < shape.own_commands_share,
                    in_hours=rng.random() < shape.victim_hours_share,
                    residential=rng.random() < shape.residential_share,
                    return_day=self.free_day(day),
                )  # fmt: skip
                try:
                    self._kinds[kind](intrusion)
                except NoChance:
                    continue
                self._left.remove((number, kind))
                self._victims.add(victim.name)
                if intrusion.returned is not None:
                    self._taken.add(intrusion.returned)
                return _label(intrusion)
        return None


def _label(i: Intrusion) -> dict[str, Any]:
    times = [i.world.noted[event_id] for event_id in i.note]
    places = [
        {
            "address": s.address,
            "city": s.city.name if s.city else "",
            "country": s.line.country if s.line else "",
            "city_geoname_id": s.city.id if s.city else None,
            "as_number": s.line.network.number if s.line else None,
            "as_organization": s.line.network.name if s.line else "",
        }
        for s in i.seats
    ]
    where = " and ".join(f"{p['city']} ({p['country']}, {p['as_organization']})" for p in places)
    title = i.kind.replace("_", " ").capitalize()
    distinct = list(dict.fromkeys(i.calls))
    shown = ", ".join(distinct[:3]) + (f" and {len(distinct) - 3} more" if len(distinct) > 3 else "")
    return {
        "id": i.id,
        "kind": i.kind,
        "day": i.world.date(i.day).isoformat(),
        "victim": i.victim_name,
        "principal_arns": list(i.arns),
        "first_time": records.iso(min(times)),
        "last_time": records.iso(max(times)),
        "from": places,
        "user_agent": i.agent,
        "keeps_to_victims_commands": i.quiet,
        "in_victims_hours": i.in_hours,
        "residential_line": i.residential,
        "commands": distinct,
        "event_ids": i.note,
        "description": f"{title}: {i.how} of {i.victim_name}, from {where}: {shown}.",
    }
