"""The innocent troubles: everything that looks unusual and is not an intrusion.

Each is one function `(world, people, amount)` that changes lives before the days are played, and
labels what it did. A new one needs its function here and its knob in shape.Mix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from raretrail.simulate.commands import COMMANDS, JOBS
from raretrail.simulate.organisation import Exit
from raretrail.simulate.people import Change, Person, Stay
from raretrail.simulate.places import City, Line, seat_on
from raretrail.simulate.shape import INNOCENT_KINDS
from raretrail.simulate.world import World

Trouble = Callable[[World, list[Person], float], None]
TROUBLES: dict[str, Trouble] = {}


def trouble(make: Trouble) -> Trouble:
    """Register the function under its own name, which is its kind."""
    TROUBLES[make.__name__] = make
    return make


def arrange(world: World, people: list[Person]) -> None:
    """Plan every trouble the mix asks for, in the order of the knobs."""
    for kind in INNOCENT_KINDS:
        amount = getattr(world.shape.mix, kind)
        if kind in TROUBLES and amount > 0:
            TROUBLES[kind](world, people, amount)


def _some(world: World, kind: str, people: list[Person], per_hundred: float) -> tuple[list[Person], Random]:
    """About that many of a hundred people, at least one, and the trouble's stream of chance."""
    rng = world.rng("innocent", kind)
    count = max(1, round(per_hundred * len(people) / 100))
    return rng.sample(people, min(count, len(people))), rng


def _months(world: World) -> float:
    return world.shape.days / 30


def _visit(world: World, person: Person, rng: Random, first: int, days: int, city: City, kind: str) -> None:
    note = world.tracked(
        kind, person.name, list(range(first, min(first + days, world.shape.days))),
        f"{person.name} works from {city.label}",
    )  # fmt: skip
    person.stays.append(Stay(first, first + days - 1, city, note))
    person.away -= set(range(first, first + days))


def destinations(world: World) -> list[City]:
    """Where the organisation's people usually go: its offices and a handful of cities."""
    rng = world.rng("destinations")
    head = world.org.offices[0].city
    near = [c for c in world.atlas.world if 150 < c.kilometres(head) < 2500]
    return [o.city for o in world.org.offices] + rng.sample(near, min(5, len(near)))


