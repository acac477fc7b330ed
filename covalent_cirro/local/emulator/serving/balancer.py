"""One application load balancer: a port of the loopback that forwards HTTP requests to targets.

The port answers for all listeners of the balancer: TLS connections belong to its HTTPS listener, others to its HTTP
listener, the first of each. Requests and answers are streamed, connections are kept alive on both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import secrets
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from covalent_cirro.local.emulator.batch.model import Json, Timing
from covalent_cirro.local.emulator.moto_internals import moto_elb
from covalent_cirro.local.emulator.moto_internals.moto_elb import Listener
from covalent_cirro.local.emulator.serving.request_metrics import RequestMetrics
from covalent_cirro.local.emulator.serving.target_groups import Target, TargetGroups, timeout_s

HOST = "127.0.0.1"
BACKLOG = 512
CONNECT_S = 10.0
"""How long a balancer waits for a connection to a target (ELB User Guide, Troubleshoot: HTTP 504)."""
KEEP_ALIVE_S = 1.0
"""How long an idle connection to a target is kept: less than any server keeps its own, so that none is used while the
target closes it."""
CLOSE_S = 0.1
"""How long requests in progress may take when a balancer is deleted."""
WHOLE_BYTES = 1 << 20
"""A request's body up to this size is read before it is forwarded."""
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer")
) | frozenset(("transfer-encoding", "upgrade", "expect"))
"""Headers of one connection (RFC 9110, 7.6.1), which are not forwarded; and ``Expect``, which is answered here."""
REASONS = {502: "Bad Gateway", 503: "Service Temporarily Unavailable", 504: "Gateway Time-out"}
TLS = b"\x16"
"""First byte of a TLS connection (RFC 8446, 5.1: a handshake record)."""

log = logging.getLogger("covalent_cirro.local.emulator")


