"""Folders whose paths Covalent can use: paths without spaces, accents and other characters that a URL quotes.

Covalent 0.240 makes a URL of each path that it copies from or to, and then takes the quoted path for the path of the
file (``_file_transfer/file.py``): `ct.get_result` raises FileNotFoundError for every dispatch. Knows paths only.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from covalent_cirro.errors import HostError

_PLAIN = re.compile(r"[A-Za-z0-9/._~+=,@:-]*")


def is_plain(path: str | Path) -> bool:
    """Whether Covalent can use a path: no URL quotes a character of it."""
    return _PLAIN.fullmatch(os.fspath(path)) is not None


def follow(folder: Path) -> Path:
    """The folder itself, or the one to which `make` made it a link."""
    return Path(os.readlink(folder)) if folder.is_symlink() else folder


def make(folder: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Make a folder that Covalent can use. Where Covalent cannot use its path, it is a link to a folder elsewhere.

    Args:
        folder: The folder. One that `make` made before is found again.
        environment: Environment variables that name the user's cache folder.

    Returns:
        A path that Covalent can use, of a folder that only this user can read.

    Raises:
        HostError: No folder of this machine has such a path.
    """
    if is_plain(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder
    if folder.is_symlink():
        there = follow(folder)
        if there.is_dir():
            return there
        folder.unlink()  # it was a temporary folder, which a reboot removed
    cache = Path(environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "/")) / ".cache")
    for place in (cache, Path(tempfile.gettempdir()), Path("/var/tmp")):  # noqa: S108  (mkdtemp's folders are private)
        if is_plain(place) and place.is_dir() and os.access(place, os.W_OK):
            made = Path(tempfile.mkdtemp(prefix="cirro-covalent-", dir=place))
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.symlink_to(made)
            return made
    raise HostError(
        f"Covalent cannot use {str(folder)!r}: paths of its files may have no spaces and no letters but A to Z. Nor "
        f"can {cache} or {tempfile.gettempdir()} be used: set XDG_CACHE_HOME or TMPDIR to a folder with a plain path "
        "in which you may write."
    )


def remove(folder: Path) -> None:
    """Remove a folder that `make` made, and the link to it."""
    shutil.rmtree(follow(folder), ignore_errors=True)
    if folder.is_symlink():
        folder.unlink()
