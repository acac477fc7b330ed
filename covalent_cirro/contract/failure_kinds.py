"""Why an electron has no result, as the outcome says it. Pure."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from covalent_cirro.contract.fields import shown
from covalent_cirro.contract.limits import MESSAGE_CHARS, NAME_CHARS, TRACEBACK_CHARS
from covalent_cirro.contract.problems import ProtocolError

_MAX_EXIT_CODE = 255


class Kind:
    """Why an electron failed (`Failure.kind`)."""

    RAISED = "raised"
    """The electron's function raised."""
    HOOK = "hook"
    """``deps_bash``, ``deps_pip``, ``call_before`` or ``call_after`` failed."""
    EXITED = "exited"
    """The electron's process ended by itself (``os._exit``, ``sys.exit``) without a result."""
    KILLED = "killed"
    """The electron's process was killed by a signal: segfault, abort, SIGKILL by another."""
    OUT_OF_MEMORY = "out_of_memory"
    """The process was killed by SIGKILL, and the container's count of out-of-memory kills rose."""
    UNPICKLABLE = "unpicklable"
    """The result cannot be pickled."""
    MISSING_MODULE = "missing_module"
    """Unpickling the function or an input needs a module that the container lacks (`Failure.module`)."""
    UNREADABLE = "unreadable"
    """The function or an input cannot be unpickled, for another reason."""
    VERSIONS = "versions"
    """Python or cloudpickle of the container cannot read the pickle."""
    FETCH = "fetch"
    """A blob is missing, cut short or changed."""
    TERMINATED = "terminated"
    """SIGTERM arrived before the electron ended."""
    NOT_RUN = "not_run"
    """An earlier electron of the same task group failed."""
    ITEMS = "items"
    """Items of a mapped electron failed (`maps.ItemResults.failures`)."""
    NODES = "nodes"
    """Not all nodes of a multi-node job met, so that the function was not called."""
    RUNNER = "runner"
    """The runner itself failed."""


KINDS = frozenset(value for name, value in vars(Kind).items() if name.isupper())


RUN_AGAIN = frozenset({Kind.TERMINATED, Kind.KILLED, Kind.OUT_OF_MEMORY, Kind.FETCH, Kind.RUNNER})
"""Kinds of failures that need not happen again: a further attempt, which AWS Batch starts if the job's retry strategy
says so, runs the electrons. After any other outcome a further attempt has nothing to do."""


class Failure(NamedTuple):
    """Why an electron has no result.

    Attributes:
        kind: One of `Kind`.
        message: One line for users.
        traceback: The electron's traceback without the runner's own frames; may be empty.
        module: The missing module, for `Kind.MISSING_MODULE`.
        exit_code: Exit status of the electron's process, if it ended by itself without a result.
        signal: Name of the signal that killed it, ``"SIGSEGV"``.
    """

    kind: str
    message: Annotated[str, MESSAGE_CHARS]
    traceback: Annotated[str, TRACEBACK_CHARS] = ""
    module: Annotated[str, NAME_CHARS] = ""
    exit_code: Annotated[int | None, _MAX_EXIT_CODE] = None
    signal: str = ""

    def check(self, path: str, _limit: Any) -> None:
        """Refuse an unknown kind."""
        if self.kind not in KINDS:
            raise ProtocolError(f"{path}.kind is {shown(self.kind)}; known are {', '.join(sorted(KINDS))}")
