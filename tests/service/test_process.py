"""The service as a process: it ends as a load balancer and ECS need it, and says why where it cannot serve."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.serving_model import MadeModel, write
from tests.service.conftest import PATIENCE_S, SERVICE, ask, running

BODY = json.dumps({"users": [1, 2, 3], "n": 2}).encode()


def refused(port: int) -> bool:
    """Whether nobody listens any more."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
    except ConnectionError:
        return True
    return False


def test_sigterm_lets_answers_in_flight_finish(folder: Path) -> None:
    """No new connection is taken; a request of which half has come gets its answer; then the process ends with 0."""
    with running(str(folder)) as process:
        process.ready()
        port = process.port
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
            head = f"POST /recommendations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\nExpect: 100-continue"
            connection.sendall(f"{head}\r\nContent-Type: application/json\r\n\r\n".encode())
            # The service asks for the body: from here on the request is in flight.
            assert connection.recv(1000).startswith(b"HTTP/1.1 100")
            connection.sendall(BODY[:10])
            os.kill(process.process.pid, signal.SIGTERM)
            deadline = time.monotonic() + PATIENCE_S
            while not refused(port) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert refused(port)
            assert process.process.poll() is None
            connection.sendall(BODY[10:])
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        head_of_answer, _, body = answer.partition(b"\r\n\r\n")
        assert head_of_answer.startswith(b"HTTP/1.1 200")
        assert [each["user"] for each in json.loads(body)["answers"]] == [1, 2, 3]
        assert process.ended() == 0


def test_sigterm_ends_an_idle_process(folder: Path) -> None:
    """With 0, also where a balancer keeps a connection open."""
    with (
        running(str(folder)) as process,
        socket.create_connection(("127.0.0.1", process.ready().port), timeout=PATIENCE_S) as connection,
    ):
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert process.end() == 0


def test_it_is_alive_before_its_model_is_there(folder: Path, tmp_path: Path) -> None:
    """503 from what needs the model, and `/health` answers."""
    version = tmp_path / folder.name
    version.mkdir()
    for path in folder.iterdir():
        (version / path.name).write_bytes(path.read_bytes())
    # Reading waits until somebody writes: the model takes as long as this test wants.
    (version / "catalogue.json").unlink()
    os.mkfifo(version / "catalogue.json")
    with running(str(version)) as process:
        assert ask(f"{process.url}/health").status == 200
        for path in ("/ready", "/?uid=1", "/users/1/recommendations", "/items/1/similar"):
            answer = ask(process.url + path)
            assert answer.status == 503
            assert answer.json["detail"] == f"the model {folder.name} is still being loaded: try again in a second"
            assert answer.headers["x-model-version"] == folder.name
        (version / "catalogue.json").write_bytes((folder / "catalogue.json").read_bytes())
        process.ready()
        assert ask(f"{process.url}/ready").status == 200
        assert process.end() == 0


def test_a_model_that_is_refused_ends_the_process(model: MadeModel, tmp_path: Path) -> None:
    """With an exit code and a line that says why: ECS then counts a task that failed to start."""
    folder = write(model, tmp_path / "20260101T000000Z-0a1b2c3d")
    (folder / "weights.safetensors").write_bytes(b"weights")
    with running(str(folder)) as process:
        assert process.ended() == 1
        assert any(f"weights.safetensors of the model {folder} has 7 bytes" in line for line in process.log)


@pytest.mark.parametrize(
    ("environment", "said"),
    [({}, "CIRRO_MODEL is not set"), ({"CIRRO_MODEL": "x", "PORT": "http"}, "PORT is 'http'")],
)
def test_a_wrong_environment_is_told(environment: dict[str, str], said: str) -> None:
    """With exit code 2."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("CIRRO_MODEL", "PORT")}
    ran = subprocess.run(
        [sys.executable, "-m", "recommender_service"],
        env={**inherited, "PYTHONPATH": str(SERVICE), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert ran.returncode == 2
    assert said in ran.stderr


def test_the_server_s_process_has_no_aws_client_and_no_torch(folder: Path) -> None:
    """What fetches a model is a process that ends; what answers has the memory of weights and server."""
    script = (
        "import asyncio, sys; from recommender_service import server; from recommender_service.loading import load; "
        f"asyncio.run(load({str(folder)!r})); print([name for name in ('boto3', 'safetensors', 'torch', 'flask') "
        "if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(SERVICE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert ran.stdout.strip() == "[]", ran.stderr
