"""The registry of models over a bucket in memory: whoever is killed or comes between, no version is half or changed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import IO, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro import models
from covalent_cirro.errors import ModelError, TooLarge
from covalent_cirro.models import model_version, weights
from covalent_cirro.models.model_registry import ModelRegistry
from covalent_cirro.models.model_version import ModelFile, ModelVersion

BEGIN = datetime(2026, 11, 30, 8, 15, tzinfo=timezone.utc)
NAME = "recommender"
SLOW = timedelta(minutes=5)


class Killed(BaseException):
    """What ends a registration in the middle, as SIGKILL does: nobody catches it."""


class MemoryObjects:
    """A bucket in memory. Before each call `before` is called with the number of the call, from 0."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.before: Callable[[int], object] = lambda call: None
        self.calls = 0
        self._etags = 0

    def _begin(self) -> None:
        call, self.calls = self.calls, self.calls + 1
        self.before(call)

    def _put(self, key: str, data: bytes) -> None:
        self._etags += 1
        self.objects[key] = data, f'"{self._etags}"'

    def put_new(self, key: str, body: IO[bytes], sha256: str, size: int) -> None:
        self._begin()
        data = body.read()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (sha256, size)
        if key in self.objects:
            if self.objects[key][0] != data:
                raise ModelError(f"{key} is there already, with other bytes")
            return
        self._put(key, data)

    def swap(self, key: str, data: bytes, etag: str | None) -> bool:
        self._begin()
        if (self.objects[key][1] if key in self.objects else None) != etag:
            return False
        self._put(key, data)
        return True

    def read(self, key: str, limit: int) -> tuple[bytes, str] | None:
        self._begin()
        found = self.objects.get(key)
        if found is not None and len(found[0]) > limit:
            raise TooLarge("bucket", key, len(found[0]), limit)
        return found

    def keys(self, base: str) -> list[str]:
        self._begin()
        return sorted(key for key in self.objects if key.startswith(base))

    def folders(self, base: str) -> list[str]:
        self._begin()
        below = {key.removeprefix(base) for key in self.objects if key.startswith(base)}
        return sorted({each.partition("/")[0] for each in below if "/" in each})


def registry(objects: MemoryObjects, later: timedelta = timedelta()) -> ModelRegistry:
    """The registry, at a time."""
    return ModelRegistry(objects, "bucket", "cirro/", now=lambda: BEGIN + later)


def add(objects: MemoryObjects, content: bytes = b"weights", later: timedelta = timedelta(), **given: Any) -> Any:
    """Register a version with two files."""
    facts: dict[str, Any] = {
        "dispatch": "3f2a91bc",
        "node": 4,
        "data_digest": "d" * 64,
        "metrics": {"rmse": 0.87},
        "parameters": {"k": 18},
        "versions": {"python": "3.11.7"},
    }
    return registry(objects, later).register(NAME, content, {"catalogue.json": b"{}"}, **{**facts, **given})


def is_whole(objects: MemoryObjects, version: ModelVersion) -> bool:
    """Whether all files of a version are there, with the bytes that were registered."""
    return all(
        hashlib.sha256(registry(objects).read(NAME, version.version, file)).hexdigest() == facts.sha256
        for file, facts in version.files.items()
    )


# --- what is registered -----------------------------------------------------------------------------------------------


def test_a_version_is_found_again_with_all_that_was_said_of_it() -> None:
    """Under a name that begins with its time, beside files that have the digests that it names."""
    objects = MemoryObjects()
    made = add(objects)
    assert made.version.startswith("20261130T081500Z-")
    assert made.uri == f"s3://bucket/cirro/models/{NAME}/{made.version}"
    assert made.created == "2026-11-30T08:15:00Z"
    assert (made.dispatch, made.node, made.data_digest) == ("3f2a91bc", 4, "d" * 64)
    assert registry(objects).names() == [NAME]
    assert registry(objects).versions(NAME) == [made]
    assert registry(objects).current(NAME) == made
    assert is_whole(objects, made)
    base = f"cirro/models/{NAME}"
    assert set(objects.objects) == {
        f"{base}/current.json",
        *(f"{base}/{made.version}/{file}" for file in ("weights.safetensors", "catalogue.json", "model.json")),
    }


