"""What the job definition's command runs: ``python -m covalent_cirro.runner s3://bucket/.../call.json``.

Forks the electron's process first, then loads the supervisor: the two start side by side, and the child never inherits
a thread. Must not import anything that either side can do without.
"""

from __future__ import annotations

import os
import sys
import time


def main() -> int:
    """Run one call; returns the exit code (`protocol.ExitCode`)."""
    started = time.time()
    # protocol is imported before the fork: both sides need it, and one import is cheaper than two.
    from covalent_cirro.contract import protocol
    from covalent_cirro.runner import process

    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m covalent_cirro.runner s3://bucket/<prefix>/jobs/.../call.json\n")
        return protocol.ExitCode.BAD_CALL
    electron = process.fork()

    from covalent_cirro.runner import supervisor

    return supervisor.supervise(electron, sys.argv[1], started)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the native threads' orderly shutdown, which only costs time: all that matters is stored.
    os._exit(code)
