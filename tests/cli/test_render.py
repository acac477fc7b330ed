"""Tables on terminals of any width and in pipes: nothing that a user has to read or type is cut."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from covalent_cirro.cli import render

HEADERS = ("electron", "node", "state", "")
ADVICE = (
    "its time_limit of 20 min ends it in 3 min: next time, set time_limit=2400 on its executor; and to run more at "
    "once, raise the maximum: `cirro deploy --parameter CpuSpotMaxVcpus=128 --stack-name cirro --region eu-west-1`"
)
ROWS = [
    ("train", "0123abcd:4", "RUNNING 42 s", ADVICE),
    ("evaluate_the_whole_of_it", "0123abcd:17", "SUCCEEDED 3 min 20 s ago", ""),
]

Show = Callable[[], str]


@pytest.fixture(name="on_terminal")
def put_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], io.StringIO]:
    """A terminal of a width."""

    def make(width: int) -> io.StringIO:
        screen = io.StringIO()
        made = Console(
            highlight=False,
            soft_wrap=True,
            file=screen,
            force_terminal=True,
            width=width,
            height=200,
            color_system=None,
        )
        monkeypatch.setattr(render, "_out", lambda: made)
        return screen

    return make


def words(text: str) -> str:
    """The text without the places where its lines were broken."""
    return "".join(text.split())


@pytest.mark.parametrize("width", [20, 45, 80, 120, 200])
def test_advice_in_a_table_is_wrapped(on_terminal: Callable[[int], io.StringIO], width: int) -> None:
    """All of it is there, on a terminal of any width; beside its row only where there is room for it."""
    screen = on_terminal(width)
    render.table(HEADERS, ROWS)
    shown = screen.getvalue()
    assert "…" not in shown
    if width < 120:
        assert words(ADVICE) in words(shown)
    else:
        assert all(word in shown for word in ADVICE.split())
    assert max(map(len, shown.splitlines())) <= width


@pytest.mark.parametrize("width", [20, 45, 80, 120, 200])
def test_advice_in_and_above_a_table_that_is_updated_is_wrapped(
    on_terminal: Callable[[int], io.StringIO], width: int
) -> None:
    """``cirro jobs --watch``: rich itself would cut these lines."""
    screen = on_terminal(width)
    with render.live() as show:
        show(HEADERS, ROWS, f"1 RUNNING\n{ADVICE}")
        shown = screen.getvalue()
    assert words(ADVICE) in words(shown)
    assert shown.count("eu-west-1`") == 2
    assert "evaluate_the_whole_of_it" in words(shown)


def test_a_pipe_has_a_row_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe has no width; ``grep`` finds an electron with all that is said of it."""
    render.table(HEADERS, ROWS)
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["electron", "node", "state"]
    assert first.endswith(ADVICE)
    assert second.endswith("SUCCEEDED 3 min 20 s ago")


def test_a_table_may_have_no_rows_yet(on_terminal: Callable[[int], io.StringIO]) -> None:
    """Before the first answer of AWS there is a line only."""
    screen = on_terminal(80)
    with render.live() as show:
        show((), (), "looking for jobs")
        assert "looking for jobs" in screen.getvalue()
