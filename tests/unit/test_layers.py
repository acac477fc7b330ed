"""The rooms of the package: who imports whom, what pure modules may do, and that the server never unpickles."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.make_rooms import FLOORS, PACKAGE, PAGE, arrows, circles, imported_names, imports, modules, page, room, trees

MODULES = modules()
TREES = trees()
IMPORTS = imports()

IMPORT_THE_RUNNER = {"checkpoint", "local", "stored_values"}
"""An electron's checkpoint is the runner's; the emulator reads cgroups as the runner does; jobs unpickle handles."""

PURE_ROOMS = {"contract", "jobs", "settings", "errors"}
PURE_MAY_IMPORT = {
    *(
        "__future__",
        "base64",
        "binascii",
        "codecs",
        "collections",
        "dataclasses",
        "datetime",
        "email",
        "enum",
        "fnmatch",
    ),
    "bisect",
    *("functools", "hashlib", "heapq", "hmac", "html", "io", "itertools", "json", "math", "numbers"),
    *(
        "operator",
        "os",
        "pickletools",
        "re",
        "statistics",
        "string",
        "struct",
        "traceback",
        "types",
        "typing",
        "unicodedata",
        "urllib",
        "xml",
    ),
}
PURE_MAY_USE = {
    "os": {"PathLike", "SEEK_CUR", "SEEK_END", "SEEK_SET", "fsdecode", "fspath", "path", "sep", "__file__"},
    "io": {"BufferedReader", "BytesIO", "RawIOBase", "SEEK_END"},
    "urllib": {"parse"},
}
CLOCKS = {"now", "utcnow", "today"}

PICKLE = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
UNPICKLES = {
    "covalent_server.client": "a client's process: it reads a lattice from the user's file",
    "electron.without_server": "the caller's own process, which wants the result",
    "item_maps": "a process that builds a lattice: it pickles the items of a list",
    "stored_values.packing": "the process of the user who stores a value: it pickles",
}
"""Modules outside the runner that may unpickle, and whose process that is."""
LOADERS = {"json", "tomlkit", "toml", "yaml", "tomllib", "templates"}
"""What has a `load` or `loads` that runs no code."""


def test_every_room_has_its_floor() -> None:
    """One, and no room is listed that is gone."""
    listed = [each for floor in FLOORS for each in floor]
    assert sorted(listed) == sorted({room(module) for module in MODULES})


@pytest.mark.parametrize("name", sorted({room(module) for module in MODULES}))
def test_imports_point_downward(name: str) -> None:
    """A room imports from rooms on lower floors only."""
    height = {each: number for number, floor in enumerate(FLOORS) for each in floor}
    up = {
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in others
        if room(module) == name != room(other) and height[room(other)] <= height[name]
    }
    assert up == set()


def test_no_files_import_each_other_in_a_circle() -> None:
    """Anywhere, also within a room."""
    assert circles(IMPORTS) == []


def test_a_circle_is_found() -> None:
    """Of three, and of a module that imports itself by way of its package."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})[0] == {"a", "b", "c"}


def test_the_runner_imports_the_contract_only() -> None:
    """It runs where nothing else of ours is installed."""
    assert arrows(IMPORTS)["runner"] == {"contract"}


def test_nobody_imports_the_runner() -> None:
    """What it shares with the executor lies in the contract."""
    importers = {name for name, others in arrows(IMPORTS).items() if "runner" in others}
    assert importers == IMPORT_THE_RUNNER


# --- what a module may do ----------------------------------------------------------------------------------------


def pure_modules() -> Iterator[str]:
    """Modules of pure rooms, and all that say of themselves that they are pure."""
    for module, tree in TREES.items():
        if room(module) in PURE_ROOMS or re.search(r"\bPure\b", ast.get_docstring(tree) or ""):
            yield module


@pytest.mark.parametrize("module", list(pure_modules()))
def test_pure_modules_do_no_io(module: str) -> None:
    """No file, no network, no clock, no chance: they decide, others act."""
    tree = TREES[module]
    outside = {name.partition(".")[0] for name in imported_names(tree)} - {"covalent_cirro"}
    assert outside <= PURE_MAY_IMPORT
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("open", "print", "input", "exec", "eval"), f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.attr in PURE_MAY_USE.get(node.value.id, {node.attr}), f"line {node.lineno}"
            assert node.value.id not in ("datetime", "date") or node.attr not in CLOCKS, f"line {node.lineno}"


def test_pure_rooms_import_pure_rooms() -> None:
    """Or they would do by others what they may not do."""
    assert {other for name in PURE_ROOMS for other in arrows(IMPORTS)[name]} <= PURE_ROOMS


@pytest.mark.parametrize("module", [each for each in MODULES if room(each) not in ("runner", "checkpoint")])
def test_nothing_is_unpickled(module: str) -> None:
    """What a job wrote is bytes for the server and for all commands."""
    assert unpickling(TREES[module]) == set() or module in UNPICKLES


def test_what_may_unpickle_does() -> None:
    """An exception that is not needed any more is taken out."""
    assert {module for module in UNPICKLES if unpickling(TREES[module])} == set(UNPICKLES)


