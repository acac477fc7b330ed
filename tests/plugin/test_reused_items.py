"""Items of a map whose results are those of an earlier dispatch: which are computed, and what comes of the list."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from covalent._shared_files import TaskCancelledError

import covalent_cirro
import covalent_cirro.history.partial_results
from covalent_cirro import CirroBatchExecutor
from covalent_cirro.contract import nested
from covalent_cirro.contract.documents import dump_outcome, parse_call, parse_outcome
from covalent_cirro.contract.maps import Chunk, ItemResults
from covalent_cirro.contract.places import parse_call_uri
from covalent_cirro.contract.protocol import Call
from covalent_cirro.contract.references import Inline
from covalent_cirro.electron import poll
from covalent_cirro.electron import send as submission
from covalent_cirro.electron.handover import OwnJob
from covalent_cirro.electron.reuse import earlier
from covalent_cirro.errors import NoSuchElectron
from tests.access import control
from tests.plugin.conftest import Account
from tests.plugin.dispatches import Dispatch, keep

Make = Callable[..., CirroBatchExecutor]

SCRIPT = """
import os
import time

import covalent as ct
from covalent_cirro import item, mapped

GATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "go")

@mapped("config")
@ct.electron
def train(config, data):
    print("computes", config)
    if config == "bad":
        raise ValueError("no such luck")
    return [config, len(data)] * 3000

@mapped("x", "weight")
@ct.electron
def weighed(x, weight):
    print("computes", x[0], weight)
    return f"{x[0]} * {weight}"

@mapped("config")
@ct.electron
def placed(config):
    print("computes", config)
    return config, item().index

@mapped("config")
@ct.electron
def gated(config):
    if config == "a1":
        deadline = time.monotonic() + 300
        while not os.path.exists(GATE) and time.monotonic() < deadline:
            time.sleep(0.05)
        raise ValueError("went on")
    return [config, item().index]

@ct.electron
def first_of_all(xs):
    return [x[0] for x in xs]

def flow_of(configs):
    @ct.lattice
    def flow():
        trained = train(configs, b"data")
        placed(configs)
        gated(configs)
        first_of_all(trained)
        return weighed(trained, list(range(len(configs))))
    return flow

LATTICES = {name: flow_of(configs) for name, configs in %r.items()}
"""

STAGE = """
import pathlib, runpy, sys
from covalent._dispatcher_plugins.local import LocalDispatcher
for name, lattice in runpy.run_path(sys.argv[1], run_name="__main__")["LATTICES"].items():
    lattice.build_graph()
    folder = pathlib.Path(sys.argv[2], name)
    folder.mkdir()
    manifest = LocalDispatcher.prepare_manifest(lattice, str(folder))
    (folder / "manifest.json").write_text(manifest.model_dump_json())
"""
"""A client's half of `ct.dispatch`, of several lattices."""

