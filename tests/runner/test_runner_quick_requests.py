"""The first document, read without awscrt: how it is asked for, and when that is left to awscrt."""

from __future__ import annotations

import calendar
import contextlib
import datetime
import ipaddress
import json
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.protocol import ExitCode, Log, NodeResult, Outcome, Usage
from covalent_cirro.runner.s3 import quick_requests
from covalent_cirro.runner.s3.answers import Answer, Endpoint
from covalent_cirro.runner.s3.quick_requests import Credentials, QuickRequests

cloudpickle.register_pickle_by_value(sys.modules[__name__])

KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s3cret"}
NO_KEYS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
GRANTED = {"AccessKeyId": "FROMECS", "SecretAccessKey": "s", "Token": "session", "Expiration": "2099-01-01T00:00:00Z"}


class Listener:
    """A server that answers every connection with the same bytes, and closes it.

    Attributes:
        heard: The requests, as they came.
        answer: What is said to each.
        tls: How to speak TLS, if at all.
        hold: Cleared, answers are held back.
    """

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.answer = b""
        self.tls: ssl.SSLContext | None = None
        self.hold = threading.Event()
        self.hold.set()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._serve, daemon=True).start()

    def says(self, body: bytes, head: str = "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n") -> None:
        self.answer = head.format(size=len(body)).encode() + body

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), connection:
                self._serve_one(connection if self.tls is None else self.tls.wrap_socket(connection, server_side=True))

    def _serve_one(self, connection: socket.socket) -> None:
        with connection:
            heard = b""
            while b"\r\n\r\n" not in heard and (chunk := connection.recv(65536)):
                heard += chunk
            self.heard.append(heard.decode("latin-1"))
            self.hold.wait(20)
            connection.sendall(self.answer)

    def close(self) -> None:
        self.hold.set()
        self._socket.close()


@pytest.fixture
def s3_listener() -> Iterator[Listener]:
    """In the place of S3."""
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def ecs() -> Iterator[Listener]:
    """In the place of ECS's endpoint of credentials."""
    listener = Listener()
    listener.says(json.dumps(GRANTED).encode())
    yield listener
    listener.close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a profile."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def quick(listener: Listener, environ: dict[str, str] | None = None) -> Answer | None:
    """Ask for an object."""
    environ = {**KEYS, "AWS_ENDPOINT_URL": listener.url, **(environ or {})}
    return QuickRequests(Endpoint(environ), environ).get("bucket", "a/call.json")


# --- the signature --------------------------------------------------------------------------------------------------

words = st.text("abcXYZ0189/+=", min_size=1, max_size=40)


@settings(deadline=None)
@given(
    key_id=words,
    secret=words,
    token=st.just("") | words,
    region=st.sampled_from(["us-east-1", "eu-central-1", "cn-north-1", "us-gov-west-1"]),
    endpoint=st.sampled_from(["", "http://127.0.0.1:5000", "https://minio.example/s3/"]),
    bucket=st.sampled_from(["data", "my.data"]),
    key=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30),
    body=st.none() | st.binary(max_size=50),
)
def test_signature_is_botocores(
    key_id: str, secret: str, token: str, region: str, endpoint: str, bucket: str, key: str, body: bytes | None
) -> None:
    """Whatever the key, the object and the place: header by header what botocore's own signer makes of them."""
    method, extra = ("GET", {}) if body is None else ("PUT", {"if-none-match": "*"})
    where = Endpoint({"AWS_REGION": region, "AWS_ENDPOINT_URL": endpoint})
    host, path = where.address(bucket, key)
    scheme = "http" if where.plain else "https"
    request = AWSRequest(method, f"{scheme}://{host}{path}", extra, body)
    request.context["payload_signing_enabled"] = True  # as with http, where nothing else protects it
    S3SigV4Auth(BotocoreCredentials(key_id, secret, token or None), "s3", region).add_auth(request)
    at = calendar.timegm(time.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))

    signed = quick_requests.sign(Credentials(key_id, secret, token), region, host, path, at, method, body or b"", extra)

    assert signed == {name.lower(): value for name, value in request.headers.items()}


