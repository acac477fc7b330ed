"""Covalent's own nodes that need nobody's code: lists, dicts, indexing them, and postprocessing that hands a result on.

From files to files, in the server's own process, in pieces of a megabyte. No part is unpickled: a list is a pickle of
pickles (`nested.py`), and so the modules of a result are needed where it is used, and nowhere else. What a node does is
told by Covalent's own names (Covalent 0.240, ``_workflow/electron.py``, ``postprocessing.py``); its function is not
read.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import os
import re
import shutil
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

from covalent_cirro import nested, tobj
from covalent_cirro.calls import Spec
from covalent_cirro.covalent_assets import Node
from covalent_cirro.nested import Pairs, Part, Value
from covalent_cirro.protocol import STRING_BYTES
from covalent_cirro.results import File, Measured, replacing

_INDEX = re.compile(r"(\.__getitem__|\[\d+\])$")
"""How names of nodes end that are ``x[key]``, or one of ``a, b = x``."""

_KEY_BYTES = 10_000
"""A key that is larger is not looked for here."""

_SCAN_BYTES = 4096
"""Read at a time where a pickle is looked at: what is skipped need not be decoded."""

_COPY_BYTES = 1024 * 1024


def assemble(node: Node, spec: Spec, inputs: Mapping[int, str]) -> File | None:
    """Write the output of a node that needs nobody's code; `None`: it does, and nothing is written.

    Args:
        node: The node.
        spec: Its arguments.
        inputs: The output file of each node that is an argument.

    Raises:
        TobjError, OSError: A file is damaged, or cannot be read or written.
    """
    with open(node.paths["function"], "rb") as file:
        function = (tobj.read_header(file).fields.get("attrs") or {}).get("name")
    args = [inputs[node_id] for node_id in spec.args]
    output = node.paths["output"]
    if node.name == ":electron_list:" and function == "_auto_list_node" and not spec.kwargs:
        return _write(output, [_value_of(path) for path in args])
    if node.name == ":electron_dict:" and function == "_auto_dict_node" and len(args) == 2:
        keys, values = map(_value_of, args)
        if type(keys) is list and type(values) is list and len(keys) == len(values):
            return _write(output, Pairs(zip(keys, values, strict=True)))
        return None
    if node.name == ":postprocess:reconstruct" and function == "_postprocess_recursively" and len(args) == 1:
        # Lists and dicts of electrons were put together by nodes of their own: nothing is left to do.
        return _copy(args[0], output)
    if function == node.name and _INDEX.search(node.name) and len(args) == 2 and not spec.kwargs:
        value = _value_of(args[0])
        found = None if isinstance(value, Part) else _item(value, args[1])
        return None if found is None else _write(output, found)
    return None


# --- reading ----------------------------------------------------------------------------------------------------------


def _open(path: str) -> BinaryIO:
    return tobj.pickle_file(open(path, "rb"))


def _value_of(path: str) -> Value:
    with open(path, "rb") as file:
        header = tobj.read_header(file)
        text = file.read(min(nested.TEXT_BYTES, header.data_offset - header.string_offset)).decode("utf-8", "ignore")
        with io.BufferedReader(tobj.PickleFile(file, header), _SCAN_BYTES) as pickle:
            value = nested.read(pickle, path)
            if value is not None:
                return value
            size = pickle.seek(0, os.SEEK_END)
            pickle.seek(0)
            return Part(path, 0, size, repr(text) if _is_text(pickle.read(32), size) else text)


def _is_text(begin: bytes, size: int) -> bool:
    """Whether a pickle is that of a string: PROTO, maybe FRAME, one of BINUNICODE with its length, MEMOIZE, STOP."""
    at = 11 if begin[2:3] == b"\x95" else 2
    digits = {b"\x8c": 1, b"X": 4, b"\x8d": 8}.get(begin[at : at + 1], 0)
    length = int.from_bytes(begin[at + 1 : at + 1 + digits], "little")
    return digits > 0 and size == at + 1 + digits + length + 2


def _item(value: Value, key_path: str) -> Value | None:
    """What ``value[key]`` is, where both can be told without unpickling."""
    with _open(key_path) as pickle:
        key = _literal(pickle.read(_KEY_BYTES + 1))
    if isinstance(value, Pairs) and type(key) in (int, str):
        found = None
        for each, item in value:
            known = _literal_of(each)
            if known is None:  # it might be equal to anything
                return None
            found = item if type(known) is type(key) and known == key else found
        return found
    if not isinstance(value, (Part, Pairs)) and type(key) is int and -len(value) <= key < len(value):
        return value[key]
    return None


def _literal_of(value: Value) -> Any:
    if not isinstance(value, Part) or value.size > _KEY_BYTES:
        return None
    with _open(value.source) as pickle:
        pickle.seek(value.offset)
        return _literal(pickle.read(value.size))


def _literal(pickle: bytes) -> int | str | None:
    """The whole number or the text that a pickle is; `None` for any other. Nothing is unpickled."""
    import pickletools

    try:
        said = [
            (opcode.name, argument)
            for opcode, argument, _ in pickletools.genops(pickle)
            if opcode.name not in ("PROTO", "FRAME", "MEMOIZE", "BINPUT")
        ]
    except Exception:  # cut off, or no pickle at all
        return None
    if len(said) != 2 or said[1][0] != "STOP":
        return None
    return cast("int | str", said[0][1]) if type(said[0][1]) in (int, str) else None


# --- writing ----------------------------------------------------------------------------------------------------------


def _write(path: str, value: Value) -> File:
    with replacing(path) as file, _Sources() as sources:
        out = Measured(file)
        if isinstance(value, Part):
            text, doc = _whole_text(value, sources), ""
        else:
            text, doc = _shown(value), (dict if isinstance(value, Pairs) else list).__doc__ or ""
        data = text.encode("utf-8", "backslashreplace")
        version = ".".join(str(part) for part in sys.version_info[:3])
        fields = tobj.header_fields("", doc, version, _cloudpickle_version())
        writer = tobj.Writer(cast(BinaryIO, out), fields, data)

        def copy(part: Part) -> None:
            nested.copy(sources.open(part.source), part, writer.write)

        if isinstance(value, Part):
            copy(value)
        else:
            nested.write(value, writer.write, copy)
        writer.close()
        return out.measured()


def _whole_text(part: Part, sources: _Sources) -> str:
    if part.size <= _KEY_BYTES:
        file = sources.open(part.source)
        file.seek(part.offset)
        known = _literal(file.read(part.size))
        if known is not None:
            return str(known)
    return part.text


def _copy(source: str, path: str) -> File:
    with open(source, "rb") as file:
        tobj.read_header(file)
        file.seek(0)
        with replacing(path) as to:
            out = Measured(to)
            shutil.copyfileobj(file, cast(BinaryIO, out), _COPY_BYTES)
            return out.measured()


def _shown(value: Value, room: int = STRING_BYTES) -> str:
    """What people see of a list or dict: ``str`` of it, as far as that is known, cut as any result's."""
    if isinstance(value, Part):
        return value.text or "..."
    shown: list[str] = []
    for each in value:
        if room <= 0:
            break
        pair = each if isinstance(value, Pairs) else (each,)
        shown.append(": ".join(_shown(cast(Value, one), room) for one in pair))
        room -= len(shown[-1]) + 2
    joined = ", ".join(shown)
    return (f"{{{joined}}}" if isinstance(value, Pairs) else f"[{joined}]")[:STRING_BYTES]


@functools.lru_cache(maxsize=1)
def _cloudpickle_version() -> str:
    return importlib.metadata.version("cloudpickle")


class _Sources(contextlib.ExitStack):
    """Open pickles: the last one that was asked for, since neighbours are mostly of the same file."""

    def __init__(self) -> None:
        super().__init__()
        self._path = ""
        self._file: BinaryIO | None = None

    def open(self, path: str) -> BinaryIO:
        if self._file is None or path != self._path:
            self.close()
            self._file, self._path = self.enter_context(_open(path)), path
        return self._file
