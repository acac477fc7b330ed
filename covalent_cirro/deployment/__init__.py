"""A deployment: four CloudFormation stacks, made or brought up to date in their order, each by a change set.

`plans` decides what is to be done, and `teardown` is the way back. It must not know the terminal or Covalent's config.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple

from covalent_cirro.deployment import change_sets, plans, stacks, templates
from covalent_cirro.deployment.change_sets import ChangeSet
from covalent_cirro.deployment.holdings import Client
from covalent_cirro.deployment.plans import DEFAULT_NAME, PARTS, PartPlan, Plan, stack_name
from covalent_cirro.deployment.running_jobs import REFUSE, Choose, RunningJobs
from covalent_cirro.deployment.stack_events import TIMEOUT_S, StackEvent, Watch, because
from covalent_cirro.deployment.stacks import Stack, settings_from_outputs
from covalent_cirro.errors import AwsError, Declined, NotFound, StackError

__all__ = ["PARTS", "Deployed", "Plan", "deploy", "outputs", "stack_name"]

FAILED_CREATION = "ROLLBACK_COMPLETE"
"""Status of a stack of which nothing is left but its name: it can only be deleted, and then made anew."""


class Deployed(NamedTuple):
    """A deployment that is ready.

    Attributes:
        name: Its name.
        outputs: Outputs of all its stacks.
        changed: Whether anything was made or changed.
    """

    name: str
    outputs: dict[str, str]
    changed: bool

    @property
    def settings(self) -> dict[str, str]:
        """The executor's settings (`stacks.settings_from_outputs`)."""
        return settings_from_outputs(self.outputs)


