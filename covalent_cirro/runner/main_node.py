"""The main node's side of a multi-node job (`team.py`): it waits for the others, and learns what becomes of each."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.protocol import ComputeNode
from covalent_cirro.runner.node_connection import (
    DONE,
    ENDED,
    FAILED,
    LINGER_S,
    LOOK_S,
    LOST,
    MISSING,
    Meeting,
    NodeConnection,
    NotMet,
    free_port,
    is_signed,
    of_node,
    sign,
)

_GRACE_S = 3.0
"""Seconds for which the main node, of which a process has failed, waits for the failure that may have caused this."""

_COLLECT_S = 10.0
"""Seconds for which the main node waits, at its end, for what the others used."""

_MOST_STRANGERS = 256
"""Connections that are kept of those who have not yet shown to be a node; they are closed from the oldest on."""

_FOLLOWS = re.compile(
    r"closed by peer|reset by peer|broken pipe|connection (?:was )?(?:closed|refused|lost)|remote process exited"
    r"|ncclRemoteError|ncclSystemError|DistNetworkError|DistStoreError|DistBackendError|timed out waiting",
    re.IGNORECASE,
)
"""What gloo, NCCL and torch's store say in a process because another one has ended."""


class _Told(NamedTuple):
    """A failure that this node knows of."""

    at: float
    failure: Failure
    passes: bool  # the machine was lost, or is going: another attempt may succeed

    @property
    def order(self) -> tuple[bool, float]:
        return _FOLLOWS.search(f"{self.failure.message}\n{self.failure.traceback[-2000:]}") is not None, self.at


