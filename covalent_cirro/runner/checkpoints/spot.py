"""Watches for EC2's notice that this host goes: the instance metadata service, asked every five seconds.

Knows HTTP and IMDSv2 only; the caller decides what a notice leads to.
"""

from __future__ import annotations

import json
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

NOTICE_S = 120.0
"""EC2 User Guide, Spot Instance interruption notices: two minutes before the instance is stopped or terminated."""


class SpotWatch:
    """Asks until there is a notice, or until it is clear that no service answers (not EC2, or unreachable).

    Args:
        environ: ``AWS_EC2_METADATA_DISABLED``, ``AWS_EC2_METADATA_SERVICE_ENDPOINT``.
        on_notice: Called once, in the thread of the watch, with the epoch seconds at which EC2 takes the host.
    """

    def __init__(self, environ: Mapping[str, str], on_notice: Callable[[float], None]) -> None:
        endpoint = urlsplit(environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _ENDPOINT)
        self._host, self._port = endpoint.hostname or "", endpoint.port or 80
        self._path = endpoint.path.rstrip("/")
        self._on_notice = on_notice
        self._token = ""
        self._stopped = False
        disabled = environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
        # Fargate has no such service: the SIGTERM of Fargate Spot, which comes before the SIGKILL, is the notice.
        disabled = disabled or environ.get("AWS_EXECUTION_ENV") == "AWS_ECS_FARGATE"
        if not disabled and endpoint.scheme == "http":
            import threading

            threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """Stop asking."""
        self._stopped = True

    def _watch(self) -> None:
        failures, answered = 0, False
        while not self._stopped:
            try:
                goes_at = self._ask()
            except Exception:  # the answer is not from IMDS, so there is no notice
                failures += 1
                if not answered and failures >= _UNREACHABLE_TRIES:
                    return
            else:
                answered = True
                if goes_at is not None:
                    self._on_notice(goes_at)
                    return
            time.sleep(INTERVAL_S)

    def _ask(self) -> float | None:
        """Time at which EC2 takes the host back, in epoch seconds; `None` without a notice (404)."""
        if not self._token:
            status, body = self._request("PUT", _TOKEN, {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_S)})
            if status != 200:
                raise OSError(f"no token: {status}")
            self._token = body.decode("ascii").strip()
        status, body = self._request("GET", _ACTION, {"X-aws-ec2-metadata-token": self._token})
        if status == 200 and b"action" in body:
            return goes_at(body, time.time())
        if status not in (200, 404):
            self._token = ""  # 401: the token has expired
            raise OSError(f"no answer: {status}")
        return None

    def _request(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        import http.client

        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        try:
            connection.request(method, self._path + path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read(64 * 1024)
        finally:
            connection.close()


def goes_at(notice: bytes, now: float) -> float:
    """When EC2 takes the host, as a notice (``{"action": "terminate", "time": "2026-11-29T08:22:00Z"}``) says it.

    Args:
        notice: The document.
        now: Epoch seconds, for a notice whose time cannot be read.
    """
    import calendar

    try:
        return float(calendar.timegm(time.strptime(json.loads(notice)["time"], "%Y-%m-%dT%H:%M:%SZ")))
    except (ValueError, TypeError, KeyError):
        return now + NOTICE_S