class Balancer:
    """The port of one balancer. All methods run in the event loop.

    Args:
        arn: ARN of the balancer.
        where: Account and region.
        timing: Durations.
        groups: Gives targets.
        metrics: Counts requests.
    """

    def __init__(
        self, arn: str, where: tuple[str, str], timing: Timing, groups: TargetGroups, metrics: RequestMetrics
    ) -> None:
        self._arn, self._where, self._timing = arn, where, timing
        self._groups, self._metrics = groups, metrics
        self._socket = socket.create_server((HOST, 0), backlog=BACKLOG)
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self._connecting: dict[asyncio.Task[None], socket.socket] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def open(self) -> None:
        """Begin to answer."""
        options: dict[str, Any] = {"auto_decompress": False, "access_log": None, "lingering_time": 0.0}
        self._servers = {
            protocol: web.Server(functools.partial(self._answer, protocol), **options) for protocol in ("HTTP", "HTTPS")
        }
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
        )
        self._accepting = asyncio.create_task(self._accept())

    async def close(self) -> None:
        """Stop listening, and close all connections."""
        connecting = dict(self._connecting)
        for task in (self._accepting, *connecting):
            task.cancel()
        await asyncio.gather(self._accepting, *connecting, return_exceptions=True)
        self._socket.close()
        for connection in connecting.values():
            connection.close()
        for server in self._servers.values():
            await server.shutdown(CLOSE_S)
        await self._session.close()

    # --- connections ------------------------------------------------------------------------------------------------

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._socket)
            except OSError as error:  # too many open files, or the client is gone
                log.warning("balancer %s cannot accept a connection: %s", self._arn, error)
                await asyncio.sleep(0.05)
                continue
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.create_task(self._connect(connection))
            self._connecting[task] = connection
            task.add_done_callback(self._connecting.pop)

    async def _connect(self, connection: socket.socket) -> None:
        """Give a new connection to the server of its protocol."""
        try:
            protocol = "HTTPS" if await _first_byte(connection) == TLS else "HTTP"
            listener = self._listener(protocol)
            if listener is None:
                connection.close()
                return
            context = self._context(listener) if protocol == "HTTPS" else None
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(self._servers[protocol], connection, ssl=context)
        except (OSError, ssl.SSLError, ValueError) as error:
            log.debug("connection to balancer %s: %s", self._arn, error)
            connection.close()

    def _listener(self, protocol: str) -> Listener | None:
        listeners = moto_elb.listeners(*self._where, self._arn)
        return next((each for each in listeners if each.protocol == protocol), None)

    def _context(self, listener: Listener) -> ssl.SSLContext:
        """TLS with the listener's certificate.

        Raises:
            ValueError: ACM does not have it.
        """
        arn = listener.certificate or ""
        if arn not in self._contexts:
            found = moto_elb.certificate(*self._where, arn)
            if found is None:
                raise ValueError(f"ACM has no certificate {arn!r}")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            with tempfile.TemporaryDirectory() as folder:  # made with mode 0700
                chain, key = Path(folder, "certificate"), Path(folder, "key")
                chain.write_bytes(found[0])
                key.write_bytes(found[1])
                context.load_cert_chain(chain, key)
            self._contexts[arn] = context
        return self._contexts[arn]

    # --- requests ---------------------------------------------------------------------------------------------------

    async def _answer(self, protocol: str, request: web.BaseRequest) -> web.StreamResponse:
        listener = self._listener(protocol)
        if listener is None:  # it was deleted
            return self._error(503)
        action = listener.action
        if action["Type"] == "redirect":
            self._metrics.counted(self._arn, "HTTP_Redirect_Count")
            config = action["RedirectConfig"]
            status = int(str(config["StatusCode"]).removeprefix("HTTP_"))
            return web.Response(status=status, headers={"Location": self._location(config, protocol, request)})
        if action["Type"] == "fixed-response":
            self._metrics.counted(self._arn, "HTTP_Fixed_Response_Count")
            config = action["FixedResponseConfig"]
            kind = config.get("ContentType") or "text/plain"
            body = (config.get("MessageBody") or "").encode()
            return web.Response(status=int(config["StatusCode"]), body=body, headers={"Content-Type": kind})
        if action["Type"] != "forward":
            return web.Response(status=501, text=f"the emulator has no action {action['Type']} of listeners\n")
        group = group_of(action)
        target = self._groups.acquire(group)
        if target is None:
            return self._error(503)
        try:
            return await self._forward(request, protocol, group, target)
        finally:
            self._groups.release(target)

    async def _forward(self, request: web.BaseRequest, protocol: str, group: str, target: Target) -> web.StreamResponse:
        begun = time.monotonic()
        idle_s = timeout_s(self._timing, moto_elb.idle_timeout_s(*self._where, self._arn))
        try:
            answer = await self._session.request(
                request.method,
                URL(f"http://{target.host}:{target.port}{_raw_path(request)}", encoded=True),
                headers=self._headers(request, protocol),
                data=await _body(request),
                allow_redirects=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=timeout_s(self._timing, CONNECT_S), sock_read=idle_s
                ),
            )
        except asyncio.TimeoutError:
            return self._error(504, group)
        except (aiohttp.ClientError, OSError):
            return self._error(502, group)
        self._metrics.answered(self._arn, group, answer.status, time.monotonic() - begun)
        async with answer:
            return await _pass_on(answer, request)

    def _headers(self, request: web.BaseRequest, protocol: str) -> CIMultiDict[str]:
        """The client's headers, with those that a balancer adds (ELB User Guide, HTTP headers)."""
        headers = CIMultiDict(_end_to_end(request.headers.items()))
        client = request.remote or HOST
        before = headers.get("X-Forwarded-For")
        headers["X-Forwarded-For"] = client if before is None else f"{before}, {client}"
        headers["X-Forwarded-Proto"] = protocol.lower()
        headers["X-Forwarded-Port"] = str(self.port)
        headers.setdefault("X-Amzn-Trace-Id", f"Root=1-{int(time.time()):08x}-{secrets.token_hex(12)}")
        return headers

    def _location(self, config: Json, protocol: str, request: web.BaseRequest) -> str:
        """Where a redirect leads; the port of a listener of this balancer becomes the port here."""
        asked = urlsplit(f"//{request.host}{_raw_path(request)}")
        new = str(config.get("Protocol") or "#{protocol}").replace("#{protocol}", protocol)
        port = str(config.get("Port") or "#{port}").replace("#{port}", str(self.port))
        if any((each.protocol, str(each.port)) == (new, port) for each in moto_elb.listeners(*self._where, self._arn)):
            port = str(self.port)
        host = str(config.get("Host") or "#{host}").replace("#{host}", asked.hostname or "")
        path = str(config.get("Path") or "/#{path}").replace("#{path}", asked.path.removeprefix("/"))
        query = str(config.get("Query") or "#{query}").replace("#{query}", asked.query)
        return f"{new.lower()}://{host}:{port}{path}{'?' + query if query else ''}"

    def _error(self, status: int, group: str | None = None) -> web.Response:
        self._metrics.failed(self._arn, group, status)
        title = f"{status} {REASONS[status]}"
        page = (
            f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
            "</body>\r\n</html>\r\n"
        )
        headers = {"Content-Type": "text/html", "Server": "awselb/2.0"}
        return web.Response(status=status, reason=REASONS[status], body=page.encode(), headers=headers)


