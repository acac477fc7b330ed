"""Whether secrets are there, before a job is submitted: what is refused, what is not known, how seldom AWS is asked."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from covalent_cirro.aws import secret_lookups
from covalent_cirro.aws.secret_lookups import SecretLookups
from covalent_cirro.aws.sessions import Access
from covalent_cirro.errors import SettingsError
from covalent_cirro.settings import resolve

SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/wandb-AbC123"
ACCESS = Access(profile=None, credentials=None, region="us-east-1", endpoint_url=None)


class Service:
    """Secrets Manager and SSM that answer what a test says.

    Attributes:
        asked: Operation, region and secret of each call.
        answers: Answer or error code by secret; others have no answer of interest.
    """

    def __init__(self, **answers: Any) -> None:
        self.asked: list[tuple[str, str | None, str]] = []
        self.answers = answers
        self.delay_s = 0.0
        self.region: str | None = None

    async def _answer(self, operation: str, secret: str) -> dict[str, Any]:
        self.asked.append((operation, self.region, secret))
        await asyncio.sleep(self.delay_s)
        answer = self.answers.get(secret, {})
        if isinstance(answer, str):
            raise ClientError({"Error": {"Code": answer, "Message": f"AWS's words on {answer}"}}, operation)
        return dict(answer)

    async def describe_secret(self, SecretId: str) -> dict[str, Any]:
        return await self._answer("DescribeSecret", SecretId)

    async def list_tags_for_resource(self, ResourceType: str, ResourceId: str) -> dict[str, Any]:
        assert ResourceType == "Parameter"
        return await self._answer("ListTagsForResource", ResourceId)

    def lookups(self) -> SecretLookups:
        """Lookups that ask it."""

        async def client(region: str | None) -> Service:
            self.region = region
            return self

        async def account() -> str:
            return "123456789012"

        return SecretLookups({"secretsmanager": client, "ssm": client}, ACCESS, account)


async def require(service: Service, lookups: SecretLookups | None = None, **secrets: str) -> None:
    """Ask for secrets as a job does."""
    await (lookups or service.lookups()).require(resolve({"secrets": secrets}, {}))


async def test_each_secret_is_asked_for_once_and_never_for_its_value() -> None:
    """In its own region; of several keys of one secret, and by several electrons at a time."""
    service = Service()
    lookups = service.lookups()
    secrets = {"A": f"{SECRET}:user", "B": f"{SECRET}:password", "C": "ssm:/team/db"}
    await asyncio.gather(*(require(service, lookups, **secrets) for _ in range(3)))
    await require(service, lookups, **secrets)
    assert sorted(service.asked, key=str) == [
        ("DescribeSecret", "eu-west-1", SECRET),
        ("ListTagsForResource", None, "/team/db"),
    ]


@pytest.mark.parametrize(
    ("reference", "id", "code"),
    [
        (SECRET, SECRET, "ResourceNotFoundException"),
        ("ssm:/team/db", "/team/db", "InvalidResourceId"),
        ("arn:aws:ssm:eu-west-1:123456789012:parameter/team/db", "/team/db", "InvalidResourceId"),
        ("arn:aws:ssm:eu-west-1:123456789012:parameter/db", "db", "InvalidResourceId"),
    ],
)
async def test_a_secret_that_is_not_there_is_refused_until_it_is(reference: str, id: str, code: str) -> None:
    """The error has the variable, the secret and AWS's words."""
    service = Service(**{id: code})
    lookups = service.lookups()
    with pytest.raises(SettingsError, match=r"'KEY' names .*AWS's words .*nothing was submitted") as refused:
        await require(service, lookups, KEY=reference)
    assert reference in str(refused.value)
    service.answers = {}
    await require(service, lookups, KEY=reference)


async def test_a_secret_that_is_to_be_deleted_is_refused() -> None:
    """ECS cannot read it any more."""
    service = Service(**{SECRET: {"DeletedDate": datetime.datetime(2026, 11, 30)}})
    with pytest.raises(SettingsError, match="to be deleted since 2026-11-30"):
        await require(service, KEY=SECRET)


async def test_a_parameter_of_another_account_is_not_looked_up_in_this_one() -> None:
    """It may be shared with this account: ECS reads it by its ARN, and SSM tells the tags of one's own only."""
    service = Service(**{"/team/db": "InvalidResourceId"})
    await require(service, KEY="arn:aws:ssm:eu-west-1:999999999999:parameter/team/db")
    assert service.asked == []


async def test_the_region_that_was_looked_in_is_told() -> None:
    """That of the ARN, and not the executor's."""
    with pytest.raises(SettingsError, match="region='eu-west-1'"):
        await require(Service(**{SECRET: "ResourceNotFoundException"}), KEY=SECRET)


@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException", "InternalServerError"])
async def test_what_is_not_known_is_not_refused(code: str) -> None:
    """ECS reads it with another role."""
    await require(Service(**{SECRET: code}), KEY=SECRET)


async def test_a_service_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for longer than the limit."""
    monkeypatch.setattr(secret_lookups, "LOOK_S", 0.01)
    service = Service()
    service.delay_s = 3600
    await require(service, KEY=SECRET)
