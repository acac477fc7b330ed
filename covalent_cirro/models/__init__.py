"""Models: trained weights in the bucket, in versions that nobody changes, and a pointer to the current version of each.

Imports nothing by itself (PEP 562). safetensors is imported when weights are registered; it comes with
``pip install 'covalent-cirro[models]'``, and nothing else in this package needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from covalent_cirro.models.model_version import ModelVersion as ModelVersion
    from covalent_cirro.models.registering import current as current
    from covalent_cirro.models.registering import point as point
    from covalent_cirro.models.registering import read as read
    from covalent_cirro.models.registering import register as register
    from covalent_cirro.models.registering import versions as versions

__all__ = ["ModelVersion", "current", "point", "read", "register", "versions"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "model_version" if name == "ModelVersion" else "registering"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
