"""What an electron gets and what becomes of what it returns or raises, seen through the real runner."""

from __future__ import annotations

import os
import sys
from typing import Any

import cloudpickle
import pytest

from covalent_cirro.contract import limits
from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.contract.protocol import ExitCode
from covalent_cirro.contract.references import Blob, Inline, NodeOutput

cloudpickle.register_pickle_by_value(sys.modules[__name__])


# --- values -------------------------------------------------------------------------------------------------------


def test_small_electron_costs_one_get_and_one_put(runs: Any) -> None:
    """A function with positional and keyword arguments returns its value; S3 sees call.json and outcome.json only."""
    ran = runs(runs.task(lambda a, b, *, c: [a, b, c], 1, {"two": 2}, kwargs={"c": "drei"}))

    assert ran.code == ExitCode.OK, ran.stderr
    assert runs.value(ran) == [1, {"two": 2}, "drei"]
    base = f"/runner-tests/{runs.location.base}"
    asked = [(request.method, request.path) for request in runs.proxy.requests]
    assert asked == [("GET", base + "call.json"), ("PUT", base + "outcome.json")]
    assert runs.proxy.requests[1].headers["if-none-match"] == "*"
    assert runs.stored() == [
        "jobs/dispatch-1/0/018f5e2b7c00c0ffee01/call.json",
        "jobs/dispatch-1/0/018f5e2b7c00c0ffee01/outcome.json",
    ]


def test_needs_neither_covalent_nor_boto(runs: Any) -> None:
    """Neither parent nor child so much as tries to import Covalent, boto3, botocore or aiobotocore."""

    def loaded() -> list[str]:
        import sys

        return sorted({name.split(".")[0] for name in sys.modules})

    ran = runs(runs.task(loaded))

    assert not runs.blocked.exists()
    modules = runs.value(ran)
    assert "cloudpickle" in modules
    assert not {"covalent", "boto3", "botocore", "aiobotocore", "awscrt", "asyncio"} & set(modules)


def test_outcome_tells_where_when_and_how_much(runs: Any) -> None:
    """Attempt, job, versions, milestones in order, CPU and memory of the electron."""

    def work() -> None:
        data = bytearray(60_000_000)
        sum(data[:3_000_000])

    ran = runs(runs.task(work))

    outcome = ran.outcome
    assert (outcome.call_id, outcome.attempt, outcome.job_id) == ("018f5e2b7c00c0ffee01", 1, "job-1")
    assert outcome.python == ".".join(map(str, sys.version_info[:3]))
    assert outcome.cloudpickle == cloudpickle.__version__
    assert outcome.host["hostname"] == os.uname().nodename
    milestones = ["started", "fetched", "first_line", "ran", "stored"]
    assert sorted(outcome.times, key=outcome.times.__getitem__) == milestones
    assert 0 < outcome.usage.cpu_s < outcome.usage.wall_s + 60
    assert outcome.usage.peak_memory_bytes > 60_000_000


@pytest.mark.parametrize(
    ("value", "string"),
    [
        (None, "None"),
        ("x" * 30_000, "x" * 30_000),
        ("grün 🌲" * 3, "grün 🌲" * 3),
        (list(range(5_000)), str(list(range(5_000)))[: limits.STRING_BYTES]),
    ],
)
def test_string_is_whole_for_a_string_and_cut_for_the_rest(runs: Any, value: Any, string: str) -> None:
    """Covalent reads data out of the text of a string; of anything else the text is for display."""
    ran = runs(runs.task(lambda: value))

    assert runs.value(ran) == value
    assert runs.bytes_of(ran.result.output.string).decode() == string


def test_large_results_go_into_blobs_compressed_where_that_helps(runs: Any) -> None:
    """Random bytes are stored as they are, in parallel parts; text shrinks. Both come back whole."""
    ran = runs(
        runs.task(lambda: os.urandom(20_000_000), node_id=0),
        runs.task(lambda: b"all work and no play " * 100_000, node_id=1),
    )

    raw, packed = (result.output.pickle for result in ran.outcome.results)
    assert (raw.codec, packed.codec) == ("raw", "zlib")
    assert packed.size < packed.raw_size / 20
    assert len(runs.value(ran, 0)) == 20_000_000
    assert runs.value(ran, 1) == b"all work and no play " * 100_000
    assert any("partNumber=3" in path for path in runs.proxy.of("PUT"))
    assert list(runs.scratch.iterdir()) == []


