"""Job definitions: looked up by their name, and registered where there is none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from covalent_cirro.aws.single_flight import SingleFlight

Allowed = Callable[[], Awaitable[None]]


async def everything() -> None:
    """Refuse nothing."""


class Definitions:
    """Finds or registers job definitions, each once for all electrons."""

    def __init__(
        self,
        find: Callable[[str], Awaitable[str | None]],
        register: Callable[[Mapping[str, Any]], Awaitable[str]],
    ) -> None:
        self._find = find
        self._register = register
        self._found = SingleFlight[str, str | None](keep=True)
        self._registered = SingleFlight[str, str](keep=True)

    async def ensure(self, body: Mapping[str, Any], allowed: Allowed = everything) -> str:
        """Find or register an ACTIVE definition.

        Args:
            body: The body of RegisterJobDefinition.
            allowed: Awaited before one is registered; its error is raised.

        Returns:
            ``name:revision``.
        """
        name = body["jobDefinitionName"]
        found = await self._found.run(name, lambda: self._find(name))
        if found is not None:
            return found
        await allowed()
        return await self._registered.run(name, lambda: self._register(body))

    def forget(self, revision: str) -> None:
        """Look the definition of a revision up again for the next electron: the revision is not there any more."""
        name = revision.rsplit(":", 1)[0]
        self._found.forget(name)
        self._registered.forget(name)
