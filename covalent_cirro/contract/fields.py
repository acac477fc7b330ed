"""Reads the fields of a JSON document. An error names the path of a field with a wrong type or beyond its limit.

Pure, and the standard library only: executor and runner use it.
"""

from __future__ import annotations

import json
from typing import Any

from covalent_cirro.contract import texts
from covalent_cirro.contract.limits import ID_CHARS, MAX_NUMBER
from covalent_cirro.contract.protocol import FORMAT, ProtocolError, UnknownFormat


class Fields:
    """A JSON object whose fields are read by type; an error names the path of the field."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise ProtocolError(f"{path} is not an object")
        self._value = value
        self.path = path

    def _get(self, key: str, types: tuple[type, ...], what: str) -> Any:
        value = self._value.get(key)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ProtocolError(f"{self.path}.{key} is not {what}")
        return value

    def text(self, key: str, most: int = ID_CHARS) -> str:
        """A text. A longer text is cut, and lone surrogates are replaced."""
        return texts.fitted(self._get(key, (str,), "a string"), most)

    def whole(self, key: str, most: int = MAX_NUMBER) -> int:
        """A whole number from 0."""
        value: int = self._get(key, (int,), "a whole number")
        self._check(key, value, most)
        return value

    def maybe_whole(self, key: str, most: int = MAX_NUMBER) -> int | None:
        """A whole number from 0; `None` if it is null or missing."""
        return None if self._value.get(key) is None else self.whole(key, most)

    def number(self, key: str, most: float = MAX_NUMBER) -> float:
        """A finite number from 0."""
        value: int | float = self._get(key, (int, float), "a number")
        self._check(key, value, most)
        return float(value)

    def maybe_number(self, key: str, most: float = MAX_NUMBER) -> float | None:
        """A finite number from 0; `None` if it is null or missing."""
        return None if self._value.get(key) is None else self.number(key, most)

    def _check(self, key: str, value: float, most: float) -> None:
        # Before conversion to a float, which a whole number of JSON may be too large for. NaN fails the comparison.
        if not 0 <= value <= most:
            raise ProtocolError(f"{self.path}.{key} is not a number from 0 to {most:g}")

    def items(self, key: str, most: int = MAX_NUMBER) -> list[Any]:
        """A list."""
        value: list[Any] = self._get(key, (list,), "a list")
        if len(value) > most:
            raise ProtocolError(f"{self.path}.{key} has {len(value)} entries, at most {most} are possible")
        return value

    def mapping(self, key: str, most: int = MAX_NUMBER) -> dict[str, Any]:
        """An object as a dict."""
        value: dict[str, Any] = self._get(key, (dict,), "an object")
        if len(value) > most:
            raise ProtocolError(f"{self.path}.{key} has {len(value)} entries, at most {most} are possible")
        return value

    def inner(self, key: str) -> Fields:
        """An object as `Fields`."""
        return Fields(self._value.get(key), f"{self.path}.{key}")

    def raw(self, key: str) -> Any:
        """The value as it is, of any type; `None` if it is missing."""
        return self._value.get(key)


def shown(value: object) -> str:
    """A value for a message; the value may have any type and length."""
    return texts.cut(repr(value), ID_CHARS)


def load(data: bytes, document: str, most_bytes: int) -> Fields:
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
    fields = Fields(value, document)
    if fields.raw("format") != FORMAT:
        raise UnknownFormat(document, fields.raw("format"))
    return fields
