"""Real techniques as intrusions, real traffic as background: the same measure on what we did not write.

An organisation of the simulator, but its intruders do what Stratus Red Team's detonations and
TrailDiscover's examples did, call by call, request by request, with the victim's credentials and the
intruder's own address and tools. The addresses and the user agents of those logs are made up or tell
their tool, so they are not used. Beside it lie the honeybucket's callers from 59 cities as data events
of one account, and the whole Invictus trail as an account of its own.
"""

from __future__ import annotations

import ast
import csv
import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from raretrail.errors import UsageError
from raretrail.simulate import Shape, simulate
from raretrail.simulate.campaigns import Intrusion, Kind
from raretrail.simulate.records import Failure, text

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "cloudtrail"
# Calls taken of one technique, and the longest pause kept between two of them, in seconds.
_MOST_CALLS, _LONGEST_PAUSE = 40, 90
_INVICTUS_DAY = 10  # of the judged days


def write(folder: Path, shape: Shape) -> None:
    """Write the organisation of this shape with real techniques and background under folder."""
    simulate(folder, shape, techniques(shape))
    organisation = next((folder / "trail" / "AWSLogs").iterdir())
    account = sorted(p.name for p in organisation.iterdir())[0]
    files: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for at, owner, record in (*_honeybucket(shape, account), *_invictus(shape)):
        record["eventTime"] = f"{at:%Y-%m-%dT%H:%M:%SZ}"
        files[owner, record["awsRegion"], f"{at:%Y/%m/%d}"].append(record)
    for (owner, region, day), records in files.items():
        path = organisation / owner / "CloudTrail" / region / day
        path.mkdir(parents=True, exist_ok=True)
        unique = records[0]["eventID"].replace("-", "")[:16]
        name = f"{owner}_CloudTrail_{region}_{day.replace('/', '')}T2355Z_{unique}.json.gz"
        (path / name).write_bytes(gzip.compress(json.dumps({"Records": records}).encode(), 1, mtime=0))


def techniques(shape: Shape) -> dict[str, Kind]:
    """As many techniques as the shape has campaigns, by kind: half of either source, by chance."""
    if not DATA.is_dir():
        raise UsageError(f"{DATA}: the public logs are not there; the measure needs them")
    rng = Random(f"{shape.seed}/techniques")
    found: dict[str, Kind] = {}
    wanted = shape.campaign_count
    for source, files, count in (
        ("stratus", "*.json", wanted // 2),
        ("traildiscover", "*.cloudtrail", wanted - wanted // 2),
    ):
        paths = sorted((DATA / source).rglob(files))
        for path in rng.sample(paths, len(paths)):
            records = json.loads(path.read_text(encoding="utf-8"))
            calls = _calls(records if isinstance(records, list) else [records])
            if calls and count:
                found[f"{source}:{path.name.split('.json')[0]}"] = _kind(calls)
                count -= 1
    return found


def _calls(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the attacker called, in order: what services did for them left out."""
    own = [
        record for record in records
        if not record.get("sourceIPAddress", "").endswith(".amazonaws.com") and "eventName" in record
        and record.get("userIdentity", {}).get("type") in ("IAMUser", "AssumedRole", "Root")
    ]  # fmt: skip
    return sorted(own, key=lambda record: record["eventTime"])[:_MOST_CALLS]


def _kind(calls: list[dict[str, Any]]) -> Kind:
    def play(intrusion: Intrusion) -> None:
        """From the victim's own city one time in five, else from elsewhere."""
        i = intrusion
        if i.rng.random() < 0.2:
            other = i.rng.choice([c for c in "abc" if c != i.victim.carrier])
            lines = i.world.atlas.residential(i.victim.town, other) if i.residential else None
            i.sit(i.victim.town, lines)
        else:
            i.sit(i.city_where(i.far_from_victim))
        session, account, at = i.stolen(i.start())
        i.arns[session.arn] = None
        before: datetime | None = None
        for call in calls:
            time = datetime.fromisoformat(call["eventTime"])
            if before:
                at += max(0, min(_LONGEST_PAUSE, int((time - before).total_seconds())))
            before = time
            failed = call.get("errorCode")
            i.world.record(
                i.rng, at, account, i.seat, i.agent, identity=session.identity,
                source=call["eventSource"], name=call["eventName"],
                request=text(call.get("requestParameters")), response=text(call.get("responseElements")),
                failure=Failure(failed, call.get("errorMessage") or "") if failed else None,
                event_type=call.get("eventType", "AwsApiCall"),
                read_only=bool(call.get("readOnly")), note=i.note,
            )  # fmt: skip
            i.calls.append(f"{call['eventSource'].split('.')[0]}:{call['eventName']}")

    return play


def _honeybucket(shape: Shape, account: str) -> Iterator[tuple[datetime, str, dict[str, Any]]]:
    """(when, account, record) of the callers of a public bucket, their 218 days wrapped into the span."""
    start = datetime(shape.start.year, shape.start.month, shape.start.day, tzinfo=UTC)
    with (DATA / "honeybucket" / "AWS_S3_HoneyBucketLogs.csv").open(encoding="utf-8", newline="") as rows:
        read = list(csv.DictReader(rows))
    times = [datetime.fromisoformat(row["Event DateTime"]) for row in read]
    first = min(times)
    for row, time in zip(read, times, strict=True):
        since = time - first
        yield start + timedelta(days=since.days % shape.days, seconds=since.seconds), account, {
            "eventVersion": "1.08", "eventType": row["Event Type"], "eventName": row["Event Name"],
            "eventSource": "s3.amazonaws.com", "awsRegion": "eu-west-1", "eventCategory": "Data",
            "requestID": row["Request ID"], "eventID": row["Event ID"],
            "userIdentity": ast.literal_eval(row["User ID"]),
            "requestParameters": ast.literal_eval(row["Request Parameters"]),
            "sourceIPAddress": row["Source IP"], "userAgent": row["Request User Agent"],
            "readOnly": not row["Event Name"].startswith(("Put", "Delete")), "managementEvent": False,
            "recipientAccountId": account,
        }  # fmt: skip


def _invictus(shape: Shape) -> Iterator[tuple[datetime, str, dict[str, Any]]]:
    """(when, account, record) of the Invictus trail, moved to one of the judged days."""
    records = [
        record for path in sorted((DATA / "invictus").rglob("*.json"))
        for record in json.loads(path.read_text(encoding="utf-8"))["Records"]
    ]  # fmt: skip
    times = [datetime.fromisoformat(record["eventTime"]) for record in records]
    moved = shape.judged_from + timedelta(days=_INVICTUS_DAY) - min(times).date()
    for record, time in zip(records, times, strict=True):
        yield time + moved, record["recipientAccountId"], record
