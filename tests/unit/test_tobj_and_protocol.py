"""Covalent's file format and the documents of the protocol: round trips, and refusal of what is malformed."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import pickle
from typing import Any

import cloudpickle
import pytest
from covalent._workflow.transportable_object import TransportableObject
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covalent_cirro.contract import documents, failure_kinds, limits, log_parts, places, problems, protocol, tobj
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.log_parts import Part
from covalent_cirro.contract.maps import Chunk, ItemFailure, ItemResults, Mapped, MappedArgument, Span
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import (
    Call,
    Log,
    NodeResult,
    Outcome,
    Output,
    Package,
    Task,
    Tried,
    Usage,
)
from covalent_cirro.contract.references import Blob, Inline, Joined, NodeOutput, StoredInput
from covalent_cirro.runner import exits

SHA = "0f" * 32
MAC_KEY = "0123456789abcdef" * 2


@given(st.one_of(st.binary(max_size=5000), st.text(max_size=2000), st.lists(st.integers()), st.none()))
def test_a_file_that_covalent_wrote_is_read_as_covalent_reads_it(value: Any) -> None:
    """Header, size and pickle of a real TransportableObject."""
    file = io.BytesIO(TransportableObject(value).serialize())
    header = tobj.read_header(file)
    pickle = b"".join(tobj.iter_pickle(file, header))
    assert cloudpickle.loads(pickle) == value
    assert tobj.pickle_size(file, header) == len(pickle)
    assert header.cloudpickle_version == cloudpickle.__version__


@given(st.binary(max_size=3000), st.text(max_size=200), st.lists(st.integers(1, 97), max_size=40))
def test_covalent_reads_what_is_written_here_in_chunks_of_any_size(data: bytes, text: str, cuts: list[int]) -> None:
    """The pieces in which bytes arrive leave no trace in the file."""
    file = io.BytesIO()
    writer = tobj.Writer(file, tobj.header_fields("n", "d", "3.11.7", "3.1.2"), text.encode())
    rest = memoryview(cloudpickle.dumps(data))
    for cut in cuts:
        writer.write(bytes(rest[:cut]))
        rest = rest[cut:]
    writer.write(bytes(rest))
    writer.close()
    read = TransportableObject.deserialize(file.getvalue())
    assert read.get_deserialized() == data
    assert read.object_string == text
    assert read.attrs == {"doc": "d", "name": "n"}


def test_a_buffer_that_pickle_hands_over_as_it_is() -> None:
    """As it does with the data of a large array, which has no length of its own."""

    class Array:
        def __reduce_ex__(self, protocol: Any) -> Any:
            return bytes, (pickle.PickleBuffer(b"abc" * 100_000),)

    file = io.BytesIO()
    writer = tobj.Writer(file, tobj.header_fields("", "", "3.11.7", "3.1.2"), b"")
    cloudpickle.dump(Array(), writer, protocol=5)
    writer.close()
    assert TransportableObject.deserialize(file.getvalue()).get_deserialized() == b"abc" * 100_000


def test_a_large_pickle_is_read_in_chunks() -> None:
    """Several megabytes pass in pieces of one."""
    value = bytes(range(256)) * 20_000
    file = io.BytesIO(TransportableObject(value).serialize())
    sizes = [len(chunk) for chunk in tobj.iter_pickle(file, tobj.read_header(file))]
    assert len(sizes) > 3
    assert max(sizes) <= 1024 * 1024


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        b"\0" * 16,
        b"\xff" * 64,
        (20).to_bytes(8, "big") * 2 + b"nope",
        (100_016).to_bytes(8, "big") * 2 + b"[" * 100_000,
    ],
    ids=["empty", "short", "zeros", "ones", "no JSON", "nested"],
)
def test_a_file_that_is_no_tobj_is_refused(data: bytes) -> None:
    """Cut short, or never one."""
    with pytest.raises(tobj.TobjError):
        tobj.read_header(io.BytesIO(data))


blobs = st.builds(Blob, st.just(SHA), st.integers(0, 9), st.sampled_from(["raw", "zlib"]), st.integers(0, 9))
refs = st.one_of(st.builds(Inline, st.binary(max_size=50)), blobs)
texts = st.text(max_size=20)


@st.composite
def mapped(draw: st.DrawFn) -> Mapped:
    """Shares of up to twenty items, and an argument for each of one or two names."""
    cuts = draw(st.lists(st.integers(0, 20), min_size=2, max_size=5, unique=True).map(sorted))
    children = tuple(itertools.pairwise(cuts))
    arguments = []
    for name in draw(st.lists(texts, min_size=1, max_size=2)):
        sources = tuple(draw(st.lists(refs, min_size=1, max_size=3)))
        span = st.builds(Span, st.integers(0, len(sources) - 1), st.integers(0, 99), st.integers(0, 99))
        spans = tuple(tuple(draw(st.lists(span, max_size=2))) for _ in children)
        arguments.append(MappedArgument(name, sources, spans))
    errors = draw(st.sampled_from(["raise", "stop", "return"]))
    return Mapped(cuts[-1], children, tuple(arguments), draw(st.integers(1, 9)), errors)


tasks = st.builds(
    Task,
    st.integers(0, 99),
    texts,
    refs,
    st.none() | refs,
    st.lists(
        st.one_of(
            refs,
            st.builds(NodeOutput, st.integers(0, 9)),
            st.builds(Joined, st.lists(refs, max_size=3).map(tuple)),
        ),
        max_size=3,
    ).map(tuple),
    st.dictionaries(texts, refs, max_size=3),
    arguments=st.dictionaries(texts, texts, max_size=3).map(lambda each: tuple(each.items())),
    mapped=st.none() | mapped(),
)
calls = st.builds(
    Call,
    texts,
    texts,
    texts,
    texts,
    texts,
    st.lists(tasks, max_size=3).map(tuple),
    st.lists(st.builds(Package, texts, refs), max_size=2).map(tuple),
    tried=st.lists(
        st.builds(
            Tried,
            st.from_regex(r"[0-9a-f]{20}", fullmatch=True),
            texts,
            texts,
            queue=texts,
            next_queue=texts,
            attempts=st.integers(1, 9),
            memory_mib=st.integers(0, 10**6),
            reached_bytes=st.none() | st.integers(0, 10**12),
            next_memory_mib=st.integers(0, 10**6),
        ),
        max_size=2,
    ).map(tuple),
    stored=st.lists(st.builds(StoredInput, texts, blobs), max_size=2).map(tuple),
    num_nodes=st.integers(1, 9),
    processes=st.integers(0, 9),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(calls)
def test_a_call_comes_back_as_it_was(call: Call) -> None:
    """Round trip."""
    assert documents.parse_call(documents.dump_call(call)) == call


@pytest.mark.parametrize("arguments", [None, [], "lr=0.1", {"lr": 0.1}, {"lr": None}])
def test_a_call_with_another_summary_of_arguments_is_used_without_it(arguments: object) -> None:
    """One of an older covalent-cirro has none; what is only shown fails no electron."""
    written = json.loads(documents.dump_call(Call("c", "d", "3", "3", "0", (Task(1, "f", Inline(b""), None, (), {}),))))
    written["tasks"][0]["arguments"] = arguments
    if arguments is None:
        del written["tasks"][0]["arguments"]
    assert documents.parse_call(json.dumps(written).encode()).tasks[0].arguments == ()


@pytest.mark.parametrize(("most", "read"), [(9, "012345678..."), (10, "0123456789"), (99, "0123456789")])
def test_the_beginning_of_a_values_text_is_read(most: int, read: str) -> None:
    """Of so many bytes; nothing of the pickle behind it."""
    file = io.BytesIO()
    tobj.Writer(file, {}, b"0123456789").write(b"pickle")
    file.seek(0)
    assert tobj.read_text(file, tobj.read_header(file), most) == read


no_logs = st.builds(Log, st.integers(0, 9), st.just(()), texts)
failures = st.builds(
    Failure,
    st.sampled_from(sorted(failure_kinds.KINDS)),
    texts,
    texts,
    texts,
    st.none() | st.integers(0, 255),
    texts,
)


@st.composite
def item_results(draw: st.DrawFn) -> ItemResults:
    """Chunks that follow one another, whatever failed in them."""
    cuts = draw(st.lists(st.integers(0, 20), max_size=5, unique=True).map(sorted))
    return ItemResults(
        tuple(Chunk(first, stop, draw(refs)) for first, stop in itertools.pairwise(cuts)),
        tuple(ItemFailure(item, draw(failures)) for item in sorted(draw(st.sets(st.integers(0, 20), max_size=2)))),
        tuple(draw(st.lists(st.integers(0, 9000).map(lambda ms: ms / 1000), max_size=3))),
    )


ends = st.one_of(
    st.tuples(st.builds(Output, refs, refs, texts, texts), st.none(), st.none()),
    st.tuples(st.none(), failures, st.none() | item_results()),
    st.tuples(st.none(), st.none(), item_results()),
)


@st.composite
def node_results(draw: st.DrawFn) -> tuple[NodeResult, ...]:
    """Results of some electrons of a job, each with its own parts of what the job's second attempt printed."""
    found: list[NodeResult] = []
    index = dict.fromkeys(log_parts.STREAMS, 0)
    for node_id in draw(st.lists(st.integers(0, 9), max_size=3, unique=True)):
        logs = []
        for stream in log_parts.STREAMS:
            count = draw(st.integers(0, 2))
            parts = tuple(Part(2, stream, index[stream] + i).name for i in range(count))
            index[stream] += count
            logs.append(draw(no_logs)._replace(parts=parts))
        output, failure, items = draw(ends)
        found.append(NodeResult(node_id, output, failure, *logs, items))
    return tuple(found)


