from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raretrail.cloudtrail.errors_text import MAX_LENGTH, error_template


@pytest.mark.parametrize(
    ("message", "template"),
    [
        ("Rate exceeded", "Rate exceeded"),
        (
            "User: arn:aws:iam::123456789012:user/bo is not authorized to perform: s3:GetObject on "
            "resource: arn:aws:s3:::a-bucket/key because no identity-based policy allows it",
            "User: <arn> is not authorized to perform: s3:GetObject on "
            "resource: <arn> because no identity-based policy allows it",
        ),
        (
            "User: arn:aws-cn:sts::123456789012:assumed-role/A/b is not authorized to perform: "
            "iam:GetUser on resource: user bo because no policy",
            "User: <arn> is not authorized to perform: "
            "iam:GetUser on resource: user <name> because no policy",
        ),
        (
            "You are not authorized to perform this operation. Encoded authorization failure "
            "message: fqhg8CzmasrUP43_LGsSmLVAAoKKY1CzQD3yqWpWiuZGO-cVf2lhbhrrgsH8zy44",
            "You are not authorized to perform this operation. Encoded authorization failure "
            "message: <encoded>",
        ),
        ("The vpc ID 'vpc-0ed5e6124f33c9db3' does not exist", "The vpc ID <quoted> does not exist"),
        ("Instance i-0ed5e6124f33c9db3 is gone.", "Instance <id> is gone."),
        ("Unknown trail for the user: 123837392027", "Unknown trail for the user: <id>"),
        ("limit of 32 vCPUs, now 1,024.5", "limit of <n> vCPUs, now <n>"),
        ("The user with name Bo-1 cannot be found.", "The user with name <name> cannot be found."),
        ("You don't have it. Don't ask.", "You don't have it. Don't ask."),
        ("from 10.0.0.1 to 10.0.0.0/8", "from <ip> to <ip>"),
        ("mail bo@example.com at 2024-03-01T09:30:00Z", "mail <email> at <time>"),
        ("request 0b3e7c1e-5a1b-4c2d-8e3f-000000000000 failed", "request <id> failed"),
        ("key AKIAIOSFODNN7EXAMPLE is inactive", "key <id> is inactive"),
        ("see https://aws.amazon.com/support?x=1.", "see <url>."),
        ("Use s3:ListBucket or ec2:RunInstances", "Use s3:ListBucket or ec2:RunInstances"),
        ("  two\n\n lines ", "two lines"),
        ("", ""),
    ],
)
def test_templates(message: str, template: str) -> None:
    assert error_template(message) == template


@given(st.text())
def test_any_message_has_a_bounded_template(message: str) -> None:
    assert len(error_template(message)) <= MAX_LENGTH


_word = st.text(string.ascii_letters, min_size=1, max_size=20)


@given(_word, st.from_regex(r"[0-9]{12}", fullmatch=True), st.uuids(), _word)
def test_who_and_what_for_do_not_matter(user: str, account: str, uuid: object, key: str) -> None:
    message = (
        f"User: arn:aws:iam::{account}:user/{user} is not authorized to perform: s3:PutObject on "
        f"resource: arn:aws:s3:::{key}/{uuid}"
    )
    assert error_template(message) == (
        "User: <arn> is not authorized to perform: s3:PutObject on resource: <arn>"
    )