def test_blob_that_is_there_is_not_sent_again(runs: Any) -> None:
    """A second call with the same output asks by HEAD and puts nothing but its outcome."""
    task = runs.task(lambda: bytes(range(256)) * 1000)
    first = runs(task)
    runs.location = runs.location.sibling("018f5e2b7c00c0ffee02")
    runs.proxy.requests.clear()

    second = runs(task)

    assert second.result.output == first.result.output
    assert isinstance(second.result.output.pickle, Blob)
    assert [path.rsplit("/", 1)[1] for path in runs.proxy.of("PUT")] == ["outcome.json"]


def test_inputs_may_be_blobs(runs: Any) -> None:
    """Function, hooks and arguments come from blobs as well; one that is used twice is fetched once."""
    big = os.urandom(9_000_000)
    argument = runs.blob(cloudpickle.dumps(big))
    function = runs.blob(cloudpickle.dumps(lambda a, b: (a == b, a is b, len(a))))

    ran = runs(runs.task(function, argument, argument))

    assert runs.value(ran) == (True, False, len(big))
    assert len({path for path in runs.proxy.of("GET") if "/blobs/" in path}) == 2


def test_header_attributes_are_covalents(runs: Any) -> None:
    """Name and docstring of what was returned, as Covalent's header has them."""

    def make() -> Any:
        def inner() -> None:
            """Its docstring."""

        return inner

    output = runs(runs.task(make)).result.output

    assert (output.name, output.doc) == ("inner", "Its docstring.")


def test_odd_values_lose_nothing_but_their_text(runs: Any) -> None:
    """``str`` that raises, a docstring that is not one, a name that raises: the result itself is kept."""

    def make() -> Any:
        class Odd:
            __doc__ = 42  # type: ignore[assignment]

            def __init__(self) -> None:
                self.number = 7

            def __getattr__(self, name: str) -> str:
                raise (ValueError if name == "__name__" else AttributeError)(name)

            def __str__(self) -> str:
                raise ValueError("no text")

        return Odd()

    ran = runs(runs.task(make))

    assert runs.value(ran).number == 7
    assert runs.bytes_of(ran.result.output.string).endswith(b"Odd raised ValueError: no text>")
    assert (ran.result.output.name, ran.result.output.doc) == ("", "")


def test_text_of_huge_bytes_is_not_made(runs: Any) -> None:
    """``str`` of 100 MB of bytes would take four times as much memory; its beginning is enough."""
    ran = runs(runs.task(lambda: [b"\xff" * 100_000_000]))

    assert len(runs.bytes_of(ran.result.output.string)) <= limits.STRING_BYTES
    assert ran.outcome.usage.peak_memory_bytes < 220_000_000


# --- what is raised -------------------------------------------------------------------------------------------------


def test_exception_keeps_its_causes_and_loses_the_runners_frames(runs: Any) -> None:
    """The traceback begins in the electron and shows the chain."""

    def inner() -> None:
        raise KeyError("lost")

    def outer() -> None:
        try:
            inner()
        except KeyError as error:
            raise ValueError("bad value\nsecond line") from error

    ran = runs(runs.task(outer))

    assert ran.code == ExitCode.RAISED
    assert (ran.failure.kind, ran.failure.message) == (Kind.RAISED, "ValueError: bad value")
    text = ran.failure.traceback
    assert text.index("KeyError: 'lost'") < text.index("direct cause") < text.index("ValueError: bad value")
    assert "in inner" in text
    assert text.count("in outer") == 2
    assert "covalent_cirro" not in text


def raise_system_exit() -> None:
    sys.exit(3)


def raise_system_exit_with_text() -> None:
    sys.exit("the data is gone")


def raise_keyboard_interrupt() -> None:
    raise KeyboardInterrupt


def recurse() -> None:
    recurse()


def raise_unprintable() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    raise Unprintable


def raise_surrogate() -> None:
    raise ValueError("broken \ud800 text")


def exit_with_minus_one() -> None:
    sys.exit(-1)


def exit_with_a_number_of_many_digits() -> None:
    sys.exit(10**5000)


