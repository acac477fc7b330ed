"""Refuses requests of other users and of web pages to a Covalent server, which has no login and opens shells.

An ASGI application around the server's own. It must not know Covalent.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from covalent_cirro.loopback import web_pages
from covalent_cirro.loopback.callers import Callers

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY_VIOLATION = 1008
"""Code with which a websocket is refused (RFC 6455, 7.4.1)."""

log = logging.getLogger(__name__)


class Guard:
    """Passes requests of this user's programs and of the server's own pages to the server.

    All others, for HTTP and websockets, are refused (`Callers`). Where the system does not say who owns a connection,
    the log has a warning. No answer has headers that let a page of another origin read it.

    Args:
        app: The server's application.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._callers = Callers()
        if not self._callers.knows_users:
            log.warning("This system does not say which user owns a connection: its other users can use this server")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or take one websocket."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        host, origin, fetch_site = (_header(scope, name) for name in (b"host", b"origin", b"sec-fetch-site"))
        refused = self._callers.refusal(host, origin, fetch_site, tuple(scope["client"]), tuple(scope["server"]))
        if refused is None:
            await self._app(scope, receive, _unreadable_elsewhere(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": ""})
        else:
            body = json.dumps({"detail": refused}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body})


def _header(scope: Scope, sought: bytes) -> str | None:
    """A header's value; several values with commas between them, which is no valid value of these headers."""
    values = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == sought]
    return ",".join(values) if values else None


def _unreadable_elsewhere(send: Send) -> Send:
    async def without(message: MutableMapping[str, Any]) -> None:
        if "headers" in message:
            named = [(name.decode("latin-1"), value) for name, value in message["headers"]]
            kept = [(name.encode("latin-1"), value) for name, value in web_pages.without_permissions(named)]
            message = {**message, "headers": kept}
        await send(message)

    return without
