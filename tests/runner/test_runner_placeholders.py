"""What stands for objects that cannot be opened on the server's host: pickled as they are, and never computed with."""

from __future__ import annotations

import copy
import datetime
import inspect
import os.path
import pickle
from typing import Any

import pytest

from covalent_cirro.runner import placeholders
from covalent_cirro.runner.placeholders import Missing, NotOpened, Result

WHY = ModuleNotFoundError("No module named 'theirs'", name="theirs")


def result(of: Any) -> Result:
    """What stands for a result."""
    return Result("the result of 'make'", WHY, lambda: pickle.dumps(of))


def missing(module: str, name: str) -> Missing:
    """What stands for something that is named."""
    return Missing(module, name, WHY)


@pytest.mark.parametrize("of", [3, [1, {"a": None}], datetime.date(2026, 1, 2)])
def test_a_result_is_pickled_as_it_is(of: Any) -> None:
    """Alone, and in whatever it was put."""
    assert pickle.loads(pickle.dumps(result(of))) == of
    assert pickle.loads(pickle.dumps({"in": [result(of), 1]})) == {"in": [of, 1]}


@pytest.mark.parametrize(
    ("module", "name", "is_"),
    [
        ("os.path", "join", os.path.join),
        ("os.path", "", os.path),
        ("datetime", "datetime", datetime.datetime),
        ("datetime", "datetime.now", datetime.datetime.now),
    ],
)
def test_a_name_is_pickled_as_what_it_names(module: str, name: str, is_: Any) -> None:
    """A function, a module, a class, a method."""
    assert pickle.loads(pickle.dumps(missing(module, name))) == is_


@pytest.mark.parametrize(
    "use",
    [
        *(lambda x: x.value, lambda x: x + 1, lambda x: 1 + x, lambda x: x[0], lambda x: x == 3, lambda x: x != 3),
        *(lambda x: x < 3, lambda x: 3 in x, lambda x: x(), lambda x: -x, bool, len, list, int, float, round, iter),
    ],
)
def test_nobody_computes_with_a_result(use: Any) -> None:
    """Where Python would find an answer of its own (`==`, `bool`), it would be wrong."""
    with pytest.raises(NotOpened, match=r"the result of 'make' cannot be opened.*No module named 'theirs'") as caught:
        use(result(3))
    assert caught.value.__cause__ is WHY


@pytest.mark.parametrize("use", [lambda x: x.table, lambda x: x(), lambda x: x + 1, len])
def test_nobody_uses_what_is_only_named(use: Any) -> None:
    """It is not here."""
    with pytest.raises(NotOpened, match=r"theirs\.answer cannot be opened"):
        use(missing("theirs", "answer"))


def test_covalent_sees_a_function() -> None:
    """It asks for a name, a signature and a truth, and whether it is a lattice."""
    of = missing("theirs", "answer")
    assert (of.__name__, bool(of), callable(of), hasattr(of, "workflow_function")) == ("answer", True, True, False)
    assert [each.kind.name for each in inspect.signature(of).parameters.values()] == ["VAR_POSITIONAL", "VAR_KEYWORD"]


def test_people_see_what_it_stands_for() -> None:
    """In a list, and in the name of a node."""
    assert str([result(1)]) == "[<the result of 'make', not opened on the server's host>]"


def test_it_can_be_copied() -> None:
    """As Covalent does with metadata, and a user with a list."""
    assert pickle.loads(pickle.dumps(copy.deepcopy([result(3), copy.copy(result(4))]))) == [3, 4]


def test_a_name_that_is_there_is_itself() -> None:
    """Only what is missing is stood in for, and the rest of a pickle is read as ever."""
    found = placeholders.loads(b"\x80\x04]\x8c\x07os.path\x8c\x04join\x93actheirs\nanswer\na.")
    assert found[0] is os.path.join
    assert isinstance(found[1], Missing)
