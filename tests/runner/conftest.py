"""An S3 on the loopback, a proxy in front of it that counts and breaks things, and the real runner as a subprocess."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import cloudpickle
import pytest
from moto.server import ThreadedMotoServer

from covalent_cirro.contract import documents, failure_kinds, places, protocol, references
from covalent_cirro.contract.protocol import Call, Outcome, Package, Task
from covalent_cirro.contract.references import Inline, Input

BUCKET = "runner-tests"
MAC_KEY = "0123456789abcdef" * 2
"""The job's, with which its outcomes are authenticated."""
BLOCKED = ("covalent", "boto3", "botocore", "aiobotocore", "aiohttp", "requests")
_SITECUSTOMIZE = f"""
import os, sys
class _Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            with open(os.environ["BLOCKED_IMPORTS"], "a") as file:
                file.write(name + "\\n")
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, _Blocked())
"""


class Request(NamedTuple):
    """One request that reached S3."""

    method: str
    path: str
    headers: dict[str, str]


class Proxy:
    """Stands before the S3 server: records requests, and lets a test answer some of them itself.

    Attributes:
        requests: What came, in order.
        intercept: Given a request, returns (status, headers, body) to answer it, ``"cut"`` to break the connection in
            the middle of the answer, or `None` to let it through.
    """

    def __init__(self, host: str, port: int) -> None:
        self.requests: list[Request] = []
        self.intercept: Callable[[Request], Any] = lambda _: None
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
                proxy.requests.append(request)
                found = proxy.intercept(request)
                if found is None or found == "cut":
                    through = http.client.HTTPConnection(host, port, timeout=60)
                    headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
                    through.request(self.command, self.path, body, headers)
                    got = through.getresponse()
                    data = got.read()
                    through.close()
                    status, answered = got.status, dict(got.getheaders())
                else:
                    status, answered, data = found
                self.send_response(status)
                for name, value in answered.items():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length", "server", "date"):
                        self.send_header(name, value)
                size = answered.get("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", size or str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data[: len(data) // 2] if found == "cut" else data)
                if found == "cut":
                    self.close_connection = True
                    self.connection.close()

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def of(self, method: str) -> list[str]:
        """Paths that were asked for with a method."""
        return [request.path for request in self.requests if request.method == method]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Ran(NamedTuple):
    """A finished runner."""

    code: int
    stdout: str
    stderr: str
    outcome: Outcome | None

    @property
    def result(self) -> protocol.NodeResult:
        assert self.outcome is not None, self.stderr
        return self.outcome.results[0]

    @property
    def failure(self) -> failure_kinds.Failure:
        assert self.result.failure is not None, self.outcome
        return self.result.failure


class Runs:
    """Makes calls and has the real runner carry them out."""

    def __init__(self, s3: Any, proxy: Proxy, tmp_path: Path) -> None:
        self.s3 = s3
        self.proxy = proxy
        self.prefix = f"t{uuid.uuid4().hex[:8]}/"
        self.tmp_path = tmp_path
        self.scratch = tmp_path / "scratch"
        self.scratch.mkdir()
        site = tmp_path / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        self.blocked = tmp_path / "blocked-imports.txt"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "TMPDIR": str(self.scratch),
            "PYTHONPATH": str(site),
            "BLOCKED_IMPORTS": str(self.blocked),
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing-secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_BATCH_JOB_ID": "job-1",
            "AWS_BATCH_JOB_ATTEMPT": "1",
        }
        self.location = places.location(BUCKET, self.prefix, "dispatch-1", 0, "018f5e2b7c00c0ffee01")

    def task(
        self,
        function: Any,
        *args: Any,
        node_id: int = 0,
        hooks: dict[str, Any] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> Task:
        """A task; arguments that are not references already are pickled inline."""

        def ref(value: Any) -> Input:
            if isinstance(value, (references.Blob, Inline, references.NodeOutput, references.Joined)):
                return value
            return Inline(cloudpickle.dumps(value))

        return Task(
            node_id=node_id,
            name=getattr(function, "__name__", "electron"),
            function=ref(function),  # type: ignore[arg-type]
            hooks=None if hooks is None else Inline(json.dumps(hooks).encode()),
            args=tuple(ref(value) for value in args),
            kwargs={key: ref(value) for key, value in (kwargs or {}).items()},
        )

    def blob(self, data: bytes, **changes: Any) -> references.Blob:
        """Put bytes as a raw blob; ``changes`` are lies about it."""
        import hashlib

        blob = references.Blob(hashlib.sha256(data).hexdigest(), len(data), "raw", len(data))._replace(**changes)
        self.put(self.location.blob_key(blob.sha256), data)
        return blob

    def put(self, key: str, data: bytes) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        data: bytes = self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return data

    def stored(self) -> list[str]:
        """What lies under this test's prefix."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=self.prefix)
        return [entry["Key"][len(self.prefix) :] for page in pages for entry in page.get("Contents", [])]

    def bytes_of(self, ref: references.Ref) -> bytes:
        """The decoded bytes of a reference."""
        if isinstance(ref, Inline):
            return ref.data
        import zlib

        data = self.get(self.location.blob_key(ref.sha256))
        return zlib.decompress(data) if ref.codec == "zlib" else data

    def value(self, ran: Ran, index: int = 0) -> Any:
        """The value that an electron returned."""
        assert ran.outcome is not None, ran.stderr
        output = ran.outcome.results[index].output
        assert output is not None, ran.outcome.results[index].failure
        return cloudpickle.loads(self.bytes_of(output.pickle))

    def text(self, log: protocol.Log) -> bytes:
        """The whole text of a log."""
        if not log.parts:
            return log.tail.encode()
        return b"".join(self.get(self.location.log_key(part)) for part in log.parts)

    def make_call(self, *tasks: Task, packages: tuple[Package, ...] = (), **changes: Any) -> Call:
        """Put a call."""
        call = Call(
            call_id="018f5e2b7c00c0ffee01",
            dispatch_id="dispatch-1",
            python=platform.python_version(),
            cloudpickle=cloudpickle.__version__,
            covalent="0.240.0",
            tasks=tasks,
            packages=packages,
        )._replace(**changes)
        self.put(self.location.call_key, documents.dump_call(call))
        return call

    def start(self, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """Start the runner on the call."""
        argument = places.call_argument(self.location, MAC_KEY)
        command = [sys.executable, "-m", "covalent_cirro.runner", argument]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        return subprocess.Popen(
            command, env={**self.env, **(env or {})}, cwd=self.tmp_path, start_new_session=True, **{**pipes, **options}
        )

    def finish(self, process: subprocess.Popen[bytes], timeout_s: float = 120) -> Ran:
        """Wait for the runner and read its outcome."""
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        outcomes = [documents.parse_outcome(self.get(key)) for key in self.outcome_keys()]
        return Ran(
            process.returncode,
            (stdout or b"").decode("utf-8", "replace"),
            (stderr or b"").decode("utf-8", "replace"),
            max(outcomes, key=lambda each: each.attempt, default=None),
        )

    def outcome_keys(self) -> list[str]:
        """Keys of the outcomes of all attempts."""
        keys = (self.prefix + path for path in self.stored())
        return [key for key in keys if key == self.location.outcome_key or "/attempts/" in key]

    def publish(self, outcome: protocol.Outcome, mac_key: str = MAC_KEY) -> None:
        """Put an outcome where the first one lies."""
        self.put(self.location.outcome_key, documents.dump_outcome(outcome, mac_key))

    def __call__(self, *tasks: Task, env: dict[str, str] | None = None, **call: Any) -> Ran:
        """Make a call of these tasks and run it."""
        self.make_call(*tasks, **call)
        return self.finish(self.start(env))


def until(condition: Callable[[], Any], timeout_s: float = 90) -> Any:
    """Wait until something is true; fails the test otherwise."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def s3_server() -> Iterator[tuple[str, int]]:
    """A moto server with the tests' bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield host, port
    server.stop()


@pytest.fixture(scope="module")
def s3(s3_server: tuple[str, int]) -> Any:
    """A boto3 client of the server."""
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=f"http://{s3_server[0]}:{s3_server[1]}",
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    client.create_bucket(Bucket=BUCKET)
    return client


@pytest.fixture
def proxy(s3_server: tuple[str, int]) -> Iterator[Proxy]:
    """A proxy of one's own."""
    proxy = Proxy(*s3_server)
    yield proxy
    proxy.close()


@pytest.fixture
def runs(s3: Any, proxy: Proxy, tmp_path: Path) -> Runs:
    """The runner, where Covalent and boto3 cannot be imported."""
    return Runs(s3, proxy, tmp_path)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """`until`."""
    return until
