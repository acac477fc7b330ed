"""The content of a job's image, and the tag made from it. Reads files; must not know Docker's engine or AWS.

The runner's image is built from the installed package, so that it has the same version.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.resources
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from covalent_cirro import __version__
from covalent_cirro.contract import problems, protocol
from covalent_cirro.errors import SettingsError

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""Minor version of the Python that runs here, which pickles electrons."""

PACKAGE = Path(str(importlib.resources.files("covalent_cirro")))

DOCKERFILE = "docker/Dockerfile"
REQUIREMENTS = "docker/requirements.txt"
PINS = "pins.txt"
"""File in the folder ``docker/`` with the packages that the image gets from a package index, with hashes."""

BASE_ARGUMENT, BASE_NAME_ARGUMENT, BASE_DIGEST_ARGUMENT = "BASE_IMAGE", "BASE_NAME", "BASE_DIGEST"
"""Build arguments of the runner's Dockerfile for its base image, and for the labels about it."""
RUNNER_FILES = (
    *("__init__.py", "checkpoint.py", "errors.py", "item_maps.py", "py.typed", "trial.py"),
    *("jobs/__init__.py", "jobs/item_failures.py"),
    *("stored_values/__init__.py", "stored_values/handles.py", "stored_values/unpacking.py"),
)
RUNNER_FOLDERS = ("contract", "runner")
"""Files and folders of this package that the Dockerfile copies: the runner, and what electrons import in a job."""

RUNNER_ARGUMENT = "CIRRO_RUNNER"
"""Build argument with the runner's image, for the FROM of a user's Dockerfile."""

PIP_ARGUMENTS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_TRUSTED_HOST")
"""Settings of pip that are passed to pip in the build; they are not part of the image."""

_NOT_ALONE = re.compile(r"\s*(-r|-c|-e|--requirement|--constraint|--editable)\b|\s*(\.{0,2}/|file:)", re.IGNORECASE)
_ARG = re.compile(r"\s*ARG\s+(\w+)(?:=(\S*))?", re.IGNORECASE)
_FROM = re.compile(r"\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}|\$(\w+)")


class Recipe(NamedTuple):
    """The content of an image, as the user wants it.

    Attributes:
        requirements: Requirements file with packages that electrons import, for the runner's image.
        dockerfile: The user's Dockerfile; its folder is the build context.
        device: ``cpu`` or ``gpu``.
        platform: ``linux/amd64`` or ``linux/arm64``.
        python: Minor version of Python.
        base_image: Base of the runner's image, by name or digest; `None` for Debian's slim Python of this version.
    """

    requirements: Path | None = None
    dockerfile: Path | None = None
    device: str = "cpu"
    platform: str = "linux/amd64"
    python: str = PYTHON
    base_image: str | None = None

    @property
    def base(self) -> str:
        """The base of the runner's image."""
        return self.base_image or f"python:{self.python}-slim-bookworm"


def docker_folder() -> Path:
    """The folder ``docker/`` of the installed package or of the checkout."""
    installed = PACKAGE / "docker"
    return installed if installed.is_dir() else PACKAGE.parent / "docker"


def read_requirements(path: Path) -> str:
    """The text of a requirements file.

    Raises:
        SettingsError: It cannot be read, or needs another file, which the build would not have.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"requirements file {path}: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if _NOT_ALONE.match(line):
            raise SettingsError(
                f"requirements file {path}, line {number}: {line.strip()!r} needs a file beside it, which the build "
                "does not have. Write it out (`pip-compile` and `uv pip compile` make one file of many), or use --file "
                "with a Dockerfile that copies it."
            )
    return text


def write_runner_context(folder: Path, requirements: str | None) -> None:
    """Write all files that the runner's Dockerfile copies into an empty folder."""
    sources = [PACKAGE / name for name in RUNNER_FILES]
    sources += sorted(path for folder in RUNNER_FOLDERS for path in (PACKAGE / folder).rglob("*.py"))
    files = {f"covalent_cirro/{path.relative_to(PACKAGE)}": path.read_bytes() for path in sources}
    for name in ("Dockerfile", PINS, "requirements.txt", "runner.toml"):
        files[f"docker/{name}"] = (docker_folder() / name).read_bytes()
    if requirements is not None:
        files[REQUIREMENTS] = requirements.encode()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)


