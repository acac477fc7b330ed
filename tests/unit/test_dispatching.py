"""A lattice from a file, with arguments as they were typed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import covalent as ct
import pytest

from covalent_cirro import dispatching
from covalent_cirro.errors import SettingsError

FILE = """
import covalent as ct
from beside import FACTOR

@ct.electron
def times(x):
    return x * FACTOR

@ct.lattice
def flow(x, repeat=1):
    return [times(x) for _ in range(repeat)]

if __name__ == "__main__":
    raise SystemExit("this is not for those who import it")
"""
SECOND = "\n@ct.lattice\ndef other():\n    return times(1)\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file with one lattice, and a module beside it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside.py").write_text("FACTOR = 3\n")
    path = tmp_path / "workflow_of_mine.py"
    path.write_text(FILE)
    yield path
    for name in ("beside", path.stem):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["", ":flow"])
def test_a_lattice_is_found_in_its_file(file: Path, name: str) -> None:
    """By its name, or alone; modules beside the file are found as well."""
    assert dispatching.load(f"{file}{name}").__name__ == "flow"


def test_a_lattice_that_is_not_there_is_answered_with_those_that_are(file: Path) -> None:
    """And so is a file with several, a file that is missing, and one without."""
    with pytest.raises(SettingsError, match=r"no lattice 'sweep': there is .*:flow"):
        dispatching.load(f"{file}:sweep")
    file.write_text(FILE + SECOND)
    with pytest.raises(SettingsError, match=r"which lattice of .*:flow, .*:other"):
        dispatching.load(str(file))
    with pytest.raises(SettingsError, match="there is no file"):
        dispatching.load("nowhere.py:flow")
    file.write_text("x = 1")
    with pytest.raises(SettingsError, match="there is none"):
        dispatching.load(f"{file}:flow")


def lattice() -> Any:
    """One argument that is needed, and two that are not."""
    return ct.lattice(lambda data, learning_rate=0.1, *, tags=(): None)


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        (["--data", "s3://bucket/key"], {"data": "s3://bucket/key"}),
        (["--data=1", "--learning-rate", "1e-3"], {"data": 1, "learning_rate": 0.001}),
        (["--data", "[1, 2]", "--tags=('a',)"], {"data": [1, 2], "tags": ("a",)}),
        (["--data", "'1'"], {"data": "1"}),
        (["--data", "-1"], {"data": -1}),
    ],
)
def test_arguments_are_read_as_python_reads_them(typed: list[str], given: dict[str, Any]) -> None:
    """What is no Python is the text itself."""
    assert dispatching.arguments(lattice(), typed) == given


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ([], r"needs --data\. It takes: --data, --learning_rate \(0\.1\), --tags \(\(\)\)"),
        (["--data", "1", "--rate", "2"], "has no argument rate"),
        (["1"], "'1' is not understood"),
        (["--data"], "--data has no value"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(typed: list[str], words: str) -> None:
    """Before anything is dispatched, with those that there are."""
    with pytest.raises(SettingsError, match=words):
        dispatching.arguments(lattice(), typed)
