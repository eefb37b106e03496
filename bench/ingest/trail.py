"""A large trail, the same every time: about 1.5 KB an event, delivered in ten regions by the day.

Made from templates by several processes, since it has to be quick rather than true to life: what matters
here is how many bytes, files, identities, addresses and distinct texts there are. Some records in a
thousand are delivered twice, as S3 does.
"""

from __future__ import annotations

import base64
import gzip
import os
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

LAST_DAY = date(2026, 3, 31)
EVENTS_A_DAY = 22_222
FILES_A_DAY = 29
_REDELIVERED = 0.006
_ACCOUNTS = [f"{210_987_654_321 + 7_777_777 * n:012d}" for n in range(8)]
_REGIONS = ["us-east-1", "eu-west-1", "eu-central-1", "us-west-2", "ap-southeast-2"]

_Random = random.Random
_Filled = Callable[[_Random], str]


class Trail(NamedTuple):
    """What was written: events without redelivered copies, records with them, files, bytes as stored."""

    events: int
    records: int
    files: int
    bytes: int
    first_day: date
    last_day: date

    @property
    def end(self) -> date:
        """The day after the last."""
        return self.last_day + timedelta(days=1)


def write_trail(root: Path, events: int, processes: int = 2) -> Trail:
    """Write a trail of so many events, some 22,222 a day up to 2026-03-31, below `root`."""
    days = max(1, round(events / EVENTS_A_DAY))
    first = LAST_DAY - timedelta(days=days - 1)
    upto = [events * n // days for n in range(days + 1)]
    work = [(root, first + timedelta(days=n), upto[n + 1] - upto[n]) for n in range(days)]
    with ProcessPoolExecutor(processes) as pool:
        written = list(pool.map(_write_day, work))
    records, files, size = (sum(part[i] for part in written) for i in range(3))
    return Trail(events, records, files, size, first, LAST_DAY)


# -------------------------------------------------------------------------------------- the cast


class _Caller(NamedTuple):
    identity: str  # with {session} and {key} where a session has them
    addresses: tuple[str, ...]
    agent: str
    account: str
    people: bool


def _address(r: _Random) -> str:
    first = r.choice([3, 13, 18, 24, 34, 52, 54, 62, 73, 78, 80, 84, 87, 93, 109, 151, 176, 188, 193, 212])
    return f"{first}.{r.randrange(256)}.{r.randrange(256)}.{r.randrange(1, 255)}"


_AGENTS = [
    "aws-cli/2.15.30 Python/3.11.8 Linux/5.10.205-195.807.amzn2.x86_64 exe/x86_64.amzn.2 prompt/off",
    "aws-cli/2.17.9 md/awscrt#0.20.11 ua/2.0 os/macos#23.5.0 md/arch#arm64 lang/python#3.11.9 cfg/retry-mode#standard",
    "Boto3/1.34.84 md/Botocore#1.34.84 ua/2.0 os/linux#5.10.214-202.855.amzn2.x86_64 md/arch#x86_64 lang/python#3.11.6",
    "APN/1.0 HashiCorp/1.0 Terraform/1.7.5 (+https://www.terraform.io) terraform-provider-aws/5.44.0",
    "aws-sdk-go-v2/1.26.1 os/linux lang/go#1.22.1 md/GOOS#linux md/GOARCH#amd64 api/s3#1.53.1 karpenter.sh",
    "aws-sdk-java/2.25.27 Linux/5.10.213 OpenJDK_64-Bit_Server_VM/17.0.10+7-LTS Java/17.0.10 vendor/Amazon.com_Inc.",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/123.0.0.0 Safari/537.36",
    "[S3Console/0.4, aws-internal/3 aws-sdk-java/1.12.698 Linux/5.10.213-179.855.amzn2int.x86_64]",
]
_SERVICES = ["autoscaling", "config", "ecs", "lambda", "cloudformation", "ec2"]


def _cast() -> list[_Caller]:
    """The callers; some hundred people and roles with a handful of addresses each, and services."""
    r = _Random(1)
    cast: list[_Caller] = []
    for n in range(220):
        account = r.choice(_ACCOUNTS)
        name = f"person{n:03d}@example.com"
        role = (
            f"AWSReservedSSO_{r.choice(['Admin', 'Developer', 'ReadOnly', 'Billing'])}_{'%016x' % (n * 7919)}"
        )
        issuer = f"arn:aws:iam::{account}:role/aws-reserved/sso.amazonaws.com/{role}"
        cast.append(
            _Caller(
                _assumed(account, role, issuer, name, "AROA" + _letters(r, 17)),
                tuple(_address(r) for _ in range(r.randrange(1, 5))),
                r.choice(_AGENTS[:4] + _AGENTS[6:]),
                account,
                True,
            )
        )
    for n in range(160):
        account = r.choice(_ACCOUNTS)
        role = f"service-{n:03d}-{r.choice(['ingest', 'api', 'worker', 'deploy', 'backup'])}"
        issuer = f"arn:aws:iam::{account}:role/{role}"
        cast.append(
            _Caller(
                _assumed(account, role, issuer, "{session}", "AROA" + _letters(r, 17)),
                tuple(_address(r) for _ in range(r.randrange(1, 8))),
                r.choice(_AGENTS[2:6]),
                account,
                False,
            )
        )
    for n in range(40):
        account = r.choice(_ACCOUNTS)
        user = f"user-{n:03d}"
        cast.append(
            _Caller(
                f'{{"type":"IAMUser","principalId":"AIDA{_letters(r, 17)}","arn":"arn:aws:iam::{account}:user/{user}",'
                f'"accountId":"{account}","accessKeyId":"AKIA{_letters(r, 16)}","userName":"{user}"}}',
                tuple(_address(r) for _ in range(r.randrange(1, 4))),
                r.choice(_AGENTS),
                account,
                True,
            )
        )
    for service in _SERVICES:
        for account in _ACCOUNTS:
            host = f"{service}.amazonaws.com"
            cast.append(
                _Caller(f'{{"type":"AWSService","invokedBy":"{host}"}}', (host,), host, account, False)
            )
    return cast


def _assumed(account: str, role: str, issuer: str, session: str, role_id: str) -> str:
    return (
        f'{{"type":"AssumedRole","principalId":"{role_id}:{session}",'
        f'"arn":"arn:aws:sts::{account}:assumed-role/{role}/{session}","accountId":"{account}",'
        f'"accessKeyId":"ASIA{{key}}","sessionContext":{{"sessionIssuer":{{"type":"Role",'
        f'"principalId":"{role_id}","arn":"{issuer}","accountId":"{account}","userName":"{role}"}},'
        '"webIdFederationData":{},"attributes":{"creationDate":"{created}","mfaAuthenticated":"false"}}}'
    )


def _letters(r: _Random, n: int) -> str:
    return base64.b32encode(r.randbytes(-(-n * 5 // 8))).decode()[:n]


def _hex(r: _Random, n: int) -> str:
    return f"{r.getrandbits(4 * n):0{n}x}"


def _uuid(r: _Random) -> str:
    h = f"{r.getrandbits(128):032x}"
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"


# ----------------------------------------------------------------------------------- the commands


class _Command(NamedTuple):
    source: str
    name: str
    read_only: str
    request: _Filled
    response: _Filled


def _null(r: _Random) -> str:
    return "null"


def _listing(r: _Random) -> str:
    return f'{{"maxResults":{r.choice([50, 100, 1000])},"nextToken":"{_hex(r, 64)}"}}'


def _instances(r: _Random) -> str:
    items = ",".join(f'{{"instanceId":"i-0{_hex(r, 16)}"}}' for _ in range(r.randrange(1, 6)))
    return (
        f'{{"instancesSet":{{"items":[{items}]}},"filterSet":{{"items":[{{"name":"instance-state-name","valueSet":'
        '{"items":[{"value":"running"},{"value":"pending"}]}},{"name":"tag:Environment","valueSet":{"items":'
        '[{"value":"production"}]}}]}}'
    )


def _object(r: _Random) -> str:
    return (
        f'{{"bucketName":"data-{r.randrange(60):02d}-prod","Host":"data-{r.randrange(60):02d}-prod.s3.eu-west-1.'
        f'amazonaws.com","key":"ingest/year=2026/part-{r.randrange(10**6):06d}-{_hex(r, 12)}.snappy.parquet",'
        '"x-amz-server-side-encryption":"aws:kms","x-amz-storage-class":"STANDARD"}'
    )


def _assume(r: _Random) -> str:
    return (
        f'{{"roleArn":"arn:aws:iam::{r.choice(_ACCOUNTS)}:role/service-{r.randrange(160):03d}-worker",'
        f'"roleSessionName":"session-{_hex(r, 10)}","durationSeconds":3600}}'
    )


def _assumed_answer(r: _Random) -> str:
    return (
        f'{{"credentials":{{"accessKeyId":"ASIA{_letters(r, 16)}","sessionToken":"IQoJb3JpZ2luX2Vj{_letters(r, 120)}",'
        f'"expiration":"Mar 9, 2026, 10:{r.randrange(60):02d}:11 PM"}},"assumedRoleUser":{{"assumedRoleId":"AROA'
        f'{_letters(r, 17)}:session","arn":"arn:aws:sts::{r.choice(_ACCOUNTS)}:assumed-role/worker/session"}}}}'
    )


def _network(r: _Random) -> str:
    return (
        f'{{"networkInterfaceId":"eni-0{_hex(r, 16)}","subnetId":"subnet-0{_hex(r, 16)}","vpcId":"vpc-0{_hex(r, 16)}",'
        f'"description":"ELB app/front-{r.randrange(90)}/{_hex(r, 16)}","privateIpAddress":"10.0.{r.randrange(256)}.'
        f'{r.randrange(256)}","groupSet":{{"items":[{{"groupId":"sg-0{_hex(r, 16)}","groupName":"front"}}]}},'
        '"tagSet":{"items":[{"key":"Team","value":"platform"},{"key":"Environment","value":"production"}]}}'
    )


def _encryption(r: _Random) -> str:
    return (
        f'{{"encryptionContext":{{"aws:s3:arn":"arn:aws:s3:::data-{r.randrange(60):02d}-prod/ingest/part-{_hex(r, 12)}"}},'
        '"encryptionAlgorithm":"SYMMETRIC_DEFAULT"}'
    )


def _plain(key: str, prefix: str, count: int) -> _Filled:
    return lambda r: f'{{"{key}":"{prefix}{r.randrange(count):04d}"}}'


def _commands() -> list[_Command]:
    """Some hundred commands; the first are called most."""
    ec2, s3, kms, sts = ("ec2.amazonaws.com", "s3.amazonaws.com", "kms.amazonaws.com", "sts.amazonaws.com")
    known = [
        _Command(sts, "AssumeRole", "true", _assume, _assumed_answer),
        _Command(kms, "Decrypt", "true", _encryption, _null),
        _Command(s3, "GetObject", "true", _object, _null),
        _Command(ec2, "DescribeInstances", "true", _instances, _null),
        _Command(kms, "GenerateDataKey", "true", _encryption, _null),
        _Command(s3, "PutObject", "false", _object, _plain("x-amz-server-side-encryption", "aws:kms", 2)),
        _Command(ec2, "DescribeNetworkInterfaces", "true", _network, _null),
        _Command(ec2, "CreateNetworkInterface", "false", _network, _network),
        _Command(
            "logs.amazonaws.com",
            "CreateLogStream",
            "false",
            _plain("logGroupName", "/aws/lambda/f", 400),
            _null,
        ),
        _Command("lambda.amazonaws.com", "Invoke", "false", _plain("functionName", "function-", 200), _null),
        _Command("iam.amazonaws.com", "GetRole", "true", _plain("roleName", "service-", 160), _null),
        _Command("iam.amazonaws.com", "ListRoles", "true", _listing, _null),
        _Command("sts.amazonaws.com", "GetCallerIdentity", "true", _null, _null),
        _Command(ec2, "RunInstances", "false", _network, _network),
        _Command(
            "ecr.amazonaws.com", "BatchGetImage", "true", _plain("repositoryName", "team/app-", 90), _null
        ),
        _Command(
            "secretsmanager.amazonaws.com",
            "GetSecretValue",
            "true",
            _plain("secretId", "prod/app-", 80),
            _null,
        ),
    ]
    for service in ("ec2", "iam", "rds", "dynamodb", "ssm", "ecs", "eks", "glue", "cloudwatch", "config"):
        for verb in ("List", "Describe", "Get", "Create", "Update", "Delete", "Tag"):
            for noun in ("Clusters", "Resources"):
                reads = "true" if verb in ("List", "Describe", "Get") else "false"
                known.append(
                    _Command(
                        f"{service}.amazonaws.com",
                        verb + noun,
                        reads,
                        _listing,
                        _null if reads == "true" else _network,
                    )
                )
    return known


_FAILED = [
    (
        "AccessDenied",
        "User: arn:aws:sts::210987654321:assumed-role/service/{0} is not authorized to perform: "
        "{1} on resource: arn:aws:s3:::data-prod/{0} because no identity-based policy allows the {1} action",
    ),
    ("ThrottlingException", "Rate exceeded"),
    ("ResourceNotFoundException", "Requested resource {0} not found"),
]


# ------------------------------------------------------------------------------------- the writing


def _write_day(work: tuple[Path, date, int]) -> tuple[int, int, int]:
    """Write one delivery day: records, files, bytes."""
    root, day, count = work
    r = _Random(f"{day}")
    cast, commands = _cast(), _commands()
    # Each caller has some commands of its own, and few callers make most calls.
    habits = [
        _Random(n).choices(range(len(commands)), [1 / (i + 1) for i in range(len(commands))], k=7)
        for n in range(len(cast))
    ]
    weights = [1 / (1 + i % 97) for i in range(len(cast))]
    files: list[list[str]] = [[] for _ in range(FILES_A_DAY)]
    sessions = {
        n: (_letters(r, 16), f"i-0{_hex(r, 16)}", f"{day}T{r.randrange(24):02d}:00:00Z")
        for n in range(len(cast))
    }
    for n in r.choices(range(len(cast)), weights, k=count):
        caller = cast[n]
        second = r.randrange(86_400)
        command = commands[r.choice(habits[n]) if r.random() < 0.985 else r.randrange(len(commands))]
        at = r.randrange(FILES_A_DAY)
        region = _REGIONS[at % len(_REGIONS)]
        key, session, created = sessions[n]
        identity = (
            caller.identity.replace("{key}", key).replace("{session}", session).replace("{created}", created)
        )
        agent, error = caller.agent, ""
        if r.random() < 0.03:
            code, message = _FAILED[r.randrange(3)]
            action = f"{command.source.partition('.')[0]}:{command.name}"
            error = f'"errorCode":"{code}","errorMessage":"{message.format(_hex(r, 12), action)}",'
        record = (
            f'{{"eventVersion":"1.10","userIdentity":{identity},'
            f'"eventTime":"{day}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z",'
            f'"eventSource":"{command.source}","eventName":"{command.name}","awsRegion":"{region}",'
            f'"sourceIPAddress":"{r.choice(caller.addresses)}","userAgent":"{agent}",{error}'
            f'"requestParameters":{command.request(r)},"responseElements":{"null" if error else command.response(r)},'
            f'"additionalEventData":{{"SignatureVersion":"SigV4","CipherSuite":"TLS_AES_128_GCM_SHA256",'
            f'"bytesTransferredIn":0,"AuthenticationMethod":"AuthHeader",'
            f'"bytesTransferredOut":{r.randrange(10**5)}}},'
            f'"requestID":"{_uuid(r)}","eventID":"{_uuid(r)}","readOnly":{command.read_only},'
            '"resources":[{"accountId":"'
            + caller.account
            + '","type":"AWS::S3::Bucket","ARN":"arn:aws:s3:::data-prod"}],'
            f'"eventType":"AwsApiCall","managementEvent":true,"recipientAccountId":"{caller.account}",'
            '"eventCategory":"Management","tlsDetails":{"tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256",'
            f'"clientProvidedHostHeader":"{command.source.partition(".")[0]}.{region}.amazonaws.com"}}}}'
        )
        files[at].append(record)
        if r.random() < _REDELIVERED:
            files[r.randrange(FILES_A_DAY)].append(record)
    size = records = 0
    for at, held in enumerate(files):
        if not held:
            continue
        account, region = _ACCOUNTS[at % len(_ACCOUNTS)], _REGIONS[at % len(_REGIONS)]
        folder = root / f"AWSLogs/o-bench00000/{account}/CloudTrail/{region}/{day:%Y/%m/%d}"
        folder.mkdir(parents=True, exist_ok=True)
        path = (
            folder
            / f"{account}_CloudTrail_{region}_{day:%Y%m%d}T{at * 24 // FILES_A_DAY:02d}05Z_{_letters(r, 16)}.json.gz"
        )
        data = gzip.compress(('{"Records":[' + ",".join(held) + "]}").encode(), 6, mtime=0)
        path.write_bytes(data)
        os.utime(path, (1_775_000_000, 1_775_000_000))
        size += len(data)
        records += len(held)
    return records, sum(1 for held in files if held), size
