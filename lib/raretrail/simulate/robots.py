"""Machines: CI, functions, instances, monitoring, vendors' software, AWS's own services."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from raretrail.simulate import records
from raretrail.simulate.organisation import Account
from raretrail.simulate.places import Seat, seat_on
from raretrail.simulate.records import Session
from raretrail.simulate.world import World

_LAMBDA = "Boto3/1.34.42 md/Botocore#1.34.42 ua/2.0 os/linux#5.10.233 md/arch#x86_64" \
    " lang/python#3.11.10 exec-env/AWS_Lambda_python3.11"  # fmt: skip
_NODE = "aws-sdk-go-v2/1.32.5 ua/2.1 os/linux lang/go#1.23.2 md/GOOS#linux md/GOARCH#amd64"
_RUNNER = "aws-cli/2.22.3 md/awscrt#0.23.8 ua/2.0 os/linux#6.5.0-azure md/arch#x86_64" \
    " lang/python#3.12.6 md/prompt#off"  # fmt: skip

_DEPLOY = (
    "sts:GetCallerIdentity", "ecr:GetAuthorizationToken", "ecr:PutImage", "ecr:DescribeImages",
    "cloudformation:DescribeStacks", "cloudformation:CreateChangeSet", "s3:PutObject",
    "cloudformation:ExecuteChangeSet", "lambda:UpdateFunctionCode20150331v2",
    "ecs:RegisterTaskDefinition", "ecs:UpdateService", "ssm:GetParameter", "s3:GetObject",
)  # fmt: skip
_FUNCTION = (
    "dynamodb:GetItem", "dynamodb:Query", "s3:GetObject", "s3:PutObject", "kms:Decrypt",
    "secretsmanager:GetSecretValue", "dynamodb:PutItem",
)  # fmt: skip
INSTANCE = (
    "s3:GetObject", "s3:ListObjects", "ssm:GetParameters", "ec2:DescribeTags", "kms:Decrypt",
    "ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ec2:DescribeInstances",
)  # fmt: skip
_WATCH = ("monitoring:GetMetricData", "ec2:DescribeInstanceStatus", "rds:DescribeDBInstances")
_AUDIT = (
    "ec2:DescribeInstances", "ec2:DescribeSecurityGroups", "iam:ListUsers", "iam:ListRoles",
    "s3:ListBuckets", "s3:GetBucketPolicy", "rds:DescribeDBInstances",
    "lambda:ListFunctions20150331",
    "ec2:DescribeVolumes", "s3:GetBucketEncryption", "iam:GetAccountSummary", "ce:GetCostAndUsage",
)  # fmt: skip


class Robot:
    """Something that calls by itself."""

    def day(self, world: World, day: int) -> None:
        """Emit the day's calls."""
        raise NotImplementedError


@dataclass
class Pipeline(Robot):
    """CI: every run is a session of its own, from whichever runner was free."""

    account: Account
    name: str
    runs: float
    seats: list[Seat]
    numbered: bool
    count: int = 4000

    def day(self, world: World, day: int) -> None:
        rng = world.rng("ci", self.account.id, self.name, day)
        weekend = world.date(day).weekday() >= 5
        role = world.org.role(self.account, f"ci-{self.name}")
        for _ in range(round(rng.uniform(0.6, 1.4) * self.runs * (0.15 if weekend else 1))):
            self.count += rng.randrange(1, 4)
            at = world.at(day, rng.triangular(6, 20, 13))
            seat = rng.choice(self.seats)
            name = f"run-{self.count}" if self.numbered else "deploy"
            session = world.assume_role_with_web_identity(
                rng, role, name, at, seat, _RUNNER, "token.actions.example.com",
                f"repo:{world.org.company}/{self.name}:ref:refs/heads/main",
            )  # fmt: skip
            for command in _DEPLOY[: rng.randrange(5, len(_DEPLOY) + 1)]:
                at += rng.randrange(2, 25)
                world.call(rng, session, at, command, seat, _RUNNER)


