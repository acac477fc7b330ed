"""Runs what an ``async`` function gave to its end, as `asyncio.run` does for a script."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any


def finished(value: Any) -> Any:
    """The value itself; of an ``async`` function, what it returns once it has run in an event loop of its own."""
    if not isinstance(value, Coroutine):
        return value
    import asyncio

    return asyncio.run(value)
