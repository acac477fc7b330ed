"""Stored values in a job: the supervisor fetches one when the electron's process asks for it, each once for the job.

The electron's process unpickles handles (`covalent_cirro.stored`) and makes no request to S3 itself. It can ask for
what the call names only. A call that names none costs nothing: there is no socket and no thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterable

from covalent_cirro.contract.protocol import STORED_SOCKET
from covalent_cirro.contract.references import Blob, StoredInput
from covalent_cirro.runner.checkpoints import link

Fetch = Callable[[Blob], str]
"""Fetches a blob, checks it, and returns the path of its decoded bytes; raises if it cannot."""

_FAILURE = "stored-failed.txt"
"""File in the folder of the socket that exists once a stored value could not be fetched; it says why."""

_ASKED_BYTES = 128
_ASKED_S = 5.0
_READ_BYTES = 64 * 1024


class StoredBlobs:
    """Answers requests for the stored values of a call, from all processes of the job, until the job ends.

    Args:
        folder: Folder of the runner, for the socket.
        stored: The stored values.
        fetch: Called in a thread, once for each blob.

    Raises:
        OSError: The socket cannot be made.

    Attributes:
        failed: Why the last one could not be fetched; empty where none failed.
    """

    def __init__(self, folder: str, stored: Iterable[StoredInput], fetch: Fetch) -> None:
        self.failed = ""
        self._failure_path = os.path.join(folder, _FAILURE)
        self._stored = {each.blob.sha256: each for each in stored}
        self._locks = {sha256: threading.Lock() for sha256 in self._stored}
        self._paths: dict[str, str] = {}
        self._fetch = fetch
        self._listener = link.listen(folder, STORED_SOCKET)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_ASKED_S)
            asked = connection.makefile("rb").readline(_ASKED_BYTES).decode("ascii", "replace").strip()
            connection.settimeout(None)
            connection.sendall(json.dumps(self._found(asked)).encode())

    def _found(self, sha256: str) -> dict[str, str]:
        stored = self._stored.get(sha256)
        if stored is None:
            return {
                "error": f"the call of this electron does not name the stored value {sha256}: its handle was hidden "
                "when the electron was sent, in a compressed pickle for example. Pass the handle as it is."
            }
        with self._locks[sha256]:
            if sha256 not in self._paths:
                try:
                    self._paths[sha256] = self._fetch(stored.blob)
                except Exception as error:
                    self.failed = (
                        f"the stored {stored.label} could not be fetched: {error}. If it is gone, call stored() again "
                        "with the same value: handles that were made before name it, too"
                    )
                    with open(self._failure_path, "w", encoding="utf-8", errors="replace") as file:
                        file.write(self.failed)
                    return {"error": self.failed}
        return {"path": self._paths[sha256]}


def path_of(folder: str, sha256: str) -> str:
    """Ask the supervisor for a stored value, in a process of the job; waits until it is there.

    Args:
        folder: Value of `protocol.STORED_VARIABLE`.
        sha256: Digest of its blob.

    Returns:
        Path of its decoded bytes, which all processes of the job share.

    Raises:
        LookupError: It cannot be fetched, or the runner has ended; the message says why.
    """
    if not os.path.exists(os.path.join(folder, STORED_SOCKET)):
        raise LookupError(
            f"the call of this electron names no stored value, and the electron has the handle of {sha256}. The "
            "Covalent server or the image has an older covalent-cirro, or the handle was hidden in a compressed pickle."
        )
    answer = b""
    try:
        with link.connect(folder, STORED_SOCKET) as connection:
            connection.sendall(sha256.encode() + b"\n")
            while chunk := connection.recv(_READ_BYTES):
                answer += chunk
    except OSError as error:
        raise LookupError(f"the runner ended while it was asked for the stored value {sha256}: {error}") from error
    found: dict[str, str] = json.loads(answer or b'{"error": "the runner ended"}')
    if "path" not in found:
        raise LookupError(found["error"])
    return found["path"]


def failure_of(folder: str) -> str:
    """Why a stored value could not be fetched, for a process of the job; empty where none failed.

    Args:
        folder: Value of `protocol.STORED_VARIABLE`.
    """
    try:
        with open(os.path.join(folder, _FAILURE), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""
