"""A pickle of a list or dict whose parts are whole pickles of their own, written and read without opening a part.

Pure; knows file objects only, and must not know ``.tobj`` files. `pickle.load` reads it as an ordinary pickle: a part
is a call of `pickle.loads` on the part's bytes. Lists in lists are one such pickle, not pickles in pickles, so that
loading holds the bytes of one part beside the object; `read` and `load` hold not even those. In the opcodes of
`pickletools`::

    PROTO 4, GLOBAL 'pickle loads', BINPUT 0, POP, value, STOP
    value:  EMPTY_LIST (value APPEND)*  |  EMPTY_DICT (value value SETITEM)*  |  part
    part:   BINGET 0, BINBYTES8 pickle, TUPLE1, REDUCE

Equal parts make an equal pickle, byte for byte.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, TypeAlias, cast

PRELUDE = b"\x80\x04cpickle\nloads\nq\x000"

MAX_DEPTH = 100
"""Levels of lists in lists. A deeper list is a part."""

_COPY_BYTES = 1024 * 1024

_LIST, _APPEND, _DICT, _SETITEM, _STOP = b"]", b"a", b"}", b"s", b"."
_PART, _CALL = b"h\x00\x8e", b"\x85R"


class PickledPart(NamedTuple):
    """A pickle inside a pickle.

    Attributes:
        source: Name of the file that the part is in, as `read` was given it: its path, for example.
        offset: Position of the part's first byte in the file.
        size: Number of bytes.
    """

    source: str
    offset: int
    size: int


class Pairs(list[tuple[Any, Any]]):
    """A dict, as pairs of keys and values in the order in which they are set."""


Value: TypeAlias = "PickledPart | Pairs | list[Value]"


# --- writing ----------------------------------------------------------------------------------------------------------


def write(value: Value, to: Callable[[bytes], object], copy: Callable[[PickledPart], None]) -> None:
    """Write a whole pickle of a value.

    Args:
        value: The value.
        to: Called with bytes to write.
        copy: Called with a part; it must pass the part's bytes to ``to``.
    """
    to(PRELUDE)
    _write(value, to, copy)
    to(_STOP)


def _write(value: Value, to: Callable[[bytes], object], copy: Callable[[PickledPart], None]) -> None:
    if isinstance(value, PickledPart):
        to(_PART + value.size.to_bytes(8, "little"))
        copy(value)
        to(_CALL)
    elif isinstance(value, Pairs):
        to(_DICT)
        for key, each in value:
            _write(key, to, copy)
            _write(each, to, copy)
            to(_SETITEM)
    else:
        to(_LIST)
        for each in value:
            _write(each, to, copy)
            to(_APPEND)


def size_of(value: Value) -> int:
    """Approximate size of the pickle of a value, in bytes."""
    if isinstance(value, PickledPart):
        return value.size + len(_PART + _CALL) + 8
    inner = [one for pair in value for one in pair] if isinstance(value, Pairs) else value
    return len(PRELUDE) + sum(map(size_of, inner))


# --- bodies of lists --------------------------------------------------------------------------------------------------

LIST_HEAD, LIST_TAIL = PRELUDE + _LIST, _STOP
"""What stands before and after the body of a list: for each item its value and APPEND. Bodies that are joined are a
body, and a body may be cut between two items."""


def item_of(pickle: bytes) -> bytes:
    """An item of a body, whose pickle is given."""
    return _PART + len(pickle).to_bytes(8, "little") + pickle + _CALL + _APPEND


def append_item(body: BinaryIO, write: Callable[[BinaryIO], object]) -> None:
    """Append an item to a body: a part whose pickle ``write`` writes.

    Args:
        body: A seekable file, at the end of the body. If ``write`` raises, the file is cut to what it was.
        write: Called with the file; it must write at its end only.
    """
    start = body.tell()
    body.write(_PART + bytes(8))
    try:
        write(body)
    except BaseException:
        body.seek(start)
        body.truncate()
        raise
    end = body.tell()
    body.seek(start + len(_PART))
    body.write((end - start - len(_PART) - 8).to_bytes(8, "little"))
    body.seek(end)
    body.write(_CALL + _APPEND)


def pad(body: BinaryIO, last: int, padding: bytes) -> None:
    """Change the bytes of a body, and not what it stands for: bytes after the end of a pickle are not read.

    Args:
        body: A file with a body whose last item is a part.
        last: Position of the last item.
        padding: What is put behind the pickle of the last item.
    """
    body.seek(last + len(_PART))
    size = int.from_bytes(body.read(8), "little")
    body.seek(last + len(_PART))
    body.write((size + len(padding)).to_bytes(8, "little"))
    body.seek(last + len(_PART) + 8 + size)
    body.write(padding + _CALL + _APPEND)


# --- reading ----------------------------------------------------------------------------------------------------------


def read(file: BinaryIO, source: str = "") -> Value | None:
    """Read the structure of a pickle of this format; `None` for any other pickle.

    Args:
        file: A seekable file, at the beginning of the pickle. Parts are skipped.
        source: Name of the file, for `PickledPart.source`.
    """
    start = file.tell()
    if file.read(len(PRELUDE)) != PRELUDE:
        return None
    end = file.seek(0, io.SEEK_END)
    file.seek(start + len(PRELUDE))
    try:
        return _read(file, end, source)
    except _OtherPickle:
        return None


def item_ends(file: BinaryIO) -> list[int] | None:
    """Where each item of a list ends, as positions in its body; `None` for a pickle that is no list of this format.

    Args:
        file: A seekable file, at the beginning of the pickle. Parts are skipped.
    """
    start = file.tell()
    if file.read(len(LIST_HEAD)) != LIST_HEAD:
        return None
    end = file.seek(0, io.SEEK_END)
    file.seek(start + len(PRELUDE))
    ends: list[int] = []
    try:
        _read(file, end, "", ends)
    except _OtherPickle:
        return None
    return [each - start - len(LIST_HEAD) for each in ends]


class _OtherPickle(Exception):
    """The pickle has an opcode that this format does not have there."""


def _read(file: BinaryIO, end: int, source: str, item_ends: list[int] | None = None) -> Value:
    """Read a value. With ``item_ends``, the ends of its items are added to it, and the value has no items."""
    stack: list[Value] = []

    def pop(below: type) -> Value:
        if len(stack) < 2 or type(stack[-2]) is not below:
            raise _OtherPickle
        return stack.pop()

    while (opcode := file.read(1)) != _STOP:
        if opcode == _LIST:
            stack.append([])
        elif opcode == _DICT:
            stack.append(Pairs())
        elif opcode == _PART[:1]:
            stack.append(_part(file, end, source))
        elif opcode == _APPEND:
            each = pop(list)
            if item_ends is not None and len(stack) == 1:
                item_ends.append(file.tell())
            else:
                cast("list[Value]", stack[-1]).append(each)
        elif opcode == _SETITEM:
            if len(stack) < 3:
                raise _OtherPickle
            each = stack.pop()
            key = pop(Pairs)
            cast(Pairs, stack[-1]).append((key, each))
        else:
            raise _OtherPickle
        if len(stack) > 2 * MAX_DEPTH:
            raise _OtherPickle
    if len(stack) != 1 or file.read(1):
        raise _OtherPickle
    return stack[0]


def _part(file: BinaryIO, end: int, source: str) -> PickledPart:
    if file.read(len(_PART) - 1) != _PART[1:]:
        raise _OtherPickle
    size = int.from_bytes(file.read(8), "little")
    offset = file.tell()
    if size > end - offset:
        raise _OtherPickle
    file.seek(offset + size)
    if file.read(len(_CALL)) != _CALL:
        raise _OtherPickle
    return PickledPart(source, offset, size)


def load(value: Value, part: Callable[[PickledPart], Any]) -> Any:
    """The object of a value; ``part`` makes the objects of its parts."""
    if isinstance(value, PickledPart):
        return part(value)
    if isinstance(value, Pairs):
        return {load(key, part): load(each, part) for key, each in value}
    return [load(each, part) for each in value]


class PartFile(io.RawIOBase):
    """The bytes of a part of an open pickle, as a file. Wrap it in an `io.BufferedReader`; close neither."""

    def __init__(self, file: BinaryIO, part: PickledPart) -> None:
        self._file = file
        self._left = part.size
        file.seek(part.offset)

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as fit, up to the end of the part."""
        with memoryview(buffer) as whole, whole[: self._left] as room:
            count = self._file.readinto(room)  # type: ignore[attr-defined]  # of all files that are buffered
        self._left -= count
        return int(count)


def copy(file: BinaryIO, part: PickledPart, to: Callable[[bytes], object]) -> None:
    """Pass the bytes of a part of an open pickle to ``to``, a megabyte at a time.

    Raises:
        EOFError: The file ends before the part does.
    """
    file.seek(part.offset)
    left = part.size
    while left:
        data = file.read(min(_COPY_BYTES, left))
        if not data:
            raise EOFError(f"{left} bytes of a pickle are missing")
        to(data)
        left -= len(data)
