"""S3's own SHA-256 of an object, against a blob's name: tells other bytes of the same length without reading them.

S3 computes it over what it was sent, and refuses an upload whose checksum is another one (S3 User Guide, "Checking
object integrity"): who puts other bytes under a blob's name cannot give them its checksum.
"""

from __future__ import annotations

import base64
from typing import BinaryIO

PART_BYTES = 8 * 1024 * 1024
"""Size of a part of a multipart upload; S3 wants 5 MiB to 5 GiB and at most 10,000 parts (S3 User Guide, "Amazon S3
multipart upload limits")."""

MAX_PARTS = 10_000

_CHUNK = 1024 * 1024


def part_bytes(size: int) -> int:
    """Size of the parts in which an object of ``size`` bytes goes up, from here and from awscrt alike."""
    return max(PART_BYTES, -(-size // MAX_PARTS))


def of_whole(sha256: str) -> str:
    """``ChecksumSHA256`` of an object whose bytes have this digest, in hex, if it was sent in one piece."""
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def of_parts(file: BinaryIO, size: int) -> str:
    """``ChecksumSHA256`` of a file that was sent in parts: that of the parts' digests, and their number."""
    import hashlib  # the runner's start does without it

    left_of_part, parts, part = part_bytes(size), [], hashlib.sha256()
    while chunk := file.read(min(_CHUNK, left_of_part)):
        part.update(chunk)
        left_of_part -= len(chunk)
        if left_of_part == 0:
            parts.append(part.digest())
            left_of_part, part = part_bytes(size), hashlib.sha256()
    if left_of_part != part_bytes(size):
        parts.append(part.digest())
    return f"{base64.b64encode(hashlib.sha256(b''.join(parts)).digest()).decode()}-{len(parts)}"


def is_of_parts(checksum: str) -> bool:
    """Whether S3 has the checksum of an object that was sent in parts, which does not tell its digest."""
    return "-" in checksum
