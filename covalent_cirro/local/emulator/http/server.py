"""A small HTTP/1.1 server for one WSGI application: one thread for each connection, kept alive, bodies streamed.

werkzeug's server closes every connection, so that a client needs a new one for each call. It must not know AWS.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler
from typing import IO, Any
from urllib.parse import unquote, urlsplit

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

BACKLOG = 512
DRAIN_BYTES = 1 << 20
"""A body that the application did not read is read up to this size to keep the connection; if it is larger, the
connection closes."""
ONE_SEND_BYTES = 1 << 16
"""Headers and a body up to this size are sent together."""

HEADER_NAMES = "cirro.header_names"
"""Key of the environment: names of headers with an underscore as the client wrote them, by their key."""

log = logging.getLogger("covalent_cirro.local.emulator")


class ConnectionCut(Exception):
    """The connection is closed without a (whole) answer."""


class Body:
    """A request's body of known length. A connection that ends within it is an error, not the end of the body."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self._file = file
        self.left = length

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes; all without a size. One allocation: a large body is not in memory twice."""
        wanted = self.left if size is None or size < 0 else min(size, self.left)
        if wanted == 0:
            return b""
        data = self._file.read(wanted)
        if len(data) < wanted:
            raise ConnectionError("the client closed the connection within the body")
        self.left -= wanted
        return data

    def readline(self, limit: int = 65536) -> bytes:
        """One line."""
        line = self._file.readline(min(limit, self.left))
        self.left -= len(line)
        return line

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line


class ChunkedBody:
    """A request's body in HTTP chunks (RFC 9112, 7.1)."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = 0
        self.done = False

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes; all of it without one."""
        parts: list[bytes] = []
        wanted = sys.maxsize if size is None or size < 0 else size
        while wanted and not self.done:
            if self._left == 0 and not self._next_chunk():
                break
            data = self._file.read(min(wanted, self._left))
            if not data:
                raise ConnectionError("the client closed the connection within the body")
            parts.append(data)
            wanted -= len(data)
            self._left -= len(data)
            if self._left == 0:
                self._file.readline(3)
        return b"".join(parts)

    def _next_chunk(self) -> bool:
        line = self._file.readline(1024)
        try:
            self._left = int(line.split(b";")[0], 16)
        except ValueError:
            raise ConnectionError("malformed chunk") from None
        if self._left == 0:
            while self._file.readline(65536) not in (b"\r\n", b"\n", b""):
                pass
            self.done = True
        return not self.done


class _Connection(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "cirro-emulator"
    sys_version = ""
    disable_nagle_algorithm = True
    server: Any

    def do_GET(self) -> None:
        """Give the request to the application, whatever its method."""
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
        length = int(self.headers.get("Content-Length") or 0)
        source: Any = self.rfile
        body: Body | ChunkedBody = ChunkedBody(source) if chunked else Body(source, length)
        answer = _Answer(self)
        try:
            parts = self.server.application(self._environ(body), answer.start)
            try:
                answer.send(parts)
            finally:
                close = getattr(parts, "close", None)
                if close is not None:
                    close()
        except ConnectionCut:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            return
        except Exception:
            log.exception("%s %s", self.command, self.path)
            self.close_connection = True
            if not answer.sent:
                self.send_error(500)
            return
        if isinstance(body, ChunkedBody):
            self.close_connection = self.close_connection or not body.done
        elif 0 < body.left <= DRAIN_BYTES:
            body.read()
        elif body.left:
            self.close_connection = True

    do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: calls are counted, not logged."""

    def handle(self) -> None:
        """Requests until either side closes."""
        with contextlib.suppress(ConnectionError, TimeoutError, ValueError):
            super().handle()

    def _environ(self, body: Body | ChunkedBody) -> Environ:
        url = urlsplit(self.path)
        path = f"//{url.netloc}{url.path}" if not url.scheme and url.netloc else url.path
        environ: Environ = {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": body,
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "SERVER_SOFTWARE": self.server_version,
            "SERVER_NAME": self.server.host,
            "SERVER_PORT": str(self.server.port),
            "SERVER_PROTOCOL": self.request_version,
            "REMOTE_ADDR": self.client_address[0],
            "REMOTE_PORT": self.client_address[1],
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(path, "latin-1"),
            "QUERY_STRING": url.query,
            "REQUEST_URI": self.path,
            "RAW_URI": self.path,
        }
        names: dict[str, str] = {}
        for name, value in self.headers.items():
            key = name.upper().replace("-", "_")
            if "_" in name:
                # In WSGI these have the same key as those with a hyphen; in S3's metadata they differ.
                if not name.lower().startswith("x-amz-meta-"):
                    continue
                names[f"HTTP_{key}"] = name
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = f"HTTP_{key}"
                if key in environ:
                    value = f"{environ[key]},{value}"
            environ[key] = value
        environ[HEADER_NAMES] = names
        return environ


