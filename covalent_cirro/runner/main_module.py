"""The electron's ``__main__``: where the functions and classes of the user's script are found by their names.

cloudpickle sends them by value, and recreates them where it unpickles. Pools of processes, DataLoaders and
``torch.save`` use pickle, which sends a name only: ``__main__.f``, or the name in a module that `cirro run` made of a
file. So the functions and classes from the electron's pickles are stored under their names. Spawned processes get them
through ``__main__.__file__``, which `multiprocessing` runs in each of them first; the file is written when it is read.

Functions inside functions, lambdas, and what the electron itself defines are not found by name, as in any script.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any, BinaryIO

_MAKERS = frozenset({"_make_function", "_make_skeleton_class", "_make_skeleton_enum"})
"""Functions in ``cloudpickle.cloudpickle`` that pickles by value call; a new major version may have others."""

_SCRIPT = '''\
"""Made by covalent-cirro: what a process that an electron spawned has as its __main__."""
import os, pickle, sys, types
import cloudpickle
with open(os.path.join(os.path.dirname(__file__), "main.pickle"), "rb") as _file:
    _modules = pickle.load(_file)
globals().update(_modules.pop("__main__"))
for _name, _content in _modules.items():
    _module = sys.modules.setdefault(_name, types.ModuleType(_name))
    vars(_module).update(_content)
    cloudpickle.register_pickle_by_value(_module)
'''


class _Main(types.ModuleType):
    """A ``__main__`` that has a file as soon as it has functions or classes."""

    def __getattr__(self, name: str) -> Any:
        if name == "__file__" and _current is not None and _current.main is self and _current.names:
            return _current.written()
        raise AttributeError(f"module '__main__' has no attribute {name!r}")


class _Names:
    """The modules of one task, and the names that were put into them.

    Attributes:
        main: The task's ``__main__``.
        others: Modules that do not exist otherwise in this container, by name.
        names: Names that were put into each module.
    """

    def __init__(self, folder: str) -> None:
        self.main = _Main("__main__")
        self.others: dict[str, types.ModuleType] = {}
        self.names: dict[str, dict[str, Any]] = {}
        self._folder = folder
        self._written = 0

    def keep(self, made: Any) -> None:
        """Put a function or class into the module of its name, unless the module has that name already."""
        module, name = getattr(made, "__module__", None), getattr(made, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(name, str) or not name.isidentifier():
            return
        holder = self.main if module == "__main__" else self._other(module)
        if holder is not None and name not in vars(holder):
            setattr(holder, name, made)
            self.names.setdefault(module, {})[name] = made

    def _other(self, name: str) -> types.ModuleType | None:
        if name not in self.others:
            import importlib.util

            try:
                # A module that can be imported is another one: its functions were sent by reference.
                if "." in name or name in sys.modules or importlib.util.find_spec(name) is not None:
                    return None
            except (ImportError, ValueError):
                return None
            import cloudpickle

            module = self.others[name] = sys.modules[name] = types.ModuleType(name)
            cloudpickle.register_pickle_by_value(module)  # so that results can be read elsewhere
        return self.others[name]

    def forget(self) -> None:
        """Remove the modules of the task that has ended: the next task has names of its own."""
        import cloudpickle

        for name, module in self.others.items():
            with contextlib.suppress(ValueError):  # the electron removed it already
                cloudpickle.unregister_pickle_by_value(module)
            sys.modules.pop(name, None)

    def written(self) -> str:
        """Write a script that recreates all of them; returns its path."""
        import cloudpickle

        folder = os.path.join(self._folder, "main")
        script = os.path.join(folder, "main.py")
        count = sum(map(len, self.names.values()))
        if count != self._written:
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, "main.pickle"), "wb") as file:
                cloudpickle.dump({"__main__": {}, **self.names}, file)
            with open(script, "w") as text:
                text.write(_SCRIPT)
            self._written = count
        return script


_current: _Names | None = None


def begin(folder: str) -> None:
    """Give the process a new ``__main__``, for a task.

    Args:
        folder: Where its file is written when ``__file__`` is read.
    """
    global _current
    if _current is not None:
        _current.forget()
    _current = _Names(folder)
    sys.modules["__main__"] = _current.main


def load(file: BinaryIO) -> Any:
    """Unpickle, and make the functions and classes that were sent by value findable by their names."""
    made: list[Any] = []
    value = _Unpickler(file, made).load()
    if _current is not None:
        for each in made:
            _current.keep(each)
    return value


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, made: list[Any]) -> None:
        super().__init__(file)
        self._made = made

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if module == "cloudpickle.cloudpickle" and name in _MAKERS:
            return self._noting(found)
        if name == "loads" and module in ("pickle", "_pickle"):
            return lambda data: load(io.BytesIO(data))  # a pickle inside a pickle
        return found

    def _noting(self, make: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            made = make(*arguments)
            self._made.append(made)  # cloudpickle sets its name later
            return made

        return noted
