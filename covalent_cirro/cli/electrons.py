"""How an electron or a dispatch is named on the command line."""

from __future__ import annotations

from typing import Any

import click

from covalent_cirro.history import names
from covalent_cirro.history.names import Wanted


class DispatchName(click.ParamType):  # type: ignore[type-arg]  # generic in click's stubs only
    """``DISPATCH``, ``DISPATCH:NODE``, or either, as `Wanted`.

    Args:
        node: `True`: with a node; `False`: without one; `None`: either.
        item: An item of a map may be named: ``DISPATCH:NODE[ITEM]``.
    """

    name = "electron"

    def __init__(self, *, node: bool | None, item: bool = False) -> None:
        self._node = node
        self._item = item

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Wanted:
        """Parse what was typed; anything else is wrong usage."""
        if isinstance(value, Wanted):
            return value
        try:
            wanted = names.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if wanted.item is not None and not self._item:
            self.fail(
                f"{value!r} is an item of a map: an electron is meant here, write {wanted._replace(item=None)}",
                param,
                ctx,
            )
        if self._node is True and wanted.node_id is None:
            self.fail(
                f"{value!r} is a dispatch, not an electron: write {value}:NODE; "
                f"`cirro jobs --dispatch {value}` lists the nodes",
                param,
                ctx,
            )
        if self._node is False and wanted.node_id is not None:
            self.fail(f"{value!r} is an electron: a dispatch is meant here, write {wanted.dispatch}", param, ctx)
        return wanted
