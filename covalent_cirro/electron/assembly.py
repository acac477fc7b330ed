"""Runs Covalent's own nodes that need no code of users: lists, dicts, indexes of them, and postprocessing of a result.

Copies from files to files, in the process of the server, in pieces of a megabyte. No part is unpickled: a list is a
pickle of pickles (`nested.py`), and so the modules of a result are needed only where the result is used. The name of a
node says what it does (Covalent 0.240, ``_workflow/electron.py``, ``postprocessing.py``); its function is not read.
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
from collections.abc import Mapping, Sequence
from typing import BinaryIO, NamedTuple, cast

from covalent_cirro.contract import nested, tobj
from covalent_cirro.contract.limits import STRING_BYTES
from covalent_cirro.contract.nested import Pairs, PickledPart, Value
from covalent_cirro.covalent_server.assets import Node
from covalent_cirro.electron.call_writer import ElectronSpec
from covalent_cirro.electron.result_writer import Measured, WrittenFile, replacing

_INDEX = re.compile(r"(\.__getitem__|\[\d+\])$")
"""End of the names of nodes that are ``x[key]``, or one of ``a, b = x``."""

UNOPENED = "..."
"""Text of an object whose text is not known."""

_ITEMS = "items"
"""Member of the header of a file that this module wrote: the texts of the first items."""

_TEXT_BYTES = 1000
"""Most bytes of the text of an object in a list."""

_KEY_BYTES = 10_000
"""Most bytes of a key that is looked for here."""

_SCAN_BYTES = 4096
"""Bytes that are read at a time of a pickle: what is skipped need not be decoded."""

_COPY_BYTES = 1024 * 1024


def assemble(node: Node, spec: ElectronSpec, inputs: Mapping[int, str]) -> WrittenFile | None:
    """Write the output of a node that needs no code of a user.

    Args:
        node: The node.
        spec: Its arguments.
        inputs: Path of the output of each node that is an argument.

    Returns:
        The output; `None` if the node needs code of a user: then nothing is written.

    Raises:
        TobjError: A file is damaged.
        OSError: A file cannot be read or written.
    """
    with open(node.paths["function"], "rb") as file:
        function = (tobj.read_header(file).fields.get("attrs") or {}).get("name")
    args = [inputs[node_id] for node_id in spec.args]
    output = node.paths["output"]
    if node.name == ":electron_list:" and function == "_auto_list_node" and not spec.kwargs:
        return _write(output, _list_of([_read(path) for path in args]))
    if node.name == ":electron_dict:" and function == "_auto_dict_node" and len(args) == 2:
        found = _dict_of(*map(_read, args))
        return None if found is None else _write(output, found)
    if node.name == ":postprocess:reconstruct" and function == "_postprocess_recursively" and len(args) == 1:
        # Other nodes have put lists and dicts of electrons together: the result is copied.
        return _copy(args[0], output)
    if function == node.name and _INDEX.search(node.name) and len(args) == 2 and not spec.kwargs:
        found = _item(_read(args[0]), args[1])
        return None if found is None else _write(output, found)
    return None


def write_empty_list(path: str) -> WrittenFile:
    """Write an empty list, as the output of a map without items."""
    return _write(path, _list_of([]))


class _Unopened(NamedTuple):
    """An object as far as it is known without unpickling it.

    Attributes:
        value: The parts that it consists of.
        text: Text of the object, as a list shows it.
        items: Texts of the first items, or of the first values of a dict.
    """

    value: Value
    text: str
    items: Sequence[str] = ()

    def item_text(self, index: int) -> str:
        """The text of an item."""
        return self.items[index] if index < len(self.items) else UNOPENED


def _list_of(items: Sequence[_Unopened]) -> _Unopened:
    texts = [item.text for item in items]
    return _Unopened([item.value for item in items], f"[{', '.join(texts)}]", texts)


def _dict_of(keys: _Unopened, values: _Unopened) -> _Unopened | None:
    if type(keys.value) is not list or type(values.value) is not list or len(keys.value) != len(values.value):
        return None
    texts = [values.item_text(index) for index in range(len(values.value))]
    shown = ", ".join(f"{keys.item_text(index)}: {text}" for index, text in enumerate(texts))
    return _Unopened(Pairs(zip(keys.value, values.value, strict=True)), f"{{{shown}}}", texts)


def _item(of: _Unopened, key_path: str) -> _Unopened | None:
    """``of[key]``; `None` where that cannot be found without unpickling."""
    with _open(key_path) as pickle:
        key = _literal(pickle.read(_KEY_BYTES + 1))
    value, index = of.value, None
    if isinstance(value, Pairs) and key is not None:
        for at, (each, _) in enumerate(value):
            known = _literal_of(each)
            if known is None:  # it may be equal to the key
                return None
            index = at if type(known) is type(key) and known == key else index
    elif not isinstance(value, (PickledPart, Pairs)) and isinstance(key, int) and -len(value) <= key < len(value):
        index = key % len(value)
    if index is None or isinstance(value, PickledPart):
        return None
    return _Unopened(value[index][1] if isinstance(value, Pairs) else value[index], of.item_text(index))


# --- reading ----------------------------------------------------------------------------------------------------------


def _open(path: str) -> BinaryIO:
    return tobj.pickle_file(open(path, "rb"))


def _read(path: str) -> _Unopened:
    try:
        with open(path, "rb") as file:
            header = tobj.read_header(file)
            text = file.read(min(_TEXT_BYTES, header.data_offset - header.string_offset)).decode("utf-8", "ignore")
            with io.BufferedReader(tobj.PickleFile(file, header), _SCAN_BYTES) as pickle:
                value = nested.read(pickle, path)
                if value is not None:
                    return _Unopened(value, text, header.fields.get(_ITEMS) or ())
                size = pickle.seek(0, os.SEEK_END)
                pickle.seek(max(0, size - 1))
                if pickle.read(1) != b".":
                    raise tobj.TobjError("its pickle is cut short")
                pickle.seek(0)
                return _Unopened(PickledPart(path, 0, size), repr(text) if _text_at(pickle.read(32), size) else text)
    except tobj.TobjError as error:
        raise tobj.TobjError(f"{path}: {error}") from error


def _text_at(begin: bytes, size: int) -> int:
    """Offset of the text in the pickle of a string; 0 for any other pickle.

    The pickle of a string is PROTO, maybe FRAME, one of BINUNICODE with the length, the text, MEMOIZE, STOP.
    """
    at = 11 if begin[2:3] == b"\x95" else 2
    digits = {b"\x8c": 1, b"X": 4, b"\x8d": 8}.get(begin[at : at + 1], 0)
    length = int.from_bytes(begin[at + 1 : at + 1 + digits], "little")
    return at + 1 + digits if digits and size == at + 1 + digits + length + 2 else 0


def _literal_of(value: Value) -> int | str | None:
    if not isinstance(value, PickledPart) or value.size > _KEY_BYTES:
        return None
    with _open(value.source) as pickle:
        pickle.seek(value.offset)
        return _literal(pickle.read(value.size))


def _literal(pickle: bytes) -> int | str | None:
    """The whole number or the text of a pickle, found without unpickling it; `None` for any other pickle."""
    import pickletools

    try:
        said = [
            (opcode.name, argument)
            for opcode, argument, _ in pickletools.genops(pickle)
            if opcode.name not in ("PROTO", "FRAME", "MEMOIZE", "BINPUT")
        ]
    except Exception:  # cut short, or no pickle
        return None
    if len(said) != 2 or said[1][0] != "STOP":
        return None
    return cast("int | str", said[0][1]) if type(said[0][1]) in (int, str) else None


# --- writing ----------------------------------------------------------------------------------------------------------


def _write(path: str, known: _Unopened) -> WrittenFile:
    value = known.value
    with replacing(path, tobj.encoded_size(nested.size_of(value))) as file, _Sources() as sources:
        out = Measured(file)
        text = known.text.encode("utf-8", "backslashreplace")[:STRING_BYTES].decode("utf-8", "ignore").encode()
        doc = ""
        if isinstance(value, PickledPart):
            text = _string(sources.open(value.source), value) or text
        else:
            doc = (dict if isinstance(value, Pairs) else list).__doc__ or ""
        version = ".".join(str(part) for part in sys.version_info[:3])
        fields = tobj.header_fields("", doc, version, _cloudpickle_version())
        writer = tobj.Writer(cast(BinaryIO, out), {**fields, _ITEMS: _first(known.items)}, text)

        def copy(part: PickledPart) -> None:
            nested.copy(sources.open(part.source), part, writer.write)

        if isinstance(value, PickledPart):
            copy(value)
        else:
            nested.write(value, writer.write, copy)
        writer.close()
        return out.measured()


def _string(file: BinaryIO, part: PickledPart) -> bytes | None:
    """The whole text of a part that is a string, since Covalent uses the text of a string as data."""
    file.seek(part.offset)
    at = _text_at(file.read(32), part.size)
    file.seek(part.offset + at)
    if not at:
        return None
    return file.read(part.size - at - 2).decode("utf-8", "surrogatepass").encode("utf-8", "backslashreplace")


def _first(texts: Sequence[str], room: int = STRING_BYTES) -> list[str]:
    """The first texts, as many as have room."""
    found: list[str] = []
    for text in texts:
        room -= len(text)
        if room < 0:
            break
        found.append(text)
    return found


def _copy(source: str, path: str) -> WrittenFile:
    with open(source, "rb") as file:
        tobj.read_header(file)
        file.seek(0)
        with replacing(path, os.path.getsize(source)) as to:
            out = Measured(to)
            shutil.copyfileobj(file, cast(BinaryIO, out), _COPY_BYTES)
            return out.measured()


@functools.lru_cache(maxsize=1)
def _cloudpickle_version() -> str:
    return importlib.metadata.version("cloudpickle")


class _Sources(contextlib.ExitStack):
    """Keeps the last pickle open, since parts that follow each other are mostly in the same file."""

    def __init__(self) -> None:
        super().__init__()
        self._path = ""
        self._file: BinaryIO | None = None

    def open(self, path: str) -> BinaryIO:
        if self._file is None or path != self._path:
            self.close()
            self._file, self._path = self.enter_context(_open(path)), path
        return self._file
