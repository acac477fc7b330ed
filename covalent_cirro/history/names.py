"""Parses what a user typed to name an electron, and names of jobs. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from covalent_cirro.errors import NoSuchElectron

SHORT = 8
"""Characters of a dispatch's id that a job's name has (`batch.job_name`), and that commands show."""

NAMED = 10
"""Candidates that a message lists, at most."""

_NODE_AND_ITEM = re.compile(r"(?P<node>[0-9]+)(?:\[(?P<item>[0-9]+)\])?")
_JOB_NAME = re.compile(r"-(?P<dispatch>[^-]{1,8})-(?P<node>\d+)-(?P<call>[0-9a-f]{20})(?![0-9a-f])")


class Wanted(NamedTuple):
    """A dispatch or an electron, as a user named it.

    Attributes:
        dispatch: Id of the dispatch, or the beginning of the id.
        node_id: Id of the electron's node; `None` for all electrons of the dispatch.
        item: Index of an item of a map; `None` for the electron itself.
    """

    dispatch: str
    node_id: int | None = None
    item: int | None = None

    def __str__(self) -> str:
        node = "" if self.node_id is None else f":{self.node_id}"
        return f"{self.dispatch}{node}" + ("" if self.item is None else f"[{self.item}]")


class JobName(NamedTuple):
    """What the name of an electron's job says: the beginning of its dispatch's id, its node and its call."""

    dispatch: str
    node_id: int
    call_id: str


def parse(text: str) -> Wanted:
    """Read ``DISPATCH``, ``DISPATCH:NODE`` or ``DISPATCH:NODE[ITEM]``.

    Raises:
        ValueError: It is neither; the message says what it should be.
    """
    dispatch, colon, node = text.strip().partition(":")
    found = _NODE_AND_ITEM.fullmatch(node)
    if not dispatch or (colon and found is None):
        raise ValueError(
            f"{text!r} is not DISPATCH or DISPATCH:NODE: the beginning of a dispatch's id, and the number of a node"
        )
    if found is None:
        return Wanted(dispatch.lower())
    return Wanted(dispatch.lower(), int(found["node"]), int(found["item"]) if found["item"] else None)


def parse_job_name(name: str) -> JobName | None:
    """Parse a name from `batch.job_name`; `None` for other names."""
    match = _JOB_NAME.search(name)
    return None if match is None else JobName(match["dispatch"].lower(), int(match["node"]), match["call"])


def choose(wanted: str, ids: Collection[str], others: Sequence[str] = ()) -> str:
    """The one id that is ``wanted`` or begins with it.

    Args:
        wanted: An id or the beginning of one.
        ids: Known ids.
        others: Ids that the message lists where none matches.

    Raises:
        NoSuchElectron: None begins so, or several do; candidates are named.
    """
    if wanted in ids:
        return wanted
    found = sorted(each for each in set(ids) if each.startswith(wanted))
    if len(found) == 1:
        return found[0]
    if found:
        raise NoSuchElectron(f"{wanted!r} begins the ids of {len(found)} dispatches: {listed(found)}. Give more of it.")
    known = f" There are: {listed(others)}." if others else " There is none at all."
    raise NoSuchElectron(f"no dispatch has an id that begins with {wanted!r}.{known} `cirro jobs --all` lists them.")


def listed(names: Sequence[str]) -> str:
    """Names joined by commas; of more than `NAMED`, the first ones and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
