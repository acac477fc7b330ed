"""Sends events of jobs to EventBridge, in order, from a thread of their own. It must not know jobs."""

from __future__ import annotations

import logging
import queue
import threading

from covalent_cirro.local.emulator.moto_internals import moto_events

log = logging.getLogger("covalent_cirro.local.emulator")

_Event = tuple[str, list[str], str]


class EventSender:
    """Sends events of one region. Its thread starts with the first event."""

    def __init__(self, account: str, region: str) -> None:
        self._account = account
        self._region = region
        self._queue: queue.SimpleQueue[_Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def publish(self, detail_type: str, resources: list[str], detail: str) -> None:
        """Send later; never blocks."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._send, name=f"events-{self._region}", daemon=True)
            self._thread.start()
        self._queue.put((detail_type, resources, detail))

    def close(self) -> None:
        """Send what is queued, then end."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=5)

    def _send(self) -> None:
        while True:
            event = self._queue.get()
            if event is None:
                return
            detail_type, resources, detail = event
            try:
                moto_events.put_event(self._account, self._region, detail_type, resources, detail)
            except Exception:  # an event whose target fails is dropped, as on AWS
                log.debug("event for %s", resources, exc_info=True)
