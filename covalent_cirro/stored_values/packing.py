"""Makes the bytes of a stored value: the pickle of a value, a file, or the archive of a folder. Streams them to a file.

Runs in the process of the user who calls `stored`. A large array is written from where it lies: no copy of it is held
in memory. Equal content gives equal bytes, as far as pickle does that.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import stat
import sys
import tarfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import cloudpickle

from covalent_cirro import local_files
from covalent_cirro.aws import blobs
from covalent_cirro.aws.blobs import Encoder, Source
from covalent_cirro.contract.references import Blob
from covalent_cirro.contract.stored_references import FILE, FOLDER, MAX_WITHIN, VALUE
from covalent_cirro.errors import StoredError
from covalent_cirro.stored_values import describing, unpacking

_BUFFER_BYTES = 1024 * 1024


class ToStore(NamedTuple):
    """The bytes of a stored value in a file.

    Attributes:
        kind: As in a reference.
        name: Name of the file or folder; empty for a value.
        label: What it is, for people.
        blob: The bytes.
        path: The file.
        within: Blobs of stored values whose handles are inside the value.
    """

    kind: str
    name: str
    label: str
    blob: Blob
    path: str
    within: tuple[Blob, ...] = ()


@contextlib.contextmanager
def packed_value(value: Any, folder: str) -> Iterator[ToStore]:
    """Pickle a value into a temporary file, which is removed at the end of the block.

    Args:
        value: The value.
        folder: Folder for the file.

    Raises:
        StoredError: The value cannot be pickled.
        LocalFileError: There is no room on the disk.
    """
    with _temporary(folder) as (encoder, path):
        try:
            _Pickler(encoder, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
            raise StoredError(
                f"a value of type {type(value).__qualname__} cannot be stored, since it cannot be pickled: {error}"
            ) from error
        blob = encoder.finish()
        within = dict.fromkeys(inner for each in encoder.references for inner in (each.blob, *each.within))
        if len(within) > MAX_WITHIN:
            raise StoredError(
                f"the value has {len(within)} stored values inside, more than {MAX_WITHIN}: store a folder"
            )
        yield ToStore(VALUE, "", describing.value_label(value, blob.raw_size), blob, path, tuple(within))


@contextlib.contextmanager
def packed_path(path: str, folder: str) -> Iterator[ToStore]:
    """The bytes of a file or folder: the file itself, unless it is worth compressing.

    Args:
        path: The file or folder; links are followed.
        folder: Folder for temporary files.

    Raises:
        StoredError: There is no such file, it is no regular file, or it changes while it is read.
        LocalFileError: It cannot be read, or there is no room on the disk.
    """
    whole = os.path.abspath(path)
    name = os.path.basename(whole)
    if not os.path.exists(whole):
        raise StoredError(f"path={path!r}: there is no such file or folder on this machine ({whole})")
    if os.path.isdir(whole):
        if not name:
            raise StoredError(f"path={path!r} is the whole disk: name a folder in it")
        with _temporary(folder) as (encoder, archive):
            with local_files.errors_about(whole):
                count = _archive(whole, encoder)
            blob = encoder.finish()
            yield ToStore(FOLDER, name, describing.folder_label(name, count, blob.raw_size), blob, archive)
        return
    if not stat.S_ISREG(os.stat(whole).st_mode):
        raise StoredError(f"path={path!r} is neither a file nor a folder")
    source = Source(whole, is_tobj=False)
    before = source.identity()
    with _stored_bytes(source, folder) as (blob, stored):
        _require_unchanged(source, before)
        yield ToStore(FILE, name, describing.file_label(name, blob.raw_size), blob, stored)
        _require_unchanged(source, before)


def _require_unchanged(source: Source, before: object) -> None:
    if source.identity() != before:
        raise StoredError(f"{source.path} was written to while it was stored. Store it when it is complete.")


@contextlib.contextmanager
def _stored_bytes(source: Source, folder: str) -> Iterator[tuple[Blob, str]]:
    """The blob of a file, and the path of its stored bytes: a second file only where compression helps."""
    if not blobs.shrinks(source):
        encoder = Encoder(_Nowhere())
        for chunk in source.chunks():
            encoder.write(chunk)
        yield encoder.finish(), source.path
        return
    with _temporary(folder) as (encoder, path):
        for chunk in source.chunks():
            encoder.write(chunk)
        yield encoder.finish(), path


class _Nowhere:
    def write(self, data: Any, /) -> None:
        """Forget the bytes: they are in the file that they come from."""


@contextlib.contextmanager
def _temporary(folder: str) -> Iterator[tuple[Encoder, str]]:
    """An encoder into a temporary file, and its path. `Encoder.finish` must be called before the file is read."""
    with blobs.temporary(folder) as (file, path):
        yield Encoder(file, folder, flush=file.flush), path
    os.unlink(path)


# --- pickles ----------------------------------------------------------------------------------------------------------


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles as cloudpickle does, and the memory of PyTorch's tensors without two copies of it."""

    def reducer_override(self, obj: Any) -> Any:
        torch: Any = sys.modules.get("torch")
        if torch is not None and type(obj) is torch.storage.TypedStorage:
            untyped = obj._untyped_storage  # the public method warns of the class itself, which tensors still pickle
            if untyped.device.type == "cpu":
                view = torch.empty(0, dtype=torch.uint8).set_(untyped).numpy()
                return unpacking.typed_storage, (pickle.PickleBuffer(view), obj.dtype)
        return super().reducer_override(obj)


# --- archives ---------------------------------------------------------------------------------------------------------


def _archive(path: str, encoder: Encoder) -> int:
    """Write a folder as a tar archive, without times and owners; returns its number of files."""
    count = 0
    with tarfile.open(fileobj=encoder, mode="w|", bufsize=_BUFFER_BYTES) as tar:  # type: ignore[call-overload]
        for source, inside in _entries(path, "", ()):
            info = tarfile.TarInfo(inside)
            found = os.stat(source)
            if stat.S_ISDIR(found.st_mode):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
                continue
            if not stat.S_ISREG(found.st_mode):
                raise StoredError(f"{source} is neither a file nor a folder: leave it out of what is stored")
            count += 1
            info.size, info.mode = found.st_size, 0o755 if found.st_mode & 0o100 else 0o644
            with open(source, "rb") as file:
                tar.addfile(info, file)
            if os.stat(source).st_mtime_ns != found.st_mtime_ns:
                raise StoredError(f"{source} was written to while it was stored. Store the folder when it is complete.")
    return count


def _entries(path: str, inside: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, str]]:
    """Files and folders below a folder with their names in the archive, in one order everywhere. Follows links."""
    here = os.stat(path)
    if (here.st_dev, here.st_ino) in above:
        raise StoredError(f"{path} is a link to a folder that it is in: leave it out of what is stored")
    for name in sorted(os.listdir(path)):
        source, within = os.path.join(path, name), f"{inside}{name}"
        yield source, within
        if os.path.isdir(source):
            yield from _entries(source, f"{within}/", (*above, (here.st_dev, here.st_ino)))
