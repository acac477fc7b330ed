"""Calls the function of a distributed electron in several processes of this compute node, each with a rank.

The processes are forked from the electron's process after its hooks have run and before anything of the user's is
unpickled, so that none inherits threads or a GPU's context. They find the variables of `torchrun` in their
environment. A process that has returned or raised stays, with its connections, until the others have been told: those
that wait for it must not fail first. One that dies ends the electron's process in the way in which it died itself.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from covalent_cirro.contract.failure_kinds import Failure
from covalent_cirro.contract.protocol import RANK_VARIABLE
from covalent_cirro.runner import forked
from covalent_cirro.runner.node_connection import LINGER_S
from covalent_cirro.runner.results import Packed
from covalent_cirro.runner.tasks import One

_LOOK_S = 1.0
_READ_BYTES = 256 * 1024
_TERM_S = 2.0
"""Seconds from SIGTERM to SIGKILL for processes that others are not to wait for."""


class Placement(NamedTuple):
    """Where the processes of a compute node stand among all processes of the electron.

    Attributes:
        node: Index of the compute node; the main node has 0.
        nodes: Number of compute nodes.
        processes: Processes on each.
        address: Address of the main node, for all nodes.
        port: A port that was free there when the nodes met.
    """

    node: int
    nodes: int
    processes: int
    address: str
    port: int

    def rank(self, local: int) -> int:
        """Rank of a process of this node."""
        return self.node * self.processes + local


def variables(placement: Placement, local: int, environ: Mapping[str, str]) -> dict[str, str]:
    """What a process finds in its environment: as `torchrun` sets it (PyTorch, "torchrun (Elastic Launch)").

    Args:
        placement: Where its node stands.
        local: Its number on the node, from 0.
        environ: The environment before.
    """
    rank, world = str(placement.rank(local)), str(placement.nodes * placement.processes)
    found = {
        "MASTER_ADDR": placement.address,
        "MASTER_PORT": str(placement.port),
        "RANK": rank,
        "WORLD_SIZE": world,
        "LOCAL_RANK": str(local),
        "LOCAL_WORLD_SIZE": str(placement.processes),
        "GROUP_RANK": str(placement.node),
        "GROUP_WORLD_SIZE": str(placement.nodes),
        "NODE_RANK": str(placement.node),
        "ROLE_RANK": rank,
        "ROLE_WORLD_SIZE": world,
        RANK_VARIABLE: rank,
    }
    if placement.processes > 1 and "OMP_NUM_THREADS" not in environ:
        found["OMP_NUM_THREADS"] = "1"  # as torchrun: each process would start a thread for each core of the machine
    return found


def of_rank(failure: Failure, rank: int, placement: Placement) -> Failure:
    """A failure whose message says which process it is of."""
    where = f"rank {rank} on node {placement.node}" if placement.nodes > 1 else f"rank {rank}"
    return failure._replace(message=f"{where}: {failure.message}")


class Ranks:
    """The processes of one electron on this compute node.

    Args:
        placement: Where they stand.
        folder: Folder for files; each process gets one in it.
        died: Told the rank of a process that has died, before this process ends as it did.
        flush: Flushes what was printed.
    """

    def __init__(
        self, placement: Placement, folder: str, died: Callable[[int], None], flush: Callable[[], None]
    ) -> None:
        self._placement, self._folder, self._died, self._flush = placement, folder, died, flush
        self._processes: list[_Process] = []
        self._failed = False

    def run(self, one: One) -> Packed | Failure | None:
        """Run the function in all processes.

        Once rank 0 has returned, the others of its node have `LINGER_S` to return, as those of other nodes have.

        Returns:
            What the process of rank 0 packed, on the main node; the first failure of a process; else `None`.
        """
        self._flush()
        for local in range(self._placement.processes):
            self._processes.append(self._start(local, one))
        packed: Packed | None = None
        with selectors.DefaultSelector() as selector:
            for process in self._processes:
                selector.register(process.socket, selectors.EVENT_READ, process)
            left, until = len(self._processes), float("inf")
            while left and (wait_s := min(_LOOK_S, until - time.monotonic())) > 0:
                ready = selector.select(wait_s)
                if not ready:
                    self._find_dead()
                for key, _ in ready:
                    process = key.data
                    answer = process.read()
                    if answer is None:
                        continue
                    if "died" in answer:
                        self._die_like(process, os.wait4(process.pid, 0)[1])
                    if "failure" in answer:
                        self._failed = True
                        rank = self._placement.rank(process.local)
                        return of_rank(Failure(**answer["failure"]), rank, self._placement)
                    process.has_returned = True
                    if answer["packed"] is not None:
                        packed = Packed(**answer["packed"])
                        until = time.monotonic() + LINGER_S
                    selector.unregister(process.socket)
                    left -= 1
        return packed

    def release(self) -> None:
        """Let the processes end. Those that still run, and all of an electron that failed, are killed."""
        for process in self._processes:
            process.socket.close()
            if self._failed or not process.has_returned:
                with contextlib.suppress(OSError):
                    os.kill(process.pid, signal.SIGTERM)
        until = time.monotonic() + _TERM_S
        for process in self._processes:
            if self._failed or not process.has_returned:
                while time.monotonic() < until and os.waitpid(process.pid, os.WNOHANG)[0] == 0:
                    time.sleep(0.01)
                forked.kill(process.pid)
            else:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process.pid, 0)

    def _start(self, local: int, one: One) -> _Process:
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            for other in self._processes:
                other.socket.close()  # so that each sees when the electron's process closes its connection
            self._serve(local, one, theirs, parent)
        theirs.close()
        return _Process(local, pid, ours)

    def _serve(self, local: int, one: One, connection: socket.socket, parent: int) -> NoReturn:
        """What a process does until the electron's process closes the connection."""
        code = 1
        try:
            forked.end_with(parent)
            os.environ.update(variables(self._placement, local, os.environ))
            folder = os.path.join(self._folder, f"rank-{local}")
            os.mkdir(folder, 0o700)
            result = one(folder, self._placement.rank(local) == 0)
            self._flush()
            if isinstance(result, Failure):
                answer: dict[str, Any] = {"failure": result._asdict()}
            else:
                answer = {"packed": None if result is None else result._asdict()}
                code = 0
            connection.sendall(json.dumps(answer).encode() + b"\n")
            connection.recv(1)
            with contextlib.suppress(BaseException):
                # What libraries have registered; os._exit does not run it, and an exception would be the electron's.
                atexit._run_exitfuncs()
            self._flush()
        except BaseException as error:  # not the electron's, which `one` returns
            sys.__stderr__.write(f"covalent-cirro runner: a process of the electron broke: {error!r}\n")  # type: ignore[union-attr]
            code = 1
        finally:
            os._exit(code)

    def _find_dead(self) -> None:
        """Look for a process that died and left another that keeps its connection open."""
        for process in self._processes:
            pid, status, _ = os.wait4(process.pid, os.WNOHANG)
            if pid:
                self._die_like(process, status)

    def _die_like(self, process: _Process, status: int) -> NoReturn:
        self._died(self._placement.rank(process.local))
        for other in self._processes:
            if other is not process:
                forked.kill(other.pid)
        forked.end_as(status)


class _Process:
    """A forked process, seen from the electron's."""

    def __init__(self, local: int, pid: int, connection: socket.socket) -> None:
        self.local, self.pid, self.socket = local, pid, connection
        self.has_returned = False
        self._unread = b""

    def read(self) -> dict[str, Any] | None:
        """Its answer; `None` while it is not complete; ``{"died": True}`` if it ends before."""
        data = b""
        with contextlib.suppress(ConnectionError):
            data = self.socket.recv(_READ_BYTES)
        if not data:
            return {"died": True}
        self._unread += data
        if not self._unread.endswith(b"\n"):
            return None
        answer: dict[str, Any] = json.loads(self._unread)
        return answer
