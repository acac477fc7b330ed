"""Whose account it is: what an executor names wins over the environment, in every kind of session alike."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from covalent_cirro.aws import sessions
from covalent_cirro.aws.clients import Clients
from covalent_cirro.aws.sessions import Access
from covalent_cirro.errors import NoCredentials, SettingsError

OURS = "ours"

CONFIG = """
[default]
region = eu-west-1
credential_process = /bin/echo '{"Version": 1, "AccessKeyId": "process", "SecretAccessKey": "x"}'
[profile lab]
region = eu-west-2
role_arn = arn:aws:iam::123456789012:role/other
source_profile = base
[profile only-config]
credential_process = /bin/echo '{"Version": 1, "AccessKeyId": "only-config", "SecretAccessKey": "x"}'
[profile empty]
region = eu-west-3
"""

USUAL = """
[default]
aws_access_key_id = usual
aws_secret_access_key = x
[lab]
aws_access_key_id = usual-lab
aws_secret_access_key = x
"""

NAMED = """
[default]
aws_access_key_id = ours
aws_secret_access_key = x
[lab]
aws_access_key_id = ours-lab
aws_secret_access_key = x
aws_session_token = token
[base]
aws_access_key_id = ours-base
aws_secret_access_key = x
[empty]
"""


@pytest.fixture(params=["", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"])
def named(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a credentials file, beside the user's own files and whatever else could stand in for it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, text in (("config", CONFIG), ("usual", USUAL), ("named", NAMED)):
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "usual"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    if request.param == "AWS_ACCESS_KEY_ID":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "environment")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    elif request.param:
        monkeypatch.setenv(request.param, "lab" if request.param == "AWS_PROFILE" else "http://127.0.0.1:1/")
    return str(tmp_path / "named")


async def _of_async(access: Access) -> Any:
    found = await sessions.async_session(access).get_credentials()
    return None if found is None else await found.get_frozen_credentials()


async def _of_blocking(access: Access) -> Any:
    from aiobotocore.session import AioSession

    found = sessions.blocking_session(access, AioSession()).get_credentials()
    return None if found is None else found.get_frozen_credentials()


async def _of_client(access: Access) -> Any:
    found = Clients(access)("sts")._request_signer._credentials
    return None if found is None else found.get_frozen_credentials()


MAKERS: dict[str, Callable[[Access], Awaitable[Any]]] = {
    "async": _of_async,
    "blocking": _of_blocking,
    "command": _of_client,
}

maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def access(credentials: str | None, profile: str | None = None) -> Access:
    """Where calls go does not matter here."""
    return Access(profile, credentials, None, "http://127.0.0.1:1")


@maker
@pytest.mark.parametrize(
    ("profile", "key"), [(None, OURS), ("default", OURS), ("lab", "ours-lab"), ("base", "ours-base")]
)
async def test_a_named_file_wins(named: str, make: Any, profile: str | None, key: str) -> None:
    """Over keys, a profile and a container's endpoint in the environment, the usual file, and the usual config's role
    or process for a profile of the same name.
    """
    found = await make(access(named, profile))
    assert (found.access_key, found.token) == (key, "token" if profile == "lab" else None)


@maker
async def test_a_named_file_is_found_at_home(named: str, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``~`` and variables are the server's user's."""
    monkeypatch.setenv("HOME", str(Path(named).parent))
    assert (await make(access("~/named"))).access_key == OURS
    assert (await make(access("$HOME/named"))).access_key == OURS


@maker
async def test_a_profile_of_the_config_may_build_on_a_named_file(named: str, make: Any) -> None:
    """AWS's own layout: roles and processes in the config, keys in the file."""
    assert (await make(access(named, "only-config"))).access_key == "only-config"


@maker
async def test_nothing_stands_in_for_a_profile_without_credentials(named: str, make: Any) -> None:
    """Not the environment, not a container's endpoint, not the usual files: the account would be another one."""
    assert await make(access(named, "empty")) is None


@maker
@pytest.mark.parametrize("path", ["/no/such/file", "folder", "unreadable"])
async def test_a_file_that_cannot_be_read_is_named(named: str, make: Any, path: str, tmp_path: Path) -> None:
    """With why, and where the path is read; the credentials of the environment are not taken instead."""
    if path == "folder":
        (tmp_path / path).mkdir()
    elif path == "unreadable":
        (tmp_path / path).write_text("not an ini file")
    given = path if path.startswith("/") else str(tmp_path / path)
    with pytest.raises(NoCredentials) as refused:
        await make(access(given))
    assert f"credentials={given!r} cannot be read: " in str(refused.value)
    assert isinstance(refused.value, SettingsError)


@maker
async def test_a_profile_that_a_file_lacks_is_named(named: str, make: Any, tmp_path: Path) -> None:
    """With those that it has. The profile of the environment is not meant: it is the file's own ``default``."""
    with pytest.raises(NoCredentials, match=r"^profile='nobody': .* it has: 'default', 'lab', 'base', 'empty'\.$"):
        await make(access(named, "nobody"))
    (tmp_path / "lab-only").write_text("[lab]\naws_access_key_id = a\naws_secret_access_key = b\n")
    (tmp_path / "config").write_text("")
    with pytest.raises(NoCredentials, match=r"^profile= is not set, which means 'default': .*: 'lab'\.$"):
        await make(access(str(tmp_path / "lab-only")))


@maker
async def test_a_named_profile_wins_over_keys_in_the_environment(named: str, make: Any) -> None:
    """As botocore has it."""
    assert (await make(access(None, "only-config"))).access_key == "only-config"


def test_the_region_of_a_profile_is_kept(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands in the user's config, whoever has the keys."""
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for profile, region in (("lab", "eu-west-2"), (None, "eu-west-1")):
        client = Clients(access(named, profile))("sts")
        assert client.meta.region_name == region
