"""What kind of client made a call: the family of a user agent.

A family is `<product>/<major version> (<operating system>)`, as far as the text says: `aws-cli/2
(Linux)`, `Terraform/1 (Linux)`, `Boto3/1 (macOS)`. Browsers that update themselves carry no
version (`Chrome (Windows)`): a monthly update is not a new way of working. Services and the
console keep their names (`signin.amazonaws.com`, `AWS Internal`, `S3Console/0`).
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_LENGTH = 64

_VERSION = r"[/ ]v?(?P<version>\d+)?"
# The first that occurs anywhere in the text names the product: tools before the SDKs they use.
_PRODUCTS = [
    (re.compile(pattern + _VERSION, re.IGNORECASE), name)
    for pattern, name in (
        (r"\bOpenTofu", "OpenTofu"),
        (r"\bTerraform", "Terraform"),
        (r"\bPulumi", "Pulumi"),
        (r"\bAnsible\b\S*?", "Ansible"),
        (r"\bPacker", "Packer"),
        (r"\baws-cdk", "aws-cdk"),
        (r"\bServerless", "Serverless"),
        (r"\beksctl", "eksctl"),
        (r"\bkarpenter(?:\.sh)?", "Karpenter"),
        (r"\bPacu", "Pacu"),
        (r"\bScout ?Suite", "ScoutSuite"),
        (r"\bProwler", "Prowler"),
        (r"\bS3 Browser", "S3 Browser"),
        (r"\bCyberduck", "Cyberduck"),
        (r"\brclone", "rclone"),
        (r"\bs3cmd", "s3cmd"),
        (r"\baws-cli", "aws-cli"),
        (r"\bAWSPowerShell(?:\.\w+)*", "AWSPowerShell"),
        (r"\bamazon-ssm-agent", "amazon-ssm-agent"),
        (r"\bBoto3", "Boto3"),
    )
]
_BROWSERS = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\bHeadlessChrome/", "HeadlessChrome"),
        (r"\bEdg(?:e|A|iOS)?/", "Edge"),
        (r"\b(?:OPR|Opera)[/ ]", "Opera"),
        (r"\b(?:Firefox|FxiOS)/", "Firefox"),
        (r"\b(?:Chrome|CriOS|Chromium)/", "Chrome"),
        (r"\bVersion/[\d.]+ .*Safari/", "Safari"),
        (r"\bMSIE |\bTrident/", "Internet Explorer"),
    )
]
_SYSTEMS = [
    (re.compile(pattern, re.IGNORECASE), name)
    for pattern, name in (
        (r"\bandroid\b", "Android"),
        (r"\biphone\b|\bipad\b|\bios/", "iOS"),
        (r"\bcros\b", "ChromeOS"),
        (r"\bwindows\b|\bwin(?:32|64)\b", "Windows"),
        (r"\bmacos\b|\bmac os\b|\bmacintosh\b|\bdarwin\b|\bmac_os", "macOS"),
        (r"\blinux\b|\bx11\b", "Linux"),
        (r"\bfreebsd\b", "FreeBSD"),
    )
]
_SERVICE = re.compile(r"(?:[a-z0-9-]+\.)+amazonaws\.com(?:\.cn)?|aws[ .-]internal(?:/\d+)?", re.IGNORECASE)
# A console's page in front of the SDK that serves it: "S3Console/0.4, aws-internal/3 aws-sdk-…".
_CONSOLE_PAGE = re.compile(r"(?P<page>[^,;()]{1,40}), aws-internal/")
_PRODUCT = re.compile(r"(?P<name>[^\s/(;,]+)(?:[/ ]v?(?P<version>\d+)[\w.+-]*)?")
_RANDOM = re.compile(
    r"[-_./:]?(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|(?=[a-z]*\d)[0-9a-f]{8,}|\d{5,})",
    re.IGNORECASE,
)


@lru_cache(maxsize=16384)
def agent_family(user_agent: str) -> str:
    """The family of a user agent (at most `MAX_LENGTH` characters); `unnamed` if it names none."""
    text = user_agent[:512].strip().strip('[]"').strip()
    if _SERVICE.fullmatch(text):
        return _bounded(text)
    page = _CONSOLE_PAGE.match(text)
    if page:
        return _bounded(_named(page["page"]))
    system = next((name for pattern, name in _SYSTEMS if pattern.search(text)), None)
    return _bounded(f"{_product(text)} ({system})" if system else _product(text))


def _product(text: str) -> str:
    for pattern, name in _PRODUCTS:
        found = pattern.search(text)
        if found:
            return f"{name}/{found['version']}" if found["version"] else name
    if text.startswith(("Mozilla/", "Opera/")):
        return next((name for pattern, name in _BROWSERS if pattern.search(text)), "Mozilla")
    return _named(text)


def _named(text: str) -> str:
    # Without what changes from run to run: a session's uuid, a process id, a build's hash.
    text = _RANDOM.sub("", text).strip(" -_./:")
    found = _PRODUCT.match(text)
    if not found:
        return text or "unnamed"
    if found["version"]:
        return f"{found['name']}/{found['version']}"
    # A text of words rather than products (`RDS Console`) keeps its words.
    return re.sub(r"\s+", " ", text) if "/" not in text else found["name"]


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…"
