"""Texts of the electron that are stored or shown: without the values of its secrets, where it has any.

Each process that writes such texts says once which secrets it has. Without secrets nothing is imported, and texts stay
as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from covalent_cirro.runner.masking import Mask

_mask: Mask | None = None


def hide(secrets: Mapping[str, str]) -> Mask | None:
    """Leave the values of these secrets out of texts, in this process and in those that are forked from it.

    Returns:
        What finds them; `None` without secrets.
    """
    global _mask
    if secrets:
        from covalent_cirro.runner.masking import Mask

        _mask = Mask(secrets.values())
    return _mask


def shown(text: str) -> str:
    """The text without values of secrets. It must not be cut before: half a value would not be found."""
    return text if _mask is None else _mask.text(text)


def longest() -> int:
    """Bytes of the longest text that is left out; 0 without secrets."""
    return 0 if _mask is None else _mask.longest
