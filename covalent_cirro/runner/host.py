"""Runs Covalent's own nodes on the server's host: ``python -m covalent_cirro.runner.host request.json [fd]``.

With a second argument, the number of a pipe, it ends with all that it started when the pipe's other end is closed.

The same rules as in the container (`tasks.py`), but everything is a local file of Covalent's; no S3, no supervision.

The request::

    {"format": 1, "dispatch_id": "...", "covalent": "0.240.0", "outcome": "/path/outcome.json",
     "tasks": [{"node_id": 3, "name": ":electron_list:",
                "function": "/path/function.tobj", "hooks": "/path/hooks.json" or null,
                "args": [{"tobj": "/path/results.tobj"}, {"node": 2}], "kwargs": {"key": {"tobj": "..."}},
                "output": "/path/results.tobj", "stdout": "/path/stdout.log", "stderr": "/path/stderr.log",
                "error": "/path/error.log"}]}

``{"node": 2}`` is the output of an earlier task of the request. Every path to write must be in a folder that exists.
The outcome, written last and whole (by rename)::

    {"format": 1, "results": [{"node_id": 3, "output": {"size": 120, "sha1": "..."} or null,
                               "failure": `protocol.Failure` as an object, or null}]}

``size`` and ``sha1`` are of the ``.tobj`` file. ``error.log`` gets the traceback, or the message where there is none,
and is emptied on success. Tasks after a failed one are not run (`Kind.NOT_RUN`).

The exit code is 0 once the outcome is written, whatever it says; without an outcome the process was killed, or ended by
itself, or the request is not one (exit code 64, reason on stderr).
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import types
from typing import Any, BinaryIO, cast

import cloudpickle

from covalent_cirro import protocol, tobj
from covalent_cirro.protocol import Failure, Kind
from covalent_cirro.runner import tasks
from covalent_cirro.runner.results import Packed

FORMAT = 1
"""Version of the request and of its outcome."""

_CHUNK = 1024 * 1024


def main(argv: list[str]) -> int:
    """Carry out the request in the file ``argv[1]``; returns the exit code."""
    try:
        path, *parent = argv[1:]
        for number in parent:
            threading.Thread(target=_end_with, args=(int(number),), daemon=True).start()
        with open(path, "rb") as file:
            request = json.load(file)
        if request["format"] != FORMAT:
            raise ValueError(f"it has format {request['format']!r}, this version understands {FORMAT}")
        outcome = request["outcome"]
        todo = request["tasks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"covalent_cirro.runner.host: the request cannot be read: {error!r}\n")
        return protocol.ExitCode.BAD_CALL
    # A job never has it either: with it, Covalent would ask a server to build a sublattice (runner/child.py).
    os.environ.pop("COVALENT_DISPATCH_ID", None)
    sys.modules["__main__"] = types.ModuleType("__main__")
    results: list[dict[str, Any]] = []
    outputs: dict[int, str] = {}
    failed = False
    with tempfile.TemporaryDirectory(prefix=".cirro-", dir=os.path.dirname(outcome)) as folder:
        for task in todo:
            ended: dict[str, Any] | Failure
            if failed:
                ended = Failure(Kind.NOT_RUN, "an earlier node of the same task group failed")
                _write(task["error"], ended.message)
            else:
                ended = _run(request, task, outputs, folder)
            failed = failed or isinstance(ended, Failure)
            results.append(
                {
                    "node_id": task["node_id"],
                    "output": None if isinstance(ended, Failure) else ended,
                    "failure": ended._asdict() if isinstance(ended, Failure) else None,
                }
            )
            outputs[task["node_id"]] = task["output"]
    _write(outcome, json.dumps({"format": FORMAT, "results": results}))
    return 0


def _end_with(parent: int) -> None:
    """End this process group once nobody holds the other end of a pipe."""
    os.set_inheritable(parent, False)
    while os.read(parent, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _run(
    request: dict[str, Any], task: dict[str, Any], outputs: dict[int, str], folder: str
) -> dict[str, Any] | Failure:
    def opener(ref: dict[str, Any]) -> tasks.Open:
        path = ref["tobj"] if "tobj" in ref else outputs[ref["node"]]
        return lambda: open_pickle(path)

    hooks = task["hooks"]
    job = tasks.Job(
        dispatch_id=request["dispatch_id"],
        node_id=task["node_id"],
        name=task["name"],
        covalent=request["covalent"],
        function=opener({"tobj": task["function"]}),
        hooks=None if hooks is None else lambda: open(hooks, "rb"),  # noqa: SIM115  (whoever calls it closes)
        args=[opener(ref) for ref in task["args"]],
        kwargs={key: opener(ref) for key, ref in task["kwargs"].items()},
    )
    with _Redirected(task["stdout"], task["stderr"]):
        ended = tasks.run(job, folder, started=lambda: None)
    if isinstance(ended, Failure):
        _write(task["error"], ended.traceback or ended.message)
        return ended
    _write(task["error"], "")
    return _write_tobj(ended, task["output"])


def open_pickle(path: str) -> BinaryIO:
    """Open the pickle in a ``.tobj`` file for reading, decoded in a stream."""
    return cast(BinaryIO, io.BufferedReader(_PickleOf(path), _CHUNK))


class _PickleOf(io.RawIOBase):
    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")  # noqa: SIM115  (closed by close)
        self._chunks = tobj.iter_pickle(self._file, tobj.read_header(self._file))
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _Redirected:
    """Sends the process's stdout and stderr to files meanwhile: Python's, native code's and subprocesses'."""

    def __init__(self, stdout: str, stderr: str) -> None:
        self._paths = {1: stdout, 2: stderr}
        self._kept: dict[int, int] = {}

    def __enter__(self) -> None:
        self._flush()
        for target, path in self._paths.items():
            self._kept[target] = os.dup(target)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(fd, target)
            os.close(fd)

    def __exit__(self, *_: object) -> None:
        self._flush()
        for target, fd in self._kept.items():
            os.dup2(fd, target)
            os.close(fd)

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()


def _write_tobj(packed: Packed, path: str) -> dict[str, Any]:
    """Write the result as Covalent would; returns size and SHA-1 of the file, which Covalent's database wants."""
    import hashlib

    version = ".".join(str(part) for part in sys.version_info[:3])
    fields = tobj.header_fields(packed.name, packed.doc, version, cloudpickle.__version__)
    beside = f"{path}.{os.getpid()}.tmp"
    with open(beside, "wb") as file, open(packed.string, "rb") as string, open(packed.pickle, "rb") as pickle:
        tobj.write_head(file, fields, os.path.getsize(packed.string))
        shutil.copyfileobj(string, file, _CHUNK)
        writer = tobj.PickleWriter(file)
        shutil.copyfileobj(pickle, writer, _CHUNK)
        writer.close()
    digest = hashlib.sha1(usedforsecurity=False)
    with open(beside, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    size = os.path.getsize(beside)
    os.replace(beside, path)
    for used in (packed.pickle, packed.string):
        os.unlink(used)
    return {"size": size, "sha1": digest.hexdigest()}


def _write(path: str, text: str) -> None:
    beside = f"{path}.{os.getpid()}.tmp"
    with open(beside, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    os.replace(beside, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
