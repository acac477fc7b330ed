"""Mapped electrons: a job computes its items one after another, and stores results as it goes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest

from covalent_cirro import ElectronFailed
from covalent_cirro.contract import chunk_records, documents, references
from covalent_cirro.contract.chunk_records import ChunkName
from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.contract.maps import Chunk
from covalent_cirro.contract.protocol import ExitCode, Outcome
from covalent_cirro.contract.references import Blob, Inline, Joined
from tests.runner.conftest import MAC_KEY, Ran, Runs
from tests.runner.mapped_calls import body_of, child, make_task, values_of

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def double(x: int) -> int:
    return 2 * x


def run_child(runs: Runs, index: int, env: dict[str, str] | None = None) -> tuple[Ran, Outcome]:
    """Run one job of the array that was put; its outcome lies at its own place."""
    variables = {"AWS_BATCH_JOB_ARRAY_INDEX": str(index), "AWS_BATCH_JOB_ID": f"job-1:{index}", **(env or {})}
    ran = runs.finish(runs.start(variables))
    outcome = documents.parse_outcome(runs.get(child(runs, index).outcome_key))
    assert outcome.is_authentic(MAC_KEY)
    return ran, outcome


def test_an_ordinary_job_computes_all_items(runs: Runs) -> None:
    """One job: results in the items' order, seconds for each, and a success."""
    ran = runs(make_task(runs, double, {"x": range(5)}))
    assert ran.code == ExitCode.OK
    assert (ran.result.output, ran.result.failure) == (None, None)
    assert values_of(runs, ran.result.items) == [0, 2, 4, 6, 8]
    assert ran.result.items is not None
    assert len(ran.result.items.seconds) == 5


def test_a_child_computes_its_own_items_with_few_requests(runs: Runs) -> None:
    """It reads the call and its bytes of the list, and writes its outcome, under its own place."""
    task = make_task(runs, double, {"x": range(10)}, jobs=3)
    runs.make_call(task)
    ran, outcome = run_child(runs, 1)
    assert ran.code == ExitCode.OK, ran.stderr
    [result] = outcome.results
    assert values_of(runs, result.items) == [2 * x for x in range(3, 6)]
    assert result.items is not None
    assert (result.items.chunks[0].first, result.items.stop) == (3, 6)
    assert outcome.job_id == "job-1:1"
    assert [(each.method, each.headers.get("range", "")) for each in runs.proxy.requests] == [
        ("GET", ""),
        ("GET", "bytes={}-{}".format(*_ends(task, 1))),
        ("PUT", ""),
    ]
    assert not [each for each in runs.proxy.requests if "user-agent" in each.headers], "awscrt, which sends it"


def _ends(task: Any, index: int) -> tuple[int, int]:
    [span] = task.mapped.arguments[0].spans[index]
    return span.offset, span.offset + span.size - 1


def test_items_in_the_call_need_no_request(runs: Runs) -> None:
    """GET of the call, PUT of the outcome."""
    runs.make_call(make_task(runs, double, {"x": range(4)}, jobs=2, inline=True))
    _, outcome = run_child(runs, 1)
    assert values_of(runs, outcome.results[0].items) == [4, 6]
    assert [each.method for each in runs.proxy.requests] == ["GET", "PUT"]


def test_items_of_several_arguments_come_by_name(runs: Runs) -> None:
    """With the arguments that all share, and the item's place in the environment."""

    def train(data: list[int], config: dict[str, int], seed: int) -> tuple[Any, ...]:
        return len(data), config["lr"], seed, os.environ["CIRRO_ITEM"]

    items = {"config": [{"lr": 1}, {"lr": 2}], "seed": [7, 8]}
    ran = runs(make_task(runs, train, items, list(range(1000))))
    assert values_of(runs, ran.result.items) == [(1000, 1, 7, "0/2"), (1000, 2, 8, "1/2")]


