"""Runs one case of one tool, in the tool's own environment: ``python driver.py TOOL CASE PLACE``, the place as JSON.

It says ``{"ready": ...}`` before the call and waits for a line; after the call it says how long the call took, what
memory this process had, and whether the results are right.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

MARK = "@peers "
"""Begins the lines that are for the rig; tools print, too."""


def main(tool: str, case_name: str, place: dict[str, Any]) -> None:
    """Prepare, say so, wait, call, and say what came of it."""
    from peers.peer import Place, load
    from peers.works import mistakes

    at = Place(Path(place["folder"]), Path(place["inputs"]), place["settings"], place["image"])
    peer = load(tool)
    case = peer.CASES[case_name]
    call = peer.prepare(case, at)
    _say({"ready": memory("VmRSS")})
    sys.stdin.readline()
    began = time.perf_counter()
    results = call()
    seconds = time.perf_counter() - began
    peak = memory("VmHWM")
    _say({"seconds": seconds, "peak": peak, "mistakes": mistakes(case.work, results, at.inputs)[:3]})


def memory(field: str) -> int:
    """Of this process, in bytes: ``VmRSS`` is what is resident now, ``VmHWM`` the peak of that."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}: the measurement needs Linux")


def _say(what: dict[str, Any]) -> None:
    print(MARK + json.dumps(what), flush=True)


if __name__ == "__main__":
    # This folder is no place of modules: a tool's file must not hide the tool.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
    sys.stdout.flush()
    # Threads of a tool that wait for nothing would keep this process.
    os._exit(0)
