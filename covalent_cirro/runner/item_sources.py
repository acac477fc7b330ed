"""Fetches the items of one job of a mapped electron: byte ranges of lists, which become lists of their own.

Knows S3 and local files. It never unpickles.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from covalent_cirro.contract import nested
from covalent_cirro.contract.maps import Mapped, MappedArgument, Span
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.references import Blob, Inline, Input, Joined, JoinedParts
from covalent_cirro.runner.s3 import answers
from covalent_cirro.runner.s3.blob_transfer import BlobError, Wait

if TYPE_CHECKING:
    from covalent_cirro.runner.s3.s3_client import Client, Pending

_COPY_BYTES = 1024 * 1024
_QUICK_REQUESTS, _QUICK_BYTES = 4, 1024 * 1024
"""Requests one after another, and bytes, up to which the import of the S3 client takes longer than they do."""

_AT_A_TIME = 128
"""Requests at a time: each has an open file (`blob_transfer`)."""


class _Piece(NamedTuple):
    """Bytes of a source, for an argument: a request for them and the file that gets them, or the bytes."""

    name: str
    span: Span
    request: Pending | None
    path: str
    data: bytes


Quick = Callable[[str, int, int], "answers.Answer | None"]
"""``quick(key, first, size)`` reads bytes of an object; `None` where the S3 client has to."""

Pieces = dict[tuple[str, Span], bytes]
"""Bytes of the blobs of arguments, by name and span."""


def quickly(mapped: Mapped, child: int, where: Location, quick: Quick) -> Pieces | None:
    """The bytes in S3 of a job's items, where they are few; `None` where the S3 client has to read them."""
    asked = [
        (each.name, span, source)
        for each in mapped.arguments
        for span in joined(each.spans[child])
        if isinstance(source := each.sources[span.source], Blob)
    ]
    if len(asked) > _QUICK_REQUESTS or sum(span.size for _, span, _ in asked) > _QUICK_BYTES:
        return None
    found: Pieces = {}
    for name, span, source in asked:
        answer = quick(where.blob_key(source.sha256), span.offset, span.size)
        if answer is None:
            return None
        found[name, span] = answer.body
    return found


def fetch(
    client: Client | None,
    where: Location,
    mapped: Mapped,
    child: int,
    folder: str,
    wait: Wait,
    known: Pieces | None = None,
) -> dict[str, str]:
    """Fetch the items of a job, one GET for each range of a source.

    Args:
        client: S3; may be `None` where all bytes are known.
        where: The call.
        mapped: Its map.
        child: Index of the job in `Mapped.children`.
        folder: Folder for the files.
        wait: Waits for a request.
        known: What `quickly` read.

    Returns:
        For each mapped argument the path of the pickle of the list of its items.

    Raises:
        BlobError: A source is missing, or shorter than it should be.
    """
    paths = {each.name: os.path.join(folder, f"items-{number}.pickle") for number, each in enumerate(mapped.arguments)}
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(open(path, "wb")) for name, path in paths.items()}
        for file in files.values():
            file.write(nested.LIST_HEAD)
        pending: deque[_Piece] = deque()
        for number, (argument, span) in enumerate(
            (each, span) for each in mapped.arguments for span in joined(each.spans[child])
        ):
            if len(pending) == _AT_A_TIME:
                piece = pending.popleft()
                _finish(piece, files[piece.name], wait)
            path = os.path.join(folder, f"items-{number}")
            pending.append(_begin(client, where, argument, span, path, known or {}))
        for piece in pending:
            _finish(piece, files[piece.name], wait)
        for file in files.values():
            file.write(nested.LIST_TAIL)
    return paths


def joined(spans: Iterable[Span]) -> list[Span]:
    """The same bytes in as few spans as possible."""
    found: list[Span] = []
    for span in spans:
        last = found[-1] if found else None
        if last is not None and (last.source, last.offset + last.size) == (span.source, span.offset):
            found[-1] = last._replace(size=last.size + span.size)
        elif span.size:
            found.append(span)
    return found


def _begin(
    client: Client | None, where: Location, argument: MappedArgument, span: Span, path: str, known: Pieces
) -> _Piece:
    source = argument.sources[span.source]
    if isinstance(source, Inline):
        data = source.data[span.offset : span.offset + span.size]
        if len(data) != span.size:
            raise BlobError(f"the items of {argument.name!r} end beyond the bytes that the call has of them")
        return _Piece(argument.name, span, None, "", data)
    if source.codec != "raw":
        raise BlobError(f"the items of {argument.name!r} are in the blob {source.sha256}, which is compressed")
    if (argument.name, span) in known:
        return _Piece(argument.name, span, None, "", known[argument.name, span])
    assert client is not None
    key = where.blob_key(source.sha256)
    request = client.get_range(where.bucket, key, span.offset, span.size, path)
    return _Piece(argument.name, span, request, path, b"")


def _finish(piece: _Piece, file: BinaryIO, wait: Wait) -> None:
    """Append the bytes of a piece to the list of its argument."""
    if piece.request is None:
        file.write(piece.data)
        return
    try:
        wait(piece.request)
    except answers.S3Error as error:
        raise BlobError(f"the items of {piece.name!r} could not be fetched: {error}") from error
    found = os.path.getsize(piece.path)
    if found != piece.span.size:
        raise BlobError(f"of the items of {piece.name!r}, S3 gave {found} bytes instead of {piece.span.size}")
    append_file(file, piece.path)
    os.unlink(piece.path)


def join(of: Joined | JoinedParts, paths: Mapping[Input, str], path: str) -> None:
    """Write the pickle of a list from its bodies, without unpickling an item.

    Args:
        of: The bodies, or parts of them.
        paths: Paths of the decoded blobs.
        path: The file to write.
    """
    with open(path, "wb") as file:
        file.write(nested.LIST_HEAD)
        for body, offset, size in of.parts if isinstance(of, JoinedParts) else ((each, 0, -1) for each in of.bodies):
            if isinstance(body, Inline):
                file.write(body.data[offset:] if size < 0 else body.data[offset : offset + size])
            elif size < 0:
                append_file(file, paths[body])
            else:
                _append_part(file, paths[body], offset, size)
        file.write(nested.LIST_TAIL)


def _append_part(to: BinaryIO, path: str, offset: int, size: int) -> None:
    with open(path, "rb") as source:
        source.seek(offset)
        while size and (data := source.read(min(size, _COPY_BYTES))):
            to.write(data)
            size -= len(data)
    if size:
        raise BlobError("a part of a list is beyond the end of the blob that has it")


def append_file(to: BinaryIO, path: str) -> None:
    """Append the bytes of a file to an open one."""
    with open(path, "rb") as source:
        shutil.copyfileobj(source, to, _COPY_BYTES)
