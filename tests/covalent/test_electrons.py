"""All of Covalent on the executor: electrons of every kind, through a real Covalent server, as real jobs."""

from __future__ import annotations

import functools
import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import covalent as ct
import pytest
from covalent._shared_files.config import get_config, set_config

from covalent_cirro import CirroBatchExecutor
from tests.access import ask

CIRRO = "cirro"


def electron(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """An electron that is a small job."""
    if function is None:
        return functools.partial(electron, **options)
    return ct.electron(function, executor=CirroBatchExecutor(vcpu=1, memory=0.5), **options)


def run(lattice: Callable[..., Any], *args: Any) -> Any:
    """Dispatch a lattice and wait for its end."""
    return ct.get_result(ct.dispatch(ct.lattice(lattice, executor=CIRRO))(*args), wait=True)


def node(result: Any, name: str) -> dict[str, Any]:
    """What Covalent has of the first node of this name."""
    found: dict[str, Any] = next(each for each in result.get_all_node_results() if each["node_name"] == name)
    return found


def api(stack: Any, path: str) -> Any:
    """An answer of the API that the UI uses."""
    with urllib.request.urlopen(f"{stack.server_url}/api/v1/dispatches/{path}", timeout=30) as answer:
        return json.load(answer)


@electron
def add(x: Any, y: Any = 0) -> Any:
    """A sum, with a word on it."""
    import sys

    print("adding", x, y)
    print("to stderr", file=sys.stderr)
    return x + y


@electron
def total(numbers: list[int], weights: dict[str, int]) -> int:
    """Nested arguments."""
    return sum(numbers) * weights["factor"]


def test_positional_keyword_and_nested_inputs(stack: Any) -> None:
    """Lists and dicts of electrons' results become Covalent's own nodes, and none of these becomes a job."""

    def lattice(n: int) -> Any:
        parts = [add(i, y=1) for i in range(n)]
        return total(parts, {"factor": parts[0]}), {"first": parts[0], "all": [parts[1], 7]}

    result = run(lattice, 3)
    assert str(result.status) == "COMPLETED", result.error
    assert result.result == [6, {"first": 1, "all": [2, 7]}] or result.result == (6, {"first": 1, "all": [2, 7]})
    jobs = jobs_of(stack, result.dispatch_id)
    assert sorted((job["tags"]["covalent:electron"], job["parameters"]["arguments"]) for job in jobs) == [
        ("add", '{"x":"0","y":"1"}'),
        ("add", '{"x":"1","y":"1"}'),
        ("add", '{"x":"2","y":"1"}'),
        ("total", '{"numbers":"[1, 2, 3]","weights.factor":"1"}'),
    ]


def jobs_of(stack: Any, dispatch_id: str) -> list[dict[str, Any]]:
    """The jobs of a dispatch, by their own tags."""
    batch = stack.client("batch")
    found = []
    for status in ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED"):
        pages = batch.get_paginator("list_jobs").paginate(jobQueue=stack.settings["batch_queue"], jobStatus=status)
        jobs = [job for page in pages for job in page["jobSummaryList"]]
        ids = [job["jobId"] for job in jobs if f"-{dispatch_id[:8]}-" in job["jobName"]]
        for start in range(0, len(ids), 100):
            found += [
                job
                for job in batch.describe_jobs(jobs=ids[start : start + 100])["jobs"]
                if job["tags"]["covalent:dispatch"] == dispatch_id
            ]
    return found


def test_output_source_and_result_can_be_read_everywhere(stack: Any) -> None:
    """stdout and stderr through get_result; source, result and stdout through the API of the UI, blank with stock."""
    result = run(lambda: add(20, y=22))
    assert result.result == 42
    found = node(result, "add")
    assert (found["stdout"], found["stderr"]) == ("adding 20 22\n", "to stderr\n")
    assert found["error"] in (None, "")
    number = found["node_id"]
    details = f"{result.dispatch_id}/electron/{number}/details"
    assert "def add" in api(stack, f"{details}/function_string")["data"]
    assert "42" in api(stack, f"{details}/result")["data"]
    assert "adding 20 22" in api(stack, f"{details}/stdout")["data"]


@electron
def boom() -> None:
    """An electron that raises."""
    import sys

    print("last words", file=sys.stderr)
    try:
        raise KeyError("the cause")
    except KeyError as error:
        raise ValueError("no such luck") from error


def test_an_exception_arrives_with_its_traceback_its_log_and_its_job(stack: Any) -> None:
    """In get_result and in the UI."""
    result = run(lambda: boom())
    assert str(result.status) == "FAILED"
    found = node(result, "boom")
    for words in ("KeyError: 'the cause'", "ValueError: no such luck", "AWS Batch job"):
        assert words in found["error"]
    assert found["stderr"] == "last words\n"
    shown = api(stack, f"{result.dispatch_id}/electron/{found['node_id']}/details/error")["data"]
    assert "no such luck" in shown


@electron
def hungry() -> int:
    """An electron that needs more memory than it asked for."""
    print("loading everything", flush=True)
    held = b"x" * (900 * 1024 * 1024)
    time.sleep(60)  # until it is killed, however seldom a busy emulator measures
    return len(held)


def test_an_electron_without_an_outcome_is_explained_in_get_result_and_in_the_ui(stack: Any) -> None:
    """The whole container was killed: what it was, the figure to set, AWS's words, and the end of the log."""
    result = run(lambda: hungry())
    assert str(result.status) == "FAILED"
    found = node(result, "hungry")
    shown = api(stack, f"{result.dispatch_id}/electron/{found['node_id']}/details/error")["data"]
    for words in ("ran out of memory", "Set memory=1", "OutOfMemoryError", "loading everything"):
        assert words in found["error"]
        assert words in shown
    assert found["error"].startswith(f"'hungry' (node {found['node_id']}) ran out of memory")


@electron
def silent() -> None:
    """No result."""


@electron
def kills_itself() -> None:
    """A crash."""
    import os
    import signal

    os.kill(os.getpid(), signal.SIGSEGV)


@electron
def exits() -> None:
    """A process that leaves."""
    import os

    os._exit(7)


@electron
def generator() -> Any:
    """What cannot be pickled."""
    return (i for i in range(3))


def test_an_electron_without_a_result(stack: Any) -> None:
    """None is a result."""
    result = run(lambda: silent())
    assert (str(result.status), result.result) == ("COMPLETED", None)


@pytest.mark.parametrize(
    ("which", "says"),
    [(kills_itself, "SIGSEGV"), (exits, "exit code 7"), (generator, "generator")],
    ids=["killed", "left", "no pickle"],
)
def test_an_end_without_a_result_says_which(stack: Any, which: Any, says: str) -> None:
    """Never an S3 404."""
    result = run(lambda: which())
    assert str(result.status) == "FAILED"
    assert says in next(each for each in result.get_all_node_results() if each["error"])["error"]


def before(factor: int) -> int:
    """A call_before."""
    return factor * 21


def after(path: str) -> None:
    """A call_after."""
    Path(path).write_text("after")


def test_hooks_run_in_covalents_order(stack: Any, tmp_path: Path) -> None:
    """deps_bash, deps_pip, call_before, the electron, call_after."""
    made, done = tmp_path / "bash", tmp_path / "after"

    @electron(
        deps_bash=ct.DepsBash([f"echo from bash > {made}"]),
        deps_pip=ct.DepsPip(["six"]),
        call_before=[ct.DepsCall(before, args=[2], retval_keyword="prepared")],
        call_after=[ct.DepsCall(after, args=[str(done)])],
    )
    def hooked(path: str, prepared: int = 0) -> Any:
        import six

        return Path(path).read_text(), prepared, six.__name__

    result = run(lambda path: hooked(path), str(made))
    assert result.result == ("from bash\n", 42, "six"), result.error
    assert done.read_text() == "after"


def test_a_failing_hook_is_told_with_what_it_said(stack: Any) -> None:
    """The command and its own words."""

    @electron(deps_bash=ct.DepsBash(["echo broken pipe dream >&2; exit 9"]))
    def never() -> None: ...

    result = run(lambda: never())
    text = node(result, "never")["error"] + (node(result, "never")["stderr"] or "")
    assert "broken pipe dream" in text


def test_file_transfers(stack: Any, tmp_path: Path) -> None:
    """Covalent's files= hook."""
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("content")

    @electron(files=[ct.fs.FileTransfer(str(source), str(target))])
    def read(files: Any = ()) -> str:
        return Path(files[0][1]).read_text()

    assert run(lambda: read()).result == "content"


def test_sublattices(stack: Any) -> None:
    """Built on the server's host; their electrons are jobs."""

    @ct.electron(executor=CIRRO)
    @ct.lattice(executor=CIRRO)
    def inner(n: int) -> Any:
        return [add(i, y=i) for i in range(n)]

    result = run(lambda n: inner(n), 3)
    assert result.result == [0, 2, 4], result.error


def test_bytes_that_are_no_text_take_no_result_away(stack: Any) -> None:
    """Printed by a job, 40 KiB and then é in Latin-1, and on the server's host: the client reads results and logs."""

    @electron
    def shout() -> int:
        import sys

        sys.stdout.buffer.write(b"x" * 40_960 + b"\xe9\n")
        print("größer", file=sys.stderr)
        return 1

    @ct.electron(executor=CIRRO)
    @ct.lattice(executor=CIRRO)
    def inner(n: int) -> Any:
        import os

        os.write(1, b"on the host: \xe9\n")
        return add(n)

    result = run(lambda: [shout(), inner(2)])
    assert list(result.result) == [1, 2], result.error
    shouted = node(result, "shout")
    assert (shouted["stdout"], shouted["stderr"]) == ("x" * 40_960 + "\ufffd\n", "größer\n")
    assert any("on the host: \ufffd\n" in (each["stdout"] or "") for each in result.get_all_node_results())


def test_an_operation_on_electrons_is_no_job(stack: Any) -> None:
    """It is computed on the server's host, as lists and indexing are."""
    result = run(lambda: 2 * (add(1, 2) + add(3, 4)) - 1)
    assert result.result == 19, result.error
    listed = stack.client("batch").list_jobs(jobQueue=stack.settings["batch_queue"], jobStatus="SUCCEEDED")
    names = [job["jobName"] for job in listed["jobSummaryList"] if f"-{result.dispatch_id[:8]}-" in job["jobName"]]
    assert len(names) == 2


def test_a_large_text_and_a_large_array_pass_between_electrons(stack: Any) -> None:
    """Blobs both ways; the second electron's input is not sent up again."""

    @electron
    def make() -> dict[str, Any]:
        import os

        return {"text": "x" * 300_000, "noise": os.urandom(3_000_000)}

    @electron
    def measure(made: dict[str, Any]) -> Any:
        return len(made["text"]), len(made["noise"])

    def lattice() -> Any:
        made = make()
        return [measure(made), measure(made)]

    before_calls = uploaded(stack)
    result = run(lattice)
    assert [list(sizes) for sizes in result.result] == [[300_000, 3_000_000]] * 2
    assert uploaded(stack) - before_calls < 200_000


def peak_memory(pid: int) -> int:
    """The largest resident size that a process has had, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_the_servers_memory_does_not_grow_with_the_data(stack: Any) -> None:
    """80 MB through three electrons; the stock plugin would hold each of them."""
    roomy = CirroBatchExecutor(vcpu=1, memory=1.5)

    @ct.electron(executor=roomy)
    def make() -> bytes:
        import os

        return os.urandom(80_000_000)

    @ct.electron(executor=roomy)
    def use(data: bytes, index: int) -> int:
        return len(data) + index

    def lattice() -> Any:
        data = make()
        return [use(data, index) for index in range(3)]

    run(lambda: add(1))  # so that the first electron's imports do not count
    before_bytes = peak_memory(stack.playground.read().server.identity.pid)
    result = run(lattice)
    assert result.result == [80_000_000 + index for index in range(3)], result.error
    grown = peak_memory(stack.playground.read().server.identity.pid) - before_bytes
    assert grown < 64 * 1024 * 1024


def uploaded(stack: Any) -> int:
    """Bytes that the server has put to S3."""
    counts = ask(stack.endpoint_url, stack.playground.key, "calls?caller=client")
    counts = counts.get("client", counts)
    return sum(
        entry["bytes_in"] for operation, entry in counts.items() if operation in ("s3:PutObject", "s3:UploadPart")
    )


@electron
def unpacked() -> tuple[int, int]:
    """Two results."""
    return 1, 2


def test_task_packing(stack: Any) -> None:
    """Lists and unpacking ride in the job of their electron."""
    set_config({"sdk.task_packing": "true"})
    try:

        def lattice() -> Any:
            first, second = unpacked()
            return total([first, second, 3], {"factor": 2})

        result = run(lattice)
    finally:
        set_config({"sdk.task_packing": get_config("sdk").get("task_packing_before", "false")})
    assert result.result == 12, result.error
    assert len(jobs_of(stack, result.dispatch_id)) == 2


@electron
def needs(path: str) -> str:
    """Fails until a file is there."""
    return Path(path).read_text()


def test_redispatch_reuses_what_is_done_and_leaves_the_old_dispatch_alone(stack: Any, tmp_path: Path) -> None:
    """The new result is the new dispatch's, the old error stays the old one's."""
    flag = tmp_path / "flag"
    first = run(lambda path: [add(1), needs(path)], str(flag))
    assert str(first.status) == "FAILED"
    flag.write_text("now")
    again = ct.get_result(ct.redispatch(first.dispatch_id, reuse_previous_results=True)(), wait=True)
    assert again.result == [1, "now"], again.error
    assert [job["tags"]["covalent:electron"] for job in jobs_of(stack, again.dispatch_id)] == ["needs"]
    assert node(again, "needs")["error"] in (None, "")
    old = ct.get_result(first.dispatch_id)
    assert "FileNotFoundError" in node(old, "needs")["error"]
    assert node(old, "needs")["output"] is None or node(old, "needs")["output"].get_deserialized() is None


@electron
def sleepy(seconds: float, until: str = "") -> str:
    """A job that lasts, or ends when a file appears."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (until and Path(until).exists()):
        time.sleep(0.1)
    return "slept"


def active(stack: Any, dispatch_id: str) -> int:
    """Jobs of a dispatch that have not ended."""
    batch = stack.client("batch")
    return sum(
        f"-{dispatch_id[:8]}-" in job["jobName"]
        for status in ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
        for job in batch.list_jobs(jobQueue=stack.settings["batch_queue"], jobStatus=status)["jobSummaryList"]
    )


def states(result: Any) -> dict[str, int]:
    """How many of the sleepy electrons are in which state."""
    found: dict[str, int] = {}
    for each in result.get_all_node_results():
        if each["node_name"] == "sleepy":
            found[str(each["status"])] = found.get(str(each["status"]), 0) + 1
    return found


def until(condition: Callable[[], Any], limit_s: float = 180) -> Any:
    """Wait for something to come true; a slow, busy machine takes its time."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return value


def test_cancelling_a_dispatch_in_every_stage_leaves_no_job_running(stack: Any) -> None:
    """Twenty electrons: some run, some wait for a machine, some are not submitted yet."""
    lattice = ct.lattice(lambda n: [sleepy(300 + i) for i in range(n)], executor=CIRRO)
    dispatch_id = ct.dispatch(lattice)(20)
    until(lambda: states(ct.get_result(dispatch_id)).get("RUNNING", 0) >= 2)
    ct.cancel(dispatch_id)
    result = ct.get_result(dispatch_id, wait=True)
    assert str(result.status) == "CANCELLED"
    assert states(result) == {"CANCELLED": 20}
    until(lambda: active(stack, dispatch_id) == 0)


def test_cancelling_one_electron_leaves_the_others_alone(stack: Any, tmp_path: Path) -> None:
    """Its job ends, the other goes on."""
    gate = tmp_path / "gate"
    lattice = ct.lattice(lambda path: [sleepy(301), sleepy(300, until=path)], executor=CIRRO)
    dispatch_id = ct.dispatch(lattice)(str(gate))
    until(lambda: states(ct.get_result(dispatch_id)).get("RUNNING", 0) == 2)
    victim = ct.get_result(dispatch_id).get_all_node_results()[0]["node_id"]
    ct.cancel(dispatch_id, [victim])
    until(lambda: active(stack, dispatch_id) == 1)
    gate.touch()
    result = ct.get_result(dispatch_id, wait=True)
    assert states(result) == {"CANCELLED": 1, "COMPLETED": 1}
    until(lambda: active(stack, dispatch_id) == 0)


def test_an_electron_that_waits_for_a_machine_is_shown_as_starting(stack: Any, tmp_path: Path) -> None:
    """RUNNING means that it runs: of three that need most of the machines, the others are starting."""
    gate = tmp_path / "gate"

    def sleepy(path: str) -> str:
        while not Path(path).exists():
            time.sleep(0.1)
        return "slept"

    large = ct.electron(sleepy, executor=CirroBatchExecutor(vcpu=12, memory=0.5))
    dispatch_id = ct.dispatch(ct.lattice(lambda path: [large(path) for _ in range(3)], executor=CIRRO))(str(gate))
    until(lambda: states(ct.get_result(dispatch_id)) == {"RUNNING": 1, "STARTING": 2})
    gate.touch()
    assert str(ct.get_result(dispatch_id, wait=True).status) == "COMPLETED"


def test_like_electrons_share_one_job_definition(stack: Any) -> None:
    """Looked up before it is registered."""
    run(lambda: [add(1), add(2), add(3)])
    batch = stack.client("batch")
    before_count = len(batch.describe_job_definitions()["jobDefinitions"])
    run(lambda: [add(4), add(5)])
    assert len(batch.describe_job_definitions()["jobDefinitions"]) == before_count


def test_two_dispatches_at_once_do_not_mix(stack: Any) -> None:
    """Same lattice, same names, other values."""
    lattice = ct.lattice(lambda base: [add(base, y=i) for i in range(4)], executor=CIRRO)
    ids = [ct.dispatch(lattice)(base) for base in (100, 200)]
    results = [ct.get_result(dispatch_id, wait=True).result for dispatch_id in ids]
    assert results == [[100, 101, 102, 103], [200, 201, 202, 203]]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_queue": "no-such-queue"}, "batch_queue='no-such-queue'"),
        ({"s3_bucket_name": "no-such-bucket-anywhere"}, "s3_bucket_name='no-such-bucket-anywhere'"),
        ({"profile": "nobody"}, "profile='nobody'"),
    ],
)
def test_a_wrong_setting_is_an_error_on_the_electron(stack: Any, options: dict[str, Any], says: str) -> None:
    """Named, with its value and AWS's words, where the user looks."""
    wrong = ct.electron(lambda: 1, executor=CirroBatchExecutor(**options))
    result = ct.get_result(ct.dispatch(ct.lattice(lambda: wrong()))(), wait=True)
    assert str(result.status) == "FAILED"
    assert says in "".join(each["error"] or "" for each in result.get_all_node_results())


def test_the_servers_process_unpickles_nothing_that_a_job_wrote(stack: Any, tmp_path: Path) -> None:
    """A result that leaves a mark wherever it is unpickled leaves it in the client only."""
    mark = tmp_path / "mark"

    @electron
    def hostile(path: str) -> Any:
        class Marks:
            def __reduce__(self) -> Any:
                return (eval, (f"open({path!r}, 'a').write(str(__import__('os').getpid()) + ' ')",))

        return Marks()

    @electron
    def forward(value: Any) -> str:
        return "passed on"

    def lattice(path: str) -> Any:
        return forward(hostile(path))

    result = run(lattice, str(mark))
    assert result.result == "passed on", result.error
    server = stack.playground.read().server.identity.pid
    unpickled_by = mark.read_text().split()  # the second job, at least
    assert unpickled_by
    assert str(server) not in unpickled_by
