"""Decides whether policies allow an action, from policy documents and the condition keys of the request. Pure.

It must not know where documents come from, nor which actions a request needs (`required_access`).

Source: IAM User Guide, Policy evaluation logic; JSON policy elements: Condition operators, multivalued context keys.
An element that is not evaluated here is an error (`NotEvaluated`), never a decision.
"""

from __future__ import annotations

import fnmatch
import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

Context = Mapping[str, Sequence[str]]
"""Condition keys of a request with their values. A key that the request does not have is left out."""


class NotEvaluated(Exception):
    """A policy has an element that AWS knows and this evaluator does not."""


class Access(NamedTuple):
    """One action on one resource, which is allowed or denied.

    Attributes:
        action: ``batch:SubmitJob``.
        resource: An ARN, or ``*`` for an action without resource types.
        context: Its condition keys.
    """

    action: str
    resource: str = "*"
    context: Context = MappingProxyType({})


@dataclass(frozen=True)
class Principal:
    """A caller, with its policies as JSON.

    Attributes:
        arn: Of the user, or of the role's session.
        names: ARNs by which a resource-based policy can name the caller: of the session, and of its role.
        account: The caller's account.
        identity: Identity-based policies: inline, attached, and those of groups.
        boundary: The permissions boundary, or `None`.
        session: The policy that a session was assumed with, or `None`.
        context: Condition keys of all requests of the caller.
    """

    arn: str
    names: tuple[str, ...]
    account: str
    identity: tuple[str, ...] = ()
    boundary: str | None = None
    session: str | None = None
    context: Context = field(default_factory=dict)


class Denial(NamedTuple):
    """Why an action is denied: the kind of policy, and whether a statement has Deny (explicit) or none has Allow."""

    kind: str
    explicit: bool


def decide(who: Principal, access: Access, resource_policies: Iterable[str] = ()) -> Denial | None:
    """Why a principal may not do something; `None` if it may. An explicit deny decides; else an allow is needed.

    An allow of a resource-based policy of the same account is enough for users and, if the policy names the session or
    everybody, for sessions of roles, as in AWS.

    Raises:
        NotEvaluated: A statement that applies has an element that is not evaluated here.
    """
    access = access._replace(context={**who.context, **access.context})
    identity = _verdict(who.identity, access, None)
    resource = _verdict(resource_policies, access, who)
    limits = [
        (kind, _verdict([document], access, None))
        for kind, document in (("permissions boundary", who.boundary), ("session policy", who.session))
        if document is not None
    ]
    by_kind = [("identity-based policy", identity), ("resource-based policy", resource), *limits]
    for kind, verdict in by_kind:
        if verdict is False:
            return Denial(kind, explicit=True)
    if resource:
        return None
    if not identity:
        return Denial("identity-based policy", explicit=False)
    return next((Denial(kind, explicit=False) for kind, verdict in limits if not verdict), None)


def explain(who: Principal, access: Access, denial: Denial, *, quoted: bool = False) -> str:
    """A denial in AWS's words (IAM User Guide, Troubleshoot access denied error messages); S3 quotes the resource."""
    resource = f'"{access.resource}"' if quoted else access.resource
    article = "an " if denial.kind.startswith("identity") else "a "
    why = (
        f"with an explicit deny in {article}{denial.kind}"
        if denial.explicit
        else f"because no {denial.kind} allows the {access.action} action"
    )
    return f"User: {who.arn} is not authorized to perform: {access.action} on resource: {resource} {why}"


def _verdict(documents: Iterable[str], access: Access, named: Principal | None) -> bool | None:
    """False for a deny, True for an allow, `None` where no statement applies."""
    allowed = None
    for document in documents:
        for statement in _statements(document):
            if not _applies(statement, access, named):
                continue
            if statement["Effect"] == "Deny":
                return False
            allowed = True
    return allowed


@functools.lru_cache(maxsize=512)
def _statements(document: str) -> tuple[dict[str, Any], ...]:
    statements = json.loads(document).get("Statement") or []
    return tuple(statements if isinstance(statements, list) else [statements])


def _applies(statement: Mapping[str, Any], access: Access, named: Principal | None) -> bool:
    if named is not None and not _names(statement, named):
        return False
    if not _element(statement, "Action", lambda pattern: _like(access.action.lower(), pattern.lower())):
        return False
    if not _element(statement, "Resource", lambda pattern: _like(access.resource, _plain(pattern))):
        return False
    return conditions_hold(statement.get("Condition") or {}, access.context)


