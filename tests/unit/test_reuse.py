"""Which work is the same: what a call's key holds, and what pickles say. No S3, no server."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covalent_cirro.contract import nested
from covalent_cirro.contract.documents import dump_call, dump_reused, parse_call, parse_reused
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import Call, Package, Reused, ReusedNode, Task
from covalent_cirro.contract.references import Blob, Inline, Input, NodeOutput, StoredInput
from covalent_cirro.contract.stored_references import StoredReference
from covalent_cirro.electron.reuse.package_files import ARCHIVE_BYTES, Files, PackedFile, reached
from covalent_cirro.electron.reuse.pickles import describe
from covalent_cirro.electron.reuse.reasons import changes, nearest
from covalent_cirro.electron.reuse.work import READ_BYTES, Work, archives_to_read, blobs_to_read, work_of
from covalent_cirro.jobs.reuse_texts import checked_origin, reason_lines
from covalent_cirro.stored_values.handles import Stored

# --- pickles ----------------------------------------------------------------------------------------------------------

SCRIPT = """
import enum
import math
from dataclasses import dataclass

SCALE = 3
NAMES = {{"alpha", "beta", "gamma", "delta", "epsilon"}}

class Color(enum.Enum):
    RED = 1

@dataclass
class Point:
    x: int
    color: Color = Color.RED
    kinds = frozenset({{"u", "v", "w"}})

def helper(x):
    return math.sqrt(x) * SCALE

def outer(k):
    def inner(y, z=(1, 2)):
        return y * k + helper(y)
    return inner

def electron(x):
    "{doc}"
    if x in {{"q", "r", "s"}}:
        return Point(x)
    return [n for n in NAMES] + [outer({k})(x)]

found = {{"electron": electron, "point": Point(1), "names": {{"set": NAMES, "inner": outer(2)}}}}
"""

PICKLE = """
import sys, cloudpickle, json, base64, types
source, path, lines, name = sys.argv[1:]
module = sys.modules.setdefault(name, types.ModuleType(name))
module.__file__ = path
if name != "__main__":  # as `cirro run` does it
    module.__package__ = ""
    cloudpickle.register_pickle_by_value(module)
exec(compile("\\n" * int(lines) + source, path, "exec"), module.__dict__)
found = module.found
print(json.dumps({name: base64.b64encode(cloudpickle.dumps(each)).decode() for name, each in found.items()}))
"""


def pickled(
    *, seed: int = 1, lines: int = 0, path: str = "script.py", name: str = "__main__", **changes: Any
) -> dict[str, bytes]:
    """What a process of its own pickles."""
    source = SCRIPT.format(**{"doc": "Doc.", "k": 5, **changes})
    command = [sys.executable, "-c", PICKLE, source, path, str(lines), name]
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return {name: base64.b64decode(each) for name, each in json.loads(done.stdout).items()}


@pytest.fixture(scope="module")
def one() -> dict[str, bytes]:
    """What one process pickles."""
    return pickled()


def test_another_process_says_the_same_in_other_bytes(one: dict[str, bytes]) -> None:
    """The order of sets, ids of classes, and where a function stands are not what it says."""
    other = pickled(seed=2, lines=7, path="/elsewhere/script.py")
    assert all(one[name] != other[name] for name in one)
    assert {name: describe(data).digest for name, data in one.items()} == {
        name: describe(data).digest for name, data in other.items()
    }
    assert not any(describe(data).digest.startswith("bytes:") for data in one.values())


@pytest.mark.parametrize("change", [{"doc": "Another."}, {"k": 6}], ids=str)
def test_an_edited_function_says_something_else(one: dict[str, bytes], change: dict[str, Any]) -> None:
    """A constant in its body, and its docstring."""
    other = pickled(**change)
    assert describe(one["electron"]).digest != describe(other["electron"]).digest
    assert describe(one["point"]).digest == describe(other["point"]).digest


def test_what_a_function_uses_is_part_of_it(one: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Globals, functions that it calls and their globals, and closures."""
    monkeypatch.setitem(globals(), "SCRIPT", SCRIPT.replace("SCALE = 3", "SCALE = 4"))
    assert describe(one["electron"]).digest != describe(pickled()["electron"]).digest
    monkeypatch.setitem(globals(), "SCRIPT", SCRIPT.replace('"beta"', '"zeta"'))
    assert describe(one["electron"]).digest != describe(pickled()["electron"]).digest
    assert describe(one["names"]).digest != describe(pickled()["names"]).digest


