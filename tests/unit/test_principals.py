from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raretrail.cloudtrail.principals import KINDS, IdentityFacts, load_rules
from raretrail.errors import UsageError

CONF = Path(__file__).parents[2] / "conf" / "principals.yml"
RULES = load_rules(CONF)
ROLE = "arn:aws:iam::123456789012:role/Admin"


def decide(**facts: str | None) -> tuple[str, str]:
    found = RULES.decide(IdentityFacts(**facts))
    return found.principal, found.kind


def session(name: str, issuer: str = ROLE, **more: str) -> tuple[str, str]:
    account, role = issuer.split(":")[4], issuer.rpartition("/")[2]
    partition = issuer.split(":")[1]
    return decide(
        type="AssumedRole",
        arn=f"arn:{partition}:sts::{account}:assumed-role/{role}/{name}",
        account_id=account,
        issuer_type="Role",
        issuer_arn=issuer,
        issuer_user_name=role,
        session_name=name,
        **more,
    )


@pytest.mark.parametrize(
    "name",
    [
        "ana@example.com",
        "u1234567@example.com",
        "ssmith@example.com",
        "Ana.Garcia-Lopez",
        "dr.evil",
        "sean.o'brien",
    ],
)
def test_session_named_after_a_person(name: str) -> None:
    assert session(name) == (f"{ROLE}/{name}", "person")


@pytest.mark.parametrize(
    "name",
    [
        "i-0dbc91f429e48eeed",
        "i-786a3A8B5C0d92eF4".lower(),
        "mi-0123456789abcdef0",
        "0b3e7c1e-5a1b-4c2d-8e3f-000000000000",
        "run-0b3e7c1e-5a1b-4c2d-8e3f-000000000000@ci",
        "1709285400",
        "aws-go-sdk-1688990082523310002",
        "botocore-session-1709285400",
        "GitHubActions",
        "AWSCLI-Session",
        "c95c6bcfe9033cfff4d3d0c295caf16e",
        "deploy.1709285400",
        "build-3fa9c01d",
        "terraform",
        "lambda.handler",
        "session",
        "cli",
        "Jack",
        "my-function",
        "CodeBuild-7472a099",
        "ecs.task",
    ],
)
def test_session_named_by_a_program_or_by_nobody(name: str) -> None:
    assert session(name) == (ROLE, "role")


def test_sessions_of_the_identity_centre_are_people_whatever_their_name() -> None:
    role = (
        "arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/eu-west-1/"
        "AWSReservedSSO_Admin_1b74cd717d47002b"
    )
    assert session("AdanAlvarez", role) == (f"{role}/AdanAlvarez", "person")


def test_source_identity_outlives_role_chaining() -> None:
    assert session("i-0dbc91f429e48eeed", source_identity="ana@example.com") == (
        f"{ROLE}/ana@example.com",
        "person",
    )
    assert session("x", source_identity="1709285400") == (ROLE, "role")


def test_role_keeps_its_path_and_partition() -> None:
    for partition in ("aws", "aws-cn", "aws-us-gov"):
        role = f"arn:{partition}:iam::123456789012:role/team/a/Deploy"
        assert session("i-0dbc91f429e48eeed", role) == (role, "role")


