"""Reads and writes Covalent's TransportableObject files (``*.tobj``) as streams, without unpickling.

Knows bytes and file objects only. Layout (covalent 0.240 ``_workflow/transportable_object.py``)::

    [0:8]   string_offset, big endian      [16:string_offset]           header, JSON
    [8:16]  data_offset, big endian        [string_offset:data_offset]  str(obj), UTF-8
                                           [data_offset:]               base64(cloudpickle.dumps(obj))
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, cast

_OFFSETS_BYTES = 16
_MAX_HEADER_BYTES = 64 * 1024 * 1024
# Multiples of 3 and 4: every chunk but the last is encoded and decoded by itself, without padding in the stream.
_PICKLE_CHUNK = 3 * 256 * 1024
_BASE64_CHUNK = 4 * 256 * 1024


class TobjError(ValueError):
    """The file is not a TransportableObject, or is cut short."""


class Header(NamedTuple):
    """The part of the file before the pickle.

    Attributes:
        fields: The JSON header: ``py_version``, ``cloudpickle_version`` and ``attrs`` (``doc``, ``name``).
        string_offset: Where ``str(obj)`` begins, in bytes.
        data_offset: Where the base64 of the pickle begins, in bytes.
    """

    fields: dict[str, Any]
    string_offset: int
    data_offset: int

    @property
    def python_version(self) -> str:
        """Version of the Python that made the pickle, ``"3.11.7"``; empty if the file does not have it."""
        return str(self.fields.get("py_version") or "")

    @property
    def cloudpickle_version(self) -> str:
        """Version of the cloudpickle that made the pickle; empty if the file does not have it."""
        return str(self.fields.get("cloudpickle_version") or "")


def read_header(file: BinaryIO) -> Header:
    """Read the header of an open ``.tobj`` file, leaving it just after the header.

    Raises:
        TobjError: The offsets or the JSON are not those of a TransportableObject.
    """
    offsets = file.read(_OFFSETS_BYTES)
    if len(offsets) < _OFFSETS_BYTES:
        raise TobjError(f"{len(offsets)} bytes is too short for a TransportableObject")
    string_offset = int.from_bytes(offsets[:8], "big")
    data_offset = int.from_bytes(offsets[8:], "big")
    if not _OFFSETS_BYTES <= string_offset <= data_offset or string_offset > _MAX_HEADER_BYTES:
        raise TobjError(f"impossible offsets {string_offset} and {data_offset}")
    raw = file.read(string_offset - _OFFSETS_BYTES)
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise TobjError(f"the header is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise TobjError("the header is not a JSON object")
    return Header(fields, string_offset, data_offset)


def read_text(file: BinaryIO, header: Header, limit: int) -> str:
    """The beginning of ``str(obj)``: at most so many bytes, with "..." where it goes on."""
    file.seek(header.string_offset)
    size = header.data_offset - header.string_offset
    text = file.read(min(size, limit)).decode("utf-8", errors="replace")
    return text if size <= limit else f"{text}..."


def iter_pickle(file: BinaryIO, header: Header) -> Iterator[bytes]:
    """Yield the pickle of an open ``.tobj`` file, decoded chunk by chunk (about 1 MB in memory, whatever the size).

    Raises:
        TobjError: The base64 is broken or cut short.
    """
    file.seek(header.data_offset)
    while chunk := file.read(_BASE64_CHUNK):
        try:
            yield base64.b64decode(chunk, validate=True)
        except binascii.Error as error:
            raise TobjError(f"the data is not base64: {error}") from error


def pickle_size(file: BinaryIO, header: Header) -> int:
    """Size of the pickle in bytes, from the size of the file and its padding; the data is not read."""
    end = file.seek(0, os.SEEK_END)
    encoded = max(0, end - header.data_offset)
    if encoded == 0:
        return 0
    file.seek(end - min(2, encoded))
    return encoded // 4 * 3 - file.read(2).count(b"=")


def encoded_size(size: int) -> int:
    """Bytes that a pickle of ``size`` bytes takes in a file: base64 writes 4 bytes for 3."""
    return -(-size // 3) * 4


class PickleFile(io.RawIOBase):
    """The pickle in an open ``.tobj`` file, as a file that decodes what is read. Closing it closes both files.

    Wrap it in an `io.BufferedReader`: skipped bytes are neither read nor decoded.

    Raises:
        TobjError: The base64 is cut short, or broken where it is read.
    """

    def __init__(self, file: BinaryIO, header: Header) -> None:
        if (file.seek(0, os.SEEK_END) - header.data_offset) % 4:
            raise TobjError("the data is not base64: it is cut short")
        self._file = file
        self._start = header.data_offset
        self._size = pickle_size(file, header)
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte of the pickle."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Decode as many bytes as fit."""
        end = min(self._at + min(len(buffer), _PICKLE_CHUNK), self._size)
        if end <= self._at:
            return 0
        group = self._at // 3  # four characters encode three bytes
        self._file.seek(self._start + group * 4)
        encoded = self._file.read((-(-end // 3) - group) * 4)
        try:
            data = memoryview(base64.b64decode(encoded, validate=True))[self._at - group * 3 : end - group * 3]
        except binascii.Error as error:
            raise TobjError(f"the data is not base64: {error}") from error
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Close both files."""
        self._file.close()
        super().close()


def pickle_file(file: BinaryIO) -> BinaryIO:
    """Open the pickle in an open ``.tobj`` file for reading as a stream. Closing it closes both files.

    Raises:
        TobjError: The file is not a TransportableObject; it is closed.
    """
    try:
        return cast(BinaryIO, io.BufferedReader(PickleFile(file, read_header(file)), _PICKLE_CHUNK))
    except BaseException:
        file.close()
        raise


def header_fields(name: str, doc: str, python_version: str, cloudpickle_version: str) -> dict[str, Any]:
    """The header that Covalent itself would write for an object of this name and docstring."""
    return {
        "py_version": python_version,
        "cloudpickle_version": cloudpickle_version,
        "attrs": {"doc": doc, "name": name},
    }


def write_head(file: BinaryIO, fields: dict[str, Any], string_size: int) -> None:
    """Write everything before ``str(obj)``, which must follow with exactly ``string_size`` bytes."""
    header = json.dumps(fields).encode()
    string_offset = _OFFSETS_BYTES + len(header)
    file.write(string_offset.to_bytes(8, "big") + (string_offset + string_size).to_bytes(8, "big") + header)


class PickleWriter:
    """Writes the pickle at the end of a ``.tobj`` file, in chunks of any size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rest = b""

    def write(self, chunk: bytes) -> int:
        """Append bytes of the pickle."""
        data = self._rest + chunk
        whole = len(data) - len(data) % 3
        for start in range(0, whole, _PICKLE_CHUNK):
            self._file.write(base64.b64encode(data[start : min(start + _PICKLE_CHUNK, whole)]))
        self._rest = data[whole:]
        return memoryview(chunk).nbytes  # pickle passes the buffers of large arrays as they are, without a length

    def mark(self) -> tuple[int, bytes]:
        """What has been written so far, for `back_to`."""
        return self._file.tell(), self._rest

    def back_to(self, mark: tuple[int, bytes]) -> None:
        """Take back what was written after a `mark`."""
        at, self._rest = mark
        self._file.seek(at)
        self._file.truncate()

    def close(self) -> None:
        """Write the rest. The file stays open: the caller closes it."""
        if self._rest:
            self._file.write(base64.b64encode(self._rest))
            self._rest = b""


class Writer(PickleWriter):
    """Writes a whole ``.tobj`` file in one pass: header and text at once, then the pickle.

    Example:
        >>> writer = Writer(file, header_fields("", "", "3.11.7", "3.1.2"), b"42")
        >>> writer.write(pickle_bytes)
        >>> writer.close()
    """

    def __init__(self, file: BinaryIO, fields: dict[str, Any], string: bytes) -> None:
        super().__init__(file)
        write_head(file, fields, len(string))
        file.write(string)
