"""Requests that wait at the same time are answered by one matrix product.

A product reads all factors of all items from memory, whether it is for one user or for twenty. Under load, each round
of the event loop finds several requests: together they read the factors once.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from recommender_service.model import Best, Model


class _Waiting(NamedTuple):
    user: int
    n: int
    answer: asyncio.Future[Best]


class Together:
    """Collects the users of a round of the event loop. No request waits for others that are still to come."""

    def __init__(self, model: Model) -> None:
        """Answer from a model."""
        self._model = model
        self._waiting: list[_Waiting] = []

    async def best(self, user: int, n: int) -> Best:
        """The items with the highest scores for a user, as `Model.best` gives them.

        Args:
            user: Row of the user.
            n: Items in the answer.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            # Behind the requests that this round of the loop has found already, and before it looks for further ones.
            loop.call_soon(self._answer)
        waiting = _Waiting(user, n, loop.create_future())
        self._waiting.append(waiting)
        return await waiting.answer

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            found = self._model.best([each.user for each in waiting], [each.n for each in waiting])
        except Exception as error:
            for each in waiting:
                if not each.answer.done():
                    each.answer.set_exception(error)
            return
        for each, best in zip(waiting, found, strict=True):
            if not each.answer.done():  # its request may have been cancelled
                each.answer.set_result(best)
