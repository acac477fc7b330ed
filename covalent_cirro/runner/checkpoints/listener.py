"""Listens for an electron's requests about its checkpoint, and sets the flag that says that its host is going away.

An electron that sends no request costs one socket and one thread: `keeper.py` is imported at the first request. This
module knows sockets and threads; it must not know S3.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
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
        item: Item of a mapped electron, in the whole list; `None` for any other electron.
        reads_only: The checkpoint is fetched and never stored: the main node of the job stores it.
    """

    control: str
    location: places.Location
    node_id: int
    job_id: str
    attempt: int
    started: float
    item: int | None = None
    reads_only: bool = False

    def key(self, part: str) -> str:
        """Key of a part of the checkpoint."""
        if self.item is None:
            return self.location.checkpoint_key(self.node_id, part)
        return self.location.item_checkpoint_key(self.node_id, self.item, part)

    @property
    def own_folder(self) -> str:
        """The folder for this checkpoint alone: that of an item is in ``control``, and exists once it is asked for."""
        return self.control if self.item is None else os.path.join(self.control, protocol.ITEM_FOLDER.format(self.item))


class CheckpointListener:
    """Answers the checkpoint requests of one electron of the call.

    Each item of a mapped electron has a checkpoint of its own: the request names the item.

    Args:
        place: Whose checkpoint it is; the folder ``control`` is created.
        make_checkpoint: Makes a checkpoint; its second argument sets the flag. Called in a thread, once for each item.

    Raises:
        OSError: The folder or the socket could not be made.
    """

    def __init__(
        self, place: CheckpointPlace, make_checkpoint: Callable[[CheckpointPlace, Callable[[], None]], Checkpoint]
    ) -> None:
        self._place = place
        control = self._control = place.control
        self._make_checkpoint = make_checkpoint
        self._lock = threading.Lock()
        self._checkpoints: dict[int | None, Checkpoint] = {}
        self._done: dict[int, Checkpoint] = {}
        self._host_goes_at: float | None = None  # as an item that has ended knew it
        self._ended = False
        os.mkdir(control, 0o700)
        self._listener = link.listen(control, protocol.CHECKPOINT_SOCKET)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def used(self) -> bool:
        """Whether the electron, or an item that runs, has sent a request."""
        return bool(self._checkpoints)

    @property
    def host_goes_at(self) -> float | None:
        """Time in epoch seconds at which EC2 takes the host back; `None` without a notice."""
        found = (each.host_goes_at for each in self._all())
        return next((at for at in found if at is not None), self._host_goes_at)

    @property
    def fetch_failed(self) -> str:
        """Why the last checkpoint could not be fetched; empty otherwise."""
        return next((each.fetch_failed for each in self._all() if each.fetch_failed), "")

    def host_goes(self) -> None:
        """Set the flag. Safe in a signal handler: it takes no lock."""
        with contextlib.suppress(OSError):
            path = os.path.join(self._control, protocol.CHECKPOINT_GOING)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        for checkpoint in list(self._checkpoints.values()):
            checkpoint.hurry()

    def finish(self, *, succeeded: bool, orderly: bool) -> None:
        """Stop listening: the electron has ended, or its process has died (`Checkpoint.finish`)."""
        self._ended = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for checkpoint in list(self._checkpoints.values()):
            checkpoint.finish(succeeded=succeeded, orderly=orderly)

    def remove(self) -> None:
        """Delete the checkpoint: the call has succeeded, so no attempt will need it."""
        for checkpoint in self._all():
            checkpoint.remove()

    def remove_done(self, stop: int) -> None:
        """Delete the checkpoints of the items before ``stop``: their results are in S3."""
        with self._lock:
            done = [self._done.pop(item) for item in list(self._done) if item < stop]
        for checkpoint in done:
            checkpoint.remove()

    def _all(self) -> list[Checkpoint]:
        return [*self._checkpoints.values(), *self._done.values()]

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
            what, _, item = asked.decode("ascii", "replace").strip().partition(" ")
            try:
                answer = self._answer_for(int(item) if item else None, what)
            except Exception as error:
                answer = {"error": str(error) or repr(error)}
            connection.sendall(json.dumps(answer).encode())

    def _answer_for(self, item: int | None, what: str) -> dict[str, str]:
        place = self._place._replace(item=item)
        with self._lock:
            if what == "done" and item is not None:
                return self._end_item(item, place)
            checkpoint = self._checkpoints.get(item)
            if checkpoint is None:
                if item is not None:
                    os.mkdir(place.own_folder, 0o700)
                checkpoint = self._checkpoints[item] = self._make_checkpoint(place, self.host_goes)
                if os.path.exists(os.path.join(self._control, protocol.CHECKPOINT_GOING)):
                    checkpoint.hurry()
        return checkpoint.answer(what)

    def _end_item(self, item: int, place: CheckpointPlace) -> dict[str, str]:
        """An item has ended: its files are not needed here any more; in S3 they are until its result is there."""
        checkpoint = self._checkpoints.pop(item, None)
        if checkpoint is None:
            return {}
        checkpoint.finish(succeeded=True, orderly=True)
        self._done[item] = checkpoint
        if checkpoint.host_goes_at is not None:
            self._host_goes_at = checkpoint.host_goes_at
        shutil.rmtree(place.own_folder, ignore_errors=True)
        return {"fetch_failed": checkpoint.fetch_failed}
