"""What the pictures of the command line share: `cirro` in this process, and what it writes as an SVG of a terminal."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

import rich.live
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

WIDTH = 126
LONG, HEAD, TAIL = 60, 16, 22
"""Of an output that is longer, so many lines are shown from its beginning and from its end."""


class Terminal(Console):
    """A terminal whose spinners leave no trace, as they do when they have gone."""

    def status(self, *_: Any, **__: Any) -> Any:
        """Nothing to see."""

        class Gone:
            def update(self, *_: Any, **__: Any) -> None:
                pass

        return contextlib.nullcontext(Gone())


kept: list[RenderableType] = []
"""What `Frames` was given."""


class Frames(Live):
    """A table that changes in its place, each state of which is kept instead of shown."""

    def update(self, renderable: RenderableType, *, refresh: bool = False) -> None:
        """Keep it."""
        kept.append(renderable)

    def refresh(self) -> None:
        """Show nothing."""


def terminal(file: io.StringIO, width: int) -> Terminal:
    """A terminal with colours that writes into a text."""
    return Terminal(file=file, force_terminal=True, color_system="truecolor", width=width, highlight=False)


@contextlib.contextmanager
def _written(width: int) -> Iterator[io.StringIO]:
    from covalent_cirro.cli import render

    written = io.StringIO()
    shown = terminal(written, width)
    with (
        mock.patch.object(render, "_out", return_value=shown),
        mock.patch.object(render, "_err", return_value=shown),
        mock.patch.object(rich.live, "Live", Frames),  # `render.live` imports it when it is called
        contextlib.redirect_stdout(written),
        contextlib.redirect_stderr(written),
    ):
        yield written


def output_of(arguments: list[str], width: int = WIDTH) -> str:
    """What a command of `cirro` writes to a terminal, with its colours."""
    from covalent_cirro.cli import main

    with _written(width) as written, contextlib.suppress(SystemExit):
        main(arguments, standalone_mode=False)
    return written.getvalue()


def frames_of(arguments: list[str], width: int = WIDTH) -> list[str]:
    """Each state of the live table that a command of `cirro` shows, below what it wrote before the table."""
    kept.clear()
    above = output_of(arguments, width).partition("\n")[0]
    shown = []
    for frame in kept:
        text = io.StringIO()
        terminal(text, width).print(frame)
        shown.append(f"{above}\n{text.getvalue()}")
    return shown


def picture(command: str, text: str, width: int = WIDTH) -> str:
    """An SVG of a terminal with a command and its output; a long one without its middle."""
    lines = text.rstrip().splitlines()
    if len(lines) > LONG:
        lines = [*lines[:HEAD], f"\x1b[2m[{len(lines) - HEAD - TAIL} lines]\x1b[0m", *lines[-TAIL:]]
    paper = Console(record=True, file=io.StringIO(), width=width, highlight=False)
    paper.print(Text.assemble(("$ ", "dim"), (command, "bold")))
    for line in lines:
        paper.print(Text.from_ansi(line))
    svg = paper.export_svg(title=command, unique_id=re.sub(r"[^a-z]+", "-", command))
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # fonts of another host; there are others here
