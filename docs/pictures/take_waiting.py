"""Takes the picture of an electron that waits, from a local stack that explains waits soon:

    CIRRO_WAITING_DEADLINE_S=5 cirro local up --server
    cirro local exec -- python docs/pictures/take_waiting.py

It dispatches an electron that no machine is large enough for, and cancels it. It needs a Chromium, as `take.py` does.
"""

from __future__ import annotations

import sys
import time

import covalent as ct
from browser import LOAD_MS, SETTLE_MS, WITHOUT_FOLDER, asked, chromium, dispatch_page, options

from covalent_cirro import CirroBatchExecutor

WIDTH, HEIGHT = 1400, 900
PATIENCE_S = 120


@ct.electron(executor=CirroBatchExecutor(vcpu=4, memory=2000))
def simulate(cells: int) -> int:
    """Asks for more memory than any instance type of the queue has."""
    return cells


@ct.lattice(executor="cirro")
def simulation(cells: int) -> int:
    """A lattice that waits."""
    result: int = simulate(cells)
    return result


def wait_for_reason(dispatch_id: str) -> None:
    """Until the electron says why it waits.

    Raises:
        SystemExit: It does not.
    """
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if "Ask for less" in asked(f"dispatches/{dispatch_id}/electron/0")["description"]:
            return
        time.sleep(1)
    sys.exit("The electron does not say why it waits. Was the local stack started with CIRRO_WAITING_DEADLINE_S=5?")


def main() -> None:
    given = options("Take the picture of an electron that waits.", of_dispatch=False)
    picture = given.output / "waiting-ui.png"
    dispatch_id = ct.dispatch(simulation)(1_000_000)
    try:
        wait_for_reason(dispatch_id)
        with chromium(given.chromium) as browser:
            page = dispatch_page(browser, dispatch_id, WIDTH, HEIGHT)
            page.locator(".react-flow__node", has_text="Simulate").first.click(timeout=LOAD_MS)
            page.get_by_text("Ask for less").first.wait_for(timeout=LOAD_MS)
            page.evaluate(WITHOUT_FOLDER)
            page.mouse.move(WIDTH / 2, 10)
            page.wait_for_timeout(SETTLE_MS)
            page.screenshot(path=picture)
    finally:
        ct.cancel(dispatch_id)
    print(picture)


if __name__ == "__main__":
    main()
