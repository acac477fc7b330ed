"""Digests of pickles that are equal for equal content, although two processes pickle the same content differently.

Pure. A pickle is read as a list of instructions and never executed: nothing that it names is imported or called. Knows
nothing of calls and S3.
"""

from __future__ import annotations

import functools
import hashlib
import pickletools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

CLASS_MARKERS = (b"_make_skeleton_class", b"_make_skeleton_enum")
"""Names in a pickle of cloudpickle that defines a class itself, and does not name the module of the class."""

_ATOMS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    }
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}

_CODE_PLACE = {16: (10, 12), 18: (10, 13)}
"""Indexes of ``co_filename`` and ``co_firstlineno`` among the arguments of a code object, by the number of arguments
(``cloudpickle._code_reduce``; Python 3.10 has 16 arguments, 3.11 and 3.12 have 18)."""

_CLASS_ID = {"_make_skeleton_class": 4, "_make_skeleton_enum": 5, "_make_typevar": 5}
"""Index of the argument with the random id of the class (``cloudpickle._class_getnewargs``)."""

_FILLED = {"list": "items", "dict": "pairs", "set": "elements"}
"""Kinds of objects that are made empty, with the name for instructions that fill them."""

_EXTRA_VISITS = 20
"""Most visits of an object, on average: elements of sets are visited again for their order."""


class Unreadable(ValueError):
    """The bytes are no pickle, or a pickle with instructions that this module does not know."""


class Described(NamedTuple):
    """The content of a pickle.

    Attributes:
        digest: Equal for pickles of equal content.
        classes: Ids of the classes that the pickle defines, in the order of its content. They are not in the digest.
            Two pickles of one process define the same class if the ids are equal.
    """

    digest: str
    classes: tuple[str, ...]


@functools.lru_cache(maxsize=128)
def describe(data: bytes) -> Described:
    """Describe the content of a pickle; of bytes that are no pickle, or an unknown one, the bytes themselves.

    The digest leaves out what differs between two processes that pickle the same content: the order of sets, whether
    equal immutable objects are one object, the random ids of classes, and file and first line of functions (which an
    edit above them changes). All else is in the digest: code, names, defaults, closures, globals, order, and which
    mutable objects are one object.
    """
    try:
        root, effects, size = _read(data)
        writer = _DigestWriter(budget=_EXTRA_VISITS * (size + 10))
        writer.write(root)
        for effect in effects:
            writer.write(effect)
    except (Unreadable, RecursionError):
        return Described("bytes:" + hashlib.sha256(data).hexdigest(), ())
    return Described(writer.digest(), tuple(writer.classes))


# --- reading ----------------------------------------------------------------------------------------------------------


class _Object:
    """An object that is no number and no text: how it is made, and what is done to it afterwards."""

    __slots__ = ("kind", "parts")

    def __init__(self, kind: str, parts: Iterable[Any] = ()) -> None:
        self.kind = kind
        self.parts: list[Any] = list(parts)


_MARK = _Object("mark")


def _read(data: bytes) -> tuple[Any, list[_Object], int]:
    """The object of a pickle, the calls whose results are dropped, and the number of objects."""
    machine = _StackMachine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                if machine.stack[-1] is _MARK:
                    raise Unreadable("it ends in the middle of something")
                return machine.stack[-1], machine.effects, machine.made
            machine.do(opcode.name, argument)
    except Unreadable:
        raise
    except Exception as error:  # a malformed pickle
        raise Unreadable(str(error)) from error
    raise Unreadable("it has no end")


class _StackMachine:
    """Stack and memo of a pickle, with descriptions of objects in the place of objects."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.effects: list[_Object] = []
        self.made = 0

    def do(self, name: str, argument: Any) -> None:
        """Do one instruction."""
        stack = self.stack
        if name in _ATOMS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[int(argument)])
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        else:
            raise Unreadable(f"{name} is not understood")

    def make(self, kind: str, parts: Iterable[Any] = ()) -> None:
        """Push a new object."""
        self.made += 1
        self.stack.append(_Object(kind, parts))

    def since_mark(self) -> list[Any]:
        """Pop all that was pushed since the last mark."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise Unreadable("a mark is missing")
        found = self.stack[at + 1 :]
        del self.stack[at:]
        return found

    def add(self, what: str, parts: list[Any]) -> None:
        """Add an operation to the object on top of the stack."""
        target = self.stack[-1]
        if not isinstance(target, _Object):
            raise Unreadable(f"{what} of a constant")
        if _FILLED.get(target.kind) == what:
            target.parts += parts
        else:
            target.parts.append(_Object(what, parts))

    def last(self, number: int) -> list[Any]:
        """Pop a number of objects, and return them in the order in which they were pushed."""
        if number == 0:
            return []
        found = self.stack[-number:]
        if len(found) < number:
            raise Unreadable("the stack is empty")
        del self.stack[-number:]
        return found

    def pop(self) -> None:
        """Drop the top of the stack. A call whose result is dropped changes its arguments: it is kept."""
        dropped = self.stack.pop()
        if isinstance(dropped, _Object) and dropped.kind == "call":
            self.effects.append(dropped)


