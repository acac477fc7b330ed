"""Clients of an account whose services are fakes: each is an object with the methods of boto3's that are called."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from covalent_cirro.aws.sessions import Access, translate
from tests.unit.fake_formation import FakeFormation

REGION, ACCOUNT = "eu-west-1", "123456789012"


class FakeClients:
    """In place of `aws.clients.Clients`.

    Attributes:
        services: Fakes by the service's name in IAM's actions, such as ``"ecs"``.
    """

    def __init__(self, formation: FakeFormation | None = None, **services: Any) -> None:
        self.access = Access(None, None, REGION, None)
        self.region = REGION
        self.endpoint_url = f"https://sts.{REGION}.amazonaws.com"
        self.services = {
            "cloudformation": formation or FakeFormation(),
            "sts": SimpleNamespace(get_caller_identity=lambda: {"Account": ACCOUNT}),
            **services,
        }

    def __call__(self, service: str, region: str | None = None) -> Any:
        return self.services[service]

    @contextlib.contextmanager
    def asking(self, operation: str, of: str = "") -> Iterator[Any]:
        """The fake of the operation's service, whose errors become ours."""
        with translate(operation, access=self.access, of=of):
            yield self.services[operation.partition(":")[0]]


def pages(**answer: Any) -> Any:
    """A paginator of one page."""
    return SimpleNamespace(paginate=lambda **_: [answer])
