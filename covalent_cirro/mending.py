"""Goes on once the user has put credentials or clock right: the job runs meanwhile, and its result is not to be lost.

For what follows the submission. Before it nothing is lost by failing at once, and nothing was paid for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from covalent_cirro.errors import CirroError, NoCredentials, Unsigned

log = logging.getLogger(__name__)

T = TypeVar("T")

_MENDABLE = (Unsigned, NoCredentials)

FIRST_PAUSE_S = 2.0
"""Before the second look; each pause is twice the one before."""

MAX_PAUSE_S = 30.0
"""Between two looks at whether AWS takes our signature again."""

PATIENCE_S = 3 * 24 * 3600.0
"""A session that ends on Friday evening is renewed on Monday. AWS Batch keeps ended jobs for a week."""


async def until_mended(
    what: str,
    work: Callable[[], Awaitable[T]],
    *,
    tell: Callable[[str], None] = lambda words: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Do something, and again from its beginning while AWS does not take our signature, or we have none to give.

    Args:
        what: Whose job it is about, for the log.
        work: Asks for an engine anew each time, and so for the credentials that there are by then.
        tell: Given what is wrong and what to do, once each time that it goes wrong.
        clock, sleep: Time.

    Raises:
        CirroError: What ``work`` raises for another reason, or for this one after `PATIENCE_S`.
    """
    since = last = float("-inf")
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return await work()
        except CirroError as error:
            refused = error if isinstance(error, _MENDABLE) else error.__cause__
            if not isinstance(refused, _MENDABLE):
                raise
            now = clock()
            if now - last > 2 * MAX_PAUSE_S:  # it went well in between
                since, pause_s = now, FIRST_PAUSE_S
                words = f"{refused} The job goes on; its result is fetched as soon as this is put right."
                log.error("%s: %s", what, words)
                tell(words)
            elif now - since > PATIENCE_S:
                raise
            last = now
        await sleep(pause_s)
        pause_s = min(MAX_PAUSE_S, pause_s * 2)