def test_the_document_has_what_services_read() -> None:
    """Its fields by name, and the digest of each file."""
    objects = MemoryObjects()
    made = add(objects)
    document = json.loads(objects.objects[f"cirro/models/{NAME}/{made.version}/model.json"][0])
    assert document == {
        "format": 1,
        "name": NAME,
        "version": made.version,
        "created": "2026-11-30T08:15:00Z",
        "files": {
            "weights.safetensors": {"sha256": hashlib.sha256(b"weights").hexdigest(), "size": 7},
            "catalogue.json": {"sha256": hashlib.sha256(b"{}").hexdigest(), "size": 2},
        },
        "dispatch": "3f2a91bc",
        "node": 4,
        "data_digest": "d" * 64,
        "metrics": {"rmse": 0.87},
        "parameters": {"k": 18},
        "versions": {"python": "3.11.7"},
    }
    assert json.loads(objects.objects[f"cirro/models/{NAME}/current.json"][0]) == {"version": made.version}


def test_later_versions_come_first_and_the_last_one_is_current() -> None:
    """Until the pointer is moved; the versions stay as they were."""
    objects = MemoryObjects()
    first, second = add(objects), add(objects, b"better", SLOW)
    assert registry(objects).versions(NAME) == [second, first]
    assert registry(objects).current(NAME) == second
    assert registry(objects).point(NAME, first.version) == first
    assert registry(objects).current(NAME) == first
    assert registry(objects).versions(NAME) == [second, first]
    assert add(objects, b"best", 2 * SLOW) == registry(objects).current(NAME)


def test_the_same_again_in_the_same_second_is_the_same_version() -> None:
    """An answer that was lost, and a call that was made again, leave one version."""
    objects = MemoryObjects()
    first = add(objects)
    assert add(objects) == first
    assert registry(objects).versions(NAME) == [first]
    other = add(objects, metrics={"rmse": 0.9})
    assert sorted(registry(objects).versions(NAME)) == sorted([first, other])


def test_numbers_of_numpy_are_numbers() -> None:
    """In metrics and in parameters."""
    made = add(MemoryObjects(), metrics={"rmse": np.float32(0.5)}, parameters={"k": np.int64(3), "lr": [0.1]})
    assert (made.metrics, made.parameters) == ({"rmse": 0.5}, {"k": 3, "lr": [0.1]})


@pytest.mark.parametrize(
    "given",
    [
        {"metrics": {"rmse": math.nan}},
        {"metrics": {"rmse": "good"}},
        {"metrics": {"rmse": True}},
        {"parameters": {"data": object()}},
        {"parameters": {1: 2, "1": 3, "text": "x" * 2_000_000}},
        {"dispatch": "d" * 200},
        {"versions": {"python": "3" * 2000}},
    ],
)
def test_what_could_not_be_read_again_is_not_registered(given: dict[str, Any]) -> None:
    """Nothing is written before all is known to be right."""
    objects = MemoryObjects()
    with pytest.raises(ModelError):
        add(objects, **given)
    assert objects.objects == {}


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "é", "a b"])
def test_names_that_are_no_part_of_a_key_are_refused(name: str) -> None:
    """Of models and of files."""
    objects = MemoryObjects()
    facts: dict[str, Any] = dict.fromkeys(("dispatch", "node", "data_digest"))
    facts |= {"metrics": {}, "parameters": {}, "versions": {}}
    with pytest.raises(ModelError, match="can be called"):
        registry(objects).register(name, b"", {}, **facts)
    if len(name) != 65:
        with pytest.raises(ModelError, match="can be called"):
            registry(objects).register(NAME, b"", {name: b""}, **facts)
    assert objects.objects == {}


