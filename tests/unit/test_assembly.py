"""Covalent's own nodes from files to files: as Covalent's own functions would do them, with nothing opened."""

from __future__ import annotations

import hashlib
import io
import pickle
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import covalent as ct
import networkx
import pytest
from covalent._workflow.transportable_object import TransportableObject
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covalent_cirro.contract import nested, tobj
from covalent_cirro.covalent_server.assets import Node
from covalent_cirro.electron import assembly
from covalent_cirro.electron.call_writer import ElectronSpec
from covalent_cirro.electron.result_writer import WrittenFile

opened: list[int] = []


def open_it(number: int) -> Opaque:
    """What unpickling calls."""
    opened.append(number)
    return Opaque(number)


class Opaque:
    """A result that leaves a mark when it is unpickled."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)

    def __reduce__(self) -> Any:
        return open_it, (self.number,)

    def __repr__(self) -> str:
        return f"Opaque({self.number})"


class Run:
    """A lattice that Covalent itself has built into nodes, whose electrons have returned.

    Attributes:
        names: Names of the nodes that were assembled.
        left: Names of those that need a process.
    """

    def __init__(self, folder: Path, lattice: Any, results: dict[str, Any]) -> None:
        self.names: list[str] = []
        self.left: list[str] = []
        self.files: dict[str, WrittenFile] = {}
        built = ct.lattice(lattice)
        built.build_graph()
        graph = built.transport_graph._graph
        self._outputs: dict[int, str] = {}
        self._by_name: dict[str, int] = {}
        for node_id in networkx.topological_sort(graph):
            data = graph.nodes[node_id]
            name = data["name"]
            self._by_name[name] = node_id
            paths = {key: str(folder / f"{node_id}.{key}") for key in ("function", "output")}
            if data["function"] is not None:
                Path(paths["function"]).write_bytes(data["function"].serialize())
            value = results.get(name, ...)
            if name.startswith(":parameter:"):
                Path(paths["output"]).write_bytes(data["value"].serialize())
            elif value is not ...:
                Path(paths["output"]).write_bytes(TransportableObject(value).serialize())
            else:
                self._do(Node(0, node_id, name, paths), self._spec(graph, node_id))
                if self.left:
                    return
            self._outputs[node_id] = paths["output"]

    def _spec(self, graph: Any, node_id: int) -> ElectronSpec:
        args, kwargs = {}, {}
        for parent, _, edge in graph.in_edges(node_id, data=True):
            if edge["edge_name"] == "!waiting_edge":
                continue
            if edge["param_type"] == "arg":
                args[edge["arg_index"]] = parent
            else:
                kwargs[edge["edge_name"]] = parent
        return ElectronSpec(node_id, [args[index] for index in sorted(args)], kwargs)

    def _do(self, node: Node, spec: ElectronSpec) -> None:
        file = assembly.assemble(node, spec, self._outputs)
        if file is None:
            self.left.append(node.name)
            return
        self.names.append(node.name)
        self.files[node.name] = file

    def output(self, name: str = ":postprocess:reconstruct") -> TransportableObject:
        """What a node wrote, as Covalent reads it."""
        return TransportableObject.deserialize(Path(self._outputs[self._by_name[name]]).read_bytes())

    @property
    def result(self) -> Any:
        """What the client gets."""
        return self.output().get_deserialized()


def electron(name: str) -> Callable[..., Any]:
    """An electron of this name."""

    def function(*args: Any) -> Any:
        raise AssertionError("it has returned already")

    function.__name__ = name
    return ct.electron(function)  # type: ignore[no-any-return]


make, other, use = electron("make"), electron("other"), electron("use")


@pytest.fixture(autouse=True)
def _nothing_opened_yet() -> None:
    opened.clear()


ONE, TWO = Opaque(1), Opaque(2)


@pytest.mark.parametrize(
    ("lattice", "expected"),
    [
        (lambda: make(), ONE),
        (lambda: [make(), other()], [ONE, TWO]),
        (lambda: (make(), 3), [ONE, 3]),
        (lambda: {"a": make(), 2: [other(), None]}, {"a": ONE, 2: [TWO, None]}),
        (lambda: {"deep": [{"er": (make(), [other()])}, 1.5, "text"]}, {"deep": [{"er": [ONE, [TWO]]}, 1.5, "text"]}),
        (lambda: [make(), make()], [ONE, ONE]),
        (lambda: [], []),
        (lambda: {}, {}),
        (lambda: None, None),
        (lambda: "text", "text"),
    ],
)
def test_what_a_lattice_returns_is_put_together_unopened(tmp_path: Path, lattice: Any, expected: Any) -> None:
    """As Covalent would, with its own nodes: nothing is opened before the client does it."""
    run = Run(tmp_path, lattice, {"make": ONE, "other": TWO})
    assert run.left == []
    assert opened == []
    assert run.result == expected


def test_arguments_are_put_together_unopened(tmp_path: Path) -> None:
    """A list and a dict of results for an electron."""
    run = Run(tmp_path, lambda: use([make(), [other()]], {"key": make()}), {"make": ONE, "other": TWO, "use": 0})
    assert run.left == []
    assert opened == []
    assert run.output(":electron_list:").get_deserialized() in ([ONE, [TWO]], [TWO], ["key"], [ONE])
    assert run.output(":electron_dict:").get_deserialized() == {"key": ONE}


def together(folder: Path, lattice: Any) -> TransportableObject:
    """What a sublattice gave its parent: put together unopened."""
    folder.mkdir()
    run = Run(folder, lattice, {"make": ONE, "other": TWO})
    assert run.left == []
    return run.output()


class Given:
    """A result that is there as a file already."""

    def __init__(self, file: TransportableObject) -> None:
        self.file = file


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        (lambda: [make(), other()], lambda: make()[1], TWO),
        (lambda: [make(), other()], lambda: make()[-2], ONE),
        (lambda: {"a": make(), 2: other()}, lambda: make()["a"], ONE),
        (lambda: {"a": make(), 2: other()}, lambda: make()[2], TWO),
        (lambda: {"a": [make(), {"b": other()}]}, lambda: make()["a"][1]["b"], TWO),
        (lambda: {"a": [make(), {"b": other()}]}, lambda: make()["a"], [ONE, {"b": TWO}]),
        (lambda: [make(), "some text"], lambda: make()[1], "some text"),
        (lambda: [make(), "grün" * 9_000], lambda: make()[1], "grün" * 9_000),
        (lambda: [make(), 12], lambda: make()[1], 12),
    ],
)
def test_items_of_what_was_put_together_are_taken_unopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: Any, outer: Any, expected: Any
) -> None:
    """By number or by key, from lists in dicts in lists."""
    file = together(tmp_path / "inner", inner)
    monkeypatch.setattr(TransportableObject, "serialize", given_or(TransportableObject.serialize, file))
    run = Run(tmp_path, outer, {"make": Given(file)})
    assert run.left == []
    assert opened == []
    assert run.result == expected
    deep = outer.__code__.co_consts.count("b") > 0  # of what is inside an item, nobody has seen a text
    assert run.output().object_string == ("..." if deep else str(expected))


def given_or(serialize: Any, file: TransportableObject) -> Any:
    """The bytes of the file that stands for the result of ``make``."""
    bytes_of_file = serialize(file)

    def instead(self: TransportableObject) -> bytes:
        return bytes_of_file if "Given object" in self.object_string else serialize(self)  # type: ignore[no-any-return]

    return instead


def test_a_text_that_is_no_valid_text_is_shown_all_the_same(tmp_path: Path) -> None:
    """A job may return one; Covalent reads only UTF-8."""
    names = {"list": "_auto_list_node", "item": ":make.__getitem__"}
    for name, function in names.items():
        with open(tmp_path / f"{name}.function", "wb") as file:
            tobj.Writer(file, tobj.header_fields(function, "", "", ""), b"").close()
    for name, value in (("text", "a\udc80b"), ("key", 0)):
        with open(tmp_path / name, "wb") as file:
            writer = tobj.Writer(file, tobj.header_fields("", "", "", ""), b"a\\udc80b")
            writer.write(pickle.dumps(value))
            writer.close()
    for name, node_name, args in (("list", ":electron_list:", ["text"]), ("item", names["item"], ["list", "key"])):
        node = Node(0, 9, node_name, {"function": f"{tmp_path / name}.function", "output": str(tmp_path / name)})
        inputs = {i: str(tmp_path / each) for i, each in enumerate(args)}
        assert assembly.assemble(node, ElectronSpec(9, list(inputs), {}), inputs) is not None
    read = TransportableObject.deserialize((tmp_path / "item").read_bytes())
    assert (read.get_deserialized(), read.object_string) == ("a\udc80b", "a\\udc80b")


def test_unpacking_of_what_was_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``a, b = x``."""

    def outer() -> Any:
        first, second = make()
        return [second, first]

    file = together(tmp_path / "inner", lambda: [make(), other()])
    monkeypatch.setattr(TransportableObject, "serialize", given_or(TransportableObject.serialize, file))
    run = Run(tmp_path, outer, {"make": Given(file)})
    assert (run.left, opened) == ([], [])
    assert run.result == [TWO, ONE]


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        (lambda: [make()], lambda: make()[1]),
        (lambda: [make()], lambda: make()["a"]),
        (lambda: {"a": make()}, lambda: make()["b"]),
        (lambda: {"a": make()}, lambda: make()[("a", 1)]),
        (lambda: {1.0: make()}, lambda: make()[1]),
        (lambda: [make()], lambda: make()[True]),
        (lambda: [make(), other()], lambda: make().count),
        (lambda: [make(), other()], lambda: make() + 1),
    ],
    ids=["too far", "no number", "no such key", "odd key", "equal key of another type", "bool", "attribute", "sum"],
)
def test_what_needs_the_object_is_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: Any, outer: Any
) -> None:
    """They raise what is to be raised, or compute."""
    file = together(tmp_path / "inner", inner)
    monkeypatch.setattr(TransportableObject, "serialize", given_or(TransportableObject.serialize, file))
    run = Run(tmp_path, outer, {"make": Given(file)})
    assert len(run.left) == 1


