"""IAM's decisions, as the IAM User Guide has them: which statements apply, and what follows from them together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from covalent_cirro.local.emulator.iam.policies import (
    Access,
    Denial,
    NotEvaluated,
    Principal,
    conditions_hold,
    decide,
    explain,
)

ACCOUNT = "123456789012"
USER = f"arn:aws:iam::{ACCOUNT}:user/ada"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/electron"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/electron/task"
GET = Access("s3:GetObject", "arn:aws:s3:::results/cirro/a")
NO_ALLOW = Denial("identity-based policy", explicit=False)


def statement(effect: str = "Allow", **elements: Any) -> dict[str, Any]:
    """A statement on everything, but for what is given."""
    usual = {"Effect": effect, "Action": "*", "Resource": "*"}
    for name in ("Action", "Resource"):
        if f"Not{name}" in elements:
            del usual[name]
    return {**usual, **elements}


def policy(*statements: dict[str, Any]) -> str:
    """A policy document."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def user(*documents: str, **more: Any) -> Principal:
    """A user with policies."""
    return Principal(arn=USER, names=(USER,), account=ACCOUNT, identity=documents, **more)


def test_nothing_is_allowed_unless_a_statement_says_so() -> None:
    """The implicit deny."""
    assert decide(user(), GET) == NO_ALLOW
    assert decide(user(policy()), GET) == NO_ALLOW
    assert decide(user(policy(statement(Action="s3:GetObject"))), GET) is None


def test_a_deny_wins_over_every_allow() -> None:
    """Wherever either stands."""
    allow, deny = policy(statement()), policy(statement("Deny", Action="s3:*"))
    assert decide(user(allow, deny), GET) == Denial("identity-based policy", explicit=True)
    assert decide(user(deny, allow), GET) == Denial("identity-based policy", explicit=True)
    assert decide(user(allow, deny), Access("batch:SubmitJob")) is None


@pytest.mark.parametrize(
    ("elements", "applies"),
    [
        ({"Action": "s3:GetObject"}, True),
        ({"Action": "S3:getobject"}, True),
        ({"Action": ["s3:PutObject", "s3:Get*"]}, True),
        ({"Action": "s3:Get?bject"}, True),
        ({"Action": "s3:GetObjectAcl"}, False),
        ({"NotAction": "s3:PutObject"}, True),
        ({"NotAction": ["batch:*", "s3:Get*"]}, False),
        ({"Resource": "arn:aws:s3:::results/cirro/*"}, True),
        ({"Resource": "arn:aws:s3:::results/*/a"}, True),
        ({"Resource": "arn:aws:s3:::results/cirro/?"}, True),
        ({"Resource": "arn:aws:s3:::results/cirro"}, False),
        ({"Resource": "arn:aws:s3:::RESULTS/cirro/*"}, False),
        ({"Resource": "arn:aws:s3:::results/cirro/[a]"}, False),
        ({"NotResource": "arn:aws:s3:::results/other/*"}, True),
        ({"NotResource": "arn:aws:s3:::results/*"}, False),
    ],
)
def test_action_and_resource(elements: dict[str, Any], applies: bool) -> None:
    """Wildcards are ``*`` and ``?``; actions have no case, ARNs do."""
    assert (decide(user(policy(statement(**elements))), GET) is None) == applies


CONTEXT = {
    "s3:prefix": ["cirro/jobs"],
    "batch:Privileged": ["false"],
    "aws:SourceArn": ["arn:aws:ecs:us-east-1:1:cluster/x"],
    "s3:max-keys": ["10"],
    "aws:TagKeys": ["team", "cost"],
    "aws:ResourceTag/covalent:dispatch": ["d"],
}


@pytest.mark.parametrize(
    ("operator", "key", "value", "holds"),
    [
        ("StringEquals", "s3:prefix", "cirro/jobs", True),
        ("StringEquals", "s3:prefix", ["x", "cirro/jobs"], True),
        ("StringEquals", "s3:prefix", "cirro/*", False),
        ("StringEquals", "S3:PREFIX", "cirro/jobs", True),
        ("StringEquals", "s3:absent", "x", False),
        ("StringEqualsIfExists", "s3:absent", "x", True),
        ("StringEqualsIgnoreCase", "s3:prefix", "CIRRO/jobs", True),
        ("StringNotEquals", "s3:prefix", "cirro/jobs", False),
        ("StringNotEquals", "s3:prefix", ["x", "cirro/jobs"], False),
        ("StringNotEquals", "s3:prefix", ["x", "y"], True),
        ("StringNotEquals", "s3:absent", "x", True),
        ("StringNotEqualsIgnoreCase", "s3:prefix", "CIRRO/JOBS", False),
        ("StringLike", "s3:prefix", "cirro/*", True),
        ("StringLike", "s3:prefix", "cirr?", False),
        ("StringLikeIfExists", "s3:prefix", "other/*", False),
        ("StringLikeIfExists", "s3:absent", "other/*", True),
        ("StringNotLike", "s3:prefix", "cirro/*", False),
        ("Bool", "batch:Privileged", "false", True),
        ("Bool", "batch:Privileged", "true", False),
        ("Bool", "s3:absent", "false", False),
        ("BoolIfExists", "s3:absent", "false", True),
        ("Null", "s3:absent", "true", True),
        ("Null", "s3:absent", "false", False),
        ("Null", "aws:ResourceTag/covalent:dispatch", "false", True),
        ("Null", "aws:ResourceTag/covalent:dispatch", "true", False),
        ("ArnLike", "aws:SourceArn", "arn:aws:ecs:*:1:*", True),
        ("ArnEquals", "aws:SourceArn", "arn:aws:ecs:us-east-1:1:cluster/*", True),
        ("ArnLike", "aws:SourceArn", "arn:aws:*", False),
        ("ArnNotLike", "aws:SourceArn", "arn:aws:ecs:*:1:*", False),
        ("NumericEquals", "s3:max-keys", "10", True),
        ("NumericLessThan", "s3:max-keys", "10", False),
        ("NumericLessThanEquals", "s3:max-keys", "10", True),
        ("NumericGreaterThan", "s3:max-keys", "9.5", True),
        ("NumericGreaterThanEquals", "s3:max-keys", "11", False),
        ("NumericNotEquals", "s3:max-keys", "11", True),
        ("NumericEquals", "s3:prefix", "10", False),
        ("ForAllValues:StringEquals", "aws:TagKeys", ["team", "cost", "x"], True),
        ("ForAllValues:StringEquals", "aws:TagKeys", ["team"], False),
        ("ForAllValues:StringEquals", "s3:absent", ["team"], True),
        ("ForAnyValue:StringEquals", "aws:TagKeys", ["cost"], True),
        ("ForAnyValue:StringEquals", "aws:TagKeys", ["x"], False),
        ("ForAnyValue:StringEquals", "s3:absent", ["x"], False),
        ("ForAllValues:StringNotEquals", "aws:TagKeys", ["x"], True),
        ("ForAllValues:StringNotEquals", "aws:TagKeys", ["cost"], False),
        ("ForAnyValue:StringNotEquals", "aws:TagKeys", ["cost"], True),
    ],
)
def test_condition_operators(operator: str, key: str, value: Any, holds: bool) -> None:
    """Absent keys match nothing, but hold with IfExists, ForAllValues and negated operators."""
    assert conditions_hold({operator: {key: value}}, CONTEXT) == holds