def test_role_without_an_issuer_is_named_in_the_iam_form() -> None:
    arn = "arn:aws-cn:sts::123456789012:assumed-role/Deploy/1709285400"
    assert decide(type="AssumedRole", arn=arn, session_name="1709285400") == (
        "arn:aws-cn:iam::123456789012:role/Deploy",
        "role",
    )


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            {"type": "IAMUser", "arn": "arn:aws:iam::123456789012:user/team/ana"},
            ("arn:aws:iam::123456789012:user/team/ana", "user"),
        ),
        (
            {"type": "IAMUser", "account_id": "123456789012", "user_name": "ana"},
            ("arn:aws:iam::123456789012:user/ana", "user"),
        ),
        (
            {"type": "IAMUser", "account_id": "1", "user_name": "a", "partition": "aws-cn"},
            ("arn:aws-cn:iam::1:user/a", "user"),
        ),
        ({"type": "IAMUser", "principal_id": "AIDAEXAMPLE"}, ("AIDAEXAMPLE", "user")),
        (
            {"type": "IAMUser", "arn": "arn:aws:iam::1:user/a", "invoked_by": "x.amazonaws.com"},
            ("arn:aws:iam::1:user/a", "user"),
        ),
        (
            {
                "type": "IAMUser",
                "account_id": "123456789012",
                "user_name": "HIDDEN_DUE_TO_SECURITY_REASONS",
            },
            (
                "arn:aws:iam::123456789012:user/HIDDEN_DUE_TO_SECURITY_REASONS",
                "unknown",
            ),
        ),
        (
            {"type": "Root", "account_id": "123456789012", "user_name": "alias"},
            ("arn:aws:iam::123456789012:root", "root"),
        ),
        (
            {"type": "Root", "arn": "arn:aws-us-gov:iam::123456789012:root"},
            ("arn:aws-us-gov:iam::123456789012:root", "root"),
        ),
        (
            {"type": "AWSService", "invoked_by": "cloudtrail.amazonaws.com"},
            ("cloudtrail.amazonaws.com", "service"),
        ),
        (
            {"account_id": "123456789012", "invoked_by": "secretsmanager.amazonaws.com"},
            ("secretsmanager.amazonaws.com", "service"),
        ),
        (
            {"type": "FederatedUser", "arn": "arn:aws:sts::1:federated-user/ana.garcia"},
            ("arn:aws:sts::1:federated-user/ana.garcia", "person"),
        ),
        (
            {"type": "FederatedUser", "arn": "arn:aws:sts::1:federated-user/tool"},
            ("arn:aws:sts::1:federated-user/tool", "user"),
        ),
        (
            {
                "type": "FederatedUser",
                "arn": "arn:aws:sts::1:federated-user/1709285400",
                "issuer_arn": "arn:aws:iam::1:user/broker",
            },
            ("arn:aws:iam::1:user/broker", "user"),
        ),
        (
            {"type": "SAMLUser", "identity_provider": "h4sh=", "user_name": "ana"},
            ("h4sh=/ana", "person"),
        ),
        (
            {
                "type": "WebIdentityUser",
                "identity_provider": "token.example",
                "user_name": "repo:org/app:ref:refs/heads/main",
            },
            ("token.example/repo:org/app", "service"),
        ),
        (
            {
                "type": "WebIdentityUser",
                "identity_provider": "oidc",
                "user_name": "system:serviceaccount:ns:sa",
            },
            ("oidc/system:serviceaccount:ns:sa", "service"),
        ),
        (
            {"type": "WebIdentityUser", "identity_provider": "g", "user_name": "a@b.c"},
            ("g/a@b.c", "person"),
        ),
        (
            {"type": "IdentityCenterUser", "on_behalf_of": "e0b4f9c0"},
            ("arn:aws:identitystore:::user/e0b4f9c0", "person"),
        ),
        ({"type": "Directory", "user_name": "ana"}, ("ana", "user")),
        (
            {"type": "AWSAccount", "account_id": "123456789012", "principal_id": "AIDA"},
            ("123456789012", "account"),
        ),
        (
            {"type": "AWSAccount", "account_id": "ANONYMOUS_PRINCIPAL", "principal_id": ""},
            ("anonymous", "anonymous"),
        ),
        ({"type": "AWSAccount", "account_id": "anonymous"}, ("anonymous", "anonymous")),
        ({"type": "Unknown", "user_name": "who"}, ("who", "unknown")),
        ({"type": "New", "arn": "arn:aws:new::1:thing/x"}, ("arn:aws:new::1:thing/x", "unknown")),
        (
            {"type": "New", "arn": "arn:aws:sts::1:assumed-role/R/s"},
            ("arn:aws:iam::1:role/R", "role"),
        ),
        (
            {"event_source": "organizations.amazonaws.com", "event_type": "AwsServiceEvent"},
            ("organizations.amazonaws.com", "service"),
        ),
        ({"event_source": "signin.amazonaws.com"}, ("unknown", "unknown")),
        ({}, ("unknown", "unknown")),
    ],
)
def test_each_kind_of_identity(facts: dict[str, str], expected: tuple[str, str]) -> None:
    assert decide(**facts) == expected