@trouble
def newcomers(world: World, people: list[Person], amount: float) -> None:
    """People who join in mid-span, most of them in towns where nobody lived so far."""
    chosen, rng = _some(world, "newcomers", people, 5 * amount)
    for person in chosen:
        person.joined = rng.randrange(world.shape.days // 4, world.shape.days)
        if rng.random() < 0.6:
            near = [
                c for c in world.atlas.world
                if c.country == person.office.city.country and c.id != person.office.city.id
            ]  # fmt: skip
            if near:
                person.town = rng.choice(near)
                person.habits = replace(person.habits, office=0.05, home=0.8)
        days = list(range(person.joined, min(person.joined + 10, world.shape.days)))
        world.innocent("newcomers", person.name, days, f"{person.name} joins, at home in {person.town.label}")


@trouble
def travellers(world: World, people: list[Person], amount: float) -> None:
    """Trips of some days; half of them to cities where nobody has been."""
    chosen, rng = _some(world, "travellers", people, 22 * amount * _months(world))
    usual = destinations(world)
    for person in chosen:
        first = rng.randrange(1, world.shape.days)
        fresh = rng.random() < 0.5
        pool = world.atlas.world if fresh else usual
        city = rng.choice([c for c in pool if c.kilometres(person.office.city) > 150] or pool)
        _visit(world, person, rng, first, rng.randrange(2, 7), city, "travellers")


@trouble
def always_travelling(world: World, people: list[Person], amount: float) -> None:
    """People who are somewhere else every week."""
    chosen, rng = _some(world, "always_travelling", people, 3 * amount)
    usual = destinations(world)
    for person in chosen:
        day = rng.randrange(0, 4)
        while day < world.shape.days:
            length = rng.randrange(2, 5)
            city = rng.choice(usual if rng.random() < 0.4 else world.atlas.world)
            _visit(world, person, rng, day, length, city, "always_travelling")
            day += length + rng.randrange(1, 5)


_KEPT_CLEAN = ("ec2", "iam", "rds", "kms", "logs", "secretsmanager", "backup")
_ROLLED_OUT = (
    "bedrock:InvokeModel",
    "ecs:ExecuteCommand",
    "eks:AccessKubernetesApi",
    "resource-explorer-2:Search",
    "sts:GetSessionToken",
    "ssm:GetParametersByPath",
)


def _cadence(world: World, people: list[Person], amount: float, kind: str, every: int) -> None:
    chosen, rng = _some(
        world,
        kind,
        [p for p in people if p.job.name in ("admin", "security", "data")] or people,
        12 * amount,
    )
    rare = [
        k for k, c in COMMANDS.items()
        if not c.read_only and c.service in _KEPT_CLEAN
    ]  # fmt: skip
    for person in chosen:
        command = rng.choice(rare)
        first = rng.randrange(min(every, world.shape.days))
        days = list(range(first, world.shape.days, every))
        note = world.tracked(kind, person.name, days, f"{person.name} runs {command} every {every} days")
        for day in days:
            moved = day
            while every > 20 and world.date(moved).weekday() >= 5 and moved > 0:
                moved -= 1
            person.tasks.setdefault(moved, []).append((command, rng.randrange(1, 6), note))


@trouble
def weekly_housekeeping(world: World, people: list[Person], amount: float) -> None:
    """A command that one person runs once a week."""
    _cadence(world, people, amount, "weekly_housekeeping", 7)


@trouble
def monthly_housekeeping(world: World, people: list[Person], amount: float) -> None:
    """A command that one person runs once in four weeks."""
    _cadence(world, people, amount, "monthly_housekeeping", 28)


@trouble
def rollout(world: World, people: list[Person], amount: float) -> None:
    """A command nobody used becomes everybody's within a few days."""
    rng = world.rng("innocent", "rollout")
    for _ in range(max(1, round(amount * _months(world) / 2))):
        command = rng.choice(_ROLLED_OUT)
        first = rng.randrange(world.shape.days // 2, world.shape.days)
        users = [p for p in people if p.job.name in ("developer", "data", "admin")] or people
        note = world.tracked(
            "rollout", f"{len(users)} people", list(range(first, min(first + 8, world.shape.days))),
            f"{command} is rolled out to {len(users)} people",
        )  # fmt: skip
        for person in users:
            begin = first + min(int(rng.expovariate(0.4)), 7)
            for day in range(begin, world.shape.days):
                if rng.random() < 0.5 and world.date(day).weekday() < 5:
                    person.tasks.setdefault(day, []).append((command, rng.randrange(1, 4), note))


@trouble
def job_change(world: World, people: list[Person], amount: float) -> None:
    """Somebody takes up another job, and with it other commands."""
    chosen, rng = _some(world, "job_change", people, 2.5 * amount * _months(world))
    for person in chosen:
        day = rng.randrange(world.shape.days // 3, world.shape.days)
        job = rng.choice([j for j in JOBS if j.name != person.job.name])
        learn = world.rng("relearn", person.name)
        person.changes.setdefault(day, []).append(Change(job=job, learn=learn))
        days = list(range(day, min(day + 10, world.shape.days)))
        world.innocent(
            "job_change",
            person.name,
            days,
            f"{person.name} goes from {person.job.name} to {job.name}",
        )


@trouble
def incident_response(world: World, people: list[Person], amount: float) -> None:
    """The organisation's own people investigate: many unusual commands in a day, sensitive ones."""
    rng = world.rng("innocent", "incident_response")
    team = [p for p in people if p.job.name in ("security", "admin")] or people
    moves = (
        "iam:UpdateAccessKey", "iam:DeleteAccessKey", "cloudtrail:LookupEvents",
        "ec2:CreateSnapshot",
        "ec2:ModifyInstanceAttribute", "iam:PutUserPolicy", "iam:DeleteLoginProfile",
        "guardduty:GetFindings", "ec2:RevokeSecurityGroupIngress", "secretsmanager:RotateSecret",
        "iam:GetAccountAuthorizationDetails", "s3:PutBucketPolicy", "ec2:GetConsoleOutput",
        "iam:ListUserPolicies", "athena:StartQueryExecution", "iam:DetachUserPolicy",
    )  # fmt: skip
    for _ in range(max(1, round(amount * _months(world) * len(people) / 80))):
        day = rng.randrange(world.shape.days // 3, world.shape.days)
        responders = rng.sample(team, min(2, len(team)))
        names = " and ".join(p.name for p in responders)
        note = world.tracked("incident_response", names, [day], f"{names} respond to an incident")
        for person in responders:
            person.away.discard(day)
            for command in rng.sample(moves, rng.randrange(6, 12)):
                person.tasks.setdefault(day, []).append((command, rng.randrange(1, 5), note))


@trouble
def vpn_many_addresses(world: World, people: list[Person], amount: float) -> None:
    """VPN exits with many addresses (made with the organisation); label who uses them."""
    users = [p for p in people if p.habits.vpn > 0.5]
    exits = ", ".join(f"{e.name} ({len(e.seats)})" for e in world.org.exits)
    world.innocent("vpn_many_addresses", f"{len(users)} people", [], f"VPN exits: {exits}")


@trouble
def new_exits(world: World, people: list[Person], amount: float) -> None:
    """A VPN exit opens in a city where there was none."""
    rng = world.rng("innocent", "new_exits")
    for _ in range(max(1, round(amount * _months(world) / 2))):
        city = rng.choice([h for h in world.atlas.hubs if h.kilometres(world.org.offices[0].city) < 2500])
        lines = world.atlas.of_network(city, rng.choice(world.atlas.vpn_providers))
        since = rng.randrange(world.shape.days // 3, world.shape.days)
        note = world.tracked(
            "new_exits", "VPN users", list(range(since, min(since + 7, world.shape.days))),
            f"a VPN exit opens in {city.label}",
        )  # fmt: skip
        seats = [seat_on(rng.choice(lines), rng, note) for _ in range(rng.randrange(3, 9))]
        world.org.exits.append(Exit(city.label, seats, since))


@trouble
def suburbs(world: World, people: list[Person], amount: float) -> None:
    """Home lines whose addresses are registered now in one town, now in the next."""
    chosen, rng = _some(world, "suburbs", people, 30 * amount)
    for person in chosen:
        near = [t for t in person.office.towns if 0 < t.kilometres(person.town) < 40]
        person.flap_towns = rng.sample(near, min(len(near), rng.randrange(1, 4)))
        towns = ", ".join(t.name for t in person.flap_towns)
        world.innocent(
            "suburbs",
            person.name,
            [],
            f"{person.name}'s line flaps between {person.town.name} and {towns}",
        )


@trouble
def mobile_carriers(world: World, people: list[Person], amount: float) -> None:
    """People who work over a phone; the carrier's addresses are placed in many cities."""
    chosen, _ = _some(world, "mobile_carriers", people, 20 * amount)
    for person in chosen:
        cities = [person.office.city] + [
            c for c in world.atlas.hubs if c.country == person.office.city.country
        ]
        person.mobile_lines = [line for c in cities for line in world.atlas.mobile(c)][:12]
        person.habits = replace(person.habits, mobile=max(person.habits.mobile, 0.12))
        world.innocent("mobile_carriers", person.name, [], f"{person.name} often works over a phone")


@trouble
def national_carriers(world: World, people: list[Person], amount: float) -> None:
    """People whose carrier is known by country only."""
    chosen, rng = _some(world, "national_carriers", people, 12 * amount)
    for person in chosen:
        lines = world.atlas.national(person.office.city.country)
        if lines:
            person.mobile_lines = rng.sample(lines, min(6, len(lines)))
            person.habits = replace(person.habits, mobile=max(person.habits.mobile, 0.25))
            country = person.office.city.country
            world.innocent(
                "national_carriers",
                person.name,
                [],
                f"{person.name}'s carrier is known as {country} only",
            )


def _desk(world: World, people: list[Person], kind: str, per_hundred: float, share: float, what: str) -> None:
    settled = [p for p in people if len(p.stays) < 3 and p.desk is None]
    chosen, rng = _some(world, kind, settled or people, per_hundred)
    for person in chosen:
        region = world.org.regions[0] if kind == "cloud_desktops" else rng.choice(world.atlas.regions)
        line = rng.choice(world.atlas.ec2(region))
        note = world.tracked(kind, person.name, [], f"{person.name} {what} in {region}")
        person.desk = seat_on(line, rng, note)
        person.desk_share = share


@trouble
def remote_desktops(world: World, people: list[Person], amount: float) -> None:
    """People who now and then work through a machine in some cloud region."""
    _desk(world, people, "remote_desktops", 4 * amount, 0.3, "sometimes works through a desktop")


@trouble
def cloud_desktops(world: World, people: list[Person], amount: float) -> None:
    """People whose desk always is a machine in the cloud."""
    _desk(world, people, "cloud_desktops", 3 * amount, 1.0, "always works on a desktop")


@trouble
def tool_upgrades(world: World, people: list[Person], amount: float) -> None:
    """New versions; some people also get another machine."""
    chosen, rng = _some(world, "tool_upgrades", people, 45 * amount * _months(world))
    for person in chosen:
        day = rng.randrange(2, world.shape.days)
        tools = replace(person.tools, browser=person.tools.browser + rng.randrange(1, 3))
        if rng.random() < 0.5:
            tools = replace(tools, cli="2.23.1", boto="1.36.2", terraform="1.11.0")
        if rng.random() < 0.12:
            tools = replace(tools, system=(tools.system + 1) % 4)
        person.changes.setdefault(day, []).append(Change(tools=tools))
        world.innocent("tool_upgrades", person.name, [day], f"{person.name} upgrades tools")


@trouble
def denied_bursts(world: World, people: list[Person], amount: float) -> None:
    """A script that lacks a permission and tries again and again."""
    chosen, rng = _some(world, "denied_bursts", people, 8 * amount * _months(world))
    for person in chosen:
        day = rng.randrange(1, world.shape.days)
        person.away.discard(day)
        note = world.tracked(
            "denied_bursts", person.name, [day], f"{person.name}'s script is denied over and over"
        )
        person.denials[day] = note


@trouble
def long_tails(world: World, people: list[Person], amount: float) -> None:
    """Everybody runs a one-off now and then (see Person.choose); labelled once."""
    world.innocent("long_tails", f"{len(people)} people", [], "one-off commands, sensitive ones among them")


@trouble
def run_sessions(world: World, people: list[Person], amount: float) -> None:
    """CI takes a new session name for every run (see robots.Pipeline); labelled once."""
    world.innocent("run_sessions", "ci", [], "every CI run has a session name of its own")


@trouble
def geoip_update(world: World, people: list[Person], amount: float) -> None:
    """The provider redraws its map in mid-span; `redrawn` says what moves."""
    day = world.shape.days - max(1, world.shape.judged_days // 2)
    world.innocent(
        "geoip_update", "everybody", [day],
        "from this day on city-moved.mmdb is the map: a share of the networks is placed elsewhere",
    )  # fmt: skip


def redrawn(world: World, lines: list[Line]) -> dict[str, City]:
    """Which of the networks in use the new map places in which other city of their country.

    Of those that have a city, 15 % change it with the usual amount (measured: 15 % between builds
    24 days apart), one in four of them to a far one.
    """
    moved: dict[str, City] = {}
    share = min(1.0, 0.15 * world.shape.mix.geoip_update)
    for line in lines:
        rng = world.rng("redrawn", line.prefix)
        home = line.city
        if home is None or line.network.kind == "cloud" or rng.random() >= share:
            continue
        far = rng.random() < 0.25
        others = [
            c for c in world.atlas.cities.values()
            if c.country == home.country and c.id != home.id and (c.kilometres(home) > 50) == far
        ]  # fmt: skip
        if others:
            moved[line.prefix] = rng.choice(others)
    return moved


@trouble
def service_calls(world: World, people: list[Person], amount: float) -> None:
    """AWS's own services call (see robots.Services); labelled once."""
    world.innocent("service_calls", "services", [], "calls with a service's name for an address")


@trouble
def private_addresses(world: World, people: list[Person], amount: float) -> None:
    """People who reach AWS through a VPC endpoint, from private addresses."""
    chosen, _ = _some(world, "private_addresses", people, 8 * amount)
    for person in chosen:
        person.private_share = 0.5
        world.innocent(
            "private_addresses",
            person.name,
            [],
            f"{person.name} often calls through a VPC endpoint",
        )
