"""docker/serve.Dockerfile and its requirements, without an engine: what they pin is what the service is tested with."""

from __future__ import annotations

import configparser
import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
IMAGE_PYTHON = {"python_version": "3.11", "python_full_version": "3.11.9", "extra": ""}
"""What markers of requirements are evaluated for."""


def pinned() -> dict[str, str]:
    """Versions of the image's packages; each line has one with hashes."""
    found = {}
    lines = (ROOT / "docker" / "serve.requirements.txt").read_text().replace("\\\n", " ").splitlines()
    for line in lines:
        if line.strip() and not line.startswith("#"):
            match = re.fullmatch(r"([\w.-]+)==(\S+)((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*", line)
            assert match is not None, line
            found[canonicalize_name(match[1])] = match[2]
    return found


def constrained() -> dict[str, str]:
    """Versions of constraints.txt, for the image's Python."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        canonicalize_name(each.name): str(each.specifier).removeprefix("==")
        for each in requirements
        if each.marker is None or each.marker.evaluate(IMAGE_PYTHON)
    }


def test_the_image_has_the_versions_that_are_tested() -> None:
    """Those of constraints.txt."""
    versions = constrained()
    assert pinned() == {name: versions[name] for name in pinned()}


def test_the_image_has_all_that_the_service_needs() -> None:
    """The extra `serve`, and what its packages require themselves: pip installs nothing that the file does not have."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.extras_require"]["serve"].splitlines()
    left = [Requirement(line) for line in lines if line.strip()]
    needed: set[str] = set()
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        if name in needed or (requirement.marker is not None and not requirement.marker.evaluate(IMAGE_PYTHON)):
            continue
        needed.add(name)
        left += [Requirement(each) for each in metadata.requires(name) or ()]
    assert set(pinned()) == needed


def test_the_image_is_built_of_wheels_with_known_hashes() -> None:
    """No source is compiled or run, and no other file can take a wheel's place."""
    dockerfile = (ROOT / "docker" / "serve.Dockerfile").read_text()
    (install,) = re.findall(r"pip install (.*)", dockerfile)
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(install.split())
    assert "apt-get" not in dockerfile


def test_the_context_has_what_the_dockerfile_copies() -> None:
    """The .dockerignore lets it through."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY ([^-\s]\S*) .*", (ROOT / "docker" / "serve.Dockerfile").read_text(), re.MULTILINE)
    assert copied == ["docker/serve.requirements.txt", "examples/recommender/service/recommender_service"]
    assert {"!docker", f"!{copied[1]}"} <= set(ignored)
    assert all((ROOT / path).exists() for path in copied)
