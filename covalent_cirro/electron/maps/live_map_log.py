"""The log of a map in Covalent's files while its jobs run: the last lines of a few jobs, those with failures first.

Reads the newest parts of logs that the jobs have stored. `map_results.py` writes the whole log at the end.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from covalent_cirro import local_files
from covalent_cirro.contract import log_parts
from covalent_cirro.contract.limits import MAX_PART_BYTES
from covalent_cirro.contract.places import Location
from covalent_cirro.covalent_server.view import LogFile
from covalent_cirro.electron.engine.live_logs import Reads
from covalent_cirro.errors import CirroError
from covalent_cirro.jobs.log_end import last_lines
from covalent_cirro.jobs.map_progress import JobItems

log = logging.getLogger(__name__)

SHOWN = 4
"""Jobs whose last lines are shown, at most."""

LINES = 30
"""Lines of each."""

READS = 2
"""Parts that are read at a look, at most: each is up to some 2 MiB."""


class LiveMapLog:
    """The log of one map while it runs.

    Args:
        store: Store of the account.
        files: ``view.log_files``.
        tell: ``view.write_sizes``.
        place: The call.
        node_id: The electron's node.
    """

    def __init__(
        self,
        store: Reads,
        files: Callable[[str, int], Mapping[str, LogFile]],
        tell: Callable[[Mapping[int, int]], None],
        place: Location,
        node_id: int,
    ) -> None:
        self._store, self._files, self._tell, self._place, self._node_id = store, files, tell, place, node_id
        self._paths: Mapping[str, LogFile] | None = None
        self._read: dict[tuple[int, str], tuple[str, str]] = {}  # by job and stream: name of the part, and its lines
        self._written: dict[str, str] = {}

    async def look(self, keys: Iterable[str], jobs: Sequence[JobItems]) -> None:
        """Show what is new. What cannot be shown is shown later, or at the end.

        Args:
            keys: Keys under the place of the array.
            jobs: The jobs of the map.
        """
        newest = await asyncio.to_thread(self._newest, keys)
        chosen = chosen_jobs(jobs, {number for number, _ in newest})
        numbers = {job.number for job in chosen}
        new = [(of, part) for of, part in sorted(newest.items()) if of[0] in numbers and part != self._part(of)]
        turns = {of: turn for turn, of in enumerate(self._read)}
        try:
            for of, part in sorted(new, key=lambda each: turns.get(each[0], -1))[:READS]:  # the longest unread first
                key = self._place.child(of[0]).log_key(part)
                data = await self._store.get_document(self._place.bucket, key, MAX_PART_BYTES)
                self._read.pop(of, None)
                self._read[of] = part, last_lines((data or b"").decode("utf-8", "replace"), LINES)
            await self._show(chosen, len(jobs))
        except CirroError as error:
            log.info("The log of the map %s is shown later: %s", self._place.call_uri, error)

    def _part(self, of: tuple[int, str]) -> str:
        return self._read[of][0] if of in self._read else ""

    def _newest(self, keys: Iterable[str]) -> dict[tuple[int, str], str]:
        """By job and stream, the name of the newest part of the log."""
        found: dict[tuple[int, str], str] = {}
        base = self._place.array_base
        for key in keys:
            child, _, name = key.removeprefix(base).partition("/log/")
            part = log_parts.parse(name) if key.startswith(base) and child.isdecimal() else None
            if part is not None:
                of = int(child), part.stream
                found[of] = max(found.get(of, ""), part.name)
        return found

    async def _show(self, chosen: Sequence[JobItems], jobs: int) -> None:
        for stream in log_parts.STREAMS:
            text = self._text(chosen, jobs, stream)
            if not text or text == self._written.get(stream):
                continue
            if self._paths is None:
                self._paths = await asyncio.to_thread(self._files, self._place.dispatch_id, self._node_id)
            if stream in self._paths:
                writing = asyncio.ensure_future(asyncio.to_thread(self._write, self._paths[stream], text.encode()))
                try:
                    await asyncio.shield(writing)
                finally:  # nothing is written any more after the caller was cancelled
                    await asyncio.wait({writing})
                self._written[stream] = text

    def _text(self, chosen: Sequence[JobItems], jobs: int, stream: str) -> str:
        texts = []
        for job in chosen:
            _, lines = self._read.get((job.number, stream), ("", ""))
            if lines:
                items = f"item {job.first}" if job.stop == job.first + 1 else f"items {job.first}-{job.stop - 1}"
                failed = f", {job.failed:,} failed" if job.failed else ""
                texts.append(f"--- {items} (job {job.number}){failed}: the last lines so far ---\n{lines}\n")
        electron = f"{self._place.dispatch_id}:{self._node_id}"
        more = f"--- of all {jobs:,} jobs, while they run: cirro logs '{electron}[ITEM]' ---\n"
        return "".join([*texts, more]) if texts else ""

    def _write(self, file: LogFile, data: bytes) -> None:
        local_files.require_room(file.path, len(data))
        with local_files.errors_about(file.path):
            os.makedirs(os.path.dirname(file.path), exist_ok=True)
            with open(file.path, "wb") as opened:
                opened.write(data)
        self._tell({file.asset_id: len(data)})


def chosen_jobs(jobs: Iterable[JobItems], with_log: set[int]) -> list[JobItems]:
    """The jobs whose last lines are shown: those with items that failed, then those that run, each in their order.

    Args:
        jobs: The jobs of a map.
        with_log: Numbers of the jobs that have stored a part of their log.
    """
    found = [job for job in jobs if job.number in with_log and (job.failed or not job.has_outcome)]
    return sorted(found, key=lambda job: (not job.failed, job.number))[:SHOWN]
