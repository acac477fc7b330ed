"""The electron's process: reads requests from a pipe, runs the tasks, and replies with their results.

It never calls S3: its inputs are local files or inline, and its results go to local files. `tasks.py` has the rules of
running a task.

A request is ``{"dispatch_id", "covalent", "folder", "checkpoint", "attempt", "packages": [{"name", "archive": REF}],
"task": {"node_id", "name", "function": REF, "hooks": REF or null, "args": [REF], "kwargs": {name: REF}}}`` with REF
``{"path"}`` or ``{"inline": base64}``; the task of a mapped electron has ``"mapped"``, too (`MappedJob.request`).
Replies are ``{"event": "hello" | "started" | "done", ...}``.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from covalent_cirro.contract import packed_variables
from covalent_cirro.contract.failure_kinds import Failure
from covalent_cirro.contract.protocol import ATTEMPT_VARIABLE, CHECKPOINT_VARIABLE, STORED_VARIABLE
from covalent_cirro.runner import shown_texts

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def serve(parent: int, requests: int, replies: int) -> int:
    """Run tasks until the pipe of requests is closed. Returns the exit code of the process."""
    flush_c = _prepare_process(parent)
    _take_variables()

    def reply(**message: Any) -> None:
        data = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        while data:
            data = data[os.write(replies, data) :]

    try:
        import cloudpickle
    except ImportError as error:
        reply(event="hello", cloudpickle="", error=str(error))
        return 1
    reply(event="hello", cloudpickle=cloudpickle.__version__)

    from covalent_cirro.runner import package_path, tasks
    from covalent_cirro.runner.results import Packed

    me, folder, streams = os.getpid(), os.getcwd(), (os.dup(1), os.dup(2))
    for request in _read_lines(requests):
        _restore_surroundings(folder, streams)
        os.environ[CHECKPOINT_VARIABLE] = request["checkpoint"]
        os.environ[ATTEMPT_VARIABLE] = str(request["attempt"])
        os.environ[STORED_VARIABLE] = request["folder"]
        task = request["task"]
        failure = package_path.install(
            [(package["name"], _opener(package["archive"])) for package in request["packages"]],
            os.path.join(request["folder"], "packages"),
        )
        job = tasks.Job(
            dispatch_id=request["dispatch_id"],
            node_id=task["node_id"],
            name=task["name"],
            covalent=request["covalent"],
            function=_opener(task["function"]),
            hooks=None if task["hooks"] is None else _opener(task["hooks"]),
            args=[_opener(ref) for ref in task["args"]],
            kwargs={key: _opener(ref) for key, ref in task["kwargs"].items()},
        )

        def started() -> None:
            reply(event="started", time=time.time())

        result: Packed | Failure | None
        if failure is not None:
            result = failure
        elif "mapped" in task:
            from covalent_cirro.runner import item_function, items

            share = item_function.Share(
                name=job.name,
                covalent=job.covalent,
                folder=request["folder"],
                control=request["checkpoint"],
                **task["mapped"],
            )
            result = tasks.run_mapped(job, request["folder"], started, functools.partial(items.compute_all, share))
        else:
            result = tasks.run(job, request["folder"], started)
        if os.getpid() != me:
            # The electron forked, and its copy returned here too: only one process may reply.
            os._exit(0)
        _flush_streams(flush_c)
        kind = "failure" if isinstance(result, Failure) else "output"
        reply(event="done", time=time.time(), **{kind: {} if result is None else result._asdict()})
    return 0


def _prepare_process(parent: int) -> Callable[[], object]:
    """Set up signals, streams and environment. Returns a function that flushes the streams of the C library."""
    import faulthandler
    import types

    # A fresh main module: the electron must not find the runner's own, and spawned workers must not import it.
    sys.modules["__main__"] = types.ModuleType("__main__")
    # Covalent takes this variable for "inside a dispatch" and would call its server, which a job cannot reach.
    os.environ.pop("COVALENT_DISPATCH_ID", None)
    # New objects: those of the interpreter's start may be buffered as for a file, not as for a pipe.
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = open(fd, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    # After a segfault, stderr has the Python stack.
    faulthandler.enable()
    try:
        import ctypes

        libc = ctypes.CDLL(None)
        if sys.platform == "linux":
            import signal

            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
    except (ImportError, OSError, AttributeError):
        return lambda: None
    return lambda: libc.fflush(None)


def _take_variables() -> None:
    """Set the variables and secrets of the electron, before anything of it is imported."""
    shown_texts.hide(packed_variables.unpack(os.environ))
    if "TZ" in os.environ:
        time.tzset()


def _restore_surroundings(folder: str, streams: tuple[int, int]) -> None:
    """Restore the working folder and the streams, which an earlier electron of the call may have changed."""
    os.chdir(folder)
    os.dup2(streams[0], 1)
    os.dup2(streams[1], 2)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


def _flush_streams(flush_c: Callable[[], object]) -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        # The electron replaced the stream with an object of its own, which need not work.
        with contextlib.suppress(Exception):
            stream.flush()  # type: ignore[union-attr]
    flush_c()


def _read_lines(fd: int) -> Iterator[dict[str, Any]]:
    with os.fdopen(fd, "rb", closefd=True) as file:
        for line in file:
            yield json.loads(line)


def _opener(ref: dict[str, Any]) -> Callable[[], Any]:
    """A function that opens the bytes of a reference as a binary file."""
    if "path" in ref:
        path = ref["path"]
        return lambda: open(path, "rb")
    import io

    data = base64.b64decode(ref["inline"])
    return lambda: io.BytesIO(data)
