"""Results of items that are reused: which items are the same, and what list comes of them and the computed ones."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import itertools
import os
import pickle
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covalent_cirro.contract import item_tables, nested, tobj
from covalent_cirro.contract.item_tables import NOT_REUSED, ResultTable
from covalent_cirro.contract.maps import DIGEST_BYTES, Chunk, Mapped, MappedArgument, ReusedItems
from covalent_cirro.contract.places import location
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.references import Blob, BodyPart, Inline, JoinedParts, Ref
from covalent_cirro.electron.call_writer import _input_of
from covalent_cirro.electron.maps import item_digests, reused_items, shares
from covalent_cirro.electron.maps.joined import StoredList
from covalent_cirro.electron.maps.list_writer import ListWriter
from covalent_cirro.electron.maps.map_plans import ListFile, MapPlan
from covalent_cirro.electron.maps.reused_items import Computed
from covalent_cirro.electron.maps.shares import SourcePart
from covalent_cirro.electron.reuse import item_taking
from covalent_cirro.electron.reuse.item_matches import NONE, matches
from covalent_cirro.electron.reuse.item_results import EarlierItems
from covalent_cirro.electron.reuse.item_taking import _Gathering, left_of
from covalent_cirro.runner import item_sources

PLACE = location("bucket", "prefix/", "dispatch", 3, "0" * 20)


class Blobs:
    """A store that keeps blobs in memory, and the engine that has it."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.store = self

    def put(self, data: bytes) -> Blob:
        """Keep a blob as it is."""
        digest = hashlib.sha256(data).hexdigest()
        self.stored[digest] = data
        return Blob(digest, len(data), "raw", len(data))

    async def read_into(self, blob: Blob, _bucket: str, _prefix: str, begin: Callable[[], Any]) -> None:
        """As `Store.read_into`, after a stream that broke."""
        with contextlib.suppress(ConnectionError), begin() as write:
            write(self.stored[blob.sha256][:3])
            raise ConnectionError
        with begin() as write:
            write(self.stored[blob.sha256])

    async def keep(self, blob: Blob, _bucket: str, _prefix: str) -> bool:
        """As `Store.keep`."""
        return blob.sha256 in self.stored


def body_of(values: Sequence[Any]) -> bytes:
    """The body of a list."""
    return b"".join(nested.item_of(cloudpickle.dumps(value)) for value in values)


def list_file(path: str, values: Sequence[Any]) -> ListFile:
    """A list in a file that is a pickle of pickles."""
    data = nested.LIST_HEAD + body_of(values) + nested.LIST_TAIL
    Path(path).write_bytes(data)
    ends = nested.item_ends(io.BytesIO(data))
    assert ends is not None
    return ListFile(path, False, ends)


def values_of(of: ListFile) -> list[Any]:
    """The values of a list, of which maybe parts count only."""
    data = Path(of.path).read_bytes()[len(nested.LIST_HEAD) : -len(nested.LIST_TAIL)]
    parts = [(0, len(data))] if of.parts is None else of.parts
    found: list[Any] = pickle.loads(
        nested.LIST_HEAD + b"".join(data[begin:end] for begin, end in parts) + nested.LIST_TAIL
    )
    return found


def unpickled(path: str) -> Any:
    """The value in a TransportableObject."""
    with open(path, "rb") as file:
        return pickle.loads(b"".join(tobj.iter_pickle(file, tobj.read_header(file))))


# --- which items are the same -----------------------------------------------------------------------------------------

items = st.lists(st.integers(0, 5), max_size=20)


def digests(values: Sequence[int]) -> bytes:
    """A digest for each value."""
    return b"".join(bytes([value]) * DIGEST_BYTES for value in values)


@given(items, items, st.data())
def test_equal_items_are_found_each_once(mine: list[int], theirs: list[int], data: st.DataObject) -> None:
    """As many as there are in both lists, of those that have a result and are wanted."""
    wanted = bytearray(data.draw(st.lists(st.booleans(), min_size=len(mine), max_size=len(mine))))
    usable = bytearray(data.draw(st.lists(st.booleans(), min_size=len(theirs), max_size=len(theirs))))
    found = matches(digests(mine), digests(theirs), wanted=wanted, usable=usable, same_place=False)
    pairs = [(item, other) for item, other in enumerate(found) if other != NONE]
    assert all(mine[item] == theirs[other] and wanted[item] and usable[other] for item, other in pairs)
    assert len({other for _, other in pairs}) == len(pairs)
    both = Counter(value for value, one in zip(mine, wanted, strict=True) if one)
    both &= Counter(value for value, one in zip(theirs, usable, strict=True) if one)
    assert len(pairs) == both.total()


