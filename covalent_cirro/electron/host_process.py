"""Starts the process that runs Covalent's own nodes which need code of users, apart from the server.

The process enters a sandbox by itself (``covalent_cirro.runner.sandbox``). This module gives it an environment and a
home folder of its own: without credentials, without the address of the server, and without files of its user.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import site
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from covalent._shared_files import TaskCancelledError
from covalent._shared_files.config import get_config
from covalent._shared_files.defaults import get_default_executor

from covalent_cirro import local_files
from covalent_cirro.contract.failure_kinds import KINDS, Failure
from covalent_cirro.contract.limits import MAX_DOCUMENT_BYTES
from covalent_cirro.electron.launches import Launch
from covalent_cirro.electron.result_writer import open_untrusted

log = logging.getLogger(__name__)

PROCESSES_AT_ONCE = max(2, os.cpu_count() or 1)
"""Most processes that run at a time: each may import Covalent, which takes a core for a second or two."""

STARTS = 2
"""Most starts of a process: ``covalent stop`` kills the children of the server while the server still runs. A second
process ends with the server, and the next server runs the nodes again."""

FORMAT = 2
"""Format of request and outcome, as in ``covalent_cirro.runner.host``, which documents their members."""

_MODULES = "where modules are"
_LIBRARIES = "where native libraries are"
_TEXTS = "how texts are read and written"
_THREADS = "how many threads: the machine is the server's too"

PASSED_ON: Mapping[str, str] = {
    "PATH": "programs that modules call when they are imported",
    **dict.fromkeys(("PYTHONPATH", "PYTHONHOME"), _MODULES),
    **dict.fromkeys(("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"), _LIBRARIES),
    **dict.fromkeys(("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "PYTHONUTF8", "PYTHONIOENCODING"), _TEXTS),
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), _THREADS),
    "TZ": "local time",
    "USER": "modules that ask for a name of the user (getpass)",
}
"""Environment variables that the process gets from the server, and why. It gets no others."""

_SDK_OPTIONS = ("task_packing", "exhaustive_postprocess")
"""Options of the server's config that the graph of a sublattice depends on (``Lattice.build_graph``)."""

REQUEST = "request.json"

_TAIL_BYTES = 2000

_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
_logged: set[str] = set()


class NodeRun(NamedTuple):
    """A node that ran in the process.

    Attributes:
        node_id: The node.
        failure: Why the node has no output; `None` if it has one.
        elsewhere: The node failed since this host lacks something that a job may have.
        folder: Folder of the node's files.
    """

    node_id: int
    failure: Failure | None
    elsewhere: bool
    folder: str

    def file(self, key: str) -> str:
        """Path of the file ``"output"``, ``"stdout"`` or ``"stderr"``, which untrusted code has written."""
        return os.path.join(self.folder, f"{self.node_id}.{key}")


class BrokenProcess(NamedTuple):
    """A process that left no outcome.

    Attributes:
        code: Exit code; a negative one is the number of the signal that killed the process.
        said: End of the stderr of the process, or what is wrong with its outcome.
    """

    code: int
    said: str


@contextlib.asynccontextmanager
async def run(
    launch: Launch, tasks: Sequence[Mapping[str, Any]], covalent: str, folder: str
) -> AsyncIterator[list[NodeRun] | BrokenProcess]:
    """Run nodes in a process; their files exist until the block ends.

    Args:
        launch: The task group; its cancel ends the process.
        tasks: Tasks for ``covalent_cirro.runner.host``.
        covalent: Version of Covalent.
        folder: Folder in which the process gets a folder of its own.

    Raises:
        TaskCancelledError: The task group was cancelled.
    """
    slots = _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(PROCESSES_AT_ONCE))
    async with slots:
        with local_files.errors_about(folder):
            os.makedirs(folder, exist_ok=True)
        local_files.require_room(folder)
        with tempfile.TemporaryDirectory(prefix="cirro-host-", dir=folder, ignore_cleanup_errors=True) as place:
            request = {"format": FORMAT, "dispatch_id": launch.dispatch_id, "covalent": covalent, "tasks": list(tasks)}
            folder, broken = "", BrokenProcess(0, "")
            for start in range(STARTS):
                # A new folder each time: a process must not read what another one left before it is in its sandbox.
                folder = os.path.join(place, f"work-{start}")
                await asyncio.to_thread(_prepare, place, folder, request)
                broken = await _process(launch, place, folder)
                if launch.cancelled:
                    raise TaskCancelledError(
                        f"Cancelled while it ran on the server's host (dispatch {launch.dispatch_id})"
                    )
                if broken.code != -signal.SIGKILL:
                    break
            yield await asyncio.to_thread(_read, folder, [task["node_id"] for task in tasks], broken)


