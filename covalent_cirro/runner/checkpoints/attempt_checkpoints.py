"""The checkpoints of all electrons of this attempt, and what their notices of an ending host mean for the attempt.

Imported while the first electron runs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from covalent_cirro.contract.protocol import Call
from covalent_cirro.runner.checkpoints.listener import CheckpointListener, CheckpointPlace
from covalent_cirro.runner.job_identity import JobIdentity
from covalent_cirro.runner.sigterm import Sigterm, SigtermArrived

if TYPE_CHECKING:
    from covalent_cirro.runner.checkpoints.keeper import Checkpoint
    from covalent_cirro.runner.s3.s3_client import Client

_STILL_THERE_S = 60.0
"""If the host still runs so long after the time of EC2's notice, EC2 did not take it: the runner stops waiting."""


class AttemptCheckpoints:
    """The checkpoints of the electrons of this attempt, which run one after another.

    Args:
        call: The call.
        job: Which job and attempt this is.
        started: Epoch seconds of the runner's start.
        client: Returns the S3 client.
        environ: The environment.
        sigterm: The runner's SIGTERM, which says that the host goes.
        say: Prints a line on the container's stderr.
    """

    def __init__(
        self,
        call: Call,
        job: JobIdentity,
        started: float,
        client: Callable[[], Client],
        environ: Mapping[str, str],
        sigterm: Sigterm,
        say: Callable[[str], None],
    ) -> None:
        self._call, self._job, self._started = call, job, started
        self._client, self._environ, self._sigterm, self._say = client, environ, sigterm, say
        self._listeners: list[CheckpointListener] = []

    def listen(self, node_id: int, control: str) -> CheckpointListener | None:
        """Start the listener for an electron's requests about its checkpoint; `None` if it cannot be started.

        Args:
            node_id: Node id of the electron.
            control: The folder that the electron's process and the runner share; it is created.
        """
        call, job = self._call, self._job
        # All tries have one checkpoint, under the first one's call; so have all nodes of a job.
        where = job.where.sibling(call.tried[0].call_id) if call.tried else job.where
        reads_only = where.compute_node is not None
        where = where._replace(compute_node=None)
        attempt = call.attempts_before + job.attempt
        place = CheckpointPlace(control, where, node_id, job.job_id, attempt, self._started, reads_only=reads_only)
        try:
            listener = CheckpointListener(place, self._make_checkpoint)
        except OSError as error:
            self._say(f"checkpoints do not work here: {error}")
            return None
        self._listeners.append(listener)
        if self._sigterm.at is not None:
            listener.host_goes()
        return listener

    @property
    def used(self) -> bool:
        """Whether the electron that runs has sent a request."""
        return bool(self._listeners) and self._listeners[-1].used

    @property
    def host_goes_at(self) -> float | None:
        """Time in epoch seconds at which EC2 takes the host back; `None` if no electron was notified."""
        found = (listener.host_goes_at for listener in self._listeners)
        return next((at for at in found if at is not None), None)

    def host_goes(self) -> None:
        """Tell the electrons that the host goes. Safe in a signal handler: it takes no lock."""
        for listener in self._listeners:
            listener.host_goes()

    def remove_done(self, stop: int) -> None:
        """Delete the checkpoints of the items before ``stop``: their results are in S3."""
        for listener in self._listeners:
            listener.remove_done(stop)

    def remove(self) -> None:
        """Delete all checkpoints: the call has succeeded, so no attempt will need them."""
        for listener in self._listeners:
            listener.remove()

    def stay_until_the_host_goes(self, goes_at: float) -> None:
        """Wait for SIGTERM, which a host that shuts down sends.

        AWS Batch starts the next attempt as soon as this one has ended, on this host if ECS does not drain it: a job
        would use up all its attempts within one notice.

        Args:
            goes_at: Time at which EC2 takes the host, in epoch seconds.
        """
        left_s = goes_at + _STILL_THERE_S - time.time()
        if left_s <= 0 or self._sigterm.at is not None:
            return
        self._say("all is stored; waiting for the host to go, so that the next attempt does not start on it")
        with contextlib.suppress(SigtermArrived), self._sigterm.interrupts():
            time.sleep(left_s)

    def _make_checkpoint(self, place: CheckpointPlace, host_goes: Callable[[], None]) -> Checkpoint:
        from covalent_cirro.runner.checkpoints.keeper import Checkpoint

        ends_at = self._sigterm.checkpoints_end_at
        return Checkpoint(place, self._client(), self._environ, host_goes, ends_at, self._say)