def group_of(action: Json) -> str:
    """The target group of a forward action, at random by their weights where there are several."""
    if action.get("TargetGroupArn"):
        return str(action["TargetGroupArn"])
    groups = action["ForwardConfig"]["TargetGroups"]
    weights = [int(each.get("Weight", 1)) for each in groups]
    return str(random.choices(groups, weights if any(weights) else None)[0]["TargetGroupArn"])  # noqa: S311


async def _first_byte(connection: socket.socket) -> bytes:
    """The first byte of a connection, which is not read. Waits for it."""
    loop = asyncio.get_running_loop()
    while True:
        with contextlib.suppress(BlockingIOError):
            return connection.recv(1, socket.MSG_PEEK)
        readable = asyncio.Event()
        loop.add_reader(connection, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(connection)


def _raw_path(request: web.BaseRequest) -> str:
    """Path and query as the client wrote them."""
    target: str = request.raw_path
    if target.startswith("/"):
        return target
    split = urlsplit(target)  # an absolute URL, as to a proxy
    return f"{split.path or '/'}{'?' + split.query if split.query else ''}"


def _end_to_end(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    given = list(headers)
    named = {each.strip().lower() for name, value in given if name.lower() == "connection" for each in value.split(",")}
    return [(name, value) for name, value in given if name.lower() not in HOP_BY_HOP | named]


async def _body(request: web.BaseRequest) -> bytes | AsyncIterator[bytes] | None:
    if not request.body_exists:
        return None
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = request.content_length
    if length is not None and length <= WHOLE_BYTES:
        return await request.content.read()
    return request.content.iter_any()


async def _pass_on(answer: aiohttp.ClientResponse, request: web.BaseRequest) -> web.StreamResponse:
    """Send a target's answer to the client as it comes. If the target breaks off, so does the connection."""
    response = web.StreamResponse(
        status=answer.status, reason=answer.reason, headers=CIMultiDict(_end_to_end(answer.headers.items()))
    )
    if "Content-Length" not in answer.headers and request.version >= aiohttp.HttpVersion11:
        bodiless = request.method == "HEAD" or answer.status in (204, 304)
        if not bodiless:
            response.enable_chunked_encoding()
    await response.prepare(request)
    while True:
        try:
            data = await answer.content.readany()
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
            if request.transport is not None:
                request.transport.abort()
            return response
        if not data:
            break
        await response.write(data)
    await response.write_eof()
    return response
