"""Which items of a list each job of a map computes, and where the bytes of these items lie. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import NamedTuple

from covalent_cirro.contract.maps import MAX_CHILDREN, Span

Ranges = tuple[tuple[int, int], ...]
"""For each job its items, as (first, stop)."""


class SourcePart(NamedTuple):
    """Consecutive bytes of the body of a list, in a source.

    Attributes:
        source: Index of the source.
        offset: Position of the first byte in the source.
        size: Number of bytes.
    """

    source: int
    offset: int
    size: int


def shared(length: int, array_size: int | None) -> Ranges:
    """Share items over jobs, evenly: job ``i`` of ``size`` has ``[length * i // size, length * (i + 1) // size)``.

    Args:
        length: Number of items, from 1.
        array_size: Most jobs; `None`: as many as AWS Batch allows.
    """
    size = min(length, array_size or MAX_CHILDREN, MAX_CHILDREN)
    return tuple((length * i // size, length * (i + 1) // size) for i in range(size))


def spans(ranges: Ranges, ends: Sequence[int], pieces: Sequence[SourcePart]) -> tuple[tuple[Span, ...], ...]:
    """For each job the spans that, joined, are the body of its items.

    Args:
        ranges: The items of each job.
        ends: Where each item ends, in the body of the whole list.
        pieces: The body, in order.
    """
    return cut([(ends[first - 1] if first else 0, ends[stop - 1]) for first, stop in ranges], pieces)


def cut(parts: Sequence[tuple[int, int]], pieces: Sequence[SourcePart]) -> tuple[tuple[Span, ...], ...]:
    """For each part of a body the spans that, joined, are the part.

    Args:
        parts: Where each part begins and ends, in the body.
        pieces: The body, in order.
    """
    begins = [0]
    for piece in pieces:
        begins.append(begins[-1] + piece.size)

    def span(begin: int, end: int) -> tuple[Span, ...]:
        found: list[Span] = []
        number = bisect.bisect_right(begins, begin) - 1
        while begin < end:
            piece = pieces[number]
            stop = min(end, begins[number + 1])
            if stop > begin:
                found.append(Span(piece.source, piece.offset + begin - begins[number], stop - begin))
                begin = stop
            number += 1
        return tuple(found)

    return tuple(span(begin, end) for begin, end in parts)
