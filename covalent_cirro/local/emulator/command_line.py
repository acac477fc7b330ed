"""``python -m covalent_cirro.emulator``: the emulated AWS as a process, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from covalent_cirro import private
from covalent_cirro.errors import CirroError
from covalent_cirro.local.emulator import keys
from covalent_cirro.local.emulator.batch.model import Timing
from covalent_cirro.local.emulator.emulator import REGION, Emulator
from covalent_cirro.local.emulator.moto_internals.loading import preload


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The words after the program's name; wrong ones end the program with exit status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m covalent_cirro.emulator",
        description="An emulated AWS on the loopback. DIR/emulator.json says where, once it answers, and "
        "DIR/credentials has the key that it takes.",
    )
    parser.add_argument("--port", type=int, default=0, help="port; 0 takes a free one (default: 0)")
    parser.add_argument("--state-dir", type=Path, required=True, metavar="DIR", help="folder for its files")
    parser.add_argument("--region", default=REGION, help=f"region (default: {REGION})")
    parser.add_argument("--docker", action="store_true", help="run jobs as containers of their images")
    parser.add_argument(
        "--time-scale", type=float, default=1.0, help="factor on time limits, grace and boot (default: 1)"
    )
    parser.add_argument(
        "--quota-vcpus", type=float, default=None, help="vCPUs of all instances together (default: no limit)"
    )
    parser.add_argument("--iam", action="store_true", help="check calls against the policies of their callers")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit status is 0, or 1 if the emulator could not start."""
    asked = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.umask(private.UMASK)
    stop_signal = _signal_pipe()
    emulator = Emulator(
        asked.port,
        asked.state_dir,
        region=asked.region,
        docker=asked.docker,
        timing=Timing(scale=asked.time_scale),
        quota_vcpus=asked.quota_vcpus,
        iam=asked.iam,
    )
    try:
        emulator.start()
    except (CirroError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    note = asked.state_dir / "emulator.json"
    write_note(note, emulator)
    threading.Thread(target=preload, name="preload", daemon=True).start()
    try:
        os.read(stop_signal, 1)
    finally:
        emulator.close(forget=False)
        forget_note(note)
    return 0


def _signal_pipe() -> int:
    """A descriptor that becomes readable at SIGTERM or SIGINT.

    The system may deliver a signal to any thread; a main thread that waits for a lock does not react to it then.
    """
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return readable


def write_note(path: Path, emulator: Emulator) -> None:
    """Write where the emulator answers, in one step: a reader sees the whole note or none."""
    facts = {
        "pid": os.getpid(),
        "port": emulator.port,
        "endpoint_url": emulator.endpoint_url,
        "region": emulator.region,
        "credentials": str((path.parent / keys.FILE).absolute()),
        "started": time.time(),
    }
    private.write(path, json.dumps(facts))


def forget_note(path: Path) -> None:
    """Remove the note, unless another emulator has written its own note meanwhile."""
    try:
        if json.loads(path.read_text())["pid"] == os.getpid():
            path.unlink()
    except (OSError, ValueError, KeyError):
        pass
