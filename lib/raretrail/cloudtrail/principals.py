"""Who made a call: the identity that stays the same between sessions.

Ordered rules (`conf/principals.yml`) decide from the record alone, so that the same record always
has the same principal, whatever came before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from raretrail.errors import UsageError

KINDS = ("person", "role", "user", "root", "service", "account", "anonymous", "unknown")


class IdentityFacts(NamedTuple):
    """What a record says of who made the call; None where it says nothing.

    `partition` is that of the record's region: it counts only where no ARN names one.
    `event_source` and `event_type` are given only where the record names no identity at all.
    """

    type: str | None = None
    arn: str | None = None
    principal_id: str | None = None
    account_id: str | None = None
    user_name: str | None = None
    invoked_by: str | None = None
    session_name: str | None = None
    source_identity: str | None = None
    issuer_type: str | None = None
    issuer_arn: str | None = None
    issuer_user_name: str | None = None
    identity_provider: str | None = None
    on_behalf_of: str | None = None
    partition: str = "aws"
    event_source: str | None = None
    event_type: str | None = None


class Principal(NamedTuple):
    """A principal, its kind (one of `KINDS`) and its actor: the name that all identities of one person
    or program share, else the principal itself."""

    principal: str
    kind: str
    actor: str


_DERIVED = ("account", "role", "role_arn", "user_arn")
# What only the rules for actors can ask: what was decided of the principal.
_DECIDED = ("kind", "principal")
FIELDS = frozenset((*IdentityFacts._fields, *_DERIVED))

_ARN = re.compile(r"arn:(?P<partition>[^:]+):[^:]*:[^:]*:(?P<account>[^:]*):(?P<resource>.+)", re.DOTALL)
_TEMPLATE_FIELD = re.compile(r"\{(\w+)\}")

Patterns = tuple[re.Pattern[str], ...]


class Rule(NamedTuple):
    """One rule. `when` and `unless` pair a field with patterns of which one must (may not) match
    the whole of it; None stands for a field that must be missing. Rules for actors have no kind."""

    name: str
    when: tuple[tuple[str, Patterns | None], ...]
    unless: tuple[tuple[str, Patterns | None], ...]
    template: str
    kind: str


class PrincipalRules:
    """The rules in their order. Can be pickled; remembers what it decided."""

    def __init__(self, rules: tuple[Rule, ...], actors: tuple[Rule, ...] = ()) -> None:
        self.rules = rules
        self.actors = actors
        self.decide = lru_cache(maxsize=16384)(self._decide)

    def __reduce__(self) -> tuple[type[PrincipalRules], tuple[tuple[Rule, ...], tuple[Rule, ...]]]:
        return PrincipalRules, (self.rules, self.actors)

    def _decide(self, facts: IdentityFacts) -> Principal:
        """The principal of an identity; `unknown` where no rule applies."""
        known = _known(facts)
        principal, kind = _first(self.rules, known) or ("unknown", "unknown")
        named = _first(self.actors, known | {"kind": kind, "principal": principal})
        # Directories differ in how they write a name; people do not differ by case.
        return Principal(principal, kind, named[0].lower() if named else principal)


def _first(rules: tuple[Rule, ...], known: Mapping[str, str]) -> tuple[str, str] | None:
    """What the first rule that applies makes of the fields, and its kind."""
    for rule in rules:
        captured = _applies(rule, known)
        if captured is None:
            continue
        values = {**known, **captured}
        if all(field in values for field in _TEMPLATE_FIELD.findall(rule.template)):
            return _TEMPLATE_FIELD.sub(lambda found: values[found[1]], rule.template), rule.kind  # noqa: B023
    return None


def load_rules(path: Path) -> PrincipalRules:
    """The rules of a YAML file (its head says how they are written).

    Raises:
        UsageError: the file cannot be read, or a rule has an unknown key, field, kind or a regular
            expression that does not compile; the message names file and rule.
    """
    import yaml  # only whoever loads rules needs it; Spark's workers get them pickled

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("rules"), list):
        raise UsageError(f"{path}: needs a list under `rules`")
    _refuse_unknown(tree, {"patterns", "rules", "actors"}, str(path))
    if not isinstance(tree.get("actors") or [], list):
        raise UsageError(f"{path}: `actors` must be a list of rules")
    patterns = tree.get("patterns") or {}
    if not isinstance(patterns, dict):
        raise UsageError(f"{path}: `patterns` must map names to lists of regular expressions")
    named = {f"<{name}>": _patterns(value, {}, f"{path}: pattern {name}") for name, value in patterns.items()}
    return PrincipalRules(
        tuple(_rule(rule, named, path, number) for number, rule in enumerate(tree["rules"], 1)),
        tuple(
            _rule(rule, named, path, number, decides="actor")
            for number, rule in enumerate(tree.get("actors") or [], 1)
        ),
    )


def _rule(
    tree: Any, named: Mapping[str, Patterns], path: Path, number: int, decides: str = "principal"
) -> Rule:
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: rule {number} must be a mapping")
    where = (
        f"{path}: {'rule' if decides == 'principal' else 'actor'} {number} ({tree.get('name', 'no name')})"
    )
    keys = ("name", "principal", "kind") if decides == "principal" else ("name", "actor")
    _refuse_unknown(tree, {*keys, "when"}, where)
    for key in keys:
        if not isinstance(tree.get(key), str) or not tree[key]:
            raise UsageError(f"{where}: needs a text under `{key}`")
    if decides == "principal" and tree["kind"] not in KINDS:
        raise UsageError(f"{where}: kind {tree['kind']!r} is none of {', '.join(KINDS)}")
    when = tree.get("when") or {}
    if not isinstance(when, dict):
        raise UsageError(f"{where}: `when` must map fields to regular expressions")
    when = dict(when)
    unless = when.pop("not", None) or {}
    if not isinstance(unless, dict):
        raise UsageError(f"{where}: `not` must map fields to regular expressions")
    fields = FIELDS if decides == "principal" else FIELDS.union(_DECIDED)
    rule = Rule(
        tree["name"],
        _conditions(when, named, where, fields),
        _conditions(unless, named, where, fields),
        tree[decides],
        tree.get("kind", ""),
    )
    groups = {name for _, patterns in rule.when for p in patterns or () for name in p.groupindex}
    _refuse_unknown(_TEMPLATE_FIELD.findall(rule.template), fields | groups, f"{where}: {decides}")
    return rule


def _conditions(
    tree: Mapping[str, Any], named: Mapping[str, Patterns], where: str, fields: frozenset[str]
) -> tuple[tuple[str, Patterns | None], ...]:
    _refuse_unknown(tree, fields, where)
    return tuple(
        (field, None if value is None else _patterns(value, named, f"{where}: {field}"))
        for field, value in tree.items()
    )


def _patterns(value: Any, named: Mapping[str, Patterns], where: str) -> Patterns:
    found: list[re.Pattern[str]] = []
    for text in value if isinstance(value, list) else [value]:
        if not isinstance(text, str):
            raise UsageError(f"{where}: {text!r} is not a text; put regular expressions in quotes")
        if text in named:
            found.extend(named[text])
            continue
        if re.fullmatch(r"<\w+>", text):
            raise UsageError(f"{where}: {text} is not among `patterns`")
        try:
            found.append(re.compile(text, re.DOTALL))
        except re.error as error:
            raise UsageError(f"{where}: {text!r} is not a regular expression: {error}") from error
    return tuple(found)


def _refuse_unknown(given: Any, known: Any, where: str) -> None:
    unknown = [str(key) for key in given if key not in known]
    if unknown:
        raise UsageError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")


def _applies(rule: Rule, known: Mapping[str, str]) -> dict[str, str] | None:
    captured: dict[str, str] = {}
    for field, patterns in rule.when:
        if (patterns is None) != (field not in known):
            return None
        if patterns is not None:
            found = next((m for p in patterns if (m := p.fullmatch(known[field]))), None)
            if found is None:
                return None
            captured.update({k: v for k, v in found.groupdict().items() if v is not None})
    for field, patterns in rule.unless:
        if patterns is None:
            if field not in known:
                return None
        elif field in known and any(p.fullmatch(known[field]) for p in patterns):
            return None
    return captured


def _known(facts: IdentityFacts) -> dict[str, str]:
    known = {field: value for field, value in zip(facts._fields, facts, strict=True) if value}
    # The identity's own ARN says more than its account and issuer.
    arn = _ARN.fullmatch(facts.arn or "")
    issuer = _ARN.fullmatch(facts.issuer_arn or "")
    account = facts.account_id
    for source in (issuer, arn):
        if source:
            known["partition"] = source["partition"]
            account = source["account"] or account
    if account:
        known["account"] = account
    role_arn = _role_arn(facts, known, arn, issuer)
    if role_arn:
        known["role_arn"] = role_arn
        known["role"] = role_arn.rpartition("/")[2]
    if arn and arn["resource"].startswith("user/"):
        known["user_arn"] = facts.arn or ""
    elif facts.user_name and account:
        known["user_arn"] = f"arn:{known['partition']}:iam::{account}:user/{facts.user_name}"
    if facts.type == "FederatedUser" and arn and arn["resource"].startswith("federated-user/"):
        known.setdefault("user_name", arn["resource"].partition("/")[2])
    return known


def _role_arn(
    facts: IdentityFacts,
    known: Mapping[str, str],
    arn: re.Match[str] | None,
    issuer: re.Match[str] | None,
) -> str | None:
    # The issuer's ARN has the role's path; that of the session has not.
    if issuer and issuer["resource"].startswith("role/"):
        return facts.issuer_arn
    if arn and arn["resource"].startswith("role/"):
        return facts.arn
    name = facts.issuer_user_name if facts.issuer_type == "Role" else None
    if arn and arn["resource"].startswith("assumed-role/"):
        name = arn["resource"].split("/")[1]
    if name and known.get("account"):
        return f"arn:{known['partition']}:iam::{known['account']}:role/{name}"
    return None
