"""Reads the fields of a JSON document. An error names the path of a field with a wrong type or beyond its limit.

Pure, and the standard library only: executor and runner use it.
"""

from __future__ import annotations

import json
from typing import Any

from covalent_cirro.contract import texts
from covalent_cirro.contract.limits import ID_CHARS, MAX_NUMBER
from covalent_cirro.contract.problems import FORMAT, ProtocolError, UnknownFormat

# --- values -----------------------------------------------------------------------------------------------------


def text(value: object, path: str, most: int = ID_CHARS) -> str:
    """A text. A longer text is cut, and lone surrogates are replaced."""
    if not isinstance(value, str):
        raise ProtocolError(f"{path} is not a string")
    return texts.fitted(value, most)


def whole(value: object, path: str, most: int = MAX_NUMBER) -> int:
    """A whole number from 0."""
    if type(value) is not int:
        raise ProtocolError(f"{path} is not a whole number")
    _check(value, path, most)
    return value


def number(value: object, path: str, most: float = MAX_NUMBER) -> float:
    """A finite number from 0."""
    if type(value) is not int and not isinstance(value, float):
        raise ProtocolError(f"{path} is not a number")
    _check(value, path, most)
    return float(value)


def _check(value: float, path: str, most: float) -> None:
    # Before conversion to a float, which a whole number of JSON may be too large for. NaN fails the comparison.
    if not 0 <= value <= most:
        raise ProtocolError(f"{path} is not a number from 0 to {most:g}")


def listed(value: object, path: str, most: float = MAX_NUMBER) -> list[Any]:
    """A list."""
    if not isinstance(value, list):
        raise ProtocolError(f"{path} is not a list")
    _check_length(len(value), path, most)
    return value


def mapping(value: object, path: str, most: float = MAX_NUMBER) -> dict[str, Any]:
    """An object as a dict."""
    if not isinstance(value, dict):
        raise ProtocolError(f"{path} is not an object")
    _check_length(len(value), path, most)
    return value


def _check_length(length: int, path: str, most: float) -> None:
    if length > most:
        raise ProtocolError(f"{path} has {length} entries, at most {most} are possible")


def shown(value: object) -> str:
    """A value for a message; the value may have any type and length."""
    return texts.cut(repr(value), ID_CHARS)


# --- objects ----------------------------------------------------------------------------------------------------


class Fields:
    """A JSON object whose fields are read by type; an error names the path of the field."""

    def __init__(self, value: object, path: str) -> None:
        self._value = mapping(value, path)
        self.path = path

    def text(self, key: str, most: int = ID_CHARS) -> str:
        """A text; see `text`."""
        return text(self._value.get(key), f"{self.path}.{key}", most)

    def whole(self, key: str, most: int = MAX_NUMBER) -> int:
        """A whole number from 0."""
        return whole(self._value.get(key), f"{self.path}.{key}", most)

    def maybe_whole(self, key: str, most: int = MAX_NUMBER) -> int | None:
        """A whole number from 0; `None` if it is null or missing."""
        return None if self._value.get(key) is None else self.whole(key, most)

    def number(self, key: str, most: float = MAX_NUMBER) -> float:
        """A finite number from 0."""
        return number(self._value.get(key), f"{self.path}.{key}", most)

    def items(self, key: str, most: int = MAX_NUMBER) -> list[Any]:
        """A list."""
        return listed(self._value.get(key), f"{self.path}.{key}", most)

    def mapping(self, key: str, most: int = MAX_NUMBER) -> dict[str, Any]:
        """An object as a dict."""
        return mapping(self._value.get(key), f"{self.path}.{key}", most)

    def raw(self, key: str) -> Any:
        """The value as it is, of any type; `None` if it is missing."""
        return self._value.get(key)


def load(data: bytes, document: str, most_bytes: int) -> dict[str, Any]:
    """Parse a document.

    Raises:
        UnknownFormat: The document has another format version.
        ProtocolError: The document is too long, or no JSON object.
    """
    if len(data) > most_bytes:
        raise ProtocolError(f"{document} has {len(data)} bytes, more than the {most_bytes} of any well-formed one")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{document} is not JSON: {error}") from error
    found = mapping(value, document)
    if found.get("format") != FORMAT:
        raise UnknownFormat(document, found.get("format"))
    return found
