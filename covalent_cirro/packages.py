"""The user's own packages, as archives that travel with an electron.

Found by import name where the client runs, packed from the path where the server runs: the archive of equal files is
equal byte for byte, so it is sent once. Knows files only.
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
"""A package larger than this is a mistake (data or an environment inside); data belongs in an electron's input."""

LEFT_OUT = frozenset({"__pycache__", ".git", ".hg", ".venv", "venv", "node_modules", ".mypy_cache", ".pytest_cache"})

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time a zip can hold; the real ones would change the digest


def locate(item: str) -> Path:
    """The folder or file of a package given by import name or by path.

    Raises:
        SettingsError: It is neither.
    """
    path = Path(item).expanduser()
    if path.is_absolute() or os.sep in item or path.suffix == ".py":
        if not path.exists():
            raise SettingsError(
                f"local_packages has {item!r}, which is not there. The path is read where the Covalent server runs; "
                "where server and client share no files, put the package into the image or use deps_pip."
            )
        return path.resolve()
    try:
        spec = importlib.util.find_spec(item)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise SettingsError(
            f"local_packages has {item!r}, which is neither a path nor a package that Python finds here "
            "(import names have no slash; is its folder on sys.path?)."
        )
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise SettingsError(f"local_packages has {item!r}, which is built in or compiled: the image must bring it.")
    return Path(spec.origin).resolve()


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    if path.is_file():
        yield path, path.name
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT and not name.endswith(".egg-info"))
        for name in sorted(names):
            file = Path(folder, name)
            if not name.endswith((".pyc", ".pyo")) and file.is_file():
                yield file, os.path.join(path.name, file.relative_to(path))


def pack(path: Path, folder: str) -> str:
    """Make the archive of a package in ``folder`` and give its path. Files that did not change are not packed again.

    Raises:
        SettingsError: Not there, or larger than `MAX_BYTES`.
    """
    if not path.exists():
        raise SettingsError(f"local_packages: {path} is not there on the machine of the Covalent server.")
    files = list(_files(path))
    signature, total = hashlib.sha256(str(path).encode()), 0
    for file, name in files:
        stat = file.stat()
        total += stat.st_size
        signature.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    if total > MAX_BYTES:
        raise SettingsError(
            f"local_packages: {path} has {total / 1e6:.0f} MB, more than the {MAX_BYTES / 1e6:.0f} MB of a package. "
            "Give data to the electron as an input, and name the package's own folder."
        )
    archive = os.path.join(folder, f"cirro-package-{signature.hexdigest()[:32]}.zip")
    if os.path.exists(archive):
        return archive
    with local_files.told(folder):
        return _packed(files, archive)


def _packed(files: list[tuple[Path, str]], archive: str) -> str:
    folder = os.path.dirname(archive)
    os.makedirs(folder, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix="cirro-package-", dir=folder)
    try:
        with open(descriptor, "wb") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as zipped:
            for file, name in files:
                info = zipfile.ZipInfo(name.replace(os.sep, "/"), _EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = (0o755 if os.access(file, os.X_OK) else 0o644) << 16
                local_files.require_room(folder, file.stat().st_size)
                zipped.writestr(info, file.read_bytes())
        os.replace(temporary, archive)
    except BaseException:
        os.unlink(temporary)
        raise
    return archive
