"""Placeholders for objects that cannot be unpickled on the server's host, where Covalent's own nodes run.

A lattice's code passes results on without using them, and names functions that only jobs call. Neither needs the
modules of these objects: a placeholder is pickled as the object that it stands for. Computing with a placeholder raises
`NotOpened`, which says why the object is not there.
"""

from __future__ import annotations

import importlib
import io
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

from covalent_cirro.runner import failures

REMEDY = (
    "A lattice's or sublattice's own code may hand it on, but not compute with it: do that in an electron, or install "
    "the module where the Covalent server runs."
)


class NotOpened(Exception):
    """Code used an object on the server's host that can only be passed on there."""


class Placeholder:
    """Stands for an object; its pickle is the object's.

    Args:
        what: Name of the object, for messages.
        why: Why the object cannot be unpickled here.
        pickled: Returns the object's pickle.
    """

    def __init__(self, what: str, why: BaseException, pickled: Callable[[], bytes]) -> None:
        self._cirro = (what, why, pickled)

    def __reduce__(self) -> Any:
        """Pickle the object itself."""
        return pickle.loads, (self._cirro[2](),)

    def __deepcopy__(self, _: Any) -> Placeholder:
        """The placeholder itself: copying would need the object."""
        return self

    def __copy__(self) -> Placeholder:
        return self

    def __str__(self) -> str:
        return f"<{self._cirro[0]}, not opened on the server's host>"

    __repr__ = __str__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):  # Python, pickle and Covalent look up optional attributes
            raise AttributeError(name)
        self._refuse(name)

    def _refuse(self, used: str) -> NoReturn:
        what, why, _ = self._cirro
        raise NotOpened(
            f"{what} cannot be opened where the Covalent server runs ({failures.describe(why)}), and its {used} is "
            f"asked for there. {REMEDY}"
        ) from why


class Missing(Placeholder):
    """Stands for a function, class or module that cannot be imported here.

    Covalent asks a function for its name, signature and source, and nothing of that is needed to send it to a job.
    """

    def __init__(self, module: str, name: str, why: BaseException) -> None:
        full = f"{module}.{name}" if name else module
        super().__init__(full, why, lambda: _named(module, name))
        self.__name__ = full.rpartition(".")[2]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "workflow_function":  # Covalent looks for a lattice by it
            raise AttributeError(name)
        return super().__getattr__(name)

    def __call__(self, *_: Any, **__: Any) -> Any:
        self._refuse("result")

    def __bool__(self) -> bool:
        """True, for code that checks whether a function was given."""
        return True


def _refusing(name: str) -> Callable[..., Any]:
    def refused(self: Placeholder, *_: Any, **__: Any) -> Any:
        self._refuse(name)

    return refused


for _name in (
    *("len", "iter", "next", "contains", "getitem", "setitem", "delitem", "reversed", "int", "float", "complex"),
    *("index", "round", "neg", "pos", "abs", "invert", "lt", "le", "gt", "ge", "add", "sub", "mul", "matmul"),
    *("truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift", "radd", "rsub", "rmul", "rmatmul"),
    *("rtruediv", "rfloordiv", "rmod", "rpow", "rand", "ror", "rxor", "enter", "aenter", "await", "aiter"),
):
    setattr(Placeholder, f"__{_name}__", _refusing(f"__{_name}__"))


class Result(Placeholder):
    """Stands for a result. Comparing raises: it would compare the placeholder, and be wrong."""

    __eq__ = _refusing("__eq__")
    __ne__ = _refusing("__ne__")
    __bool__ = _refusing("__bool__")
    __call__ = _refusing("__call__")
    __hash__ = object.__hash__


def _named(module: str, name: str) -> bytes:
    """The pickle of an object that is found by its name: STACK_GLOBAL, or a call of `importlib.import_module`."""

    def text(of: str) -> bytes:
        data = of.encode()
        return b"X" + len(data).to_bytes(4, "little") + data

    if name:
        return b"\x80\x04" + text(module) + text(name) + b"\x93."
    return b"\x80\x04cimportlib\nimport_module\n" + text(module) + b"\x85R."


def load(file: BinaryIO) -> Any:
    """Unpickle a lattice's code, with a `Missing` for each name that cannot be imported here."""
    return _Unpickler(file).load()


def loads(data: bytes) -> Any:
    """As `load`."""
    return load(io.BytesIO(data))


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The object of a name, or a placeholder for it."""
        if (module, name) == ("cloudpickle.cloudpickle", "subimport"):  # a module that is a function's global
            return _import
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError) as error:
            return Missing(module, name, error)


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        return Missing(module, "", error)
