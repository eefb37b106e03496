"""The templates that set a trail up: formatted, parsed, linted, and saying the same in both languages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml

from policies import canonical, statements

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
TERRAFORM = sorted((DEPLOY / "terraform").glob("*.tf"))
CLOUDFORMATION = sorted((DEPLOY / "cloudformation").glob("*.yaml"))


def terraform() -> dict[str, list[Any]]:
    """All files as one: block type to its blocks."""
    merged: dict[str, list[Any]] = {}
    for path in TERRAFORM:
        with path.open() as file:
            for kind, blocks in hcl2.load(file).items():
                merged.setdefault(kind, []).extend(blocks)
    return merged


def names(kind: str) -> set[str]:
    """What blocks of a kind are called: `name`, or `type.name`."""
    found = set()
    for block in terraform()[kind]:
        for first, rest in block.items():
            first = first.strip('"')
            if kind in ("resource", "data"):
                found |= {f"{first}.{second.strip(chr(34))}" for second in rest if second.startswith('"')}
            else:
                found.add(first)
    return found


def test_terraform_refers_only_to_what_is_declared_and_uses_all_variables() -> None:
    text = "\n".join(path.read_text() for path in TERRAFORM)
    assert set(re.findall(r"\bvar\.(\w+)", text)) == names("variable")
    assert set(re.findall(r"\bdata\.(\w+\.\w+)", text)) == names("data")
    used = set(re.findall(r"(?<![\w.\"])(aws_\w+\.\w+)\.\w+", text))
    used |= {f"aws_{rest}" for rest in re.findall(r"[\[ ]aws_(\w+\.\w+)[,\]]", text)}
    assert used <= names("resource")
    declared = {key for block in terraform()["locals"] for key in block if not key.startswith("__")}
    assert set(re.findall(r"\blocal\.(\w+)", text)) == declared


def test_every_terraform_resource_says_which_account_it_is_of() -> None:
    for block in terraform()["resource"]:
        for kind, named in block.items():
            for body in named.values():
                if isinstance(body, dict):
                    assert body["provider"] in ("${aws.management}", "${aws.archive}"), kind


@pytest.mark.skipif(not shutil.which("terraform"), reason="no terraform here")
def test_terraform_is_formatted() -> None:
    done = subprocess.run(
        ["terraform", "fmt", "-check", "-diff", str(DEPLOY / "terraform")],
        capture_output=True, text=True, check=False, env={**os.environ, "TF_CLI_CONFIG_FILE": os.devnull},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


def test_cfn_lint_has_nothing_to_say() -> None:
    program = Path(sys.executable).parent / "cfn-lint"
    command = [str(program), *map(str, CLOUDFORMATION)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


# ------------------------------------------------------------------------------- the same in both


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation, whose functions are tags: a function becomes what it is given."""


# What functions refer to; a scalar that names one of these becomes it.
VALUES = {
    "Bucket": "trail", "Bucket.Arn": "arn:aws:s3:::trail",
    "Key.Arn": "arn:aws:kms:eu-west-1:222233334444:key/k",
    "OrganizationId": "o-abc123defg", "AWS::Region": "eu-west-1", "AWS::Partition": "aws",
    "WarehouseBucketArn": "arn:aws:s3:::security", "WarehousePrefix": "deep/raretrail",
    "ReaderRoleArn": "arn:aws:iam::222233334444:role/raretrail-reader",
}  # fmt: skip


