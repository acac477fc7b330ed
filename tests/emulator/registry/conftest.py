"""A repository of the emulated ECR for each test, and what is seen of it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.emulator.conftest import Aws
from tests.pushed_images import Pushes

new_names = (f"repository-{number}" for number in itertools.count(1))


@pytest.fixture
def registry(aws: Aws) -> Pushes:
    """The registry of the module's emulator."""
    return Pushes(aws.emulator)


@pytest.fixture
def repository(registry: Pushes) -> str:
    """A new repository."""
    return registry.repository(next(new_names))


def files(aws: Aws) -> set[str]:
    """The digests that lie on disk."""
    return {f"sha256:{path.name}" for path in (aws.emulator.state_dir / "registry" / "blobs").iterdir()}


def details(registry: Pushes, repository: str, **options: Any) -> list[dict[str, Any]]:
    """What DescribeImages says."""
    found: list[dict[str, Any]] = registry.ecr.describe_images(repositoryName=repository, **options)["imageDetails"]
    return found