def test_a_script_under_another_name_says_the_same(one: dict[str, bytes]) -> None:
    """Also one that `python` ran in the one case, and `cirro run` in the other."""
    other = pickled(path="/elsewhere/sweep.py", name="sweep")
    assert all(one[name] != other[name] for name in one)
    assert {name: describe(data).digest for name, data in one.items()} == {
        name: describe(data).digest for name, data in other.items()
    }


def test_the_texts_of_a_pickle_are_told_without_where_its_functions_are_from(one: dict[str, bytes]) -> None:
    """They say which modules it imports: none of a local package, and nothing that could import any."""
    texts = describe(one["electron"]).texts
    assert texts is not None
    assert {"alpha", "math", "sqrt", "Point", "Doc."} < texts
    assert texts.isdisjoint({"script.py", "__main__"})
    assert reached({"lab/a.py": PackedFile("1", ("lab.a",), frozenset(), False)}, texts) == {}


def test_a_function_that_uses_the_name_of_its_script_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """``__file__`` and ``__name__`` are values like others, where a function uses them."""
    for value in ("__file__", "__name__"):
        function = f"def electron(x):\n    return {value}\nfound = {{{{'electron': electron}}}}"
        monkeypatch.setitem(globals(), "SCRIPT", function)
        one, other = (describe(pickled(path=path, name=name)["electron"]) for path, name in (("a", "aa"), ("b", "bb")))
        assert one.digest != other.digest


def test_classes_that_a_pickle_defines_are_told_by_their_ids(one: dict[str, bytes]) -> None:
    """Function and input of one process define the same class; of two, they do not."""
    of_function, of_input = describe(one["electron"]).classes, describe(one["point"]).classes
    assert len(of_function) == 2
    assert set(of_function) == set(of_input)
    assert set(describe(pickled()["point"]).classes).isdisjoint(of_input)


def put_together(*parts: bytes) -> bytes:
    """The pickle of a list of pickles."""
    out = io.BytesIO()
    pieces: list[Any] = [nested.PickledPart(str(i), 0, len(part)) for i, part in enumerate(parts)]
    nested.write(pieces, out.write, lambda piece: out.write(parts[int(piece.source)]))  # type: ignore[arg-type, func-returns-value]
    return out.getvalue()


def test_a_list_that_was_put_together_says_what_its_parts_say(one: dict[str, bytes]) -> None:
    """The parts' bytes differ between two processes as ever; the classes of all parts are told."""
    other = pickled(seed=2, lines=7, path="/elsewhere/script.py")
    data = put_together(one["electron"], one["names"], one["point"])
    again = put_together(other["electron"], other["names"], other["point"])
    assert data != again
    assert describe(data).digest == describe(again).digest
    assert describe(data).digest != describe(put_together(one["electron"], one["point"], one["names"])).digest
    assert describe(data).classes == describe(one["point"]).classes
    assert describe(put_together(cloudpickle.dumps("a"), cloudpickle.dumps(1))) == describe(cloudpickle.dumps(["a", 1]))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(values, values)
@settings(deadline=None, max_examples=200)
def test_values_say_the_same_if_they_are_the_same(left: Any, right: Any) -> None:
    """To `repr`, which tells 1 from True and 0.0 from -0.0."""
    same = repr(left) == repr(right)
    assert (_shape(left) == _shape(right)) == same
    # A copy shares nothing with the original, nor its parts with one another.
    assert describe(cloudpickle.dumps(left)).digest == describe(cloudpickle.dumps(left, protocol=4)).digest


def _shape(value: Any) -> str:
    return describe(cloudpickle.dumps(ast.literal_eval(repr(value)) if _is_literal(value) else value)).digest


