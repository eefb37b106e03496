"""The commands the organisation runs: what each one's record holds, and who uses which.

Add a command with one line in `_declare`; add a job with one entry in `JOBS`. A `$name` inside
parameters is filled per call from the account's own resources (see organisation.Account.value).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(r"\$([a-z_0-9]+)")


@dataclass(frozen=True)
class Template:
    """JSON text with `$name` holes, and the names in order of appearance."""

    text: str
    names: tuple[str, ...]

    def fill(self, values: dict[str, str]) -> str:
        """The text with its holes filled; values need no JSON escaping."""
        if not self.names:
            return self.text
        return _TOKEN.sub(lambda m: values[m.group(1)], self.text)


def template(value: Any) -> Template | None:
    """Compile parameters; None stays None, which CloudTrail writes as null."""
    if value is None:
        return None
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Template(text, tuple(dict.fromkeys(_TOKEN.findall(text))))


@dataclass(frozen=True)
class Command:
    """One API action as CloudTrail logs it."""

    service: str
    name: str
    read_only: bool
    data: bool
    is_global: bool
    request: Template | None
    response: Template | None
    resources: Template | None

    @property
    def key(self) -> str:
        """`iam:CreateUser`."""
        return f"{self.service}:{self.name}"

    @property
    def source(self) -> str:
        """eventSource."""
        return f"{self.service}.amazonaws.com"


COMMANDS: dict[str, Command] = {}

# IAM and its like answer from us-east-1 only, and are logged there.
_GLOBAL = {"iam", "organizations", "route53", "cloudfront", "support", "ce", "sso"}


def _add(
    flags: str,
    key: str,
    request: Any = None,
    response: Any = None,
    resources: tuple[str, str] | None = None,
) -> None:
    service, name = key.split(":")
    held = None
    if resources:
        held = [{"accountId": "$account", "type": resources[0], "ARN": resources[1]}]
    COMMANDS[key] = Command(
        service, name, "r" in flags, "d" in flags, service in _GLOBAL, template(request),
        template(response), template(held),
    )  # fmt: skip


def _reads(service: str, *names: str, **request: Any) -> None:
    for name in names:
        _add("r", f"{service}:{name}", request or None)


def _bucket(**more: Any) -> dict[str, Any]:
    return {"bucketName": "$bucket", "Host": "$bucket.s3.$region.amazonaws.com", **more}


def _declare() -> None:
    bucket = ("AWS::S3::Bucket", "arn:aws:s3:::$bucket")
    thing = ("AWS::S3::Object", "arn:aws:s3:::$bucket/$object")
    key = ("AWS::KMS::Key", "arn:aws:kms:$region:$account:key/$kms")
    table = ("AWS::DynamoDB::Table", "arn:aws:dynamodb:$region:$account:table/$table")
    one = {"instancesSet": {"items": [{"instanceId": "$instance"}]}}

    _add("r", "sts:GetCallerIdentity")
    _add("r", "sts:GetSessionToken", {"durationSeconds": 43200})
    _add("r", "sts:DecodeAuthorizationMessage", {"encodedMessage": "$hex"})
    _add("r", "sts:GetFederationToken", {"name": "$session", "durationSeconds": 3600})
    _add("r", "sts:GetAccessKeyInfo", {"accessKeyId": "$some_key"})

    _add("r", "ec2:DescribeInstances", {"instancesSet": {}, "filterSet": {}})
    _add("r", "ec2:DescribeInstanceStatus", {**one, "filterSet": {}, "includeAllInstances": False})
    _add("r", "ec2:DescribeVolumes", {"volumeSet": {}, "filterSet": {}})
    _add("r", "ec2:DescribeImages", {"imagesSet": {}, "ownersSet": {"items": [{"owner": "self"}]}})
    _add("r", "ec2:DescribeSecurityGroups", {"securityGroupSet": {}, "filterSet": {}})
    _add("r", "ec2:DescribeSubnets", {"subnetSet": {}, "filterSet": {}})
    _add("r", "ec2:DescribeVpcs", {"vpcSet": {}, "filterSet": {}})
    _add("r", "ec2:DescribeAddresses", {"publicIpsSet": {}, "allocationIdsSet": {}})
    _add("r", "ec2:DescribeRegions", {"regionSet": {}, "allRegions": True})
    _add("r", "ec2:DescribeTags", {"maxResults": 1000, "filterSet": {}})
    _add("r", "ec2:DescribeInstanceAttribute", {"instanceId": "$instance", "attribute": "userData"})
    _add("r", "ec2:DescribeInstanceTypes", {"maxResults": 100})
    _reads(
        "ec2", "DescribeSnapshots", "DescribeKeyPairs", "DescribeNetworkInterfaces",
        "DescribeRouteTables", "DescribeNatGateways", "DescribeVpcEndpoints",
        "DescribeInternetGateways", "DescribeNetworkAcls", "DescribeAvailabilityZones",
        "DescribeLaunchTemplates", "DescribeVpcPeeringConnections", "DescribeFlowLogs",
        "DescribeSpotPriceHistory", "DescribeAccountAttributes", "DescribeTransitGateways",
        "DescribeDhcpOptions", "DescribeCustomerGateways", "DescribeVpnConnections",
        filterSet={},
    )  # fmt: skip
    _add("r", "ec2:GetConsoleOutput", {"instanceId": "$instance"})
    _add("r", "ec2:GetConsoleScreenshot", {"instanceId": "$instance"})
    _add("r", "ec2:GetPasswordData", {"instanceId": "$instance"})
    _add(
        "r",
        "ec2:GetLaunchTemplateData",
        {"GetLaunchTemplateDataRequest": {"InstanceId": "$instance"}},
    )
    launched = {
        "instanceId": "$new_instance", "imageId": "$image", "instanceType": "t3.medium",
        "instanceState": {"code": 0, "name": "pending"}, "subnetId": "$subnet", "vpcId": "$vpc",
        "privateIpAddress": "$private_ip", "launchTime": "$epoch_ms",
    }  # fmt: skip
    _add(
        "w", "ec2:RunInstances",
        {
            "instancesSet": {"items": [{"imageId": "$image", "minCount": 1, "maxCount": 1}]},
            "instanceType": "t3.medium", "subnetId": "$subnet", "clientToken": "$uuid",
            "iamInstanceProfile": {"name": "$instance_role"}, "monitoring": {"enabled": False},
        },
        {
            "requestId": "$uuid", "reservationId": "r-$hex17", "ownerId": "$account",
            "groupSet": {}, "instancesSet": {"items": [launched]},
        },
    )  # fmt: skip
    for verb, code, state in (
        ("Start", 0, "pending"), ("Stop", 64, "stopping"), ("Terminate", 32, "shutting-down"),
    ):  # fmt: skip
        _add(
            "w", f"ec2:{verb}Instances", one,
            {"requestId": "$uuid", "instancesSet": {"items": [
                {"instanceId": "$instance", "currentState": {"code": code, "name": state},
                 "previousState": {"code": 16, "name": "running"}}]}},
        )  # fmt: skip
    _add("w", "ec2:RebootInstances", one, {"requestId": "$uuid", "_return": True})
    _add(
        "w", "ec2:AllocateAddress", {"domain": "vpc"},
        {"requestId": "$uuid", "publicIp": "$elastic_ip", "allocationId": "eipalloc-$hex17",
         "domain": "vpc", "publicIpv4Pool": "amazon"},
    )  # fmt: skip
    _add(
        "w",
        "ec2:AssociateAddress",
        {"instanceId": "$instance", "allocationId": "eipalloc-$hex17", "publicIp": "$elastic_ip"},
        {"requestId": "$uuid", "_return": True, "associationId": "eipassoc-$hex17"},
    )
    _add("w", "ec2:ReleaseAddress", {"allocationId": "eipalloc-$hex17"}, {"_return": True})
    opened = {"items": [{"ipProtocol": "tcp", "fromPort": 443, "toPort": 443,
                         "ipRanges": {"items": [{"cidrIp": "$private_ip/32"}]}}]}  # fmt: skip
    for verb in ("Authorize", "Revoke"):
        _add(
            "w", f"ec2:{verb}SecurityGroupIngress",
            {"groupId": "$security_group", "ipPermissions": opened}, {"_return": True},
        )  # fmt: skip
    _add("w", "ec2:CreateTags", {"resourcesSet": {"items": [{"resourceId": "$instance"}]},
         "tagSet": {"items": [{"key": "team", "value": "$word"}]}}, {"_return": True})  # fmt: skip
    _add("w", "ec2:DeleteTags", {"resourcesSet": {"items": [{"resourceId": "$instance"}]}},
         {"_return": True})  # fmt: skip
    _add("w", "ec2:CreateSecurityGroup", {"groupName": "$word", "vpcId": "$vpc"},
         {"requestId": "$uuid", "groupId": "sg-$hex17"})  # fmt: skip
    _add("w", "ec2:DeleteSecurityGroup", {"groupId": "$security_group"}, {"_return": True})
    _add("w", "ec2:CreateSnapshot", {"volumeId": "$volume"}, {"snapshotId": "snap-$hex17"})
    _add("w", "ec2:DeleteSnapshot", {"snapshotId": "$snapshot"}, {"_return": True})
    _add("w", "ec2:ModifySnapshotAttribute", {"snapshotId": "$snapshot",
         "createVolumePermission": {"add": {"items": [{"userId": "$foreign_account"}]}},
         "attributeType": "CREATE_VOLUME_PERMISSION"}, {"_return": True})  # fmt: skip
    _add("w", "ec2:CreateImage", {"instanceId": "$instance", "name": "$word-$hex"},
         {"imageId": "ami-$hex17"})  # fmt: skip
    _add("w", "ec2:DeregisterImage", {"imageId": "$image"}, {"_return": True})
    _add("w", "ec2:CreateKeyPair", {"keyName": "$word-$hex", "keyType": "rsa"},
         {"keyName": "$word-$hex", "keyPairId": "key-$hex17"})  # fmt: skip
    _add("w", "ec2:ImportKeyPair", {"keyName": "$word-$hex"}, {"keyPairId": "key-$hex17"})
    _add("w", "ec2:CreateVolume", {"size": "100", "zone": "$zone", "volumeType": "gp3"},
         {"volumeId": "vol-$hex17"})  # fmt: skip
    for name in ("AttachVolume", "DetachVolume"):
        _add("w", f"ec2:{name}", {"volumeId": "$volume", "instanceId": "$instance"},
             {"volumeId": "$volume", "status": "busy"})  # fmt: skip
    _add("w", "ec2:DeleteVolume", {"volumeId": "$volume"}, {"_return": True})
    _add(
        "w",
        "ec2:ModifyInstanceAttribute",
        {"instanceId": "$instance", "userData": "<sensitiveDataRemoved>"},
        {"_return": True},
    )
    _add("w", "ec2:AssociateIamInstanceProfile", {"AssociateIamInstanceProfileRequest": {
         "InstanceId": "$instance", "IamInstanceProfile": {"Name": "$instance_role"}}},
         {"requestId": "$uuid"})  # fmt: skip
    _add(
        "w",
        "ec2:DeleteFlowLogs",
        {"DeleteFlowLogsRequest": {"FlowLogId": {"tag": 1, "content": "fl-$hex17"}}},
        {"requestId": "$uuid"},
    )

    _add("r", "s3:ListBuckets", {"Host": "s3.$region.amazonaws.com"})
    _add("rd", "s3:GetObject", _bucket(key="$object"), None, thing)
    _add("rd", "s3:HeadObject", _bucket(key="$object"), None, thing)
    _add("rd", "s3:ListObjects", _bucket(**{"list-type": "2", "prefix": ""}), None, bucket)
    _add(
        "d",
        "s3:PutObject",
        _bucket(key="$object"),
        {"x-amz-server-side-encryption": "AES256"},
        thing,
    )
    _add("d", "s3:DeleteObject", _bucket(key="$object"), None, thing)
    for sub in (
        "Acl",
        "Policy",
        "Location",
        "Versioning",
        "Encryption",
        "Tagging",
        "Logging",
        "Lifecycle",
        "Replication",
        "PublicAccessBlock",
        "PolicyStatus",
        "Website",
    ):
        _add("r", f"s3:GetBucket{sub}", _bucket(**{sub.lower(): ""}), None, bucket)
    _add("r", "s3:GetAccountPublicAccessBlock", {"Host": "$account.s3-control.$region.amazonaws.com"})
    _add("w", "s3:CreateBucket", _bucket(), None, bucket)
    _add("w", "s3:DeleteBucket", _bucket(), None, bucket)
    _add(
        "w",
        "s3:PutBucketPolicy",
        _bucket(
            bucketPolicy={
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"AWS": "arn:aws:iam::$foreign_account:root"},
                        "Action": "s3:GetObject",
                        "Resource": "arn:aws:s3:::$bucket/*",
                    }
                ],
            },
            policy="",
        ),
        None,
        bucket,
    )
    for sub in ("Acl", "Tagging", "Versioning", "Lifecycle", "Encryption", "PublicAccessBlock",
                "Replication", "Logging", "Notification"):  # fmt: skip
        _add("w", f"s3:PutBucket{sub}", _bucket(**{sub.lower(): ""}), None, bucket)
    _add("w", "s3:DeleteBucketPolicy", _bucket(policy=""), None, bucket)

    user = {"userName": "$user"}
    made = {"path": "/", "userName": "$new_user", "userId": "$new_user_id",
            "arn": "arn:aws:iam::$account:user/$new_user", "createDate": "$long_time"}  # fmt: skip
    _reads("iam", "ListUsers", "ListRoles", "ListGroups", "ListAccountAliases", "GetAccountSummary",
           "ListInstanceProfiles", "GetAccountAuthorizationDetails", "ListSAMLProviders",
           "ListOpenIDConnectProviders", "GetAccountPasswordPolicy", "ListVirtualMFADevices",
           "GenerateCredentialReport", "GetCredentialReport", "ListServerCertificates")  # fmt: skip
    _add("r", "iam:ListPolicies", {"scope": "Local", "onlyAttached": False})
    for name in (
        "GetUser",
        "ListAccessKeys",
        "ListAttachedUserPolicies",
        "ListUserPolicies",
        "ListGroupsForUser",
        "ListMFADevices",
        "GetLoginProfile",
        "ListUserTags",
    ):
        _add("r", f"iam:{name}", user)
    _add("r", "iam:GetAccessKeyLastUsed", {"accessKeyId": "$some_key"})
    for name in ("GetRole", "ListRolePolicies", "ListAttachedRolePolicies", "ListRoleTags"):
        _add("r", f"iam:{name}", {"roleName": "$role"})
    for name in ("GetPolicy", "GetPolicyVersion", "ListPolicyVersions", "ListEntitiesForPolicy"):
        _add("r", f"iam:{name}", {"policyArn": "$policy", "versionId": "v1"})
    _add("r", "iam:SimulatePrincipalPolicy", {"policySourceArn": "arn:aws:iam::$account:user/$user"})
    _add("w", "iam:CreateUser", {"userName": "$new_user", "path": "/"}, {"user": made})
    _add("w", "iam:DeleteUser", user)
    _add("w", "iam:CreateAccessKey", user, {"accessKey": {
        "accessKeyId": "$new_key", "status": "Active", "userName": "$user",
        "createDate": "$long_time"}})  # fmt: skip
    _add("w", "iam:UpdateAccessKey", {**user, "accessKeyId": "$some_key", "status": "Inactive"})
    _add("w", "iam:DeleteAccessKey", {**user, "accessKeyId": "$some_key"})
    _add("w", "iam:CreateLoginProfile", {**user, "passwordResetRequired": False},
         {"loginProfile": {"userName": "$user", "createDate": "$long_time"}})  # fmt: skip
    _add("w", "iam:UpdateLoginProfile", user)
    _add("w", "iam:DeleteLoginProfile", user)
    _add("w", "iam:ChangePassword")
    _add("w", "iam:AttachUserPolicy", {**user, "policyArn": "$policy"})
    _add("w", "iam:DetachUserPolicy", {**user, "policyArn": "$policy"})
    _add("w", "iam:PutUserPolicy", {**user, "policyName": "$word", "policyDocument": "{}"})
    _add("w", "iam:AddUserToGroup", {**user, "groupName": "$word"})
    _add(
        "w",
        "iam:CreateRole",
        {"roleName": "$new_role", "assumeRolePolicyDocument": "$trust"},
        {
            "role": {
                "path": "/",
                "roleName": "$new_role",
                "roleId": "$new_role_id",
                "arn": "arn:aws:iam::$account:role/$new_role",
                "createDate": "$long_time",
            }
        },
    )
    _add("w", "iam:DeleteRole", {"roleName": "$role"})
    for name in ("AttachRolePolicy", "DetachRolePolicy"):
        _add("w", f"iam:{name}", {"roleName": "$role", "policyArn": "$policy"})
    _add(
        "w",
        "iam:PutRolePolicy",
        {"roleName": "$role", "policyName": "$word", "policyDocument": "{}"},
    )
    _add("w", "iam:UpdateAssumeRolePolicy", {"roleName": "$role", "policyDocument": "$trust"})
    _add(
        "w",
        "iam:CreatePolicy",
        {"policyName": "$word-$hex", "policyDocument": "{}"},
        {"policy": {"policyName": "$word-$hex", "arn": "arn:aws:iam::$account:policy/$word-$hex"}},
    )
    _add("w", "iam:CreatePolicyVersion", {"policyArn": "$policy", "setAsDefault": True})
    _add("w", "iam:DeactivateMFADevice", {**user, "serialNumber": "arn:aws:iam::$account:mfa/$user"})
    _add("w", "iam:CreateInstanceProfile", {"instanceProfileName": "$word-$hex"})
    _add("w", "iam:TagRole", {"roleName": "$role", "tags": [{"key": "team", "value": "$word"}]})

    secret = {"secretId": "arn:aws:secretsmanager:$region:$account:secret:$secret"}
    _add("r", "secretsmanager:ListSecrets", {"maxResults": 100})
    _add("r", "secretsmanager:GetSecretValue", secret)
    _add("r", "secretsmanager:DescribeSecret", secret)
    _add(
        "r",
        "secretsmanager:BatchGetSecretValue",
        {"filters": [{"key": "name", "values": ["$word"]}]},
    )
    _add(
        "w",
        "secretsmanager:PutSecretValue",
        secret,
        {"arn": secret["secretId"], "versionId": "$uuid"},
    )
    _add("w", "secretsmanager:CreateSecret", {"name": "$word/$hex", "clientRequestToken": "$uuid"},
         {"name": "$word/$hex"})  # fmt: skip
    _add("w", "secretsmanager:DeleteSecret", secret, {"arn": secret["secretId"]})
    _add("w", "secretsmanager:RotateSecret", secret, {"arn": secret["secretId"]})
    _add("r", "ssm:GetParameter", {"name": "$parameter", "withDecryption": True})
    _add("r", "ssm:GetParameters", {"names": ["$parameter"], "withDecryption": True})
    _add("r", "ssm:GetParametersByPath", {"path": "/$word", "withDecryption": True})
    _reads("ssm", "DescribeInstanceInformation", "DescribeParameters", "ListCommands",
           "ListDocuments", "DescribeSessions", maxResults=50)  # fmt: skip
    _add(
        "w",
        "ssm:StartSession",
        {"target": "$instance"},
        {"sessionId": "$session-$hex17", "tokenValue": "Value hidden due to security reasons."},
    )
    _add("w", "ssm:TerminateSession", {"sessionId": "$session-$hex17"})
    _add(
        "w",
        "ssm:SendCommand",
        {"documentName": "AWS-RunShellScript", "instanceIds": ["$instance"]},
        {"command": {"commandId": "$uuid", "status": "Pending"}},
    )
    _add("w", "ssm:PutParameter", {"name": "$parameter", "type": "SecureString"}, {"version": 2})
    _add("r", "kms:Decrypt", {"encryptionAlgorithm": "SYMMETRIC_DEFAULT", "keyId": "$kms"}, None, key)
    _add("r", "kms:GenerateDataKey", {"keyId": "$kms", "keySpec": "AES_256"}, None, key)
    _add("r", "kms:DescribeKey", {"keyId": "$kms"}, None, key)
    _add("r", "kms:ListKeys", {"limit": 100})
    _add("r", "kms:ListAliases", {"limit": 100})
    _add("r", "kms:GetKeyPolicy", {"keyId": "$kms", "policyName": "default"}, None, key)
    _add(
        "w",
        "kms:CreateGrant",
        {"keyId": "$kms", "operations": ["Decrypt"]},
        {"grantId": "$hex"},
        key,
    )
    _add("w", "kms:ScheduleKeyDeletion", {"keyId": "$kms", "pendingWindowInDays": 7}, None, key)
    _add("w", "kms:PutKeyPolicy", {"keyId": "$kms", "policyName": "default"}, None, key)
    _add("w", "kms:CreateKey", {"description": "$word"}, {"keyMetadata": {"keyId": "$uuid"}})

    _add("r", "lambda:ListFunctions20150331")
    for name in (
        "GetFunction20150331v2",
        "GetFunctionConfiguration20150331v2",
        "GetPolicy20150331v2",
        "ListTags20170331",
        "ListVersionsByFunction20150331",
        "ListAliases20150331",
    ):
        _add("r", f"lambda:{name}", {"functionName": "$function"})
    _add(
        "d",
        "lambda:Invoke",
        {
            "functionName": "arn:aws:lambda:$region:$account:function:$function",
            "invocationType": "RequestResponse",
        },
    )
    for name in (
        "UpdateFunctionCode20150331v2",
        "UpdateFunctionConfiguration20150331v2",
        "CreateFunction20150331",
        "DeleteFunction20150331",
        "AddPermission20150331v2",
        "PublishVersion20150331",
        "CreateEventSourceMapping20150331",
    ):
        _add("w", f"lambda:{name}", {"functionName": "$function"}, {"functionName": "$function",
             "functionArn": "arn:aws:lambda:$region:$account:function:$function"})  # fmt: skip
    _add("r", "dynamodb:ListTables")
    _add("r", "dynamodb:DescribeTable", {"tableName": "$table"}, None, table)
    _add("rd", "dynamodb:GetItem", {"tableName": "$table", "key": {"id": "$hex"}}, None, table)
    _add("rd", "dynamodb:Query", {"tableName": "$table"}, None, table)
    _add("rd", "dynamodb:Scan", {"tableName": "$table"}, None, table)
    _add("d", "dynamodb:PutItem", {"tableName": "$table", "key": {"id": "$hex"}}, None, table)
    _add("w", "dynamodb:CreateTable", {"tableName": "$table"}, None, table)
    _add("w", "dynamodb:DeleteTable", {"tableName": "$table"}, None, table)
    _add("w", "dynamodb:ExportTableToPointInTime", {"tableArn": "$table", "s3Bucket": "$bucket"})
    _add("r", "rds:DescribeDBInstances", {"dBInstanceIdentifier": "$database"})
    _reads("rds", "DescribeDBSnapshots", "DescribeDBClusters", "DescribeEvents",
           "DescribeDBParameterGroups", "DescribeDBSubnetGroups")  # fmt: skip
    _add("w", "rds:CreateDBSnapshot", {"dBInstanceIdentifier": "$database",
         "dBSnapshotIdentifier": "$word-$hex"}, {"status": "creating"})  # fmt: skip
    _add("w", "rds:ModifyDBInstance", {"dBInstanceIdentifier": "$database",
         "masterUserPassword": "****"}, {"dBInstanceIdentifier": "$database"})  # fmt: skip
    _add("w", "rds:ModifyDBSnapshotAttribute", {"dBSnapshotIdentifier": "$word-$hex",
         "attributeName": "restore", "valuesToAdd": ["$foreign_account"]})  # fmt: skip
    _add("w", "rds:RebootDBInstance", {"dBInstanceIdentifier": "$database"})
    _add("w", "rds:StartExportTask", {"s3BucketName": "$bucket", "exportTaskIdentifier": "$hex"})

    group = {"logGroupName": "$log_group"}
    _add("r", "logs:DescribeLogGroups", {"limit": 50})
    _add("r", "logs:DescribeLogStreams", {**group, "orderBy": "LastEventTime"})
    for name in ("FilterLogEvents", "GetLogEvents", "StartQuery", "GetQueryResults"):
        _add("r", f"logs:{name}", group)
    _add("w", "logs:CreateLogStream", {**group, "logStreamName": "$hex"})
    _add("w", "logs:CreateLogGroup", group)
    _add("w", "logs:PutRetentionPolicy", {**group, "retentionInDays": 30})
    _add("w", "logs:DeleteLogGroup", group)
    _add("w", "logs:PutSubscriptionFilter", {**group, "filterName": "$word"})
    _reads("monitoring", "DescribeAlarms", "ListMetrics", "GetMetricData", "ListDashboards",
           "GetDashboard")  # fmt: skip
    _add("w", "monitoring:PutMetricAlarm", {"alarmName": "$word"})
    _add("w", "monitoring:DeleteAlarms", {"alarmNames": ["$word"]})
    _add("w", "monitoring:PutDashboard", {"dashboardName": "$word"})

    stack = {"stackName": "$stack"}
    _reads("cloudformation", "ListStacks", "ListExports", "DescribeAccountLimits")
    for name in ("DescribeStacks", "DescribeStackEvents", "GetTemplate", "DescribeStackResources",
                 "DetectStackDrift"):  # fmt: skip
        _add("r", f"cloudformation:{name}", stack)
    for name in (
        "CreateStack",
        "UpdateStack",
        "DeleteStack",
        "CreateChangeSet",
        "ExecuteChangeSet",
    ):
        _add("w", f"cloudformation:{name}", stack,
             {"stackId": "arn:aws:cloudformation:$region:$account:stack/$stack/$uuid"})  # fmt: skip
    for service, names in (
        ("ecs", "ListClusters DescribeClusters DescribeServices DescribeTasks ListTasks "
                "DescribeTaskDefinition"),
        ("eks", "ListClusters DescribeCluster ListNodegroups DescribeNodegroup ListAddons"),
    ):  # fmt: skip
        _reads(service, *names.split(), cluster="$word")
    for name in (
        "UpdateService",
        "RunTask",
        "StopTask",
        "RegisterTaskDefinition",
        "ExecuteCommand",
    ):
        _add("w", f"ecs:{name}", {"cluster": "$word", "service": "$word"})
    for name in (
        "UpdateClusterConfig",
        "CreateNodegroup",
        "AccessKubernetesApi",
        "CreateAccessEntry",
    ):
        _add("w", f"eks:{name}", {"name": "$word"})
    _reads("ecr", "DescribeRepositories", "ListImages", "DescribeImages", "GetAuthorizationToken",
           "BatchGetImage", "DescribeImageScanFindings", repositoryName="$word")  # fmt: skip
    for name in ("PutImage", "CreateRepository", "BatchDeleteImage", "PutLifecyclePolicy"):
        _add("w", f"ecr:{name}", {"repositoryName": "$word"})
    _reads(
        "sqs",
        "ListQueues",
        "GetQueueAttributes",
        queueUrl="https://sqs.$region.amazonaws.com/$account/$word",
    )
    _add("w", "sqs:PurgeQueue", {"queueUrl": "https://sqs.$region.amazonaws.com/$account/$word"})
    _add("w", "sqs:CreateQueue", {"queueName": "$word"})
    _reads("sns", "ListTopics", "GetTopicAttributes", "ListSubscriptions")
    _add(
        "w",
        "sns:Subscribe",
        {"topicArn": "arn:aws:sns:$region:$account:$word", "protocol": "email"},
    )
    _add("w", "sns:Publish", {"topicArn": "arn:aws:sns:$region:$account:$word"})
    for name in ("StartQueryExecution", "GetQueryExecution", "GetQueryResults", "ListWorkGroups",
                 "GetWorkGroup", "ListDatabases"):  # fmt: skip
        _add(
            "w" if name.startswith("Start") else "r",
            f"athena:{name}",
            {"queryExecutionId": "$uuid"},
        )
    _reads(
        "glue",
        "GetDatabases",
        "GetTables",
        "GetTable",
        "GetPartitions",
        "GetJobs",
        "GetJobRuns",
        "GetCrawlers",
        "GetConnections",
        databaseName="$word",
    )
    for name in ("StartJobRun", "StartCrawler", "UpdateTable", "CreateTable", "UpdateJob"):
        _add("w", f"glue:{name}", {"jobName": "$word"}, {"jobRunId": "$hex"})
    _reads("elasticmapreduce", "ListClusters", "DescribeCluster", "ListSteps", clusterId="j-$hex")
    _add("w", "elasticmapreduce:RunJobFlow", {"name": "$word"}, {"jobFlowId": "j-$hex"})
    _reads("redshift", "DescribeClusters", "DescribeClusterSnapshots")
    _add("r", "redshift:GetClusterCredentials", {"dbUser": "$word", "clusterIdentifier": "$word"})
    _reads("sagemaker", "ListNotebookInstances", "DescribeNotebookInstance", "ListTrainingJobs")
    for name in ("CreatePresignedNotebookInstanceUrl", "CreateTrainingJob", "StopNotebookInstance"):
        _add("w", f"sagemaker:{name}", {"notebookInstanceName": "$word"})
    _reads("bedrock", "ListFoundationModels", "GetFoundationModelAvailability",
           "GetModelInvocationLoggingConfiguration")  # fmt: skip
    _add("r", "bedrock:InvokeModel", {"modelId": "anthropic.claude-3-sonnet-20240229-v1:0"})

    trail = {"name": "organisation-trail"}
    _reads("cloudtrail", "DescribeTrails", "LookupEvents", "ListTrails", "GetEventSelectors",
           "GetTrailStatus", trailName="organisation-trail")  # fmt: skip
    for name in ("StopLogging", "StartLogging", "DeleteTrail", "UpdateTrail"):
        _add("w", f"cloudtrail:{name}", trail)
    _add(
        "w",
        "cloudtrail:PutEventSelectors",
        {
            "trailName": "organisation-trail",
            "eventSelectors": [
                {
                    "readWriteType": "WriteOnly",
                    "includeManagementEvents": False,
                    "dataResources": [],
                }
            ],
        },
        {"trailARN": "arn:aws:cloudtrail:$region:$account:trail/organisation-trail"},
    )
    _reads(
        "guardduty",
        "ListDetectors",
        "ListFindings",
        "GetFindings",
        "GetDetector",
        detectorId="$hex",
    )
    for name in ("UpdateDetector", "DeleteDetector", "ArchiveFindings", "CreateFilter"):
        _add("w", f"guardduty:{name}", {"detectorId": "$hex"})
    _reads("securityhub", "GetFindings", "DescribeHub", "GetEnabledStandards", "GetInsights")
    _add("w", "securityhub:BatchUpdateFindings", {"note": "$word"})
    _reads("config", "DescribeConfigRules", "DescribeConfigurationRecorders",
           "GetComplianceDetailsByConfigRule", "SelectResourceConfig")  # fmt: skip
    _add("w", "config:StopConfigurationRecorder", {"configurationRecorderName": "default"})
    _reads("access-analyzer", "ListAnalyzers", "ListFindings")
    _reads("inspector2", "ListFindings", "ListCoverage")
    _reads("organizations", "ListAccounts", "DescribeOrganization", "ListPolicies", "ListRoots",
           "ListOrganizationalUnitsForParent")  # fmt: skip
    _add("w", "organizations:LeaveOrganization")
    _reads("sso", "ListInstances", "ListPermissionSets", "ListAccountAssignments", instanceArn="$word")
    _add("w", "sso:CreateAccountAssignment", {"targetId": "$account", "principalType": "USER"})
    _reads(
        "ce",
        "GetCostAndUsage",
        "GetCostForecast",
        "GetDimensionValues",
        "GetReservationUtilization",
        "GetAnomalies",
        granularity="DAILY",
    )
    _reads("budgets", "DescribeBudgets", "ViewBudget")
    _add("w", "budgets:ModifyBudget", {"budgetName": "$word"})
    _reads("cur", "DescribeReportDefinitions")
    _reads("support", "DescribeCases", "DescribeTrustedAdvisorChecks", "DescribeCommunications")
    _add("w", "support:CreateCase", {"subject": "$word"}, {"caseId": "case-$hex"})
    _reads("servicequotas", "ListServiceQuotas", "GetServiceQuota", serviceCode="ec2")
    _add("w", "servicequotas:RequestServiceQuotaIncrease", {"serviceCode": "ec2", "desiredValue": 64})
    _reads("route53", "ListHostedZones", "ListResourceRecordSets", "GetHostedZone", hostedZoneId="$hex")
    _add("w", "route53:ChangeResourceRecordSets", {"hostedZoneId": "$hex"})
    _reads("cloudfront", "ListDistributions", "GetDistribution", id="$hex")
    _add("w", "cloudfront:CreateInvalidation2020_05_31", {"distributionId": "$hex"})
    _reads("elasticloadbalancing", "DescribeLoadBalancers", "DescribeTargetGroups",
           "DescribeTargetHealth", "DescribeListeners")  # fmt: skip
    _add("w", "elasticloadbalancing:ModifyListener", {"listenerArn": "$word"})
    _reads("autoscaling", "DescribeAutoScalingGroups", "DescribeScalingActivities")
    _add("w", "autoscaling:UpdateAutoScalingGroup", {"autoScalingGroupName": "$word"})
    _add(
        "w",
        "autoscaling:SetDesiredCapacity",
        {"autoScalingGroupName": "$word", "desiredCapacity": 3},
    )
    _reads("states", "ListStateMachines", "DescribeExecution", "ListExecutions")
    _add("w", "states:StartExecution", {"stateMachineArn": "$word"}, {"executionArn": "$word"})
    _reads("events", "ListRules", "DescribeRule")
    for name in ("PutRule", "DisableRule", "PutTargets"):
        _add("w", f"events:{name}", {"name": "$word"})
    _reads("tagging", "GetResources", "GetTagKeys")
    _reads("health", "DescribeEventAggregates", "DescribeEvents")
    _reads("acm", "ListCertificates", "DescribeCertificate")
    _add("w", "acm:RequestCertificate", {"domainName": "$word.example.com"})
    _reads("wafv2", "ListWebACLs", "GetWebACL")
    _add("w", "wafv2:UpdateWebACL", {"name": "$word"})
    _reads("backup", "ListBackupJobs", "ListBackupVaults")
    _add("w", "backup:StartBackupJob", {"backupVaultName": "$word"})
    _reads("codebuild", "ListProjects", "BatchGetBuilds")
    _add("w", "codebuild:StartBuild", {"projectName": "$word"})
    _reads("codepipeline", "ListPipelines", "GetPipelineState")
    _add("w", "codepipeline:StartPipelineExecution", {"name": "$word"})
    _reads("apigateway", "GetRestApis", "GetStages")
    _reads("ses", "GetSendQuota", "ListIdentities", "GetAccount")
    _reads("workspaces", "DescribeWorkspaces")
    _reads("resource-explorer-2", "Search", "ListIndexes")


_declare()


@dataclass(frozen=True)
class Job:
    """What a kind of person does: a head of everyday commands, most usual first, and a tail.

    `tail` names services whose commands turn up now and then; `channels` weighs console, command
    line, scripts and terraform.
    """

    name: str
    share: float
    head: tuple[str, ...]
    tail: tuple[str, ...]
    channels: tuple[tuple[str, float], ...]
    permission_set: str


def _keys(listed: str) -> tuple[str, ...]:
    """Command keys from words; raises ValueError for one that is not declared."""
    keys = tuple(listed.split())
    missing = [k for k in keys if k not in COMMANDS]
    if missing:
        raise ValueError(f"no command {', '.join(missing)}")
    return keys


def _job(
    name: str, share: float, permission_set: str, channels: dict[str, float], head: str, tail: str
) -> Job:
    return Job(name, share, _keys(head), tuple(tail.split()), tuple(channels.items()), permission_set)


JOBS: tuple[Job, ...] = (
    _job(
        "developer",
        0.40,
        "Developer",
        {"console": 4, "cli": 3, "script": 2, "terraform": 1},
        """logs:FilterLogEvents logs:DescribeLogGroups logs:DescribeLogStreams logs:GetLogEvents
        lambda:GetFunction20150331v2 lambda:ListFunctions20150331 s3:ListBuckets s3:ListObjects
        s3:GetObject dynamodb:DescribeTable dynamodb:Query ecs:DescribeServices
        ecs:DescribeTasks sts:GetCallerIdentity cloudformation:DescribeStacks
        ecr:GetAuthorizationToken lambda:UpdateFunctionCode20150331v2 sqs:GetQueueAttributes
        monitoring:DescribeAlarms ssm:GetParameter ec2:DescribeInstances ecr:DescribeImages
        s3:PutObject ecs:UpdateService secretsmanager:GetSecretValue states:ListExecutions
        lambda:Invoke""",
        "lambda ecs ecr sqs sns states cloudformation apigateway dynamodb codebuild codepipeline events ssm",
    ),
    _job(
        "admin",
        0.14,
        "AdministratorAccess",
        {"console": 4, "cli": 4, "terraform": 3},
        """ec2:DescribeInstances ec2:DescribeSecurityGroups iam:ListRoles iam:GetRole
        sts:GetCallerIdentity ec2:DescribeVpcs ec2:DescribeSubnets iam:ListUsers
        iam:ListAttachedRolePolicies cloudformation:DescribeStacks eks:DescribeCluster
        ec2:DescribeVolumes s3:ListBuckets s3:GetBucketPolicy rds:DescribeDBInstances
        route53:ListResourceRecordSets iam:GetPolicyVersion ec2:AuthorizeSecurityGroupIngress
        ec2:CreateTags iam:AttachRolePolicy elasticloadbalancing:DescribeLoadBalancers
        ssm:StartSession iam:PutRolePolicy ec2:StopInstances ec2:StartInstances ec2:RunInstances
        iam:CreateRole iam:CreateUser iam:CreateAccessKey kms:DescribeKey
        organizations:ListAccounts""",
        "ec2 iam rds route53 eks kms acm wafv2 autoscaling elasticloadbalancing s3 backup organizations sso",
    ),
    _job(
        "data",
        0.16,
        "DataEngineer",
        {"console": 3, "cli": 2, "script": 5},
        """s3:ListObjects s3:GetObject athena:StartQueryExecution athena:GetQueryExecution
        athena:GetQueryResults glue:GetTables glue:GetTable glue:GetDatabases glue:GetPartitions
        s3:PutObject glue:StartJobRun glue:GetJobRuns s3:ListBuckets
        elasticmapreduce:ListClusters elasticmapreduce:DescribeCluster redshift:DescribeClusters
        redshift:GetClusterCredentials sagemaker:ListNotebookInstances
        sagemaker:CreatePresignedNotebookInstanceUrl logs:GetLogEvents kms:Decrypt
        sts:GetCallerIdentity secretsmanager:GetSecretValue dynamodb:Scan""",
        "glue athena elasticmapreduce redshift sagemaker s3 bedrock dynamodb logs",
    ),
    _job(
        "support",
        0.12,
        "SupportUser",
        {"console": 8, "cli": 1},
        """monitoring:DescribeAlarms monitoring:GetMetricData logs:FilterLogEvents
        ec2:DescribeInstances ec2:DescribeInstanceStatus support:DescribeCases
        rds:DescribeDBInstances rds:DescribeEvents health:DescribeEvents ecs:DescribeServices
        elasticloadbalancing:DescribeTargetHealth logs:DescribeLogGroups
        ssm:DescribeInstanceInformation ec2:RebootInstances ssm:StartSession support:CreateCase
        sqs:GetQueueAttributes""",
        "monitoring logs ec2 rds support health ecs sqs sns",
    ),
    _job(
        "finance",
        0.08,
        "Billing",
        {"console": 1},
        """ce:GetCostAndUsage ce:GetDimensionValues ce:GetCostForecast budgets:ViewBudget
        budgets:DescribeBudgets organizations:ListAccounts cur:DescribeReportDefinitions
        ce:GetReservationUtilization ce:GetAnomalies budgets:ModifyBudget""",
        "ce budgets organizations support servicequotas cur",
    ),
    _job(
        "security",
        0.10,
        "SecurityAudit",
        {"console": 4, "cli": 3, "script": 2},
        """guardduty:ListFindings guardduty:GetFindings cloudtrail:LookupEvents iam:ListUsers
        iam:ListRoles securityhub:GetFindings iam:GetRole iam:ListAccessKeys
        iam:GetAccessKeyLastUsed config:DescribeConfigRules access-analyzer:ListFindings
        iam:GetAccountAuthorizationDetails inspector2:ListFindings s3:GetBucketPolicy
        s3:GetBucketAcl s3:GetBucketPublicAccessBlock cloudtrail:DescribeTrails
        ec2:DescribeSecurityGroups kms:GetKeyPolicy iam:GenerateCredentialReport
        securityhub:BatchUpdateFindings guardduty:ArchiveFindings sts:GetCallerIdentity""",
        "guardduty securityhub iam config cloudtrail access-analyzer inspector2 s3 kms ec2 organizations",
    ),
)


def of_services(services: tuple[str, ...]) -> list[str]:
    """Commands of these services, in declared order."""
    wanted = set(services)
    return [k for k, c in COMMANDS.items() if c.service in wanted]


# What intruders reach for once inside, by purpose.
RECON: tuple[str, ...] = _keys(
    """
    sts:GetCallerIdentity iam:ListUsers iam:ListRoles iam:GetAccountSummary
    iam:ListAttachedUserPolicies iam:GetAccountAuthorizationDetails s3:ListBuckets
    s3:GetBucketAcl s3:GetBucketPolicy ec2:DescribeInstances ec2:DescribeSnapshots
    ec2:DescribeRegions ec2:DescribeVpcs secretsmanager:ListSecrets lambda:ListFunctions20150331
    rds:DescribeDBInstances kms:ListKeys cloudtrail:DescribeTrails guardduty:ListDetectors
    organizations:ListAccounts ssm:DescribeParameters dynamodb:ListTables
    ecr:DescribeRepositories iam:ListAccessKeys iam:SimulatePrincipalPolicy ses:GetSendQuota
    servicequotas:ListServiceQuotas bedrock:ListFoundationModels ec2:DescribeInstanceAttribute
    eks:ListClusters iam:ListPolicies iam:GetLoginProfile sts:GetFederationToken
    """
)
STEAL: tuple[str, ...] = _keys(
    """
    secretsmanager:GetSecretValue ssm:GetParametersByPath s3:GetObject s3:ListObjects
    secretsmanager:BatchGetSecretValue ec2:ModifySnapshotAttribute rds:ModifyDBSnapshotAttribute
    ec2:GetPasswordData dynamodb:Scan s3:PutBucketPolicy dynamodb:ExportTableToPointInTime
    lambda:GetFunction20150331v2 rds:CreateDBSnapshot redshift:GetClusterCredentials
    """
)
PERSIST: tuple[str, ...] = _keys(
    """
    iam:CreateLoginProfile iam:AttachUserPolicy iam:UpdateAssumeRolePolicy iam:PutUserPolicy
    lambda:AddPermission20150331v2 ec2:CreateKeyPair ec2:RunInstances iam:CreatePolicyVersion
    iam:AttachRolePolicy lambda:UpdateFunctionCode20150331v2 ssm:SendCommand
    ec2:AuthorizeSecurityGroupIngress iam:DeactivateMFADevice
    """
)
HIDE: tuple[str, ...] = _keys(
    """
    cloudtrail:StopLogging cloudtrail:PutEventSelectors guardduty:UpdateDetector
    config:StopConfigurationRecorder logs:DeleteLogGroup guardduty:DeleteDetector
    events:DisableRule ec2:DeleteFlowLogs guardduty:CreateFilter
    """
)
