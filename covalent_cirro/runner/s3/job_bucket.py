"""The bucket of the job's call: small objects by the standard library, all else by a client that is made late."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from covalent_cirro.runner.s3 import answers
from covalent_cirro.runner.s3.quick_requests import QuickRequests

if TYPE_CHECKING:
    from covalent_cirro.contract.places import Location
    from covalent_cirro.runner.s3.blob_transfer import Wait
    from covalent_cirro.runner.s3.s3_client import Client, Pending


class JobBucket:
    """The bucket of the job's call.

    Args:
        where: Location of the call.
        environ: The environment, with credentials and endpoint.
        limit_bytes: Memory limit of the container, for the client; `None` without one.
        wait: Waits for a request.

    Attributes:
        where: Location of the call.
        quick: Makes simple requests without the client.
        made: The client; `None` until it is needed.
        wait: Waits for a request.
    """

    def __init__(
        self, where: Location, environ: Mapping[str, str], limit_bytes: Callable[[], int | None], wait: Wait
    ) -> None:
        self.where = where
        self.wait = wait
        self.made: Client | None = None
        self._environ, self._limit_bytes = environ, limit_bytes
        self._endpoint = answers.Endpoint(environ)
        self.quick = QuickRequests(self._endpoint, environ)

    def client(self) -> Client:
        """The S3 client, made at its first use, which is after the fork: it starts threads."""
        if self.made is None:
            from covalent_cirro.runner.s3.s3_client import Client

            self.made = Client(self._endpoint, self._environ, self._limit_bytes())
        return self.made

    def read(self, key: str) -> bytes:
        """Read an object.

        Raises:
            S3Error: It cannot be read.
        """
        found = self.quick.get(self.where.bucket, key)
        return (self.wait(self.client().get(self.where.bucket, key)) if found is None else found).body

    def find(self, key: str) -> bytes | None:
        """Read an object; `None` if it does not exist.

        Raises:
            S3Error: S3 cannot be read.
        """
        # Without s3:ListBucket, S3 answers 403 for an object that does not exist.
        with contextlib.suppress(answers.NotThere, answers.Refused):
            return self.read(key)
        return None

    def put(self, key: str, data: bytes) -> Pending:
        """Start to store an object."""
        return self.client().put(self.where.bucket, key, data)
