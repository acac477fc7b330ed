"""Removes the containers of an emulator that has ended, also of one that was killed.

A program, run with ``python -m`` and the owner's id. It waits until its standard input ends, which happens even when
the emulator is killed, and closes its standard output when no container is left. It must not know the emulator.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

OWNER = "covalent-cirro-emulator.owner"
"""Label of every container, with the id of the emulator that made it."""
LATE_S = 0.5
"""The emulator's last request may make a container after the emulator has ended: the guard ends when it has found none
for this long."""
TRIES_S = 120.0
"""How long the guard tries to reach an engine that does not answer."""


def main(owner: str) -> int:
    """Wait, then remove; the exit status is 1 if containers may be left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.fork():
        # A program that ends the emulator with all its children does not find a grandchild without a parent.
        os._exit(0)
    import docker.errors
    import requests

    import docker

    while os.read(0, 4096):
        pass
    client = docker.from_env()
    give_up = time.monotonic() + TRIES_S
    quiet_since: float | None = None
    while time.monotonic() < give_up:
        try:
            found = client.containers.list(all=True, filters={"label": f"{OWNER}={owner}"}, sparse=True)
            for container in found:  # first kill all of them, which is quick
                with contextlib.suppress(docker.errors.APIError):
                    container.kill()
            for container in found:
                with contextlib.suppress(docker.errors.APIError):
                    container.remove(force=True, v=True)
        except (docker.errors.DockerException, requests.RequestException):
            found = None
        if found or found is None:
            quiet_since = None
        elif quiet_since is None:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > LATE_S:
            return 0
        time.sleep(0.1)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
