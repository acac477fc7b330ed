"""Makes the value of a stored value from its bytes: unpickles it, or gives the path of a copy of the file or folder.

Runs in electrons' processes, also in a container, where only the runner's files are installed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
import tempfile
from typing import Any

from covalent_cirro.contract.stored_references import FOLDER, VALUE, StoredReference
from covalent_cirro.errors import StoredError
from covalent_cirro.runner import main_module

_COPY_BYTES = 1024 * 1024

FILE_MODE, PROGRAM_MODE = 0o444, 0o555
"""Nobody writes into a copy that other electrons of the machine may read, too."""


def opened(reference: StoredReference, path: str, folder: str) -> Any:
    """The value, or the path of the file or folder.

    Args:
        reference: What the handle names.
        path: Its bytes: decoded, checked, and left there.
        folder: Folder for files and folders; it is made if it does not exist.
    """
    if reference.kind == VALUE:
        with open(path, "rb") as file:
            return main_module.load(file)
    place = os.path.join(folder, reference.blob.sha256)
    target = os.path.join(place, reference.name)
    if os.path.lexists(target):  # another argument, or another process
        return target
    os.makedirs(folder, mode=0o700, exist_ok=True)
    made = tempfile.mkdtemp(dir=folder)
    try:
        if reference.kind == FOLDER:
            _extract(path, os.path.join(made, reference.name))
        else:
            _copy(path, os.path.join(made, reference.name))
        for source, to in ((made, place), (os.path.join(made, reference.name), target)):
            # The first fails where the same bytes are there by another name, both where another process was faster.
            with contextlib.suppress(OSError):
                os.rename(source, to)
                break
        if not os.path.lexists(target):
            raise StoredError(f"the stored {reference.label} could not be moved to {target}")
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return target


def _copy(path: str, target: str) -> None:
    """Give a file another name too; where the file system cannot, copy it."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
    os.chmod(target, FILE_MODE)


def _extract(archive: str, target: str) -> None:
    """Extract an archive that `packing` made, and only such a one: folders and files inside ``target``."""
    os.mkdir(target, 0o700)
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            parts = member.name.split("/")
            if member.name.startswith("/") or ".." in parts or not (member.isdir() or member.isreg()):
                raise StoredError(f"the archive of a stored folder has {member.name!r}, which is no file inside it")
            path = os.path.join(target, *parts)
            if member.isdir():
                os.makedirs(path, mode=0o700, exist_ok=True)
                continue
            source = tar.extractfile(member)
            assert source is not None
            with source, open(path, "xb") as file:
                shutil.copyfileobj(source, file, _COPY_BYTES)
            os.chmod(path, PROGRAM_MODE if member.mode & 0o100 else FILE_MODE)


def typed_storage(data: Any, dtype: Any) -> Any:
    """The storage of a tensor of PyTorch, from its bytes; pickles of `packing` call it."""
    import torch

    made: Any = torch  # its constructors have no types
    storage = torch.frombuffer(data, dtype=torch.uint8).untyped_storage() if len(data) else made.UntypedStorage(0)
    return made.storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)
