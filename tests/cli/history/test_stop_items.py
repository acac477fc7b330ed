"""``cirro stop DISPATCH:NODE[ITEM]``: ends the job of a map that computes an item, and says what becomes of it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from click.testing import Result

from covalent_cirro import mapped
from tests.cli.history.conftest import Lab, poll

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Document = Callable[..., Any]
Cirro = Callable[..., Result]


@mapped("x")
def wait_at(x: int, folder: str) -> int:
    """An electron that ends at once for even items, and runs on for odd ones."""
    (Path(folder) / str(x)).touch()
    time.sleep(600 if x % 2 else 0)
    return x


@mapped("x")
def square(x: int) -> int:
    """An electron that ends at once."""
    return x * x


def plain(folder: str) -> None:
    """No map."""


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    """A folder with a file for each item that has begun."""
    folder = tmp_path / "seen"
    folder.mkdir()
    return folder


def test_the_job_of_an_item_is_stopped_and_the_others_go_on(
    lab: Lab, document: Document, cirro: Cirro, seen: Path
) -> None:
    """It is told which job, what stays and what becomes of the rest; a second time it is told that it had ended."""
    sent = lab.send(wait_at, kwargs={"x": list(range(6)), "folder": str(seen)}, array_size=3, on_error="return")
    poll(lambda: len(os.listdir(seen)) == 6, "all items have begun")
    shown = " ".join(cirro("stop", f"{sent.name}[3]").stdout.split())
    assert (
        f"stopping job 1 of 3 of wait_at {sent.dispatch_id[:8]}:0, which computes item 3 (job {sent.job_id}:1)" in shown
    )
    assert "The other jobs go on; in the places of these items the list has an ElectronFailed" in shown
    stopped = lab.done(f"{sent.job_id}:1")
    assert "cirro stop, by " in stopped["statusReason"]
    assert lab.job(f"{sent.job_id}:0")["status"] == "RUNNING"
    [told] = document("stop", f"{sent.name}[2]")["items"]
    assert (told["end"], told["first"], told["stop"]) == ("DONE", 2, 4), "what the job had computed is stored"
    assert "its job had already ended: FAILED" in cirro("stop", f"{sent.name}[3]").stdout


def test_a_map_of_one_job_is_not_cancelled(lab: Lab, document: Document, seen: Path) -> None:
    """A Covalent server takes its items for failed."""
    sent = lab.send(wait_at, kwargs={"x": [0, 1], "folder": str(seen)}, array_size=1)
    poll(lambda: len(os.listdir(seen)) == 2, "all items have begun")
    [told] = document("stop", f"{sent.name}[1]")["items"]
    assert (told["end"], told["jobs"], told["job_id"]) == ("STOPPED", 1, sent.job_id)
    assert lab.done(sent)["statusReason"].startswith("Stopped with its items (cirro stop, by ")


def test_an_item_that_there_is_not_is_refused(lab: Lab, cirro: Cirro, tmp_path: Path) -> None:
    """And so is an item of an electron that is no map."""
    sent, other = lab.send(square, kwargs={"x": [1, 2]}, array_size=2), lab.send(plain, str(tmp_path))
    beyond = cirro("stop", f"{sent.name}[2]")
    assert beyond.exit_code == 1
    assert "has no item 2: its items are 0 to 1" in beyond.output
    none = cirro("stop", f"{other.name}[0]")
    assert none.exit_code == 1
    assert "is no map, and has no items" in none.output
