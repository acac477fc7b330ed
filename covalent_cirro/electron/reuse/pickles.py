"""Digests of pickles that are equal for equal content, although two processes pickle the same content differently.

Pure. A pickle is read as a list of instructions and never executed: nothing that it names is imported or called. Knows
nothing of calls and S3.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from covalent_cirro.electron.reuse.pickle_objects import (
    CLASS_ID,
    CODE_PLACE,
    Object,
    Unreadable,
    arguments_of,
    cloudpickle_call,
    read,
)

CLASS_MARKERS = (b"_make_skeleton_class", b"_make_skeleton_enum")
"""Names in a pickle of cloudpickle that defines a class itself, and does not name the module of the class."""

_CODE_VARIABLES = 9
"""Index of ``co_varnames``, which begins with the parameters, among the arguments of a code object."""

_EXTRA_VISITS = 20
"""Most visits of an object, on average: elements of sets are visited again for their order."""


class Described(NamedTuple):
    """The content of a pickle.

    Attributes:
        digest: Equal for pickles of equal content.
        classes: Ids of the classes that the pickle defines, in the order of its content. They are not in the digest.
            Two pickles of one process define the same class if the ids are equal.
        texts: All texts in it, but for paths of files; `None` if the bytes are no pickle, or an unknown one.
        parameters: If it is a function that is pickled by value, the names of its positional parameters.
        globals: Modules and names of all functions, classes and other objects that it names and does not contain.
    """

    digest: str
    classes: tuple[str, ...]
    texts: frozenset[str] | None
    parameters: tuple[str, ...] = ()
    globals: frozenset[tuple[str, str]] = frozenset()


@functools.lru_cache(maxsize=32)
def describe(data: bytes) -> Described:
    """Describe the content of a pickle; of bytes that are no pickle, or an unknown one, the bytes themselves.

    The digest leaves out what differs between two processes that pickle the same content: the order of sets, whether
    equal immutable objects are one object, the random ids of classes, where functions and classes are defined (path,
    module and lines). All else is in the digest: code, names, defaults, closures, globals, order, and which mutable
    objects are one object.
    """
    try:
        root, effects, size = read(data)
        writer = _DigestWriter(budget=_EXTRA_VISITS * (size + 10))
        writer.write(root)
        for effect in effects:
            writer.write(effect)
    except (Unreadable, RecursionError):
        return Described("bytes:" + hashlib.sha256(data).hexdigest(), (), None)
    texts, names = _texts([root, *effects])
    return Described(writer.digest(), tuple(writer.classes), texts, _parameters(root), names)


def _texts(objects: list[Any]) -> tuple[frozenset[str], frozenset[tuple[str, str]]]:
    """All texts in objects, and the modules and names of what they only name."""
    found: set[str] = set()
    names: set[tuple[str, str]] = set()
    seen: set[int] = set()
    left = list(objects)
    while left:
        what = left.pop()
        if isinstance(what, str):
            found.add(what)
        elif isinstance(what, Object) and id(what) not in seen:
            seen.add(id(what))
            if what.kind == "global" and len(what.parts) == 2:
                names.add((str(what.parts[0]), str(what.parts[1])))
            made = arguments_of(what)
            parts = what.parts
            if made is not None and made[0] == "CodeType":
                parts = [each for index, each in enumerate(made[1]) if index not in CODE_PLACE.get(len(made[1]), ())]
                parts += what.parts[2:]
            left += parts
    return frozenset(found), frozenset(names)


def _parameters(root: Any) -> tuple[str, ...]:
    name, arguments = cloudpickle_call(root) or ("", [])
    _, code = (arguments_of(arguments[0]) if name == "_make_function" and arguments else None) or ("", [])
    if len(code) not in CODE_PLACE or not isinstance(code[0], int) or not isinstance(code[_CODE_VARIABLES], Object):
        return ()
    return tuple(str(each) for each in code[_CODE_VARIABLES].parts[: code[0]])


class _DigestWriter:
    """Hashes an object with all its parts, in the order of its content."""

    def __init__(self, budget: int, shared: _DigestWriter | None = None) -> None:
        self.classes: dict[str, int] = {}
        self._hash = hashlib.sha256()
        self._numbers: dict[int, int] = {}
        self._values: dict[int, str | None] = shared._values if shared else {}
        self._left: list[int] = shared._left if shared else [budget]

    def digest(self) -> str:
        """Digest of all that was written."""
        return self._hash.hexdigest()

    def write(self, what: Any) -> None:
        """Add an object. A mutable object is written once, and where it occurs again its number is written."""
        self._left[0] -= 1
        if self._left[0] < 0:
            raise Unreadable("its sets are too entangled")
        value = self._value(what)
        if value is not None:
            self._say("value", value)
        elif id(what) in self._numbers:
            self._say("again", str(self._numbers[id(what)]))
        else:
            self._numbers[id(what)] = len(self._numbers)
            self._write_new(what)

    def _write_new(self, what: Object) -> None:
        parts, place = what.parts, arguments_of(what)
        if what.kind in ("set", "frozenset"):
            parts = sorted(parts, key=self._order)
        if place is not None:
            # The arguments of a class, or of a code object with a mutable constant, are a tuple of their own.
            name, arguments = place
            self._say("call", f"{name} {len(arguments)} {len(parts)}")
            for index, each in enumerate(arguments):
                if index == CLASS_ID.get(name) and isinstance(each, str):
                    self._say("class", str(self.classes.setdefault(each, len(self.classes))))
                elif name != "CodeType" or index not in CODE_PLACE.get(len(arguments), ()):
                    self.write(each)
            parts = parts[2:]
        else:
            self._say(what.kind, str(len(parts)))
        for each in parts:
            self.write(each)

    def _order(self, element: Any) -> str:
        value = self._value(element)
        if value is not None:
            return value
        alone = _DigestWriter(0, shared=self)
        alone.write(element)
        return alone.digest()

    def _value(self, what: Any) -> str | None:
        """The digest of an immutable object; `None` for a mutable one."""
        if not isinstance(what, Object):
            return _digest(["constant", repr(what)])
        if id(what) not in self._values:
            self._values[id(what)] = None  # an object can contain itself through a mutable one only
            self._values[id(what)] = self._value_of(what)
        return self._values[id(what)]

    def _value_of(self, what: Object) -> str | None:
        parts = what.parts
        if what.kind == "call":
            place = arguments_of(what)
            if len(parts) != 2 or place is None or place[0] in CLASS_ID:
                return None
            left_out = CODE_PLACE.get(len(place[1]), ()) if place[0] == "CodeType" else ()
            parts = ["" if index in left_out else each for index, each in enumerate(place[1])]
            return self._values_of(place[0], parts)
        if what.kind == "global":
            return self._values_of("global", parts)
        if what.kind == "tuple":
            return self._values_of("tuple", parts)
        if what.kind == "frozenset":
            return self._values_of("frozenset", parts, in_order=False)
        return None

    def _values_of(self, kind: str, parts: list[Any], *, in_order: bool = True) -> str | None:
        values = [self._value(each) for each in parts]
        if None in values:
            return None
        known = [each for each in values if each is not None]
        return _digest([kind, *(known if in_order else sorted(known))])

    def _say(self, kind: str, what: str) -> None:
        self._hash.update(f"{kind}:{len(what)}:{what};".encode("utf-8", "surrogatepass"))


def _digest(parts: Iterable[str]) -> str:
    found = hashlib.sha256()
    for each in parts:
        data = each.encode("utf-8", "surrogatepass")
        found.update(f"{len(data)}:".encode() + data)
    return found.hexdigest()
