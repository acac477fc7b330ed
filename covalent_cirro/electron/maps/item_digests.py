"""Digests of the items of a map, by which a later map finds those that are the same work.

Reads the bytes of the items one after the other, and holds no list in memory; unpickles nothing.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import BinaryIO, NamedTuple, cast

from covalent_cirro import local_files
from covalent_cirro.contract import nested, tobj
from covalent_cirro.contract.maps import DIGEST_BYTES
from covalent_cirro.contract.stored_references import MARKER
from covalent_cirro.electron.maps.map_plans import ListFile

_PIECE_BYTES = 1024 * 1024

_CODE = (b"_make_function", b"_make_skeleton_class", b"_make_skeleton_enum")
"""Names in a pickle with code: what that imports is not known from its bytes."""


class Digests(NamedTuple):
    """Digests of the items of a map.

    Attributes:
        data: `DIGEST_BYTES` for each item. Two items have the same if all their mapped arguments have the same bytes.
        need_modules: Items may need modules of the local packages: one names a package, has code, or names a stored
            value.
    """

    data: bytes
    need_modules: bool


def of_lists(lists: Sequence[ListFile], packages: Collection[str]) -> Digests:
    """The digests of the items of lists of equal lengths.

    Args:
        lists: The mapped lists, in the order of their names.
        packages: Import names of the local packages.
    """
    words = (*_CODE, MARKER.encode(), *(name.encode() for name in packages))
    pattern = re.compile(b"|".join(map(re.escape, words)))
    longest = max(map(len, words))
    found, need_modules = bytearray(), False
    for pieces in zip(*(_items(each) for each in lists), strict=True):
        digest = hashlib.sha256()
        for size, read in pieces:
            digest.update(size.to_bytes(8, "little"))
            end = b""
            while size:
                piece = read(min(size, _PIECE_BYTES))
                if not piece:
                    raise tobj.TobjError("a list of items is cut short")
                size -= len(piece)
                digest.update(piece)
                need_modules = need_modules or pattern.search(end + piece) is not None
                end = piece[-longest:]
        found += digest.digest()[:DIGEST_BYTES]
    return Digests(bytes(found), need_modules)


def _items(of: ListFile) -> Iterator[tuple[int, Callable[[int], bytes]]]:
    """For each item its size, and a function that reads it; an item must be read before the next one."""
    with open_list(of) as file:
        file.seek(len(nested.LIST_HEAD))
        begin = 0
        for end in of.ends:
            yield end - begin, file.read
            begin = end


def open_list(of: ListFile) -> BinaryIO:
    """Open the pickle of a list."""
    with local_files.errors_about(of.path):
        file = open(of.path, "rb")  # noqa: SIM115  (the caller closes it)
        if not of.is_tobj:
            return cast(BinaryIO, file)
        return cast(BinaryIO, io.BufferedReader(tobj.PickleFile(file, tobj.read_header(file)), _PIECE_BYTES))