def test_role_that_aws_uses_itself_is_a_service() -> None:
    role = "arn:aws:iam::123456789012:role/aws-service-role/config.amazonaws.com/AWSServiceRoleForConfig"
    assert session("AWSConfig-Describe", role) == (role, "service")


@given(st.builds(IdentityFacts, **{f: st.none() | st.text() for f in IdentityFacts._fields}))
def test_any_identity_has_a_principal(facts: IdentityFacts) -> None:
    principal, kind, actor = RULES.decide(facts._replace(partition=facts.partition or "aws"))
    assert principal and actor
    assert kind in KINDS


def test_rules_travel_to_workers() -> None:
    copy = pickle.loads(pickle.dumps(RULES))
    facts = IdentityFacts(type="Root", account_id="123456789012")
    assert copy.decide(facts) == RULES.decide(facts)
    assert copy.rules == RULES.rules


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"kid": "user"}, "unknown kid"),
        ({"kind": "alien"}, "kind 'alien'"),
        ({"kind": None}, "needs a text under `kind`"),
        ({"when": {"colour": "red"}}, "unknown colour"),
        ({"when": {"type": "("}}, "not a regular expression"),
        ({"when": {"type": 5}}, "not a text"),
        ({"when": {"type": "<nope>"}}, "not among `patterns`"),
        ({"when": {"not": {"colour": "red"}}}, "unknown colour"),
        ({"when": []}, None),
        ({"when": ["x"]}, "must map"),
        ({"principal": "{colour}"}, "unknown colour"),
        ("text", "must be a mapping"),
    ],
)
def test_a_wrong_rule_is_refused_by_file_and_name(tmp_path: Path, rule: object, message: str | None) -> None:
    path = tmp_path / "principals.yml"
    good = {"name": "mine", "principal": "{arn}", "kind": "user"}
    path.write_text(yaml.safe_dump({"rules": [good | rule if isinstance(rule, dict) else rule]}))
    if message is None:
        assert load_rules(path).rules
        return
    with pytest.raises(UsageError) as raised:
        load_rules(path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
    assert "rule 1" in str(raised.value)


@pytest.mark.parametrize("text", ["", "rules: 5", "[", "rules: []\nruels: []", "a: b"])
def test_a_wrong_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "principals.yml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"principals\.yml"):
        load_rules(path)
    with pytest.raises(UsageError, match=r"nowhere\.yml"):
        load_rules(tmp_path / "nowhere.yml")


def actor(**facts: str | None) -> str:
    return RULES.decide(IdentityFacts(**facts)).actor


@pytest.mark.parametrize(
    "facts",
    [
        {"type": "AssumedRole", "arn": ROLE, "session_name": "Ana.Garcia@example.com"},
        {"type": "AssumedRole", "issuer_arn": ROLE + "2", "session_name": "ana.garcia"},
        {"type": "AssumedRole", "arn": ROLE, "session_name": "botocore-session-17",
         "source_identity": "ana.garcia"},
        {"type": "IAMUser", "account_id": "123456789012", "user_name": "ana.garcia"},
        {"type": "SAMLUser", "identity_provider": "idp", "user_name": "ana.garcia@example.com"},
    ],
)  # fmt: skip
def test_all_identities_of_a_person_have_one_actor(facts: dict[str, str]) -> None:
    assert actor(**facts) == "ana.garcia"


@pytest.mark.parametrize("name", ["botocore-session-1709285400", "i-0123456789abcdef0", "1709285400"])
def test_a_name_made_up_for_one_session_leaves_the_role_as_actor(name: str) -> None:
    assert actor(type="AssumedRole", issuer_arn=ROLE, session_name=name) == ROLE


def test_a_program_under_a_lasting_name_is_an_actor_of_its_own() -> None:
    assert actor(type="AssumedRole", issuer_arn=ROLE, session_name="invoice-worker") == "invoice-worker"


def test_a_user_without_a_persons_name_is_its_own_actor() -> None:
    arn = "arn:aws:iam::123456789012:user/deploy"
    assert actor(type="IAMUser", arn=arn, account_id="123456789012", user_name="deploy") == arn
