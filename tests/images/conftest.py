"""A Docker engine that pushes to the emulated ECR, what pip fetches packages from, and images that are really built."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from covalent_cirro.deployment.images import build as image_build
from covalent_cirro.deployment.images.build import Built
from covalent_cirro.deployment.images.docker_engine import DockerEngine
from covalent_cirro.deployment.images.recipe import PYTHON, Recipe
from covalent_cirro.errors import ImageError
from tests.emulator.conftest import poll

ROOT = Path(__file__).parents[2]
BASE = f"python:{PYTHON}-slim-bookworm"
LOOPBACK = '[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n'
"""What Docker takes for granted, and podman has to be told: registries on the loopback speak plain HTTP."""

Host = tuple[str | None, Callable[[], None]]
"""``DOCKER_HOST``, and what sees to it that somebody answers there."""


def silent(step: str) -> None:
    """Nobody looks."""


@pytest.fixture(scope="session")
def docker_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """An engine: Docker as it is, podman's service with a configuration of its own."""
    import docker.errors

    import docker

    try:
        client = docker.from_env()
        client.ping()
        components = [component["Name"] for component in client.version().get("Components", ())]
        client.close()
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker engine answers: {error}")
    podman = shutil.which("podman")
    if not any("Podman" in name for name in components) or podman is None:
        yield os.environ.get("DOCKER_HOST"), lambda: None
        return
    folder = tmp_path_factory.mktemp("podman")
    (folder / "registries.conf").write_text(LOOPBACK)
    address = f"unix://{folder}/podman.sock"
    environment = {
        **os.environ,
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
        "BUILDAH_ISOLATION": os.environ.get("BUILDAH_ISOLATION", "chroot"),
    }
    services: list[subprocess.Popen[bytes]] = []

    def serve() -> None:
        # podman 4.3 panics after some builds that fail: "semaphore: released more than held".
        if not services or services[-1].poll() is not None:
            (folder / "podman.sock").unlink(missing_ok=True)
            service = subprocess.Popen([podman, "system", "service", "--time=0", address], cwd=folder, env=environment)
            services.append(service)
            poll(lambda: _answers(folder / "podman.sock"), "podman's service")

    try:
        yield address, serve
    finally:
        services[-1].terminate()
        services[-1].wait()


def _answers(path: Path) -> bool:
    """Whether somebody listens: the socket is there a moment before."""
    with socket.socket(socket.AF_UNIX) as end, contextlib.suppress(OSError):
        end.connect(str(path))
        return True
    return False


@pytest.fixture(autouse=True)
def _environment(docker_host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    address, serve = docker_host
    serve()
    if address is not None:
        monkeypatch.setenv("DOCKER_HOST", address)


@pytest.fixture(scope="session")
def engine(docker_host: Host) -> Iterator[DockerEngine]:
    """A connection to it, with the base image there."""
    address, serve = docker_host
    serve()
    with pytest.MonkeyPatch.context() as patch:
        if address is not None:
            patch.setenv("DOCKER_HOST", address)
        with DockerEngine.connect() as engine:
            try:
                engine.pull(BASE, "linux/amd64", silent)
            except ImageError as error:
                pytest.skip(str(error))
            yield engine


@pytest.fixture(scope="session")
def client(engine: DockerEngine) -> Any:
    """The SDK's client of the same engine, for looking at what was made."""
    return engine._client


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> FileLock:
    """Of tests that run side by side, one builds what all need; the others find it in the engine's cache."""
    return FileLock(tmp_path_factory.getbasetemp().parent / "image.lock")


@pytest.fixture(scope="session")
def runner(engine: DockerEngine, once: FileLock) -> Built:
    """The runner's image for CPU."""
    with once:
        return image_build.build(engine, Recipe(), silent)


@pytest.fixture(scope="session")
def gpu_runner(engine: DockerEngine, runner: Built) -> Built:
    """The runner's image for GPU; all but its last step is that for CPU."""
    return image_build.build(engine, Recipe(device="gpu"), silent)


@pytest.fixture
def build(engine: DockerEngine, runner: Built) -> Iterator[Callable[[Recipe], Built]]:
    """Builds an image of a recipe, whose name goes with the test."""
    names: list[str] = []

    def make(recipe: Recipe) -> Built:
        built = image_build.build(engine, recipe, silent)
        names.append(built.reference)
        return built

    yield make
    for name in {*names} - {runner.reference}:
        engine.untag(name)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Path], str]]:
    """Serves a folder on the loopback; returns ``127.0.0.1:<port>``."""
    servers: list[ThreadingHTTPServer] = []

    def begin(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_port}"

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()