def test_async_functions_are_awaited(runs: Runs) -> None:
    """As an electron's."""

    async def later(x: int) -> int:
        return x + 1

    assert values_of(runs, runs(make_task(runs, later, {"x": [1, 2]})).result.items) == [2, 3]


def picky(x: int) -> Any:
    if x == 1:
        raise ValueError("one is too few")
    if x == 2:
        return threading.Lock()
    if x == 3:
        sys.exit(5)
    return x


def test_an_item_that_fails_does_not_end_the_others(runs: Runs) -> None:
    """It raised, exited, or its result cannot be pickled: all items are computed, and the job fails once."""
    ran = runs(make_task(runs, picky, {"x": range(5)}))
    assert ran.code == ExitCode.RAISED
    assert ran.failure.kind == Kind.ITEMS
    assert ran.failure.message == "3 of 5 items failed; item 1: ValueError: one is too few"
    assert values_of(runs, ran.result.items) == [0, None, None, None, 4]
    assert ran.result.items is not None
    found = {each.item: each.failure for each in ran.result.items.failures}
    assert {item: failure.kind for item, failure in found.items()} == {
        1: Kind.RAISED,
        2: Kind.UNPICKLABLE,
        3: Kind.EXITED,
    }
    assert 'raise ValueError("one is too few")' in found[1].traceback
    assert "covalent_cirro/runner" not in found[1].traceback
    assert ran.outcome is not None
    assert ran.outcome.is_final


def test_errors_as_results(runs: Runs) -> None:
    """``on_error="return"``: the error object is in the item's place, and the job succeeds."""
    ran = runs(make_task(runs, picky, {"x": range(5)}, on_error="return"))
    assert (ran.code, ran.result.failure) == (ExitCode.OK, None)
    values = values_of(runs, ran.result.items)
    assert (values[0], values[4]) == (0, 4)
    assert all(isinstance(value, ElectronFailed) for value in values[1:4])
    assert str(values[1]).startswith("Item 1 of 'picky' failed: ValueError: one is too few\n\nTraceback")
    base = runs.location.chunk_key("")[len(runs.prefix) :]
    names = [path.removeprefix(base) for path in runs.stored() if path.startswith(base)]
    assert chunk_records.furthest(names) == ChunkName(1, 0, 5, 3), "a listing tells how many failed"


def test_the_first_failure_stops_a_job_that_is_to_stop(runs: Runs) -> None:
    """``on_error="stop"``: items behind it are not computed."""
    ran = runs(make_task(runs, picky, {"x": range(5)}, on_error="stop"))
    assert ran.failure.message == "1 of 5 items failed; item 1: ValueError: one is too few"
    assert ran.result.items is not None
    assert ran.result.items.stop == 2


def test_hooks_are_called_once_for_a_job(runs: Runs, tmp_path: Any) -> None:
    """Before and after all items; not after items that failed, as after an electron that raised."""
    log = tmp_path / "log"

    def task(of_item: Callable[..., Any]) -> Any:
        return make_task(
            runs,
            of_item,
            {"x": range(3)},
            hooks={"deps": {"bash": {"attributes": {"commands": [f"echo before >> {log}"]}}}},
        )

    assert runs(task(double)).code == ExitCode.OK
    assert log.read_text() == "before\n"


def test_text_of_items_is_the_jobs_log(runs: Runs) -> None:
    """As it was printed, and nothing between."""

    def speak(x: int) -> None:
        print("item", x)

    ran = runs(make_task(runs, speak, {"x": range(3)}))
    assert ran.result.stdout.tail == "item 0\nitem 1\nitem 2\n"


def test_large_results_are_a_raw_blob(runs: Runs) -> None:
    """One PUT more; ranges of it can be read."""

    def large(x: int) -> bytes:
        return bytes([x]) * 20_000

    runs.make_call(make_task(runs, large, {"x": range(3)}, jobs=3, inline=True))
    _, outcome = run_child(runs, 2)
    [result] = outcome.results
    assert result.items is not None
    [chunk] = result.items.chunks
    assert isinstance(chunk.body, Blob)
    assert chunk.body.codec == "raw"
    assert values_of(runs, result.items) == [b"\2" * 20_000]
    assert [each.method for each in runs.proxy.requests] == ["GET", "PUT", "PUT"]


