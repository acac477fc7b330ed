"""A Covalent server with its own config, data, logs and port: the config file it needs, and the process that serves it.

It knows the files, environment variables and web application of Covalent 0.240. It must not know AWS.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from covalent_cirro import private

ADDRESS = "127.0.0.1"
"""The server of the local stack listens at this address only: who can call it can run code."""

CLOSED_PORT = 1
"""The port in the config of a local stack without a server: no user but root can listen there."""


def url_of(port: int) -> str:
    """URL of a server on this port, without a slash at the end."""
    return f"http://{ADDRESS}:{port}"


def answers(port: int) -> bool | None:
    """`True` where a server answers on this port, also with an error; `None` where none does yet."""
    try:
        with urllib.request.urlopen(f"{url_of(port)}/api/v1/dispatches/list?count=1", timeout=10):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return None


def config_file(folder: Path) -> Path:
    """The config file of the server that keeps its files in this folder."""
    return folder / "covalent.conf"


def write_config(
    folder: Path,
    *,
    port: int,
    executors: Mapping[str, Mapping[str, Any]],
    further: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Path:
    """Write the ``covalent.conf`` of a server that keeps all its files in one folder.

    Every path that Covalent would put under the home folder is set, so that neither the server nor a client with this
    config touches another Covalent of the same user. The default executor is ``local``: there is no Dask cluster.

    Args:
        folder: The folder; ``COVALENT_CONFIG_DIR`` of the server and of its clients.
        port: TCP port of the server.
        executors: Sections ``[executors.<name>]``. A value that is `None` is left out.
        further: Other sections by their whole names.

    Returns:
        The file.
    """
    cache, logs, data = folder / "cache", folder / "logs", folder / "data"
    for each in (cache / "workdir", logs, data, folder / "executor_plugins"):
        private.folder(each)
    path = config_file(folder)
    process_executor = {"cache_dir": str(cache), "workdir": str(cache / "workdir")}
    sections: dict[str, Mapping[str, Any]] = {
        "sdk": {
            "config_file": str(path),
            "log_dir": str(logs),
            "executor_dir": str(folder / "executor_plugins"),
            "no_cluster": "true",
            "dispatch_cache_dir": str(cache / "dispatches"),
            "results_dir": str(cache / "results"),
        },
        "dispatcher": {
            "address": ADDRESS,
            "port": port,
            "cache_dir": str(cache),
            "results_dir": str(data),
            "log_dir": str(logs),
            "db_path": str(folder / "dispatcher_db.sqlite"),
            "heartbeat_file": str(cache / "heartbeat"),
        },
        "dask": {"cache_dir": str(cache), "log_dir": str(logs)},
        "workflow_data": {"base_dir": str(folder / "workflow_data")},
        "user_interface": {"address": ADDRESS, "port": port, "log_dir": str(logs)},
        "executors.local": process_executor,
        "executors.dask": process_executor,
        **{f"executors.{name}": settings for name, settings in executors.items()},
        **further,
    }
    private.write(path, "\n".join(_section(name, values) for name, values in sections.items()))
    return path


def client_environment(folder: Path) -> dict[str, str]:
    """The environment variables with which ``import covalent`` finds this server, and no other."""
    return {"COVALENT_CONFIG_DIR": str(folder), "COVALENT_DISABLE_DASK": "1"}


def server_environment(folder: Path) -> dict[str, str]:
    """The environment variables of the server's own process.

    Counters of running dispatches are kept in this folder, not in a temporary file that is lost with the server:
    dispatches can then go on after a crash (``covalent_dispatcher/_core/dispatcher_modules/caches.py``).
    """
    return {
        **client_environment(folder),
        "COVALENT_CACHE_DB_URL": f"sqlite+pysqlite:///{folder / 'run_state.sqlite'}",
        "PYTHONUNBUFFERED": "1",
    }


def main(port: int) -> None:
    """Migrate the database and serve until SIGTERM: what ``covalent start`` does, in this process.

    ``COVALENT_CONFIG_DIR`` has to be set. Triggers and the Dask cluster are off. Only this user's programs and the
    server's own pages are answered (`server_guard`).
    """
    import covalent_ui
    from covalent_dispatcher._db.datastore import DataStore

    from covalent_cirro.covalent_server import database_locks
    from covalent_cirro.electron.resume import server_life
    from covalent_cirro.local.server_guard import Guard

    _end_forks_with_this_process()
    database_locks.wait_everywhere()
    DataStore.factory().run_migrations(logging_enabled=False)
    server_life.install()
    from covalent_ui.api.main import app

    app.add_middleware(Guard)  # the one that was added last gets requests first
    # By default uvicorn believes what clients on the loopback say about their address (X-Forwarded-For).
    os.environ["FORWARDED_ALLOW_IPS"] = ""
    # Covalent's app.py finds its web pages, and uvicorn finds app.py, in the working folder.
    web = Path(next(iter(covalent_ui.__path__)))
    os.chdir(web)
    sys.path.insert(0, str(web))
    sys.argv = ["app.py", "--port", str(port), "--no-cluster", "--no-triggers"]
    runpy.run_path("app.py", run_name="__main__")


def _end_forks_with_this_process() -> None:
    """End every process that is forked from this one when this one ends, however it ends.

    Covalent's own local executor forks a pool of processes. They have the server's socket too: left over, they would
    hold its port, and take connections that nobody answers.
    """
    # This process alone has the pipe's writing end. When the kernel closes that end, reading gives b"" in every fork.
    reading, writing = os.pipe()
    has_writing_end = True

    def in_fork() -> None:
        nonlocal has_writing_end
        if has_writing_end:  # a fork of a fork has none
            os.close(writing)
            has_writing_end = False
        threading.Thread(target=end, name="cirro-end-with-server", daemon=True).start()

    def end() -> None:
        if not os.read(reading, 1):
            os.kill(os.getpid(), signal.SIGKILL)

    os.register_at_fork(after_in_child=in_fork)


def _section(name: str, values: Mapping[str, Any]) -> str:
    # A JSON string, whole number, number or boolean is the same in TOML.
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    return "\n".join([f"[{name}]", *lines, ""])


if __name__ == "__main__":
    main(int(sys.argv[1]))
