"""Writes the help of all commands into docs/cli.md from `covalent_cirro.cli`: ``python docs/make_cli.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from covalent_cirro.cli import main

PAGE = Path(__file__).parent / "cli.md"
BEGIN, END = "<!-- commands: made by docs/make_cli.py -->", "<!-- end of commands -->"
WIDTH = 100


def helps(command: click.Command, parent: click.Context | None, name: str) -> Iterator[tuple[str, str]]:
    """The words that call a command and those below it, each with its help."""
    context = click.Context(command, parent=parent, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
    context.help_option_names = ["-h", "--help"]
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for below in sorted(command.list_commands(context)):
            found = command.get_command(context, below)
            assert found is not None, below
            yield from helps(found, context, below)


def commands() -> str:
    """A heading and the help for each."""
    return "\n\n".join(f"### {words}\n\n```text\n{text}\n```" for words, text in helps(main, None, "cirro"))


def page(text: str) -> str:
    """The page with its commands made anew."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{commands()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