def _element(statement: Mapping[str, Any], name: str, matches: Callable[[str], bool]) -> bool:
    if f"Not{name}" in statement:
        return not any(matches(each) for each in _list(statement[f"Not{name}"]))
    return any(matches(each) for each in _list(statement.get(name, [])))


def _names(statement: Mapping[str, Any], who: Principal) -> bool:
    if "NotPrincipal" in statement:
        raise NotEvaluated("the element NotPrincipal of a resource-based policy is not evaluated here")
    principal = statement.get("Principal")
    given = _list(principal.get("AWS", [])) if isinstance(principal, Mapping) else _list(principal or [])
    # An Allow for the account leaves the decision to identity-based policies; a Deny for it is for all its principals.
    account = {who.account, f"arn:aws:iam::{who.account}:root"} if statement["Effect"] == "Deny" else set()
    return any(each == "*" or each in who.names or each in account for each in given)


# --- conditions ---------------------------------------------------------------------------------------------------


def conditions_hold(conditions: Mapping[str, Mapping[str, Any]], context: Context) -> bool:
    """Whether all conditions of a statement hold.

    Raises:
        NotEvaluated: An operator that is not known here.
    """
    present = {key.lower(): list(values) for key, values in context.items()}
    return all(
        _condition(operator, [_plain(str(each)) for each in _list(wanted)], present.get(key.lower()))
        for operator, keys in conditions.items()
        for key, wanted in keys.items()
    )


def _condition(operator: str, wanted: list[str], actual: list[str] | None) -> bool:
    quantifier, _, bare = operator.rpartition(":")
    if quantifier not in ("", "ForAllValues", "ForAnyValue"):
        raise NotEvaluated(f"the condition operator {operator} is not evaluated here")
    if bare == "Null":
        return (actual is None) == (wanted[0].lower() == "true")
    optional = bare.endswith("IfExists")
    bare = bare.removesuffix("IfExists")
    negated = bare in _NEGATED
    matches = _OPERATORS.get(_NEGATED.get(bare, bare))
    if matches is None:
        raise NotEvaluated(f"the condition operator {operator} is not evaluated here")
    if not actual:
        # The key is absent: ForAllValues holds for no values, ForAnyValue does not, and "not equal" holds.
        return optional or (quantifier == "ForAllValues") or (negated and quantifier == "")
    each = [any(matches(value, pattern) for pattern in wanted) != negated for value in actual]
    return any(each) if quantifier == "ForAnyValue" or not (quantifier or negated) else all(each)


def _arn_like(value: str, pattern: str) -> bool:
    """Each of an ARN's six parts matches by itself (Condition operators, ARN)."""
    parts, patterns = value.split(":", 5), pattern.split(":", 5)
    return len(parts) == len(patterns) and all(map(_like, parts, patterns))


def _number(compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    def matches(value: str, pattern: str) -> bool:
        try:
            return compare(float(value), float(pattern))
        except ValueError:
            return False

    return matches


_NEGATED = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NumericNotEquals": "NumericEquals",
}
_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda value, pattern: value == pattern,
    "StringEqualsIgnoreCase": lambda value, pattern: value.lower() == pattern.lower(),
    "StringLike": lambda value, pattern: _like(value, pattern),
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": lambda value, pattern: value.lower() == pattern.lower(),
    "NumericEquals": _number(lambda a, b: a == b),
    "NumericLessThan": _number(lambda a, b: a < b),
    "NumericLessThanEquals": _number(lambda a, b: a <= b),
    "NumericGreaterThan": _number(lambda a, b: a > b),
    "NumericGreaterThanEquals": _number(lambda a, b: a >= b),
}


@functools.lru_cache(maxsize=2048)
def _pattern(text: str) -> re.Pattern[str]:
    # fnmatch knows [sets] as well, which IAM does not.
    return re.compile(fnmatch.translate(text.replace("[", "[[]")))


def _like(value: str, pattern: str) -> bool:
    return _pattern(pattern).fullmatch(value) is not None


def _plain(pattern: str) -> str:
    if "${" in pattern:
        raise NotEvaluated(f"policy variables are not evaluated here: {pattern}")
    return pattern


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
