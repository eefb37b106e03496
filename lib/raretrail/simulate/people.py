"""People: who they are, what they know, where they sit, and a day of their work."""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

from raretrail.simulate import records
from raretrail.simulate.commands import COMMANDS, JOBS, Job, of_services
from raretrail.simulate.organisation import Account, Office
from raretrail.simulate.places import City, Line, Seat, seat_on
from raretrail.simulate.records import Session, User
from raretrail.simulate.world import World

_FIRST = (
    "ana", "bruno", "carla", "diego", "elena", "felix", "greta", "hugo", "ines", "jonas", "katja",
    "liam", "maria", "nuno", "olga", "pedro", "rosa", "samir", "tessa", "umar", "vera", "willem",
    "xenia", "yusuf", "zoe", "amir", "beatriz", "chen", "dara", "emil", "farah", "goran", "hana",
    "ivan", "julia", "kofi", "lena", "marco", "nadia", "oskar",
)  # fmt: skip
_LAST = (
    "almeida", "becker", "costa", "duarte", "eriksen", "fischer", "garcia", "hansen", "ito",
    "jansen", "kovacs", "larsen", "moreau", "novak", "okafor", "pereira", "quinn", "rossi",
    "silva", "tanaka", "ueda", "vogel", "weber", "xu", "yilmaz", "zeller", "brandt", "castro",
    "dias", "evans", "fonseca", "gomes",
)  # fmt: skip

_BROWSERS = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/{v}.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/{v}.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:{v}.0) Gecko/20100101 Firefox/{v}.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/{v}.0.0.0 Safari/537.36 Edg/{v}.0.0.0",
)
_SYSTEMS = (
    "os/macos#24.1.0 md/arch#arm64", "os/windows#11 md/arch#amd64", "os/linux#6.8.0 md/arch#x86_64",
    "os/windows#10 md/arch#amd64",
)  # fmt: skip

_OLD_SYSTEMS = ("Darwin/24.1.0", "Windows/10", "Linux/6.8.0-49-generic", "Windows/10")


@dataclass
class Tools:
    """A person's user agents, by channel. `system` ties them to one machine."""

    system: int
    browser: int
    cli: str
    boto: str
    terraform: str

    def agent(self, channel: str) -> str:
        """The user agent string of console, cli, script or terraform."""
        system = _SYSTEMS[self.system]
        if channel == "console":
            return _BROWSERS[self.system].format(v=self.browser)
        if channel == "cli":
            if self.cli.startswith("1."):
                kernel = _OLD_SYSTEMS[self.system]
                return f"aws-cli/{self.cli} Python/3.10.12 {kernel} botocore/1.31.12"
            return (
                f"aws-cli/{self.cli} md/awscrt#0.23.8 ua/2.0 {system} lang/python#3.12.6"
                f" md/pyimpl#CPython cfg/retry-mode#standard"
            )
        if channel == "script":
            return (
                f"Boto3/{self.boto} md/Botocore#{self.boto} ua/2.0 {system} lang/python#3.11.9"
                " md/pyimpl#CPython cfg/retry-mode#legacy"
            )
        return (
            f"APN/1.0 HashiCorp/1.0 Terraform/{self.terraform} (+https://www.terraform.io)"
            f" terraform-provider-aws/5.{self.browser - 60}.0 aws-sdk-go-v2/1.32.5 ua/2.1 {system}"
        )


def usual_tools(rng: Random) -> Tools:
    """Tools as most people have them."""
    return Tools(
        rng.choice((0, 0, 1, 2, 3)),
        rng.choice((129, 130, 131, 132)),
        rng.choice(("2.17.20", "2.22.3", "2.22.3", "2.15.40", "2.17.20", "1.29.12")),
        rng.choice(("1.35.44", "1.34.162", "1.35.76")),
        rng.choice(("1.9.8", "1.10.0")),
    )


@dataclass(frozen=True)
class Stay:
    """From `first` to `last` day (numbers) the person is in a city that is not theirs."""

    first: int
    last: int
    city: City
    note: list[str] | None = None


@dataclass
class Habits:
    """Chances of a half-day at each kind of seat; they need not sum to one."""

    office: float
    home: float
    vpn: float
    mobile: float


_PLANS = {
    "offices": Habits(0.78, 0.17, 0.03, 0.02),
    "homes": Habits(0.10, 0.82, 0.04, 0.04),
    "vpn": Habits(0.15, 0.05, 0.77, 0.03),
    "roaming": Habits(0.25, 0.35, 0.10, 0.30),
}