@given(items, items)
def test_where_the_place_counts_an_item_is_found_at_its_place(mine: list[int], theirs: list[int]) -> None:
    """In a list of the same length."""
    wanted, usable = bytearray(b"\1") * len(mine), bytearray(b"\1") * len(theirs)
    found = matches(digests(mine), digests(theirs), wanted=wanted, usable=usable, same_place=True)
    same = len(mine) == len(theirs)
    assert list(found) == [i if same and mine[i] == theirs[i] else NONE for i in range(len(mine))]


def test_a_digest_is_of_all_mapped_arguments(tmp_path: Path) -> None:
    """Also where their bytes, joined, are the same."""
    lists = [list_file(str(tmp_path / "one"), [b"a", b"b", b"a"]), list_file(str(tmp_path / "other"), [1, 1, 1])]
    found = item_digests.of_lists(lists, ["lab"])
    one, other, again = (found.data[i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES] for i in range(3))
    assert one == again != other
    assert not found.need_modules


def test_a_class_of_the_script_is_the_same_in_another_run(tmp_path: Path) -> None:
    """Its random id is another one there. Other texts count; and so does whether the function has the same class."""

    class Config:
        def __init__(self, text: str) -> None:
            self.text = text

    def digest_of(name: str, text: str, run: str, function: bytes = b"") -> bytes:
        made = list_file(str(tmp_path / name), [Config(text)])
        (tracked,) = re.findall(rb"\x8c\x20([0-9a-f]{32})\x94", Path(made.path).read_bytes())[:1]
        data = Path(made.path).read_bytes().replace(tracked, run.encode() * 32)
        Path(made.path).write_bytes(data)
        return item_digests.of_lists([made], [], function.replace(tracked, run.encode() * 32)).data

    function = cloudpickle.dumps(lambda x: isinstance(x, Config))
    first = digest_of("one", "f" * 32, "a")
    assert digest_of("two", "f" * 32, "b") == first
    assert digest_of("three", "e" * 32, "b") != first
    same = digest_of("four", "f" * 32, "a", function)
    assert same != first
    assert digest_of("five", "f" * 32, "b", function) == same


@pytest.mark.parametrize(
    "value",
    ["lab.models", lambda: 1, type("Point", (), {}), b"x" * 2_000_000 + b"lab", "covalent-cirro stored: "],
    ids=["name", "function", "class", "bytes", "stored"],
)
def test_items_that_may_need_modules_are_told(value: Any, tmp_path: Path) -> None:
    """They name a package or a stored value, or have code."""
    from covalent_cirro.contract.stored_references import MARKER

    value = MARKER if isinstance(value, str) and "stored" in value else value
    assert item_digests.of_lists([list_file(str(tmp_path / "list"), [1, value, 2])], ["lab"]).need_modules


# --- where their results are ------------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(1, 9))), max_size=12))
def test_a_table_comes_back(rows: list[tuple[int, int, int] | None]) -> None:
    """In as few runs as possible, which are all items in their order."""
    table = ResultTable(len(rows))
    for item, row in enumerate(rows):
        if row is not None:
            table.set(item, *row)
    read = item_tables.parse(table.dump(), len(rows))
    assert [None if read.at(i)[0] == NOT_REUSED else read.at(i) for i in range(len(rows))] == rows
    runs = list(read.pieces())
    assert [i for each in runs for i in range(each.first, each.stop)] == list(range(len(rows)))
    assert read.left() == tuple((each.first, each.stop) for each in runs if each.source == NOT_REUSED)
    with pytest.raises(ProtocolError, match="not those of"):
        item_tables.parse(table.dump() + b"x", len(rows))


def test_places_in_the_whole_list_are_known() -> None:
    """Of an item that a call computes, and the other way round."""
    reused = ReusedItems(10, ((1, 3), (7, 9)), PLACE.call_uri, (Inline(b""),), Inline(b""))
    mapped = Mapped(4, ((0, 2), (2, 4)), (MappedArgument("x", (), ((), ())),), reused=reused)
    assert [mapped.place_of(i) for i in range(5)] == [1, 2, 7, 8, 10]
    assert mapped.places_of(range(1, 4)) == ((2, 3), (7, 9))
    assert [mapped.number_at(i) for i in range(10)] == [None, 0, 1, None, None, None, None, 2, 3, None]
    assert (mapped.whole_length, reused.reused_count) == (10, 6)
    alone = mapped._replace(reused=None)
    assert (alone.place_of(3), alone.places_of(range(1, 3)), alone.number_at(3)) == (3, ((1, 3),), 3)
    mapped.check("mapped", None)


