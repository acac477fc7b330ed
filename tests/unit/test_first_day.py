"""What a deployment looks after on an account's first day: service-linked roles, and the zones of a new network."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from covalent_cirro.deployment import linked_roles, zones
from covalent_cirro.deployment.stack_events import Watch, advice
from covalent_cirro.errors import AccessDenied, AwsError, StackError
from tests.unit.fake_formation import FakeFormation, Time, refusal

ECS, BATCH, SPOT = linked_roles.SERVICES


class FakeIam:
    """The part of IAM that is used here.

    Attributes:
        roles: Names of those that are there.
        hidden: How many looks at a role that is there do not show it yet.
        refused: Code and words of CreateServiceLinkedRole's refusal.
        may_look: Whether GetRole is allowed.
        made: Services for which a role was made.
    """

    def __init__(self, *roles: str) -> None:
        self.meta = SimpleNamespace(region_name="aws-global", endpoint_url="https://iam.amazonaws.com")
        self.roles = set(roles)
        self.hidden = 0
        self.refused: tuple[str, str] | None = None
        self.may_look = True
        self.made: list[str] = []

    def __call__(self, service: str) -> Any:
        assert service == "iam"
        return self

    def get_role(self, RoleName: str) -> dict[str, Any]:
        if not self.may_look:
            raise refusal("GetRole", "not authorized to perform: iam:GetRole", "AccessDenied")
        if RoleName not in self.roles or self.hidden:
            self.hidden = max(0, self.hidden - 1)
            raise refusal("GetRole", f"The role with name {RoleName} cannot be found.", "NoSuchEntity")
        return {}

    def create_service_linked_role(self, AWSServiceName: str) -> dict[str, Any]:
        if self.refused is not None:
            raise refusal("CreateServiceLinkedRole", self.refused[1], self.refused[0])
        self.made.append(AWSServiceName)
        self.roles |= {name for name, service in linked_roles.SERVICES.items() if service == AWSServiceName}
        return {}


def watch(time: Time) -> Watch:
    """Waits in no time."""
    return Watch(FakeFormation(), sleep=time.sleep, clock=time.clock)


def test_only_roles_that_are_missing_are_made() -> None:
    """Each is of its own service."""
    iam = FakeIam(BATCH)
    missing = linked_roles.missing(iam)
    assert missing == (ECS, SPOT)
    linked_roles.make(iam, missing)
    assert iam.made == ["ecs.amazonaws.com", "spot.amazonaws.com"]
    assert linked_roles.missing(iam) == ()


@pytest.mark.parametrize(
    "refused",
    [
        (
            "InvalidInput",
            "Service role name AWSServiceRoleForECS has been taken in this account, please try a different suffix.",
        ),
        ("EntityAlreadyExists", "Role with name AWSServiceRoleForECS already exists."),
    ],
)
def test_a_role_that_is_there_already_is_no_error(refused: tuple[str, str]) -> None:
    """Somebody made it meanwhile, or it may not be looked at; IAM says it in two ways."""
    iam = FakeIam()
    iam.refused, iam.may_look = refused, False
    assert linked_roles.missing(iam) == tuple(linked_roles.SERVICES)
    linked_roles.make(iam, linked_roles.missing(iam))


def test_who_may_not_make_a_role_is_told_what_it_takes() -> None:
    """With the services, before any stack is made."""
    iam = FakeIam()
    iam.refused = ("AccessDenied", "User: ada is not authorized to perform: iam:CreateServiceLinkedRole")
    with pytest.raises(AccessDenied, match=r"iam:CreateServiceLinkedRole for ecs\.amazonaws\.com, batch\..*, spot\."):
        linked_roles.make(iam, linked_roles.missing(iam))


def test_any_other_refusal_is_an_error() -> None:
    """A quota, for one."""
    iam = FakeIam()
    iam.refused = ("LimitExceeded", "Cannot exceed quota for RolesPerAccount: 1000")
    with pytest.raises(AwsError, match="RolesPerAccount"):
        linked_roles.make(iam, [ECS])


def test_new_roles_are_waited_for() -> None:
    """Until IAM shows them, and then until services know them: what has passed since counts."""
    iam, time = FakeIam(ECS), Time()
    iam.hidden = 3
    linked_roles.wait(iam, [ECS], made_at=0.0, watch=watch(time))
    assert time.now == pytest.approx(linked_roles.SETTLES_S)
    before = time.now
    linked_roles.wait(iam, [ECS], made_at=before - 60, watch=watch(time))
    assert time.now == before


def test_a_role_that_never_shows_is_told() -> None:
    """After the time that a deployment may take."""
    iam, time = FakeIam(), Time()
    with pytest.raises(StackError, match=f"IAM does not show the role {ECS}"):
        linked_roles.wait(iam, [ECS], made_at=0.0, watch=watch(time))


@pytest.mark.parametrize(
    "reason",
    [
        "Unable to assume the service linked role. Please verify that the ECS service linked role exists.",
        "The service-linked role AWSServiceRoleForBatch does not exist",
    ],
)
def test_a_stack_that_failed_for_want_of_a_role_is_told_so(reason: str) -> None:
    """AWS spells it in two ways."""
    assert "iam:CreateServiceLinkedRole" in advice(reason)


# --- zones --------------------------------------------------------------------------------------------------------

ABCD = ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("kinds", "endpoints", "chosen"),
    [
        pytest.param(dict.fromkeys(ABCD, 2), set(ABCD), ("a", "b", "c"), id="all alike"),
        pytest.param({"a": 1, "b": 2, "c": 1, "d": 3}, set(ABCD), ("d", "b", "a"), id="more instance types first"),
        pytest.param({"a": 2, "b": 2, "d": 2}, set(ABCD), ("a", "b", "d"), id="none without instance types"),
        pytest.param(dict.fromkeys(ABCD, 2), {"c", "d"}, ("c", "d", "a"), id="endpoints in the first two"),
        pytest.param({"b": 1, "c": 1}, set(ABCD), ("b", "c"), id="two are enough"),
        pytest.param({"b": 1}, set(ABCD), (), id="one is not"),
    ],
)
def test_which_zones_are_best(kinds: dict[str, int], endpoints: set[str], chosen: tuple[str, ...]) -> None:
    """Whatever their names are."""
    assert zones.best(ABCD, kinds, endpoints) == chosen
