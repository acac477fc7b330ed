"""Remembers of which stored bodies the result files of maps were joined: who needs such a list need not upload it.

In memory only. After a restart of the server, the list is uploaded once.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from covalent_cirro.contract.references import Blob, Ref

MAX_BODIES = 200_000
"""Bodies that are remembered, at most, of all lists together: some 60 MB."""

TRUSTED_FOR_S = 24 * 3600.0
"""Seconds for which stored bodies are taken to be there: far shorter than the bucket keeps them."""


class _Known(NamedTuple):
    bodies: tuple[Ref, ...]
    bucket: str
    prefix: str
    at: float


class JoinedLists:
    """Bodies by the file of the list that they were joined to."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[tuple[object, ...], _Known] = OrderedDict()
        self._bodies = 0

    def remember(self, path: str, bodies: tuple[Ref, ...], bucket: str, prefix: str) -> None:
        """Remember the bodies of a list whose file was just written."""
        self._forget(_identity(path))
        self._known[_identity(path)] = _Known(bodies, bucket, prefix, self._clock())
        self._bodies += len(bodies)
        while self._bodies > MAX_BODIES:
            self._forget(next(iter(self._known)))

    def find(self, path: str, bucket: str, prefix: str) -> tuple[Ref, ...] | None:
        """The bodies of the list in a file; `None` where they are not known, or are in another place."""
        found = self._known.get(_identity(path))
        if found is None or (found.bucket, found.prefix) != (bucket, prefix):
            return None
        return found.bodies if self._clock() - found.at < TRUSTED_FOR_S else None

    def _forget(self, identity: tuple[object, ...]) -> None:
        found = self._known.pop(identity, None)
        self._bodies -= len(found.bodies) if found is not None else 0


def _identity(path: str) -> tuple[object, ...]:
    try:
        stat = os.stat(path)
    except OSError:
        return (path,)
    return (path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def stored_size(ref: Ref) -> int:
    """Bytes of a reference, as they are stored."""
    return ref.size if isinstance(ref, Blob) else len(ref.data)
