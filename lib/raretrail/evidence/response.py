"""The response to an incident as AWS CLI commands for its very identities: text, never run.

Names come from logs, so each is quoted for a POSIX shell.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F

from raretrail.evidence.findings import holder_of

_NOW = """'"$(date -u +%Y-%m-%dT%H:%M:%SZ)"'"""
_DENY_OLDER = (
    '\'{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*","Condition":'
    '{"DateLessThan":{"aws:TokenIssueTime":"' + _NOW + "\"}}}]}'"
)
_NEED_MFA = (
    '\'{"Version":"2012-10-17","Statement":[{"Effect":"Deny","NotAction":["iam:*MFA*","sts:GetSessionToken"],'
    '"Resource":"*","Condition":{"BoolIfExists":{"aws:MultiFactorAuthPresent":"false"}}}]}\''
)

_POLICY = " --policy-name {} --policy-document "
_NEW_PASSWORD = ' --password "$NEW_PASSWORD" --password-reset-required'
_FIND_PERSON = (
    'aws identitystore list-users --identity-store-id "$IDENTITY_STORE" '
    "--filters AttributePath=UserName,AttributeValue="
)


def quoted(name: Column) -> Column:
    """A name as one word of a POSIX shell: bare where nothing in it needs quotes."""
    inside = F.replace(name, F.lit("'"), F.lit("'\\''"))
    return F.when(name.rlike(r"^[A-Za-z0-9_@%+=:,./-]+$"), name).otherwise(
        F.concat(F.lit("'"), inside, F.lit("'"))
    )


def _line(*parts: str | Column) -> Column:
    return F.concat(*[F.lit(part) if isinstance(part, str) else part for part in parts])


def steps_for(identity: Column) -> Column:
    """The commands that stop one identity, in the order to run them, as an array of texts.

    identity is a struct of recipient_account_id, user_identity_type, user_identity_arn, session_issuer_arn
    and access_key_id; a null in it leaves out what it is needed for.
    """
    key, arn, kind = (identity[name] for name in ("access_key_id", "user_identity_arn", "user_identity_type"))
    issuer = identity["session_issuer_arn"]
    holder = holder_of(kind, arn, issuer)
    name = quoted(F.regexp_extract(holder, "(?s)^(?:user|role)/(.*)$", 1))
    is_user, is_role = holder.startswith("user/"), holder.startswith("role/")
    # Of an Identity Center session the last part of the ARN is the user; its role cannot be changed.
    by_center = is_role & holder.startswith("role/AWSReservedSSO_")
    person = quoted(F.regexp_extract(arn, "/([^/]+)$", 1))
    root = (kind == "Root") | arn.endswith(":root")
    long_lived = is_user & key.startswith("AKIA")
    account = identity["recipient_account_id"]
    # A name that ends the line would end the comment.
    whose = F.coalesce(F.regexp_replace(arn, r"\p{Cntrl}", " "), F.lit("an identity without an ARN"))
    update_key = "aws iam update-access-key --user-name "
    delete_key = "aws iam delete-access-key --user-name "
    of_key = _line(" --access-key-id ", quoted(key))
    user_policy, role_policy = (f"aws iam put-{kind}-policy --{kind}-name " for kind in ("user", "role"))
    steps: Sequence[tuple[Column, Column]] = (
        (F.lit(True), _line("# ", whose, ", in account ", account)),
        (long_lived, _line(update_key, name, of_key, " --status Inactive")),
        (is_user, _line(user_policy, name, _POLICY.format("DenyOlderSessions"), _DENY_OLDER)),
        (is_role & ~by_center, _line(role_policy, name, _POLICY.format("DenyOlderSessions"), _DENY_OLDER)),
        (by_center, _line(_FIND_PERSON, person, "  # disable the user, revoke the sessions")),
        (is_user, _line("aws iam update-login-profile --user-name ", name, _NEW_PASSWORD)),
        (is_user, _line(user_policy, name, _POLICY.format("RequireMFA"), _NEED_MFA)),
        (long_lived, _line(delete_key, name, of_key, "  # once nothing that should run uses it")),
        (
            root,
            F.lit("# change its password, delete its access keys, replace its MFA device (console)"),
        ),
    )
    chosen = F.array(*[F.when(F.coalesce(when, F.lit(False)), text) for when, text in steps])
    return F.filter(chosen, lambda one: one.isNotNull())


def undo(change: Column) -> Column:
    """The command that takes away what a call made, as text; null where there is none to name.

    change is a struct of kind, subject and holder, as `tables.CHANGES_DAILY` has them.
    """
    kind, subject, holder = change["kind"], change["subject"], change["holder"]
    of = quoted(F.regexp_extract(holder, "(?s)^[a-z]+/(.*)$", 1))
    whose = F.regexp_extract(holder, "^([a-z]+)/", 1)
    inline = quoted(F.regexp_extract(subject, "(?s)^inline:(.*)$", 1))
    is_inline = subject.startswith("inline:")
    name = quoted(subject)
    policy = F.when(
        is_inline,
        _line("aws iam delete-", whose, "-policy --", whose, "-name ", of, " --policy-name ", inline),
    ).otherwise(_line("aws iam detach-", whose, "-policy --", whose, "-name ", of, " --policy-arn ", name))
    return (
        F.when(kind == "key", _line("aws iam delete-access-key --user-name ", of, " --access-key-id ", name))
        .when(kind == "user", _line("aws iam delete-user --user-name ", name))
        .when(kind == "role", _line("aws iam delete-role --role-name ", name))
        .when(kind == "password", _line("aws iam delete-login-profile --user-name ", name))
        .when(kind == "policy", policy)
        .when(
            kind == "group",
            _line("aws iam remove-user-from-group --user-name ", of, " --group-name ", name),
        )
        .when(
            kind == "trust",
            _line("aws iam get-role --role-name ", name, "  # and put back who may assume it"),
        )
        .when(kind == "key pair", _line("aws ec2 delete-key-pair --key-name ", name))
        .when(kind == "instance", _line("aws ec2 stop-instances --instance-ids ", name))
    )