def test_a_blob_that_may_expire_is_stored_anew(runs: Runs) -> None:
    """Under another name, with the same value."""

    def large(x: int) -> bytes:
        return bytes([x]) * 20_000

    runs.make_call(make_task(runs, large, {"x": [1, 2]}, inline=True))
    values = [b"\1" * 20_000, b"\2" * 20_000]
    body, _ = body_of(values)
    there = runs.blob(body)
    runs.proxy.intercept = lambda request: (
        (200, {"Content-Length": "1", "Last-Modified": "Tue, 01 Jan 2019 00:00:00 GMT"}, b"")
        if request.method == "HEAD"
        else None
    )
    ran = runs.finish(runs.start())
    assert ran.result.items is not None
    [chunk] = ran.result.items.chunks
    assert chunk.body != there
    assert values_of(runs, ran.result.items) == values


def test_the_list_of_a_map_is_an_argument(runs: Runs) -> None:
    """Its bodies are joined: stored ones and those in the call."""
    bodies = (runs.blob(body_of([1, 2])[0]), Inline(body_of([[3], {"a": 4}])[0]))
    ran = runs(runs.task(lambda values: values, Joined(bodies)))
    assert runs.value(ran) == [1, 2, [3], {"a": 4}]


# --- what is stored as it goes ----------------------------------------------------------------------------------------

QUICK = {"CIRRO_RUNNER_SECONDS": "chunk_interval=0.05"}


def records(runs: Runs, index: int) -> list[chunk_records.ChunkName]:
    """Names of the records of a job."""
    base = child(runs, index).chunk_key("")[len(runs.prefix) :]
    names = (chunk_records.parse_name(path[len(base) :]) for path in runs.stored() if path.startswith(base))
    return [name for name in names if name is not None]


def slow_at(item: int, path: str) -> Callable[[int], int]:
    """A function whose call for an item waits until a file is there, and notes what it computes."""

    def of_item(x: int) -> int:
        import time

        with open(path + ".computed", "a") as file:
            file.write(f"{x}\n")
        while x == item and not os.path.exists(path):
            time.sleep(0.01)
        return x * x

    return of_item


def computed(path: Any) -> list[int]:
    """The items that were computed, each as often as it was."""
    return [int(line) for line in open(f"{path}.computed")]


def test_what_is_done_is_stored_while_the_next_item_runs(runs: Runs, tmp_path: Any, eventually: Any) -> None:
    """A record tells how far the job is by its name; a host that is lost costs the item that ran."""
    gate = tmp_path / "gate"
    runs.make_call(make_task(runs, slow_at(7, str(gate)), {"x": range(10)}, jobs=2))
    variables = {"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ID": "job-1:1", **QUICK}
    process = runs.start(variables)
    eventually(lambda: any(each.done == 2 for each in records(runs, 1)))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    gate.touch()

    ran, outcome = run_child(runs, 1, {"AWS_BATCH_JOB_ATTEMPT": "2"})
    assert ran.code == ExitCode.OK, ran.stderr
    assert "goes on after 2 of 5 items" in ran.stderr
    assert computed(gate) == [5, 6, 7, 7, 8, 9]
    assert max(each.done for each in records(runs, 1)) == 5, "who has a record has one of the rest, too"
    items = outcome.results[0].items
    assert values_of(runs, items) == [25, 36, 49, 64, 81]
    assert items is not None
    assert len(items.seconds) == 5


