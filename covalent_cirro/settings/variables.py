"""What the options `environment` and `secrets` may have: names of variables, values, references to secrets. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

MAX_ENVIRONMENT_BYTES = 12 * 1024
"""Bytes of `environment` as JSON, at most. A job definition has 24 KiB (Batch User Guide, Service quotas), and the rest
of it needs room."""

MAX_SECRETS = 50
"""Secrets of a job: each is some 150 bytes of the job definition, and a call to AWS at the start of each container."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_OF_AWS = ("AWS_BATCH", "AWS_CONTAINER_", "AWS_EXECUTION_ENV", "ECS_")
"""AWS refuses the first (Batch API Reference, ContainerProperties.environment), and sets the others."""
_OF_RUNNER = ("CIRRO_", "COVALENT_DISPATCH_ID")

RANK_VARIABLES = frozenset(
    {
        *("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK"),
        *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE"),
    }
)
"""What the runner sets in each process of an electron that runs in several (`runner/ranks.py`)."""

# --- credentials ------------------------------------------------------------------------------------------------------

CREDENTIAL_FORMS = (
    r"-----begin [a-z ]*private key|\bage-secret-key-1[a-z0-9]{16}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\baws_secret_access_key\s*[=:]"
    r"|\b(?:gh[pousr]_|github_pat_|gl(?:pat|dt|rt|ptt|ft|soat|cbt)-|xox[abeprs]-|xapp-|pypi-AgE|wandb_v1_"
    r"|[sr]k_(?:live|test)_|dckr_[po]at_|eyJ|hv[sbr]\.|ya29\.)[\w-]{16}"
    r"|\bsk-[\w-]{0,80}?[a-z0-9]{16}"
    r"|\b(?:hf_|gsk_|r8_)[a-z0-9]{16}"
    r"|\bnpm_[a-z0-9]{36}|\bdapi[a-f0-9]{32}|\bSG\.[\w-]{16,32}\.[\w-]{16}"
    r"|\bAIza[\w-]{35}"
    r"|\b(?:AccountKey|SharedAccessKey)=[a-z0-9+/]{40}"
    r"|\bhooks\.slack\.com/(?:services|workflows|triggers)/\w+/\w+/\w{16}"
    r"|\bbearer\s+[\w.~+/-]{16}"
)
"""Texts that are credentials by their form, of a regular expression that ignores case: a private key; keys of AWS,
GitHub, GitLab, Slack, PyPI, Weights & Biases, Stripe, Docker; a JSON web token; of Vault and Google; of OpenAI and
others, Hugging Face, Groq, Replicate, npm, Databricks, SendGrid; of Azure; an address of Slack; a header with one."""

URL_WITH_LOGIN = r"://[^/\s@]{0,200}:[^/\s@]{1,200}@"
"""A URL with a password, of a regular expression."""

_CREDENTIAL = re.compile(f"{CREDENTIAL_FORMS}|{URL_WITH_LOGIN}", re.IGNORECASE)
_SECRET_ACCESS_KEY = re.compile(r"(?=(?:.*[A-Z]){5})(?=(?:.*[a-z]){5})(?=.*\d)[A-Za-z0-9+/]{40}", re.ASCII)
"""An AWS secret access key has no prefix: it is 40 characters of Base64, letters of both cases mixed with digits."""
_AWS_CREDENTIALS = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"})
_NAMES_CREDENTIAL = re.compile(
    r"\w*(?:PASSWORD|PASSWD|PASSPHRASE)|MYSQL_PWD|KAGGLE_KEY"
    r"|(?:.*_)?(?:SECRET|SECRET_KEY|API_?KEY|ACCESS_KEY|PRIVATE_KEY|TOKEN|CREDENTIALS)",
    re.IGNORECASE,
)
_NO_CREDENTIAL = re.compile(
    r"|[~./].*|arn:.*|\d{1,6}|true|false|none|yes|no|on|off|<[^<>]*>|\[[^\[\]]*\]", re.IGNORECASE | re.DOTALL
)
"""Values of variables with such names that are none: nothing, a path, an ARN, a number, a switch, or a token of a
language model's vocabulary, such as ``<pad>`` and ``[SEP]``."""

_INSTEAD = (
    "Store it in AWS Secrets Manager or as an SSM parameter, and name it: secrets={{{name!r}: "
    '"arn:aws:secretsmanager:..."}} or {{{name!r}: "ssm:/..."}}. ECS gives the value to the electron, and nobody else '
    "sees it (docs/settings.md)."
)


def environment_problem(values: Mapping[str, str]) -> str | None:
    """Why `environment` cannot be as it is, without any of its values; `None` if it can."""
    for name, value in values.items():
        if text := _name_problem("environment", name):
            return text
        if "\0" in value:
            return f"environment: the value of {name!r} has a NUL character, which no environment variable can have."
        if not _is_unicode(value):
            return f"environment: the value of {name!r} has half of a surrogate pair, which no UTF-8 text can have."
        if name in _AWS_CREDENTIALS:
            return (
                f"environment: {name!r} is a credential of AWS, and who may see the job would see it. The electron has "
                "the rights of its job role: give them to that one (cirro deploy --parameter JobRolePolicyArns=...). "
                f"For another account: {_INSTEAD.format(name=name)}"
            )
        if _looks_like_a_credential(name, value):
            return (
                f"environment: the value of {name!r} looks like a credential, and who may see the job would see it "
                f"(DescribeJobs, the AWS console, the Covalent UI). {_INSTEAD.format(name=name)}"
            )
    size = len(json.dumps(dict(values)).encode())
    if size > MAX_ENVIRONMENT_BYTES:
        return (
            f"environment has {size:,} bytes as JSON, and {MAX_ENVIRONMENT_BYTES:,} are the most: it is a part of the "
            "job definition, for which AWS Batch has a limit. Pass what is large as an argument of the electron, or as "
            "a file."
        )
    return None


