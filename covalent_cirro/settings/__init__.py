"""Every option of the executor, declared once, and the values that a job gets of them. Pure.

Imports nothing by itself (PEP 562): commands that show help know a constant of it and no option.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from covalent_cirro.settings.constants import MIB_PER_GB as MIB_PER_GB
    from covalent_cirro.settings.constants import SECTION as SECTION
    from covalent_cirro.settings.declared import BY_NAME as BY_NAME
    from covalent_cirro.settings.declared import MAX_ATTEMPTS as MAX_ATTEMPTS
    from covalent_cirro.settings.declared import MIN_MEMORY_MIB as MIN_MEMORY_MIB
    from covalent_cirro.settings.declared import OPTIONS as OPTIONS
    from covalent_cirro.settings.declared import Option as Option
    from covalent_cirro.settings.declared import Settings as Settings
    from covalent_cirro.settings.resolving import check as check
    from covalent_cirro.settings.resolving import plain as plain
    from covalent_cirro.settings.resolving import problem as problem
    from covalent_cirro.settings.resolving import resolve as resolve
    from covalent_cirro.settings.resolving import resolve_known as resolve_known

_PLACES = {
    "MIB_PER_GB": "constants",
    "SECTION": "constants",
    "BY_NAME": "declared",
    "MAX_ATTEMPTS": "declared",
    "MIN_MEMORY_MIB": "declared",
    "OPTIONS": "declared",
    "Option": "declared",
    "Settings": "declared",
    "check": "resolving",
    "plain": "resolving",
    "problem": "resolving",
    "resolve": "resolving",
    "resolve_known": "resolving",
}
"""Names of this package, and the modules that have them."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from covalent_cirro.settings import constants, declared, resolving

    modules = {"constants": constants, "declared": declared, "resolving": resolving}
    return getattr(modules[_PLACES[name]], name)


def __dir__() -> list[str]:
    return sorted(_PLACES)
