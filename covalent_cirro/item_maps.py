"""Maps: electrons whose function is called once for each item of a list (`mapped`), and the place of an item (`item`).

A mapped electron is one node of Covalent. On AWS Batch its items are shared over the jobs of an array job; everywhere
else its function is a loop. Imports Covalent only in a process that builds lattices: a job unpickles `MappedFunction`.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from covalent_cirro.contract import nested
from covalent_cirro.contract.item_values import items_of, unequal
from covalent_cirro.contract.maps import ITEM_FUNCTION, ITEM_VARIABLE
from covalent_cirro.contract.stored_references import is_handle
from covalent_cirro.errors import ElectronFailed, SettingsError

_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
"""Kinds of parameters that can be mapped: an item is given to the function by name."""


class Item(NamedTuple):
    """The place of an item in its list.

    Attributes:
        index: Index of the item, from 0.
        length: Number of items of the whole list.
    """

    index: int  # type: ignore[assignment]  # a tuple has a method of this name
    length: int


def item() -> Item:
    """The place of the item that is computed now.

    Raises:
        SettingsError: No mapped electron is computed in this process.
    """
    index, _, length = os.environ.get(ITEM_VARIABLE, "").partition("/")
    if not (index.isdecimal() and length.isdecimal()):
        raise SettingsError(
            "item() says which item of a list a mapped electron computes; this process computes none. Call it inside "
            "a function that is decorated with @mapped."
        )
    return Item(int(index), int(length))


def mapped(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make an electron one that is called with lists, and whose function is called once for each item.

    Its result is the list of results, in the order of the items. Several lists are zipped: item ``i`` of each is given
    to call ``i``. The arguments that are not named are the same for all items. On AWS Batch the items are shared over
    ``array_size`` jobs; on other executors, and outside a lattice, they are computed one after the other.

    Args:
        names: Names of the parameters that get an item each.

    Returns:
        A decorator, to be written above ``@ct.electron(...)``. Above a plain function, it makes a function that loops.

    Raises:
        SettingsError: A name is not that of a parameter that can be given by name.

    Example:
        >>> @mapped("config")
        ... @ct.electron(executor=CirroBatchExecutor(vcpu=2, array_size=100))
        ... def train(config, data): ...
    """
    if not names or not all(isinstance(name, str) for name in names):
        raise SettingsError('mapped takes names of parameters, as texts: write @mapped("config") above the electron.')

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        electron = getattr(function, "electron_object", None)
        inner = function if electron is None else electron.function
        if isinstance(inner, MappedFunction):
            raise SettingsError(f"{inner.__name__} is mapped already: write all names into one @mapped(...).")
        if hasattr(inner, "workflow_function"):
            raise SettingsError(f"{inner.__name__} is a lattice, which cannot be mapped: map the electrons in it.")
        loop = MappedFunction(",".join(names), inner)
        return loop if electron is None else _mapped_electron(electron, loop)

    return decorate


