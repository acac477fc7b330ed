"""Reads Secrets Manager and SSM parameters of moto."""

from __future__ import annotations

from typing import NamedTuple

from covalent_cirro.local.emulator.moto_internals.loading import IMPORTING


class StoredSecret(NamedTuple):
    """A value, its ARN, and the customer's KMS key that it is encrypted with; empty for AWS's own key."""

    value: str
    arn: str
    key: str = ""


class NoSecret(Exception):
    """There is no such value, in the words of the service."""


def secret(account: str, region: str, arn: str, stage: str, version: str) -> StoredSecret:
    """The text of a version of a secret.

    Raises:
        NoSecret: There is none.
    """
    with IMPORTING:
        from moto.secretsmanager.exceptions import SecretsManagerClientError
        from moto.secretsmanager.models import secretsmanager_backends

    backend = secretsmanager_backends[account][region]
    try:
        found = backend.get_secret_value(arn, version or None, stage or None)
        key = str(backend.secrets[arn].kms_key_id or "")
    except SecretsManagerClientError as error:
        words = str(error.message)
        if stage and not version and arn in backend.secrets and "value for" not in words:  # moto knows no words for it
            words = f"Secrets Manager can't find the specified secret value for staging label: {stage}"
        raise NoSecret(f"{error.error_type}: {words}") from error
    return StoredSecret(str(found.get("SecretString", "")), str(found["ARN"]), _customers("secretsmanager", key))


def parameter(account: str, region: str, name: str) -> StoredSecret:
    """The decrypted value of a parameter, by its name.

    Raises:
        NoSecret: There is none.
    """
    with IMPORTING:
        from moto.ssm.models import ssm_backends

    found = ssm_backends[account][region].get_parameter(name)
    if found is None:
        raise NoSecret(f"invalid parameters: {name}")
    key = str(found.keyid or "") if found.parameter_type == "SecureString" else ""
    value = found.response_object(decrypt=True, region=region)["Value"]
    return StoredSecret(
        str(value), f"arn:aws:ssm:{region}:{account}:parameter/{name.lstrip('/')}", _customers("ssm", key)
    )


def _customers(service: str, key: str) -> str:
    return "" if key.removeprefix("alias/") == f"aws/{service}" else key