gpus = st.fixed_dictionaries(
    {
        "name": texts,
        "memory_bytes": st.none() | st.integers(0, 10**12),
        "peak_memory_bytes": st.none() | st.integers(0, 10**12),
        "utilization": st.none() | st.floats(0, 100),
    }
)
outcomes = st.builds(
    Outcome,
    texts,
    st.just(2),
    texts,
    node_results(),
    st.builds(
        Usage,
        st.floats(0, 9),
        st.floats(0, 9),
        st.none() | st.integers(0, 9),
        st.none() | st.integers(0, 9),
        gpus=st.lists(gpus, max_size=2).map(tuple),
        oom_kills=st.none() | st.integers(0, 9),
    ),
    texts,
    texts,
    st.dictionaries(texts, texts, max_size=2),
    st.dictionaries(texts, st.floats(0, 9), max_size=2),
    nodes=st.lists(
        st.builds(
            protocol.ComputeNode, st.integers(0, 9), texts, st.floats(0, 9), st.none() | st.integers(0, 9), texts, texts
        ),
        max_size=2,
    ).map(tuple),
)


@given(outcomes)
def test_an_outcome_comes_back_as_it_was(outcome: Outcome) -> None:
    """Round trip."""
    read = documents.parse_outcome(documents.dump_outcome(outcome))
    assert read == outcome._replace(mac="", digest=b"")


