"""What an electron keeps for its next attempt: a folder that survives its host, the attempt's number, a warning.

Imported by the user's function, in the container and on a laptop, so it must need nothing but the runner's files: no
Covalent, no boto3. All that talks to S3 is in the runner's supervisor, another process.

A job's runner looks after the folder only once the electron asks for it; an electron that does not loses no time.
Outside of a job the same function runs too: a plain local folder, attempt 1, a host that never goes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from covalent_cirro.contract.protocol import ATTEMPT_VARIABLE, CHECKPOINT_GOING, CHECKPOINT_SOCKET, CHECKPOINT_VARIABLE
from covalent_cirro.errors import CheckpointError

LOCAL_VARIABLE = "CIRRO_CHECKPOINT_FOLDER"
"""Outside of a job, the folder to use and keep; without it each call of `folder` makes a temporary one."""

_SUPERVISOR_S = 30.0
"""The runner opens its socket within a fraction of a second after the electron has begun."""
_READ_BYTES = 64 * 1024

_folders: dict[str, Path] = {}
_watched: set[str] = set()


def folder() -> Path:
    """The electron's folder, with all that the last whole checkpoint holds; empty if there is none.

    The first call fetches the checkpoint from S3 and returns when it is there; further calls, also in subprocesses of
    the electron, return at once. From then on the runner stores what changes: whenever no file has changed for
    2 seconds and none is open for writing, at most every 10 s, until `save` is called for the first time. Files that
    did not change are not sent again. Symbolic links, modes and times are kept.

    Returns:
        An absolute path. Outside of a job: the folder that ``CIRRO_CHECKPOINT_FOLDER`` names; without it a new one
        each time, removed with the process, so that no training finds the state of another.

    Raises:
        CheckpointError: There is a checkpoint, and it could not be fetched. AWS Batch may retry the job; starting over
            in silence would pay twice.
    """
    job = os.environ.get(CHECKPOINT_VARIABLE)
    if job is None:
        return _local_folder()
    if job not in _folders:
        _folders[job] = Path(_ask(job, "folder")["folder"])
    return _folders[job]


def save() -> None:
    """Store the folder as it is now; returns when it is in S3 and is what the next attempt will find.

    From the first call on, nothing else is stored: it is you who say when the files belong together. Do not write into
    the folder until it returns. It takes as long as the files that changed take to S3. Outside of a job: nothing.

    Raises:
        CheckpointError: It could not be stored, with AWS's words; the last whole checkpoint is still there. Or a file
            changed meanwhile.
    """
    job = os.environ.get(CHECKPOINT_VARIABLE)
    if job is not None:
        _ask(job, "save")


def attempt() -> int:
    """The number of the electron's attempt, from 1; 1 outside of a job.

    It counts on where the electron is submitted again: ``AWS_BATCH_JOB_ATTEMPT`` is that of its latest job alone.
    """
    number = os.environ.get(ATTEMPT_VARIABLE, "")
    return int(number) if number.isdigit() and CHECKPOINT_VARIABLE in os.environ else 1


def host_is_going() -> bool:
    """Whether this attempt will be ended soon: store what you have, and go on until it ends.

    True from EC2's Spot notice on, usually two minutes before the host goes and seen within 5 s, and from SIGTERM on
    (time limit, cancel, the host's shutdown): then the electron has 15 s before it gets the signal itself, and 20 s in
    all. It costs a microsecond: ask as often as you like. Always false outside of a job.
    """
    job = os.environ.get(CHECKPOINT_VARIABLE)
    if job is None:
        return False
    if job not in _watched:
        _ask(job, "watch")
        _watched.add(job)
    return os.path.exists(os.path.join(job, CHECKPOINT_GOING))


def _ask(job: str, what: str) -> dict[str, Any]:
    """Have the runner do something; waits until it is done.

    Raises:
        CheckpointError: It could not be done, or the runner is gone.
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
            connection.sendall(what.encode() + b"\n")
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
        path = Path(named).absolute()
        path.mkdir(parents=True, exist_ok=True)
        return path
    import atexit
    import shutil
    import tempfile

    made, owner = tempfile.mkdtemp(prefix="cirro-checkpoint-"), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a forked copy of this process ends too, and the folder is not its own
            shutil.rmtree(made, ignore_errors=True)

    atexit.register(remove)
    return Path(made)
