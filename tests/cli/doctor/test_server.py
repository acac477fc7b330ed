"""What ``cirro doctor`` finds of a Covalent server, which has a Python and an environment of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from covalent_cirro import __version__
from covalent_cirro.covalent_server import config as covalent_config
from covalent_cirro.deployment.doctor import server_facts
from covalent_cirro.errors import HostError
from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding
from covalent_cirro.local import covalent_process, processes
from covalent_cirro.local.processes import free_port
from tests.cli.doctor.conftest import SERVER_CHECKS, World

SERVER_START_S = 180.0
"""Several times what a slow, busy machine takes."""


SERVER = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"items": [], "total_count": 0}' if sys.argv[2] == "covalent" else b"hello"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer)
print("ready", flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def server(world: World, python: str = sys.executable, kind: str = "covalent", **environment: str) -> Iterator[None]:
    """What answers as a Covalent server does, in a process of a Python and an environment of its own."""
    config = covalent_config.read()
    process = subprocess.Popen(
        [python, "-c", SERVER, str(config["dispatcher"]["port"]), kind],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.communicate()


def bare_python(world: World, name: str) -> Path:
    """A Python without any package."""
    folder = world.config_dir / name
    venv.create(folder)
    return folder


def server_findings(world: World) -> dict[str, Finding]:
    """What is found of the server."""
    return {finding.id: finding for finding in world.look(*SERVER_CHECKS)}


def test_a_server_of_the_same_python_and_environment_is_well(world: World) -> None:
    """It has the plugin, the same versions, the same config and the same account."""
    with server(world):
        findings = server_findings(world)
    assert {finding.level for finding in findings.values()} == {OK}, findings


def test_another_program_on_the_port_is_no_server(world: World) -> None:
    """Something answers, but not as Covalent does."""
    with server(world, kind="other"):
        found = server_findings(world)["server"]
    assert (found.level, "something else answers" in found.seen) == (WARNING, True)


def test_a_server_without_the_plugin_fails(world: World) -> None:
    """Its Python has neither the plugin nor the packages that pickles need."""
    python = bare_python(world, "without-plugin") / "bin" / "python"
    with server(world, str(python)):
        findings = server_findings(world)
    assert findings["server_plugin"].level == FAILURE
    assert str(python) in findings["server_plugin"].remedy
    assert findings["server_versions"].level == WARNING
    assert "None there" in findings["server_versions"].seen


def test_a_server_that_is_older_than_the_plugin_fails(world: World) -> None:
    """Covalent loads plugins when it starts: one that was installed since then is not there."""
    folder = bare_python(world, "too-old")
    (packages,) = (folder / "lib").glob("python*/site-packages")
    with server(world, str(folder / "bin" / "python")):
        info = packages / f"covalent_cirro-{__version__}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: covalent-cirro\nVersion: {__version__}\n")
        (info / "entry_points.txt").write_text(
            textwrap.dedent("""\
                [covalent.executor.executor_plugins]
                cirro = covalent_cirro.cirro
                """)
        )
        found = server_findings(world)["server_plugin"]
    assert (found.level, "started before" in found.seen) == (FAILURE, True)
    assert "restart" in found.remedy


def test_a_server_with_another_config_fails(world: World, tmp_path: Path) -> None:
    """What ``cirro deploy`` wrote is not what it reads."""
    with server(world, COVALENT_CONFIG_DIR=str(tmp_path)):
        found = server_findings(world)["server_config"]
    assert (found.level, str(tmp_path) in found.seen) == (FAILURE, True)


def test_a_server_with_another_profile_is_a_warning(world: World) -> None:
    """Its jobs may go to another account than the one that was looked at. Keys are not printed."""
    with server(world, AWS_PROFILE="other", AWS_ACCESS_KEY_ID="another-key"):
        found = server_findings(world)["server_environment"]
    assert found.level == WARNING
    assert "AWS_PROFILE (unset here, other there)" in found.seen
    assert "another-key" not in found.seen


def test_settings_in_the_config_need_no_environment(world: World) -> None:
    """Region and profile that the config names are the same on both sides, whatever the environment says."""
    with server(world, AWS_DEFAULT_REGION="eu-west-1"):
        found = server_findings(world)["server_environment"]
    assert found.level == OK


@pytest.mark.covalent
def test_a_real_covalent_server_is_well(world: World, tmp_path: Path) -> None:
    """Covalent itself, with a config of its own that has the deployment's settings: everything is ok."""
    port, log = free_port(), tmp_path / "covalent.log"
    kept = ("container_image_uri", "time_limit")
    section = {**world.settings, **{name: covalent_config.executor_section()[name] for name in kept}}
    covalent_process.write_config(tmp_path, port=port, executors={"cirro": section})
    identity = processes.start(
        [sys.executable, "-m", "covalent_cirro.local.covalent_process", str(port)],
        log=log,
        environment={**os.environ, **covalent_process.server_environment(tmp_path)},
        folder=tmp_path,
    )
    try:
        with world.environ(COVALENT_CONFIG_DIR=str(tmp_path)):
            processes.wait_for(
                lambda: True if server_facts.server().answers else None, identity, log, SERVER_START_S, HostError
            )
            findings = world.look()
    finally:
        processes.end(identity, patience_s=10.0)
    assert {finding.level for finding in findings} == {OK}, [each for each in findings if each.level != OK]
