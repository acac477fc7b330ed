"""What a job may write in the place of its outcome: nothing of it stops a reader, fills a disk or reaches beyond it."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.aws.store import Store
from covalent_cirro.contract import documents, limits, maps
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.limits import INLINE_BYTES, LOG_TAIL_BYTES, MAX_DOCUMENT_BYTES
from covalent_cirro.contract.maps import Chunk, ItemFailure, ItemResults
from covalent_cirro.contract.places import Location, location
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import Log, NodeResult, Outcome, Output, Reused, ReusedNode, Usage
from covalent_cirro.contract.references import Inline
from covalent_cirro.electron import result_writer as results
from covalent_cirro.errors import OutcomeError, TooLarge
from covalent_cirro.jobs.authentic_outcomes import outcome_of
from covalent_cirro.jobs.states import JobDetail

HUGE = int("9" * 400)

SECONDS = 2.0
"""Within this anything is refused on one core of a busy machine; a million entries once took ten times as long."""


def an_outcome() -> dict[str, Any]:
    """A well-formed outcome, as JSON."""
    gpu = {"name": "A10G", "memory_bytes": 24, "peak_memory_bytes": 12, "utilization": 50.5}
    log = Log(70_000, ("01/stdout.000000", "01/stdout.000001"), "end")
    failure = Failure(Kind.EXITED, "it ended", "Traceback", exit_code=3)
    items = ItemResults((Chunk(0, 9, Inline(b"b")),), (ItemFailure(2, failure),), (0.5,) * 2, ((3, 5), (6, 9)))
    results = (
        NodeResult(3, Output(Inline(b"p"), Inline(b"s"), "n", "d"), None, log, Log()),
        NodeResult(4, None, failure, Log(), Log()),
        NodeResult(5, None, None, Log(), Log(), items),
    )
    usage = Usage(1.0, 2.0, 3, 4, (gpu,), 0)
    outcome = Outcome(
        "018f5e2b7c00c0ffee01",
        1,
        "j",
        results,
        usage,
        "3.11.7",
        "3.1.2",
        {"zone": "a"},
        {"started": 1.0, "stored": 2.0},
    )
    document: dict[str, Any] = json.loads(documents.dump_outcome(outcome))
    return document


def changed(document: dict[str, Any], path: tuple[Any, ...], value: object) -> bytes:
    """The document with another value at a path, as bytes."""
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(document).encode()


def numbers(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all numbers of a document."""
    if isinstance(value, dict):
        return [found for key, each in value.items() for found in numbers(each, (*path, key))]
    if isinstance(value, list):
        return [found for i, each in enumerate(value) for found in numbers(each, (*path, i))]
    return [path] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


@pytest.mark.parametrize("path", numbers(an_outcome()), ids=str)
@pytest.mark.parametrize("value", [HUGE, -HUGE, -1, 1e300, math.inf, -math.inf, math.nan, 2**63], ids=str)
def test_a_number_that_cannot_be_is_refused(path: tuple[Any, ...], value: float) -> None:
    """Of every number of an outcome: more digits than a float has, infinite, not a number, negative."""
    with pytest.raises(ProtocolError, match=r"outcome\.json"):
        documents.parse_outcome(changed(an_outcome(), path, value))


def test_numbers_of_a_reuse_are_refused_alike() -> None:
    """Its time, and its nodes."""
    reused = Reused("d", "l", "s3://b/jobs/d/1/c/call.json", "j", 1.0, (ReusedNode(1, "n", 2),))
    document = json.loads(documents.dump_reused(reused))
    for path in numbers(document):
        with pytest.raises(ProtocolError, match=r"reused\.json"):
            documents.parse_reused(changed(json.loads(json.dumps(document)), path, HUGE))


def many(count: int, make: Callable[[int], object]) -> list[object]:
    """Many entries."""
    return [make(i) for i in range(count)]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("host",), {str(i): "x" for i in range(200_000)}),
        (("times",), {str(i): 1.0 for i in range(200_000)}),
        (("usage", "gpus"), many(200_000, lambda i: {"name": "x"})),
        (("usage", "gpus", 0), {str(i): 1 for i in range(200_000)}),
        (("results",), many(limits.MAX_TASKS + 1, lambda i: {})),
        (("results", 0, "stdout", "parts"), many(2 * limits.MAX_PARTS, lambda i: f"01/stdout.{i:06d}")),
        (("results", 0, "stdout", "parts"), ["01/stdout.000000"] * 300),
        (("results", 0, "stdout", "parts"), ["01/stdout.000001", "01/stdout.000000"]),
        (("results", 0, "stdout", "parts"), ["02/stdout.000000"]),
        (("results", 0, "stdout", "parts"), ["01/stderr.000000"]),
        (("results", 0, "stdout", "parts"), ["01/stdout.\u0660\u0660\u0660\u0660\u0660\u0660"]),
        (("results", 1, "stdout", "parts"), ["01/stdout.000001"]),
        (("results", 1, "node_id"), 3),
        (("results", 0, "output", "pickle"), {"inline": "A" * 4 * INLINE_BYTES}),
        (
            ("results", 2, "items", "chunks"),
            many(200_000, lambda i: {"first": i, "stop": i + 1, "body": {"inline": ""}}),
        ),
        (("results", 2, "items", "failures"), many(maps.MAX_FAILURES_TOLD + 1, lambda i: {})),
        (("results", 2, "items", "more_failures"), many(200_000, lambda i: [2 * i, 2 * i + 1])),
        (("results", 2, "items", "more_failures"), [[0, 2**50]]),
        (("results", 2, "items", "seconds"), [0.0] * 1_000_000),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_list_that_cannot_be_is_refused_at_once(path: tuple[Any, ...], value: object) -> None:
    """Too long, with an entry twice or out of order, of another attempt or stream, or of the electron before it."""
    data = changed(an_outcome(), path, value)
    began = time.process_time()
    with pytest.raises(ProtocolError, match=r"outcome\.json"):
        documents.parse_outcome(data)
    assert time.process_time() - began < SECONDS


