"""Which requests of web pages a server on this machine's loopback refuses. Pure.

Every page in the user's browser can send requests to the loopback: those that need no permission (a form, a POST of
``text/plain``, a websocket), or by a name of its own that stands for 127.0.0.1 (DNS rebinding). The emulator, the
Covalent server of a local stack and the page of a report that is watched check each request here first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")

_OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
"""Names that always stand for the loopback. The port may be another one: SSH can forward any port to the server's, and
no page can choose the ``Host`` of its requests."""

_OWN_SITES = frozenset({"same-origin", "none"})
"""``none``: the user typed the address (W3C, Fetch Metadata Request Headers, 2.2)."""


def refusal(host: str | None, origin: str | None, fetch_site: str | None) -> str | None:
    """Why a request is refused, also with a valid signature; `None` where no page of another origin sent it.

    Programs send neither ``Origin`` nor ``Sec-Fetch-Site``; a browser sends the first with everything but plain GETs,
    and the second with everything.

    Args:
        host: The header ``Host``. `None`: the request has none.
        origin: The header ``Origin``.
        fetch_site: The header ``Sec-Fetch-Site``.
    """
    if host is None or _OWN_HOST.fullmatch(host) is None:
        return (
            f"The request is for the host {_shown(host)}, but this server is 127.0.0.1 and localhost, and has no other "
            "name: a web page could give itself one."
        )
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        return f"A web page of {_shown(origin)} sent this. Only pages of this server itself may call it."
    if fetch_site is not None and fetch_site not in _OWN_SITES:
        return (
            f"A browser sent this for a page of another origin ({_shown(fetch_site)}). If you followed a link, put the "
            "address into the address bar yourself."
        )
    return None


def without_permissions(headers: Iterable[tuple[str, T]]) -> list[tuple[str, T]]:
    """The headers of an answer without those that let pages of other origins read it (Fetch standard, CORS)."""
    return [(name, value) for name, value in headers if not name.lower().startswith("access-control-")]


def _shown(value: str | None) -> str:
    return "of no name" if value is None else repr(value[:100])
