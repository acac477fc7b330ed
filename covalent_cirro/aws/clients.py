"""Makes the clients of AWS's services: boto3's, whose calls block, for commands, and aiobotocore's for an event loop.

All clients have the same retries and timeouts. botocore is imported when the first client is made.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from covalent_cirro.aws import sessions
from covalent_cirro.aws.sessions import Access, translate

if TYPE_CHECKING:
    from aiobotocore.session import AioSession
    from botocore.session import Session

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
BRIEF_TIMEOUT_S = 3
ATTEMPTS = 5
"""Tries of one call in all. Set here, because botocore changed its default in 1.44 (legacy: 5, standard: 3)."""

POOL_CONNECTIONS = 64
"""Connections a client may hold; botocore's 10 would make a wide sweep queue up."""

COST_REGION = "us-east-1"
"""Cost Explorer's only endpoint (AWS General Reference, Billing and Cost Management)."""

_SERVICES = {
    "servicequotas": "service-quotas",
    "elasticloadbalancing": "elbv2",
    "tag": "resourcegroupstaggingapi",
    "elasticfilesystem": "efs",
}
"""Services whose name in boto3 is not their prefix in IAM's actions."""


def options(
    access: Access, region: str, *, attempts: int = ATTEMPTS, timeout_s: int = READ_TIMEOUT_S
) -> dict[str, Any]:
    """Keywords for ``create_client``; ``config`` is a dict, from which the caller makes its kind of ``Config``."""
    return {
        "region_name": region,
        "endpoint_url": access.endpoint_url,
        "config": {
            "retries": {"mode": "standard", "total_max_attempts": attempts},
            "connect_timeout": min(CONNECT_TIMEOUT_S, timeout_s),
            "read_timeout": timeout_s,
            "max_pool_connections": POOL_CONNECTIONS,
            "signature_version": "v4",
            "user_agent_extra": "covalent-cirro",
        },
    }


# --- for an event loop ------------------------------------------------------------------------------------------------


def asynchronous(
    session: AioSession, access: Access, service: str, region: str, *, attempts: int = ATTEMPTS
) -> contextlib.AbstractAsyncContextManager[Any]:
    """An aiobotocore client, which is closed when the context ends.

    Args:
        session: From `sessions.async_session`.
        access: What the session was made for.
        service: Name of the service in boto3: ``"batch"``.
        region: The region that calls go to.
        attempts: Tries of one call in all.
    """
    from aiobotocore.config import AioConfig

    given = options(access, region, attempts=attempts)
    client: contextlib.AbstractAsyncContextManager[Any] = session.create_client(
        service, **{**given, "config": AioConfig(**given["config"])}
    )
    return client


def blocking_s3(session: AioSession, access: Access, region: str) -> Any:
    """A boto3 client of S3 for bulk bytes in threads, beside the clients of an event loop."""
    from botocore.config import Config

    given = options(access, region)
    # Blobs are checked against their names as they are read: once is enough.
    config = Config(**given["config"], response_checksum_validation="when_required")
    return sessions.blocking_session(access, session).client("s3", **{**given, "config": config})


# --- for commands -----------------------------------------------------------------------------------------------------


class Clients:
    """boto3 clients of one account and region, each made once, all from one session. Safe for threads.

    Args:
        access: Whose account, and where.
    """

    def __init__(self, access: Access) -> None:
        self.access = access
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._clients: dict[tuple[str, str | None, bool], Any] = {}
        self._calls = 0

    def __call__(self, service: str, region: str | None = None, *, briefly: bool = False) -> Any:
        """The client of a service.

        Args:
            service: Name of the service in boto3: ``"cloudformation"``.
            region: Another region than that of ``access``.
            briefly: One try of each call, of at most `BRIEF_TIMEOUT_S`, for what a command can do without.

        Raises:
            SettingsError: The profile or the credentials file does not exist, or the region is malformed.
        """
        with self._lock:
            key = (service, region, briefly)
            if key not in self._clients:
                self._clients[key] = self._made(*key)
            return self._clients[key]

    async def awaited(self, service: str) -> Awaited:
        """The client of a service with calls that are awaited, for a gateway that commands and the server share."""
        return Awaited(self(service))

    @property
    def calls(self) -> int:
        """How many calls these clients have made, botocore's own retries not counted."""
        return self._calls

    @property
    def region(self) -> str:
        """The region that calls go to."""
        with self._lock, translate("making a session", access=self.access):
            return sessions.region_of(self._opened(), self.access)

    @property
    def endpoint_url(self) -> str:
        """Where calls go: the emulator has its images at the same address."""
        return str(self("sts").meta.endpoint_url)

    @contextlib.contextmanager
    def asking(self, operation: str, of: str = "") -> Iterator[Any]:
        """The client for one operation, ``"batch:DescribeJobQueues"``, whose errors become ours inside the block."""
        service = operation.partition(":")[0]
        with translate(operation, access=self.access, of=of):
            yield self(_SERVICES.get(service, service), COST_REGION if service == "ce" else None)

    def _made(self, service: str, region: str | None, briefly: bool) -> Any:
        from botocore.config import Config

        with translate(f"{service}: making a client", access=self.access):
            session = self._opened()
            limits = {"attempts": 1, "timeout_s": BRIEF_TIMEOUT_S} if briefly else {}
            given = options(self.access, region or sessions.region_of(session, self.access), **limits)
            return session.create_client(service, **{**given, "config": Config(**given["config"])})

    def _opened(self) -> Session:
        if self._session is None:
            self._session = sessions.botocore_session(self.access)
            self._session.register("before-call", self._count)
        return self._session

    def _count(self, **_: Any) -> None:
        with self._lock:
            self._calls += 1


def run_blocking(call: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that awaits nothing but `Awaited` clients, and so never waits for an event loop.

    Unlike ``asyncio.run``, it needs no event loop, and may be called while one runs in the same thread.
    """
    try:
        call.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    call.close()
    raise RuntimeError("a coroutine that should await boto3 clients only waits for something else")


class Awaited:
    """A boto3 client whose calls are awaited like those of an aiobotocore client; each call blocks (`run_blocking`)."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, operation: str) -> Any:
        async def call(**request: Any) -> Any:
            return getattr(self._client, operation)(**request)

        return call

    def get_paginator(self, operation: str) -> AwaitedPages:
        """The pages of an operation."""
        return AwaitedPages(self._client.get_paginator(operation))


class AwaitedPages:
    """A boto3 paginator whose pages are awaited."""

    def __init__(self, paginator: Any) -> None:
        self._paginator = paginator

    async def paginate(self, **request: Any) -> AsyncIterator[Any]:
        """The pages, one after the other."""
        for page in self._paginator.paginate(**request):
            yield page
