"""Covalent's files of what an electron printed: valid UTF-8 whatever it printed, and what is missing is told in them.

Covalent's client decodes a log as strict UTF-8: after one other byte `ct.get_result` would fail for ever.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import io
import os
from collections.abc import Iterator
from typing import BinaryIO

from covalent_cirro import texts
from covalent_cirro.errors import AwsError, TooLarge, Unsigned
from covalent_cirro.limits import MAX_PART_BYTES
from covalent_cirro.protocol import LOG_TAIL_BYTES, Location, Log
from covalent_cirro.store import Store

_CHUNK_BYTES = 1024 * 1024


class TextFile:
    """Writes bytes as text: what is not UTF-8 becomes U+FFFD, and a character may be torn between two writes.

    Attributes:
        size: Bytes that were taken in.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.size = 0
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._end = ""

    def write(self, data: bytes) -> None:
        """Append what was printed."""
        self.size += len(data)
        self._put(self._decoder.decode(data))

    def say(self, words: str) -> None:
        """Append something about the log, on a line of its own."""
        self.close()
        self._put(f"{'' if self._end.endswith(chr(10)) or not self._end else chr(10)}[covalent-cirro: {words}]\n")

    def put(self, text: str) -> None:
        """Append text."""
        self.close()
        self._put(texts.valid(text))

    def ends_with(self, tail: str) -> bool:
        """Whether the text ends so; of a long tail its last `LOG_TAIL_BYTES` characters count."""
        return self._end.endswith(tail[-LOG_TAIL_BYTES:])

    def close(self) -> None:
        """Write what is left of a torn character. The file itself stays open: it is the caller's."""
        self._put(self._decoder.decode(b"", final=True))

    def _put(self, text: str) -> None:
        self._file.write(text.encode())
        self._end = (self._end + text)[-LOG_TAIL_BYTES:]


def without_parts(log: Log) -> str:
    """The text of a log that is in the outcome itself."""
    missing = log.size - len(log.tail.encode())
    if missing <= 0:
        return log.tail
    note = f"the first {missing} of {log.size} bytes are missing: the job could not store them"
    return f"[covalent-cirro: {note}]\n{log.tail}"


async def write(store: Store, place: Location, log: Log, file: BinaryIO, *, whole: bool) -> None:
    """Write a log from its parts in S3.

    A part that cannot be read costs nothing but its own text: the log says which it is, and why.

    Args:
        store: Where the parts lie.
        place: The call.
        log: The log.
        file: Where to.
        whole: Whether ``log.size`` tells how much there must be; without an outcome nobody knows.

    Raises:
        Unsigned: AWS takes no call of ours; to be begun again.
    """
    text = TextFile(file)
    told = False
    for index, part in enumerate(log.parts):
        problem, goes_on = await _append(store, place, part, text, log.size if whole else None)
        if problem:
            told = True
            left = len(log.parts) - index - 1
            text.say(problem + (f"; the {left} parts after it were not read" if left and not goes_on else ""))
        if not goes_on:
            break
    text.close()
    missing = log.size - text.size if whole else 0
    if missing > 0:
        if not told:
            text.say(f"{missing} of {log.size} bytes are missing: the job could not store them")
        if not text.ends_with(log.tail):
            text.say("it ended with:")
            text.put(log.tail)


async def _append(store: Store, place: Location, part: str, text: TextFile, size: int | None) -> tuple[str, bool]:
    """Append a part; gives why it could not be read, mostly empty, and whether to read the next one."""
    key = place.log_key(part)
    where = f"the part s3://{place.bucket}/{key} of this log"
    buffer = _Part(place.bucket, key)
    try:
        await store.append_object(place.bucket, key, buffer)
    except Unsigned:
        raise
    except (AwsError, TooLarge) as error:
        # S3 was asked again and again; the next part would take as long.
        return f"{where} is missing: {error}", not (isinstance(error, AwsError) and error.retryable)
    if size is not None and text.size + buffer.tell() > size:
        return f"{where} was not taken: with it the log would have more than the {size} bytes that were printed", False
    await asyncio.to_thread(text.write, buffer.getvalue())
    return "", True


class _Part(io.BytesIO):
    """Holds a part, which is never larger than `MAX_PART_BYTES`; an object that is has been put there by somebody."""

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__()
        self._where = bucket, key

    def write(self, data: bytes) -> int:  # type: ignore[override]
        size = self.tell() + len(data)
        if size > MAX_PART_BYTES:
            raise TooLarge(*self._where, size, MAX_PART_BYTES)
        return super().write(data)


def make_valid(path: str) -> None:
    """Rewrite a file that is not UTF-8; one that is not there stays away."""
    with contextlib.suppress(FileNotFoundError):
        with open(path, "rb") as file:
            if _is_valid(file):
                return
            file.seek(0)
            with open(f"{path}.new", "wb") as new:
                text = TextFile(new)
                for chunk in _chunks(file):
                    text.write(chunk)
                text.close()
        os.replace(f"{path}.new", path)


def _is_valid(file: BinaryIO) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in _chunks(file):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
