"""Tests are shared out to processes in units: a file, or the files that use one local stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.work_units import BUILD_IMAGES, OF_THEIR_OWN, SHARED, unit

TESTS = Path(__file__).parents[1]


def names(folder: str) -> set[str]:
    """Files of tests in a folder, without ``test_`` and ``.py``."""
    return {path.stem.removeprefix("test_") for path in (TESTS / folder).glob("test_*.py")}


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("tests/unit/test_jobs.py::test_a[x::y]", "tests/unit/test_jobs.py"),
        ("tests/cli/history/test_jobs.py::test_a", "tests/cli/history/test_jobs.py"),
        ("tests/covalent/test_electrons.py::test_a", "tests/covalent"),
        ("tests/covalent/test_sweep.py::test_a", "tests/covalent/test_sweep.py"),
        ("tests/faults/test_soak.py::test_a", SHARED["aws_calls"]),
    ],
)
def test_the_unit_of_a_test(nodeid: str, expected: str) -> None:
    """Its file, or what its file shares a stack with."""
    assert unit(nodeid) == expected


def test_the_units_are_of_files_that_exist() -> None:
    """Each file under faults has a unit, and no file is named that is gone."""
    assert set(SHARED) == names("faults")
    assert set(OF_THEIR_OWN) < names("covalent")
    assert {unit(f"{path}::test_a") for path in BUILD_IMAGES} == {"images"}
    assert all((TESTS.parent / path).exists() for path in BUILD_IMAGES)
