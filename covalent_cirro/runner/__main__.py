"""What the job definition's command runs: ``python -m covalent_cirro.runner s3://bucket/.../call.json``.

Forks the electron's process first, then imports the supervisor: both start at the same time, and the child inherits no
thread. It must import nothing that one of the two does not need.
"""

from __future__ import annotations

import os
import sys
import time


def main() -> int:
    """Run one call; returns the exit code (`protocol.ExitCode`)."""
    started = time.time()
    # Imported before the fork: both processes need it, and one import is cheaper than two.
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
    # Without an orderly shutdown of the native threads, which would only take time: everything is stored by now.
    os._exit(code)