# --- credentials ----------------------------------------------------------------------------------------------------


def test_keys_of_the_environment_sign(s3_listener: Listener, ecs: Listener) -> None:
    """They come before the container's, which are not asked for."""
    s3_listener.says(b"{}")

    full = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{ecs.url}/creds"}
    found = quick(s3_listener, {"AWS_SESSION_TOKEN": "t0ken", **full})

    assert found is not None
    assert found.body == b"{}"
    (request,) = s3_listener.heard
    assert request.startswith("GET /bucket/a/call.json HTTP/1.0\r\n")
    assert f"host: 127.0.0.1:{s3_listener.port}\r\n" in request
    assert "Credential=AKID/" in request
    assert "x-amz-security-token: t0ken\r\n" in request
    assert ecs.heard == []


@pytest.mark.parametrize("token", ["", "variable", "file"])
def test_credentials_by_full_uri(s3_listener: Listener, ecs: Listener, tmp_path: Path, token: str) -> None:
    """The endpoint is shown its token, of the file rather than of the variable; what it gives signs."""
    s3_listener.says(b"{}")
    (tmp_path / "token").write_text("file\n")
    environ = {
        **NO_KEYS,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{ecs.url}/creds?id=7",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "variable" if token else "",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token") if token == "file" else "",
    }

    assert quick(s3_listener, environ) is not None

    (asked,) = ecs.heard
    assert asked.startswith("GET /creds?id=7 HTTP/1.0\r\n")
    assert ("authorization: " + token in asked) if token else ("authorization" not in asked)
    assert "Credential=FROMECS/" in s3_listener.heard[0]
    assert "x-amz-security-token: session\r\n" in s3_listener.heard[0]