@given(outcomes, st.data())
def test_an_outcome_is_authentic_only_as_it_was_written(outcome: Outcome, data: st.DataObject) -> None:
    """With the key it was written with, and no byte of it changed."""
    written = documents.dump_outcome(outcome, MAC_KEY)
    read = documents.parse_outcome(written)
    assert read.is_authentic(MAC_KEY)
    assert not read.is_authentic("f" * 32)
    at = data.draw(st.integers(0, len(written) - 1))
    changed = written[:at] + bytes([written[at] ^ data.draw(st.integers(1, 255))]) + written[at + 1 :]
    with contextlib.suppress(problems.ProtocolError):
        assert not documents.parse_outcome(changed).is_authentic(MAC_KEY)


def test_an_outcome_without_a_code_is_not_authentic() -> None:
    """Whoever has not the key cannot say that a job wrote it."""
    plain = documents.parse_outcome(json.dumps(an_outcome()).encode())
    assert not plain.is_authentic(MAC_KEY)
    assert plain.is_authentic("")  # a job that was submitted without a key


@given(st.from_regex(r"[0-9a-f]{32}", fullmatch=True))
def test_a_job_is_given_its_call_and_its_key(mac_key: str) -> None:
    """In one argument; a call alone is one too."""
    place = places.location("bucket", "a#b/", "d-1", 3, "018f5e2b7c00c0ffee01")
    assert places.parse_call_argument(places.call_argument(place, mac_key)) == (place, mac_key)
    assert places.parse_call_argument(place.call_uri) == (place, "")


