"""Which local stack a command finds: the nearest that runs, of this user; without starting one."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from covalent_cirro.errors import EmulatorError
from covalent_cirro.local import nearest
from covalent_cirro.local.state_folder import STATE_FILE, Service, State, StateFolder

NOBODY = 4711


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with folders in it; the current folder is the lowest. Gives the highest."""
    below = tmp_path / "lab" / "project" / "scripts"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    monkeypatch.delenv(nearest.VARIABLE)
    return tmp_path / "lab"


def started(folder: Path, *, runs: bool) -> Path:
    """A state folder, whose emulator is this process or one that has ended."""
    state_dir = folder / nearest.STATE_DIR
    began = psutil.Process().create_time() - (0 if runs else 1000)
    emulator = Service(pid=os.getpid(), started=began, url="http://127.0.0.1:1", log="")
    place = StateFolder(state_dir)
    with place.locked():
        place.write(State(emulator=emulator))
    return state_dir


def running() -> Path | None:
    """The state folder of the local stack that is found."""
    found = nearest.find().running
    return None if found is None else found.state_dir


def test_where_nothing_was_started_nothing_is_found() -> None:
    """Also where the current folder was deleted."""
    assert nearest.find() == (None, None)
    Path.cwd().rmdir()
    assert nearest.find() == (None, None)


def test_a_local_stack_of_this_folder_or_above_is_found(lab: Path) -> None:
    """The nearest, if there are several."""
    above = started(lab, runs=True)
    assert running() == above
    here = started(lab / "project" / "scripts", runs=True)
    assert running() == here


def test_a_local_stack_that_has_ended_does_not_count(lab: Path) -> None:
    """It is told; one that runs further above is found."""
    ended = started(lab / "project", runs=False)
    assert nearest.find() == (None, ended)
    above = started(lab, runs=True)
    assert running() == above


def test_one_that_starts_does_not_count_yet(lab: Path) -> None:
    """Its emulator has no address."""
    place = StateFolder(started(lab, runs=True))
    starting = place.read().emulator
    assert starting is not None
    place.write(State(emulator=Service(pid=starting.pid, started=starting.started, url="", log="")))
    assert running() is None


def test_the_local_stack_of_another_user_is_none(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who can write into a folder above must not choose which AWS and which Covalent server is used."""
    started(lab, runs=True)
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert nearest.find() == (None, None)


def test_neither_is_a_link_to_one(lab: Path) -> None:
    """A local stack is started by the name of its folder itself."""
    there = started(lab, runs=True)
    there.rename(lab / "elsewhere")
    there.symlink_to(lab / "elsewhere")
    assert nearest.find() == (None, None)


def test_the_folder_that_a_variable_names_is_the_only_one(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs in the current folder."""
    started(lab, runs=True)
    named = started(lab / "project", runs=True)
    monkeypatch.setenv(nearest.VARIABLE, f"../{nearest.STATE_DIR}")
    assert running() is not None
    assert os.path.realpath(str(running())) == str(named)
    monkeypatch.setenv(nearest.VARIABLE, str(lab / "nowhere"))
    assert nearest.find() == (None, None)


@pytest.mark.parametrize("what", ["damaged", "open to others"])
def test_what_cannot_be_trusted_is_an_error(lab: Path, what: str) -> None:
    """It may run: to act on AWS instead would be a surprise. The message says how to do that."""
    place = started(lab, runs=True)
    if what == "damaged":
        (place / STATE_FILE).write_text("{")
    else:
        place.chmod(0o777)
    with pytest.raises(EmulatorError, match="With --aws, commands use your own AWS"):
        nearest.find()