class MainNode:
    """The main node's side.

    Args:
        count: Number of nodes.
        mac_key: Key of the job.
        store: Stores the object that says where this node listens.
        wait_s: Seconds for which it waits for the others.
        check: Called now and then while it waits; raises to stop that.

    Attributes:
        passes: Whether the failure that counts may pass with another attempt, since a machine was lost.
    """

    def __init__(
        self, count: int, mac_key: str, store: Callable[[bytes], None], wait_s: float, check: Callable[[], None]
    ) -> None:
        self.passes = False
        self._count, self._mac_key, self._store, self._wait_s, self._check = count, mac_key, store, wait_s, check
        self._nonce = os.urandom(16).hex()
        self._lines: list[NodeConnection] = []
        self._strangers: list[NodeConnection] = []
        self._told: list[_Told] = []
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None

    def meet(self) -> Meeting:
        """Wait until all nodes are there, and tell them where to find one another.

        Raises:
            NotMet: Some did not come, or one failed before.
        """
        listener = self._listener = socket.create_server(("0.0.0.0", 0), backlog=min(1024, self._count))  # noqa: S104
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        document = {"port": listener.getsockname()[1], "nonce": self._nonce}
        document["mac"] = sign(document, self._mac_key)
        self._store(json.dumps(document).encode())
        until = time.monotonic() + self._wait_s
        while len(self._there()) < self._count - 1:
            self._check()
            self._take(min(LOOK_S, max(0.0, until - time.monotonic())))
            if self._told:
                raise NotMet(self._conclusive())
            if time.monotonic() >= until:
                raise NotMet(Failure(Kind.NODES, self._why_missing(document["port"])))
        self._listen_no_more()
        meeting = Meeting(self._lines[0].socket.getsockname()[0], free_port())
        for line in self._lines:
            line.send(go=meeting.port)
        return meeting

    def look(self) -> bool:
        """Whether the processes of this node are to end, since a node has failed. Does not wait."""
        self._take(0.0)
        return bool(self._told)

    def settle(self, answer: Any, *, stopped: bool) -> Any:
        """End the job on all nodes, once the processes of this node have ended.

        Args:
            answer: How they ended.
            stopped: AWS has sent SIGTERM to this node.

        Returns:
            The failure that was the first on any node; ``answer`` if none failed.
        """
        self._take(0.0)
        if isinstance(answer, Failure) and not (stopped and self._told):
            own = _Told(time.time(), answer if stopped else of_node(answer, 0), False)
            until = time.monotonic() + (0.0 if stopped or self._told else _GRACE_S)
            while any(line.state == "" for line in self._lines) and (left_s := until - time.monotonic()) > 0:
                self._take(left_s)
            self._told = [own] if stopped else [*self._told, own]
        first = self._first() if self._told else None
        for line in self._lines:
            line.send(end=DONE if first is None else FAILED)
        until = time.monotonic() + (LINGER_S if stopped else _COLLECT_S)
        while any(line.is_open for line in self._lines) and (left_s := until - time.monotonic()) > 0:
            self._take(left_s, over=True)
        return answer if first is None else self._conclusive()

    def conclude(self, _failure: Failure | None, _used: dict[str, Any]) -> None:
        """Nothing: nodes that have not met yet end with this one."""

    def nodes(self, own: dict[str, Any], failed: bool) -> tuple[ComputeNode, ...]:
        """All nodes, as far as they are known."""
        lines = {line.index: line for line in self._lines}
        found = [_node(0, FAILED if failed else DONE, own)]
        for index in range(1, self._count):
            line = lines.get(index)
            found.append(
                _node(index, MISSING if line is None else line.state or ENDED, {} if line is None else line.used)
            )
        return tuple(found)

    def oom_kills(self) -> tuple[int, ...]:
        """How many processes the kernel killed for want of memory, on each other node that told it."""
        told = (line.used.get("oom_kills") for line in self._lines)
        return tuple(each for each in told if isinstance(each, int) and each >= 0)

    def close(self) -> None:
        """Close all connections."""
        for line in self._lines:
            line.close()
        self._listen_no_more()
        self._selector.close()

    def _there(self) -> set[int]:
        return {line.index for line in self._lines}

    def _take(self, wait_s: float, *, over: bool = False) -> None:
        """Take what has come.

        Args:
            wait_s: How long to wait for something to come.
            over: The job is over: nodes that end now are not lost.
        """
        for key, _ in self._selector.select(wait_s):
            if key.fileobj is self._listener:
                self._accept(key.fileobj)
                continue
            line: NodeConnection = key.data
            if line.socket.fileno() < 0:  # turned away for one that was accepted just now
                continue
            for message in line.receive():
                self._read(line, message)
            if not line.is_open:
                self._selector.unregister(key.fileobj)
                if line in self._strangers:
                    self._strangers.remove(line)
                if line.index >= 0 and not line.state:
                    line.state = ENDED if over else LOST
                if line.state == LOST:
                    words = f"node {line.index} was lost: its connection to the main node ended without a word"
                    self._told.append(_Told(time.time(), Failure(Kind.TERMINATED, words), True))

    def _accept(self, listener: Any) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            connection.setblocking(False)
            line = NodeConnection(connection)
            self._selector.register(connection, selectors.EVENT_READ, line)
            self._strangers.append(line)
        if len(self._strangers) > _MOST_STRANGERS:
            self._turn_away(self._strangers[0])

    def _turn_away(self, stranger: NodeConnection) -> None:
        self._strangers.remove(stranger)
        self._selector.unregister(stranger.socket)
        stranger.close()

    def _listen_no_more(self) -> None:
        for stranger in tuple(self._strangers):
            self._turn_away(stranger)
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _read(self, line: NodeConnection, message: dict[str, Any]) -> None:
        if not line.is_open:  # what follows a message for which it was closed
            return
        if line.index < 0:
            index = message.get("hello")
            if not isinstance(index, int) or not 0 < index < self._count or index in self._there():
                line.close()
                return
            if not is_signed({"nonce": self._nonce, "node": index}, message.get("mac"), self._mac_key):
                line.close()  # not a node of this attempt
                return
            line.index = index
            self._strangers.remove(line)
            line.socket.setblocking(True)  # small messages; and reads follow a select
            self._lines.append(line)
        elif "failed" in message:
            line.state = FAILED
            failure = of_node(Failure(**message["failed"]), line.index)
            self._told.append(_Told(float(message["at"]), failure, bool(message.get("passes"))))
        elif "left" in message:
            line.used, line.state = dict(message["left"]), line.state or str(message.get("state") or DONE)
            line.close()

    def _conclusive(self) -> Failure:
        """The failure that counts; says by `passes` whether another attempt may do better."""
        first = self._first()
        self.passes = first.passes
        return first.failure

    def _first(self) -> _Told:
        return min(self._told, key=lambda told: told.order)

    def _why_missing(self, port: int) -> str:
        missing = sorted(set(range(1, self._count)) - self._there())
        shown = ", ".join(map(str, missing[:20])) + (f" and {len(missing) - 20} more" if len(missing) > 20 else "")
        some = f"node {shown}" if len(missing) == 1 else f"nodes {shown}"
        return (
            f"{some} of {self._count} did not connect to the main node within {self._wait_s:.0f} s: "
            f"`cirro logs DISPATCH:NODE --node {missing[0]}` says what that node did. Nodes need a security group "
            f"that lets them reach one another on all ports (the main node listened on port {port})"
        )


def _node(index: int, state: str, used: dict[str, Any]) -> ComputeNode:
    peak, cpu_s = used.get("peak_memory_bytes"), used.get("cpu_s")
    return ComputeNode(
        number=index,
        state=state,
        cpu_s=float(cpu_s) if isinstance(cpu_s, (int, float)) else 0.0,
        peak_memory_bytes=peak if isinstance(peak, int) and peak >= 0 else None,
        instance_type=str(used.get("instance_type") or ""),
        instance_id=str(used.get("instance_id") or ""),
    )
