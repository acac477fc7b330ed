"""Variables and secrets of an electron in its job definition. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from covalent_cirro.contract.packed_variables import ENVIRONMENT_VARIABLE, SECRET_PREFIX, dump_environment
from covalent_cirro.settings import Settings
from covalent_cirro.settings.variables import reference


def environment_entries(settings: Settings) -> list[dict[str, str]]:
    """``environment`` of the container for the option `environment`; empty without it."""
    if not settings.environment:
        return []
    return [{"name": ENVIRONMENT_VARIABLE, "value": dump_environment(settings.environment)}]


def secret_entries(settings: Settings) -> list[dict[str, str]]:
    """``secrets`` of the container (Batch API Reference, Secret), in the order of their names."""
    found = ((name, reference(text)) for name, text in sorted(settings.secrets.items()))
    return [{"name": SECRET_PREFIX + name, "valueFrom": each.value_from} for name, each in found if each is not None]


def digest(settings: Settings) -> str:
    """A digest of both, of the references to secrets and not of their values; empty where there is neither.

    Calls of electrons with other variables, or other secrets, are other work (`electron/reuse/work.py`).
    """
    said: list[Any] = [
        dict(settings.environment),
        {each["name"]: each["valueFrom"] for each in secret_entries(settings)},
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest() if any(said) else ""