def _is_literal(value: Any) -> bool:
    try:
        ast.literal_eval(repr(value))
    except ValueError:  # inf and nan
        return False
    return True


@given(st.sets(st.text() | st.integers() | st.tuples(st.text(), st.integers())))
@settings(deadline=None)
def test_a_set_says_the_same_in_every_order(elements: set[Any]) -> None:
    """And a frozenset; but not the one for the other."""
    turned = set(sorted(elements, key=repr, reverse=True))
    assert describe(cloudpickle.dumps(elements)) == describe(cloudpickle.dumps(turned))
    assert describe(cloudpickle.dumps(frozenset(elements))) == describe(cloudpickle.dumps(frozenset(turned)))
    assert describe(cloudpickle.dumps(frozenset(elements))) != describe(cloudpickle.dumps(elements))


def test_what_is_shared_is_part_of_what_is_said() -> None:
    """Two names for one list are not two equal lists: who changes one, changes the other."""
    shared: list[int] = []
    assert describe(cloudpickle.dumps([shared, shared])) != describe(cloudpickle.dumps([[], []]))
    shared.append(shared)  # type: ignore[arg-type]
    assert describe(cloudpickle.dumps(shared)) == describe(cloudpickle.dumps(shared))


class Hostile:
    """Does harm where it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = str(victim)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.unlink, (self.victim,)


def test_nothing_is_executed(tmp_path: Path) -> None:
    """A pickle is read as a list of instructions, which nobody follows."""
    victim = tmp_path / "file"
    victim.touch()
    assert not describe(cloudpickle.dumps(Hostile(victim))).digest.startswith("bytes:")
    assert victim.exists()


@pytest.mark.parametrize("data", [b"", b"not a pickle", b"\x80\x04]q", b"\x80\x04(.", b"\x80\x04e."], ids=repr)
def test_what_is_no_pickle_counts_by_its_bytes(data: bytes) -> None:
    """It is somebody else's to refuse it."""
    assert describe(data).digest == "bytes:" + hashlib.sha256(data).hexdigest()


def test_a_very_deep_pickle_counts_by_its_bytes() -> None:
    """Instead of breaking the server's stack."""
    depth = 3 * sys.getrecursionlimit()
    data = b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."
    assert describe(data).digest.startswith("bytes:")


# --- keys -------------------------------------------------------------------------------------------------------------


def twice(x: int) -> int:
    """An electron's function."""
    return 2 * x


FUNCTION = Inline(cloudpickle.dumps(twice))
SEVEN = Inline(cloudpickle.dumps(7))
HOOKS = Inline(json.dumps({"deps": {"pip": {"attributes": {"packages": ["numpy"]}}}}).encode())
BLOB = Blob("a" * 64, 10 * READ_BYTES, "raw", 10 * READ_BYTES)


def key(of: Call, contents: dict[Blob, bytes]) -> str:
    """The key of a call's work, with packages that were not read."""
    return work_of(of, contents, None).key


def call(**changes: Any) -> Call:
    """A call of two tasks, one of which takes the other's result; ``task`` changes the first."""
    task = Task(3, "twice", FUNCTION, HOOKS, (SEVEN, BLOB), {"a": SEVEN, "b": BLOB})._replace(**changes.pop("task", {}))
    other = Task(9, "again", FUNCTION, None, (NodeOutput(task.node_id),), {})
    made = Call("c", "d", "3.11.7", "3.1.2", "0.240.0", (task, other), (Package("mine", BLOB),), image="repo:tag")
    return made._replace(**changes)


@given(call_id=st.text(), dispatch_id=st.text(), covalent=st.text(), name=st.text(), node_id=st.integers(10, 99))
@settings(deadline=None)
def test_who_asks_when_and_where_is_not_part_of_the_work(
    call_id: str, dispatch_id: str, covalent: str, name: str, node_id: int
) -> None:
    """Dispatch, call, nodes, names."""
    other = call(call_id=call_id, dispatch_id=dispatch_id, covalent=covalent, task={"node_id": node_id, "name": name})
    assert key(other, {}) == key(call(), {})


