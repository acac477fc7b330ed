"""Where the results of a list's items are that are reused: a table with a row for each item, as bytes.

Numbers are little-endian, as on every machine that Covalent and AWS Batch run on. A table of a hundred thousand items
has two megabytes, in memory too. Pure, and the standard library only.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

from covalent_cirro.contract.problems import ProtocolError

NOT_REUSED = 0xFFFFFFFF
"""Source of an item whose result is not reused."""

_ROW_BYTES = 4 + 8 + 8


class TableRun(NamedTuple):
    """Results of consecutive items that follow one another in a source, too.

    Attributes:
        first: The first item.
        stop: The item after the last.
        source: Index of the source; `NOT_REUSED` for items whose results are not reused.
        offset: Position of the first byte, in the body that the source is.
        size: Number of bytes.
    """

    first: int
    stop: int
    source: int
    offset: int
    size: int


class ResultTable:
    """For each item the bytes of its result, as a source with an offset and a size. At first, no result is reused.

    Args:
        length: Number of items.
    """

    def __init__(self, length: int) -> None:
        self.source = array("I", [NOT_REUSED]) * length
        self._offset = array("Q", [0]) * length
        self._size = array("Q", [0]) * length

    def set(self, item: int, source: int, offset: int, size: int) -> None:
        """Say where the result of an item is."""
        self.source[item], self._offset[item], self._size[item] = source, offset, size

    def clear(self, item: int) -> None:
        """Say that the result of an item is not reused."""
        self.source[item] = NOT_REUSED

    def at(self, item: int) -> tuple[int, int, int]:
        """Source, offset and size of the result of an item."""
        return self.source[item], self._offset[item], self._size[item]

    def pieces(self) -> Iterator[TableRun]:
        """All items in their order, in as few pieces as possible."""
        last: TableRun | None = None
        for item, (source, offset, size) in enumerate(zip(self.source, self._offset, self._size, strict=True)):
            if source == NOT_REUSED:
                offset = size = 0
            if last is not None and last.source == source and last.offset + last.size == offset:
                last = last._replace(stop=item + 1, size=last.size + size)
                continue
            if last is not None:
                yield last
            last = TableRun(item, item + 1, source, offset, size)
        if last is not None:
            yield last

    def left(self) -> tuple[tuple[int, int], ...]:
        """Items whose results are not reused, as ranges (first, stop)."""
        return tuple((each.first, each.stop) for each in self.pieces() if each.source == NOT_REUSED)

    def dump(self) -> bytes:
        """The bytes of the table; `parse` reads them."""
        return self.source.tobytes() + self._offset.tobytes() + self._size.tobytes()


def parse(data: bytes, length: int) -> ResultTable:
    """Read a table.

    Raises:
        ProtocolError: It is no table of so many items.
    """
    if len(data) != length * _ROW_BYTES:
        raise ProtocolError(f"a table of reused items has {len(data)} bytes, which are not those of {length} items")
    table = ResultTable(0)
    at = 0
    for column in (table.source, table._offset, table._size):
        size = length * column.itemsize
        column.frombytes(data[at : at + size])
        at += size
    return table
