"""Faults that are set: which call or job each hits, how often, how long. It must not know what a fault does."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

REQUEST_KINDS = ("throttle", "error", "cut", "slow", "conflict", "clock", "expired", "damage", "repeat", "stale")
"""Faults of an API call."""
JOB_KINDS = ("describe_omits", "stuck", "image_pull", "disk_full", "lose_host", "no_capacity", "invalid", "bulk_error")
"""Faults of the emulated AWS Batch; ``image_pull`` also hits tasks of ECS services."""
TASK_KINDS = ("kill_task",)
"""Faults of the emulated ECS: they hit tasks of services, whose name begins with ``job``."""
KINDS = REQUEST_KINDS + JOB_KINDS + TASK_KINDS

LOSE_HOST = "lose_host"
"""The only kind that is a fault of both: with an ``operation``, it hits after that call of a job."""

ERRORS = {
    403: ("AccessDenied", "Access Denied"),
    404: ("NoSuchKey", "The specified key does not exist."),
    500: ("InternalError", "We encountered an internal error. Please try again."),
    503: ("ServiceUnavailable", "We encountered an internal error. Please try again."),
}
"""By the HTTP status of an ``error``, its usual code and message, which are those of S3."""

HOST_STATES = ("RUNNABLE", "STARTING", "RUNNING")
"""States of a job that has a host, or for which one boots."""

STRUCK_KEPT = 10_000
"""How many names of jobs and objects are kept for each fault (``struck``)."""

_ids = itertools.count(1)


@dataclass
class Fault:
    """One fault. Unset fields match everything.

    Attributes:
        kind: One of `KINDS`.
        service: Of the call, ``"s3"``, ``"batch"``.
        operation: Of the call, ``"PutObject"``.
        caller: ``"job"`` for calls made with a job's credentials, ``"client"`` for all others.
        job: Prefix of the job's name, or of the ECS service's; that of a node ends in ``#`` and its index.
        environment: Name of the compute environment, for ``no_capacity`` and ``invalid``.
        key: Part of the object's path (``/<bucket>/<key>``), for calls of S3.
        count: How often it hits; `None`: without limit.
        probability: Probability that it hits, for each call or job.
        above_per_s: It hits only calls above this rate, in calls a second.
        duration_s: It ends this long after it was set.
        status: HTTP status of ``error``: one of `ERRORS`.
        code: Error code of ``throttle``, ``error`` and ``conflict``, where it is not the usual one of the service; of
            ``bulk_error``, where it is not ``ThrottlingException`` (API model, TerminateJobsErrorDetail).
        when: ``cut``: ``before`` the call is carried out, ``during`` its answer, or ``after`` it was carried out and
            before the answer.
        seconds: ``slow``: wait before the call. ``describe_omits``: how long a new job is not shown.
            ``lose_host``: how long the job is in its state before. ``disk_full``: how long the attempt runs before.
            ``clock``: how far AWS's clock is ahead; above five minutes it refuses the signature.
        state: ``lose_host``: the job's state when its host is terminated. In RUNNABLE it is the host that boots for it.
        notice_s: ``lose_host``: how long before a Spot notice is in the host's metadata; `None`: there is no notice.
        bytes_per_s: ``slow``: speed of the answer's body.
        reason: ``stuck``, ``invalid``: the statusReason. ``image_pull``: the text after ``CannotPullContainerError: ``.
            ``bulk_error``: its message.
        pattern: ``damage``: a regular expression; what it matches in the object is stored as ``replacement``.
        replacement: See ``pattern``.
        size: ``damage``: the object is stored with this many bytes, cut off or filled up with blanks.
    """

    kind: str
    service: str | None = None
    operation: str | None = None
    caller: str | None = None
    job: str | None = None
    environment: str | None = None
    key: str | None = None
    count: int | None = None
    probability: float = 1.0
    above_per_s: float | None = None
    duration_s: float | None = None
    status: int = 500
    code: str | None = None
    when: str = "before"
    seconds: float = 0.0
    state: str = "RUNNING"
    notice_s: float | None = None
    bytes_per_s: float | None = None
    reason: str | None = None
    pattern: str | None = None
    replacement: str = ""
    size: int | None = None
    id: int = field(default_factory=lambda: next(_ids))
    hits: int = 0
    until: float | None = None
    allowed_at: float = 0.0
    held: set[str] = field(default_factory=set)
    struck: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault {self.kind!r}; known are {', '.join(KINDS)}")
        if self.when not in ("before", "during", "after"):
            raise ValueError(f"when is {self.when!r}; known are before, during, after")
        if self.status not in ERRORS:
            raise ValueError(f"status is {self.status!r}; known are {', '.join(map(str, ERRORS))}")
        if self.state not in HOST_STATES:
            raise ValueError(f"state is {self.state!r}; known are {', '.join(HOST_STATES)}")

    @property
    def is_of_a_call(self) -> bool:
        """Whether it hits calls; else it hits jobs or compute environments."""
        return self.kind in REQUEST_KINDS or (self.kind == LOSE_HOST and self.operation is not None)


FIELDS = frozenset(each.name for each in fields(Fault)) - {"id", "hits", "until", "allowed_at", "held", "struck"}
"""Fields that a request may set."""


class Faults:
    """The faults that are set. Of those that match, the oldest hits. Safe for threads.

    Args:
        clock: Gives seconds, for ``duration_s``.
        seed: Seed of the random numbers for ``probability``.
        changed: Called after faults were added or cleared.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        seed: int = 0,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 (not a secret: tests want the same draws each time)
        self._changed = changed
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, kind: str, **settings: Any) -> int:
        """Set a fault; the keywords are the fields of `Fault`. Returns its id.

        Raises:
            ValueError: An unknown kind or keyword.
        """
        unknown = sorted(set(settings) - FIELDS)
        if unknown:
            raise ValueError(f"unknown field {unknown[0]!r} of a fault; known are {', '.join(sorted(FIELDS))}")
        fault = Fault(kind, **settings)
        if fault.duration_s is not None:
            fault.until = self._clock() + fault.duration_s
        with self._lock:
            self._faults.append(fault)
        self._changed()
        return fault.id

    def clear(self, fault_id: int | None = None) -> None:
        """Remove a fault, or all."""
        with self._lock:
            self._faults = [fault for fault in self._faults if fault_id is not None and fault.id != fault_id]
        self._changed()

    def all(self) -> list[dict[str, Any]]:
        """All faults, with how often each has hit, and which jobs and objects."""
        with self._lock:
            return [
                {**asdict(fault), "held": sorted(fault.held), "struck": sorted(fault.struck)} for fault in self._faults
            ]

    def take_request(
        self, service: str, operation: str, caller: str, path: str = "", about: Callable[[], Iterable[str]] = tuple
    ) -> list[Fault]:
        """The faults that hit this call: at most one of each kind. They count as hit.

        Args:
            service, operation, caller: Those of the call, as in `Fault`.
            path: Path of the request.
            about: Gives names of jobs and objects of the call, for ``struck``.
        """
        if not self._faults:
            return []
        with self._lock:
            hit: dict[str, Fault] = {}
            for fault in self._faults:
                if (
                    fault.is_of_a_call
                    and fault.kind not in hit
                    and (fault.key is None or fault.key in path)
                    and fault.service in (None, service)
                    and fault.operation in (None, operation)
                    and fault.caller in (None, caller)
                    and self._draw(fault)
                ):
                    hit[fault.kind] = fault
        if hit:
            names = list(about())  # outside the lock: it may wait for the body of the request
            with self._lock:
                for fault in hit.values():
                    fault.struck.update(names[: max(0, STRUCK_KEPT - len(fault.struck))])
        return list(hit.values())

    def take_job(self, kind: str, job: str = "", environment: str = "", state: str | None = None) -> Fault | None:
        """The fault of this kind that hits this job or compute environment, or `None`. It counts as hit."""
        if not self._faults:
            return None
        with self._lock:
            for fault in self._faults:
                if (
                    fault.kind == kind
                    and not fault.is_of_a_call
                    and state in (None, fault.state)
                    and (fault.job is None or job.startswith(fault.job))
                    and fault.environment in (None, environment)
                    and self._draw(fault)
                ):
                    fault.struck.add(job)
                    return fault
        return None

    def holding(self, kind: str, key: str, job: str = "", environment: str = "") -> Fault | None:
        """As `take_job`, for a fault that lasts: once it has hit ``key``, it does so until it ends, and counts once."""
        if not self._faults:
            return None
        with self._lock:
            for fault in self._faults:
                if (
                    fault.kind != kind
                    or not (fault.job is None or job.startswith(fault.job))
                    or fault.environment not in (None, environment)
                ):
                    continue
                if key in fault.held:
                    if fault.until is None or self._clock() < fault.until:
                        return fault
                elif self._draw(fault):
                    fault.held.add(key)
                    fault.struck.add(job)
                    return fault
        return None

    def next_end(self) -> float | None:
        """Seconds until the next fault with a duration ends."""
        with self._lock:
            left = [fault.until - self._clock() for fault in self._faults if fault.until is not None]
        return min((each for each in left if each > 0), default=None)

    def _draw(self, fault: Fault) -> bool:
        if fault.count is not None and fault.hits >= fault.count:
            return False
        if fault.until is not None and self._clock() >= fault.until:
            return False
        if fault.probability < 1.0 and self._random.random() >= fault.probability:
            return False
        if fault.above_per_s is not None and self._clock() >= fault.allowed_at:
            fault.allowed_at = self._clock() + 1 / fault.above_per_s
            return False
        fault.hits += 1
        return True