def test_all_conditions_must_hold() -> None:
    """Operators and keys are joined by and, values by or."""
    both = {"StringLike": {"s3:prefix": "cirro/*"}, "Bool": {"batch:Privileged": "false"}}
    assert conditions_hold(both, CONTEXT)
    assert not conditions_hold({**both, "Null": {"s3:prefix": "true"}}, CONTEXT)


@pytest.mark.parametrize(
    "elements",
    [
        {"Condition": {"DateLessThan": {"aws:CurrentTime": "2030-01-01"}}},
        {"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}},
        {"Condition": {"ForNoValue:StringEquals": {"aws:TagKeys": "x"}}},
        {"Resource": "arn:aws:s3:::results/${aws:username}/*"},
        {"Condition": {"StringLike": {"s3:prefix": "${aws:username}/*"}}},
    ],
)
def test_what_is_not_evaluated_is_an_error(elements: dict[str, Any]) -> None:
    """Neither allowed nor denied in silence; a statement about something else does no harm."""
    with pytest.raises(NotEvaluated, match="not evaluated here"):
        decide(user(policy(statement(**elements))), GET)
    assert decide(user(policy(statement(Action="batch:*", **elements), statement())), GET) is None


def test_a_boundary_and_a_session_policy_limit() -> None:
    """Both must allow as well; neither allows by itself."""
    some, everything = policy(statement(Action="s3:Get*")), policy(statement())
    put = Access("s3:PutObject", GET.resource)
    bounded = user(everything, boundary=some)
    assert decide(bounded, GET) is None
    assert decide(bounded, put) == Denial("permissions boundary", explicit=False)
    assert decide(user(boundary=some), GET) == NO_ALLOW
    assert decide(user(everything, session=some), put) == Denial("session policy", explicit=False)


@pytest.mark.parametrize(
    ("effect", "principal", "expected"),
    [
        ("Allow", "*", None),
        ("Allow", {"AWS": "*"}, None),
        ("Allow", {"AWS": [USER, "arn:aws:iam::999999999999:root"]}, None),
        ("Allow", {"AWS": f"arn:aws:iam::{ACCOUNT}:user/eve"}, NO_ALLOW),
        ("Allow", {"AWS": ACCOUNT}, NO_ALLOW),
        ("Allow", {"Service": "ecs-tasks.amazonaws.com"}, NO_ALLOW),
        ("Deny", {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, Denial("resource-based policy", explicit=True)),
    ],
)
def test_resource_based_policies(effect: str, principal: Any, expected: Denial | None) -> None:
    """One that names the caller allows; one that names the account leaves that to the identity-based policies."""
    assert decide(user(), GET, [policy(statement(effect, Principal=principal))]) == expected


def test_a_session_is_its_role_too() -> None:
    """A bucket policy can name either."""
    session = Principal(arn=SESSION, names=(SESSION, ROLE), account=ACCOUNT)
    for name in session.names:
        assert decide(session, GET, [policy(statement(Principal={"AWS": name}))]) is None


def test_not_principal_is_an_error() -> None:
    """AWS advises against it, and so it is not evaluated."""
    with pytest.raises(NotEvaluated, match="NotPrincipal"):
        decide(user(), GET, [policy(statement("Deny", NotPrincipal={"AWS": USER}))])


def test_the_words() -> None:
    """As AWS says them, S3 with the resource in quotes."""
    assert explain(user(), Access("batch:ListJobs"), NO_ALLOW) == (
        f"User: {USER} is not authorized to perform: batch:ListJobs on resource: * because no identity-based policy "
        "allows the batch:ListJobs action"
    )
    assert explain(user(), GET, Denial("resource-based policy", explicit=True), quoted=True) == (
        f'User: {USER} is not authorized to perform: s3:GetObject on resource: "arn:aws:s3:::results/cirro/a" with an '
        "explicit deny in a resource-based policy"
    )
