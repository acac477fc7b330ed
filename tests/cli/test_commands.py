"""Every command explains itself, and wrong use is told from failure by its exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click
import pytest
from click.testing import Result

from covalent_cirro import __version__
from covalent_cirro.cli import SUMMARIES, main

Cirro = Callable[..., Result]


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands and groups, with the words that call them."""
    yield path, group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(main))


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(("cirro", *path)))
def test_every_command_has_help(cirro: Cirro, path: tuple[str, ...]) -> None:
    """``--help`` works on everything, in a short and a long form, and its first line is a sentence."""
    help_text = COMMANDS[path].help
    assert help_text is not None
    assert help_text.splitlines()[0].endswith(".")
    for flag in ("--help", "-h"):
        result = cirro(*path, flag)
        assert result.exit_code == 0
        assert "Usage:" in result.output


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(("cirro", *path)))
def test_every_option_has_help(path: tuple[str, ...]) -> None:
    """No option is left without a word about it."""
    options = [parameter for parameter in COMMANDS[path].params if isinstance(parameter, click.Option)]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("name", SUMMARIES)
@pytest.mark.parametrize("width", [45, 1000])
def test_the_list_of_commands_says_what_each_command_says(name: str, width: int) -> None:
    """``cirro --help`` writes its list without importing the commands: its sentences are theirs."""
    listed = click.Command(name, help=SUMMARIES[name])
    assert listed.get_short_help_str(width) == COMMANDS[name,].get_short_help_str(width)


def test_a_command_that_does_not_exist(cirro: Cirro) -> None:
    """Wrong usage, not a failed import."""
    result = cirro("render")
    assert result.exit_code == 2
    assert "No such command 'render'" in result.output


def test_version(cirro: Cirro) -> None:
    """``cirro --version`` names the program and the package's version."""
    assert cirro("--version").output == f"cirro, version {__version__}\n"


@pytest.mark.parametrize("words", [("up", "--sever"), ("up", "--vcpus", "0"), ("dwn",), ("exec",)])
def test_wrong_usage_exits_with_2(cirro: Cirro, words: tuple[str, ...]) -> None:
    """An unknown option or command, a value out of range or a missing argument is the caller's mistake: exit code 2."""
    assert cirro("local", *words).exit_code == 2