@pytest.mark.parametrize("file", ["model.json", "weights.safetensors"])
def test_files_of_the_registrys_own_are_refused(file: str) -> None:
    """They would be written twice."""
    with pytest.raises(ModelError, match=file):
        registry(MemoryObjects()).register(
            NAME, b"", {file: b""}, dispatch=None, node=None, data_digest=None, metrics={}, parameters={}, versions={}
        )


# --- what is not there ------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_told_with_what_there_is() -> None:
    """Of a model the versions, else the models."""
    objects = MemoryObjects()
    assert registry(objects).versions(NAME) == []
    with pytest.raises(ModelError, match="no models"):
        registry(objects).current(NAME)
    made = add(objects)
    with pytest.raises(ModelError, match=f"that has {NAME}"):
        registry(objects).current("other")
    with pytest.raises(ModelError, match=made.version):
        registry(objects).point(NAME, "20200101T000000Z-00000000")
    with pytest.raises(ModelError, match="is no version"):
        registry(objects).point(NAME, "latest")
    with pytest.raises(ModelError, match=r"weights\.safetensors, catalogue\.json"):
        registry(objects).read(NAME, made.version, "other")


def test_changed_bytes_are_not_read() -> None:
    """Whoever may do everything has changed the bucket."""
    objects = MemoryObjects()
    made = add(objects)
    key = f"cirro/models/{NAME}/{made.version}/weights.safetensors"
    objects.objects[key] = b"weightz", '"x"'
    with pytest.raises(ModelError, match="other bytes"):
        registry(objects).read(NAME, made.version, "weights.safetensors")
    del objects.objects[key]
    with pytest.raises(ModelError, match="not there any more"):
        registry(objects).read(NAME, made.version, "weights.safetensors")


def test_a_pointer_that_names_nothing_is_told_and_written_anew() -> None:
    """By --point, and by the next registration."""
    objects = MemoryObjects()
    made = add(objects)
    for mend in (lambda: registry(objects).point(NAME, made.version), lambda: add(objects, b"x", SLOW)):
        objects.objects[f"cirro/models/{NAME}/current.json"] = b"{}", '"x"'
        with pytest.raises(ModelError, match="names no version"):
            registry(objects).current(NAME)
        assert mend() == registry(objects).current(NAME)


def test_other_objects_in_the_bucket_are_no_models() -> None:
    """Neither folders with strange names, nor objects beside the versions."""
    objects = MemoryObjects()
    made = add(objects)
    for key in ("models/.x/y", f"models/{NAME}/notes/a", f"models/{NAME}/README", "models/x"):
        objects.objects[f"cirro/{key}"] = b"", '"x"'
    assert registry(objects).names() == [NAME]
    assert registry(objects).versions(NAME) == [made]


# --- who is killed, or comes between ----------------------------------------------------------------------------------


def calls_of(action: Callable[[MemoryObjects], object], begin: Callable[[], MemoryObjects]) -> range:
    """The numbers of the calls that an action makes."""
    objects = begin()
    first = objects.calls
    action(objects)
    return range(first, objects.calls)


def begun() -> MemoryObjects:
    """A bucket with one version."""
    objects = MemoryObjects()
    add(objects)
    return objects


def test_a_registration_that_is_killed_leaves_no_half_version() -> None:
    """Wherever it is killed: a version that is listed is whole, and so is the current one."""
    seen = set()
    for killed_at in calls_of(lambda objects: add(objects, b"new", SLOW), begun):
        objects = begun()

        def kill(call: int, at: int = killed_at) -> None:
            if call == at:
                raise Killed

        objects.before = kill
        with pytest.raises(Killed):
            add(objects, b"new", SLOW)
        found, current = registry(objects).versions(NAME), registry(objects).current(NAME)
        assert all(is_whole(objects, each) for each in found)
        assert current in found
        listing = registry(objects).listing(NAME)
        assert len(listing.complete) + len(listing.unfinished) <= 2
        seen.add((len(found), len(listing.unfinished)))
        again = add(objects, b"new", 2 * SLOW)
        assert registry(objects).current(NAME) == again
    assert seen == {(1, 0), (1, 1), (2, 0)}


