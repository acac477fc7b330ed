"""Exit codes of the runner, and failures of the electron's process. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.limits import ALL_TAILS_BYTES, LOG_TAIL_BYTES
from covalent_cirro.contract.protocol import ExitCode, Log, NodeResult, Task
from covalent_cirro.runner.process import Ended

_CODES = {Kind.FETCH: ExitCode.FETCH, Kind.VERSIONS: ExitCode.VERSIONS, Kind.TERMINATED: ExitCode.TERMINATED}
_SIGNALS = {
    "SIGSEGV": "a segmentation fault in native code; stderr has Python's stack",
    "SIGBUS": "a bus error, often /dev/shm being full: more shared memory helps",
    "SIGABRT": "native code aborted; stderr says why",
    "SIGFPE": "an arithmetic fault in native code; stderr has Python's stack",
    "SIGILL": "an instruction that this machine's processor does not have",
    "SIGKILL": "by somebody else, or for want of memory on the host",
}
_GIB = 1024**3


def exit_code(results: Iterable[NodeResult]) -> int:
    """The runner's exit code: that of the first failure, or success."""
    for result in results:
        if result.failure is not None and result.failure.kind != Kind.NOT_RUN:
            return _CODES.get(result.failure.kind, ExitCode.RAISED)
    return ExitCode.OK


def tail_bytes(electrons: int) -> int:
    """Bytes of each stream's end that the outcome has room for, by the number of electrons."""
    return min(LOG_TAIL_BYTES, ALL_TAILS_BYTES // (2 * electrons))


def first_failure(results: Iterable[NodeResult]) -> Failure | None:
    """The first failure; `None` if nothing failed."""
    return next((each.failure for each in results if each.failure is not None), None)


def all_failed(tasks: Iterable[Task], failure: Failure) -> tuple[NodeResult, ...]:
    """Results of a call of which no electron has a result, all for one reason."""
    return tuple(NodeResult(task.node_id, None, failure, Log(), Log()) for task in tasks)


def all_terminated(tasks: Iterable[Task]) -> tuple[NodeResult, ...]:
    """Results of a call that SIGTERM stopped."""
    return tuple(NodeResult(task.node_id, None, terminated(task.name, None), Log(), Log()) for task in tasks)


def died(ended: Ended, task: str, out_of_memory: bool, limit_bytes: int | None) -> Failure:
    """The failure of an electron whose process ended without a result."""
    if out_of_memory and ended.signal == "SIGKILL":
        limit = f" of {limit_bytes / _GIB:.2f} GiB" if limit_bytes is not None else ""
        message = (
            f"{task!r} ran out of memory: the kernel killed its process at the container's limit{limit} (largest "
            f"process: {ended.max_rss_bytes / _GIB:.2f} GiB). Ask for more with memory=..."
        )
        return Failure(Kind.OUT_OF_MEMORY, message, signal=ended.signal)
    if ended.signal:
        known = _SIGNALS.get(ended.signal)
        message = f"the process of {task!r} was killed by {ended.signal}" + (f": {known}" if known else "")
        return Failure(Kind.KILLED, message, signal=ended.signal)
    message = f"the process of {task!r} ended with exit code {ended.exit_code} before there was a result (os._exit?)"
    return Failure(Kind.EXITED, message, exit_code=ended.exit_code)


def terminated(task: str, found: Failure | None) -> Failure:
    """The failure of an electron that SIGTERM stopped; keeps the traceback of what it raised on that."""
    message = f"{task!r} was stopped by SIGTERM before it was done: time limit, cancel, or its host going away (Spot)"
    return Failure(
        Kind.TERMINATED,
        message,
        traceback=found.traceback if found is not None else "",
        exit_code=found.exit_code if found is not None else None,
        signal=found.signal if found is not None else "",
    )
