"""The connections between the nodes of a multi-node job: what strangers may do to them, and what one node tells."""

from __future__ import annotations

import contextlib
import json
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.runner import main_node
from covalent_cirro.runner.main_node import MainNode
from covalent_cirro.runner.node_connection import Meeting, NodeConnection, NotMet, is_signed, of_node, sign
from covalent_cirro.runner.other_node import OtherNode

KEY = "the job's key"


def unchecked() -> None:
    """Nothing interrupts a wait."""


class Job:
    """A job of some nodes, whose main node listens in a thread."""

    def __init__(self, count: int) -> None:
        self.stored: Future[bytes] = Future()
        self.main = MainNode(count, KEY, self.stored.set_result, 60, unchecked)
        self._pool = ThreadPoolExecutor(1)
        self.meeting: Future[Meeting] = self._pool.submit(self.main.meet)
        self.said: dict[str, Any] = json.loads(self.stored.result(60))

    def node(self, index: int) -> OtherNode:
        """A node of the job, which has not connected yet."""
        return OtherNode(index, KEY, lambda: self.stored.result(60), "127.0.0.1", 60, unchecked)

    def stranger(self) -> socket.socket:
        """A connection to the port on which the main node listens."""
        return socket.create_connection(("127.0.0.1", self.said["port"]), 60)

    def hello(self, index: int) -> bytes:
        """What a node says first."""
        said = {"nonce": self.said["nonce"], "node": index}
        return json.dumps({"hello": index, "mac": sign(said, KEY)}).encode() + b"\n"

    def close(self) -> None:
        """Close the connections of the main node."""
        self._pool.shutdown()
        self.main.close()


@pytest.fixture
def pair() -> Iterator[Job]:
    """A job of two nodes."""
    job = Job(2)
    with contextlib.closing(job):
        yield job


class Exploding:
    """Fails the test when it is unpickled."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("the main node has unpickled what a stranger sent",)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b'{"hello": 1, "mac": "wrong"}\n', id="a wrong proof"),
        pytest.param(b'{"hello": 1}\n', id="no proof"),
        pytest.param('{"hello": 1, "mac": "é"}\n'.encode(), id="a proof that is not ASCII"),
        pytest.param(b'{"hello": 1, "mac": "\\ud800"}\n', id="a proof that is no text"),
        pytest.param(b'{"hello": 1, "mac": {"mac": []}}\n', id="a proof of another type"),
        pytest.param(b'{"hello": true, "mac": "wrong"}\n', id="a number that is none"),
        pytest.param(b'{"hello": 7, "mac": "wrong"}\n', id="a node that the job does not have"),
        pytest.param(b'{"failed": {"kind": "raised", "message": "forged"}, "at": 0}\n', id="a failure"),
        pytest.param(b'{"left": {"cpu_s": 1}}\n', id="an end"),
        pytest.param(b"[" * 1000 + b"\n", id="brackets in brackets"),
        pytest.param(b"1" * 1000 + b"\n", id="a long number"),
        pytest.param(b"x" * 1025, id="a line without an end"),
        pytest.param(b"\xff\xfe\x00GET / HTTP/1.1\r\n\r\n", id="another protocol"),
        pytest.param(pickle.dumps(Exploding()) + b"\n", id="a pickle"),
    ],
)
def test_stranger_is_turned_away_and_the_nodes_meet(pair: Job, sent: bytes) -> None:
    """Whatever somebody sends who does not know the job's key, the main node closes that connection and goes on."""
    with pair.stranger() as stranger:
        stranger.sendall(sent)
        with contextlib.suppress(ConnectionResetError):  # closed with bytes that were not read
            assert stranger.recv(1) == b""
    with contextlib.closing(pair.node(1)) as other:
        assert other.meet() == pair.meeting.result(60)


