"""Maps as a client makes them, and how the server knows them, shares their items and finds the bytes of each share."""

from __future__ import annotations

import base64
import io
import itertools
import os
import pickle
from pathlib import Path
from typing import Any

import cloudpickle
import covalent as ct
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import covalent_cirro
from covalent_cirro import CirroBatchExecutor, ElectronFailed, item, mapped
from covalent_cirro.contract import chunk_records, nested, tobj
from covalent_cirro.contract.chunk_records import ChunkName
from covalent_cirro.contract.failure_kinds import Failure
from covalent_cirro.contract.maps import (
    ITEM_FUNCTION,
    ITEM_VARIABLE,
    MAX_CHILDREN,
    Chunk,
    ItemFailure,
    ItemResults,
    Mapped,
    MappedArgument,
    Span,
)
from covalent_cirro.contract.places import Location, call_argument, location
from covalent_cirro.contract.protocol import Call, Log, NodeResult, Task
from covalent_cirro.contract.references import Blob, Inline
from covalent_cirro.electron.maps import map_tries, recognition, shares
from covalent_cirro.electron.maps.child_ends import ChildEnd, ChildEnds, MapTry, jobs_of
from covalent_cirro.electron.maps.joined import JoinedLists
from covalent_cirro.electron.maps.list_writer import ListWriter
from covalent_cirro.electron.maps.map_logs import LOG_BYTES, MapLog
from covalent_cirro.electron.maps.shares import BodyPart
from covalent_cirro.errors import NoSuchElectron, OutcomeError, SettingsError
from covalent_cirro.history.find import CallHistory, Electron
from covalent_cirro.history.map_items import job_of_item
from covalent_cirro.history.map_jobs import MapJob, ordered
from covalent_cirro.history.names import Wanted
from covalent_cirro.jobs.item_failures import ItemFailures, indexes
from covalent_cirro.jobs.map_progress import ItemCounts, JobItems, items_line, jobs_line, of_jobs, total, without_failed
from covalent_cirro.jobs.states import JobDetail, parse_job


def scaled(x: Any, factor: int = 1) -> Any:
    """A function of one item."""
    return x * factor


def _built(call: Any) -> Any:
    """The graph of a lattice that makes one call."""
    lattice = ct.lattice(call)
    lattice.build_graph()
    return lattice.transport_graph


def _nodes(graph: Any) -> dict[int, str]:
    return {node: graph.get_node_value(node, "name") for node in graph._graph.nodes}


# --- what a person writes ---------------------------------------------------------------------------------------------


def test_a_mapped_function_loops_over_a_list() -> None:
    """Shared arguments are the same for each item; the order is that of the list."""
    assert mapped("x")(scaled)([1, 2, 3], 10) == [10, 20, 30]
    assert mapped("x", "factor")(scaled)([1, 2, 3], factor=[1, 2, 3]) == [1, 4, 9]


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array])
def test_items_come_from_every_kind_of_list(kind: Any) -> None:
    """Lists, tuples, iterators and arrays, inside a lattice and outside; and ranges."""
    assert mapped("x")(scaled)(kind([1, 2])) == [1, 2]
    assert mapped("x")(scaled)(range(1, 3)) == [1, 2]


def test_an_array_has_the_items_of_its_first_axis() -> None:
    """As a loop over it has."""
    (first, _) = mapped("x")(scaled)(np.arange(6).reshape(2, 3))
    assert first.tolist() == [0, 1, 2]


def test_no_items_are_an_empty_list() -> None:
    """The function is not called."""
    assert mapped("x")(scaled)([]) == []


def test_an_electron_is_mapped_on_any_executor() -> None:
    """Called outside a lattice, it is the same loop."""
    assert mapped("x")(ct.electron(scaled, executor="local"))([1, 2], factor=3) == [3, 6]


@pytest.mark.parametrize("value", [{"a": 1}, "text", b"bytes", {1}, 5, None], ids=repr)
def test_what_is_no_list_is_refused(value: Any) -> None:
    """With the name of the parameter."""
    with pytest.raises(TypeError, match=r"x is mapped, so that it must be a list"):
        mapped("x")(scaled)(value)


def test_lists_of_different_lengths_are_refused() -> None:
    """Before a graph is made, with the names and lengths."""
    electron = mapped("x", "factor")(ct.electron(scaled))
    with pytest.raises(ValueError, match="x has 2, factor has 1"):
        _built(lambda: electron([1, 2], [3]))
    with pytest.raises(ValueError, match="x has 2, factor has 1"):
        electron([1, 2], [3])


