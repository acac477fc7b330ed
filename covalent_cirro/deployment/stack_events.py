"""What a stack says while it changes: reads its events, waits for its end, and finds what made it fail.

Knows one stack at a time; not what is changed, nor why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from covalent_cirro.deployment.stacks import Stack, call, get
from covalent_cirro.errors import StackError

FIRST_POLL_S = 0.2
LONGEST_POLL_S = 5.0
"""Seconds between two looks at a stack: from the first, doubling, to the longest."""

TIMEOUT_S = 1800.0
"""A new stack takes minutes; an update of compute environments waits for jobs that still run."""


STACK_TYPE = "AWS::CloudFormation::Stack"
"""Resource type of the events of a stack itself."""


class StackEvent(NamedTuple):
    """One line of a stack's history.

    Attributes:
        event_id: Unique.
        logical_id: Name of the resource in the template, or of the stack itself.
        resource_type: ``"AWS::Batch::JobQueue"``.
        status: ``"CREATE_FAILED"``.
        reason: AWS's own words; mostly empty where nothing went wrong.
        stack_name: The stack whose history it is.
    """

    event_id: str
    logical_id: str
    resource_type: str
    status: str
    reason: str
    stack_name: str


def first_failure(events: Iterable[StackEvent]) -> StackEvent | None:
    """The event that explains why an operation failed: the first failed one that is not a mere consequence.

    Args:
        events: Oldest first.
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
"""Words of AWS's reasons, in lower case, and what helps; the first that matches."""


def advice(reason: str) -> str:
    """What to do about a reason that AWS gave; empty where nothing is known."""
    said = reason.lower()
    return next((remedy for words, remedy in _ADVICE if any(word in said for word in words)), "")


class Watch:
    """Waits for stacks, one after the other, and remembers which of their events were seen.

    Args:
        client: A boto3 CloudFormation client.
        on_event: Called with each new event, in order.
        timeout_s: Seconds to wait in all, counted from now. What is under way goes on in AWS after that.
        sleep: Waits for seconds.
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
        """A new operation: what the stack said so far belongs to an earlier one."""
        self._read(stack)
        self._new.clear()

    def ended(self, stack_id: str) -> Stack:
        """A stack once the operation that was asked for after `begin` is over.

        Its status is not believed before its own first event: CloudFormation may tell the old one for a moment.

        Raises:
            StackError: The time is over.
        """
        pause_s, has_begun = FIRST_POLL_S, False
        while True:
            stack = get(self._client, stack_id)
            self._tell(stack)
            if stack.is_gone or (has_begun and not stack.is_changing and not stack.is_empty_shell):
                return stack
            # The status that was read before the first event may be that of before: it is read once more.
            begins = not has_begun and any(event.resource_type == STACK_TYPE for event in self._new)
            has_begun = has_begun or begins
            if not begins:
                pause_s = self.pause(f"stack {stack.name!r} is still {stack.status}", pause_s)

    def settled(self, stack: Stack) -> Stack:
        """The stack once nobody changes it any more. One that waits for its first change set is not being changed.

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
        """Seconds, on the clock that it waits by."""
        return self._clock()

    def postpone(self, seconds: float) -> None:
        """Wait so much longer in all."""
        self._timeout_s += seconds
        self._deadline += seconds

    def rest(self, seconds: float) -> None:
        """Wait for something that has no limit of its own."""
        self._sleep(seconds)
        self._deadline += seconds

    def pause(self, what: str, pause_s: float = FIRST_POLL_S) -> float:
        """Wait before the next look; returns how long to wait before the one after.

        Args:
            what: What is not so yet, for the error.
            pause_s: Seconds.

        Raises:
            StackError: The time is over.
        """
        left_s = self._deadline - self._clock()
        if left_s <= 0:
            raise StackError(f"{what} after {self._timeout_s:g} s. It goes on in AWS: do the same again to wait on.")
        self._sleep(min(pause_s, left_s))
        return min(2 * pause_s, LONGEST_POLL_S)

    def failure(self, stack: Stack, verb: str) -> StackError:
        """Why the operation that was waited for failed: the one event that caused it, and what to do.

        Args:
            stack: As it is now.
            verb: What was to be done with it: ``"created"``.
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
    "ROLLBACK_COMPLETE": "All that was made in it is removed again: mend the cause and deploy again.",
    "ROLLBACK_FAILED": "Some of what was made in it is left: mend the cause, `cirro destroy`, then deploy again.",
    "UPDATE_ROLLBACK_COMPLETE": "The stack is as it was before: mend the cause and deploy again.",
    "UPDATE_ROLLBACK_FAILED": "Continue its rollback in the CloudFormation console, then deploy again.",
    "DELETE_FAILED": "The rest of it is gone. Mend the cause, then delete it again.",
}


def because(reason: str) -> str:
    """A reason of AWS's as the end of a clause; empty for none."""
    return f": {reason.rstrip('.')}" if reason else ""


def events(client: Any, stack: Stack) -> Iterator[StackEvent]:
    """A stack's events, newest first; only as many pages are read as are asked for."""
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
