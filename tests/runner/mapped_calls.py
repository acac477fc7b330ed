"""Calls of mapped electrons, and the lists of their results."""

from __future__ import annotations

import itertools
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle

from covalent_cirro.contract import maps, nested, places
from covalent_cirro.contract.maps import ItemResults, Mapped, MappedArgument, Span
from covalent_cirro.contract.protocol import Task
from covalent_cirro.contract.references import Inline, Ref
from tests.runner.conftest import Runs

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # no job has the tests


class _Function:
    """Like the function of a mapped electron: it has the function of one item."""

    def __init__(self, of_item: Callable[..., Any]) -> None:
        setattr(self, maps.ITEM_FUNCTION, of_item)
        self.__name__ = of_item.__name__


def body_of(values: Sequence[Any]) -> tuple[bytes, list[int]]:
    """The body of a list, and for each item where it ends."""
    import io

    body, ends = io.BytesIO(), []
    for value in values:
        nested.append_item(body, lambda file, value=value: cloudpickle.dump(value, file))  # type: ignore[misc]
        ends.append(body.tell())
    return body.getvalue(), ends


def make_task(
    runs: Runs,
    of_item: Callable[..., Any],
    items: dict[str, Sequence[Any]],
    *args: Any,
    jobs: int = 1,
    inline: bool = False,
    on_error: str = "raise",
    parallel: int = 1,
    **options: Any,
) -> Task:
    """A task that calls ``of_item`` for each item, shared over so many jobs."""
    length = len(next(iter(items.values())))
    cuts = [length * i // jobs for i in range(jobs + 1)]
    arguments = []
    for name, values in items.items():
        body, ends = body_of(values)
        source: Ref = Inline(body) if inline else runs.blob(body)
        at = [0, *ends]
        spans = tuple((Span(0, at[first], at[stop] - at[first]),) for first, stop in itertools.pairwise(cuts))
        arguments.append(MappedArgument(name, (source,), spans))
    mapped = Mapped(length, tuple(itertools.pairwise(cuts)), tuple(arguments), parallel, on_error)
    return runs.task(_Function(of_item), *args, **options)._replace(mapped=mapped, name=of_item.__name__)


def values_of(runs: Runs, items: ItemResults | None) -> list[Any]:
    """The results of the items of a job; those of failed ones as they stand in the list."""
    assert items is not None
    body = b"".join(runs.bytes_of(chunk.body) for chunk in items.chunks)
    values: list[Any] = pickle.loads(nested.LIST_HEAD + body + nested.LIST_TAIL)
    return values


def child(runs: Runs, index: int) -> places.Location:
    """The place of a job of the array."""
    return runs.location.child(index)
