"""The page of ``cirro report --watch`` is for the user who started it: no other user, and no web page, reads it."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright

from covalent_cirro.history.report import page
from covalent_cirro.loopback.page_server import CONNECTIONS, PageServer
from tests.cli.history.conftest import poll
from tests.security.test_emulator_from_a_browser import PAGES
from tests.security.test_other_users import ANOTHER, LINUX, as_nobody
from tests.unit.test_report import listed, report_of, run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECRET = "the learning rate was 3e-4"

Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def server() -> Iterator[PageServer]:
    """A server with a page."""
    with PageServer() as made:
        made.show(f"<!doctype html><title>report</title><main>{SECRET}</main>", page.served_policy())
        yield made


def send(server: PageServer, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
    """Status, headers in lower case, and body of an answer."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    given = headers or {}
    connection.putrequest(method, path, skip_host="Host" in given)
    for name, value in given.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    read = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return read


def path_of(server: PageServer) -> str:
    """The path with the secret."""
    return urlsplit(server.url).path


def test_its_user_reads_it(server: PageServer) -> None:
    """By the address that the command said; a page that has not changed is not sent again."""
    status, headers, body = send(server, path_of(server))
    assert status == 200
    assert SECRET.encode() in body
    assert send(server, path_of(server), {"If-None-Match": headers["etag"]})[0::2] == (304, b"")
    server.show("another", page.served_policy())
    assert send(server, path_of(server), {"If-None-Match": headers["etag"]})[0::2] == (200, b"another")
    assert send(server, path_of(server), method="HEAD")[0::2] == (200, b"")


def test_without_the_secret_nothing_is_read(server: PageServer) -> None:
    """Which is new each time, and too long to be guessed."""
    whole = path_of(server)
    assert len(whole) >= 22
    for path in ("/", "/favicon.ico", whole[:-2] + "/", whole + "x", whole.swapcase(), "//", f"/x/..{whole}", "/%00"):
        status, _, body = send(server, path)
        assert status == 403, path
        assert SECRET.encode() not in body
        assert whole.strip("/").encode() not in body
    with PageServer() as another:
        assert path_of(another) != whole


@pytest.mark.parametrize("sender", PAGES)
def test_what_a_page_sends_is_refused(server: PageServer, sender: str) -> None:
    """Even with the secret: by the headers that a browser adds, and by a name that is not this machine's."""
    for path in (path_of(server), "/"):
        status, headers, body = send(server, path, PAGES[sender])
        assert status == 403
        assert SECRET.encode() not in body
        assert not [name for name in headers if name.startswith("access-control-")]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_nothing_can_be_done_there(server: PageServer, method: str) -> None:
    """The page can be read, and a preflight allows nothing."""
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "GET"}
    status, headers, body = send(server, path_of(server), asked, method)
    assert status == 501
    assert SECRET.encode() not in body
    assert not [name for name in headers if name.startswith("access-control-")]


def test_no_answer_may_be_kept_framed_or_named_elsewhere(server: PageServer) -> None:
    """The address has the secret: no referrer has it; and no script runs in the page but its own."""
    for path in (path_of(server), "/"):
        _, headers, _ = send(server, path)
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["content-security-policy"].startswith("default-src 'none'")
    policy = send(server, path_of(server))[1]["content-security-policy"].split("; ")
    assert "frame-ancestors 'none'" in policy
    assert [each for each in policy if each.startswith(("script-src", "connect-src"))] == [
        f"script-src 'sha256-{page.watched_policy().partition('sha256-')[2].partition(chr(39))[0]}'",
        "connect-src 'self'",
    ]


@LINUX
@ANOTHER
def test_another_user_with_the_address_is_refused(server: PageServer) -> None:
    """He may have seen it over the shoulder, or in the command line of a browser."""
    readable, writable = os.pipe()

    def ask() -> None:
        status, _, body = send(server, path_of(server))
        os.write(writable, f"{status} {SECRET.encode() in body}\n".encode())

    with as_nobody(ask):
        assert os.read(readable, 100) == b"403 False\n"


def test_many_connections_do_not_take_the_machine(server: PageServer) -> None:
    """So many are served at a time; more are closed, and there is room again when others end."""
    address = urlsplit(server.url)
    held = [socket.create_connection((address.hostname, address.port)) for _ in range(CONNECTIONS)]
    more = socket.create_connection((address.hostname, address.port))
    more.settimeout(30)
    assert more.recv(1) == b""
    for each in (more, *held):
        each.close()
    poll(lambda: _answers(server), "there is room again")


def _answers(server: PageServer) -> bool:
    try:
        return send(server, path_of(server))[0] == 200
    except ConnectionError:
        return False


class _Frame(BaseHTTPRequestHandler):
    """A page of somebody else's, which shows another in a frame."""

    framed = ""

    def do_GET(self) -> None:
        """The page."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(f'<!doctype html><title>page</title><iframe src="{self.framed}"></iframe>'.encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_a_foreign_page_reads_nothing_in_a_real_browser(server: PageServer) -> None:
    """Not by a request, a frame or a name that leads here, though it knows the address; the user's window shows it."""
    foreign = ThreadingHTTPServer(("127.0.0.1", 0), type("_Page", (_Frame,), {"framed": server.url}))
    threading.Thread(target=foreign.serve_forever, daemon=True).start()
    flags = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP evil.example 127.0.0.1"]
    read = "async url => { try { return await (await fetch(url)).text(); } catch (error) { return 'refused'; } }"
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
            shown = browser.new_page()
            for host in ("127.0.0.1", "localhost", "evil.example"):
                shown.goto(f"http://{host}:{foreign.server_port}/")
                assert shown.evaluate(read, server.url) == "refused"
                assert [SECRET in frame.content() for frame in shown.frames] == [False, False]
            answer = shown.goto(server.url.replace("127.0.0.1", "evil.example"))
            assert answer is not None
            assert answer.status == 403
            shown.goto(server.url)
            assert SECRET in shown.content()
            browser.close()
    finally:
        foreign.shutdown()
        foreign.server_close()


def test_texts_of_electrons_are_no_markup() -> None:
    """Of a name, a reason or a log, in the page that is watched and in the file."""
    bad = "</pre></script><script>alert(1)</script><img src=x onerror=alert(1)>"
    for watched in (False, True):
        made = report_of(run(name=bad), notes=[bad])
        row: dict[str, Any] = {"electron": bad, "state": bad, "why": bad, "where": bad, "call_id": bad}
        electrons = (listed(bad, **row), listed(bad, **row, reason=bad))
        html = page.page(made._replace(electrons=electrons, lattice=bad), watched=watched, trouble=bad)
        assert "<img" not in html
        assert html.count("<script>") == watched
