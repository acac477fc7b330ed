"""How the variables and secrets of an electron reach it: in variables of the container that only its process unpacks.

The runner shares the container with the electron, and a variable such as ``PYTHONPATH`` or ``AWS_ENDPOINT_URL`` would
change the runner, too. So all plain variables are one variable of the container, in JSON, and each secret has a prefix.
Pure, and the standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping

ENVIRONMENT_VARIABLE = "CIRRO_ENVIRONMENT"
"""Variable of the container: the option `environment` as JSON."""

SECRET_PREFIX = "CIRRO_SECRET_"  # noqa: S105
"""What the name of each secret begins with in the container, before the name that the electron sees."""


def dump_environment(environment: Mapping[str, str]) -> str:
    """The value of `ENVIRONMENT_VARIABLE`; equal for equal variables."""
    return json.dumps(dict(environment), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def load_environment(text: str) -> dict[str, str]:
    """What `dump_environment` was given; empty for anything else, which an image may have set by itself."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if name and isinstance(value, str)}


def secrets_in(environ: Mapping[str, str]) -> dict[str, str]:
    """Values of the secrets in the container's variables, by the names that the electron sees."""
    return {name[len(SECRET_PREFIX) :]: value for name, value in environ.items() if _is_secret(name)}


def unpack(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Give the electron's process its variables and secrets under their own names, and take the packed ones away.

    Args:
        environ: The environment of the electron's process, which is changed.

    Returns:
        The secrets, by name.
    """
    secrets = secrets_in(environ)
    given = load_environment(environ.pop(ENVIRONMENT_VARIABLE, ""))
    for name in secrets:
        del environ[SECRET_PREFIX + name]
    environ.update({**given, **secrets})
    return secrets


def _is_secret(name: str) -> bool:
    return name.startswith(SECRET_PREFIX) and len(name) > len(SECRET_PREFIX)