@dataclass
class Function(Robot):
    """A Lambda function: its role, session named for it, Amazon's or private addresses."""

    account: Account
    name: str
    rate: float
    private: bool
    commands: tuple[str, ...]

    def day(self, world: World, day: int) -> None:
        rng = world.rng("function", self.account.id, self.name, day)
        role = world.org.role(self.account, f"{self.name}-role", "/service-role/")
        lines = world.atlas.ec2(self.account.region)
        for _ in range(round(rng.uniform(0.7, 1.3) * self.rate)):
            at = world.at(day, rng.random() * 24)
            session = records.role_session(role, self.name, rng, at - 600, hours=12)
            if self.private:
                host = f"{self.account.private_block}.{rng.randrange(8)}.{rng.randrange(4, 250)}"
                seat = Seat(host, None, None, self.account.vpc_endpoint)
            else:
                seat = seat_on(rng.choice(lines[:6]), rng)
            for _ in range(rng.randrange(1, 4)):
                world.call(rng, session, at, rng.choice(self.commands), seat, _LAMBDA, owner=len(self.name))
                at += rng.randrange(0, 3)


@dataclass
class Instance(Robot):
    """An EC2 instance with a role; leaves through its account's own public address."""

    account: Account
    id: str
    role: str
    seat: Seat
    rate: float
    private: bool
    session: Session | None = None

    def day(self, world: World, day: int) -> None:
        rng = world.rng("instance", self.id, day)
        role = world.org.role(self.account, self.role)
        if day == 0:
            self._attach_address(world, rng)
        for hour in (0, 6, 12, 18):
            at = world.at(day, hour + rng.random() / 5)
            # EC2 itself assumes the role for the instance, and renews it four times a day.
            self.session = world.assume_role(
                rng, records.service(self.account.id, "ec2.amazonaws.com"), role, self.id, at,
                Seat("ec2.amazonaws.com", None), "ec2.amazonaws.com", hours=6, ec2=True,
            )  # fmt: skip
            for _ in range(round(rng.uniform(0.5, 1.5) * self.rate / 4)):
                when = at + rng.randrange(60, 21000)
                seat = self.seat
                if self.private and rng.random() < 0.4:
                    host = f"{self.account.private_block}.{rng.randrange(8)}.{rng.randrange(4, 250)}"
                    seat = Seat(host, None, None, self.account.vpc_endpoint)
                world.call(rng, self.session, when, rng.choice(INSTANCE), seat, _NODE, owner=7)

    def _attach_address(self, world: World, rng: Random) -> None:
        """The trail shows once which public address is the instance's own."""
        at = world.at(0, 0.2)
        session = records.role_session(
            world.org.role(self.account, "ci-infrastructure"), "run-1", rng, at, hours=1
        )
        values = {
            "elastic_ip": self.seat.address, "instance": self.id, "hex17": records.hex_id(rng, 17),
        }  # fmt: skip
        for command in ("ec2:AllocateAddress", "ec2:AssociateAddress"):
            world.call(rng, session, at, command, self.seat, _RUNNER, values=values)
            at += 3


@dataclass
class Monitor(Robot):
    """A monitoring box of one's own: an IAM user's key, one address, round the clock."""

    account: Account
    seat: Seat
    every: float

    def day(self, world: World, day: int) -> None:
        rng = world.rng("monitor", self.account.id, day)
        session = records.user_session(world.org.user(self.account, "svc-monitoring"))
        hour = rng.random()
        while hour < 24:
            at = world.at(day, hour)
            for command in _WATCH:
                world.call(
                    rng,
                    session,
                    at,
                    command,
                    self.seat,
                    "Boto3/1.26.90 Python/3.9.18 Linux/5.15.0 Botocore/1.29.90",
                    owner=3,
                )
                at += 1
            hour += self.every


