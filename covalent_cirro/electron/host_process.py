"""Starts the process in which Covalent's own nodes meet other people's code, with as little of the server as it needs.

The process shuts itself in (``covalent_cirro.runner.sandbox``). Here it gets an environment and a home folder of its
own: no credentials, no address of the server, nothing of its user's.
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
from covalent_cirro.contract.protocol import KINDS, MAX_DOCUMENT_BYTES, Failure
from covalent_cirro.electron.launches import Launch
from covalent_cirro.electron.result_writer import open_untrusted

log = logging.getLogger(__name__)

PROCESSES_AT_ONCE = max(2, os.cpu_count() or 1)
"""Host processes that run at a time: each may import Covalent, a second or two of a core."""

STARTS = 2
"""``covalent stop`` kills the server's children while it tells the server: a second process outlives that, and ends
with the server. Its successor goes on."""

FORMAT = 2
"""Of request and outcome: that of ``covalent_cirro.runner.host``, which says what each member means."""

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
"""Variables of the server's environment that the process has too, and why. All others it has not."""

_SDK_OPTIONS = ("task_packing", "exhaustive_postprocess")
"""Of the server's config, what a sublattice is built by (``Lattice.build_graph``)."""

REQUEST = "request.json"

_TAIL_BYTES = 2000

_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
_told_of: set[str] = set()


class NodeRun(NamedTuple):
    """How a node ended in the process.

    Attributes:
        node_id: The node.
        failure: Why it has no output; `None` if it has one.
        elsewhere: It failed for what is not on this host: a job may do it.
        folder: Where its files are.
    """

    node_id: int
    failure: Failure | None
    elsewhere: bool
    folder: str

    def file(self, key: str) -> str:
        """The path of its ``"output"``, ``"stdout"`` or ``"stderr"``; written by code that is not to be trusted."""
        return os.path.join(self.folder, f"{self.node_id}.{key}")


class BrokenProcess(NamedTuple):
    """A process that left no outcome.

    Attributes:
        code: Its exit code; negative: killed by that signal.
        said: The end of its stderr, or what is wrong with the outcome.
    """

    code: int
    said: str


@contextlib.asynccontextmanager
async def run(
    launch: Launch, tasks: Sequence[Mapping[str, Any]], covalent: str, folder: str
) -> AsyncIterator[list[NodeRun] | BrokenProcess]:
    """Run nodes in a process; their files are there until the context ends.

    Args:
        launch: Their launch: its cancel ends the process.
        tasks: As ``covalent_cirro.runner.host`` wants them.
        covalent: Version of Covalent.
        folder: Where the process gets a folder of its own.

    Raises:
        TaskCancelledError: Their end was asked for.
    """
    slots = _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(PROCESSES_AT_ONCE))
    async with slots:
        with local_files.told(folder):
            os.makedirs(folder, exist_ok=True)
        local_files.require_room(folder)
        with tempfile.TemporaryDirectory(prefix="cirro-host-", dir=folder, ignore_cleanup_errors=True) as place:
            request = {"format": FORMAT, "dispatch_id": launch.dispatch_id, "covalent": covalent, "tasks": list(tasks)}
            folder, broken = "", BrokenProcess(0, "")
            for start in range(STARTS):
                # Anew each time: what a process leaves must not meet the next one before that has shut itself in.
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
    # A text in JSON is one in TOML.
    config.write_text("[sdk]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items()))
    Path(place, REQUEST).write_text(json.dumps({**request, "folder": folder}))


def environment(folder: str, server: Mapping[str, str]) -> dict[str, str]:
    """The environment of the process.

    Args:
        folder: Where it may write.
        server: The server's environment.
    """
    found = {name: server[name] for name in PASSED_ON if name in server}
    if site.ENABLE_USER_SITE:
        found["PYTHONUSERBASE"] = site.getuserbase()  # it follows from HOME, and may have this very package
    return {
        **found,
        "HOME": os.path.join(folder, "home"),
        "TMPDIR": os.path.join(folder, "tmp"),
        # There is no way to it (sandbox.py) where the kernel has seccomp. Elsewhere, honest clients heed this.
        "AWS_EC2_METADATA_DISABLED": "true",
    }


async def _process(launch: Launch, place: str, folder: str) -> BrokenProcess:
    """Run the request; returns what is left to say of a process that did not do its work.

    Args:
        launch: Of the nodes.
        place: Has the request. Python imports modules from the folder that it is started in: the process cannot write
            into this one.
        folder: Where the process may write.
    """
    # A server that is killed closes its end: its successor must not find a process at work on the same files.
    ours_ended, parent = os.pipe()
    said = os.path.join(place, "said")
    # Not a pipe: whoever writes into it without end, or keeps it open, would have the server hold it all, or wait.
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
        kill()  # what it left behind, or all of it, if the wait was cancelled
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
    """What the process left. Code that is not to be trusted ran in it: its outcome is read as such."""
    try:
        with open_untrusted(os.path.join(folder, "outcome.json")) as file:
            outcome = json.loads(file.read(MAX_DOCUMENT_BYTES))
        found = [
            NodeRun(each["node_id"], _failure(each["failure"]), bool(each["elsewhere"]), folder)
            for each in outcome["results"]
        ]
        if [each.node_id for each in found] != list(node_ids):
            raise ValueError("it is about other nodes")
        _tell_of(outcome["sandbox"])
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


def _tell_of(shut_in: Mapping[str, bool]) -> None:
    """Say once in the log what the kernel of this host cannot keep the process from."""
    for what in ("files", "network"):
        if shut_in.get(what) is not True and what not in _told_of:
            _told_of.add(what)
            log.warning(
                "This host's kernel cannot keep the processes that open results from %s (docs/security.md): %s",
                "the server's files" if what == "files" else "the network",
                "Linux 5.13 with Landlock can" if what == "files" else "Linux with seccomp on x86_64 or aarch64 can",
            )
