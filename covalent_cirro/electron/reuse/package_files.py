"""Which files of local packages a call can reach, and a digest of each that comments do not change.

Reads archives that are in memory, and no files. Sources are parsed and never executed. What a source may import is told
from its import statements and texts. Where that cannot be told, all files count: a file too many computes work again, a
file too few would reuse a wrong result.
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

ARCHIVE_BYTES = 8 * 1024 * 1024
"""Most bytes of an archive that is opened. A larger one is compared byte for byte."""

CONTENT_BYTES = 64 * 1024 * 1024
"""Most bytes of all files of a call's archives; with more, the archives are compared byte for byte."""

SOURCE_BYTES = 256 * 1024
"""Most bytes of a source that is parsed: Python needs up to 200 times as much memory for it. A larger one is compared
byte for byte, and may import anything."""

SOURCES_BYTES = 8 * 1024 * 1024
"""Most bytes of sources that are parsed, which takes 3 s of CPU time. Later ones are treated as large ones."""

_IMPORTERS = frozenset(
    {
        *("__import__", "import_module", "exec", "exec_module", "load_module", "find_spec", "spec_from_file_location"),
        *("SourceFileLoader", "run_module", "run_path", "runpy", "pkgutil", "zipimport", "iter_modules"),
        *("pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "Unpickler", "read_pickle", "allow_pickle"),
        *("jsonpickle", "unsafe_load", "UnsafeLoader", "full_load", "load_model", "entry_points", "attach_stub"),
        *("addsitedir", "pytest"),
    }
)
"""Names of functions and modules that import a module whose name is a value, or unpickle, which does the same."""

_IMPORTERS_IN = {"torch": "load", "sys": "path"}
"""The same, of names that say nothing without their module."""


class PackedFile(NamedTuple):
    """A file of a package.

    Attributes:
        digest: Equal for equal content; for a source that could be parsed, whatever its comments and layout.
        modules: Names under which it can be imported; none for most files that are no sources.
        names: Full names of modules that it imports or mentions, also of other objects and of other packages.
        imports_anything: Whether it may import modules that are not in ``names``.
        uses_cirro: Whether it may ask for the place of an item of a map (`covalent_cirro.item`).
    """

    digest: str
    modules: tuple[str, ...]
    names: frozenset[str]
    imports_anything: bool
    uses_cirro: bool = False


Files = Mapping[str, PackedFile]
"""The files of all packages of a call, by their paths in the archives."""


def read_archives(archives: Sequence[bytes]) -> Files | None:
    """Read the files of a call's packages; `None` if they have too much, or are no archives."""
    found: dict[str, PackedFile] = {}
    try:
        opened = [zipfile.ZipFile(io.BytesIO(data)) for data in archives]
        infos = [(each, info) for each in opened for info in each.infolist() if not info.is_dir()]
        if sum(info.file_size for _, info in infos) > CONTENT_BYTES:
            return None
        paths = {info.filename for _, info in infos}
        modules = {path: modules_of(path, paths) for path in paths}
        mentions = Mentions({name.partition(".")[0] for names in modules.values() for name in names})
        left = SOURCES_BYTES
        for archive, info in sorted(infos, key=lambda each: each[1].filename):
            path, data = info.filename, archive.read(info)
            if not path.endswith(".py") or not modules[path]:
                is_native = bool(modules[path])
                names = frozenset() if is_native else mentions.in_bytes(data)
                found[path] = PackedFile(_digest(f"{info.external_attr}", data), modules[path], names, is_native)
            elif len(data) > min(SOURCE_BYTES, left):
                found[path] = _opaque(data, modules[path])
            else:
                left -= len(data)
                found[path] = _source(data, path, modules[path], mentions)
            found[path] = found[path]._replace(uses_cirro=b"covalent_cirro" in data)
    except (zipfile.BadZipFile, zlib.error, ValueError, RuntimeError, NotImplementedError, OSError, EOFError):
        return None
    return found


def reached(files: Files, texts: Collection[str] | None) -> dict[str, str]:
    """Digests, by path, of the files that count for a call.

    Args:
        files: All files of its packages.
        texts: All texts in its pickles and hooks; `None` if they are not known.
    """
    everything = {path: file.digest for path, file in files.items()}
    by_module: dict[str, list[str]] = {}
    for path, file in files.items():
        for module in file.modules:
            by_module.setdefault(module, []).append(path)
    mentions = Mentions({module.partition(".")[0] for module in by_module})
    if texts is None or _imports_anything(texts, texts, mentions):
        return everything
    if any(module in texts and name in texts for module, name in _IMPORTERS_IN.items()):
        return everything
    # Other files than sources can be read without an import.
    found = {path for path, file in files.items() if not file.modules or not path.endswith(".py")}
    named = {name for path in found for name in files[path].names}
    left = [*named, *_named_in_parts(texts, mentions, by_module)]
    known: set[str] = set(left)
    while left:
        name = left.pop()
        for path in _paths(name, by_module):
            if files[path].imports_anything:
                return everything
            found.add(path)
            left += files[path].names - known
            known |= files[path].names
    return {path: everything[path] for path in sorted(found)}


def _paths(name: str, by_module: Mapping[str, list[str]]) -> Iterator[str]:
    """Files that an import of a full name runs: also the packages around it."""
    if name.endswith(".*"):
        inside = (paths for module, paths in by_module.items() if module.startswith(name[:-1]))
        yield from (path for paths in inside for path in paths)
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        yield from by_module.get(".".join(parts[:end]), ())


def _named_in_parts(texts: Collection[str], mentions: Mentions, modules: Collection[str]) -> set[str]:
    """Full names in texts, also of modules whose package is one text and whose own name is another.

    ``from lab import helpers`` in a function leaves the texts ``lab`` and ``helpers``.
    """
    found = {name for text in texts for name in mentions.in_text(text)}
    bases = {name.rsplit(".", cut)[0] for name in found for cut in range(name.count(".") + 1)}
    more = True
    while more:
        more = False
        for module in modules:
            parts = module.split(".")
            splits = ((".".join(parts[:at]), ".".join(parts[at:])) for at in range(1, len(parts)))
            if module not in bases and any(base in bases and rest in texts for base, rest in splits):
                bases.add(module)
                more = True
    return found | bases


class Mentions:
    """Finds full names that begin with one of the packages."""

    def __init__(self, packages: Iterable[str]) -> None:
        names = "|".join(sorted(map(re.escape, packages), key=len, reverse=True)) or "(?!)"
        self._in_text = re.compile(rf"(?<![\w.])(?:{names})(?!\w)(?:\.\w+)*")
        word = rb"[\w\x80-\xff]"
        self._in_bytes = re.compile(
            rb"(?<![\w.\x80-\xff])(?:%s)(?!%s)(?:\.%s+)*" % (names.encode("utf-8", "surrogatepass"), word, word)
        )

    def in_text(self, text: str) -> list[str]:
        """The names in a text."""
        return self._in_text.findall(text)

    def in_bytes(self, data: bytes) -> frozenset[str]:
        """The names in the content of a file."""
        return frozenset(each.decode("utf-8", "replace") for each in self._in_bytes.findall(data))


def modules_of(path: str, paths: Collection[str]) -> tuple[str, ...]:
    """Names under which Python finds a file; see ``runner/package_path.py``."""
    *folders, file = path.split("/")
    stem, _, suffix = file.partition(".")
    if suffix.rpartition(".")[2] not in ("py", "so", "pyd"):
        return ()
    parts = folders if stem == "__init__" and folders else [*folders, stem]
    if not all(part.isidentifier() for part in parts):
        return ()
    # A folder that is no package is on ``sys.path`` itself.
    is_folder = len(parts) > 1 and f"{parts[0]}/__init__.py" not in paths
    return (".".join(parts), ".".join(parts[1:])) if is_folder else (".".join(parts),)


# --- sources ----------------------------------------------------------------------------------------------------------


def _source(data: bytes, path: str, modules: tuple[str, ...], mentions: Mentions) -> PackedFile:
    try:
        tree = ast.parse(data, path)
        # What the compiler is given, without lines and columns. The bytecode differs between two layouts of one source.
        digest = _digest("syntax", ast.dump(tree).encode("utf-8", "surrogatepass"))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return _opaque(data, modules)
    found = _Names(path.endswith("/__init__.py"), modules)
    for node in ast.walk(tree):
        found.add(node)
    texts = found.texts()
    names = found.names | {name for text in texts for name in mentions.in_text(text)}
    anything = found.uses_importer or _imports_anything(found.identifiers, texts, mentions)
    return PackedFile(digest, modules, frozenset(names), anything)


def _opaque(data: bytes, modules: tuple[str, ...]) -> PackedFile:
    return PackedFile(_digest("bytes", data), modules, frozenset(), imports_anything=True)


class _Names:
    """What a source names: modules that it imports, identifiers, and texts; and whether it uses `_IMPORTERS_IN`."""

    def __init__(self, is_package: bool, modules: tuple[str, ...]) -> None:
        self.names: set[str] = set()
        self.identifiers: set[str] = set()
        self.uses_importer = False
        self._safe: set[int] = set()
        self._texts: dict[int, str] = {}
        self._docs: set[int] = set()
        self._is_package = is_package
        self._packages = [module if is_package else module.rpartition(".")[0] for module in modules]

    def add(self, node: ast.AST) -> None:
        """Add a node of the syntax tree."""
        if isinstance(node, ast.Import):
            self.names |= {alias.name for alias in node.names}
            self.identifiers |= {alias.name.partition(".")[0] for alias in node.names}
            self.uses_importer |= any(alias.asname and alias.name in _IMPORTERS_IN for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            self.identifiers |= {*(node.module or "").split("."), *(alias.name for alias in node.names)}
            importer = _IMPORTERS_IN.get(node.module or "") if not node.level else None
            self.uses_importer |= any(alias.name in (importer, "*") for alias in node.names) and importer is not None
            for base in self._bases(node):
                self.names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Name):
            self.identifiers.add(node.id)
        elif isinstance(node, ast.Attribute):
            self.identifiers.add(node.attr)
            importer = _IMPORTERS_IN.get(node.value.id) if isinstance(node.value, ast.Name) else None
            self.uses_importer |= node.attr == importer and id(node) not in self._safe
        elif isinstance(node, ast.Call):
            # `torch.load(file, weights_only=True)` reads tensors, and imports nothing.
            if any(each.arg == "weights_only" and _is_true(each.value) for each in node.keywords):
                self._safe.add(id(node.func))
        elif isinstance(node, ast.keyword) and node.arg:
            self.identifiers.add(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            self._texts[id(node)] = node.value
            if self._is_package and node.value.isidentifier():  # names of modules that are imported when they are used
                self.names |= {f"{package}.{node.value}" for package in self._packages}
        elif isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr):
                self._docs.add(id(first.value))

    def texts(self) -> list[str]:
        """All texts but docstrings."""
        return [text for number, text in self._texts.items() if number not in self._docs]

    def _bases(self, node: ast.ImportFrom) -> list[str]:
        if not node.level:
            return [node.module or ""]
        around = [package.split(".") for package in self._packages if package]
        inside = [parts[: len(parts) - node.level + 1] for parts in around if len(parts) >= node.level]
        return [".".join([*parts, *([node.module] if node.module else [])]) for parts in inside]


def _is_true(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def _imports_anything(identifiers: Collection[str], texts: Collection[str], mentions: Mentions) -> bool:
    """Whether a source with these names and texts may import modules that it does not name."""
    if not _IMPORTERS.isdisjoint(identifiers):
        return True
    for text in texts:
        # A file or module that is run.
        if ".py" in text or "PYTHONPATH" in text or ("-m" in text and "-m" in text.split()):
            return True
        if "import" in text and mentions.in_text(text):  # code in a text
            return True
    return False


def _digest(kind: str, data: bytes) -> str:
    return hashlib.sha256(kind.encode() + b"\0" + data).hexdigest()
