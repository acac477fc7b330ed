"""What a stored value is called for people: ``array float64 (2500, 2500), 50 MB``."""

from __future__ import annotations

from typing import Any

from covalent_cirro.contract import texts
from covalent_cirro.contract.limits import STORED_CHARS

_UNITS = ("bytes", "kB", "MB", "GB", "TB")

_NAMES = {"ndarray": "array", "Tensor": "tensor", "Parameter": "tensor"}
"""Shorter names of common types."""

_NAME_CHARS = 60


def value_label(value: Any, size: int) -> str:
    """The label of a value whose pickle has so many bytes."""
    kind = type(value)
    words = [_NAMES.get(kind.__qualname__, kind.__qualname__)]
    try:
        dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
        if dtype is not None and type(dtype).__name__ != "property":
            words.append(str(dtype).removeprefix("torch."))
        if shape is not None:
            words.append(str(tuple(shape)))
        elif isinstance(value, (list, tuple, dict, set, frozenset)):
            words.append(f"of {len(value)}")
    except Exception:  # an object of somebody else's class: its name says enough
        words = words[:1]
    return _label(" ".join(words), size)


def file_label(name: str, size: int) -> str:
    """The label of a file."""
    return _label(f"file {texts.cut(name, _NAME_CHARS)}", size)


def folder_label(name: str, files: int, size: int) -> str:
    """The label of a folder with so many files."""
    return _label(f"folder {texts.cut(name, _NAME_CHARS)} ({files} file{'' if files == 1 else 's'})", size)


def _label(words: str, size: int) -> str:
    one_line = " ".join("".join(each if each.isprintable() else " " for each in words).split())
    return texts.fitted(f"{texts.cut(one_line, STORED_CHARS - 20)}, {size_text(size)}", STORED_CHARS)


def size_text(size: int) -> str:
    """A size in decimal units: ``50 MB``, ``1.2 GB``, ``312 bytes``."""
    amount, unit = float(size), 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}" if unit and amount < 9.95 else f"{amount:.0f} {_UNITS[unit]}"