def interrupted(objects: MemoryObjects, at: int, other: Callable[[], object]) -> None:
    """Let something else happen before the call with a number."""

    def interrupt(call: int) -> None:
        if call == at:
            objects.before = lambda call: None
            other()

    objects.before = interrupt


@pytest.mark.parametrize("other_later", [SLOW / 2, 2 * SLOW])
def test_of_two_registrations_at_once_the_newer_version_becomes_current(other_later: timedelta) -> None:
    """Wherever one comes between the calls of the other; both versions are there."""
    numbers = calls_of(lambda objects: add(objects, b"mine", SLOW), begun)
    for number in numbers:
        objects = begun()
        interrupted(objects, number, lambda objects=objects: add(objects, b"theirs", other_later))  # type: ignore[misc]
        mine = add(objects, b"mine", SLOW)
        found = registry(objects).versions(NAME)
        assert len(found) == 3
        # Who begins when the other has ended is the last one, whatever the clocks say.
        assert registry(objects).current(NAME) == (mine if number == numbers[0] else found[0])


def test_of_two_that_move_the_pointer_at_once_one_is_told_of_the_other() -> None:
    """No move is lost without a word: the pointer is where the one that returned has put it."""

    def begin() -> MemoryObjects:
        objects = begun()
        for content in (b"mine", b"theirs"):
            add(objects, content, SLOW)
        registry(objects).point(NAME, registry(objects).versions(NAME)[-1].version)
        return objects

    theirs, mine, _ = registry(begin()).versions(NAME)
    numbers = calls_of(lambda objects: registry(objects).point(NAME, mine.version), begin)
    for number in numbers:
        objects = begin()
        interrupted(objects, number, lambda objects=objects: registry(objects).point(NAME, theirs.version))  # type: ignore[misc]
        if number == numbers[0]:  # before it has looked
            registry(objects).point(NAME, mine.version)
            assert registry(objects).current(NAME) == mine
        else:
            with pytest.raises(ModelError, match=f"somebody else has made {theirs.version} the current one"):
                registry(objects).point(NAME, mine.version)
            assert registry(objects).current(NAME) == theirs


class LosesAnswers(MemoryObjects):
    """Every second call that moves the pointer is done, and its answer lost: made again, its condition fails."""

    def __init__(self) -> None:
        super().__init__()
        self.loses = False

    def swap(self, key: str, data: bytes, etag: str | None) -> bool:
        self.loses = not self.loses
        return super().swap(key, data, etag) and not self.loses


def test_a_move_whose_answer_is_lost_is_a_move() -> None:
    """Of a registration, and of somebody who points."""
    objects = LosesAnswers()
    first = add(objects)
    objects.loses = False
    second = add(objects, b"second", SLOW)
    assert registry(objects).current(NAME) == second
    objects.loses = False
    assert registry(objects).point(NAME, first.version) == registry(objects).current(NAME) == first


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=12))
def test_versions_are_never_changed(steps: list[tuple[bool, int]]) -> None:
    """Whatever is registered and pointed at: objects of versions stay, and the current version is one of them."""
    objects = MemoryObjects()
    for number, (registers, which) in enumerate(steps):
        before = {key: value for key, value in objects.objects.items() if not key.endswith("current.json")}
        known = registry(objects).versions(NAME)
        if registers or not known:
            expected = add(objects, bytes([which]), number * timedelta(seconds=1))
        else:
            expected = registry(objects).point(NAME, known[which % len(known)].version)
        assert before.items() <= objects.objects.items()
        assert registry(objects).current(NAME) == expected
        assert all(is_whole(objects, each) for each in registry(objects).versions(NAME))


