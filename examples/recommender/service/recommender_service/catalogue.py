"""Ids and titles: what a row of the model is called in requests and in answers."""

from __future__ import annotations

import json
from array import array
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


class Texts:
    """Id and title of each item, as JSON: ``50,"A title"``. One behind the other: a list takes twice the memory."""

    def __init__(self, text: NDArray[np.uint8], starts: NDArray[np.int64]) -> None:
        """Keep them.

        Args:
            text: All texts in ASCII.
            starts: Where each begins, and where the last one ends.
        """
        self._text = text.tobytes().decode("ascii")
        self._starts = array("q", starts.tolist())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._starts) - 1

    def __getitem__(self, row: int) -> str:
        """The text of a row."""
        return self._text[self._starts[row] : self._starts[row + 1]]


class Catalogue(NamedTuple):
    """Ids of users and items, titles of items, and popular items.

    Attributes:
        users: Rows of the users' ids.
        items: Rows of the items' ids.
        users_are_numbers: Whether ids of users are numbers, as in MovieLens, or texts.
        texts: Id and title of each item's row, as JSON.
        popular: Rows of items, the most popular first.
    """

    users: Ids
    items: Ids
    users_are_numbers: bool
    texts: Texts
    popular: Sequence[int]

    def named(self, row: int) -> str:
        """Id and title of an item as members of a JSON object: ``"item":50,"title":"A title"``."""
        # The first comma before a quotation mark ends the id: within a text, JSON has a backslash before the mark.
        item, _, title = self.texts[row].partition(',"')
        return f'"item":{item},"title":"{title}'

    def user_id(self, text: str) -> str:
        """The id of a known user as JSON."""
        return text if self.users_are_numbers else json.dumps(text)