class _Answer:
    """The answer to one request, as it is sent."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._status = 500
        self._reason = ""
        self._headers: list[tuple[str, str]] = []
        self.sent = False

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        """WSGI's ``start_response``."""
        code, _, self._reason = status.partition(" ")
        self._status = int(code)
        self._headers = headers

    def send(self, parts: Iterable[bytes]) -> None:
        connection = self._connection
        iterator = iter(parts)
        first = next(iterator, b"")
        second = next(iterator, None)
        bodiless = connection.command == "HEAD" or self._status in (204, 304)
        given = {name.lower() for name, _ in self._headers}
        chunked = False
        if "content-length" not in given and not bodiless:
            if second is None:
                self._headers = [*self._headers, ("Content-Length", str(len(first)))]
            else:
                chunked = True
                self._headers = [*self._headers, ("Transfer-Encoding", "chunked")]
        connection.send_response_only(self._status, self._reason)
        for name, value in self._headers:
            if name.lower() != "connection":
                connection.send_header(name, value)
        if "date" not in given:
            connection.send_header("Date", connection.date_time_string())
        if connection.close_connection:
            connection.send_header("Connection", "close")
        buffer: list[bytes] = connection._headers_buffer  # type: ignore[attr-defined]
        head = b"".join([*buffer, b"\r\n"])
        buffer.clear()
        self.sent = True
        out = connection.wfile
        if bodiless:
            out.write(head)
            return
        if not chunked and len(first) <= ONE_SEND_BYTES:
            out.write(head + first)
            rest: Iterable[bytes | None] = (second,)
        else:
            out.write(head)
            rest = (first, second)
        for data in rest:
            if data:
                self._write(data, chunked)
        for data in iterator:
            if data:
                self._write(data, chunked)
        if chunked:
            out.write(b"0\r\n\r\n")

    def _write(self, data: bytes, chunked: bool) -> None:
        out = self._connection.wfile
        if chunked:
            out.write(b"%x\r\n" % len(data))
        out.write(data)
        if chunked:
            out.write(b"\r\n")


class Server:
    """Serves an application on the loopback until closed.

    Args:
        application: WSGI application; it may raise `ConnectionCut`.
        port: 0 takes a free one.

    Raises:
        OSError: The port is taken.
    """

    host = "127.0.0.1"

    def __init__(self, application: Application, port: int = 0) -> None:
        self.application = application
        self._socket = socket.create_server((self.host, port), backlog=BACKLOG)
        self.port: int = self._socket.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name=f"http-{self.port}", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and close every connection."""
        with self._lock:
            self._closed = True
            connections = list(self._open)
        with contextlib.suppress(OSError):  # wakes accept(), which closing alone does not
            socket.create_connection((self.host, self.port), timeout=1).close()
        self._thread.join(timeout=5)
        self._socket.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self._socket.accept()
            except OSError:
                if self._closed:
                    return
                continue
            if self._closed:
                connection.close()
                return
            threading.Thread(target=self._serve, args=(connection, address), daemon=True).start()

    def _serve(self, connection: socket.socket, address: tuple[str, int]) -> None:
        with self._lock:
            self._open.add(connection)
        try:
            _Connection(connection, address, self)  # type: ignore[arg-type]
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()
