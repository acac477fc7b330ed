"""What the tests of the command line share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from covalent_cirro.cli import main
from covalent_cirro.local.local_stack import LocalStack


@pytest.fixture
def cirro() -> Callable[..., Result]:
    """Calls ``cirro`` in this process."""

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return call


@pytest.fixture(scope="session")
def program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``cirro`` as a process of its own."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from covalent_cirro.cli import main; main()", *map(str, arguments)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A local stack without a Covalent server, for tests that only look at it."""
    playground = LocalStack(tmp_path_factory.mktemp("emulated") / ".cirro")
    try:
        playground.up(vcpus=2)
        yield playground
    finally:
        playground.down()
