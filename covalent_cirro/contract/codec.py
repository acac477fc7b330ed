"""Reads and writes the types of documents as JSON: the annotations of a type say what it looks like and its limits.

A document is made of NamedTuples, whose fields are texts, numbers, bytes, tuples, dicts and NamedTuples. The limit of a
field stands in its annotation: ``Annotated[str, 256]`` is a text of at most 256 characters, and a longer one is cut;
``Annotated[int, 99]`` a whole number from 0 to 99; ``Annotated[tuple[X, ...], 10]`` has at most ten entries, and a dict
alike. A function in place of the limit reads the field in its own way. Without a limit a text has `limits.ID_CHARS`
characters, and a number is up to `limits.MAX_NUMBER`. A field that is null or missing has its default, or is `None`
where its type allows that, or is refused.

A NamedTuple is an object whose keys are its fields. `KEYS` and `COMPACT` have the exceptions. A method
``check(path, limit)`` is called for each one that was read, with the limit of the field that it is in.

Pure, and the standard library only: executor and runner use it.
"""

from __future__ import annotations

import base64
import binascii
import functools
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, Union, cast

from covalent_cirro.contract.fields import Fields, listed, mapping, number, text, whole
from covalent_cirro.contract.limits import ID_CHARS, MAX_NUMBER
from covalent_cirro.contract.maps import Span
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.references import Inline, Joined, JoinedParts, NodeOutput

T = TypeVar("T")

KEYS: dict[type, str] = {Inline: "inline", NodeOutput: "node", Joined: "bodies", JoinedParts: "parts"}
"""Types with one field, and its key, by which the members of a union are told apart."""

COMPACT = (Span,)
"""Types that are lists of their fields' values: documents have many of them."""

_Read = Callable[[object, str], Any]


def read(of: type[T], value: object, path: str) -> T:
    """Read a value of a type.

    Args:
        of: The type.
        value: What `json.loads` returned.
        path: Where the value is, for messages: ``call.json.tasks[0]``.

    Raises:
        ProtocolError: The value has another form, or is beyond a limit; the message names the place.
    """
    return cast(T, _reader(cast(Any, of))(value, path))


def dump(value: Any) -> Any:
    """A value as `json.dumps` takes it; `read` reads it."""
    if isinstance(value, tuple):
        if hasattr(value, "_asdict"):
            if key := KEYS.get(type(value)):
                return {key: dump(value[0])}
            if not isinstance(value, COMPACT):
                return {name: dump(each) for name, each in value._asdict().items()}
        return [dump(each) for each in value]
    if isinstance(value, dict):
        return {name: dump(each) for name, each in value.items()}
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value


@functools.cache
def _reader(of: Any) -> _Read:
    """The function that reads a type; made once for each."""
    limit: Any = None
    if typing.get_origin(of) is Annotated:
        of, limit = typing.get_args(of)
        if callable(limit):
            return cast(_Read, limit)
    origin, inner = typing.get_origin(of), typing.get_args(of)
    if of is str:
        return lambda value, path: text(value, path, limit or ID_CHARS)
    if of is int:
        return lambda value, path: whole(value, path, limit or MAX_NUMBER)
    if of is float:
        return lambda value, path: number(value, path, limit or MAX_NUMBER)
    if of is bytes:
        return _bytes
    if origin in (Union, types.UnionType):
        return _union([each for each in inner if each is not types.NoneType], type(None) in inner, limit)
    if origin is tuple and inner[-1] is Ellipsis:
        each = _reader(inner[0])
        return lambda value, path: tuple(
            each(one, f"{path}[{i}]") for i, one in enumerate(listed(value, path, limit or MAX_NUMBER))
        )
    if origin is tuple:
        return _fixed(inner, tuple)
    if origin is dict:
        return _dict(_reader(inner[1]), limit or MAX_NUMBER)
    return _named(of, limit)


def _bytes(value: object, path: str) -> bytes:
    try:
        return base64.b64decode(text(value, path, MAX_NUMBER), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError(f"{path} is not base64") from error


def _dict(each: _Read, most: float) -> _Read:
    return lambda value, path: {name: each(one, f"{path}.{name}") for name, one in mapping(value, path, most).items()}


def _fixed(inner: typing.Sequence[Any], make: Callable[[Any], Any]) -> _Read:
    readers = [_reader(each) for each in inner]

    def read(value: object, path: str) -> Any:
        found = listed(value, path, len(readers))
        if len(found) != len(readers):
            raise ProtocolError(f"{path} has {len(found)} entries instead of {len(readers)}")
        return make(each(one, f"{path}[{i}]") for i, (each, one) in enumerate(zip(readers, found, strict=True)))

    return read


def _union(members: list[Any], optional: bool, limit: Any) -> _Read:
    readers = [(KEYS.get(each), _reader(Annotated[each, limit] if limit else each)) for each in members]
    last = next((read for key, read in readers if key is None), None)

    def read(value: object, path: str) -> Any:
        if value is None and optional:
            return None
        if len(readers) == 1:
            return readers[0][1](value, path)
        fields = Fields(value, path)
        found = next((read for key, read in readers if key is not None and fields.raw(key) is not None), last)
        if found is None:
            raise ProtocolError(f"{path} has none of {', '.join(key for key, _ in readers if key)}")
        return found(value, path)

    return read


def _named(of: Any, limit: Any) -> _Read:
    hints = typing.get_type_hints(of, include_extras=True)
    check: Callable[[Any, str, Any], None] | None = getattr(of, "check", None)
    names, defaults = of._fields, of._field_defaults
    key = KEYS.get(of)
    if of in COMPACT:
        made = _fixed([hints[name] for name in names], lambda each: of._make(each))
    else:
        keys = [key] if key else names
        plan = [(name, _reader(hints[name]), name in defaults, defaults.get(name)) for name in names]

        def made(value: object, path: str) -> Any:
            fields = Fields(value, path)
            found = []
            for key, (_, read, has_default, default) in zip(keys, plan, strict=True):
                raw = fields.raw(key)
                found.append(default if raw is None and has_default else read(raw, f"{path}.{key}"))
            return of._make(found)

    if check is None:
        return made

    def checked(value: object, path: str) -> Any:
        found = made(value, path)
        check(found, path, limit)
        return found

    return checked
