"""S3's own SHA-256 of an object: shows without reading an object whether it has the bytes of a blob.

S3 computes the checksum of the bytes that it receives, and refuses an upload with another checksum (S3 User Guide,
"Checking object integrity"): nobody can store other bytes under a blob's name with the blob's checksum.
"""

from __future__ import annotations

import base64
from typing import BinaryIO

PART_BYTES = 8 * 1024 * 1024
"""Size of a part of a multipart upload; S3 allows 5 MiB to 5 GiB and at most 10,000 parts (S3 User Guide, "Amazon S3
multipart upload limits")."""

MAX_PARTS = 10_000

_CHUNK = 1024 * 1024


def part_bytes(size: int) -> int:
    """Size of the parts in which the executor and awscrt upload an object of ``size`` bytes."""
    return max(PART_BYTES, -(-size // MAX_PARTS))


def of_whole(sha256: str) -> str:
    """``ChecksumSHA256`` of an object that was uploaded in one piece; ``sha256`` is the digest of its bytes, in hex."""
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def of_parts(file: BinaryIO, size: int) -> str:
    """``ChecksumSHA256`` of a file that was uploaded in parts: the digest of the parts' digests, and their number."""
    import hashlib  # not at the top: the runner's start does not need it

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
    """Whether the object was uploaded in parts, so that its checksum is not the digest of its bytes."""
    return "-" in checksum
