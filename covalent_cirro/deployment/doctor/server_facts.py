"""What can be learnt of the Covalent server that a client here would use, without importing Covalent.

Knows its address from Covalent's config, asks it over HTTP, and looks at its process where that is ours to look at.
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
from typing import Any

import psutil

from covalent_cirro.covalent_server import config
from covalent_cirro.deployment.doctor.verdicts.server import AWS_VARIABLES, InstalledVersions, Server

DEFAULT_ADDRESS, DEFAULT_PORT = "localhost", 48008
"""Covalent 0.240's (``covalent/_shared_files/defaults.py``)."""

ANSWER_S = 5.0
"""Seconds that a server of this machine or of this network may take for one line."""

PYTHON_S = 20.0
"""Seconds that another interpreter may take to tell what it has installed."""

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
"""Asks an interpreter for its `InstalledVersions`. Imports nothing of what it asks for."""


def here() -> InstalledVersions:
    """What this interpreter has."""
    return _versions(sys.executable, os.environ) or InstalledVersions(
        ".".join(map(str, sys.version_info[:3])), None, None, None, plugin=False, installed_at=None
    )


def server() -> Server:
    """The Covalent server of Covalent's config, and its process where it can be found."""
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
    except psutil.Error:  # it ended just now, or is somebody else's
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
    """This user's process that listens on a port. The server's pid file names a shell, and not every server has one."""
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
    """The interpreter as it was called: the file it leads to would lose the virtual environment."""
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
