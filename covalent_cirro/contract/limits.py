"""How much a document may say: the side that writes keeps within it, the side that reads refuses or cuts the rest.

Together the limits keep an honest outcome below `MAX_OUTCOME_BYTES`, whatever its electrons print, raise and return:
in JSON a character takes six bytes at most.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_OUTCOME_BYTES = 8 * 1024 * 1024
"""A larger outcome is refused unread. Python's parser holds the interpreter's lock while it works: at the worst
(millions of empty lists) 60 ms for each MiB."""

MAX_NUMBER = 2**53
"""Bytes, seconds and counts: whole numbers up to this are exact in every reader of JSON (RFC 8259, 6)."""

LATEST_S = 4e9
"""Epoch seconds in 2096: no time of a document is later."""

MAX_ATTEMPT = 99
"""Number of an attempt; AWS Batch makes 10 at most (Batch API Reference, RetryStrategy)."""

MAX_TASKS = 1000
"""Electrons of one job, which is a task group of Covalent's."""

MAX_PARTS = 40_000
"""Parts of one stream's log in one attempt: 80 GB, or four weeks in which something is printed every minute."""

MAX_PART_BYTES = 4 * 1024 * 1024
"""Of a part; the runner cuts them at 2 MiB and a little more (``runner/logs.py``)."""

MAX_GPUS = 64
"""GPUs of one instance; the largest has 16 (EC2, p2.16xlarge)."""

MAX_FACTS = 32
"""Entries of what is known of the host, and of the milestones."""

ID_CHARS = 128
"""Ids, versions, names of facts and of signals."""

FACT_CHARS = 256
"""What is known of a host or GPU."""

ELECTRON_CHARS = 256
"""Name of an electron or lattice: as many as the value of a tag has (Batch User Guide, Tag restrictions)."""

NAME_CHARS = 128
"""Name of a module or a value."""

MESSAGE_CHARS = 2000
"""Of a failure, in one line."""

TRACEBACK_CHARS = 32 * 1024
"""Of a failure: its beginning and its end."""

DOC_CHARS = 4096
"""``__doc__`` of a value."""

ALL_MESSAGES_CHARS = 128 * 1024
ALL_TRACEBACKS_CHARS = 64 * 1024
ALL_DOCS_CHARS = 64 * 1024
ALL_TAILS_BYTES = 256 * 1024
"""Of all electrons of an outcome together. Many have less each (`share`)."""


def share(lengths: Iterable[int], each: int, together: int) -> int:
    """What each of some texts may have, so that none has more than ``each``, nor all of them more than ``together``.

    What the short ones leave is for the long ones.
    """
    asked = sorted(min(length, each) for length in lengths)
    left = together
    for i, length in enumerate(asked):
        if length * (len(asked) - i) > left:
            return left // (len(asked) - i)
        left -= length
    return each
