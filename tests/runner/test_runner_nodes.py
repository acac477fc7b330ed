"""Distributed electrons: several processes on a node, and several nodes of a job, seen through the real runner."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cloudpickle
import pytest

from covalent_cirro.contract import documents
from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.contract.protocol import ExitCode, Outcome
from covalent_cirro.runner.main_node import MainNode
from covalent_cirro.runner.node_connection import NotMet
from covalent_cirro.runner.other_node import OtherNode

cloudpickle.register_pickle_by_value(sys.modules[__name__])

PARENT = "11111111-2222-4333-8444-555555555555"
VARIABLES = (
    *("MASTER_ADDR", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    *("GROUP_RANK", "NODE_RANK", "OMP_NUM_THREADS"),
)


class Nodes:
    """Starts the runner once for each node of a job, as AWS Batch does."""

    def __init__(self, runs: Any) -> None:
        self.runs = runs
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, index: int, count: int, **env: str) -> subprocess.Popen[bytes]:
        """Start the runner of a node."""
        own = {
            "AWS_BATCH_JOB_ID": f"{PARENT}#{index}",
            "AWS_BATCH_JOB_NODE_INDEX": str(index),
            "AWS_BATCH_JOB_NUM_NODES": str(count),
            "AWS_BATCH_JOB_MAIN_NODE_INDEX": "0",
            **env,
        }
        if index:
            own["AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"] = "127.0.0.1"
        process: subprocess.Popen[bytes] = self.runs.start(own)
        self.started.append(process)
        return process

    def finish(self) -> Any:
        """Wait for the main node, and for the others, which AWS Batch would stop then."""
        main, *others = self.started
        ran = self.runs.finish(main)
        self.others = []
        for each in others:
            out, err = each.communicate(timeout=60)
            self.others.append((each.returncode, out.decode(), err.decode()))
        return ran

    def __call__(self, count: int, processes: int, task: Any, **env: str) -> Any:
        """Make a call and run it on all nodes."""
        self.runs.make_call(task, num_nodes=count, processes=processes)
        for index in range(count):
            self.start(index, count, **env)
        return self.finish()

    def outcome_of(self, index: int, attempt: int = 1) -> Outcome:
        """The outcome of a node that is not the main one."""
        place = self.runs.location.on_node(index, attempt)
        return documents.parse_outcome(self.runs.get(place.outcome_key))


@pytest.fixture
def nodes(runs: Any) -> Any:
    """Nodes of one job; those that a failed test leaves are killed."""
    made = Nodes(runs)
    yield made
    for each in made.started:
        if each.poll() is None:
            os.killpg(each.pid, signal.SIGKILL)
            each.wait()


def exchanged(*names: str) -> list[Any]:
    """What all ranks have in their environment: rank 0 asks the others over the port that it was given."""
    import json
    import os
    import socket
    import time

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    own = {name: os.environ.get(name) for name in names}
    where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    print(f"rank {rank} of {world}", flush=True)
    if rank:
        until = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(where) as connection:
                    connection.sendall(json.dumps([rank, own]).encode())
                return ["dropped"]
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.05)
    told = [[0, own]]
    with socket.create_server(("", where[1])) as server:
        while len(told) < world:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as file:
                told.append(json.loads(file.read()))
    return [each for _, each in sorted(told)]


def test_processes_on_one_machine_have_ranks(runs: Any) -> None:
    """Without a multi-node job, each process has the variables of torchrun; what rank 0 returns is the result."""
    ran = runs(runs.task(exchanged, *VARIABLES), processes=2)

    assert ran.code == ExitCode.OK, ran.stderr
    zero, one = runs.value(ran)
    assert (zero["MASTER_ADDR"], zero["RANK"], zero["LOCAL_RANK"]) == ("127.0.0.1", "0", "0")
    assert (one["RANK"], one["LOCAL_RANK"], one["NODE_RANK"]) == ("1", "1", "0")
    assert {one["WORLD_SIZE"], one["LOCAL_WORLD_SIZE"]} == {"2"}
    assert one["OMP_NUM_THREADS"] == "1"
    assert sorted(ran.stdout.splitlines()) == ["rank 0 of 2", "rank 1 of 2"]


def test_nodes_of_a_job_find_one_another(runs: Any, nodes: Nodes) -> None:
    """Ranks count over nodes; the result is that of the main node; each node stores its own output and usage."""
    ran = nodes(2, 2, runs.task(exchanged, *VARIABLES))

    assert ran.code == ExitCode.OK, ran.stderr
    found = runs.value(ran)
    assert [each["RANK"] for each in found] == ["0", "1", "2", "3"]
    assert [each["LOCAL_RANK"] for each in found] == ["0", "1", "0", "1"]
    assert [each["GROUP_RANK"] for each in found] == ["0", "0", "1", "1"]
    assert {each["WORLD_SIZE"] for each in found} == {"4"}
    assert ran.outcome.job_id == PARENT
    assert [each.state for each in ran.outcome.nodes] == ["done", "done"]
    assert all(each.peak_memory_bytes for each in ran.outcome.nodes)
    assert sorted(ran.result.stdout.tail.splitlines()) == ["rank 0 of 4", "rank 1 of 4"]
    other = nodes.outcome_of(1)
    assert nodes.others[0][0] == ExitCode.OK, nodes.others
    assert other.job_id == f"{PARENT}#1"
    assert sorted(other.results[0].stdout.tail.splitlines()) == ["rank 2 of 4", "rank 3 of 4"]


def test_first_failure_ends_all_nodes(runs: Any, nodes: Nodes) -> None:
    """A rank of another node raises while the main node waits for ever: its error is the electron's, with traceback."""

    def fail() -> None:
        import os
        import time

        if os.environ["RANK"] == "1":
            raise ValueError("bad gradient")
        time.sleep(600)

    ran = nodes(2, 1, runs.task(fail))

    assert ran.code == ExitCode.RAISED
    assert ran.failure.kind == Kind.RAISED
    assert ran.failure.message == "rank 1 on node 1: ValueError: bad gradient"
    assert "raise ValueError" in ran.failure.traceback
    assert [each.state for each in ran.outcome.nodes] == ["failed", "failed"]


