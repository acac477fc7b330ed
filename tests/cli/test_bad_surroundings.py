"""What surrounds a command is wrong: no endpoint, profile, program or session, or a proxy's page instead of AWS.

Each command ends with a message that names the thing, and what to do about it; never with a traceback.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from covalent_cirro.aws import clients
from covalent_cirro.history.account import Account

Cirro = Callable[..., Result]
Arrange = Callable[[Path, pytest.MonkeyPatch], None]

COMMANDS = (
    ("status",),
    ("jobs",),
    ("logs", "a0b1c2d3:1"),
    ("show", "a0b1c2d3:1"),
    ("stop", "--yes", "a0b1c2d3:1"),
    ("report", "a0b1c2d3"),
    ("deploy", "--yes"),
    ("destroy", "--yes"),
    ("image", "list"),
)
"""All that ask AWS. `cirro doctor` reports what it cannot ask; it has a test of its own."""

MALFORMED = (
    b"<!DOCTYPE html>\n<html><head><title>502</title><meta x></head><body><h1>Bad gateway<br>of ours</body></html>"
)
LOGIN = b"<html><body><form action='/login'>Sign in to the <b>corporate</b> network &amp; go on</form></body></html>"


def page(status: int, body: bytes) -> Arrange:
    """Every answer is a page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            if status in (301, 302):
                self.send_header("Location", "https://login.example/")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    def arrange(folder: Path, patch: pytest.MonkeyPatch) -> None:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        keys(patch)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")

    return arrange


servers: list[http.server.ThreadingHTTPServer] = []


def keys(patch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "testing")


def endpoint(url: str) -> Arrange:
    def arrange(folder: Path, patch: pytest.MonkeyPatch) -> None:
        keys(patch)
        patch.setenv("AWS_ENDPOINT_URL", url)

    return arrange


def endpoint_in_the_config(folder: Path, patch: pytest.MonkeyPatch) -> None:
    keys(patch)
    config(folder, patch, "[default]\nendpoint_url = localhost:4566\n")


def config(folder: Path, patch: pytest.MonkeyPatch, text: str) -> None:
    (folder / "config").write_text(text)
    patch.setenv("AWS_CONFIG_FILE", str(folder / "config"))


def profile(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("AWS_PROFILE", "nobody")


def region(folder: Path, patch: pytest.MonkeyPatch) -> None:
    keys(patch)
    patch.setenv("AWS_DEFAULT_REGION", "Frankfurt am Main")


def program(command: str) -> Arrange:
    """The credentials come from a program."""

    def arrange(folder: Path, patch: pytest.MonkeyPatch) -> None:
        config(folder, patch, f"[profile lab]\ncredential_process = {command}\nregion = eu-west-1\n")
        patch.setenv("AWS_PROFILE", "lab")

    return arrange


def sso(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """A session that ended long ago."""
    config(
        folder,
        patch,
        "[profile lab]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Admin\nregion = eu-west-1\n"
        "[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.awsapps.com/start\n",
    )
    patch.setenv("HOME", str(folder))
    patch.setenv("AWS_PROFILE", "lab")
    cache = folder / ".aws" / "sso" / "cache"
    for where in ("credentials.SSOProvider", "tokens.SSOTokenProvider"):  # botocore asks for the home but once
        patch.setattr(f"botocore.{where}._SSO_TOKEN_CACHE_DIR", str(cache))
    cache.mkdir(parents=True)
    name = hashlib.sha1(b"corp").hexdigest()  # botocore/utils.py, SSOTokenLoader
    token = {"accessToken": "x", "expiresAt": "2020-01-01T00:00:00Z", "startUrl": "https://corp.awsapps.com/start"}
    (cache / f"{name}.json").write_text(json.dumps(token))


CONDITIONS: dict[str, tuple[Arrange, tuple[str, ...]]] = {
    "endpoint without a scheme": (endpoint("localhost:4566"), ("AWS_ENDPOINT_URL='localhost:4566'", "http://")),
    "endpoint of another scheme": (endpoint("htp://aws"), ("AWS_ENDPOINT_URL='htp://aws'", "http://")),
    "endpoint that ends too early": (endpoint("http://[::1"), ("AWS_ENDPOINT_URL='http://[::1'", "http://")),
    "endpoint with words as its port": (endpoint("http://aws:port"), ("AWS_ENDPOINT_URL='http://aws:port'",)),
    "endpoint without a scheme in the config": (endpoint_in_the_config, ("endpoint_url", "localhost:4566", "http://")),
    "unknown profile": (profile, ("AWS_PROFILE='nobody'", "aws configure list-profiles")),
    "impossible region": (region, ("AWS_DEFAULT_REGION='Frankfurt am Main'", "eu-west-1")),
    "missing program": (
        program("/opt/no-such-helper --json"),
        ("/opt/no-such-helper --json", "is not there", "AWS_PROFILE='lab'"),
    ),
    "failing program": (
        program("sh -c 'echo locked out >&2; exit 3'"),
        ("locked out", "credential_process", "by hand"),
    ),
    "babbling program": (program("echo hello"), ("credential_process = echo hello", "JSON", "AWS_PROFILE='lab'")),
    "expired SSO": (sso, ("aws sso login --profile lab",)),
    "login page": (page(200, LOGIN), ("Sign in to the corporate network & go on", "HTTP 200", "HTTPS_PROXY")),
    "login page by a redirect": (page(302, LOGIN), ("Sign in to", "HTTP 302")),
    "page of a gateway": (page(502, MALFORMED), ("Bad gateway of ours", "HTTP 502")),
    "refusal of a proxy": (page(407, MALFORMED), ("Bad gateway of ours", "HTTP 407")),
}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One try of each call; servers of pages end with the test."""
    monkeypatch.setattr(clients, "options", functools.partial(clients.options, attempts=1))
    monkeypatch.setitem(Account.__init__.__kwdefaults__, "patience_s", 0.0)
    yield
    while servers:
        servers.pop().shutdown()


def pairs() -> Iterator[tuple[tuple[str, ...], str]]:
    """One command with all that may be wrong, and each other with two of it: all have their calls from one place."""
    names = list(CONDITIONS)
    yield from ((COMMANDS[0], name) for name in names)
    for number, command in enumerate(COMMANDS[1:]):
        yield from ((command, names[(2 * number + each) % len(names)]) for each in (0, 1))


@pytest.mark.parametrize(
    ("command", "condition"), list(pairs()), ids=lambda each: each if isinstance(each, str) else each[0]
)
def test_a_command_ends_with_what_is_wrong_and_what_to_do(
    command: tuple[str, ...], condition: str, cirro: Cirro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1, and one message."""
    arrange, words = CONDITIONS[condition]
    arrange(tmp_path, monkeypatch)
    result = cirro(*command)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1, result.output
    said = " ".join(result.stderr.split())
    for each in words:
        assert each in said, said


@pytest.mark.parametrize("condition", ["unknown profile", "babbling program", "login page"])
def test_the_doctor_says_so_too(condition: str, cirro: Cirro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never stops at what it cannot ask."""
    arrange, words = CONDITIONS[condition]
    arrange(tmp_path, monkeypatch)
    result = cirro("doctor", "--json")
    assert isinstance(result.exception, SystemExit), result.exception
    for each in words:
        assert each in json.dumps(json.loads(result.stdout), ensure_ascii=False), each
