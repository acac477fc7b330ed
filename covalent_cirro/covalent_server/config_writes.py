"""Keeps a full disk from emptying Covalent's config file.

Covalent 0.240 writes the file again for each electron: it empties the file, and then writes what it had read
(``_shared_files/config.py``, ``ConfigManager.write_config``). On a full disk the file stays empty, and nobody can
dispatch. Knows the file of the config, not its options.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any


def write_whole() -> None:
    """Make Covalent in this process write the file only where it changes, and in one step. Can be called again."""
    from covalent._shared_files.config import ConfigManager

    if ConfigManager.write_config is not _write:
        ConfigManager.write_config = _write


def _write(manager: Any) -> None:
    import toml  # Covalent's own

    path = os.path.realpath(manager.config_file)
    mode = 0o600
    with contextlib.suppress(FileNotFoundError, ValueError), open(path) as file:
        mode = os.fstat(file.fileno()).st_mode & 0o7777
        if toml.load(file) == manager.config_data:
            return
    beside = f"{path}.{os.getpid()}.new"
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            os.fchmod(file.fileno(), mode)
            toml.dump(manager.config_data, file)
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        if not isinstance(error, OSError) or error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        # A file that is a mount of its own, or whose folder is read only, is written as Covalent does it.
        with open(path, "w") as file:
            toml.dump(manager.config_data, file)
