"""Which values are lists of items for a mapped electron. Pure; knows no type of other libraries by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from covalent_cirro.contract.maps import MAX_ITEMS

LISTS = "a list, a tuple, a range, an iterator, or an array, whose items are those of its first axis"
"""What `items_of` takes, in words."""


def items_of(value: Any, name: str) -> Sequence[Any]:
    """The items of an argument that is mapped; an iterator is read to its end.

    Args:
        value: The argument.
        name: Name of its parameter, for messages.

    Raises:
        TypeError: It is no list of items (`LISTS`).
        ValueError: It has more than `maps.MAX_ITEMS` items.
    """
    if not _is_list(value):
        raise TypeError(f"{name} is mapped, so that it must be {LISTS}; it is of type {type(value).__name__}.")
    items = value if isinstance(value, (list, tuple, range)) else list(value)
    if len(items) > MAX_ITEMS:
        raise ValueError(f"{name} has {len(items):,} items; a map has {MAX_ITEMS:,} at most.")
    return items


def _is_list(value: Any) -> bool:
    if isinstance(value, (str, bytes, bytearray, memoryview, dict, set, frozenset)):
        return False
    # Arrays of NumPy, PyTorch and others; a table of pandas has keys, and is iterated over their names.
    is_array = hasattr(value, "__array__") and not hasattr(value, "keys") and len(getattr(value, "shape", ())) > 0
    return is_array or isinstance(value, (Sequence, Iterator))


def unequal(lengths: dict[str, int]) -> str:
    """Why lists of these lengths cannot be zipped, by the names of their parameters; empty if they can."""
    if len(set(lengths.values())) < 2:
        return ""
    told = ", ".join(f"{name} has {length:,}" for name, length in lengths.items())
    return f"Arguments that are mapped together need equally many items: {told}."