class MappedFunction:
    """A function of one item, as a function of lists: a loop. Only the jobs of a map call the function of one item.

    Its pickle begins with a reference to this class and the names, by which `electron/maps/recognition.py` knows it.
    """

    def __init__(self, names: str, function: Callable[..., Any]) -> None:
        """Wrap a function.

        Args:
            names: Names of the mapped parameters, separated by commas.
            function: The function of one item.
        """
        functools.update_wrapper(self, function)
        self.__name__: str = getattr(function, "__name__", type(function).__name__)
        self.names = tuple(names.split(","))
        self._signature = inspect.signature(function)
        self.__signature__ = self._signature
        setattr(self, ITEM_FUNCTION, function)
        _check(self.__name__, self.names, self._signature)

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedFunction, (",".join(self.names), getattr(self, ITEM_FUNCTION))

    def __call__(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Call the function for each item. See `run`."""
        return self.run("raise", args, kwargs)

    def run(self, on_error: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """Call the function once for each item, in their order.

        Args:
            on_error: As the executor's option.
            args: Positional arguments.
            kwargs: Keyword arguments.

        Raises:
            ElectronFailed: An item failed, and ``on_error`` is not ``"return"``; the message has a table of errors.
        """
        from covalent_cirro.jobs.item_failures import ItemFailures

        positional, keywords = self.by_name(args, kwargs)
        lists = {name: items_of(_loaded(keywords.pop(name)), name) for name in self.names}
        self._require_equal(lists)
        length = len(lists[self.names[0]])
        results: list[Any] = []
        failed = ItemFailures()
        first: Exception | None = None
        for index in range(length):
            one = {name: items[index] for name, items in lists.items()}
            try:
                with _computing(index, length):
                    results.append(getattr(self, ITEM_FUNCTION)(*positional, **keywords, **one))
            except Exception as error:
                first = first or error
                words, traceback = _texts(error)
                failed.add([index], words, traceback)
                results.append(ElectronFailed(traceback))
                if on_error == "stop":
                    break
        if failed.count and on_error != "return":
            raise ElectronFailed(failed.whole(length)) from first
        return results

    def by_name(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The same arguments with all that are mapped, and all that follow them, by name.

        Raises:
            TypeError: The function has no such parameters, or a mapped argument was not given.
        """
        given = self._signature.bind_partial(*args, **kwargs).arguments
        missing = [name for name in self.names if name not in given]
        if missing:
            raise TypeError(f"{self.__name__} is mapped over {', '.join(missing)}, which it was not called with.")
        positional: list[Any] = []
        keywords: dict[str, Any] = {}
        for name, parameter in self._signature.parameters.items():
            if name not in given:
                continue
            if parameter.kind is parameter.VAR_POSITIONAL:
                positional += given[name]
            elif parameter.kind is parameter.VAR_KEYWORD:
                keywords |= given[name]
            elif parameter.kind is parameter.KEYWORD_ONLY or keywords or name in self.names:
                keywords[name] = given[name]
            else:
                positional.append(given[name])
        return positional, keywords

    def _require_equal(self, lists: Mapping[str, Sequence[Any]]) -> None:
        if words := unequal({name: len(items) for name, items in lists.items()}):
            raise ValueError(f"{self.__name__}: {words}")

    def for_covalent(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a node: each mapped list as one value.

        The output of another electron and the handle of a stored list stay as they are.

        Raises:
            TypeError: An argument that is mapped is no list.
            ValueError: Lists have different lengths.
        """
        from covalent._workflow.electron import Electron

        positional, keywords = self.by_name(args, kwargs)
        lists: dict[str, Sequence[Any]] = {}
        for name in self.names:
            value = keywords[name]
            if isinstance(value, (Electron, _items_class())) or is_handle(value):
                continue
            items = items_of(value, name)
            if any(isinstance(each, Electron) for each in items):
                keywords[name] = list(items)  # Covalent makes a node of it, which lists the outputs
            else:
                lists[name] = items
        self._require_equal(lists)
        return positional, keywords | {name: _items_class()(items) for name, items in lists.items()}


def _loaded(value: Any) -> Any:
    """The value of a handle (`covalent_cirro.stored`), where a handle itself comes: outside of a lattice."""
    return value.load() if is_handle(value) else value


def _check(function: str, names: Sequence[str], signature: inspect.Signature) -> None:
    parameters = signature.parameters
    for name in names:
        parameter = parameters.get(name)
        if parameter is None:
            known = ", ".join(parameters) or "none"
            raise SettingsError(f"{function} has no parameter {name!r}, over which it is mapped. It has: {known}.")
        if parameter.kind not in _KINDS:
            raise SettingsError(
                f"{function} is mapped over {name!r}, which is {parameter.kind.description}: an item is given by name."
            )
    if len(set(names)) < len(names):
        raise SettingsError(f"{function} is mapped over the same parameter twice: {', '.join(names)}.")
    several = next((each.name for each in parameters.values() if each.kind is each.VAR_POSITIONAL), None)
    before = [name for name in names if parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    if several is not None and before:
        raise SettingsError(
            f"{function} is mapped over {before[0]!r} and has *{several}: an argument before *{several} cannot be "
            f"given by name. Put {before[0]!r} after *{several}."
        )


def _mapped_electron(electron: Any, loop: MappedFunction) -> Callable[..., Any]:
    """What Covalent's decorator made, with a loop as its function."""
    electron.function = loop

    @functools.wraps(getattr(loop, ITEM_FUNCTION))
    def call(*args: Any, **kwargs: Any) -> Any:
        from covalent._shared_files.context_managers import active_lattice_manager

        lattice = active_lattice_manager.get_active_lattice()
        if lattice is None:
            return loop.run(_on_error(electron), args, kwargs)
        if lattice.post_processing:
            return electron(*args, **kwargs)
        positional, keywords = loop.for_covalent(args, kwargs)
        return electron(*positional, **keywords)

    setattr(call, "electron_object", electron)  # noqa: B010  (what Covalent looks for)
    return call


def _on_error(electron: Any) -> str:
    options = electron.metadata.get("executor_data") or {}
    return (options.get("attributes") or {}).get("on_error") or "raise"


@functools.lru_cache(maxsize=1)
def _items_class() -> type:
    from covalent._workflow.transportable_object import TransportableObject

    class Items(TransportableObject):  # type: ignore[misc]
        """A list that Covalent takes as one value. Its pickle is one of pickles (`nested`): it unpickles as a list."""

        def __init__(self, values: Sequence[Any]) -> None:
            import base64
            import platform

            import cloudpickle

            data = bytearray(nested.LIST_HEAD)
            for each in values:
                data += nested.item_of(cloudpickle.dumps(each))
            data += nested.LIST_TAIL
            self._object = base64.b64encode(data).decode("ascii")
            self._object_string = f"{len(values)} item{'' if len(values) == 1 else 's'}"
            self._header = {
                "py_version": platform.python_version(),
                "cloudpickle_version": cloudpickle.__version__,
                "attrs": {"doc": list.__doc__, "name": ""},
            }

        def __str__(self) -> str:
            return str(self._object_string)

    return Items


@contextmanager
def _computing(index: int, length: int) -> Iterator[None]:
    before = os.environ.get(ITEM_VARIABLE)
    os.environ[ITEM_VARIABLE] = f"{index}/{length}"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(ITEM_VARIABLE, None)
        else:
            os.environ[ITEM_VARIABLE] = before


def _texts(error: Exception) -> tuple[str, str]:
    """The message of an error, and its traceback without the frame of the loop."""
    import traceback

    own = error.__traceback__.tb_next if error.__traceback__ is not None else None
    words = "".join(traceback.format_exception_only(type(error), error))
    return words, "".join(traceback.format_exception(type(error), error, own))
