"""Values that electrons report while they run (`covalent_cirro.trial`): where they are in S3, and how a name has them.

The values are in the names of empty objects, so that one listing has those of many electrons. Any job can write such a
name: whoever reads it may show it and may end a trial by it, and must not take it for a result. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from covalent_cirro.contract.limits import MAX_STEP
from covalent_cirro.contract.maps import MAX_ITEMS

MAX_KEY_BYTES = 1024
"""Most bytes of the key of an object (S3 User Guide, "Naming Amazon S3 objects")."""

_LATTICE_CHARS = 160
_NOT_IN_KEY = re.compile(r"[^A-Za-z0-9._-]")
_PACKED_CHARS = 520
"""Most characters of the values in a name: what a prefix of 200, the lattice, the dispatch and the node leave."""

_RECORD = struct.Struct(">QQd")
RECORD_BYTES = _RECORD.size
"""Bytes of a point in the file by which an electron's processes tell the runner."""

_VALUE = struct.Struct(">d")
_SUFFIX = ".reported"  # the job role may write keys with this end, and no other document has it
_NAME = re.compile(rf"([0-9]{{4}})-([0-9]{{5}})-([A-Za-z0-9_-]*){re.escape(_SUFFIX)}")
_KEY = re.compile(r"([^/]+)/([^/]+)/([0-9]{1,9})/([^/]+)")


class Point(NamedTuple):
    """A value that an electron has reported.

    Attributes:
        step: What the electron counts, such as epochs; from 0 to `limits.MAX_STEP`.
        value: The value; NaN and infinities are allowed.
        item: The item of a mapped electron; `None` for any other electron.
    """

    step: int
    value: float
    item: int | None = None


class Curve(NamedTuple):
    """What an electron has reported, of all its attempts.

    Attributes:
        lattice: Name of its lattice as the key has it (`folded`).
        dispatch_id: Id of its dispatch.
        node_id: Its node.
        points: In the order of items and steps, one for each; of a step that was reported twice, the later value.
    """

    lattice: str
    dispatch_id: str
    node_id: int
    points: tuple[Point, ...]


def folded(lattice: str) -> str:
    """The name of a lattice as a key has it: of the name and of its tag (`aws.batch.tag_value`) it is the same."""
    return _NOT_IN_KEY.sub("_", lattice)[:_LATTICE_CHARS] or "-"


def base(prefix: str, lattice: str = "", dispatch_id: str = "", node_id: int | None = None) -> str:
    """The beginning of the keys of what electrons have reported; ``prefix`` is empty or ends with a slash.

    Args:
        prefix: Prefix of all keys.
        lattice: Name of the lattice; empty for those of all.
        dispatch_id: The whole id; empty for all dispatches of the lattice.
        node_id: `None` for all nodes of the dispatch.
    """
    parts = [f"{prefix}reports/"]
    if lattice:
        parts.append(f"{folded(lattice)}/")
        if dispatch_id:
            parts.append(f"{dispatch_id}/")
            if node_id is not None:
                parts.append(f"{node_id}/")
    return "".join(parts)


def name(attempt: int, number: int, points: Sequence[Point]) -> str:
    """The name of an object with some points. Where they are too many for a name, some between are left out.

    Args:
        attempt: Number of the attempt, over all tries.
        number: Number of the object, from 0, of the attempt.
        points: At least one; the last one is never left out.
    """
    packed = _packed(points)
    every = -(-len(packed) // _PACKED_CHARS)
    while len(packed) > _PACKED_CHARS:
        packed = _packed(points[::-1][::every][::-1])
        every += 1
    return f"{attempt:04d}-{number:05d}-{packed}{_SUFFIX}"


def curves(keys: Iterable[str], prefix: str) -> list[Curve]:
    """What electrons have reported, from listed keys; a key of another form is left out.

    Args:
        keys: Keys under `base`, in any order.
        prefix: As of `base`.
    """
    begin = base(prefix)
    found: dict[tuple[str, str, int], list[tuple[int, int, list[Point]]]] = {}
    for key in keys:
        match = _KEY.fullmatch(key[len(begin) :]) if key.startswith(begin) else None
        part = None if match is None else _NAME.fullmatch(match[4])
        points = None if part is None else _unpacked(part[3])
        if match is None or part is None or points is None:
            continue
        electron = match[1], match[2], int(match[3])
        found.setdefault(electron, []).append((int(part[1]), int(part[2]), points))
    return [Curve(*electron, _merged(parts)) for electron, parts in sorted(found.items())]


def _merged(parts: Iterable[tuple[int, int, list[Point]]]) -> tuple[Point, ...]:
    latest: dict[tuple[int, int], Point] = {}
    for _, _, points in sorted(parts, key=lambda part: part[:2]):
        for point in points:
            latest[-1 if point.item is None else point.item, point.step] = point
    return tuple(latest[at] for at in sorted(latest))


# --- bytes ----------------------------------------------------------------------------------------------------------


def record(point: Point) -> bytes:
    """A point as the electron's process writes it for the runner."""
    return _RECORD.pack(0 if point.item is None else point.item + 1, point.step, point.value)


def records(data: bytes) -> list[Point]:
    """The whole records of ``data``; what is no point, because the electron wrote it in another way, is left out."""
    whole = len(data) // RECORD_BYTES * RECORD_BYTES
    found = (_point(*each) for each in _RECORD.iter_unpack(data[:whole]))
    return [point for point in found if point is not None]


def _point(item: int, step: int, value: float) -> Point | None:
    return Point(step, value, item - 1 if item else None) if step <= MAX_STEP and item <= MAX_ITEMS else None


def _packed(points: Iterable[Point]) -> str:
    data = bytearray()
    for point in points:
        data += _varint(0 if point.item is None else point.item + 1) + _varint(point.step) + _VALUE.pack(point.value)
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unpacked(text: str) -> list[Point] | None:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        return None
    found: list[Point] = []
    at = 0
    try:
        while at < len(data):
            item, at = _read_varint(data, at)
            step, at = _read_varint(data, at)
            (value,) = _VALUE.unpack_from(data, at)
            at += _VALUE.size
            point = _point(item, step, value)
            if point is None:
                return None
            found.append(point)
    except (IndexError, struct.error):
        return None
    return found


def _varint(number: int) -> bytes:
    """A whole number, 7 bits a byte, the low ones first."""
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*data, number))


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at
