"""The compute nodes of a multi-node job: how they meet, and how each learns what became of the others.

The main node listens on a port, and stores an object that says on which. Each other node reads that object, connects,
and shows that it knows the key of the job. When all are there, the main node tells them where the processes of the
electron find one another. The connections stay: a node that fails says so, and the connection of a lost one ends
(docs/decisions/0026). The runner's loop looks at them once a second; there is no thread.

Messages are JSON, one in a line. From a node: ``hello`` (its index) with ``mac``, ``failed``, ``left``. From the main
node: ``go`` (the port for `MASTER_PORT`), ``end``.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import random
import re
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.protocol import ComputeNode, mac

_READ_BYTES = 256 * 1024
_MAX_LINE_BYTES = 1024 * 1024
_CONNECT_S = 5.0
_LOOK_S = 1.0
_FIRST_PAUSE_S, _MAX_PAUSE_S, _LONGER = 1.0, 5.0, 1.3
"""Pauses between two reads of the main node's object; a read costs as much as a GET request."""

_GRACE_S = 3.0
"""Seconds for which the main node, of which a process has failed, waits for the failure that may have caused this."""

_LINGER_S = 3.0
"""Seconds that the processes of the other nodes have to return once the main node is done."""

_COLLECT_S = 10.0
"""Seconds for which the main node waits, at its end, for what the others used."""

_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6}
"""A machine that is gone without a word is noticed after 45 s (tcp(7))."""

_PORTS = (20_000, 30_000)
"""Ports that no system gives to outgoing connections by itself (ip(7), ip_local_port_range)."""

_FOLLOWS = re.compile(
    r"closed by peer|reset by peer|broken pipe|connection (?:was )?(?:closed|refused|lost)|remote process exited"
    r"|ncclRemoteError|ncclSystemError|DistNetworkError|DistStoreError|DistBackendError|timed out waiting",
    re.IGNORECASE,
)
"""What gloo, NCCL and torch's store say in a process because another one has ended."""

DONE, FAILED, LOST, MISSING, ENDED = "done", "failed", "lost", "missing", "ended"