LISTS = {
    "first": [f"a{i}" for i in range(20)],
    "edited": ["new", *(f"a{i}" for i in (5, 4, 3, 0, 1, 2)), "b", *(f"a{i}" for i in range(7, 20)), "new", "a5"],
    "again": ["new", *(f"a{i}" for i in (5, 4, 3, 0, 1, 2)), "c", *(f"a{i}" for i in range(7, 20)), "new", "a5"],
    "fewer": [f"a{i}" for i in range(3, 11)],
    "changed": [f"a{i}" for i in range(7)] + ["changed"] + [f"a{i}" for i in range(8, 20)],
    "failing": ["a1", "bad", "a2", "a3"],
    "mended": ["a1", "good", "a2", "a3", "a4"],
}


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lattices of a script that differ in their lists."""
    folder = tmp_path_factory.mktemp("clients")
    script = folder / "flow.py"
    script.write_text(SCRIPT % LISTS)
    subprocess.run([sys.executable, "-c", STAGE, str(script), str(folder)], check=True, timeout=300)
    return folder


@pytest.fixture
def dispatch(staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Dispatch]:
    """Makes a dispatch of what a client staged."""
    monkeypatch.setattr(earlier, "FRESH_S", 0.0)  # dispatches follow one another faster than a list grows old
    return lambda name: Dispatch(staged / name, tmp_path, monkeypatch)


def trained(name: str) -> list[Any]:
    """What the electron `train` returns for a list."""
    return [[config, 4] * 3000 for config in LISTS[name]]


def computed(dispatch: Dispatch, name: str) -> list[str]:
    """What the jobs of an electron have computed, in the order of the items."""
    text = Path(dispatch.ended[name].output).with_name("stdout").read_text()
    return [line.removeprefix("computes ") for line in text.splitlines() if line.startswith("computes")]


def call_of(account: Account, dispatch: Dispatch, name: str) -> Call:
    """The call of an electron that had a job."""
    sent = dispatch.ended[name].sent
    assert isinstance(sent, OwnJob)
    place = parse_call_uri(sent.call)
    return parse_call(account.client("s3").get_object(Bucket=place.bucket, Key=place.call_key)["Body"].read())


async def test_only_items_that_are_other_ones_are_computed(
    executor: Make, account: Account, dispatch: Callable[[str], Dispatch]
) -> None:
    """Wherever the others were; their results do not go up again, and a later dispatch finds all of them."""
    first, edited, again = dispatch("first"), dispatch("edited"), dispatch("again")
    await first.run(executor(array_size=4), "train")
    made = executor(array_size=4, reuse_from=first.id)
    control(account.emulator, "calls", method="DELETE")
    ended = await edited.run(made, "train")
    assert ended["train"].value == trained("edited")
    assert computed(edited, "train") == ["new", "b", "new", "a5"], "of equal items, each needs a result of its own"
    counts = account.emulator.calls.counts("client")
    assert counts["batch:SubmitJob"]["count"] == 1
    assert counts["s3:PutObject"]["count"] == 1, "the call; no result goes up again"
    call = call_of(account, edited, "train")
    mapped = call.tasks[0].mapped
    assert mapped is not None
    assert mapped.reused is not None
    assert (mapped.length, mapped.whole_length, len(mapped.children)) == (4, 23, 1)
    where = f"{first.id}:{first.node_id('train')}"
    assert call.not_reused == (f"4 of 23 items (4 are not in the earlier dispatch). 19 of 23 items reused from {where}")
    assert "19 of 23 items reused from" in Path(ended["train"].output).with_name("stderr").read_text()

    ended = await again.run(executor(array_size=4, reuse_from=edited.id), "train")
    assert ended["train"].value == trained("again")
    assert computed(again, "train") == ["c"]

    same = dispatch("again")
    ended = await same.run(executor(reuse_from=again.id), "train")
    assert ended["train"].is_reused
    assert ended["train"].value == trained("again")


async def test_a_list_of_reused_and_computed_results_is_handed_on_unopened(
    executor: Make, account: Account, dispatch: Callable[[str], Dispatch]
) -> None:
    """To an electron and to a map, which reuses by item itself; the list does not go up."""
    first, changed = dispatch("first"), dispatch("changed")
    await first.run(executor(array_size=4), "weighed")
    made = executor(array_size=4, reuse_from=first.id)
    await changed.run(made, "train")
    assert computed(changed, "train") == ["changed"]
    control(account.emulator, "calls", method="DELETE")
    ended = await changed.run(made, "first_of_all", "weighed")
    assert ended["first_of_all"].value == LISTS["changed"]
    assert ended["weighed"].value == [f"{name} * {i}" for i, name in enumerate(LISTS["changed"])]
    assert computed(changed, "weighed") == ["changed 7"]
    counts = account.emulator.calls.counts("client")
    assert counts["s3:PutObject"]["count"] == 2, "two calls"


async def test_a_map_all_of_whose_items_are_known_has_no_job(
    executor: Make, account: Account, dispatch: Callable[[str], Dispatch]
) -> None:
    """A part of a list; and the part is known to a later dispatch."""
    first, fewer, same = dispatch("first"), dispatch("fewer"), dispatch("fewer")
    await first.run(executor(array_size=4), "train")
    control(account.emulator, "calls", method="DELETE")
    ended = await fewer.run(executor(reuse_from=first.id), "first_of_all")
    assert ended["train"].is_reused
    assert ended["train"].value == trained("fewer")
    assert ended["first_of_all"].value == LISTS["fewer"]
    assert account.emulator.calls.counts("client")["batch:SubmitJob"]["count"] == 1, "of the electron"
    assert fewer.panels[fewer.node_id("train")]["job"].startswith("8 of 8 items reused from")
    ended = await same.run(executor(reuse_from=fewer.id), "first_of_all")
    assert {name: each.is_reused for name, each in ended.items()} == {"train": True, "first_of_all": True}
    assert ended["train"].value == trained("fewer")


async def test_items_of_a_map_that_failed_are_reused(executor: Make, dispatch: Callable[[str], Dispatch]) -> None:
    """All but those that failed; also where their errors are values."""
    for options in ({}, {"on_error": "return"}, {"array_size": 1}):
        failing, mended = dispatch("failing"), dispatch("mended")
        ended = await failing.run(executor(**{"array_size": 2, **options}), "train")
        assert ended["train"].received.completed == (options == {"on_error": "return"})
        ended = await mended.run(executor(array_size=2, reuse_from=failing.id), "train")
        assert ended["train"].value == trained("mended")
        assert computed(mended, "train") == ["good", "a4"]
        failing_again = dispatch("failing")
        ended = await failing_again.run(executor(array_size=2, reuse_from=mended.id), "train")
        assert "1 of 4 items failed; item 1 with ValueError" in ended["train"].error
        assert computed(failing_again, "train") == ["bad"]


async def test_a_function_that_knows_the_place_of_its_item_is_called_at_another_place(
    executor: Make, dispatch: Callable[[str], Dispatch]
) -> None:
    """It may return something else there."""
    first, changed, fewer = dispatch("first"), dispatch("changed"), dispatch("fewer")
    await first.run(executor(array_size=4), "placed")
    ended = await changed.run(executor(array_size=4, reuse_from=first.id), "placed")
    assert ended["placed"].value == [(name, i) for i, name in enumerate(LISTS["changed"])]
    assert computed(changed, "placed") == ["changed"]
    ended = await fewer.run(executor(array_size=4, reuse_from=first.id), "placed")
    assert ended["placed"].value == [(name, i) for i, name in enumerate(LISTS["fewer"])]
    assert computed(fewer, "placed") == LISTS["fewer"]


async def reuses_three(of: Dispatch, made: CirroBatchExecutor, account: Account) -> str:
    """Send a map that reuses all items but the first; returns the id of its job."""
    launch, sent = await of.send(made, "gated")
    launch.close()
    assert isinstance(sent, OwnJob)
    place = parse_call_uri(sent.call)
    data = account.client("s3").get_object(Bucket=place.bucket, Key=place.call_key)["Body"].read()
    mapped = parse_call(data).tasks[0].mapped
    assert mapped is not None
    assert mapped.reused is not None
    assert mapped.reused.left == ((0, 1),)
    return sent.job_id


async def test_a_map_that_was_cancelled_gives_the_items_that_have_results(
    executor: Make, account: Account, dispatch: Callable[[str], Dispatch], staged: Path
) -> None:
    """Those of jobs that had ended, although the map has no outcome."""
    (staged / "go").unlink(missing_ok=True)
    cancelled, made = dispatch("failing"), executor(array_size=4)
    launch, sent = await cancelled.send(made, "gated")
    node_id = cancelled.node_id("gated")
    assert isinstance(sent, OwnJob)
    while len(await asyncio.to_thread(covalent_cirro.partial, cancelled.id, node_id, executor=made)) < 3:
        await asyncio.sleep(0.2)
    await submission.cancel(made.settings, {"dispatch_id": cancelled.id, "node_id": node_id}, None)
    with pytest.raises(TaskCancelledError):
        await poll.poll(launch, made.settings, sent, keep)
    launch.close()
    job_id = await reuses_three(dispatch("failing"), executor(reuse_from=cancelled.id), account)
    account.client("batch").terminate_job(jobId=job_id, reason="enough")
    assert len(await asyncio.to_thread(covalent_cirro.partial, cancelled.id, node_id, executor=made)) == 3


# --- results that are there -------------------------------------------------------------------------------------------


async def test_the_results_that_are_there_are_read_while_a_map_runs(
    executor: Make, account: Account, dispatch: Callable[[str], Dispatch], staged: Path
) -> None:
    """By a script of the user, which needs no server; and after the end, with the errors of items.

    Meanwhile, and after the jobs were ended, another dispatch reuses these results.
    """
    (staged / "go").unlink(missing_ok=True)
    waiting, made = dispatch("failing"), executor(array_size=4)
    node_id = waiting.node_id("gated")
    launch, sent = await waiting.send(made, "gated")
    polling = asyncio.create_task(poll.poll(launch, made.settings, sent, keep))
    try:
        while len(found := await asyncio.to_thread(covalent_cirro.partial, waiting.id, node_id, executor=made)) < 3:
            await asyncio.sleep(0.2)
        assert dict(found) == {1: ["bad", 1], 2: ["a2", 2], 3: ["a3", 3]}
        assert found.failed == {}
        with pytest.raises(KeyError):
            found[0]
        assert repr(found) == "<results of 3 of 4 items, 0 failed>"
        second = await reuses_three(dispatch("failing"), executor(reuse_from=waiting.id), account)
        account.client("batch").terminate_job(jobId=second, reason="enough")
    finally:
        (staged / "go").touch()
    await waiting.receive(made, "gated", await polling)
    launch.close()
    third = await reuses_three(dispatch("failing"), executor(reuse_from=waiting.id), account)
    account.client("batch").terminate_job(jobId=third, reason="enough")
    found = await asyncio.to_thread(covalent_cirro.partial, waiting.id[:8], node_id, executor=made)
    assert (list(found), found.failed) == ([1, 2, 3], {0: "ValueError: went on"})


async def test_results_that_another_job_put_there_are_not_unpickled(
    executor: Make, account: Account, dispatch: Callable[[str], Dispatch], staged: Path
) -> None:
    """It may write to the bucket, and has not the key of the map's jobs; their own results are found beside."""
    (staged / "go").unlink(missing_ok=True)
    waiting, made = dispatch("failing"), executor(array_size=4)
    node_id = waiting.node_id("gated")
    launch, sent = await waiting.send(made, "gated")
    launch.close()
    assert isinstance(sent, OwnJob)
    place, s3 = parse_call_uri(sent.call), account.client("s3")

    def read() -> covalent_cirro.history.partial_results.PartialResults:
        return covalent_cirro.partial(waiting.id, node_id, executor=made)

    while len(await asyncio.to_thread(read)) < 3:
        await asyncio.sleep(0.2)
    other = parse_outcome(s3.get_object(Bucket=place.bucket, Key=place.child(1).outcome_key)["Body"].read())
    evil = Inline(nested.item_of(b"cbuiltins\nexit\n)R."))
    result = other.results[0]._replace(items=ItemResults((Chunk(0, 1, evil),)))
    forged = dump_outcome(other._replace(job_id=f"{sent.job_id}:0", results=(result,)), "0" * 32)
    s3.put_object(Bucket=place.bucket, Key=place.child(0).outcome_key, Body=forged, IfNoneMatch="*")
    assert list(await asyncio.to_thread(read)) == [1, 2, 3]
    (staged / "go").touch()
    while not (found := await asyncio.to_thread(read)).failed:
        await asyncio.sleep(0.2)
    assert (list(found), found.failed) == ([1, 2, 3], {0: "ValueError: went on"})


async def test_partial_results_have_those_that_were_reused(executor: Make, dispatch: Callable[[str], Dispatch]) -> None:
    """With those that were computed, by the index in the whole list; a map alone has such results."""
    first, changed, fewer = dispatch("first"), dispatch("changed"), dispatch("fewer")
    made = executor(array_size=4)
    await first.run(made, "train")
    again = executor(array_size=4, reuse_from=first.id)
    await changed.run(again, "train")
    await fewer.run(again, "first_of_all")

    def read(of: Dispatch, name: str = "train") -> list[Any]:
        return list(covalent_cirro.partial(of.id, of.node_id(name), executor=made).values())

    for of, name in ((first, "first"), (changed, "changed"), (fewer, "fewer")):
        assert await asyncio.to_thread(read, of) == trained(name)
    with pytest.raises(NoSuchElectron, match="is no map"):
        await asyncio.to_thread(read, fewer, "first_of_all")