def _looks_like_a_credential(name: str, value: str) -> bool:
    by_name = _NAMES_CREDENTIAL.fullmatch(name) and not _NO_CREDENTIAL.fullmatch(value)
    return bool(by_name or _CREDENTIAL.search(value) or _SECRET_ACCESS_KEY.fullmatch(value.strip()))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- secrets ----------------------------------------------------------------------------------------------------------

_PART = r"[^:\x00-\x1f\x7f]*"
_PATH = r"[\w.-]+(?:/[\w.-]+)*"
_MANAGER_ARN = re.compile(
    r"(?P<arn>arn:aws[a-z-]*:secretsmanager:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):secret:[\w/+=.@-]+-[A-Za-z0-9]{6})"
    rf"(?::(?P<key>{_PART})(?::(?P<stage>{_PART})(?::(?P<version>{_PART}))?)?)?",
    re.ASCII,
)
_PARAMETER_ARN = re.compile(
    rf"arn:aws[a-z-]*:ssm:(?P<region>[a-z0-9-]+):(?P<account>\d{{12}}):parameter/(?P<name>{_PATH})", re.ASCII
)
_PARAMETER = re.compile(rf"ssm:(?P<name>/?{_PATH})", re.ASCII)


class SecretReference(NamedTuple):
    """Where the value of a secret is.

    Attributes:
        value_from: What ECS is told (ECS API Reference, Secret).
        service: ``"secretsmanager"`` or ``"ssm"``.
        id: What its service knows it by: an ARN, or the name of a parameter in the job's own region and account.
        region: Region of an ARN; empty for a name.
        key: Key of the JSON in it; empty for the whole value.
        account: Account of an ARN; empty for a name.
    """

    value_from: str
    service: str
    id: str
    region: str
    key: str = ""
    account: str = ""

    @property
    def name(self) -> str:
        """Name of a parameter, as SSM knows it; an ARN has no slash at the beginning of a name without folders."""
        path = self.id.partition(":parameter/")[2] or self.id
        return f"/{path}" if self.id.startswith("arn:") and "/" in path else path

    def arn(self, partition: str, region: str, account: str) -> str:
        """Its ARN.

        Args:
            partition: Partition of the jobs, such as ``aws``.
            region: Region of the jobs.
            account: Account of the jobs.
        """
        if self.id.startswith("arn:"):
            return self.id
        return f"arn:{partition}:ssm:{region}:{account}:parameter/{self.id.lstrip('/')}"


def reference(text: str) -> SecretReference | None:
    """The secret that a value of `secrets` names; `None` if it names none."""
    if found := _MANAGER_ARN.fullmatch(text):
        parts = [found[each] or "" for each in ("key", "stage", "version")]
        # ECS takes all three of them or none.
        ends = f":{':'.join(parts)}" if any(parts) else ""
        return SecretReference(
            f"{found['arn']}{ends}", "secretsmanager", found["arn"], found["region"], parts[0], found["account"]
        )
    if found := _PARAMETER_ARN.fullmatch(text):
        return SecretReference(text, "ssm", text, found["region"], account=found["account"])
    if found := _PARAMETER.fullmatch(text):
        return SecretReference(found["name"], "ssm", found["name"], "")
    return None


def secrets_problem(references: Mapping[str, str]) -> str | None:
    """Why `secrets` cannot be as it is, without any of its values; `None` if it can."""
    for name, text in references.items():
        if problem := _name_problem("secrets", name):
            return problem
        if reference(text) is None:
            # Not shown: somebody may have written the secret itself.
            return (
                f"secrets: what is given for {name!r} names no secret. It is the whole ARN of a secret of Secrets "
                'Manager, "arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-6CHARS" (with ":KEY" behind it for one '
                'key of its JSON), an SSM parameter "ssm:/NAME" of the job\'s region, or the ARN of a parameter; never '
                "the value itself. `aws secretsmanager describe-secret --secret-id NAME --query ARN` prints the ARN."
            )
    if len(references) > MAX_SECRETS:
        return (
            f"secrets has {len(references)} entries, and {MAX_SECRETS} are the most: they are a part of the job "
            "definition, for which AWS Batch has a limit. Put several values into one secret, as JSON, and read that."
        )
    return None


def properties_problem(properties: Mapping[str, object]) -> str | None:
    """Why `job_properties` cannot have variables or secrets, without their values; `None` where it has none."""
    for name in ("environment", "secrets"):
        if name in properties:
            return (
                f"job_properties: {name} is not set there, where the runner would see it, but by the executor's option "
                f"{name}, which the electron alone sees. Set {name}={{...}} on the executor."
            )
    return None


def _name_problem(option: str, name: str) -> str | None:
    if _NAME.fullmatch(name) is None:
        return (
            f"{option}: {name!r} cannot be the name of an environment variable: it has letters, digits and "
            "underscores, and begins with no digit."
        )
    if name.startswith(_OF_AWS):
        return f"{option}: {name!r} cannot be set: AWS sets the variables that begin so. Use another name."
    if name.startswith(_OF_RUNNER):
        return f"{option}: {name!r} cannot be set: covalent-cirro or Covalent itself needs it. Use another name."
    return None
