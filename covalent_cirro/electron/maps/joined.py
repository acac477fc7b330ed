"""Remembers of which stored bodies the result files of maps were joined: who needs such a list need not upload it.

In memory only. After a restart of the server, the list is uploaded once.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from covalent_cirro.contract.references import Blob, Ref
from covalent_cirro.electron.maps.shares import SourcePart

MAX_BODIES = 200_000
"""Bodies, or parts of bodies, that are remembered, at most, of all lists together: some 60 MB."""

TRUSTED_FOR_S = 24 * 3600.0
"""Seconds for which stored bodies are taken to be there: far shorter than the bucket keeps them."""


class StoredList(NamedTuple):
    """What the body of a list was joined from.

    Attributes:
        bodies: What is stored.
        parts: The parts of the bodies that, joined, are the body of the list; `None`: the bodies as they are.
    """

    bodies: tuple[Ref, ...]
    parts: tuple[SourcePart, ...] | None = None

    @property
    def pieces(self) -> Sequence[SourcePart]:
        """The parts, also where they are whole bodies."""
        if self.parts is not None:
            return self.parts
        return [SourcePart(number, 0, stored_size(body)) for number, body in enumerate(self.bodies)]


class _Known(NamedTuple):
    stored: StoredList
    bucket: str
    prefix: str
    at: float


class JoinedLists:
    """Bodies by the file of the list that they were joined to."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[tuple[object, ...], _Known] = OrderedDict()
        self._bodies = 0

    def remember(self, path: str, stored: StoredList, bucket: str, prefix: str) -> None:
        """Remember what a list was joined from whose file was just written."""
        self._forget(_identity(path))
        self._known[_identity(path)] = _Known(stored, bucket, prefix, self._clock())
        self._bodies += _count(stored)
        while self._bodies > MAX_BODIES:
            self._forget(next(iter(self._known)))

    def find(self, path: str, bucket: str, prefix: str) -> StoredList | None:
        """What the list in a file was joined from; `None` where that is not known, or is in another place."""
        found = self._known.get(_identity(path))
        if found is None or (found.bucket, found.prefix) != (bucket, prefix):
            return None
        return found.stored if self._clock() - found.at < TRUSTED_FOR_S else None

    def _forget(self, identity: tuple[object, ...]) -> None:
        found = self._known.pop(identity, None)
        self._bodies -= _count(found.stored) if found is not None else 0


def _count(stored: StoredList) -> int:
    return max(len(stored.bodies), len(stored.parts or ()))


def _identity(path: str) -> tuple[object, ...]:
    try:
        stat = os.stat(path)
    except OSError:
        return (path,)
    return (path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def stored_size(ref: Ref) -> int:
    """Bytes of a reference, as they are stored."""
    return ref.size if isinstance(ref, Blob) else len(ref.data)
