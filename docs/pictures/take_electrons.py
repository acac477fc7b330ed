"""Takes the pictures of `cirro run`, `jobs`, `show`, `logs` and `stop` from a local stack that runs:

    cirro local up --server --vcpus 4
    cirro local exec -- python docs/pictures/take_electrons.py

It dispatches the lattices of `flows.py`: what is shown is what really ran. Addresses of the loopback are replaced.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from terminal import animation, frames_of, output_of, picture

FLOWS = Path(__file__).with_name("flows.py")
RATES = "14"
WIDTH = 122
PATIENCE_S = 180
SEEN_BY_A_USER = (
    (r"http://(127\.0\.0\.1|localhost):\d+", "http://localhost:48008"),
    (re.escape(str(FLOWS)), "flows.py"),
    (r"\(cirro stop, by [^)]*\)", "(cirro stop, by ada)"),
    (r" --profile emulated", ""),
)


def seen_by_a_user(text: str) -> str:
    """A text without what is of this machine."""
    for here, there in SEEN_BY_A_USER:
        text = re.sub(here, there, text)
    return text


def told(command: str, *arguments: str) -> Any:
    """What a command says with ``--json``."""
    return json.loads(output_of([command, "--json", *arguments], width=100_000))


def reach(condition: Callable[[], Any]) -> Any:
    """The condition's first true value.

    Raises:
        SystemExit: It did not come true.
    """
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.5)
    sys.exit("what was to be seen did not come")


def detached(lattice: str, *arguments: str) -> str:
    """The id of a dispatch that nobody waits for."""
    return str(told("run", "--detach", f"{FLOWS}:{lattice}", *arguments)["dispatch_id"])


def rows(dispatch_id: str, state: str) -> list[dict[str, Any]]:
    """The electrons of a dispatch that are in a state."""
    return [row for row in told("jobs")["jobs"] if (row["dispatch_id"], row["state"]) == (dispatch_id, state)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures of electrons in the terminal.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder for the pictures")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)

    def keep(name: str, command: str, text: str) -> None:
        (output / f"{name}.svg").write_text(picture(command, seen_by_a_user(text), WIDTH))
        print(output / f"{name}.svg", file=sys.__stdout__)

    frames = frames_of(["run", f"{FLOWS}:sweep", "--rates", RATES], WIDTH)
    midst = [each for each in frames if all(state in each for state in ("SUCCEEDED", "RUNNING ", "RUNNABLE"))]
    keep("cirro-run", f"cirro run flows.py:sweep --rates {RATES}", (midst or frames)[len(midst or frames) // 2])

    moving = animation(f"cirro run flows.py:sweep --rates {RATES}", [seen_by_a_user(each) for each in frames], WIDTH)
    (output / "cirro-run-live.svg").write_text(moving)
    print(output / "cirro-run-live.svg", file=sys.__stdout__)

    dispatch = detached("sweep", "--rates", "2", "--epochs", "12")
    running = reach(lambda: rows(dispatch, "RUNNING"))[0]
    name = f"{dispatch[:8]}:{running['node_id']}"
    keep("cirro-logs", f"cirro logs {name} -f", output_of(["logs", name, "-f"], WIDTH))

    dispatch = detached("loading")
    failed = reach(lambda: rows(dispatch, "FAILED"))[0]
    name = f"{dispatch[:8]}:{failed['node_id']}"
    keep("cirro-show", f"cirro show {name}", output_of(["show", name], WIDTH))

    dispatch = detached("sweep", "--rates", "10", "--epochs", "200")
    reach(lambda: rows(dispatch, "RUNNING") and rows(dispatch, "RUNNABLE"))
    keep("cirro-jobs", "cirro jobs", output_of(["jobs"], WIDTH))
    keep("cirro-stop", f"cirro stop {dispatch[:8]}", output_of(["stop", dispatch], WIDTH))


if __name__ == "__main__":
    main()
