"""Draws the rooms of the package into docs/architecture.md, from the imports: ``python docs/make_rooms.py``.

A room is a file or a folder that lies directly in ``covalent_cirro``. `FLOORS` says which rooms may import which: a
room imports from lower floors only. ``tests/unit/test_layers.py`` checks that by the same functions.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "covalent_cirro"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- rooms: made by docs/make_rooms.py -->", "<!-- end of rooms -->"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("cli", "emulator"),
    ("search",),
    ("serving",),
    ("models",),
    ("stored_values",),
    ("history", "local"),
    ("deployment",),
    ("cirro",),
    ("electron",),
    ("aws", "covalent_server", "checkpoint", "item_maps", "trial"),
    ("jobs", "runner"),
    ("contract", "settings", "local_files", "private", "loopback"),
    ("errors",),
)
"""From the top to the bottom."""


def modules() -> dict[str, Path]:
    """The path of each module, by its name without ``covalent_cirro.``; the package itself is left out."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts:
            found[".".join(parts)] = path
    return found


@functools.lru_cache(maxsize=1)
def trees() -> dict[str, ast.Module]:
    """The syntax tree of each module."""
    return {module: ast.parse(path.read_text()) for module, path in modules().items()}


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Full names of what a module imports when it runs, wherever in it; an import for type checking is none."""
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not isinstance(node, ast.expr) and not _is_for_types(node):  # no expression has a statement in it
            left += ast.iter_child_nodes(node)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


@functools.lru_cache(maxsize=1)
def imports() -> dict[str, set[str]]:
    """By module of ours, the other modules of ours that it imports."""
    known = trees()
    found: dict[str, set[str]] = {}
    for module, tree in known.items():
        names = [
            name.removeprefix("covalent_cirro.") for name in imported_names(tree) if name.startswith("covalent_cirro.")
        ]
        found[module] = {name if name in known else name.rpartition(".")[0] for name in names} - {module, ""}
    return found


def room(module: str) -> str:
    """The room of a module."""
    return module.partition(".")[0]


def arrows(of: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """By room, the other rooms that it imports from."""
    found: dict[str, set[str]] = {room(module): set() for module in of}
    for module, others in of.items():
        found[room(module)] |= {room(other) for other in others} - {room(module)}
    return found


def circles(of: Mapping[str, set[str]]) -> list[set[str]]:
    """Sets of modules each of which imports each other one, directly or by way of others; the largest first."""
    reach = {module: reached(module, of) for module in of}
    found = {frozenset(other for other in reach[module] if module in reach[other]) | {module} for module in of}
    return sorted((set(each) for each in found if len(each) > 1), key=len, reverse=True)


def reached(start: str, of: Mapping[str, set[str]]) -> set[str]:
    """All that a module or room imports, directly or by way of others."""
    found, left = set[str](), [start]
    while left:
        new = of.get(left.pop(), set()) - found
        found |= new
        left += new
    return found


def shortened(of: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The arrows without those that a longer way also goes: from a to c where a imports b, which imports c."""
    return {name: below - {far for near in below for far in reached(near, of)} for name, below in of.items()}


def drawing() -> str:
    """A Mermaid diagram of the rooms, and a table of what each room is and imports."""
    found = arrows(imports())
    order = [each for floor in FLOORS for each in floor]

    def names(rooms: set[str], between: str) -> str:
        return between.join(each for each in order if each in rooms)

    lines = ["```mermaid", "flowchart TD"]
    lines += [f"    {name} --> {names(below, ' & ')}" for name in order if (below := shortened(found)[name])]
    lines += ["```", "", "| room | what it is | imports |", "| --- | --- | --- |"]
    for name in order:
        path = PACKAGE / name / "__init__.py" if (PACKAGE / name).is_dir() else PACKAGE / f"{name}.py"
        purpose = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0].replace("``", "`")
        lines.append(f"| `{path.relative_to(PACKAGE).parts[0]}` | {purpose} | {names(found[name], ', ')} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with its drawing made anew."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{drawing()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
