"""docs/cli.md has all commands, as they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import click
import pytest

from covalent_cirro.cli import main

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def made() -> ModuleType:
    """docs/make_cli.py."""
    spec = importlib.util.spec_from_file_location("make_cli", DOCS / "make_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_been_made(made: ModuleType) -> None:
    """``python docs/make_cli.py`` writes nothing new."""
    text = (DOCS / "cli.md").read_text()
    assert made.page(text) == text


def test_every_command_is_on_the_page() -> None:
    """With its options."""
    text = (DOCS / "cli.md").read_text()
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        assert f"### cirro {name}\n" in text
        assert all(option in text for parameter in command.params for option in parameter.opts if "-" in option)