@dataclass
class Person:
    """One person. Mutable where life changes: tools, job, stays, where home is."""

    name: str
    number: int
    job: Job
    office: Office
    auth: str  # sso, federated, opaque or user
    accounts: list[Account]
    town: City
    carrier: str
    habits: Habits
    tools: Tools
    start_hour: float
    diligence: float
    joined: int = 0
    stays: list[Stay] = field(default_factory=list)
    away: set[int] = field(default_factory=set)
    desk: Seat | None = None  # a remote or cloud desktop, used instead of all other seats
    desk_share: float = 1.0
    private_share: float = 0.0
    flap_towns: list[City] = field(default_factory=list)
    mobile_lines: list[Line] = field(default_factory=list)
    email: str = ""
    user: User | None = None
    tail: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    changes: dict[int, list[Change]] = field(default_factory=dict)
    tasks: dict[int, list[tuple[str, int, list[str] | None]]] = field(default_factory=dict)
    denials: dict[int, list[str]] = field(default_factory=dict)
    sessions: dict[tuple[str, bool], Session] = field(default_factory=dict)
    today: list[Use] = field(default_factory=list)
    active_days: set[int] = field(default_factory=set)
    places: set[int] = field(default_factory=set)

    @property
    def session_name(self) -> str:
        """What stands after the role's name in their sessions."""
        if self.auth == "sso":
            return self.email
        if self.auth == "opaque":
            return f"u{48000 + self.number * 7}"
        return self.name

    def learn(self, rng: Random) -> None:
        """Form own habits within the job: weights of the head, a tail of one's own."""
        self.weights = list(
            accumulate(rng.uniform(0.3, 1.7) / (rank + 1) ** 0.9 for rank in range(len(self.job.head)))
        )
        pool = [c for c in of_services(self.job.tail) if c not in self.job.head]
        self.tail = rng.sample(pool, min(len(pool), 22))

    # ------------------------------------------------------------------------------ credentials

    def sign_in(
        self, world: World, rng: Random, account: Account, at: int, seat: Seat, agent: str, *,
        console: bool, mfa: bool = True, note: list[str] | None = None,
    ) -> Session:  # fmt: skip
        """Get credentials for the account the way this person does; logs what that logs."""
        org = world.org
        if self.auth == "sso":
            role = org.sso_role(account, self.job.permission_set)
            return world.sso_sign_in(
                rng, role, self.session_name, at, seat, agent, console=console, mfa=mfa, note=note
            )
        if self.user is None:
            role = org.role(account, f"{org.company}-{self.job.name}")
            if self.auth == "opaque":
                role = org.role(account, f"r-{records.hex_id(Random(role.arn), 6)}")
            return world.saml_sign_in(
                rng, role, self.session_name, at, seat, agent, console=console, mfa=mfa,
                provider=f"{org.company}-idp", note=note,
            )  # fmt: skip
        if account.id == self.user.account:
            if console:
                mistyped = rng.random() < 0.06
                return world.user_console(rng, self.user, at, seat, agent, mfa=mfa, fails=mistyped, note=note)
            return records.user_session(self.user)
        role = org.role(account, f"{org.company}-{self.job.name}")
        if console:
            return world.switch_role(rng, self.user, role, self.name, at, seat, agent, mfa=mfa, note=note)
        # The CLI names sessions itself unless told otherwise.
        name = self.name if self.number % 3 else f"botocore-session-{at}"
        return world.assume_role(
            rng, records.user_session(self.user), role, name, at, seat, agent, mfa=mfa, note=note
        )

    def credentials(
        self, world: World, rng: Random, account: Account, at: int, seat: Seat, agent: str,
        console: bool,
    ) -> Session:  # fmt: skip
        """A session that still holds, or a new one."""
        key = (account.id, console)
        session = self.sessions.get(key)
        if session is None or session.expires <= at + 60 or session.created > at:
            session = self.sign_in(world, rng, account, at, seat, agent, console=console)
            self.sessions[key] = session
        return session

    # ------------------------------------------------------------------------------------- seats

    def stay_on(self, day: int) -> Stay | None:
        """The stay abroad that covers the day, if any."""
        return next((s for s in self.stays if s.first <= day <= s.last), None)

    def home(self, world: World, day: int, rng: Random) -> Seat:
        """The line at home: its address holds for some weeks, then the carrier gives another."""
        lease = (day + self.number * 5) // 17
        stable = world.rng("home", self.name, lease)
        town = self.town
        if self.flap_towns and rng.random() < 0.3:
            # The same line, but the carrier's next block is registered a town further.
            town, stable = rng.choice(self.flap_towns), rng
        lines = world.atlas.residential(town, self.carrier)
        return seat_on(lines[stable.randrange(len(lines))], stable)

    def seat(self, world: World, day: int, rng: Random) -> Seat:
        """Where the person sits for half of the day."""
        stay = self.stay_on(day)
        if stay:
            fixed = world.rng("stay", self.name, stay.first)
            kind = rng.random()
            if kind < 0.12 and world.atlas.mobile(stay.city):
                line = rng.choice(world.atlas.mobile(stay.city))
            else:
                line = fixed.choice(world.atlas.residential(stay.city, fixed.choice("abc")))
            return seat_on(line, fixed, stay.note)
        if self.desk and rng.random() < self.desk_share:
            return self.desk
        h = self.habits
        exits = [e for e in world.org.exits if e.since <= day]
        odds = (h.office, h.home, h.vpn, h.mobile)
        where = rng.choices(("office", "home", "vpn", "mobile"), odds)[0]
        if where == "office":
            return self.office.seats[self.number % len(self.office.seats)]
        if where == "vpn" and exits:
            # People keep to an exit; the newest draws those it was opened for.
            usual = exits[self.number % len(exits)]
            return rng.choice((usual if rng.random() < 0.9 else rng.choice(exits)).seats)
        if where == "mobile" and self.mobile_lines:
            return seat_on(rng.choice(self.mobile_lines), rng)
        return self.home(world, day, rng)

    # -------------------------------------------------------------------------------------- work

    def choose(self, world: World, rng: Random, day: int) -> str:
        """One command of an ordinary day."""
        draw = rng.random()
        if draw < 0.010 * world.shape.mix.long_tails:
            return rng.choice(of_services(self.job.tail) if rng.random() < 0.6 else list(COMMANDS))
        if draw < 0.12:
            return self.tail[min(int(rng.expovariate(0.25)), len(self.tail) - 1)]
        at = bisect(self.weights, rng.random() * self.weights[-1])
        return self.job.head[min(at, len(self.job.head) - 1)]

    def works_on(self, world: World, day: int, rng: Random) -> bool:
        """Is this one of the person's working days."""
        if day < self.joined or day in self.away:
            return False
        if day in self.tasks or day in self.denials:
            return True
        weekend = world.date(day).weekday() >= 5
        return rng.random() < (0.03 if weekend else 0.93)

    def day(self, world: World, day: int) -> None:
        """Live one day: seats, tasks, calls."""
        self.today = []
        for change in self.changes.pop(day, ()):
            change.apply(self)
        rng = world.rng("person", self.name, day)
        if not self.works_on(world, day, rng):
            return
        self.active_days.add(day)
        stay = self.stay_on(day)
        zone = (stay.city if stay else self.office.city).time_zone
        wanted = world.shape.events_per_person_day * self.diligence * rng.lognormvariate(-0.1, 0.45)
        halves = [(self.start_hour, 3.6), (self.start_hour + 4.6, 4.0)]
        if rng.random() < 0.06:
            halves.append((self.start_hour + 11.5, 1.5))
        for i, (begin, length) in enumerate(halves):
            seat = self.seat(world, day, rng)
            world.remember(self.name, seat.city, day)
            if seat.city:
                self.places.add(seat.city.id)
            left = max(1, round(wanted * length / 7.6))
            sizes = []
            while left > 0:
                sizes.append(min(left, 1 + int(rng.expovariate(0.16))))
                left -= sizes[-1]
            hours = sorted(begin + rng.random() * length for _ in sizes)
            for hour, size in zip(hours, sizes, strict=True):
                self.task(world, day, rng, world.at(day, hour, zone), size, seat)
            if i == 0:
                self.duties(world, day, rng, world.at(day, begin + rng.random() * length, zone), seat)

    def duties(self, world: World, day: int, rng: Random, at: int, seat: Seat) -> None:
        """What is planned for the day: housekeeping, roll-outs, a burst of refusals."""
        for command, times, note in self.tasks.pop(day, ()):
            account = self.accounts[0]
            agent = self.tools.agent("cli")
            session = self.credentials(world, rng, account, at, seat, agent, False)
            for _ in range(times):
                at += rng.randrange(2, 40)
                world.call(rng, session, at, command, seat, agent, owner=self.number, note=note)
        note = self.denials.pop(day, None)
        if note is not None:
            account = rng.choice(self.accounts)
            agent = self.tools.agent("script")
            session = self.credentials(world, rng, account, at, seat, agent, False)
            for command in rng.choices(
                (self.choose(world, rng, day), *self.tail[:3]), k=rng.randrange(15, 60)
            ):
                at += rng.randrange(1, 5)
                failure = records.denied(COMMANDS[command], session)
                world.call(
                    rng,
                    session,
                    at,
                    command,
                    seat,
                    agent,
                    failure=failure,
                    owner=self.number,
                    note=note,
                )

    def task(self, world: World, day: int, rng: Random, at: int, size: int, seat: Seat) -> None:
        """Some calls in a row, in one account over one channel."""
        account = self.accounts[min(int(rng.expovariate(1.1)), len(self.accounts) - 1)]
        channels, odds = zip(*self.job.channels, strict=True)
        channel = rng.choices(channels, odds)[0]
        console = channel == "console"
        agent = self.tools.agent(channel)
        session = self.credentials(world, rng, account, at, seat, agent, console)
        self.today.append(Use(at, session, seat, agent, account))
        if not console and self.job.name in ("admin", "security") and rng.random() < 0.08:
            account = rng.choice(world.org.accounts)
            role = world.org.role(account, "OrganizationAccountAccessRole")
            at += 2
            session = world.assume_role(rng, session, role, self.session_name, at, seat, agent)
        if not console and self.private_share and rng.random() < self.private_share:
            host = f"{account.private_block}.{200 + self.number % 50}.{10 + self.number % 200}"
            seat = Seat(host, None, None, account.vpc_endpoint)
        at += 3
        previous = ""
        for _ in range(size):
            command = previous if previous and rng.random() < 0.3 else self.choose(world, rng, day)
            previous = command
            failure = None
            draw = rng.random()
            if draw < 0.012:
                failure = records.denied(COMMANDS[command], session)
            elif draw < 0.022:
                failure = records.missing(COMMANDS[command], rng)
            elif draw < 0.026:
                failure = records.throttled(COMMANDS[command])
            world.call(rng, session, at, command, seat, agent, failure=failure, owner=self.number)
            at += 1 + int(rng.expovariate(1 / (25 if console else 8)))


