"""What passes between `send`, `poll` and `receive`: each type has a form in JSON, and nothing else is read as one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.contract.protocol import Tried
from covalent_cirro.electron import handover
from covalent_cirro.electron.call_writer import ElectronSpec
from covalent_cirro.electron.handover import (
    AdoptedJob,
    EndedHostNodes,
    EndedJob,
    HostNodeEnd,
    HostNodes,
    JobHandle,
    OwnJob,
    Polled,
    ReusedResults,
    Sent,
)
from covalent_cirro.electron.result_writer import WrittenFile
from covalent_cirro.errors import OutcomeError
from covalent_cirro.jobs.states import Attempt, JobDetail

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
counts = st.integers(0, 2**40)
seconds = st.none() | st.floats(0, 2e9)
node_ids = st.integers(0, 10_000)

tried = st.builds(Tried, names, names, names, counts, counts, names, st.none() | counts, counts, names)
keys = st.lists(names, max_size=3).map(tuple)
tries = st.lists(tried, max_size=2).map(tuple)
specs = st.builds(ElectronSpec, node_ids, st.lists(node_ids, max_size=3), st.dictionaries(names, node_ids, max_size=3))
sent = st.one_of(
    st.builds(OwnJob, names, names, keys, tries),
    st.builds(AdoptedJob, st.none() | names, names, keys, tries),
    st.builds(ReusedResults, names),
    st.builds(HostNodes, st.lists(specs, min_size=1, max_size=3).map(tuple)),
)

attempts = st.builds(Attempt, st.none() | st.integers(0, 255), texts, texts, texts, seconds, seconds, texts, texts)
details = st.builds(
    JobDetail,
    names,
    texts,
    texts,
    texts,
    st.none() | st.integers(0, 255),
    texts,
    texts,
    seconds,
    seconds,
    seconds,
    st.lists(attempts, max_size=2).map(tuple),
    st.booleans(),
    texts,
    texts,
    texts,
    counts,
    st.floats(0, 1000),
    counts,
    counts,
    counts,
    texts,
)
files = st.dictionaries(st.sampled_from(["output", "stdout", "stderr", "error"]), st.builds(WrittenFile, counts, names))
polled = st.one_of(
    st.builds(EndedJob, names, texts, st.none() | details, st.integers(0, 100), st.booleans(), texts),
    st.builds(ReusedResults, names),
    st.builds(
        EndedHostNodes,
        st.lists(st.builds(HostNodeEnd, node_ids, texts, files, texts, texts), min_size=1, max_size=3).map(tuple),
    ),
)


@given(sent)
def test_what_send_returns_is_the_same_after_json(sent: Sent) -> None:
    """Each way, with whatever texts and numbers."""
    assert same(handover.load_sent(json.loads(json.dumps(handover.dump_sent(sent)))), sent)


@given(polled)
def test_what_poll_returns_is_the_same_after_json(polled: Polled) -> None:
    """Each way, with whatever texts and numbers."""
    assert same(handover.load_polled(json.loads(json.dumps(handover.dump_polled(polled)))), polled)


@given(st.builds(JobHandle, names, texts, texts))
def test_a_job_handle_is_the_same_after_covalent_stored_it(handle: JobHandle) -> None:
    """As JSON, in its database."""
    assert handover.load_handle(json.loads(json.dumps(handover.dump_handle(handle)))) == handle


def same(one: object, other: object) -> bool:
    """Of the same type, and equal: a tuple of another type is not."""
    return type(one) is type(other) and one == other


@pytest.mark.parametrize(
    ("stored", "handle"),
    [
        (
            {"format": 1, "job_id": "j", "call": "s3://b/c", "region": "eu-west-1"},
            JobHandle("j", "s3://b/c", "eu-west-1"),
        ),
        ({"job_id": "j", "call": 7}, JobHandle("j")),
        ("j", JobHandle("j")),
        ({"job_id": ""}, None),
        ({"job_id": 7}, None),
        ("", None),
        (None, None),
        ([], None),
    ],
)
def test_handles_of_every_version_are_read(stored: Any, handle: JobHandle | None) -> None:
    """Covalent's database keeps them for ever. The format of today is the only one so far."""
    assert handover.load_handle(stored) == handle


def test_a_call_alone_is_enough_to_receive_a_job() -> None:
    """Whoever sends it to the server by hand need not know more."""
    assert handover.load_polled({"call": "s3://b/call.json"}) == EndedJob("s3://b/call.json")


HOST_NODE = handover.dump_polled(EndedHostNodes((HostNodeEnd(1, "n", {"output": WrittenFile(3, "ab")}),)))["host"][0]


@pytest.mark.parametrize(
    ("data", "member"),
    [
        ("x", "data is not an object"),
        ({}, "data.call"),
        ({"call": 7}, "data.call"),
        ({"reused": True}, "data.call"),
        ({"call": "c", "job_id": 7}, "data.job_id"),
        ({"call": "c", "tried": -1}, "data.tried"),
        ({"call": "c", "not_again": []}, "data.not_again"),
        ({"host": {}}, "data.host"),
        ({"host": [7]}, "data.host is not an object"),
        ({"host": [{**HOST_NODE, "node_id": "1"}]}, "data.host.node_id"),
        ({"host": [{**HOST_NODE, "why": None}]}, "data.host.why"),
        ({"host": [{**HOST_NODE, "files": {"output": [True, "ab"]}}]}, "data.host.files.output"),
        ({"host": [{**HOST_NODE, "files": {"output": "ab"}}]}, "data.host.files.output"),
    ],
)
def test_what_has_another_form_is_refused_by_its_member(data: Any, member: str) -> None:
    """Anybody who reaches the Covalent server can send it."""
    with pytest.raises(OutcomeError, match=f"{member}.* was refused"):
        handover.load_polled(data)