def test_what_follows_from_a_failure_does_not_win(runs: Any, nodes: Nodes) -> None:
    """The main node's processes fail because another one's connection is closed: the error of that one is shown."""

    def train() -> None:
        import os
        import socket
        import time

        where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        if os.environ["RANK"] == "0":
            with socket.create_server(where) as server:
                connection, _ = server.accept()
                if not connection.recv(1):
                    raise RuntimeError("Connection closed by peer [127.0.0.1]:4711")
        while True:
            try:
                with socket.create_connection(where):
                    break
            except OSError:
                time.sleep(0.05)
        time.sleep(0.2)  # the main node has failed by now
        raise KeyError("label")

    ran = nodes(2, 1, runs.task(train))

    assert ran.failure.message == "rank 1 on node 1: KeyError: 'label'"


def test_process_that_dies_is_named(runs: Any, nodes: Nodes) -> None:
    """A rank that a signal kills: the others end, and the error says which rank, which node and which signal."""

    def die() -> None:
        import os
        import signal
        import time

        if os.environ["RANK"] == "3":
            os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(600)

    ran = nodes(2, 2, runs.task(die))

    assert ran.failure.kind == Kind.KILLED
    assert ran.failure.message.startswith("rank 3 on node 1: ")
    assert ran.failure.signal == "SIGSEGV"


def test_main_node_knows_what_the_kernel_killed_on_others() -> None:
    """For want of memory: a rank there sees a broken pipe only, and the job's outcome is the main node's."""
    stored: list[bytes] = []

    def check() -> None:
        pass

    main = MainNode(2, "key", stored.append, 60, check)
    other = OtherNode(1, "key", lambda: stored[0] if stored else None, "127.0.0.1", 60, check)

    def work() -> None:
        other.meet()
        other.conclude(None, {"oom_kills": 2})

    with ThreadPoolExecutor(1) as pool, contextlib.closing(main), contextlib.closing(other):
        worked = pool.submit(work)
        main.meet()
        main.settle({}, stopped=False)
        worked.result()
        assert main.oom_kills() == (2,)


