"""SIGTERM, which AWS sends before SIGKILL: whether it has arrived, and what the runner may still wait for after it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from covalent_cirro.contract.protocol import STOP_GRACE_S
from covalent_cirro.runner.process import listen_to_stops

if TYPE_CHECKING:
    from covalent_cirro.runner.s3.answers import Answer
    from covalent_cirro.runner.s3.s3_client import Pending

_STORE_MARGIN_S = 4.0
"""Seconds before SIGKILL that are reserved for the outcome: outputs that are not stored by then are abandoned."""

_CHECKPOINT_MARGIN_S = 6.0
"""Checkpoints are abandoned earlier, to leave time for logs and outcome."""


class SigtermArrived(BaseException):
    """SIGTERM arrived while the runner only waited."""


class Sigterm:
    """SIGTERM (or SIGINT) of this process, from the time at which this object was made.

    Args:
        then: Called once, in the signal handler, when the signal arrives.

    Attributes:
        at: Time on the monotonic clock at which it arrived; `None` until then.
    """

    def __init__(self, then: Callable[[], None]) -> None:
        self.at: float | None = None
        self._then = then
        self._interrupts = False
        listen_to_stops(self._on_signal)

    @contextlib.contextmanager
    def interrupts(self) -> Iterator[None]:
        """Within this context the signal raises `SigtermArrived` at once; so does one that arrived before.

        Raises:
            SigtermArrived: The signal has arrived.
        """
        self._interrupts = True
        try:
            self.check()
            yield
        finally:
            self._interrupts = False

    def check(self) -> None:
        """Raise `SigtermArrived` if the signal has arrived."""
        if self.at is not None:
            raise SigtermArrived

    def wait(self, pending: Pending) -> Answer:
        """Wait for S3; after the signal, only while time is left.

        Raises:
            OutOfTime: No time is left.
            S3Error: The request failed.
        """
        while True:
            left_s = 1.0
            if self.at is not None:
                left_s = self.at + STOP_GRACE_S - _STORE_MARGIN_S - time.monotonic()
                if left_s <= 0:
                    raise pending.out_of_time()
            try:
                return pending.result(min(1.0, left_s))
            except TimeoutError:
                continue

    def checkpoints_end_at(self) -> float | None:
        """Time on the monotonic clock at which checkpoints are abandoned; `None` until the signal has arrived."""
        return None if self.at is None else self.at + STOP_GRACE_S - _CHECKPOINT_MARGIN_S

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.at is None:
            self.at = time.monotonic()
            self._then()
            if self._interrupts:
                raise SigtermArrived