def test_what_is_no_call_is_not_listed_as_one() -> None:
    """A job may write logs, checkpoints and outcomes below its own call: names of its choice are no calls."""
    base = "cirro/jobs/d/3/"
    call_id = "018f5e2b7c00c0ffee01"
    ours = [f"{base}{call_id}/{name}" for name in ("call.json", "log/01/stdout.000000", "log/call.json")]
    others = [f"{base}log/call.json", f"{base}checkpoint/call.json", f"{base}{call_id}", f"{base}x/{call_id}/call.json"]
    found = places.calls_among([*others, *ours, "elsewhere"], "bucket", "cirro/", "d")
    assert found == {Location("bucket", f"{base}{call_id}/"): {"call.json", "log/01/stdout.000000", "log/call.json"}}


def test_a_call_tells_when_it_was_made() -> None:
    """To the millisecond."""
    assert places.call_made_at(f"{1_700_000_000_123:012x}{'0' * 8}") == 1_700_000_000.123


@pytest.mark.parametrize("character", ["x", "\0", "🌲", "\ud800", '"'], ids=ascii)
@pytest.mark.parametrize(
    ("electrons", "fails"), [(1, True), (1, False), (limits.MAX_TASKS, True), (limits.MAX_TASKS, False)]
)
def test_whatever_electrons_say_their_outcome_is_read(character: str, electrons: int, fails: bool) -> None:
    """The longest that there can be, in characters that take most bytes in JSON."""
    long = character * 50_000
    tail = (character * 32_768)[: exits.tail_bytes(electrons)].encode("utf-8", "replace").decode()
    parts = {stream: [Part(1, stream, i).name for i in range(limits.MAX_PARTS)] for stream in log_parts.STREAMS}
    each = limits.MAX_PARTS // electrons
    found = []
    for node_id in range(electrons):
        logs = [
            Log(2**40, tuple(parts[stream][node_id * each : (node_id + 1) * each]), tail)
            for stream in log_parts.STREAMS
        ]
        blob = Blob(SHA, 2**53, "zlib", 2**53)
        output = None if fails else Output(blob, blob, long, long)
        failure = Failure(Kind.RAISED, long, long, long, 255, long) if fails else None
        found.append(NodeResult(node_id, output, failure, *logs))
    gpu = {"name": long, "memory_bytes": 2**40, "peak_memory_bytes": 2**40, "utilization": 99.9}
    usage = Usage(float("nan"), -1.0, 2**53, 2**53, (gpu,) * 100, 2**53)
    host = {name: long for name in ("instance_type", "instance_id", "zone", "hostname", "life_cycle")}
    outcome = Outcome("c", 1, "j", tuple(found), usage, "3.11.7", long, host, {"started": float("inf"), "ran": 5.0})
    data = documents.dump_outcome(outcome)
    read = documents.parse_outcome(data)
    assert len(read.results) == electrons
    assert (read.usage.wall_s, read.usage.cpu_s, read.times) == (0.0, 0.0, {"ran": 5.0})
    assert documents.dump_outcome(read) == data


@pytest.mark.parametrize("lengths", [[], [5], [1, 2, 3], [9, 9, 9, 9], [0, 0, 100], [3] * 50])
def test_what_short_texts_leave_is_for_the_long_ones(lengths: list[int]) -> None:
    """None has more than its own limit, nor all together more than theirs."""
    most = limits.share(lengths, 8, 20)
    kept = [min(length, most) for length in lengths]
    assert most <= 8
    assert sum(kept) <= 20
    assert most == 8 or sum(min(length, most + 1) for length in lengths) > 20


def an_outcome() -> dict[str, Any]:
    """A well-formed outcome, as JSON."""
    result = NodeResult(3, Output(Inline(b"p"), Inline(b"s")), None, Log(), Log())
    outcome = Outcome("c", 1, "j", (result,), Usage(), "3.11.7", "3.1.2", {}, {"started": 1.0})
    document: dict[str, Any] = json.loads(documents.dump_outcome(outcome))
    return document