def test_names_that_cannot_be_mapped_are_refused() -> None:
    """Where the electron is written."""

    def positional(x: int, /, *rest: int, **more: int) -> None: ...

    def several(x: int, *rest: int, y: int = 0) -> None: ...

    for names, function in (
        (("unknown",), scaled),
        (("x",), positional),
        (("rest",), positional),
        (("x",), several),
        (("x", "x"), scaled),
        ((), scaled),
        (("x",), ct.lattice(scaled)),
        (("x",), mapped("x")(scaled)),
    ):
        with pytest.raises(SettingsError):
            mapped(*names)(function)
    assert mapped("y")(several)(1, y=[1, 2]) == [None, None]


def test_a_mapped_argument_that_is_not_given_is_refused() -> None:
    """Although the function of one item has a default."""
    with pytest.raises(TypeError, match="mapped over factor, which it was not called with"):
        mapped("factor")(scaled)(1)


def test_an_item_knows_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a map; outside, `item` says how to use it."""
    assert mapped("x")(lambda x: tuple(item()))(["a", "b"]) == [(0, 2), (1, 2)]
    with pytest.raises(SettingsError, match="@mapped"):
        item()
    monkeypatch.setenv(ITEM_VARIABLE, "7/10")
    assert (item().index, item().length) == (7, 10)


def test_all_items_are_computed_before_a_map_fails() -> None:
    """The error has a table, and the first traceback."""
    seen = []

    def half(x: int) -> float:
        seen.append(x)
        return 1 / x

    with pytest.raises(ElectronFailed) as caught:
        mapped("x")(half)([1, 0, 2, 0])
    assert seen == [1, 0, 2, 0]
    assert "2 of 4 items failed; item 1 with ZeroDivisionError" in str(caught.value)
    assert "in half" in str(caught.value)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_on_error_counts_outside_a_lattice_too() -> None:
    """As the electron's executor has it."""

    def electron(on_error: str) -> Any:
        executor = CirroBatchExecutor(on_error=on_error)
        return mapped("x")(ct.electron(lambda x: 1 / x, executor=executor))

    first, second, third = electron("return")([1, 0, 2])
    assert (first, third) == (1, 0.5)
    assert isinstance(second, ElectronFailed)
    with pytest.raises(ElectronFailed, match="1 of 3 items"):
        electron("stop")([1, 0, 0])


def test_it_is_imported_when_it_is_needed() -> None:
    """`import covalent_cirro` imports nothing."""
    assert {"mapped", "item"} <= set(dir(covalent_cirro))


# --- what Covalent gets -----------------------------------------------------------------------------------------------


def test_a_list_is_one_node_of_the_graph() -> None:
    """However many items it has; Covalent would make a node for each, and one for the list."""
    electron = mapped("x")(ct.electron(scaled))
    graph = _built(lambda: electron(range(1000), factor=2))
    assert list(_nodes(graph).values())[:3] == ["scaled", ":parameter:1000 items", ":parameter:2"]


def test_an_item_is_given_by_name() -> None:
    """And so is all that follows it: a job gives items by name."""
    electron = mapped("factor")(ct.electron(lambda a, factor, b: 0))
    graph = _built(lambda: electron(1, [2], 3))
    edges = {data["edge_name"]: data["param_type"] for _, to, data in graph._graph.edges(data=True) if to == 0}
    assert edges == {"a": "arg", "factor": "kwarg", "b": "kwarg"}


def test_the_output_of_an_electron_passes_through() -> None:
    """Its items are known when it has run."""
    electron = mapped("x")(ct.electron(scaled))
    load = ct.electron(lambda: [1, 2])
    assert [name for name in _nodes(_built(lambda: electron(load()))).values() if "items" in name] == []
    assert ":electron_list:" in _nodes(_built(lambda: electron([load(), load()]))).values()


def test_a_list_unpickles_as_a_list_everywhere() -> None:
    """It is a pickle of pickles, which can be cut."""
    electron = mapped("x")(ct.electron(scaled))
    graph = _built(lambda: electron([1, "two", {"three": 3}]))
    pickled = base64.b64decode(graph.get_node_value(1, "value").get_serialized())
    assert pickle.loads(pickled) == [1, "two", {"three": 3}]
    assert len(nested.item_ends(io.BytesIO(pickled)) or ()) == 3


# --- what the server knows of it --------------------------------------------------------------------------------------