@dataclass
class Vendor(Robot):
    """A SaaS product: assumes a role with an external id from its own account and addresses."""

    name: str
    accounts: list[Account]
    account: str
    external_id: str
    seats: list[Seat]
    hours: tuple[float, ...]
    note: list[str] = field(default_factory=list)

    def day(self, world: World, day: int) -> None:
        rng = world.rng("vendor", self.name, day)
        caller = records.bare_session(self.account, {
            "type": "AWSAccount", "principalId": f"AIDA{self.name.upper():X<17.17}",
            "accountId": self.account,
        })  # fmt: skip
        agent = f"{self.name}-collector/3.4 aws-sdk-java/1.12.770 Linux/5.10.227 OpenJDK_64-Bit"
        for account in self.accounts:
            role = world.org.role(account, f"{self.name.capitalize()}Integration")
            for hour in self.hours:
                at = world.at(day, hour + rng.random() / 3)
                seat = rng.choice(self.seats)
                session = world.assume_role(
                    rng, caller, role, f"{self.name}-session", at, seat, agent,
                    external_id=self.external_id,
                )  # fmt: skip
                for command in _AUDIT[: rng.randrange(5, len(_AUDIT) + 1)]:
                    at += rng.randrange(1, 6)
                    world.call(rng, session, at, command, seat, agent)


@dataclass
class Services(Robot):
    """AWS's services at work in an account: no address, a name where it would stand."""

    account: Account
    rate: float

    def day(self, world: World, day: int) -> None:
        rng = world.rng("services", self.account.id, day)
        for _ in range(round(rng.uniform(0.7, 1.3) * self.rate)):
            at = world.at(day, rng.random() * 24)
            self._one(world, rng, at)

    def _one(self, world: World, rng: Random, at: int) -> None:
        kind = rng.choice(("trail", "trail", "config", "scaling", "internal", "lambda"))
        account = self.account
        if kind == "trail":
            name = "cloudtrail.amazonaws.com"
            world.call(
                rng,
                records.service(account.id, name),
                at,
                "s3:GetBucketAcl",
                Seat(name, None),
                name,
                shared=records.uuid(rng),
            )
        elif kind == "config":
            name = "config.amazonaws.com"
            role = world.org.role(account, "AWSServiceRoleForConfig", f"/aws-service-role/{name}/")
            session = records.role_session(role, "AWSConfig-Describe", rng, at, invoked_by=name)
            for command in ("ec2:DescribeSecurityGroups", "iam:ListRoles", "ec2:DescribeInstances"):
                world.call(rng, session, at, command, Seat(name, None), name)
        elif kind == "scaling":
            name = "autoscaling.amazonaws.com"
            role = world.org.role(account, "AWSServiceRoleForAutoScaling", f"/aws-service-role/{name}/")
            session = records.role_session(role, "AutoScaling", rng, at, invoked_by=name)
            command = rng.choice(("ec2:RunInstances", "ec2:TerminateInstances", "ec2:DescribeInstanceStatus"))
            world.call(rng, session, at, command, Seat(name, None), name)
        elif kind == "internal":
            role = world.org.role(account, f"{world.org.company}-automation")
            session = records.role_session(role, "StateMachine", rng, at, invoked_by="AWS Internal")
            world.call(rng, session, at, "kms:Decrypt", Seat("AWS Internal", None), "AWS Internal")
        else:
            name = "lambda.amazonaws.com"
            function = rng.choice(account.pools["function"])
            role = world.org.role(account, f"{function}-role", "/service-role/")
            world.assume_role(
                rng,
                records.service(account.id, name),
                role,
                function,
                at,
                Seat(name, None),
                name,
                hours=12,
            )


@dataclass
class Root(Robot):
    """An account's root user, now and then, from the head office: console and bills."""

    account: Account
    seat: Seat
    days: frozenset[int]

    def day(self, world: World, day: int) -> None:
        if day not in self.days:
            return
        rng = world.rng("root", self.account.id, day)
        at = world.at(day, 9 + rng.random() * 6)
        session = records.root_session(self.account.id, rng, at)
        signed = session.identity.replace(f'"accessKeyId":"{session.key}",', "")
        agent = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15" \
            " (KHTML, like Gecko) Version/18.1 Safari/605.1.15"  # fmt: skip
        world.console_login(rng, self.account, signed, at, self.seat, agent, mfa=True)
        for command in ("ce:GetCostAndUsage", "budgets:ViewBudget", "iam:GetAccountSummary"):
            at += rng.randrange(10, 90)
            world.call(rng, session, at, command, self.seat, agent)


