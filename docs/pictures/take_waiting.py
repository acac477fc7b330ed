"""Takes the picture of an electron that waits, from a local stack that explains waits soon:

    CIRRO_WAITING_DEADLINE_S=5 cirro local up --server
    cirro local exec -- python docs/pictures/take_waiting.py

It dispatches an electron that no machine is large enough for, and cancels it. It needs a Chromium, as `take.py` does.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import urllib.request
from pathlib import Path

import covalent as ct
from playwright.sync_api import Page, Route, sync_playwright
from take import FLAGS, LOAD_MS, WITHOUT_FOLDER

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


def wait_for_reason(address: str, dispatch_id: str) -> None:
    """Until the electron says why it waits.

    Raises:
        SystemExit: It does not.
    """
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        url = f"{address}/api/v1/dispatches/{dispatch_id}/electron/0"
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310  (the local server)
            if "Ask for less" in json.load(answer)["description"]:
                return
        time.sleep(1)
    sys.exit("The electron does not say why it waits. Was the local stack started with CIRRO_WAITING_DEADLINE_S=5?")


def panel(page: Page, address: str, dispatch_id: str, path: Path) -> None:
    """The page of a dispatch with the panel of its electron."""
    page.goto(f"{address}/{dispatch_id}", wait_until="load", timeout=LOAD_MS)
    page.locator(".react-flow__node").first.wait_for(timeout=LOAD_MS)
    page.wait_for_timeout(2500)  # the graph is laid out and zoomed in steps, and a click between them is lost
    page.locator(".react-flow__node", has_text="Simulate").first.click(timeout=LOAD_MS)
    page.get_by_text("Ask for less").first.wait_for(timeout=LOAD_MS)
    page.evaluate(WITHOUT_FOLDER)
    page.mouse.move(WIDTH / 2, 10)
    page.wait_for_timeout(2500)  # the panel slides in
    page.screenshot(path=path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the picture of an electron that waits.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder for the picture")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="path of a Chromium")
    options = parser.parse_args()
    if options.chromium is None:
        sys.exit("there is no chromium on the path: install it, or name one with --chromium")
    address = f"http://{ct.get_config('dispatcher.address')}:{ct.get_config('dispatcher.port')}"
    dispatch_id = ct.dispatch(simulation)(1_000_000)

    def local_only(route: Route) -> None:
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            route.abort()

    try:
        wait_for_reason(address, dispatch_id)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=options.chromium, args=list(FLAGS))
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=2)
            page.route("**/*", local_only)
            panel(page, address, dispatch_id, options.output / "waiting-ui.png")
            browser.close()
    finally:
        ct.cancel(dispatch_id)
    print(options.output / "waiting-ui.png")


if __name__ == "__main__":
    main()