@pytest.mark.parametrize("left", [((3, 1),), ((0, 2), (1, 3)), ((4, 11),), ((2, 2),)])
def test_ranges_that_are_no_items_of_the_list_are_refused(left: tuple[tuple[int, int], ...]) -> None:
    """A call that has them is none of ours."""
    with pytest.raises(ProtocolError, match="in order"):
        ReusedItems(10, left, PLACE.call_uri, (), Inline(b"")).check("reused", None)
    whole = ReusedItems(10, ((0, 3),), PLACE.call_uri, (), Inline(b""))
    with pytest.raises(ProtocolError, match="that are left"):
        Mapped(4, ((0, 4),), (MappedArgument("x", (), ((),)),), reused=whole).check("mapped", None)


# --- the law ----------------------------------------------------------------------------------------------------------


def result(value: Any) -> str:
    """What a function returns for an item."""
    return f"result of {value!r} {'x' * 50}"


def earlier_items(blobs: Blobs, values: list[int], failed: set[int], cuts: Sequence[int], data: st.DataObject) -> Any:
    """A map of a list whose jobs stored chunks that end at these items, as blobs or in documents."""
    chunks, bounds = [], sorted({0, len(values), *cuts})
    for first, stop in itertools.pairwise(bounds):
        body = body_of([None if i in failed else result(values[i]) for i in range(first, stop)])
        chunks.append(Chunk(first, stop, blobs.put(body) if data.draw(st.booleans()) else Inline(body)))
    # The last chunk may be missing, as after a cancel.
    chunks = chunks[: len(chunks) - data.draw(st.integers(0, 1))]
    found = EarlierItems(b"".join(_digest(value) for value in values), len(values), PLACE)
    found.add_computed(Mapped(len(values), ((0, len(values)),), ()), chunks, failed)
    return found


def _digest(value: int) -> bytes:
    item = nested.item_of(cloudpickle.dumps(value))
    return hashlib.sha256(len(item).to_bytes(8, "little") + item).digest()[:DIGEST_BYTES]


edits = st.lists(st.integers(0, 30), min_size=1, max_size=25)


@given(edits, edits, st.booleans(), st.data())
@settings(deadline=None)
def test_reused_and_computed_results_are_the_list(
    before: list[int], after: list[int], is_stored: bool, data: st.DataObject
) -> None:
    """In its order, for any edit of any list, whatever failed before; and for an edit of the edit."""
    cuts = data.draw(st.lists(st.integers(0, len(before)), max_size=4))
    failed = data.draw(st.sets(st.integers(0, len(before) - 1), max_size=3))
    blobs = Blobs()
    earlier = earlier_items(blobs, before, failed, cuts, data)
    with tempfile.TemporaryDirectory() as folder:
        once = asyncio.run(edited(blobs, earlier, after, os.path.join(folder, "one"), is_stored=is_stored))
        if once is None:
            return
        again = data.draw(st.permutations([*after, *before[:3]]))
        then = asyncio.run(edited(blobs, once, again, os.path.join(folder, "two"), is_stored=is_stored))
        assert then is not None


