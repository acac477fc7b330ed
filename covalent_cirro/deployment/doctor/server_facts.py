"""Facts about the Covalent server that a client on this machine would use, without importing Covalent.

The address is in Covalent's config. The server is asked by HTTP; its process is read if it belongs to this user.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from covalent_cirro.covalent_server import config
from covalent_cirro.deployment.doctor.verdicts.server import AWS_VARIABLES, InstalledVersions, Server

if TYPE_CHECKING:
    import psutil

DEFAULT_ADDRESS, DEFAULT_PORT = "localhost", 48008
"""Defaults of Covalent 0.240 (``covalent/_shared_files/defaults.py``)."""

ANSWER_S = 5.0
"""Seconds that the server may take for an answer."""

PYTHON_S = 20.0
"""Seconds that another interpreter may take to print its versions."""

ASK = """
import importlib.metadata as m, json, os, sys
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return None
points = m.entry_points()
group = "covalent.executor.executor_plugins"
points = points.select(group=group) if hasattr(points, "select") else points.get(group, [])
at = None
try: at = os.stat(str(m.distribution("covalent-cirro")._path)).st_ctime
except (m.PackageNotFoundError, AttributeError, OSError): pass
print(json.dumps({"python": "%d.%d.%d" % sys.version_info[:3], "covalent": version("covalent"),
    "cirro": version("covalent-cirro"), "cloudpickle": version("cloudpickle"),
    "plugin": any(p.name == "cirro" for p in points), "installed_at": at}))
"""
"""Program by which an interpreter prints its `InstalledVersions`. It imports none of the packages."""


def here() -> InstalledVersions:
    """Versions installed for this interpreter."""
    return _versions(sys.executable, os.environ) or InstalledVersions(
        ".".join(map(str, sys.version_info[:3])), None, None, None, plugin=False, installed_at=None
    )


def server() -> Server:
    """The Covalent server in Covalent's config, with facts about its process if it can be found."""
    dispatcher = config.read().get("dispatcher", {})
    address, port = str(dispatcher.get("address", DEFAULT_ADDRESS)), int(dispatcher.get("port", DEFAULT_PORT))
    url = f"http://{address}:{port}"
    error = _why_silent(url)
    if error is not None:
        return Server(url, answers=False, error=error)
    if not _is_local(address):
        return Server(url, answers=True, local=False)
    process = _listening(port)
    if process is None:
        return Server(url, answers=True)
    import psutil

    try:
        environment = process.environ()
        python = _interpreter(process)
        return Server(
            url,
            answers=True,
            started=process.create_time(),
            python=python,
            versions=_versions(python, environment),
            config=str(config.config_path(environment)),
            environment={name: environment[name] for name in AWS_VARIABLES if name in environment},
        )
    except psutil.Error:  # the process has just ended, or belongs to another user
        return Server(url, answers=True)


def _why_silent(url: str) -> str | None:
    try:
        with urllib.request.urlopen(f"{url}/api/v1/dispatches/list?count=1", timeout=ANSWER_S) as answer:  # noqa: S310
            json.load(answer)
    except urllib.error.HTTPError as error:
        return f"something else answers there: HTTP {error.code}"
    except ValueError:
        return "something else answers there"
    except urllib.error.URLError as error:
        return str(error.reason)
    except OSError as error:
        return str(error)
    return None


def _is_local(address: str) -> bool:
    try:
        return socket.gethostbyname(address).startswith("127.") or address in ("0.0.0.0", socket.gethostname())  # noqa: S104
    except OSError:
        return False


def _listening(port: int) -> psutil.Process | None:
    """This user's process that listens on a port. A server's pid file, if there is one, has the pid of a shell."""
    import psutil

    me = os.getuid()
    for process in psutil.process_iter(["uids"]):
        try:
            if process.info["uids"] is None or process.info["uids"].real != me:
                continue
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return process
        except psutil.Error:
            continue
    return None


def _interpreter(process: psutil.Process) -> str:
    """The interpreter as it was called: with links resolved, it would not find its virtual environment."""
    called = Path(process.cmdline()[0])
    if not called.is_absolute():
        called = Path(process.cwd()) / called
    return str(called) if called.exists() else process.exe()


def _versions(python: str, environment: Mapping[str, str]) -> InstalledVersions | None:
    kept = {name: environment[name] for name in ("PATH", "PYTHONPATH", "PYTHONHOME", "HOME") if name in environment}
    try:
        done = subprocess.run(
            [python, "-c", ASK],
            env=kept,
            cwd=os.sep,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PYTHON_S,
            check=True,
        )
        told: dict[str, Any] = json.loads(done.stdout.decode().strip().splitlines()[-1])
        return InstalledVersions(**told)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, TypeError):
        return None