@pytest.mark.parametrize("value", [[ONE, TWO], {"a": ONE}, (ONE, TWO)])
def test_items_of_what_an_electron_returned_are_left_to_others(tmp_path: Path, value: Any) -> None:
    """Its shape is in its pickle, which only unpickling tells."""
    assert Run(tmp_path, lambda: make()[0], {"make": value}).left == [":make.__getitem__"]


def test_a_result_that_is_handed_on_keeps_its_type_and_text(tmp_path: Path) -> None:
    """Covalent makes plain dicts of all dicts, which need the object; here the file is the same."""
    result = Run(tmp_path, lambda: make(), {"make": OrderedDict(b=1, a=2)})
    assert type(result.result) is OrderedDict
    assert result.output().object_string == str(OrderedDict(b=1, a=2))


def test_people_see_what_was_put_together(tmp_path: Path) -> None:
    """As Python shows a list, as far as that is known without opening it; and no more than of any other result."""
    run = Run(tmp_path, lambda: {"a": [make(), "it's"], 2: other()}, {"make": ONE, "other": "x" * 20_000})
    shown = run.output().object_string
    assert shown.startswith("{'a': [Opaque(1), \"it's\"], 2: 'xxx")
    assert len(shown) < 2_000
    run = Run(tmp_path, lambda: [make()] * 300, {"make": "ü" * 500})
    assert 9_000 < len(run.output().object_string.encode()) <= 10_000