def test_strangers_that_say_nothing_take_no_place(pair: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those who only connect, a limited number is kept, from the newest on; none is kept once the nodes have met."""
    monkeypatch.setattr(main_node, "_MOST_STRANGERS", 3)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(pair.stranger()) for _ in range(5)]
        assert [silent[0].recv(1), silent[1].recv(1)] == [b"", b""]
        other = stack.enter_context(contextlib.closing(pair.node(1)))
        assert other.meet() == pair.meeting.result(60)
        assert [each.recv(1) for each in silent[2:]] == [b"", b"", b""]
        with pytest.raises(ConnectionRefusedError):
            pair.stranger()


def test_second_node_of_a_number_is_turned_away() -> None:
    """A node that is there keeps its place, also against somebody who repeats what it said."""
    job = Job(3)
    with contextlib.closing(job), ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(contextlib.closing(job.node(index))) for index in (1, 2))
        first = pool.submit(one.meet)
        while len(job.main._lines) < 1:
            time.sleep(0.01)
        with job.stranger() as second:
            second.sendall(job.hello(1))
            assert second.recv(1) == b""
        assert two.meet() == first.result(60) == job.meeting.result(60)


def test_messages_that_come_together_are_each_read(pair: Job) -> None:
    """A node that fails at once says so with its hello, in a line that is longer than a stranger's may be."""
    failed = {"failed": Failure(Kind.FETCH, "a blob is missing", "t" * 10_000)._asdict(), "at": 1.0}
    with pair.stranger() as node:
        node.sendall(pair.hello(1) + json.dumps(failed).encode() + b"\n")
        with pytest.raises(NotMet) as caught:
            pair.meeting.result(60)
    assert caught.value.failure.kind == Kind.FETCH
    assert caught.value.failure.message == "node 1: a blob is missing"


def test_end_that_comes_with_the_meeting_is_not_lost() -> None:
    """The main node may have ended before another one has read that all are there."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = NodeConnection.__new__(NodeConnection)
        line.socket, line.index, line.is_open, line._unread = ours, -1, True, b""
        theirs.sendall(b'{"go": 1}\n{"end": "done"}\n')
        assert next(line.receive()) == {"go": 1}
        ours.setblocking(False)
        assert list(line.receive()) == [{"end": "done"}]
        assert line.is_open


STOPPED = Failure(Kind.TERMINATED, "'train' was stopped by SIGTERM")


def stopped(node: OtherNode) -> None:
    """AWS has sent SIGTERM to a node that waits for others."""
    node._connect()
    node.conclude(STOPPED, {})


def stopped_before(node: OtherNode) -> None:
    """AWS has sent SIGTERM to a node that has not connected yet, and has been asking for that since."""

    def interrupt() -> None:
        raise InterruptedError

    node._check = interrupt
    node.conclude(STOPPED, {})


def gone(node: OtherNode) -> None:
    """The machine of a node that waits for others is gone."""
    node._connect()
    node.close()


@pytest.mark.parametrize("leave", [stopped, stopped_before, gone])
def test_node_lost_before_all_are_there_has_the_job_begin_again(leave: Callable[[OtherNode], None]) -> None:
    """As one that is lost while the electron runs: another attempt may succeed."""
    job = Job(3)
    with contextlib.closing(job):
        leave(job.node(1))
        with pytest.raises(NotMet) as caught:
            job.meeting.result(60)
    assert caught.value.failure.kind == Kind.TERMINATED
    assert caught.value.failure.message.startswith("node 1")
    assert job.main.passes


@pytest.mark.parametrize("failure", [STOPPED, Failure(Kind.NODES, "node 1 could not reach the main node")])
def test_node_that_cannot_tell_its_failure_does_not_wait(failure: Failure) -> None:
    """There is no time left, or the main node could not be reached for long enough already."""
    looked: list[None] = []
    node = OtherNode(1, KEY, lambda: looked.append(None), "127.0.0.1", 3600, unchecked)
    node.conclude(failure, {})
    assert len(looked) == (1 if failure is STOPPED else 0)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("deps_bash failed", "node 2: deps_bash failed"),
        ("rank 5 on node 2: ValueError", "rank 5 on node 2: ValueError"),
        ("node 2 could not reach the main node", "node 2 could not reach the main node"),
        ("nodes of a tree are missing", "node 2: nodes of a tree are missing"),
    ],
)
def test_failure_names_its_node_once(said: str, told: str) -> None:
    """Whoever reads the error looks at the log of that node."""
    assert of_node(Failure(Kind.RAISED, said), 2).message == told


@pytest.mark.parametrize(
    "proof", [None, "", "é", "\ud800", 1, [], sign({"node": 2}, KEY), sign({"node": 1}, "another")]
)
def test_only_the_right_proof_is_taken(proof: object) -> None:
    """Also of another type, or in another alphabet: no proof is an error."""
    assert not is_signed({"node": 1}, proof, KEY)
    assert is_signed({"node": 1}, sign({"node": 1}, KEY), KEY)
