"""Extracts the user's local packages, which come as zips, and puts them first on ``sys.path``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import BinaryIO

from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.runner import failures


def install(packages: list[tuple[str, Callable[[], BinaryIO]]], folder: str) -> Failure | None:
    """Extract packages (name, and a function that opens the zip) into a folder, and put it first on ``sys.path``.

    Subprocesses of the electron find them too, through PYTHONPATH. Modules in a folder that is no package are found
    by their own names as well, as if it were the folder of a script: after all others, so that none takes the place of
    a module that libraries mean.

    Returns:
        Why they cannot be extracted; `None` on success.
    """
    if not packages:
        return None
    import zipfile

    for name, archive in packages:
        try:
            with archive() as file, zipfile.ZipFile(file) as opened:
                opened.extractall(folder)
        except (OSError, ValueError, zipfile.BadZipFile, RuntimeError) as error:
            message = f"the local package {name!r} cannot be unpacked: {failures.describe(error)}"
            return Failure(Kind.UNREADABLE, message)
    sys.path.insert(0, folder)
    folders = (os.path.join(folder, name) for name in sorted(os.listdir(folder)))
    sys.path += [each for each in folders if os.path.isdir(each) and not os.path.exists(f"{each}/__init__.py")]
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = folder if not inherited else folder + os.pathsep + inherited
    importlib.invalidate_caches()
    return None
