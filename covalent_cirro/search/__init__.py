"""Searches: trials of an Optuna study, each a dispatch of its own, chosen by what is known.

Imports nothing by itself (PEP 562). Optuna and BoTorch are imported when a name that needs them is asked for; they come
with ``pip install 'covalent-cirro[search]'``, and nothing else in this package needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from covalent_cirro.search.optimizing import optimize as optimize
    from covalent_cirro.search.thompson_sampler import ThompsonSampler as ThompsonSampler

__all__ = ["ThompsonSampler", "optimize"]

_MODULES = {"ThompsonSampler": "thompson_sampler", "optimize": "optimizing"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("optuna", "botorch", "gpytorch", "torch"):
            raise
        raise ModuleNotFoundError(
            f"search.{name} needs {error.name}: run pip install 'covalent-cirro[search]'.", name=error.name
        ) from error


def __dir__() -> list[str]:
    return sorted(__all__)
