"""References to stored values: their text, how it is found in bytes, what people read, and what servers do with it."""

from __future__ import annotations

import base64
import copy
import dataclasses
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.contract import stored_references
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import STORED_KEPT, STORED_REFUSED, STORED_VARIABLE
from covalent_cirro.contract.references import Blob
from covalent_cirro.contract.stored_references import MARKER, ReferenceFinder, StoredReference, from_text, to_text
from covalent_cirro.electron import stored_inputs
from covalent_cirro.errors import SettingsError, StoredError
from covalent_cirro.jobs import arguments
from covalent_cirro.stored_values import describing, progress_bar
from covalent_cirro.stored_values.handles import Stored

BLOB = Blob("0f" * 32, 10, "raw", 10)
OTHER = Blob("1e" * 32, 20, "zlib", 90)
REFERENCE = StoredReference("bucket", "cirro/", "value", "", "array float64 (2500, 2500), 50 MB", BLOB)
FILE = StoredReference("bucket", "cirro/", "file", 'é "odd"\n.csv', "file, 1 kB", BLOB, (OTHER,))


@dataclasses.dataclass
class Config:
    """An argument with a handle inside."""

    data: Any
    lr: float = 0.1


# --- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", [REFERENCE, FILE])
def test_a_reference_comes_back_as_it_was(reference: StoredReference) -> None:
    """In ASCII, so that every pickle has it as it is."""
    assert to_text(reference).isascii()
    assert from_text(to_text(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        MARKER,
        MARKER + "{}\n",
        to_text(REFERENCE).replace("value 1 ", "value 2 "),
        to_text(REFERENCE).replace("0f0f", "zzzz"),
        to_text(REFERENCE).replace('"value"', '"socket"'),
        to_text(FILE._replace(name="..")),
        to_text(FILE._replace(name="a/b")),
        to_text(FILE._replace(name="")),
        MARKER + "[" * 100_000,
    ],
)
def test_another_text_is_refused(text: str) -> None:
    """Also a name that would lead out of a folder."""
    with pytest.raises(ProtocolError):
        from_text(text)


@given(st.binary(max_size=300), st.binary(max_size=300), st.lists(st.integers(1, 900), max_size=6))
def test_references_are_found_in_bytes_however_these_are_cut(before: bytes, after: bytes, cuts: list[int]) -> None:
    """Each once, in order."""
    texts = to_text(FILE).encode(), to_text(REFERENCE).encode()
    data = before + texts[0] + after + texts[1] + before + texts[0] + MARKER.encode()
    finder, at = ReferenceFinder(), 0
    for cut in [*cuts, len(data)]:
        finder.see(memoryview(data)[at : at + cut])
        at += cut
    assert list(finder.found) == [FILE, REFERENCE]


@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
def test_references_are_found_in_every_pickle(protocol: int) -> None:
    """In an object, in a closure, in a pickle in a pickle, in frames of megabytes."""
    handle = Stored(FILE)
    for value in (handle, [Config(handle)], b"x" * 10**6 + pickle.dumps(handle), (bytes(10**6), handle)):
        assert stored_references.find(pickle.dumps(value, protocol)) == (FILE,)
    assert stored_references.find(cloudpickle.dumps(lambda: handle)) == (FILE,)


def test_a_pickle_that_is_a_handle_is_known_from_one_that_has_a_handle_inside() -> None:
    """As Covalent pickles it."""
    assert stored_references.of_handle(cloudpickle.dumps(Stored(FILE))) == FILE
    assert stored_references.of_handle(cloudpickle.dumps(Stored(REFERENCE))) == REFERENCE
    for other in ([Stored(FILE)], to_text(FILE), (1, 2)):
        assert stored_references.of_handle(cloudpickle.dumps(other)) is None
    assert stored_references.is_handle(Stored(FILE))
    assert not stored_references.is_handle(FILE)


def test_what_only_looks_like_a_reference_is_no_error() -> None:
    """A text about one, and one without an end."""
    assert stored_references.find(MARKER.encode() * 3 + b"{}\n" + b"x" * 10**5 + MARKER.encode()) == ()


# --- handles ----------------------------------------------------------------------------------------------------------


