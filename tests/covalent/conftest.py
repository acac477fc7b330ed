"""A real Covalent server on a real emulated AWS, for the tests of this folder."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import pytest
from covalent._shared_files.config import _config_manager

from covalent_cirro.electron.engine.waits import DEADLINE_VARIABLE
from covalent_cirro.local import covalent_process
from covalent_cirro.local.local_stack import LocalStack
from tests.access import client

VCPUS = 16
"""Jobs of one vCPU at a time: more than the machine has cores, because most test electrons hardly compute."""

WAITING_DEADLINE_S = 3
"""How long a job waits here before the reason is worked out: tests cannot wait for ten minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything that uses the stack starts a real Covalent server."""
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.covalent)


@dataclass(frozen=True)
class Stack:
    """The running local stack, as the fixture `stack` gives it.

    Attributes:
        playground: What runs it; ``playground.covalent_dir`` has the server's config, data and logs.
        endpoint_url: Of the emulated AWS.
        server_url: Of the Covalent server, without a slash at the end.
        settings: What the CloudFormation stack gave the executor, ``endpoint_url`` included.
        server_log: File with what the Covalent server printed.
        emulator_log: File with what the emulator printed.
    """

    playground: LocalStack
    endpoint_url: str
    server_url: str
    settings: Mapping[str, Any]
    server_log: Path
    emulator_log: Path

    def client(self, service: str) -> Any:
        """A boto3 client of the emulated AWS."""
        return client(self.playground, service)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of `cirro local exec`, for processes that use the stack."""
        return self.playground.environment(os.environ)

    def script(self, *arguments: str | Path, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        """Run a Python script as a user would: a process of its own that uses the stack. Its output is text."""
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def cirro(self, *arguments: str | Path, timeout_s: float = 240) -> str:
        """What a command of ``cirro`` prints on stdout, which has to succeed."""
        command = "from covalent_cirro.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", command, *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def running_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """What `stack` gives, once for all tests of a process."""
    folder = tmp_path_factory.mktemp("stack")
    (folder / "cache").mkdir()
    playground = LocalStack(folder / "my lab é" / "state")  # a folder as people have it, which Covalent cannot use
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(DEADLINE_VARIABLE, str(WAITING_DEADLINE_S))
            patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
            status = playground.up(server=True, vcpus=VCPUS)
        state = playground.read()
        assert status.endpoint_url is not None
        assert status.server_url is not None
        assert state.server is not None
        assert state.emulator is not None
        yield Stack(
            playground=playground,
            endpoint_url=status.endpoint_url,
            server_url=status.server_url,
            settings=status.settings,
            server_log=Path(state.server.log),
            emulator_log=Path(state.emulator.log),
        )
    finally:
        playground.down()


@pytest.fixture(scope="module")
def stack(running_stack: Stack) -> Iterator[Stack]:
    """Emulator, CloudFormation stack and Covalent server, once for all tests of a process.

    Two ways to use it:

    - Dispatch from the test itself. Covalent in the test's process points at this server, and its section
      ``[executors.cirro]`` has this stack's settings, so that ``CirroBatchExecutor(vcpu=1)`` needs nothing else::

          def test_a_sum(stack):
              add = ct.electron(lambda a, b: a + b, executor=CirroBatchExecutor(vcpu=1, memory=1))
              dispatch_id = ct.dispatch(ct.lattice(lambda: add(1, 2)))()
              assert ct.get_result(dispatch_id, wait=True).result == 3

      Functions of the test module travel by value (`_by_value`), as those of a user's script do. Import covalent
      wherever you like: ``tests/conftest.py`` has isolated it before any test module is imported.

    - Run a script: ``stack.script(path, "--option")``, a process with the environment of ``cirro local exec``.

    The server's process has AWS credentials and the endpoint in its environment; the test's process has neither, so
    use ``stack.client("batch")``. State is shared by all tests: make no claim about how many jobs or objects there
    are in all, and undo what you break. A test that must restart or break a process makes a `LocalStack` of its own.
    """
    where = {"address": covalent_process.ADDRESS, "port": int(running_stack.server_url.rpartition(":")[2])}
    changes = {"dispatcher": where, "user_interface": where, "executors": {"cirro": dict(running_stack.settings)}}
    before = copy.deepcopy(_config_manager.config_data)
    _config_manager.update_config(changes)
    yield running_stack
    _config_manager.config_data = before  # tests of other folders run in this process too
    _config_manager.write_config()


@pytest.fixture(autouse=True, scope="module")
def _by_value(request: pytest.FixtureRequest) -> Iterator[None]:
    """Functions of the test module are pickled by value: no job can import a test module."""
    module: ModuleType = request.module
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)
