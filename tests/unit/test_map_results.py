"""Results of items: lists that are cut and joined, records of results, and what an outcome has room for."""

from __future__ import annotations

import io
import itertools
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.contract import chunk_records, documents, limits, maps, nested, places
from covalent_cirro.contract.chunk_records import ChunkName
from covalent_cirro.contract.failed_pickle import CLASS, NONE, pickle_of_failed
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.maps import Chunk, ItemFailure, ItemResults, Mapped, MappedArgument, Span
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import Log, NodeResult, Outcome, Usage
from covalent_cirro.contract.references import Blob, Inline
from covalent_cirro.errors import ElectronFailed
from covalent_cirro.runner import item_sources
from covalent_cirro.runner.item_chunks import chain, ranges

KEY = "0123456789abcdef" * 2
PLACE = places.location("b", "p/", "dispatch", 3, "018f5e2b7c00c0ffee01")

values = st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=2))


def body_of(items: list[Any]) -> tuple[bytes, list[int]]:
    """The body of a list, and where each item begins, and the end."""
    body, at = io.BytesIO(), [0]
    for item in items:
        data = pickle.dumps(item)
        nested.append_item(body, lambda file, data=data: file.write(data))  # type: ignore[misc]
        at.append(body.tell())
    return body.getvalue(), at


def list_of(body: bytes) -> Any:
    """The list of a body, as anything that unpickles has it."""
    return pickle.loads(nested.LIST_HEAD + body + nested.LIST_TAIL)


# --- lists ------------------------------------------------------------------------------------------------------------


@given(st.lists(values, max_size=8), st.lists(values, max_size=8))
def test_bodies_that_are_joined_are_the_body_of_both_lists(one: list[Any], other: list[Any]) -> None:
    """Without unpickling an item."""
    assert list_of(body_of(one)[0] + body_of(other)[0]) == one + other


@given(st.data(), st.lists(values, min_size=1, max_size=8))
def test_a_body_that_is_cut_between_items_is_two_lists(data: st.DataObject, items: list[Any]) -> None:
    """And the structure of both can be read."""
    cut = data.draw(st.integers(0, len(items)))
    body, at = body_of(items)
    assert list_of(body[: at[cut]]) == items[:cut]
    assert list_of(body[at[cut] :]) == items[cut:]
    structure = nested.read(io.BytesIO(nested.LIST_HEAD + body[: at[cut]] + nested.LIST_TAIL))
    assert isinstance(structure, list)
    assert len(structure) == cut


@given(st.lists(values, min_size=1, max_size=5), st.binary(min_size=1, max_size=20))
def test_padding_changes_bytes_and_no_value(items: list[Any], padding: bytes) -> None:
    """So that a body whose name is taken gets another one."""
    body, at = body_of(items)
    file = io.BytesIO(body)
    nested.pad(file, at[-2], padding)
    assert len(file.getvalue()) == len(body) + len(padding)
    assert list_of(file.getvalue()) == items


def test_an_item_that_cannot_be_written_leaves_the_body_as_it_was() -> None:
    """The next item follows the one before it."""
    body, _ = body_of([1])
    file = io.BytesIO(body)
    file.seek(0, io.SEEK_END)

    def half(to: Any) -> None:
        to.write(b"half")
        raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        nested.append_item(file, half)
    assert file.getvalue() == body


@given(st.lists(values, min_size=1, max_size=12), st.data())
def test_spans_of_all_jobs_together_are_the_list(items: list[Any], data: st.DataObject) -> None:
    """Each job cuts its own items out of several sources; adjacent spans are one."""
    cuts = sorted(data.draw(st.sets(st.integers(0, len(items)))) | {0, len(items)})
    body, at = body_of(items)
    spans = [Span(0, at[i], at[i + 1] - at[i]) for i in range(len(items))]
    found = []
    for first, stop in itertools.pairwise(cuts):
        joined = item_sources.joined(spans[first:stop])
        assert len(joined) == 1
        found += list_of(body[joined[0].offset : joined[0].offset + joined[0].size])
    assert found == items


