"""Copies the logs of running jobs into Covalent's files, so that users can read them while the electrons run.

Reads the parts that the runner stores while an electron runs; `result_writer.py` writes the whole log at the end.
Nothing here fails an electron, and nothing is read for a job that is shorter than `FIRST_S`.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from covalent_cirro import local_files
from covalent_cirro.contract import log_parts
from covalent_cirro.contract.limits import MAX_PART_BYTES
from covalent_cirro.contract.places import Location
from covalent_cirro.covalent_server.view import LogFile
from covalent_cirro.errors import CirroError, TooLarge

log = logging.getLogger(__name__)

FIRST_S = 10.0
"""Time until the first look at a job: the runner stores the first part of a log after it (`runner.times.Times`)."""

LEAST_PAUSE_S = 1.0
"""Shortest time between two looks."""

PARTS_PER_LOOK = 32
"""Most parts that are read in one look, of all jobs together."""

OWN_LISTS = 3
"""Most jobs of a dispatch that are listed one by one; for more jobs, the whole dispatch is listed once."""


class Reads(Protocol):
    """The methods of `store.Store` that are used here."""

    async def list_keys(self, bucket: str, prefix: str) -> list[tuple[str, datetime]]: ...

    async def get_document(self, bucket: str, key: str, limit: int) -> bytes | None: ...


@dataclass
class _Followed:
    place: Location
    dispatch_id: str
    node_id: int
    began: float
    due: float
    files: Mapping[str, LogFile] | None = None
    attempt: str = ""
    copied: dict[str, str] = field(default_factory=dict)
    decoders: dict[str, codecs.IncrementalDecoder] = field(default_factory=dict)
    writing: asyncio.Future[None] | None = None


class LiveLogs:
    """Running jobs of one engine whose logs are copied. The task that copies runs only while there are any."""

    def __init__(
        self,
        store: Reads,
        files: Callable[[str, int], Mapping[str, LogFile]],
        tell: Callable[[Mapping[int, int]], None],
        *,
        first_s: float = FIRST_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it.

        Args:
            store: Store of the account.
            files: ``view.log_files``.
            tell: ``view.write_sizes``.
            first_s: Seconds until the first look at a job; the time between two looks grows as the runner's does.
            clock: Time in seconds.
        """
        self._store, self._files, self._tell = store, files, tell
        self._first_s = first_s
        self._clock = clock
        self._followed: dict[Location, _Followed] = {}
        self._task: asyncio.Task[None] | None = None

    def follow(self, place: Location, dispatch_id: str, node_id: int) -> None:
        """Copy the log of a running job into an electron's files. Can be called again for the same job.

        The electrons of a task group cannot be told apart before its end: until then, the first one has the log.
        """
        if place not in self._followed:
            now = self._clock()
            self._followed[place] = _Followed(place, dispatch_id, node_id, now, now + self._first_s)
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._run(), name="cirro-live-logs")

    async def stop(self, place: Location) -> None:
        """Stop to copy the log of a job. After the return, nothing is written to the electron's files any more."""
        followed = self._followed.pop(place, None)
        if followed is not None and followed.writing is not None:
            await asyncio.wait({followed.writing})

    async def aclose(self) -> None:
        """Stop to copy all logs."""
        self._followed.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._followed:
            now = self._clock()
            pause = min(each.due for each in self._followed.values()) - now
            await asyncio.sleep(min(max(pause, LEAST_PAUSE_S), self._first_s))
            if pause > 0:
                continue
            # The most overdue jobs first, up to the parts of one look.
            due = sorted((each for each in self._followed.values() if each.due <= now), key=lambda each: each.due)
            left = PARTS_PER_LOOK
            for each in due:
                each.due = now + log_parts.interval_s(self._first_s, now - each.began)
            for bucket, prefix, jobs in _lists(due):
                try:
                    keys = [key for key, _ in await self._store.list_keys(bucket, prefix)]
                    for each in jobs:
                        left -= await self._copy(each, keys, left)
                except CirroError as error:
                    log.info("Logs under s3://%s/%s are shown later: %s", bucket, prefix, error)
                except Exception:  # a log that is only shown must not end the copies of the others
                    log.exception("Logs under s3://%s/%s are not shown before their end", bucket, prefix)
                    for each in jobs:
                        self._followed.pop(each.place, None)

    async def _copy(self, each: _Followed, keys: Iterable[str], most: int) -> int:
        """Append the new parts of a job's newest attempt; returns their number."""
        base = each.place.log_key("")
        parts = log_parts.ordered(key[len(base) :] for key in keys if key.startswith(base))
        if not parts:
            return 0
        if each.files is None:
            each.files = await asyncio.to_thread(self._files, each.dispatch_id, each.node_id)
        attempt = parts[-1].partition("/")[0]
        if attempt != each.attempt:
            each.attempt, each.copied = attempt, {}
        count = 0
        for part in parts:
            stream = part.partition("/")[2].partition(".")[0]
            file = each.files.get(stream)
            new = part.startswith(f"{attempt}/") and part > each.copied.get(stream, "")
            if file is None or not new:
                continue
            if count >= most:
                each.due = self._clock()  # so that it is first in the next look
                break
            try:
                data = await self._store.get_document(each.place.bucket, base + part, MAX_PART_BYTES)
            except TooLarge as error:  # the runner stores no such part
                log.info("%s", error)
                data = None
            if self._followed.get(each.place) is not each:
                break
            begin = stream not in each.copied
            if begin:
                each.decoders[stream] = codecs.getincrementaldecoder("utf-8")("replace")
            count += 1
            if data:
                # Covalent's client reads UTF-8 only, and one character may be in two parts.
                text = each.decoders[stream].decode(data).encode()
                each.writing = asyncio.ensure_future(asyncio.to_thread(self._append, file, text, begin))
                await asyncio.shield(each.writing)
            each.copied[stream] = part
        return count

    def _append(self, file: LogFile, data: bytes, begin: bool) -> None:
        local_files.require_room(file.path, len(data))
        with local_files.errors_about(file.path):
            os.makedirs(os.path.dirname(file.path), exist_ok=True)
            with open(file.path, "wb" if begin else "ab", buffering=0) as opened:
                before, left = opened.tell(), memoryview(data)
                try:
                    while left:
                        left = left[opened.write(left) :]
                except OSError:
                    opened.truncate(before)  # the whole part is written again later
                    raise
                size = opened.tell()
        self._tell({file.asset_id: size})


def _lists(due: Iterable[_Followed]) -> list[tuple[str, str, list[_Followed]]]:
    """Prefixes to list, ``(bucket, prefix, jobs)``: few jobs of a dispatch one by one, many together."""
    dispatches: dict[tuple[str, str], list[_Followed]] = {}
    for each in due:
        # jobs/<dispatch>/<node>/<call>/
        dispatches.setdefault((each.place.bucket, each.place.base.rsplit("/", 3)[0] + "/"), []).append(each)
    found: list[tuple[str, str, list[_Followed]]] = []
    for (bucket, prefix), jobs in dispatches.items():
        if len(jobs) > OWN_LISTS:
            found.append((bucket, prefix, jobs))
        else:
            found += [(bucket, each.place.log_key(""), [each]) for each in jobs]
    return found
