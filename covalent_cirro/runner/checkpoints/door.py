"""Where an electron asks for its checkpoint: a socket that waits for it, and the flag that says that its host goes.

All that costs an electron that never asks: what is behind the door is loaded when it is first knocked at. Knows sockets
and threads; nothing of S3.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from covalent_cirro.contract import protocol
from covalent_cirro.runner.checkpoints import link

if TYPE_CHECKING:
    from covalent_cirro.runner.checkpoints.keeper import Checkpoint

_ASKED_S = 5.0
_MAX_ASKED_BYTES = 64


class Place(NamedTuple):
    """Where things are.

    Attributes:
        control: The folder by which the electron's process speaks to the runner (`protocol.CHECKPOINT_VARIABLE`).
        location: The call; of a further try, the first one's.
        node_id: The electron.
        job_id: AWS_BATCH_JOB_ID.
        attempt: Number of the attempt, over all tries.
        started: Epoch seconds of the runner's start.
    """

    control: str
    location: protocol.Location
    node_id: int
    job_id: str
    attempt: int
    started: float


class CheckpointDoor:
    """The door of one electron of the call.

    Args:
        control: A folder that is made (`protocol.CHECKPOINT_VARIABLE`).
        open_it: Makes the checkpoint, given what raises the flag; called once, in a thread.

    Raises:
        OSError: The folder or the socket could not be made.
    """

    def __init__(self, control: str, open_it: Callable[[Callable[[], None]], Checkpoint]) -> None:
        self._control = control
        self._open_it = open_it
        self._lock = threading.Lock()
        self._checkpoint: Checkpoint | None = None
        self._ended = False
        os.mkdir(control, 0o700)
        self._listener = link.listen(control, protocol.CHECKPOINT_SOCKET)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def used(self) -> bool:
        """Whether the electron has asked for anything."""
        return self._checkpoint is not None

    @property
    def host_goes_at(self) -> float | None:
        """Epoch seconds at which EC2 takes the host back; `None` without a notice."""
        return None if self._checkpoint is None else self._checkpoint.host_goes_at

    @property
    def fetch_failed(self) -> str:
        """Why the last checkpoint could not be fetched; empty otherwise."""
        return "" if self._checkpoint is None else self._checkpoint.fetch_failed

    def host_goes(self) -> None:
        """Raise the flag. Safe in a signal handler: no lock is taken."""
        with contextlib.suppress(OSError):
            path = os.path.join(self._control, protocol.CHECKPOINT_GOING)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        if self._checkpoint is not None:
            self._checkpoint.hurry()

    def finish(self, *, succeeded: bool, orderly: bool) -> None:
        """The electron is done, or its process is dead (`Checkpoint.finish`)."""
        self._ended = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._checkpoint is not None:
            self._checkpoint.finish(succeeded=succeeded, orderly=orderly)

    def remove(self) -> None:
        """The call has succeeded for good: nobody will resume from this."""
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
                        self._checkpoint = self._open_it(self.host_goes)
                        if os.path.exists(os.path.join(self._control, protocol.CHECKPOINT_GOING)):
                            self._checkpoint.hurry()
                answer = self._checkpoint.answer(asked.decode("ascii", "replace").strip())
            except Exception as error:
                answer = {"error": str(error) or repr(error)}
            connection.sendall(json.dumps(answer).encode())