def test_credentials_by_relative_uri(s3_listener: Listener, ecs: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of ECS's own address, and before the full one."""
    s3_listener.says(b"{}")
    asked, connect = [], socket.create_connection

    def to_ecs(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(address)
        return connect(("127.0.0.1", ecs.port) if address[0] == "169.254.170.2" else address, timeout)

    monkeypatch.setattr(socket, "create_connection", to_ecs)
    environ = {
        **NO_KEYS,
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/7",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/never",
    }

    assert quick(s3_listener, environ) is not None

    assert asked == [("169.254.170.2", 80), ("127.0.0.1", s3_listener.port)]
    assert ecs.heard[0].startswith("GET /v2/credentials/7 HTTP/1.0\r\nhost: 169.254.170.2\r\n")


def test_credentials_are_asked_for_once(s3_listener: Listener, ecs: Listener) -> None:
    """However many objects are read."""
    s3_listener.says(b"{}")
    environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": ecs.url, "AWS_ENDPOINT_URL": s3_listener.url}
    reader = QuickRequests(Endpoint(environ), environ)

    assert [reader.get("bucket", key) is not None for key in ("a", "b")] == [True, True]
    assert len(ecs.heard) == 1


# --- TLS ------------------------------------------------------------------------------------------------------------


def own_certificate(path: Path) -> Path:
    """A certificate of 127.0.0.1 that vouches for itself, and its key, in a file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(certificate.public_bytes(form[0]) + key.private_bytes(*form))
    return path


def test_certificates_are_checked(s3_listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An https endpoint is read from where its certificate is vouched for, and shown nothing otherwise."""
    bundle = str(own_certificate(tmp_path / "bundle.pem"))
    s3_listener.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    s3_listener.tls.load_cert_chain(bundle)
    s3_listener.says(b"{}")
    https = {"AWS_ENDPOINT_URL": s3_listener.url.replace("http:", "https:")}

    assert quick(s3_listener, https) is None
    assert s3_listener.heard == []
    monkeypatch.setenv("SSL_CERT_FILE", bundle)
    found = quick(s3_listener, https)
    assert found is not None
    assert found.body == b"{}"


# --- what is left to awscrt -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environ",
    [
        NO_KEYS,
        {"AWS_SECRET_ACCESS_KEY": ""},
        {**NO_KEYS, "AWS_PROFILE": "team"},
        {**NO_KEYS, "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"},
        {**NO_KEYS, "AWS_CONTAINER_CREDENTIALS_FULL_URI": "https://127.0.0.1/creds"},
        {**NO_KEYS, "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.com/creds"},
        {**NO_KEYS, "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1@example.com/creds"},
        {**NO_KEYS, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": ".example.com/creds"},
        {"HTTP_PROXY": "http://127.0.0.1:1"},
        {"https_proxy": "http://127.0.0.1:1"},
        {"AWS_CA_BUNDLE": "/bundle.pem"},
        {"AWS_SESSION_TOKEN": "two\r\nlines"},
    ],
)
def test_nobody_is_asked_where_it_is_not_easy(s3_listener: Listener, environ: dict[str, str]) -> None:
    """Other sources of credentials, hosts that must not see a token, proxies, and what would break out of its line."""
    s3_listener.says(b"{}")

    assert quick(s3_listener, environ) is None
    assert s3_listener.heard == []


@pytest.mark.parametrize(
    ("file", "environ"),
    [
        (".aws/config", {}),
        (".aws/credentials", {}),
        ("mine", {"AWS_CONFIG_FILE": "~/mine"}),
        ("mine", {"AWS_SHARED_CREDENTIALS_FILE": "~/mine"}),
    ],
)
def test_profiles_come_before_the_container(
    s3_listener: Listener, ecs: Listener, home: Path, file: str, environ: dict[str, str]
) -> None:
    """A file of profiles may hold other credentials, which awscrt's chain prefers; one that is not there does not."""
    s3_listener.says(b"{}")
    environ = {**NO_KEYS, "AWS_CONTAINER_CREDENTIALS_FULL_URI": ecs.url, **environ}

    assert quick(s3_listener, environ) is not None
    (home / file).parent.mkdir(exist_ok=True)
    (home / file).touch()
    assert quick(s3_listener, environ) is None
    assert len(ecs.heard) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not HTTP at all",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        *(
            b"HTTP/1.1 %d Odd\r\nContent-Length: 2\r\nLocation: /else\r\n\r\n{}" % status
            for status in (100, 201, 204, 206, 301, 307, 400, 403, 404, 412, 500, 503)
        ),
    ],
)
def test_odd_answer_is_no_answer(s3_listener: Listener, answer: bytes) -> None:
    """Errors, redirects, bodies that are cut short, too long or encoded: not taken, not raised, not asked for twice."""
    s3_listener.answer = answer
    environ = {**KEYS, "AWS_ENDPOINT_URL": s3_listener.url}
    reader = QuickRequests(Endpoint(environ), environ)

    assert [reader.get("bucket", key) for key in ("a", "b")] == [None, None]
    assert len(s3_listener.heard) == 1


