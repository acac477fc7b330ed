"""References to stored values: the text in the pickle of a handle (`covalent_cirro.stored`), and how it is found.

Pure. The Covalent server unpickles nothing, and has to know which blobs an electron's inputs name. So a handle is
pickled as a call with one text that begins with `MARKER`, which every pickle protocol writes as it is.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, NamedTuple

from covalent_cirro.contract import codec, limits
from covalent_cirro.contract.fields import shown
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.references import Blob

MARKER = "covalent-cirro stored value 1 "
"""Beginning of the text, with the version of its form. `END` is its end: JSON has no line break in it."""

END = "\n"

MAX_CHARS = 64 * 1024
"""Characters of a text; a longer one is no reference."""

MAX_WITHIN = 100
"""Stored values inside a stored value."""

VALUE, FILE, FOLDER = "value", "file", "folder"

_NAME_CHARS = 255
_NAME = re.compile(rf"[^/\0]{{1,{_NAME_CHARS}}}")


class StoredReference(NamedTuple):
    """What a handle names.

    Attributes:
        bucket: Bucket of the blob.
        prefix: Prefix of the bucket's keys: empty, or ends with a slash.
        kind: `VALUE` (the blob is a pickle), `FILE` (its content) or `FOLDER` (a tar archive).
        name: Name of the file or folder; empty for a value.
        label: What it is, for people: ``"array float64 (2500, 2500), 50 MB"``.
        blob: The stored bytes.
        within: Blobs of stored values whose handles are inside the value.
    """

    bucket: str
    prefix: Annotated[str, limits.KEY_CHARS]
    kind: str
    name: Annotated[str, _NAME_CHARS]
    label: Annotated[str, limits.STORED_CHARS]
    blob: Blob
    within: Annotated[tuple[Blob, ...], MAX_WITHIN] = ()

    def check(self, path: str, _limit: Any) -> None:
        """Refuse an unknown kind, and what is not the name of a file: it becomes part of a path."""
        if self.kind not in (VALUE, FILE, FOLDER):
            raise ProtocolError(f"{path}.kind is {shown(self.kind)}: update the side that reads it")
        if self.kind != VALUE and (self.name in (".", "..") or _NAME.fullmatch(self.name) is None):
            raise ProtocolError(f"{path}.name is not the name of a file")


def to_text(reference: StoredReference) -> str:
    """The text of a reference: the same for equal references. `from_text` reads it."""
    return f"{MARKER}{json.dumps(codec.dump(reference), separators=(',', ':'))}{END}"


def from_text(text: str) -> StoredReference:
    """Read the text of a reference.

    Raises:
        ProtocolError: The text has another form; the message names the member.
    """
    if not text.startswith(MARKER) or len(text) > MAX_CHARS:
        raise ProtocolError("the text is not that of a stored value, or that of another version")
    try:
        document = json.loads(text[len(MARKER) :])
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the text of a stored value is damaged: {error}") from error
    return codec.read(StoredReference, document, "stored")


def is_handle(value: Any) -> bool:
    """Whether a value is a handle (`covalent_cirro.stored`); does not import what handles are made of."""
    return isinstance(getattr(value, "reference", None), StoredReference)


_MODULE, _FUNCTION = b"covalent_cirro.stored_values.handles", b"arrive"

_HANDLE = re.compile(
    # PROTO, FRAME; module and function as SHORT_BINUNICODE, each with MEMOIZE; STACK_GLOBAL with MEMOIZE
    rb"\x80[\x04\x05](?:\x95.{8})?\x8c"
    + re.escape(bytes([len(_MODULE)]) + _MODULE)
    + rb"\x94\x8c"
    + re.escape(bytes([len(_FUNCTION)]) + _FUNCTION)
    # the text as SHORT_BINUNICODE or BINUNICODE, with MEMOIZE; TUPLE1 and REDUCE with MEMOIZE; STOP
    + rb"\x94\x93\x94(?:\x8c.|X.{4})(?P<text>[^\n]+\n)\x94\x85\x94R\x94\.",
    re.DOTALL,
)


def of_handle(pickle: bytes) -> StoredReference | None:
    """What a handle names whose pickle is given; `None` for a pickle of anything else, a list of handles for example.

    Raises:
        ProtocolError: The text of the handle is damaged, or of another version.
    """
    found = _HANDLE.fullmatch(pickle) if len(pickle) < MAX_CHARS else None
    return None if found is None else from_text(found["text"].decode("ascii", "replace"))


class ReferenceFinder:
    """Finds the references in bytes that pass by in pieces, also one that is cut by the end of a piece.

    Attributes:
        found: What was found, each once, in order.
    """

    def __init__(self) -> None:
        self.found: dict[StoredReference, None] = {}
        self._rest = b""

    def see(self, piece: bytes | memoryview) -> None:
        """Search the next piece."""
        data = self._rest + piece  # a copy, of a piece that may be a view
        at = 0
        while (begin := data.find(_MARKER, at)) >= 0:
            end = data.find(_END, begin, begin + MAX_CHARS)
            if end < 0 and len(data) - begin < MAX_CHARS:
                self._rest = data[begin:]
                return
            at = begin + len(_MARKER)
            try:
                reference = from_text(data[begin : max(end, begin)].decode("ascii"))
            except (ProtocolError, UnicodeDecodeError):
                continue  # the words of the marker, in some text
            self.found.setdefault(reference)
            at = end
        self._rest = data[max(at, len(data) - len(_MARKER) + 1) :]


_MARKER, _END = MARKER.encode(), END.encode()


def find(data: bytes) -> tuple[StoredReference, ...]:
    """The references in bytes, each once."""
    finder = ReferenceFinder()
    finder.see(data)
    return tuple(finder.found)