def test_what_is_shown_of_the_arguments_is_no_part_of_the_work() -> None:
    """The pickles of the arguments are; an address in a text, or the name of an electron, makes no difference."""
    assert key(call(task={"arguments": (("data", "load()"),)}), {}) == key(call(), {})


EIGHT = Inline(cloudpickle.dumps(8))


@pytest.mark.parametrize(
    "change",
    [
        {"task": {"function": Inline(cloudpickle.dumps(lambda x: x))}},
        {"task": {"hooks": None}},
        {"task": {"hooks": Inline(HOOKS.data.replace(b"numpy", b"scipy"))}},
        {"task": {"args": (EIGHT, BLOB)}},
        {"task": {"args": (BLOB, SEVEN)}},
        {"task": {"args": (SEVEN,)}},
        {"task": {"args": (SEVEN, BLOB._replace(sha256="b" * 64))}},
        {"task": {"kwargs": {"a": EIGHT, "b": BLOB}}},
        {"task": {"kwargs": {"a": SEVEN, "c": BLOB}}},
        {"task": {"kwargs": {"b": BLOB, "a": SEVEN}}},
        {"packages": ()},
        {"packages": (Package("mine", BLOB._replace(sha256="c" * 64)),)},
        {"image": "repo:other"},
        {"image": "repo:tag@sha256:" + "1" * 64},
        {"python": "3.12.1"},
        {"variables": "1" * 64},
    ],
    ids=lambda change: str(change)[:60],
)
def test_everything_that_the_work_consists_of_is(change: dict[str, Any]) -> None:
    """Each alone makes it other work."""
    assert key(call(**change), {}) != key(call(), {})


@given(st.binary(max_size=200), st.binary(max_size=200))
@settings(deadline=None)
def test_inputs_of_other_content_are_other_work(left: bytes, right: bytes) -> None:
    """Whether they ride inside the call or are blobs that were read."""
    pickles = [cloudpickle.dumps(each) for each in (left, right)]
    inline = [key(call(task={"args": (Inline(each),)}), {}) for each in pickles]
    blob = Blob("d" * 64, 1, "raw", 1)
    read = [key(call(task={"args": (blob,)}), {blob: each}) for each in pickles]
    assert inline == read
    assert (inline[0] == inline[1]) == (left == right)


def test_an_input_of_the_functions_own_class_is_not_one_of_another_run() -> None:
    """To the function it is an object of a class that only looks the same."""
    one, two = pickled(), pickled(seed=2)

    def of(function: dict[str, bytes], argument: dict[str, bytes]) -> str:
        return key(call(task={"function": Inline(function["electron"]), "args": (Inline(argument["point"]),)}), {})

    assert of(one, one) == of(two, two)
    assert of(one, one) != of(one, two)


def test_an_image_is_the_same_by_its_digest() -> None:
    """Whatever its tag."""
    digest = "@sha256:" + "1" * 64
    assert key(call(image=f"repo:one{digest}"), {}) == key(call(image=f"repo:two{digest}"), {})


def test_hooks_are_the_same_wherever_their_functions_lay_in_memory() -> None:
    """Covalent writes their addresses beside them."""

    def hooks(address: str, function: Callable[..., Any]) -> Inline:
        attributes = {
            "_object": base64.b64encode(cloudpickle.dumps(function)).decode(),
            "_object_string": f"<function at {address}>",
            "_header": {"py_version": "3.11.7"},
        }
        entry = {"apply_fn": {"type": "TransportableObject", "attributes": attributes}}
        return Inline(json.dumps({"call_before": [{"type": "DepsCall", "attributes": entry}]}).encode())

    one = key(call(task={"hooks": hooks("0x7f01", twice)}), {})
    assert one == key(call(task={"hooks": hooks("0x7f02", twice)}), {})
    assert one != key(call(task={"hooks": hooks("0x7f01", lambda: 1)}), {})


