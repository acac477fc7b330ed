"""A deployment on the first day of an account: roles that it lacks, billing that is closed, zones that lack things."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from covalent_cirro import deployment
from covalent_cirro.deployment import holdings, linked_roles, stacks, teardown, templates, zones
from covalent_cirro.deployment.plans import PARTS, Plan
from covalent_cirro.errors import AccessDenied, StackError
from covalent_cirro.local.emulator import Emulator

_names = (f"first-{number}" for number in itertools.count(1))
BUDGET = {"MonthlyBudgetUsd": 50, "BudgetEmail": "ada@example.org"}


class Place:
    """An account, and a name for a deployment in it."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.name = next(_names)
        self.clients: Callable[[str], Any] = functools.cache(emulator.client)
        self.plans: list[Plan] = []

    def lacks(self, **what: Any) -> None:
        """Set what the account lacks (`emulator.new_account`)."""
        self.emulator.account_settings.update({"new": what})

    def deploy(self, parameters: dict[str, object] | None = None, **more: Any) -> deployment.Deployed:
        """Make a deployment, or change it."""

        def confirm(plan: Plan) -> bool:
            self.plans.append(plan)
            return True

        given = {"clients": self.clients, "confirm": confirm, "sleep": lambda _: None, **more}
        return deployment.deploy(self.clients("cloudformation"), self.name, parameters, **given)

    def stacks(self) -> dict[str, str]:
        """Its stacks that are there, with their status."""
        found = self.clients("cloudformation").describe_stacks()["Stacks"]
        return {each["StackName"].removeprefix(f"{self.name}-"): each["StackStatus"] for each in found}

    def roles(self) -> set[str]:
        """The service-linked roles of the account."""
        found = self.clients("iam").list_roles()["Roles"]
        return {each["RoleName"] for each in found if each["Path"].startswith("/aws-service-role/")}

    def budgets(self) -> list[float]:
        """Limits of all budgets of the account."""
        found = self.clients("budgets").describe_budgets(AccountId=self.emulator.account).get("Budgets", [])
        return [float(each["BudgetLimit"]["Amount"]) for each in found]

    def zones(self) -> list[str]:
        """The zones of its subnets, in their order."""
        ids = deployment.outputs(self.clients("cloudformation"), self.name)["SubnetIds"].split(",")
        found = self.clients("ec2").describe_subnets(SubnetIds=ids)["Subnets"]
        return [next(each["AvailabilityZone"] for each in found if each["SubnetId"] == subnet) for subnet in ids]

    def destroy(self) -> holdings.Proof:
        """Delete it."""
        return teardown.destroy(self.clients, holdings.survey(self.clients, self.name), sleep=lambda _: None)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One emulated AWS for all tests here; each leaves an account that is new again."""
    with Emulator(state_dir=tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture
def here(emulator: Emulator) -> Iterator[Place]:
    """A new account, where nothing of the deployment is left when the test is over."""
    place = Place(emulator)
    yield place
    place.lacks(linked_roles_needed=False, billing_access=True, absent_endpoints={})
    emulator.account_settings.update({"absent_types": {}})
    assert place.destroy().left == ()
    assert place.budgets() == []
    for role in place.roles():
        place.clients("iam").delete_role(RoleName=role)


# --- service-linked roles -----------------------------------------------------------------------------------------


def test_without_its_roles_a_new_account_has_no_compute_environment(here: Place) -> None:
    """In AWS's words, with what helps."""
    here.lacks(linked_roles_needed=True)
    with pytest.raises(StackError, match="Unable to assume the service linked role") as failed:
        here.deploy(clients=None)
    assert "iam:CreateServiceLinkedRole" in str(failed.value)
    assert "deploy again then" in str(failed.value)


def test_the_roles_that_an_account_lacks_are_made_first(here: Place) -> None:
    """They are shown with the plan, made once, and stay when the deployment is deleted."""
    here.lacks(linked_roles_needed=True)
    here.clients("iam").create_service_linked_role(AWSServiceName="spot.amazonaws.com")
    assert here.deploy().changed
    assert here.plans[0].linked_roles == ("AWSServiceRoleForECS", "AWSServiceRoleForBatch")
    assert here.roles() == set(linked_roles.SERVICES)
    here.deploy({"CpuSpotMaxVcpus": 8})
    assert here.plans[-1].linked_roles == ()
    here.destroy()
    assert here.roles() == set(linked_roles.SERVICES)


# --- the budget ---------------------------------------------------------------------------------------------------


def test_a_budget_that_may_not_be_made_does_not_take_the_deployment_down(here: Place) -> None:
    """The rest is made, the reason is shown with the remedy, and the next try makes it."""
    here.lacks(billing_access=False)
    made = here.deploy(BUDGET)
    assert [here.stacks()[part] for part in PARTS] == ["CREATE_COMPLETE"] * 4
    [problem] = made.problems
    assert "budgets:ModifyBudget" in problem
    assert "IAM user and role access to Billing information" in problem
    assert here.budgets() == []
    [again] = here.deploy().problems
    assert "budgets:ModifyBudget" in again
    here.lacks(billing_access=True)
    assert here.deploy().problems == ()
    assert here.budgets() == [50.0]
    assert here.deploy().changed is False


