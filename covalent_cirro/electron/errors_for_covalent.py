"""Makes every error that reaches Covalent one whose text says what to do: Covalent shows ``str(error)`` and no more."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TypeVar

from covalent._shared_files import TaskCancelledError

from covalent_cirro.errors import CirroError

log = logging.getLogger(__name__)

T = TypeVar("T")


async def as_cirro_error(work: Awaitable[T]) -> T:
    """Do work for Covalent.

    Raises:
        CirroError: The work raised it, or another error: then the message names its class, and its traceback is logged.
        TaskCancelledError: The work raised it; Covalent knows what it means.
    """
    try:
        return await work
    except (CirroError, TaskCancelledError):
        raise
    except Exception as error:
        log.exception("Unexpected error")
        raise CirroError(f"Unexpected {type(error).__name__} in covalent-cirro: {error or 'no message'}") from error
