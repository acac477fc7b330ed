"""Which modules an electron imports that its job will not find, before the job is submitted.

The image says what can be imported in it (`jobs/image_modules.py`); of an image that does not, nothing is missed. Never
fails an electron: the job may find a way that is not seen here.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from covalent_cirro import local_files
from covalent_cirro.contract import tobj
from covalent_cirro.contract.protocol import Call, Package, Task
from covalent_cirro.contract.references import Inline, Ref
from covalent_cirro.covalent_server.assets import Group
from covalent_cirro.electron import cache_folder, imported_modules, local_packages
from covalent_cirro.electron.reuse.work import READ_BYTES
from covalent_cirro.jobs import image_modules
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)

KEPT = 1000
"""Most findings that are kept, so that equal electrons of a sweep are looked at once."""

_found: dict[tuple[object, ...], tuple[str, ...]] = {}
_told: dict[tuple[str, str, tuple[str, ...]], None] = {}


async def find(settings: Settings, group: Group, call: Call, in_image: frozenset[str] | None) -> tuple[str, ...]:
    """Find the modules that the electrons of a call lack, and warn of them in the server's log: once for each name of
    an electron in a dispatch.

    Args:
        settings: Settings of the executor.
        group: The files of the task group.
        call: The call.
        in_image: Top-level modules in the job's image; `None` if they are not known.

    Returns:
        Their names; none where it cannot be told.
    """
    if in_image is None:
        return ()
    missing: set[str] = set()
    for task in call.tasks:
        key = (task.function, task.hooks, call.packages, in_image)
        if key not in _found:
            try:
                _keep(_found, key, await asyncio.to_thread(_missing, settings, group, call, task, in_image))
            except Exception as error:  # this only warns
                log.warning("Electron %r is not checked for missing modules: %r", task.name, error)
                return ()
        missing |= {*_found[key]}
        told = (call.dispatch_id, task.name, _found[key])
        if _found[key] and told not in _told:
            _keep(_told, told, None)
            log.warning("Electron %r of dispatch %s: %s", task.name, call.dispatch_id, image_modules.warning(told[2]))
    return tuple(sorted(missing))


def _keep(cache: dict[Any, Any], key: object, value: object) -> None:
    while len(cache) >= KEPT:
        del cache[next(iter(cache))]
    cache[key] = value


def _missing(settings: Settings, group: Group, call: Call, task: Task, in_image: frozenset[str]) -> tuple[str, ...]:
    installed = _installed_by(task.hooks)
    if installed is None:
        return ()
    names = imported_modules.in_pickle(_pickle(group.nodes[task.node_id].paths["function"]), call.python)
    if not call.packages:
        return tuple(sorted(imported_modules.top_level(names) - in_image - installed))
    archives = [_archive(settings, *each) for each in zip(settings.local_packages, call.packages, strict=True)]
    return tuple(sorted(imported_modules.through_packages(archives, names) - in_image - installed))


def _pickle(path: str) -> bytes:
    """The pickle in a file of Covalent's; empty if it is large."""
    with local_files.errors_about(path), open(path, "rb") as file:
        header = tobj.read_header(file)
        if tobj.pickle_size(file, header) > READ_BYTES:
            return b""
        return b"".join(tobj.iter_pickle(file, header))


def _archive(settings: Settings, item: str, package: Package) -> bytes:
    if isinstance(package.archive, Inline):
        return package.archive.data
    folder = cache_folder.scratch(settings.cache_dir)
    return Path(local_packages.pack(local_packages.locate(item), folder)).read_bytes()


# --- what hooks install -----------------------------------------------------------------------------------------------

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\]\s*)?(?:[<>=!~(;#].*)?")
"""A requirement of a distribution of an index, without its version. Not one with a URL, and not an option of pip."""


def _installed_by(hooks: Ref | None) -> frozenset[str] | None:
    """Modules that ``deps_pip`` installs; `None` where the hooks may install anything.

    ``deps_bash`` and ``call_before`` can. So can a distribution whose own requirements are not known: it is not
    installed on this machine.
    """
    if hooks is None:
        return frozenset()
    if not isinstance(hooks, Inline):
        return None
    read = json.loads(hooks.data) or {}
    deps = read.get("deps") or {}
    if read.get("call_before") or any(each for name, each in deps.items() if name != "pip"):
        return None
    asked = _requirements((deps.get("pip") or {}).get("attributes") or {})
    return None if asked is None else _provided_by(tuple(sorted(asked)))


def _requirements(attributes: Mapping[str, Any]) -> set[str] | None:
    packages = attributes.get("packages") or []
    lines = [packages] if isinstance(packages, str) else [*packages]
    lines += str(attributes.get("requirements_content") or "").splitlines()
    return _names(line for line in lines if line.strip() and not line.lstrip().startswith("#"))


def _names(lines: Iterable[str]) -> set[str] | None:
    found = [_REQUIREMENT.fullmatch(line) for line in lines]
    return None if None in found else {_normal(each[1]) for each in found if each is not None}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.lru_cache(maxsize=64)
def _provided_by(distributions: tuple[str, ...]) -> frozenset[str] | None:
    """Modules of distributions and of all that they require, as far as it is installed here."""
    modules: dict[str, set[str]] = {}
    for module, names in metadata.packages_distributions().items():
        for name in names:
            modules.setdefault(_normal(name), set()).add(module)
    if any(name not in modules for name in distributions):
        return None
    left, seen = [*distributions], set[str]()
    while left:
        name = left.pop()
        if name in modules and name not in seen:
            seen.add(name)
            left += [_normal(re.split(r"[^\w.-]", each, maxsplit=1)[0]) for each in metadata.requires(name) or ()]
    return frozenset(module for name in seen for module in modules[name])