@given(st.lists(st.from_regex(r"p_[a-z_]{1,90}", fullmatch=True), min_size=1, max_size=5, unique=True))
@settings(deadline=None)
def test_the_server_knows_a_map_by_its_pickle(names: list[str]) -> None:
    """The names are read, and nothing is unpickled."""
    parameters = ", ".join(names)
    function = eval(f"lambda {parameters}: 0")
    pickled = cloudpickle.dumps(mapped(*names)(function))
    assert recognition.names_in(pickled) == tuple(names)
    assert getattr(pickle.loads(pickled), ITEM_FUNCTION)(*range(len(names))) == 0


@pytest.mark.parametrize(
    "other", [scaled, lambda: "covalent_cirro.item_maps", ("covalent_cirro.item_maps", "MappedFunction", "x"), 5]
)
def test_other_functions_are_no_maps(other: Any) -> None:
    """Also with the words in them."""
    assert recognition.names_in(cloudpickle.dumps(other)) == ()


@given(st.integers(1, 30_000), st.none() | st.integers(1, MAX_CHILDREN))
def test_items_are_shared_evenly(length: int, array_size: int | None) -> None:
    """Each job has some, all items are computed once, and the shares differ by one at most."""
    ranges = shares.shared(length, array_size)
    assert len(ranges) == min(length, array_size or MAX_CHILDREN)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == length
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ranges))
    assert {stop - first for first, stop in ranges} <= {length // len(ranges), -(-length // len(ranges))}


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(1, 10), st.data())
def test_the_spans_of_a_share_are_its_bytes(sizes: list[int], jobs: int, data: st.DataObject) -> None:
    """However the body of the list lies in the sources."""
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    body = os.urandom(ends[-1])
    cuts = sorted({0, ends[-1], *data.draw(st.lists(st.integers(0, ends[-1]), max_size=5))})
    sources = [b"head" * i + body[a:b] for i, (a, b) in enumerate(itertools.pairwise(cuts))]
    parts = [BodyPart(i, 4 * i, b - a) for i, (a, b) in enumerate(itertools.pairwise(cuts))]
    ranges = shares.shared(len(sizes), jobs)
    found = [
        b"".join(sources[each.source][each.offset : each.offset + each.size] for each in spans)
        for spans in shares.spans(ranges, ends, parts)
    ]
    assert found == [body[ends[first - 1] if first else 0 : ends[stop - 1]] for first, stop in ranges]


@given(st.lists(st.lists(st.integers(), max_size=2) | st.text() | st.none(), max_size=20))
def test_items_end_where_their_bytes_end(values: list[Any]) -> None:
    """Each is a list of one item by itself."""
    body = [nested.item_of(pickle.dumps(value)) for value in values]
    whole = nested.LIST_HEAD + b"".join(body) + nested.LIST_TAIL
    ends = nested.item_ends(io.BytesIO(whole))
    assert ends == [len(b"".join(body[: i + 1])) for i in range(len(values))]
    assert pickle.loads(whole) == values


@pytest.mark.parametrize("other", [pickle.dumps([1, 2]), b"", b"\x80\x04", nested.PRELUDE + b"}.", nested.LIST_HEAD])
def test_other_pickles_have_no_items(other: bytes) -> None:
    """Those must be opened."""
    assert nested.item_ends(io.BytesIO(other)) is None


# --- results ----------------------------------------------------------------------------------------------------------


def _body(*values: Any) -> Inline:
    return Inline(b"".join(nested.item_of(pickle.dumps(value)) for value in values))


async def _written(path: Path, length: int, *bodies: tuple[int, Inline]) -> ListWriter:
    with open(path, "w+b") as file:
        writer = ListWriter(file, length)
        for stop, body in bodies:
            await writer.add(None, None, stop, body)  # type: ignore[arg-type]  # asked for blobs only
        writer.close()
    return writer


async def test_bodies_become_a_list(tmp_path: Path) -> None:
    """That Covalent reads as it reads any result."""
    path = tmp_path / "results.tobj"
    writer = await _written(path, 3, (2, _body(1, "two")), (3, _body([3])))
    writer.check(str(path), 3)
    read = ct.TransportableObject.deserialize(path.read_bytes())
    assert read.get_deserialized() == [1, "two", [3]]
    assert read.object_string == "[3 results]"
    with open(path, "rb") as file:
        assert tobj.read_header(file).fields["attrs"]["name"] == ""


