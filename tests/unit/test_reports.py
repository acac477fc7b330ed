"""Values that electrons report: the names that have them, and `covalent_cirro.trial` in and outside of a job."""

from __future__ import annotations

import math
import os
import struct
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro import trial
from covalent_cirro.aws.batch import tag_value
from covalent_cirro.contract import reports
from covalent_cirro.contract.limits import ELECTRON_CHARS, MAX_STEP
from covalent_cirro.contract.maps import ITEM_VARIABLE, MAX_ITEMS
from covalent_cirro.contract.protocol import CHECKPOINT_VARIABLE, REPORTS_FILE
from covalent_cirro.contract.reports import Curve, Point
from covalent_cirro.errors import SettingsError

DISPATCH = "5ad3f6a4-6f0a-4b3f-9c7e-0123456789ab"

points = st.builds(
    Point,
    step=st.integers(0, MAX_STEP),
    value=st.floats(),
    item=st.none() | st.integers(0, MAX_ITEMS - 1),
)


def same(one: Point, other: Point) -> bool:
    """Equal, also where the value is NaN."""
    return one[::2] == other[::2] and struct.pack(">d", one.value) == struct.pack(">d", other.value)


def key(attempt: int, number: int, some: list[Point], lattice: str = "sweep", node_id: int = 4) -> str:
    """The key under which a runner stores points."""
    return reports.base("cirro/", lattice, DISPATCH, node_id) + reports.name(attempt, number, some)


# --- names --------------------------------------------------------------------------------------------------------


@given(st.lists(points, min_size=1, max_size=12, unique_by=lambda point: (point.step, point.item)))
def test_points_are_read_as_they_were_reported(some: list[Point]) -> None:
    """Any step, value and item; each point in the order of items and steps."""
    (curve,) = reports.curves([key(1, 0, some)], "cirro/")
    ordered = sorted(some, key=lambda point: (-1 if point.item is None else point.item, point.step))
    assert curve[:3] == ("sweep", DISPATCH, 4)
    assert len(curve.points) == len(ordered)
    assert all(map(same, curve.points, ordered))


@given(points)
def test_a_record_is_read_as_it_was_written(point: Point) -> None:
    """Also between others, and before one that is not whole yet."""
    data = reports.record(Point(1, 2.0)) + reports.record(point) + reports.record(point)[:-1]
    first, second = reports.records(data)
    assert first == Point(1, 2.0)
    assert same(second, point)


@given(st.integers(1, 3000), st.text(min_size=1, max_size=ELECTRON_CHARS), st.integers(0, MAX_STEP))
def test_a_key_is_never_too_long(count: int, lattice: str, step: int) -> None:
    """However many points there are, and whatever the lattice is called; the last point is never left out."""
    some = [Point(max(0, step - count + each), each / 7, MAX_ITEMS - 1) for each in range(count)]
    prefix = "p" * 200 + "/"
    found = reports.base(prefix, lattice, DISPATCH, 10**8) + reports.name(10, 20, some)
    assert len(found.encode()) <= reports.MAX_KEY_BYTES
    (curve,) = reports.curves([found], prefix)
    assert curve.points[-1].value == some[-1].value


def test_a_later_attempt_has_the_later_word() -> None:
    """For steps that both reported; earlier steps of the first attempt stay. The order of the keys does not matter."""
    first = key(1, 0, [Point(0, 0.5), Point(1, 0.6)]), key(1, 1, [Point(2, 0.7)])
    second = key(2, 0, [Point(2, 0.8), Point(3, 0.9)])
    (curve,) = reports.curves([second, *first], "cirro/")
    assert [point.value for point in curve.points] == [0.5, 0.6, 0.8, 0.9]


def test_one_listing_has_the_electrons_of_many_dispatches() -> None:
    """Of lattices whose names begin alike: a search numbers its trials."""
    keys = [key(1, 0, [Point(0, number / 2)], f"digits {number}", node_id=number) for number in range(3)]
    assert all(each.startswith(reports.base("cirro/", "digits ").rstrip("/")) for each in keys)
    found = reports.curves(keys, "cirro/")
    assert [(curve.lattice, curve.node_id) for curve in found] == [("digits_0", 0), ("digits_1", 1), ("digits_2", 2)]
    assert found[2] == Curve("digits_2", DISPATCH, 2, (Point(0, 1.0),))