def unpickling(tree: ast.Module) -> set[str]:
    """What in a module unpickles, or could: imports of pickling packages, and loaders of no known format."""
    found = {name for name in imported_names(tree) if name.partition(".")[0] in PICKLE}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("loads", "load", "Unpickler", "get_deserialized"):
            owner = node.value.id if isinstance(node.value, ast.Name) else ast.unparse(node.value)
            if owner not in LOADERS and (node.attr != "load" or owner in PICKLE | {"torch", "numpy", "np"}):
                found.add(f"{owner}.{node.attr} in line {node.lineno}")
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "def f():\n    from cloudpickle import loads",
        "import covalent as ct\nct.TransportableObject.deserialize(x).get_deserialized()",
        "torch.load(path)",
        "something.loads(data)",
    ],
)
def test_unpickling_is_found(code: str) -> None:
    """However it is written."""
    assert unpickling(ast.parse(code))


# --- what all modules have ---------------------------------------------------------------------------------------


def test_every_module_says_what_it_is() -> None:
    """The first line of the file."""
    assert [module for module, tree in TREES.items() if not ast.get_docstring(tree)] == []


def test_every_package_is_installed() -> None:
    """`setup.cfg` lists them: one that is missing there is missing for all but who works in a clone."""
    listed = configparser.ConfigParser()
    listed.read(PACKAGE.parent / "setup.cfg")
    there = {".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in PACKAGE.rglob("__init__.py")}
    assert there | {"covalent_cirro.docker", "covalent_cirro.infra"} == set(listed["options"]["packages"].split())


def test_the_drawing_of_the_rooms_is_of_these_rooms() -> None:
    """docs/make_rooms.py has been run."""
    text = PAGE.read_text()
    assert page(text) == text


def test_every_folder_is_a_package() -> None:
    """A folder of modules without ``__init__.py`` is not installed."""
    assert [folder for folder in folders() if not (folder / "__init__.py").exists()] == []


def folders() -> Iterator[Path]:
    """Folders of the package that have modules."""
    yield from {path.parent for path in PACKAGE.rglob("*.py")}


# --- one meaning for one name ------------------------------------------------------------------------------------

EMULATOR = "local.emulator."
"""The emulator has names of its own: AWS's nouns, which the rest of the package has from the other side."""


def class_names(inside_emulator: bool) -> list[tuple[str, str]]:
    """Public classes as pairs (name, module)."""
    return [
        (node.name, module)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if module.startswith(EMULATOR) == inside_emulator
        and isinstance(node, ast.ClassDef)
        and not node.name.startswith("_")
    ]


def module_names(inside_emulator: bool) -> list[tuple[str, str]]:
    """Files as pairs (name, module). A file of `cli` has the name of its command, ``__init__`` that of its folder."""
    return [
        (path.stem, module)
        for module, path in MODULES.items()
        if module.startswith(EMULATOR) == inside_emulator and room(module) != "cli" and not path.stem.startswith("__")
    ]


def same(names: list[tuple[str, str]]) -> dict[str, list[str]]:
    """The names that occur more than once, with the modules that they occur in."""
    found: dict[str, list[str]] = {}
    for name, module in sorted(names):
        found.setdefault(name, []).append(module)
    return {name: where for name, where in found.items() if len(where) > 1}


def test_a_name_with_two_meanings_is_found() -> None:
    """With the places that it has them in."""
    assert same([("Plan", "a"), ("Run", "a"), ("Plan", "b.c")]) == {"Plan": ["a", "b.c"]}


def test_a_class_name_has_one_meaning_in_the_emulator() -> None:
    """A class of the data model is not also one of a stack's resources."""
    assert same(class_names(inside_emulator=True)) == {}


def test_a_file_name_has_one_meaning_in_the_emulator() -> None:
    """Whoever reads one in a traceback knows where it is."""
    assert same(module_names(inside_emulator=True)) == {}


def test_a_class_name_has_one_meaning_outside_the_emulator() -> None:
    """Whoever reads one in an annotation knows what it is."""
    assert same(class_names(inside_emulator=False)) == {}


def test_a_file_name_has_one_meaning_outside_the_emulator() -> None:
    """Commands are called as what they show; beside them, no two modules have one name."""
    assert same(module_names(inside_emulator=False)) == {}


# --- moto --------------------------------------------------------------------------------------------------------

MOTO_INTERNALS = "local.emulator.moto_internals"
OF_MOTO = {"_parsed_resources", "_resource_json_map", "resource_map", "lazy_condition_map", "cloudformation_backend"}
"""Attributes of moto's stacks, which are reached without an import."""


def reaches_into_moto(tree: ast.Module) -> set[str]:
    """What in a module imports moto, looks for its files or version, or uses what only moto's objects have."""
    found = {name for name in imported_names(tree) if name.partition(".")[0] == "moto"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"moto(\.\w+)*", node.value):
            found.add(f"{node.value!r} in line {node.lineno}")
        if isinstance(node, ast.Attribute) and node.attr in OF_MOTO:
            found.add(f"{node.attr} in line {node.lineno}")
    return found


def test_one_place_reaches_into_moto() -> None:
    """What changes with a version of moto is changed there."""
    found = {module: reaches_into_moto(tree) for module, tree in TREES.items() if not module.startswith(MOTO_INTERNALS)}
    assert {module: how for module, how in found.items() if how} == {}


def test_that_place_does() -> None:
    """Each of its modules but the one that only imports others."""
    modules_of_moto = [module for module in TREES if module.startswith(f"{MOTO_INTERNALS}.")]
    assert [module for module in modules_of_moto if not reaches_into_moto(TREES[module])] == []


@pytest.mark.parametrize(
    "code",
    [
        "import moto",
        "def f():\n    from moto.s3.models import s3_backends",
        "importlib.util.find_spec('moto')",
        "stack.resource_map.load()",
    ],
)
def test_reaching_into_moto_is_found(code: str) -> None:
    """However it is written."""
    assert reaches_into_moto(ast.parse(code))