@pytest.mark.parametrize("bodies", [[(2, _body(1))], [(1, _body(1, 2)), (2, _body())], [(2, Inline(b"no body"))]])
async def test_a_list_with_other_results_is_refused(tmp_path: Path, bodies: list[tuple[int, Inline]]) -> None:
    """A result must not be taken for that of another item."""
    path = tmp_path / "results.tobj"
    writer = await _written(path, 2, *bodies)
    with pytest.raises(OutcomeError, match="not stored one result for each item"):
        writer.check(str(path), 2)


def test_joined_lists_are_known_by_their_files(tmp_path: Path) -> None:
    """Until somebody writes the file, or for a day."""
    path, now = tmp_path / "list", [0.0]
    lists = JoinedLists(lambda: now[0])
    path.write_bytes(b"one")
    bodies = (Blob("0" * 64, 3, "raw", 3),)
    lists.remember(str(path), bodies, "bucket", "prefix/")
    assert lists.find(str(path), "bucket", "prefix/") == bodies
    assert lists.find(str(path), "other", "prefix/") is None
    now[0] = 100_000.0
    assert lists.find(str(path), "bucket", "prefix/") is None
    path.write_bytes(b"other")
    assert lists.find(str(path), "bucket", "prefix/") is None


def test_equal_errors_are_told_once() -> None:
    """With how often and where; the first traceback is whole."""
    failures = ItemFailures()
    failures.add([3], "ValueError: no\nmore", "Traceback: three")
    failures.add(range(5, 9), "KeyError: 'x'", "Traceback: five")
    failures.add([11], "ValueError: no")
    assert failures.told(20) == "6 of 20 items failed; item 3 with ValueError: no"
    lines = failures.table().splitlines()
    assert lines[1].split() == ["4", "5-8", "KeyError:", "'x'"]
    assert lines[2].split() == ["2", "3,", "11", "ValueError:", "no"]
    assert failures.whole(20).endswith("Item 3:\nTraceback: three")


def test_many_indexes_are_told_in_a_few_words() -> None:
    """Ranges first."""
    assert indexes([1, 2, 3, 7]) == "1-3, 7"
    assert indexes(range(0, 40, 2)) == "0, 2, 4, 6, 8, 10 and 14 more"


# --- array jobs -------------------------------------------------------------------------------------------------------


def test_an_array_job_is_read() -> None:
    """Its size and its jobs by state; a child has neither."""
    summary = {"RUNNING": 2, "SUCCEEDED": 1, "FAILED": 0}
    parent = parse_job({"jobId": "a", "status": "PENDING", "arrayProperties": {"size": 3, "statusSummary": summary}})
    assert (parent.array_size, parent.children_in("RUNNING", "SUCCEEDED"), parent.has_begun) == (3, 3, True)
    assert jobs_line(parent) == "3: 2 RUNNING, 1 SUCCEEDED"
    child = parse_job({"jobId": "a:1", "status": "RUNNING", "arrayProperties": {"index": 1}})
    assert (child.array_size, child.array_states, jobs_line(child)) == (0, (), "")
    assert jobs_line(JobDetail("a")) == ""


def test_progress_is_told_in_a_line() -> None:
    """With the rate and the time that is left."""
    assert items_line(ItemCounts(100, 0, 0, 50.0), 40.0) == "0 of 100 done"
    assert items_line(ItemCounts(100, 20, 1, 50.0), 40.0) == "20 of 100 done, 1 failed, 2 a second, 40 s left"
    assert items_line(ItemCounts(100, 100, 0, 640.0), 40.0) == "100 of 100 done, 10 a minute"
    ended = ItemCounts(100, 90, 2, 640.0, over=True)
    assert items_line(ended, None) == "90 of 100 done, 2 failed, 10 without a result"
    assert ended.without_result == 12


def _printed(text: str) -> NodeResult:
    return NodeResult(3, None, None, Log(len(text.encode()), (), text), Log(), items=ItemResults(()))


def test_the_log_of_a_map_tells_whose_it_is() -> None:
    """Jobs in which an item failed are first; what is too much can be read by a command."""
    log = MapLog("stdout")
    jobs = jobs_of([_try(PLACE, (0, 1), (1, 4), (4, 8), (8, 10))])
    log.add(jobs[0], _printed("one"), failed=False)
    log.add(jobs[1], _printed("three\n"), failed=True)
    log.add(jobs[2], _printed("x" * LOG_BYTES), failed=False)
    log.add(jobs[3], _printed(""), failed=False)
    assert log.text("d:3").splitlines() == [
        "--- items 1-3 (job 1) ---",
        "three",
        "--- item 0 (job 0) ---",
        "one",
        "--- of 1 more jobs: cirro logs 'd:3[ITEM]' ---",
    ]