@given(st.text(min_size=1, max_size=ELECTRON_CHARS))
def test_a_lattices_tag_finds_what_its_electrons_report(lattice: str) -> None:
    """Commands know a lattice by the tag of its jobs."""
    name = unicodedata.normalize("NFC", lattice)  # as Python has identifiers (Language Reference, 2.3)
    if not name.lower().startswith("aws:"):
        assert reports.folded(tag_value(name)) == reports.folded(name)


@pytest.mark.parametrize(
    "made",
    [
        "cirro/reports/sweep/d/4/0001-00000-AAA.reported",  # half a point
        "cirro/reports/sweep/d/4/0001-00000-" + "_" * 40 + ".reported",  # a step that has no end
        "cirro/reports/sweep/d/4/0001-00000-A.reported",  # no base64
        "cirro/reports/sweep/d/x/0001-00000-AAAAAAAAAAAAAA.reported",
        "cirro/reports/sweep/d/4/1-0-AAAAAAAAAAAAAA.reported",
        "cirro/reports/sweep/d/4/more/0001-00000-AAAAAAAAAAAAAA.reported",
        "cirro/reports/sweep/4/0001-00000-AAAAAAAAAAAAAA.reported",
        "cirro/jobs/sweep/d/4/0001-00000-AAAAAAAAAAAAAA.reported",
        "cirro/reports/sweep/d/4/0001-00000-AAAAAAAAAAAAAA",
        "",
    ],
)
def test_a_name_that_no_runner_gave_is_left_out(made: str) -> None:
    """A job may name its own objects as it likes."""
    good = key(1, 0, [Point(0, 0.5)])
    assert [curve.points for curve in reports.curves([made, good], "cirro/")] == [(Point(0, 0.5),)]


# --- trial.report -------------------------------------------------------------------------------------------------


def test_outside_of_a_job_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the same function runs on a laptop."""
    monkeypatch.delenv(CHECKPOINT_VARIABLE, raising=False)
    trial.report(0, 0.5)


class OneElement:
    """As a tensor with one element."""

    def __float__(self) -> float:
        return 0.25


@pytest.mark.parametrize(("value", "read"), [(1, 1.0), (True, 1.0), (OneElement(), 0.25), (math.inf, math.inf)])
def test_it_takes_what_is_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, read: float) -> None:
    """The runner finds it in a file that only the user of the job can read."""
    monkeypatch.setenv(CHECKPOINT_VARIABLE, str(tmp_path))
    trial.report(3, value)
    assert reports.records((tmp_path / REPORTS_FILE).read_bytes()) == [Point(3, read)]
    assert os.stat(tmp_path / REPORTS_FILE).st_mode & 0o777 == 0o600


def test_an_item_of_a_map_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has steps of its own."""
    monkeypatch.setenv(CHECKPOINT_VARIABLE, str(tmp_path))
    monkeypatch.setenv(ITEM_VARIABLE, "7/10")
    trial.report(0, 1)
    assert reports.records((tmp_path / REPORTS_FILE).read_bytes()) == [Point(0, 1.0, 7)]


@pytest.mark.parametrize("step", [-1, 0.5, "1", None, 2**53 + 1])
@pytest.mark.parametrize("in_a_job", [True, False])
def test_a_step_is_a_whole_number_from_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Any, in_a_job: bool
) -> None:
    """What is wrong is told on the laptop, too."""
    if in_a_job:
        monkeypatch.setenv(CHECKPOINT_VARIABLE, str(tmp_path))
    with pytest.raises(SettingsError, match="whole numbers from 0"):
        trial.report(step, 0.5)


@pytest.mark.parametrize("value", ["high", None, [1.0, 2.0]])
def test_a_value_is_a_number(value: Any) -> None:
    """Not a text, and not several."""
    with pytest.raises(SettingsError, match="takes one number"):
        trial.report(0, value)