def test_body_has_a_limit(s3_listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Announced or not; up to it, the body is taken."""
    monkeypatch.setattr(quick_requests, "MAX_DOCUMENT_BYTES", 200_000)

    s3_listener.says(b"x" * 200_000)
    assert quick(s3_listener) is not None
    s3_listener.says(b"x" * 200_001)
    assert quick(s3_listener) is None


def test_server_that_does_not_answer_is_left_in_time(s3_listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is one for the whole answer."""
    monkeypatch.setattr(quick_requests, "_TIMEOUT_S", 0.1)
    s3_listener.hold.clear()

    assert quick(s3_listener) is None


def test_addresses_of_a_host_share_the_time(s3_listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another is tried where one refuses, with the time that is left."""
    tried: list[tuple[str, float]] = []
    resolve, connect = socket.getaddrinfo, socket.create_connection
    s3_listener.says(b"{}")

    def two(host: str, port: int, *rest: Any, **options: Any) -> Any:
        hosts = ("127.0.0.2", "127.0.0.1") if host == "two.test" else (host,)
        return [found for each in hosts for found in resolve(each, port, *rest, **options)]

    def watched(address: tuple[str, int], timeout: float) -> socket.socket:
        tried.append((address[0], timeout))
        return connect(address, timeout)

    monkeypatch.setattr(socket, "getaddrinfo", two)
    monkeypatch.setattr(socket, "create_connection", watched)

    assert quick(s3_listener, {"AWS_ENDPOINT_URL": f"http://two.test:{s3_listener.port}"}) is not None
    assert [host for host, _ in tried] == ["127.0.0.2", "127.0.0.1"]
    assert tried[1][1] < tried[0][1] <= quick_requests._TIMEOUT_S


def test_connection_need_not_be_closed(s3_listener: Listener) -> None:
    """The length says where the body ends: a server that keeps the connection is not waited for."""
    s3_listener.says(b"{}" + b"next", 'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 6\r\n\r\n')

    found = quick(s3_listener)

    assert found is not None
    assert (found.body, found.etag) == (b"{}next", '"e"')


@pytest.mark.parametrize(
    "answer", [b"{", b"[]", b"{}", b'{"AccessKeyId": null, "SecretAccessKey": 1}', b'{"AccessKeyId": "a\\r\\nb"}']
)
def test_odd_credentials_are_none(s3_listener: Listener, ecs: Listener, answer: bytes) -> None:
    """What is not the answer of such an endpoint signs nothing."""
    ecs.says(answer)

    assert quick(s3_listener, {**NO_KEYS, "AWS_CONTAINER_CREDENTIALS_FULL_URI": ecs.url}) is None
    assert s3_listener.heard == []


# --- in the runner --------------------------------------------------------------------------------------------------


def hold_up_awscrt(runs: Any) -> tuple[Path, Callable[[], None]]:
    """Have the import of awscrt wait until an electron has begun.

    Returns:
        Where it is noted what happened, and the electron.
    """
    notes, begun = runs.tmp_path / "notes", str(runs.tmp_path / "begun")
    with (runs.tmp_path / "site" / "sitecustomize.py").open("a") as file:
        file.write(f"""
class _HeldUp:
    def find_spec(self, name, path=None, target=None):
        if name == "_awscrt":
            import time
            deadline = time.monotonic() + 60
            while not os.path.exists({begun!r}) and time.monotonic() < deadline:
                time.sleep(0.01)
            with open({str(notes)!r}, "a") as file:
                file.write("after" if os.path.exists({begun!r}) else "before")
sys.meta_path.insert(0, _HeldUp())
""")

    def electron() -> None:
        open(begun, "w").close()

    return notes, electron


def test_a_short_job_needs_no_awscrt(runs: Any) -> None:
    """One GET and one PUT, and the import, which takes longer than either, does not happen."""
    notes, electron = hold_up_awscrt(runs)

    ran = runs(runs.task(electron))

    assert (ran.code, notes.exists()) == (ExitCode.OK, False), ran.stderr
    assert [request.method for request in runs.proxy.requests] == ["GET", "PUT"]


def test_electron_does_not_wait_for_awscrt(runs: Any) -> None:
    """The import is held up until the electron has begun: it does begin. Its result needs a request of awscrt's."""
    notes, electron = hold_up_awscrt(runs)

    def large() -> bytes:
        electron()
        return os.urandom(100_000)

    ran = runs(runs.task(large))

    assert (ran.code, notes.read_text()) == (ExitCode.OK, "after"), ran.stderr


def test_awscrt_is_imported_while_a_longer_electron_runs(runs: Any) -> None:
    """So that its end does not wait for it."""
    notes, electron = hold_up_awscrt(runs)

    def longer() -> bool:
        electron()
        until = time.monotonic() + 60
        while not notes.exists() and time.monotonic() < until:
            time.sleep(0.05)
        return notes.exists()

    ran = runs(runs.task(longer))

    assert runs.value(ran) is True, ran.stderr


@pytest.mark.parametrize("status", [301, 403, 412, 503])
def test_an_outcome_that_was_not_taken_is_stored_by_awscrt(runs: Any, status: int) -> None:
    """Where S3 refuses it, and where it was stored and the answer was lost."""
    runs.make_call(runs.task(lambda: 1))
    runs.proxy.intercept = lambda _: (status, {}, b"") if len(runs.proxy.requests) == 2 else None

    ran = runs.finish(runs.start())

    assert (ran.code, runs.value(ran)) == (ExitCode.OK, 1)
    assert [request.method for request in runs.proxy.requests] == ["GET", "PUT", "PUT"]
    assert ran.stderr == ""


def test_first_outcome_is_found_without_awscrt(runs: Any) -> None:
    """A further attempt that has nothing to do never loads it."""
    notes, electron = hold_up_awscrt(runs)
    failure = Failure(Kind.RAISED, "ValueError: no")
    outcome = Outcome(
        "018f5e2b7c00c0ffee01", 1, "job-1", (NodeResult(0, None, failure, Log(), Log()),), Usage(), "3", "3", {}, {}
    )
    runs.publish(outcome)

    ran = runs(runs.task(electron), env={"AWS_BATCH_JOB_ATTEMPT": "2"})

    assert (ran.code, notes.exists()) == (ExitCode.RAISED, False), ran.stderr
    assert [request.method for request in runs.proxy.requests] == ["GET", "GET"]


@pytest.mark.parametrize("status", [301, 403, 404, 503])
def test_what_it_could_not_get_is_asked_for_again(runs: Any, status: int) -> None:
    """By awscrt, at the cost of one request."""
    runs.make_call(runs.task(lambda: 1))
    runs.proxy.intercept = lambda _: (status, {}, b"") if len(runs.proxy.requests) == 1 else None

    ran = runs.finish(runs.start())

    assert (ran.code, runs.value(ran)) == (ExitCode.OK, 1)
    assert [request.method for request in runs.proxy.requests] == ["GET", "GET", "PUT"]
    assert ran.stderr == ""


def test_proxies_are_left_to_awscrt(runs: Any) -> None:
    """It is awscrt that asks, as its user agent tells."""
    runs.make_call(runs.task(lambda: 1))

    ran = runs.finish(runs.start({"HTTPS_PROXY": "http://127.0.0.1:1"}))

    assert (ran.code, runs.value(ran)) == (ExitCode.OK, 1)
    assert all("CRT" in request.headers["user-agent"] for request in runs.proxy.requests)


def test_endpoint_that_is_no_url_is_told_at_once(runs: Any) -> None:
    """Before anything runs or is imported for it."""
    ran = runs(runs.task(print, "ran"), env={"AWS_ENDPOINT_URL_S3": "127.0.0.1:9000"})

    assert (ran.code, ran.stdout) == (ExitCode.BAD_CALL, "")
    assert "AWS_ENDPOINT_URL" in ran.stderr


def test_stop_while_the_call_is_read_ends_at_once(runs: Any, s3_listener: Listener, eventually: Any) -> None:
    """SIGTERM is heard although S3 does not answer."""
    s3_listener.hold.clear()
    runner = runs.start({"AWS_ENDPOINT_URL": s3_listener.url})
    eventually(lambda: s3_listener.heard)
    runner.send_signal(signal.SIGTERM)

    ran = runs.finish(runner)

    assert ran.code == ExitCode.TERMINATED
    assert "stopped by SIGTERM before the call was read" in ran.stderr
    assert len(s3_listener.heard) == 1


def test_image_without_awscrt_runs_nothing(runs: Any) -> None:
    """It is missed before the electron begins, not when its result is to be stored."""
    with (runs.tmp_path / "site" / "sitecustomize.py").open("a") as file:
        file.write("sys.modules['awscrt'] = None\n")

    ran = runs(runs.task(print, "ran"))

    assert (ran.code, ran.stdout, ran.outcome) == (1, "", None)
    assert "awscrt" in ran.stderr
    assert runs.proxy.requests == []
