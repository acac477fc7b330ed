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
from covalent_cirro.electron.reuse.pickles import describe

_SKELETON = b"_make_skeleton_"
"""Beginning of the names in a pickle of cloudpickle that defines a class."""

_CODE = (b"_make_function", _SKELETON)
"""Names in a pickle with code: what that imports is not known from its bytes."""

_ID = re.compile(rb"\x8c\x20([0-9a-f]{32})\x94")
"""SHORT_BINUNICODE and MEMOIZE, of a text like the id of a class (``uuid4().hex``, in cloudpickle)."""

SMALL_BYTES = 256 * 1024
"""Most bytes of an item in which classes are looked for."""

MAX_DESCRIBED = 1000
"""Most items that are read as instructions, a millisecond each, to tell ids of classes from other texts."""

_PIECE_BYTES = 1024 * 1024


class Digests(NamedTuple):
    """Digests of the items of a map.

    Attributes:
        data: `DIGEST_BYTES` for each item. Two items have the same if all their mapped arguments have the same bytes,
            but for random ids of classes.
        need_modules: Items may need modules of the local packages: one names a package, has code, or names a stored
            value.
    """

    data: bytes
    need_modules: bool


def of_lists(lists: Sequence[ListFile], packages: Collection[str], function: bytes = b"") -> Digests:
    """The digests of the items of lists of equal lengths.

    Args:
        lists: The mapped lists, in the order of their names.
        packages: Import names of the local packages.
        function: Pickle of the map's function; empty where it is too large to be read.
    """
    classes = _ClassIds(function)
    words = (*_CODE, MARKER.encode(), *(name.encode() for name in packages))
    pattern = re.compile(b"|".join(map(re.escape, words)))
    longest = max(map(len, words))
    found, need_modules = bytearray(), False
    for pieces in zip(*(_items(each) for each in lists), strict=True):
        digest = hashlib.sha256()
        for size, read in pieces:
            digest.update(size.to_bytes(8, "little"))
            if size <= SMALL_BYTES:
                item = read(size)
                if len(item) != size:
                    raise tobj.TobjError("a list of items is cut short")
                need_modules = need_modules or pattern.search(item) is not None
                digest.update(classes.numbered(item))
                continue
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


class _ClassIds:
    """Replaces the random ids of classes that items contain: another run of a script has others for the same classes.

    A class that the function contains, too, has a number of its own: it must be the same class for both.

    Args:
        function: Pickle of the function.
    """

    def __init__(self, function: bytes) -> None:
        found = describe(function).classes if _SKELETON in function else ()
        self._of_function = {each.encode(): number for number, each in enumerate(found)}
        self._is_class: dict[bytes, bool] = dict.fromkeys(self._of_function, True)
        self._left = MAX_DESCRIBED

    def numbered(self, item: bytes) -> bytes:
        """The bytes of an item with numbers in the place of the ids."""
        unknown = _ID.findall(item) if _SKELETON in item else ()
        if unknown := [each for each in unknown if each not in self._is_class]:
            if not self._left:
                return item
            self._left -= 1
            classes = describe(nested.LIST_HEAD + item + nested.LIST_TAIL).classes
            self._is_class |= {each: each.decode() in classes for each in unknown}
        elif _SKELETON not in item:
            return item
        numbers: dict[bytes, int] = {}

        def number(match: re.Match[bytes]) -> bytes:
            if not self._is_class[match[1]]:
                return match[0]
            if match[1] in self._of_function:
                return b"class %d of the function" % self._of_function[match[1]]
            return b"class %d of the item" % numbers.setdefault(match[1], len(numbers))

        return _ID.sub(number, item)


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
