"""A command starts fast: it imports what it uses, when it uses it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable

import pytest

from covalent_cirro.cli import SUMMARIES

HEAVY = frozenset(
    {
        *("aiobotocore", "aiohttp", "asyncio", "boto3", "botocore", "cloudpickle", "covalent", "docker", "email"),
        *("filelock", "http", "jinja2", "moto", "psutil", "rich", "sqlalchemy", "tenacity", "tomlkit", "torch"),
        *("tornado", "urllib.request", "yaml"),
    }
)
"""Modules that take long to import, and that a help text cannot need."""

PURE_ROOMS = frozenset({"contract", "errors", "jobs", "settings"})
"""Rooms that a command may import at its beginning: they are quick to import, and its options and output need them."""

PURE_ELSEWHERE = frozenset({"history", "history.names"})
"""What parses the name of an electron is pure too, and its room's ``__init__.py`` imports nothing."""

_IMPORTED = """\
import contextlib, io, json, sys
import click
before = set(sys.modules)
from covalent_cirro.cli import main
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        main(words, standalone_mode=False)
    assert "Usage:" in shown.getvalue(), words
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def imported(*commands: Iterable[str]) -> set[str]:
    """Names of the modules that these commands import, in a process of their own, beyond those of click."""
    asked = json.dumps([list(words) for words in commands])
    ran = subprocess.run([sys.executable, "-c", _IMPORTED, asked], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout))


def test_the_list_of_commands_imports_no_command() -> None:
    """``cirro --help`` imports click and three small files of ours."""
    modules = imported(["--help"])
    assert not modules & HEAVY
    assert {name for name in modules if name.startswith("covalent_cirro.")} == {
        "covalent_cirro.cli",
        "covalent_cirro.cli.terminal",
        "covalent_cirro.errors",
    }


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_help_of_a_command_imports_nothing_that_acts(name: str) -> None:
    """No library of others but click; of ours, pure rooms and the command line, without other commands' files."""
    modules = imported([name, "--help"])
    assert not modules & HEAVY
    ours = {each.removeprefix("covalent_cirro.") for each in modules if each.startswith("covalent_cirro.")}
    assert {each for each in ours if each.partition(".")[0] not in PURE_ROOMS | {"cli"}} <= PURE_ELSEWHERE
    shared = {"run": {"jobs"}, "destroy": {"deploy"}, "serve": {"deploy"}}.get(name, set())
    assert {each for each in SUMMARIES if f"covalent_cirro.cli.{each}" in modules} == {name} | shared


def test_a_document_for_programs_is_written_without_rich() -> None:
    """``--json`` needs no terminal."""
    code = "import sys; from covalent_cirro.cli import render; render.document({}); assert 'rich' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_watch_shows_something_before_aws_has_answered() -> None:
    """``cirro jobs --watch`` of an AWS that never answers: a line, at once; nobody looks at an empty terminal."""
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-c", "from covalent_cirro.cli import main; main()", "jobs", "--watch"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "looking for jobs in AWS Batch ...\n"
            silent.accept()[0].close()  # only now is AWS asked
        finally:
            process.kill()
            process.wait()
