"""The recommender's service: its modules, models for it, and one running process for all tests that only ask it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks.serving_model import MadeModel, made, write

SERVICE = Path(__file__).parents[2] / "examples" / "recommender" / "service"
sys.path.insert(0, str(SERVICE))
PATIENCE_S = 120
"""Much longer than any step takes on a busy machine."""


class Reply(NamedTuple):
    """An answer over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


def ask(url: str, body: Any = None) -> Reply:
    """GET, or POST with a body as JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"} if data else {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
            return Reply(reply.status, dict(reply.headers), reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, dict(error.headers), error.read())


class Process:
    """The service as a process of its own."""

    def __init__(self, model: str, **environment: str) -> None:
        """Start it on a free port."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "recommender_service"],
            env={
                **inherited,
                "PYTHONPATH": str(SERVICE),
                "PYTHONOPTIMIZE": "2",  # as in the image
                "CIRRO_MODEL": model,
                "PORT": "0",
                **environment,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.log.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def logged(self, pattern: str) -> re.Match[str]:
        """Wait for a line of the log; it fails if the process ends without one."""

        def found() -> re.Match[str] | None:
            return next((match for line in self.log if (match := re.search(pattern, line))), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, PATIENCE_S)
            match = found()
        assert match is not None, f"no {pattern!r} in the log:\n{''.join(self.log)}"
        return match

    @property
    def port(self) -> int:
        """Its port, once it listens."""
        return int(self.logged(r"running on http://127\.0\.0\.1:(\d+)")[1])

    @property
    def url(self) -> str:
        """Its address, once it listens."""
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> Process:
        """Wait until the model is loaded."""
        self.logged("Serving ")
        return self

    def end(self) -> int:
        """SIGTERM, unless it has ended; returns its exit code."""
        self.process.terminate()
        return self.ended()

    def ended(self) -> int:
        """Wait for its end; returns its exit code."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@contextlib.contextmanager
def running(model: str, **environment: str) -> Iterator[Process]:
    """A process of the service, which ends with the block."""
    process = Process(model, **environment)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.process.kill()
        process.ended()


@pytest.fixture(scope="session")
def model() -> MadeModel:
    """A small model."""
    return made(users=30, items=40, k=5, ratings=300)


@pytest.fixture(scope="session")
def folder(model: MadeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model as it is registered."""
    return write(model, tmp_path_factory.mktemp("models") / "20260101T000000Z-0a1b2c3d")


@pytest.fixture(scope="session")
def service(folder: Path) -> Iterator[Process]:
    """A process that serves the small model."""
    with running(str(folder)) as process:
        yield process.ready()
