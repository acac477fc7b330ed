"""Callers who ask for the same at the same time share one call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from covalent_cirro.aws.single_flight import SingleFlight


class Counted:
    """A call that takes a while, counts how often it is made, and can fail."""

    def __init__(self, *errors: Exception) -> None:
        self.made = 0
        self.goes_on = asyncio.Event()
        self._errors = list(errors)

    async def __call__(self) -> int:
        self.made += 1
        number = self.made
        await self.goes_on.wait()
        if self._errors:
            raise self._errors.pop(0)
        return number


async def together(*calls: Awaitable[int], begin: Callable[[], None]) -> list[int | BaseException]:
    """What callers get who ask at the same time."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    begin()
    return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("keep", [False, True])
async def test_callers_of_one_key_share_one_call(keep: bool) -> None:
    """Callers of another key have a call of their own."""
    flight, call = SingleFlight[str, int](keep=keep), Counted()
    found = await together(flight.run("a", call), flight.run("b", call), flight.run("a", call), begin=call.goes_on.set)
    assert found == [1, 2, 1]


@pytest.mark.parametrize(("keep", "later"), [(False, 2), (True, 1)])
async def test_a_result_is_for_later_callers_if_it_is_kept(keep: bool, later: int) -> None:
    """Until it is forgotten."""
    flight, call = SingleFlight[str, int](keep=keep), Counted()
    call.goes_on.set()
    assert await flight.run("a", call) == 1
    assert await flight.run("a", call) == later
    flight.forget("a")
    assert await flight.run("a", call) == later + 1


@pytest.mark.parametrize("keep", [False, True])
async def test_an_error_is_for_all_who_asked_and_for_nobody_later(keep: bool) -> None:
    """The next caller asks again."""
    error = OSError("no")
    flight, call = SingleFlight[str, int](keep=keep), Counted(error)
    assert await together(flight.run("a", call), flight.run("a", call), begin=call.goes_on.set) == [error, error]
    assert await flight.run("a", call) == 2


async def test_a_caller_that_is_cancelled_does_not_cancel_the_call() -> None:
    """Not even the first one; and an error that nobody waits for any more is no "exception was never retrieved"."""
    flight, call = SingleFlight[str, int](), Counted()
    first = asyncio.ensure_future(flight.run("a", call))
    second = asyncio.ensure_future(flight.run("a", call))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    call.goes_on.set()
    assert await second == 1
    assert first.cancelled()


async def test_what_was_forgotten_does_not_come_back_when_its_call_ends() -> None:
    """The call that was begun after it stays."""
    flight, call = SingleFlight[str, int](keep=True), Counted()
    first = asyncio.ensure_future(flight.run("a", call))
    await asyncio.sleep(0)
    flight.forget("a")
    second = asyncio.ensure_future(flight.run("a", call))
    await asyncio.sleep(0)
    call.goes_on.set()
    assert (await first, await second, await flight.run("a", call)) == (1, 2, 2)


async def test_calls_that_have_not_ended_are_cancelled_at_the_close() -> None:
    """Whoever waits for one is cancelled with it."""
    flight, call = SingleFlight[str, int](), Counted()
    waiting = asyncio.ensure_future(flight.run("a", call))
    await asyncio.sleep(0)
    await flight.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting
