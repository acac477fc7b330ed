"""References of a document to bytes: in S3, in the document itself, or the result of another electron. Pure."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class Blob(NamedTuple):
    """Bytes in S3, named by their digest.

    Attributes:
        sha256: Digest of the stored bytes, hex.
        size: Length of the stored bytes.
        codec: ``"raw"``, or ``"zlib"`` if that is smaller.
        raw_size: Length after decoding.
    """

    sha256: str
    size: int
    codec: str
    raw_size: int


class Inline(NamedTuple):
    """Bytes in the document itself."""

    data: bytes


class NodeOutput(NamedTuple):
    """The result of an earlier electron of the same call (task packing)."""

    node_id: int


class StoredInput(NamedTuple):
    """A stored value that the inputs of a call name; the electron's process asks for it when it unpickles its handle.

    Attributes:
        label: What it is, for people.
        blob: Its bytes.
    """

    label: str
    blob: Blob


Ref: TypeAlias = Blob | Inline
"""Reference to bytes."""


class Joined(NamedTuple):
    """The result of a mapped electron: a list whose bodies (`maps`) are stored by the jobs that computed them.

    Attributes:
        bodies: In the order of the items; joined, they are the body of the list.
    """

    bodies: tuple[Ref, ...]


Input: TypeAlias = Blob | Inline | NodeOutput | Joined
"""Reference to the pickle of an argument."""
