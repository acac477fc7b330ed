"""Searches: trials of an Optuna study, chosen by what is known.

Imports nothing by itself (PEP 562). Optuna and BoTorch are imported when a name that needs them is asked for; they come
with ``pip install 'covalent-cirro[search]'``, and nothing else in this package needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from covalent_cirro.search.thompson_sampler import ThompsonSampler as ThompsonSampler

__all__ = ["ThompsonSampler"]


def __getattr__(name: str) -> Any:
    if name == "ThompsonSampler":
        try:
            from covalent_cirro.search.thompson_sampler import ThompsonSampler
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != "optuna":
                raise
            raise ModuleNotFoundError(
                "search.ThompsonSampler needs Optuna and BoTorch: run pip install 'covalent-cirro[search]'.",
                name=error.name,
            ) from error
        return ThompsonSampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