@pytest.mark.parametrize(
    ("function", "kind", "message", "exit_code"),
    [
        (raise_system_exit, Kind.EXITED, "sys.exit with exit code 3", 3),
        (raise_system_exit_with_text, Kind.EXITED, "exit code 1 (the data is gone)", 1),
        (exit_with_minus_one, Kind.EXITED, "sys.exit with exit code 255", 255),
        (exit_with_a_number_of_many_digits, Kind.EXITED, "sys.exit with exit code 255", 255),
        (raise_keyboard_interrupt, Kind.RAISED, "KeyboardInterrupt", None),
        (recurse, Kind.RAISED, "RecursionError: maximum recursion depth exceeded", None),
        (raise_unprintable, Kind.RAISED, "Unprintable: <its __str__ raised RuntimeError>", None),
        (raise_surrogate, Kind.RAISED, "ValueError: broken \\ud800 text", None),
    ],
)
def test_whatever_is_raised_becomes_a_failure(
    runs: Any, function: Any, kind: str, message: str, exit_code: int | None
) -> None:
    """Exits, interrupts, endless recursion and exceptions without text are all told."""
    ran = runs(runs.task(function))

    assert ran.code == ExitCode.RAISED
    assert ran.failure.kind == kind
    assert message in ran.failure.message
    assert ran.failure.exit_code == exit_code
    assert len(ran.failure.traceback) < 10_000


@pytest.mark.parametrize("character", ["x", "é", "\0", "🌲", "\udc00"], ids=ascii)
def test_of_a_message_of_many_megabytes_both_ends_are_told(runs: Any, character: str) -> None:
    """Whatever it consists of: the outcome is small, and says how much was left out."""

    def electron(character: str) -> None:
        raise ValueError("the begin " + character * 17_000_000 + " the end")

    ran = runs(runs.task(electron, character))

    assert (ran.code, ran.failure.kind) == (ExitCode.RAISED, Kind.RAISED), ran.stderr
    for text in (ran.failure.message, ran.failure.traceback.rstrip()):
        assert "ValueError: the begin " in text
        assert text.endswith(" the end")
        assert "characters left out" in text
    assert len(runs.get(runs.location.outcome_key)) < 500_000


def test_a_value_with_a_long_name_and_documentation_is_returned(runs: Any) -> None:
    """What is only shown of it is cut."""

    def make() -> Any:
        class Value:
            __doc__ = "the begin " + "d" * 17_000_000
            __slots__ = ("__name__",)

        value = Value()
        value.__name__ = "n" * 17_000_000  # type: ignore[attr-defined]
        return value

    ran = runs(runs.task(make))

    assert ran.code == ExitCode.OK, ran.stderr
    output = ran.result.output
    assert output.doc.startswith("the begin d")
    assert "characters left out" in output.doc
    assert len(output.name) == 128
    assert len(runs.value(ran).__name__) == 17_000_000


def test_unpicklable_result_names_the_part(runs: Any) -> None:
    """The failure names type and place of what cannot be pickled."""

    def make() -> Any:
        import threading

        class Model:
            def __init__(self) -> None:
                self.weights = [1, 2]
                self.guard = {"lock": threading.Lock()}

        return {"best": [0, Model()]}

    failure = runs(runs.task(make)).failure

    assert failure.kind == Kind.UNPICKLABLE
    assert "result['best'][1].guard['lock'] is a _thread.lock" in failure.message


def test_result_that_a_generator_is_cannot_be_pickled(runs: Any) -> None:
    """The value itself is the culprit."""
    failure = runs(runs.task(lambda: (i for i in range(3)))).failure

    assert failure.kind == Kind.UNPICKLABLE
    assert "result is a builtins.generator" in failure.message


# --- what cannot be read --------------------------------------------------------------------------------------------


def pickle_of_missing(module: str) -> Inline:
    """A pickle that needs a module."""
    return Inline(b"c" + module.encode() + b"\nthing\n.")


def test_missing_module_names_it_and_three_ways_to_ship_it(runs: Any) -> None:
    """A module that only the client has."""
    failure = runs(runs.task(len, pickle_of_missing("my_models.cnn"))).failure

    assert (failure.kind, failure.module) == (Kind.MISSING_MODULE, "my_models")
    assert "positional argument 0" in failure.message
    for way in ("deps_pip=['my_models']", "local_packages=['my_models']", "CirroBatchExecutor", "image"):
        assert way in failure.message


def test_missing_module_inside_the_function_is_told_as_well(runs: Any) -> None:
    """An import in the electron's body fails the same way, with its traceback."""

    def train() -> None:
        import my_models  # type: ignore[import-not-found]  # noqa: F401

    failure = runs(runs.task(train)).failure

    assert (failure.kind, failure.module) == (Kind.MISSING_MODULE, "my_models")
    assert "in train" in failure.traceback


