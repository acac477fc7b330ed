"""What executor and runner exchange about a mapped electron, whose function is called once for each item of a list.

One call runs all items. Its job is an array job of AWS Batch: child ``i`` runs the items of ``Mapped.children[i]``, in
their order. A map that needs one job only has an ordinary job, which runs ``children[0]``. A child reads ``call.json``
and the bytes of its own items, and writes an outcome of its own (`places.Location.child`).

Lists travel as `nested` pickles, which can be cut and joined without unpickling an item. The *body* of a list is the
part of its nested pickle between ``EMPTY_LIST`` and ``STOP``: for each item a part and APPEND. A body may be cut
between items, and bodies that are joined are a body. Pure, and the standard library only.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any, NamedTuple

from covalent_cirro.contract.failure_kinds import Failure
from covalent_cirro.contract.limits import INLINE_BYTES, MAX_ARGUMENTS, NAME_CHARS, URI_CHARS
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.references import MAX_BODIES, Ref

MAX_CHILDREN = 10_000
"""Most jobs of an array job (Batch User Guide, Array jobs)."""

MIN_CHILDREN = 2
"""Fewest jobs of an array job (Batch API Reference, ArrayProperties)."""

MAX_ITEMS = 1_000_000
"""Most items of a mapped electron: a limit of ours, so that a document that is refused cannot ask for more."""

MAX_CHILD_ITEMS = 100_000
"""Most items of one job: what its outcome says of each of them has room within `limits.MAX_OUTCOME_BYTES`."""

MAX_CHUNKS = 4000
"""Chunks of one child's results. The longer it runs and the more it returns, the longer are its chunks
(``runner/item_chunks.py``): four weeks and 10 TB are some 2,000."""

MAX_FAILURES_TOLD = 1000
"""Items that failed of which an outcome says why; of the others it says that they failed."""

DIGEST_BYTES = 16
"""Bytes of the digest of an item (`Mapped.digests`): the beginning of a SHA-256."""

MAX_RUNS = 50_000
"""Most ranges of items that a call computes of a list whose other results are reused: 0.7 MB of its call, which each of
its jobs reads."""

ITEM_VARIABLE = "CIRRO_ITEM"
"""Variable of the electron's process while it computes an item: ``index/length``, both in the whole list."""

ITEM_FUNCTION = "__cirro_item__"
"""Attribute of the function of a mapped electron: the function of one item. The runner calls it with the shared
arguments, and with one item by name for each mapped argument."""


class Span(NamedTuple):
    """Consecutive bytes of a source.

    Attributes:
        source: Index in `MappedArgument.sources`.
        offset: Position of the first byte, in the stored bytes of the source.
        size: Number of bytes.
    """

    source: int
    offset: int
    size: int


class MappedArgument(NamedTuple):
    """An argument of which each call of the function gets one item.

    Attributes:
        name: Name of the parameter.
        sources: Where the bytes of the items lie. Blobs are stored as they are (codec ``raw``), so that a child can
            read a range of them.
        spans: For each child the spans that, joined, are the body of its items.
    """

    name: Annotated[str, NAME_CHARS]
    sources: tuple[Ref, ...]
    spans: tuple[tuple[Span, ...], ...]

    def check(self, path: str, _limit: Any) -> None:
        """Refuse spans of a source that is not there."""
        if any(span.source >= len(self.sources) for spans in self.spans for span in spans):
            raise ProtocolError(f"{path}.spans names a source that is not there")


class ReusedItems(NamedTuple):
    """Results of earlier maps that a map takes. The call computes the other items only, which are a list of their own.

    Attributes:
        length: Number of items of the whole list.
        left: The items that the call computes, as ranges (first, stop) of the whole list, in order.
        origin: URI of the call of the earlier map that most of the results are of.
        sources: Bodies of results. The first one has small results that were not stored as blobs.
        table: For each item of the whole list where its result is in the sources (`item_tables.ResultTable`).
    """

    length: Annotated[int, MAX_ITEMS]
    left: Annotated[tuple[tuple[int, int], ...], MAX_RUNS]
    origin: Annotated[str, URI_CHARS]
    sources: Annotated[tuple[Ref, ...], MAX_BODIES]
    table: Ref

    @property
    def reused_count(self) -> int:
        """Number of items whose results are reused."""
        return self.length - sum(stop - first for first, stop in self.left)

    def check(self, path: str, _limit: Any) -> None:
        """Refuse ranges that are no items of the whole list, in order."""
        at = [0, *(each for pair in self.left for each in pair), self.length]
        if at != sorted(at) or any(first == stop for first, stop in self.left):
            raise ProtocolError(f"{path}.left are not ranges of the {self.length} items in order")