def test_small_blobs_are_read_and_large_ones_are_not() -> None:
    """A large pickle is compared byte for byte, which costs the server nothing."""
    small: Input = Blob("e" * 64, 1, "zlib", READ_BYTES)
    assert blobs_to_read(call(task={"function": small, "args": (small, BLOB)})) == [small]


def test_small_archives_are_read_and_large_ones_are_not() -> None:
    """Together: they are in memory at one time."""
    assert archives_to_read(call()) == [BLOB]
    half = Package("half", BLOB._replace(raw_size=ARCHIVE_BYTES // 2))
    assert archives_to_read(call(packages=(half, half))) == [half.archive, half.archive]
    assert archives_to_read(call(packages=(half, half, half))) == []


def test_an_argument_by_position_is_not_one_by_name() -> None:
    """Whatever the name."""
    by_position = call(task={"args": (SEVEN,), "kwargs": {}})
    assert key(by_position, {}) != key(call(task={"args": (), "kwargs": {"1": SEVEN}}), {})


def test_the_handle_of_a_stored_value_counts_by_what_it_names() -> None:
    """Equal content is an equal argument, wherever it was stored from; another one is another argument."""

    def of(sha256: str, **other: Any) -> str:
        reference = StoredReference("bucket", "cirro/", "value", "", "bytes, 10 B", Blob(sha256 * 64, 1, "raw", 1))
        handle = Stored(reference._replace(**other))
        return key(call(task={"args": (Inline(cloudpickle.dumps([handle])),), "kwargs": {}}), {})

    assert of("a") == of("a")
    assert of("a") != of("b")


def test_all_files_of_packages_count_where_a_stored_value_is_among_the_inputs() -> None:
    """Which modules its objects need is not known."""
    files = {
        f"lab/{name}.py": PackedFile(name, (f"lab.{name}",), frozenset(), False) for name in ("__init__", "a", "b")
    }
    plain: dict[str, Any] = {"task": {"args": (SEVEN,), "kwargs": {}}}
    stored = (StoredInput("bytes, 10 B", BLOB),)
    assert work_of(call(**plain), {}, files).files == {}
    assert set(work_of(call(**plain, stored=stored), {}, files).files) == set(files)


# --- reasons ----------------------------------------------------------------------------------------------------------

FILES = {
    "lab/a.py": PackedFile("1", ("lab.a",), frozenset(), False),
    "lab/b.py": PackedFile("2", ("lab.b",), frozenset(), False),
}


def work(files: Files | None = None, **changes: Any) -> Work:
    """The work of a call."""
    return work_of(call(**changes), {}, files)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"task": {"function": Inline(cloudpickle.dumps(lambda x: x))}}, "twice: its function changed, or what"),
        ({"task": {"hooks": None}}, "twice: deps_pip changed"),
        ({"task": {"hooks": Inline(b"no JSON")}}, "twice: hooks changed, twice: deps_pip changed"),
        ({"task": {"hooks": Inline(HOOKS.data.replace(b"numpy", b"scipy"))}}, "twice: deps_pip changed"),
        ({"task": {"args": (EIGHT, BLOB)}}, "twice: argument 1 is another one"),
        ({"task": {"args": (SEVEN, SEVEN)}}, "twice: argument 2 is another one"),
        ({"task": {"kwargs": {"a": SEVEN, "b": SEVEN}}}, "twice: argument b is another one"),
        ({"task": {"kwargs": {"b": BLOB, "a": SEVEN}}}, "twice: its arguments have other names or another order"),
        ({"packages": ()}, "local_packages has other packages"),
        ({"packages": (Package("mine", SEVEN),)}, "the package mine changed"),
        ({"image": "repo:other"}, "another image"),
        ({"python": "3.12.1"}, "another version of Python"),
        ({"python": "3.12.1", "image": "repo:other"}, "another image, another version of Python"),
    ],
    ids=lambda change: str(change)[:60],
)
def test_what_changed_is_named(change: dict[str, Any], reason: str) -> None:
    """In the words of the user's options and arguments."""
    assert changes(work(**change), work()).startswith(reason)
    assert changes(work(), work()) == ""


