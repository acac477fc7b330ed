"""Electrons with several nodes, from the executor to the terminal: jobs, nodes, logs, costs, and lost machines."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from click.testing import Result
from covalent._shared_files import TaskRuntimeError

from covalent_cirro import CirroBatchExecutor, checkpoint
from tests.cli.history.conftest import Lab, poll

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Document = Callable[..., Any]
Cirro = Callable[..., Result]
Make = Callable[..., CirroBatchExecutor]


def meet(folder: str) -> list[int]:
    """An electron whose processes find one another, and whose main node runs on until a file is there."""
    import os
    import socket

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    print(f"rank {rank} of {world} on node {os.environ['NODE_RANK']}", flush=True)
    where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if rank:
        while True:
            try:
                with socket.create_connection(where) as connection:
                    connection.sendall(bytes([rank]))
                    connection.recv(1)
                return []
            except OSError:
                time.sleep(0.05)
    ranks = [rank]
    with socket.create_server(("", where[1])) as server:
        connections = []
        while len(ranks) < world:
            connections.append(server.accept()[0])
            ranks += connections[-1].recv(1)
        (Path(folder) / "met").touch()
        while not (Path(folder) / "go").exists():
            time.sleep(0.05)
    return sorted(ranks)


def fail_on_node_1() -> None:
    """An electron whose second node raises, while the main node waits."""
    import os

    if os.environ["RANK"] == "1":
        print("about to fail", flush=True)
        raise ValueError("no such label")
    time.sleep(600)


def train(folder: str) -> str:
    """An electron that goes on with its checkpoint when a machine was lost."""
    import os

    state = checkpoint.folder() / "epoch"
    if checkpoint.attempt() > 1:  # rank 0 may have stored it in this attempt, before another one has asked for it
        return f"went on after epoch {state.read_text()} in attempt {checkpoint.attempt()}"
    if os.environ["RANK"] == "0":
        state.write_text("3")
        checkpoint.save()
        (Path(folder) / "saved").touch()
    time.sleep(600)
    return "never"


def test_nodes_of_an_electron_are_seen_while_it_runs_and_after(
    lab: Lab, document: Document, cirro: Cirro, tmp_path: Path
) -> None:
    """States, instances and logs of each node, live and stored; the cost is that of all nodes."""
    sent = lab.send(meet, str(tmp_path), num_nodes=2, processes_per_node=2)
    poll(lambda: (tmp_path / "met").exists(), "all ranks have met")
    told = document("show", sent.name)
    assert told["node_states"] == "2: 2 RUNNING"
    assert [(each["number"], each["state"]) for each in told["nodes"]] == [(0, "RUNNING"), (1, "RUNNING")]
    poll(
        lambda: "rank 2 of 4 on node 1" in cirro("logs", sent.name, "--node", 1).stdout, "the other node's log is read"
    )
    running = [each for each in document("show", sent.name)["cost"]["attempts"]]
    assert len(running) == 2
    (tmp_path / "go").touch()
    lab.done(sent)
    lines = cirro("logs", sent.name).stdout.splitlines()
    assert sorted(lines) == ["rank 0 of 4 on node 0", "rank 1 of 4 on node 0"]
    lines = cirro("logs", sent.name, "--node", 1).stdout.splitlines()
    assert sorted(lines) == ["rank 2 of 4 on node 1", "rank 3 of 4 on node 1"]
    told = document("show", sent.name)
    assert [each["end"] for each in told["nodes"]] == ["done", "done"]
    assert all(each["peak_memory_bytes"] for each in told["nodes"])
    shown = cirro("show", sent.name).stdout
    assert "0, main" in shown
    assert ", on each of 2 machines, " in shown
    assert "\n1, node 0  " in shown
    assert "\n1, node 1  " in shown
    assert ", on node " in shown
    report = document("report", sent.dispatch_id)
    assert len(report["electrons"][0]["attempts"]) == 2
    assert "its nodes are 0 to 1" in cirro("logs", sent.name, "--node", 2).output
    lab.forget(sent)
    assert [each["end"] for each in document("show", sent.name)["nodes"]] == ["done", "done"]
    assert len(document("show", sent.name)["cost"]["attempts"]) == 2
    assert "rank 2 of 4 on node 1" in cirro("logs", sent.name, "--node", 1).stdout


async def test_error_of_the_node_that_failed_first_comes_back(executor: Make) -> None:
    """With its rank, its node and its traceback; all nodes end."""
    place = {"dispatch_id": "11111111-1111-4111-8111-111111111111", "node_id": 3}
    with pytest.raises(TaskRuntimeError) as caught:
        await executor(num_nodes=2).run(fail_on_node_1, [], {}, place)
    text = str(caught.value)
    assert "rank 1 on node 1: ValueError: no such label" in text
    assert "in fail_on_node_1" in text


def test_all_nodes_begin_again_when_a_machine_is_lost(lab: Lab, document: Document, tmp_path: Path) -> None:
    """AWS Batch does so where the main node's machine is lost; where another one's is, the main node has it do so."""
    for number in (1, 0):
        folder = tmp_path / str(number)
        folder.mkdir()
        sent = lab.send(train, str(folder), num_nodes=2, retry_attempts=2)
        poll(lambda folder=folder: (folder / "saved").exists(), "the checkpoint is stored")
        poll(lambda sent=sent: lab.job(f"{sent.job_id}#1")["status"] == "RUNNING", "both nodes run")
        name = lab.job(sent.job_id)["jobName"]
        lab.faults.add("lose_host", job=f"{name}#{number}", count=1)
        lab.done(sent)
        told = document("show", sent.name)
        assert told["state"] == "SUCCEEDED"
        assert [each["number"] for each in told["attempts"]] == [1, 2]


def test_job_of_several_nodes_is_stopped(lab: Lab, cirro: Cirro, document: Document, tmp_path: Path) -> None:
    """All its nodes end."""
    sent = lab.send(meet, str(tmp_path), num_nodes=2)
    poll(lambda: (tmp_path / "met").exists(), "all ranks have met")
    assert cirro("stop", sent.name, "--yes").exit_code == 0
    lab.done(sent)
    assert document("show", sent.name)["state"] == "CANCELLED"
    ended = ("SUCCEEDED", "FAILED")  # with the main node, or by AWS Batch
    poll(lambda: lab.job(f"{sent.job_id}#1")["status"] in ended, "the other node has ended")


async def test_one_machine_runs_several_processes(executor: Make, tmp_path: Path) -> None:
    """Without a multi-node job."""
    (tmp_path / "go").touch()
    place = {"dispatch_id": "22222222-2222-4222-8222-222222222222", "node_id": 3}
    made = executor(processes_per_node=3)
    found = await asyncio.wait_for(made.run(meet, [str(tmp_path)], {}, place), 120)
    assert found == [0, 1, 2]