class Mapped(NamedTuple):
    """What makes a task one that is called for each item.

    Attributes:
        length: Number of items of the list, also where this call runs only some of them (a further try). Where results
            of earlier maps are reused, the list has the other items only (``reused``).
        children: For each job of the array its items, as (first, stop) in the list: ``first <= i < stop``.
        arguments: The mapped arguments; there is at least one.
        parallel: Number of items that a job computes at a time, each in a process of its own.
        on_error: ``"raise"``: an item that fails does not end the others; ``"stop"``: it ends its job; ``"return"``:
            the error is the item's result.
        digests: `DIGEST_BYTES` for each item of the whole list, by which a later map finds items that are the same;
            `None` in calls of older versions.
        reused: Results of earlier maps that this map takes; `None` where the call computes the whole list.
    """

    length: Annotated[int, MAX_ITEMS]
    children: Annotated[tuple[tuple[int, int], ...], MAX_CHILDREN]
    arguments: Annotated[tuple[MappedArgument, ...], MAX_ARGUMENTS]
    parallel: int = 1
    on_error: str = "raise"
    digests: Ref | None = None
    reused: ReusedItems | None = None

    @property
    def whole_length(self) -> int:
        """Number of items of the whole list, with those whose results are reused."""
        return self.length if self.reused is None else self.reused.length

    def place_of(self, number: int) -> int:
        """Index in the whole list of an item of the list that this call computes."""
        if self.reused is None:
            return number
        for first, stop in self.reused.left:
            if number < stop - first:
                return first + number
            number -= stop - first
        return self.reused.length

    def places_of(self, numbers: range) -> tuple[tuple[int, int], ...]:
        """Ranges in the whole list of consecutive items of the list that this call computes."""
        if self.reused is None:
            return ((numbers.start, numbers.stop),)
        found: list[tuple[int, int]] = []
        at = 0
        for first, stop in self.reused.left:
            begin, end = max(numbers.start, at), min(numbers.stop, at + stop - first)
            if begin < end:
                found.append((first + begin - at, first + end - at))
            at += stop - first
        return tuple(found)

    def number_at(self, index: int) -> int | None:
        """Which item of the call's list an item of the whole list is; `None` where its result is reused."""
        if self.reused is None:
            return index
        at = 0
        for first, stop in self.reused.left:
            if first <= index < stop:
                return at + index - first
            at += stop - first
        return None

    def check(self, path: str, _limit: Any) -> None:
        """Refuse children without items, and arguments with spans for other children."""
        if self.reused is not None and self.reused.length - self.reused.reused_count != self.length:
            raise ProtocolError(f"{path}.reused.left are not the {self.length} items that are left")
        if not self.children or any(not first < stop <= self.length for first, stop in self.children):
            raise ProtocolError(f"{path}.children are not ranges of the {self.length} items")
        if any(stop - first > MAX_CHILD_ITEMS for first, stop in self.children):
            raise ProtocolError(f"{path}.children has one of more than {MAX_CHILD_ITEMS} items")
        if not self.arguments or any(len(each.spans) != len(self.children) for each in self.arguments):
            raise ProtocolError(f"{path}.arguments do not have spans for {len(self.children)} children")


class Chunk(NamedTuple):
    """The results of consecutive items.

    Attributes:
        first: The first item, in the whole list.
        stop: The item after the last.
        body: The body of the list of results. An item that failed has a part too: with ``on_error="return"`` the
            pickle of its `covalent_cirro.ElectronFailed`, else that of `None`.
    """

    first: Annotated[int, MAX_ITEMS]
    stop: Annotated[int, MAX_ITEMS]
    body: Annotated[Ref, INLINE_BYTES]


class ItemFailure(NamedTuple):
    """An item that failed.

    Attributes:
        item: Its index in the whole list.
        failure: Why.
    """

    item: Annotated[int, MAX_ITEMS]
    failure: Failure


class ItemResults(NamedTuple):
    """What a child computed.

    Attributes:
        chunks: Results, in the order of the items, without gaps from the child's first item on. They end before the
            child's last item where the child was ended, or stopped at a failure.
        failures: The first `MAX_FAILURES_TOLD` items that failed, in order.
        seconds: Seconds that each item of the chunks took, in order; 0.001 s is the resolution.
        more_failures: Further items that failed, as ranges (first, stop) of the whole list, in order.
    """

    chunks: Annotated[tuple[Chunk, ...], MAX_CHUNKS]
    failures: Annotated[tuple[ItemFailure, ...], MAX_FAILURES_TOLD] = ()
    seconds: Annotated[tuple[float, ...], MAX_CHILD_ITEMS] = ()
    more_failures: Annotated[tuple[tuple[int, int], ...], MAX_CHILD_ITEMS] = ()

    def check(self, path: str, _limit: Any) -> None:
        """Refuse chunks with gaps between them, and failures that are not in order."""
        if any(one.item >= other.item for one, other in itertools.pairwise(self.failures)):
            raise ProtocolError(f"{path}.failures are not in the order of the items")
        at = [0, *(each for pair in self.more_failures for each in pair)]
        if at != sorted(at) or sum(stop - first for first, stop in self.more_failures) > MAX_CHILD_ITEMS:
            raise ProtocolError(f"{path}.more_failures are not ranges of items in order")
        stop = self.chunks[0].first if self.chunks else 0
        for i, chunk in enumerate(self.chunks):
            if chunk.first != stop or chunk.stop <= stop:
                raise ProtocolError(f"{path}.chunks[{i}] does not follow the chunk before it")
            stop = chunk.stop

    @property
    def failed(self) -> list[int]:
        """All items that failed, in order."""
        return [each.item for each in self.failures] + [i for pair in self.more_failures for i in range(*pair)]

    @property
    def failed_count(self) -> int:
        """Number of items that failed."""
        return len(self.failures) + sum(stop - first for first, stop in self.more_failures)

    @property
    def stop(self) -> int | None:
        """The item after the last one that has a result; `None` without chunks."""
        return self.chunks[-1].stop if self.chunks else None
