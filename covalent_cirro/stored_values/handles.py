"""The handle of a stored value, and what it becomes where it is unpickled.

Imported by every process that unpickles a handle, the electron's in a container too: it needs the runner's files only,
and imports the rest where it is needed.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from covalent_cirro.contract import stored_references
from covalent_cirro.contract.places import blob_key
from covalent_cirro.contract.protocol import STORED_KEPT, STORED_REFUSED, STORED_VARIABLE
from covalent_cirro.contract.stored_references import StoredReference
from covalent_cirro.errors import StoredError

_HANDS_ON = frozenset(
    {"_auto_list_node", "_auto_dict_node", "_postprocess", "_postprocess_recursively", "_build_sublattice_graph"}
)
"""Functions of Covalent's own nodes that pass values on without using them (Covalent 0.240, ``_workflow``)."""


class Stored:
    """The handle of a stored value; `covalent_cirro.stored` makes it. Electrons get the value itself, or a path.

    Equal handles name equal bytes in the same bucket. A handle cannot be changed.
    """

    __slots__ = ("_reference",)

    def __init__(self, reference: StoredReference) -> None:
        self._reference = reference

    @property
    def kind(self) -> str:
        """``"value"``, ``"file"`` or ``"folder"``."""
        return self._reference.kind

    @property
    def size(self) -> int:
        """Bytes of its pickle, of the file, or of the folder's archive."""
        return self._reference.blob.raw_size

    @property
    def uri(self) -> str:
        """Where its bytes are: ``s3://bucket/<prefix>blobs/<sha256>``, where the bucket's lifecycle rule finds them."""
        return f"s3://{self._reference.bucket}/{blob_key(self._reference.prefix, self._reference.blob.sha256)}"

    @property
    def reference(self) -> StoredReference:
        """What the handle names."""
        return self._reference

    def load(self, *, executor: Any = None) -> Any:
        """Read the value in this process; of a file or folder, the path of a copy that is not to be written to.

        The bytes are fetched once, into Covalent's cache folder of this user.

        Args:
            executor: The `CirroBatchExecutor` whose account is used, as for `covalent_cirro.stored`.

        Raises:
            StoredError: It is not in the bucket any more.
            DigestMismatch: It has been changed there.
            AwsError: It cannot be fetched.
        """
        from covalent_cirro.stored_values import user_cache

        return user_cache.load(self._reference, executor)

    def __str__(self) -> str:
        return f"stored {self._reference.label}"

    def __repr__(self) -> str:
        return f"Stored({self._reference.label})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stored) and self._reference == other._reference

    def __hash__(self) -> int:
        return hash(self._reference)

    def __copy__(self) -> Stored:
        return self

    def __deepcopy__(self, _: Any) -> Stored:  # Covalent copies lattices
        return self

    def __reduce__(self) -> Any:
        return arrive, (stored_references.to_text(self._reference),)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # Python, pickle, NumPy and Covalent look up optional attributes
            raise AttributeError(name)
        raise AttributeError(
            f"{self!r} is a handle, which has no {name!r}: an electron that is called with it gets the value; "
            "its method load() reads the value here"
        )


def arrive(text: str) -> Any:
    """Called where a handle is unpickled: the value in an electron's process, else the handle.

    Args:
        text: From `stored_references.to_text`.

    Raises:
        StoredError: The value cannot be fetched.
    """
    reference = stored_references.from_text(text)
    where = os.environ.get(STORED_VARIABLE)
    if where == STORED_KEPT or (where is None and not _is_in_an_electron()):
        return Stored(reference)
    if where is None:
        return Stored(reference).load()
    if where == STORED_REFUSED:
        raise StoredError(f"the stored {reference.label} is not opened on the server's host")
    from covalent_cirro.runner import stored_blobs
    from covalent_cirro.stored_values import unpacking

    try:
        path = stored_blobs.path_of(where, reference.blob.sha256)
    except LookupError as error:
        raise StoredError(str(error)) from error
    return unpacking.opened(reference, path, os.path.join(where, "stored"))


_ELECTRONS = ("wrapper_fn", "covalent.executor.utils.wrappers")
_LOADS = ("load", "covalent_cirro.stored_values.user_cache")


def _is_in_an_electron() -> bool:
    """Whether this call comes from the function with which Covalent's other executors run an electron.

    All of them call ``wrapper_fn``, which unpickles the function and its arguments (Covalent 0.240,
    ``executor/utils/wrappers.py``). A handle inside of a value that is loaded is loaded, too.
    """
    frame: Any = sys._getframe()
    while frame is not None:
        name = (frame.f_code.co_name, frame.f_globals.get("__name__"))
        if name == _LOADS:
            return True
        if name == _ELECTRONS:
            return getattr(frame.f_locals.get("fn"), "__name__", "") not in _HANDS_ON
        frame = frame.f_back
    return False
