"""The documents are true: links lead somewhere, tables are made from the code, commands exist."""

from __future__ import annotations

import importlib.util
import itertools
import re
from importlib import metadata
from pathlib import Path

import click
import pytest

from covalent_cirro.cli import main
from covalent_cirro.settings import OPTIONS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("examples/*/README.md")}
)

MODULES = {
    str(path.relative_to(ROOT))
    for folder in ROOT.iterdir()
    if not folder.name.startswith(".")  # virtual environments have tens of thousands
    for path in folder.rglob("*.py")
}
"""All Python files of the repository."""

OF_COVALENT = {str(path) for name in ("covalent", "covalent-aws-plugins") for path in metadata.files(name) or ()}
"""Files of Covalent and of its plugins that the pages talk about."""

OF_USERS = {"lab.py", "mylab/__init__.py", "lab/__init__.py", "lab/data.py", "lab/model.py"}
"""Files of a user's that the pages talk about."""


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Files and headings that a page points at are there."""
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        there = page.parent / target if target else page
        assert there.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(there), f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_has_marks_of_a_merge(page: Path) -> None:
    """What git writes into a file that two sides changed."""
    assert not re.findall(r"^(?:<{7}|>{7}) .*$", page.read_text(), re.MULTILINE)


def test_the_architecture_fits_on_one_screen() -> None:
    """Without the source of the drawing, about sixty lines; what is more has a page of its own."""
    text = re.sub(r"```mermaid.*?```", "", (ROOT / "docs" / "architecture.md").read_text(), flags=re.DOTALL)
    assert len(text.splitlines()) <= 70


def test_the_options_are_the_same_in_the_table_and_in_the_executors_signature_and_docstring() -> None:
    """docs/make_settings.py has been run."""
    spec = importlib.util.spec_from_file_location("make_settings", ROOT / "docs" / "make_settings.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    text = (ROOT / "docs" / "settings.md").read_text()
    assert made.page(text) == text
    assert all(f"`{option.name}`" in text for option in OPTIONS)
    source = (ROOT / "covalent_cirro" / "cirro.py").read_text()
    assert made.executor(source) == source
    assert all(f"        {option.name}: " in source for option in OPTIONS)


def test_make_targets_in_the_documents_exist() -> None:
    """`make sweep` and its like."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for page in PAGES for word in re.findall(r"(?:`|\$ )make ([a-z]+)", page.read_text())}
    assert named
    assert named <= targets


def test_cirro_commands_in_the_documents_exist() -> None:
    """With their options."""
    for page in PAGES:
        for line in re.findall(r"(?:`|\$ )cirro ([a-z][^`#\n]*)", page.read_text()):
            words = line.split(" -- ")[0].split()
            command: click.Command = main
            while words and isinstance(command, click.Group):
                below = command.get_command(click.Context(command), words[0])
                if below is None:
                    break
                command = below
                words.pop(0)
            if command.context_settings.get("allow_interspersed_args") is False:
                # What follows FILE:LATTICE are arguments of the lattice.
                words = list(itertools.takewhile(lambda word: ".py" not in word, words))
            known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
            assert all(word in known for word in words if word.startswith("--")), f"{page.name}: cirro {line}"
            assert not isinstance(command, click.Group) or not words or words[0] == "|", f"{page.name}: cirro {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_that_a_page_names_exist(page: Path) -> None:
    """With the path that a page gives."""
    there = MODULES | OF_COVALENT
    named = set(re.findall(r"`([a-z_/]+\.py)`", page.read_text()))
    assert {name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in there)} <= OF_USERS


NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_a_page_names_exist(page: Path) -> None:
    """File and function."""
    for path, name in NAMED_TEST.findall(page.read_text()):
        file = ROOT / path
        assert file.exists(), f"{page.name} names {path}"
        found = re.search(rf"^(?:async )?def {name}\(", file.read_text(), re.MULTILINE)
        assert not name or found, f"{page.name} names {path}::{name}"


def test_each_claim_about_security_has_its_test() -> None:
    """Who could do what, what stops it, and the test that shows it: no row without one."""
    rows = [line for line in (ROOT / "docs" / "security.md").read_text().splitlines() if line.startswith("| ")]
    claims = [row for row in rows if not row.endswith("| test |") and set(row) - set("|- ")]
    assert len(claims) > 30
    assert not [row for row in claims if not re.search(r"`tests/[\w/]+\.py::\w+`", row.split(" | ")[-1])]