@dataclass(frozen=True)
class Use:
    """The person used these credentials at that time from that seat."""

    at: int
    session: Session
    seat: Seat
    agent: str
    account: Account


@dataclass(frozen=True)
class Change:
    """Something that becomes different on a day; None leaves it as it is."""

    tools: Tools | None = None
    job: Job | None = None
    learn: Random | None = None

    def apply(self, person: Person) -> None:
        """Make it so."""
        if self.tools is not None:
            person.tools = self.tools
        if self.job is not None:
            person.job = self.job
            person.sessions.clear()
        if self.learn is not None:
            person.learn(self.learn)


def hire(world: World) -> list[Person]:
    """Everybody, by the shares of jobs and the shape's naming and address plan."""
    shape, org = world.shape, world.org
    people: list[Person] = []
    names: set[str] = set()
    for number in range(shape.people):
        rng = world.rng("hire", number)
        name = f"{rng.choice(_FIRST)}.{rng.choice(_LAST)}"
        if name in names:
            name += str(number)
        names.add(name)
        # Jobs go round so that small organisations have every kind.
        spread = (number * 0.382 + 0.2) % 1.0
        job = JOBS[-1]
        for candidate in JOBS:
            spread -= candidate.share
            if spread < 0:
                job = candidate
                break
        auth = shape.naming
        if auth == "mixed":
            auth = rng.choices(("sso", "user", "federated", "opaque"), (60, 22, 10, 8))[0]
        elif auth == "iam_users":
            auth = "user"
        office = org.offices[min(int(rng.expovariate(0.9)), len(org.offices) - 1)]
        plan = shape.addresses
        if plan == "mixed":
            plan = rng.choices(("offices", "homes", "vpn", "roaming"), (40, 30, 22, 8))[0]
        accounts = list(org.accounts)
        rng.shuffle(accounts)
        user = org.user(org.management, name) if auth == "user" else None
        if user:
            accounts.sort(key=lambda a: a is not org.management)
        person = Person(
            name=name, number=number, job=job, office=office, auth=auth,
            accounts=accounts[: rng.randrange(2, 5)], town=rng.choice(office.towns),
            carrier=rng.choice("aab" if number % 3 else "abc"), habits=_PLANS[plan],
            tools=usual_tools(rng), start_hour=rng.gauss(8.8, 0.8),
            diligence=rng.lognormvariate(-0.1, 0.45), email=f"{name}@{org.domain}", user=user,
        )  # fmt: skip
        person.learn(rng)
        if rng.random() < 0.5:
            begin = rng.randrange(shape.days)
            person.away = set(range(begin, begin + rng.randrange(3, 10)))
        people.append(person)
    return people
