"""The model as arrays: the best items of users, and similar items. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK_SCORES = 1 << 17
"""Scores of one matrix product, 512 KiB: 35 users of 3,706 items. They stay in the processor's cache while the best are
found; more users are a further product."""

COLUMNS = 128
"""Columns of which `highest` looks at the maxima first."""

ROUNDING = 2.0**-24
"""Relative error of a rounding to float32."""

LOWEST = float(np.finfo(np.float32).min)
"""The lowest score that an item can have; what must not be in an answer is below it."""

FloatArray = NDArray[np.float32]


class Best(NamedTuple):
    """Items in the order of an answer.

    Attributes:
        rows: Rows of the items in the model, the best first.
        scores: Predicted rating or similarity of each, float32.
    """

    rows: NDArray[np.intp]
    scores: FloatArray


NOTHING = Best(np.empty(0, np.intp), np.empty(0, np.float32))


class Model:
    """Matrix factorisation with biases.

    The score of item ``i`` for user ``u`` is ``bias + bias_user[u] + bias_item[i] + user[u] @ item[i]``, added up in
    float64 and rounded to float32. So it does not depend on the order in which a matrix product adds, and a user gets
    the same answer alone and in a batch. Items with equal scores are in the order of their rows.

    The product of all items is one of float32, which is twice as fast. It only says which items can be in the answer:
    those that are below the last one by less than the product's error are taken along, and get their scores then.
    """

    def __init__(
        self,
        vectors: FloatArray,
        factors: FloatArray,
        offsets: NDArray[np.float64],
        rated_start: NDArray[np.int64],
        rated_items: NDArray[np.integer[Any]],
    ) -> None:
        """Keep the arrays; `prepare.model_arrays` makes them of the registered ones.

        Args:
            vectors: Vector of each user, and a 1, ``[users, k + 1]``.
            factors: Vectors of the items, and a row of their biases, ``[k + 1, items]``.
            offsets: Bias of each user and the global one, ``[users]``.
            rated_start: Where the ratings of each user begin in ``rated_items``, and where the last ones end,
                ``[users + 1]``.
            rated_items: Rows of the items that each user has rated, ascending for each user, ``[ratings]``.
        """
        self._vectors = vectors
        self._factors = factors
        self._offsets = offsets
        self._rated_start = rated_start
        self._rated_items = rated_items
        # Adding m numbers has m - 1 roundings, whatever the order, and each product and the score have one.
        magnitudes = np.abs(vectors) @ np.abs(factors).max(axis=1) + np.abs(offsets)
        self._errors = (len(factors) + 3) * ROUNDING * magnitudes
        norms = np.sqrt(np.square(factors[:-1], dtype=np.float64).sum(axis=0))
        # An item whose vector is 0 is similar to none.
        self._norms = np.where(norms == 0, 1.0, norms)

    @property
    def users(self) -> int:
        """How many users the model knows."""
        return len(self._vectors)

    @property
    def items(self) -> int:
        """How many items the model knows."""
        return self._factors.shape[1]

    def best(self, users: Sequence[int], counts: Sequence[int]) -> list[Best]:
        """The items with the highest scores, for each of some users, by one matrix product for many of them.

        Args:
            users: Rows of the users.
            counts: How many items each gets; all that the user has not rated, where these are fewer.

        Returns:
            An answer for each user, in their order. No item that the user has rated is in it.
        """
        at_once = max(1, BLOCK_SCORES // self.items)
        blocks = [slice(start, start + at_once) for start in range(0, len(users), at_once)]
        return [best for block in blocks for best in self._best_of_block(users[block], counts[block])]

    def _best_of_block(self, users: Sequence[int], counts: Sequence[int]) -> list[Best]:
        vectors = self._vectors[users]
        products = vectors @ self._factors
        return [self._best_not_rated(*each) for each in zip(users, vectors, products, counts, strict=True)]

    def _best_not_rated(self, user: int, vector: FloatArray, products: FloatArray, n: int) -> Best:
        rated = self._rated_items[self._rated_start[user] : self._rated_start[user + 1]]
        products[rated] = -np.inf
        n = min(n, len(products) - len(rated))
        if n == 0:
            return NOTHING
        lowest = _at_most_the_lowest(products, n) - 2 * float(self._errors[user])
        rows = (products >= max(lowest, LOWEST)).nonzero()[0]
        scores = vector.astype(np.float64) @ self._factors.take(rows, axis=1) + self._offsets[user]
        return _first(rows, scores.astype(np.float32), n)

    def similar(self, row: int, n: int) -> Best:
        """The items whose vectors have the highest cosine with that of one item; the item itself is left out.

        Args:
            row: Row of the item.
            n: Items in the answer; all others, where these are fewer.
        """
        vectors = self._factors[:-1].astype(np.float64)
        cosines = (vectors[:, row] @ vectors) / (self._norms * self._norms[row])
        scores = cosines.astype(np.float32)
        scores[row] = -np.inf
        return highest(scores, min(n, self.items - 1))


def highest(scores: FloatArray, n: int) -> Best:
    """The ``n`` highest scores, the highest first; equal ones in the order of their rows.

    Args:
        scores: A score for each row.
        n: 0 to ``len(scores)``.
    """
    if n == 0:
        return NOTHING
    rows = (scores >= _at_most_the_lowest(scores, n)).nonzero()[0]
    return _first(rows, scores[rows], n)


def _first(rows: NDArray[np.intp], scores: FloatArray, n: int) -> Best:
    order = (-scores).argsort(kind="stable")[:n]
    return Best(rows[order], scores[order])


def _at_most_the_lowest(scores: FloatArray, n: int) -> float:
    """A score that the ``n`` highest ones all reach, and few others do: what is below it need not be sorted.

    The scores are dealt to `COLUMNS` columns. Each of the ``n`` highest maxima of columns is a score, so the lowest of
    these maxima is not above the score in place ``n``. Maxima are found ten times as fast as that score itself.
    """
    if n > COLUMNS or len(scores) < 2 * COLUMNS:
        return float(np.partition(scores, len(scores) - n)[len(scores) - n])
    maxima = scores[: len(scores) // COLUMNS * COLUMNS].reshape(-1, COLUMNS).max(axis=0)
    maxima.partition(COLUMNS - n)
    return float(maxima[COLUMNS - n])
