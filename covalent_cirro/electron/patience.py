"""Repeats work until the user has fixed what is in the way: credentials, the clock, a full disk of the server.

After the submission a job runs meanwhile, and its result must not be lost. Before the submission nothing was paid for:
an electron fails at once for credentials, which may be the wrong ones. A full disk is waited for there too, since the
electrons that its dispatch has behind it were paid for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from covalent_cirro.errors import CirroError

log = logging.getLogger(__name__)

T = TypeVar("T")

RESULT_WAITS = "The job goes on; its result is fetched as soon as this is put right."
"""What the user reads after the error, unless nothing was submitted yet."""

FIRST_PAUSE_S = 2.0
"""Pause before the second try; each pause is twice as long as the one before."""

MAX_PAUSE_S = 30.0
"""Longest pause between two tries."""

PATIENCE_S = 3 * 24 * 3600.0
"""A session that ends on Friday evening is renewed on Monday. AWS Batch keeps ended jobs for a week."""


async def retry_until_fixed(
    what: str,
    work: Callable[[], Awaitable[T]],
    *,
    errors: type[CirroError] = CirroError,
    then: str = RESULT_WAITS,
    on_problem: Callable[[str], None] = lambda words: None,
    on_fixed: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Do work, and repeat it from its beginning while it fails with an error that the user can fix.

    Args:
        what: The job or the electrons, for the server's log.
        work: Does the work. It asks for an engine each time, so that it uses the credentials of that time.
        errors: Class of the errors for which the work is repeated, where `CirroError.passes` says so.
        then: What the user reads after the error.
        on_problem: Called with the error and ``then``, once for each new problem.
        on_fixed: Called when the work was done after a problem.
        clock: Time in seconds.
        sleep: Sleeps for seconds.

    Returns:
        What ``work`` returns.

    Raises:
        CirroError: ``work`` raised another error, or the same problem for `PATIENCE_S`.
    """
    since = last = float("-inf")
    pause_s = FIRST_PAUSE_S
    waits_for: type[CirroError] | None = None
    while True:
        try:
            done = await work()
            if waits_for is not None:
                log.warning("%s: that was put right", what)
                on_fixed()
            return done
        except CirroError as error:
            refused = next(
                (each for each in (error, error.__cause__) if isinstance(each, errors) and each.passes), None
            )
            if refused is None:
                raise
            now = clock()
            # The work went well since the last error, or the problem is another one.
            if now - last > 2 * MAX_PAUSE_S or type(refused) is not waits_for:
                since, pause_s, waits_for = now, FIRST_PAUSE_S, type(refused)
                words = f"{refused} {then}"
                log.error("%s: %s", what, words)
                on_problem(words)
            elif now - since > PATIENCE_S:
                raise
            last = now
        await sleep(pause_s)
        pause_s = min(MAX_PAUSE_S, pause_s * 2)