def build_arguments(recipe: Recipe) -> dict[str, str]:
    """Build arguments of the runner's Dockerfile, with the versions installed here.

    Raises:
        SettingsError: No pinned cloudpickle can read what is pickled here.
    """
    named = {} if recipe.base_image is None else {BASE_NAME_ARGUMENT: recipe.base_image.partition("@")[0]}
    return {
        "PYTHON_VERSION": recipe.python,
        BASE_ARGUMENT: recipe.base,
        **named,
        "DEVICE": recipe.device,
        "RUNNER_VERSION": __version__,
        "CALL_FORMAT": problems.CALL_FORMAT,
        "CLOUDPICKLE_VERSION": pinned_cloudpickle(importlib.metadata.version("cloudpickle")),
    }


def pinned_cloudpickle(installed: str) -> str:
    """The version of cloudpickle for the image: the installed one, or the newest pinned one that reads its pickles.

    Args:
        installed: The version installed here.

    Raises:
        SettingsError: No pinned version reads its pickles.
    """
    known: list[str] = re.findall(r"^cloudpickle==(\S+) ", (docker_folder() / PINS).read_text("utf-8"), re.MULTILINE)
    readers = [version for version in known if protocol.same_cloudpickle(version, installed)]
    if not readers:
        raise SettingsError(
            f"cloudpickle {installed} is installed here, and an image of covalent-cirro {__version__} can have "
            f"{', '.join(known)}, none of which reads what it pickles: install one of them, or update covalent-cirro."
        )
    if installed in readers:
        return installed
    return max(readers, key=lambda version: [int(part) for part in version.split(".")])


def uses_runner(dockerfile: str) -> bool:
    """Whether a Dockerfile uses the runner's image."""
    return RUNNER_ARGUMENT in dockerfile


def bases(dockerfile: str, arguments: Mapping[str, str]) -> list[str]:
    """Base images of a Dockerfile, each once; without its own stages, and without names that only the build knows."""
    values: dict[str, str] = {}
    stages: set[str] = {"scratch"}
    found: list[str] = []
    for line in dockerfile.splitlines():
        declared, begun = _ARG.match(line), _FROM.match(line)
        if declared and len(stages) == 1:  # FROM uses only arguments declared before the first stage
            name, default = declared.groups()
            values[name] = arguments.get(name, _filled((default or "").strip("\"'"), values))
        elif begun:
            name = _filled(begun[1], values)
            if name and name.lower() not in stages and name not in found:
                found.append(name)
            stages.add((begun[2] or f"stage {len(stages)}").lower())
    return found


def _filled(text: str, values: Mapping[str, str]) -> str:
    """A text of a Dockerfile with variables replaced by their values."""
    return _VARIABLE.sub(lambda match: values.get(match[1] or match[3]) or match[2] or "", text)


def content_tag(recipe: Recipe, context: Path, inputs: Mapping[str, object]) -> str:
    """The tag of an image, which is the same for the same content on all machines.

    Args:
        recipe: Python and device, which are part of the tag.
        context: Folder whose files the build may copy; path, content and permission to execute count.
        inputs: Everything else that determines the content: build arguments, ids of base images.
    """
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
    for name in sorted(context_files(context)):
        path = context / name
        if path.is_symlink():
            kind, content = "link", os.readlink(path).encode()
        elif path.is_file():
            kind, content = ("program" if os.access(path, os.X_OK) else "file"), _sha256(path)
        else:
            continue
        digest.update(f"{kind} {len(name)} {name} {len(content)} ".encode())
        digest.update(content)
    return f"{recipe.python}-{recipe.device}-{digest.hexdigest()[:16]}"


def context_files(context: Path) -> Iterable[str]:
    """Paths in a build context that are sent to the engine, without those in its ``.dockerignore``."""
    from docker.utils.build import exclude_paths

    ignore = context / ".dockerignore"
    lines = ignore.read_text("utf-8").splitlines() if ignore.is_file() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    found: set[str] = exclude_paths(str(context), patterns)
    return found


def pip_settings(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Build arguments with the package indexes of pip here, as far as a container can reach them."""
    configured: dict[str, str] = {}
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], env=dict(environ), capture_output=True, text=True, check=False
    )
    for line in listed.stdout.splitlines() if listed.returncode == 0 else ():
        name, _, value = line.partition("=")
        section, _, key = name.partition(".")
        argument = f"PIP_{key.upper().replace('-', '_')}"
        if section in ("global", "install") and argument in PIP_ARGUMENTS:
            configured[argument] = str(ast.literal_eval(value))
    configured.update({name: environ[name] for name in PIP_ARGUMENTS if environ.get(name)})
    reachable = {
        name: " ".join(part for part in value.split() if "HOST" in name or part.startswith(("http://", "https://")))
        for name, value in configured.items()
    }
    return {name: value for name, value in reachable.items() if value}


def _sha256(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.digest()
