"""What a map's call says: the shares of its jobs, and where the bytes of each job's items are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from covalent_cirro.contract import nested
from covalent_cirro.contract.maps import Mapped, MappedArgument, ReusedItems
from covalent_cirro.contract.references import Blob, Ref
from covalent_cirro.electron.maps import shares
from covalent_cirro.electron.maps.joined import StoredList
from covalent_cirro.electron.maps.shares import Ranges, SourcePart


class ListFile(NamedTuple):
    """A file with a list that is a pickle of pickles.

    Attributes:
        path: The file.
        is_tobj: The pickle is in a TransportableObject; else the file is the pickle.
        ends: Where each item ends, in the body of the list.
        parts: Where the list is only parts of the body in the file, where each of them begins and ends.
        size: Bytes of the body in the file; -1: up to the end of the last item.
    """

    path: str
    is_tobj: bool
    ends: Sequence[int]
    parts: Sequence[tuple[int, int]] | None = None
    size: int = -1


class ReusePlan(NamedTuple):
    """Results of earlier maps that a map takes, before anything is stored.

    Attributes:
        length: Number of items of the whole list.
        left: The items that are computed, as ranges of the whole list.
        origin: URI of the call of the earlier map that most of the results are of.
        small: File with the results that were not stored as blobs.
        blobs: The others.
        table: File with the table of all items.
    """

    length: int
    left: Ranges
    origin: str
    small: str
    blobs: tuple[Blob, ...]
    table: str


class MapPlan(NamedTuple):
    """A map before it is stored.

    Attributes:
        length: Number of items that are computed.
        children: For each job its items; empty without items.
        lists: The mapped lists, by the names of their parameters.
        parallel: Items that a job computes at a time.
        on_error: As the executor's option.
        folder: Folder for further files of the plan.
        digests: File with the digests of the items of the whole list.
        need_modules: As `item_digests.Digests.need_modules`.
        reuse: Results of earlier maps; `None`: all items are computed.
        names_only: Only the names of the lists are needed: their items are not stored.
    """

    length: int
    children: Ranges
    lists: Mapping[str, ListFile]
    parallel: int
    on_error: str
    folder: str = ""
    digests: str = ""
    need_modules: bool = True
    reuse: ReusePlan | None = None
    names_only: bool = False

    @property
    def size(self) -> int:
        """Bytes of all items."""
        return sum(each.ends[-1] if each.ends else 0 for each in self.lists.values())


class Put(Protocol):
    """Stores a file, or has its bytes in the call itself."""

    async def __call__(self, path: str, *, is_tobj: bool, as_it_is: bool = False) -> Ref:
        """The reference to what was stored."""


async def mapped(plan: MapPlan, stored: Callable[[ListFile], StoredList | None], put: Put) -> Mapped:
    """What the call says of a map.

    Args:
        plan: The map.
        stored: What a list was joined from, where that is stored already.
        put: Stores a file.
    """
    arguments = []
    for name, each in plan.lists.items():
        if plan.names_only:
            arguments.append(MappedArgument(name, (), ()))
            continue
        known = stored(each)
        if known is not None and all(not isinstance(body, Blob) or body.codec == "raw" for body in known.bodies):
            bodies, pieces = known.bodies, known.pieces
        else:
            bodies = (await put(each.path, is_tobj=each.is_tobj, as_it_is=True),)
            pieces = [SourcePart(0, len(nested.LIST_HEAD), each.ends[-1] if each.size < 0 else each.size)]
        if each.parts is not None:
            pieces = [SourcePart(*span) for spans in shares.cut(each.parts, pieces) for span in spans]
        arguments.append(MappedArgument(name, bodies, shares.spans(plan.children, each.ends, pieces)))
    return Mapped(
        plan.length,
        plan.children,
        tuple(arguments),
        plan.parallel,
        plan.on_error,
        await put(plan.digests, is_tobj=False, as_it_is=True)
        if not plan.names_only or plan.reuse is not None
        else None,
        await reused_items(plan.reuse, put) if plan.reuse is not None else None,
    )


async def reused_items(of: ReusePlan, put: Put) -> ReusedItems:
    """What a document says of results that are reused."""
    sources = (await put(of.small, is_tobj=False, as_it_is=True), *of.blobs)
    return ReusedItems(of.length, of.left, of.origin, sources, await put(of.table, is_tobj=False))