@dataclass
class Upload(Robot):
    """A partner's upload tool: a broker hands it federated credentials of an IAM user."""

    account: Account
    broker: Seat
    seat: Seat
    rate: float

    def day(self, world: World, day: int) -> None:
        rng = world.rng("upload", self.account.id, day)
        user = world.org.user(self.account, "svc-uploads")
        for _ in range(round(self.rate * rng.uniform(0.5, 1.5))):
            at = world.at(day, 6 + rng.random() * 14)
            agent = "Boto3/1.28.17 Python/3.10.12 Linux/5.15.0 Botocore/1.31.17"
            session = records.federated_session(user, f"upload-{rng.randrange(40)}", rng, at)
            values = {"session": session.name}
            world.call(
                rng,
                records.user_session(user),
                at,
                "sts:GetFederationToken",
                self.broker,
                agent,
                values=values,
            )
            for _ in range(rng.randrange(1, 4)):
                at += rng.randrange(1, 20)
                world.call(rng, session, at, "s3:PutObject", self.seat, agent, owner=11)


def install(world: World) -> list[Robot]:
    """The organisation's machines, by the shape's robot activity and mix."""
    shape, org, atlas = world.shape, world.org, world.atlas
    rng = world.rng("robots")
    mix = shape.mix
    scale = shape.robot_activity
    robots: list[Robot] = []
    runners = [
        seat_on(rng.choice(atlas.ec2(region)), rng) for region in ("us-east-1", "us-east-2")
        for _ in range(40)
    ]  # fmt: skip
    for account in org.accounts:
        private = mix.private_addresses > 0
        elastic = [
            Seat(address, line)
            for address in account.elastic
            for line in atlas.ec2(account.region)
            if address.startswith(line.prefix + ".")
        ]
        if account.name != "security":
            numbered = mix.run_sessions > 0
            robots.append(
                Pipeline(account, rng.choice(account.pools["word"]), 3.5 * scale, runners, numbered)
            )
        for name in rng.sample(account.pools["function"], 3):
            commands = tuple(rng.sample(_FUNCTION, 3))
            robots.append(Function(account, name, 9 * scale, private and rng.random() < 0.3, commands))
        for id_ in account.pools["instance"][:2]:
            role = rng.choice(account.pools["instance_role"])
            robots.append(Instance(account, id_, role, rng.choice(elastic), 12 * scale, private))
        if mix.service_calls > 0:
            robots.append(Services(account, 16 * scale * mix.service_calls))
    office = rng.choice(org.offices)
    robots.append(Monitor(org.accounts[-1], office.seats[0], 2 / max(scale, 0.1)))
    head = org.offices[0].seats[0]
    root_days = frozenset(d for d in range(shape.days) if rng.random() < 1 / 25)
    robots.append(Root(org.management, head, root_days))
    partner = seat_on(rng.choice(atlas.business(rng.choice(atlas.hubs))), rng)
    broker = seat_on(rng.choice(atlas.ec2(org.accounts[-1].region)), rng)
    robots.append(Upload(org.accounts[-1], broker, partner, 4 * scale))
    vendors = zip(("observa", "fenwick", "hexagon"), atlas.vendor_networks, strict=False)
    for name, network in list(vendors)[: round(2 * mix.saas_vendors)]:
        homes = [h for h in atlas.hubs if h.country in ("US", "IE", "DE", "GB")]
        city = rng.choice([h for h in homes if atlas.of_network(h, network)])
        lines = atlas.of_network(city, network)
        seats = [seat_on(rng.choice(lines), rng) for _ in range(5)]
        hours = (2.0, 8.0, 14.0, 20.0) if name != "fenwick" else (3.5,)
        chosen = rng.sample(org.accounts, min(2, len(org.accounts)))
        robots.append(
            Vendor(name, chosen, f"{rng.randrange(10**11, 10**12)}", records.uuid(rng), seats, hours)
        )
        world.innocent("saas_vendors", name, [], f"{name} collects inventory from {city.label} every day")
    return robots
