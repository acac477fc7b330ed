"""A deployment: CloudFormation stacks, which are created or updated in their order, each by a change set.

`plans` decides what is to be done, `rollout` does it, and `teardown` deletes a deployment. This package must not know
the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from covalent_cirro.deployment import plans, stacks
from covalent_cirro.deployment.holdings import Client
from covalent_cirro.deployment.plans import DEFAULT_NAME, PARTS, Plan, stack_name
from covalent_cirro.deployment.rollout import Rollout
from covalent_cirro.deployment.running_jobs import Choose, RunningJobs
from covalent_cirro.deployment.stack_events import TIMEOUT_S, StackEvent, Watch
from covalent_cirro.deployment.stacks import settings_from_outputs
from covalent_cirro.errors import Declined, NotFound
from covalent_cirro.jobs.affected_jobs import REFUSE

TIME_LIMIT_S = 6 * 60 * 60
"""``time_limit`` that a deployment suggests: long enough for most trainings, short enough for one that hangs. The
default of the option is the stock plugin's, which ends an electron after five minutes."""

__all__ = ["PARTS", "TIME_LIMIT_S", "Deployed", "Plan", "deploy", "outputs", "settings_from_outputs", "stack_name"]


class Deployed(NamedTuple):
    """A deployment that is ready.

    Attributes:
        name: Name of the deployment.
        outputs: Outputs of all its stacks.
        changed: Whether anything was created or changed.
        problems: Optional parts that could not be created: why, and what to do.
    """

    name: str
    outputs: dict[str, str]
    changed: bool
    problems: tuple[str, ...] = ()

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
    """Create or update a deployment, and wait until it is ready.

    A deployment that is as asked for is not touched. If somebody else is changing a stack, the end of that is waited
    for. A stack whose creation failed is deleted and created again. After a failure the finished stacks stay, and the
    next call goes on from there.

    Args:
        client: A boto3 CloudFormation client.
        name: Name of the deployment: letters, digits and hyphens, beginning with a letter.
        parameters: Parameters of the templates. Those left out keep their value, or get the default.
        clients: Makes boto3 clients of other services, for what CloudFormation does not do: running jobs, zones that
            have the instance types, service-linked roles that the account lacks. Unset: these are ignored.
        confirm: Called with the changes before they are made, and again if more turn out to be needed; returns whether
            to go on. Unset: go on.
        on_running_jobs: Returns what is to be done about jobs on instances that are replaced, one of
            `affected_jobs.CHOICES`. Unset: nothing is changed then.
        on_event: Called with each event of a stack, in order, while waiting.
        say: Called with each step, in a few words.
        timeout_s: Seconds to wait in all, without the time for jobs. After that AWS goes on by itself.
        sleep: Waits for so many seconds.
        clock: Seconds, monotonic.

    Raises:
        SettingsError: A parameter does not exist, or a value is impossible; nothing was changed.
        Declined: ``confirm`` returned False; the change sets are deleted.
        StackError: Jobs run and are not to be disturbed; an operation failed, with the event that caused it and AWS's
            reason; a stack is not one of covalent-cirro, or its state forbids updates; or the time is over.
        AccessDenied, AwsError: CloudFormation refused or could not be reached.
    """
    given = plans.check(name, parameters or {})
    watch = Watch(client, on_event, timeout_s=timeout_s, sleep=sleep, clock=clock)
    jobs = RunningJobs(clients, on_running_jobs, watch, say)
    with Rollout(client, name, given, clients=clients, watch=watch, jobs=jobs, confirm=confirm, say=say) as run:
        plan = run.plan()
        if not plan.changes_anything:
            return Deployed(name, run.outputs, changed=False, problems=tuple(run.problems))
        run.ask_about_jobs()
        if confirm is not None and not confirm(plan):
            raise Declined("nothing was changed: you said no.")
        run.make_linked_roles()
        changed = [run.carry_out(part) for part in plan.parts]
        return Deployed(name, run.outputs, changed=any(changed), problems=tuple(run.problems))


def outputs(client: Any, name: str = DEFAULT_NAME) -> dict[str, str]:
    """The outputs of all existing stacks of a deployment.

    Raises:
        NotFound: The deployment has no stack.
        StackError: A stack of that name is not one of covalent-cirro.
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
