"""Packs the user's own packages (the option ``local_packages``) into archives for the job.

A package is found by its import name on the client, and packed from its path on the server. Archives of equal files are
equal byte for byte, so that they are uploaded once. Knows files only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from covalent_cirro import local_files
from covalent_cirro.errors import SettingsError

MAX_BYTES = 256 * 1024 * 1024
"""Most bytes of a package. A larger one has data or an environment in it; data belongs in an input of the electron."""

LEFT_OUT = frozenset({"__pycache__", "venv", "node_modules"})
"""Folders that are not packed, as those whose names begin with a dot: nobody imports from them."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time in a zip file; the times of the files would change the digest


def locate(item: str) -> Path:
    """Find the folder or file to pack for a package. Nothing is imported.

    Args:
        item: Import name, or path. For a package inside another one, ``outer.inner``, the outermost one is packed:
            ``inner`` cannot be imported without it.

    Raises:
        SettingsError: There is no such package or path, or it cannot be imported under the name that it would have.
    """
    path = Path(item).expanduser()
    if item.startswith((".", "~")) or os.sep in item or path.suffix == ".py":
        if not path.exists():
            raise SettingsError(
                f"local_packages has {item!r}, which is not there. The path is read where the Covalent server runs; "
                "where server and client share no files, put the package into the image or use deps_pip."
            )
        return _importable(item, path.resolve())
    outermost, *inner = item.split(".")
    try:
        spec = importlib.util.find_spec(outermost)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise SettingsError(
            f"local_packages has {item!r}, which is neither a path nor a package that Python finds here "
            "(import names have no slash; is its folder on sys.path?)."
        )
    if spec.submodule_search_locations:
        found = [Path(each) for each in spec.submodule_search_locations if _holds(Path(each), inner)]
        if not found:
            raise SettingsError(f"local_packages has {item!r}, but {outermost} has no {'.'.join(inner)} in it.")
        if len(found) > 1:
            folders = ", ".join(map(str, found))
            raise SettingsError(
                f"local_packages has {item!r}, which Python finds in {len(found)} folders: {folders}. Name those that "
                "are to be packed by their paths."
            )
        return found[0].resolve()
    if inner or spec.origin is None or not spec.origin.endswith(".py"):
        what = f"{outermost} is no package" if inner else "which is built in or compiled: the image must bring it"
        raise SettingsError(f"local_packages has {item!r}, {what}.")
    return Path(spec.origin).resolve()


def name_of(path: Path) -> str:
    """The import name of a package that `locate` found."""
    return path.stem if path.suffix == ".py" else path.name


def _importable(item: str, path: Path) -> Path:
    name = path.stem if path.is_file() else path.name
    is_module = path.suffix == ".py" if path.is_file() else (path / "__init__.py").exists()
    if is_module and not name.isidentifier():
        raise SettingsError(
            f"local_packages has {item!r}, which nobody can import as {name!r}: names in Python have letters, digits "
            "and underscores only. Rename it."
        )
    return path


def _holds(folder: Path, inner: list[str]) -> bool:
    """Whether the folder of a package has a module or package of this name."""
    *packages, last = inner or [""]
    folder = folder.joinpath(*packages)
    return (folder / last).is_dir() or any(folder.glob(f"{last}.*"))


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    if path.is_file():
        yield path, path.name
    else:
        yield from _files_of(path, path.name, (path.resolve(),))


def _files_of(folder: Path, name: str, above: tuple[Path, ...]) -> Iterator[tuple[Path, str]]:
    """Files of a folder, then those of the folders in it. Links are followed, as Python's imports do."""
    folders = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            folders.append(entry)
        elif entry.is_file() and entry.suffix not in (".pyc", ".pyo"):
            yield entry, f"{name}/{entry.name}"
    for entry in folders:
        if entry.name in LEFT_OUT or entry.name.startswith(".") or entry.name.endswith(".egg-info"):
            continue
        real = entry.resolve()
        if real in above:
            raise SettingsError(
                f"local_packages: {entry} leads to {real}, in which it lies itself: packing it would have no end. "
                "Remove the link, or name the folders that are to be packed one by one."
            )
        yield from _files_of(entry, f"{name}/{entry.name}", (*above, real))


def pack(path: Path, folder: str) -> str:
    """Make the archive of a package, or find the one that was made of the same files.

    Args:
        path: Folder or file of the package.
        folder: Folder of the archive.

    Returns:
        Path of the archive.

    Raises:
        SettingsError: The package is not there, is larger than `MAX_BYTES`, or has a link that leads to itself.
        LocalFileError: The package cannot be read, or the disk is too full for the archive.
    """
    if not path.exists():
        raise SettingsError(f"local_packages: {path} is not there on the machine of the Covalent server.")
    files: list[tuple[Path, str]] = []
    signature, total = hashlib.sha256(str(path).encode()), 0
    with local_files.errors_about(str(path)):
        for file, name in _files(path):
            stat = file.stat()
            total += stat.st_size
            signature.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
            files.append((file, name))
            if total > MAX_BYTES:  # at once, since it may be a whole disk
                raise SettingsError(
                    f"local_packages: {path} has more than the {MAX_BYTES / 1e6:.0f} MB of a package, up to {file}. "
                    "Give data to the electron as an input, and name the package's own folder."
                )
    archive = os.path.join(folder, f"cirro-package-{signature.hexdigest()[:32]}.zip")
    if os.path.exists(archive):
        return archive
    with local_files.errors_about(folder):
        return _packed(files, archive)


def _packed(files: list[tuple[Path, str]], archive: str) -> str:
    folder = os.path.dirname(archive)
    os.makedirs(folder, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix="cirro-package-", dir=folder)
    try:
        with open(descriptor, "wb") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as zipped:
            for file, name in files:
                info = zipfile.ZipInfo(name, _EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = (0o755 if os.access(file, os.X_OK) else 0o644) << 16
                local_files.require_room(folder, file.stat().st_size)
                zipped.writestr(info, file.read_bytes())
        os.replace(temporary, archive)
    except BaseException:
        os.unlink(temporary)
        raise
    return archive
