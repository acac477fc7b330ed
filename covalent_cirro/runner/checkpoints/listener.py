"""Listens for an electron's requests about its checkpoint, and sets the flag that says that its host is going away.

An electron that sends no request costs one socket and one thread: `keeper.py` is imported at the first request. This
module knows sockets and threads; it must not know S3.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from covalent_cirro.contract import places, protocol
from covalent_cirro.runner.checkpoints import link

if TYPE_CHECKING:
    from covalent_cirro.runner.checkpoints.keeper import Checkpoint

_ASKED_S = 5.0
_MAX_ASKED_BYTES = 64


class CheckpointPlace(NamedTuple):
    """Which electron a checkpoint belongs to, and where it is stored.

    Attributes:
        control: The folder that the electron's process and the runner share (`protocol.CHECKPOINT_VARIABLE`).
        location: Location of the call; for a further try, of the first try's call.
        node_id: Node id of the electron.
        job_id: Value of AWS_BATCH_JOB_ID.
        attempt: Number of the attempt, from 1, counted over all tries.
        started: Epoch seconds of the runner's start.
    """

    control: str
    location: places.Location
    node_id: int
    job_id: str
    attempt: int
    started: float


class CheckpointListener:
    """Answers the checkpoint requests of one electron of the call.

    Args:
        control: The folder to create (`protocol.CHECKPOINT_VARIABLE`).
        make_checkpoint: Makes the checkpoint; its argument sets the flag. Called once, in a thread.

    Raises:
        OSError: The folder or the socket could not be made.
    """

    def __init__(self, control: str, make_checkpoint: Callable[[Callable[[], None]], Checkpoint]) -> None:
        self._control = control
        self._make_checkpoint = make_checkpoint
        self._lock = threading.Lock()
        self._checkpoint: Checkpoint | None = None
        self._ended = False
        os.mkdir(control, 0o700)
        self._listener = link.listen(control, protocol.CHECKPOINT_SOCKET)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def used(self) -> bool:
        """Whether the electron has sent a request."""
        return self._checkpoint is not None

    @property
    def host_goes_at(self) -> float | None:
        """Time in epoch seconds at which EC2 takes the host back; `None` without a notice."""
        return None if self._checkpoint is None else self._checkpoint.host_goes_at

    @property
    def fetch_failed(self) -> str:
        """Why the last checkpoint could not be fetched; empty otherwise."""
        return "" if self._checkpoint is None else self._checkpoint.fetch_failed

    def host_goes(self) -> None:
        """Set the flag. Safe in a signal handler: it takes no lock."""
        with contextlib.suppress(OSError):
            path = os.path.join(self._control, protocol.CHECKPOINT_GOING)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        if self._checkpoint is not None:
            self._checkpoint.hurry()

    def finish(self, *, succeeded: bool, orderly: bool) -> None:
        """Stop listening: the electron has ended, or its process has died (`Checkpoint.finish`)."""
        self._ended = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._checkpoint is not None:
            self._checkpoint.finish(succeeded=succeeded, orderly=orderly)

    def remove(self) -> None:
        """Delete the checkpoint: the call has succeeded, so no attempt will need it."""
        if self._checkpoint is not None:
            self._checkpoint.remove()

    def _accept(self) -> None:
        while not self._ended:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_ASKED_S)
            asked = b""
            while not asked.endswith(b"\n") and len(asked) < _MAX_ASKED_BYTES:
                chunk = connection.recv(_MAX_ASKED_BYTES)
                if not chunk:
                    return
                asked += chunk
            connection.settimeout(None)
            try:
                with self._lock:
                    if self._checkpoint is None:
                        self._checkpoint = self._make_checkpoint(self.host_goes)
                        if os.path.exists(os.path.join(self._control, protocol.CHECKPOINT_GOING)):
                            self._checkpoint.hurry()
                answer = self._checkpoint.answer(asked.decode("ascii", "replace").strip())
            except Exception as error:
                answer = {"error": str(error) or repr(error)}
            connection.sendall(json.dumps(answer).encode())