def test_failure_on_the_main_node_ends_the_others(runs: Any, nodes: Nodes) -> None:
    """The main node's second process raises: all other processes end, and the other node reports no failure."""

    def fail() -> None:
        import os
        import time

        if os.environ["RANK"] == "1":
            raise ValueError("here")
        time.sleep(600)

    ran = nodes(2, 2, runs.task(fail))

    assert ran.failure.message == "rank 1 on node 0: ValueError: here"
    assert nodes.others[0][0] == ExitCode.OK
    assert [each.state for each in ran.outcome.nodes] == ["failed", "ended"]


def test_main_node_that_is_done_ends_the_others(runs: Any, nodes: Nodes) -> None:
    """What the main node returns is the result, whatever other processes still do, on it and on others."""

    def work() -> str:
        import os
        import time

        if os.environ["RANK"] != "0":
            time.sleep(600)
        return "done"

    ran = nodes(2, 2, runs.task(work))

    assert ran.code == ExitCode.OK, ran.stderr
    assert runs.value(ran) == "done"
    assert nodes.others[0][0] == ExitCode.OK
    assert [each.state for each in ran.outcome.nodes] == ["done", "ended"]


def test_lost_node_has_the_job_begin_again(runs: Any, nodes: Nodes, eventually: Any) -> None:
    """The machine of a node goes away: the main node ends with the code for which AWS Batch begins all nodes again."""

    def wait() -> None:
        import time

        print("here", flush=True)
        time.sleep(600)

    runs.make_call(runs.task(wait), num_nodes=2, processes=1)
    nodes.start(0, 2)
    other = nodes.start(1, 2)
    assert other.stdout is not None
    assert other.stdout.readline() == b"here\n"
    os.killpg(other.pid, signal.SIGKILL)
    ran = nodes.finish()

    assert ran.code == ExitCode.HOST_GOING
    assert ran.failure.kind == Kind.TERMINATED
    assert ran.failure.message == "node 1 was lost: its connection to the main node ended without a word"
    assert not ran.outcome.is_final
    assert [each.state for each in ran.outcome.nodes] == ["failed", "lost"]


def test_node_that_does_not_come_is_named(runs: Any, nodes: Nodes) -> None:
    """After the time for it, the error names the nodes that are missing and what lets nodes reach one another."""
    runs.make_call(runs.task(exchanged), num_nodes=3, processes=1)
    nodes.start(0, 3, CIRRO_RUNNER_SECONDS="nodes=6")
    nodes.start(2, 3)
    ran = nodes.finish()

    assert "node 1 of 3 did not connect to the main node within 6 s" in ran.failure.message
    assert "--node 1" in ran.failure.message
    assert "security group" in ran.failure.message
    assert [each.state for each in ran.outcome.nodes] == ["failed", "missing", "ended"]


def test_nodes_of_the_next_attempt_do_not_meet_those_before(runs: Any, nodes: Nodes) -> None:
    """What an earlier attempt's main node stored is not used, nor what another job wrote to the same key."""
    key = runs.location.meeting_key(PARENT, 2)
    runs.put(runs.location.meeting_key(PARENT, 1), b'{"port": 1, "nonce": "earlier", "mac": "of that attempt"}')
    runs.put(key, b'{"port": 1, "nonce": "forged", "mac": "unknown"}')

    ran = nodes(2, 1, runs.task(exchanged, "RANK"), AWS_BATCH_JOB_ATTEMPT="2")

    assert [each["RANK"] for each in runs.value(ran)] == ["0", "1"]


def test_stranger_does_not_take_the_place_of_a_node(runs: Any, nodes: Nodes, eventually: Any) -> None:
    """Whoever reaches the port of the main node, and can read the bucket, does not know the key of the job."""
    runs.make_call(runs.task(exchanged, "RANK"), num_nodes=2, processes=1)
    nodes.start(0, 2)
    key = runs.location.meeting_key(PARENT, 1)
    eventually(lambda: key.removeprefix(runs.prefix) in runs.stored())
    said = json.loads(runs.get(key))
    with socket.create_connection(("127.0.0.1", said["port"])) as stranger:
        stranger.settimeout(60)
        stranger.sendall(json.dumps({"hello": 1, "mac": said["mac"]}).encode() + b"\n")
        assert stranger.recv(1) == b""
    nodes.start(1, 2)

    assert [each["RANK"] for each in runs.value(nodes.finish())] == ["0", "1"]


