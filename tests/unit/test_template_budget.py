"""``infra/budget.yaml``: facts about AWS Budgets that no linter knows."""

from __future__ import annotations

import pytest

from tests.unit.template_facts import TEMPLATES

BUDGET = TEMPLATES["budget"]


@pytest.mark.parametrize(
    ("usd", "email", "fits"), [(0, "", False), (50, "a@b.org", True), (50, "", False), (0, "a@b.org", False)]
)
def test_a_budget_has_a_limit_and_a_reader(usd: int, email: str, fits: bool) -> None:
    """One without the other would look like a guard and be none; with neither there is no such stack."""
    assert (BUDGET.with_values(MonthlyBudgetUsd=usd, BudgetEmail=email).broken_rules() == []) is fits


def test_budget_counts_this_deployment_and_warns_twice() -> None:
    """By its tag; at 80 % of what AWS forecasts, and when all of it is spent. Credits would hide what it costs."""
    stack = BUDGET.with_values(DeploymentName="team", MonthlyBudgetUsd=50, BudgetEmail="a@b.org")
    budget = stack.resources["Budget"]
    assert budget["Budget"]["BudgetLimit"] == {"Amount": "50", "Unit": "USD"}
    assert (budget["Budget"]["BudgetType"], budget["Budget"]["TimeUnit"]) == ("COST", "MONTHLY")
    assert budget["Budget"]["CostFilters"] == {"TagKeyValue": ["user:covalent-cirro$team"]}
    assert budget["Budget"]["CostTypes"] == {"IncludeCredit": False, "IncludeRefund": False}
    told = [
        (each["Notification"]["NotificationType"], each["Notification"]["Threshold"], each["Subscribers"])
        for each in budget["NotificationsWithSubscribers"]
    ]
    reader = [{"SubscriptionType": "EMAIL", "Address": "a@b.org"}]
    assert told == [("FORECASTED", 80, reader), ("ACTUAL", 100, reader)]


def test_budget_has_no_name() -> None:
    """Whom it tells cannot be changed: another one is made first, which cannot have the same name."""
    assert "BudgetName" not in BUDGET.properties("Budget")["Budget"]


def test_nothing_depends_on_the_budget() -> None:
    """A deployment stands without it: it takes nothing from other stacks, and gives them nothing."""
    assert set(BUDGET.resources) == {"Budget"}
    assert BUDGET.outputs == {}
    assert set(BUDGET.parameters) == {"DeploymentName", "MonthlyBudgetUsd", "BudgetEmail"}
