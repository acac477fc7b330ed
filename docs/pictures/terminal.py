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
    """Each state of the live table that a command of `cirro` shows, below what it wrote before the table.

    Below the last state is what the command wrote after the table.
    """
    kept.clear()
    above, _, below = output_of(arguments, width).partition("\n")
    shown = []
    for frame in kept:
        text = io.StringIO()
        terminal(text, width).print(frame)
        shown.append(f"{above}\n{text.getvalue()}")
    return [*shown[:-1], f"{shown[-1]}{below}"]


def picture(command: str, text: str, width: int = WIDTH, *, unique: str = "") -> str:
    """An SVG of a terminal with a command and its output; a long one without its middle.

    Args:
        command: The command.
        text: Its output.
        width: Columns.
        unique: Makes the names of styles and clips other ones than those of another picture in the same file.
    """
    lines = text.rstrip().splitlines()
    if len(lines) > LONG:
        lines = [*lines[:HEAD], f"\x1b[2m[{len(lines) - HEAD - TAIL} lines]\x1b[0m", *lines[-TAIL:]]
    paper = Console(record=True, file=io.StringIO(), width=width, highlight=False)
    paper.print(Text.assemble(("$ ", "dim"), (command, "bold")))
    for line in lines:
        paper.print(Text.from_ansi(line))
    svg = paper.export_svg(title=command, unique_id=re.sub(r"[^a-z]+", "-", command) + unique)
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # fonts of another host; there are others here


FRAMES = 14
"""Frames of an animation, at most: each is a picture of some 20 kB."""

FRAME_S, LAST_S = 0.9, 6.0
"""How long a frame is seen, and the last one."""


def animation(command: str, frames: list[str], width: int = WIDTH) -> str:
    """An SVG that shows frames one after the other, again and again.

    The animation is CSS, which browsers run in a picture too. Frames that look like the one before are left out, and of
    many frames some.
    """
    distinct = [frame for before, frame in zip([None, *frames], frames, strict=False) if frame != before]
    step = max(1, -(-(len(distinct) - 1) // (FRAMES - 1)))
    chosen = [*distinct[:-1:step], distinct[-1]]
    size = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
    pictures = [
        size.sub(r'\g<0> width="\1" height="\2"', picture(command, frame, width, unique=str(number)), count=1)
        for number, frame in enumerate(chosen)
    ]
    sizes = [found for found in map(size.search, pictures) if found]
    wide, high = (max(float(found[axis]) for found in sizes) for axis in (1, 2))
    total_s = FRAME_S * (len(chosen) - 1) + LAST_S
    rules, parts = [], []
    for number, each in enumerate(pictures):
        begin, end = (100 * FRAME_S * which / total_s for which in (number, number + 1))
        end = 100.0 if number == len(pictures) - 1 else end
        rules.append(
            f"@keyframes frame-{number} {{ 0% {{ visibility: hidden }} {begin:.3f}% {{ visibility: visible }} "
            f"{end:.3f}%, 100% {{ visibility: {'visible' if end == 100.0 else 'hidden'} }} }}\n"
            f".frame-{number} {{ visibility: hidden; animation: frame-{number} {total_s:.1f}s step-end infinite }}"
        )
        parts.append(f'<g class="frame-{number}">{each}</g>')
    style = "\n".join(rules)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:g} {high:g}">\n<style>\n{style}\n</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