def _called(machine: _StackMachine, _: Any) -> None:
    """A call. Of a pickle inside a pickle (`nested.py`), the content of the inner one."""
    function, arguments = machine.last(2)
    if _is_unpickling(function, arguments):
        root, effects, made = _read(arguments.parts[0])
        machine.stack.append(root)
        machine.effects += effects
        machine.made += made
    else:
        machine.make("call", [function, arguments])


def _is_unpickling(function: Any, arguments: Any) -> bool:
    return (
        isinstance(function, _Object)
        and (function.kind, function.parts) in (("global", ["pickle", "loads"]), ("global", ["_pickle", "loads"]))
        and isinstance(arguments, _Object)
        and arguments.kind == "tuple"
        and len(arguments.parts) == 1
        and isinstance(arguments.parts[0], bytes)
    )


def _calls(kind: str, number: int) -> Callable[[_StackMachine, Any], None]:
    def call(machine: _StackMachine, _: Any) -> None:
        machine.make(kind, machine.last(number))

    return call


def _unmarked(machine: _StackMachine, _: Any) -> None:
    machine.since_mark()


def _added(what: str, number: int) -> Callable[[_StackMachine, Any], None]:
    def added(machine: _StackMachine, _: Any) -> None:
        machine.add(what, machine.last(number) if number else machine.since_mark())

    return added


_INSTRUCTIONS: dict[str, Callable[[_StackMachine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": _unmarked,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "EMPTY_LIST": lambda machine, _: machine.make("list"),
    "EMPTY_DICT": lambda machine, _: machine.make("dict"),
    "EMPTY_SET": lambda machine, _: machine.make("set"),
    "EMPTY_TUPLE": lambda machine, _: machine.make("tuple"),
    "LIST": lambda machine, _: machine.make("list", machine.since_mark()),
    "DICT": lambda machine, _: machine.make("dict", machine.since_mark()),
    "TUPLE": lambda machine, _: machine.make("tuple", machine.since_mark()),
    "FROZENSET": lambda machine, _: machine.make("frozenset", machine.since_mark()),
    "TUPLE1": _calls("tuple", 1),
    "TUPLE2": _calls("tuple", 2),
    "TUPLE3": _calls("tuple", 3),
    "BYTEARRAY8": lambda machine, data: machine.make("bytearray", [bytes(data)]),
    "GLOBAL": lambda machine, names: machine.make("global", str(names).split(" ", 1)),
    "STACK_GLOBAL": _calls("global", 2),
    "REDUCE": _called,
    "NEWOBJ": _calls("new", 2),
    "NEWOBJ_EX": _calls("new", 3),
    "OBJ": lambda machine, _: machine.make("obj", machine.since_mark()),
    "INST": lambda machine, names: machine.make("inst", [str(names), *machine.since_mark()]),
    "BUILD": _added("state", 1),
    "APPEND": _added("items", 1),
    "APPENDS": _added("items", 0),
    "SETITEM": _added("pairs", 2),
    "SETITEMS": _added("pairs", 0),
    "ADDITEMS": _added("elements", 0),
}


# --- digests ----------------------------------------------------------------------------------------------------------


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

    def _write_new(self, what: _Object) -> None:
        parts, place = what.parts, _arguments_of(what)
        if what.kind in ("set", "frozenset"):
            parts = sorted(parts, key=self._order)
        if place is not None:
            # The arguments of a class, or of a code object with a mutable constant, are a tuple of their own.
            name, arguments = place
            self._say("call", f"{name} {len(arguments)} {len(parts)}")
            for index, each in enumerate(arguments):
                if index == _CLASS_ID.get(name) and isinstance(each, str):
                    self._say("class", str(self.classes.setdefault(each, len(self.classes))))
                elif name != "CodeType" or index not in _CODE_PLACE.get(len(arguments), ()):
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
        if not isinstance(what, _Object):
            return _digest(["constant", repr(what)])
        if id(what) not in self._values:
            self._values[id(what)] = None  # an object can contain itself through a mutable one only
            self._values[id(what)] = self._value_of(what)
        return self._values[id(what)]

    def _value_of(self, what: _Object) -> str | None:
        parts = what.parts
        if what.kind == "call":
            place = _arguments_of(what)
            if len(parts) != 2 or place is None or place[0] in _CLASS_ID:
                return None
            left_out = _CODE_PLACE.get(len(place[1]), ()) if place[0] == "CodeType" else ()
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


def _arguments_of(what: _Object) -> tuple[str, list[Any]] | None:
    """Name and arguments of a call that makes a code object, a class, or a type without a name; else `None`."""
    if what.kind != "call":
        return None
    function, arguments = what.parts[0], what.parts[1]
    if not isinstance(function, _Object) or not isinstance(arguments, _Object) or arguments.kind != "tuple":
        return None
    if function.kind == "global":
        module, name = function.parts
        if module == "cloudpickle.cloudpickle" and (name in _CLASS_ID or name == "_builtin_type"):
            return str(name), arguments.parts
        return None
    made = _arguments_of(function)
    if made is not None and made == ("_builtin_type", ["CodeType"]):
        return "CodeType", arguments.parts
    return None


def _digest(parts: Iterable[str]) -> str:
    found = hashlib.sha256()
    for each in parts:
        data = each.encode("utf-8", "surrogatepass")
        found.update(f"{len(data)}:".encode() + data)
    return found.hexdigest()