def test_a_handle_is_a_small_value_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to another of the same bytes, copied by Covalent as itself, and pickled to the same bytes each time."""
    monkeypatch.delenv(STORED_VARIABLE, raising=False)
    handle = Stored(REFERENCE)
    assert copy.deepcopy({"x": handle})["x"] is handle
    assert pickle.loads(pickle.dumps(handle)) == handle
    assert cloudpickle.dumps(pickle.loads(pickle.dumps(handle))) == cloudpickle.dumps(
        Stored(from_text(to_text(REFERENCE)))
    )
    assert len({handle, Stored(REFERENCE), Stored(FILE)}) == 2
    assert (handle.kind, handle.size, handle.uri) == ("value", 10, f"s3://bucket/cirro/blobs/{BLOB.sha256}")


def test_on_the_servers_host_it_is_handed_on_or_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that computes with it runs as a job then."""
    pickled = pickle.dumps(Stored(REFERENCE))
    monkeypatch.setenv(STORED_VARIABLE, STORED_KEPT)
    assert pickle.loads(pickled) == Stored(REFERENCE)
    monkeypatch.setenv(STORED_VARIABLE, STORED_REFUSED)
    with pytest.raises(StoredError, match="not opened on the server's host"):
        pickle.loads(pickled)


# --- for people -------------------------------------------------------------------------------------------------------


class Odd:
    """An object whose attributes are not what they seem."""

    dtype = "x"

    @property
    def shape(self) -> Any:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ([1, 2], "list of 2, 50 MB"),
        ({"a": 1}, "dict of 1, 50 MB"),
        (b"abc", "bytes, 50 MB"),
        (Odd(), "Odd, 50 MB"),
        (Config(1), "Config, 50 MB"),
    ],
)
def test_a_value_is_described_by_its_kind(value: Any, label: str) -> None:
    """Arrays and tensors also by type and shape."""
    assert describing.value_label(value, 50_000_000) == label


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_600, "1.0 MB"),
        (50_000_163, "50 MB"),
        (3 * 10**15, "3000 TB"),
    ],
)
def test_a_size_is_told_in_decimal_units(size: int, text: str) -> None:
    """As disks and AWS's prices have them."""
    assert describing.size_text(size) == text


def test_commands_and_the_panel_show_a_handle_in_short() -> None:
    """As an argument, and as a field of one."""
    handle = Stored(REFERENCE)
    found = arguments.summary([("data", str(handle)), ("config", str(Config(handle))), ("all", str([handle, 1]))])
    assert found == (
        ("data", "stored array float64 (2500, 2500), 50 MB"),
        ("config.data", "Stored(array float64 (2500, 2500), 50 MB)"),
        ("config.lr", "0.1"),
        ("all", "[Stored(array float64 (2500, 2500), 50 MB), 1]"),
    )


class Terminal(io.StringIO):
    """A stderr that somebody looks at."""

    def isatty(self) -> bool:
        """It is one."""
        return True


@pytest.mark.parametrize(
    ("stderr", "quiet_s", "is_shown"),
    [(Terminal, -1.0, True), (Terminal, 3600.0, False), (io.StringIO, -1.0, False)],
    ids=["slow", "quick", "no terminal"],
)
def test_a_progress_bar_is_shown_on_a_terminal_and_only_if_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, stderr: Callable[[], io.StringIO], quiet_s: float, is_shown: bool
) -> None:
    """With what is stored, and how much of it is done."""
    seen = stderr()
    monkeypatch.setattr("sys.stderr", seen)
    monkeypatch.setattr(progress_bar, "QUIET_S", quiet_s)
    with progress_bar.progress("storing [x]", 2000) as sent:
        sent(1000)
        sent(1000)
    assert ("storing [x]" in seen.getvalue()) == is_shown


# --- the server -------------------------------------------------------------------------------------------------------


def test_a_call_names_each_blob_once_with_those_inside() -> None:
    """Of the executor's own bucket and prefix only."""
    named = stored_inputs.named([REFERENCE, FILE], "bucket", "cirro/")
    assert [(each.blob, each.label) for each in named] == [
        (BLOB, REFERENCE.label),
        (OTHER, f"value inside of {FILE.label}"),
    ]
    with pytest.raises(SettingsError, match=r"s3://bucket/cirro/.*s3://other/cirro/"):
        stored_inputs.named([REFERENCE], "other", "cirro/")


def test_references_are_found_in_hooks(tmp_path: Path) -> None:
    """Covalent keeps arguments of call_before as base64 in JSON; a file that is none has none."""
    packed = base64.b64encode(pickle.dumps(([Stored(FILE)], {}))).decode()
    hooks = {"deps": {}, "call_before": [{"attributes": {"apply_args": {"attributes": {"_object": packed}}}}]}
    path = tmp_path / "hooks.json"
    path.write_text(json.dumps(hooks))
    assert stored_inputs.in_hooks(str(path)) == (FILE,)
    path.write_text("{")
    assert stored_inputs.in_hooks(str(path)) == ()