def test_inline_items_are_cut_without_s3(tmp_path: Any) -> None:
    """Several spans of several sources, in their order."""
    (one, at), (other, _) = body_of([1, 2, 3]), body_of([4])
    spans = (Span(0, at[1], at[2] - at[1]), Span(1, 0, len(other)), Span(0, 0, at[1]))
    argument = MappedArgument("x", (Inline(one), Inline(other)), (spans,))
    paths = item_sources.fetch(None, PLACE, Mapped(3, ((0, 3),), (argument,)), 0, str(tmp_path), lambda _: None)  # type: ignore[arg-type,return-value]
    with open(paths["x"], "rb") as file:
        assert pickle.load(file) == [2, 4, 1]


def test_placeholders_are_what_they_say() -> None:
    """They are written by hand; the class is where the pickle says."""
    assert pickle.loads(NONE) is None
    found = pickle.loads(pickle_of_failed("no\udc80 luck"))
    assert type(found) is ElectronFailed
    assert str(found) == "no\udc80 luck"
    assert (ElectronFailed.__module__, ElectronFailed.__qualname__) == CLASS


# --- records ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 99), st.integers(0, 99_999), st.integers(1, 99), st.integers(0, 50))
def test_the_name_of_a_record_comes_back(attempt: int, before: int, count: int, failed: int) -> None:
    """Attempt, items before it, items with it, items that failed."""
    name = ChunkName(attempt, before, before + count, min(failed, before + count))
    assert chunk_records.parse_name(name.name) == name


@pytest.mark.parametrize(
    "name", ["", "01-000000-000000-000000.json", "01-000000-000005-000006.json", "../call.json", "1-0-5-0.json"]
)
def test_other_names_are_no_records(name: str) -> None:
    """A job may put any object there."""
    assert chunk_records.parse_name(name) is None


def test_the_furthest_record_tells_the_progress() -> None:
    """Of whichever attempt; names of other objects do not count."""
    names = [ChunkName(1, 0, 5, 0).name, ChunkName(1, 5, 9, 2).name, ChunkName(2, 5, 7, 1).name, "x"]
    assert chunk_records.furthest(names) == ChunkName(1, 5, 9, 2)
    assert chunk_records.furthest(["x"]) is None


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 6), st.integers(1, 4)), max_size=12))
def test_a_chain_of_records_reaches_as_far_as_any(drawn: list[tuple[int, int, int]]) -> None:
    """Without gaps from the first item on, however the records of several attempts overlap."""
    names = {ChunkName(attempt, before, before + count, 0) for attempt, before, count in drawn}
    reached = {0}
    for _ in names:
        reached |= {name.done for name in names if name.before in reached}
    found = chain(names)
    assert [name.before for name in found] == [0, *(name.done for name in found)][: len(found)]
    assert (found[-1].done if found else 0) == max(reached)


RESULTS = ItemResults(
    (Chunk(5, 7, Inline(b"body")),), (ItemFailure(6, Failure(Kind.RAISED, "ValueError", "Traceback")),), (0.5, 1.25)
)


def test_a_record_comes_back() -> None:
    """With failures and seconds."""
    child = PLACE.child(2)
    assert chunk_records.parse(chunk_records.dump(child, RESULTS, KEY), child, KEY) == RESULTS


@pytest.mark.parametrize("place", [PLACE, PLACE.child(3), PLACE.sibling("018f5e2b7c00c0ffee02").child(2)])
def test_a_record_of_another_job_is_refused(place: places.Location) -> None:
    """All children of a call have one key."""
    with pytest.raises(ProtocolError, match="another job"):
        chunk_records.parse(chunk_records.dump(PLACE.child(2), RESULTS, KEY), place, KEY)


def test_a_record_that_was_changed_is_refused() -> None:
    """Any job may write there, and does not know the key."""
    data = chunk_records.dump(PLACE, RESULTS, KEY)
    for changed in (
        data.replace(b"1.25", b"9.25"),
        data[:-1],
        b"",
        b"\n",
        chunk_records.dump(PLACE, RESULTS, "0" * 32),
    ):
        with pytest.raises(ProtocolError):
            chunk_records.parse(changed, PLACE, KEY)