def test_failures_of_an_earlier_attempt_count(runs: Runs, tmp_path: Any, eventually: Any) -> None:
    """They are not computed again, and the job fails for them in the end."""
    gate = tmp_path / "gate"
    wait = slow_at(2, str(gate))

    def of_item(x: int) -> int:
        return wait(x) // x

    runs.make_call(make_task(runs, of_item, {"x": range(4)}))
    process = runs.start(QUICK)
    base = runs.location.chunk_key("")[len(runs.prefix) :]
    eventually(lambda: [path for path in runs.stored() if path.startswith(base) and "-000002-000001" in path])
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    gate.touch()

    ran = runs.finish(runs.start({"AWS_BATCH_JOB_ATTEMPT": "2"}))
    assert ran.failure.message.startswith("1 of 4 items failed; item 0: ZeroDivisionError")
    assert computed(gate) == [0, 1, 2, 2, 3]


def test_sigterm_leaves_what_is_done(runs: Runs, tmp_path: Any, eventually: Any) -> None:
    """The outcome has the items so far, and a record for the attempt that follows."""
    gate = tmp_path / "gate"
    runs.make_call(make_task(runs, slow_at(2, str(gate)), {"x": range(4)}))
    process = runs.start()
    eventually(lambda: os.path.exists(f"{gate}.computed") and computed(gate) == [0, 1, 2])
    process.send_signal(signal.SIGTERM)
    ran = runs.finish(process)
    assert ran.code == ExitCode.TERMINATED
    assert ran.failure.kind == Kind.TERMINATED
    assert values_of(runs, ran.result.items) == [0, 1]
    gate.touch()

    ran = runs.finish(runs.start({"AWS_BATCH_JOB_ATTEMPT": "2"}))
    assert ran.code == ExitCode.OK, ran.stderr
    assert values_of(runs, ran.result.items) == [0, 1, 4, 9]
    assert computed(gate) == [0, 1, 2, 2, 3]