def test_missing_covalent_names_the_servers_version(runs: Any) -> None:
    """Where the electron needs Covalent itself, the image needs the version of the server."""
    failure = runs(runs.task(pickle_of_missing("covalent._workflow")), covalent="0.240.0").failure

    assert failure.kind == Kind.MISSING_MODULE
    assert "covalent==0.240.0" in failure.message


def test_unreadable_pickle_is_told(runs: Any) -> None:
    """Bytes that are no pickle, and a name that its module lacks."""
    garbage = runs(runs.task(len, Inline(b"not a pickle"))).failure
    runs.location = runs.location.sibling("018f5e2b7c00c0ffee02")
    renamed = runs(runs.task(Inline(b"cos\nno_such_thing\n."))).failure

    assert (garbage.kind, renamed.kind) == (Kind.UNREADABLE, Kind.UNREADABLE)
    assert "unpickling positional argument 0 of 'len' failed" in garbage.message
    assert "no_such_thing" in renamed.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"python": "3.9.1"}, ["3.9.1", "only by the same minor version"]),
        ({"cloudpickle": "1.0.0"}, ["cloudpickle==1.0.0"]),
    ],
)
def test_versions_that_cannot_work_are_refused_before_anything_is_fetched(
    runs: Any, changes: dict[str, str], words: list[str]
) -> None:
    """Said plainly, with its own exit code, and without a look at the blobs."""
    missing = Blob("0" * 64, 10, "raw", 10)

    ran = runs(runs.task(missing), **changes)

    assert ran.code == ExitCode.VERSIONS
    assert ran.failure.kind == Kind.VERSIONS
    assert all(word in ran.failure.message for word in words)
    assert not any("/blobs/" in request.path for request in runs.proxy.requests)


# --- packed groups --------------------------------------------------------------------------------------------------


def test_packed_electrons_see_fresh_copies_of_earlier_outputs(runs: Any) -> None:
    """Each reads the earlier output anew, as separate jobs would, and none sees what another did to it."""

    def add(items: list[int], item: int) -> list[int]:
        items.append(item)
        return items

    ran = runs(
        runs.task(lambda: [1], node_id=0),
        runs.task(add, NodeOutput(0), 2, node_id=1),
        runs.task(add, NodeOutput(0), 3, node_id=2),
        runs.task(lambda **found: found, node_id=3, kwargs={"a": NodeOutput(1), "b": NodeOutput(2)}),
    )

    assert ran.code == ExitCode.OK
    assert [runs.value(ran, i) for i in range(4)] == [[1], [1, 2], [1, 3], {"a": [1, 2], "b": [1, 3]}]


def test_output_of_packed_electrons_is_told_apart(runs: Any) -> None:
    """Python's, C's and subprocesses' output belongs to the electron that made it, whatever the one before did."""

    def talk(name: str) -> None:
        import ctypes
        import os
        import subprocess
        import sys

        print(f"python {name}", end=" ")
        ctypes.CDLL(None).printf(f"c {name} ".encode())
        print(f"error {name}", file=sys.stderr)
        sys.stdout.flush()
        subprocess.run(["echo", "sub", name], check=True)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        os.chdir("/")

    ran = runs(*(runs.task(talk, name, node_id=i) for i, name in enumerate("ab")), runs.task(os.getcwd, node_id=2))

    for result, name in zip(ran.outcome.results, "ab", strict=False):
        assert sorted(result.stdout.tail.split()) == sorted(f"python {name} c {name} sub {name}".split())
        assert result.stderr.tail == f"error {name}\n"
    assert runs.value(ran, 2) == str(runs.tmp_path)


def test_after_a_failure_the_rest_of_the_group_is_not_run(runs: Any) -> None:
    """The first keeps its result, the second says why, the third was not run."""

    def fail() -> None:
        raise ValueError("no")

    ran = runs(runs.task(lambda: 1), runs.task(fail, node_id=1), runs.task(print, "never", node_id=2))

    assert ran.code == ExitCode.RAISED
    assert runs.value(ran, 0) == 1
    kinds = [result.failure and result.failure.kind for result in ran.outcome.results]
    assert kinds == [None, Kind.RAISED, Kind.NOT_RUN]
    assert "never" not in ran.stdout