# --- limits -----------------------------------------------------------------------------------------------------------


def outcome_of(items: ItemResults, text: str) -> Outcome:
    """An outcome with a long log and these results."""
    log = Log(10**9, tuple(f"01/stdout.{i:06d}" for i in range(3000)), text * limits.LOG_TAIL_BYTES)
    err = log._replace(parts=tuple(f"01/stderr.{i:06d}" for i in range(3000)))
    failure = Failure(Kind.ITEMS, text * 3000, text * 50_000)
    result = NodeResult(3, None, failure, log, err, items)
    return Outcome(PLACE.call_id, 1, "job:1", (result,), Usage(), "3.11.7", "3.1.0", {}, {})


@pytest.mark.parametrize("text", ["x", "\1", "\N{SNOWMAN}"])
def test_an_outcome_has_room_for_all_items_of_a_job(text: str) -> None:
    """A hundred thousand, of which each second one failed with long texts, in as many chunks as there can be."""
    count, chunks = maps.MAX_CHILD_ITEMS, maps.MAX_CHUNKS
    failed = range(0, count, 2)
    failure = Failure(Kind.MISSING_MODULE, text * 3000, text * 40_000, module=text * 200)
    items = ItemResults(
        tuple(
            Chunk(i * count // chunks, (i + 1) * count // chunks, Blob("0" * 64, 2**40, "raw", 2**40))
            for i in range(chunks)
        ),
        tuple(ItemFailure(item, failure) for item in failed[: maps.MAX_FAILURES_TOLD]),
        tuple(86400.123 for _ in range(count)),
        ranges(failed[maps.MAX_FAILURES_TOLD :]),
    )
    data = documents.dump_outcome(outcome_of(items, text), KEY)
    assert len(data) < limits.MAX_OUTCOME_BYTES
    [result] = documents.parse_outcome(data).results
    assert result.items is not None
    assert result.items.failed == list(failed)
    assert result.items.failed_count == count // 2
    assert len(result.items.seconds) == count
    record = chunk_records.dump(PLACE, items._replace(chunks=items.chunks[:1]), KEY)
    assert chunk_records.parse(record, PLACE, KEY).failed_count == count // 2


def changed(**fields: Any) -> dict[str, Any]:
    """The JSON of results, with other values."""
    return {**documents.dump_items(RESULTS), **fields}


@pytest.mark.parametrize(
    "fields",
    [
        {"chunks": [{"first": 5, "stop": 5, "body": {"inline": ""}}]},
        {"chunks": [{"first": 5, "stop": maps.MAX_ITEMS + 1, "body": {"inline": ""}}]},
        {"chunks": [{"first": 0, "stop": 1, "body": {"inline": "A" * 40_000}}]},
        {"chunks": [{"first": 0, "stop": 1, "body": {"sha256": "../" * 10, "size": 1, "codec": "raw", "raw_size": 1}}]},
        {"failures": [{"item": 6, "failure": {"kind": "raised", "message": ""}}] * 2},
        {"failures": [{"item": 6, "failure": {"kind": "odd", "message": ""}}]},
        {"more_failures": [[9, 7]]},
        {"more_failures": [[7, 9], [5, 6]]},
        {"more_failures": [[0, 10**15]]},
        {"more_failures": [[0, 1, 2]]},
        {"seconds": [-1]},
        {"seconds": [float("nan")]},
        {"seconds": [0] * (maps.MAX_CHILD_ITEMS + 1)},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_results_that_no_runner_writes_are_refused(fields: dict[str, Any]) -> None:
    """Any job may have written them."""
    with pytest.raises(ProtocolError):
        documents.parse_items(changed(**fields), "outcome.json.results[0].items")


def test_a_call_asks_no_job_for_more_items_than_an_outcome_has_room_for() -> None:
    """The server shares them over more jobs."""
    count = maps.MAX_CHILD_ITEMS + 1
    with pytest.raises(ProtocolError, match="more than 100000 items"):
        Mapped(count, ((0, count),), (MappedArgument("x", (), ((),)),)).check("mapped", None)
