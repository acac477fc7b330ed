"""The side of a node of a multi-node job that is not the main one (`team.py`): it connects, and ends with the job."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from typing import Any

from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.protocol import ComputeNode
from covalent_cirro.runner.node_connection import (
    DONE,
    ENDED,
    LINGER_S,
    LOOK_S,
    LOST,
    Meeting,
    NodeConnection,
    NotMet,
    is_signed,
    sign,
)

_CONNECT_S = 5.0
_FIRST_PAUSE_S, _MAX_PAUSE_S, _LONGER = 1.0, 5.0, 1.3
"""Pauses between two reads of the main node's object; a read costs as much as a GET request."""


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
        self._line: NodeConnection | None = None
        self._end = ""
        self._end_at = 0.0
        self._failed = False

    def meet(self) -> Meeting:
        """Connect to the main node, and wait until all nodes are there.

        Raises:
            NotMet: The main node cannot be reached, or has ended.
        """
        line = self._line or self._connect()
        line.socket.settimeout(LOOK_S)
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
            self._end_at = time.monotonic() + (LINGER_S if self._end == DONE else 0.0)
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
            # Stopped before the nodes met: the machine goes, or AWS Batch ends the job and starts no other attempt.
            stopped = failure.kind == Kind.TERMINATED
            if self._line is None and failure.kind != Kind.NODES:  # which says that the main node cannot be reached
                with contextlib.suppress(NotMet):
                    self._connect(once=stopped)
            self._tell(failure, passes=stopped)
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

    def _connect(self, *, once: bool = False) -> NodeConnection:
        """Connect to the main node.

        Args:
            once: Do not wait for it: there are seconds until SIGKILL.
        """
        until = time.monotonic() + (0.0 if once else self._wait_s)
        pause_s, problem = _FIRST_PAUSE_S, "it has not said on which port it listens"
        while True:
            if not once:
                self._check()
            found = _parse(self._find(), self._mac_key)
            if found is not None:
                try:
                    connection = socket.create_connection((self._address, found["port"]), _CONNECT_S)
                except OSError as error:
                    problem = f"port {found['port']} of {self._address}: {error}"
                else:
                    line = self._line = NodeConnection(connection)
                    said = {"nonce": found["nonce"], "node": self._index}
                    line.send(hello=self._index, mac=sign(said, self._mac_key))
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


def _parse(data: bytes | None, mac_key: str) -> dict[str, Any] | None:
    """The object of the main node, if the job itself wrote it; `None` otherwise."""
    try:
        found = json.loads(data or b"null")
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    said = {name: value for name, value in found.items() if name != "mac"}
    return found if is_signed(said, found.get("mac"), mac_key) else None
