"""Covalent's log files of an electron: always valid UTF-8, with a note in the place of text that is missing.

Covalent's client decodes a log as strict UTF-8: with one other byte in it, `ct.get_result` would always fail.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import io
import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from covalent_cirro.aws.store import Store
from covalent_cirro.contract.limits import MAX_PART_BYTES
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import Log
from covalent_cirro.errors import AwsError, TooLarge, Unsigned
from covalent_cirro.jobs.log_text import Bit, LogText

_CHUNK_BYTES = 1024 * 1024


def as_text(bits: Iterable[Bit], *, begins_a_line: bool = True) -> str:
    """Join bits of a log for a file, with each note on a line of its own.

    Args:
        bits: The bits.
        begins_a_line: The text before them is empty or ends with a line break.
    """
    text = ""
    for bit in bits:
        if bit.is_note:
            at_begin = text.endswith("\n") if text else begins_a_line
            text += f"{'' if at_begin else chr(10)}[covalent-cirro: {bit.text}]\n"
        else:
            text += bit.text
    return text


async def write(store: Store, place: Location, log: Log, file: BinaryIO, *, whole: bool) -> None:
    """Write a log from its parts in S3.

    In the place of a part that cannot be read, the log has a note with the part and the error.

    Args:
        store: Store of the account.
        place: The call.
        log: The log.
        file: File that is written.
        whole: ``log.size`` is the size of the whole log; without an outcome, the size is not known.

    Raises:
        Unsigned: AWS accepts no call of ours. Call this function again.
    """
    text, begins_a_line = LogText(log, whole=whole), True

    async def append(bits: list[Bit]) -> None:
        nonlocal begins_a_line
        if bits:
            written = as_text(bits, begins_a_line=begins_a_line)
            begins_a_line = written.endswith("\n")
            await asyncio.to_thread(file.write, written.encode())

    for read, part in enumerate(log.parts, 1):
        key = place.log_key(part)
        uri, buffer = f"s3://{place.bucket}/{key}", _PartBuffer(place.bucket, key)
        try:
            await store.append_object(place.bucket, key, buffer)
        except Unsigned:
            raise
        except (AwsError, TooLarge) as error:
            # S3 was asked repeatedly and did not answer. The next part would take as long.
            in_vain = isinstance(error, AwsError) and error.retryable
            bits = text.lacks(uri, str(error), len(log.parts) - read if in_vain else 0)
        else:
            bits = text.take(uri, buffer.getvalue())
        await append(bits)
        if text.is_over:
            break
    await append(text.finish())


class _PartBuffer(io.BytesIO):
    """A part in memory. Raises `TooLarge` for more than `MAX_PART_BYTES`, which no part of the runner has."""

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__()
        self._where = bucket, key

    def write(self, data: bytes) -> int:  # type: ignore[override]
        size = self.tell() + len(data)
        if size > MAX_PART_BYTES:
            raise TooLarge(*self._where, size, MAX_PART_BYTES)
        return super().write(data)


def make_valid(path: str) -> None:
    """Rewrite a file that is not UTF-8. Does nothing where there is no file."""
    with contextlib.suppress(FileNotFoundError):
        with open(path, "rb") as file:
            if _is_valid(file):
                return
            file.seek(0)
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            with open(f"{path}.new", "wb") as new:
                for chunk in _chunks(file):
                    new.write(decoder.decode(chunk).encode())
                new.write(decoder.decode(b"", final=True).encode())
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
