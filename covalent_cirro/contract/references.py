"""References of a document to bytes: in S3, in the document itself, or the result of another electron. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple, TypeAlias

from covalent_cirro.contract.fields import shown
from covalent_cirro.contract.limits import STORED_CHARS
from covalent_cirro.contract.problems import ProtocolError

MAX_BODIES = 200_000
"""Most bodies that an input is joined from: those of ten thousand children with twenty chunks each (`maps`)."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


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

    def check(self, path: str, _limit: Any) -> None:
        """Refuse a digest that is none: it becomes part of a key."""
        if _SHA256.fullmatch(self.sha256) is None:
            raise ProtocolError(f"{path}.sha256 is not a SHA-256 in hex")
        if self.codec not in ("raw", "zlib"):
            raise ProtocolError(f"{path}.codec is {shown(self.codec)}, known are raw and zlib")


class Inline(NamedTuple):
    """Bytes in the document itself."""

    data: bytes

    def check(self, path: str, limit: int | None) -> None:
        """Refuse more bytes than the document may have inside."""
        if limit is not None and len(self.data) > limit:
            raise ProtocolError(f"{path}.inline has {len(self.data)} bytes, more than {limit}")


class NodeOutput(NamedTuple):
    """The result of an earlier electron of the same call (task packing)."""

    node_id: int


class StoredInput(NamedTuple):
    """A stored value that the inputs of a call name; the electron's process asks for it when it unpickles its handle.

    Attributes:
        label: What it is, for people.
        blob: Its bytes.
    """

    label: Annotated[str, STORED_CHARS]
    blob: Blob


Ref: TypeAlias = Blob | Inline
"""Reference to bytes."""


class Joined(NamedTuple):
    """The result of a mapped electron: a list whose bodies (`maps`) are stored by the jobs that computed them.

    Attributes:
        bodies: In the order of the items; joined, they are the body of the list.
    """

    bodies: Annotated[tuple[Ref, ...], MAX_BODIES]


class BodyPart(NamedTuple):
    """Some bytes of a body.

    Attributes:
        body: The body; a blob of it is stored as it is (codec ``raw``).
        offset: Position of the first byte.
        size: Number of bytes.
    """

    body: Ref
    offset: int
    size: int


class JoinedParts(NamedTuple):
    """A list whose body consists of parts of bodies: that of a map with reused results.

    Attributes:
        parts: In the order of the items; joined, they are the body of the list.
    """

    parts: Annotated[tuple[BodyPart, ...], MAX_BODIES]

    @property
    def bodies(self) -> tuple[Ref, ...]:
        """The bodies that it has parts of, each once."""
        return tuple(dict.fromkeys(each.body for each in self.parts))


Input: TypeAlias = Blob | Inline | NodeOutput | Joined | JoinedParts
"""Reference to the pickle of an argument."""
