"""What the rig and `driver.py` know of a tool. Needs Python's own library only."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

MODULES = {
    "ours": "peers.with_covalent_cirro",
    "stock": "peers.with_stock_plugin",
    "cloudknot": "peers.with_cloudknot",
    "redun": "peers.with_redun",
    "lithops": "peers.with_lithops",
    "metaflow": "peers.with_metaflow",
}
"""The file of each tool, in the order in which they are measured."""


@dataclass(frozen=True)
class Case:
    """A work, done in one of the ways that a tool has.

    Attributes:
        work: Name of the work (`works.WORKS`).
        way: How it is done, for people.
        jobs: Jobs of AWS Batch that compute, as the user asked or as the tool does it.
        options: For `Peer.prepare`.
        starts_after_upload: No job starts before the driver has put something to S3.
    """

    work: str
    way: str
    jobs: int
    options: Mapping[str, Any] | None = None
    starts_after_upload: bool = False


@dataclass(frozen=True)
class Place:
    """Where a tool works.

    Attributes:
        folder: A folder of this case alone, in which `driver.py` runs.
        inputs: Folder with the value that tasks share.
        settings: The deployment's: queue, bucket, roles, and what the tool's file has added.
        image: Name of the image that jobs have; its programs are those of the tool's environment.
    """

    folder: Path
    inputs: Path
    settings: Mapping[str, Any]
    image: str


class Peer(Protocol):
    """A tool's file. It must be importable without the tool.

    Attributes:
        TITLE: Name and version.
        PACKAGES: What pip installs into the tool's environment; empty: this package's own.
        SERVER: Whether it needs the Covalent server of the local stack, which then is the driver.
        CASES: What it is measured with.
        SET_UP: How it was set up, what was stubbed; Markdown.

    A tool that names its jobs' image itself has the name in ``IMAGE``; variables of its image are in
    ``IMAGE_VARIABLES``.
    """

    TITLE: str
    PACKAGES: tuple[str, ...]
    SERVER: bool
    CASES: Mapping[str, Case]
    SET_UP: str

    def entrypoint(self, case: Case, place: Place, python: Path) -> list[str]:
        """The image's entrypoint, with the tool's Python; empty for none. Runs in the rig."""

    def prepare(self, case: Case, place: Place) -> Callable[[], Any]:
        """Set up what a user sets up once, and give the call that is measured. Runs in the tool's environment.

        Returns:
            A function that gives the results, in the order of the items.
        """


def load(name: str) -> ModuleType:
    """The file of a tool, which has all of `Peer`."""
    return importlib.import_module(MODULES[name])
