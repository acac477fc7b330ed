"""A Docker engine that builds nothing and only keeps names, for what is decided around it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from covalent_cirro import __version__
from covalent_cirro.contract import problems
from covalent_cirro.deployment.images.build import Versions
from covalent_cirro.deployment.images.docker_engine import DockerEngine, LocalImage, Uploaded
from covalent_cirro.errors import ImageError

TRUE = Versions(
    platform.python_version(),
    importlib.metadata.version("cloudpickle"),
    __version__,
    problems.CALL_FORMAT,
    ("cloudpickle", "covalent_cirro", "numpy"),
)
"""What an image has that was built here."""


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class FakeEngine(DockerEngine):
    """An engine whose images are what a test says of them."""

    def __init__(self, told: Mapping[str, Any] | None = None, labels: Mapping[str, str] | None = None) -> None:
        self.images: dict[str, LocalImage] = {}
        self.builds: list[tuple[str, dict[str, str], dict[str, bytes]]] = []
        self.pushes: list[tuple[str, str, str]] = []
        self.told = {**TRUE._asdict(), "pid": 1} if told is None else told
        self.labels = TRUE.labels if labels is None else labels
        self.architectures = "amd64"
        self.refusal = ""

    def find(self, reference: str) -> LocalImage | None:
        return self.images.get(reference)

    def pull(self, reference: str, platform: str, say: Callable[[str], None]) -> LocalImage:
        return self.images.setdefault(reference, self._image(reference, {}))

    def build(
        self,
        context: Path,
        dockerfile: str,
        tag: str,
        *,
        platform: str,
        arguments: Mapping[str, str],
        say: Callable[[str], None],
    ) -> LocalImage:
        text = (context / dockerfile).read_text()
        label = re.findall(r'([\w.-]+)="(.*?)"', text.partition("\nLABEL ")[2]) if "\nLABEL " in text else ()
        labels = {**self.labels, **dict(label if text.startswith("FROM cirro-runner:") else ())}
        self.builds.append((tag, dict(arguments), contents(context)))
        self.images[tag] = self._image(f"{len(self.builds)}", labels)
        return self.images[tag]

    def ask(self, reference: str, command: list[str]) -> tuple[int, str]:
        return (0, f"a greeting\n{json.dumps(self.told)}\n") if self.told else (1, "usage: serve [--port]\n")

    def tag(self, reference: str, repository: str, tag: str) -> None:
        self.images[f"{repository}:{tag}"] = self.images[reference]

    def untag(self, reference: str) -> None:
        self.images.pop(reference, None)

    def push(
        self,
        repository: str,
        tag: str,
        *,
        username: str,
        password: str,
        progress: Callable[[Uploaded], None],
    ) -> None:
        if self.refusal:
            raise ImageError(self.refusal)
        self.pushes.append((repository, tag, password))

    def _image(self, image_id: str, labels: Mapping[str, str]) -> LocalImage:
        return LocalImage(
            image_id, (), dict(labels), self.architectures, 1, ("/usr/bin/env",), layers=("sha256:base", "sha256:code")
        )