def test_a_document_that_is_too_long_is_not_parsed() -> None:
    """An honest outcome is at most half as long as a call may be."""
    with pytest.raises(ProtocolError, match=f"more than the {limits.MAX_OUTCOME_BYTES}"):
        documents.parse_outcome(b" " * (limits.MAX_OUTCOME_BYTES + 1))
    assert limits.MAX_OUTCOME_BYTES <= MAX_DOCUMENT_BYTES / 2


def texts_of(value: Any) -> list[str]:
    """All texts in a value."""
    if isinstance(value, dict):
        return [text for key, each in value.items() for text in (*texts_of(key), *texts_of(each))]
    if isinstance(value, (list, tuple)):
        return [text for each in value for text in texts_of(each)]
    return [value] if isinstance(value, str) else []


@given(st.text(st.characters(min_codepoint=0xD000, max_codepoint=0xE000), min_size=1, max_size=8))
def test_half_a_character_in_a_text_does_not_reach_a_reader(text: str) -> None:
    """JSON can say lone surrogates, which no file, database or page can hold: they are replaced in every text."""
    document = an_outcome()
    result, failure = document["results"][0], document["results"][1]["failure"]
    result["output"]["name"] = result["output"]["doc"] = result["stdout"]["tail"] = text
    failure["message"] = failure["traceback"] = failure["module"] = failure["signal"] = text
    document["job_id"] = document["python"] = document["cloudpickle"] = document["call_id"] = text
    document["host"] = {text: text}
    document["times"] = {text: 1.0}
    document["usage"]["gpus"][0]["name"] = text
    outcome = documents.parse_outcome(json.dumps(document).encode())
    found = texts_of(outcome)
    assert len(found) > 12
    for each in found:
        each.encode()


def test_a_text_that_is_too_long_is_cut_and_no_result_is_lost_for_it() -> None:
    """It says how much was left out."""
    document = an_outcome()
    document["results"][0]["output"]["doc"] = "d" * 100_000
    document["results"][1]["failure"]["traceback"] = "begin" + "x" * 1_000_000 + "end"
    document["results"][0]["stdout"]["tail"] = "t" * 1_000_000
    outcome = documents.parse_outcome(json.dumps(document).encode())
    first, second, _ = outcome.results
    assert first.output is not None
    assert second.failure is not None
    assert len(first.output.doc) <= limits.DOC_CHARS
    assert len(first.stdout.tail) <= LOG_TAIL_BYTES
    assert len(second.failure.traceback) <= limits.TRACEBACK_CHARS
    assert second.failure.traceback.startswith("begin")
    assert second.failure.traceback.endswith("end")
    assert "characters left out" in second.failure.traceback
    assert not hasattr(second, "__dict__")


class Bucket:
    """One object in S3."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def get_document(self, bucket: str, key: str, limit: int) -> bytes:
        """As `Store.get_document`."""
        if len(self._data) > limit:
            raise TooLarge(bucket, key, len(self._data), limit)
        return self._data


async def test_the_servers_loop_does_not_wait_for_a_large_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read in a thread; a small one, as they are, at once; one that is too large not at all."""
    threads: list[int] = []

    def read(data: bytes, place: Location) -> Outcome:
        threads.append(threading.get_ident())
        return outcome_of(data, place)

    monkeypatch.setattr(results, "outcome_of", read)
    place = location("bucket", "cirro/", "d1", 3, "018f5e2b7c00c0ffee01")

    async def ask(job_id: str) -> JobDetail:
        return JobDetail(job_id, argument=place.call_uri)

    small = json.dumps(an_outcome()).encode()
    for data in (small, small + b" " * results.SMALL_BYTES):
        found = await results.read_outcome(cast(Store, Bucket(data)), ask, place)
        assert found is not None
    assert [thread == threading.get_ident() for thread in threads] == [True, False]
    with pytest.raises(OutcomeError, match="was refused"):
        await results.read_outcome(cast(Store, Bucket(bytes(limits.MAX_OUTCOME_BYTES + 1))), ask, place)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_whatever_stands_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    """A ProtocolError and nothing else, or an outcome whose numbers are finite."""
    document = an_outcome()
    place: Any = document
    while True:
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    try:
        outcome = documents.parse_outcome(json.dumps(document).encode())
    except ProtocolError:
        return
    assert all(map(math.isfinite, (outcome.usage.wall_s, outcome.usage.cpu_s, *outcome.times.values())))
