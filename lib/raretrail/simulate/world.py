"""What every actor needs to act: the organisation, the trail, streams of chance, the labels."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from raretrail.simulate import records
from raretrail.simulate.commands import COMMANDS, Command
from raretrail.simulate.organisation import Account, Organisation, Values
from raretrail.simulate.places import Atlas, City, Line, Seat
from raretrail.simulate.records import Failure, Role, Session, User
from raretrail.simulate.shape import Shape
from raretrail.simulate.trail import Trail

_HOSTS = {"monitoring": "monitoring", "elasticmapreduce": "elasticmapreduce"}
_S3_EXTRA = (
    '{"SignatureVersion":"SigV4","CipherSuite":"TLS_AES_128_GCM_SHA256","bytesTransferredIn":%d,'
    '"AuthenticationMethod":"AuthHeader","x-amz-id-2":"%s","bytesTransferredOut":%d}'
)


@lru_cache(maxsize=4096)
def _utc_offset(zone: str, day: date) -> int:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(zone))
    offset = noon.utcoffset()
    return int(offset.total_seconds()) if offset else 0


class World:
    """Shared state of one simulation. Actors get chance from `rng`, and act through `call`."""

    def __init__(self, shape: Shape, atlas: Atlas, organisation: Organisation, trail: Trail) -> None:
        self.shape = shape
        self.atlas = atlas
        self.org = organisation
        self.trail = trail
        self.epoch = int(
            datetime(shape.start.year, shape.start.month, shape.start.day, tzinfo=UTC)
            .timestamp()
        )  # fmt: skip
        self.end = self.epoch + shape.days * 86400
        self.innocents: list[dict[str, Any]] = []
        self.lines: dict[str, Line] = {}
        self.noted: dict[str, int] = {}  # when the labelled events happened
        # city id -> person name -> day numbers: where people have been, as far as simulated
        self.seen: dict[int, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))

    def rng(self, *names: object) -> Random:
        """A stream of its own: what one actor draws changes nothing for another."""
        return Random("/".join(map(str, (self.shape.seed, *names))))

    def date(self, day: int) -> date:
        """The date of a day number."""
        return self.shape.start + timedelta(days=day)

    def at(self, day: int, hour: float, zone: str = "UTC") -> int:
        """Epoch seconds of a local hour (may exceed 24) on that day."""
        return self.epoch + day * 86400 + int(hour * 3600) - _utc_offset(zone, self.date(day))

    def innocent(self, kind: str, who: str, days: list[int], sentence: str) -> None:
        """Label an innocent trouble that is a condition, not a set of events."""
        self.innocents.append({
            "kind": kind, "who": who, "days": [self.date(d).isoformat() for d in days],
            "description": sentence,
        })  # fmt: skip

    def tracked(self, kind: str, who: str, days: list[int], sentence: str) -> list[str]:
        """Label an innocent trouble; returns the list that collects its event ids."""
        self.innocent(kind, who, days, sentence)
        ids: list[str] = []
        self.innocents[-1]["event_ids"] = ids
        return ids

    def happened(self) -> list[dict[str, Any]]:
        """The labels of troubles that came to pass: a tracked one without events did not."""
        return [i for i in self.innocents if i.get("event_ids", True)]

    def call(
        self,
        rng: Random,
        session: Session,
        at: int,
        command: Command | str,
        seat: Seat,
        agent: str,
        *,
        account: Account | None = None,
        region: str = "",
        failure: Failure | None = None,
        values: dict[str, str] | None = None,
        owner: int = -1,
        note: list[str] | None = None,
        shared: str = "",
        identity: str = "",
    ) -> str:
        """One call, logged in `account` (default: the session's own). Returns its event id."""
        if isinstance(command, str):
            command = COMMANDS[command]
        account = account or self.org.account(session.account)
        region = "us-east-1" if command.is_global else region or account.region
        event_id = records.uuid(rng)
        holes = Values(account, region, session.name, at, owner, rng, values)
        request = command.request.fill(holes) if command.request else "null"
        response = command.response.fill(holes) if command.response and not failure else "null"
        if failure and "UnauthorizedOperation" not in failure.code and not command.read_only:
            request = request if rng.random() < 0.5 else "null"
        extra = ""
        request_id = records.uuid(rng)
        if command.service == "s3":
            out = rng.randrange(200, 900_000) if command.read_only else 0
            extra = _S3_EXTRA % (0 if command.read_only else 4096, records.alnum(rng, 40), out)
            request_id = records.unique_id("", rng)
        local = "." + region if not command.is_global else ""
        body = records.record(
            at=at, identity=identity or session.identity, source=command.source,
            name=command.name, region=region, seat=seat, agent=agent, account=account.id,
            event_id=event_id, request_id=request_id, read_only=command.read_only,
            data=command.data, request=request, response=response,
            resources=command.resources.fill(holes) if command.resources else "",
            failure=failure, extra=extra, console=session.console, shared=shared,
            host="" if seat.line is None and not seat.vpc_endpoint
            else f"{command.service}{local}.amazonaws.com",
        )  # fmt: skip
        self._log(at, account, region, event_id, body, seat, note)
        return event_id

    def _log(
        self, at: int, account: Account, region: str, event_id: str, body: str, seat: Seat,
        note: list[str] | None,
    ) -> None:  # fmt: skip
        if not self.epoch <= at < self.end:
            return
        self.trail.add(at, account.id, region, body)
        if seat.line is not None:
            self.lines[seat.line.prefix] = seat.line
        for collects in {id(n): n for n in (seat.note, note) if n is not None}.values():
            collects.append(event_id)
            self.noted[event_id] = at

    # ------------------------------------------------------------------------ getting credentials

    def record(
        self, rng: Random, at: int, account: Account, seat: Seat, agent: str, *,
        identity: str, source: str, name: str, request: str, response: str, region: str = "",
        failure: Failure | None = None, extra: str = "", event_type: str = "AwsApiCall",
        shared: str = "", read_only: bool = True, resources: str = "", host: str = "",
        note: list[str] | None = None,
    ) -> str:  # fmt: skip
        event_id = records.uuid(rng)
        region = region or account.region
        body = records.record(
            at=at, identity=identity, source=source, name=name, region=region, seat=seat,
            agent=agent, account=account.id, event_id=event_id, request_id=records.uuid(rng),
            read_only=read_only, request=request, response=response, failure=failure, extra=extra,
            event_type=event_type, shared=shared, resources=resources, host=host,
        )  # fmt: skip
        self._log(at, account, region, event_id, body, seat, note)
        return event_id

    def _credentials(self, session: Session, role: Role) -> str:
        return records.text({
            "credentials": {
                "accessKeyId": session.key, "sessionToken": "REDACTED",
                "expiration": records.long_time(session.expires),
            },
            "assumedRoleUser": {
                "assumedRoleId": f"{role.id}:{session.name}", "arn": session.arn,
            },
        })  # fmt: skip

    def assume_role(
        self, rng: Random, caller: Session, role: Role, name: str, at: int, seat: Seat, agent: str,
        *, hours: int = 1, mfa: bool = False, external_id: str = "", ec2: bool = False,
        failure: Failure | None = None, note: list[str] | None = None,
    ) -> Session:  # fmt: skip
        """sts:AssumeRole, logged in the caller's account and, across accounts, in the role's."""
        session = records.role_session(role, name, rng, at, hours=hours, mfa=mfa, ec2=ec2)
        request = {"roleArn": role.arn, "roleSessionName": name, "durationSeconds": hours * 3600}
        if external_id:
            request["externalId"] = external_id
        target = self.org.account(role.account)
        own = [a for a in self.org.accounts if a.id == caller.account]
        shared = records.uuid(rng) if not own or own[0] is not target or external_id else ""
        arguments: dict[str, Any] = {
            "source": "sts.amazonaws.com", "name": "AssumeRole", "failure": failure,
            "request": records.text(request), "shared": shared, "note": note,
            "response": "null" if failure else self._credentials(session, role),
            "resources": records.text(
                [{"accountId": role.account, "type": "AWS::IAM::Role", "ARN": role.arn}]
            ),
            "host": f"sts.{target.region}.amazonaws.com" if seat.line else "",
        }  # fmt: skip
        if own:
            self.record(rng, at, own[0], seat, agent, identity=caller.identity, **arguments)
        if not own or own[0] is not target:
            outside = {
                "type": "AWSAccount",
                "principalId": _principal_id(caller),
                "accountId": caller.account,
            }
            identity = caller.identity if not own else records.text(outside)
            self.record(rng, at, target, seat, agent, identity=identity, **arguments)
        return session

    def assume_role_with_web_identity(
        self, rng: Random, role: Role, name: str, at: int, seat: Seat, agent: str, provider: str,
        subject: str,
    ) -> Session:  # fmt: skip
        """sts:AssumeRoleWithWebIdentity: how CI runs get in."""
        account = self.org.account(role.account)
        arn = f"arn:aws:iam::{account.id}:oidc-provider/{provider}"
        session = records.role_session(role, name, rng, at, hours=1, federated=arn)
        identity = {
            "type": "WebIdentityUser", "principalId": f"{arn}:sts.amazonaws.com:{subject}",
            "userName": subject, "identityProvider": arn,
        }  # fmt: skip
        self.record(
            rng, at, account, seat, agent, identity=records.text(identity),
            source="sts.amazonaws.com", name="AssumeRoleWithWebIdentity",
            request=records.text({"roleArn": role.arn, "roleSessionName": name}),
            response=self._credentials(session, role), host=f"sts.{account.region}.amazonaws.com",
        )  # fmt: skip
        return session

    def saml_sign_in(
        self, rng: Random, role: Role, name: str, at: int, seat: Seat, agent: str, *,
        console: bool, mfa: bool, provider: str, note: list[str] | None = None,
    ) -> Session:  # fmt: skip
        """sts:AssumeRoleWithSAML and, for the console, the ConsoleLogin that follows."""
        account = self.org.account(role.account)
        session = records.role_session(
            role, name, rng, at, hours=8, mfa=mfa and not role.path.startswith("/aws-reserved"),
            console=console,
        )  # fmt: skip
        saml = f"arn:aws:iam::{account.id}:saml-provider/{provider}"
        identity = {
            "type": "SAMLUser", "principalId": f"{records.hex_id(rng, 12)}:{name}",
            "userName": name, "identityProvider": saml,
        }  # fmt: skip
        self.record(
            rng, at, account, seat, "aws-internal/3" if console else agent,
            identity=records.text(identity), source="sts.amazonaws.com", note=note,
            name="AssumeRoleWithSAML", response=self._credentials(session, role),
            request=records.text(
                {"sAMLAssertionID": f"_{records.uuid(rng)}", "roleSessionName": name,
                 "roleArn": role.arn, "principalArn": saml, "durationSeconds": 28800}
            ),
            host=f"sts.{account.region}.amazonaws.com",
        )  # fmt: skip
        if console:
            signed = session.identity.replace(f'"accessKeyId":"{session.key}",', "")
            self.console_login(rng, account, signed, at + 2, seat, agent, mfa=mfa, note=note)
        return session

    def sso_sign_in(
        self, rng: Random, role: Role, name: str, at: int, seat: Seat, agent: str, *,
        console: bool, mfa: bool = True, note: list[str] | None = None,
    ) -> Session:  # fmt: skip
        """IAM Identity Center: the portal's events in the management account, then the session."""
        store = f"arn:aws:identitystore::{self.org.management.id}:identitystore/d-9067abcdef"
        user_id = records.uuid(self.rng("identity-center", name))
        identity = records.text({
            "type": "IdentityCenterUser", "accountId": self.org.management.id,
            "onBehalfOf": {"userId": user_id, "identityStoreArn": store},
            "credentialId": records.hex_id(rng, 32),
        })  # fmt: skip
        chosen = records.text({"role_name": role.name.split("_")[1], "account_id": role.account})
        management = self.org.management
        if not console:
            self.record(
                rng, at, management, seat, agent, identity=identity, source="sso.amazonaws.com",
                name="GetRoleCredentials", request="null", response="null", note=note,
                extra=f'{{"serviceEventDetails":{chosen}}}',
            )  # fmt: skip
            return records.role_session(role, name, rng, at)
        self.record(
            rng, at - 4, management, seat, agent, identity=identity, source="signin.amazonaws.com",
            name="UserAuthentication", request="null", response="null", note=note, read_only=False,
            event_type="AwsServiceEvent", extra=records.text(
                {"AuthWorkflowID": records.uuid(rng),
                 "CredentialType": "PASSWORD,TOTP" if mfa else "PASSWORD"}
            ),
        )  # fmt: skip
        self.record(
            rng, at - 1, management, seat, agent, identity=identity, source="sso.amazonaws.com",
            name="Federate", request="null", response="null", note=note,
            event_type="AwsServiceEvent",
        )  # fmt: skip
        return self.saml_sign_in(
            rng, role, name, at, seat, agent, console=True, mfa=mfa, note=note,
            provider="AWSSSO_7c1f_DO_NOT_DELETE",
        )  # fmt: skip

    def console_login(
        self, rng: Random, account: Account, identity: str, at: int, seat: Seat, agent: str, *,
        mfa: bool, fails: bool = False, note: list[str] | None = None,
    ) -> str:  # fmt: skip
        """signin:ConsoleLogin; a failure carries a message but no errorCode, as in real trails."""
        extra = {
            "LoginTo": f"https://console.aws.amazon.com/console/home?region={account.region}",
            "MobileVersion": "No", "MFAUsed": "Yes" if mfa else "No",
        }  # fmt: skip
        return self.record(
            rng, at, account, seat, agent, identity=identity, source="signin.amazonaws.com",
            name="ConsoleLogin", request="null", region="us-east-1", read_only=False,
            response=records.text({"ConsoleLogin": "Failure" if fails else "Success"}),
            failure=Failure("", "Failed authentication") if fails else None,
            extra=records.text(extra), event_type="AwsConsoleSignIn", note=note,
            host="us-east-1.signin.aws.amazon.com",
        )  # fmt: skip

    def user_console(
        self, rng: Random, user: User, at: int, seat: Seat, agent: str, *, mfa: bool,
        fails: bool = False, note: list[str] | None = None,
    ) -> Session:  # fmt: skip
        """An IAM user signs in to the console, after a mistyped password if `fails`."""
        account = self.org.account(user.account)
        identity = records.text({
            "type": "IAMUser", "principalId": user.id, "arn": user.arn,
            "accountId": user.account, "userName": user.name,
        })  # fmt: skip
        if fails:
            self.console_login(rng, account, identity, at - 20, seat, agent, mfa=mfa, fails=True, note=note)
        self.console_login(rng, account, identity, at, seat, agent, mfa=mfa, note=note)
        return records.user_console_session(user, rng, at, mfa)

    def switch_role(
        self, rng: Random, user: User, role: Role, name: str, at: int, seat: Seat, agent: str, *,
        mfa: bool, note: list[str] | None = None,
    ) -> Session:  # fmt: skip
        """An IAM user in the console switches to a role of another account."""
        signed_in = self.user_console(rng, user, at - 9, seat, agent, mfa=mfa, note=note)
        session = records.role_session(role, name, rng, at, hours=1, mfa=mfa, console=True)
        target = self.org.account(role.account)
        extra = {"SwitchFrom": signed_in.arn, "RedirectTo": "https://console.aws.amazon.com/"}
        self.record(
            rng, at, target, seat, agent, source="signin.amazonaws.com", name="SwitchRole",
            identity=session.identity.replace(f'"accessKeyId":"{session.key}",', ""),
            request="null", response='{"SwitchRole":"Success"}', region="us-east-1",
            read_only=False, extra=records.text(extra), event_type="AwsConsoleSignIn", note=note,
            host="us-east-1.signin.aws.amazon.com",
        )  # fmt: skip
        return session

    def remember(self, who: str, city: City | None, day: int) -> None:
        """Someone of the organisation was there that day."""
        if city is not None:
            self.seen[city.id][who].add(day)


def _principal_id(session: Session) -> str:
    marker = '"principalId":"'
    start = session.identity.find(marker)
    if start < 0:
        return ""
    start += len(marker)
    return session.identity[start : session.identity.index('"', start)]
