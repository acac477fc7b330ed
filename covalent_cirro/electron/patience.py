"""Goes on once the user has put right what is in the way: credentials, the clock, a full disk of the server.

After the submission a job runs meanwhile, and its result is not to be lost. Before it nothing was paid for: an electron
fails at once for its credentials, which may be wrong ones. A full disk is waited for there too: the electrons that its
dispatch has behind it were paid for.
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
"""What else the user is told, unless nothing was submitted yet."""

FIRST_PAUSE_S = 2.0
"""Before the second look; each pause is twice the one before."""

MAX_PAUSE_S = 30.0
"""Between two looks at whether it was put right."""

PATIENCE_S = 3 * 24 * 3600.0
"""A session that ends on Friday evening is renewed on Monday. AWS Batch keeps ended jobs for a week."""


async def until_mended(
    what: str,
    work: Callable[[], Awaitable[T]],
    *,
    of: type[CirroError] = CirroError,
    then: str = RESULT_WAITS,
    tell: Callable[[str], None] = lambda words: None,
    mended: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Do something, and again from its beginning while something is in the way that passes (`CirroError.passes`).

    Args:
        what: Whose job it is about, for the log.
        work: Asks for an engine anew each time, and so for the credentials that there are by then.
        of: What is waited for, if not all that passes.
        then: What else the user is told.
        tell: Given what is wrong and what to do, once each time that it goes wrong.
        mended: Called once it was put right.
        clock, sleep: Time.

    Raises:
        CirroError: What ``work`` raises for another reason, or for this one after `PATIENCE_S`.
    """
    since = last = float("-inf")
    pause_s = FIRST_PAUSE_S
    waits_for: type[CirroError] | None = None
    while True:
        try:
            done = await work()
            if waits_for is not None:
                log.warning("%s: that was put right", what)
                mended()
            return done
        except CirroError as error:
            refused = next((each for each in (error, error.__cause__) if isinstance(each, of) and each.passes), None)
            if refused is None:
                raise
            now = clock()
            # It went well in between, or is something else.
            if now - last > 2 * MAX_PAUSE_S or type(refused) is not waits_for:
                since, pause_s, waits_for = now, FIRST_PAUSE_S, type(refused)
                words = f"{refused} {then}"
                log.error("%s: %s", what, words)
                tell(words)
            elif now - since > PATIENCE_S:
                raise
            last = now
        await sleep(pause_s)
        pause_s = min(MAX_PAUSE_S, pause_s * 2)
