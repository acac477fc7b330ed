"""Runs Covalent's own nodes on the server's host: ``python -m covalent_cirro.runner.host request.json [fd]``.

With a second argument, the number of a pipe, the process ends, with all that it started, when the pipe's other end is
closed.

The rules of a task are those of the container (`tasks.py`), but the process is in a sandbox (`sandbox.py`) and works on
local files: it reads the files that the request names, and writes in one folder. Hooks are not run: they are for jobs.

The request::

    {"format": 2, "dispatch_id": "...", "covalent": "0.240.0", "folder": "/path",
     "tasks": [{"node_id": 3, "name": ":make.__getattr__", "function": "/path/function.tobj", "hands_on": false,
                "args": [{"tobj": "/path/results.tobj"}, {"node": 2}], "kwargs": {"key": {"tobj": "..."}}}]}

``{"node": 2}`` is the output of an earlier task of the request, ``{"pickle": path}`` a pickle that is the whole file.
``hands_on``: an object that cannot be unpickled here may be passed on unopened (`placeholders.py`), and handles of
stored values stay handles; with ``"keeps_handles": true`` only the latter. In the folder, which exists, each task
writes ``<node_id>.stdout``, ``.stderr`` and, if it succeeds, ``.output``, a ``.tobj`` file. ``outcome.json`` is written
last, in one step (rename)::

    {"format": 2, "sandbox": {"files": true, "network": true},
     "results": [{"node_id": 3, "failure": `failure_kinds.Failure` as an object, or null, "elsewhere": false}]}

``elsewhere``: it failed because a module or memory is missing here; a job with the electron's packages may succeed.
Tasks after a failed one are not run (`Kind.NOT_RUN`).

The exit code is 0 if the outcome was written, whatever it says. Without an outcome the process was killed or ended by
itself, or the request was malformed (exit code 64, reason on stderr).
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import signal
import sys
import tempfile
import threading
import types
from typing import Any, BinaryIO, NamedTuple, cast

import cloudpickle

from covalent_cirro.contract import nested, protocol, tobj
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.nested import PickledPart
from covalent_cirro.runner import placeholders, sandbox, tasks
from covalent_cirro.runner.results import Packed

FORMAT = 2
"""Version of the request and of its outcome."""

OUTCOME = "outcome.json"

_CHUNK = 1024 * 1024

_OUT_OF_MEMORY = re.compile(r"(\S+\.)?\w*MemoryError\b")
"""Beginnings of the messages of `MemoryError` and of NumPy's subclass of it."""

_DAMAGE = (tobj.TobjError, pickle.UnpicklingError, EOFError)
"""Exceptions for bytes that are damaged: no module could unpickle them."""


def main(argv: list[str]) -> int:
    """Run the tasks of the request in the file ``argv[1]``. Returns the exit code."""
    try:
        path, *parent = argv[1:]
        with open(path, "rb") as file:
            request = json.load(file)
        if request["format"] != FORMAT:
            raise ValueError(f"it has format {request['format']!r}, this version understands {FORMAT}")
        folder, todo = request["folder"], request["tasks"]
        shut_in = sandbox.enter(_files(todo), [folder])
        os.chdir(folder)
        for number in parent:
            threading.Thread(target=_end_with, args=(int(number),), daemon=True).start()
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"covalent_cirro.runner.host: the request cannot be read: {error!r}\n")
        return protocol.ExitCode.BAD_CALL
    sys.modules["__main__"] = types.ModuleType("__main__")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for task in todo:
            if any(result["failure"] for result in results):
                ended = _Ended(Failure(Kind.NOT_RUN, "an earlier node of the same task group failed"))
            else:
                ended = _run(request, task, scratch)
            failure = ended.failure._asdict() if ended.failure else None
            results.append({"node_id": task["node_id"], "failure": failure, "elsewhere": ended.elsewhere})
    _write(os.path.join(folder, OUTCOME), json.dumps({"format": FORMAT, "sandbox": shut_in, "results": results}))
    return 0


def _files(todo: list[dict[str, Any]]) -> list[str]:
    """Paths of the files that the tasks read."""
    refs = [ref for task in todo for ref in (*task["args"], *task["kwargs"].values())]
    return [task["function"] for task in todo] + [ref[key] for ref in refs for key in ("tobj", "pickle") if key in ref]


