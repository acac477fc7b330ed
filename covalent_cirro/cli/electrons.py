"""What the commands about electrons share: how one is named, and how times and sizes are written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import click

from covalent_cirro.history import names
from covalent_cirro.history.names import Wanted

MIB = 1024 * 1024


class DispatchName(click.ParamType):  # type: ignore[type-arg]  # generic in click's stubs only
    """``DISPATCH``, ``DISPATCH:NODE``, or either, as `Wanted`.

    Args:
        node: `True`: with a node; `False`: without one; `None`: either.
    """

    name = "electron"

    def __init__(self, *, node: bool | None) -> None:
        self._node = node

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Wanted:
        """Read what was typed; something else is wrong usage."""
        if isinstance(value, Wanted):
            return value
        try:
            wanted = names.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
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


def lasting(seconds: float) -> str:
    """A duration as people read it: ``0.4 s``, ``42 s``, ``3 min 20 s``, ``2 h 5 min``, ``6 d 3 h``."""
    whole = int(max(0.0, seconds))
    if whole < 1:
        return f"{max(0.0, seconds):.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def moment(epoch_s: float) -> str:
    """A time in UTC, to the second."""
    return datetime.fromtimestamp(epoch_s, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def memory(mib: float) -> str:
    """A size of memory: ``512 MiB``, ``3.8 GiB``."""
    if mib < 1024:
        return f"{mib:.0f} MiB"
    return f"{mib / 1024:.3g} GiB" if mib < 1000 * 1024 else f"{mib / 1024:,.0f} GiB"


def counted(counts: Mapping[str, int]) -> str:
    """``"3 RUNNING, 1 FAILED"``."""
    return ", ".join(f"{number} {state}" for state, number in counts.items())
