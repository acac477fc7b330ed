"""Sessions of AWS's SDKs, retries, and AWS's errors turned into ours. Knows nothing of electrons.

This module changes nothing in the process's environment: profile, credentials file, region and endpoint belong to one
executor.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from covalent_cirro import local_files
from covalent_cirro.aws import foreign_answers, setting_sources
from covalent_cirro.errors import AccessDenied, AwsError, NoCredentials, NotFound, SettingsError, Unsigned
from covalent_cirro.settings import Settings

if TYPE_CHECKING:
    import boto3
    import tenacity
    from aiobotocore.session import AioSession
    from botocore.session import Session

T = TypeVar("T")
S = TypeVar("S")

DEFAULT_REGION = "us-east-1"
"""The region where neither the executor nor AWS's chain names one; the stock plugin has the same default."""

UNREACHABLE_PATIENCE_S = 30.0
"""Seconds for which a call to an unreachable endpoint is repeated: most likely its name is wrong."""

_UNREACHABLE = frozenset({"EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "SSLError"})

_THROTTLED = frozenset(
    {
        "TooManyRequestsException",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "BandwidthLimitExceeded",
    }
)
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "UnauthorizedOperation",
        "403",
        "OptInRequired",
    }
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_UNKNOWN_KEY = frozenset(
    {
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "SignatureDoesNotMatch",
        "IncompleteSignature",
        "InvalidToken",
        "InvalidSignatureException",
        "AuthFailure",
    }
)
SIGNATURE_HOLDS_S = 300
"""AWS refuses a signature further off (IAM User Guide, Elements of a Signature Version 4 request)."""

_OTHER_CLOCK = ("Signature expired", "Signature not yet current")
"""Messages about wrong clocks of services other than S3 (IAM User Guide, Troubleshoot Signature Version 4)."""

_MISSING = frozenset({"NoSuchBucket", "NoSuchKey", "404", "NotFound", "ResourceNotFoundException", "NoSuchEntity"})


_DEFAULT_PROFILE = "default"
_KEYS_OF_FILE = "shared-credentials-file"
_NOT_IN_FILES = ("ec2-credentials-file", "boto-config", "container-role", "iam-role")
"""botocore's names of where it finds credentials (``botocore/credentials.py``)."""


class Access(NamedTuple):
    """Which account is used, with which credentials and endpoint. Equal values share an engine."""

    profile: str | None
    credentials: str | None
    region: str | None
    endpoint_url: str | None

    def named(self) -> str:
        """The settings as the user wrote them, for messages."""
        parts = [f"{key}={value!r}" for key, value in self._asdict().items() if value]
        return ", ".join(parts) or "AWS's usual chain (environment, config files, instance role)"

    def completed(self, section: Mapping[str, object]) -> Access:
        """This access, with the executor's settings for what is `None`.

        Args:
            section: Section ``[executors.cirro]`` of Covalent's config. Its credentials file is not used where this
                access names a profile, which may be another account's.
        """
        given = {name: value for name in self._fields if isinstance(value := section.get(name), str) and value}
        if self.profile:
            given.pop("credentials", None)
        return Access(*(own or given.get(name) for name, own in self._asdict().items()))


def access_of(settings: Settings) -> Access:
    """The settings that choose account, region and endpoint; an empty setting leaves the choice to AWS's own chain."""
    return Access(
        profile=settings.profile or None,
        credentials=settings.credentials or None,
        region=settings.region or None,
        endpoint_url=settings.endpoint_url or None,
    )


def _open(kind: Callable[..., S], access: Access) -> S:
    """A session of botocore or aiobotocore. Only this function decides which credentials calls are signed with.

    A named credentials file wins over everything in the environment, and nothing replaces a profile that the file
    lacks: a call to the wrong account would be worse than none. Without such a file, a named profile wins over keys in
    the environment, as in botocore.

    Raises:
        NoCredentials: The file is not there, or has no such profile.
    """
    if not access.credentials:
        plain = kind(profile=access.profile)
        foreign_answers.refuse(plain)
        return plain
    profile = access.profile or _DEFAULT_PROFILE
    own = _sections(access.credentials)
    session: Any = kind(profile=profile)
    session.set_config_variable("credentials_file", access.credentials)
    if profile not in own and profile not in session.available_profiles:
        asked = f"profile={profile!r}" if access.profile else f"profile= is not set, which means {profile!r}"
        raise NoCredentials(
            f"{asked}: credentials={access.credentials!r} has no such profile. Set profile= to one that it has: "
            f"{', '.join(map(repr, own)) or 'there is none'}."
        )
    chain = session.get_component("credential_provider")
    if "aws_access_key_id" in own.get(profile, {}):
        # Without this, a role or SSO session of the same name in the user's config file would be used.
        chain.providers = [chain.get_provider(_KEYS_OF_FILE)]
    else:
        for elsewhere in _NOT_IN_FILES:
            chain.remove(elsewhere)
    foreign_answers.refuse(session)
    opened: S = session
    return opened


def _sections(path: str) -> dict[str, dict[str, str]]:
    """The profiles in a credentials file."""
    from botocore.configloader import raw_config_parse
    from botocore.exceptions import ConfigNotFound, ConfigParseError

    place = os.path.expanduser(os.path.expandvars(path))
    try:
        with open(place, "rb"):  # botocore takes an unreadable file for an empty one
            found: dict[str, dict[str, str]] = raw_config_parse(place, parse_subsections=False)
            return found
    except (OSError, ConfigNotFound, ConfigParseError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise NoCredentials(
            f"credentials={path!r} cannot be read: {why}. The path is read where the Covalent server runs, by the user "
            "it runs as. Name a credentials file of AWS's, or leave credentials= unset for AWS's usual chain."
        ) from error


def async_session(access: Access) -> AioSession:
    """A session for calls on the event loop. It imports aiobotocore: call it the first time in a thread."""
    from aiobotocore.session import AioSession

    return _open(AioSession, access)


def botocore_session(access: Access) -> Session:
    """A session for clients whose calls block.

    Raises:
        NoCredentials: The credentials file is not there, or lacks the profile.
    """
    import botocore.session

    return _open(botocore.session.Session, access)


def blocking_session(access: Access, beside: AioSession) -> boto3.Session:
    """A boto3 session for bulk bytes in threads, with the same credentials.

    Args:
        beside: The session for calls on the event loop; both share its service models, which saves 13 MB.
    """
    import boto3

    core = botocore_session(access)
    core.register_component("data_loader", beside.get_component("data_loader"))
    return boto3.Session(botocore_session=core, region_name=region_of(core, access))


def region_of(session: Any, access: Access) -> str:
    """The executor's region, else that of AWS's chain, else `DEFAULT_REGION`."""
    # Containers and newer SDKs set AWS_REGION; botocore reads AWS_DEFAULT_REGION only.
    return access.region or session.get_config_variable("region") or os.environ.get("AWS_REGION") or DEFAULT_REGION


@contextlib.contextmanager
def translate(operation: str, *, access: Access, of: str = "") -> Iterator[None]:
    """Turn botocore's errors inside the block into ours.

    Args:
        operation: ``"s3:PutObject"``.
        access: Named in messages about credentials, region and connection.
        of: The setting or id that the call was about: ``"s3_bucket_name='results'"``.

    Raises:
        AccessDenied, NotFound, AwsError: With the setting, its value, AWS's own words, and what to do.
        LocalFileError: What was sent could not be read, or this machine has no more files to open.
        SettingsError: The profile does not exist, or the endpoint or region is malformed.
    """
    from asyncio import TimeoutError as OutOfTime  # another class than TimeoutError before Python 3.11

    from aiohttp import ClientError as BrokenBody  # aiobotocore reads bodies with it and lets its errors through
    from botocore import exceptions as bc
    from botocore.parsers import ResponseParserError

    about = f" for {of}" if of else ""
    try:
        yield
    except bc.ClientError as error:
        raise _from_client_error(error, operation, access, of) from error
    except (foreign_answers.NotAws, ResponseParserError) as error:
        raise AwsError(
            f"{operation}{about}: what came was no answer of AWS's: {str(error)[:300]}. {foreign_answers.ADVICE}",
            operation=operation,
            code=foreign_answers.CODE,
            retryable=True,
        ) from error
    except bc.ProfileNotFound as error:
        raise NoCredentials(
            f"{setting_sources.profile(access.profile)}: {error}. `aws configure list-profiles` lists those of this "
            "machine; the Covalent server reads the files of the user it runs as."
        ) from error
    except (bc.NoCredentialsError, bc.PartialCredentialsError, bc.CredentialRetrievalError) as error:
        program = setting_sources.credential_process(error, access.profile)
        raise Unsigned(
            f"{operation}{about} found no credentials with {access.named()}: {error}. "
            + (
                program
                or "Set profile= or credentials=, or AWS_PROFILE or AWS_ACCESS_KEY_ID where the Covalent server is "
                f"started; with SSO, run `{setting_sources.login(access.profile)}`."
            ),
            operation=operation,
            code=type(error).__name__,
        ) from error
    except (bc.TokenRetrievalError, bc.UnauthorizedSSOTokenError, bc.SSOTokenLoadError) as error:
        raise Unsigned(
            f"{operation}{about}: the SSO session of {access.named()} cannot be used: {error}. Run "
            f"`{setting_sources.login(access.profile)}`.",
            operation=operation,
            code=type(error).__name__,
        ) from error
    except (bc.InvalidRegionError, bc.NoRegionError) as error:
        raise SettingsError(
            f"{setting_sources.region(access.region)}: {error}. Set region= to one such as eu-west-1."
        ) from error
    except (bc.ConnectionError, bc.HTTPClientError, bc.IncompleteReadError, BrokenBody, OutOfTime, OSError) as error:
        program = setting_sources.credential_process(error, access.profile)
        if program:
            raise Unsigned(
                f"{operation}{about} found no credentials with {access.named()}: {error}. {program}",
                operation=operation,
                code="CredentialRetrievalError",
            ) from error
        own = local_files.in_an_answer(error)
        if own is not None:
            raise local_files.error_of(own, "a file of this machine") from error
        endpoint = setting_sources.endpoint(error, access.endpoint_url)
        if endpoint:
            raise SettingsError(f"{operation}{about}: {endpoint}") from error
        text = str(error) or type(error).__name__
        raise AwsError(
            f"{operation}{about} could not reach AWS with {access.named()}: {text}. Check the network, and that the "
            "region exists" + (" and that endpoint_url answers." if access.endpoint_url else "."),
            operation=operation,
            code=type(error).__name__,
            retryable=True,
        ) from error
    except (bc.BotoCoreError, ValueError) as error:
        endpoint = setting_sources.endpoint(error, access.endpoint_url)
        if endpoint:
            raise SettingsError(f"{operation}{about}: {endpoint}") from error
        program = setting_sources.credential_process(error, access.profile)
        if program:
            raise Unsigned(
                f"{operation}{about} found no credentials with {access.named()}: {program}",
                operation=operation,
                code="CredentialRetrievalError",
            ) from error
        if not isinstance(error, bc.BotoCoreError):
            raise
        raise AwsError(f"{operation}{about}: {error}", operation=operation, code=type(error).__name__) from error


def _from_client_error(error: Any, operation: str, access: Access, of: str) -> AwsError:
    code = str(error.response.get("Error", {}).get("Code") or "unknown")
    words = str(error.response.get("Error", {}).get("Message") or "no message").rstrip(".")
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    said = f"{operation}{f' for {of}' if of else ''}: AWS said {code}: {words}."
    if code == foreign_answers.CODE:
        said = f"{operation}{f' for {of}' if of else ''}: what came was no answer of AWS's: {words}."
        return AwsError(f"{said} {foreign_answers.ADVICE}", operation=operation, code=code, retryable=True)
    if code in _THROTTLED or status == 429:
        return AwsError(f"{said} The API is throttled.", operation=operation, code=code, throttled=True)
    # The answer to a HEAD has no body that could say why.
    if code == "RequestTimeTooSkewed" or words.startswith(_OTHER_CLOCK) or (status == 403 and _is_other_time(error)):
        return Unsigned(f"{said} Set this machine's clock (NTP).", operation=operation, code=code)
    if code in _EXPIRED:
        login = setting_sources.login(access.profile)
        return Unsigned(
            f"{said} The credentials of {access.named()} have expired: renew them (`{login}`).",
            operation=operation,
            code=code,
        )
    if code in _UNKNOWN_KEY:
        return Unsigned(
            f"{said} AWS does not know the key of {access.named()}: check it (`aws sts get-caller-identity`).",
            operation=operation,
            code=code,
        )
    if code in _DENIED or status == 403:
        return AccessDenied(
            f"{said} Check that {access.named()} is the account you mean, and that its user or role may call "
            f"{operation}.",
            operation=operation,
            code=code,
        )
    if code in (
        "PermanentRedirect",
        "301",
        "IllegalLocationConstraintException",
        "AuthorizationHeaderMalformed",
    ):
        return NotFound(
            f"{said} The bucket is in another region than {access.region or 'the one of the chain'}: set region=.",
            operation=operation,
            code=code,
        )
    if status >= 500 or (status == 409 and operation.startswith("s3:")):  # a write at the same time: S3 says try again
        return AwsError(f"{said} This is a fault on AWS's side.", operation=operation, code=code, retryable=True)
    if code in _MISSING or status == 404:
        return NotFound(
            f"{said} Check the name, and that account and region are those meant ({access.named()}).",
            operation=operation,
            code=code,
        )
    return AwsError(said, operation=operation, code=code)


def _is_other_time(error: Any) -> bool:
    """Whether the answer's time differs so much from this machine's that AWS refuses signatures made here."""
    sent = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return abs(parsedate_to_datetime(sent).timestamp() - time.time()) > SIGNATURE_HOLDS_S
    except (TypeError, ValueError):
        return False


async def patiently(call: Callable[[], Awaitable[T]], patience_s: float) -> T:
    """Repeat a call while AWS throttles, fails or cannot be reached, with growing random pauses of up to 20 s.

    Raises:
        AwsError: At once, if the error is not retryable; else the last error, once ``patience_s`` or, without a
            connection, `UNREACHABLE_PATIENCE_S` have passed.
    """
    import tenacity  # imports asyncio and tornado; most commands never need it

    def is_enough(state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        unreachable = isinstance(error, AwsError) and error.code in _UNREACHABLE
        limit_s = min(patience_s, UNREACHABLE_PATIENCE_S) if unreachable else patience_s
        return (state.seconds_since_start or 0.0) >= limit_s

    async for attempt in tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, AwsError) and error.retryable),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=20),
        stop=is_enough,
        reraise=True,
    ):
        with attempt:
            return await call()
    raise AssertionError("tenacity returns or raises")
