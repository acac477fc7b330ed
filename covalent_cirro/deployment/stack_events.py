"""Reads the events of a stack, waits until it has changed, and finds the cause of a failure.

Knows one stack at a time, and nothing of templates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from covalent_cirro.deployment.stacks import Stack, call, get
from covalent_cirro.errors import StackError

FIRST_POLL_S = 0.2
LONGEST_POLL_S = 5.0
"""Seconds between two reads of a stack: the pause doubles from the first to the longest."""

TIMEOUT_S = 1800.0
"""Seconds: a new stack takes minutes; an update of compute environments waits for jobs that run."""


STACK_TYPE = "AWS::CloudFormation::Stack"
"""Resource type of the events of a stack itself."""


class StackEvent(NamedTuple):
    """An event of a stack.

    Attributes:
        event_id: Unique id.
        logical_id: Name of the resource in the template, or of the stack itself.
        resource_type: Type of the resource, ``"AWS::Batch::JobQueue"``.
        status: Status of the resource, ``"CREATE_FAILED"``.
        reason: AWS's reason; mostly empty where nothing failed.
        stack_name: Name of the stack.
    """

    event_id: str
    logical_id: str
    resource_type: str
    status: str
    reason: str
    stack_name: str


def first_failure(events: Iterable[StackEvent]) -> StackEvent | None:
    """The event that caused the failure of an operation: the first failure that no other one caused.

    Args:
        events: Events, oldest first.
    """
    failed = [event for event in events if event.status.endswith("_FAILED")]
    causes = [event for event in failed if event.reason and "cancelled" not in event.reason.lower()]
    return next(iter(causes or failed), None)


_ADVICE = (
    (("not authorized", "accessdenied", "access denied"), "Deploy with credentials that may do this."),
    (
        ("limit", "quota", "maximum number", "limitexceeded"),
        "Raise this quota (`aws service-quotas`), or delete what is no longer needed.",
    ),
    (
        ("already exists", "alreadyexists"),
        "Delete what has this name, or deploy under another name (--stack-name).",
    ),
    (
        ("instance type", "instancetype", "instance family"),
        "Give instance types that this region has (--parameter CpuInstanceTypes=... or GpuInstanceTypes=...).",
    ),
    (("not empty", "notempty"), "Empty it; `cirro destroy` does."),
    (
        ("service-linked role", "service linked role", "servicelinkedrole"),
        "Who deploys first in an account needs iam:CreateServiceLinkedRole. Services know a new role after a minute: "
        "deploy again then.",
    ),
)
"""Words in AWS's reasons, in lower case, and what to do; the first match counts."""


def advice(reason: str) -> str:
    """What to do about a reason of AWS's; empty where that is not known."""
    said = reason.lower()
    return next((remedy for words, remedy in _ADVICE if any(word in said for word in words)), "")


