"""An emulated AWS on a laptop: moto for S3, IAM, Logs and others, and an AWS Batch of our own that really runs jobs.

Imports nothing by itself (PEP 562): ``from covalent_cirro.local.emulator import Emulator`` costs what it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from covalent_cirro.local.emulator.batch.model import Timing as Timing
    from covalent_cirro.local.emulator.emulator import Emulator as Emulator

__all__ = ["Emulator", "Timing"]


def __getattr__(name: str) -> Any:
    if name == "Emulator":
        from covalent_cirro.local.emulator.emulator import Emulator

        return Emulator
    if name == "Timing":
        from covalent_cirro.local.emulator.batch.model import Timing

        return Timing
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
