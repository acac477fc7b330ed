"""What a map's call says: the shares of its jobs, and where the bytes of each job's items are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from covalent_cirro.contract import nested
from covalent_cirro.contract.maps import Mapped, MappedArgument
from covalent_cirro.contract.references import Blob, Ref
from covalent_cirro.electron.maps import shares
from covalent_cirro.electron.maps.joined import stored_size
from covalent_cirro.electron.maps.shares import BodyPart, Ranges


class ListFile(NamedTuple):
    """A file with a list that is a pickle of pickles.

    Attributes:
        path: The file.
        is_tobj: The pickle is in a TransportableObject; else the file is the pickle.
        ends: Where each item ends, in the body of the list.
    """

    path: str
    is_tobj: bool
    ends: Sequence[int]


class MapPlan(NamedTuple):
    """A map before it is stored.

    Attributes:
        length: Number of items.
        children: For each job its items; empty without items.
        lists: The mapped lists, by the names of their parameters.
        parallel: Items that a job computes at a time.
        on_error: As the executor's option.
    """

    length: int
    children: Ranges
    lists: Mapping[str, ListFile]
    parallel: int
    on_error: str


async def mapped(
    plan: MapPlan, stored: Callable[[ListFile], tuple[Ref, ...] | None], put: Callable[[ListFile], Awaitable[Ref]]
) -> Mapped:
    """What the call says of a map.

    Args:
        plan: The map.
        stored: The bodies that a list was joined from, where they are stored already.
        put: Stores the whole pickle of a list, as it is.
    """
    arguments = []
    for name, each in plan.lists.items():
        bodies = stored(each)
        if bodies is not None and all(not isinstance(body, Blob) or body.codec == "raw" for body in bodies):
            pieces = [BodyPart(number, 0, stored_size(body)) for number, body in enumerate(bodies)]
        else:
            bodies = (await put(each),)
            pieces = [BodyPart(0, len(nested.LIST_HEAD), each.ends[-1])]
        arguments.append(MappedArgument(name, bodies, shares.spans(plan.children, each.ends, pieces)))
    return Mapped(plan.length, plan.children, tuple(arguments), plan.parallel, plan.on_error)