async def edited(blobs: Blobs, earlier: Any, values: list[int], folder: str, *, is_stored: bool) -> Any:
    """Reuse what an earlier map has, compute the rest, and check the list; returns the map as an earlier one."""
    os.makedirs(folder)
    engine: Any = blobs
    whole = list_file(os.path.join(folder, "list"), values)
    found_digests = item_digests.of_lists([whole], [])
    Path(folder, "digests").write_bytes(found_digests.data)
    plan = MapPlan(
        len(values),
        shares.shared(len(values), 3),
        {"x": whole},
        1,
        "raise",
        folder,
        os.path.join(folder, "digests"),
    )
    with _Gathering(engine, PLACE, plan) as gathering:
        await gathering.take(earlier, same_place=False)
    found = gathering.found()
    if found is None:
        return None
    reuse = found.reuse
    small = Path(reuse.small).read_bytes()
    sources: tuple[Ref, ...] = (Inline(small), *reuse.blobs)
    reused = ReusedItems(len(values), reuse.left, reuse.origin, sources, Inline(Path(reuse.table).read_bytes()))
    computed, chunks = None, list[Chunk]()
    if reuse.left:
        left = left_of(plan, reuse, {"x": is_stored})
        to_compute = values_of(left.lists["x"])
        assert to_compute == [values[i] for first, stop in reuse.left for i in range(first, stop)]
        assert left.length == len(to_compute)
        path = os.path.join(folder, "computed")
        with open(path, "w+b") as file:
            writer = ListWriter(file, len(to_compute))
            for number, value in enumerate(to_compute):
                body = body_of([result(value)])
                await writer.add(cast(Any, blobs), PLACE, number + 1, blobs.put(body))
            writer.close()
        chunks = writer.chunks or []
        computed = Computed(path, StoredList(tuple(chunk.body for chunk in chunks)))
    output = os.path.join(folder, "output")
    with open(output, "w+b") as file:
        whole_list, stored = await reused_items.write(engine, PLACE, reused, computed, file, folder)
    whole_list.check(output, len(values))
    assert unpickled(output) == [result(value) for value in values]
    assert stored is not None
    _check_handed_on(blobs, stored, values, folder)
    later = EarlierItems(found_digests.data, len(values), PLACE)
    later.add_reused(reused, item_tables.parse(cast(Inline, reused.table).data, len(values)))
    mapped = Mapped(len(values) - reused.reused_count, (), (), reused=reused)
    later.add_computed(mapped, chunks, set())
    assert all(later.usable)
    return later


def _check_handed_on(blobs: Blobs, stored: StoredList, values: list[int], folder: str) -> None:
    """A job that gets the list joins it from the parts that are stored."""
    given = _input_of(stored)
    paths: dict[Any, str] = {}
    for body in given.bodies:
        if isinstance(body, Blob):
            paths[body] = os.path.join(folder, body.sha256)
            Path(paths[body]).write_bytes(blobs.stored[body.sha256])
    item_sources.join(given, paths, os.path.join(folder, "joined"))
    assert pickle.loads(Path(folder, "joined").read_bytes()) == [result(value) for value in values]


def test_results_of_a_class_of_the_script_are_computed_again(tmp_path: Path) -> None:
    """In another run of the script it is another class."""

    class Point:
        pass

    blobs = Blobs()
    body = body_of([1, Point(), 2])
    earlier = EarlierItems(b"".join(map(_digest, (0, 1, 2))), 3, PLACE)
    earlier.add_computed(Mapped(3, ((0, 3),), ()), [Chunk(0, 3, blobs.put(body))], set())
    found = asyncio.run(earlier.in_chunk(cast(Any, blobs), 0, [0, 1, 2], str(tmp_path)))
    assert sorted(found) == [0, 2]


def test_chunks_that_are_gone_or_others_are_computed_again(tmp_path: Path) -> None:
    """A chunk with another number of results was not written by a job of ours."""
    blobs = Blobs()
    earlier = EarlierItems(b"".join(map(_digest, (0, 1, 2))), 3, PLACE)
    chunks = [Chunk(0, 2, blobs.put(body_of([1]))), Chunk(2, 3, Inline(b"nonsense"))]
    earlier.add_computed(Mapped(3, ((0, 3),), ()), chunks, set())
    assert asyncio.run(earlier.in_chunk(cast(Any, blobs), 0, [0, 1], str(tmp_path))) == {}
    assert asyncio.run(earlier.in_chunk(cast(Any, blobs), 1, [2], str(tmp_path))) == {}


def test_too_many_ranges_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The items between the nearest ones are computed, too."""
    monkeypatch.setattr(item_taking, "MAX_RUNS", 2)
    table = ResultTable(12)
    for item in (1, 2, 4, 7, 8, 9):
        table.set(item, 0, item, 1)
    assert item_taking._merged(table) == ((0, 7), (10, 12))


def test_a_part_of_a_body_in_a_document_is_all_that_the_document_has_of_it() -> None:
    """Of many small results."""
    given = _input_of(StoredList((Inline(b"abcdef"),), (SourcePart(0, 1, 2), SourcePart(0, 4, 1))))
    assert given == JoinedParts((BodyPart(Inline(b"bc"), 0, 2), BodyPart(Inline(b"e"), 0, 1)))
