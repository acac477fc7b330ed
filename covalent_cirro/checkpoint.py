"""Checkpoints for electrons: a folder that survives the host, the attempt's number, and a warning before the host goes.

User functions import this module in the container and on a laptop, so it needs the runner's files only: no Covalent, no
boto3. The runner's supervisor, another process, makes all requests to S3.

The runner stores the folder only if the electron asks for it; an electron that does not ask loses no time. Outside of a
job the functions work too: a local folder, attempt 1, and a host that never goes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from covalent_cirro.contract.maps import ITEM_VARIABLE
from covalent_cirro.contract.protocol import (
    ATTEMPT_VARIABLE,
    CHECKPOINT_GOING,
    CHECKPOINT_SOCKET,
    CHECKPOINT_VARIABLE,
    ITEM_FOLDER,
    RANK_VARIABLE,
)
from covalent_cirro.errors import CheckpointError

LOCAL_VARIABLE = "CIRRO_CHECKPOINT_FOLDER"
"""Variable with the folder to use outside of a job; without it, each call of `folder` makes a temporary folder."""

_SUPERVISOR_S = 30.0
"""Seconds to wait for the runner's socket, which exists a fraction of a second after the electron's start."""
_READ_BYTES = 64 * 1024

_folders: dict[tuple[str, str], Path] = {}
_watched: set[tuple[str, str]] = set()


def folder() -> Path:
    """The electron's folder, with all files of the last complete checkpoint; empty if there is no checkpoint.

    The first call fetches the checkpoint from S3 and returns when all files are there; further calls, also in
    subprocesses of the electron, return at once. From then on the runner stores changes: when no file has changed for
    2 s and none is open for writing, at most every 10 s, until `save` is called for the first time. Unchanged files
    are not sent again. Symbolic links, modes and times are kept.

    Each item of a mapped electron has a folder and a checkpoint of its own, which are removed when the item is done.

    A distributed electron (``num_nodes``, ``processes_per_node``) has one checkpoint, that of its main node. All
    processes find it in their node's folder. Call `folder` before the processes exchange anything: what the process of
    rank 0 saves later is not for those that have not fetched the folder yet.

    Returns:
        An absolute path. Outside of a job: the folder that ``CIRRO_CHECKPOINT_FOLDER`` names; without it, a new folder
        for each call, removed at the end of the process, so that no training finds the state of another one.

    Raises:
        CheckpointError: There is a checkpoint, and it could not be fetched. AWS Batch may retry the job. Starting over
            without the checkpoint would pay for the same work twice.
    """
    job = os.environ.get(CHECKPOINT_VARIABLE)
    if job is None:
        return _local_folder()
    own = job, _item()
    if own not in _folders:
        _folders[own] = Path(_ask(job, "folder")["folder"])
    return _folders[own]


def save() -> None:
    """Store the folder as it is now; returns when it is in S3, where the next attempt finds it.

    After the first call, the runner stores nothing by itself: only `save` says when the files belong together. Do not
    write into the folder until `save` returns, which takes as long as the upload of the changed files. Does nothing
    outside of a job, and in the processes of a distributed electron that do not have rank 0.

    Raises:
        CheckpointError: The folder could not be stored, with AWS's message, or a file changed meanwhile. The last
            complete checkpoint is still in S3.
    """
    job = os.environ.get(CHECKPOINT_VARIABLE)
    if job is not None and os.environ.get(RANK_VARIABLE, "0") == "0":
        _ask(job, "save")


def attempt() -> int:
    """The number of the electron's attempt, from 1; 1 outside of a job.

    If the electron is submitted again, the number goes on; ``AWS_BATCH_JOB_ATTEMPT`` starts at 1 in each job.
    """
    number = os.environ.get(ATTEMPT_VARIABLE, "")
    return int(number) if number.isdigit() and CHECKPOINT_VARIABLE in os.environ else 1


def host_is_going() -> bool:
    """Whether this attempt will be ended soon. If so, call `save`, and go on until the attempt ends.

    True from EC2's Spot notice on, which comes usually two minutes before the host goes and is noticed within 5 s, and
    from SIGTERM on (time limit, cancel, shutdown of the host): then the electron has 15 s before it gets the signal
    itself, and 20 s in total. A call takes a microsecond. Always false outside of a job.
    """
    job = os.environ.get(CHECKPOINT_VARIABLE)
    if job is None:
        return False
    own = job, _item()
    if own not in _watched:
        _ask(job, "watch")
        _watched.add(own)
    return os.path.exists(os.path.join(job, CHECKPOINT_GOING))


def _item() -> str:
    """The index of the item of a mapped electron that this process computes; empty for any other electron."""
    return os.environ.get(ITEM_VARIABLE, "").partition("/")[0]


def _ask(job: str, what: str) -> dict[str, Any]:
    """Send a request to the runner, and wait for its answer.

    Raises:
        CheckpointError: The runner could not do it, or has ended.
    """
    import json

    from covalent_cirro.runner.checkpoints import link

    until = time.monotonic() + _SUPERVISOR_S
    while True:
        try:
            connection = link.connect(job, CHECKPOINT_SOCKET)
            break
        except OSError as error:
            if time.monotonic() >= until:
                raise CheckpointError(f"the runner does not answer at {job}: {error}") from error
            time.sleep(0.005)
    answer = b""
    with connection:
        try:
            connection.sendall(f"{what} {_item()}".rstrip().encode() + b"\n")
            while chunk := connection.recv(_READ_BYTES):
                answer += chunk
        except OSError as error:
            raise CheckpointError(f"the runner ended while it was asked to {what} the checkpoint: {error}") from error
    if not answer:
        raise CheckpointError(f"the runner ended while it was asked to {what} the checkpoint")
    found: dict[str, Any] = json.loads(answer)
    if "error" in found:
        raise CheckpointError(found["error"])
    return found


def _local_folder() -> Path:
    named = os.environ.get(LOCAL_VARIABLE)
    if named:
        path = Path(named, ITEM_FOLDER.format(_item()) if _item() else "").absolute()
        path.mkdir(parents=True, exist_ok=True)
        return path
    import atexit
    import shutil
    import tempfile

    made, owner = tempfile.mkdtemp(prefix="cirro-checkpoint-"), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a forked copy of this process must not remove the folder
            shutil.rmtree(made, ignore_errors=True)

    atexit.register(remove)
    return Path(made)
