"""Credentials that expire and clocks that are wrong: who waits for a job goes on once the user has put it right."""

from __future__ import annotations

import asyncio

import pytest

from covalent_cirro.electron.patience import MAX_PAUSE_S, PATIENCE_S, retry_until_fixed
from covalent_cirro.errors import AccessDenied, AwsError, NoCredentials, PollFailed, Unsigned


class Hours:
    """A clock of our own, whose sleeps cost nothing."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def expired() -> Unsigned:
    """What aws/sessions.py makes of a session that has ended."""
    return Unsigned("s3:GetObject: The credentials have expired.", operation="s3:GetObject", code="ExpiredToken")


async def test_a_file_that_is_not_there_for_a_moment_is_waited_for() -> None:
    """Whoever writes new credentials may remove the old ones first."""
    hours, told = Hours(), []

    async def work() -> str:
        if hours.now < 60:
            raise NoCredentials("credentials='/x' cannot be read: No such file or directory.")
        return "the result"

    assert (
        await retry_until_fixed("job-1", work, on_problem=told.append, clock=hours.clock, sleep=hours.sleep)
        == "the result"
    )
    assert len(told) == 1
    assert "'/x'" in told[0]


async def test_work_goes_on_where_it_stood_when_credentials_are_renewed() -> None:
    """However long that takes, up to a weekend; the user is told once."""
    hours, told = Hours(), []

    async def work() -> str:
        if hours.now < 60 * 3600:
            raise expired()
        return "the result"

    done = retry_until_fixed("the job", work, on_problem=told.append, clock=hours.clock, sleep=hours.sleep)
    assert await done == "the result"
    assert hours.now < 60 * 3600 + MAX_PAUSE_S
    (words,) = told
    assert "have expired" in words
    assert "The job goes on" in words


async def test_a_wait_that_failed_for_it_goes_on_too() -> None:
    """The watcher says what it failed for."""
    answers = iter([PollFailed("The job's state cannot be learnt"), None])

    async def work() -> str:
        error = next(answers)
        if error is not None:
            raise error from expired()
        return "ended"

    hours = Hours()
    assert await retry_until_fixed("the job", work, clock=hours.clock, sleep=hours.sleep) == "ended"


@pytest.mark.parametrize(
    "error",
    [
        AccessDenied("not authorized", operation="s3:GetObject", code="AccessDenied"),
        AwsError("no answer", operation="s3:GetObject", code="500", retryable=True),
        PollFailed("blind"),
    ],
)
async def test_everything_else_is_told_at_once(error: Exception) -> None:
    """A permission that is missing does not come by waiting; what is worth trying again was tried below."""

    async def work() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await retry_until_fixed("the job", work, sleep=Hours().sleep)
    assert caught.value is error


async def test_in_the_end_it_is_told() -> None:
    """AWS Batch forgets jobs after a week: an answer that nobody hears of is none."""
    hours = Hours()

    async def work() -> None:
        raise expired()

    with pytest.raises(Unsigned):
        await retry_until_fixed("the job", work, clock=hours.clock, sleep=hours.sleep)
    assert PATIENCE_S < hours.now < PATIENCE_S + 2 * MAX_PAUSE_S


async def test_each_time_has_a_patience_of_its_own() -> None:
    """What went wrong last month does not count; it is told again."""
    hours, told = Hours(), []

    async def work() -> str:
        if len(told) == 0 or (len(told) == 1 and hours.now < 3600):
            raise expired()
        if len(told) == 1:
            hours.now += PATIENCE_S * 10  # it went well for a month
            raise expired()
        return "done"

    assert (
        await retry_until_fixed("the job", work, on_problem=told.append, clock=hours.clock, sleep=hours.sleep) == "done"
    )
    assert len(told) == 2
