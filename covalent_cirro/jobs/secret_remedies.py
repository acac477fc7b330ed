"""What to do about a secret that ECS could not read, by what ECS or AWS says of it. Pure."""

from __future__ import annotations

import re

from covalent_cirro.contract import texts
from covalent_cirro.jobs.ends import SECRET_NOT_READ
from covalent_cirro.jobs.states import JobDetail
from covalent_cirro.settings import Settings

_WORDS_CHARS = 200

_BEFORE = re.compile(
    r"ResourceInitializationError: .*?resource retrieval failed: |service call has been retried \d+ time\(s\): "
    r"|fetching secret data from AWS Secrets Manager in region \S+: |unable to retrieve secrets? from (?:asm|ssm): ",
    re.IGNORECASE,
)
_NOT_AUTHORIZED = re.compile(r"(AccessDeniedException: )User: \S+ is (not authorized to perform: [\w:]+).*", re.DOTALL)
"""Whose role it is, and on which secret, is said beside it."""
_AFTER = re.compile(r",? *status code: \d+.*", re.DOTALL)
_BEFORE_NAME = re.compile(r"arn:[a-z-]+:secretsmanager:[^:]*:\d*:secret:")
_NO_VERSION = re.compile(r"secret value for (?:VersionId|staging label)")
_UNREACHABLE = re.compile(
    r"RequestCanceled|RequestError|i/o timeout|context deadline|dial tcp|no such host|connection refused", re.IGNORECASE
)


def words(detail: JobDetail) -> str:
    """What ECS says of the secret that it could not read, in whole; empty where it says nothing of one."""
    last = detail.attempts[-1] if detail.attempts else None
    said = [detail.reason, detail.status_reason, *((last.reason, last.status_reason) if last is not None else ())]
    return next((each for each in said if SECRET_NOT_READ.match(each)), "")


def short(said: str) -> str:
    """The part of it that names the secret and the reason. An ARN is in it as a whole, or only the secret's name is."""
    words = _AFTER.sub("", _NOT_AUTHORIZED.sub(r"\1\2", _BEFORE.sub("", said))).strip().rstrip(".")
    if len(words) > _WORDS_CHARS:
        words = _BEFORE_NAME.sub("", words)
    return texts.cut(words, _WORDS_CHARS)


def remedy(said: str, settings: Settings) -> str:
    """What to do.

    Args:
        said: From `words`.
        settings: Settings of the executor.
    """
    role = settings.batch_execution_role_name
    if "Access to KMS" in said or "kms:Decrypt" in said:
        return (
            f"Let the execution role {role} decrypt with the secret's KMS key: the key's own policy must allow it, "
            "too. `cirro deploy --parameter SecretArns=...` allows it for the deployment's role."
        )
    if "AccessDenied" in said or "not authorized" in said:
        return (
            f"Let the execution role {role} read it: `cirro deploy --parameter SecretArns=ARN,...`, with the ARNs of "
            "all secrets that jobs may have."
        )
    if "json key" in said:
        return "Name a key that the secret's JSON has: in the option secrets, it stands behind the secret's ARN."
    if _NO_VERSION.search(said):
        return (
            "Name a version that the secret has (`aws secretsmanager list-secret-version-ids --secret-id ARN`): in the "
            'option secrets, it stands behind the ARN and the key, "ARN:KEY:STAGE:VERSION".'
        )
    if _UNREACHABLE.search(said):
        return (
            "Let the hosts reach Secrets Manager and SSM: in a private network, by interface endpoints of "
            "secretsmanager and ssm in their subnets (docs/deploy.md)."
        )
    return (
        "Make it in the jobs' region (aws secretsmanager create-secret, or aws ssm put-parameter --type "
        "SecureString), or correct the option secrets of its executor; `cirro doctor` checks those of the config."
    )
