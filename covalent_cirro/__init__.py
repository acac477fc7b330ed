"""covalent-cirro: run the electrons of a Covalent lattice as AWS Batch jobs.

Imports nothing by itself (PEP 562): the container runs ``python -m covalent_cirro.runner`` without Covalent,
and a client that asks for `CirroBatchExecutor` gets Covalent loaded first, whatever it imported before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from covalent_cirro.cirro import CirroBatchExecutor as CirroBatchExecutor
    from covalent_cirro.errors import ElectronFailed as ElectronFailed
    from covalent_cirro.history.partial_results import partial as partial
    from covalent_cirro.item_maps import item as item
    from covalent_cirro.item_maps import mapped as mapped
    from covalent_cirro.stored_values.storing import stored as stored

__all__ = ["CirroBatchExecutor", "ElectronFailed", "__version__", "item", "mapped", "partial", "stored"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("CirroBatchExecutor", "partial", "stored"):
        import covalent  # noqa: F401  (its plugin loader must see our module complete)
    if name == "CirroBatchExecutor":
        from covalent_cirro.cirro import CirroBatchExecutor

        return CirroBatchExecutor
    if name == "stored":
        from covalent_cirro.stored_values.storing import stored

        return stored
    if name == "partial":
        from covalent_cirro.history.partial_results import partial

        return partial
    if name == "ElectronFailed":
        from covalent_cirro.errors import ElectronFailed

        return ElectronFailed
    if name in ("item", "mapped"):
        from covalent_cirro import item_maps

        return getattr(item_maps, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
