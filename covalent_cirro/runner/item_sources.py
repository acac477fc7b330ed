"""Fetches the items of one job of a mapped electron: byte ranges of lists, which become lists of their own.

Knows S3 and local files. It never unpickles.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from covalent_cirro.contract import nested
from covalent_cirro.contract.maps import Mapped, MappedArgument, Span
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.references import Inline, Input, Ref
from covalent_cirro.runner.s3 import answers
from covalent_cirro.runner.s3.blob_transfer import BlobError, Wait

if TYPE_CHECKING:
    from covalent_cirro.runner.s3.s3_client import Client, Pending

_COPY_BYTES = 1024 * 1024


class _Piece(NamedTuple):
    """Bytes of a source: a request for them and the file that gets them, or the bytes."""

    span: Span
    request: Pending | None
    path: str
    data: bytes


def needs_s3(mapped: Mapped, child: int) -> bool:
    """Whether items of a job are stored in S3, not in the call."""
    return any(
        not isinstance(each.sources[span.source], Inline) for each in mapped.arguments for span in each.spans[child]
    )


def fetch(
    client: Client | None, where: Location, mapped: Mapped, child: int, folder: str, wait: Wait
) -> dict[str, str]:
    """Fetch the items of a job, one GET for each range of a source.

    Args:
        client: S3; may be `None` where `needs_s3` is false.
        where: The call.
        mapped: Its map.
        child: Index of the job in `Mapped.children`.
        folder: Folder for the files.
        wait: Waits for a request.

    Returns:
        For each mapped argument the path of the pickle of the list of its items.

    Raises:
        BlobError: A source is missing, or shorter than it should be.
    """
    pieces: dict[str, list[_Piece]] = {}
    for number, argument in enumerate(mapped.arguments):
        pieces[argument.name] = [
            _begin(client, where, argument, span, os.path.join(folder, f"items-{number}-{i}"))
            for i, span in enumerate(joined(argument.spans[child]))
        ]
    paths = {}
    for number, (name, parts) in enumerate(pieces.items()):
        paths[name] = os.path.join(folder, f"items-{number}.pickle")
        with open(paths[name], "wb") as file:
            file.write(nested.LIST_HEAD)
            for piece in parts:
                _finish(piece, name, wait)
                if piece.request is None:
                    file.write(piece.data)
                else:
                    append_file(file, piece.path)
                    os.unlink(piece.path)
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


def _begin(client: Client | None, where: Location, argument: MappedArgument, span: Span, path: str) -> _Piece:
    source = argument.sources[span.source]
    if isinstance(source, Inline):
        data = source.data[span.offset : span.offset + span.size]
        if len(data) != span.size:
            raise BlobError(f"the items of {argument.name!r} end beyond the bytes that the call has of them")
        return _Piece(span, None, "", data)
    if source.codec != "raw":
        raise BlobError(f"the items of {argument.name!r} are in the blob {source.sha256}, which is compressed")
    assert client is not None
    key = where.blob_key(source.sha256)
    return _Piece(span, client.get_range(where.bucket, key, span.offset, span.size, path), path, b"")


def _finish(piece: _Piece, name: str, wait: Wait) -> None:
    if piece.request is None:
        return
    try:
        wait(piece.request)
    except answers.S3Error as error:
        raise BlobError(f"the items of {name!r} could not be fetched: {error}") from error
    found = os.path.getsize(piece.path)
    if found != piece.span.size:
        raise BlobError(f"of the items of {name!r}, S3 gave {found} bytes instead of {piece.span.size}")


def join_bodies(bodies: Iterable[Ref], paths: Mapping[Input, str], path: str) -> None:
    """Write the pickle of a list from its bodies, without unpickling an item.

    Args:
        bodies: Joined, the body of the list.
        paths: Paths of the decoded blobs.
        path: The file to write.
    """
    with open(path, "wb") as file:
        file.write(nested.LIST_HEAD)
        for body in bodies:
            if isinstance(body, Inline):
                file.write(body.data)
            else:
                append_file(file, paths[body])
        file.write(nested.LIST_TAIL)


def append_file(to: BinaryIO, path: str) -> None:
    """Append the bytes of a file to an open one."""
    with open(path, "rb") as source:
        shutil.copyfileobj(source, to, _COPY_BYTES)
