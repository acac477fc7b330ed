"""The secrets of a container: the ECS agent reads them with the execution role, before the container starts.

It fails in the agent's words (amazon-ecs-agent, ``asmsecret.go`` and ``ssmsecret.go``), and for Fargate in those of
Fargate (ECS Developer Guide, Resolve Amazon ECS ResourceInitializationError errors).
"""

from __future__ import annotations

import json
from collections.abc import Callable

from covalent_cirro.local.emulator.attempts.runtime import StartFailed
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.iam.policies import Access
from covalent_cirro.local.emulator.moto_internals import moto_secrets
from covalent_cirro.local.emulator.moto_internals.moto_secrets import NoSecret, StoredSecret

_FARGATE = "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: "
_RETRIED = "service call has been retried 1 time(s): "
_NO_KMS = "AccessDeniedException: Access to KMS is not allowed"  # GiamPy5/terraform-aws-directus#10

Ask = Callable[[Access], "str | None"]
"""Why the execution role may not do something; `None` if it may."""


def read(container: Json, account: str, region: str, ask: Ask, *, fargate: bool) -> dict[str, str]:
    """The values of ``secrets`` of a container, by name.

    Args:
        container: Properties of the container.
        account: Account of the job, in which parameters without an ARN are.
        region: Region of the job.
        ask: Asks the policies of the execution role.
        fargate: The job runs on Fargate.

    Raises:
        StartFailed: One is not there, or the role may not read it.
    """
    found = {}
    for entry in container.get("secrets") or []:
        value_from = str(entry["valueFrom"])
        in_manager = value_from.startswith("arn:") and value_from.split(":")[2] == "secretsmanager"
        where = value_from.split(":")[3] if value_from.startswith("arn:") else region
        try:
            found[str(entry["name"])] = (_secret if in_manager else _parameter)(value_from, account, where, ask)
        except NoSecret as error:
            raise StartFailed(None, _reason(str(error), value_from, where, in_manager, fargate)) from None
    return found


def _secret(value_from: str, account: str, region: str, ask: Ask) -> str:
    parts = value_from.split(":")
    arn, (key, stage, version) = ":".join(parts[:7]), [*parts[7:], "", "", ""][:3]
    _check(ask(Access("secretsmanager:GetSecretValue", arn)))
    stored = moto_secrets.secret(account, region, arn, stage, version)
    _check_key(stored, "secretsmanager", "SecretARN", region, ask)
    if not key:
        return stored.value
    try:
        value = json.loads(stored.value)[key]
    except (ValueError, KeyError, TypeError):
        raise NoSecret(f"retrieved secret from Secrets Manager did not contain json key {key}") from None
    return value if isinstance(value, str) else json.dumps(value)


def _parameter(value_from: str, account: str, region: str, ask: Ask) -> str:
    name = value_from
    if value_from.startswith("arn:"):
        account = value_from.split(":")[4]
        path = value_from.partition(":parameter/")[2]
        name = f"/{path}" if "/" in path else path
    _check(ask(Access("ssm:GetParameters", f"arn:aws:ssm:{region}:{account}:parameter/{name.lstrip('/')}")))
    stored = moto_secrets.parameter(account, region, name)
    _check_key(stored, "ssm", "PARAMETER_ARN", region, ask)
    return stored.value


def _check(refused: str | None) -> None:
    if refused is not None:
        raise NoSecret(f"AccessDeniedException: {refused} status code: 400")


def _check_key(stored: StoredSecret, service: str, context: str, region: str, ask: Ask) -> None:
    """A customer's key must let the role decrypt; AWS's own key lets everybody who may read the secret."""
    if not stored.key:
        return
    account = stored.arn.split(":")[4]
    key = stored.key if stored.key.startswith("arn:") else f"arn:aws:kms:{region}:{account}:key/{stored.key}"
    conditions = {
        f"kms:EncryptionContext:{context}": [stored.arn],
        "kms:ViaService": [f"{service}.{region}.amazonaws.com"],
    }
    if ask(Access("kms:Decrypt", key, conditions)) is not None:
        raise NoSecret(f"{_NO_KMS} status code: 400")


def _reason(words: str, value_from: str, region: str, in_manager: bool, fargate: bool) -> str:
    arn = ":".join(value_from.split(":")[:7])
    if fargate and in_manager:
        of = f"failed to fetch secret {arn} from secrets manager: {words}"
        return f"{_FARGATE}unable to retrieve secret from asm: {_RETRIED}{of}"
    if fargate:
        return f"{_FARGATE}unable to retrieve secrets from ssm: {_RETRIED}{words.replace('invalid', 'invalid ssm')}"
    if in_manager:
        return f"Fetching secret data from AWS Secrets Manager in region {region}: secret {arn}: {words}"
    return f"Fetching secret data from SSM Parameter Store in {region}: {words}"
