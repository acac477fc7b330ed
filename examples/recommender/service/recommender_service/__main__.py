"""``python -m recommender_service``: serves the model that ``CIRRO_MODEL`` names, on ``HOST`` and ``PORT``."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Read the environment and serve; returns the exit code."""
    # First of all: a container's first process ignores SIGTERM until it says what to do. uvicorn has its own handler
    # while it serves, and calls this one in the end.
    signal.signal(signal.SIGTERM, _end)
    # Read when NumPy is imported. More threads do not make a product of this size faster, and each has its own memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from recommender_service.server import serve

    uri, host, port = (os.environ.get(*each) for each in (("CIRRO_MODEL", ""), ("HOST", "127.0.0.1"), ("PORT", "8000")))
    if not uri:
        print(
            "CIRRO_MODEL is not set: it names a registered model, s3://BUCKET/PREFIX/models/NAME/VERSION, or a folder "
            "with the files of one.",
            file=sys.stderr,
        )
        return 2
    if not port.isdecimal() or int(port) > 65535:
        print(f"PORT is {port!r}: it must be a number from 0 to 65535.", file=sys.stderr)
        return 2
    return serve(uri, host, int(port))


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