def deploy(
    client: Any,
    name: str = DEFAULT_NAME,
    parameters: Mapping[str, object] | None = None,
    *,
    clients: Client | None = None,
    confirm: Callable[[Plan], bool] | None = None,
    on_running_jobs: Choose = lambda found: REFUSE,
    on_event: Callable[[StackEvent], None] | None = None,
    say: Callable[[str], None] = lambda step: None,
    timeout_s: float = TIMEOUT_S,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Deployed:
    """Make a deployment, or bring it up to date, and wait until it is ready.

    One that is as asked for stays untouched. A stack that somebody else changes just now is waited for; one whose first
    creation failed is removed and made anew. Where it fails, the stacks made before stay, and the next call goes on
    from there.

    Args:
        client: A boto3 CloudFormation client.
        name: The deployment's: letters, digits and hyphens, beginning with a letter.
        parameters: Of the templates. Those left out keep their value, or get the default.
        clients: Makes boto3 clients of other services, which know what CloudFormation does not: jobs that run. Unset:
            nobody is asked for that.
        confirm: Shown what will change before anything does, and again if more turns out to change than was shown;
            says whether to go on. Unset: go on.
        on_running_jobs: Says what is to be done about jobs that run on instances which are to be replaced, one of
            `running_jobs.CHOICES`. Unset: nothing is changed then.
        on_event: Called with each event of a stack, in order, while waiting.
        say: Told each step, in a few words.
        timeout_s: Seconds to wait in all, jobs excepted. What is under way goes on in AWS after that.
        sleep: Waits for seconds.
        clock: Seconds, monotonic.

    Raises:
        SettingsError: A parameter that does not exist or a value that is impossible; nothing was changed.
        Declined: ``confirm`` said no; its change sets are deleted.
        StackError: Jobs run and are not to be disturbed. Or it failed, with the event that caused it and AWS's reason;
            a stack is not one of ours, or its state forbids updates; or the time is over.
        AccessDenied, AwsError: CloudFormation refused or could not be reached.
    """
    given = plans.check(name, parameters or {})
    watch = Watch(client, on_event, timeout_s=timeout_s, sleep=sleep, clock=clock)
    jobs = RunningJobs(clients, on_running_jobs, watch, say)
    with _Run(client, name, given, watch, jobs, confirm, say) as run:
        plan = run.plan()
        if not plan.changes_anything:
            return Deployed(name, run.outputs, changed=False)
        run.ask_about_jobs()
        if confirm is not None and not confirm(plan):
            raise Declined("nothing was changed: you said no.")
        changed = [run.carry_out(part) for part in plan.parts]
        return Deployed(name, run.outputs, changed=any(changed))


def outputs(client: Any, name: str = DEFAULT_NAME) -> dict[str, str]:
    """The outputs of all stacks of a deployment, as far as they are there.

    Raises:
        NotFound: None of them is.
        StackError: One of that name is not one of ours.
    """
    found: dict[str, str] = {}
    there = False
    for part in PARTS:
        stack = stacks.find(client, stack_name(name, part))
        if stack is not None and not stack.is_empty_shell:
            stacks.require_ours(stack)
            there = True
            found |= stack.outputs
    if not there:
        raise NotFound(
            f"there is no deployment {name!r} in {client.meta.region_name}. Check its name and the region, or make it "
            "with `cirro deploy`.",
            operation="cloudformation:DescribeStacks",
            code="ValidationError",
        )
    return found


class _Run:
    """One deployment while it is planned and carried out. Change sets that were not executed go when it ends."""

    def __init__(
        self,
        client: Any,
        name: str,
        given: Mapping[str, str],
        watch: Watch,
        jobs: RunningJobs,
        confirm: Callable[[Plan], bool] | None,
        say: Callable[[str], None],
    ) -> None:
        self.outputs: dict[str, str] = {}
        self._client = client
        self._name = name
        self._given = given
        self._watch = watch
        self._jobs = jobs
        self._confirm = confirm
        self._say = say
        self._stacks: dict[str, Stack | None] = {}
        self._values: dict[str, dict[str, str]] = {}
        self._pending: dict[str, ChangeSet] = {}

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for change_set in self._pending.values():
            try:
                change_sets.discard(self._client, change_set)
            except AwsError:
                if error is None:  # else that is what has to be told
                    raise

    def plan(self) -> Plan:
        """Look at all stacks and ask CloudFormation what would change."""
        for part in PARTS:
            stack = self._stacks[part] = self._usable(part)
            if stack is not None and stack.is_ready:
                self.outputs |= stack.outputs
        for part in PARTS:
            plans.check_values(part, self._values_of(part))
        parts = tuple(self._plan(part) for part in PARTS)
        return Plan(self._name, self._account(), str(self._client.meta.region_name), parts)

    def ask_about_jobs(self) -> None:
        """Before anything is changed: may what is planned meet jobs that run?"""
        for part, change_set in self._pending.items():
            self._jobs.ask(change_set.changes, self._job_minutes(part))

    def carry_out(self, shown: PartPlan) -> bool:
        """Make the changes of one stack; whether there were any."""
        part = shown.part
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
        self.outputs |= stack.outputs
        return True

    def _job_minutes(self, part: str) -> int:
        return int(self._values[part].get(plans.JOB_MINUTES, "0"))

    def _usable(self, part: str) -> Stack | None:
        """The stack of a part, settled; `None` where it is to be created."""
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
        return plans.values_of(part, self._name, self._given, self._stacks[part], self.outputs)

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
        """A change set for what the parameters are now; its values are remembered."""
        self._say(f"comparing the stack {stack_name(self._name, part)} with its template")
        stack, values = self._stacks[part], self._values_of(part)
        self._values[part] = values
        sent, kept = plans.sent_and_kept(part, values, self._given, stack)
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
        """A change set from the outputs that there are now; asks again where it does more than was shown."""
        part = shown.part
        if part in self._pending:
            change_sets.discard(self._client, self._pending.pop(part))
        stack = self._stacks[part]
        if stack is not None and stack.status == FAILED_CREATION:
            self._remove(stack)
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

    def _remove(self, stack: Stack) -> None:
        self._say(f"removing the rest of the stack {stack.name}, whose creation failed")
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