# --- documents --------------------------------------------------------------------------------------------------------

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(
    name=NAMES,
    files=st.dictionaries(NAMES, st.builds(ModelFile, st.just("a" * 64), st.integers(0, 2**40)), max_size=3),
    metrics=st.dictionaries(st.text(max_size=10), st.integers(0, 9) | st.floats(-1e9, 1e9), max_size=3),
    parameters=st.dictionaries(st.text(max_size=10), JSON, max_size=3),
    dispatch=st.none() | NAMES,
    node=st.none() | st.integers(0, 10_000),
)
def test_a_document_says_what_was_said(
    name: str, files: Any, metrics: Any, parameters: Any, dispatch: Any, node: Any
) -> None:
    """And the name of a version depends on all of it, and on nothing else."""

    def made(**other: Any) -> ModelVersion:
        facts = {"dispatch": dispatch, "node": node, "data_digest": None, "metrics": metrics, "parameters": parameters}
        return model_version.made(name, BEGIN, files, **{**facts, "versions": {}, **other})

    version = made()
    assert model_version.parse(model_version.encode(version), name, version.version) == version
    assert model_version.VERSION.fullmatch(version.version)
    assert made() == version
    assert made(data_digest="other").version != version.version


@given(st.binary(max_size=200) | st.builds(lambda value: json.dumps(value).encode(), JSON))
def test_what_is_no_document_is_refused(data: bytes) -> None:
    """With an error that names the model and the version."""
    with pytest.raises(ModelError, match="of version v of the model 'm'"):
        model_version.parse(data, "m", "v")
    assert model_version.parse_pointer(data) is None


def test_a_document_of_another_version_is_refused() -> None:
    """Somebody has copied it; and so is one of a later format."""
    objects = MemoryObjects()
    made = add(objects)
    data = model_version.encode(made)
    with pytest.raises(ModelError, match="somebody has moved it"):
        model_version.parse(data, NAME, "20200101T000000Z-00000000")
    with pytest.raises(ModelError, match="Update the older side"):
        model_version.parse(data.replace(b'"format": 1', b'"format": 2'), NAME, made.version)


# --- weights ----------------------------------------------------------------------------------------------------------

needs_safetensors = pytest.mark.skipif(
    importlib.util.find_spec("safetensors") is None, reason="safetensors is not installed"
)


@needs_safetensors
def test_weights_are_read_as_they_were() -> None:
    """Of all shapes, however they lie in memory."""
    import safetensors.numpy

    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    given = {"table": table, "turned": table.T, "some": table[:, ::2], "one": np.float64(2.5), "none": table[:0]}
    found = safetensors.numpy.load(weights.encoded(given))
    assert found.keys() == given.keys()
    for name, each in given.items():
        np.testing.assert_array_equal(found[name], each)
        assert found[name].shape == np.shape(each)


@needs_safetensors
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_tensors_and_arrays_give_the_same_file() -> None:
    """Parameters that need gradients and share memory are tensors, too."""
    import torch

    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensor = torch.nn.Parameter(torch.from_numpy(table.copy()))
    given = {"b": tensor, "a": tensor[:, 1:], "c": table}
    assert weights.encoded(given) == weights.encoded({"b": table, "a": table[:, 1:], "c": table})


@needs_safetensors
@pytest.mark.parametrize("given", [{}, {"a": object()}, {"a": np.array(["text"])}, {1: np.zeros(2)}])
def test_what_are_no_weights_is_refused(given: Any) -> None:
    """Objects would need pickle."""
    with pytest.raises(ModelError):
        weights.encoded(given)


def test_the_room_imports_nothing_before_it_is_asked() -> None:
    """And tells its names."""
    assert set(dir(models)) == {"ModelVersion", "current", "point", "read", "register", "versions"}
    assert models.ModelVersion is ModelVersion
    with pytest.raises(AttributeError, match="nothing"):
        models.nothing  # noqa: B018
