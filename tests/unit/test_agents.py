from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raretrail.cloudtrail.agents import MAX_LENGTH, agent_family

_TERRAFORM = (
    "APN/1.0 HashiCorp/1.0 Terraform/1.1.2 (+https://www.terraform.io) terraform-provider-aws/3.7"
    " (+https://registry.terraform.io/providers/hashicorp/aws) aws-sdk-go/1.44.157 "
    "(go1.19.3; linux; amd64) stratus-red-team_11a6ef34-e130-4579-a1d3-79c915cee6ec"
)
_MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("agent", "family"),
    [
        ("aws-cli/2.13.5 Python/3.11.4 Linux/4.14.255 exe/x86_64.amzn.2", "aws-cli/2 (Linux)"),
        (
            "aws-cli/2.32.3 md/awscrt#0.28.4 ua/2.1 os/macos#22.6.0 md/arch#arm64 lang/python#3.13",
            "aws-cli/2 (macOS)",
        ),
        ("aws-cli/1.15.42 Python/3.6.1 Darwin/17.7.0 botocore/1.10.42", "aws-cli/1 (macOS)"),
        ("aws-cli/2.1 Python/3.8 Windows/10 exe/AMD64", "aws-cli/2 (Windows)"),
        ("aws-cli/2.13.5", "aws-cli/2"),
        ("[Boto3/1.26.165 Python/3.10.6 Linux/5.19 Botocore/1.29.165]", "Boto3/1 (Linux)"),
        (_TERRAFORM, "Terraform/1 (Linux)"),
        (f"[{_TERRAFORM}]", "Terraform/1 (Linux)"),
        ("aws-sdk-go-v2/1.17.0 os/linux lang/go/1.18.10 api/sts/1.16", "aws-sdk-go-v2/1 (Linux)"),
        ("aws-sdk-java/2.20.0", "aws-sdk-java/2"),
        (f"{_MAC} Chrome/143.0.0.0 Safari/537.36", "Chrome (macOS)"),
        (f"{_MAC} Chrome/126.0.0.0 Safari/537.36", "Chrome (macOS)"),
        (f"{_MAC} Chrome/126.0.0.0 Safari/537.36 Edg/126.0", "Edge (macOS)"),
        (f"{_MAC} Version/17.4 Safari/605.1.15", "Safari (macOS)"),
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/114.0",
            "Firefox (Linux)",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Version/17.0 Safari/6",
            "Safari (iOS)",
        ),
        ("Mozilla/5.0 (Windows NT 10.0; Trident/7.0; rv:11.0)", "Internet Explorer (Windows)"),
        ("signin.amazonaws.com", "signin.amazonaws.com"),
        ("console.ec2.amazonaws.com", "console.ec2.amazonaws.com"),
        ("s3.amazonaws.com.cn", "s3.amazonaws.com.cn"),
        ("AWS Internal", "AWS Internal"),
        (
            "[S3Console/0.4, aws-internal/3 aws-sdk-java/1.12.488 Linux/5.4.247 OpenJDK]",
            "S3Console/0",
        ),
        ("RDS Console, aws-internal/3 aws-sdk-java/1.11.975 Linux/5.10", "RDS Console"),
        ("stratus-red-team_c763d13b-d099-488a-bb3e-f57cb2fed240", "stratus-red-team"),
        ("MyTool/3.1-build.20240301", "MyTool/3"),
        ("worker-8412345", "worker"),
        ("ec2-api-tools 1.6.12.2", "ec2-api-tools/1"),
        ("python-requests/2.28.0", "python-requests/2"),
        ("amazon-ssm-agent/", "amazon-ssm-agent"),
        ("", "unnamed"),
        ("68319f60-9dec-43b2-9702-de3a08c9d8a3", "unnamed"),
        ('["aws-cli/2.1","x"]', "aws-cli/2"),
    ],
)
def test_families(agent: str, family: str) -> None:
    assert agent_family(agent) == family


@given(st.text())
def test_any_text_has_a_short_family(agent: str) -> None:
    assert 0 < len(agent_family(agent)) <= MAX_LENGTH


@given(st.uuids(), st.integers(10_000, 10**12))
def test_what_changes_from_run_to_run_does_not_change_the_family(uuid: object, pid: int) -> None:
    assert agent_family(f"tool-{uuid}/1.{pid}") == agent_family("tool/1")