def _prepare(place: str, folder: str, request: Mapping[str, Any]) -> None:
    config = Path(folder, "home", ".config", "covalent", "covalent.conf")
    config.parent.mkdir(parents=True)
    Path(folder, "tmp").mkdir()
    options = {name: str(get_config(f"sdk.{name}")) for name in _SDK_OPTIONS}
    options["no_cluster"] = "true" if get_default_executor() == "local" else "false"
    # A string of JSON is a string of TOML.
    config.write_text("[sdk]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items()))
    Path(place, REQUEST).write_text(json.dumps({**request, "folder": folder}))


def environment(folder: str, server: Mapping[str, str]) -> dict[str, str]:
    """The environment of the process.

    Args:
        folder: Folder in which the process may write.
        server: Environment of the server.
    """
    found = {name: server[name] for name in PASSED_ON if name in server}
    if site.ENABLE_USER_SITE:
        found["PYTHONUSERBASE"] = site.getuserbase()  # depends on HOME, and this package may be installed there
    return {
        **found,
        "HOME": os.path.join(folder, "home"),
        "TMPDIR": os.path.join(folder, "tmp"),
        # The sandbox blocks the metadata service where the kernel has seccomp. Elsewhere, AWS's clients obey this.
        "AWS_EC2_METADATA_DISABLED": "true",
    }


async def _process(launch: Launch, place: str, folder: str) -> BrokenProcess:
    """Run the process to its end; returns the error for the case that it left no outcome.

    Args:
        launch: The task group.
        place: Folder of the request, in which the process starts. Python imports modules from it, so that the process
            must not be able to write into it.
        folder: Folder in which the process may write.
    """
    # The process ends when the server ends, which closes its end of this pipe: the next server uses the same files.
    ours_ended, parent = os.pipe()
    said = os.path.join(place, "said")
    # A file, not a pipe: the server would have to read a pipe to its end, which untrusted code can delay for ever.
    stderr = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "covalent_cirro.runner.host", os.path.join(place, REQUEST), str(ours_ended)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
            pass_fds=(ours_ended,),
            cwd=place,
            env=environment(folder, os.environ),
        )
    except BaseException:
        os.close(parent)
        raise
    finally:
        os.close(ours_ended)
        os.close(stderr)

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    launch.on_cancel = kill
    try:
        if launch.cancelled:
            kill()
        await process.wait()
    finally:
        launch.on_cancel = None
        kill()  # processes that it started, or all of them if the wait was cancelled
        os.close(parent)
    return BrokenProcess(process.returncode or 0, await asyncio.to_thread(_tail, said))


def _tail(path: str) -> str:
    try:
        with open_untrusted(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read(_TAIL_BYTES).decode(errors="replace").strip()
    except (OSError, ValueError):
        return ""


def _read(folder: str, node_ids: Sequence[int], broken: BrokenProcess) -> list[NodeRun] | BrokenProcess:
    """Read the outcome of the process. Untrusted code ran in it, so that nothing is believed of the outcome's form."""
    try:
        with open_untrusted(os.path.join(folder, "outcome.json")) as file:
            outcome = json.loads(file.read(MAX_DOCUMENT_BYTES))
        found = [
            NodeRun(each["node_id"], _failure(each["failure"]), bool(each["elsewhere"]), folder)
            for each in outcome["results"]
        ]
        if [each.node_id for each in found] != list(node_ids):
            raise ValueError("it is about other nodes")
        _log_missing_protection(outcome["sandbox"])
    except FileNotFoundError:
        return broken
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return broken._replace(said=f"Its outcome cannot be read: {error!r}. {broken.said}")
    return found


def _failure(value: Any) -> Failure | None:
    if value is None:
        return None
    failure = Failure(**value)
    texts = (failure.kind, failure.message, failure.traceback, failure.module, failure.signal)
    if failure.kind not in KINDS or not all(isinstance(each, str) for each in texts):
        raise ValueError("a failure has a wrong form")
    return failure


def _log_missing_protection(shut_in: Mapping[str, bool]) -> None:
    """Log once what the kernel of this host cannot keep from the process."""
    for what in ("files", "network"):
        if shut_in.get(what) is not True and what not in _logged:
            _logged.add(what)
            log.warning(
                "This host's kernel cannot keep the processes that open results from %s (docs/security.md): %s",
                "the server's files" if what == "files" else "the network",
                "Linux 5.13 with Landlock can" if what == "files" else "Linux with seccomp on x86_64 or aarch64 can",
            )
