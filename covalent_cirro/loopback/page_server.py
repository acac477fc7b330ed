"""Serves one page on the loopback, at an address with a secret that is made anew each time. It must not know the page.

Three checks, each enough for most callers: the secret, which others cannot guess; the headers by which a browser says
whose page sent a request; and the user who has the connection's other end (`callers.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from covalent_cirro.loopback.callers import Callers

HOST = "127.0.0.1"

SECRET_BYTES = 16

IDLE_S = 30.0
"""Seconds after which a connection without a request is closed."""

CONNECTIONS = 32
"""Connections at the same time, at most: every program of this machine can open some."""

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of all answers. `no-referrer`: the address has the secret."""


class _Shown(NamedTuple):
    """The page as it is answered."""

    body: bytes
    policy: str
    tag: str


class PageServer:
    """Serves the page that was last given to `show`, until closed.

    Attributes:
        url: Where the page is, with the secret.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_urlsafe(SECRET_BYTES)
        self._callers = Callers()
        self._shown = _Shown(b"", "default-src 'none'", '""')
        self._server = _Server(self.answer)
        self.url = f"http://{HOST}:{self._server.server_port}/{self._secret}/"
        self._thread = threading.Thread(target=self._server.serve_forever, name="cirro-page", daemon=True)
        self._thread.start()

    def __enter__(self) -> PageServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def show(self, page: str, policy: str) -> None:
        """Answer with this page from now on.

        Args:
            page: The page, as HTML.
            policy: Its ``Content-Security-Policy``.
        """
        body = page.encode("utf-8", "replace")
        self._shown = _Shown(body, policy, f'"{hashlib.sha256(body).hexdigest()}"')

    def answer(self, request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a request."""
        headers = request.headers
        host, origin, fetch_site = (_one(headers.get_all(name)) for name in ("Host", "Origin", "Sec-Fetch-Site"))
        client, server = request.client_address, request.connection.getsockname()
        refused = self._callers.refusal(host, origin, fetch_site, (client[0], client[1]), (server[0], server[1]))
        plain = {"Content-Type": "text/plain; charset=utf-8", "Content-Security-Policy": "default-src 'none'"}
        if refused is not None:
            return 403, plain, refused.encode()
        path = request.path.partition("?")[0]
        if not hmac.compare_digest(path.encode("latin-1", "replace"), f"/{self._secret}/".encode()):
            return 403, plain, b"The address lacks the secret, which is new each time: the command's output has it."
        shown = self._shown
        told = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": shown.policy, "ETag": shown.tag}
        if headers.get("If-None-Match") == shown.tag:
            return 304, told, b""
        return 200, told, shown.body


def _one(values: list[str] | None) -> str | None:
    """A header's value; several values with commas between them, which is no valid value of these headers."""
    return ",".join(values) if values else None


class _Request(BaseHTTPRequestHandler):
    """The requests of one connection. Methods other than GET and HEAD get 501."""

    protocol_version = "HTTP/1.1"
    server_version = "cirro"
    sys_version = ""
    timeout = IDLE_S
    server: _Server

    def do_GET(self) -> None:
        """Answer with the page, or with why not."""
        status, headers, body = self.server.answer(self)
        self.send_response(status)
        for name, value in (HEADERS | headers).items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the path has the secret."""

    def handle(self) -> None:
        """Requests until either side closes."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()


class _Server(ThreadingHTTPServer):
    """A thread for each connection, `CONNECTIONS` at most; more are closed at once."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], tuple[int, dict[str, str], bytes]]) -> None:
        self.answer = answer
        self._free = threading.Semaphore(CONNECTIONS)
        super().__init__((HOST, 0), _Request)

    def server_bind(self) -> None:
        """Listen; without the name of this machine, for which HTTPServer would ask a name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, and make room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a caller that sends nonsense, or goes away, is no error of the command."""
