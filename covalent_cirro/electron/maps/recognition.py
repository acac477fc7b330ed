"""Recognizes the function of a mapped electron by the beginning of its pickle, without unpickling it.

The pickle of `item_maps.MappedFunction` begins with a reference to that class and a text with the names of the mapped
parameters. It has this beginning whatever the executor of the electron is, and however the executor was given.
"""

from __future__ import annotations

import re

from covalent_cirro import local_files
from covalent_cirro.contract import tobj

_MODULE, _CLASS = b"covalent_cirro.item_maps", b"MappedFunction"

_BEGIN = re.compile(
    # PROTO, maybe FRAME; module and class as SHORT_BINUNICODE, each with MEMOIZE; STACK_GLOBAL with MEMOIZE
    rb"\x80[\x04\x05](?:\x95.{8})?\x8c"
    + re.escape(bytes([len(_MODULE)]) + _MODULE)
    + rb"\x94\x8c"
    + re.escape(bytes([len(_CLASS)]) + _CLASS)
    # the names: SHORT_BINUNICODE or BINUNICODE
    + rb"\x94\x93\x94(?:\x8c(?P<short>.)|X(?P<long>.{4}))",
    re.DOTALL,
)

_NAMES_BYTES = 64 * 1024


def names_in(pickle: bytes) -> tuple[str, ...]:
    """Names of the mapped parameters; none for the function of another electron.

    Args:
        pickle: The pickle of a function, or its beginning.
    """
    found = _BEGIN.match(pickle)
    if found is None:
        return ()
    size = int.from_bytes(found["short"] or found["long"], "little")
    names = pickle[found.end() : found.end() + size]
    return tuple(names.decode("utf-8", "replace").split(",")) if size and len(names) == size else ()


def names_of(path: str) -> tuple[str, ...]:
    """Names of the mapped parameters of the function in a file; none for the function of another electron."""
    with local_files.errors_about(path), open(path, "rb") as file:
        return names_in(tobj.PickleFile(file, tobj.read_header(file)).read(_NAMES_BYTES) or b"")
