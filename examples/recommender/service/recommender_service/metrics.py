"""Around the application: counts and times of requests for Prometheus, and the version of the model on every answer."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKETS_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Seconds: an answer takes a fraction of a millisecond, one that waits for others takes several."""

NO_ROUTE = "none"
"""The label of requests for paths that the service does not have: the path itself would be a label for each try."""


class Metrics:
    """What `/metrics` shows."""

    def __init__(self) -> None:
        """Begin with zeros."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._answers = Counter(
            "recommender_answers", "Answers by route and HTTP status.", ["route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "recommender_answer_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ["route"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        # Looking up a labelled metric costs more than counting does.
        self._of_answer: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def record(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        found = self._of_answer.get((route, status))
        if found is None:
            found = (self._answers.labels(route, str(status)), self._seconds.labels(route))
            self._of_answer[route, status] = found
        found[0].inc()
        found[1].observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class Measured:
    """An ASGI application whose answers are counted and have the header ``x-model-version``.

    It stands outside of FastAPI's own middleware, so that answers with status 500 have both, too.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, version: Callable[[], str]) -> None:
        """Wrap an application.

        Args:
            app: The application.
            metrics: What counts.
            version: Gives the model's version.
        """
        self._app = app
        self._metrics = metrics
        self._version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500  # of an application that fails before it answers

        async def send_with_version(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-model-version", self._version().encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_version)
        finally:
            route = scope.get("route")
            self._metrics.record(getattr(route, "path", NO_ROUTE), status, time.perf_counter() - began)
