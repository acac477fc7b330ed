"""Deletes a service, and checks that nothing of it is left. It can be repeated after a failure."""

from __future__ import annotations

import time
from collections.abc import Callable

from covalent_cirro.aws.clients import Clients
from covalent_cirro.deployment import plans, stacks
from covalent_cirro.deployment.stack_events import FIRST_POLL_S, LONGEST_POLL_S, TIMEOUT_S, StackEvent, Watch
from covalent_cirro.deployment.stacks import Resource, Stack
from covalent_cirro.errors import AwsError

PATIENCE_S = 60.0
"""Seconds for which deleted resources may still be listed: the tagging API is later than the services."""

_FREE = (":task-definition/", ":cluster/", ":cloudformation:", ":service/", ":task/")
"""What ECS and CloudFormation list after its deletion, as INACTIVE or deleted, and at no cost (ECS API Reference,
DeregisterTaskDefinition, DeleteCluster)."""


def remove(
    clients: Clients,
    deployment: str,
    stack: Stack,
    *,
    say: Callable[[str], None] = lambda step: None,
    on_event: Callable[[StackEvent], None] | None = None,
    timeout_s: float = TIMEOUT_S,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[str, ...]:
    """Delete the stack of a service, and look for what is left. Its images and models stay: they are the deployment's.

    Args:
        clients: Clients of the account.
        deployment: Name of the deployment.
        stack: The service's stack.
        say: Called with each step, in a few words.
        on_event: Called with each event of the stack.
        timeout_s: Seconds for the deletion. After that AWS goes on by itself.
        sleep: Waits for so many seconds.
        clock: Seconds, monotonic.

    Returns:
        What is left, in words.

    Raises:
        StackError: Something could not be deleted, with AWS's reason; the next call goes on from there.
        AccessDenied, AwsError: AWS refused or could not be reached.
    """
    formation = clients("cloudformation")
    watch = Watch(formation, on_event, timeout_s=timeout_s, sleep=sleep, clock=clock)
    now = watch.settled(stack)
    if now.is_gone:
        return ()
    made = [] if now.is_empty_shell else stacks.resources(formation, now)
    say(f"deleting the stack {now.name}")
    watch.begin(now)
    stacks.begin_delete(formation, now)
    gone = watch.ended(now.stack_id)
    if not gone.is_gone:
        raise watch.failure(gone, "deleted")
    say("looking for anything that is left")
    deadline, pause_s = clock() + PATIENCE_S, FIRST_POLL_S
    while left := _left(clients, deployment, made):
        if clock() >= deadline:
            break
        sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_POLL_S)
    return left


def _left(clients: Clients, deployment: str, made: list[Resource]) -> tuple[str, ...]:
    """What of the deployment's tag was a resource of the stack; nothing where the tagging API may not be asked."""
    ids = {each.physical_id for each in made}
    try:
        with clients.asking("tag:GetResources") as tagging:
            pages = tagging.get_paginator("get_resources").paginate(
                TagFilters=[{"Key": plans.TAG, "Values": [deployment]}]
            )
            arns = [str(each["ResourceARN"]) for page in pages for each in page["ResourceTagMappingList"]]
    except AwsError:
        return ()  # the stack is gone, and with it all that it made
    return tuple(arn for arn in arns if _is_one_of(arn, ids) and not any(part in arn for part in _FREE))


def _is_one_of(arn: str, ids: set[str]) -> bool:
    own = arn.split(":", 5)[-1]
    return any(each in ids for each in (arn, own, own.rsplit("/", 1)[-1], own.removeprefix("log-group:")))