def test_who_gives_up_on_a_budget_says_so(here: Place) -> None:
    """What is left of the try is deleted."""
    here.lacks(billing_access=False)
    here.deploy(BUDGET)
    assert here.deploy({"MonthlyBudgetUsd": 0}).problems == ()
    assert set(here.stacks()) == set(PARTS)


def test_a_budget_comes_changes_and_goes(here: Place) -> None:
    """A stack of its own, which the others do not know."""
    here.deploy(BUDGET)
    assert here.budgets() == [50.0]
    here.deploy({"MonthlyBudgetUsd": 75})
    assert [part.part for part in here.plans[-1].parts if part.action != "none"] == ["budget"]
    assert here.budgets() == [75.0]
    here.deploy({"MonthlyBudgetUsd": 0})
    assert here.budgets() == []
    assert set(here.stacks()) == set(PARTS)


def with_its_budget_in_compute(place: Place) -> None:
    """A deployment as an earlier version made it."""
    place.deploy()
    client = place.clients("cloudformation")
    stack = stacks.find(client, f"{place.name}-compute")
    assert stack is not None
    budget, compute = templates.body("budget"), templates.body("compute")
    parameters = budget[budget.index("  MonthlyBudgetUsd:\n") : budget.index("\nRules:\n")]
    resource = budget[budget.index("  Budget:\n    Type:") :]
    body = compute.replace("\nRules:\n", f"\n{parameters}\nRules:\n").replace(
        "\nOutputs:\n", f"\n{resource}\nOutputs:\n"
    )
    given = [{"ParameterKey": name, "UsePreviousValue": True} for name in stack.parameters]
    given += [{"ParameterKey": name, "ParameterValue": str(value)} for name, value in BUDGET.items()]
    client.update_stack(StackName=stack.name, TemplateBody=body, Parameters=given, Capabilities=["CAPABILITY_IAM"])
    assert place.stacks()["compute"] == "UPDATE_COMPLETE"
    assert place.budgets() == [50.0]


def test_the_budget_of_an_earlier_version_moves_to_its_own_stack(here: Place) -> None:
    """With its limit and its address, without giving them again; there is one budget in the end."""
    with_its_budget_in_compute(here)
    assert here.deploy().problems == ()
    assert here.budgets() == [50.0]
    budget = stacks.find(here.clients("cloudformation"), f"{here.name}-budget")
    assert budget is not None
    assert budget.parameters["BudgetEmail"] == "ada@example.org"
    assert here.deploy().changed is False


def test_a_budget_is_not_lost_where_the_new_one_cannot_be_made(here: Place) -> None:
    """Then the deployment is not changed at all."""
    with_its_budget_in_compute(here)
    here.lacks(billing_access=False)
    with pytest.raises(StackError, match="budgets:ModifyBudget"):
        here.deploy()
    assert here.budgets() == [50.0]


# --- zones --------------------------------------------------------------------------------------------------------


def test_a_zone_without_an_endpoint_fails_where_nobody_looks(here: Place) -> None:
    """AWS names zones in an order that says nothing of what they have."""
    here.lacks(absent_endpoints={"ecs-agent": ["us-east-1a"]})
    with pytest.raises(StackError, match="does not support the availability zone"):
        here.deploy({"Subnets": "private"}, clients=None)


def test_a_new_network_is_in_zones_that_have_what_it_needs(here: Place) -> None:
    """Endpoints in the first two, and the more instance types the better; it stays there whatever happens later."""
    here.lacks(absent_endpoints={"ecs-agent": ["us-east-1a"]})
    here.emulator.account_settings.update({"absent_types": {"*": ["us-east-1b"], "g5.*": ["us-east-1c"]}})
    here.deploy({"Subnets": "private", "CpuInstanceTypes": "m6i,c6i"})
    chosen = here.zones()
    assert chosen == ["us-east-1d", "us-east-1f", "us-east-1c"]
    here.lacks(absent_endpoints={"*": ["us-east-1d"]})
    assert here.deploy().changed is False
    assert here.zones() == chosen


def test_the_users_zones_and_number_are_taken_as_they_are(here: Place) -> None:
    """There is no other information."""
    here.deploy({"Zones": "us-east-1f,us-east-1b"})
    assert here.zones() == ["us-east-1f", "us-east-1b"]


def test_subnets_of_an_earlier_version_stay_where_they_are(here: Place) -> None:
    """It knew their number alone."""
    here.deploy({"Zones": 3})
    before = deployment.outputs(here.clients("cloudformation"), here.name)["SubnetIds"]
    here.emulator.account_settings.update({"absent_types": {"*": ["us-east-1a"]}})
    assert here.deploy().changed is False
    assert deployment.outputs(here.clients("cloudformation"), here.name)["SubnetIds"] == before


def test_zones_are_left_to_aws_where_ec2_may_not_be_asked(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no reason not to deploy."""

    def refuse(client: Any, names: Any) -> Any:
        raise AccessDenied("you may not", operation="ec2:DescribeInstanceTypeOfferings", code="UnauthorizedOperation")

    monkeypatch.setattr(zones, "offered_zones", refuse)
    said: list[str] = []
    here.deploy(say=said.append)
    assert here.zones() == ["us-east-1a", "us-east-1b", "us-east-1c"]
    assert "the zones are left to AWS: you may not" in said