class NotMet(Exception):
    """The nodes of the job have not all met; ``failure`` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Meeting(NamedTuple):
    """Where the processes of the electron find one another."""

    address: str
    port: int


class _Told(NamedTuple):
    """A failure that this node knows of."""

    at: float
    failure: Failure
    passes: bool  # the machine was lost, or is going: another attempt may succeed

    @property
    def order(self) -> tuple[bool, float]:
        return _FOLLOWS.search(f"{self.failure.message}\n{self.failure.traceback[-2000:]}") is not None, self.at


class _Line:
    """A connection that carries messages.

    Attributes:
        index: Node at the other end, once it is known.
        state: What became of that node; empty while it goes on.
        used: What it used, once it has left.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.index = -1
        self.state = ""
        self.used: dict[str, Any] = {}
        self.is_open = True
        self._unread = b""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, **message: Any) -> None:
        """Send a message; a node that is gone is noticed when its connection is read."""
        with contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]]:
        """Messages that have come. Blocks where the socket does; at its end ``is_open`` is false."""
        try:
            data = self.socket.recv(_READ_BYTES)
        except (BlockingIOError, TimeoutError):
            return []
        except OSError:
            data = b""
        *lines, self._unread = (self._unread + data).split(b"\n")
        if not data or len(self._unread) > _MAX_LINE_BYTES:
            self.close()
        try:
            found = [json.loads(line) for line in lines]
        except ValueError:
            self.close()
            return []
        return [message for message in found if isinstance(message, dict)]

    def close(self) -> None:
        """Close the connection."""
        self.is_open = False
        self.socket.close()


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
        self._lines: list[_Line] = []
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
        document["mac"] = _sign(document, self._mac_key)
        self._store(json.dumps(document).encode())
        until = time.monotonic() + self._wait_s
        while len(self._there()) < self._count - 1:
            self._check()
            self._take(min(_LOOK_S, max(0.0, until - time.monotonic())))
            if self._told:
                raise NotMet(self._first().failure)
            if time.monotonic() >= until:
                raise NotMet(Failure(Kind.NODES, self._why_missing(document["port"])))
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
            own = _Told(time.time(), answer, False)
            until = time.monotonic() + (0.0 if stopped or self._told else _GRACE_S)
            while any(line.state == "" for line in self._lines) and (left_s := until - time.monotonic()) > 0:
                self._take(left_s)
            self._told = [own] if stopped else [*self._told, own]
        first = self._first() if self._told else None
        for line in self._lines:
            line.send(end=DONE if first is None else FAILED)
        until = time.monotonic() + (_LINGER_S if stopped else _COLLECT_S)
        while any(line.is_open for line in self._lines) and (left_s := until - time.monotonic()) > 0:
            self._take(left_s, over=True)
        if first is None:
            return answer
        self.passes = first.passes
        return first.failure

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
        if self._listener is not None:
            self._listener.close()
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
            line: _Line = key.data
            for message in line.receive():
                self._read(line, message)
            if not line.is_open:
                self._selector.unregister(key.fileobj)
                if line.index >= 0 and not line.state:
                    line.state = ENDED if over else LOST
                if line.state == LOST:
                    words = f"node {line.index} was lost: its connection to the main node ended without a word"
                    self._told.append(_Told(time.time(), Failure(Kind.TERMINATED, words), True))

    def _accept(self, listener: Any) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, _Line(connection))

    def _read(self, line: _Line, message: dict[str, Any]) -> None:
        if line.index < 0:
            index = message.get("hello")
            proof = str(message.get("mac"))
            wanted = _sign({"nonce": self._nonce, "node": index}, self._mac_key)
            if not isinstance(index, int) or not 0 < index < self._count or index in self._there():
                line.close()
                return
            if not hmac.compare_digest(proof, wanted):
                line.close()  # not a node of this attempt
                return
            line.index = index
            line.socket.setblocking(True)  # small messages; and reads follow a select
            self._lines.append(line)
        elif "failed" in message:
            line.state = FAILED
            failure = Failure(**message["failed"])
            self._told.append(_Told(float(message["at"]), failure, bool(message.get("passes"))))
        elif "left" in message:
            line.used, line.state = dict(message["left"]), line.state or str(message.get("state") or DONE)
            line.close()

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


