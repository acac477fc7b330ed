"""docker/serve.Dockerfile as an engine builds it: small, not root, without a compiler, healthy, and it drains."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from benchmarks.serving_model import made, write
from covalent_cirro.deployment.images.docker_engine import DockerEngine, LocalImage
from covalent_cirro.deployment.images.recipe import pip_settings
from tests.emulator.conftest import poll
from tests.images.conftest import BASE, ROOT, silent
from tests.images.test_real_images import OFFICIAL_BASE_BYTES, said

pytestmark = pytest.mark.container

NAME = "cirro-serve-test:latest"
LIMIT_BYTES = 450_000_000


@pytest.fixture(scope="module")
def image(engine: DockerEngine, once: FileLock) -> Iterator[LocalImage]:
    """The image, built from the root of the repository."""
    with once:
        built = engine.build(
            ROOT,
            "docker/serve.Dockerfile",
            NAME,
            platform="linux/amd64",
            arguments={"BASE_IMAGE": BASE, **pip_settings()},
            say=silent,
        )
    yield built
    engine.untag(NAME)


def test_the_service_s_image_is_small(engine: DockerEngine, image: LocalImage) -> None:
    """With the official base below 450 MB; measured by what it adds, since the base here may be another."""
    base = engine.find(BASE)
    assert base is not None
    assert OFFICIAL_BASE_BYTES + image.size_bytes - base.size_bytes < LIMIT_BYTES


def test_the_service_s_image_has_what_it_needs_and_no_more(engine: DockerEngine, image: LocalImage) -> None:
    """Not root; no compiler, no torch, no Covalent; no setting of pip; its modules are compiled."""
    found = json.loads(
        said(
            engine,
            image.image_id,
            "import os, shutil, json, glob, importlib.metadata as m; print(json.dumps({"
            "'user': os.getuid(), 'writable': os.access('/service', os.W_OK),"
            "'tools': [tool for tool in ('gcc', 'cc', 'g++', 'make', 'git') if shutil.which(tool)],"
            "'unwanted': sorted({d.metadata['Name'].lower() for d in m.distributions()} & "
            "{'torch', 'covalent', 'covalent-cirro', 'flask', 'pandas', 'setuptools', 'wheel'}),"
            "'compiled': len(glob.glob('/service/recommender_service/__pycache__/*.opt-2.pyc')) > 5 and "
            "os.path.exists(json.__cached__),"
            "'pip': [n for n in os.environ if n.startswith('PIP_') and n != 'PIP_CERT']}))",
        )
    )
    assert found == {"user": 1000, "writable": False, "tools": [], "unwanted": [], "compiled": True, "pip": []}


def test_the_service_s_image_says_how_it_is_run(client: Any, image: LocalImage) -> None:
    """Python is the first process, without a shell in between; the health check asks the service itself."""
    config = client.images.get(image.image_id).attrs["Config"]
    assert config["Cmd"] == ["python", "-m", "recommender_service"]
    assert not config.get("Entrypoint")
    assert "8000/tcp" in config["ExposedPorts"]
    assert {"HOST=0.0.0.0", "PORT=8000"} <= set(config["Env"])


ASK = """
import json, os, sys, urllib.request
def ask(path):
    with urllib.request.urlopen("http://127.0.0.1:8000" + path) as reply:
        return json.load(reply)
print(json.dumps([ask("/ready"), ask("/?uid=1&n=3")]))
"""


def test_the_service_s_container_serves_without_a_network_and_drains(
    client: Any, image: LocalImage, tmp_path: Path
) -> None:
    """On a root that cannot be written, from a model that lies there; SIGTERM ends it with 0."""
    folder = write(made(users=20, items=30, k=4, ratings=100), tmp_path / "20260101T000000Z-0a1b2c3d")
    for path in (tmp_path, folder, *folder.iterdir()):
        path.chmod(0o755)
    container = client.containers.run(
        image.image_id,
        detach=True,
        network_mode="none",
        read_only=True,
        environment={"CIRRO_MODEL": f"/models/{folder.name}"},
        volumes={str(tmp_path): {"bind": "/models", "mode": "ro"}},
    )
    try:
        poll(lambda: b"Serving movies" in container.logs(), "the service in the container")
        code, output = container.exec_run(["python", "-c", ASK])
        assert code == 0, output
        ready, recommended = json.loads(output)
        assert ready == {"model": "movies", "version": folder.name}
        assert len(recommended["response"]) == 3
        container.stop(timeout=60)
        assert container.wait()["StatusCode"] == 0
    finally:
        container.remove(force=True, v=True)
