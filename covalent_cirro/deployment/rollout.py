"""Plans and executes the creation or update of a deployment, by change sets of CloudFormation.

Decisions are made by `plans`. This module must not know the terminal or Covalent's config.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from covalent_cirro.deployment import change_sets, linked_roles, plans, stacks, templates, zones
from covalent_cirro.deployment.change_sets import Change, ChangeSet
from covalent_cirro.deployment.holdings import Client
from covalent_cirro.deployment.plans import BUDGET, PARTS, STACKS, PartPlan, Plan, stack_name
from covalent_cirro.deployment.running_jobs import RunningJobs
from covalent_cirro.deployment.stack_events import Watch, because
from covalent_cirro.deployment.stacks import Stack
from covalent_cirro.errors import AwsError, Declined, StackError
from covalent_cirro.jobs.formatting import sentences

FAILED_CREATION = "ROLLBACK_COMPLETE"
"""Status of a stack whose creation failed: it has no resources, and can only be deleted and created again."""


BUDGET_REMEDY = (
    "Budgets are a part of billing: IAM users and roles may see it only once the account's root user has switched on "
    '"IAM user and role access to Billing information" (console, Account), and then need budgets:ViewBudget and '
    "budgets:ModifyBudget. Deploy again then; or do without it: --parameter MonthlyBudgetUsd=0."
)
"""Billing and Cost Management User Guide, Overview of managing access permissions."""


class Rollout:
    """One creation or update of a deployment. Change sets that were not executed are deleted at its end.

    Args:
        client: A boto3 CloudFormation client.
        name: Name of the deployment.
        given: Parameters that the user gave.
        clients, watch, jobs, confirm, say: See `deployment.deploy`.

    Attributes:
        outputs: Outputs of the existing stacks.
        problems: Optional parts that could not be created.
    """

    def __init__(
        self,
        client: Any,
        name: str,
        given: Mapping[str, str],
        *,
        clients: Client | None,
        watch: Watch,
        jobs: RunningJobs,
        confirm: Callable[[Plan], bool] | None,
        say: Callable[[str], None],
    ) -> None:
        self.outputs: dict[str, str] = {}
        self.problems: list[str] = []
        self._client = client
        self._clients = clients
        self._name = name
        self._given = given
        self._watch = watch
        self._jobs = jobs
        self._confirm = confirm
        self._say = say
        self._stacks: dict[str, Stack | None] = {}
        self._values: dict[str, dict[str, str]] = {}
        self._pending: dict[str, ChangeSet] = {}
        self._linked_roles: tuple[str, ...] = ()
        self._roles_made_at = 0.0

    def __enter__(self) -> Rollout:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for change_set in self._pending.values():
            try:
                change_sets.discard(self._client, change_set)
            except AwsError:
                if error is None:  # else the first error is raised
                    raise

    def plan(self) -> Plan:
        """Read all stacks, and ask CloudFormation what would change."""
        for part in (*PARTS, BUDGET):  # whether the budget may fail depends on the compute stack
            self._stacks[part] = None
            with self._budget_may_fail(part):
                self._stacks[part] = self._usable(part)
        for part in STACKS:
            stack = self._stacks[part]
            if stack is not None and stack.is_ready:
                self.outputs |= stack.outputs
        self._choose_zones()
        for part in STACKS:
            if part != BUDGET or plans.wants_budget(self._values_of(part)) or self._given.get(plans.BUDGET_EMAIL):
                plans.check_values(part, self._values_of(part))
                plans.check_change(part, self._values_of(part), self._stacks[part])
        planned = {part: self._plan_budget() if part == BUDGET else self._plan(part) for part in STACKS}
        if planned[BUDGET].action == "none":
            del planned[BUDGET]
        if self._clients is not None and planned["compute"].action in ("create", "recreate"):
            self._linked_roles = linked_roles.missing(self._clients)
        region, parts = str(self._client.meta.region_name), tuple(planned.values())
        return Plan(self._name, self._account(), region, parts, self._linked_roles)

    def ask_about_jobs(self) -> None:
        """Before anything is changed: ask what is to be done about jobs on instances that the plan replaces."""
        for part, change_set in self._pending.items():
            self._jobs.ask(change_set.changes, self._job_minutes(part))

    def make_linked_roles(self) -> None:
        """Create the roles that the account lacks: first, so that services know them when the last stack needs them."""
        if self._clients is not None and self._linked_roles:
            self._say(f"making {', '.join(self._linked_roles)}, which the account lacks")
            linked_roles.make(self._clients, self._linked_roles)
            self._roles_made_at = self._watch.now()

    def carry_out(self, shown: PartPlan) -> bool:
        """Make the changes of one stack; returns whether there were any."""
        changed = False
        with self._budget_may_fail(shown.part):
            changed = self._carry_out(shown)
        return changed

    def _carry_out(self, shown: PartPlan) -> bool:
        part, stack = shown.part, self._stacks[shown.part]
        if shown.action == "remove":
            assert stack is not None
            self._remove(stack, f"deleting the stack {stack.name}, which is no longer wanted")
            return True
        if part == "compute":
            self._wait_for_linked_roles()
        if self._values_of(part) == self._values[part] and shown.action in ("create", "update") and not shown.foreseen:
            change_set: ChangeSet | None = self._pending[part]
        elif self._values_of(part) == self._values[part] and shown.action == "none":
            return False
        else:
            change_set = self._made_anew(shown)
        if change_set is None:
            return False
        self._jobs.before(change_set.changes, self._job_minutes(part))
        before = stacks.get(self._client, change_set.stack_id)
        self._say(f"{'creating' if before.is_empty_shell else 'updating'} the stack {before.name}")
        self._watch.begin(before)
        change_sets.execute(self._client, before.name, change_set)
        del self._pending[part]
        stack = self._watch.ended(change_set.stack_id)
        if stack.status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            failed = self._watch.failure(stack, "created" if before.is_empty_shell else "updated")
            raise StackError(f"{failed}{self._what_stays()}")
        self._stacks[part] = stack
        gone = before.outputs.keys() - stack.outputs.keys()
        self.outputs = {key: value for key, value in self.outputs.items() if key not in gone} | stack.outputs
        return True

    def _job_minutes(self, part: str) -> int:
        return int(self._values[part].get(plans.JOB_MINUTES, "0"))

    def _usable(self, part: str) -> Stack | None:
        """The stack of a part, once nobody changes it; `None` where it is to be created."""
        stack = stacks.find(self._client, stack_name(self._name, part))
        if stack is None:
            return None
        stacks.require_ours(stack)
        stack = self._watch.settled(stack)
        if stack.is_gone:
            return None
        if stack.is_ready or stack.is_empty_shell or stack.status == FAILED_CREATION:
            return stack
        next_step = (
            "Continue its rollback in the CloudFormation console, then deploy again."
            if stack.status == "UPDATE_ROLLBACK_FAILED"
            else f"Remove what is left with `cirro destroy --stack-name {self._name}`, then deploy again."
        )
        raise StackError(
            f"stack {stack.name!r} is {stack.status} and cannot be updated{because(stack.reason)}. {next_step}"
        )

    def _values_of(self, part: str) -> dict[str, str]:
        stack = self._stacks[part]
        if part == BUDGET and stack is None:
            stack = self._stacks["compute"]  # older deployments have the budget there: its values are kept
        return plans.values_of(part, self._name, self._given, stack, self.outputs)

    def _choose_zones(self) -> None:
        """Choose zones that have the instance types, for a new network for which the user names none."""
        network = self._stacks["network"]
        if (
            self._clients is None
            or (network is not None and network.is_ready)
            or plans.ZONES in self._given
            or self._values_of("network").get("ExistingVpcId")
        ):
            return
        compute, subnets = self._values_of("compute"), self._values_of("network")["Subnets"]
        try:
            chosen = zones.choose(self._clients, plans.instance_types(compute), private=subnets == "private")
        except AwsError as error:
            self._say(f"the zones are left to AWS: {error}")
            return
        if chosen:
            self._given = {**self._given, plans.ZONES: ",".join(chosen)}

    def _wait_for_linked_roles(self) -> None:
        if self._clients is not None and self._linked_roles:
            self._say("waiting until services know the new roles")
            linked_roles.wait(self._clients, self._linked_roles, self._roles_made_at, self._watch)

    # --- the budget ---

    @contextlib.contextmanager
    def _budget_may_fail(self, part: str) -> Iterator[None]:
        """Turn a failure of the budget into a problem, unless the compute stack's budget would be lost by it."""
        compute = self._stacks.get("compute")
        has_one = compute is not None and plans.wants_budget(compute.parameters)
        try:
            yield
        except (StackError, AwsError) as error:
            if part != BUDGET or has_one:
                raise
            self.problems.append(sentences(f"the budget is not as it should be: {error}", BUDGET_REMEDY))

    def _plan_budget(self) -> PartPlan:
        stack, nothing = self._stacks[BUDGET], PartPlan(BUDGET, stack_name(self._name, BUDGET), "none")
        self._values[BUDGET] = self._values_of(BUDGET)
        if self.problems:
            return nothing
        if not plans.wants_budget(self._values[BUDGET]):
            removed = (Change("Remove", "Budget", "AWS::Budgets::Budget"),)
            return (
                nothing if stack is None or stack.is_empty_shell else nothing._replace(action="remove", changes=removed)
            )
        planned = nothing
        with self._budget_may_fail(BUDGET):
            planned = self._plan(BUDGET)
        return planned

    # --- one stack ---

    def _plan(self, part: str) -> PartPlan:
        stack = self._stacks[part]
        values = self._values[part] = self._values_of(part)
        exists = stack is not None and stack.is_ready
        planned = PartPlan(
            part,
            stack_name(self._name, part),
            "update" if exists else "create",
            parameters=plans.changed_parameters(part, values, stack if exists else None),
        )
        failed = stack is not None and stack.status == FAILED_CREATION
        if not failed and plans.linked(part).keys() <= values.keys():
            change_set = self._make(part)
            return (
                planned._replace(action="none") if change_set is None else planned._replace(changes=change_set.changes)
            )
        if exists:
            return planned._replace(action="later")
        changes = plans.foresee(part, values)
        return planned._replace(action="recreate" if failed else "create", changes=changes, foreseen=True)

    def _make(self, part: str) -> ChangeSet | None:
        """Create a change set with the parameters as they are now, and remember their values."""
        self._say(f"comparing the stack {stack_name(self._name, part)} with its template")
        stack, values = self._stacks[part], self._values_of(part)
        self._values[part] = values
        given = values if part == BUDGET else self._given  # a new budget may have the compute stack's values
        sent, kept = plans.sent_and_kept(part, values, given, stack)
        request = change_sets.build_request(
            stack_name(self._name, part),
            stack,
            body=templates.body(part),
            values=sent,
            kept=kept,
            tags={plans.TAG: self._name},
        )
        there = None if stack is None or stack.status == FAILED_CREATION else stack
        change_set = change_sets.make(self._client, self._watch, request, there)
        if change_set is not None:
            self._pending[part] = change_set
        return change_set

    def _made_anew(self, shown: PartPlan) -> ChangeSet | None:
        """Create a change set with the outputs as they are now; ask again where it changes more than was shown."""
        part = shown.part
        if part in self._pending:
            change_sets.discard(self._client, self._pending.pop(part))
        stack = self._stacks[part]
        if stack is not None and stack.status == FAILED_CREATION:
            self._remove(stack, f"removing the rest of the stack {stack.name}, whose creation failed")
        plans.check_values(part, self._values_of(part))
        change_set = self._make(part)
        if change_set is None:
            return None
        more = plans.not_shown(shown, change_set.changes)
        if more and self._confirm is not None:
            again = shown._replace(
                action="update" if stack is not None and stack.is_ready else "create", changes=more, foreseen=False
            )
            if not self._confirm(Plan(self._name, self._account(), str(self._client.meta.region_name), (again,))):
                raise Declined(f"stack {shown.stack_name!r} was not changed: you said no.{self._what_stays()}")
        return change_set

    def _remove(self, stack: Stack, words: str) -> None:
        self._say(words)
        self._watch.begin(stack)
        stacks.begin_delete(self._client, stack)
        gone = self._watch.ended(stack.stack_id)
        if not gone.is_gone:
            raise self._watch.failure(gone, "deleted")

    def _what_stays(self) -> str:
        ready = [stack.name for stack in self._stacks.values() if stack is not None and stack.is_ready]
        return f" The other stacks stay ({', '.join(ready)}): deploying again goes on from there." if ready else ""

    def _account(self) -> str:
        arns = [each.stack_id for each in (*self._stacks.values(), *self._pending.values()) if each is not None]
        return next((arn.split(":")[4] for arn in arns), "")