def test_a_process_that_dies_leaves_what_is_done_and_the_item_is_named(runs: Runs) -> None:
    """As an electron that is killed: the job may run again, and goes on after the items that were done."""

    def die(x: int) -> int:
        if x == 2 and os.environ["AWS_BATCH_JOB_ATTEMPT"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    ran = runs(make_task(runs, die, {"x": range(4)}))
    assert ran.failure.kind == Kind.KILLED
    assert ran.failure.message.endswith("It was computing item 2 of 4")
    assert values_of(runs, ran.result.items) == [0, 1]
    ran = runs.finish(runs.start({"AWS_BATCH_JOB_ATTEMPT": "2"}))
    assert values_of(runs, ran.result.items) == [0, 1, 2, 3]


@pytest.mark.parametrize("forge", ["another key", "another child", "other items"])
def test_records_of_others_are_not_used(runs: Runs, forge: str) -> None:
    """Any job can write where another's records are: only those with this job's own content count."""
    runs.make_call(make_task(runs, double, {"x": range(4)}, jobs=2))
    body = Inline(body_of([0, 0])[0])
    where = child(runs, 0)
    whose = child(runs, 1) if forge == "another child" else where
    first = 1 if forge == "other items" else 0
    results = documents.ItemResults((Chunk(first, first + 2, body),), (), (0.0, 0.0))
    data = chunk_records.dump(whose, results, "0" * 32 if forge == "another key" else MAC_KEY)
    runs.put(where.chunk_key(chunk_records.ChunkName(1, 0, 2, 0).name), data)
    _, outcome = run_child(runs, 0, {"AWS_BATCH_JOB_ATTEMPT": "2"})
    assert values_of(runs, outcome.results[0].items) == [0, 2]


def test_a_job_that_the_call_does_not_have_is_refused(runs: Runs) -> None:
    """An index beyond the children, or an array's call in an ordinary job."""
    runs.make_call(make_task(runs, double, {"x": range(4)}, jobs=2))
    for env in ({"AWS_BATCH_JOB_ARRAY_INDEX": "2"}, {}):
        ran = runs.finish(runs.start(env))
        assert ran.code == ExitCode.BAD_CALL
        assert "the call is for 2 jobs of an array" in ran.stderr


def test_items_that_are_cut_short_fail_the_job(runs: Runs) -> None:
    """A source that has fewer bytes than the call says."""
    task = make_task(runs, double, {"x": range(4)})
    [argument] = task.mapped.arguments  # type: ignore[union-attr]
    [source] = argument.sources
    assert isinstance(source, Blob)
    runs.put(runs.location.blob_key(source.sha256), b"short")
    ran = runs(task)
    assert ran.failure.kind == Kind.FETCH
    assert "of the items of 'x'" in ran.failure.message


# --- several at a time ------------------------------------------------------------------------------------------------


def test_items_are_computed_in_processes_at_a_time(runs: Runs, tmp_path: Any) -> None:
    """Each waits for the other one, which no loop would survive; results are in the items' order."""
    meeting = str(tmp_path)

    def meet(x: int) -> tuple[int, int, str]:
        import time

        open(f"{meeting}/{x}", "w").close()
        while not os.path.exists(f"{meeting}/{x ^ 1}"):
            time.sleep(0.005)
        print("met", x)
        return x, os.getpid(), os.environ["CIRRO_ITEM"]

    ran = runs(make_task(runs, meet, {"x": range(6)}, parallel=2))
    values = values_of(runs, ran.result.items)
    assert [(x, place) for x, _, place in values] == [(x, f"{x}/6") for x in range(6)]
    assert len({pid for _, pid, _ in values}) == 2
    assert sorted(ran.result.stdout.tail.splitlines()) == [f"met {x}" for x in range(6)]


@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_failures_of_items_at_a_time(runs: Runs, on_error: str) -> None:
    """As of items one after another."""
    ran = runs(make_task(runs, picky, {"x": range(5)}, parallel=3, on_error=on_error))
    values = values_of(runs, ran.result.items)
    assert (values[0], values[4]) == (0, 4)
    if on_error == "raise":
        assert ran.failure.message == "3 of 5 items failed; item 1: ValueError: one is too few"
        assert values[1:4] == [None] * 3
    else:
        assert ran.code == ExitCode.OK
        assert all(isinstance(value, ElectronFailed) for value in values[1:4])


@pytest.mark.parametrize(("how", "kind"), [("SIGKILL", Kind.KILLED), ("SIGSEGV", Kind.KILLED), ("exit", Kind.EXITED)])
def test_a_worker_that_dies_fails_like_an_electron_that_dies(runs: Runs, how: str, kind: str) -> None:
    """Its item is named, and what was done before is kept."""

    def die(x: int) -> int:
        if x == 3:
            if how == "exit":
                os._exit(7)
            os.kill(os.getpid(), getattr(signal, how))
        return x

    ran = runs(make_task(runs, die, {"x": range(4)}, parallel=2))
    assert ran.failure.kind == kind
    assert (ran.failure.signal, ran.failure.exit_code) == (("", 7) if how == "exit" else (how, None))
    assert ran.failure.message.endswith("It was computing item 3 of 4")
    assert ran.result.items is None or values_of(runs, ran.result.items) in ([0], [0, 1], [0, 1, 2])


def test_a_worker_that_dies_and_leaves_a_process_is_missed(runs: Runs) -> None:
    """The process that it forked has its connection."""

    def die(x: int) -> int:
        import time

        if x == 1:
            if os.fork() == 0:
                time.sleep(600)
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    ran = runs(make_task(runs, die, {"x": range(2)}, parallel=2))
    assert ran.failure.kind == Kind.KILLED
    assert ran.failure.message.endswith("It was computing item 1 of 2")


def test_no_item_begins_after_a_failure_that_is_to_stop(runs: Runs, tmp_path: Any) -> None:
    """Those that run by then are waited for."""
    log = tmp_path / "log"

    def of_item(x: int) -> int:
        with open(log, "a") as file:
            file.write("computed\n")
        raise ValueError(x)

    ran = runs(make_task(runs, of_item, {"x": range(50)}, parallel=2, on_error="stop"))
    assert ran.failure.kind == Kind.ITEMS
    assert len(log.read_text().splitlines()) <= 2


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_each_item_has_a_checkpoint_of_its_own(runs: Runs, tmp_path: Any, eventually: Any) -> None:
    """An item of the next attempt finds its own and no other's; it is removed once the result is stored."""
    gate = str(tmp_path / "gate")

    def of_item(x: int) -> list[str]:
        import time

        from covalent_cirro import checkpoint

        folder = checkpoint.folder()
        found = sorted(path.name for path in folder.iterdir())
        (folder / f"state-{x}").write_text("state")
        checkpoint.save()
        if x == 1 and not os.path.exists(gate):
            open(gate + ".saved", "w").close()
            time.sleep(600)
        return found

    runs.make_call(make_task(runs, of_item, {"x": range(3)}))
    process = runs.start(QUICK)
    eventually(lambda: os.path.exists(gate + ".saved"))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    open(gate, "w").close()
    ran = runs.finish(runs.start({"AWS_BATCH_JOB_ATTEMPT": "2"}))
    assert ran.code == ExitCode.OK, ran.stderr
    assert values_of(runs, ran.result.items)[1:] == [["state-1"], []]
    assert not [path for path in runs.stored() if "/checkpoint/" in path and "items/0000000" not in path]


def test_an_item_whose_checkpoint_cannot_be_fetched_fails_the_job(runs: Runs) -> None:
    """Another attempt may succeed: starting over would pay for the same work twice."""

    def of_item(x: int) -> int:
        from covalent_cirro import checkpoint

        if x == 1:
            checkpoint.folder()
        return x

    runs.put(runs.location.item_checkpoint_key(0, 1, "index.json"), b"no index")
    ran = runs(make_task(runs, of_item, {"x": range(3)}))
    assert ran.failure.kind == Kind.FETCH
    assert "checkpoint" in ran.failure.message
    assert values_of(runs, ran.result.items) == [0]


def test_an_item_whose_stored_value_is_gone_fails_the_job(runs: Runs) -> None:
    """As an electron: it is no failure of the item, and another attempt may succeed."""
    blob = references.Blob("0" * 64, 5, "raw", 5)

    def of_item(x: int) -> int:
        if x == 1:
            from covalent_cirro.runner import stored_blobs

            stored_blobs.path_of(os.environ["CIRRO_STORED"], "0" * 64)
        return x

    stored = references.StoredInput(blob=blob, label="array")
    ran = runs(make_task(runs, of_item, {"x": range(3)}), stored=(stored,))
    assert ran.failure.kind == Kind.FETCH
    assert "the stored array could not be fetched" in ran.failure.message
    assert values_of(runs, ran.result.items) == [0]


def test_an_item_that_fails_while_its_host_goes_is_computed_again(runs: Runs, tmp_path: Any, eventually: Any) -> None:
    """It may have failed for that reason."""
    gate = str(tmp_path / "gate")

    def of_item(x: int) -> int:
        import time

        from covalent_cirro import checkpoint

        if x == 1 and checkpoint.attempt() == 1:
            checkpoint.host_is_going()
            open(gate, "w").close()
            while not checkpoint.host_is_going():
                time.sleep(0.01)
            raise InterruptedError
        return x

    runs.make_call(make_task(runs, of_item, {"x": range(3)}))
    process = runs.start()
    eventually(lambda: os.path.exists(gate))
    process.send_signal(signal.SIGTERM)
    ran = runs.finish(process)
    assert (ran.code, ran.failure.kind) == (ExitCode.TERMINATED, Kind.TERMINATED)
    assert values_of(runs, ran.result.items) == [0]
    ran = runs.finish(runs.start({"AWS_BATCH_JOB_ATTEMPT": "2"}))
    assert values_of(runs, ran.result.items) == [0, 1, 2]


def test_an_outcome_says_it_in_json(runs: Runs) -> None:
    """Other readers see what the contract says."""
    runs(make_task(runs, double, {"x": range(2)}))
    [result] = json.loads(runs.get(runs.location.outcome_key))["results"]
    assert [(each["first"], each["stop"]) for each in result["items"]["chunks"]] == [(0, 2)]
