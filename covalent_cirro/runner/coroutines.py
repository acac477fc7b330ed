"""Runs the coroutine of an ``async`` function to its end, as `asyncio.run` does in a script."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any


def finished(value: Any) -> Any:
    """The value itself; if it is a coroutine, the value that it returns, run in an event loop of its own."""
    if not isinstance(value, Coroutine):
        return value
    import asyncio

    return asyncio.run(value)
