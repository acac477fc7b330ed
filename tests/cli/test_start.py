"""A command starts fast: it imports what it uses, when it uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable

import pytest

from covalent_cirro.cli import SUMMARIES

HEAVY = frozenset({"aiobotocore", "boto3", "botocore", "covalent", "docker", "jinja2", "moto", "sqlalchemy", "torch"})
"""Packages that take longer to import than all of click, and that a help text cannot need."""

_IMPORTED = """\
import contextlib, io, json, sys
from covalent_cirro.cli import main
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        main(words, standalone_mode=False)
    assert "Usage:" in shown.getvalue(), words
print(json.dumps(sorted(sys.modules)))
"""


def imported(*commands: Iterable[str]) -> set[str]:
    """Names of all modules that a process of its own has imported after these commands."""
    asked = json.dumps([list(words) for words in commands])
    ran = subprocess.run([sys.executable, "-c", _IMPORTED, asked], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout))


def test_the_list_of_commands_imports_no_command() -> None:
    """``cirro --help`` imports click and three small files of ours."""
    modules = imported(["--help"])
    assert not modules & {*HEAVY, "asyncio", "rich", "tenacity", "yaml"}
    assert {name for name in modules if name.startswith("covalent_cirro.")} == {
        "covalent_cirro.cli",
        "covalent_cirro.cli.terminal",
        "covalent_cirro.errors",
    }


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_help_of_a_command_imports_no_client_of_aws(name: str) -> None:
    """Neither AWS's libraries nor Covalent, nor another command's file, unless the two share one."""
    modules = imported([name, "--help"])
    assert not modules & HEAVY
    shared = {"run": {"jobs"}, "destroy": {"deploy"}}.get(name, set())
    assert {each for each in SUMMARIES if f"covalent_cirro.cli.{each}" in modules} == {name} | shared
