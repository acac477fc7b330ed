"""What a job prints, raises or is called commands nobody's terminal; and is changed for nobody who reads it."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from covalent_cirro.cli import render, terminal

ATTACKS = {
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "clipboard, ended by ST": "\x1b]52;c;ZXZpbA==\x1b\\",
    "clipboard in C1": "\x9d52;c;ZXZpbA==\x9c",
    "title": "\x1b]0;evil\x07",
    "link": "\x1b]8;;http://evil.example\x07",
    "clear": "\x1b[2J\x1b[H",
    "clear in C1": "\x9b2J",
    "cursor up": "\x1b[10A",
    "reset": "\x1bc",
    "answer": "\x1b[6n\x1b[c\x1b[>q",
    "keys": "\x1b[>4;2m\x1b[?1000h",
    "another character set": "\x1b(0",
    "device control": "\x1bP+q544e\x1b\\",
    "privacy message": "\x1b^x\x1b\\",
    "single shift": "\x1bN\x8e",
    "bell and shifts": "\a\x0e\x0f\x00\x7f",
    "paper feed": "\x0c\x0b",
    "another order": "\u202e\u2066",
    "a colour that is none": "\x1b[5 m",
}

KEPT = "red \x1b[31mred\x1b[0m\ttab\x1b[1;38;5;10m bold \x1b[m größe 🌲\n50 %\r\x1b[K100 %\b\b\n"
"""Colours, tabs, lines, and what progress bars do to their own line."""

SECONDS = 5.0
"""Within this two million characters are looked through on one core of a busy machine."""

PARTS = ("\x1b]", "\x9d", "\x1b[", "\x9b", "\x9b5m", "\x1b", "\x1b(", "\x1b]0;x\x07")
"""Of sequences, and some that are whole."""

pieces = st.lists(
    st.sampled_from([*ATTACKS.values(), *PARTS, "\\", "m", "5", ";", "\x1b[31m", "\n"]) | st.text(max_size=3),
    max_size=12,
)


def assert_harmless(text: str) -> None:
    """Nothing but text, colours, and the erasing of a line."""
    rest = re.sub(r"\x1b\[[0-9;:]*m|\x1b\[[012]?K", "", text)
    assert not re.search(r"[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", rest), ascii(text)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_sequence_that_commands_the_terminal_is_taken_out(attack: str) -> None:
    """What stands around it is shown."""
    assert terminal.harmless(f"before {attack}after") == "before after"
    assert terminal.plain(f"before {attack}after") == "before after"


def test_colours_and_progress_bars_stay() -> None:
    """As they are."""
    assert terminal.harmless(KEPT) == KEPT


@given(pieces)
def test_whatever_is_printed_a_terminal_gets_text(printed: list[str]) -> None:
    """In one piece or in many, and the same: a sequence may be torn between two pieces."""
    stream = terminal.HarmlessStream()
    shown = "".join(stream.feed(piece) for piece in printed)
    assert_harmless(shown)
    shown += stream.end().removesuffix("\n").removesuffix(terminal.RESET)
    assert_harmless(shown)
    assert shown == terminal.harmless("".join(printed))


@example(["seven\b\b\b\b\bthree"])
@given(pieces)
def test_a_cell_is_one_line_without_any_control(printed: list[str]) -> None:
    """So is a name, whatever an electron is called."""
    cell = terminal.plain("".join(printed))
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", cell)


def test_a_sequence_without_an_end_hides_nothing() -> None:
    """Not what comes on the next line, nor what follows when it gets too long for a sequence."""
    stream = terminal.HarmlessStream()
    assert stream.feed("\x1b]0;title\nthe error\n") == "0;title\nthe error\n"
    assert stream.feed("\x1b]52;" + "x" * 10_000).endswith("x" * 10_000)


@pytest.mark.parametrize("unit", [*PARTS, "\x1b[31m", "\r"], ids=ascii)
def test_many_sequences_take_no_time(unit: str) -> None:
    """A log is looked through once, whatever it consists of."""
    stream, text = terminal.HarmlessStream(), unit * (2_000_000 // len(unit))
    began = time.process_time()
    assert_harmless(stream.feed(text) + stream.end())
    assert time.process_time() - began < SECONDS


def test_after_a_log_the_terminal_is_as_it_was() -> None:
    """No colour stays, and what is said next begins a line."""
    stream = terminal.HarmlessStream()
    assert stream.feed("\x1b[31mred") == "\x1b[31mred"
    assert stream.end() == "\x1b[0m\n"
    assert stream.end() == ""
    stream.feed("a line\n")
    assert stream.end() == ""


# --- what the commands print ----------------------------------------------------------------------------------------

EVIL = "x[0:100:2] [red]:smile:[/red] \x1b]52;c;ZXZpbA==\x07\x1b[2J[link=http://evil.example]"
SHOWN = "x[0:100:2] [red]:smile:[/red] [link=http://evil.example]"


class Screen(io.StringIO):
    """A terminal, as far as streams tell."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """It is one."""
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Screen]:
    """Puts a terminal in the place of stdout and stderr, once the test has begun, and gives what it gets."""
    return lambda: put_screen(monkeypatch)


def put_screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """The terminal."""
    screen = Screen()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    for name in ("_out", "_err"):
        console = Console(highlight=False, soft_wrap=True, file=screen, force_terminal=True, width=200)
        monkeypatch.setattr(render, name, lambda console=console: console)
    return screen


class Found:
    """As `health.findings.Finding`."""

    id, subject, level, seen, remedy = "check", EVIL, "failure", EVIL, EVIL


def show_everything() -> None:
    """Prints the text in every way that there is."""
    for show in (render.line, render.heading, render.note, render.done, render.warning, render.failure, render.alert):
        show(EVIL)
    render.changes(EVIL, [("+", EVIL, EVIL, EVIL)])
    render.event(EVIL, EVIL, EVIL, EVIL)
    render.facts([(EVIL, EVIL)])
    render.table(("electron", ""), [(EVIL, EVIL)])
    render.findings([Found()])
    render.raw(f"{EVIL}\n")
    with render.live() as table:
        table(("electron", ""), [(EVIL, EVIL)], f"{EVIL}\n{EVIL}")


def test_no_command_prints_a_control_sequence_or_changes_a_text(screen: Callable[[], Screen]) -> None:
    """Neither markup nor emoji codes of rich mean anything in a text that comes from outside."""
    seen = screen()
    show_everything()
    got = seen.getvalue()
    assert "52;c" not in got
    assert "\x1b[2J" not in got
    assert "\x1b]" not in got
    assert got.count("x[0:100:2] [red]:smile:[/red]") >= 20
    assert "😄" not in got
    assert "💯" not in got


def test_a_pipe_gets_every_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """A log to the byte; of a table, its cells in one line each."""
    render.raw(EVIL + KEPT)
    assert capsys.readouterr().out == EVIL + KEPT


def test_steps_that_name_what_is_outside(screen: Callable[[], Screen]) -> None:
    """A spinner is a text too."""
    seen = screen()
    with render.steps() as say:
        say(EVIL)
    with render.transfer() as show:
        show(EVIL, 1, 2)
    got = seen.getvalue()
    assert "52;c" not in got
    assert "💯" not in got
    assert SHOWN in got
