"""Limits of the documents. The writer keeps within them; the reader refuses a document beyond them, or cuts its texts.

Together the limits keep an honest outcome below `MAX_OUTCOME_BYTES`, whatever its electrons print, raise and return:
in JSON a character takes six bytes at most.
"""

from __future__ import annotations

from collections.abc import Iterable

INLINE_BYTES = 16 * 1024
"""A function, hooks, an input or an output of up to this many bytes is stored inside the document, not as a blob."""

INLINE_TOTAL_BYTES = 256 * 1024
"""Most bytes that are stored inside one document; the rest are blobs."""

LOG_TAIL_BYTES = 32 * 1024
"""Most bytes of the end of stdout, and of stderr, in the outcome itself."""

STRING_BYTES = 10_000
"""``str(result)`` is cut here for display, unless the result is a string (`Output.string`)."""

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
"""A larger call is refused unread; a well-formed call is far smaller. `MAX_OUTCOME_BYTES` is for an outcome."""

MAX_OUTCOME_BYTES = 8 * 1024 * 1024
"""Bytes of an outcome; a larger one is refused unread. Python's parser holds the interpreter's lock while it works: in
the worst case (millions of empty lists) 60 ms for each MiB."""

MAX_NUMBER = 2**53
"""Bytes, seconds and counts: whole numbers up to this are exact in every reader of JSON (RFC 8259, 6)."""

LATEST_S = 4e9
"""Epoch seconds in 2096: no time of a document is later."""

MAX_ATTEMPT = 99
"""Number of an attempt; AWS Batch makes 10 at most (Batch API Reference, RetryStrategy)."""

MAX_TASKS = 1000
"""Electrons of one job, which runs one task group of Covalent."""

MAX_TRIED = 100
"""Earlier tries of a call."""

URI_CHARS = 1024
"""Characters of the URI of a call or an image."""

MAX_PARTS = 40_000
"""Parts of one stream's log in one attempt: 80 GB, or four weeks in which something is printed every minute."""

MAX_PART_BYTES = 4 * 1024 * 1024
"""Bytes of a part of a log; the runner's parts are a little larger than 2 MiB at most (``runner/logs.py``)."""

MAX_NODES = 1000
"""Compute nodes of a multi-node parallel job (Batch User Guide, Multi-node parallel jobs)."""

MAX_PROCESSES = 192
"""Processes that call a function on one compute node: as many as the largest instances have vCPUs."""

MAX_GPUS = 64
"""GPUs of one instance; the largest has 16 (EC2, p2.16xlarge)."""

MAX_FACTS = 32
"""Entries of `Outcome.host` and of `Outcome.times`."""

ID_CHARS = 128
"""Characters of an id, a version, or the name of a fact or signal."""

FACT_CHARS = 256
"""Characters of a fact about a host or GPU."""

ELECTRON_CHARS = 256
"""Characters of the name of an electron or lattice, as of the value of a tag (Batch User Guide, Tag restrictions)."""

MAX_STEP = 2**53
"""Largest step of a reported value: whole numbers up to it are exact in JSON, too (RFC 8259, 6)."""

MAX_ARGUMENTS = 32
"""Arguments of an electron, and fields of arguments, of which a call has a summary (`jobs/arguments.py`)."""

ARGUMENT_NAME_CHARS = 64
"""Characters of the name of such an argument."""

ARGUMENT_CHARS = 48
"""Characters of its summary."""

MAX_STORED = 10_000
"""Stored values (`covalent_cirro.stored`) that the inputs of one call may name."""

STORED_CHARS = 256
"""Characters of the label of a stored value."""

KEY_CHARS = 1024
"""Bytes of an S3 key, at most (S3 User Guide, "Naming Amazon S3 objects")."""

NAME_CHARS = 128
"""Characters of the name of a module or a value."""

MESSAGE_CHARS = 2000
"""Characters of a failure's message, which is one line."""

TRACEBACK_CHARS = 32 * 1024
"""Characters of a failure's traceback: its beginning and its end."""

DOC_CHARS = 4096
"""Characters of a value's ``__doc__``."""

ALL_MESSAGES_CHARS = 128 * 1024
ALL_TRACEBACKS_CHARS = 64 * 1024
ALL_DOCS_CHARS = 64 * 1024
ALL_MODULES_CHARS = 32 * 1024
ALL_TAILS_BYTES = 256 * 1024
"""Totals for all electrons of an outcome. If there are many, each has less (`share`)."""


def share(lengths: Iterable[int], each: int, together: int) -> int:
    """The length that each text may have, so that none is longer than ``each`` and all of them than ``together``.

    Length that short texts do not use is for the long ones.
    """
    asked = sorted(min(length, each) for length in lengths)
    left = together
    for i, length in enumerate(asked):
        if length * (len(asked) - i) > left:
            return left // (len(asked) - i)
        left -= length
    return each
