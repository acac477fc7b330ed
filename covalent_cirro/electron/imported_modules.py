"""Which modules an electron's function imports, by its pickle and by the sources of its local packages.

Reads what is in memory, and no files. Pickles and sources are never executed. Only imports count that are certain to be
done once the function runs: what is imported in a ``try``, an ``if`` or a function of a package may never be, and a
false alarm is worse than a missing one.
"""

from __future__ import annotations

import ast
import io
import opcode
import sys
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from covalent_cirro.electron.reuse.package_files import ARCHIVE_BYTES, SOURCE_BYTES, modules_of
from covalent_cirro.electron.reuse.pickle_objects import (
    CODE_PLACE,
    Object,
    Unreadable,
    arguments_of,
    cloudpickle_call,
    read,
)

_CODE, _CONSTANTS, _NAMES = 6, 7, 8
"""Indexes of ``co_code``, ``co_consts`` and ``co_names`` among the arguments of a code object."""

_CATCHERS = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException", "suppress"})
"""Names in a function that may catch the error of an import: then none of its imports counts."""

_PROVIDERS = frozenset({"sys", "importlib", "find_spec", "subprocess", "Popen", "system", "pip", "TYPE_CHECKING"})
"""Names in functions that may install modules, look for them, or change where they are searched: then no import in a
function counts."""

_NO_MODULES = frozenset({"__main__", "__mp_main__", "__builtin__", "copy_reg", "cloudpickle", "covalent", ""})
"""Modules that are in every job, or that the runner does without."""


def in_pickle(data: bytes, python: str) -> frozenset[str]:
    """Full names of the modules that a pickled function needs, and of objects in them where they may be modules.

    Args:
        data: The pickle.
        python: Version of Python that made it: bytecode is read by the same minor version only.

    Returns:
        The names; none where the bytes are no pickle, or an unknown one.
    """
    try:
        root, effects, _ = read(data)
    except (Unreadable, RecursionError):
        return frozenset()
    reads_code = python.split(".")[:2] == [str(part) for part in sys.version_info[:2]]
    found: set[str] = set()
    in_code: list[set[str]] = []
    for each in _objects([root, *effects]):
        made = cloudpickle_call(each)
        if each.kind == "global" and len(each.parts) == 2 and isinstance(each.parts[0], str):
            found.add(each.parts[0])
        elif made is not None and made[0] == "subimport" and made[1] and isinstance(made[1][0], str):
            found.add(made[1][0])
        elif reads_code:
            kind, arguments = arguments_of(each) or ("", [])
            if kind == "CodeType" and len(arguments) in CODE_PLACE:
                code, constants, names = (arguments[index] for index in (_CODE, _CONSTANTS, _NAMES))
                used = {name for name in names.parts if isinstance(name, str)} if isinstance(names, Object) else set()
                if not _PROVIDERS.isdisjoint(used):
                    reads_code = False
                    in_code.clear()
                elif _CATCHERS.isdisjoint(used):
                    in_code.append(_in_code(code, constants, names))
    return frozenset(found.union(*in_code))


def _objects(roots: Iterable[Any]) -> Iterator[Object]:
    seen: set[int] = set()
    left = list(roots)
    while left:
        what = left.pop()
        if isinstance(what, Object) and id(what) not in seen:
            seen.add(id(what))
            yield what
            left += what.parts


def _in_code(code: Any, constants: Any, names: Any) -> set[str]:
    """Names that the bytecode of a function imports, without relative ones."""
    if not (isinstance(code, bytes) and isinstance(constants, Object) and isinstance(names, Object)):
        return set()
    found: set[str] = set()
    loaded: list[Any] = []  # constants since the last other instruction: level, and what is taken from the module
    argument = 0
    for position in range(0, len(code) - 1, 2):
        name = opcode.opname[code[position]]
        argument = argument << 8 | code[position + 1]
        if name == "EXTENDED_ARG":
            continue
        if name == "LOAD_CONST":
            loaded.append(constants.parts[argument] if argument < len(constants.parts) else None)
        else:
            if name == "IMPORT_NAME" and argument < len(names.parts) and len(loaded) > 1 and loaded[-2] == 0:
                module, taken = str(names.parts[argument]), loaded[-1]
                taken = taken.parts if isinstance(taken, Object) else ()
                found |= {module, *(f"{module}.{each}" for each in taken)}
            loaded = []
        argument = 0
    return found


def through_packages(archives: Sequence[bytes], names: Iterable[str]) -> frozenset[str]:
    """Names of modules that are imported when modules of local packages are, without those in the packages.

    Args:
        archives: Archives of the packages.
        names: Full names that are imported, also of modules that are in no package.

    Returns:
        Top-level names. None where the archives have too much: whatever is imported may be in them.
    """
    if sum(map(len, archives)) > ARCHIVE_BYTES:
        return frozenset()
    try:
        opened = [zipfile.ZipFile(io.BytesIO(data)) for data in archives]
        files = {info.filename: each for each in opened for info in each.infolist() if not info.is_dir()}
        by_module: dict[str, list[str]] = {}
        for path in files:
            for module in modules_of(path, files):
                by_module.setdefault(module, []).append(path)
        known = {module.partition(".")[0] for module in by_module} | {path.partition("/")[0] for path in files}
        left, seen = list(names), set[str]()
        while left:
            name = left.pop()
            if name in seen:
                continue
            seen.add(name)
            for prefix in _prefixes(name):
                for path in by_module.get(prefix, ()):
                    left += _in_source(files[path], path, prefix)
    except (zipfile.BadZipFile, zlib.error, ValueError, RuntimeError, NotImplementedError, OSError, EOFError):
        return frozenset()
    return top_level(seen) - known


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _in_source(archive: zipfile.ZipFile, path: str, module: str) -> list[str]:
    """Full names that a source imports as soon as it is imported itself."""
    if not path.endswith(".py") or archive.getinfo(path).file_size > SOURCE_BYTES:
        return []
    try:
        statements = ast.parse(archive.read(path), path).body
    except (SyntaxError, MemoryError, RecursionError):
        return []
    package = module.split(".") if path.endswith("__init__.py") else module.split(".")[:-1]
    found: list[str] = []
    for each in statements:
        if isinstance(each, ast.Import):
            found += [alias.name for alias in each.names]
        elif isinstance(each, ast.ImportFrom) and each.level <= len(package):
            base = package[: len(package) - each.level + 1] if each.level else []
            source = ".".join([*base, *([each.module] if each.module else [])])
            found += [source, *(f"{source}.{alias.name}" for alias in each.names)]
    return found


def top_level(names: Collection[str]) -> frozenset[str]:
    """Top-level modules of full names, without those of Python and those that need not be there."""
    tops = {name.partition(".")[0] for name in names}
    return frozenset(tops - _NO_MODULES - sys.stdlib_module_names)
