"""Reads a pickle as a list of instructions, and describes the objects that it would make.

Pure. A pickle is never executed: nothing that it names is imported or called.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable
from typing import Any

_ATOMS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    }
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}

CODE_PLACE = {16: (10, 12, 13), 18: (10, 13, 14)}
"""Indexes of ``co_filename``, ``co_firstlineno`` and ``co_linetable`` among the arguments of a code object, by the
number of arguments (``cloudpickle._code_reduce``; Python 3.10 has 16 arguments, 3.11 and 3.12 have 18)."""

CLASS_ID = {"_make_skeleton_class": 4, "_make_skeleton_enum": 5, "_make_typevar": 5}
"""Index of the argument with the random id of the class (``cloudpickle._class_getnewargs``)."""

_FILLED = {"list": "items", "dict": "pairs", "set": "elements"}
"""Kinds of objects that are made empty, with the name for instructions that fill them."""


class Unreadable(ValueError):
    """The bytes are no pickle, or a pickle with instructions that this module does not know."""


class Object:
    """An object that is no number and no text: how it is made, and what is done to it afterwards."""

    __slots__ = ("kind", "parts")

    def __init__(self, kind: str, parts: Iterable[Any] = ()) -> None:
        self.kind = kind
        self.parts: list[Any] = list(parts)


_MARK = Object("mark")


def read(data: bytes) -> tuple[Any, list[Object], int]:
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
        self.effects: list[Object] = []
        self.without_module: set[int] = set()
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
        self.stack.append(Object(kind, parts))

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
        if not isinstance(target, Object):
            raise Unreadable(f"{what} of a constant")
        if _FILLED.get(target.kind) == what:
            target.parts += parts
        else:
            target.parts.append(Object(what, parts))

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
        if isinstance(dropped, Object) and dropped.kind == "call":
            self.effects.append(dropped)


def _called(machine: _StackMachine, _: Any) -> None:
    """A call. Of a pickle inside a pickle (`nested.py`), the content of the inner one."""
    function, arguments = machine.last(2)
    if _is_unpickling(function, arguments):
        root, effects, made = read(arguments.parts[0])
        machine.stack.append(root)
        machine.effects += effects
        machine.made += made
    else:
        machine.make("call", [function, arguments])
        _leave_out_module(machine.stack[-1], machine.without_module)


def _leave_out_module(call: Object, done: set[int]) -> None:
    """Remove name and path of the module from what cloudpickle says of a function or class that it pickles by value.

    They are those of the user's script, whose name and path are no part of the work. A function that uses its
    ``__name__`` or ``__file__`` has them among its globals, which stay.

    Args:
        call: A call.
        done: Ids of objects for which this was done: each is read once, however many calls have it.
    """
    name, arguments = cloudpickle_call(call) or ("", [])
    if name == "_make_skeleton_enum" and len(arguments) > _ENUM_MODULE:
        arguments[_ENUM_MODULE] = ""
    found: Any = call.parts[1]
    for index in _MODULE_NAMED_IN.get(name, ()):
        parts = found.parts if isinstance(found, Object) and found.kind == "tuple" else ()
        found = parts[index] if index < len(parts) else None
    if isinstance(found, Object) and found.kind == "dict" and found is not call.parts[1] and id(found) not in done:
        done.add(id(found))
        pairs = list(zip(found.parts[::2], found.parts[1::2], strict=False))
        module = next((value for key, value in pairs if key == "__module__" and isinstance(value, str)), None)
        found.parts = []
        for key, value in pairs:
            if key == "__doc__" and isinstance(value, str) and module and name == "_class_setstate":
                value = value.replace(f"{module}.", "")  # dataclasses name types of attributes there
            found.parts += () if _names_a_script(key, value) else (key, value)


def _names_a_script(key: Any, value: Any) -> bool:
    # The name of a package stays: relative imports depend on it. That a script has none is said in two ways.
    return key in ("__name__", "__file__", "__module__") or (key == "__package__" and value in (None, ""))


_ENUM_MODULE = 4
_MODULE_NAMED_IN: dict[str, tuple[int, ...]] = {
    "_make_function": (1,),
    "_function_setstate": (1, 1),
    "_make_skeleton_class": (3,),
    "_class_setstate": (1, 0),
}
"""Where cloudpickle names the module: an index of the arguments, and then of tuples inside them."""


def _is_unpickling(function: Any, arguments: Any) -> bool:
    return (
        isinstance(function, Object)
        and (function.kind, function.parts) in (("global", ["pickle", "loads"]), ("global", ["_pickle", "loads"]))
        and isinstance(arguments, Object)
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


def cloudpickle_call(what: Any) -> tuple[str, list[Any]] | None:
    """Name and arguments of a call of a function of cloudpickle; else `None`."""
    if not isinstance(what, Object) or what.kind != "call":
        return None
    function, arguments = what.parts[0], what.parts[1]
    if not isinstance(function, Object) or not isinstance(arguments, Object) or arguments.kind != "tuple":
        return None
    if function.kind != "global" or function.parts[0] != "cloudpickle.cloudpickle":
        return None
    return str(function.parts[1]), arguments.parts


def arguments_of(what: Any) -> tuple[str, list[Any]] | None:
    """Name and arguments of a call that makes a code object, a class, or a type without a name; else `None`."""
    made = cloudpickle_call(what)
    if made is not None:
        return made if made[0] in CLASS_ID or made[0] == "_builtin_type" else None
    if not isinstance(what, Object) or what.kind != "call" or not isinstance(what.parts[1], Object):
        return None
    by = cloudpickle_call(what.parts[0])
    is_code = by == ("_builtin_type", ["CodeType"]) and what.parts[1].kind == "tuple"
    return ("CodeType", what.parts[1].parts) if is_code else None
