"""Waits until a load balancer answers. Asks it as a user does, by HTTP or HTTPS."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

TIMEOUT_S = 300.0
"""Seconds to wait for an answer: the name of a new load balancer is in DNS after some minutes."""

UNREACHABLE_S = 60.0
"""Seconds without any connection after which healthy targets count instead: this machine may not be let in."""

REQUEST_TIMEOUT_S = 5.0
FIRST_POLL_S = 0.2
POLL_S = 2.0
"""Seconds between two requests: the pause doubles from the first to the longest."""

OK = 200

ANSWERS = "it answers "
"""How `Reached.last` begins where there was an answer."""


class Reached(NamedTuple):
    """How the wait for an answer ended.

    Attributes:
        answered: Whether the service answered with 200.
        healthy: How many targets of its load balancer are healthy.
        last: The last answer, or why there was none.
    """

    answered: bool
    healthy: int
    last: str

    @property
    def serves(self) -> bool:
        """Whether it answered; or whether it would answer others, where this machine cannot reach it."""
        return self.answered or (self.healthy > 0 and not self.last.startswith(ANSWERS))


def ask(url: str, path: str, host: str = "") -> int:
    """The status of the answer to a GET.

    Args:
        url: Where the load balancer answers, ``http://name``.
        path: Path to ask for.
        host: Name that its certificate is for, where that is another one.

    Raises:
        OSError, HTTPException: There was no answer; `ssl.SSLCertVerificationError` for a wrong certificate.
    """
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        name = host or str(parts.hostname)
        connection = http.client.HTTPSConnection(name, parts.port or 443, timeout=REQUEST_TIMEOUT_S)
        plain = socket.create_connection((str(parts.hostname), parts.port or 443), timeout=REQUEST_TIMEOUT_S)
        try:
            connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=name)
        except BaseException:
            plain.close()
            raise
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=REQUEST_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def wait(
    url: str,
    path: str,
    host: str,
    healthy_targets: Callable[[], int],
    least: int,
    *,
    reachable: bool = True,
    timeout_s: float = TIMEOUT_S,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    get: Callable[[str, str, str], int] = ask,
) -> Reached:
    """Wait until a service answers its health path with 200, and enough of its targets are healthy.

    Where it cannot be reached from here, its targets alone are waited for.

    Args:
        url, path, host: As for `ask`.
        healthy_targets: Says how many targets of the load balancer are healthy.
        least: How many have to be.
        reachable: Whether the load balancer has public addresses.
        timeout_s: Seconds to wait.
        sleep, clock: Time.
        get: Asks; as `ask`.
    """
    start, last, answered, connected = clock(), "it was not asked: it has no public address", False, False
    pause_s = FIRST_POLL_S
    while True:
        if reachable and not answered:
            try:
                status = get(url, path, host)
                connected, answered, last = True, status == OK, f"{ANSWERS}{path} with {status}"
            except ssl.SSLCertVerificationError as error:
                return Reached(False, healthy_targets(), f"its certificate is refused: {error.verify_message}")
            except (OSError, http.client.HTTPException) as error:
                last = str(error) or type(error).__name__
        waited, healthy = clock() - start, healthy_targets()
        alone = not connected and (not reachable or waited >= UNREACHABLE_S)
        if ((answered or alone) and healthy >= least) or waited >= timeout_s:
            return Reached(answered, healthy, last)
        sleep(pause_s)
        pause_s = min(2 * pause_s, POLL_S)
