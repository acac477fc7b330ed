"""Writes the value that an electron returned to local files: its pickle, and the text that users see of it.

It must not hold the pickle in memory, and an error in the value's own methods must not fail the job.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from covalent_cirro.contract import texts
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.limits import DOC_CHARS, NAME_CHARS, STRING_BYTES
from covalent_cirro.runner import failures, shown_texts

_BUFFER_BYTES = 1024 * 1024
_LARGE_PICKLE_BYTES = 4 * 1024 * 1024
_PROBES = 300
_PROBE_S = 5.0
_CONTAINERS = (bytes, bytearray, list, tuple, set, frozenset, dict)


class Packed(NamedTuple):
    """The files of a result.

    Attributes:
        pickle: Path of the pickled value.
        string: Path of ``str(value)`` in UTF-8, cut as `protocol.Output` says.
        name: ``value.__name__`` or empty.
        doc: ``value.__doc__`` or empty.
    """

    pickle: str
    string: str
    name: str
    doc: str


def pack(value: Any, folder: str, stem: str) -> Packed:
    """Write ``<folder>/<stem>.pickle`` and ``<stem>.txt``.

    Raises:
        NoResult: It cannot be pickled, or the disk is full.
    """
    paths = os.path.join(folder, f"{stem}.pickle"), os.path.join(folder, f"{stem}.txt")
    with writing(), open(paths[0], "wb", buffering=_BUFFER_BYTES) as file:
        dump(value, file)
    text = display(value, os.path.getsize(paths[0]))
    with writing(), open(paths[1], "wb") as file:
        file.write(text)
    return Packed(*paths, name=_attribute(value, "__name__", NAME_CHARS), doc=_attribute(value, "__doc__", DOC_CHARS))


def dump(value: Any, file: BinaryIO) -> None:
    """Pickle the value that an electron, or a function of an item, returned.

    Raises:
        NoResult: It cannot be pickled.
        OSError: The disk is full.
    """
    import cloudpickle

    try:
        cloudpickle.dump(value, file)
    except BaseException as error:
        if _is_full(error):
            raise
        traceback = failures.format_traceback(error)
        where, what = find_unpicklable(value)
        kind = type(what)
        message = (
            f"the result cannot be pickled: {where} is a {kind.__module__}.{kind.__qualname__} "
            f"({failures.describe(error)}). Return something else, or take this part out of it"
        )
        raise failures.NoResult(Failure(Kind.UNPICKLABLE, shown_texts.shown(message), traceback)) from error


def _is_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Make an error of the disk, while a result is written, a `NoResult`."""
    try:
        yield
    except OSError as error:
        message = f"the result could not be written to disk: {error}. Free or enlarge the scratch space there"
        raise failures.NoResult(Failure(Kind.RUNNER, message)) from error


class _Nowhere:
    def write(self, data: Any) -> int:
        return len(data)


def find_unpicklable(value: Any) -> tuple[str, Any]:
    """Search briefly for the smallest part of a value that cannot be pickled; returns its path and the part.

    Returns:
        For example ``("result['model'].lock", <unlocked _thread.lock>)``.
    """
    import cloudpickle

    path, found = "result", value
    probes, deadline = _PROBES, time.monotonic() + _PROBE_S
    seen = {id(value)}
    while True:
        for step, part in _parts(found):
            if probes == 0 or time.monotonic() > deadline:
                return path, found
            if id(part) in seen:
                continue
            probes -= 1
            seen.add(id(part))
            try:
                cloudpickle.dump(part, _Nowhere())
            except BaseException:
                path, found = path + step, part
                break
        else:
            return path, found


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a value, each with the expression that leads to it."""
    if isinstance(value, dict):
        for key, part in list(value.items()):
            yield f"[{_short(key)}]", part
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield f"[{i}]", part
    elif isinstance(value, (set, frozenset)):
        for part in value:
            yield "{…}", part
    # cloudpickle pickles a function's closure, where the part that cannot be pickled mostly is.
    closure, code = getattr(value, "__closure__", None), getattr(value, "__code__", None)
    if closure and code:
        for name, cell in zip(code.co_freevars, closure, strict=False):
            with contextlib.suppress(ValueError):  # an empty cell
                yield f".<closure {name}>", cell.cell_contents
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        for name, part in list(attributes.items()):
            yield f".{name}", part


def _short(key: Any) -> str:
    try:
        return shown_texts.shown(repr(key))[:80]
    except Exception:
        return "…"


def display(value: Any, pickle_bytes: int) -> bytes:
    """``str(value)`` in UTF-8: whole for a string, cut at `STRING_BYTES` for anything else.

    A large built-in container is abbreviated before it becomes text: ``str`` of a gigabyte of bytes takes four.
    """
    if isinstance(value, str):
        # Covalent parses it (the archive of a sublattice), so it must be whole.
        return shown_texts.shown(str.__str__(value)).encode("utf-8", "backslashreplace")
    try:
        large = type(value) in _CONTAINERS and pickle_bytes > _LARGE_PICKLE_BYTES
        text = _abbreviate(value) if large else str(value)
    except BaseException as error:
        # Only the text for users is lost; the result itself is complete.
        text = f"<str() of this {type(value).__qualname__} raised {failures.describe(error)}>"
    text = shown_texts.shown(text)
    # Cut characters before encoding: a long text need not be encoded as a whole.
    return text[:STRING_BYTES].encode("utf-8", "backslashreplace")[:STRING_BYTES].decode("utf-8", "ignore").encode()


def _abbreviate(value: Any) -> str:
    import reprlib

    most = 1000 + shown_texts.longest()  # a secret must not be cut before it is left out

    class Abbreviated(reprlib.Repr):
        def repr_bytes(self, x: bytes, level: int) -> str:
            return self._begun(repr(bytes(x[:most])), len(x))

        repr_bytearray = repr_bytes

        def repr_str(self, x: str, level: int) -> str:
            return self._begun(repr(x[:most]), len(x))

        def repr_instance(self, x: Any, level: int) -> str:
            return self._begun(str(x)[:most], 0)

        def _begun(self, text: str, length: int) -> str:
            return shown_texts.shown(text)[:1000] + ("..." if length > 1000 else "")

    limits = Abbreviated()
    limits.maxlist = limits.maxtuple = limits.maxset = limits.maxfrozenset = limits.maxdict = 100
    limits.maxother = 1000
    return limits.repr(value)


def _attribute(value: Any, name: str, most: int) -> str:
    """An attribute for Covalent's header, if it is a string; some values have other objects there, or raise."""
    try:
        found = getattr(value, name, "")
    except Exception:
        return ""
    return texts.fitted(shown_texts.shown(found), most) if isinstance(found, str) else ""