def _end_with(parent: int) -> None:
    """Kill this process group when the other end of a pipe is closed."""
    os.set_inheritable(parent, False)
    while os.read(parent, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


class _Ended(NamedTuple):
    """How a task ended: its failure, and whether a job may succeed instead."""

    failure: Failure | None
    elsewhere: bool = False


def _run(request: dict[str, Any], task: dict[str, Any], scratch: str) -> _Ended:
    folder = request["folder"]

    def named(key: str, node_id: int) -> str:
        return os.path.join(folder, f"{node_id}.{key}")

    def opener(ref: dict[str, Any]) -> tasks.Open:
        if "pickle" in ref:
            return lambda: open(ref["pickle"], "rb")
        path = ref["tobj"] if "tobj" in ref else named("output", ref["node"])
        return lambda: tobj.pickle_file(open(path, "rb"))

    job = tasks.Job(
        dispatch_id=request["dispatch_id"],
        node_id=task["node_id"],
        name=task["name"],
        covalent=request["covalent"],
        function=opener({"tobj": task["function"]}),
        hooks=None,
        args=[opener(ref) for ref in task["args"]],
        kwargs={key: opener(ref) for key, ref in task["kwargs"].items()},
    )
    # The process has no network. A node that hands on keeps handles of stored values; another one runs as a job.
    keeps = task["hands_on"] or task.get("keeps_handles", False)
    os.environ[protocol.STORED_VARIABLE] = protocol.STORED_KEPT if keeps else protocol.STORED_REFUSED
    if task["hands_on"]:
        cloudpickle.loads = placeholders.loads  # Covalent unpickles the code of a lattice with it
    reading = _Reading(task["name"], task["hands_on"])
    with _Redirected(named("stdout", task["node_id"]), named("stderr", task["node_id"])):
        ended = tasks.run(job, scratch, started=lambda: None, unpickle=reading)
    if isinstance(ended, Failure):
        missing = ended.kind == Kind.MISSING_MODULE or _OUT_OF_MEMORY.match(ended.message) is not None
        return _Ended(ended, missing or reading.not_here)
    _write_tobj(ended, named("output", task["node_id"]))
    return _Ended(None)


class _Reading:
    """Unpickles the function and the arguments of a node.

    Attributes:
        not_here: One of them is undamaged, but cannot be unpickled on this host.
    """

    def __init__(self, name: str, hands_on: bool) -> None:
        self.not_here = False
        self._name = name
        self._hands_on = hands_on

    def __call__(self, source: tasks.Open) -> Any:
        with source() as file:
            value = nested.read(file)
            if value is None:
                value = PickledPart("", 0, file.seek(0, os.SEEK_END))
            return nested.load(value, lambda part: self._part(source, file, part))

    def _part(self, source: tasks.Open, file: BinaryIO, part: PickledPart) -> Any:
        try:
            return tasks.load_part(file, part)
        except _DAMAGE:
            raise
        except Exception as error:
            if not self._hands_on:
                self.not_here = True
                raise
            why = error
        try:
            return placeholders.load(cast(BinaryIO, io.BufferedReader(nested.PartFile(file, part))))
        except Exception:  # the function that makes the object is missing, not only a name
            return placeholders.Result(f"a result that {self._name!r} is given", why, lambda: _bytes(source, part))


def _bytes(source: tasks.Open, part: PickledPart) -> bytes:
    with source() as file:
        file.seek(part.offset)
        return file.read(part.size)


class _Redirected:
    """Redirects stdout and stderr of Python, native code and subprocesses to files for a block."""

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


def _write_tobj(packed: Packed, path: str) -> None:
    """Write the result as Covalent would."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    fields = tobj.header_fields(packed.name, packed.doc, version, cloudpickle.__version__)
    with open(path, "wb") as file, open(packed.string, "rb") as string, open(packed.pickle, "rb") as whole:
        tobj.write_head(file, fields, os.path.getsize(packed.string))
        shutil.copyfileobj(string, file, _CHUNK)
        writer = tobj.PickleWriter(file)
        shutil.copyfileobj(whole, writer, _CHUNK)
        writer.close()
    for used in (packed.pickle, packed.string):
        os.unlink(used)


def _write(path: str, text: str) -> None:
    beside = f"{path}.tmp"
    with open(beside, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    os.replace(beside, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
