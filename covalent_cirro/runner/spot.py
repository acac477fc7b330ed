"""Watches for EC2's notice that this host goes: the instance metadata service, asked every five seconds.

Knows HTTP and IMDSv2 only; what follows from a notice is said by who asks for the watch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

INTERVAL_S = 5.0
"""EC2 User Guide, Spot Instance interruption notices: "we recommend that you check for interruption notices every 5
seconds"."""

_ENDPOINT = "http://169.254.169.254"
_ACTION = "/latest/meta-data/spot/instance-action"
_TOKEN = "/latest/api/token"  # noqa: S105  (a path)
_TOKEN_S = 21_600  # the most that IMDSv2 gives (EC2 User Guide, Use IMDSv2)
_TIMEOUT_S = 2.0
_UNREACHABLE_TRIES = 3


class SpotWatch:
    """Asks until the notice is there, or it is plain that nobody answers: not on EC2, or out of a container's reach.

    Args:
        environ: ``AWS_EC2_METADATA_DISABLED``, ``AWS_EC2_METADATA_SERVICE_ENDPOINT``.
        on_notice: Called once, in the thread of the watch.
    """

    def __init__(self, environ: Mapping[str, str], on_notice: Callable[[], None]) -> None:
        endpoint = urlsplit(environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _ENDPOINT)
        self._host, self._port = endpoint.hostname or "", endpoint.port or 80
        self._path = endpoint.path.rstrip("/")
        self._on_notice = on_notice
        self._token = ""
        self._stopped = False
        disabled = environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
        if not disabled and endpoint.scheme == "http":
            import threading

            threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopped = True

    def _watch(self) -> None:
        failures, answered = 0, False
        while not self._stopped:
            try:
                noticed = self._ask()
            except Exception:  # whatever answers there, it is no notice
                failures += 1
                if not answered and failures >= _UNREACHABLE_TRIES:
                    return
            else:
                answered = True
                if noticed:
                    self._on_notice()
                    return
            time.sleep(INTERVAL_S)

    def _ask(self) -> bool:
        """Whether the notice is there: 200 with it, 404 without."""
        if not self._token:
            status, body = self._request("PUT", _TOKEN, {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_S)})
            if status != 200:
                raise OSError(f"no token: {status}")
            self._token = body.decode("ascii").strip()
        status, body = self._request("GET", _ACTION, {"X-aws-ec2-metadata-token": self._token})
        if status == 200:
            return b"action" in body
        if status != 404:
            self._token = ""  # 401: it has expired
            raise OSError(f"no answer: {status}")
        return False

    def _request(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        import http.client

        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        try:
            connection.request(method, self._path + path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read(64 * 1024)
        finally:
            connection.close()