def _given(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        text = str(loader.construct_scalar(node))
        if suffix == "Sub":
            return re.sub(r"\$\{([\w:.]+)\}", lambda found: VALUES.get(found[1], found[0]), text)
        return VALUES.get(text, text)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


_Loader.add_multi_constructor("!", _given)

READER_VALUES = {
    "trail_bucket_arn": VALUES["Bucket.Arn"], "trail_key_arn": VALUES["Key.Arn"],
    "organization_id": VALUES["OrganizationId"], "region": VALUES["AWS::Region"],
}  # fmt: skip
WRITER_VALUES = {
    "warehouse_bucket_arn": VALUES["WarehouseBucketArn"], "warehouse_prefix": VALUES["WarehousePrefix"],
    "reader_role_arn": VALUES["ReaderRoleArn"],
}  # fmt: skip
READER = statements("trail-reader", **READER_VALUES)
WRITER = statements("warehouse-writer", **WRITER_VALUES)


def cloudformation(name: str) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.load((DEPLOY / "cloudformation" / name).read_text(), _Loader)
    return tree


Statements = dict[str, tuple[str, frozenset[str], frozenset[str]]]


def terraform_statements(document: str) -> Statements:
    """Sid → (effect, actions, variables its conditions look at) of a policy document."""
    for block in terraform()["data"]:
        body = block.get('"aws_iam_policy_document"', {}).get(f'"{document}"')
        if body:
            return {
                one["sid"].strip('"'): (
                    one.get("effect", "Allow").strip('"'),
                    frozenset(action.strip('"') for action in one["actions"]),
                    frozenset(c["variable"].strip('"') for c in one.get("condition", ())),
                )
                for one in body["statement"]
            }
    raise AssertionError(document)


def cloudformation_statements(policy: dict[str, Any]) -> Statements:
    found: Statements = {}
    for one in policy["Statement"]:
        actions = one["Action"] if isinstance(one["Action"], list) else [one["Action"]]
        conditions = [key for test in one.get("Condition", {}).values() for key in test]
        found[one["Sid"]] = (one["Effect"], frozenset(actions), frozenset(conditions))
    return found


def test_policies_are_the_same_in_both_languages() -> None:
    archive = cloudformation("archive.yaml")["Resources"]
    bucket = archive["BucketPolicy"]["Properties"]["PolicyDocument"]
    assert cloudformation_statements(bucket) == terraform_statements("bucket")
    assert cloudformation_statements(archive["Key"]["Properties"]["KeyPolicy"]) == terraform_statements("key")


def test_cloudformation_says_what_the_policies_say() -> None:
    roles = cloudformation("archive.yaml")["Resources"]["Reader"]["Properties"]
    writer = cloudformation("warehouse-writer.yaml")["Resources"]["Writer"]["Properties"]
    for document, wanted in (
        (roles["Policies"][0]["PolicyDocument"], READER),
        (writer["PolicyDocument"], WRITER),
    ):
        found = {one["Sid"]: canonical(one) for one in document["Statement"]}
        assert found == {sid: canonical(one) for sid, one in wanted.items()}


def test_terraform_fills_the_policies_in() -> None:
    """Every value a policy has is given, and no other: templatefile would fail, but only once applied."""
    text = "\n".join(path.read_text() for path in TERRAFORM)
    for name, values in (("trail-reader", READER_VALUES), ("warehouse-writer", WRITER_VALUES)):
        call = re.search(rf'policies/{name}\.json",\s*\{{(.*?)\}}', text, re.DOTALL)
        assert call
        assert set(re.findall(r"^\s*(\w+)\s*=", call[1], re.MULTILINE)) == set(values)


def test_the_reader_can_change_nothing_and_the_writer_owns_nothing_but_its_folder() -> None:
    assert {action for one in READER.values() for action in one["Action"]} == {
        "s3:ListBucket", "s3:GetObject", "kms:Decrypt",
    }  # fmt: skip
    for one in WRITER.values():
        assert not any("*" in action for action in one["Action"])
        assert one["Resource"] != ["*"]
    assert WRITER["WriteWarehouse"]["Resource"] == ["arn:aws:s3:::security/deep/raretrail/*"]
    assert WRITER["ListWarehouse"]["Condition"]["StringLike"]["s3:prefix"] == [
        "deep/raretrail", "deep/raretrail/*",
    ]  # fmt: skip


def test_the_trail_is_of_the_whole_organisation_in_both() -> None:
    trail = cloudformation("trail.yaml")["Resources"]["Trail"]["Properties"]
    text = (DEPLOY / "terraform" / "trail.tf").read_text()
    for cfn, tf in (
        ("IsOrganizationTrail", "is_organization_trail"),
        ("IsMultiRegionTrail", "is_multi_region_trail"),
        ("IncludeGlobalServiceEvents", "include_global_service_events"),
        ("EnableLogFileValidation", "enable_log_file_validation"),
    ):
        assert trail[cfn] is True
        assert re.search(rf"{tf}\s*= true", text)


def test_old_log_files_stay_readable_at_once() -> None:
    """Files that must be restored first could not be read when history is played."""
    archive = cloudformation("archive.yaml")["Resources"]["Bucket"]["Properties"]
    rule = archive["LifecycleConfiguration"]["Rules"][0]
    assert {one["StorageClass"] for one in rule["Transitions"]} == {"GLACIER_IR"}
    text = (DEPLOY / "terraform" / "bucket.tf").read_text()
    assert set(re.findall(r'storage_class\s*= "(\w+)"', text)) == {"GLACIER_IR"}


def test_what_the_bucket_is_given_is_a_trail_raretrail_reads() -> None:
    from raretrail.cloudtrail.layout import describe

    file = "111122223333_CloudTrail_eu-west-1_20260201T1155Z_abcdefghijklmnop.json.gz"
    prefix = f"s3a://bucket/AWSLogs/o-abc123defg/111122223333/CloudTrail/eu-west-1/2026/02/01/{file}"
    facts = describe(prefix)
    assert (facts.kind, facts.account, facts.region) == ("log", "111122223333", "eu-west-1")
    tower = prefix.replace("bucket/", "bucket/o-abc123defg/")
    assert describe(tower) == facts, "Control Tower puts the organisation before AWSLogs too"
