"""Whether the secrets of a job are there, asked without their values, before the job is submitted.

A secret that cannot be looked up, mostly because the caller may not, is not refused: ECS reads it with another role.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from covalent_cirro.aws import sessions
from covalent_cirro.aws.single_flight import SingleFlight
from covalent_cirro.errors import AwsError, CirroError, SettingsError
from covalent_cirro.settings import Settings
from covalent_cirro.settings.variables import SecretReference, reference

log = logging.getLogger(__name__)

LOOK_S = 10.0
"""A lookup that takes longer counts as failed: electrons do not wait for a service that does not answer."""

MISSING_CODES = frozenset({"ResourceNotFoundException", "InvalidResourceId"})
"""How Secrets Manager (DescribeSecret) and SSM (ListTagsForResource) say that there is no such secret."""

Client = Callable[["str | None"], Awaitable[Any]]
"""A client of a service for a region, `None` for the engine's."""


def to_be_deleted(described: Mapping[str, Any]) -> str:
    """Since when a secret is to be deleted, by DescribeSecret's answer, and cannot be read; empty where it is not."""
    return f"it is to be deleted since {described['DeletedDate']:%Y-%m-%d}." if described.get("DeletedDate") else ""


class NoSuchSecret(CirroError):
    """There is no such secret, in AWS's words."""


class SecretLookups:
    """Looks secrets up, each once for the life of a server as soon as it was there. Made by `engine.py`.

    Args:
        clients: For each service, what returns a client for a region; called when it is first needed.
        access: Named in messages.
        account: Returns the account of the jobs; called when it is first needed.
    """

    def __init__(
        self, clients: Mapping[str, Client], access: sessions.Access, account: Callable[[], Awaitable[str]]
    ) -> None:
        self._clients, self._access, self._account = clients, access, account
        self._looks = SingleFlight[SecretReference, None](keep=True)

    async def require(self, settings: Settings) -> None:
        """Refuse a job with a secret that is not there: its container would not start.

        Raises:
            SettingsError: It is not there.
        """
        await asyncio.gather(*(self._one(name, text) for name, text in settings.secrets.items()))

    async def aclose(self) -> None:
        """Cancel lookups that are under way."""
        await self._looks.aclose()

    async def _one(self, name: str, text: str) -> None:
        found = reference(text)
        if found is None:  # `settings` refuses it
            return
        found = found._replace(key="", value_from=found.id)
        try:
            await self._looks.run(found, lambda: self._look(found))
        except NoSuchSecret as error:
            raise SettingsError(
                f"secrets: {name!r} names {text}, which is not there: {error} Make it, or correct the option; nothing "
                "was submitted. A secret of Secrets Manager is named by its whole ARN (`aws secretsmanager "
                "describe-secret --secret-id NAME --query ARN`), a parameter of another region by its ARN."
            ) from error

    async def _look(self, found: SecretReference) -> None:
        try:
            await asyncio.wait_for(self._ask(found), LOOK_S)
        except NoSuchSecret:
            raise
        except Exception as error:
            why = str(error) if isinstance(error, CirroError) else repr(error)
            log.info("Whether the secret %s is there is not known, and the job is submitted: %s", found.id, why)

    async def _ask(self, found: SecretReference) -> None:
        if found.service == "ssm" and found.account and found.account != await self._account():
            # ListTagsForResource takes names, and so tells of the caller's own account only.
            log.info("The parameter %s of another account is not looked up", found.id)
            return
        access = self._access._replace(region=found.region or self._access.region)
        client = await self._clients[found.service](found.region or None)
        in_manager = found.service == "secretsmanager"
        operation = "secretsmanager:DescribeSecret" if in_manager else "ssm:ListTagsForResource"
        try:
            with sessions.translate(operation, access=access, of=f"secret {found.id!r}"):
                if in_manager:
                    answer = await client.describe_secret(SecretId=found.id)
                else:
                    answer = await client.list_tags_for_resource(ResourceType="Parameter", ResourceId=found.name)
        except AwsError as error:
            if error.code in MISSING_CODES:
                raise NoSuchSecret(str(error)) from error
            raise
        if deleted := to_be_deleted(answer):
            raise NoSuchSecret(deleted)
