"""Pickles of pickles: ordinary pickles for whoever loads them, and read here without opening a part."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import tracemalloc
from pathlib import Path
from typing import Any, BinaryIO

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.contract import nested
from covalent_cirro.contract.nested import Pairs, PickledPart, Value
from covalent_cirro.runner import tasks

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
protocols = st.integers(0, pickle.HIGHEST_PROTOCOL)


class Box:
    """What is put together: objects, each with the protocol of its pickle, and lists and dicts of them."""

    def __init__(self, value: Any, protocol: int) -> None:
        self.value, self.protocol = value, protocol

    def __repr__(self) -> str:
        return f"Box({self.value!r}, {self.protocol})"


boxes = st.builds(Box, plain, protocols)
keys = st.builds(Box, st.integers() | st.text(max_size=5), protocols)
structures = st.recursive(
    boxes,
    lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(keys, inner), max_size=3).map(Pairs),
    max_leaves=12,
)


def written(structure: Any) -> bytes:
    """The pickle of a structure of boxes."""
    pickles: list[bytes] = []

    def value(of: Any) -> Value:
        if isinstance(of, Box):
            pickles.append(pickle.dumps(of.value, of.protocol))
            return PickledPart(str(len(pickles) - 1), 0, len(pickles[-1]))
        if isinstance(of, Pairs):
            return Pairs((value(key), value(each)) for key, each in of)
        return [value(each) for each in of]

    out = io.BytesIO()
    nested.write(value(structure), out.write, lambda part: out.write(pickles[int(part.source)]))  # type: ignore[arg-type, func-returns-value]
    return out.getvalue()


def meant(structure: Any) -> Any:
    """What it should be when it is loaded."""
    if isinstance(structure, Box):
        return structure.value
    if isinstance(structure, Pairs):
        return {meant(key): meant(each) for key, each in structure}
    return [meant(each) for each in structure]


@given(structures)
def test_it_loads_as_what_was_put_together(structure: Any) -> None:
    """By the standard library, in C and in Python, and by the runner: equal objects, whatever the protocols."""
    data = written(structure)
    assert pickle.loads(data) == meant(structure)
    assert pickle._Unpickler(io.BytesIO(data)).load() == meant(structure)
    assert tasks.unpickle(lambda: io.BytesIO(data)) == meant(structure)


@given(structures)
def test_what_is_read_is_what_was_written(structure: Any) -> None:
    """Reading and writing again changes no byte: lists of lists do not become pickles in pickles in pickles."""
    data = written(structure)
    file = io.BytesIO(data)
    value = nested.read(file, "here")
    assert value is not None
    again = io.BytesIO()
    nested.write(value, again.write, lambda part: nested.copy(file, part, again.write))
    assert again.getvalue() == data


@given(structures, st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_a_changed_pickle_is_another_pickle_or_well_formed(structure: Any, at: int, change: bytes) -> None:
    """Reading never raises, never reads a part from outside the file, and never loops."""
    data = bytearray(written(structure))
    data[at : at + len(change)] = change

    def check(value: Value) -> None:
        if isinstance(value, PickledPart):
            assert value.offset + value.size <= len(data)
            return
        for each in value:
            for one in each if isinstance(value, Pairs) else (each,):
                check(one)  # type: ignore[arg-type]

    value = nested.read(io.BytesIO(bytes(data)))
    if value is not None:
        check(value)


@given(plain, protocols)
def test_any_other_pickle_is_left_alone(value: Any, protocol: int) -> None:
    """Only what was put together here is taken apart."""
    assert nested.read(io.BytesIO(pickle.dumps(value, protocol))) is None


@pytest.mark.parametrize("cut", [1, 5, len(nested.PRELUDE), len(nested.PRELUDE) + 1, 40, -1])
def test_a_pickle_that_is_cut_short_is_not_read(cut: int) -> None:
    """It is a part like any other, and its damage is told by whoever loads it."""
    data = written([Box(1, 4), [Box("two", 5)]])
    assert nested.read(io.BytesIO(data[:cut])) is None


def test_what_is_deeper_than_is_sensible_is_not_read() -> None:
    """Neither deep lists nor a stack of parts make the reader grow without end."""
    deep = nested.PRELUDE + b"]" * 10_000 + b"a" * 9_999 + b"."
    parts = nested.PRELUDE + b"]" + (b"h\x00\x8e" + struct.pack("<Q", 2) + b"N." + b"\x85R") * 10_000 + b"."
    assert nested.read(io.BytesIO(deep)) is None
    assert nested.read(io.BytesIO(parts)) is None


def test_classes_that_travel_with_a_part_stay_one_class() -> None:
    """cloudpickle knows by their ids that the definitions in several parts are of one class."""

    class Local:
        pass

    pickles = [cloudpickle.dumps(Local()) for _ in range(2)]
    out = io.BytesIO()
    value: Value = [PickledPart(str(i), 0, len(data)) for i, data in enumerate(pickles)]
    nested.write(value, out.write, lambda part: out.write(pickles[int(part.source)]))  # type: ignore[arg-type, func-returns-value]
    first, second = pickle.loads(out.getvalue())
    assert type(first) is type(second)


def test_the_runner_does_not_hold_a_part_twice(tmp_path: Path) -> None:
    """Others hold the bytes of one part beside the object that they become."""
    size = 40_000_000

    def write(file: BinaryIO) -> None:
        part = pickle.dumps(bytes(size))
        nested.write([PickledPart("", 0, len(part))], file.write, lambda _: file.write(part))  # type: ignore[arg-type, func-returns-value]

    with open(tmp_path / "pickle", "wb") as file:
        write(file)

    def others(source: tasks.Open) -> Any:
        with source() as file:
            return pickle.load(file)

    peaks = []
    for load in (tasks.unpickle, others):
        tracemalloc.start()
        assert len(load(lambda: (tmp_path / "pickle").open("rb"))[0]) == size
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 1.1 * size < 1.9 * size < peaks[1]


def test_it_is_written_in_the_opcodes_that_the_module_names() -> None:
    """The format is a contract with files that exist."""
    names = [opcode.name for opcode, _, _ in pickletools.genops(written([Box(1, 4), Pairs()]))]
    part = ["BINGET", "BINBYTES8", "TUPLE1", "REDUCE"]
    assert names == [
        *("PROTO", "GLOBAL", "BINPUT", "POP", "EMPTY_LIST"),
        *(*part, "APPEND"),
        *("EMPTY_DICT", "APPEND", "STOP"),
    ]
