"""Ids and titles: what a row of the model is called in requests and in answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Ids(NamedTuple):
    """The rows of ids.

    Attributes:
        keys: The ids as UTF-8, sorted.
        rows: Row of each.
    """

    keys: NDArray[np.bytes_]
    rows: NDArray[np.int32]

    def row(self, text: str) -> int | None:
        """The row of an id; None where there is no such id."""
        key = text.encode()
        place = int(self.keys.searchsorted(key))
        return int(self.rows[place]) if place < len(self.keys) and self.keys[place] == key else None


class Catalogue(NamedTuple):
    """Ids of users and items, titles of items, and popular items.

    Attributes:
        users: Rows of the users' ids.
        items: Rows of the items' ids.
        users_are_numbers: Whether ids of users are numbers, as in MovieLens, or texts.
        item_ids: Id of each item's row, as JSON.
        titles: Title of each item's row, as JSON.
        popular: Rows of items, the most popular first.
    """

    users: Ids
    items: Ids
    users_are_numbers: bool
    item_ids: Sequence[str]
    titles: Sequence[str]
    popular: Sequence[int]

    def user_id(self, text: str) -> str:
        """The id of a known user as JSON."""
        return text if self.users_are_numbers else json.dumps(text)