class Watch:
    """Waits for stacks, one after the other, and passes on their new events.

    Args:
        client: A boto3 CloudFormation client.
        on_event: Called with each new event, in order.
        timeout_s: Seconds to wait in all, from now on. After that AWS goes on by itself.
        sleep: Waits for so many seconds.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        client: Any,
        on_event: Callable[[StackEvent], None] | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._on_event = on_event
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._clock = clock
        self._deadline = clock() + timeout_s
        self._seen: set[str] = set()
        self._new: list[StackEvent] = []

    def begin(self, stack: Stack) -> None:
        """Begin to watch a new operation: events until now belong to earlier ones."""
        self._read(stack)
        self._new.clear()

    def ended(self, stack_id: str) -> Stack:
        """The stack, once the operation that was started after `begin` is over.

        The status counts only after the operation's first event: until then CloudFormation may return the old status.

        Raises:
            StackError: The time is over.
        """
        pause_s, has_begun = FIRST_POLL_S, False
        while True:
            stack = get(self._client, stack_id)
            self._tell(stack)
            if stack.is_gone or (has_begun and not stack.is_changing and not stack.is_empty_shell):
                return stack
            # The status that was read before the first event may be the old one: it is read once more.
            begins = not has_begun and any(event.resource_type == STACK_TYPE for event in self._new)
            has_begun = has_begun or begins
            if not begins:
                pause_s = self.pause(f"stack {stack.name!r} is still {stack.status}", pause_s)

    def settled(self, stack: Stack) -> Stack:
        """The stack, once nobody changes it any more. A stack that waits for its first change set is not being changed.

        Raises:
            StackError: The time is over.
        """
        if stack.is_changing:
            self.begin(stack)
        pause_s = FIRST_POLL_S
        while stack.is_changing:
            pause_s = self.pause(f"stack {stack.name!r} is still {stack.status}", pause_s)
            stack = get(self._client, stack.stack_id)
            self._tell(stack)
        return stack

    def now(self) -> float:
        """Seconds on the clock of this watch."""
        return self._clock()

    def postpone(self, seconds: float) -> None:
        """Extend the deadline."""
        self._timeout_s += seconds
        self._deadline += seconds

    def rest(self, seconds: float) -> None:
        """Wait without counting the time."""
        self._sleep(seconds)
        self._deadline += seconds

    def pause(self, what: str, pause_s: float = FIRST_POLL_S) -> float:
        """Wait before the next read; returns how long to wait before the one after it.

        Args:
            what: What is not finished yet, for the error.
            pause_s: Seconds to wait.

        Raises:
            StackError: The time is over.
        """
        left_s = self._deadline - self._clock()
        if left_s <= 0:
            raise StackError(f"{what} after {self._timeout_s:g} s. It goes on in AWS: do the same again to wait on.")
        self._sleep(min(pause_s, left_s))
        return min(2 * pause_s, LONGEST_POLL_S)

    def failure(self, stack: Stack, verb: str) -> StackError:
        """The error of a failed operation: the event that caused it, and what to do.

        Args:
            stack: The stack as it is now.
            verb: The operation, ``"created"``.
        """
        self._read(stack)
        event = first_failure(self._new)
        reason = stack.reason if event is None else event.reason
        why = (
            because(reason)
            if event is None
            else f": {event.logical_id} ({event.resource_type}) is {event.status}{because(event.reason)}"
        )
        steps = [advice(reason), _NEXT_STEP.get(stack.status, f"The stack is {stack.status}.")]
        return StackError(f"stack {stack.name!r} could not be {verb}{why}. {' '.join(step for step in steps if step)}")

    def _tell(self, stack: Stack) -> None:
        for event in self._read(stack):
            if self._on_event is not None:
                self._on_event(event)

    def _read(self, stack: Stack) -> list[StackEvent]:
        fresh = []
        for event in events(self._client, stack):
            if event.event_id in self._seen:
                break
            fresh.append(event)
        fresh.reverse()
        self._seen.update(event.event_id for event in fresh)
        self._new.extend(fresh)
        return fresh


_NEXT_STEP = {
    "ROLLBACK_COMPLETE": "All that was made in it is removed again: correct the cause and deploy again.",
    "ROLLBACK_FAILED": "Some of what was made in it is left: correct the cause, `cirro destroy`, then deploy again.",
    "UPDATE_ROLLBACK_COMPLETE": "The stack is as it was before: correct the cause and deploy again.",
    "UPDATE_ROLLBACK_FAILED": "Continue its rollback in the CloudFormation console, then deploy again.",
    "DELETE_FAILED": "The rest of it is gone. Correct the cause, then delete it again.",
}


def because(reason: str) -> str:
    """A reason as the end of a clause, after a colon; empty without a reason."""
    return f": {reason.rstrip('.')}" if reason else ""


def events(client: Any, stack: Stack) -> Iterator[StackEvent]:
    """A stack's events, newest first; pages are read as they are needed."""
    token: dict[str, str] = {}
    while True:
        page = call(client, "DescribeStackEvents", stack.stack_id, StackName=stack.stack_id, **token)
        for event in page["StackEvents"]:
            yield StackEvent(
                event["EventId"],
                event.get("LogicalResourceId", ""),
                event.get("ResourceType", ""),
                event.get("ResourceStatus", ""),
                event.get("ResourceStatusReason", ""),
                stack.name,
            )
        if not page.get("NextToken"):
            return
        token = {"NextToken": page["NextToken"]}