def test_an_argument_by_position_has_the_name_of_its_parameter() -> None:
    """If the function is known."""
    function = Inline(cloudpickle.dumps(lambda config, *others: config))
    one, two, three = (
        work(task={"function": function, "args": args}) for args in ((SEVEN, BLOB), (EIGHT, BLOB), (SEVEN, SEVEN))
    )
    assert changes(one, two) == "twice: argument config is another one"
    assert changes(one, three) == "twice: argument 2 is another one"


def test_files_that_changed_are_named() -> None:
    """With those that are new or gone; the first five."""
    others = {**FILES, "lab/a.py": FILES["lab/a.py"]._replace(digest="3")}
    more = FILES | {f"lab/{name}.py": FILES["lab/a.py"] for name in "cdefgh"}
    of: dict[str, Any] = {"task": {"args": (SEVEN, Inline(cloudpickle.dumps("-m")))}}
    assert changes(work(others, **of), work(FILES, **of)) == "lab/a.py changed"
    said = changes(work(more, **of), work(FILES, **of))
    assert said == ", ".join(f"lab/{name}.py is new" for name in "cdefg") + " and 1 more"
    assert changes(work(FILES, **of), work(more, **of)).startswith("lab/c.py is not used any more, ")
    assert changes(work(FILES, **of), work(None, **of)) == "the package mine changed"


def test_the_most_similar_earlier_electron_is_compared() -> None:
    """Of those with the same name: a sweep has many."""
    mine, near, far = work(image="b"), work(image="a"), work(image="a", python="3.12.1")
    assert nearest(mine, [far, near, far]) is near
    assert nearest(mine, [near._replace(names=("other",))]) is None


def test_a_reason_is_one_line_for_all_electrons_that_it_applies_to() -> None:
    """The most frequent one first."""
    why = "another image"
    assert reason_lines([("plot", "x is new"), *[("train", why)] * 98, ("load", why)]) == [
        "train (98), load: not reused: another image",
        "plot: not reused: x is new",
    ]
    assert reason_lines((f"e{number}", why) for number in range(7)) == [
        "e0, e1, e2, e3, e4 and 2 more: not reused: another image"
    ]
    assert reason_lines([]) == []


def test_the_reason_is_in_the_call_and_no_part_of_the_work() -> None:
    """A call of an older version has none."""
    told = call(not_reused="another image")
    assert parse_call(dump_call(told)) == told
    assert key(told, {}) == key(call(), {})
    old = json.loads(dump_call(told))
    del old["not_reused"]
    assert parse_call(json.dumps(old).encode()) == call()


# --- documents --------------------------------------------------------------------------------------------------------

REUSED = Reused(
    "d",
    "flow",
    "s3://b/p/jobs/e/1/018f5e2b7c00c0ffee01/call.json",
    "job",
    1.5,
    (ReusedNode(3, "twice", 1), ReusedNode(4, "again", 2)),
)


def test_the_document_is_read_as_it_was_written() -> None:
    """``reused.json``."""
    assert parse_reused(dump_reused(REUSED)) == REUSED


@pytest.mark.parametrize("field", ["dispatch_id", "origin", "job_id", "at", "nodes", "format"])
def test_a_malformed_document_is_refused(field: str) -> None:
    """Naming what is wrong with it."""
    broken = {**json.loads(dump_reused(REUSED)), field: None}
    with pytest.raises(ProtocolError, match=field):
        parse_reused(json.dumps(broken).encode())


@pytest.mark.parametrize(
    "origin",
    [
        "s3://other/p/jobs/e/1/018f5e2b7c00c0ffee01/call.json",
        "s3://b/q/jobs/e/1/018f5e2b7c00c0ffee01/call.json",
        "file:///x",
    ],
)
def test_an_origin_outside_the_prefix_is_refused(origin: str) -> None:
    """Only what lies beside it can stand in."""
    place = Location("b", "p/jobs/d/3/x/")
    assert checked_origin(place, REUSED).base == "p/jobs/e/1/018f5e2b7c00c0ffee01/"
    with pytest.raises(ProtocolError):
        checked_origin(place, REUSED._replace(origin=origin))