def test_size_and_digest_are_those_of_the_file(tmp_path: Path) -> None:
    """Covalent's database has them."""
    run = Run(tmp_path, lambda: [make(), {"a": other()}], {"make": ONE, "other": TWO})
    for name, file in run.files.items():
        data = run.output(name).serialize()
        if run.names.count(name) == 1:
            assert (file.size, file.sha1) == (len(data), hashlib.sha1(data).hexdigest())


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, None, "cut"])
def test_a_damaged_file_is_told(tmp_path: Path, damage: Any) -> None:
    """It is not put into a list, where nobody would find it again."""
    path = tmp_path / "part.tobj"
    whole = TransportableObject(list(range(1000))).serialize()
    path.write_bytes(whole[:-1200] if damage == "cut" else damage or b"")
    if damage is None:
        path.unlink()
    function = tmp_path / "function.tobj"
    function.write_bytes(TransportableObject(_auto_list_node).serialize())
    node = Node(0, 1, ":electron_list:", {"function": str(function), "output": str(tmp_path / "output")})
    with pytest.raises((tobj.TobjError, OSError)) as caught:
        assembly.assemble(node, ElectronSpec(1, [0], {}), {0: str(path)})
    assert "part.tobj" in str(caught.value)
    assert not (tmp_path / "output").exists()


def _auto_list_node(*args: Any) -> Any:
    """Has the name of Covalent's own."""


def test_a_large_part_is_not_held(tmp_path: Path) -> None:
    """60 MB pass in pieces of a megabyte, and are found again without being decoded."""
    value = bytes(60_000_000)
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "big").write_bytes(TransportableObject(value).serialize())
    function = tmp_path / "function.tobj"
    function.write_bytes(TransportableObject(_auto_list_node).serialize())
    node = Node(0, 1, ":electron_list:", {"function": str(function), "output": str(tmp_path / "output")})
    tracemalloc.start()
    try:
        assembly.assemble(node, ElectronSpec(1, [0, 0], {}), {0: str(run_folder / "big")})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12_000_000
    with tobj.pickle_file(open(tmp_path / "output", "rb")) as file:
        found = nested.read(file)
    assert isinstance(found, list)
    assert [part.size for part in found if isinstance(part, nested.PickledPart)] == [len(cloudpickle.dumps(value))] * 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.lists(st.one_of(st.text(), st.binary(), st.none(), st.integers(), st.text(min_size=300)), max_size=5))
def test_texts_are_told_from_other_pickles(tmp_path: Path, values: list[Any]) -> None:
    """What people see of a list is what Python shows, whatever is a text."""
    run = Run(tmp_path, lambda: [electron(f"e{i}")() for i in range(len(values))], dict(enumerated(values)))
    assert run.result == values
    if all(len(str(value)) < 200 for value in values):
        assert run.output().object_string == str(values)


def enumerated(values: list[Any]) -> list[tuple[str, Any]]:
    """By the names of electrons."""
    return [(f"e{i}", value) for i, value in enumerate(values)]


@given(st.binary(max_size=4000), st.lists(st.tuples(st.integers(0, 4100), st.integers(0, 600)), max_size=10))
def test_a_pickle_in_a_tobj_file_is_a_file(data: bytes, reads: list[tuple[int, int]]) -> None:
    """Wherever one goes in it, and however much one reads."""
    pickled = cloudpickle.dumps(data)
    file = io.BytesIO(TransportableObject(data).serialize())
    raw = tobj.PickleFile(file, tobj.read_header(file))
    for at, count in reads:
        raw.seek(at)
        assert raw.read(count) == pickled[at : at + count]
    raw.seek(0)
    assert pickle.load(io.BufferedReader(raw)) == data
