"""What is wrong with a document of the protocol. Pure, and the standard library only."""

from __future__ import annotations

FORMAT = 2
"""Format version of both documents. A reader refuses another version and says which side to update."""

REVISION = 1
"""What a runner of this `FORMAT` does besides, by the first revision that does it. 1: variables, secrets and ranks."""

CALL_FORMAT = f"{FORMAT}.{REVISION}"
"""Both, as an image's label has them; a label of an older image has `FORMAT` alone."""


class ProtocolError(ValueError):
    """A document does not have the form that its type has."""


class UnknownFormat(ProtocolError):
    """A document has another format version.

    Attributes:
        found: The version in the document; `FORMAT` is the one understood here.
    """

    def __init__(self, document: str, found: object) -> None:
        self.found = found
        newer = isinstance(found, int) and found > FORMAT
        side = "the side that reads it" if newer else "the side that wrote it"
        super().__init__(
            f"{document} has format {repr(found)[:80]}, this covalent-cirro understands format {FORMAT}: update {side} "
            "(the container's image and the Covalent server need the same covalent-cirro minor version)"
        )
