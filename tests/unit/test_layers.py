"""The house: imports point downward only, pure modules stay pure, and the server's side never unpickles."""

from __future__ import annotations

import ast
import configparser
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "covalent_cirro"

LAYERS: list[set[str]] = [
    # What may be imported stands above what imports it; docs/architecture.md draws this.
    {"errors", "nested", "tobj", "texts", "limits", "log_parts", "web_pages"},
    {"protocol", "private", "peers"},
    {"fields", "settings", "log_text"},
    {"documents"},
    {
        "jobs",
        "image_rules",
        "console",
        "optional_actions",
        "local_files",
        "database_locks",
        "config_writes",
        "server_guard",
        "plain_paths",
    },
    {"outcomes"},
    {"health", "ends"},
    {"foreign_answers", "aws_setup"},
    {"watchlist", "explanations", "host_ends", "checkpoint", "aws", "cache", "packages", "covalent_config"},
    {
        "blobs",
        "batch",
        "definitions",
        "stops",
        "mending",
        "tries",
        "watcher",
        "covalent_assets",
        "image_versions",
        "prices",
        "processes",
        "dispatching",
    },
    {"store", "state_folder", "waiting", "covalent_view", "covalent_runs"},
    {"progress"},
    {"log_files"},
    {"engine", "calls", "results"},
    {"assembly", "logs", "launches"},
    {"host_process", "resume", "reuse"},
    {"host_nodes"},
    {"submission"},
    {"host_failures", "host_jobs"},
    {"polling"},
    {"covalent_server", "reception"},
    {"direct"},
    {"cirro"},
    {"emulator", "infra", "docker"},
    {"deployment", "images"},
    {"doctor", "playground", "history"},
    {"report"},
    {"cli"},
]

PURE = {
    "ends",
    "explanations",
    "host_ends",
    "nested",
    "tries",
    "console",
    "errors",
    "tobj",
    "texts",
    "limits",
    "log_parts",
    "log_text",
    "protocol",
    "fields",
    "documents",
    "settings",
    "jobs",
    "outcomes",
    "watchlist",
    "image_rules",
    "optional_actions",
    "health",
    "web_pages",
}
PURE_MAY_IMPORT = {
    *("__future__", "base64", "binascii", "codecs", "collections", "dataclasses", "enum", "hashlib", "heapq", "hmac"),
    *("io", "json", "math", "numbers", "os", "re", "typing"),
}

RUNNER_MAY_IMPORT = {
    *("errors", "nested", "protocol", "documents", "tobj", "texts", "limits", "log_parts", "runner"),
}

SERVER_SIDE = sorted(
    path.relative_to(PACKAGE)
    for folder in ("", "waiting", "progress", "resume", "reuse")
    for path in (PACKAGE / folder).glob("*.py")
    if path.stem not in {"direct", "dispatching", "playground", "__init__"}
)


def imports(path: Path) -> list[tuple[str, bool]]:
    """Names that a file imports, and whether at run time at all (not under TYPE_CHECKING)."""
    found: list[tuple[str, bool]] = []
    tree = ast.parse(path.read_text())
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        real = id(node) not in typing_only
        if isinstance(node, ast.Import):
            found += [(alias.name, real) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "covalent_cirro":
                found += [(f"covalent_cirro.{alias.name}", real) for alias in node.names]
            else:
                found.append((node.module, real))
    return found


def rooms(path: Path) -> set[str]:
    """Modules of ours that a file imports."""
    return {
        name.split(".")[1]
        for name, real in imports(path)
        if real
        and name.startswith("covalent_cirro.")
        and name.split(".")[1] not in ("__version__", "CirroBatchExecutor")
    }


def level(room: str) -> int:
    """Height of a room in the house."""
    return next(height for height, layer in enumerate(LAYERS) if room in layer)


def files_of(room: str) -> list[Path]:
    """The files of a room: a module, or all of a package."""
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def all_rooms() -> list[str]:
    """Every module and package of covalent_cirro."""
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    return sorted(modules | {path.parent.name for path in PACKAGE.glob("*/__init__.py")})


@pytest.mark.parametrize("room", [room for room in all_rooms() if room != "runner"])
def test_imports_point_downward(room: str) -> None:
    """A room knows only what lies below it."""
    for path in files_of(room):
        for imported in rooms(path) - {room, "runner"}:
            assert level(imported) < level(room), f"{path.name} imports {imported}, which is not below {room}"


@pytest.mark.parametrize("path", files_of("runner"), ids=lambda path: str(path.stem))
def test_the_runner_knows_the_protocol_only(path: Path) -> None:
    """It runs where nothing else of ours is needed."""
    assert rooms(path) <= RUNNER_MAY_IMPORT


@pytest.mark.parametrize("room", sorted(PURE))
def test_pure_modules_do_no_io(room: str) -> None:
    """No clock, no network, no asyncio: they decide, others act."""
    for path in files_of(room):
        outside = {name.split(".")[0] for name, _ in imports(path)} - {"covalent_cirro"}
        assert outside <= PURE_MAY_IMPORT, path.name


@pytest.mark.parametrize("path", SERVER_SIDE, ids=str)
def test_the_servers_side_never_unpickles(path: Path) -> None:
    """What a job wrote is bytes there; only `direct`, in the caller's own process, loads it."""
    tree = ast.parse((PACKAGE / path).read_text())
    loads = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("loads", "load", "Unpickler")
    }
    pickles = {name.split(".")[0] for name, _ in imports(PACKAGE / path)} & {
        "pickle",
        "cloudpickle",
        "dill",
        "marshal",
        "shelve",
    }
    assert not pickles, f"{path} imports {pickles} and has {loads}"


def test_every_module_says_what_it_is() -> None:
    """The first line of the file."""
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_every_package_is_installed() -> None:
    """`setup.cfg` lists them: one that is missing there is missing for all but who works in a clone."""
    listed = configparser.ConfigParser()
    listed.read(PACKAGE.parent / "setup.cfg")
    there = {".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in PACKAGE.rglob("__init__.py")}
    assert there | {"covalent_cirro.docker", "covalent_cirro.infra"} == set(listed["options"]["packages"].split())