# --- further tries ----------------------------------------------------------------------------------------------------

PLACE = location("bucket", "cirro/", "d", 3, "0123456789ab00000000")


def _try(place: Location, *children: tuple[int, int]) -> MapTry:
    return MapTry(place, Mapped(10, children, ()), "job", None)


def test_a_further_try_computes_what_is_left() -> None:
    """Results of the first try end where those of the further one begin."""
    first, second = PLACE, PLACE.sibling("0123456789ab00000001")
    jobs = jobs_of([_try(first, (0, 4), (4, 8), (8, 10)), _try(second, (2, 4), (8, 10))])
    assert [(job.place.call_id, job.first, job.until) for job in jobs] == [
        (first.call_id, 0, 2),
        (second.call_id, 2, 4),
        (first.call_id, 4, 8),
        (first.call_id, 8, 8),
        (second.call_id, 8, 10),
    ]
    assert [job.job_id for job in jobs] == ["job:0", "job:0", "job:1", "job:2", "job:1"]


def test_a_further_try_of_one_job_is_no_array() -> None:
    """And a third try counts more than a second."""
    places = [PLACE.sibling(f"0123456789ab0000000{i}") for i in range(3)]
    jobs = jobs_of([_try(places[0], (0, 5), (5, 10)), _try(places[1], (5, 10)), _try(places[2], (7, 10))])
    assert [(job.place.call_id[-1], job.first, job.until) for job in jobs] == [
        ("0", 0, 5),
        ("0", 5, 5),
        ("1", 5, 7),
        ("2", 7, 10),
    ]
    assert jobs[-1].place == places[2]


async def test_the_items_that_are_left_are_cut_without_opening_them() -> None:
    """From inline sources, and from ranges of blobs."""
    body = _body("a", "bb", "ccc", "dddd").data
    blob = Blob("0" * 64, 5 + len(body), "raw", 5 + len(body))

    class Bytes:
        async def read_range(self, of: Blob, bucket: str, prefix: str, offset: int, size: int) -> bytes:
            assert of is blob
            return (b"12345" + body)[offset : offset + size]

    engine: Any = type("Engine", (), {"store": Bytes()})
    for source, at in ((Inline(b"123" + body), 3), (blob, 5)):
        half = len(_body("a", "bb").data)
        spans = (Span(0, at, half), Span(0, at + half, len(body) - half))
        argument = MappedArgument("x", (source,), (spans,))
        for done in range(4):
            left = await map_tries._cut(engine, PLACE, argument, spans, done)
            assert left is not None
            whole = b"12345"[:at] + body
            found = b"".join(whole[span.offset : span.offset + span.size] for span in left)
            assert found == _body(*["a", "bb", "ccc", "dddd"][done:]).data


class Objects:
    """The store, as far as it lists and reads documents."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def list_keys(self, bucket: str, prefix: str) -> list[tuple[str, None]]:
        return [(key, None) for key in sorted(self.objects) if key.startswith(prefix)]

    async def get_document(self, bucket: str, key: str, limit: int) -> bytes | None:
        return self.objects.get(key)


async def test_a_job_that_left_no_outcome_has_what_its_records_say() -> None:
    """Its host was lost in all attempts: what it had computed is not computed again, and is the job's own."""
    store, mac_key = Objects(), "0" * 32
    engine: Any = type("Engine", (), {"store": store, "batch": None})
    parent = JobDetail("job", state="FAILED", argument=call_argument(PLACE, mac_key), array_size=2)
    mapped_call = Mapped(10, ((0, 5), (5, 10)), ())
    (_, job) = jobs_of([MapTry(PLACE, mapped_call, "job", parent)])
    for begin, stop, key in ((0, 2, mac_key), (2, 3, mac_key), (3, 5, "1" * 32)):
        failures = (ItemFailure(5 + begin, Failure("raised", "no")),) if begin == 2 else ()
        items = ItemResults(
            (Chunk(5 + begin, 5 + stop, _body(*range(begin, stop))),), failures, (1.0,) * (stop - begin)
        )
        name = ChunkName(1, begin, stop, len(failures)).name
        store.objects[job.place.chunk_key(name)] = chunk_records.dump(job.place, items, key)
    ends = ChildEnds(engine, [job])
    child = ChildEnd(job, None, await ends._from_records(job, None), None, "", {})
    assert child.done == 8
    assert [each.item for each in child.failures] == [7]
    assert not child.is_complete


