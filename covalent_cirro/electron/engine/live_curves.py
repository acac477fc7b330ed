"""Shows what running electrons report (`covalent_cirro.trial`), from one listing for each dispatch.

Nothing here fails an electron, and nothing is listed for a job that is shorter than `FIRST_S`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from covalent_cirro.contract import log_parts, reports
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.reports import Point
from covalent_cirro.electron.engine.live_logs import FIRST_S, LEAST_PAUSE_S, Reads
from covalent_cirro.errors import CirroError

log = logging.getLogger(__name__)

_SLOWER = 6
"""A dispatch that has reported nothing so far is listed so many times less often, and each minute at least."""

Tell = Callable[[Sequence[Point]], None]
"""Is told all points of an electron, when there are new ones."""


@dataclass
class _Dispatch:
    place: Location
    began: float
    due: float
    lattice: str | None = None
    told: dict[int, Tell] = field(default_factory=dict)
    points: dict[int, tuple[Point, ...]] = field(default_factory=dict)


class LiveCurves:
    """Dispatches of one engine whose running electrons may report. The task that looks runs only while there are any.

    Args:
        store: Store of the account.
        lattice_of: ``view.lattice_of``.
        first_s: Seconds until the first look at a dispatch; the time between two looks grows as that of logs does.
        clock: Time in seconds.
    """

    def __init__(
        self,
        store: Reads,
        lattice_of: Callable[[str], str],
        *,
        first_s: float = FIRST_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._lattice_of = store, lattice_of
        self._first_s, self._clock = first_s, clock
        self._dispatches: dict[str, _Dispatch] = {}
        self._task: asyncio.Task[None] | None = None

    def follow(self, place: Location, dispatch_id: str, node_id: int, tell: Tell) -> None:
        """Look for what a running electron reports. Can be called again for the same electron.

        Args:
            place: Place of its call.
            dispatch_id: Its dispatch.
            node_id: Its node.
            tell: See `Tell`.
        """
        now = self._clock()
        dispatch = self._dispatches.setdefault(dispatch_id, _Dispatch(place, now, now + self._first_s))
        dispatch.told[node_id] = tell
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="cirro-live-curves")

    def stop(self, dispatch_id: str, node_ids: Sequence[int]) -> None:
        """Stop to look for electrons of a dispatch."""
        dispatch = self._dispatches.get(dispatch_id)
        if dispatch is not None:
            for node_id in node_ids:
                dispatch.told.pop(node_id, None)
            if not dispatch.told:
                del self._dispatches[dispatch_id]

    async def aclose(self) -> None:
        """Stop to look for all."""
        self._dispatches.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._dispatches:
            pause = min(each.due for each in self._dispatches.values()) - self._clock()
            await asyncio.sleep(min(max(pause, min(LEAST_PAUSE_S, self._first_s)), self._first_s))
            for dispatch_id, each in list(self._dispatches.items()):
                if each.due <= self._clock():
                    try:
                        await self._look(dispatch_id, each)
                    except CirroError as error:
                        log.info("What dispatch %s reports is shown later: %s", dispatch_id, error)
                    except Exception:  # what is only shown must not end the looks at the others
                        log.exception("What dispatch %s reports is not shown", dispatch_id)
                        self._dispatches.pop(dispatch_id, None)
                    running_s = self._clock() - each.began
                    slower = 1 if each.points else _SLOWER
                    each.due = self._clock() + log_parts.interval_s(self._first_s, slower * running_s)

    async def _look(self, dispatch_id: str, each: _Dispatch) -> None:
        if each.lattice is None:
            each.lattice = await asyncio.to_thread(self._lattice_of, dispatch_id)
        bucket, prefix = each.place.bucket, each.place.prefix
        keys = await self._store.list_keys(bucket, reports.base(prefix, each.lattice or "-", dispatch_id))
        for curve in reports.curves((key for key, _ in keys), prefix):
            tell = each.told.get(curve.node_id)
            if tell is not None and each.points.get(curve.node_id) != curve.points:
                each.points[curve.node_id] = curve.points
                tell(curve.points)