class OtherNode:
    """The side of a node that is not the main one.

    Args:
        index: Index of this node.
        mac_key: Key of the job.
        find: Reads the object of the main node; `None` while there is none.
        address: Address of the main node.
        wait_s: Seconds for which it tries to connect.
        check: Called now and then while it waits; raises to stop that.

    Attributes:
        passes: Always false: only the main node's end counts.
    """

    passes = False

    def __init__(
        self,
        index: int,
        mac_key: str,
        find: Callable[[], bytes | None],
        address: str,
        wait_s: float,
        check: Callable[[], None],
    ) -> None:
        self._index, self._mac_key, self._find, self._address = index, mac_key, find, address
        self._wait_s, self._check = wait_s, check
        self._line: _Line | None = None
        self._end = ""
        self._end_at = 0.0
        self._failed = False

    def meet(self) -> Meeting:
        """Connect to the main node, and wait until all nodes are there.

        Raises:
            NotMet: The main node cannot be reached, or has ended.
        """
        line = self._line or self._connect()
        line.socket.settimeout(_LOOK_S)
        while True:
            self._check()
            for message in line.receive():
                if "go" in message:
                    return Meeting(self._address, int(message["go"]))
            if not line.is_open:
                raise NotMet(Failure(Kind.NOT_RUN, "the main node ended before all nodes were there"))

    def look(self) -> bool:
        """Whether the processes of this node are to end, with the main node. Does not wait."""
        line = self._line
        if line is not None and not self._end:
            line.socket.setblocking(False)
            self._end = next((str(message["end"]) for message in line.receive() if "end" in message), "")
            if not line.is_open and not self._end:
                self._end = LOST
            self._end_at = time.monotonic() + (_LINGER_S if self._end == DONE else 0.0)
        return bool(self._end) and time.monotonic() >= self._end_at

    def settle(self, answer: Any, *, stopped: bool) -> Any:
        """Tell the main node that a process of this node has failed, if that did not follow from the job's end.

        Args:
            answer: How the processes of this node ended.
            stopped: AWS has sent SIGTERM to this node.

        Returns:
            The failure of this node; ``answer`` if it did not fail.
        """
        if not isinstance(answer, Failure):
            return answer
        self.look()
        if self._end:
            return Failure(Kind.NOT_RUN, "ended with the main node")
        self._tell(answer, passes=stopped)
        return answer

    def conclude(self, failure: Failure | None, used: dict[str, Any]) -> None:
        """Leave. A failure from before the nodes met is told now.

        Args:
            failure: Why this node failed; `None` if it did not.
            used: What it used.
        """
        if failure is not None and failure.kind != Kind.NOT_RUN and not self._failed and not self._end:
            with contextlib.suppress(NotMet):
                if self._line is None:
                    self._connect()
                self._tell(failure, passes=False)
        if self._line is not None:
            self._line.socket.setblocking(True)
            ended = failure is not None and failure.kind == Kind.NOT_RUN
            self._line.send(left=used, state=ENDED if ended else DONE)

    def nodes(self, _own: dict[str, Any], _failed: bool) -> tuple[ComputeNode, ...]:
        """None: the main node knows them."""
        return ()

    def oom_kills(self) -> tuple[int, ...]:
        """None: the main node knows them."""
        return ()

    def close(self) -> None:
        """Close the connection."""
        if self._line is not None:
            self._line.close()

    def _tell(self, failure: Failure, *, passes: bool) -> None:
        self._failed = True
        if self._line is not None:
            self._line.socket.setblocking(True)
            self._line.send(failed=failure._asdict(), at=time.time(), passes=passes)

    def _connect(self) -> _Line:
        until = time.monotonic() + self._wait_s
        pause_s, problem = _FIRST_PAUSE_S, "it has not said on which port it listens"
        while True:
            self._check()
            found = _parse(self._find(), self._mac_key)
            if found is not None:
                try:
                    connection = socket.create_connection((self._address, found["port"]), _CONNECT_S)
                except OSError as error:
                    problem = f"port {found['port']} of {self._address}: {error}"
                else:
                    line = self._line = _Line(connection)
                    said = {"nonce": found["nonce"], "node": self._index}
                    line.send(hello=self._index, mac=_sign(said, self._mac_key))
                    return line
            if time.monotonic() + pause_s > until:
                raise NotMet(
                    Failure(
                        Kind.NODES,
                        f"node {self._index} could not reach the main node within {self._wait_s:.0f} s: {problem}. "
                        "Nodes need a security group that lets them reach one another on all ports",
                    )
                )
            time.sleep(pause_s)
            pause_s = min(_MAX_PAUSE_S, pause_s * _LONGER)


Team = MainNode | OtherNode


def free_port() -> int:
    """A port on which nobody listens now."""
    numbers = random.SystemRandom()
    while True:
        port = numbers.randrange(*_PORTS)
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("", port))
            return port


def _sign(said: dict[str, Any], mac_key: str) -> str:
    return mac(json.dumps(said, sort_keys=True).encode(), mac_key)


def _parse(data: bytes | None, mac_key: str) -> dict[str, Any] | None:
    """The object of the main node, if the job itself wrote it; `None` otherwise."""
    try:
        found = json.loads(data or b"null")
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    said = {name: value for name, value in found.items() if name != "mac"}
    return found if hmac.compare_digest(str(found.get("mac")), _sign(said, mac_key)) else None


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