def test_object_of_the_main_node_that_is_none_is_passed_over() -> None:
    """Another job could write to its key: the node looks again until the main node's own is there."""
    documents = iter([None, b"", b"[1]", b"\xff", b"[" * 200_000, b'{"port": 1, "mac": "x"}'])
    other = OtherNode(1, "key", lambda: next(documents, None), "127.0.0.1", 0.0, lambda: None)
    for _ in range(6):
        with pytest.raises(NotMet, match="has not said on which port it listens"):
            other.meet()


def test_function_that_another_node_cannot_read_is_its_failure(runs: Any, nodes: Nodes) -> None:
    """A failure before the nodes have met reaches the main node: an input that one node cannot fetch."""
    blob = runs.blob(cloudpickle.dumps("data"))
    missed: list[str] = []

    def broken(request: Any) -> Any:
        # The second node that asks for the blob gets other bytes.
        if request.method == "GET" and blob.sha256 in request.path:
            missed.append(request.path)
            return None if len(missed) == 1 else (200, {}, b"something else")
        return None

    runs.make_call(runs.task(exchanged, blob), num_nodes=2, processes=1)
    runs.proxy.intercept = broken
    nodes.start(0, 2)
    deadline = time.monotonic() + 60
    while not missed and time.monotonic() < deadline:
        time.sleep(0.02)
    nodes.start(1, 2)
    ran = nodes.finish()

    assert ran.failure.kind == Kind.FETCH


def test_node_that_aws_stops_before_it_has_connected_has_the_job_begin_again(runs: Any, nodes: Nodes) -> None:
    """SIGTERM while a node fetches its inputs, since its machine goes: the main node need not wait for it in vain."""
    blob = runs.blob(cloudpickle.dumps("data"))
    asked: list[str] = []
    stopped = threading.Event()

    def held(request: Any) -> Any:
        # The second node that asks for the blob gets it once it has been stopped.
        if request.method == "GET" and blob.sha256 in request.path:
            asked.append(request.path)
            if len(asked) == 2:
                stopped.wait(60)

    def until_asked(times: int) -> None:
        deadline = time.monotonic() + 60
        while len(asked) < times and time.monotonic() < deadline:
            time.sleep(0.02)

    runs.make_call(runs.task(exchanged, blob), num_nodes=2, processes=1)
    runs.proxy.intercept = held
    nodes.start(0, 2)
    until_asked(1)
    other = nodes.start(1, 2)
    until_asked(2)
    other.send_signal(signal.SIGTERM)
    stopped.set()
    ran = nodes.finish()

    assert ran.code == ExitCode.HOST_GOING
    assert ran.failure.kind == Kind.TERMINATED
    assert ran.failure.message.startswith("node 1: ")
    assert nodes.others[0][0] == ExitCode.TERMINATED, nodes.others


def test_all_nodes_have_the_checkpoint_of_rank_0(runs: Any, nodes: Nodes) -> None:
    """Only rank 0 stores; the next attempt's processes find that checkpoint on each node."""

    def train() -> Any:
        import os
        import time

        from covalent_cirro import checkpoint, trial

        folder, rank = checkpoint.folder(), os.environ["RANK"]
        state = folder / "state"
        if checkpoint.attempt() == 2:
            print(f"rank {rank} has {state.read_text()}", flush=True)
            return sorted(each.name for each in folder.iterdir())
        trial.report(1, float(rank))
        state.write_text(f"of rank {rank}")
        checkpoint.save()
        if rank == "0":
            os.kill(os.getpid(), 9)
        time.sleep(600)

    first = nodes(2, 1, runs.task(train))
    assert first.failure.kind == Kind.KILLED
    reported = [key for key in runs.stored() if key.endswith(".reported")]
    assert len(reported) == 1
    nodes.started.clear()
    second = nodes(2, 1, runs.task(train), AWS_BATCH_JOB_ATTEMPT="2")

    assert runs.value(second) == ["state"]
    assert second.result.stdout.tail == "rank 0 has of rank 0\n"
    assert (nodes.outcome_of(1).attempt, nodes.outcome_of(1, 2).attempt) == (1, 2)
    assert "rank 1 has of rank 0" in nodes.others[0][1]