# --- progress ---------------------------------------------------------------------------------------------------------


def test_items_are_counted_by_the_names_of_what_jobs_stored() -> None:
    """Records while a job runs, and its outcome if it has no record."""
    mapped_call = Mapped(10, ((0, 4), (4, 8), (8, 10)), ())
    keys = [
        PLACE.child(0).chunk_key(ChunkName(1, 0, 2, 1).name),
        PLACE.child(0).chunk_key(ChunkName(1, 2, 3, 1).name),
        PLACE.child(1).outcome_key,
        PLACE.child(2).chunk_key("something else"),
        PLACE.child(7).outcome_key,
        PLACE.call_key,
    ]
    assert total([of_jobs(keys, PLACE, mapped_call)], 10, 5.0) == ItemCounts(10, 7, 1, 5.0)
    alone = Mapped(10, ((5, 10),), ())
    keys = [PLACE.chunk_key(ChunkName(1, 0, 2, 0).name)]
    assert total([of_jobs(keys, PLACE, alone)], 10, 5.0) == ItemCounts(10, 7, 0, 5.0)


def test_items_of_all_tries_are_counted_once() -> None:
    """A further try has the items of a job that have no result; what failed by itself stays failed."""
    first = [JobItems(0, 0, 4, 4, 2, True), JobItems(1, 4, 8, 1, 1, True), JobItems(2, 8, 10, 0, 0, True)]
    second = [JobItems(0, 5, 8, 2, 1, True), JobItems(1, 8, 10, 2, 0, True)]
    assert total([first], 10, 5.0) == ItemCounts(10, 5, 3, 5.0)
    assert total([first, second], 10, 5.0, over=True) == ItemCounts(10, 9, 4, 5.0, over=True)
    assert total([second], 10, 5.0) == ItemCounts(10, 9, 1, 5.0), "items of no job were done before"


def test_a_job_that_failed_as_a_whole_has_computed_nothing() -> None:
    """It stores an outcome alone, as a short job does that has computed all; AWS Batch tells them apart."""
    jobs = [JobItems(0, 0, 4, 4, 0, True), JobItems(1, 4, 8, 4, 0, True), JobItems(2, 8, 10, 2, 1, True)]
    assert [job.done for job in without_failed(jobs, {1, 2})] == [4, 0, 2]


def test_an_item_is_found_in_its_newest_try() -> None:
    """What a further try does not have is in the earlier one; what there is not is told with what there is."""

    def call(place: Location, *children: tuple[int, int]) -> CallHistory:
        task = Task(3, "train", Inline(b""), None, (), {}, mapped=Mapped(10, children, ()))
        made = Call(place.call_id, "d", "3.11.7", "3.1.2", "0.240.0", (task,))
        return CallHistory(place, made, None, "", (), ())

    first, again = call(PLACE, (0, 5), (5, 10)), call(PLACE.sibling("0123456789ac00000000"), (7, 10))
    electron = Electron("d", 3, (first, again))
    assert [job_of_item(electron, Wanted("d", 3, item))[::2] for item in (0, 6, 8)] == [
        (first, 0),
        (first, 1),
        (again, 0),
    ]
    with pytest.raises(NoSuchElectron, match="has no item 10: its items are 0 to 9"):
        job_of_item(electron, Wanted("d", 3, 10))
    with pytest.raises(NoSuchElectron, match="is not there any more"):
        job_of_item(Electron("d", 3, (first._replace(call=None),)), Wanted("d", 3, 0))


def test_jobs_that_failed_are_seen_first_and_then_the_slowest() -> None:
    """The slowest is the one that will run longest at its rate, not the one that has just begun."""

    def job(number: int, state: str, done: int, failed: int, ran_s: float) -> MapJob:
        return MapJob(f"j:{number}", state, 10 * number, 10 * number + 10, done, failed, 0.0, ran_s, "")

    jobs = [
        job(0, "RUNNING", 5, 0, 100.0),
        job(1, "RUNNING", 0, 0, 1.0),
        job(2, "SUCCEEDED", 10, 3, 50.0),
        job(3, "RUNNING", 1, 0, 90.0),
        job(4, "FAILED", 0, 0, 5.0),
    ]
    assert [each.job_id for each in ordered(jobs)] == ["j:4", "j:2", "j:3", "j:0", "j:1"]