def test_a_runner_that_does_not_count_out_of_memory_kills_is_understood() -> None:
    """An image of the same format that is a little older: not counted is not none."""
    document = an_outcome()
    del document["usage"]["oom_kills"]
    assert documents.parse_outcome(json.dumps(document).encode()).usage.oom_kills is None


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("results",), None, "results"),
        (("results",), [3], "results[0]"),
        (("results", 0, "node_id"), "3", "node_id"),
        (("results", 0, "output"), None, "either an output or a failure"),
        (("results", 0, "output", "pickle"), {"sha256": "../x", "size": 1, "codec": "raw", "raw_size": 1}, "sha256"),
        (("results", 0, "output", "pickle"), {"sha256": SHA, "size": -1, "codec": "raw", "raw_size": 1}, "size"),
        (("results", 0, "output", "pickle"), {"sha256": SHA, "size": 1, "codec": "lzma", "raw_size": 1}, "codec"),
        (("results", 0, "output", "pickle"), {"inline": "%"}, "base64"),
        (("results", 0, "stdout", "parts"), ["../../other/outcome.json"], "parts"),
        (("attempt",), True, "attempt"),
        (("usage",), [], "usage"),
    ],
)
def test_a_malformed_outcome_is_refused_and_the_place_named(path: tuple[Any, ...], value: object, named: str) -> None:
    """A job may write anything; nothing of it is taken on trust."""
    document = an_outcome()
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(problems.ProtocolError) as caught:
        documents.parse_outcome(json.dumps(document).encode())
    assert named in str(caught.value)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_other_bytes_are_refused_too(data: bytes) -> None:
    """Whatever it is, it is a ProtocolError and nothing else."""
    with pytest.raises(problems.ProtocolError):
        documents.parse_outcome(data)


def test_deep_nesting_is_refused() -> None:
    """JSON that exhausts the parser."""
    with pytest.raises(problems.ProtocolError):
        documents.parse_outcome(b"[" * 100_000)


@pytest.mark.parametrize(("version", "side"), [(99, "reads it"), (0, "wrote it"), ("x", "wrote it")])
def test_another_format_says_which_side_to_update(version: object, side: str) -> None:
    """Runner and server may be of different ages."""
    with pytest.raises(problems.UnknownFormat, match=side):
        documents.parse_outcome(json.dumps({**an_outcome(), "format": version}).encode())


@given(st.sampled_from(["", "p/", "p/q/", "jobs/"]), st.integers(0, 99))
def test_the_uri_of_a_call_leads_back_to_its_place(prefix: str, node_id: int) -> None:
    """Whatever the prefix."""
    place = places.location("bucket", prefix, "d-1", node_id, "018f5e2b7c00c0ffee01")
    assert places.parse_call_uri(place.call_uri) == place
    assert (place.prefix, place.call_id) == (prefix, "018f5e2b7c00c0ffee01")


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "s3://b/call.json",
        "s3://b/jobs/d/x/018f5e2b7c00c0ffee01/call.json",
        "http://b/jobs/d/1/018f5e2b7c00c0ffee01/call.json",
    ],
)
def test_what_is_not_the_uri_of_a_call_is_refused(uri: str) -> None:
    """The runner's only argument."""
    with pytest.raises(problems.ProtocolError):
        places.parse_call_uri(uri)


def test_versions_that_cannot_work_together_are_told_with_both_remedies() -> None:
    """Another minor version of Python, another major version of cloudpickle; not another patch."""
    call = Call("c", "d", "3.11.7", "3.1.2", "0.240.0", ())
    assert protocol.version_conflict(call, "3.11.2", "3.0.0") is None
    conflict = protocol.version_conflict(call, "3.10.13", "3.1.2")
    assert conflict is not None
    assert "image with Python 3.11" in conflict
    assert "dispatch from Python 3.10" in conflict
    assert "cloudpickle==3.1.2" in (protocol.version_conflict(call, "3.11.7", "2.2.1") or "")
    assert Kind.RAISED in failure_kinds.KINDS
